//! Files in memory. The only file of the workspace with `unsafe`.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A file mapped read-only, in one piece. No page is read before it is touched.
///
/// The bytes are those of the file at the moment of the touch: a file that somebody else changes while it is open
/// here shows other bytes, and one that is made shorter ends this process with SIGBUS when the lost part is
/// touched. Dumps and module files are written once, so this is the price of reading gigabytes without copying
/// them; a core that is still being written must not be opened. Clones share the mapping.
#[derive(Debug, Clone)]
pub struct MappedFile {
    /// `None` for an empty file, which can't be mapped.
    map: Option<Arc<memmap2::Mmap>>,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// Those of opening and mapping; a folder, pipe or device is [`io::ErrorKind::InvalidInput`].
    pub fn open(path: &Path) -> io::Result<Self> {
        // Opening a FIFO would wait for its writer: ask what it is first.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Self::new(&File::open(path)?)
    }

    /// Maps an open file.
    ///
    /// # Errors
    /// Those of asking for its length and of mapping it.
    #[expect(unsafe_code, reason = "mapping a file is unsafe by nature")]
    pub fn new(file: &File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        if len == 0 {
            return Ok(Self { map: None });
        }
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        // SAFETY: the mapping is read-only and private to this value, which outlives every slice of it. That the
        // file's bytes may be changed by others is told to callers above; all readers treat every byte as
        // untrusted and read multi-byte values by copying, so that a change can give wrong values but not
        // undefined ones on the machines this program is built for.
        let map = unsafe { memmap2::MmapOptions::new().len(len).map(file)? };
        Ok(Self { map: Some(Arc::new(map)) })
    }

    /// The whole file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.map.as_ref().map_or(&[], |map| map)
    }

    /// Asks the system to map `len` bytes from `offset` now, which is much faster than one page fault after the
    /// other when all of them are going to be read. Does nothing where that isn't supported.
    pub fn populate(&self, offset: usize, len: usize) {
        let Some(map) = &self.map else { return };
        let Some(len) = map.len().checked_sub(offset).map(|left| left.min(len)).filter(|&len| len > 0) else {
            return;
        };
        // Advice: when the system doesn't know it (Linux before 5.14) or refuses, reading still works.
        #[cfg(target_os = "linux")]
        if map.advise_range(memmap2::Advice::PopulateRead, offset, len).is_ok() {
            return;
        }
        #[cfg(unix)]
        let _ = map.advise_range(memmap2::Advice::WillNeed, offset, len);
    }
}

/// Zeros that several threads may change at once, in memory of their own. Pages that nothing is written to take no
/// memory.
#[derive(Debug)]
pub struct ZeroedWords {
    /// `None` for no words at all.
    map: Option<memmap2::MmapRaw>,
    len: usize,
}

impl ZeroedWords {
    /// `len` words, all 0.
    ///
    /// # Errors
    /// The system refuses so much memory.
    pub fn new(len: usize) -> io::Result<Self> {
        if len == 0 {
            return Ok(Self { map: None, len });
        }
        let bytes = len.checked_mul(8).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let map = memmap2::MmapMut::map_anon(bytes)?;
        // Words are asked for in no order: with large pages the processor finds them sooner. Advice may be refused.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map: Some(map.into()), len })
    }

    /// The words.
    #[inline]
    #[must_use]
    #[expect(unsafe_code, reason = "a mapping is bytes to the system")]
    pub fn words(&self) -> &[AtomicU64] {
        match &self.map {
            None => &[],
            // SAFETY: the mapping is private to this value and lives as long as the slice, which borrows it. It holds
            // `len` words, is aligned to a page, and all its bytes are initialised (zeros). Nothing accesses it but
            // through this slice, whose elements are atomic; the pointer is the writable one of the mapping.
            Some(map) => unsafe {
                std::slice::from_raw_parts(map.as_mut_ptr().cast::<AtomicU64>(), self.len)
            },
        }
    }
}

/// Starts to bring the cache line of `bytes[offset]` near. Never faults, whatever `offset` is.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "there is no safe prefetch"))]
pub fn prefetch(bytes: &[u8], offset: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program can see and never faults, also for a wild address; SSE is
    // part of x86_64. The address is made without leaving the rules for pointers (`wrapping_add`).
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(offset).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, offset);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_zero_and_shared() {
        use std::sync::atomic::Ordering::Relaxed;
        assert!(ZeroedWords::new(0).unwrap().words().is_empty());
        assert!(ZeroedWords::new(usize::MAX).is_err());
        let words = ZeroedWords::new(1 << 20).unwrap();
        assert_eq!(words.words().len(), 1 << 20);
        std::thread::scope(|scope| {
            for bit in 0..2 {
                let words = &words;
                scope.spawn(move || words.words().iter().for_each(|w| _ = w.fetch_or(1 << bit, Relaxed)));
            }
        });
        assert!(words.words().iter().all(|word| word.load(Relaxed) == 3));
    }

    #[test]
    fn maps_what_is_a_file_and_nothing_else() {
        let dir = std::env::temp_dir().join(format!("dnd-memory-map-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("f");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(MappedFile::open(&path).unwrap().bytes(), b"");
        std::fs::write(&path, b"abc").unwrap();
        let map = MappedFile::open(&path).unwrap();
        assert_eq!(map.bytes(), b"abc");
        for (offset, len) in [(0, 3), (1, 100), (3, 1), (100, 1), (usize::MAX, usize::MAX)] {
            map.populate(offset, len);
        }
        prefetch(map.bytes(), 1 << 40);
        assert_eq!(MappedFile::open(&dir).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
