//! All objects that lead to one, exactly: a search against the direction of the references.
//!
//! Objects know what they refer to, not who refers to them, so that is written down first: 4 bytes for each object and 4
//! for each reference. This is the last resort, when searches from the roots have taken longer than it does.

use super::bits::Bits;
use super::graph::Graph;
use super::index::HeapIndex;
use super::mark::mark;
use super::{Setting, Word};
use crate::error::Error;

const CHECK_EVERY: u32 = 1 << 16;

/// The objects that `starts` reach, by address, each numbered by how many stand before it.
struct Numbered {
    bits: Bits,
    /// Objects before each block of words.
    before: Vec<u32>,
    count: u32,
}

/// Words of a bitmap in a block.
const BLOCK: usize = 8;

impl Numbered {
    /// `None`: there are more objects than 32 bits can number.
    fn new(bits: Bits) -> Option<Self> {
        let mut before = Vec::new();
        let mut count = 0u32;
        for block in bits.words().chunks(BLOCK) {
            before.push(count);
            let ones = block.iter().map(Bits::ones).sum();
            count = count.checked_add(ones)?;
        }
        Some(Self { bits, before, count })
    }

    /// Number of an object; `None` when it is not among them.
    fn number(&self, dense: u64) -> Option<u32> {
        let word = (dense >> 6) as usize;
        let block = word / BLOCK * BLOCK;
        let words = self.bits.words().get(block..=word)?;
        let (last, whole) = words.split_last()?;
        let last = Bits::value(last);
        let below = last & ((1 << (dense & 63)) - 1);
        let ones = whole.iter().map(Bits::ones).sum::<u32>() + below.count_ones();
        (last >> (dense & 63) & 1 != 0).then_some(self.before.get(word / BLOCK)? + ones)
    }

    /// Calls `visit` with all objects in order.
    fn each(&self, mut visit: impl FnMut(u64)) {
        for (at, word) in (0..).zip(self.bits.words()) {
            let mut left = Bits::value(word);
            while left != 0 {
                visit(at * 64 + u64::from(left.trailing_zeros()));
                left &= left - 1;
            }
        }
    }

    /// Calls `visit` with the numbers of both ends of every reference between the objects.
    fn references(&self, graph: &mut Graph<'_, '_>, mut visit: impl FnMut(u32, u32)) -> Result<(), Error> {
        let (index, progress) = (graph.index, graph.setting().progress);
        let (mut from, mut result) = (0u32, Ok(()));
        self.each(|dense| {
            if from.is_multiple_of(CHECK_EVERY) && result.is_ok() {
                result = progress.check();
            }
            if result.is_ok() {
                graph.references::<false>(dense, |address| {
                    if let Some(to) = index.dense(address).and_then(|next| self.number(next)) {
                        visit(from, to);
                    }
                });
            }
            from += 1;
        });
        for (primary, secondary) in graph.dependents() {
            if let (Some(from), Some(to)) = (self.number(primary), self.number(secondary)) {
                visit(from, to);
            }
        }
        result
    }
}

/// Adds to `apart` the objects that `starts` reach and that do not lead to `goal`. `false`: there are too many
/// references to write them down.
pub(super) fn settle<W: Word>(
    setting: &Setting<'_>,
    index: &HeapIndex<'_>,
    starts: impl Iterator<Item = u64>,
    goal: u64,
    apart: &Bits,
) -> Result<bool, Error> {
    let bits = Bits::new(index.dense_len())?;
    let starts = starts.filter(|&dense| bits.set::<false>(dense)).map(W::pack).collect();
    mark(&mut super::graphs(setting, index), &bits, starts)?;
    let Some(all) = Numbered::new(bits) else { return Ok(false) };
    let mut graph = Graph::new(setting, index);

    // Where the referrers of each object end in a list of all; once the list is filled from behind, where they begin.
    let mut places = vec![0u32; all.count as usize + 1];
    let mut total = 0u64;
    all.references(&mut graph, |_, to| {
        total += 1;
        if let Some(count) = places.get_mut(to as usize) {
            *count = count.wrapping_add(1);
        }
    })?;
    if u32::try_from(total).is_err() {
        return Ok(false);
    }
    let mut end = 0;
    for place in &mut places {
        end += *place;
        *place = end;
    }
    let mut referrers = vec![0u32; total as usize];
    all.references(&mut graph, |from, to| {
        if let Some(place) = places.get_mut(to as usize) {
            *place -= 1;
            if let Some(referrer) = referrers.get_mut(*place as usize) {
                *referrer = from;
            }
        }
    })?;

    let leads = Bits::new(all.count.into())?;
    let mut stack: Vec<u32> = all.number(goal).into_iter().collect();
    for &number in &stack {
        leads.set::<false>(number.into());
    }
    while let Some(number) = stack.pop() {
        let ends = places.get(number as usize).zip(places.get(number as usize + 1));
        let list = ends.and_then(|(&from, &to)| referrers.get(from as usize..to as usize));
        let new = list.unwrap_or_default().iter().filter(|&&from| leads.set::<false>(from.into()));
        stack.extend(new);
    }
    let mut number = 0u64;
    all.each(|dense| {
        if !leads.get(number) {
            apart.set::<false>(dense);
        }
        number += 1;
    });
    Ok(true)
}
