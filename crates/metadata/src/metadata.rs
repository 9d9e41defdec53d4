//! The root of metadata and its heaps (II.24.2).

use std::borrow::Cow;

use crate::bytes::{compressed, u16_at, u32_at, u64_at, until_nul};
use crate::error::Error;
use crate::tables::{Table, Tables};
use crate::token::Guid;

/// The metadata of one module (or of a portable PDB), over the bytes it was read from.
#[derive(Debug, Clone)]
pub struct Metadata<'a> {
    version: &'a [u8],
    strings: &'a [u8],
    user_strings: &'a [u8],
    blobs: &'a [u8],
    guids: &'a [u8],
    pdb: &'a [u8],
    pub(crate) tables: Tables<'a>,
}

/// More than any writer makes (there are seven kinds).
const MAX_STREAMS: u16 = 64;

impl<'a> Metadata<'a> {
    /// Reads the root and works out where the rows are. `bytes` begins with `BSJB`.
    ///
    /// # Errors
    /// When it is no metadata, or its streams and tables don't fit.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let short = || Error::Damaged { what: "it ends inside its root" };
        if !bytes.starts_with(b"BSJB") {
            return Err(Error::NotMetadata { what: "the signature BSJB is not there" });
        }
        let version_len = u32_at(bytes, 12).ok_or_else(short)? as usize;
        let after = 16usize.checked_add(version_len).ok_or_else(short)?;
        let version = until_nul(bytes.get(16..after).ok_or_else(short)?);
        let count = u16_at(bytes, after + 2).ok_or_else(short)?;
        let mut streams = bytes.get(after + 4..).ok_or_else(short)?;
        let empty: &[u8] = &[];
        let [mut strings, mut user_strings, mut blobs, mut guids, mut pdb] = [empty; 5];
        let mut tables = None;
        for _ in 0..count.min(MAX_STREAMS) {
            let (Some(offset), Some(size)) = (u32_at(streams, 0), u32_at(streams, 4)) else {
                return Err(short());
            };
            let name =
                until_nul(streams.get(8..).map(|rest| rest.get(..32).unwrap_or(rest)).ok_or_else(short)?);
            streams = streams.get(8 + (name.len() + 4) / 4 * 4..).unwrap_or_default();
            let start = offset as usize;
            let contents = start.checked_add(size as usize).and_then(|end| bytes.get(start..end));
            let contents = contents.ok_or(Error::Damaged { what: "a stream lies outside" })?;
            match name {
                b"#Strings" => strings = contents,
                b"#US" => user_strings = contents,
                b"#Blob" => blobs = contents,
                b"#GUID" => guids = contents,
                b"#Pdb" => pdb = contents,
                b"#~" | b"#-" => tables = Some(contents),
                _ => {}
            }
        }
        let tables = tables.ok_or(Error::NotMetadata { what: "there is no table stream" })?;
        let tables = Tables::parse(tables, &external_rows(pdb).ok_or_else(short)?)?;
        Ok(Self { version, strings, user_strings, blobs, guids, pdb, tables })
    }

    /// The version text of the root, such as `v4.0.30319`.
    #[must_use]
    pub fn version(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.version)
    }

    /// For a portable PDB its id: a GUID and a time stamp, as in the CodeView entry of the assembly.
    #[must_use]
    pub fn pdb_id(&self) -> Option<[u8; 20]> {
        self.pdb.first_chunk().copied()
    }

    /// How many rows a table has.
    #[must_use]
    pub fn rows(&self, table: Table) -> u32 {
        self.tables.rows(table)
    }

    /// The bytes of the string at `offset` of `#Strings`; empty when there is none.
    #[must_use]
    pub fn string_bytes(&self, offset: u32) -> &'a [u8] {
        until_nul(self.strings.get(offset as usize..).unwrap_or_default())
    }

    /// The string at `offset` of `#Strings`, lossy.
    #[must_use]
    pub fn string(&self, offset: u32) -> Cow<'a, str> {
        String::from_utf8_lossy(self.string_bytes(offset))
    }

    /// The blob at `offset` of `#Blob`; empty when there is none.
    #[must_use]
    pub fn blob(&self, offset: u32) -> &'a [u8] {
        counted(self.blobs, offset).unwrap_or_default()
    }

    /// GUID number `index` (from 1) of `#GUID`.
    #[must_use]
    pub fn guid(&self, index: u32) -> Option<Guid> {
        let at = (index as usize).checked_sub(1)?.checked_mul(16)?;
        self.guids.get(at..)?.first_chunk().map(|bytes| Guid(*bytes))
    }

    /// The user string (of `ldstr`) at `offset` of `#US`; unpaired surrogates are replaced.
    #[must_use]
    pub fn user_string(&self, offset: u32) -> Option<String> {
        let (units, _) = counted(self.user_strings, offset)?.as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        Some(String::from_utf16_lossy(&units))
    }
}

/// The bytes at `offset` of a heap whose items begin with their length.
fn counted(heap: &[u8], offset: u32) -> Option<&[u8]> {
    let bytes = heap.get(offset as usize..)?;
    let (len, skip) = compressed(bytes)?;
    bytes.get(skip..)?.get(..len as usize)
}

/// The row counts that a portable PDB's `#Pdb` stream gives of the assembly's tables; zeros without one.
fn external_rows(pdb: &[u8]) -> Option<[u32; 64]> {
    let mut rows = [0; 64];
    if pdb.is_empty() {
        return Some(rows);
    }
    let referenced = u64_at(pdb, 24)?;
    let mut at = 32;
    for (i, count) in rows.iter_mut().enumerate() {
        if referenced >> i & 1 != 0 {
            *count = u32_at(pdb, at)?;
            at += 4;
        }
    }
    Some(rows)
}
