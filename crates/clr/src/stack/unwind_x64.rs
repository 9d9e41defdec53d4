//! Unwinding of managed code on x64.
//!
//! The JIT and crossgen describe frames with the unwind codes of 64-bit Windows on every system; besides them the runtime
//! has `UWOP_SET_FPREG_LARGE` (11). Sources: `inc/win64unwind.h`, `unwinder/amd64/unwinder.cpp`, `jit/unwindamd64.cpp`
//! (dotnet/runtime v8.0.0 to v10.0.14, dotnet/coreclr v3.1.23), and Microsoft's documentation of the x64 exception handling
//! data.

use dnd_memory::{Memory, Missing};

use super::context::Context;

const RSP: usize = 4;
/// Bit 2 of the flags: another function's information follows the codes.
const CHAINED: u8 = 4;
/// Chained functions; real code has none.
const MAX_CHAIN: u32 = 32;
/// Bytes of an epilogue: an addition and up to 8 pops.
const MAX_EPILOGUE: usize = 32;

/// Why a frame can't be unwound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Bytes that are not there.
    Missing(Missing),
    /// A code that does not exist, or a register that isn't known.
    Damaged,
}

impl From<Missing> for Failure {
    fn from(missing: Missing) -> Self {
        Failure::Missing(missing)
    }
}

/// An unwind code with its operands.
#[derive(Debug, Clone, Copy)]
struct Code {
    /// Offset in the prologue behind the instruction.
    offset: u8,
    operation: u8,
    info: u8,
    /// The one or two words behind it.
    operand: u32,
}

/// Header and codes of an `UNWIND_INFO`.
struct Info {
    flags: u8,
    prologue: u8,
    frame_register: usize,
    frame_offset: u64,
    codes: Vec<Code>,
    /// Behind the codes.
    end: u64,
}

/// The caller's registers. `start` is the function's first instruction, `unwind` its `UNWIND_INFO`; `interrupted` says
/// that the function stands between two instructions of its own and not behind a call.
pub(crate) fn unwind(
    memory: &dyn Memory,
    context: &Context,
    start: u64,
    unwind: u64,
    image: u64,
    interrupted: bool,
) -> Result<Context, Failure> {
    let mut caller = *context;
    if interrupted && let Some(finished) = epilogue(memory, context, start, unwind) {
        return Ok(finished);
    }
    let mut at = unwind;
    let mut offset = context.ip.wrapping_sub(start);
    for _ in 0..MAX_CHAIN {
        let info = read(memory, at)?;
        undo(memory, &info, offset, &mut caller)?;
        if info.flags & CHAINED == 0 {
            let sp = caller.sp();
            caller.ip = memory.u64(sp)?;
            caller.set_sp(sp.wrapping_add(8));
            caller.forget_scratch();
            return Ok(caller);
        }
        // A RUNTIME_FUNCTION follows, aligned to a whole number of codes; all of its prologue was executed.
        at = image.wrapping_add(memory.u32(info.end.wrapping_add(8))?.into());
        offset = u64::MAX;
    }
    Err(Failure::Damaged)
}

fn read(memory: &dyn Memory, at: u64) -> Result<Info, Failure> {
    let mut header = [0; 4];
    memory.read(at, &mut header)?;
    let [version, prologue, count, frame] = header;
    if version & 7 == 0 || version & 7 > 2 {
        return Err(Failure::Damaged);
    }
    let mut slots = vec![0; 2 * usize::from(count)];
    memory.read(at.wrapping_add(4), &mut slots)?;
    let slot = |i: usize| -> Option<u16> {
        let bytes = slots.get(2 * i..2 * i + 2)?;
        bytes.try_into().ok().map(u16::from_le_bytes)
    };
    let mut codes = Vec::new();
    let mut i = 0;
    while let Some(word) = slot(i) {
        let (offset, operation, info) = (word as u8, (word >> 8 & 0xf) as u8, (word >> 12) as u8);
        // Number of words that follow.
        let words = match (operation, info) {
            (0 | 2 | 3 | 10, _) => 0,
            (1, 0) | (4 | 8, _) => 1,
            (1, 1) | (5 | 9 | 11, _) => 2,
            // Epilogue codes of version 2.
            (6, _) if version & 7 == 2 => 0,
            _ => return Err(Failure::Damaged),
        };
        let half = |n: usize| slot(i + n).map(u32::from).ok_or(Failure::Damaged);
        let operand = match words {
            0 => 0,
            1 => half(1)?,
            _ => half(1)? | half(2)? << 16,
        };
        codes.push(Code { offset, operation, info, operand });
        i += 1 + words;
    }
    let mut frame_offset = 16 * u64::from(frame >> 4);
    for code in &codes {
        if code.operation == 11 {
            frame_offset = 16 * u64::from(code.operand);
        }
    }
    Ok(Info {
        flags: version >> 3,
        prologue,
        frame_register: usize::from(frame & 0xf),
        frame_offset,
        codes,
        end: at.wrapping_add(4 + 2 * u64::from(count).next_multiple_of(2)),
    })
}

/// Undoes the instructions of the prologue that were executed at `offset` from the function's start.
fn undo(memory: &dyn Memory, info: &Info, offset: u64, caller: &mut Context) -> Result<(), Failure> {
    let executed = |code: &Code| offset >= info.prologue.into() || offset >= code.offset.into();
    let frame = |caller: &Context| -> Result<u64, Failure> {
        let value = caller.get(info.frame_register).ok_or(Failure::Damaged)?;
        Ok(value.wrapping_sub(info.frame_offset))
    };
    // What registers are saved relative to: the stack pointer behind the prologue.
    let sets_frame = |code: &&Code| matches!(code.operation, 3 | 11) && executed(code);
    let base = match info.codes.iter().find(sets_frame) {
        Some(_) => frame(caller)?,
        None => caller.sp(),
    };
    for code in info.codes.iter().filter(|code| executed(code)) {
        let sp = caller.sp();
        let register = usize::from(code.info);
        match code.operation {
            0 => {
                caller.set(register, memory.u64(sp)?);
                if register != RSP {
                    caller.set_sp(sp.wrapping_add(8));
                }
            }
            1 if code.info == 0 => caller.set_sp(sp.wrapping_add(8 * u64::from(code.operand))),
            1 => caller.set_sp(sp.wrapping_add(code.operand.into())),
            2 => caller.set_sp(sp.wrapping_add(8 * u64::from(code.info) + 8)),
            3 | 11 => caller.set_sp(frame(caller)?),
            4 => caller.set(register, memory.u64(base.wrapping_add(8 * u64::from(code.operand)))?),
            5 => caller.set(register, memory.u64(base.wrapping_add(code.operand.into()))?),
            // Vector registers hold no references.
            6 | 8 | 9 => {}
            // A frame that the processor pushed: rip, cs, flags, rsp, ss, behind an error code if there is one.
            _ => {
                let at = sp.wrapping_add(8 * u64::from(code.info & 1));
                caller.set_sp(memory.u64(at.wrapping_add(24))?);
            }
        }
    }
    Ok(())
}

/// The caller's registers when the function stands in an epilogue, which no unwind code describes: the instructions
/// left are executed. They are `add rsp, n` or `lea rsp, [frame + n]`, pops, and `ret` or a jump out of the function.
fn epilogue(memory: &dyn Memory, context: &Context, start: u64, unwind: u64) -> Option<Context> {
    let info = read(memory, unwind).ok()?;
    if context.ip.wrapping_sub(start) < info.prologue.into() {
        return None;
    }
    let mut bytes = [0; MAX_EPILOGUE];
    let run = memory.run(context.ip);
    let length = run.len().min(MAX_EPILOGUE);
    bytes.get_mut(..length)?.copy_from_slice(run.get(..length)?);
    let mut code = bytes.get(..length)?;
    let mut caller = *context;
    let number = |bytes: &[u8], at: usize| -> Option<u64> {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(i64::from(i32::from_le_bytes(bytes)).cast_unsigned())
    };
    let short = |bytes: &[u8], at: usize| bytes.get(at).map(|&b| i64::from(b.cast_signed()).cast_unsigned());
    let sp = caller.sp();
    match code {
        [0x48, 0x83, 0xc4, ..] => {
            caller.set_sp(sp.wrapping_add(short(code, 3)?));
            code = code.get(4..)?;
        }
        [0x48, 0x81, 0xc4, ..] => {
            caller.set_sp(sp.wrapping_add(number(code, 3)?));
            code = code.get(7..)?;
        }
        // lea rsp, [frame + n]: the frame register is the base, with the REX bit for r8 to r15.
        [rex @ (0x48 | 0x49), 0x8d, modrm, ..] if modrm & 0x38 == 0x20 && matches!(modrm >> 6, 1 | 2) => {
            let register = usize::from(modrm & 7) | usize::from(rex & 1) << 3;
            if register == RSP || register != info.frame_register {
                return None;
            }
            let (offset, length) = if modrm >> 6 == 1 { (short(code, 3)?, 4) } else { (number(code, 3)?, 7) };
            caller.set_sp(caller.get(register)?.wrapping_add(offset));
            code = code.get(length..)?;
        }
        _ => {}
    }
    loop {
        let (register, length) = match code {
            [pop @ 0x58..=0x5f, ..] => (usize::from(pop - 0x58), 1),
            [0x41, pop @ 0x58..=0x5f, ..] => (usize::from(pop - 0x58) + 8, 2),
            _ => break,
        };
        let sp = caller.sp();
        caller.set(register, memory.u64(sp).ok()?);
        caller.set_sp(sp.wrapping_add(8));
        code = code.get(length..)?;
    }
    let left = caller.sp() != context.sp();
    match code {
        [0xc3, ..] | [0xf3, 0xc3, ..] | [0xc2, ..] => {}
        // A tail call: a jump through a register or memory, which loops don't have behind pops.
        [0xff, 0x25, ..]
        | [0x48, 0xff, 0x20..=0x27 | 0xe0..=0xe7, ..]
        | [0xff, 0xe0..=0xe7, ..]
        | [0xe9, ..]
            if left => {}
        _ => return None,
    }
    let sp = caller.sp();
    caller.ip = memory.u64(sp).ok()?;
    caller.set_sp(sp.wrapping_add(8));
    caller.forget_scratch();
    Some(caller)
}
