//! Range sections: which addresses hold managed code.
//!
//! 3.1 keeps a linked list (`ExecutionManager::m_CodeRangeList`), 8 and later a map of five levels
//! (`g_codeRangeMap`, `RangeSectionMap` in `vm/codeman.h`): each level is 256 pointers, chosen by 8 bits of the address
//! from bit 17 on; the last leads to a list of fragments. The low bit of a pointer only marks collectible ranges.

use std::collections::HashSet;

use dnd_memory::Memory;

use crate::error::{Error, Reading};
use crate::runtime::Runtime;

/// Levels of the map, and where the address bits of the last one begin.
const LEVELS: u32 = 5;
const LOWEST_BIT: u32 = 17;
/// Fragments of one map entry; a few in a real process.
const MAX_FRAGMENTS: usize = 1 << 16;
/// Range sections of 3.1: one for each image and code heap.
const MAX_SECTIONS: usize = 1 << 18;
/// `RangeSection::RANGE_SECTION_RANGELIST`: stubs.
const FLAG_RANGE_LIST: u32 = 4;

/// A range section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// First address; offsets of runtime functions count from here.
    pub(crate) base: u64,
    end: u64,
    pub(crate) holds: Holds,
}

/// What a range section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// A ReadyToRun image.
    ReadyToRun {
        /// `Module*`.
        module: u64,
    },
    /// Jitted code.
    Jit {
        /// `HeapList*`.
        heap: u64,
    },
    /// Stubs.
    Stubs,
}

/// 3.1's list, read once: sorted by address.
pub(crate) type RangeList = Vec<Range>;

/// The range section around an address.
pub(crate) fn find(runtime: &Runtime<'_>, ip: u64) -> Result<Option<Range>, Error> {
    let found = if runtime.layout().code.range_list {
        let list = runtime.range_list()?;
        let index = list.partition_point(|range| range.base <= ip).checked_sub(1);
        index.and_then(|index| list.get(index)).copied()
    } else {
        in_map(runtime.target(), runtime.globals().code_ranges, ip)?
    };
    Ok(found.filter(|range| (range.base..range.end).contains(&ip)))
}

fn in_map(memory: &dyn Memory, map: u64, ip: u64) -> Result<Option<Range>, Error> {
    let what = "the map of code ranges";
    let mut level = map;
    for number in (0..LEVELS).rev() {
        let index = ip >> (LOWEST_BIT + 8 * number) & 0xff;
        level = memory.u64(level.wrapping_add(8 * index)).reading(what)? & !1;
        if level == 0 {
            return Ok(None);
        }
    }
    // `RangeSectionFragment`: next, begin, end, range section.
    for _ in 0..MAX_FRAGMENTS {
        let word = |at: u64| memory.u64(level.wrapping_add(at)).reading(what);
        if (word(8)?..word(16)?).contains(&ip) {
            return section(memory, word(24)?).map(Some);
        }
        level = word(0)? & !1;
        if level == 0 {
            return Ok(None);
        }
    }
    Err(Error::Damaged { what, addr: map })
}

/// `RangeSection` of 8 and later: begin, end, flags, JIT manager, ReadyToRun module, code heap.
fn section(memory: &dyn Memory, at: u64) -> Result<Range, Error> {
    let what = "a range section";
    let word = |offset: u64| memory.u64(at.wrapping_add(offset)).reading(what);
    let flags = memory.u32(at.wrapping_add(16)).reading(what)?;
    let module = word(32)?;
    let holds = match (flags & FLAG_RANGE_LIST != 0, module) {
        (true, _) => Holds::Stubs,
        (false, 0) => Holds::Jit { heap: word(40)? },
        (false, module) => Holds::ReadyToRun { module },
    };
    Ok(Range { base: word(0)?, end: word(8)?, holds })
}

/// 3.1's list of range sections (low, high, JIT manager, next, ..., code heap or module), sorted.
pub(crate) fn list(memory: &dyn Memory, global: u64, r2r_manager: u64) -> Result<RangeList, Error> {
    let what = "the list of code ranges";
    let manager = memory.u64(r2r_manager).reading("the ReadyToRun manager")?;
    let mut at = memory.u64(global).reading(what)?;
    let mut list = Vec::new();
    let mut seen = HashSet::new();
    while at != 0 && seen.insert(at) && list.len() < MAX_SECTIONS {
        let word = |offset: u64| memory.u64(at.wrapping_add(offset)).reading(what);
        let owner = word(48)?;
        let holds = if word(16)? == manager {
            Holds::ReadyToRun { module: owner }
        } else {
            Holds::Jit { heap: owner }
        };
        list.push(Range { base: word(0)?, end: word(8)?, holds });
        at = word(24)?;
    }
    list.sort_unstable_by_key(|range| range.base);
    Ok(list)
}
