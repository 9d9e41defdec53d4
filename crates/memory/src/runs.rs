//! Which bytes of a file lie at which addresses.

use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes at `start..end`, in the file from `offset` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) offset: u64,
}

const CACHE: usize = 1024;

/// Address ranges that don't overlap, sorted, for fast look-up from many threads.
///
/// The cache is direct-mapped by address: nothing is locked, and threads that work on different parts of memory
/// don't write over each other's entries.
pub(crate) struct Runs {
    starts: Vec<u64>,
    runs: Vec<Run>,
    cache: Vec<AtomicU32>,
}

impl Runs {
    /// Takes `runs` in any order; where two overlap, the one that begins first keeps the bytes, of two that begin
    /// together the one given first. Runs that continue each other in memory and in the file become one.
    /// Returns also how many overlapped.
    pub(crate) fn new(mut runs: Vec<Run>) -> (Self, usize) {
        runs.retain(|run| run.start < run.end);
        runs.sort_by_key(|run| run.start);
        let mut overlaps = 0;
        let mut out: Vec<Run> = Vec::with_capacity(runs.len());
        for mut run in runs {
            if let Some(last) = out.last_mut() {
                if run.start < last.end {
                    overlaps += 1;
                    if run.end <= last.end {
                        continue;
                    }
                    // A file's offsets are far below 2^64 here: run.offset + length was checked by the caller.
                    run.offset = run.offset.saturating_add(last.end - run.start);
                    run.start = last.end;
                }
                if run.start == last.end && run.offset == last.offset.saturating_add(last.end - last.start) {
                    last.end = run.end;
                    continue;
                }
            }
            out.push(run);
        }
        let starts = out.iter().map(|run| run.start).collect();
        let cache = std::iter::repeat_with(|| AtomicU32::new(0)).take(CACHE).collect();
        (Self { starts, runs: out, cache }, overlaps)
    }

    /// The run that holds `addr`.
    #[inline]
    pub(crate) fn find(&self, addr: u64) -> Option<&Run> {
        let slot = self.cache.get(((addr >> 16) ^ (addr >> 26)) as usize % CACHE)?;
        if let Some(run) = self.runs.get(slot.load(Ordering::Relaxed) as usize)
            && run.start <= addr
            && addr < run.end
        {
            return Some(run);
        }
        let index = self.starts.partition_point(|&start| start <= addr).checked_sub(1)?;
        let run = self.runs.get(index).filter(|run| addr < run.end)?;
        // More than 2^32 runs don't fit into a file; a wrong index would only miss the cache anyway.
        slot.store(u32::try_from(index).unwrap_or(0), Ordering::Relaxed);
        Some(run)
    }

    /// The first start above `addr`.
    pub(crate) fn next_start(&self, addr: u64) -> Option<u64> {
        self.starts.get(self.starts.partition_point(|&start| start <= addr)).copied()
    }

    pub(crate) fn all(&self) -> &[Run] {
        &self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, end: u64, offset: u64) -> Run {
        Run { start, end, offset }
    }

    #[test]
    fn merges_what_continues_and_cuts_what_overlaps() {
        let (runs, overlaps) = Runs::new(vec![
            run(0x3000, 0x4000, 0x9000),
            run(0x1000, 0x2000, 0x100),
            run(0x2000, 0x3000, 0x1100),
            run(0x1800, 0x2800, 0x5000),
            run(0x5000, 0x5000, 0),
            run(0x6000, 0x7000, 0xa000),
            run(0x7000, 0x8000, 0xc000),
        ]);
        assert_eq!(overlaps, 2);
        assert_eq!(
            runs.all(),
            [
                run(0x1000, 0x2000, 0x100),
                run(0x2000, 0x2800, 0x5800),
                run(0x2800, 0x3000, 0x1900),
                run(0x3000, 0x4000, 0x9000),
                run(0x6000, 0x7000, 0xa000),
                run(0x7000, 0x8000, 0xc000),
            ]
        );
        assert_eq!(runs.find(0xfff), None);
        for addr in [0x1000, 0x27ff, 0x2800, 0x7fff, 0x1000] {
            let found = runs.find(addr).unwrap();
            assert!(found.start <= addr && addr < found.end);
        }
        assert_eq!(runs.find(0x8000), None);
        assert_eq!(runs.find(0x4000), None);
        assert_eq!(runs.next_start(0x2800), Some(0x3000));
        assert_eq!(runs.next_start(0x7000), None);
    }
}
