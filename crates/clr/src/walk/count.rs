//! Counting a heap by type, on several threads and several places at once.
//!
//! Where the next object begins is known only when the size of this one is, so a walk waits for memory and for itself
//! most of the time. Each thread therefore walks several parts of the heap in turns: while one waits, the others go on.
//!
//! Large segments are cut for this. No table says where an object begins in the middle of one, so a place is taken
//! where some objects in a row seem to begin, and then proven: the walk of the part before must arrive at exactly that
//! address. When one doesn't, the place was inside an object, and all is counted again without cuts.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{Cursor, Damage, Look, Walker};
use crate::error::Error;
use crate::heap::Segment;
use crate::typetable::{Slot, TypeTable};

/// Parts that a thread walks in turns.
const LANES: usize = 4;
/// Segments are cut into parts of about this many bytes.
const PART: u64 = 16 << 20;
/// A small heap is counted sooner than a thread is started.
const WORTH_A_THREAD: u64 = 4 << 20;
/// Objects in a row that must make sense where a segment is cut.
const CUT_CHAIN: usize = 16;
/// Words looked at for such a place.
const CUT_TRIES: u64 = 4096;

/// Objects counted by type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Types, in no order.
    pub types: Vec<Slot>,
    /// Free blocks of at least [`LARGE_FREE`] bytes, by address: (address, size).
    pub large_free: Vec<(u64, u64)>,
    /// What could not be counted.
    pub damage: Damage,
}

/// A free block as large as this is worth a line of its own (`FragmentationBlockMinSize` of SOS).
pub const LARGE_FREE: u64 = 512 << 10;

/// A part of a segment.
#[derive(Clone, Copy)]
struct Part<'s> {
    segment: &'s Segment,
    start: u64,
    stop: u64,
}

/// Counts the objects of `segments` by type on `threads` threads at most.
pub(crate) fn count<'r>(
    walker: &(dyn Fn() -> Walker<'r> + Sync),
    segments: &[Segment],
    threads: usize,
) -> Result<Statistics, Error> {
    let bytes = segments.iter().map(Segment::len).fold(0, u64::saturating_add);
    let worth = usize::try_from(bytes / WORTH_A_THREAD).unwrap_or(usize::MAX);
    count_in_parts(walker, segments, threads.min(worth), PART)
}

/// The same on `threads` threads, in parts of about `part` bytes.
pub(super) fn count_in_parts<'r>(
    walker: &(dyn Fn() -> Walker<'r> + Sync),
    segments: &[Segment],
    threads: usize,
    part: u64,
) -> Result<Statistics, Error> {
    let whole = || segments.iter().filter(|s| !s.is_empty());
    let mut cutter = walker();
    let parts = whole().flat_map(|segment| cutter.cut(segment, part)).collect();
    if let Some(statistics) = count_parts(walker, parts, threads)? {
        return Ok(statistics);
    }
    let parts = whole().map(|segment| Part { segment, start: segment.start, stop: segment.end }).collect();
    cutter.progress.again();
    Ok(count_parts(walker, parts, threads)?.unwrap_or_default())
}

/// `None`: a segment was cut inside an object.
fn count_parts<'r>(
    walker: &(dyn Fn() -> Walker<'r> + Sync),
    mut parts: Vec<Part<'_>>,
    threads: usize,
) -> Result<Option<Statistics>, Error> {
    // Largest first, so that no thread is left with a large one at the end.
    parts.sort_by_key(|part| std::cmp::Reverse(part.stop - part.start));
    let next = AtomicUsize::new(0);
    let wrong_cut = AtomicBool::new(false);
    let work = || -> Result<Walker<'r>, Error> {
        let mut walker = walker();
        let mut left = std::iter::from_fn(|| {
            let wrong = wrong_cut.load(Ordering::Relaxed);
            parts.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !wrong).copied()
        });
        if !walker.count(&mut left)? {
            wrong_cut.store(true, Ordering::Relaxed);
        }
        Ok(walker)
    };
    let mut done = Vec::new();
    let helpers = threads.min(parts.len()).saturating_sub(1);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
        done.push(work());
        for handle in handles {
            match handle.join() {
                Ok(walker) => done.push(walker),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    let mut merged: rustc_hash::FxHashMap<u64, Slot> = rustc_hash::FxHashMap::default();
    let mut damage = Damage::default();
    let mut large_free = Vec::new();
    for walker in done {
        let walker = walker?;
        damage.merge(&walker.damage);
        large_free.extend_from_slice(&walker.large_free);
        for slot in walker.types.types() {
            merged.entry(slot.table).and_modify(|all| all.merge(slot)).or_insert(*slot);
        }
    }
    large_free.sort_unstable();
    let statistics = Statistics { types: merged.into_values().collect(), large_free, damage };
    Ok((!wrong_cut.into_inner()).then_some(statistics))
}

impl<'r> Walker<'r> {
    /// Counts the objects of all `parts`. `false`: a part did not end where the next one begins.
    fn count<'s>(&mut self, parts: &mut impl Iterator<Item = Part<'s>>) -> Result<bool, Error> {
        let mut lanes: Vec<(Part<'s>, Cursor<'r>)> = Vec::with_capacity(LANES);
        loop {
            while lanes.len() < LANES
                && let Some(part) = parts.next()
            {
                lanes.push((part, self.cursor(part.segment, part.start, part.stop)));
            }
            let (types, large) = (&mut self.types, &mut self.large_free);
            let stuck = match <&mut [_; LANES]>::try_from(lanes.as_mut_slice()) {
                Ok(all) => 'stuck: loop {
                    for (number, (_, cursor)) in all.iter_mut().enumerate() {
                        if !step(cursor, types, large) {
                            break 'stuck number;
                        }
                    }
                },
                // The last parts of all, one after the other.
                Err(_) => {
                    if let Some((_, cursor)) = lanes.first_mut() {
                        while step(cursor, types, large) {}
                    }
                    0
                }
            };
            let Some((part, cursor)) = lanes.get_mut(stuck) else { return Ok(true) };
            match self.look_around(cursor)? {
                Look::Window => {}
                Look::Object(address, index, size) => {
                    if let Some(slot) = self.types.slot_mut(index) {
                        slot.add(address, size);
                        if size >= LARGE_FREE && slot.is_free() {
                            self.large_free.push((address, size));
                        }
                    }
                }
                Look::End => {
                    if part.stop != part.segment.end && cursor.window.at() != part.stop {
                        return Ok(false);
                    }
                    lanes.swap_remove(stuck);
                }
            }
        }
    }

    /// Cuts a segment into parts, each from the start of what seems to be an object to that of the next.
    fn cut<'s>(&mut self, segment: &'s Segment, part: u64) -> Vec<Part<'s>> {
        let mut parts = Vec::new();
        let mut start = segment.start;
        // Half a part more is no reason to cut.
        while segment.end - start > part + part / 2 {
            let Some(stop) = self.object_from((start + part).next_multiple_of(8), segment.end) else { break };
            parts.push(Part { segment, start, stop });
            start = stop;
        }
        parts.push(Part { segment, start, stop: segment.end });
        parts
    }

    /// The first place from `address` on where objects in a row seem to begin.
    fn object_from(&mut self, address: u64, end: u64) -> Option<u64> {
        let last = end.min(address.saturating_add(8 * CUT_TRIES));
        (address..last).step_by(8).find(|&at| self.starts_chain(at, end, CUT_CHAIN))
    }
}

/// Counts the next object; `false` when a look around is needed first.
#[inline(always)]
fn step(cursor: &mut Cursor<'_>, types: &mut TypeTable, large: &mut Vec<(u64, u64)>) -> bool {
    match cursor.window.next(types) {
        Some((address, slot, size)) => {
            slot.add(address, size);
            if size >= LARGE_FREE && slot.is_free() {
                large.push((address, size));
            }
            true
        }
        None => false,
    }
}
