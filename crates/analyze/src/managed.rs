//! Fields of managed objects by their names: how commands read the runtime library's own objects.
//!
//! The library renames private fields now and then (`m_next`, `_next`), so a field is asked for by all its names.

use std::rc::Rc;

use dnd_clr::{Field, Object, Runtime};
use rustc_hash::FxHashMap;

use crate::inspect::{display_name, string_units};

/// UTF-16 units of a string that are read.
const MAX_TEXT: u32 = 1 << 12;
/// Base types that are looked at.
const MAX_BASES: usize = 64;

/// Reads objects; remembers the fields of the types met.
pub(crate) struct Managed<'r> {
    runtime: &'r Runtime<'r>,
    fields: FxHashMap<u64, Rc<Vec<Field>>>,
    names: FxHashMap<u64, Rc<str>>,
}

/// A value inside an object: where it is, and the type that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// First byte of the value's fields: for an object 8 behind its address.
    pub(crate) data: u64,
    /// Method table.
    pub(crate) table: u64,
}

impl Place {
    pub(crate) fn of(object: &Object) -> Self {
        Place { data: object.address.wrapping_add(8), table: object.table }
    }
}

impl<'r> Managed<'r> {
    pub(crate) fn new(runtime: &'r Runtime<'r>) -> Self {
        Managed { runtime, fields: FxHashMap::default(), names: FxHashMap::default() }
    }

    /// The object at an address; `None` for null and for what is none.
    pub(crate) fn object(&self, address: u64) -> Option<Object> {
        let plausible = address >= 0x1000 && address.is_multiple_of(8);
        if plausible { self.runtime.object(address).ok() } else { None }
    }

    /// Name of a type as `dumpheap` writes it.
    pub(crate) fn name(&mut self, table: u64) -> Rc<str> {
        let runtime = self.runtime;
        self.names.entry(table).or_insert_with(|| display_name(runtime, table).into()).clone()
    }

    /// Instance fields of a type, inherited ones included.
    pub(crate) fn fields(&mut self, table: u64) -> Rc<Vec<Field>> {
        let runtime = self.runtime;
        let read = || {
            let all =
                runtime.method_table(table).and_then(|table| runtime.fields(&table)).unwrap_or_default();
            Rc::new(all.into_iter().filter(|field| !field.is_static).collect())
        };
        self.fields.entry(table).or_insert_with(read).clone()
    }

    /// A type, or one that it is derived from, has one of these names.
    pub(crate) fn is_a(&mut self, table: u64, wanted: impl Fn(&str) -> bool) -> bool {
        let mut at = table;
        for _ in 0..MAX_BASES {
            if at == 0 {
                return false;
            }
            if wanted(&self.name(at)) {
                return true;
            }
            let Ok(table) = self.runtime.method_table(at) else { return false };
            at = table.parent;
        }
        false
    }

    /// A field by one of its names, and where its value is.
    pub(crate) fn field(&mut self, at: Place, names: &[&str]) -> Option<(Field, u64)> {
        let fields = self.fields(at.table);
        // The most derived field of a name is the last one.
        let field = names.iter().find_map(|name| fields.iter().rev().find(|field| field.name == *name))?;
        Some((field.clone(), at.data.wrapping_add(field.offset.into())))
    }

    /// The reference in a field: 0 for null; `None` when there is no such field, or it is not in the dump.
    pub(crate) fn reference(&mut self, at: Place, names: &[&str]) -> Option<u64> {
        let (field, place) = self.field(at, names)?;
        if field.element.is_reference() { self.runtime.target().u64(place).ok() } else { None }
    }

    /// The object that a field refers to; `None` for null as well.
    pub(crate) fn follow(&mut self, at: Place, names: &[&str]) -> Option<Object> {
        let address = self.reference(at, names)?;
        self.object(address)
    }

    /// A whole number in a field, of whatever size.
    pub(crate) fn number(&mut self, at: Place, names: &[&str]) -> Option<i64> {
        let (field, place) = self.field(at, names)?;
        let memory = self.runtime.target();
        Some(match field.element.0 {
            0x02 | 0x05 => memory.u8(place).ok()?.into(),
            0x03 | 0x07 => memory.u16(place).ok()?.into(),
            0x04 => memory.u8(place).ok()?.cast_signed().into(),
            0x06 => memory.u16(place).ok()?.cast_signed().into(),
            0x08 => memory.u32(place).ok()?.cast_signed().into(),
            0x09 => memory.u32(place).ok()?.into(),
            0x0a | 0x0b | 0x18 | 0x19 => memory.u64(place).ok()?.cast_signed(),
            _ => return None,
        })
    }

    /// A struct in a field.
    pub(crate) fn inside(&mut self, at: Place, names: &[&str]) -> Option<Place> {
        let (field, data) = self.field(at, names)?;
        let declared = self.runtime.method_table(field.declared_by).ok()?;
        let table = self.runtime.field_type(&declared, &field)?;
        (field.element == dnd_clr::ElementType::VALUE_TYPE).then_some(Place { data, table })
    }

    /// The text of a string.
    pub(crate) fn text(&self, address: u64) -> Option<String> {
        let object = self.object(address)?;
        if object.table != self.runtime.string_table().ok()? {
            return None;
        }
        let (units, length) = string_units(self.runtime, address, MAX_TEXT)?;
        let mut text = String::from_utf16_lossy(&units);
        if units.len() < length as usize {
            text.push('…');
        }
        Some(text)
    }

    /// The elements of a vector: how many, where the first is, bytes of each, type of each.
    pub(crate) fn vector(&self, array: &Object) -> Option<Vector> {
        let table = self.runtime.method_table(array.table).ok().filter(dnd_clr::MethodTable::is_vector)?;
        let count = self.runtime.target().u32(array.address.wrapping_add(8)).ok()?;
        Some(Vector {
            count,
            data: array.address.wrapping_add(16),
            size: table.component_size.into(),
            element: table.per_inst_info,
        })
    }
}

/// The elements of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vector {
    pub(crate) count: u32,
    data: u64,
    size: u64,
    element: u64,
}

impl Vector {
    /// Where an element is, of an array of structs.
    pub(crate) fn element(&self, index: u32) -> Place {
        Place { data: self.data.wrapping_add(self.size.wrapping_mul(index.into())), table: self.element }
    }
}
