//! `dumpheap -strings`: strings counted by their text.

use dnd_clr::{Object, Runtime};
use dnd_contract::Addr;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::listing::Listing;
use crate::error::Error;
use crate::inspect::string_units;
use crate::session::{Call, Format};

/// Characters of a text that a row shows, as dotnet-dump does; JSON has [`JSON_CHARS`].
const TEXT_CHARS: usize = 64;
const JSON_CHARS: usize = 1024;
/// A string is at most 2 GB; more units are never compared at once.
const MAX_UNITS: u32 = 1 << 30;

/// Strings by their text. Texts themselves stay in the dump: the first string of each text stands for all.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    /// Place of the line of each hash of text and length.
    places: FxHashMap<u64, u32>,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    first: u64,
    count: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct TextLine {
    count: u64,
    bytes: u64,
    /// First string with this text.
    first: Addr,
    text: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

impl Texts {
    /// Counts a string.
    pub(crate) fn add(&mut self, runtime: &Runtime<'_>, object: &Object) {
        let memory = runtime.target();
        let Ok(length) = memory.u32(object.address + 8) else { return };
        let mut key = hash(runtime, object.address, length);
        loop {
            // More than 2^32 different strings don't fit into any memory.
            let next = u32::try_from(self.lines.len()).unwrap_or(u32::MAX);
            let place = *self.places.entry(key).or_insert(next);
            if place == next {
                self.lines.push(Line { first: object.address, count: 0, bytes: 0 });
            }
            let Some(line) = self.lines.get_mut(place as usize) else { return };
            if place != next && !same(runtime, line.first, object.address, length) {
                // Two texts with the same hash: the next key is as good.
                key = key.wrapping_add(1);
                continue;
            }
            line.count += 1;
            line.bytes += object.size;
            return;
        }
    }

    /// Writes the summary behind the listing.
    pub(crate) fn end(
        mut self,
        call: &mut Call<'_, '_>,
        listing: &Listing,
        by_count: bool,
    ) -> Result<(), Error> {
        // Millions of strings: nothing is kept or copied that is no longer needed. Strings were met by address.
        self.places = FxHashMap::default();
        self.lines.sort_unstable_by_key(|line| (if by_count { line.count } else { line.bytes }, line.first));
        listing.end_rows(call);
        let runtime = call.runtime();
        match call.format {
            Format::Text => {
                for line in &self.lines {
                    call.out.grouped(line.count, 14);
                    call.out.blanks(1);
                    call.out.grouped(line.bytes, 14);
                    call.out.blanks(1);
                    call.out.name(&text(runtime, line.first, TEXT_CHARS).0);
                    call.out.end();
                }
            }
            Format::Json => {
                call.out.str(",\"strings\":[");
                for (number, line) in self.lines.iter().enumerate() {
                    let (text, cut) = text(runtime, line.first, JSON_CHARS);
                    let line =
                        TextLine { count: line.count, bytes: line.bytes, first: Addr(line.first), text, cut };
                    call.out.str(if number == 0 { "" } else { "," });
                    serde_json::to_writer(&mut call.out, &line).map_err(std::io::Error::from)?;
                }
                call.out.str("]");
                call.json_notes()?;
                call.out.line("}");
            }
        }
        call.out.check()?;
        Ok(())
    }
}

fn hash(runtime: &Runtime<'_>, address: u64, length: u32) -> u64 {
    use std::hash::Hasher;
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write_u32(length);
    match runtime.target().slice(address + 12, 2 * length.min(MAX_UNITS) as usize) {
        Some(bytes) => hasher.write(bytes),
        None => string_units(runtime, address, MAX_UNITS)
            .unwrap_or_default()
            .0
            .iter()
            .for_each(|unit| hasher.write(&unit.to_le_bytes())),
    }
    hasher.finish()
}

fn same(runtime: &Runtime<'_>, a: u64, b: u64, length: u32) -> bool {
    if runtime.target().u32(a + 8) != Ok(length) {
        return false;
    }
    let bytes = |address: u64| runtime.target().slice(address + 12, 2 * length.min(MAX_UNITS) as usize);
    match (bytes(a), bytes(b)) {
        (Some(a), Some(b)) => a == b,
        _ => string_units(runtime, a, MAX_UNITS) == string_units(runtime, b, MAX_UNITS),
    }
}

/// The beginning of a string, and whether there is more.
fn text(runtime: &Runtime<'_>, address: u64, chars: usize) -> (String, bool) {
    // A character outside the basic plane takes two units.
    let max = u32::try_from(2 * chars).unwrap_or(u32::MAX);
    let Some((units, length)) = string_units(runtime, address, max) else {
        return ("<not in the dump>".to_owned(), false);
    };
    let whole = String::from_utf16_lossy(&units);
    let cut: String = whole.chars().take(chars).collect();
    let is_cut = cut.len() < whole.len() || length > max;
    (cut, is_cut)
}
