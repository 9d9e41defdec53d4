//! Unwinding of managed code on arm64: the unwind codes of Windows on ARM64, which the JIT writes on every system.
//!
//! Sources: Microsoft's documentation of ARM64 exception handling (`.xdata` records), `unwinder/arm64/unwinder.cpp`,
//! `jit/unwindarm64.cpp` of dotnet/runtime v10.0.12. The JIT writes no packed records.

use dnd_memory::{Memory, Missing};

use super::context::Context;
use super::unwind_x64::Failure;

/// More bytes of codes than a record can have: 255 words.
const MAX_CODES: u64 = 1024;
const FP: usize = 29;
const LR: usize = 30;

/// Where the parts of an `.xdata` record are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct XdataHeader {
    /// Bytes of the function.
    length: u64,
    /// Only one epilogue, at the end; where its codes begin.
    single_epilogue: Option<u64>,
    /// Epilogue scopes, (where, code index) packed in a word each.
    scopes: u64,
    scope_count: u64,
    /// Address of the codes.
    pub(crate) codes: u64,
    /// Bytes of codes.
    pub(crate) code_bytes: u64,
}

/// Reads the header of an `.xdata` record.
pub(crate) fn header(memory: &dyn Memory, at: u64) -> Result<XdataHeader, Missing> {
    let word = memory.u32(at)?;
    let mut next = at.wrapping_add(4);
    let (mut epilogues, mut words) = (u64::from(word >> 22 & 0x1f), u64::from(word >> 27));
    let packed = word >> 21 & 1 != 0;
    if epilogues == 0 && words == 0 {
        let extension = memory.u32(next)?;
        next = next.wrapping_add(4);
        epilogues = (extension & 0xffff).into();
        words = (extension >> 16 & 0xff).into();
    }
    let scope_count = if packed { 0 } else { epilogues };
    Ok(XdataHeader {
        length: 4 * u64::from(word & 0x3_ffff),
        single_epilogue: packed.then_some(epilogues),
        scopes: next,
        scope_count,
        codes: next.wrapping_add(4 * scope_count),
        code_bytes: 4 * words,
    })
}

/// Bytes of the code that begins with `first`.
fn code_length(first: u8) -> usize {
    match first {
        0xc0..=0xdf | 0xe2 => 2,
        0xe0 => 4,
        0xe7 => 3,
        _ => 1,
    }
}

/// Instructions that a list of codes up to its end stands for; each is one of 4 bytes.
fn instructions(codes: &[u8]) -> u64 {
    let mut left = codes;
    let mut count = 0;
    while let Some(&first) = left.first() {
        if matches!(first, 0xe4 | 0xe5) {
            break;
        }
        count += 1;
        left = left.get(code_length(first)..).unwrap_or_default();
    }
    count
}

/// The caller's registers. `interrupted` says that the function stands between two instructions of its own, maybe in its
/// prologue or epilogue, and not behind a call.
pub(crate) fn unwind(
    memory: &dyn Memory,
    context: &Context,
    start: u64,
    unwind: u64,
    interrupted: bool,
) -> Result<Context, Failure> {
    let header = header(memory, unwind)?;
    if header.code_bytes > MAX_CODES {
        return Err(Failure::Damaged);
    }
    let mut codes = vec![0; header.code_bytes as usize];
    memory.read(header.codes, &mut codes)?;
    let mut caller = *context;
    let mut codes = codes.as_slice();
    // Codes of instructions that were not executed yet are skipped.
    let mut skip = 0;
    if interrupted {
        let offset = context.ip.wrapping_sub(start);
        let prologue = 4 * instructions(codes);
        if offset < prologue {
            skip = (prologue - offset) / 4;
        } else if let Some((from, done)) = in_epilogue(memory, &header, codes, offset)? {
            codes = codes.get(from..).unwrap_or_default();
            skip = done;
        }
    }
    while skip > 0 {
        let Some(&first) = codes.first() else { break };
        if matches!(first, 0xe4 | 0xe5) {
            break;
        }
        codes = codes.get(code_length(first)..).unwrap_or_default();
        skip -= 1;
    }
    execute(memory, codes, &mut caller)?;
    caller.ip = caller.lr().ok_or(Failure::Damaged)?;
    caller.forget_scratch();
    Ok(caller)
}

/// Whether the function stands in an epilogue: where its codes begin, and how many of them were executed.
fn in_epilogue(
    memory: &dyn Memory,
    header: &XdataHeader,
    codes: &[u8],
    offset: u64,
) -> Result<Option<(usize, u64)>, Failure> {
    let inside = |begin: u64, index: u64| -> Option<(usize, u64)> {
        let index = usize::try_from(index).ok()?;
        // The return counts, too.
        let length = 4 * (instructions(codes.get(index..)?) + 1);
        (begin..begin + length).contains(&offset).then(|| (index, (offset - begin) / 4))
    };
    if let Some(index) = header.single_epilogue {
        let count = codes.get(usize::try_from(index).unwrap_or(usize::MAX)..).map_or(0, instructions);
        return Ok(inside(header.length.saturating_sub(4 * (count + 1)), index));
    }
    for i in 0..header.scope_count {
        let scope = memory.u32(header.scopes.wrapping_add(4 * i))?;
        if let Some(found) = inside(4 * u64::from(scope & 0x3_ffff), (scope >> 22).into()) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn execute(memory: &dyn Memory, codes: &[u8], caller: &mut Context) -> Result<(), Failure> {
    let mut left = codes;
    // `save_next`: the following save stores so many more pairs.
    let mut more = 0usize;
    while let Some(&first) = left.first() {
        let byte = |i: usize| left.get(i).map(|&b| u64::from(b)).ok_or(Failure::Damaged);
        let sp = caller.sp();
        let restore = |caller: &mut Context, register: usize, count: usize, at: u64| -> Result<(), Failure> {
            for i in 0..count {
                let register = register + i;
                if register > LR {
                    return Err(Failure::Damaged);
                }
                caller.set(register, memory.u64(at.wrapping_add(8 * i as u64))?);
            }
            Ok(())
        };
        let wide = if matches!(first, 0xc0..=0xdf) { u64::from(first) << 8 | byte(1)? } else { 0 };
        let offset = 8 * (wide & 0x3f);
        let pre = offset + 8;
        let x19 = |bits: u64| 19 + bits as usize;
        match first {
            0x00..=0x1f => caller.set_sp(sp.wrapping_add(16 * u64::from(first))),
            0x20..=0x3f => {
                restore(caller, 19, 2 + 2 * std::mem::take(&mut more), sp)?;
                caller.set_sp(sp.wrapping_add(8 * u64::from(first & 0x1f)));
            }
            0x40..=0x7f => restore(caller, FP, 2, sp.wrapping_add(8 * u64::from(first & 0x3f)))?,
            0x80..=0xbf => {
                restore(caller, FP, 2, sp)?;
                caller.set_sp(sp.wrapping_add(8 * (u64::from(first & 0x3f) + 1)));
            }
            0xc0..=0xc7 => caller.set_sp(sp.wrapping_add(16 * (wide & 0x7ff))),
            0xc8..=0xcb => restore(
                caller,
                x19(wide >> 6 & 0xf),
                2 + 2 * std::mem::take(&mut more),
                sp.wrapping_add(offset),
            )?,
            0xcc..=0xcf => {
                restore(caller, x19(wide >> 6 & 0xf), 2 + 2 * std::mem::take(&mut more), sp)?;
                caller.set_sp(sp.wrapping_add(pre));
            }
            0xd0..=0xd3 => restore(caller, x19(wide >> 6 & 0xf), 1, sp.wrapping_add(offset))?,
            0xd4..=0xd5 => {
                restore(caller, x19(wide >> 5 & 0xf), 1, sp)?;
                caller.set_sp(sp.wrapping_add(8 * ((wide & 0x1f) + 1)));
            }
            0xd6..=0xd7 => {
                restore(caller, x19(2 * (wide >> 6 & 7)), 1, sp.wrapping_add(offset))?;
                restore(caller, LR, 1, sp.wrapping_add(offset + 8))?;
            }
            // Vector registers hold no references.
            0xd8..=0xd9 => more = 0,
            0xda..=0xdb => {
                more = 0;
                caller.set_sp(sp.wrapping_add(pre));
            }
            0xdc..=0xdd => {}
            0xde..=0xdf => caller.set_sp(sp.wrapping_add(8 * ((wide & 0x1f) + 1))),
            0xe0 => caller.set_sp(sp.wrapping_add(16 * (byte(1)? << 16 | byte(2)? << 8 | byte(3)?))),
            0xe1 => caller.set_sp(caller.fp().ok_or(Failure::Damaged)?),
            0xe2 => caller.set_sp(caller.fp().ok_or(Failure::Damaged)?.wrapping_sub(8 * byte(1)?)),
            // nop; pac_sign_lr: the runtime strips nothing, and no core with signed addresses was met.
            0xe3 | 0xfc => {}
            0xe4 | 0xe5 => break,
            0xe6 => more += 1,
            _ => return Err(Failure::Damaged),
        }
        left = left.get(code_length(first)..).ok_or(Failure::Damaged)?;
    }
    Ok(())
}
