//! Walking the heap: object after object, at memory speed.
//!
//! The rules are those of `gc_heap::walk_heap` (dotnet/runtime, `src/coreclr/gc/gc.cpp`): an object's size follows
//! from its method table and its element count, the next object begins where it ends, and the unused part of an
//! allocation context holds no objects.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use dnd_memory::Target;

use crate::error::Error;
use crate::heap::{Heap, Segment};
use crate::layout::Layout;
use crate::progress::Progress;
use crate::typetable::{Slot, TypeTable};
use crate::types::{MIN_OBJECT, MethodTable};

/// Objects between two looks at the cancel flag.
const CHECK_EVERY: u32 = 1 << 18;
/// Objects in a row that must make sense before a walk goes on behind damage.
const RESYNC_CHAIN: usize = 4;
/// Types looked at for the first time while searching for the next object behind damage.
const RESYNC_NEW_TYPES: usize = 4096;

/// An object, as a walk meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// Its address: that of its method table pointer.
    pub address: u64,
    /// Its method table.
    pub table: u64,
    /// Its size in bytes as the runtime counts it, not rounded up to the heap's alignment of 8.
    pub size: u64,
}

/// What a walk could not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// Places where no object was found and the walk went on behind.
    pub places: u64,
    /// Bytes skipped at such places.
    pub bytes: u64,
    /// Bytes of the heap that are not in the dump.
    pub missing_bytes: u64,
    /// Objects being allocated when the dump was taken: space given out, not yet filled.
    pub unfinished: u64,
}

impl Damage {
    /// Nothing was wrong. (An allocation in progress is not.)
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.places == 0 && self.missing_bytes == 0
    }

    /// Adds another walk's.
    pub fn merge(&mut self, other: &Damage) {
        self.places += other.places;
        self.bytes += other.bytes;
        self.missing_bytes += other.missing_bytes;
        self.unfinished += other.unfinished;
    }
}

/// Walks segments; holds the types met.
pub(crate) struct Walker<'r> {
    target: &'r dyn Target,
    layout: &'r Layout,
    heap: &'r Heap,
    progress: &'r Progress,
    pub(crate) types: TypeTable,
    pub(crate) damage: Damage,
}

impl<'r> Walker<'r> {
    pub(crate) fn new(
        target: &'r dyn Target,
        layout: &'r Layout,
        heap: &'r Heap,
        free: &MethodTable,
        progress: &'r Progress,
    ) -> Self {
        let mut types = TypeTable::new();
        types.insert_trusted(free);
        Self { target, layout, heap, progress, types, damage: Damage::default() }
    }

    /// Calls `visit` for every object of `segment` with (address, its type's slot, its size).
    pub(crate) fn segment(
        &mut self,
        segment: &Segment,
        mut visit: impl FnMut(u64, &mut Slot, u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let heap = self.heap;
        let mut gaps = Gaps::new(heap.contexts_in(segment));
        let mut at = segment.start;
        while at < segment.end {
            let run = self.target.run(at);
            let left = usize::try_from(segment.end - at).unwrap_or(usize::MAX);
            let piece = run.get(..left).unwrap_or(run);
            if piece.is_empty() {
                let next = self.next_present(at, segment.end);
                self.damage.missing_bytes += next - at;
                at = next;
                // The first bytes behind a hole are rarely the start of an object.
                if at < segment.end && !self.starts_chain(at, segment.end) {
                    at = self.resync(at, segment.end, &mut gaps);
                }
                continue;
            }
            let before = at;
            let flow = self.piece(piece, &mut at, segment.end, &mut gaps, &mut visit)?;
            self.progress.add(at.saturating_sub(before));
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The hot loop: `piece` is the memory from `at` on. Leaves `at` behind the last object visited.
    #[inline]
    fn piece(
        &mut self,
        piece: &[u8],
        at: &mut u64,
        end: u64,
        gaps: &mut Gaps<'_>,
        visit: &mut impl FnMut(u64, &mut Slot, u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let base = *at;
        let mut offset = 0usize;
        // No method table has this address; zero would match the words of an object that is not written yet.
        let mut last = (1u64, 0usize);
        let mut until_check = CHECK_EVERY;
        loop {
            let address = base + offset as u64;
            if address >= gaps.next {
                let behind = gaps.skip(address);
                offset += usize::try_from(behind - address).unwrap_or(usize::MAX / 2);
                if behind != address {
                    if offset >= piece.len() {
                        *at = behind.min(end);
                        return Ok(ControlFlow::Continue(()));
                    }
                    continue;
                }
            }
            let Some(head) = piece.get(offset..).and_then(|rest| rest.first_chunk::<16>()) else {
                return self.across(address, at, end, gaps, visit);
            };
            let [w0, w1] = words(head);
            // The GC borrows the lowest bits while it marks.
            let table = w0 & !7;
            if table != last.0 {
                let Some(index) = self.types.find(self.target, self.layout, table) else {
                    *at = self.resync(address, end, gaps);
                    return Ok(ControlFlow::Continue(()));
                };
                last = (table, index);
            }
            let Some(slot) = self.types.slot_mut(last.1) else { return Ok(ControlFlow::Continue(())) };
            let size = u64::from(slot.base_size) + u64::from(slot.component_size) * (w1 & 0xffff_ffff);
            let rounded = (size + 7) & !7;
            if rounded > end - address {
                *at = self.resync(address, end, gaps);
                return Ok(ControlFlow::Continue(()));
            }
            if visit(address, slot, size).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            offset += rounded as usize;
            until_check -= 1;
            if until_check == 0 {
                until_check = CHECK_EVERY;
                self.progress.check()?;
            }
            if offset >= piece.len() {
                *at = base + offset as u64;
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// One object whose head is cut by the end of a piece: its bytes go on elsewhere in the dump, or not at all.
    #[cold]
    fn across(
        &mut self,
        address: u64,
        at: &mut u64,
        end: u64,
        gaps: &mut Gaps<'_>,
        visit: &mut impl FnMut(u64, &mut Slot, u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        match self.object_at(address, end) {
            Some((index, size)) => {
                *at = address + ((size + 7) & !7);
                match self.types.slot_mut(index) {
                    Some(slot) => Ok(visit(address, slot, size)),
                    None => Ok(ControlFlow::Continue(())),
                }
            }
            None => {
                *at = self.resync(address, end, gaps);
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    /// Type slot and size of the object at an address, if there is one that fits before `end`.
    fn object_at(&mut self, address: u64, end: u64) -> Option<(usize, u64)> {
        let table = self.target.u64(address).ok()? & !7;
        let index = self.types.find(self.target, self.layout, table)?;
        let slot = self.types.slot_mut(index)?;
        let (base, component) = (u64::from(slot.base_size), u64::from(slot.component_size));
        let count = if component == 0 { 0 } else { self.target.u32(address.checked_add(8)?).ok()? };
        let size = base + component * u64::from(count);
        ((size + 7) & !7 <= end.checked_sub(address)?).then_some((index, size))
    }

    /// Whether some objects in a row begin at an address.
    fn starts_chain(&mut self, address: u64, end: u64) -> bool {
        let mut at = address;
        for _ in 0..RESYNC_CHAIN {
            if at >= end {
                break;
            }
            match self.object_at(at, end) {
                Some((_, size)) => at += (size + 7) & !7,
                None => return self.heap.contexts.binary_search_by_key(&at, |&(pointer, _)| pointer).is_ok(),
            }
        }
        true
    }

    /// Where to go on behind something that is no object; counts what is skipped.
    #[cold]
    fn resync(&mut self, address: u64, end: u64, gaps: &mut Gaps<'_>) -> u64 {
        // A thread takes space from its allocation context first and fills it in later, so zeros up to the context's
        // pointer are an object being born, not damage.
        let pointer = gaps.next;
        if pointer < end && self.zero_between(address, pointer) {
            self.damage.unfinished += 1;
            return pointer;
        }
        let mut budget = RESYNC_NEW_TYPES;
        let mut at = address + 8;
        let found = loop {
            if at >= end {
                break end;
            }
            if at >= gaps.next {
                break gaps.next.max(at);
            }
            match self.target.u64(at) {
                Err(_) => break at,
                Ok(word) if word & !7 < 0x1000 => {}
                Ok(_) if budget == 0 || self.progress.check().is_err() => break end,
                Ok(_) => {
                    budget -= 1;
                    if self.starts_chain(at, end) {
                        break at;
                    }
                }
            }
            at += 8;
        };
        self.damage.places += 1;
        self.damage.bytes += found - address;
        found
    }

    fn zero_between(&self, from: u64, to: u64) -> bool {
        // Contexts are some kilobytes; anything longer is not one allocation waiting to be filled.
        to - from <= 1 << 20 && (from..to).step_by(8).all(|at| self.target.u64(at) == Ok(0))
    }

    fn next_present(&self, address: u64, end: u64) -> u64 {
        let ranges = self.target.ranges();
        let i = ranges.partition_point(|range| range.end <= address);
        ranges.get(i).map_or(end, |range| range.start.clamp(address + 8, end.max(address + 8))).min(end)
    }
}

/// The allocation contexts of a segment that a walk has not passed yet.
struct Gaps<'h> {
    left: std::slice::Iter<'h, (u64, u64)>,
    limit: u64,
    /// Pointer of the next one; `u64::MAX` for none.
    next: u64,
}

impl<'h> Gaps<'h> {
    fn new(contexts: &'h [(u64, u64)]) -> Self {
        let mut gaps = Self { left: contexts.iter(), limit: 0, next: 0 };
        gaps.advance();
        gaps
    }

    fn advance(&mut self) {
        match self.left.next() {
            Some(&(pointer, limit)) => (self.next, self.limit) = (pointer, limit),
            None => self.next = u64::MAX,
        }
    }

    /// The first address at or behind `address` that is in no gap: a context keeps room for one smallest object
    /// behind its limit.
    fn skip(&mut self, address: u64) -> u64 {
        let mut behind = address;
        while behind >= self.next {
            if behind == self.next {
                behind = self.limit + MIN_OBJECT;
            }
            self.advance();
        }
        behind
    }
}

#[inline]
fn words(head: &[u8; 16]) -> [u64; 2] {
    let all = u128::from_le_bytes(*head);
    [all as u64, (all >> 64) as u64]
}

/// Objects counted by type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Types, in no order.
    pub types: Vec<Slot>,
    /// What could not be counted.
    pub damage: Damage,
}

/// Counts the objects of `segments` by type on `threads` threads.
pub(crate) fn count<'r>(
    walker: &(dyn Fn() -> Walker<'r> + Sync),
    segments: &[Segment],
    threads: usize,
) -> Result<Statistics, Error> {
    // Largest first, so that no thread is left with a large one at the end.
    let mut order: Vec<&Segment> = segments.iter().filter(|s| !s.is_empty()).collect();
    order.sort_unstable_by_key(|s| std::cmp::Reverse(s.len()));
    let next = AtomicUsize::new(0);
    let work = || -> Result<Walker<'r>, Error> {
        let mut walker = walker();
        while let Some(segment) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            walker.progress.check()?;
            let _ = walker.segment(segment, |address, slot, size| {
                slot.add(address, size);
                ControlFlow::Continue(())
            })?;
        }
        Ok(walker)
    };
    let mut parts = Vec::new();
    let helpers = threads.min(order.len()).saturating_sub(1);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
        parts.push(work());
        for handle in handles {
            match handle.join() {
                Ok(part) => parts.push(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    let mut merged: rustc_hash::FxHashMap<u64, Slot> = rustc_hash::FxHashMap::default();
    let mut damage = Damage::default();
    for part in parts {
        let part = part?;
        damage.merge(&part.damage);
        for slot in part.types.types() {
            let all = merged.entry(slot.table).or_insert(Slot { count: 0, bytes: 0, padding: 0, ..*slot });
            all.first = all.first.min(slot.first);
            all.padding += slot.padding;
            all.count += slot.count;
            all.bytes += slot.bytes;
        }
    }
    Ok(Statistics { types: merged.into_values().collect(), damage })
}
