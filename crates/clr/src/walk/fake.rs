//! A heap made by hand: types, objects, gaps and holes at known places, as a [`Target`] for tests.

use dnd_memory::{Arch, FileMapping, Memory, Missing, Permissions, Range, Target, Thread};

use super::Walker;
use crate::heap::{Heap, Segment, SegmentKind};
use crate::layout::Layout;
use crate::progress::Progress;
use crate::types::MethodTable;

const TYPES: u64 = 0x10_0000;
const TYPE_BYTES: u64 = 0x1000;
/// Where in its page a method table lies; its description of references stands before it, its class behind it.
const TABLE: u64 = 0x800;
const CLASS: u64 = 0x900;

/// Where the references of a type's objects are, as `gcdesc.h` has it.
pub(crate) enum Refs {
    None,
    /// Runs of words: (first word, number of words).
    Words(&'static [(u64, u64)]),
    /// Every element is a reference.
    Elements,
    /// Elements are structs: again and again (references, bytes without).
    Structs(&'static [(u32, u32)]),
}

/// Memory in pieces. Bytes are little endian, as everywhere.
#[derive(Default)]
pub(crate) struct FakeTarget {
    pieces: Vec<(u64, Vec<u8>)>,
    ranges: Vec<Range>,
}

impl Memory for FakeTarget {
    fn run(&self, addr: u64) -> &[u8] {
        let behind = self.pieces.partition_point(|&(start, _)| start <= addr);
        let piece = behind.checked_sub(1).and_then(|i| self.pieces.get(i));
        piece.and_then(|(start, bytes)| bytes.get(usize::try_from(addr - start).ok()?..)).unwrap_or_default()
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
        let mut done = 0;
        while done < buf.len() {
            let run = self.run(addr + done as u64);
            if run.is_empty() {
                return Err(Missing { addr, len: buf.len() as u64 });
            }
            let n = run.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&run[..n]);
            done += n;
        }
        Ok(())
    }
}

impl Target for FakeTarget {
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
        &self.ranges
    }
}

/// The heap and the memory that it lies in.
pub(crate) struct Fake {
    pub(crate) target: FakeTarget,
    pub(crate) heap: Heap,
    pub(crate) layout: Layout,
    pub(crate) free: MethodTable,
    types: u64,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let heap = Heap {
            server: false,
            regions: false,
            dynamic_adaptation: None,
            gc_in_progress: false,
            background_state: 2,
            handle_table_map: 0,
            generation_count: 5,
            heaps: Vec::new(),
            segments: Vec::new(),
            contexts: Vec::new(),
        };
        let layout = crate::layout::layout(8, Arch::X64).unwrap();
        let mut target = FakeTarget::default();
        // Any method table to begin with; replaced by the real one at once.
        target.pieces.push((TYPES, vec![0; TYPE_BYTES as usize]));
        let free = MethodTable::read(&target, &layout, TYPES).unwrap();
        target.pieces.clear();
        let mut fake = Self { target, heap, layout, free, types: 0 };
        let table = fake.add_type(24, 1, &Refs::None);
        fake.free = MethodTable::read(&fake.target, &fake.layout, table).unwrap();
        fake
    }

    /// A type; its address.
    pub(crate) fn add_type(&mut self, base_size: u32, component_size: u32, refs: &Refs) -> u64 {
        self.add_type_with(base_size, component_size, refs, 0)
    }

    /// A type with further flags.
    pub(crate) fn add_type_with(
        &mut self,
        base_size: u32,
        component_size: u32,
        refs: &Refs,
        flags: u32,
    ) -> u64 {
        let page = TYPES + self.types * TYPE_BYTES;
        self.types += 1;
        self.target.pieces.push((page, vec![0; TYPE_BYTES as usize]));
        self.target.pieces.sort_by_key(|&(start, _)| start);
        let table = page + TABLE;
        let mut words = vec![(page + CLASS + 16, table), (table + 40, page + CLASS)];
        let base = i64::from(base_size);
        let mut series = |list: &[(u64, i64)]| {
            words.push((table - 8, list.len() as u64));
            for (i, &(first, extra)) in (1..).zip(list) {
                words.extend([(table - 16 * i, first), (table - 8 - 16 * i, extra.cast_unsigned())]);
            }
        };
        match *refs {
            Refs::None => {}
            Refs::Words(runs) => {
                series(&runs.iter().map(|&(first, n)| (8 * first, 8 * n as i64 - base)).collect::<Vec<_>>());
            }
            Refs::Elements => series(&[(16, -base)]),
            Refs::Structs(items) => {
                words.extend([(table - 8, (-(items.len() as i64)).cast_unsigned()), (table - 16, 16)]);
                for (i, &(n, skip)) in (0..).zip(items) {
                    words.push((table - 24 - 8 * i, u64::from(n) | u64::from(skip) << 32));
                }
            }
        }
        let has_components = if component_size == 0 { 0 } else { 1 << 31 | component_size };
        let has_references = if matches!(refs, Refs::None) { 0 } else { 0x0100_0000 };
        let flags = u64::from(flags | has_components | has_references);
        words.push((table, flags | u64::from(base_size) << 32));
        for (at, value) in words {
            self.set(at, value);
        }
        table
    }

    /// A new segment, which objects are put into from now on.
    pub(crate) fn add_segment(&mut self, start: u64) {
        self.target.pieces.push((start, Vec::new()));
        self.target.pieces.sort_by_key(|&(start, _)| start);
        self.heap.segments.push(Segment {
            address: start,
            heap: 0,
            kind: SegmentKind::Gen2,
            start,
            end: start,
            committed: start,
            reserved: start,
            flags: 0,
            next: 0,
            background_allocated: 0,
        });
    }

    /// Puts an object at the end of the newest segment; its address. Its references are null.
    pub(crate) fn add(&mut self, table: u64, components: u32) -> u64 {
        let size = MethodTable::read(&self.target, &self.layout, table).unwrap().object_size(components);
        let address = self.add_bytes((size as usize).next_multiple_of(8));
        self.set(address, table);
        if components != 0 {
            self.set(address + 8, components.into());
        }
        address
    }

    /// Puts zeros at the end of the newest segment.
    pub(crate) fn add_bytes(&mut self, len: usize) -> u64 {
        let segment = self.heap.segments.last_mut().unwrap();
        let piece = self.target.pieces.iter_mut().find(|(start, _)| *start == segment.start).unwrap();
        piece.1.resize(piece.1.len() + len, 0);
        let address = segment.end;
        segment.end += len as u64;
        address
    }

    /// Puts an allocation context at the end of the newest segment.
    pub(crate) fn add_gap(&mut self, len: usize) {
        let pointer = self.add_bytes(len);
        self.heap.add_context(pointer, pointer + len as u64 - 24);
    }

    /// Writes a word.
    pub(crate) fn set(&mut self, address: u64, value: u64) {
        let i = self.target.pieces.partition_point(|&(start, _)| start <= address) - 1;
        let (start, bytes) = &mut self.target.pieces[i];
        let at = (address - *start) as usize;
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// A word as it is now.
    pub(crate) fn word(&self, address: u64) -> u64 {
        self.target.u64(address).unwrap()
    }

    /// Cuts the memory: what is before `address` and what is behind are no longer in one piece.
    pub(crate) fn split(&mut self, address: u64) {
        let i = self.target.pieces.partition_point(|&(start, _)| start <= address) - 1;
        let (start, bytes) = &mut self.target.pieces[i];
        let at = (address - *start) as usize;
        if at != 0 && at < bytes.len() {
            let behind = bytes.split_off(at);
            self.target.pieces.insert(i + 1, (address, behind));
        }
    }

    /// Takes memory away.
    pub(crate) fn remove(&mut self, from: u64, to: u64) {
        self.split(from);
        self.split(to);
        self.target.pieces.retain(|&(start, _)| start < from || start >= to);
    }

    /// To be called when all is in place.
    pub(crate) fn finish(&mut self) {
        self.heap.finish();
        let range = |(start, bytes): &(u64, Vec<u8>)| Range {
            start: *start,
            end: start + bytes.len() as u64,
            permissions: Permissions::default(),
        };
        self.target.ranges = self.target.pieces.iter().map(range).collect();
    }

    pub(crate) fn walker<'f>(&'f self, progress: &'f Progress) -> Walker<'f> {
        Walker::new(&self.target, &self.layout, &self.heap, &self.free, progress)
    }
}

/// Numbers that look random and are the same every time (xorshift).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// One below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}
