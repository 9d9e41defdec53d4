//! GC handles.
//!
//! Source: `src/coreclr/gc/handletablepriv.h` (`TableSegment`, `_TableSegmentHeader`), `gc/objecthandle.h` (types).

use std::collections::HashSet;

use dnd_memory::Memory;
use serde::Serialize;

use crate::error::{Error, Reading};
use crate::heap::Heap;
use crate::layout::HandleLayout;

/// Buckets of a map (`INITIAL_HANDLE_TABLE_ARRAY_SIZE`).
const BUCKETS: u64 = 10;
const BLOCKS: usize = 120;
const HANDLES_PER_BLOCK: u64 = 64;
/// Header of a segment; the handles follow.
const HEADER: usize = 4096;
const FREE_MASK: usize = 600;
const BLOCK_TYPE: usize = 1560;
const USER_DATA: usize = 1680;
const TAIL: usize = 1920;
const NO_BLOCK: u8 = 0xff;
/// No process has more; a longer chain is a loop.
const MAX_SEGMENTS: usize = 1 << 20;
/// More processors than a server GC knows (`MAX_SUPPORTED_CPUS`).
const MAX_SLOTS: u64 = 1024;

impl HandleLayout {
    /// Where in a segment its links are, behind the tails and hints (a byte a type) and free counts (four): next segment,
    /// table, in this order.
    fn segment_links(&self) -> usize {
        TAIL + 6 * self.types as usize
    }
}

/// What a handle does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HandleKind {
    /// Cleared before finalizers run.
    WeakShort,
    /// Cleared when the object is gone for good.
    WeakLong,
    /// Keeps its object alive.
    Strong,
    /// Keeps its object alive and in its place.
    Pinned,
    /// Of changing strength; no runtime since 3.1 makes any.
    Variable,
    /// Alive while its reference count is not zero (COM, Objective-C).
    RefCounted,
    /// A pair: the second object lives as long as the first (`ConditionalWeakTable`).
    Dependent,
    /// Pins what an overlapped operation uses.
    AsyncPinned,
    /// Strong, and the GC measures what it keeps.
    SizedRef,
    /// Weak, to a native COM object.
    WeakNativeCom,
    /// Weak, with a pointer into the object.
    WeakInterior,
    /// Reference between runtimes (10 and later).
    CrossReference,
}

impl HandleKind {
    fn from_number(number: u8) -> Option<Self> {
        use HandleKind::*;
        const ALL: [HandleKind; 12] = [
            WeakShort,
            WeakLong,
            Strong,
            Pinned,
            Variable,
            RefCounted,
            Dependent,
            AsyncPinned,
            SizedRef,
            WeakNativeCom,
            WeakInterior,
            CrossReference,
        ];
        ALL.get(usize::from(number)).copied()
    }

    /// It keeps its object alive by itself. A ref-counted one does while native code holds references to its object
    /// (`ComWrappers`): how many is written where no descriptor leads, so it counts as strong. (Microsoft's own library
    /// takes all of them for weak on Linux.)
    #[must_use]
    pub fn is_strong(self) -> bool {
        use HandleKind::*;
        matches!(self, Strong | Pinned | RefCounted | AsyncPinned | SizedRef)
    }
}

/// A handle that points to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    /// Address of the handle itself.
    pub address: u64,
    /// What it does.
    pub kind: HandleKind,
    /// The object that it points to.
    pub object: u64,
    /// Of a dependent handle: the second object, 0 for none. Of a weak interior one: the pointer that it keeps up to
    /// date.
    pub secondary: u64,
}

/// Reads all handles that are not null, table by table.
pub(crate) fn read(memory: &dyn Memory, layout: &HandleLayout, heap: &Heap) -> Result<Vec<Handle>, Error> {
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    // Server GC has a table for each processor, and the number of processors is nowhere to be read. There are at least
    // as many as heaps; where the number of heaps has adapted to the load (DATAS), handles of former heaps are behind.
    let certain = if heap.server { heap.heaps.len() as u64 } else { 1 };
    let slots = if heap.server { MAX_SLOTS.max(certain) } else { certain };
    let mut map = heap.handle_table_map;
    while map != 0 && seen.insert(map) && seen.len() < MAX_SEGMENTS {
        let buckets = memory.u64(map).reading("the handle table map")?;
        for i in 0..BUCKETS {
            let bucket = memory.u64(buckets.wrapping_add(8 * i)).reading("the handle table map")?;
            if bucket == 0 {
                continue;
            }
            let tables = memory.u64(bucket).reading("a bucket of handle tables")?;
            for slot in 0..slots {
                let at = tables.wrapping_add(8 * slot);
                if slot >= certain && !is_further_table(memory, layout, at, &seen) {
                    break;
                }
                let table = memory.u64(at).reading("a bucket of handle tables")?;
                if table != 0 {
                    read_table(memory, layout, table, &mut seen, &mut out)?;
                }
            }
        }
        map = memory.u64(map.wrapping_add(8)).reading("the handle table map")?;
    }
    Ok(out)
}

/// Whether a word behind the tables that must be there leads to one more: to a table that was not met before, whose
/// first segment leads back to it.
fn is_further_table(memory: &dyn Memory, layout: &HandleLayout, at: u64, seen: &HashSet<u64>) -> bool {
    let table = memory.u64(at).unwrap_or(0);
    let segment = memory.u64(table.wrapping_add(layout.segments)).unwrap_or(0);
    let owner = segment.wrapping_add(layout.segment_links() as u64 + 8);
    table != 0
        && segment != 0
        && !seen.contains(&segment)
        && memory.u64(owner).is_ok_and(|owner| owner == table)
}

fn read_table(
    memory: &dyn Memory,
    layout: &HandleLayout,
    table: u64,
    seen: &mut HashSet<u64>,
    out: &mut Vec<Handle>,
) -> Result<(), Error> {
    let mut segment = memory.u64(table.wrapping_add(layout.segments)).reading("a handle table")?;
    let links = layout.segment_links();
    let internal = layout.types as u8 - 1;
    while segment != 0 && seen.insert(segment) && seen.len() < MAX_SEGMENTS {
        let mut header = vec![0u8; HEADER];
        memory.read(segment, &mut header).reading("a segment of a handle table")?;
        let word = |at: usize| -> u64 {
            header.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes).unwrap_or(0)
        };
        if word(links + 8) != table {
            return Err(Error::Damaged { what: "a segment of a handle table", addr: segment });
        }
        for block in 0..BLOCKS {
            let number = header.get(BLOCK_TYPE + block).copied().unwrap_or(NO_BLOCK);
            if number == NO_BLOCK || number == internal {
                continue;
            }
            let Some(kind) = HandleKind::from_number(number) else { continue };
            // One bit a handle, set when it is free.
            let free = word(FREE_MASK + 8 * block);
            if free == u64::MAX {
                continue;
            }
            let user = header.get(USER_DATA + block).copied().unwrap_or(NO_BLOCK);
            read_block(memory, segment, block as u64, kind, free, user, out)?;
        }
        segment = word(links);
    }
    Ok(())
}

fn read_block(
    memory: &dyn Memory,
    segment: u64,
    block: u64,
    kind: HandleKind,
    free: u64,
    user: u8,
    out: &mut Vec<Handle>,
) -> Result<(), Error> {
    let values = |block: u64| segment.wrapping_add(HEADER as u64 + 8 * HANDLES_PER_BLOCK * block);
    for i in 0..HANDLES_PER_BLOCK {
        if free >> i & 1 != 0 {
            continue;
        }
        let address = values(block).wrapping_add(8 * i);
        let object = memory.u64(address).reading("a handle")?;
        if object == 0 {
            continue;
        }
        let secondary =
            if matches!(kind, HandleKind::Dependent | HandleKind::WeakInterior) && user != NO_BLOCK {
                memory.u64(values(user.into()).wrapping_add(8 * i)).reading("a dependent handle")?
            } else {
                0
            };
        out.push(Handle { address, kind, object, secondary });
    }
    Ok(())
}
