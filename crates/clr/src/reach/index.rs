//! From an object's address to its bytes and to a dense number, without a search.
//!
//! The address range of the heap is cut into granules of 256 KB; a table tells which piece of memory each belongs to.
//! Objects are numbered densely, one number for each 8 bytes of heap, so that bitmaps and queues are as small as the heap
//! and not as large as the range of addresses that it is scattered over (hundreds of GB under server GC).

use dnd_memory::{Target, prefetch};

use crate::heap::{Heap, Segment};

const GRANULE_BITS: u32 = 18;
const DENSE_BITS: u32 = GRANULE_BITS - 3;
const NONE: u32 = u32::MAX;
/// A granule that several pieces share.
const SEVERAL: u32 = u32::MAX - 1;
/// Largest table of granules: enough for 64 TB of addresses.
const MAX_GRANULES: u64 = 1 << 28;

/// Heap memory that lies in one piece in the dump.
#[derive(Clone, Copy)]
pub(super) struct Piece<'r> {
    pub(super) start: u64,
    pub(super) bytes: &'r [u8],
    /// Dense number of its first 8 bytes; a multiple of a granule's.
    dense: u64,
}

pub(super) struct HeapIndex<'r> {
    pub(super) pieces: Vec<Piece<'r>>,
    low: u64,
    granules: Vec<u32>,
    dense_granules: Vec<u32>,
}

impl<'r> HeapIndex<'r> {
    pub(super) fn new(target: &'r dyn Target, heap: &Heap) -> Self {
        let mut found = Vec::new();
        for segment in &heap.segments {
            pieces_of(target, segment, &mut found);
        }
        found.sort_unstable_by_key(|&(start, _)| start);
        let mut pieces: Vec<Piece<'r>> = Vec::new();
        let mut dense_granules = Vec::new();
        for (start, bytes) in found {
            // Segments of a damaged dump may overlap; the later one gives way.
            if pieces.last().is_some_and(|p| p.start + p.bytes.len() as u64 > start) {
                continue;
            }
            let granules = (bytes.len() as u64).div_ceil(1 << GRANULE_BITS);
            let index = pieces.len() as u32;
            pieces.push(Piece { start, bytes, dense: (dense_granules.len() as u64) << DENSE_BITS });
            dense_granules.extend(std::iter::repeat_n(index, granules as usize));
        }
        let low = pieces.first().map_or(0, |p| p.start) & !((1 << GRANULE_BITS) - 1);
        let high = pieces.last().map_or(0, |p| p.start + p.bytes.len() as u64);
        let count = ((high - low) >> GRANULE_BITS) + 1;
        let mut granules = if count > MAX_GRANULES { Vec::new() } else { vec![NONE; count as usize] };
        for (index, piece) in pieces.iter().enumerate() {
            let first = (piece.start - low) >> GRANULE_BITS;
            let last = (piece.start - low + (piece.bytes.len() as u64).max(1) - 1) >> GRANULE_BITS;
            for granule in first..=last {
                if let Some(entry) = granules.get_mut(granule as usize) {
                    *entry = if *entry == NONE { index as u32 } else { SEVERAL };
                }
            }
        }
        Self { pieces, low, granules, dense_granules }
    }

    /// One more than the largest dense number.
    pub(super) fn dense_len(&self) -> u64 {
        (self.dense_granules.len() as u64) << DENSE_BITS
    }

    /// Dense number of the object at an address; `None` when it is not on the heap or not aligned.
    #[inline]
    pub(super) fn dense(&self, address: u64) -> Option<u64> {
        let (piece, offset) = self.locate(address)?;
        Some(piece.dense + offset / 8)
    }

    /// The same, and asks for the object's first bytes to be brought to the cache when `wanted` says so.
    #[inline]
    pub(super) fn fetch(&self, address: u64, wanted: impl FnOnce(u64) -> bool) {
        if let Some((piece, offset)) = self.locate(address)
            && wanted(piece.dense + offset / 8)
        {
            prefetch(piece.bytes, offset as usize);
        }
    }

    #[inline]
    fn locate(&self, address: u64) -> Option<(&Piece<'r>, u64)> {
        let granule = address.wrapping_sub(self.low) >> GRANULE_BITS;
        let entry = match self.granules.get(granule as usize) {
            Some(&entry) if entry < SEVERAL => entry,
            Some(&NONE) => return None,
            _ => self.search(address)?,
        };
        let piece = self.pieces.get(entry as usize)?;
        let offset = address.wrapping_sub(piece.start);
        (offset < piece.bytes.len() as u64 && offset % 8 == 0).then_some((piece, offset))
    }

    #[cold]
    fn search(&self, address: u64) -> Option<u32> {
        let i = self.pieces.partition_point(|p| p.start <= address).checked_sub(1)?;
        Some(i as u32)
    }

    /// The piece, and the offset in it, that a dense number stands for.
    #[inline]
    pub(super) fn place(&self, dense: u64) -> Option<(&Piece<'r>, usize)> {
        let entry = *self.dense_granules.get((dense >> DENSE_BITS) as usize)?;
        let piece = self.pieces.get(entry as usize)?;
        Some((piece, ((dense - piece.dense) * 8) as usize))
    }

    /// The address that a dense number stands for.
    pub(super) fn address(&self, dense: u64) -> u64 {
        self.place(dense).map_or(0, |(piece, offset)| piece.start + offset as u64)
    }
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
