//! Objects that lead to one, by looking for those that refer to it, to them, and so on.
//!
//! In rounds over the [`Cards`], backward and forward in turns: of each card that refers to one where a member was added
//! in the last round or in this, all objects are looked at. A member found early serves the rest of its round, so a round
//! forward closes chains whose referrers have higher addresses, and one backward all others: objects that were allocated
//! one after the other mostly refer to each other in one direction. The set is complete when a round adds nothing.
//!
//! One thread, so that the same question has the same answer every time; most rounds look at few cards.

use rustc_hash::FxHashMap;

use super::bits::Bits;
use super::cards::{Cards, Stretch};
use super::graph::Graph;
use crate::error::Error;
use crate::roots::Root;

/// Cards looked at between two looks at what the user wants.
const CHECK_EVERY: u64 = 1 << 8;

/// How much is done in all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// Rounds.
    pub(super) rounds: usize,
    /// Cards whose objects are looked at.
    pub(super) cards: u64,
}

/// What came of it.
pub(super) enum Progressed {
    /// A member (dense) that a search from a root has found.
    Met(u64),
    /// There are no more members.
    Complete,
    /// It took too long; or there may be more members where no walk over the heap sees them.
    GaveUp,
}

/// The objects known to lead to a goal.
pub(super) struct Backwards<'c> {
    cards: &'c Cards,
    members: Bits,
    /// Cards where members were added in the last round or in this.
    hot: Bits,
    /// Cards where members were added in this round.
    fresh: Bits,
    rounds: usize,
    looked_at: u64,
    /// Every object that a search can meet is one that a walk meets.
    trusted: bool,
    /// Objects of the card being looked at.
    objects: Vec<u64>,
}

impl<'c> Backwards<'c> {
    /// Only `goal` to begin with; `roots` are those that will be asked about.
    pub(super) fn new(
        graph: &mut Graph<'_, '_>,
        cards: &'c Cards,
        goal: u64,
        roots: &[Root],
    ) -> Result<Self, Error> {
        let index = graph.index;
        let length = cards.len(index);
        let mut trusted = cards.whole && !graph.setting().heap.gc_in_progress;
        for dense in roots.iter().filter_map(|root| index.dense(root.object)) {
            trusted = trusted && cards.is_object(graph, dense)?;
        }
        let new = Self {
            cards,
            members: Bits::new(index.dense_len())?,
            hot: Bits::new(length)?,
            fresh: Bits::new(length)?,
            rounds: 0,
            looked_at: 0,
            trusted,
            objects: Vec::new(),
        };
        new.add(goal);
        Ok(new)
    }

    /// Whether an object is known to lead to the goal.
    #[inline]
    pub(super) fn contains(&self, dense: u64) -> bool {
        self.members.get(dense)
    }

    /// A chain of members from one to an object that is `wanted`, the shortest that there is.
    pub(super) fn path(
        &self,
        graph: &mut Graph<'_, '_>,
        from: u64,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<Vec<u64>, Error> {
        let index = graph.index;
        let mut dependents: FxHashMap<u64, Vec<u64>> = FxHashMap::default();
        for (primary, secondary) in graph.dependents() {
            dependents.entry(primary).or_default().push(secondary);
        }
        let mut finders: FxHashMap<u64, u64> = FxHashMap::default();
        finders.insert(from, from);
        let (mut queue, mut next, mut hit) = (vec![from], 0, None);
        while let (Some(&dense), None) = (queue.get(next), hit) {
            next += 1;
            if next % CHECK_EVERY as usize == 0 {
                graph.setting().progress.check()?;
            }
            let mut visit = |to: u64| {
                if self.members.get(to) && !finders.contains_key(&to) {
                    finders.insert(to, dense);
                    queue.push(to);
                    hit = hit.or(Some(to).filter(|&to| wanted(to)));
                }
            };
            graph.references::<false>(dense, |value| {
                if let Some(to) = index.dense(value) {
                    visit(to);
                }
            });
            dependents.get(&dense).into_iter().flatten().for_each(|&to| visit(to));
        }
        let mut chain: Vec<u64> = hit.into_iter().collect();
        while let Some(&finder) = chain.last().and_then(|last| finders.get(last).filter(|f| *f != last)) {
            chain.push(finder);
        }
        chain.reverse();
        Ok(chain)
    }

    /// The members.
    pub(super) fn into_members(self) -> Bits {
        self.members
    }

    /// Goes on until a member is in `found`, or there are no more.
    pub(super) fn advance(
        &mut self,
        graph: &mut Graph<'_, '_>,
        found: &Bits,
        effort: Effort,
    ) -> Result<Progressed, Error> {
        while self.rounds < effort.rounds {
            self.rounds += 1;
            self.fresh.clear_all();
            if let Some(met) = self.round(graph, found, effort.cards)? {
                // What is hot now stays so in the next round: all that this one left out is looked at then.
                return Ok(Progressed::Met(met));
            }
            if self.looked_at > effort.cards {
                break;
            }
            if self.fresh.is_empty() {
                return Ok(if self.trusted { Progressed::Complete } else { Progressed::GaveUp });
            }
            std::mem::swap(&mut self.hot, &mut self.fresh);
        }
        Ok(Progressed::GaveUp)
    }

    fn round(
        &mut self,
        graph: &mut Graph<'_, '_>,
        found: &Bits,
        most_cards: u64,
    ) -> Result<Option<u64>, Error> {
        let backward = self.rounds % 2 == 1;
        let order = |number: usize, count: usize| if backward { count - 1 - number } else { number };
        let mut objects = std::mem::take(&mut self.objects);
        let count = self.cards.stretches().len();
        for number in 0..count {
            graph.setting().progress.check()?;
            let Some(stretch) = self.cards.stretches().get(order(number, count)) else { break };
            let cards = stretch.len();
            for number in 0..cards {
                let card = order(number, cards);
                if !stretch.refers(card, &self.hot) {
                    continue;
                }
                self.looked_at += 1;
                if self.looked_at.is_multiple_of(CHECK_EVERY) {
                    graph.setting().progress.check()?;
                    if self.looked_at > most_cards {
                        return Ok(None);
                    }
                }
                if let Some(met) = self.look_at(graph, stretch, card, backward, found, &mut objects)? {
                    return Ok(Some(met));
                }
            }
        }
        self.objects = objects;
        Ok(self.dependents(graph, found))
    }

    /// Adds the objects of a card that refer to members.
    fn look_at(
        &self,
        graph: &mut Graph<'_, '_>,
        stretch: &Stretch,
        card: usize,
        backward: bool,
        found: &Bits,
        objects: &mut Vec<u64>,
    ) -> Result<Option<u64>, Error> {
        let index = graph.index;
        let Some(part) = self.cards.part(graph.setting(), index, stretch, card) else { return Ok(None) };
        objects.clear();
        graph.objects(part, |address| {
            objects.extend(index.dense(address).filter(|&dense| !self.members.get(dense)));
        })?;
        if backward {
            objects.reverse();
        }
        // Again while chains within the card go the other way.
        loop {
            let (before, mut met) = (objects.len(), None);
            objects.retain(|&dense| {
                let mut leads = false;
                graph.references::<false>(dense, |value| {
                    if let Some(to) = index.dense(value) {
                        leads |= self.hot.get(self.cards.number(to)) && self.members.get(to);
                    }
                });
                if leads {
                    self.add(dense);
                    met = met.or(Some(dense).filter(|&dense| found.get(dense)));
                }
                !leads
            });
            if met.is_some() || objects.len() == before {
                return Ok(met);
            }
        }
    }

    fn add(&self, dense: u64) {
        self.members.set::<false>(dense);
        let card = self.cards.number(dense);
        self.hot.set::<false>(card);
        self.fresh.set::<false>(card);
    }

    /// Adds what refers to members through dependent handles.
    fn dependents(&self, graph: &Graph<'_, '_>, found: &Bits) -> Option<u64> {
        loop {
            let mut added = false;
            for (primary, secondary) in graph.dependents() {
                if self.members.get(secondary) && !self.members.get(primary) {
                    self.add(primary);
                    added = true;
                    if found.get(primary) {
                        return Some(primary);
                    }
                }
            }
            if !added {
                return None;
            }
        }
    }
}
