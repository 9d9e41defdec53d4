//! Jitted code: code heaps and code headers.
//!
//! Source: `HeapList` in `vm/codeman.h` (`CodeHeapListNode` in the data contract), `RealCodeHeader` in the same file.

use super::clauses::ClausesAt;
use super::debug::DebugInfoAt;
use super::{Code, CodeAt, CodeKind, nibble, runtime_function};
use crate::error::{Error, Reading};
use crate::runtime::Runtime;

/// `HeapList`: what offsets in the nibble map count from, and the map.
const HEAP_MAP_BASE: u64 = 32;
const HEAP_MAP: u64 = 40;
/// Code headers that are no pointers but kinds of stubs (`STUB_CODE_BLOCK_LAST`).
const LAST_STUB: u64 = 16;
/// `RealCodeHeader`: debug info, exception clauses, GC info, method, number of runtime functions, and these.
const HEADER_DEBUG_INFO: u64 = 0;
const HEADER_CLAUSES: u64 = 8;
const HEADER_GC_INFO: u64 = 16;
const HEADER_METHOD: u64 = 24;
const HEADER_FUNCTIONS: u64 = 32;
const HEADER_FIRST_FUNCTION: u64 = 36;
/// More funclets than a method can have.
const MAX_FUNCTIONS: u32 = 1 << 16;

/// The code at `ip` in the code heap `heap` of the range that begins at `base`.
pub(super) fn find(runtime: &Runtime<'_>, ip: u64, base: u64, heap: u64) -> Result<CodeAt, Error> {
    let memory = runtime.target();
    let layout = &runtime.layout().code;
    let map_base = memory.u64(heap.wrapping_add(HEAP_MAP_BASE)).reading("a code heap")?;
    let map = memory.u64(heap.wrapping_add(HEAP_MAP)).reading("a code heap")?;
    let start = nibble::find(memory, ip, map_base, map, layout.pointer_nibbles).reading("a nibble map")?;
    let Some(start) = start else { return Ok(CodeAt::Stub) };
    let header = memory.u64(start.wrapping_sub(8)).reading("a code header")?;
    if header < LAST_STUB {
        return Ok(CodeAt::Stub);
    }
    let word = |offset: u64| memory.u64(header.wrapping_add(offset)).reading("a code header");
    let count = memory.u32(header.wrapping_add(HEADER_FUNCTIONS)).reading("a code header")?;
    if count == 0 || count > MAX_FUNCTIONS {
        return Err(Error::Damaged { what: "a code header", addr: header });
    }
    let function = |index: u32| {
        let table = header.wrapping_add(HEADER_FIRST_FUNCTION);
        runtime_function(memory, table, layout.runtime_function, index.into())
    };
    // The last that begins at or before the address.
    let begins = |index: u32| -> Result<bool, Error> {
        Ok(base.wrapping_add(u64::from(function(index)?.begin)) <= ip)
    };
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if begins(middle)? { low = middle + 1 } else { high = middle }
    }
    let Some(index) = low.checked_sub(1) else { return Ok(CodeAt::Stub) };
    let function = function(index)?;
    Ok(CodeAt::Method(Code {
        kind: CodeKind::Jit,
        method: word(HEADER_METHOD)?,
        start,
        function_start: base.wrapping_add(u64::from(function.begin)),
        unwind: base.wrapping_add(u64::from(function.unwind)),
        image: base,
        gc_info: word(HEADER_GC_INFO)?,
        funclet: index > 0,
        clauses: ClausesAt::Jit(word(HEADER_CLAUSES)?),
        debug_info: DebugInfoAt::Jit(word(HEADER_DEBUG_INFO)?),
    }))
}
