//! Walks of large heaps on several threads.
//!
//! Large segments are cut for this. No table says where an object begins in the middle of one, so a place is taken
//! where some objects in a row seem to begin, and then proven: the walk of the part before must arrive at exactly that
//! address. When one doesn't, the place was inside an object, and all is walked again without cuts.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Walker;
use crate::error::Error;
use crate::heap::Segment;

/// A small heap is walked sooner than a thread is started.
const WORTH_A_THREAD: u64 = 4 << 20;
/// Objects in a row that must make sense where a segment is cut.
const CUT_CHAIN: usize = 16;
/// Words looked at for such a place.
const CUT_TRIES: u64 = 4096;

/// A part of a segment; an object begins at its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'s> {
    pub(crate) segment: &'s Segment,
    pub(crate) start: u64,
    pub(crate) stop: u64,
}

impl<'s> Part<'s> {
    pub(crate) fn whole(segment: &'s Segment) -> Self {
        Self { segment, start: segment.start, stop: segment.end }
    }

    /// Whether a walk of it that ended there shows that the next part begins at an object.
    pub(crate) fn ends_at(&self, end: u64) -> bool {
        self.stop == self.segment.end || self.stop == end
    }
}

/// How a heap is walked in parts.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// At most so many threads.
    pub(crate) threads: usize,
    /// Segments are cut into parts of about this many bytes.
    pub(crate) part: u64,
}

impl Plan {
    /// As many threads as the segments are worth, at most `threads`.
    pub(crate) fn new(segments: &[Segment], threads: usize, part: u64) -> Self {
        let bytes = segments.iter().map(Segment::len).fold(0, u64::saturating_add);
        let worth = usize::try_from(bytes / WORTH_A_THREAD).unwrap_or(usize::MAX);
        Self { threads: threads.min(worth).max(1), part }
    }
}

/// Has `work` walk the parts of `segments`, on each thread with a walker of its own until there are no parts left; what
/// each thread found. `work` gives `None` when a part did not end as it should ([`Part::ends_at`]).
pub(crate) fn in_parts<'r, 's, T: Send, W>(
    walker: &(dyn Fn() -> Walker<'r> + Sync),
    segments: &'s [Segment],
    plan: Plan,
    work: &W,
) -> Result<Vec<T>, Error>
where
    W: Fn(Walker<'r>, &mut dyn Iterator<Item = Part<'s>>) -> Result<Option<T>, Error> + Sync,
{
    let whole = || segments.iter().filter(|segment| !segment.is_empty());
    let mut cutter = walker();
    let parts = whole().flat_map(|segment| cutter.cut(segment, plan.part)).collect();
    if let Some(found) = all(walker, parts, plan.threads, work)? {
        return Ok(found);
    }
    cutter.progress.again();
    Ok(all(walker, whole().map(Part::whole).collect(), plan.threads, work)?.unwrap_or_default())
}

/// `None`: a segment was cut inside an object.
fn all<'r, 's, T: Send, W>(
    walker: &(dyn Fn() -> Walker<'r> + Sync),
    mut parts: Vec<Part<'s>>,
    threads: usize,
    work: &W,
) -> Result<Option<Vec<T>>, Error>
where
    W: Fn(Walker<'r>, &mut dyn Iterator<Item = Part<'s>>) -> Result<Option<T>, Error> + Sync,
{
    // Largest first, so that no thread is left with a large one at the end.
    parts.sort_by_key(|part| std::cmp::Reverse(part.stop - part.start));
    let next = AtomicUsize::new(0);
    let wrong_cut = AtomicBool::new(false);
    let mut workers: Vec<()> = vec![(); threads.min(parts.len()).max(1)];
    let found = on_threads(&mut workers, |()| {
        let mut left = std::iter::from_fn(|| {
            let wrong = wrong_cut.load(Ordering::Relaxed);
            parts.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !wrong).copied()
        });
        let found = work(walker(), &mut left)?;
        if found.is_none() {
            wrong_cut.store(true, Ordering::Relaxed);
        }
        Ok(found)
    });
    found.into_iter().collect()
}

/// Calls `work` with each state, each on a thread of its own (the last one on this); the results in the same order.
pub(crate) fn on_threads<S: Send, T: Send>(states: &mut [S], work: impl Fn(&mut S) -> T + Sync) -> Vec<T> {
    let Some((last, others)) = states.split_last_mut() else { return Vec::new() };
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = others.iter_mut().map(|state| scope.spawn(move || work(state))).collect();
        let last = work(last);
        let results = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.chain(std::iter::once_with(|| last)).collect()
    })
}

impl Walker<'_> {
    /// Cuts a segment into parts, each from the start of what seems to be an object to that of the next.
    pub(super) fn cut<'s>(&mut self, segment: &'s Segment, part: u64) -> Vec<Part<'s>> {
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
