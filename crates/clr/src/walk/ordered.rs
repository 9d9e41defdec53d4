//! All objects of one type: looked for on several threads, handed over in the order of their addresses.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::parts::{Part, Plan};
use super::{Damage, Object, Walker};
use crate::error::Error;
use crate::heap::Segment;

/// Segments are cut into parts of about this many bytes.
const PART: u64 = 4 << 20;
/// Parts that threads may be ahead of what was handed over.
const AHEAD: usize = 64;

/// What was found in a part.
struct Found {
    /// Address and size of each object.
    objects: Vec<(u64, u64)>,
    /// Where the walk ended.
    end: u64,
    damage: Damage,
}

#[derive(Default)]
struct State {
    /// By number of the part.
    found: BTreeMap<usize, Result<Found, Error>>,
    /// Number of the part that no thread has taken yet.
    next: usize,
    /// Number of the part to be handed over next.
    expected: usize,
    /// No more is wanted.
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a part to walk.
    fn take(&self, parts: usize) -> Option<usize> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        while !state.stopped && number < parts && number >= state.expected + AHEAD {
            state = self.wait(state);
        }
        (!state.stopped && number < parts).then_some(number)
    }

    fn put(&self, number: usize, found: Result<Found, Error>) {
        self.lock().found.insert(number, found);
        self.changed.notify_all();
    }

    /// What was found in the next part; `None` when a thread has ended in a panic.
    fn expected(&self) -> Option<Result<Found, Error>> {
        let mut state = self.lock();
        loop {
            let expected = state.expected;
            if let Some(found) = state.found.remove(&expected) {
                state.expected += 1;
                self.changed.notify_all();
                return Some(found);
            }
            if state.stopped {
                return None;
            }
            state = self.wait(state);
        }
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }
}

/// Stops all threads when one ends in a panic, or at all.
struct Stop<'s> {
    shared: &'s Shared,
    always: bool,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        if self.always || std::thread::panicking() {
            self.shared.stop();
        }
    }
}

/// Calls `visit` for every object of `table` in `segments`, one segment after the other, each by address.
pub(crate) fn each_of<'r>(
    walker: &(dyn Fn() -> Walker<'r> + Sync),
    segments: &[Segment],
    threads: usize,
    table: u64,
    visit: impl FnMut(&Segment, Object) -> ControlFlow<()>,
) -> Result<Damage, Error> {
    each_in_parts(walker, segments, Plan::new(segments, threads, PART), table, visit)
}

pub(super) fn each_in_parts<'r>(
    walker: &(dyn Fn() -> Walker<'r> + Sync),
    segments: &[Segment],
    plan: Plan,
    table: u64,
    mut visit: impl FnMut(&Segment, Object) -> ControlFlow<()>,
) -> Result<Damage, Error> {
    let mut own = walker();
    let whole = segments.iter().filter(|segment| !segment.is_empty());
    if plan.threads <= 1 {
        for part in whole.map(Part::whole) {
            if own.visit_type(part, table, &mut visit)?.is_break() {
                break;
            }
        }
        return Ok(own.damage);
    }
    let parts: Vec<Part<'_>> = whole.flat_map(|segment| own.cut(segment, plan.part)).collect();
    let shared = Shared::default();
    let work = || {
        let mut walker = walker();
        let _stop = Stop { shared: &shared, always: false };
        while let Some(number) = shared.take(parts.len()) {
            let Some(part) = parts.get(number) else { break };
            shared.put(number, walker.found(*part, table));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..plan.threads {
            scope.spawn(work);
        }
        let _stop = Stop { shared: &shared, always: true };
        let mut damage = Damage::default();
        // The segment that was cut inside an object, and has been walked to its end therefore.
        let mut done: Option<u64> = None;
        for part in &parts {
            let Some(found) = shared.expected() else { break };
            let found = found?;
            if done == Some(part.segment.start) {
                continue;
            }
            damage.merge(&found.damage);
            for &(address, size) in &found.objects {
                if visit(part.segment, Object { address, table, size }).is_break() {
                    return Ok(damage);
                }
            }
            if !part.ends_at(found.end) {
                done = Some(part.segment.start);
                let rest = Part { start: found.end, stop: part.segment.end, ..*part };
                if own.visit_type(rest, table, &mut visit)?.is_break() {
                    break;
                }
            }
        }
        damage.merge(&own.damage);
        Ok(damage)
    })
}

impl Walker<'_> {
    fn visit_type(
        &mut self,
        part: Part<'_>,
        table: u64,
        visit: &mut impl FnMut(&Segment, Object) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let ended = self.part(part, |address, slot, size, _| {
            if slot.table == table {
                return visit(part.segment, Object { address, table, size });
            }
            ControlFlow::Continue(())
        })?;
        Ok(if ended.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }

    fn found(&mut self, part: Part<'_>, table: u64) -> Result<Found, Error> {
        let mut objects = Vec::new();
        self.damage = Damage::default();
        let ended = self.part(part, |address, slot, size, _| {
            if slot.table == table {
                objects.push((address, size));
            }
            ControlFlow::Continue(())
        })?;
        Ok(Found { objects, end: ended.unwrap_or(part.stop), damage: self.damage })
    }
}
