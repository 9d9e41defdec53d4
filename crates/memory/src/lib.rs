//! Bytes at target addresses: ELF core dumps, images inside them, files behind them.
//!
//! * [`Memory`] is the seam: addresses in, bytes out, and what is absent is [`Missing`], never zeros;
//! * [`Target`] adds what a dump says of its process: processor, mapped files, threads;
//! * [`Core`] is an ELF core file, [`WithFiles`] the same with the module files of this machine behind it;
//! * [`ElfImage`] finds symbols, data ranges and the build-id of an image inside any memory;
//! * [`ElfFile`] is an image on disk, seen as if it were loaded.
//!
//! The crate knows nothing of .NET. It is the only one that may use `unsafe`, in `map.rs`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod bytes;
mod corefile;
mod elf;
mod error;
mod files;
mod map;
mod packed;
mod runs;
mod target;

pub use corefile::{AuxEntry, Core, Createdump, Maker, Packed, ProcessInfo, SignalInfo, Truncation};
pub use elf::{ElfFile, ElfImage, ImageError, ProgramHeader, Symbol};
pub use error::Error;
pub use files::{FileOptions, FileUse, Verdict, WithFiles};
pub use map::{MappedFile, ZeroedWords, prefetch};
pub use packed::{Packing, Progress};
pub use target::{
    Arch, Arm64Registers, FileMapping, Memory, Missing, Permissions, Range, Registers, Target, Thread,
    X64Registers,
};
