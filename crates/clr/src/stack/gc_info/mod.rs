//! GC info: which registers and stack slots hold references at an offset of a method.
//!
//! A stream of bits: header, offsets of the method's calls ("safe points"), ranges in which it may be stopped anywhere,
//! a table of all its slots, and which of them are live where. Format versions 2 (3.1 to 8), 3 (9) and 4 (10), in
//! the encodings of x64 and arm64. Sources: `inc/gcinfotypes.h` (`AMD64GcInfoEncoding`, `ARM64GcInfoEncoding`),
//! `inc/gcinfodecoder.h`, `vm/gcinfodecoder.cpp` of dotnet/runtime v8.0.0 (2), v9.0.0 (3), v10.0.0 (4); dotnet/diagnostics
//! `src/shared/vm/gcinfodecoder.cpp`, which reads all of them.

mod bits;
mod live;
mod slots;
#[cfg(test)]
mod tests;

use bits::Bits;
use dnd_memory::{Arch, Memory, Missing};
use thiserror::Error;

pub use live::{LiveSet, Stands};
pub use slots::{Base, Live, Place};

/// Why GC info can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GcInfoError {
    /// Bytes that are not there.
    #[error("the GC info of a method is not in the dump")]
    Missing(#[from] Missing),
    /// Numbers that can't be right.
    #[error("the GC info of a method is damaged")]
    Damaged,
}

/// No method has so many slots, safe points or ranges.
const MAX_COUNT: u64 = 1 << 18;

const HAS_GS_COOKIE: u64 = 0x4;
const HAS_PSP_SYM: u64 = 0x8;
const GENERIC_CONTEXT: u64 = 0x30;
const HAS_STACK_BASE: u64 = 0x40;
/// x64; on arm64 the bit says that the method has tail calls, and only the leaf ever reports.
const REPORT_ONLY_LEAF: u64 = 0x80;
const HAS_EDIT_AND_CONTINUE: u64 = 0x100;
const REVERSE_PINVOKE: u64 = 0x200;

/// Numbers of bits that differ between the processors.
#[derive(Debug, Clone, Copy)]
struct Encoding {
    stack_base: u32,
    /// Exclusive-or of the frame register's number.
    stack_base_default: u64,
    edit_and_continue_fields: u32,
    safe_points: u32,
    registers: u32,
    /// The code's length is stored without these low bits; from version 4 on offsets are, too.
    code_shift: u32,
}

impl Encoding {
    fn of(arch: Arch) -> Self {
        match arch {
            Arch::X64 => Self {
                stack_base: 3,
                stack_base_default: 5,
                edit_and_continue_fields: 1,
                safe_points: 2,
                registers: 2,
                code_shift: 0,
            },
            Arch::Arm64 => Self {
                stack_base: 2,
                stack_base_default: 29,
                edit_and_continue_fields: 2,
                safe_points: 3,
                registers: 3,
                code_shift: 2,
            },
        }
    }
}

/// The GC info of a method.
#[derive(Debug, Clone)]
pub struct GcInfo<'m> {
    encoding: Encoding,
    version: u32,
    /// Offsets are stored without these low bits.
    offset_shift: u32,
    flags: u64,
    /// Bytes of the method's code.
    pub code_length: u64,
    /// Number of the register that frame offsets count from.
    pub stack_base: Option<usize>,
    /// Bytes at the bottom of the frame that a callee may use.
    pub scratch_area: u64,
    safe_points: u64,
    ranges: u64,
    /// Behind the counts.
    body: Bits<'m>,
}

impl<'m> GcInfo<'m> {
    /// Reads the header of the GC info at `address`.
    ///
    /// # Errors
    /// [`GcInfoError`].
    pub fn read(memory: &'m dyn Memory, arch: Arch, version: u32, address: u64) -> Result<Self, GcInfoError> {
        let encoding = Encoding::of(arch);
        let mut bits = Bits::new(memory, address);
        let old = version < 4;
        let slim = bits.take(1)? == 0;
        let (flags, code_length, stack_base, scratch_area, safe_points, ranges);
        if slim {
            flags = if bits.take(1)? == 1 { HAS_STACK_BASE } else { 0 };
            // Kind of return value.
            bits.skip(if old { 2 } else { 0 })?;
            code_length = bits.unsigned(8)?;
            stack_base = (flags != 0).then_some(encoding.stack_base_default);
            scratch_area = 0;
            safe_points = bits.unsigned(encoding.safe_points)?;
            ranges = 0;
        } else {
            flags = bits.take(10)?;
            bits.skip(if old { 4 } else { 0 })?;
            code_length = bits.unsigned(8)?;
            if flags & HAS_GS_COOKIE != 0 {
                bits.unsigned(5)?;
                bits.unsigned(3)?;
            } else if flags & GENERIC_CONTEXT != 0 {
                bits.unsigned(5)?;
            }
            if flags & HAS_GS_COOKIE != 0 {
                bits.signed(6)?;
            }
            if old && flags & HAS_PSP_SYM != 0 {
                bits.signed(6)?;
            }
            if flags & GENERIC_CONTEXT != 0 {
                bits.signed(6)?;
            }
            stack_base = match flags & HAS_STACK_BASE {
                0 => None,
                _ => Some(bits.unsigned(encoding.stack_base)? ^ encoding.stack_base_default),
            };
            if flags & HAS_EDIT_AND_CONTINUE != 0 {
                for _ in 0..encoding.edit_and_continue_fields {
                    bits.unsigned(4)?;
                }
            }
            if flags & REVERSE_PINVOKE != 0 {
                bits.signed(6)?;
            }
            scratch_area = bits.unsigned(3)? << 3;
            safe_points = bits.unsigned(encoding.safe_points)?;
            ranges = bits.unsigned(1)?;
        }
        if safe_points > MAX_COUNT || ranges > MAX_COUNT || code_length >> 32 != 0 {
            return Err(GcInfoError::Damaged);
        }
        let stack_base = stack_base.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        let code_length = code_length << encoding.code_shift;
        let report = if arch == Arch::Arm64 { REPORT_ONLY_LEAF } else { 0 };
        Ok(Self {
            encoding,
            version,
            offset_shift: if old { 0 } else { encoding.code_shift },
            flags: flags | report,
            code_length,
            stack_base,
            scratch_area,
            safe_points,
            ranges,
            body: bits,
        })
    }

    /// A funclet reports what its parent has, too: the parent's frame itself reports nothing.
    #[must_use]
    pub fn reports_only_leaf(&self) -> bool {
        self.flags & REPORT_ONLY_LEAF != 0
    }
}
