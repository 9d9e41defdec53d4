//! What the fuzz targets share: a process whose memory is the input.

use dnd_clr::stack::Context;
use dnd_memory::{Arch, Arm64Registers, Memory, Missing, Registers, X64Registers};

/// Where the input lies in memory.
pub const BASE: u64 = 0x1_0000;
/// More than the longest input.
pub const SPAN: u64 = 0x1_0000;

/// Memory that holds the input at [`BASE`], and nothing else.
pub struct Input<'a>(pub &'a [u8]);

impl Memory for Input<'_> {
    fn run(&self, addr: u64) -> &[u8] {
        addr.checked_sub(BASE).and_then(|at| self.0.get(usize::try_from(at).ok()?..)).unwrap_or_default()
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
        let missing = Missing { addr, len: buf.len() as u64 };
        buf.copy_from_slice(self.run(addr).get(..buf.len()).ok_or(missing)?);
        Ok(())
    }
}

/// Numbers from the front of the input, and what is left of it.
pub struct Numbers<'a>(pub &'a [u8]);

impl Numbers<'_> {
    /// A byte; 0 behind the end.
    pub fn u8(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A number of 16 bits.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// An address in the input or a little beside it.
    pub fn address(&mut self) -> u64 {
        BASE.wrapping_add_signed(self.u16().cast_signed().into())
    }
}

/// A frame whose registers point into the input.
pub fn frame(arch: Arch, numbers: &mut Numbers<'_>) -> Context {
    let ip = numbers.address();
    Context::of_thread(&match arch {
        Arch::X64 => {
            let mut registers = X64Registers { rip: ip, ..X64Registers::default() };
            for number in [3, 4, 5, 12, 13] {
                registers.general[number] = numbers.address();
            }
            Registers::X64(registers)
        }
        Arch::Arm64 => {
            let mut registers = Arm64Registers { pc: ip, sp: numbers.address(), ..Arm64Registers::default() };
            for number in [19, 29, 30] {
                registers.x[number] = numbers.address();
            }
            Registers::Arm64(registers)
        }
    })
}
