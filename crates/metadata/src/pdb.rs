//! Portable PDBs: source lines and names of locals.
//!
//! Source: dotnet/runtime docs/design/specs/PortablePdb-Metadata.md (format version 1.0), and for those inside an
//! assembly docs/design/specs/PE-COFF.md (debug directory entries 2 and 17).

use std::io::Read;

use crate::bytes::{compressed, compressed_signed, u32_at};
use crate::error::Error;
use crate::metadata::Metadata;
use crate::tables::Table;

/// A PDB that claims to be larger is damaged: the largest known have some tens of MB.
const MAX_EMBEDDED: u32 = 1 << 28;
/// Deflate makes at most so many bytes of one.
const MAX_RATIO: usize = 1032;
/// Parts of a file's name.
const MAX_PARTS: usize = 256;
/// Locals of one method that are looked at.
const MAX_LOCALS: u32 = 1 << 16;
/// Bytes of a file's name.
const MAX_NAME: usize = 1 << 14;

/// A portable PDB, over the bytes it was read from.
#[derive(Debug, Clone)]
pub struct Pdb<'a> {
    metadata: Metadata<'a>,
    id: [u8; 20],
}

/// A place in a source file that a method's IL was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequencePoint {
    /// IL offset from which on it counts.
    pub offset: u32,
    /// Row of the source file, for [`Pdb::document`].
    pub document: u32,
    /// First line, from 1; 0 for IL that no line is behind.
    pub line: u32,
    /// First column, from 1; 0 likewise.
    pub column: u32,
}

impl SequencePoint {
    /// Whether no line is behind it.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.line == 0
    }
}

impl<'a> Pdb<'a> {
    /// Reads the root and works out where the rows are. `bytes` begins with `BSJB`.
    ///
    /// # Errors
    /// When it is no metadata or no PDB, or is damaged.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let metadata = Metadata::parse(bytes)?;
        let id = metadata.pdb_id().ok_or(Error::NotMetadata { what: "it is no portable PDB" })?;
        Ok(Self { metadata, id })
    }

    /// Its id: the GUID and the time stamp of the CodeView entry of the assembly that it belongs to.
    #[must_use]
    pub fn id(&self) -> [u8; 20] {
        self.id
    }

    /// The sequence points of method `row` (of the assembly's MethodDef), by offset; none for a method without.
    /// Damage ends them.
    pub fn sequence_points(&self, row: u32) -> impl Iterator<Item = SequencePoint> + use<'a> {
        let table = Table::MethodDebugInformation;
        let column = |column| self.metadata.tables.get(table, row, column).unwrap_or(0);
        let (document, blob) = (column(0), self.metadata.blob(column(1)));
        Points::new(blob, document).into_iter().flatten()
    }

    /// The last sequence point at or before IL offset `offset` of method `row` that a line is behind.
    #[must_use]
    pub fn line_at(&self, row: u32, offset: u32) -> Option<SequencePoint> {
        let before = self.sequence_points(row).take_while(|point| point.offset <= offset);
        before.filter(|point| !point.is_hidden()).last()
    }

    /// The path of a source file, as the compiler was given it; lossy.
    #[must_use]
    pub fn document(&self, row: u32) -> Option<String> {
        let name = self.metadata.blob(self.metadata.tables.get(Table::Document, row, 0)?);
        let (&separator, mut parts) = name.split_first()?;
        let mut path = Vec::new();
        for number in 0..MAX_PARTS {
            let Some((part, len)) = compressed(parts) else { break };
            if number > 0 && separator != 0 {
                path.push(separator);
            }
            // Part 0 is the empty one: a path from the root begins with it.
            path.extend_from_slice(self.metadata.blob(part));
            parts = parts.get(len..)?;
            if path.len() > MAX_NAME {
                return None;
            }
        }
        Some(String::from_utf8_lossy(&path).into_owned())
    }

    /// The names of the locals of method `row`, by their number in the method's signature: of those whose scope holds
    /// IL offset `offset` the innermost; else the name of the only variable that has that number at all.
    #[must_use]
    pub fn local_names(&self, row: u32, offset: Option<u32>) -> Vec<Option<String>> {
        let metadata = &self.metadata;
        let column = |scope, column| metadata.tables.get(Table::LocalScope, scope, column).unwrap_or(0);
        // For each number the name, and the length of its scope when that holds the offset.
        let mut found: Vec<Option<(u32, Option<u32>)>> = Vec::new();
        // Damaged lists of several scopes may overlap.
        let mut left = MAX_LOCALS;
        for scope in metadata.rows_with(Table::LocalScope, 0, row) {
            let (start, len) = (column(scope, 4), column(scope, 5));
            let holds = offset.is_some_and(|at| at.checked_sub(start).is_some_and(|into| into < len));
            let rank = holds.then_some(len);
            for variable in
                metadata.list(Table::LocalScope, scope, 2, Table::LocalVariable, Table::LocalVariable)
            {
                let Some(fewer) = left.checked_sub(1) else { return Vec::new() };
                left = fewer;
                let column =
                    |column| metadata.tables.get(Table::LocalVariable, variable, column).unwrap_or(0);
                let (number, name) = (column(1) as usize, column(2));
                if found.len() <= number {
                    found.resize(number + 1, None);
                }
                let Some(slot) = found.get_mut(number) else { continue };
                *slot = match (*slot, rank) {
                    (None, rank) => Some((name, rank)),
                    (Some((_, Some(other))), Some(len)) if len <= other => Some((name, Some(len))),
                    (Some((_, None)), Some(len)) => Some((name, Some(len))),
                    // Two variables, and neither is in scope: which one it is can't be said.
                    (Some((other, None)), None)
                        if metadata.string_bytes(other) != metadata.string_bytes(name) =>
                    {
                        Some((u32::MAX, None))
                    }
                    (kept, _) => kept,
                };
            }
        }
        let name = |(offset, _)| Some(metadata.string(offset).into_owned()).filter(|name| !name.is_empty());
        found.into_iter().map(|slot| slot.and_then(name)).collect()
    }
}

/// Unpacks the data of an embedded PDB: `MPDB`, its size, deflate.
///
/// # Errors
/// When it is none, its data is damaged, or it claims to be larger than any PDB is.
pub fn embedded_pdb(data: &[u8]) -> Result<Vec<u8>, Error> {
    let damaged = |what| Error::Damaged { what };
    let packed = data.strip_prefix(b"MPDB").ok_or(Error::NotMetadata { what: "there is no embedded PDB" })?;
    let size = u32_at(packed, 0).ok_or(damaged("the embedded PDB ends inside its header"))?;
    let packed = packed.get(4..).unwrap_or_default();
    if size > MAX_EMBEDDED || size as usize > packed.len().saturating_mul(MAX_RATIO) {
        return Err(damaged("the embedded PDB would be too large"));
    }
    let mut unpacked = Vec::new();
    let read = flate2::read::DeflateDecoder::new(packed).take(u64::from(size) + 1).read_to_end(&mut unpacked);
    if read.is_err() || unpacked.len() != size as usize {
        return Err(damaged("the embedded PDB does not unpack"));
    }
    Ok(unpacked)
}

/// The sequence points of a blob.
struct Points<'a> {
    rest: &'a [u8],
    document: u32,
    offset: u32,
    /// Line and column of the last one that is not hidden.
    place: Option<(u32, u32)>,
    first: bool,
}

impl<'a> Points<'a> {
    /// `document` is the method's only file, or 0: then the blob names the first one.
    fn new(blob: &'a [u8], document: u32) -> Option<Self> {
        let mut points = Self { rest: blob, document, offset: 0, place: None, first: true };
        let _local_signature = points.unsigned()?;
        if document == 0 {
            points.document = points.unsigned()?;
        }
        Some(points)
    }

    fn unsigned(&mut self) -> Option<u32> {
        let (value, len) = compressed(self.rest)?;
        self.rest = self.rest.get(len..)?;
        Some(value)
    }

    fn signed(&mut self) -> Option<i32> {
        let (value, len) = compressed_signed(self.rest)?;
        self.rest = self.rest.get(len..)?;
        Some(value)
    }

    fn read(&mut self) -> Option<SequencePoint> {
        let mut delta = self.unsigned()?;
        // Files change between two points.
        while delta == 0 && !self.first {
            self.document = self.unsigned()?;
            delta = self.unsigned()?;
        }
        self.offset = self.offset.checked_add(delta)?;
        self.first = false;
        let lines = self.unsigned()?;
        let columns = if lines == 0 { self.unsigned()? as i32 } else { self.signed()? };
        let hidden = SequencePoint { offset: self.offset, document: self.document, line: 0, column: 0 };
        if lines == 0 && columns == 0 {
            return Some(hidden);
        }
        let place = match self.place {
            None => (self.unsigned()?, self.unsigned()?),
            Some((line, column)) => {
                (line.checked_add_signed(self.signed()?)?, column.checked_add_signed(self.signed()?)?)
            }
        };
        self.place = Some(place);
        Some(SequencePoint { line: place.0, column: place.1, ..hidden })
    }
}

impl Iterator for Points<'_> {
    type Item = SequencePoint;

    fn next(&mut self) -> Option<SequencePoint> {
        let point = self.read();
        if point.is_none() {
            self.rest = &[];
        }
        point
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn points(blob: &[u8], document: u32) -> Vec<SequencePoint> {
        Points::new(blob, document).into_iter().flatten().collect()
    }

    #[test]
    fn points_with_and_without_lines_in_two_files() {
        // Locals 0x11; (0: line 9, column 5), (+6: hidden), (+2: 3 lines further, 4 columns back), file 2,
        // (+1: 1 line back).
        let blob = [
            0x11,
            0,
            0,
            8,
            9,
            5,
            6,
            0,
            0,
            2,
            1,
            2 << 1,
            3 << 1,
            (-4i8 as u8) << 1 & 0x7f | 1,
            0,
            2,
            1,
            0,
            7,
            (-1i8 as u8) << 1 & 0x7f | 1,
            0,
        ];
        let point = |offset, document, line, column| SequencePoint { offset, document, line, column };
        let all = [point(0, 1, 9, 5), point(6, 1, 0, 0), point(8, 1, 12, 1), point(9, 2, 11, 1)];
        assert_eq!(points(&blob, 1), all);
        for len in 0..blob.len() {
            assert!(all.starts_with(&points(&blob[..len], 1)), "{len} bytes");
        }
        // The file's row in the blob itself.
        assert_eq!(points(&[0, 7, 3, 0, 1, 20, 1], 0), [point(3, 7, 20, 1)]);
        assert_eq!(points(&[], 1), []);
    }

    #[test]
    fn embedded_pdbs_are_unpacked_only_as_far_as_they_say() {
        let text = b"BSJB, and what else a PDB has".repeat(100);
        let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(&text).unwrap();
        let packed = packer.finish().unwrap();
        let data = |size: u32| [b"MPDB", &size.to_le_bytes()[..], &packed].concat();
        assert_eq!(embedded_pdb(&data(text.len() as u32)), Ok(text.clone()));
        for size in [0, 1, text.len() as u32 - 1, text.len() as u32 + 1, 1 << 27, u32::MAX] {
            assert!(matches!(embedded_pdb(&data(size)), Err(Error::Damaged { .. })), "{size}");
        }
        let cut = data(text.len() as u32);
        for len in 0..cut.len() {
            assert!(embedded_pdb(&cut[..len]).is_err(), "{len} bytes");
        }
    }
}
