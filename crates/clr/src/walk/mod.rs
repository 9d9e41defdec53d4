//! Walking the heap: object after object, at memory speed.
//!
//! The rules are those of `gc_heap::walk_heap` (dotnet/runtime, `src/coreclr/gc/gc.cpp`): an object's size follows
//! from its method table and its element count, the next object begins where it ends, and the unused part of an
//! allocation context holds no objects.

mod count;
#[cfg(test)]
pub(crate) mod fake;
mod ordered;
mod parts;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use dnd_memory::{Target, prefetch};

use crate::error::Error;
use crate::heap::{Heap, Segment};
use crate::layout::Layout;
use crate::progress::Progress;
use crate::types::{MIN_OBJECT, MethodTable};
use crate::typetable::{Slot, TypeTable};

pub(crate) use count::count;
pub use count::{LARGE_FREE, Statistics};
pub(crate) use ordered::each_of;
pub(crate) use parts::{Part, Plan, in_parts, on_threads};

/// Bytes walked between two looks at the cancel flag.
const WINDOW: u64 = 1 << 20;
/// How far in front of a walk memory is asked for: a little more than what arrives too late otherwise.
const AHEAD: usize = 1024;
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
    /// Free blocks of at least [`LARGE_FREE`] bytes that were counted.
    large_free: Vec<(u64, u64)>,
}

/// Where a walk is: objects are taken out of the window until a look around is needed.
struct Cursor<'r> {
    window: Window<'r>,
    /// The walk is over when an object would begin here or behind.
    stop: u64,
    /// End of the segment, behind which no object goes.
    end: u64,
    gaps: Gaps<'r>,
    /// What the progress was told so far.
    told: u64,
}

/// Memory without gaps and holes. The object that begins at `offset` may go beyond its end.
struct Window<'r> {
    /// Address of the first byte.
    base: u64,
    bytes: &'r [u8],
    offset: usize,
}

/// What a look around found.
enum Look {
    /// The window is a new one, and the first object lies in it.
    Window,
    /// An object whose bytes are not in one piece: its address, slot and size.
    Object(u64, usize, u64),
    /// The walk is over.
    End,
}

impl<'r> Window<'r> {
    fn at(&self) -> u64 {
        self.base + self.offset as u64
    }

    /// The next object, if it is of a known type and all of it lies in the window: its address, slot, size and bytes.
    #[inline(always)]
    fn next<'t>(&mut self, types: &'t mut TypeTable) -> Option<(u64, &'t mut Slot, u64, &'r [u8])> {
        let rest = self.bytes.get(self.offset..)?;
        let [w0, w1] = words(rest.first_chunk()?);
        // The GC borrows the lowest bits while it marks.
        let slot = types.known(w0 & !7)?;
        let size = slot.size(w1 as u32);
        let rounded = (size + 7) & !7;
        let object = rest.get(..usize::try_from(rounded).ok()?)?;
        let address = self.at();
        self.offset += object.len();
        prefetch(self.bytes, self.offset + AHEAD);
        Some((address, slot, size, object))
    }
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
        Self { target, layout, heap, progress, types, damage: Damage::default(), large_free: Vec::new() }
    }

    /// Calls `visit` for every object of `segment` with (address, its type's slot, its size).
    pub(crate) fn segment(
        &mut self,
        segment: &Segment,
        mut visit: impl FnMut(u64, &mut Slot, u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let ended = self.part(Part::whole(segment), |address, slot, size, _| visit(address, slot, size))?;
        Ok(if ended.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }

    /// Calls `visit` for every object that begins in `part` with (address, its type's slot, its size, its bytes up to the
    /// next object; none when they are in several pieces). Where the walk ended: at the part's end, or behind it when an
    /// object goes on there; `None` when `visit` broke it off.
    #[inline]
    pub(crate) fn part(
        &mut self,
        part: Part<'_>,
        mut visit: impl FnMut(u64, &mut Slot, u64, &'r [u8]) -> ControlFlow<()>,
    ) -> Result<Option<u64>, Error> {
        let mut cursor = self.cursor(part);
        loop {
            let found = match cursor.window.next(&mut self.types) {
                Some(found) => Some(found),
                None => match self.look_around(&mut cursor)? {
                    Look::Window => None,
                    Look::Object(address, index, size) => {
                        self.types.slot_mut(index).map(|slot| (address, slot, size, &[][..]))
                    }
                    Look::End => return Ok(Some(cursor.window.at())),
                },
            };
            // One call, so that it is compiled into this loop.
            if let Some((address, slot, size, object)) = found
                && visit(address, slot, size, object).is_break()
            {
                return Ok(None);
            }
        }
    }

    fn cursor(&self, part: Part<'_>) -> Cursor<'r> {
        let contexts = self.heap.contexts_in(part.segment);
        let passed = contexts.partition_point(|&(pointer, _)| pointer < part.start);
        Cursor {
            window: Window { base: part.start, bytes: &[], offset: 0 },
            stop: part.stop,
            end: part.segment.end,
            gaps: Gaps::new(contexts.get(passed..).unwrap_or_default()),
            told: part.start,
        }
    }

    /// Goes over what is not an object that lies in the window: gaps, holes, damage, the end of the window.
    #[cold]
    fn look_around(&mut self, cursor: &mut Cursor<'r>) -> Result<Look, Error> {
        let mut at = cursor.window.at();
        self.progress.add(at.saturating_sub(cursor.told));
        cursor.told = at.max(cursor.told);
        loop {
            self.progress.check()?;
            at = cursor.gaps.skip(at);
            if at >= cursor.stop {
                cursor.window = Window { base: at, bytes: &[], offset: 0 };
                return Ok(Look::End);
            }
            let run = self.target.run(at);
            if run.is_empty() {
                let next = self.next_present(at, cursor.end);
                self.damage.missing_bytes += next - at;
                at = cursor.gaps.skip(next);
                // The first bytes behind a hole are rarely the start of an object.
                if at < cursor.end && !self.starts_chain(at, cursor.end, RESYNC_CHAIN) {
                    at = self.resync(at, cursor.end, &cursor.gaps);
                }
                continue;
            }
            let Some((index, size)) = self.object_at(at, cursor.end) else {
                at = self.resync(at, cursor.end, &cursor.gaps);
                continue;
            };
            let rounded = (size + 7) & !7;
            if rounded > run.len() as u64 {
                cursor.window = Window { base: at + rounded, bytes: &[], offset: 0 };
                return Ok(Look::Object(at, index, size));
            }
            let len = rounded.max(WINDOW.min(cursor.stop.min(cursor.gaps.next) - at));
            let bytes = run.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or(run);
            cursor.window = Window { base: at, bytes, offset: 0 };
            return Ok(Look::Window);
        }
    }

    /// Type slot and size of the object at an address, if there is one that fits before `end`.
    fn object_at(&mut self, address: u64, end: u64) -> Option<(usize, u64)> {
        let table = self.target.u64(address).ok()? & !7;
        let index = self.types.find(self.target, self.layout, table)?;
        let slot = self.types.slot_mut(index)?;
        let count =
            if slot.component_size == 0 { 0 } else { self.target.u32(address.checked_add(8)?).ok()? };
        let size = slot.size(count);
        ((size + 7) & !7 <= end.checked_sub(address)?).then_some((index, size))
    }

    /// Whether `length` objects in a row begin at an address.
    fn starts_chain(&mut self, address: u64, end: u64, length: usize) -> bool {
        let mut at = address;
        for _ in 0..length {
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
    fn resync(&mut self, address: u64, end: u64, gaps: &Gaps<'_>) -> u64 {
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
                    if self.starts_chain(at, end, RESYNC_CHAIN) {
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

/// The first two words of an object.
#[inline]
pub(crate) fn words(head: &[u8; 16]) -> [u64; 2] {
    let all = u128::from_le_bytes(*head);
    [all as u64, (all >> 64) as u64]
}
