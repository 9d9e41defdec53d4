//! Which roots keep an object alive, and how.
//!
//! For every root a breadth-first search runs until it meets the target or an object already known to lead there. Two
//! sets make this fast and exact over thousands of roots:
//!
//! * objects on a path found before: meeting one of them ends a search with success;
//! * objects of a search that ended without success: none of them leads to the target (their searches saw
//!   everything they reach), so no later search enters them.
//!
//! Objects seen by a search that succeeded and that are not on its path could be either, so they are forgotten.
//!
//! Breadth-first search gives short paths but strays through memory. So when one has taken long, objects that refer to
//! the target are looked for, objects that refer to those, and so on ([`super::backwards`]), until one of them is an
//! object that the search has found, or there are no more: then the objects that lead to the target are known exactly.
//!
//! Where that takes too long, or parts of the heap can't be walked, everything that the roots reach is marked, which is
//! several times as fast as searching: often the answer is that nothing reaches the target at all. And when many
//! searches have taken long, the exact set is worked out from all references ([`super::settle`]).

use dnd_contract::Addr;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::backwards::{Backwards, Effort, Progressed};
use super::bits::Bits;
use super::graph::Graph;
use super::index::HeapIndex;
use super::mark::mark;
use super::search::{Found, Outcome};
use super::settle::settle;
use super::{NextStep, Setting, Word};
use crate::error::Error;
use crate::roots::Root;

/// What is done before faster means are tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// By one search, before it is made sure that a root reaches the target at all.
    pub(super) search: u64,
    /// By all searches, before the exact set of objects that lead to the target is worked out.
    pub(super) all: u64,
    /// By the search against the direction of the references.
    pub(super) backwards: Effort,
}

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

    /// Inserts each object of a chain but the last, which is known already.
    fn insert_all(&mut self, chain: &[u64]) {
        for pair in chain.windows(2) {
            if let [from, to] = *pair {
                self.insert(from, to);
            }
        }
    }

    fn path(&self, graph: &Graph<'_, '_>, from: u64) -> Vec<u64> {
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
    setting: &Setting<'_>,
    index: &HeapIndex<'_>,
    roots: &[Root],
    target: u64,
    patience: Patience,
) -> Result<Vec<RootPath>, Error> {
    let Some(goal) = index.dense(target) else { return Ok(Vec::new()) };
    let mut search = Search::<'_, W> {
        goal,
        leading: Leading::new(goal),
        backwards: None,
        bits: Bits::new(index.dense_len())?,
        found: Found::new(),
        looked_at: 0,
    };
    let mut graph = Graph::new(setting, index);
    // Roots before this one are known not to reach the target.
    let mut first = 0;
    let mut means = Means::Searches;
    let mut out = Vec::new();
    for (number, root) in roots.iter().enumerate() {
        let Some(start) = index.dense(root.object).filter(|_| number >= first) else { continue };
        let left = roots.get(number..).unwrap_or_default();
        let mut reaches = match means {
            Means::Searches => search.reaches(&mut graph, start, patience.search)?,
            _ => search.reaches(&mut graph, start, u64::MAX)?,
        };
        if reaches.is_none() {
            (means, reaches) = search.backwards(&mut graph, left, patience)?;
        }
        let reaches = match reaches {
            Some(reaches) => reaches,
            None => match search.first_that_reaches(setting, index, left)? {
                None => break,
                Some(0) => search.reaches(&mut graph, start, u64::MAX)?.unwrap_or(false),
                Some(skip) => {
                    search.forget();
                    first = number + skip;
                    false
                }
            },
        };
        if reaches {
            let objects = search.leading.path(&graph, start);
            // The promise made to the user: no edge is shown that is not there.
            let checked =
                objects.windows(2).all(|pair| matches!(*pair, [from, to] if graph.refers(from, to)));
            if checked && objects.last() == Some(&target) {
                out.push(RootPath { root: number, objects });
            }
        }
        if means != Means::All && search.looked_at > patience.all {
            if means == Means::Searches {
                (means, _) = search.backwards(&mut graph, left, patience)?;
            }
            if means != Means::All {
                means = Means::All;
                search.settle(setting, index, left)?;
            }
        }
    }
    Ok(out)
}

/// What is known besides what searches found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Means {
    /// Perhaps some objects that lead to the target.
    Searches,
    /// That a root reaches the target.
    Marked,
    /// All objects that lead to the target.
    All,
}

struct Search<'r, W> {
    goal: u64,
    leading: Leading,
    /// Further objects that lead to the target.
    backwards: Option<Backwards<'r>>,
    /// Objects that do not lead to the target, and those of the search under way.
    bits: Bits,
    found: Found<W>,
    /// Objects looked at in all searches.
    looked_at: u64,
}

impl<'r, W: Word> Search<'r, W> {
    /// Whether an object leads to the target; a way there is then in `leading`. `None`: more than `limit` objects were
    /// looked at; the same call goes on.
    fn reaches(&mut self, graph: &mut Graph<'_, '_>, start: u64, limit: u64) -> Result<Option<bool>, Error> {
        if self.leading.contains(start) {
            return Ok(Some(true));
        }
        let (leading, backwards) = (&self.leading, self.backwards.as_ref());
        let wanted = |dense| leading.contains(dense) || backwards.is_some_and(|known| known.contains(dense));
        let goes_on = self.found.get(0) == Some(start);
        if !goes_on {
            if wanted(start) {
                self.lead(graph, &[start])?;
                return Ok(Some(true));
            }
            if self.bits.get(start) {
                return Ok(Some(false));
            }
            self.found.push(&self.bits, start);
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let hit = match self.found.search::<false>(graph, &self.bits, limit, wanted)? {
            Outcome::Limit => return Ok(None),
            Outcome::All => None,
            Outcome::Hit(hit) => Some(hit),
        };
        match hit {
            Some(hit) => self.arrived(graph, hit)?,
            None => {
                self.looked_at += self.found.len() as u64;
                self.found.reset();
            }
        }
        Ok(Some(hit.is_some()))
    }

    /// Ends the search under way, which found an object that leads to the target.
    fn arrived(&mut self, graph: &mut Graph<'_, '_>, hit: usize) -> Result<(), Error> {
        self.looked_at += self.found.len() as u64;
        let chain = self.found.chain(graph, hit);
        let chain: Vec<u64> = chain.into_iter().filter_map(|position| self.found.get(position)).collect();
        self.forget();
        self.lead(graph, &chain)
    }

    /// Notes a chain of objects of which the last leads to the target.
    fn lead(&mut self, graph: &mut Graph<'_, '_>, chain: &[u64]) -> Result<(), Error> {
        if let (Some(&last), Some(known)) = (chain.last(), &self.backwards)
            && !self.leading.contains(last)
        {
            let leading = &self.leading;
            let onward = known.path(graph, last, |dense| leading.contains(dense))?;
            self.leading.insert_all(&onward);
        }
        self.leading.insert_all(chain);
        Ok(())
    }

    /// Goes on against the direction of the references after searches have taken too long: whether the search under way
    /// has success then, `None` when that is not known.
    fn backwards(
        &mut self,
        graph: &mut Graph<'_, 'r>,
        roots: &[Root],
        patience: Patience,
    ) -> Result<(Means, Option<bool>), Error> {
        let known = match &mut self.backwards {
            Some(known) => known,
            None => {
                let cards = graph.setting().cards(graph.index)?;
                self.backwards.insert(Backwards::new(graph, cards, self.goal, roots)?)
            }
        };
        match known.advance(graph, &self.bits, patience.backwards)? {
            Progressed::Met(member) => {
                let position = self.found.iter().position(|dense| dense == member);
                let Some(position) = position else { return Ok((Means::Marked, None)) };
                self.arrived(graph, position)?;
                Ok((Means::Searches, Some(true)))
            }
            Progressed::Complete => {
                self.found = Found::new();
                if let Some(known) = self.backwards.take() {
                    // From now on a search enters no other objects.
                    self.bits = known.into_members();
                    self.bits.invert();
                }
                Ok((Means::All, Some(false)))
            }
            Progressed::GaveUp => Ok((Means::Marked, None)),
        }
    }

    /// Forgets the search under way.
    fn forget(&mut self) {
        for dense in self.found.iter() {
            self.bits.clear(dense);
        }
        self.found.reset();
    }

    /// The first of `roots` that reaches the target, by marking everything that they reach.
    fn first_that_reaches(
        &self,
        setting: &Setting<'_>,
        index: &HeapIndex<'_>,
        roots: &[Root],
    ) -> Result<Option<usize>, Error> {
        let marked = Bits::new(index.dense_len())?;
        let mut graphs = super::graphs(setting, index);
        for (number, root) in roots.iter().enumerate() {
            let Some(dense) = index.dense(root.object).filter(|&dense| marked.set::<false>(dense)) else {
                continue;
            };
            mark(&mut graphs, &marked, vec![W::pack(dense)])?;
            if marked.get(self.goal) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Marks all objects that `roots` reach and that do not lead to the target: after this a search never enters one.
    fn settle(&mut self, setting: &Setting<'_>, index: &HeapIndex<'_>, roots: &[Root]) -> Result<(), Error> {
        self.found = Found::new();
        self.backwards = None;
        let starts = roots.iter().filter_map(|root| index.dense(root.object));
        // If it is too large a task, searches just go on.
        settle::<W>(setting, index, starts, self.goal, &self.bits)?;
        Ok(())
    }
}
