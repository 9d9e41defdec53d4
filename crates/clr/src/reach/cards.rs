//! Which parts of the heap refer to which: what a search against the direction of the references needs to know where
//! to look.
//!
//! Objects know what they refer to, not who refers to them. One walk over the heap therefore notes, for each card (4 KB
//! of heap; more in a large one), where its first object begins and which cards its objects refer to: a few bytes for
//! each. Objects that refer to one of a given card are then looked for in the cards that list it, and nowhere else.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Setting;
use super::bits::Bits;
use super::graph::{Graph, Visitor};
use super::index::{DENSE_BITS, HeapIndex};
use crate::error::Error;
use crate::heap::Segment;
use crate::walk::{Part, Plan, in_parts};

/// Bits of a dense number within the smallest card.
const MIN_BITS: u32 = 9;
/// Cards are as large as it takes that there are no more.
const MAX_CARDS: u64 = 1 << 20;
/// Words of heap for which one target card is noted at most, on average.
const WORDS_A_TARGET: u64 = 10;
/// Bytes of a part that one thread walks.
const PART: u64 = 4 << 20;
/// Cards referred to that are remembered while the objects of one are looked at. Those forgotten are noted once more.
const RECENT: usize = 512;
/// Bits that a card's number has at most: beyond 2^48 addresses there is nothing.
const NUMBER_BITS: u32 = 28;
/// Room that a thread takes at once.
const GRANT: u64 = 1 << 14;

/// The cards of a heap.
pub(crate) struct Cards {
    /// Bits of a dense number within a card.
    bits: u32,
    /// By address.
    stretches: Vec<Stretch>,
    /// The walk met every object of the heap, so whatever refers to an object is in a card that says so.
    pub(super) whole: bool,
}

/// The cards of a part of a segment.
pub(super) struct Stretch {
    /// Which segment.
    segment: usize,
    start: u64,
    /// End of the part.
    stop: u64,
    cards: Vec<Card>,
    /// Numbers of the cards that each card's objects refer to, card after card.
    targets: Vec<u32>,
}

/// A card in which objects of the part begin.
#[derive(Clone, Copy)]
struct Card {
    number: u32,
    /// End of its targets.
    end: u32,
    /// Words between the card's start and the first object.
    first: u16,
    /// There was no room for its targets.
    unknown: bool,
}

impl Cards {
    /// Walks the heap; one thread for each of `threads`.
    pub(super) fn new(setting: &Setting<'_>, index: &HeapIndex<'_>, threads: usize) -> Result<Self, Error> {
        let mut bits = MIN_BITS;
        while index.dense_len() >> bits > MAX_CARDS && bits < DENSE_BITS {
            bits += 1;
        }
        let plan = Plan::new(&setting.heap.segments, threads, PART);
        Self::with(setting, index, plan, bits, index.dense_len() / WORDS_A_TARGET)
    }

    pub(super) fn with(
        setting: &Setting<'_>,
        index: &HeapIndex<'_>,
        plan: Plan,
        bits: u32,
        room: u64,
    ) -> Result<Self, Error> {
        let segments = &setting.heap.segments;
        setting.progress.start(segments.iter().map(Segment::len).sum());
        let room = Room(AtomicU64::new(room));
        let found = in_parts(&|| setting.walker(), segments, plan, &|walker, parts| {
            let mut graph = Graph::with(setting, index, walker);
            let mut stretches = Vec::new();
            let mut lister = Lister::new(index, bits, &room);
            for part in parts {
                lister.begin();
                let end = graph.walk(part, &mut lister)?;
                if !part.ends_at(end) {
                    return Ok(None);
                }
                stretches.push(lister.end(setting, part));
            }
            Ok(Some((stretches, *graph.damage(), lister.lost)))
        })?;
        setting.progress.start(0);
        let whole = found.iter().all(|(_, damage, lost)| damage.is_none() && !lost);
        let mut stretches: Vec<Stretch> = found.into_iter().flat_map(|found| found.0).collect();
        stretches.sort_unstable_by_key(|stretch| stretch.start);
        Ok(Self { bits, stretches, whole })
    }

    /// One more than the largest number of a card.
    pub(super) fn len(&self, index: &HeapIndex<'_>) -> u64 {
        (index.dense_len() >> self.bits) + 1
    }

    pub(super) fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// The card of a dense number.
    #[inline(always)]
    pub(super) fn number(&self, dense: u64) -> u64 {
        dense >> self.bits
    }

    /// The objects of a card.
    pub(super) fn part<'s>(
        &self,
        setting: &Setting<'s>,
        index: &HeapIndex<'_>,
        stretch: &Stretch,
        card: usize,
    ) -> Option<Part<'s>> {
        let card = stretch.cards.get(card)?;
        let base = index.address(u64::from(card.number) << self.bits);
        let stop = stretch.stop.min(base + (8 << self.bits));
        let segment = setting.heap.segments.get(stretch.segment)?;
        Some(Part { segment, start: base + 8 * u64::from(card.first), stop })
    }

    /// Whether an object begins at an address.
    pub(super) fn is_object(&self, graph: &mut Graph<'_, '_>, dense: u64) -> Result<bool, Error> {
        let (address, number) = (graph.index.address(dense), self.number(dense));
        let behind = self.stretches.partition_point(|stretch| stretch.start <= address);
        let Some(stretch) = behind.checked_sub(1).and_then(|at| self.stretches.get(at)) else {
            return Ok(false);
        };
        let card = stretch.cards.partition_point(|card| u64::from(card.number) < number);
        let mut found = false;
        if let Some(part) = self.part(graph.setting(), graph.index, stretch, card) {
            graph.objects(part, |object| found |= object == address)?;
        }
        Ok(found)
    }
}

impl Stretch {
    /// Number of cards.
    pub(super) fn len(&self) -> usize {
        self.cards.len()
    }

    /// Whether objects of a card may refer to one of the cards in `among`.
    #[inline]
    pub(super) fn refers(&self, card: usize, among: &Bits) -> bool {
        let Some(this) = self.cards.get(card) else { return false };
        let before = card.checked_sub(1).and_then(|before| self.cards.get(before));
        let targets = self.targets.get(before.map_or(0, |card| card.end as usize)..this.end as usize);
        this.unknown || among.get(this.number.into()) || among.holds_any(targets.unwrap_or_default())
    }
}

/// Room for targets that is left for all threads.
struct Room(AtomicU64);

impl Room {
    /// Takes some.
    fn take(&self, wanted: u64) -> u64 {
        let less = |left: u64| Some(left.saturating_sub(wanted));
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or(0);
        left.min(wanted)
    }

    fn give_back(&self, room: u64) {
        self.0.fetch_add(room, Ordering::Relaxed);
    }
}

/// Notes the cards of a part as it is walked.
struct Lister<'i, 'r> {
    index: &'i HeapIndex<'r>,
    bits: u32,
    room: &'i Room,
    granted: u64,
    /// The card under way, and the addresses of its start and end.
    number: u64,
    start: u64,
    end: u64,
    recent: Box<[u64; RECENT]>,
    cards: Vec<Card>,
    targets: Vec<u32>,
    /// An object is where the index knows of none.
    lost: bool,
}

impl<'i, 'r> Lister<'i, 'r> {
    fn new(index: &'i HeapIndex<'r>, bits: u32, room: &'i Room) -> Self {
        let (cards, targets) = (Vec::new(), Vec::new());
        let recent = Box::new([u64::MAX; RECENT]);
        Self {
            index,
            bits,
            room,
            granted: 0,
            number: 0,
            start: 0,
            end: 0,
            recent,
            cards,
            targets,
            lost: false,
        }
    }

    fn begin(&mut self) {
        (self.start, self.end) = (0, 0);
        // The part before may have ended in the same card.
        self.recent.fill(u64::MAX);
        self.cards.clear();
        self.targets.clear();
    }

    fn end(&mut self, setting: &Setting<'_>, part: Part<'_>) -> Stretch {
        self.close();
        let segment = setting.heap.segments.iter().position(|segment| std::ptr::eq(segment, part.segment));
        Stretch {
            segment: segment.unwrap_or(usize::MAX),
            start: part.start,
            stop: part.stop,
            cards: self.cards.as_slice().into(),
            targets: self.targets.as_slice().into(),
        }
    }

    /// Ends the card under way.
    fn close(&mut self) {
        let before = self.cards.iter().rev().nth(1).map_or(0, |card| card.end as usize);
        let Some(card) = self.cards.last_mut() else { return };
        let new = (self.targets.len() - before) as u64;
        if self.granted < new {
            self.granted += self.room.take(new.max(GRANT));
        }
        match (self.granted.checked_sub(new), u32::try_from(self.targets.len())) {
            (Some(left), Ok(end)) => (self.granted, card.end) = (left, end),
            _ => {
                self.targets.truncate(before);
                (card.end, card.unknown) = (before as u32, true);
            }
        }
    }

    #[inline(never)]
    fn note(&mut self, value: u64) {
        if let Some(target) = self.index.dense(value) {
            self.targets.push((target >> self.bits) as u32);
        }
    }

    #[cold]
    fn next(&mut self, address: u64) {
        self.close();
        let card = 8 << self.bits;
        self.start = address & !(card - 1);
        self.end = self.start + card;
        let place = self.index.dense(address).and_then(|dense| {
            let first = (dense & ((1 << self.bits) - 1)) as u16;
            Some((u32::try_from(dense >> self.bits).ok().filter(|number| number >> NUMBER_BITS == 0)?, first))
        });
        let Some((number, first)) = place else {
            self.lost = true;
            return;
        };
        self.number = number.into();
        self.cards.push(Card { number, end: 0, first, unknown: false });
    }
}

impl Drop for Lister<'_, '_> {
    fn drop(&mut self) {
        self.room.give_back(self.granted);
    }
}

impl Visitor for Lister<'_, '_> {
    #[inline(always)]
    fn object(&mut self, address: u64) {
        if address >= self.end {
            self.next(address);
        }
    }

    #[inline(always)]
    fn reference(&mut self, value: u64) {
        // Most references lead to a neighbour.
        if value.wrapping_sub(self.start) < self.end - self.start {
            return;
        }
        // The same for an address that is none of the heap's, null above all.
        let page = value >> (self.bits + 3);
        let key = page << NUMBER_BITS | self.number;
        if let Some(recent) = self.recent.get_mut((page as usize) % RECENT)
            && *recent != key
        {
            *recent = key;
            self.note(value);
        }
    }
}
