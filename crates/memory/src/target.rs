//! The seam between whatever holds a target's bytes and everything that interprets them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::map::MappedFile;

/// Bytes that a reader asked for and that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{len} {} at {addr:#x} {} not in the dump", if *.len == 1 { "byte" } else { "bytes" }, if *.len == 1 { "is" } else { "are" })]
pub struct Missing {
    /// First address asked for.
    pub addr: u64,
    /// Number of bytes asked for.
    pub len: u64,
}

/// A target's memory: addresses in, bytes out. All numbers are little endian.
///
/// Implementations never invent bytes: what is not there is [`Missing`], also in the middle of a range.
pub trait Memory: Sync {
    /// The bytes from `addr` to the end of the run of bytes that lie behind each other in the backing store;
    /// empty when the byte at `addr` is missing or can't be borrowed.
    fn run(&self, addr: u64) -> &[u8];

    /// Fills `buf` with the bytes at `addr`, or says which are missing.
    ///
    /// # Errors
    /// [`Missing`] when any byte of the range is not there.
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing>;

    /// `len` bytes at `addr`, borrowed; `None` when they are not all there or not in one piece.
    fn slice(&self, addr: u64, len: usize) -> Option<&[u8]> {
        self.run(addr).get(..len)
    }

    /// The byte at `addr`.
    ///
    /// # Errors
    /// [`Missing`] when it is not there.
    fn u8(&self, addr: u64) -> Result<u8, Missing> {
        let mut b = [0; 1];
        self.read(addr, &mut b)?;
        Ok(u8::from_le_bytes(b))
    }

    /// The 16-bit number at `addr`.
    ///
    /// # Errors
    /// [`Missing`] when any byte of it is not there.
    fn u16(&self, addr: u64) -> Result<u16, Missing> {
        let mut b = [0; 2];
        self.read(addr, &mut b)?;
        Ok(u16::from_le_bytes(b))
    }

    /// The 32-bit number at `addr`.
    ///
    /// # Errors
    /// [`Missing`] when any byte of it is not there.
    fn u32(&self, addr: u64) -> Result<u32, Missing> {
        let mut b = [0; 4];
        self.read(addr, &mut b)?;
        Ok(u32::from_le_bytes(b))
    }

    /// The 64-bit number (or pointer) at `addr`.
    ///
    /// # Errors
    /// [`Missing`] when any byte of it is not there.
    fn u64(&self, addr: u64) -> Result<u64, Missing> {
        let mut b = [0; 8];
        self.read(addr, &mut b)?;
        Ok(u64::from_le_bytes(b))
    }

    /// The bytes at `addr` up to the first NUL, at most `max` of them; also stops where memory is missing.
    fn c_string(&self, addr: u64, max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for i in 0..max {
            match self.u8(addr.wrapping_add(i as u64)) {
                Ok(b) if b != 0 => out.push(b),
                _ => break,
            }
        }
        out
    }

    /// The UTF-16 text at `addr` up to the first NUL, at most `max` units; unpaired surrogates are replaced.
    ///
    /// # Errors
    /// [`Missing`] when memory ends before the NUL.
    fn utf16_z(&self, addr: u64, max: usize) -> Result<String, Missing> {
        let mut units = Vec::new();
        while units.len() < max {
            match self.u16(addr.wrapping_add(2 * units.len() as u64))? {
                0 => break,
                unit => units.push(unit),
            }
        }
        Ok(String::from_utf16_lossy(&units))
    }
}

impl<M: Memory + ?Sized> Memory for &M {
    fn run(&self, addr: u64) -> &[u8] {
        (**self).run(addr)
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
        (**self).read(addr, buf)
    }
}

/// A processor family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    X64,
    /// AArch64.
    Arm64,
}

impl Arch {
    /// The name that .NET uses in runtime identifiers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Arch::X64 => "x64",
            Arch::Arm64 => "arm64",
        }
    }
}

/// A part of a file in a target's memory, as NT_FILE or /proc/PID/maps lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Where in the file the byte at `start` is.
    pub offset: u64,
    /// The file, as the target saw it (its mount namespace); ends with ` (deleted)` when it was deleted.
    pub path: PathBuf,
}

impl FileMapping {
    /// The path's last component, lossy; empty when it has none.
    #[must_use]
    pub fn file_name(&self) -> std::borrow::Cow<'_, str> {
        self.path.file_name().map_or_else(Default::default, OsStr::to_string_lossy)
    }
}

/// What may be done with a range of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Permissions {
    /// It can be read.
    pub read: bool,
    /// It can be written.
    pub write: bool,
    /// It can be executed.
    pub execute: bool,
}

/// Bytes that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// What the target could do with them.
    pub permissions: Permissions,
}

/// Registers of an x86-64 thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct X64Registers {
    /// By the processor's own numbers, as unwind codes and GC info use them:
    /// rax rcx rdx rbx rsp rbp rsi rdi r8 … r15.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Base of the fs segment: the thread's TLS block.
    pub fs_base: u64,
    /// Base of the gs segment.
    pub gs_base: u64,
}

/// Registers of an AArch64 thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arm64Registers {
    /// x0 … x30; x29 is the frame pointer, x30 the link register.
    pub x: [u64; 31],
    /// Stack pointer.
    pub sp: u64,
    /// Program counter.
    pub pc: u64,
    /// Processor state.
    pub pstate: u64,
}

/// Registers of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registers {
    /// x86-64.
    X64(X64Registers),
    /// AArch64.
    Arm64(Arm64Registers),
}

const X64_NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];
const ARM64_NAMES: [&str; 31] = [
    "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
    "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "fp", "lr",
];

impl Registers {
    /// Instruction pointer.
    #[must_use]
    pub fn ip(&self) -> u64 {
        match self {
            Registers::X64(r) => r.rip,
            Registers::Arm64(r) => r.pc,
        }
    }

    /// Stack pointer.
    #[must_use]
    pub fn sp(&self) -> u64 {
        match self {
            Registers::X64(r) => r.general[4],
            Registers::Arm64(r) => r.sp,
        }
    }

    /// Frame pointer: rbp or x29.
    #[must_use]
    pub fn fp(&self) -> u64 {
        match self {
            Registers::X64(r) => r.general[5],
            Registers::Arm64(r) => r.x[29],
        }
    }

    /// Every general register with its name (on x86-64 with rsp among them, on AArch64 without sp).
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let (names, values): (&[&'static str], &[u64]) = match self {
            Registers::X64(r) => (&X64_NAMES, &r.general),
            Registers::Arm64(r) => (&ARM64_NAMES, &r.x),
        };
        names.iter().copied().zip(values.iter().copied())
    }
}

/// A thread of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thread {
    /// The kernel's thread id, in the target's own pid namespace.
    pub tid: u32,
    /// The signal that it was handling when the dump was taken, 0 for none.
    pub signal: u16,
    /// Its registers.
    pub registers: Registers,
}

/// A process's memory and what is known of the process besides.
pub trait Target: Memory {
    /// Its processor.
    fn arch(&self) -> Arch;

    /// The files in its memory, sorted by address; empty when the dump doesn't say.
    fn mappings(&self) -> &[FileMapping];

    /// Its threads in the dump's order (the first is the one that the dump was taken for, when it crashed).
    fn threads(&self) -> &[Thread];

    /// Which bytes are there, sorted by address, not overlapping.
    fn ranges(&self) -> &[Range];

    /// The ELF image that begins at `base` as its file says it was loaded: constants and initial values, relocated.
    /// `None` when there is no file at hand that is proved to be the same. Never what the process wrote since.
    fn file_image(&self, base: u64) -> Option<&dyn Memory> {
        let _ = base;
        None
    }

    /// A file that belongs to the target by its path there, such as the symbols beside a module; `accept` says by its
    /// bytes whether it is the right one, and why not. `None` when there are no files behind the target.
    fn find_file(
        &self,
        path: &Path,
        accept: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Option<MappedFile> {
        let _ = (path, accept);
        None
    }
}
