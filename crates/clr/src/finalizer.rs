//! The finalizer queue.
//!
//! Source: class `CFinalize` in `src/coreclr/gc/gcpriv.h`: fill pointers into one array that holds, in this order, the
//! finalizable objects of the generations (oldest kind first), then those whose finalizer waits to be run.

use dnd_memory::Memory;

use crate::error::{Error, Reading};
use crate::heap::Heap;

/// More entries than a heap has objects would be damage; 2^32 is a heap of 96 GB of the smallest objects.
const MAX_ENTRIES: u64 = 1 << 32;

/// One heap's finalizer queue. The ranges are addresses of the queue's own array, for those who look at it raw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FinalizerQueue {
    /// Finalizable objects by generation: 0, 1, 2, large, pinned.
    pub generations: Vec<Part>,
    /// Critical finalizers that wait to be run; roots.
    pub critical_ready: Part,
    /// Finalizers that wait to be run; roots.
    pub ready: Part,
}

/// A part of a finalizer queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// First entry's address.
    pub start: u64,
    /// Address behind the last entry.
    pub end: u64,
    /// The objects.
    pub objects: Vec<u64>,
}

impl FinalizerQueue {
    /// All objects of the queue.
    pub fn objects(&self) -> impl Iterator<Item = u64> + '_ {
        let waiting = [&self.critical_ready, &self.ready];
        self.generations.iter().chain(waiting).flat_map(|part| part.objects.iter().copied())
    }

    /// The objects whose finalizers wait to be run, which keeps them alive.
    pub fn roots(&self) -> impl Iterator<Item = u64> + '_ {
        self.critical_ready.objects.iter().chain(&self.ready.objects).copied()
    }
}

/// Reads the finalizer queues, one for each heap.
pub(crate) fn read(memory: &dyn Memory, heap: &Heap) -> Result<Vec<FinalizerQueue>, Error> {
    heap.heaps.iter().map(|sub| read_queue(memory, heap, sub.finalize_queue)).collect()
}

fn read_queue(memory: &dyn Memory, heap: &Heap, at: u64) -> Result<FinalizerQueue, Error> {
    let what = "the finalizer queue";
    let generations = heap.generation_count;
    let word = |i: u64| memory.u64(at.wrapping_add(8 * i)).reading(what);
    let mut start = word(generations + 2)?;
    let mut parts = Vec::new();
    for i in 0..generations + 2 {
        let end = word(i)?;
        if end < start || (end - start) / 8 > MAX_ENTRIES {
            return Err(Error::Damaged { what, addr: at });
        }
        let mut objects = Vec::new();
        for entry in (start..end).step_by(8) {
            objects.push(memory.u64(entry).reading(what)?);
        }
        parts.push(Part { start, end, objects });
        start = end;
    }
    let ready = parts.pop().unwrap_or_default();
    let critical_ready = parts.pop().unwrap_or_default();
    // Stored from the last generation to the first.
    parts.reverse();
    Ok(FinalizerQueue { generations: parts, critical_ready, ready })
}
