//! An ELF file seen as if it were loaded.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use super::{EM_AARCH64, EM_X86_64, ElfImage, ImageError, PT_LOAD, ProgramHeader};
use crate::bytes::{u32_at, u64_at};
use crate::corefile::read_by_runs;
use crate::map::MappedFile;
use crate::target::{Memory, Missing};

const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_PLTRELSZ: u64 = 2;
const DT_JMPREL: u64 = 23;
const DT_RELRSZ: u64 = 35;
const DT_RELR: u64 = 36;
const RELA_SIZE: u64 = 24;
const R_X86_64_RELATIVE: u32 = 8;
const R_AARCH64_RELATIVE: u32 = 1027;

/// A relocated word: its address, and the value when that follows from the file and the base alone.
#[derive(Debug, Clone, Copy)]
struct Relocation {
    address: u64,
    value: Option<u64>,
}

/// An ELF file at an address of one's choice, with the relocations that need no other file applied: constants and
/// initial values that a dump left out can be read from it. Words that other files decide are [`Missing`], and so
/// is `.bss`.
pub struct ElfFile {
    map: MappedFile,
    image: ElfImage,
    relocations: OnceLock<Vec<Relocation>>,
}

/// The file's bytes at their addresses, nothing applied.
pub(crate) struct Raw<'a> {
    bytes: &'a [u8],
    base: u64,
    /// `None` while only the headers are read, which lie at their offsets.
    image: Option<&'a ElfImage>,
}

impl<'a> Raw<'a> {
    pub(crate) fn new(bytes: &'a [u8], image: &'a ElfImage) -> Self {
        Self { bytes, base: image.base(), image: Some(image) }
    }

    /// The headers of the file, as if it were loaded at `base`.
    pub(crate) fn headers(bytes: &[u8], base: u64) -> Result<ElfImage, ImageError> {
        ElfImage::at(&Raw { bytes, base, image: None }, base)
    }

    fn bytes_at(&self, addr: u64) -> &'a [u8] {
        let at = |offset: u64, end: u64| {
            let end = usize::try_from(end).unwrap_or(usize::MAX).min(self.bytes.len());
            usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..end)).unwrap_or_default()
        };
        let Some(image) = self.image else {
            return addr.checked_sub(self.base).map(|offset| at(offset, u64::MAX)).unwrap_or_default();
        };
        image
            .segments()
            .find_map(|(span, header)| {
                let into = addr.checked_sub(span.start).filter(|&into| into < header.file_size)?;
                let start = header.offset.checked_add(into)?;
                Some(at(start, header.offset.saturating_add(header.file_size)))
            })
            .unwrap_or_default()
    }
}

impl Memory for Raw<'_> {
    fn run(&self, addr: u64) -> &[u8] {
        self.bytes_at(addr)
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
        read_by_runs(|at| self.bytes_at(at), addr, buf)
    }
}

impl ElfFile {
    /// Opens the file at `path` as if it were loaded at `base`.
    ///
    /// # Errors
    /// Those of opening it; what is no readable ELF image is [`io::ErrorKind::InvalidData`].
    pub fn open(path: &Path, base: u64) -> io::Result<Self> {
        let map = MappedFile::open(path)?;
        Self::new(map, base).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// Takes a file already mapped.
    ///
    /// # Errors
    /// When it is no readable ELF image.
    pub fn new(map: MappedFile, base: u64) -> Result<Self, ImageError> {
        let image = Raw::headers(map.bytes(), base)?;
        Ok(Self { map, image, relocations: OnceLock::new() })
    }

    /// Its headers.
    #[must_use]
    pub fn image(&self) -> &ElfImage {
        &self.image
    }

    /// The file's bytes, at their offsets.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.map.bytes()
    }

    fn raw(&self) -> Raw<'_> {
        Raw::new(self.map.bytes(), &self.image)
    }

    fn relocations(&self) -> &[Relocation] {
        self.relocations.get_or_init(|| {
            // A damaged dynamic section leaves the words unrelocated, so nothing of it may be used: see `read`.
            let mut all = self.read_relocations();
            all.sort_by_key(|relocation| relocation.address);
            all
        })
    }

    fn read_relocations(&self) -> Vec<Relocation> {
        let raw = self.raw();
        let mut out = Vec::new();
        let Ok(dynamic) = self.image.dynamic(&raw) else { return out };
        let value = |tag| dynamic.iter().find(|(t, _)| *t == tag).map_or(0, |&(_, value)| value);
        let bias = self.image.bias();
        let relative = match self.image.machine() {
            EM_X86_64 => R_X86_64_RELATIVE,
            EM_AARCH64 => R_AARCH64_RELATIVE,
            _ => u32::MAX,
        };
        for (table, size) in [(DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)] {
            let (table, size) = (value(table), value(size));
            if table == 0 {
                continue;
            }
            // One piece of the file, so its length bounds the loop.
            let bytes = raw.bytes_at(bias.wrapping_add(table));
            let bytes = bytes.get(..usize::try_from(size).unwrap_or(usize::MAX)).unwrap_or(bytes);
            for entry in bytes.chunks_exact(RELA_SIZE as usize) {
                let (Some(place), Some(kind), Some(addend)) =
                    (u64_at(entry, 0), u32_at(entry, 8), u64_at(entry, 16))
                else {
                    continue;
                };
                let value = (kind == relative).then(|| bias.wrapping_add(addend));
                out.push(Relocation { address: bias.wrapping_add(place), value });
            }
        }
        self.read_relr(value(DT_RELR), value(DT_RELRSZ), &mut out);
        out
    }

    /// The compressed form: an even word is an address, an odd one a bitmap of the 63 words that follow it.
    fn read_relr(&self, table: u64, size: u64, out: &mut Vec<Relocation>) {
        if table == 0 {
            return;
        }
        let (raw, bias) = (self.raw(), self.image.bias());
        let bytes = raw.bytes_at(bias.wrapping_add(table));
        let bytes = bytes.get(..usize::try_from(size).unwrap_or(usize::MAX)).unwrap_or(bytes);
        let mut place = 0u64;
        let push = |place: u64, out: &mut Vec<Relocation>| {
            let address = bias.wrapping_add(place);
            if let Ok(addend) = raw.u64(address) {
                out.push(Relocation { address, value: Some(bias.wrapping_add(addend)) });
            }
        };
        for word in bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)) {
            if word & 1 == 0 {
                push(word, out);
                place = word.wrapping_add(8);
                continue;
            }
            for bit in 0..63 {
                if word >> (bit + 1) & 1 != 0 {
                    push(place.wrapping_add(8 * bit), out);
                }
            }
            place = place.wrapping_add(8 * 63);
        }
    }

    fn is_constant(header: &ProgramHeader) -> bool {
        header.kind == PT_LOAD && !header.permissions().write
    }
}

impl Memory for ElfFile {
    fn run(&self, addr: u64) -> &[u8] {
        let constant =
            self.image.segments().any(|(span, header)| span.contains(&addr) && Self::is_constant(header));
        if constant { self.raw().bytes_at(addr) } else { &[] }
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
        let missing = Missing { addr, len: buf.len() as u64 };
        self.raw().read(addr, buf)?;
        let end = addr.checked_add(buf.len() as u64).ok_or(missing)?;
        let relocations = self.relocations();
        let first = relocations.partition_point(|r| r.address.saturating_add(8) <= addr);
        for relocation in relocations.get(first..).unwrap_or_default() {
            if relocation.address >= end {
                break;
            }
            let value = relocation.value.ok_or(missing)?.to_le_bytes();
            for (i, byte) in value.into_iter().enumerate() {
                let at = relocation.address.wrapping_add(i as u64).checked_sub(addr);
                if let Some(place) = at.and_then(|at| buf.get_mut(usize::try_from(at).ok()?)) {
                    *place = byte;
                }
            }
        }
        Ok(())
    }
}
