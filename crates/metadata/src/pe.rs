//! PE images: headers, sections, directories. Layout: "PE Format" of Microsoft's documentation; the CLI header is
//! ECMA-335 II.25.3.3.

use crate::bytes::{u16_at, u32_at, u64_at, until_nul};
use crate::error::Error;
use crate::token::Guid;

/// Where an image's bytes come from. Offsets count from the image's first byte: file offsets for
/// [`Layout::File`], RVAs for [`Layout::Mapped`].
pub trait Source {
    /// Fills `buf` with the bytes at `offset`; false when any of them is missing.
    fn read(&self, offset: u64, buf: &mut [u8]) -> bool;
}

impl Source for [u8] {
    fn read(&self, offset: u64, buf: &mut [u8]) -> bool {
        let bytes = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)?.get(..buf.len()));
        bytes.map(|bytes| buf.copy_from_slice(bytes)).is_some()
    }
}

impl<F: Fn(u64, &mut [u8]) -> bool> Source for F {
    fn read(&self, offset: u64, buf: &mut [u8]) -> bool {
        self(offset, buf)
    }
}

/// How an image's bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As in the file: sections at their file offsets ("flat").
    File,
    /// As loaded: sections at their RVAs.
    Mapped,
}

/// A part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Directory {
    /// Where it is, relative to the loaded image's base.
    pub rva: u32,
    /// Bytes; 0 for a directory that isn't there.
    pub size: u32,
}

/// Numbers of data directories.
pub mod directory {
    /// Base relocations.
    pub const RELOCATIONS: usize = 5;
    /// Debug directory.
    pub const DEBUG: usize = 6;
    /// CLI header.
    pub const CLI: usize = 14;
}

/// Kinds of debug directory entries.
pub mod debug_kind {
    /// Name and id of the PDB.
    pub const CODE_VIEW: u32 = 2;
    /// A portable PDB, compressed: `MPDB`, u32 uncompressed size, deflate data.
    pub const EMBEDDED_PORTABLE_PDB: u32 = 17;
}

/// A section header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Its name, up to eight bytes, NUL-padded.
    pub name: [u8; 8],
    /// Where it is loaded.
    pub rva: u32,
    /// Bytes when loaded.
    pub virtual_size: u32,
    /// Where it is in the file.
    pub raw_offset: u32,
    /// Bytes in the file.
    pub raw_size: u32,
    /// IMAGE_SCN_… bits.
    pub characteristics: u32,
}

impl Section {
    /// Whether it may be written when loaded.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.characteristics & 0x8000_0000 != 0
    }
}

/// The CLI header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CliHeader {
    /// The metadata.
    pub metadata: Directory,
    /// COMIMAGE_FLAGS_…: 1 IL only, 4 IL library (what ReadyToRun images have instead).
    pub flags: u32,
    /// Token of the entry point, when it is managed.
    pub entry_point: u32,
    /// The ReadyToRun header, in images compiled ahead of time.
    pub managed_native_header: Directory,
}

/// An entry of the debug directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DebugEntry {
    /// See [`debug_kind`].
    pub kind: u32,
    /// Time stamp; for CodeView of a portable PDB the last four bytes of its id.
    pub time_date_stamp: u32,
    /// Version of the entry's format, major and minor.
    pub version: (u16, u16),
    /// Its data. The RVA is 0 when it isn't loaded.
    pub data: Directory,
    /// Where its data is in the file.
    pub file_offset: u32,
}

/// What a CodeView entry says of the PDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeView {
    /// Id of the PDB.
    pub guid: Guid,
    /// 1 for portable PDBs.
    pub age: u32,
    /// Its path on the machine that compiled it, lossy.
    pub path: String,
}

/// The headers of a PE image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pe {
    /// How the source's bytes lie.
    pub layout: Layout,
    /// IMAGE_FILE_MACHINE_…; ReadyToRun images XOR it with a number for the operating system.
    pub machine: u16,
    /// Time of linking, or a hash in reproducible builds.
    pub time_date_stamp: u32,
    /// The address that the image was linked for.
    pub image_base: u64,
    /// Bytes of the loaded image.
    pub size_of_image: u32,
    /// Bytes of all headers.
    pub size_of_headers: u32,
    /// Whether it is PE32+ (64 bits).
    pub is_64_bit: bool,
    /// Section headers.
    pub sections: Vec<Section>,
    /// Data directories, at most 16.
    pub directories: Vec<Directory>,
}

/// The loader of Windows allows 96.
const MAX_SECTIONS: usize = 96;
const MAX_DEBUG_ENTRIES: usize = 64;
const MAX_PATH: usize = 4096;

fn bytes_at(source: &(impl Source + ?Sized), offset: u64, len: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; len];
    if source.read(offset, &mut bytes) { Ok(bytes) } else { Err(Error::Missing { offset, len }) }
}

impl Pe {
    /// Reads the headers.
    ///
    /// # Errors
    /// When the source isn't a PE image or its headers are missing.
    pub fn parse(source: &(impl Source + ?Sized), layout: Layout) -> Result<Self, Error> {
        let dos = bytes_at(source, 0, 64)?;
        if !dos.starts_with(b"MZ") {
            return Err(Error::NotPe { what: "it doesn't begin with MZ" });
        }
        let start = u64::from(u32_at(&dos, 60).unwrap_or_default());
        let coff = bytes_at(source, start, 24)?;
        if !coff.starts_with(b"PE\0\0") {
            return Err(Error::NotPe { what: "the signature PE is not where the DOS header says" });
        }
        let section_count = usize::from(u16_at(&coff, 6).unwrap_or_default());
        let optional_size = usize::from(u16_at(&coff, 20).unwrap_or_default());
        if section_count > MAX_SECTIONS {
            return Err(Error::NotPe { what: "it claims more than 96 sections" });
        }
        let optional = bytes_at(source, start + 24, optional_size)?;
        let short = || Error::NotPe { what: "its optional header is too short" };
        // Directories begin behind the fields whose size differs between PE32 and PE32+.
        let (is_64_bit, directories_at) = match u16_at(&optional, 0).ok_or_else(short)? {
            0x20b => (true, 112),
            0x10b => (false, 96),
            _ => return Err(Error::NotPe { what: "its optional header is of an unknown kind" }),
        };
        let count = u32_at(&optional, directories_at - 4).ok_or_else(short)?.min(16) as usize;
        let directories = (0..count)
            .map_while(|i| {
                let at = directories_at + 8 * i;
                Some(Directory { rva: u32_at(&optional, at)?, size: u32_at(&optional, at + 4)? })
            })
            .collect();
        let headers = bytes_at(source, start + 24 + optional_size as u64, 40 * section_count)?;
        let sections = headers.as_chunks::<40>().0.iter().filter_map(|header| section(header)).collect();
        Ok(Self {
            layout,
            machine: u16_at(&coff, 4).unwrap_or_default(),
            time_date_stamp: u32_at(&coff, 8).unwrap_or_default(),
            image_base: if is_64_bit {
                u64_at(&optional, 24).ok_or_else(short)?
            } else {
                u32_at(&optional, 28).ok_or_else(short)?.into()
            },
            size_of_image: u32_at(&optional, 56).ok_or_else(short)?,
            size_of_headers: u32_at(&optional, 60).ok_or_else(short)?,
            is_64_bit,
            sections,
            directories,
        })
    }

    /// Where the byte at `rva` is in a source of this layout; `None` when no section holds it.
    #[must_use]
    pub fn offset(&self, rva: u32) -> Option<u64> {
        if self.layout == Layout::Mapped || rva < self.size_of_headers {
            return Some(rva.into());
        }
        self.sections.iter().find_map(|section| {
            let into = rva.checked_sub(section.rva)?;
            (into < section.raw_size).then(|| u64::from(section.raw_offset) + u64::from(into))
        })
    }

    /// A data directory ([`directory`]); `None` when the image has none or it is empty.
    #[must_use]
    pub fn directory(&self, number: usize) -> Option<Directory> {
        self.directories.get(number).copied().filter(|directory| directory.size > 0 && directory.rva > 0)
    }

    fn read(&self, source: &(impl Source + ?Sized), rva: u32, len: usize) -> Result<Vec<u8>, Error> {
        bytes_at(source, self.offset(rva).ok_or(Error::Missing { offset: rva.into(), len })?, len)
    }

    /// The CLI header.
    ///
    /// # Errors
    /// [`Error::NotCli`] when there is none, [`Error::Missing`] when its bytes aren't there.
    pub fn cli_header(&self, source: &(impl Source + ?Sized)) -> Result<CliHeader, Error> {
        let header = self.directory(directory::CLI).ok_or(Error::NotCli)?;
        let bytes = self.read(source, header.rva, 72)?;
        let field = |at| u32_at(&bytes, at).unwrap_or_default();
        let part = |at| Directory { rva: field(at), size: field(at + 4) };
        Ok(CliHeader {
            metadata: part(8),
            flags: field(16),
            entry_point: field(20),
            managed_native_header: part(64),
        })
    }

    /// Where the metadata is in the source: offset and length.
    ///
    /// # Errors
    /// As [`Pe::cli_header`].
    pub fn metadata_range(&self, source: &(impl Source + ?Sized)) -> Result<(u64, u32), Error> {
        let metadata = self.cli_header(source)?.metadata;
        let missing = Error::Missing { offset: metadata.rva.into(), len: metadata.size as usize };
        Ok((self.offset(metadata.rva).ok_or(missing)?, metadata.size))
    }

    /// The entries of the debug directory.
    ///
    /// # Errors
    /// When its bytes are missing.
    pub fn debug_entries(&self, source: &(impl Source + ?Sized)) -> Result<Vec<DebugEntry>, Error> {
        let Some(table) = self.directory(directory::DEBUG) else { return Ok(Vec::new()) };
        let count = (table.size as usize / 28).min(MAX_DEBUG_ENTRIES);
        let bytes = self.read(source, table.rva, 28 * count)?;
        Ok(bytes.as_chunks::<28>().0.iter().filter_map(|entry| debug_entry(entry)).collect())
    }

    /// The data of a debug entry.
    ///
    /// # Errors
    /// When its bytes are missing, or it is longer than `max`.
    pub fn debug_data(
        &self,
        source: &(impl Source + ?Sized),
        entry: &DebugEntry,
        max: usize,
    ) -> Result<Vec<u8>, Error> {
        let len = entry.data.size as usize;
        let offset = match self.layout {
            Layout::File => u64::from(entry.file_offset),
            Layout::Mapped => u64::from(entry.data.rva),
        };
        if len > max || offset == 0 {
            return Err(Error::Missing { offset, len });
        }
        bytes_at(source, offset, len)
    }

    /// What the image says of its PDB; `None` when it says nothing.
    ///
    /// # Errors
    /// When the bytes are missing.
    pub fn code_view(&self, source: &(impl Source + ?Sized)) -> Result<Option<CodeView>, Error> {
        let entries = self.debug_entries(source)?;
        let Some(entry) = entries.iter().find(|entry| entry.kind == debug_kind::CODE_VIEW) else {
            return Ok(None);
        };
        let bytes = self.debug_data(source, entry, 24 + MAX_PATH)?;
        Ok(code_view(&bytes))
    }
}

fn section(header: &[u8]) -> Option<Section> {
    Some(Section {
        name: *header.first_chunk()?,
        virtual_size: u32_at(header, 8)?,
        rva: u32_at(header, 12)?,
        raw_size: u32_at(header, 16)?,
        raw_offset: u32_at(header, 20)?,
        characteristics: u32_at(header, 36)?,
    })
}

fn debug_entry(entry: &[u8]) -> Option<DebugEntry> {
    Some(DebugEntry {
        time_date_stamp: u32_at(entry, 4)?,
        version: (u16_at(entry, 8)?, u16_at(entry, 10)?),
        kind: u32_at(entry, 12)?,
        data: Directory { size: u32_at(entry, 16)?, rva: u32_at(entry, 20)? },
        file_offset: u32_at(entry, 24)?,
    })
}

fn code_view(bytes: &[u8]) -> Option<CodeView> {
    let rest = bytes.strip_prefix(b"RSDS")?;
    Some(CodeView {
        guid: Guid(*rest.first_chunk()?),
        age: u32_at(rest, 16)?,
        path: String::from_utf8_lossy(until_nul(rest.get(20..)?)).into_owned(),
    })
}
