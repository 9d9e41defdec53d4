//! .NET single-file bundles: a program with its assemblies appended, and a manifest that says where each one is.
//!
//! npm has .NET 10 only as somebody's single-file app. With another assembly in the place of its own, that app is a
//! debuggee on .NET 10.
//!
//! Layout (dotnet/runtime, src/native/corehost/bundle: header.h, file_entry.h; version 6): the 8 bytes before the
//! signature in the host are the offset of the header: u32 major, u32 minor, i32 files, string id, i64 offset and size
//! of deps.json and of runtimeconfig.json, u64 flags; then for each file i64 offset, i64 size, i64 compressed size
//! (0: not compressed), u8 type (1: assembly), string path. A string is its length in 7-bit groups, then UTF-8.

use crate::Result;

/// SHA-256 of ".net core bundle".
const SIGNATURE: [u8; 32] = [
    0x8b, 0x12, 0x02, 0xb9, 0x6a, 0x61, 0x20, 0x38, 0x72, 0x7b, 0x93, 0x02, 0x14, 0xd7, 0xa0, 0x32, 0x13,
    0xf5, 0xb9, 0xe6, 0xef, 0xae, 0x33, 0x18, 0xee, 0x3b, 0x2d, 0xce, 0x24, 0xb3, 0x6a, 0xae,
];
const VERSION: u32 = 6;
const ASSEMBLY: u8 = 1;

/// A file in a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the app's folder.
    pub path: String,
    /// Whether it is an assembly.
    pub assembly: bool,
    offset: usize,
    size: usize,
    compressed: bool,
    /// Where its entry is in the manifest.
    at: usize,
}

/// The files of the bundle in this program.
///
/// # Errors
/// It is no bundle of the version known here.
pub fn entries(program: &[u8]) -> Result<Vec<Entry>> {
    let found = program.windows(SIGNATURE.len()).position(|window| window == SIGNATURE);
    let signature = found.ok_or("the program is no single-file host")?;
    let mut reader = Reader { bytes: program, at: signature.checked_sub(8).ok_or("the program is cut off")? };
    reader.at = reader.offset()?;
    let version = reader.u32()?;
    if version != VERSION {
        return Err(format!("the bundle has version {version}; only {VERSION} is known").into());
    }
    reader.u32()?;
    let count = reader.u32()?;
    reader.string()?;
    reader.at += 5 * 8;
    let mut entries = Vec::new();
    for _ in 0..count {
        let at = reader.at;
        let (offset, size, compressed) = (reader.offset()?, reader.offset()?, reader.offset()?);
        let kind = reader.take::<1>()?;
        let path = reader.string()?;
        entries.push(Entry {
            path,
            assembly: kind == [ASSEMBLY],
            offset,
            size,
            compressed: compressed != 0,
            at,
        });
    }
    Ok(entries)
}

/// The bytes of a file of the bundle.
///
/// # Errors
/// It is compressed, or not there.
pub fn content<'a>(program: &'a [u8], entry: &Entry) -> Result<&'a [u8]> {
    if entry.compressed {
        return Err(format!("{} is compressed in the bundle", entry.path).into());
    }
    let bytes = program.get(entry.offset..).and_then(|rest| rest.get(..entry.size));
    bytes.ok_or_else(|| format!("{} is not in the bundle", entry.path).into())
}

/// The program with `assembly` in the place of the one at `entry`, which must be of it.
pub fn replaced(program: &[u8], entry: &Entry, assembly: &[u8]) -> Vec<u8> {
    let mut changed = program.to_vec();
    // Assemblies are mapped: they begin at a page.
    changed.resize(changed.len().next_multiple_of(4096), 0);
    let numbers = [changed.len() as u64, assembly.len() as u64, 0];
    for (n, number) in numbers.into_iter().enumerate() {
        let at = entry.at + 8 * n;
        if let Some(place) = changed.get_mut(at..at + 8) {
            place.copy_from_slice(&number.to_le_bytes());
        }
    }
    changed.extend_from_slice(assembly);
    changed
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk());
        self.at += N;
        bytes.copied().ok_or_else(|| "the bundle's manifest is cut off".into())
    }

    fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn offset(&mut self) -> Result<usize> {
        Ok(usize::try_from(u64::from_le_bytes(self.take()?))?)
    }

    fn string(&mut self) -> Result<String> {
        let mut length = 0;
        for shift in [0, 7] {
            let [byte] = self.take()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        let text = self.bytes.get(self.at..).and_then(|rest| rest.get(..length));
        self.at += length;
        Ok(String::from_utf8(text.ok_or("the bundle's manifest is cut off")?.to_vec())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with two files, written as the format's description says.
    fn bundle() -> Vec<u8> {
        let mut file = b"host".to_vec();
        let place = file.len();
        file.extend([0; 8]);
        file.extend(SIGNATURE);
        let one = file.len();
        file.extend(b"one!");
        let header = file.len() as u64;
        file.splice(place..place + 8, header.to_le_bytes());
        file.extend([6_u32, 0, 2].iter().flat_map(|n| n.to_le_bytes()));
        file.extend(b"\x02id");
        file.extend([0; 40]);
        for (offset, size, compressed, kind, path) in [(one, 4, 0, 1, "a.dll"), (one, 1, 9, 3, "b.json")] {
            file.extend([offset as u64, size, compressed].iter().flat_map(|n| n.to_le_bytes()));
            file.push(kind);
            file.push(u8::try_from(path.len()).unwrap());
            file.extend(path.bytes());
        }
        file
    }

    #[test]
    fn files_are_found_and_replaced() {
        let file = bundle();
        let [a, b] = &entries(&file).unwrap()[..] else { panic!("two files") };
        assert_eq!(
            (a.path.as_str(), a.assembly, b.path.as_str(), b.assembly),
            ("a.dll", true, "b.json", false)
        );
        assert_eq!(content(&file, a).unwrap(), b"one!");
        assert!(content(&file, b).unwrap_err().to_string().contains("compressed"));
        let other = replaced(&file, a, b"another");
        let again = entries(&other).unwrap();
        assert_eq!(content(&other, &again[0]).unwrap(), b"another");
        assert_eq!(again[1], *b);
    }

    #[test]
    fn a_damaged_bundle_is_an_error() {
        let file = bundle();
        for end in 0..file.len() {
            assert!(entries(&file[..end]).is_err(), "cut off at {end}");
        }
    }
}
