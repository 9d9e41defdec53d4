//! ELF images: loaded ones inside a memory, and files seen as if they were loaded.

mod file;
mod image;

use crate::bytes::{u32_at, u64_at};
use crate::target::Permissions;

pub use file::ElfFile;
pub(crate) use file::Raw;
pub use image::{ElfImage, ImageError, Symbol};

pub(crate) const PT_LOAD: u32 = 1;
pub(crate) const PT_DYNAMIC: u32 = 2;
pub(crate) const PT_NOTE: u32 = 4;
pub(crate) const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
pub(crate) const PT_GNU_RELRO: u32 = 0x6474_e552;
pub(crate) const EM_X86_64: u16 = 62;
pub(crate) const EM_AARCH64: u16 = 183;

/// One program header (`Elf64_Phdr`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramHeader {
    /// `p_type`.
    pub kind: u32,
    /// `p_flags`: 1 execute, 2 write, 4 read.
    pub flags: u32,
    /// Offset in the file.
    pub offset: u64,
    /// Address, before the load bias is added.
    pub vaddr: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes in memory.
    pub memory_size: u64,
}

impl ProgramHeader {
    /// Bytes of a program header.
    pub(crate) const SIZE: usize = 56;

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32_at(bytes, 0)?,
            flags: u32_at(bytes, 4)?,
            offset: u64_at(bytes, 8)?,
            vaddr: u64_at(bytes, 16)?,
            file_size: u64_at(bytes, 32)?,
            memory_size: u64_at(bytes, 40)?,
        })
    }

    /// What its flags allow.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        Permissions { read: self.flags & 4 != 0, write: self.flags & 2 != 0, execute: self.flags & 1 != 0 }
    }
}
