//! From an object's address to its bytes and to a dense number, without a search.
//!
//! The address range of the heap is cut into granules of 256 KB. Those that hold heap memory are numbered, and so is
//! every 8 bytes in them; bitmaps and queues of these dense numbers are as small as the heap and not as large as the range
//! of addresses that it is scattered over (hundreds of GB under server GC).

use dnd_memory::{Target, prefetch};

use crate::heap::{Heap, Segment};

const GRANULE_BITS: u32 = 18;
pub(super) const DENSE_BITS: u32 = GRANULE_BITS - 3;
/// Largest table of granules: enough for all addresses that a process has on x86-64.
const MAX_GRANULES: u64 = 1 << 29;

/// 256 KB of addresses, aligned, with heap memory among them.
struct Granule<'r> {
    /// The memory, from the granule's first byte that is there to the end of the piece in the dump, which may be far
    /// behind the granule. When several pieces share a granule, only the first counts.
    bytes: &'r [u8],
    /// Bytes of the granule before those.
    lead: u32,
    /// Address of the granule.
    base: u64,
}

pub(super) struct HeapIndex<'r> {
    low: u64,
    /// One more than the number of the granule, for each 256 KB from `low` on; 0 for none.
    numbers: Vec<u32>,
    granules: Vec<Granule<'r>>,
}

impl<'r> HeapIndex<'r> {
    pub(super) fn new(target: &'r dyn Target, heap: &Heap) -> Self {
        let mut found = Vec::new();
        for segment in &heap.segments {
            pieces_of(target, segment, &mut found);
        }
        found.sort_unstable_by_key(|&(start, _)| start);
        let low = found.first().map_or(0, |&(start, _)| start) & !((1 << GRANULE_BITS) - 1);
        found.retain(|(start, bytes)| (start - low + bytes.len() as u64) >> GRANULE_BITS < MAX_GRANULES);
        let end = |(start, bytes): &(u64, &[u8])| start + bytes.len() as u64;
        let count = found.last().map_or(0, |last| ((end(last) - low) >> GRANULE_BITS) + 1);
        // Zeros cost no memory until something is written between them.
        let mut index = Self { low, numbers: vec![0; count as usize], granules: Vec::new() };
        let mut behind = 0;
        for piece in found {
            // Segments of a damaged dump may overlap; the later one gives way.
            if piece.0 >= behind {
                behind = end(&piece);
                index.add(piece.0, piece.1);
            }
        }
        index
    }

    /// Adds the memory of a piece; pieces come by address.
    fn add(&mut self, start: u64, bytes: &'r [u8]) {
        let last = start - self.low + (bytes.len() as u64).max(1) - 1;
        for number in (start - self.low) >> GRANULE_BITS..=last >> GRANULE_BITS {
            let base = self.low + (number << GRANULE_BITS);
            let bytes = bytes.get(base.saturating_sub(start) as usize..).unwrap_or_default();
            if self.granules.last().is_some_and(|last| last.base == base) {
                continue;
            }
            let lead = start.saturating_sub(base) as u32;
            self.granules.push(Granule { bytes, lead, base });
            if let Some(place) = self.numbers.get_mut(number as usize) {
                *place = self.granules.len() as u32;
            }
        }
    }

    /// One more than the largest dense number.
    pub(super) fn dense_len(&self) -> u64 {
        (self.granules.len() as u64) << DENSE_BITS
    }

    /// Dense number of an address; `None` when it is not aligned or not near the heap. An address in a hole of the heap
    /// has a number too, but no bytes.
    #[inline(always)]
    pub(super) fn dense(&self, address: u64) -> Option<u64> {
        // Rotated, the bits of an address that is not aligned make it too large; so do null and all below the heap.
        let word = address.wrapping_sub(self.low).rotate_right(3);
        let number = self.numbers.get((word >> DENSE_BITS) as usize)?.checked_sub(1)?;
        Some(u64::from(number) << DENSE_BITS | word & ((1 << DENSE_BITS) - 1))
    }

    /// The memory from the object with a dense number on. Empty where there is none, and sometimes where another piece
    /// of the dump shares the granule: then the target has to be asked.
    #[inline(always)]
    pub(super) fn bytes(&self, dense: u64) -> &'r [u8] {
        let Some(granule) = self.granules.get((dense >> DENSE_BITS) as usize) else { return &[] };
        // Before the memory's start, the difference is beyond all bounds.
        let offset = (within(dense) as usize).wrapping_sub(granule.lead as usize);
        granule.bytes.get(offset..).unwrap_or_default()
    }

    /// The same, and starts to bring the object's first bytes to the cache: two lines, since few objects lie in one.
    #[inline(always)]
    pub(super) fn fetch(&self, dense: u64) -> &'r [u8] {
        let object = self.bytes(dense);
        prefetch(object, 0);
        prefetch(object, 64);
        object
    }

    /// The address that a dense number stands for.
    #[inline(always)]
    pub(super) fn address(&self, dense: u64) -> u64 {
        self.granules.get((dense >> DENSE_BITS) as usize).map_or(0, |granule| granule.base + within(dense))
    }
}

/// Bytes from the start of the granule.
#[inline(always)]
fn within(dense: u64) -> u64 {
    (dense & ((1 << DENSE_BITS) - 1)) * 8
}

fn pieces_of<'r>(target: &'r dyn Target, segment: &Segment, out: &mut Vec<(u64, &'r [u8])>) {
    let mut at = segment.start;
    while at < segment.end {
        let run = target.run(at);
        let left = usize::try_from(segment.end - at).unwrap_or(usize::MAX);
        let run = run.get(..left).unwrap_or(run);
        if run.is_empty() {
            let ranges = target.ranges();
            let next = ranges.partition_point(|range| range.end <= at);
            match ranges.get(next) {
                Some(range) if range.start > at => at = range.start.next_multiple_of(8),
                _ => return,
            }
            continue;
        }
        out.push((at, run));
        at += run.len() as u64;
    }
}
