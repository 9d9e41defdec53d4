//! The notes of a core: threads, mapped files, command. Layouts: Linux include/uapi/linux/elfcore.h, elf.h,
//! fs/binfmt_elf.c.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::Serialize;

use crate::bytes::{u16_at, u32_at, u64_at, until_nul};
use crate::target::{Arch, Arm64Registers, FileMapping, Registers, Thread, X64Registers};

const NT_PRSTATUS: u32 = 1;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_FILE: u32 = 0x4649_4c45;
const NT_SIGINFO: u32 = 0x5349_4749;

/// What a core says of its process (NT_PRPSINFO). Texts are lossy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessInfo {
    /// Process id, in the target's pid namespace.
    pub pid: u32,
    /// The parent's.
    pub ppid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Name of the executable, cut to 15 bytes.
    pub name: String,
    /// Command line, cut to 79 bytes, arguments separated by blanks.
    pub command: String,
}

/// The signal that a dump was taken for (NT_SIGINFO).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SignalInfo {
    /// Its number.
    pub number: i32,
    /// Its `si_code`: who sent it, or which kind of fault.
    pub code: i32,
    /// For a fault (SIGSEGV, SIGBUS, SIGILL, SIGFPE raised by the processor): the address.
    pub fault_address: Option<u64>,
}

/// One entry of the auxiliary vector (getauxval(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuxEntry {
    /// `AT_…`.
    pub key: u64,
    /// Its value.
    pub value: u64,
}

#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) threads: Vec<Thread>,
    pub(super) mappings: Vec<FileMapping>,
    pub(super) process: Option<ProcessInfo>,
    pub(super) signal: Option<SignalInfo>,
    pub(super) auxv: Vec<AuxEntry>,
    /// Types of the first two notes; by these the makers of cores differ.
    pub(super) first: Vec<u32>,
}

/// Which program wrote a core, as the order of its notes shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Maker {
    /// .NET's createdump: process, auxiliary vector, files, then the threads.
    Createdump,
    /// gdb's gcore: process, then the threads.
    Gcore,
    /// Linux: the crashing thread first.
    Kernel,
}

fn align4(n: usize) -> Option<usize> {
    Some(n.checked_add(3)? & !3)
}

/// Name (without NUL), type and contents of each note of `bytes`; stops where they are cut off or damaged.
pub(crate) fn each(bytes: &[u8]) -> impl Iterator<Item = (&[u8], u32, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let name_len = u32_at(rest, 0)? as usize;
        let len = u32_at(rest, 4)? as usize;
        let kind = u32_at(rest, 8)?;
        let body = rest.get(12..)?;
        let name = body.get(..name_len)?;
        let start = align4(name_len)?;
        let contents = body.get(start..start.checked_add(len)?)?;
        rest = body.get(start.checked_add(align4(len)?)?..).unwrap_or_default();
        Some((until_nul(name), kind, contents))
    })
}

impl Notes {
    pub(super) fn read(&mut self, bytes: &[u8], arch: Arch) {
        for (name, kind, contents) in each(bytes) {
            if name != b"CORE" {
                continue;
            }
            if self.first.len() < 2 {
                self.first.push(kind);
            }
            match kind {
                NT_PRSTATUS => self.threads.extend(thread(contents, arch)),
                NT_PRPSINFO => self.process = process(contents).or(self.process.take()),
                NT_AUXV => self.auxv = auxv(contents),
                NT_FILE => self.mappings.extend(files(contents)),
                // One per thread in kernel cores, the crashing thread's first.
                NT_SIGINFO => self.signal = self.signal.or_else(|| signal(contents)),
                _ => {}
            }
        }
    }

    /// Sources: createdump's `crashinfo`/`dumpwriterelf.cpp` (dotnet/runtime src/coreclr/debug/createdump), gdb's
    /// `linux-tdep.c` (`linux_make_corefile_notes`), Linux `fs/binfmt_elf.c` (`fill_note_info`).
    pub(super) fn maker(&self) -> Option<Maker> {
        match *self.first {
            [NT_PRPSINFO, NT_AUXV] => Some(Maker::Createdump),
            [NT_PRPSINFO, NT_PRSTATUS] => Some(Maker::Gcore),
            [NT_PRSTATUS, NT_PRPSINFO] => Some(Maker::Kernel),
            _ => None,
        }
    }

    pub(super) fn finish(&mut self) {
        self.mappings.sort_by_key(|file| file.start);
        if self.signal.is_none() {
            self.signal = self.threads.first().filter(|thread| thread.signal != 0).map(|thread| SignalInfo {
                number: thread.signal.into(),
                code: 0,
                fault_address: None,
            });
        }
    }
}

/// `struct elf_prstatus`: pr_cursig@12, pr_pid@32, pr_reg@112.
fn thread(bytes: &[u8], arch: Arch) -> Option<Thread> {
    let register = |i: usize| u64_at(bytes, 112 + 8 * i);
    let registers = match arch {
        Arch::X64 => {
            // user_regs_struct: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags
            // rsp ss fs_base gs_base ds es fs gs.
            const ORDER: [usize; 16] = [10, 11, 12, 5, 19, 4, 13, 14, 9, 8, 7, 6, 3, 2, 1, 0];
            let mut general = [0; 16];
            for (value, from) in general.iter_mut().zip(ORDER) {
                *value = register(from)?;
            }
            Registers::X64(X64Registers {
                general,
                rip: register(16)?,
                rflags: register(18)?,
                fs_base: register(21)?,
                gs_base: register(22)?,
            })
        }
        Arch::Arm64 => {
            let mut x = [0; 31];
            for (i, value) in x.iter_mut().enumerate() {
                *value = register(i)?;
            }
            Registers::Arm64(Arm64Registers {
                x,
                sp: register(31)?,
                pc: register(32)?,
                pstate: register(33)?,
            })
        }
    };
    Some(Thread { tid: u32_at(bytes, 32)?, signal: u16_at(bytes, 12)?, registers })
}

/// `struct elf_prpsinfo` of 64-bit Linux.
fn process(bytes: &[u8]) -> Option<ProcessInfo> {
    let text =
        |from: usize, to: usize| Some(String::from_utf8_lossy(until_nul(bytes.get(from..to)?)).into_owned());
    Some(ProcessInfo {
        uid: u32_at(bytes, 16)?,
        gid: u32_at(bytes, 20)?,
        pid: u32_at(bytes, 24)?,
        ppid: u32_at(bytes, 28)?,
        name: text(40, 56)?,
        // Linux ends the arguments with a blank.
        command: text(56, 136)?.trim_end().to_owned(),
    })
}

fn auxv(bytes: &[u8]) -> Vec<AuxEntry> {
    let (pairs, _) = bytes.as_chunks::<16>();
    pairs
        .iter()
        .map_while(|pair| Some(AuxEntry { key: u64_at(pair, 0)?, value: u64_at(pair, 8)? }))
        .take_while(|entry| entry.key != 0)
        .collect()
}

/// count, page size, count × (start, end, offset in pages), then the paths, each ended by NUL.
fn files(bytes: &[u8]) -> Vec<FileMapping> {
    let (Some(count), Some(page)) = (u64_at(bytes, 0), u64_at(bytes, 8)) else { return Vec::new() };
    // A count that doesn't fit means that the note is damaged, and then the paths can't be found.
    let Some(count) = usize::try_from(count).ok().filter(|&count| count <= bytes.len() / 24) else {
        return Vec::new();
    };
    let paths = bytes.get(16 + 24 * count..).unwrap_or_default();
    let ranges = bytes.get(16..16 + 24 * count).unwrap_or_default();
    let (ranges, _) = ranges.as_chunks::<24>();
    ranges
        .iter()
        .zip(paths.split(|&b| b == 0))
        .filter_map(|(range, path)| {
            let (start, end) = (u64_at(range, 0)?, u64_at(range, 8)?);
            let offset = u64_at(range, 16)?.checked_mul(page)?;
            (start < end).then(|| FileMapping {
                start,
                end,
                offset,
                path: PathBuf::from(OsStr::from_bytes(path)),
            })
        })
        .collect()
}

/// `siginfo_t`: si_signo, si_errno, si_code, then si_addr@16 for faults.
fn signal(bytes: &[u8]) -> Option<SignalInfo> {
    let number = u32_at(bytes, 0)? as i32;
    let code = u32_at(bytes, 8)? as i32;
    // Codes above zero come from the kernel; 0x80 (SI_KERNEL) has no address.
    let fault = matches!(number, 4 | 7 | 8 | 11) && code > 0 && code < 0x80;
    Some(SignalInfo { number, code, fault_address: if fault { u64_at(bytes, 16) } else { None } })
}
