//! Damage: places of the runtime's structures and what happens to them.
#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "a failing case says how to try it again")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dnd_memory::{Arch, FileMapping, MappedFile, Memory, Missing, Range, Target, Thread};

use super::{PAGE, Patched};

/// Numbers that are the same in every run: SplitMix64.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Bytes that are noted where a run is asked for: how much of it is looked at is not seen. Most GC info is as short.
const RUN: u64 = 96;

/// Counts what is asked of a target, and notes where; refuses everything above a limit.
pub(crate) struct Watched<'t> {
    inner: &'t dyn Target,
    asked: AtomicU64,
    limit: u64,
    places: Option<Mutex<BTreeSet<u64>>>,
}

impl<'t> Watched<'t> {
    pub(crate) fn new(inner: &'t dyn Target, limit: u64) -> Self {
        Self { inner, asked: AtomicU64::new(0), limit, places: None }
    }

    /// Notes every word that is read.
    pub(crate) fn noting(inner: &'t dyn Target) -> Self {
        Self { places: Some(Mutex::default()), ..Self::new(inner, u64::MAX) }
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// The words noted so far.
    pub(crate) fn places(&self) -> Vec<u64> {
        self.places.as_ref().unwrap().lock().unwrap().iter().copied().collect()
    }

    /// Counts a question; notes `seen` bytes.
    fn ask(&self, addr: u64, len: u64, seen: u64) -> bool {
        if let Some(places) = &self.places {
            let words = (addr / 8..=addr.saturating_add(seen.max(1) - 1) / 8).take(64);
            places.lock().unwrap().extend(words.map(|word| word * 8));
        }
        let cost = 1 + len / PAGE;
        let before = self.asked.fetch_add(cost, Ordering::Relaxed);
        if before < self.limit && before + cost >= self.limit && number("DND_HOSTILE_SEED").is_some() {
            eprintln!("too many reads: {}", std::backtrace::Backtrace::force_capture());
        }
        before < self.limit
    }
}

impl Memory for Watched<'_> {
    fn run(&self, addr: u64) -> &[u8] {
        if self.ask(addr, 8, RUN) { self.inner.run(addr) } else { &[] }
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
        let len = buf.len() as u64;
        if self.ask(addr, len, len) { self.inner.read(addr, buf) } else { Err(Missing { addr, len }) }
    }
}

impl Target for Watched<'_> {
    fn arch(&self) -> Arch {
        self.inner.arch()
    }

    fn mappings(&self) -> &[FileMapping] {
        self.inner.mappings()
    }

    fn threads(&self) -> &[Thread] {
        self.inner.threads()
    }

    fn ranges(&self) -> &[Range] {
        self.inner.ranges()
    }

    fn file_image(&self, base: u64) -> Option<&dyn Memory> {
        self.inner.file_image(base)
    }

    fn find_file(
        &self,
        path: &Path,
        accept: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Option<MappedFile> {
        self.inner.find_file(path, accept)
    }
}

/// Changes one place of the runtime's structures in one of the ways in which memory gets damaged.
pub(crate) fn damage(target: &mut Patched<'_>, numbers: &mut Numbers, places: &[u64]) {
    let at = numbers.of(places);
    let other = numbers.of(places);
    let old = target.u64(at).unwrap_or(0);
    let strange =
        [0, 1, 8, 24, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 32, 1 << 47, 1 << 63, u64::MAX - 7, u64::MAX];
    match numbers.below(8) {
        0 => target.cut(at),
        1 => target.write(at, &numbers.of(&strange).to_le_bytes()),
        2 => target.write(at + 4 * (numbers.next() & 1), &(numbers.of(&strange) as u32).to_le_bytes()),
        // Pointers to the wrong place: itself, another structure, the middle of one.
        3 => target.write(at, &at.to_le_bytes()),
        4 => target.write(at, &(other + (numbers.next() & 15)).to_le_bytes()),
        5 => target.write(at, &old.wrapping_add(numbers.next() % 64).wrapping_sub(32).to_le_bytes()),
        6 => target.write(at, &numbers.next().to_le_bytes()),
        _ => target.flip(at + numbers.next() % 8, 1 << (numbers.next() % 8)),
    }
}

pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
