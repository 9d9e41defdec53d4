//! Breadth-first search over the heap.
//!
//! The queue is never emptied: it is the order in which objects were found. Because an object's finder stands before it
//! and finders follow each other in the same order, the finder of any object can be worked out afterwards from a few
//! checkpoints; no parent pointers are stored. A search over 30 million objects takes four bytes for each of them
//! and a bit for every eight bytes of heap.

use rustc_hash::FxHashMap;

use super::Word;
use super::bits::Bits;
use super::graph::Graph;
use crate::error::Error;

/// Objects fetched from memory ahead of the one being looked at.
const AHEAD: usize = 8;
/// Finders between two checkpoints.
const CHECKPOINT: usize = 256;
const CHECK_EVERY: usize = 1 << 16;

/// How a search ended.
pub(super) enum Outcome {
    /// With a wanted object, at this position.
    Hit(usize),
    /// Everything reachable was found and none of it was wanted.
    All,
    /// It may go on.
    Limit,
}

/// The objects found by a search, in order, and how.
pub(super) struct Found<W> {
    queue: Vec<W>,
    head: usize,
    /// Length of the queue each time another [`CHECKPOINT`] finders were done.
    tails: Vec<usize>,
    /// Objects found through a dependent handle: position in the queue and the handle's
    /// first object (dense).
    by_dependent: FxHashMap<usize, u64>,
}

impl<W: Word> Found<W> {
    pub(super) fn new() -> Self {
        Self { queue: Vec::new(), head: 0, tails: Vec::new(), by_dependent: FxHashMap::default() }
    }

    pub(super) fn into_queue(self) -> Vec<W> {
        self.queue
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn get(&self, position: usize) -> Option<u64> {
        self.queue.get(position).map(|w| w.unpack())
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        self.queue.iter().map(|w| w.unpack())
    }

    pub(super) fn push(&mut self, bits: &Bits, dense: u64) -> bool {
        let new = bits.set::<false>(dense);
        if new {
            self.queue.push(W::pack(dense));
        }
        new
    }

    pub(super) fn reset(&mut self) {
        self.queue.clear();
        self.head = 0;
        self.tails.clear();
        self.by_dependent.clear();
    }

    /// Searches on until everything reachable is found, or an object for which `wanted` says so, or about `limit` objects
    /// were looked at.
    pub(super) fn search<const COUNT: bool>(
        &mut self,
        graph: &mut Graph<'_, '_>,
        bits: &Bits,
        limit: usize,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<Outcome, Error> {
        let index = graph.index;
        loop {
            while self.head < self.queue.len() {
                if self.head.is_multiple_of(CHECKPOINT) {
                    if self.head >= limit {
                        return Ok(Outcome::Limit);
                    }
                    self.tails.push(self.queue.len());
                    if self.head.is_multiple_of(CHECK_EVERY) {
                        graph.setting().progress.check()?;
                    }
                }
                let dense = self.queue.get(self.head).map_or(0, |w| w.unpack());
                if let Some(coming) = self.queue.get(self.head + AHEAD) {
                    index.fetch(coming.unpack());
                }
                self.head += 1;
                let queue = &mut self.queue;
                let mut hit = None;
                graph.references::<COUNT>(dense, |address| {
                    if let Some(next) = index.dense(address)
                        && bits.set::<false>(next)
                    {
                        queue.push(W::pack(next));
                        if hit.is_none() && wanted(next) {
                            hit = Some(queue.len() - 1);
                        }
                    }
                });
                if let Some(hit) = hit {
                    return Ok(Outcome::Hit(hit));
                }
            }
            if let Some(hit) = self.follow_dependents(graph, bits, &wanted) {
                return Ok(Outcome::Hit(hit));
            }
            if self.head == self.queue.len() {
                return Ok(Outcome::All);
            }
        }
    }

    fn follow_dependents(
        &mut self,
        graph: &Graph<'_, '_>,
        bits: &Bits,
        wanted: &impl Fn(u64) -> bool,
    ) -> Option<usize> {
        for (primary, secondary) in graph.dependents() {
            if bits.get(primary) && self.push(bits, secondary) {
                self.by_dependent.insert(self.queue.len() - 1, primary);
                if wanted(secondary) {
                    return Some(self.queue.len() - 1);
                }
            }
        }
        None
    }

    /// The chain of positions from the start of the search to `position`.
    pub(super) fn chain(&self, graph: &mut Graph<'_, '_>, position: usize) -> Vec<usize> {
        let mut chain = vec![position];
        let mut at = position;
        while at > 0 && chain.len() <= self.queue.len() {
            match self.finder(graph, at) {
                Some(finder) if finder < at => {
                    chain.push(finder);
                    at = finder;
                }
                _ => break,
            }
        }
        chain.reverse();
        chain
    }

    fn finder(&self, graph: &mut Graph<'_, '_>, position: usize) -> Option<usize> {
        let dense = self.get(position)?;
        if let Some(&primary) = self.by_dependent.get(&position) {
            // Rare, so a look through the queue will do.
            return self.iter().position(|d| d == primary);
        }
        let block = self.tails.partition_point(|&tail| tail <= position).checked_sub(1)?;
        let address = graph.index.address(dense);
        (block * CHECKPOINT..self.queue.len().min((block + 1) * CHECKPOINT)).find(|&candidate| {
            let Some(from) = self.get(candidate) else { return false };
            let mut found = false;
            graph.references::<false>(from, |value| found |= value == address);
            found
        })
    }
}
