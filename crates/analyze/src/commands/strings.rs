//! `dumpheap -strings`: strings counted by their text.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::Hasher;
use std::sync::mpsc::{SyncSender, sync_channel};

use dnd_clr::{Object, Runtime};
use dnd_contract::Addr;
use dnd_memory::{Target, prefetch};
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
/// Strings handed over at once.
const BATCH: usize = 1024;
/// Batches that may wait.
const WAITING: usize = 16;
/// Strings fetched from memory ahead of the one being looked at.
const AHEAD: usize = 8;
/// Lines for which sorting on two threads pays.
const WORTH_A_THREAD: usize = 1 << 14;

/// Strings by their text. Texts themselves stay in the dump: the first string of each text stands for all.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    /// By hash of the text, with the next free place for those of the same hash: one more than the number of a line,
    /// 0 for none. As many as a power of two.
    slots: Vec<u32>,
    lines: Vec<Line>,
    /// Bytes that a string takes beyond its characters.
    overhead: u64,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    first: u64,
    count: u64,
    hash: u32,
    /// Characters of one string.
    length: u32,
}

/// Takes strings to the thread that counts them.
pub(crate) struct Sender {
    batch: Vec<Object>,
    to: SyncSender<Vec<Object>>,
}

impl Sender {
    /// Has a string counted.
    #[inline]
    pub(crate) fn add(&mut self, object: &Object) {
        self.batch.push(*object);
        if self.batch.len() == BATCH {
            self.send();
        }
    }

    fn send(&mut self) {
        // The other thread ends when this one has, or in a panic, which is met when it is joined.
        let _ = self.to.send(std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH)));
    }
}

/// Counts strings by their text on a thread of its own, while `walk` finds them.
pub(crate) fn counted<T>(memory: &dyn Target, walk: impl FnOnce(&mut Sender) -> T) -> (Texts, T) {
    let (to, from) = sync_channel::<Vec<Object>>(WAITING);
    std::thread::scope(|scope| {
        let counting = scope.spawn(move || {
            let mut texts = Texts::default();
            for batch in from {
                for (number, object) in batch.iter().enumerate() {
                    if let Some(coming) = batch.get(number + AHEAD) {
                        fetch(memory, coming.address);
                    }
                    texts.add(memory, object);
                }
            }
            texts
        });
        let mut sender = Sender { batch: Vec::with_capacity(BATCH), to };
        let walked = walk(&mut sender);
        sender.send();
        drop(sender);
        match counting.join() {
            Ok(texts) => (texts, walked),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
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

impl Line {
    fn bytes(&self, overhead: u64) -> u64 {
        self.count * (overhead + 2 * u64::from(self.length))
    }
}

impl Texts {
    /// Counts a string.
    fn add(&mut self, memory: &dyn Target, object: &Object) {
        let Ok(length) = memory.u32(object.address + 8) else { return };
        let text = characters(memory, object.address, length);
        let mut hasher = rustc_hash::FxHasher::default();
        hasher.write_u32(length);
        hasher.write(text.as_deref().unwrap_or_default());
        let hash = (hasher.finish() >> 32) as u32;
        if 2 * self.lines.len() >= self.slots.len() {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let Some(slot) = self.slots.get_mut(at) else { return };
            let Some(number) = slot.checked_sub(1) else {
                // More than 2^32 different strings don't fit into any memory.
                *slot = u32::try_from(self.lines.len() + 1).unwrap_or(u32::MAX);
                self.lines.push(Line { first: object.address, count: 1, hash, length });
                self.overhead = object.size.saturating_sub(2 * u64::from(length));
                return;
            };
            let Some(line) = self.lines.get_mut(number as usize) else { return };
            if line.hash == hash && line.length == length && characters(memory, line.first, length) == text {
                line.count += 1;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let count = (2 * self.slots.len()).max(1 << 10);
        self.slots.clear();
        self.slots.resize(count, 0);
        for (number, line) in (1..).zip(&self.lines) {
            let mut at = line.hash as usize & (count - 1);
            while self.slots.get(at).is_some_and(|&slot| slot != 0) {
                at = (at + 1) & (count - 1);
            }
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = number;
            }
        }
    }

    /// The lines in the order in which they are shown, as two lists to be merged.
    fn sorted(&mut self, by_count: bool) -> impl Iterator<Item = &Line> {
        let overhead = self.overhead;
        // Strings were met by address.
        let key = move |line: &Line| (if by_count { line.count } else { line.bytes(overhead) }, line.first);
        let middle = self.lines.len() / 2;
        let (left, right) = self.lines.split_at_mut(middle);
        if left.len() < WORTH_A_THREAD {
            left.sort_unstable_by_key(key);
            right.sort_unstable_by_key(key);
        } else {
            std::thread::scope(|scope| {
                scope.spawn(|| left.sort_unstable_by_key(key));
                right.sort_unstable_by_key(key);
            });
        }
        let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
        std::iter::from_fn(move || match (left.peek(), right.peek()) {
            (Some(a), Some(b)) if key(b) < key(a) => right.next(),
            (Some(_), _) => left.next(),
            _ => right.next(),
        })
    }

    /// Writes the summary behind the listing.
    pub(crate) fn end(
        mut self,
        call: &mut Call<'_, '_>,
        listing: &Listing,
        by_count: bool,
    ) -> Result<(), Error> {
        // Millions of strings: nothing is kept that is no longer needed.
        self.slots = Vec::new();
        listing.end_rows(call);
        let (runtime, overhead) = (call.runtime(), self.overhead);
        match call.format {
            Format::Text => {
                let mut lines = self.sorted(by_count);
                let mut coming: VecDeque<&Line> = lines.by_ref().take(AHEAD).collect();
                while let Some(line) = coming.pop_front() {
                    coming.extend(lines.next().inspect(|line| fetch(runtime.target(), line.first)));
                    call.out.grouped(line.count, 14);
                    call.out.blanks(1);
                    call.out.grouped(line.bytes(overhead), 14);
                    call.out.blanks(1);
                    let characters = runtime.target().slice(line.first + 12, 2 * line.length as usize);
                    match plain(characters.unwrap_or_default(), &mut [0; TEXT_CHARS]) {
                        Some(text) => call.out.bytes(text),
                        None => call.out.name(&text(runtime, line.first, TEXT_CHARS).0),
                    }
                    call.out.end();
                    if call.out.failed() {
                        break;
                    }
                }
            }
            Format::Json => {
                call.out.str(",\"strings\":[");
                for (number, line) in self.sorted(by_count).enumerate() {
                    let (text, cut) = text(runtime, line.first, JSON_CHARS);
                    let line = TextLine {
                        count: line.count,
                        bytes: line.bytes(overhead),
                        first: Addr(line.first),
                        text,
                        cut,
                    };
                    call.out.str(if number == 0 { "" } else { "," });
                    serde_json::to_writer(&mut call.out, &line).map_err(std::io::Error::from)?;
                    if call.out.failed() {
                        break;
                    }
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

/// Starts to bring a string near: two lines, as many as most of what is shown takes.
fn fetch(memory: &dyn Target, address: u64) {
    let bytes = memory.run(address);
    prefetch(bytes, 0);
    prefetch(bytes, 64);
}

/// A string's characters as the dump has them; `None` when they are not all there.
fn characters(memory: &dyn Target, address: u64, length: u32) -> Option<Cow<'_, [u8]>> {
    let (at, bytes) = (address + 12, 2 * length.min(MAX_UNITS) as usize);
    if let Some(borrowed) = memory.slice(at, bytes) {
        return Some(Cow::Borrowed(borrowed));
    }
    // Not in one piece: a look at the end first, so that a damaged length allocates nothing.
    memory.u8(at.wrapping_add(bytes as u64).wrapping_sub(1)).ok()?;
    let mut owned = vec![0; bytes];
    memory.read(at, &mut owned).ok()?;
    Some(Cow::Owned(owned))
}

/// The beginning of UTF-16 text that is not empty and all of printable ASCII, as most texts are.
fn plain<'b>(characters: &[u8], into: &'b mut [u8; TEXT_CHARS]) -> Option<&'b [u8]> {
    let units = characters.as_chunks::<2>().0;
    let mut odd = units.is_empty();
    for (place, [low, high]) in into.iter_mut().zip(units) {
        odd |= *high != 0 || !(b' '..=b'~').contains(low);
        *place = *low;
    }
    into.get(..units.len().min(TEXT_CHARS)).filter(|_| !odd)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dnd_memory::{Arch, FileMapping, Memory, Missing, Range, Thread};

    use super::*;

    /// Memory from address 0 on, in pieces of 64 KB.
    struct Pieces(Vec<u8>);

    impl Memory for Pieces {
        fn run(&self, addr: u64) -> &[u8] {
            let end = self.0.len().min((addr as usize / 0x1_0000 + 1) * 0x1_0000);
            self.0.get(addr as usize..end).unwrap_or_default()
        }

        fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
            let missing = Missing { addr, len: buf.len() as u64 };
            let bytes = self.0.get(addr as usize..).and_then(|rest| rest.get(..buf.len())).ok_or(missing)?;
            buf.copy_from_slice(bytes);
            Ok(())
        }
    }

    impl Target for Pieces {
        fn arch(&self) -> Arch {
            Arch::X64
        }
        fn mappings(&self) -> &[FileMapping] {
            &[]
        }
        fn threads(&self) -> &[Thread] {
            &[]
        }
        fn ranges(&self) -> &[Range] {
            &[]
        }
    }

    #[test]
    fn strings_are_counted_by_text_and_listed_in_order() {
        let (mut memory, mut objects) = (Pieces(Vec::new()), Vec::new());
        let mut want: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
        for i in 0..100_000u64 {
            // 40,000 texts, of which half occur four times and half once; lengths that differ.
            let number = if i % 5 == 0 { 20_000 + i / 5 } else { i % 20_000 };
            let text = format!("{:1$}", number, 5 + number as usize % 9);
            let (address, size) = (memory.0.len() as u64, 22 + 2 * text.len() as u64);
            memory.0.extend_from_slice(&0x1234u64.to_le_bytes());
            memory.0.extend_from_slice(&(text.len() as u32).to_le_bytes());
            text.encode_utf16().for_each(|unit| memory.0.extend_from_slice(&unit.to_le_bytes()));
            memory.0.resize((address + size).next_multiple_of(8) as usize, 0);
            objects.push(Object { address, table: 0x1234, size });
            let line = want.entry(text).or_insert((0, 0, address));
            *line = (line.0 + 1, line.1 + size, line.2);
        }
        // One more, as the last, that goes on where nothing is: nobody knows its text.
        let Object { address, table, size } = objects[objects.len() - 1];
        let lost = Object { address: memory.0.len() as u64, table, size };
        memory.0.extend_from_within(address as usize..address as usize + 16);
        objects.push(lost);
        let (mut texts, ()) = counted(&memory, |sender| objects.iter().for_each(|object| sender.add(object)));
        for by_count in [false, true] {
            let mut lines: Vec<_> = want.values().copied().chain([(1, lost.size, lost.address)]).collect();
            lines.sort_by_key(|line| (if by_count { line.0 } else { line.1 }, line.2));
            let overhead = texts.overhead;
            let found: Vec<_> =
                texts.sorted(by_count).map(|line| (line.count, line.bytes(overhead), line.first)).collect();
            assert_eq!(found, lines);
        }
    }

    #[test]
    fn only_printable_ascii_is_copied_as_it_is() {
        let shown = |text: &str| {
            let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            plain(&bytes, &mut [0; TEXT_CHARS]).map(<[u8]>::to_vec)
        };
        assert_eq!(shown("a b~"), Some(b"a b~".to_vec()));
        assert_eq!(shown(&"x".repeat(100)), Some(vec![b'x'; TEXT_CHARS]));
        for odd in ["", "a\n", "\u{7f}", "\u{1b}[2J", "caf\u{e9}", "\u{20ac}", "\u{2020}\u{4141}"] {
            assert_eq!(shown(odd), None, "{odd:?}");
        }
    }
}
