//! Targets that lie: real cores with some of their bytes changed or missing.
#![allow(dead_code, reason = "not every test uses everything")]

pub(crate) mod damage;
pub(crate) mod watchdog;

use std::collections::BTreeMap;
use std::path::Path;

use dnd_memory::{Arch, FileMapping, MappedFile, Memory, Missing, Range, Target, Thread};

pub(crate) const PAGE: u64 = 4096;

/// A target with some pages changed or taken away. Its runs end where such a page begins.
pub(crate) struct Patched<'t> {
    inner: &'t dyn Target,
    /// The new bytes of a page, by its number; `None` for one that is missing.
    pages: BTreeMap<u64, Option<Box<[u8]>>>,
}

impl<'t> Patched<'t> {
    pub(crate) fn new(inner: &'t dyn Target) -> Self {
        Self { inner, pages: BTreeMap::new() }
    }

    /// Writes bytes; pages that the target lacks are full of zeros besides.
    pub(crate) fn write(&mut self, addr: u64, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            let at = addr + i as u64;
            let page = at / PAGE;
            let inner = self.inner;
            let slot = self.pages.entry(page).or_insert_with(|| {
                let mut bytes = vec![0; PAGE as usize].into_boxed_slice();
                // A page that is there in part stays so for what isn't written.
                let _ = inner.read(page * PAGE, &mut bytes);
                Some(bytes)
            });
            if let Some(bytes) = slot {
                bytes[(at % PAGE) as usize] = *byte;
            }
        }
    }

    pub(crate) fn flip(&mut self, addr: u64, mask: u8) {
        if let Ok(byte) = self.u8(addr) {
            self.write(addr, &[byte ^ mask]);
        }
    }

    /// Takes the page of an address away.
    pub(crate) fn cut(&mut self, addr: u64) {
        self.pages.insert(addr / PAGE, None);
    }
}

impl Memory for Patched<'_> {
    fn run(&self, addr: u64) -> &[u8] {
        if self.pages.is_empty() {
            return self.inner.run(addr);
        }
        match self.pages.get(&(addr / PAGE)) {
            Some(Some(bytes)) => &bytes[(addr % PAGE) as usize..],
            Some(None) => &[],
            None => {
                let run = self.inner.run(addr);
                let next = self.pages.range(addr / PAGE..).next().map_or(u64::MAX, |(page, _)| page * PAGE);
                let left = usize::try_from(next - addr).unwrap_or(usize::MAX).min(run.len());
                &run[..left]
            }
        }
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
        let missing = Missing { addr, len: buf.len() as u64 };
        let (mut at, mut rest) = (addr, buf);
        while !rest.is_empty() {
            let run = self.run(at);
            let len = run.len().min(rest.len());
            if len == 0 {
                return Err(missing);
            }
            let (now, later) = rest.split_at_mut(len);
            now.copy_from_slice(&run[..len]);
            rest = later;
            at = at.checked_add(len as u64).ok_or(missing)?;
        }
        Ok(())
    }
}

impl Target for Patched<'_> {
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
