//! Which roots keep an object alive, and how.
//!
//! For every root a breadth-first search runs until it meets the target or an object already known to lead there. Two
//! sets make this fast and exact over thousands of roots:
//!
//! * objects on a path found before: meeting one of them ends a search with success;
//! * objects of a search that ended without success: none of them leads to the target (their searches saw
//!   everything they reach), so no later search enters them.
//!
//! Objects seen by a search that succeeded and that are not on its path could be either, so they are forgotten. When that
//! makes the work repeat itself too often, the exact set of all objects that lead to the target is worked out instead.

use dnd_contract::Addr;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::NextStep;
use super::explore::{Bits, Found, Graph, Word};
use crate::error::Error;
use crate::roots::Root;

/// Searches may look at this many times the objects of the heap in all before the exact set is worked out.
const PATIENCE: u64 = 3;

/// A path from a root to the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RootPath {
    /// Index of the root in the list given.
    pub root: usize,
    /// The objects, the root's first, the target last. Every step was checked: the object refers to the next one by a
    /// field, as the load context of its type, or through a dependent handle.
    #[serde(serialize_with = "addresses")]
    pub objects: Vec<u64>,
}

fn addresses<S: serde::Serializer>(objects: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(objects.iter().map(|&object| Addr(object)))
}

/// Objects known to lead to the target, with a filter in front that fits into the first-level cache.
struct Leading {
    next: NextStep,
    filter: Box<[u64; 1024]>,
}

impl Leading {
    fn new(target: u64) -> Self {
        let mut leading = Self { next: FxHashMap::default(), filter: Box::new([0; 1024]) };
        leading.insert(target, target);
        leading
    }

    fn insert(&mut self, dense: u64, next: u64) {
        self.next.insert(dense, next);
        if let Some(word) = self.filter.get_mut((dense >> 6) as usize & 1023) {
            *word |= 1 << (dense & 63);
        }
    }

    #[inline]
    fn contains(&self, dense: u64) -> bool {
        let word = self.filter.get((dense >> 6) as usize & 1023).copied().unwrap_or(0);
        word >> (dense & 63) & 1 != 0 && self.next.contains_key(&dense)
    }

    fn path(&self, graph: &Graph<'_>, from: u64) -> Vec<u64> {
        let mut at = from;
        let mut path = vec![graph.index.address(at)];
        while let Some(&next) = self.next.get(&at).filter(|&&next| next != at) {
            path.push(graph.index.address(next));
            at = next;
        }
        path
    }
}

pub(super) fn find<W: Word>(
    mut graph: Graph<'_>,
    roots: &[Root],
    target: u64,
) -> Result<Vec<RootPath>, Error> {
    let Some(goal) = graph.index.dense(target) else { return Ok(Vec::new()) };
    let mut search = Search::<W> {
        leading: Leading::new(goal),
        bits: Bits::new(graph.index.dense_len()),
        found: Found::new(),
        looked_at: 0,
    };
    // The smallest object takes three words, a usual one six.
    let patience = PATIENCE * graph.index.dense_len() / 6 + 1_000_000;
    let mut settled = false;
    let mut out = Vec::new();
    for (number, root) in roots.iter().enumerate() {
        let Some(start) = graph.index.dense(root.object) else { continue };
        if !search.reaches(&mut graph, start)? {
            if !settled && search.looked_at > patience {
                settled = true;
                search.settle(&mut graph, roots.get(number..).unwrap_or(&[]))?;
            }
            continue;
        }
        let objects = search.leading.path(&graph, start);
        // The promise made to the user: no edge is shown that is not there.
        if objects.windows(2).all(|pair| matches!(*pair, [from, to] if graph.refers(from, to))) {
            out.push(RootPath { root: number, objects });
        }
        if !settled && search.looked_at > patience {
            settled = true;
            search.settle(&mut graph, roots.get(number + 1..).unwrap_or(&[]))?;
        }
    }
    Ok(out)
}

struct Search<W> {
    leading: Leading,
    /// Objects that do not lead to the target, and those of the search under way.
    bits: Bits,
    found: Found<W>,
    /// Objects looked at in all searches.
    looked_at: u64,
}

impl<W: Word> Search<W> {
    /// Whether an object leads to the target; a way there is then in `leading`.
    fn reaches(&mut self, graph: &mut Graph<'_>, start: u64) -> Result<bool, Error> {
        if self.leading.contains(start) {
            return Ok(true);
        }
        if self.bits.get(start) {
            return Ok(false);
        }
        self.found.reset();
        self.found.push(&mut self.bits, start);
        let leading = &self.leading;
        let hit = self.found.search::<false>(graph, &mut self.bits, |dense| leading.contains(dense))?;
        self.looked_at += self.found.len() as u64;
        let Some(hit) = hit else { return Ok(false) };
        for dense in self.found.iter() {
            self.bits.clear(dense);
        }
        let chain: Vec<u64> = self
            .found
            .chain(graph, hit)
            .into_iter()
            .filter_map(|position| self.found.get(position))
            .collect();
        for pair in chain.windows(2) {
            if let [from, to] = *pair {
                self.leading.insert(from, to);
            }
        }
        Ok(true)
    }

    /// Works out exactly which of the objects that `roots` reach do not lead to the target, and marks them so: after
    /// this a search never enters one of them.
    fn settle(&mut self, graph: &mut Graph<'_>, roots: &[Root]) -> Result<(), Error> {
        self.found.reset();
        for root in roots {
            if let Some(dense) = graph.index.dense(root.object) {
                self.found.push(&mut self.bits, dense);
            }
        }
        self.found.search::<false>(graph, &mut self.bits, |_| false)?;
        let mut leads = Bits::new(graph.index.dense_len());
        for &dense in self.leading.next.keys() {
            leads.set(dense);
        }
        // Finders stand before what they found, so one sweep from the back follows whole paths; edges that lead back to
        // objects found earlier take further sweeps.
        loop {
            graph.progress.check()?;
            let mut changed = false;
            for dense in self.found.iter().rev() {
                if leads.get(dense) {
                    continue;
                }
                let mut leading = false;
                graph.references::<false>(dense, |index, address| {
                    leading |= index.dense(address).is_some_and(|next| leads.get(next));
                });
                if leading {
                    leads.set(dense);
                    changed = true;
                }
            }
            for (primary, secondary) in graph.dependent_pairs() {
                if leads.get(secondary) && leads.set(primary) {
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        for dense in self.found.iter() {
            if leads.get(dense) {
                self.bits.clear(dense);
            }
        }
        Ok(())
    }
}
