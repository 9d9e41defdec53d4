//! ReadyToRun code: runtime functions and the map from entry points to methods.
//!
//! Source: `ReadyToRunJitManager::JitCodeToMethodInfo` in `vm/codeman.cpp`, `vm/readytoruninfo.h`, `vm/hash.h`.

use dnd_memory::{Arch, Memory};

use super::clauses::ClausesAt;
use super::debug::DebugInfoAt;
use super::{Code, CodeAt, CodeKind, RuntimeFunction, runtime_function};
use crate::error::{Error, Reading};
use crate::runtime::Runtime;

/// Runtime functions that are searched one by one (`NativeUnwindInfoLookupTable::LookupUnwindInfoForMethod`).
const LINEAR: u64 = 10;
/// Runtime functions to go back from a funclet to its method's first.
const MAX_FUNCLETS: u64 = 1 << 12;
/// `HashMap`: buckets of 64 bytes, four keys and four values; the first bucket holds the number of the others.
const BUCKET: u64 = 64;
const SLOTS: u64 = 4;
/// The top bit of a bucket's first value tells that a key went on to another bucket.
const COLLISION: u64 = 1 << 63;
/// More buckets than any map has.
const MAX_BUCKETS: u64 = 1 << 28;

/// The code at `ip` in the image at `base`, whose module is at `module`.
pub(super) fn find(runtime: &Runtime<'_>, ip: u64, base: u64, module: u64) -> Result<CodeAt, Error> {
    let memory = runtime.target();
    let layout = &runtime.layout().code;
    let what = "the ReadyToRun information of a module";
    let info = memory.u64(module.wrapping_add(runtime.layout().module.ready_to_run)).reading(what)?;
    let table = memory.u64(info.wrapping_add(layout.r2r_functions)).reading(what)?;
    let count = memory.u32(info.wrapping_add(layout.r2r_functions + 8)).reading(what)?;
    let function = |index: u64| runtime_function(memory, table, layout.runtime_function, index);
    let begin = |index: u64| -> Result<u64, Error> {
        let at = table.wrapping_add(layout.runtime_function.wrapping_mul(index));
        Ok(base.wrapping_add(u64::from(memory.u32(at).reading("a runtime function")?)))
    };
    // The runtime's own steps: a small dump has the entries that its writer's walk looked at, and no others.
    let Some(last) = u64::from(count).checked_sub(1) else { return Ok(CodeAt::Stub) };
    let (mut low, mut high) = (0, last);
    while high - low > LINEAR {
        let middle = low + (high - low) / 2;
        if ip < begin(middle)? { high = middle - 1 } else { low = middle }
    }
    let mut index = None;
    for candidate in low..=high {
        if begin(candidate)? > ip {
            break;
        }
        index = Some(candidate);
    }
    let Some(index) = index else { return Ok(CodeAt::Stub) };
    let found = function(index)?;
    let buckets = memory.u64(info.wrapping_add(layout.r2r_entry_points)).reading(what)?;
    // Funclets follow their method, and only the method is in the map.
    for back in 0..=index.min(MAX_FUNCLETS) {
        let first = function(index - back)?;
        let start = base.wrapping_add(u64::from(first.begin));
        let Some(method) = lookup(memory, buckets, start)? else { continue };
        return Ok(CodeAt::Method(Code {
            kind: CodeKind::ReadyToRun,
            method,
            start,
            function_start: base.wrapping_add(u64::from(found.begin)),
            unwind: base.wrapping_add(u64::from(found.unwind)),
            image: base,
            gc_info: gc_info(runtime, base, first)?,
            funclet: back > 0,
            clauses: ClausesAt::ReadyToRun { image: base, method: first.begin },
            debug_info: DebugInfoAt::ReadyToRun { image: base, function: (index - back) as u32 },
        }));
    }
    Ok(CodeAt::Method(Code {
        kind: CodeKind::ReadyToRun,
        method: 0,
        start: base.wrapping_add(u64::from(found.begin)),
        function_start: base.wrapping_add(u64::from(found.begin)),
        unwind: base.wrapping_add(u64::from(found.unwind)),
        image: base,
        gc_info: gc_info(runtime, base, found)?,
        funclet: false,
        clauses: ClausesAt::ReadyToRun { image: base, method: found.begin },
        debug_info: DebugInfoAt::ReadyToRun { image: base, function: index as u32 },
    }))
}

/// The method whose code begins at `start` in the image of `module`.
pub(super) fn method_at(runtime: &Runtime<'_>, module: u64, start: u64) -> Option<u64> {
    let memory = runtime.target();
    let info = memory.u64(module.wrapping_add(runtime.layout().module.ready_to_run)).ok()?;
    let buckets = memory.u64(info.wrapping_add(runtime.layout().code.r2r_entry_points)).ok()?;
    lookup(memory, buckets, start).ok()?
}

/// GC info follows the unwind information of a method's first function, behind the offset of the personality routine
/// (`ReadyToRunJitManager::GetGCInfoToken`, `GetUnwindDataBlob`).
fn gc_info(runtime: &Runtime<'_>, base: u64, first: RuntimeFunction) -> Result<u64, Error> {
    let memory = runtime.target();
    let unwind = base.wrapping_add(u64::from(first.unwind));
    let what = "the unwind information of a method";
    Ok(match runtime.target().arch() {
        Arch::X64 => {
            let codes = u64::from(memory.u8(unwind.wrapping_add(2)).reading(what)?);
            // Four bytes of header, the codes, the personality routine.
            unwind.wrapping_add((4 + 2 * codes + 4).next_multiple_of(4))
        }
        Arch::Arm64 => {
            let header = crate::stack::xdata_header(memory, unwind).reading(what)?;
            header.codes.wrapping_add(header.code_bytes + 4)
        }
    })
}

/// The value of a key in a `HashMap`.
fn lookup(memory: &dyn Memory, buckets: u64, key: u64) -> Result<Option<u64>, Error> {
    let what = "the map of entry points";
    if buckets == 0 {
        return Ok(None);
    }
    let count = memory.u64(buckets).reading(what)?;
    if !(2..=MAX_BUCKETS).contains(&count) {
        return if count < 2 { Ok(None) } else { Err(Error::Damaged { what, addr: buckets }) };
    }
    // Two 32-bit hashes: where to begin, how far to step.
    let mut seed = (key >> 2) as u32;
    let step = 1 + ((key >> 5) as u32).wrapping_add(1) % (count - 1) as u32;
    for _ in 0..count {
        let bucket = buckets.wrapping_add(BUCKET * (1 + u64::from(seed) % count));
        let word = |index: u64| memory.u64(bucket.wrapping_add(8 * index)).reading(what);
        for slot in 0..SLOTS {
            if word(slot)? == key {
                // Values are stored without their lowest bit, which is always zero.
                return Ok(Some((word(SLOTS + slot)? & !COLLISION) << 1));
            }
        }
        if word(SLOTS)? & COLLISION == 0 {
            break;
        }
        seed = seed.wrapping_add(step);
    }
    Ok(None)
}
