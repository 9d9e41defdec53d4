//! Cores written anew: with other program headers, with other names in their notes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use dnd_testkit::must;

/// A copy of a core in which the files' paths begin otherwise, as if it had been carried to another machine.
pub(crate) fn carried_away(core: &Path, to: &Path) {
    let bench = dnd_testkit::bench().path("").to_string_lossy().into_owned();
    let elsewhere = "/elsewhere".repeat(bench.len() / 10 + 1);
    renamed(core, to, &bench, elsewhere.get(..bench.len()).unwrap_or_default());
}

/// A copy of a core in which the mapped files' paths have `new` for `old`, which is as long.
pub(crate) fn renamed(core: &Path, to: &Path, old: &str, new: &str) {
    must(fs::copy(core, to), "can't copy");
    let file = must(File::options().read(true).write(true).open(to), "can't open");
    for (header, offset, size) in headers(&file) {
        // Only the notes name the files that the process had mapped.
        if header[0] != 4 {
            continue;
        }
        let mut notes = vec![0; size as usize];
        must(file.read_exact_at(&mut notes, offset), "can't read the notes");
        while let Some(at) = notes.windows(old.len()).position(|bytes| bytes == old.as_bytes()) {
            notes.splice(at..at + old.len(), new.bytes());
        }
        must(file.write_all_at(&notes, offset), "can't write");
    }
}

/// A program header, and the offset and size in it.
pub(crate) type Header = ([u8; 56], u64, u64);

/// The parts of an ELF core that tests rearrange.
pub(crate) struct Segments {
    pub(crate) bytes: Vec<u8>,
    pub(crate) headers: Vec<Header>,
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn headers(core: &File) -> Vec<Header> {
    let mut elf = [0; 64];
    must(core.read_exact_at(&mut elf, 0), "can't read the ELF header");
    let count = u64::from(u16::from_le_bytes([elf[56], elf[57]]));
    let table = u64_at(&elf, 32);
    let header = |i| {
        let mut header = [0; 56];
        must(core.read_exact_at(&mut header, table + 56 * i), "can't read a program header");
        (header, u64_at(&header, 8), u64_at(&header, 32))
    };
    (0..count).map(header).collect()
}

impl Segments {
    pub(crate) fn of(core: &Path) -> Self {
        let bytes = must(fs::read(core), "the core");
        let headers = headers(&must(File::open(core), "can't open the core"));
        Self { bytes, headers }
    }

    /// The place in the file of an address.
    pub(crate) fn offset(&self, address: u64) -> Option<u64> {
        self.headers.iter().find_map(|(header, offset, size)| {
            let into = address.checked_sub(u64_at(header, 16))?;
            (header[0] == 1 && into < *size).then(|| offset + into)
        })
    }

    /// Writes the core with other program headers, which are put at the end of the file.
    pub(crate) fn write(&self, to: &Path, headers: &[[u8; 56]], shift: u64) {
        let file = must(File::create(to), "can't create");
        let mut elf = self.bytes[..64].to_vec();
        let table = shift + (self.bytes.len() as u64).next_multiple_of(8);
        elf[32..40].copy_from_slice(&table.to_le_bytes());
        if let Ok(count) = u16::try_from(headers.len())
            && count < 0xffff
        {
            elf[56..58].copy_from_slice(&count.to_le_bytes());
        } else {
            // The number stands in the first section header.
            elf[56..58].copy_from_slice(&0xffffu16.to_le_bytes());
            let sections = table + 56 * headers.len() as u64;
            elf[40..48].copy_from_slice(&sections.to_le_bytes());
            elf[58..60].copy_from_slice(&64u16.to_le_bytes());
            elf[60..62].copy_from_slice(&1u16.to_le_bytes());
            let mut section = [0; 64];
            section[44..48].copy_from_slice(&(headers.len() as u32).to_le_bytes());
            must(file.write_all_at(&section, sections), "can't write");
        }
        must(file.write_all_at(&elf, 0), "can't write");
        must(file.write_all_at(&self.bytes[64..], shift + 64), "can't write");
        must(file.write_all_at(&headers.concat(), table), "can't write");
    }
}

/// A program header with other numbers at these places.
pub(crate) fn with(header: &[u8; 56], fields: &[(usize, u64)]) -> [u8; 56] {
    let mut header = *header;
    for &(at, value) in fields {
        header[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    header
}

/// The same for a copy that is at hand already.
pub(crate) fn carried_away_in_place(path: &Path) {
    let original = path.with_extension("original");
    must(fs::rename(path, &original), "can't rename");
    carried_away(&original, path);
    must(fs::remove_file(original), "can't remove");
}
