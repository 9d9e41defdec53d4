//! ELF core dumps.

mod header;
mod notes;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bytes::{u32_at, u64_at};
use crate::error::Error;
use crate::map::MappedFile;
use crate::packed::{self, Packing, Progress};
use crate::runs::{Run, Runs};
use crate::target::{Arch, FileMapping, Memory, Missing, Range, Target, Thread};

pub(crate) use notes::each as each_note;
pub use notes::{AuxEntry, Maker, ProcessInfo, SignalInfo};

/// What a core file lacks because it was cut off (full disk, size limit, broken copy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Truncation {
    /// The size that the headers speak of, in bytes.
    pub expected: u64,
    /// The file's size, in bytes.
    pub actual: u64,
    /// Memory that was to be in the file and isn't, in bytes.
    pub missing_memory: u64,
    /// Memory segments that lack bytes.
    pub segments: usize,
    /// Whether notes (threads, file names) were lost too.
    pub notes: bool,
}

/// How a core was compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Packed {
    /// The format.
    pub packing: Packing,
    /// What was wrong with the compressed data; what came before is there.
    pub damage: Option<String>,
}

/// What createdump tells about a dump that it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Createdump {
    /// Version of this information.
    pub version: u32,
    /// Where the EXCEPTION_RECORD of a crash is.
    pub exception_record: Option<u64>,
    /// Where the module with the runtime begins: libcoreclr.so or a single-file app.
    pub runtime_base: Option<u64>,
}

/// An ELF core file of a 64-bit little-endian process, mapped into memory.
///
/// Made by createdump, the kernel or gdb. Opening reads the headers and notes only. Shared freely between threads.
/// See [`MappedFile`] for what happens when the file is changed or shortened by others while it is open.
pub struct Core {
    path: PathBuf,
    map: MappedFile,
    arch: Arch,
    runs: Runs,
    ranges: Vec<Range>,
    described: u64,
    overlaps: usize,
    truncation: Option<Truncation>,
    packed: Option<Packed>,
    notes: notes::Notes,
}

impl Core {
    /// Opens the core at `path`.
    ///
    /// # Errors
    /// When it can't be read or isn't a core that this program reads; a truncated one is opened, see
    /// [`Core::truncation`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let map = MappedFile::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Self::from_map(map, path)
    }

    /// Opens the core at `path`, compressed or not. A compressed one is unpacked into a nameless file in `folder`
    /// first; `observe` is called about once per megabyte and may end it.
    ///
    /// # Errors
    /// As [`Core::open`], and when unpacking fails before there is a core. Data cut off or damaged later gives a
    /// truncated core: see [`Core::packed`].
    pub fn open_packed(
        path: &Path,
        folder: &Path,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, Error> {
        let Some(unpacked) = packed::unpack(path, folder, observe)? else { return Self::open(path) };
        let (packing, damage) = (unpacked.packing, unpacked.damage);
        match (Self::from_map(unpacked.map, path), damage) {
            (Ok(core), damage) => Ok(Self { packed: Some(Packed { packing, damage }), ..core }),
            (Err(Error::Damaged { what, .. }), Some(damage)) => Err(Error::Packed {
                path: path.to_owned(),
                packing,
                what: format!("{damage}, and so {what}"),
            }),
            (Err(e), _) => Err(e),
        }
    }

    /// Reads a core from a file already mapped; `path` is only its name.
    ///
    /// # Errors
    /// As [`Core::open`].
    pub fn from_map(map: MappedFile, path: &Path) -> Result<Self, Error> {
        let bytes = map.bytes();
        let headers = header::parse(bytes, path)?;
        let size = bytes.len() as u64;
        let mut runs = Vec::with_capacity(headers.segments.len());
        let mut ranges = Vec::with_capacity(headers.segments.len());
        let mut lost =
            Truncation { expected: size, actual: size, missing_memory: 0, segments: 0, notes: false };
        let mut described = 0u64;
        for segment in &headers.segments {
            described = described.saturating_add(segment.memory_size.max(segment.file_size));
            let present = segment.file_size.min(size.saturating_sub(segment.offset));
            lost.expected = lost.expected.max(segment.offset.saturating_add(segment.file_size));
            if present < segment.file_size {
                lost.missing_memory = lost.missing_memory.saturating_add(segment.file_size - present);
                lost.segments += 1;
            }
            // The last byte of the address space is nobody's: an end of 2^64 doesn't fit.
            let end = segment.start.saturating_add(present);
            if end > segment.start {
                runs.push(Run { start: segment.start, end, offset: segment.offset });
                ranges.push(Range { start: segment.start, end, permissions: segment.permissions });
            }
        }
        let mut notes = notes::Notes::default();
        for &(offset, len) in &headers.notes {
            lost.expected = lost.expected.max(offset.saturating_add(len));
            let start = offset.min(size) as usize;
            let end = offset.saturating_add(len).min(size) as usize;
            lost.notes |= ((end - start) as u64) < len;
            notes.read(bytes.get(start..end).unwrap_or_default(), headers.arch);
        }
        notes.finish();
        let (runs, overlaps) = Runs::new(runs);
        cut_overlaps(&mut ranges);
        let truncation = (lost.expected > size).then_some(lost);
        Ok(Self {
            path: path.to_owned(),
            arch: headers.arch,
            runs,
            ranges,
            described,
            overlaps,
            truncation,
            packed: None,
            notes,
            map,
        })
    }

    /// The file's name as given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the file was compressed; `None` for a plain one.
    #[must_use]
    pub fn packed(&self) -> Option<&Packed> {
        self.packed.as_ref()
    }

    /// The file's size in bytes; of a compressed one what was unpacked.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        self.map.bytes().len() as u64
    }

    /// What is lost because the file is shorter than its headers say.
    #[must_use]
    pub fn truncation(&self) -> Option<Truncation> {
        self.truncation
    }

    /// Bytes of memory that the segment headers describe, in the file or not (an address range that the dump's
    /// maker knew of but left out counts too).
    #[must_use]
    pub fn described_memory(&self) -> u64 {
        self.described
    }

    /// Bytes of memory that are in the file.
    #[must_use]
    pub fn present_memory(&self) -> u64 {
        self.runs.all().iter().map(|run| run.end - run.start).sum()
    }

    /// How many segments claim addresses that another one has already.
    #[must_use]
    pub fn overlaps(&self) -> usize {
        self.overlaps
    }

    /// What the dump says of the process; `None` when it lacks that note.
    #[must_use]
    pub fn process(&self) -> Option<&ProcessInfo> {
        self.notes.process.as_ref()
    }

    /// Which program wrote it; `None` when its notes look like none of the known ones.
    #[must_use]
    pub fn maker(&self) -> Option<Maker> {
        self.notes.maker()
    }

    /// The signal that the dump was taken for; `None` when none was recorded.
    #[must_use]
    pub fn signal(&self) -> Option<SignalInfo> {
        self.notes.signal
    }

    /// The auxiliary vector that the kernel gave the process.
    #[must_use]
    pub fn auxv(&self) -> &[AuxEntry] {
        &self.notes.auxv
    }

    /// What createdump adds to its dumps (.NET 6 and later); `None` for dumps of other makers.
    #[must_use]
    pub fn createdump(&self) -> Option<Createdump> {
        // SpecialDiagInfo, dotnet/runtime src/coreclr/inc/specialdiaginfo.h: signature char[16], version i32 @16,
        // address of an exception record @24, from version 2 on the runtime's base address @32.
        const ADDRESS: u64 = 0x7fff_fff1_0000;
        let bytes = self.slice(ADDRESS, 32)?;
        if !bytes.starts_with(b"DIAGINFOHEADER\0") {
            return None;
        }
        let version = u32_at(bytes, 16)?;
        let present = |value: &u64| *value != 0;
        Some(Createdump {
            version,
            exception_record: u64_at(bytes, 24).filter(present),
            runtime_base: self.u64(ADDRESS + 32).ok().filter(|_| version >= 2).filter(present),
        })
    }

    /// Asks the system to bring the bytes at `start..start+len` into memory now, as far as they are in the file in
    /// one piece; see [`MappedFile::populate`].
    pub fn populate(&self, start: u64, len: u64) {
        if let Some(run) = self.runs.find(start) {
            let offset = run.offset + (start - run.start);
            self.map.populate(offset as usize, len.min(run.end - start) as usize);
        }
    }

    /// The first address above `addr` at which a run of bytes begins.
    pub(crate) fn next_start(&self, addr: u64) -> Option<u64> {
        self.runs.next_start(addr)
    }
}

/// Sorts and cuts as [`Runs::new`] does, but keeps ranges with different permissions apart.
fn cut_overlaps(ranges: &mut Vec<Range>) {
    ranges.sort_by_key(|range| range.start);
    let mut end = 0;
    ranges.retain_mut(|range| {
        range.start = range.start.max(end);
        end = end.max(range.end);
        range.start < range.end
    });
}

/// Fills `buf` from the runs that `run` returns; what [`Memory::read`] is made of.
pub(crate) fn read_by_runs<'a>(
    run: impl Fn(u64) -> &'a [u8],
    addr: u64,
    buf: &mut [u8],
) -> Result<(), Missing> {
    let missing = Missing { addr, len: buf.len() as u64 };
    let mut at = addr;
    let mut rest = buf;
    while !rest.is_empty() {
        let bytes = run(at);
        let len = bytes.len().min(rest.len());
        if len == 0 {
            return Err(missing);
        }
        let (now, later) = rest.split_at_mut(len);
        now.copy_from_slice(bytes.get(..len).unwrap_or_default());
        rest = later;
        match at.checked_add(len as u64) {
            Some(next) => at = next,
            None if rest.is_empty() => break,
            None => return Err(missing),
        }
    }
    Ok(())
}

impl Memory for Core {
    #[inline]
    fn run(&self, addr: u64) -> &[u8] {
        let Some(run) = self.runs.find(addr) else { return &[] };
        // The offsets were held against the file's length when the runs were made.
        let from = run.offset + (addr - run.start);
        let to = run.offset + (run.end - run.start);
        self.map.bytes().get(from as usize..to as usize).unwrap_or_default()
    }

    #[inline]
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
        if let Some(bytes) = self.run(addr).get(..buf.len()) {
            buf.copy_from_slice(bytes);
            return Ok(());
        }
        read_by_runs(|at| self.run(at), addr, buf)
    }
}

impl Target for Core {
    fn arch(&self) -> Arch {
        self.arch
    }

    fn mappings(&self) -> &[FileMapping] {
        &self.notes.mappings
    }

    fn threads(&self) -> &[Thread] {
        &self.notes.threads
    }

    fn ranges(&self) -> &[Range] {
        &self.ranges
    }
}
