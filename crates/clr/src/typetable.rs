//! The types met on a heap, found by method table in a few nanoseconds.
//!
//! Almost every object's type is the one before it or one of a few hundred. So: the caller remembers the last, and
//! this table is an open-addressing hash table whose slots hold all that sizing an object takes; the target's method
//! table is read once per type.

use dnd_memory::Memory;

use crate::layout::Layout;
use crate::types::{MIN_OBJECT, MethodTable};

/// What a heap walk needs of a type, and what it counts.
///
/// As large as a cache line, so that looking one up touches one line only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub struct Slot {
    /// Address of the method table.
    pub table: u64,
    /// Bytes of an object without elements.
    pub base_size: u32,
    /// Bytes of an element.
    pub component_size: u32,
    /// Objects counted.
    pub count: u64,
    /// Bytes counted, each object's size as the runtime has it (not rounded).
    pub bytes: u64,
    /// Bytes that the counted objects take up beyond their size: the smallest object has 24, an empty string's size is 22.
    pub padding: u64,
    /// Lowest address of an object counted; `u64::MAX` when none was.
    pub first: u64,
    /// Position in the order in which the types were met; stays the same when the table grows.
    pub(crate) ordinal: u32,
    /// Where the references of its objects are; filled in by searches.
    pub(crate) edges: Edges,
}

/// Where the references of a type's objects are, as far as it fits into a [`Slot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Edges {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// Objects refer to nothing.
    None,
    /// In one run, as with most types: offset of the first, and what to add to the object's size for the run's length.
    Run(u32, i32),
    /// Anything else.
    Other,
}

/// Types by method table. Starts small, doubles when half full.
#[derive(Debug)]
pub(crate) struct TypeTable {
    slots: Vec<Slot>,
    used: usize,
    shift: u32,
}

const FIRST_BITS: u32 = 11;
/// 2^48 / phi, odd: spreads pointers (Knuth's multiplicative hashing).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// In place of a method table's address: an empty slot. Not 0, which is what memory holds that is not written yet.
const EMPTY: u64 = 1;

impl Default for Slot {
    fn default() -> Self {
        Self {
            table: EMPTY,
            base_size: 0,
            component_size: 0,
            count: 0,
            bytes: 0,
            padding: 0,
            first: u64::MAX,
            ordinal: 0,
            edges: Edges::Unknown,
        }
    }
}

impl Slot {
    /// Size in bytes of an object of the type, not rounded. `components` counts only for arrays and strings.
    #[inline(always)]
    pub(crate) fn size(&self, components: u32) -> u64 {
        u64::from(self.base_size) + u64::from(self.component_size) * u64::from(components)
    }

    /// Whether this is the type of free space: the first that a table is given.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        self.ordinal == 0
    }

    /// Adds what another walk counted of the same type.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.padding += other.padding;
        self.first = self.first.min(other.first);
    }

    /// Counts an object of the type.
    #[inline]
    pub(crate) fn add(&mut self, address: u64, size: u64) {
        self.count += 1;
        self.bytes += size;
        // Both are rare, so the branches are cheaper than doing it always.
        if address < self.first {
            self.first = address;
        }
        if size < MIN_OBJECT {
            self.padding += MIN_OBJECT - size;
        }
    }
}

impl TypeTable {
    pub(crate) fn new() -> Self {
        Self { slots: vec![Slot::default(); 1 << FIRST_BITS], used: 0, shift: 64 - FIRST_BITS }
    }

    /// Index of a type's slot; reads and checks the method table the first time. `None`: this is none.
    #[inline]
    pub(crate) fn find(&mut self, memory: &dyn Memory, layout: &Layout, table: u64) -> Option<usize> {
        let mask = self.slots.len() - 1;
        let mut at = (table.wrapping_mul(SPREAD) >> self.shift) as usize & mask;
        loop {
            let slot = self.slots.get(at)?;
            if slot.table == table {
                return Some(at);
            }
            if slot.table == EMPTY {
                return self.insert(memory, layout, table, at);
            }
            at = (at + 1) & mask;
        }
    }

    /// The slot of a type met before.
    #[inline]
    pub(crate) fn known(&mut self, table: u64) -> Option<&mut Slot> {
        let mask = self.slots.len() - 1;
        let mut at = (table.wrapping_mul(SPREAD) >> self.shift) as usize & mask;
        loop {
            match self.slots.get(at)?.table {
                found if found == table => break,
                EMPTY => return None,
                _ => at = (at + 1) & mask,
            }
        }
        self.slots.get_mut(at)
    }

    #[cold]
    fn insert(&mut self, memory: &dyn Memory, layout: &Layout, table: u64, at: usize) -> Option<usize> {
        // The lowest page is never mapped, so small numbers need no look at memory.
        if table < 0x1000 {
            return None;
        }
        let read = MethodTable::read(memory, layout, table)
            .ok()
            .filter(|t| !t.is_interface() && t.plausible(memory, layout))?;
        self.add(&read, at)
    }

    /// Puts in a type that needs no check: the one of free space, whose method table has no class.
    pub(crate) fn insert_trusted(&mut self, table: &MethodTable) {
        let mask = self.slots.len() - 1;
        let mut at = (table.address.wrapping_mul(SPREAD) >> self.shift) as usize & mask;
        while self.slots.get(at).is_some_and(|slot| slot.table != EMPTY) {
            at = (at + 1) & mask;
        }
        // Damage must not make it so small that a walk stays where it is.
        self.add(&MethodTable { base_size: table.base_size.max(MIN_OBJECT as u32), ..*table }, at);
    }

    fn add(&mut self, table: &MethodTable, at: usize) -> Option<usize> {
        let slot = self.slots.get_mut(at)?;
        *slot = Slot {
            table: table.address,
            base_size: table.base_size,
            component_size: table.component_size,
            count: 0,
            bytes: 0,
            padding: 0,
            first: u64::MAX,
            ordinal: self.used as u32,
            edges: Edges::Unknown,
        };
        self.used += 1;
        if 2 * self.used <= self.slots.len() {
            return Some(at);
        }
        self.grow();
        let mask = self.slots.len() - 1;
        let mut at = (table.address.wrapping_mul(SPREAD) >> self.shift) as usize & mask;
        while self.slots.get(at)?.table != table.address {
            at = (at + 1) & mask;
        }
        Some(at)
    }

    fn grow(&mut self) {
        let larger = vec![Slot::default(); self.slots.len() * 2];
        let old = std::mem::replace(&mut self.slots, larger);
        self.shift -= 1;
        let mask = self.slots.len() - 1;
        for slot in old.into_iter().filter(|slot| slot.table != EMPTY) {
            let mut at = (slot.table.wrapping_mul(SPREAD) >> self.shift) as usize & mask;
            while self.slots.get(at).is_some_and(|other| other.table != EMPTY) {
                at = (at + 1) & mask;
            }
            if let Some(place) = self.slots.get_mut(at) {
                *place = slot;
            }
        }
    }

    #[inline]
    pub(crate) fn slot_mut(&mut self, index: usize) -> Option<&mut Slot> {
        self.slots.get_mut(index)
    }

    /// The types met, in no order.
    pub(crate) fn types(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| slot.count != 0)
    }
}
