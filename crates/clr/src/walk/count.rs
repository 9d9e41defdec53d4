//! Counting a heap by type, on several threads and several places at once.
//!
//! Where the next object begins is known only when the size of this one is, so a walk waits for memory and for itself
//! most of the time. Each thread therefore walks several parts of the heap in turns: while one waits, the others go on.

use super::parts::{Part, Plan, in_parts};
use super::{Cursor, Damage, Look, Walker};
use crate::error::Error;
use crate::heap::Segment;
use crate::typetable::{Slot, TypeTable};

/// Parts that a thread walks in turns.
const LANES: usize = 4;
/// Segments are cut into parts of about this many bytes.
const PART: u64 = 16 << 20;
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

/// Counts the objects of `segments` by type on `threads` threads at most.
pub(crate) fn count<'r>(
    walker: &(dyn Fn() -> Walker<'r> + Sync),
    segments: &[Segment],
    threads: usize,
) -> Result<Statistics, Error> {
    count_in_parts(walker, segments, Plan::new(segments, threads, PART))
}

pub(super) fn count_in_parts<'r>(
    walker: &(dyn Fn() -> Walker<'r> + Sync),
    segments: &[Segment],
    plan: Plan,
) -> Result<Statistics, Error> {
    let done = in_parts(walker, segments, plan, &|mut walker: Walker<'r>, parts| {
        Ok(walker.count(parts)?.then_some(walker))
    })?;
    let mut merged: rustc_hash::FxHashMap<u64, Slot> = rustc_hash::FxHashMap::default();
    let mut damage = Damage::default();
    let mut large_free = Vec::new();
    for walker in done {
        damage.merge(&walker.damage);
        large_free.extend_from_slice(&walker.large_free);
        for slot in walker.types.types() {
            merged.entry(slot.table).and_modify(|all| all.merge(slot)).or_insert(*slot);
        }
    }
    large_free.sort_unstable();
    Ok(Statistics { types: merged.into_values().collect(), large_free, damage })
}

impl<'r> Walker<'r> {
    /// Counts the objects of all `parts`. `false`: a part did not end where the next one begins.
    fn count<'s>(&mut self, parts: &mut dyn Iterator<Item = Part<'s>>) -> Result<bool, Error> {
        let mut lanes: Vec<(Part<'s>, Cursor<'r>)> = Vec::with_capacity(LANES);
        loop {
            while lanes.len() < LANES
                && let Some(part) = parts.next()
            {
                lanes.push((part, self.cursor(part)));
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
                    if !part.ends_at(cursor.window.at()) {
                        return Ok(false);
                    }
                    lanes.swap_remove(stuck);
                }
            }
        }
    }
}

/// Counts the next object; `false` when a look around is needed first.
#[inline(always)]
fn step(cursor: &mut Cursor<'_>, types: &mut TypeTable, large: &mut Vec<(u64, u64)>) -> bool {
    match cursor.window.next(types) {
        Some((address, slot, size, _)) => {
            slot.add(address, size);
            if size >= LARGE_FREE && slot.is_free() {
                large.push((address, size));
            }
            true
        }
        None => false,
    }
}
