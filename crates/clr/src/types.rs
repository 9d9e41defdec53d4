//! Method tables: what the runtime keeps of every type that has objects.
//!
//! Source: `src/coreclr/vm/methodtable.h` of dotnet/runtime 8.0 to 10.0; dotnet/coreclr v3.1.23.

use dnd_memory::{Memory, Missing};

use crate::error::{Error, Reading};
use crate::layout::Layout;

const HAS_COMPONENT_SIZE: u32 = 0x8000_0000;
const CONTAINS_POINTERS: u32 = 0x0100_0000;
const HAS_FINALIZER: u32 = 0x0010_0000;
const CATEGORY: u32 = 0x000f_0000;
const ARRAY_MASK: u32 = 0x000c_0000;
const ARRAY: u32 = 0x0008_0000;
const SZ_ARRAY: u32 = 0x000a_0000;
const VALUE_TYPE_MASK: u32 = 0x000c_0000;
const VALUE_TYPE: u32 = 0x0004_0000;
const GENERICS: u32 = 0x30;
/// Second flags word, before 9: the type's module stands in an optional slot.
const HAS_MODULE_OVERRIDE: u32 = 0x10;
/// The same, of the slots behind the virtual ones: one of them stands in the optional slot itself, several in an array.
const HAS_NON_VIRTUAL_SLOTS: u32 = 8;
const HAS_SINGLE_NON_VIRTUAL_SLOT: u32 = 0x4000;
/// First flags word, before 9: where the static fields are (`enum_flag_StaticsMask`).
const STATICS_DYNAMIC: u32 = 2;
const STATICS_GENERIC: u32 = 4;
/// The optional slots: dictionaries (1), interfaces (2), and others.
const SLOTS: u32 = 0x1f;
/// The optional slots besides dictionaries (1) and interfaces (2).
const OTHER_SLOTS: u32 = 0x1c;

/// The smallest object: header, method table, one field.
pub(crate) const MIN_OBJECT: u64 = 24;
/// No base size is larger: the limit of a class's instance (`FIELD_OFFSET_LAST_REAL_OFFSET`).
const MAX_BASE_SIZE: u32 = 0x0800_0000;

/// Where the statics of a type are in those of a module; before 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StaticsIn {
    /// Beside those of the module's other types.
    Module,
    /// In an entry of the table for generic, collectible and emitted types.
    Entry(u64),
}

/// A method table, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodTable {
    /// Its own address, which is how a type is known everywhere.
    pub address: u64,
    /// First flags word.
    pub flags: u32,
    /// Second flags word (before 9 its low half).
    pub flags2: u32,
    /// Bytes of an object without elements, its header included. Not rounded: 22 for a string.
    pub base_size: u32,
    /// Bytes of an element of an array or string, 0 for all other types.
    pub component_size: u32,
    /// Row of the type's definition in its module's metadata; 0xffff before 9 means that it stands elsewhere.
    pub row: u32,
    /// Number of virtual methods.
    pub virtuals: u16,
    /// Number of interfaces.
    pub interfaces: u16,
    /// Method table of the base class, 0 for none.
    pub parent: u64,
    /// Method table that this one shares its code with; often itself.
    pub canonical: u64,
    /// `EEClass*`, 0 where another method table is the canonical one.
    pub ee_class: u64,
    /// Word at 48: dictionaries of a generic type, or the element type of an array.
    pub per_inst_info: u64,
    /// Word at 24: the module, or before 9 the loader module.
    pub module_word: u64,
    /// Word at 32: writeable or auxiliary data.
    pub auxiliary: u64,
}

impl MethodTable {
    /// Reads the method table at an address; checks nothing.
    ///
    /// # Errors
    /// [`Error::Missing`] when it is not in the dump.
    pub fn read(memory: &dyn Memory, layout: &Layout, address: u64) -> Result<Self, Error> {
        let mut raw = [0u8; 64];
        memory.read(address, &mut raw).reading("a method table")?;
        let u32_at = |at: usize| u32::from_le_bytes(array(&raw, at));
        let u64_at = |at: usize| u64::from_le_bytes(array(&raw, at));
        let flags = u32_at(0);
        let word2 = u32_at(8);
        let (flags2, row) = if layout.method_table.wide_token {
            (word2 & 0xff, word2 >> 8)
        } else {
            (word2 & 0xffff, word2 >> 16)
        };
        let class_or_canon = u64_at(40);
        let tag = class_or_canon & layout.method_table.canon_mask;
        let pointer = class_or_canon & !layout.method_table.canon_mask;
        let (ee_class, canonical) = match tag {
            0 => (pointer, address),
            // 3.1 may put a cell in between (`UNION_INDIRECTION` in methodtable.h).
            3 => (0, memory.u64(pointer).reading("a method table's canonical one")? & !3),
            _ => (0, pointer),
        };
        Ok(Self {
            address,
            flags,
            flags2,
            base_size: u32_at(4),
            component_size: if flags & HAS_COMPONENT_SIZE != 0 { flags & 0xffff } else { 0 },
            row,
            virtuals: u16::from_le_bytes(array(&raw, 12)),
            interfaces: u16::from_le_bytes(array(&raw, 14)),
            parent: u64_at(16),
            canonical,
            ee_class,
            per_inst_info: u64_at(48),
            module_word: u64_at(24),
            auxiliary: u64_at(32),
        })
    }

    /// Whether the bytes read can be a method table: its class must point back to it.
    #[must_use]
    pub fn plausible(&self, memory: &dyn Memory, layout: &Layout) -> bool {
        if !self.address.is_multiple_of(8) || self.base_size > MAX_BASE_SIZE {
            return false;
        }
        // Interfaces have no objects and no size.
        let smallest = if self.component_size == 0 { MIN_OBJECT } else { 16 };
        if u64::from(self.base_size) < smallest && !(self.is_interface() && self.base_size == 0) {
            return false;
        }
        let class = if self.ee_class != 0 {
            self.ee_class
        } else {
            match MethodTable::read(memory, layout, self.canonical) {
                Ok(canonical) => canonical.ee_class,
                Err(_) => return false,
            }
        };
        // `EEClass::m_pMethodTable`, at 16 on every version. A dump may lack the page; a wrong pointer is damage.
        match memory.u64(class.wrapping_add(16)) {
            Ok(back) => back == self.canonical,
            Err(_) => memory.u8(class).is_err() && class != 0,
        }
    }

    /// An array of any rank.
    #[must_use]
    pub fn is_array(&self) -> bool {
        self.flags & ARRAY_MASK == ARRAY
    }

    /// A vector: an array of one dimension that begins at zero.
    #[must_use]
    pub fn is_vector(&self) -> bool {
        self.flags & CATEGORY == SZ_ARRAY
    }

    /// Number of dimensions of an array.
    #[must_use]
    pub fn rank(&self) -> u32 {
        match (self.is_array(), self.is_vector()) {
            (false, _) => 0,
            (true, true) => 1,
            // Two 32-bit words (length, lower bound) for each dimension.
            (true, false) => self.base_size.saturating_sub(24) / 8,
        }
    }

    /// A value type; its objects are boxed values.
    #[must_use]
    pub fn is_value_type(&self) -> bool {
        self.flags & VALUE_TYPE_MASK == VALUE_TYPE
    }

    /// An interface.
    #[must_use]
    pub fn is_interface(&self) -> bool {
        self.flags & CATEGORY == 0x000c_0000
    }

    /// Its objects hold references.
    #[must_use]
    pub fn contains_pointers(&self) -> bool {
        self.flags & CONTAINS_POINTERS != 0
    }

    /// Its objects have a finalizer.
    #[must_use]
    pub fn has_finalizer(&self) -> bool {
        self.flags & HAS_FINALIZER != 0
    }

    /// An instantiation of a generic type (arrays and strings never are).
    #[must_use]
    pub fn is_generic(&self) -> bool {
        self.flags & HAS_COMPONENT_SIZE == 0 && self.flags & GENERICS != 0
    }

    /// It may be unloaded with its load context, which its objects keep alive.
    #[must_use]
    pub fn is_collectible(&self, layout: &Layout) -> bool {
        self.flags & layout.method_table.collectible != 0
    }

    /// Size in bytes of an object with `components` elements, not rounded.
    #[must_use]
    pub fn object_size(&self, components: u32) -> u64 {
        u64::from(self.base_size) + u64::from(self.component_size) * u64::from(components)
    }

    /// Address of the module that defines the type (of an array: a module it was made for).
    ///
    /// # Errors
    /// [`Error::Missing`] when an optional slot is not in the dump.
    pub fn module(&self, memory: &dyn Memory, layout: &Layout) -> Result<u64, Error> {
        if layout.method_table.direct_module {
            return Ok(self.module_word);
        }
        let holder = if self.is_array() { *self } else { Self::read(memory, layout, self.canonical)? };
        let generic_or_array = self.is_array() || self.is_generic();
        if !generic_or_array || holder.flags2 & HAS_MODULE_OVERRIDE == 0 {
            return Ok(holder.module_word);
        }
        memory.u64(holder.optional_slot(HAS_MODULE_OVERRIDE)).reading("the module of a generic type")
    }

    /// Address of the slot of a method that is not virtual and has no slot in its description; before 9 only.
    pub(crate) fn non_virtual_slot(&self, memory: &dyn Memory, layout: &Layout, slot: u16) -> Option<u64> {
        let index = slot.checked_sub(self.virtuals)?;
        if layout.method_table.direct_module || self.flags2 & HAS_NON_VIRTUAL_SLOTS == 0 {
            return None;
        }
        let member = self.optional_slot(HAS_NON_VIRTUAL_SLOTS);
        if self.flags2 & HAS_SINGLE_NON_VIRTUAL_SLOT != 0 {
            return (index == 0).then_some(member);
        }
        Some(memory.u64(member).ok()?.wrapping_add(8 * u64::from(index)))
    }

    /// Where the type's statics are in those of its module; `None` for a generic type without any. Before 9 only.
    pub(crate) fn statics_in(&self, memory: &dyn Memory) -> Result<Option<StaticsIn>, Missing> {
        let flags = if self.flags & HAS_COMPONENT_SIZE == 0 { self.flags } else { 0 };
        if self.is_generic() {
            if flags & STATICS_GENERIC == 0 {
                return Ok(None);
            }
            // `GenericsStaticsInfo`, the first optional member: fields, then number.
            let slots = u64::from((self.flags2 & SLOTS).count_ones()).saturating_sub(2);
            let member = 64 + 8 * slots + 8 * u64::from(self.virtuals).div_ceil(8);
            return memory
                .u64(self.address.wrapping_add(member + 8))
                .map(|number| Some(StaticsIn::Entry(number)));
        }
        if flags & STATICS_DYNAMIC == 0 {
            return Ok(Some(StaticsIn::Module));
        }
        // `EEClassOptionalFields`: layout of dictionaries, variance, number.
        let optional = memory.u64(self.ee_class.wrapping_add(8))?;
        let number = memory.u32(optional.wrapping_add(16))?;
        Ok((optional != 0).then_some(StaticsIn::Entry(number.into())))
    }

    /// Address of an optional slot (`GetMultipurposeSlotPtr`). Two lie in the method table: the first holds dictionaries, the
    /// second interfaces, when the type has them; the others take what is left of these, then what is behind the virtual
    /// methods' chunks (of 8 methods each).
    fn optional_slot(&self, flag: u32) -> u64 {
        let before = u64::from((self.flags2 & (flag - 1) & OTHER_SLOTS).count_ones());
        let mut free = [(1, 48), (2, 56)].into_iter().filter(|(own, _)| self.flags2 & own == 0);
        let inside = free.clone().count() as u64;
        match free.nth(before as usize) {
            Some((_, at)) => self.address + at,
            None => self.address + 64 + 8 * (before - inside) + 8 * u64::from(self.virtuals).div_ceil(8),
        }
    }
}

fn array<const N: usize>(raw: &[u8; 64], at: usize) -> [u8; N] {
    raw.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

/// Where the references of a type's objects are.
///
/// Source: `src/coreclr/gc/gcdesc.h`. All offsets are bytes from the start of the object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum References {
    /// None at all.
    #[default]
    None,
    /// Runs of references: (first offset, bytes to add to the object's size to get the run's length).
    Series(Vec<(u64, i64)>),
    /// An array of structs: from `start` on, again and again `items` of (references, bytes to skip behind them).
    Repeating {
        /// Offset of the first reference.
        start: u64,
        /// References and gap, in order.
        items: Vec<(u32, u32)>,
    },
}

/// More series than any type has; larger counts are damage.
const MAX_SERIES: i64 = 4096;

impl References {
    /// Reads the description in front of a method table.
    ///
    /// # Errors
    /// [`Error::Missing`], or [`Error::Damaged`] when the count can't be right.
    pub fn read(memory: &dyn Memory, table: &MethodTable) -> Result<Self, Error> {
        if !table.contains_pointers() {
            return Ok(References::None);
        }
        let what = "the description of a type's references";
        let word = |back: u64| memory.u64(table.address.wrapping_sub(back)).reading(what);
        let count = word(8)?.cast_signed();
        if count == 0 || !(-MAX_SERIES..=MAX_SERIES).contains(&count) {
            return Err(Error::Damaged { what, addr: table.address });
        }
        if count > 0 {
            let mut series = Vec::new();
            for i in 0..count.unsigned_abs() {
                let back = 8 + 16 * (i + 1);
                series.push((word(back - 8)?, word(back)?.cast_signed()));
            }
            series.sort_unstable();
            return Ok(References::Series(series));
        }
        let mut items = Vec::new();
        let mut step = 0u64;
        for i in 0..count.unsigned_abs() {
            let item = word(24 + 8 * i)?;
            let (references, skip) = ((item & 0xffff_ffff) as u32, (item >> 32) as u32);
            step += 8 * u64::from(references) + u64::from(skip);
            items.push((references, skip));
        }
        if step == 0 {
            return Err(Error::Damaged { what, addr: table.address });
        }
        Ok(References::Repeating { start: word(16)?, items })
    }

    /// Calls `visit` with (offset, value) for every reference that is not null in an object's bytes, which must be the
    /// whole object, its size rounded up to 8.
    pub fn each(&self, object: &[u8], mut visit: impl FnMut(u64, u64)) {
        match self {
            References::None => {}
            References::Series(series) => {
                for &(start, extra) in series {
                    let length = (object.len() as i64).saturating_add(extra).max(0).cast_unsigned();
                    let Some(run) = piece(object, start, length) else { continue };
                    for (i, word) in run.chunks_exact(8).enumerate() {
                        let value = le(word);
                        if value != 0 {
                            visit(start + 8 * i as u64, value);
                        }
                    }
                }
            }
            References::Repeating { start, items } => {
                let mut at = *start;
                let end = (object.len() as u64).saturating_sub(8);
                while at < end {
                    for &(references, skip) in items {
                        let length = 8 * u64::from(references);
                        let Some(run) = piece(object, at, length) else { return };
                        for (i, word) in run.chunks_exact(8).enumerate() {
                            let value = le(word);
                            if value != 0 {
                                visit(at + 8 * i as u64, value);
                            }
                        }
                        at += length + u64::from(skip);
                    }
                }
            }
        }
    }
}

fn piece(object: &[u8], start: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    let length = usize::try_from(length).ok()?;
    object.get(start..)?.get(..length)
}

#[inline]
fn le(word: &[u8]) -> u64 {
    word.try_into().map(u64::from_le_bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    fn seen(references: &References, words: &[u64]) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        references.each(&object(words), |offset, value| out.push((offset, value)));
        out
    }

    #[test]
    fn a_series_covers_what_the_object_size_says() {
        // A class of 32 bytes with references at 8 and 16: the size in the descriptor is 16 - 32.
        let series = References::Series(vec![(8, -16)]);
        assert_eq!(seen(&series, &[1, 0xa, 0, 7]), [(8, 0xa)]);
        // An array of references: the run ends where the object does.
        let array = References::Series(vec![(16, -24)]);
        assert_eq!(seen(&array, &[1, 3, 0xa, 0xb, 0xc, 0]), [(16, 0xa), (24, 0xb), (32, 0xc)]);
    }

    #[test]
    fn an_array_of_structs_repeats_its_items() {
        let repeating = References::Repeating { start: 16, items: vec![(1, 8)] };
        assert_eq!(seen(&repeating, &[1, 2, 0xa, 5, 0xb, 6, 0]), [(16, 0xa), (32, 0xb)]);
    }

    #[test]
    fn a_damaged_series_ends_quietly() {
        assert_eq!(seen(&References::Series(vec![(800, -16), (u64::MAX, 0)]), &[1, 2, 3]), []);
        assert_eq!(seen(&References::Repeating { start: 8, items: vec![(900, 0)] }, &[1, 2, 3]), []);
    }
}
