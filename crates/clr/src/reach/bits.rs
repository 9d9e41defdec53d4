//! Sets of dense numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use dnd_memory::ZeroedWords;

use crate::error::Error;

/// One bit for each dense number; several threads may set them at once.
pub(super) struct Bits(ZeroedWords);

impl Bits {
    pub(super) fn new(len: u64) -> Result<Self, Error> {
        let words = ZeroedWords::new(len.div_ceil(64) as usize);
        words.map(Self).map_err(|_| Error::NoMemory { bytes: len / 8 })
    }

    /// Sets a bit; whether it was clear. `SHARED`: other threads do the same at this moment.
    #[inline(always)]
    pub(super) fn set<const SHARED: bool>(&self, at: u64) -> bool {
        let Some(word) = self.0.words().get((at >> 6) as usize) else { return false };
        let bit = 1 << (at & 63);
        // Nothing but the bits themselves is handed from thread to thread through them.
        let before = word.load(Ordering::Relaxed);
        if before & bit != 0 {
            return false;
        }
        if SHARED {
            return word.fetch_or(bit, Ordering::Relaxed) & bit == 0;
        }
        word.store(before | bit, Ordering::Relaxed);
        true
    }

    pub(super) fn words(&self) -> &[AtomicU64] {
        self.0.words()
    }

    pub(super) fn value(word: &AtomicU64) -> u64 {
        word.load(Ordering::Relaxed)
    }

    pub(super) fn ones(word: &AtomicU64) -> u32 {
        Self::value(word).count_ones()
    }

    /// Whether one of `numbers` is in it; fast when seldom any is.
    #[inline]
    pub(super) fn holds_any(&self, numbers: &[u32]) -> bool {
        let words = self.0.words();
        let bit = |at: u32| words.get((at >> 6) as usize).map_or(0, |word| Self::value(word) >> (at & 63));
        numbers.iter().fold(0, |any, &at| any | bit(at)) & 1 != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words().iter().all(|word| Self::value(word) == 0)
    }

    pub(super) fn clear_all(&self) {
        for word in self.words() {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Makes it the set of all that were not in it.
    pub(super) fn invert(&self) {
        for word in self.words() {
            word.store(!Self::value(word), Ordering::Relaxed);
        }
    }

    pub(super) fn clear(&self, at: u64) {
        if let Some(word) = self.0.words().get((at >> 6) as usize) {
            word.fetch_and(!(1 << (at & 63)), Ordering::Relaxed);
        }
    }

    #[inline(always)]
    pub(super) fn get(&self, at: u64) -> bool {
        let word = self.0.words().get((at >> 6) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (at & 63) & 1 != 0)
    }
}
