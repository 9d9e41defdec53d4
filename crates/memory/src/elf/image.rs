//! An ELF image inside a memory: program headers, dynamic symbols, notes. Layouts: elf(5), the System V ABI's
//! dynamic section, and glibc's elf/dl-lookup.c for the GNU hash table.

use thiserror::Error;

use super::{PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_LOAD, PT_NOTE, ProgramHeader};
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::corefile::each_note;
use crate::target::{Memory, Missing};

/// Why an image can't be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There is no ELF header.
    #[error("there is no 64-bit little-endian ELF image at {base:#x}")]
    NotElf {
        /// Where it was looked for.
        base: u64,
    },
    /// Its structures contradict themselves.
    #[error("the ELF image at {base:#x} is damaged: {what}")]
    Damaged {
        /// Where the image begins.
        base: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The bytes needed aren't there.
    #[error("the ELF image at {base:#x} is incomplete")]
    Incomplete {
        /// Where the image begins.
        base: u64,
        /// Which bytes.
        source: Missing,
    },
}

/// A dynamic symbol that the image defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol {
    /// Its address in the target.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// An ELF image as it is loaded in a memory. Holds headers only; the memory is given with each question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElfImage {
    base: u64,
    bias: u64,
    machine: u16,
    headers: Vec<ProgramHeader>,
}

/// More than any real image has; a damaged header may claim 65,535.
const MAX_HEADERS: u16 = 512;
const MAX_DYNAMIC: u64 = 1024;
/// Steps along one hash chain. Real chains have a few entries.
const MAX_CHAIN: u32 = 1 << 16;
const MAX_NOTES: u64 = 1 << 16;

const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_TEXTREL: u64 = 22;
const DT_FLAGS: u64 = 30;
const DF_TEXTREL: u64 = 4;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const SYMBOL_SIZE: u64 = 24;

impl ElfImage {
    /// Reads the headers of the image that begins at `base` (the mapping with file offset 0).
    ///
    /// # Errors
    /// When there is no ELF image, or its headers are damaged or missing.
    pub fn at(memory: &dyn Memory, base: u64) -> Result<Self, ImageError> {
        let incomplete = |source| ImageError::Incomplete { base, source };
        let damaged = |what| ImageError::Damaged { base, what };
        let mut header = [0; 64];
        memory.read(base, &mut header).map_err(incomplete)?;
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return Err(ImageError::NotElf { base });
        }
        let field16 = |at| u16_at(&header, at).unwrap_or_default();
        let table = u64_at(&header, 32).unwrap_or_default();
        let (entry, count) = (field16(54), field16(56));
        if usize::from(entry) < ProgramHeader::SIZE || count == 0 || count > MAX_HEADERS {
            return Err(damaged("impossible size or number of program headers"));
        }
        let mut headers = Vec::with_capacity(count.into());
        for i in 0..u64::from(count) {
            let mut bytes = [0; ProgramHeader::SIZE];
            let at = base.wrapping_add(table).wrapping_add(i * u64::from(entry));
            memory.read(at, &mut bytes).map_err(incomplete)?;
            headers.extend(ProgramHeader::parse(&bytes));
        }
        let lowest = headers.iter().filter(|h| h.kind == PT_LOAD).min_by_key(|h| h.vaddr);
        let lowest = lowest.ok_or_else(|| damaged("nothing of it is to be loaded"))?;
        // `base` is where the byte at file offset 0 is or would be.
        let bias = base.wrapping_sub(lowest.vaddr.wrapping_sub(lowest.offset));
        Ok(Self { base, bias, machine: field16(18), headers })
    }

    /// Where its first byte is.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// What is added to the addresses of the file to get those of the target.
    #[must_use]
    pub fn bias(&self) -> u64 {
        self.bias
    }

    /// `e_machine`.
    #[must_use]
    pub fn machine(&self) -> u16 {
        self.machine
    }

    /// All program headers.
    #[must_use]
    pub fn headers(&self) -> &[ProgramHeader] {
        &self.headers
    }

    fn of_kind(&self, kind: u32) -> impl Iterator<Item = &ProgramHeader> {
        self.headers.iter().filter(move |header| header.kind == kind)
    }

    fn span(&self, header: &ProgramHeader) -> std::ops::Range<u64> {
        let start = self.bias.wrapping_add(header.vaddr);
        start..start.saturating_add(header.memory_size)
    }

    /// Its addresses, from the first to behind the last, gaps included.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<u64> {
        let end = self.of_kind(PT_LOAD).map(|header| self.span(header).end).max().unwrap_or(self.base);
        self.base..end.max(self.base)
    }

    /// Its writable segments, `.bss` included.
    pub fn data_ranges(&self) -> impl Iterator<Item = std::ops::Range<u64>> + '_ {
        self.of_kind(PT_LOAD).filter(|header| header.permissions().write).map(|header| self.span(header))
    }

    /// Its loaded segments with their headers.
    pub fn segments(&self) -> impl Iterator<Item = (std::ops::Range<u64>, &ProgramHeader)> + '_ {
        self.of_kind(PT_LOAD).map(|header| (self.span(header), header))
    }

    /// What is made read-only after relocation (PT_GNU_RELRO).
    #[must_use]
    pub fn relro(&self) -> Option<std::ops::Range<u64>> {
        self.of_kind(PT_GNU_RELRO).map(|header| self.span(header)).next()
    }

    /// Where `.eh_frame_hdr` is: the look-up table of the unwind information.
    #[must_use]
    pub fn eh_frame_hdr(&self) -> Option<std::ops::Range<u64>> {
        self.of_kind(PT_GNU_EH_FRAME).map(|header| self.span(header)).next()
    }

    /// The GNU build-id; `None` when the image has none.
    ///
    /// # Errors
    /// When its notes are missing.
    pub fn build_id(&self, memory: &dyn Memory) -> Result<Option<Vec<u8>>, ImageError> {
        let mut missing = None;
        for header in self.of_kind(PT_NOTE) {
            let mut bytes = vec![0; header.memory_size.min(MAX_NOTES) as usize];
            if let Err(source) = memory.read(self.span(header).start, &mut bytes) {
                missing = Some(source);
                continue;
            }
            if let Some((_, _, id)) = each_note(&bytes).find(|(name, kind, _)| *name == b"GNU" && *kind == 3)
            {
                return Ok(Some(id.to_vec()));
            }
        }
        missing.map_or(Ok(None), |source| Err(self.incomplete(source)))
    }

    fn incomplete(&self, source: Missing) -> ImageError {
        ImageError::Incomplete { base: self.base, source }
    }

    /// The entries of its dynamic section, as they stand in memory.
    ///
    /// # Errors
    /// When a part of the section is missing.
    pub fn dynamic(&self, memory: &dyn Memory) -> Result<Vec<(u64, u64)>, ImageError> {
        let mut entries = Vec::new();
        let Some(header) = self.of_kind(PT_DYNAMIC).next() else { return Ok(entries) };
        let start = self.span(header).start;
        for i in 0..(header.memory_size / 16).min(MAX_DYNAMIC) {
            let at = start.wrapping_add(16 * i);
            let tag = memory.u64(at).map_err(|e| self.incomplete(e))?;
            if tag == 0 {
                break;
            }
            entries.push((tag, memory.u64(at.wrapping_add(8)).map_err(|e| self.incomplete(e))?));
        }
        Ok(entries)
    }

    /// An address of the dynamic section. glibc writes the load bias into it, musl leaves it as in the file.
    pub(crate) fn dynamic_address(&self, value: u64) -> u64 {
        if value >= self.base { value } else { value.wrapping_add(self.bias) }
    }

    /// Whether relocation changes its read-only segments (DT_TEXTREL, or DF_TEXTREL of DT_FLAGS).
    pub(crate) fn has_text_relocations(&self, memory: &dyn Memory) -> bool {
        let entries = self.dynamic(memory).unwrap_or_default();
        entries.iter().any(|&(tag, value)| tag == DT_TEXTREL || tag == DT_FLAGS && value & DF_TEXTREL != 0)
    }

    /// The dynamic symbol `name`; `None` when the image doesn't define it.
    ///
    /// # Errors
    /// When the tables are damaged or missing. In small dumps that is normal and says nothing about the symbol.
    pub fn symbol(&self, memory: &dyn Memory, name: &str) -> Result<Option<Symbol>, ImageError> {
        let dynamic = self.dynamic(memory)?;
        let address =
            |tag| dynamic.iter().find(|(t, _)| *t == tag).map(|&(_, value)| self.dynamic_address(value));
        let (Some(symbols), Some(strings)) = (address(DT_SYMTAB), address(DT_STRTAB)) else {
            return Ok(None);
        };
        let tables = Tables { memory, symbols, strings, name: name.as_bytes(), bias: self.bias };
        let found = match (address(DT_GNU_HASH), address(DT_HASH)) {
            (Some(hash), _) => tables.by_gnu_hash(hash),
            (None, Some(hash)) => tables.by_sysv_hash(hash),
            (None, None) => Ok(None),
        };
        found.map_err(|e| self.incomplete(e))
    }
}

struct Tables<'a> {
    memory: &'a dyn Memory,
    symbols: u64,
    strings: u64,
    name: &'a [u8],
    bias: u64,
}

impl Tables<'_> {
    fn u32(&self, table: u64, index: u64) -> Result<u32, Missing> {
        self.memory.u32(table.wrapping_add(index.wrapping_mul(4)))
    }

    /// Symbol `index`, if it is the one and it is defined here.
    fn matching(&self, index: u32) -> Result<Option<Symbol>, Missing> {
        let mut entry = [0; SYMBOL_SIZE as usize];
        self.memory.read(self.symbols.wrapping_add(u64::from(index) * SYMBOL_SIZE), &mut entry)?;
        let string = self.strings.wrapping_add(u32_at(&entry, 0).unwrap_or_default().into());
        for (i, &expected) in self.name.iter().chain(&[0]).enumerate() {
            if self.memory.u8(string.wrapping_add(i as u64))? != expected {
                return Ok(None);
            }
        }
        let defined = u16_at(&entry, 6).unwrap_or_default() != 0;
        let value = u64_at(&entry, 8).unwrap_or_default();
        let size = u64_at(&entry, 16).unwrap_or_default();
        Ok(defined.then_some(Symbol { address: self.bias.wrapping_add(value), size }))
    }

    /// nbuckets, symoffset, bloom size, bloom shift, bloom words, buckets, chain. The Bloom filter only saves time
    /// for names that aren't there.
    fn by_gnu_hash(&self, table: u64) -> Result<Option<Symbol>, Missing> {
        let hash = self.name.iter().fold(5381u32, |h, &c| h.wrapping_mul(33).wrapping_add(c.into()));
        let (buckets, first, bloom) = (self.u32(table, 0)?, self.u32(table, 1)?, self.u32(table, 2)?);
        if buckets == 0 {
            return Ok(None);
        }
        let bucket_table = table.wrapping_add(16 + 8 * u64::from(bloom));
        let chain_table = bucket_table.wrapping_add(4 * u64::from(buckets));
        let mut index = self.u32(bucket_table, (hash % buckets).into())?;
        for _ in 0..MAX_CHAIN {
            let Some(link) = index.checked_sub(first).filter(|_| index != 0) else { break };
            let entry = self.u32(chain_table, link.into())?;
            if entry | 1 == hash | 1
                && let Some(symbol) = self.matching(index)?
            {
                return Ok(Some(symbol));
            }
            if entry & 1 != 0 {
                break;
            }
            let Some(next) = index.checked_add(1) else { break };
            index = next;
        }
        Ok(None)
    }

    /// nbucket, nchain, buckets, chain.
    fn by_sysv_hash(&self, table: u64) -> Result<Option<Symbol>, Missing> {
        let hash = self.name.iter().fold(0u32, |h, &c| {
            let h = (h << 4).wrapping_add(c.into());
            let high = h & 0xf000_0000;
            (h ^ (high >> 24)) & !high
        });
        let (buckets, chains) = (self.u32(table, 0)?, self.u32(table, 1)?);
        if buckets == 0 {
            return Ok(None);
        }
        let mut index = self.u32(table, 2 + u64::from(hash % buckets))?;
        for _ in 0..chains.min(MAX_CHAIN) {
            if index == 0 || index >= chains {
                break;
            }
            if let Some(symbol) = self.matching(index)? {
                return Ok(Some(symbol));
            }
            index = self.u32(table, 2 + u64::from(buckets) + u64::from(index))?;
        }
        Ok(None)
    }
}
