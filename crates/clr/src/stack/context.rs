//! Registers of a frame.

use dnd_memory::{Arch, Registers};

/// Number of the stack pointer in [`Context`]: the processor's own number on x64, one behind x30 on arm64.
const SP_X64: usize = 4;
const SP_ARM64: usize = 31;
const FP_X64: usize = 5;
const FP_ARM64: usize = 29;
const LR_ARM64: usize = 30;

/// Registers that a callee leaves as they were, as bits. x64 (System V): rbx, rsp, rbp, r12 to r15; arm64: x19 to x29, sp.
const PRESERVED_X64: u32 = 1 << 3 | 1 << SP_X64 | 1 << FP_X64 | 0xf << 12;
const PRESERVED_ARM64: u32 = 0x7ff << 19 | 1 << SP_ARM64;

const NAMES_X64: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];
const NAMES_ARM64: [&str; 32] = [
    "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
    "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "fp", "lr",
    "sp",
];

/// The registers of a frame, as far as they are known: unwinding brings back only those that a callee saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    arch: Arch,
    /// Instruction pointer.
    pub ip: u64,
    values: [u64; 32],
    known: u32,
}

impl Context {
    /// With nothing known but where it is.
    pub(crate) fn new(arch: Arch, ip: u64, sp: u64) -> Self {
        let mut context = Self { arch, ip, values: [0; 32], known: 0 };
        context.set(context.sp_number(), sp);
        context
    }

    /// All registers of an interrupted thread.
    #[must_use]
    pub fn of_thread(registers: &Registers) -> Self {
        match registers {
            Registers::X64(r) => {
                let mut context = Self::new(Arch::X64, r.rip, 0);
                for (number, &value) in r.general.iter().enumerate() {
                    context.set(number, value);
                }
                context
            }
            Registers::Arm64(r) => {
                let mut context = Self::new(Arch::Arm64, r.pc, r.sp);
                for (number, &value) in r.x.iter().enumerate() {
                    context.set(number, value);
                }
                context
            }
        }
    }

    /// The processor.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.arch
    }

    fn sp_number(&self) -> usize {
        match self.arch {
            Arch::X64 => SP_X64,
            Arch::Arm64 => SP_ARM64,
        }
    }

    /// Number of the frame pointer: rbp or x29.
    pub(crate) fn fp_number(&self) -> usize {
        match self.arch {
            Arch::X64 => FP_X64,
            Arch::Arm64 => FP_ARM64,
        }
    }

    /// Stack pointer.
    #[must_use]
    pub fn sp(&self) -> u64 {
        self.values.get(self.sp_number()).copied().unwrap_or(0)
    }

    /// Frame pointer, if it is known.
    #[must_use]
    pub fn fp(&self) -> Option<u64> {
        self.get(self.fp_number())
    }

    /// Link register of arm64, if it is known.
    pub(crate) fn lr(&self) -> Option<u64> {
        if self.arch == Arch::Arm64 { self.get(LR_ARM64) } else { None }
    }

    /// A register by number (x64: rax rcx rdx rbx rsp rbp rsi rdi r8 …; arm64: x0 … x30, sp), if it is known.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<u64> {
        let known = u32::try_from(number)
            .ok()
            .and_then(|n| 1u32.checked_shl(n))
            .is_some_and(|bit| self.known & bit != 0);
        if known { self.values.get(number).copied() } else { None }
    }

    /// Sets a register; numbers that no register has are ignored.
    pub(crate) fn set(&mut self, number: usize, value: u64) {
        if let Some(slot) = self.values.get_mut(number) {
            *slot = value;
            self.known |= 1 << number;
        }
    }

    /// Takes over the registers that another context knows.
    pub(crate) fn overlay(&mut self, other: &Self) {
        for number in 0..self.values.len() {
            if let Some(value) = other.get(number) {
                self.set(number, value);
            }
        }
    }

    /// Forgets a register whose value can't be had.
    pub(crate) fn forget(&mut self, number: usize) {
        self.known &= !(1u32.checked_shl(number as u32).unwrap_or(0));
    }

    /// Sets the stack pointer.
    pub(crate) fn set_sp(&mut self, sp: u64) {
        self.set(self.sp_number(), sp);
    }

    /// Forgets what a call destroys: the registers of its caller are not in them.
    pub(crate) fn forget_scratch(&mut self) {
        self.known &= match self.arch {
            Arch::X64 => PRESERVED_X64,
            Arch::Arm64 => PRESERVED_ARM64,
        };
    }

    /// Whether a callee may destroy a register.
    pub(crate) fn is_scratch(&self, number: usize) -> bool {
        let preserved = match self.arch {
            Arch::X64 => PRESERVED_X64,
            Arch::Arm64 => PRESERVED_ARM64,
        };
        number > 31 || preserved & 1 << number == 0
    }

    /// Name of a register.
    #[must_use]
    pub fn name(arch: Arch, number: usize) -> &'static str {
        let names: &[&'static str] = match arch {
            Arch::X64 => &NAMES_X64,
            Arch::Arm64 => &NAMES_ARM64,
        };
        names.get(number).copied().unwrap_or("?")
    }
}
