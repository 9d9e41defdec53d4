//! Fields of types.
//!
//! Source: `src/coreclr/vm/field.h` (`FieldDesc`), `vm/class.h` (`EEClass`, `PackedDWORDFields`).

use dnd_memory::Memory;
use dnd_metadata::{Metadata, signature};

use crate::error::{Error, Reading};
use crate::layout::EeClassLayout;
use crate::runtime::Runtime;
use crate::types::MethodTable;

/// `CorElementType` (ECMA-335 II.23.1.16) of a field, as far as it decides how a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ElementType(pub u8);

impl ElementType {
    /// A value type.
    pub const VALUE_TYPE: Self = Self(0x11);
    /// A reference to an object.
    pub const CLASS: Self = Self(0x12);

    /// Bytes of a value; `None` for value types, whose size is their type's.
    #[must_use]
    pub fn size(self) -> Option<u64> {
        Some(match self.0 {
            0x02 | 0x04 | 0x05 => 1,
            0x03 | 0x06 | 0x07 => 2,
            0x08 | 0x09 | 0x0c => 4,
            0x0a | 0x0b | 0x0d => 8,
            0x11 => return None,
            _ => 8,
        })
    }

    /// Whether a field of it holds a reference.
    #[must_use]
    pub fn is_reference(self) -> bool {
        matches!(self.0, 0x0e | 0x12 | 0x14 | 0x1c | 0x1d)
    }
}

/// A field of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Address of its `FieldDesc`.
    pub address: u64,
    /// Name; `?` when the metadata is missing.
    pub name: String,
    /// Row in the metadata.
    pub row: u32,
    /// Declared type, as its signature says.
    pub type_name: String,
    /// Method table of the type that declares it.
    pub declared_by: u64,
    /// Kind of its values.
    pub element: ElementType,
    /// Bytes from the start of the object's data (8 behind the object's address), or in the statics' memory.
    pub offset: u32,
    /// It belongs to the type, not to its objects.
    pub is_static: bool,
    /// Each thread has its own.
    pub is_thread_static: bool,
    /// Its value stands in the image (`<PrivateImplementationDetails>` data).
    pub has_rva: bool,
}

/// Bit of a `FieldDesc`'s first word: each thread has its own value.
const THREAD_STATIC: u32 = 1 << 25;

/// `FieldDesc`s: those of instance fields first, then those of static ones.
struct FieldList {
    at: u64,
    instance: u32,
    statics: u32,
}

struct Counts {
    instance: u32,
    methods: u32,
    statics: u32,
}

impl Runtime<'_> {
    /// The fields that a type itself declares, instance fields first, as the runtime lists them.
    ///
    /// # Errors
    /// [`Error::Missing`] when the type's class or fields are not in the dump.
    pub fn declared_fields(&self, table: &MethodTable) -> Result<Vec<Field>, Error> {
        let list = self.field_list(table)?;
        let canonical = self.method_table(table.canonical)?;
        let own = list.instance.saturating_add(list.statics).min(1 << 16);
        let memory = self.target();
        let module = self.module(canonical.module(memory, self.layout())?);
        let metadata = module.metadata();
        let arguments = if table.is_generic() { self.type_arguments(table) } else { Vec::new() };
        (0..u64::from(own))
            .map(|i| self.read_field(list.at.wrapping_add(16 * i), table, metadata.as_ref(), &arguments))
            .collect()
    }

    /// Whether a type itself declares thread statics; `false` when its class or fields are not in the dump.
    #[must_use]
    pub fn has_thread_statics(&self, table: &MethodTable) -> bool {
        let Ok(list) = self.field_list(table) else { return false };
        let statics = list.at.wrapping_add(16 * u64::from(list.instance));
        (0..u64::from(list.statics.min(1 << 16))).any(|i| {
            let id = self.target().u32(statics.wrapping_add(16 * i + 8));
            id.is_ok_and(|id| id & THREAD_STATIC != 0)
        })
    }

    /// The descriptions of the fields that a type itself declares.
    fn field_list(&self, table: &MethodTable) -> Result<FieldList, Error> {
        let canonical = self.method_table(table.canonical)?;
        let counts = self.field_counts(&canonical)?;
        let inherited = match canonical.parent {
            0 => 0,
            parent => {
                let parent = self.method_table(parent)?;
                self.field_counts(&self.method_table(parent.canonical)?)?.instance
            }
        };
        let at = self.target().u64(canonical.ee_class.wrapping_add(24)).reading("a type's list of fields")?;
        Ok(FieldList { at, instance: counts.instance.saturating_sub(inherited), statics: counts.statics })
    }

    /// All fields of a type's objects and of the type: those of the base types first.
    ///
    /// # Errors
    /// As for [`Self::declared_fields`].
    pub fn fields(&self, table: &MethodTable) -> Result<Vec<Field>, Error> {
        let mut chain = vec![*table];
        while let Some(last) = chain.last()
            && last.parent != 0
            && chain.len() < 256
        {
            chain.push(self.method_table(last.parent)?);
        }
        let mut out = Vec::new();
        for table in chain.iter().rev() {
            out.extend(self.declared_fields(table)?);
        }
        Ok(out)
    }

    fn read_field(
        &self,
        at: u64,
        table: &MethodTable,
        metadata: Option<&Metadata<'_>>,
        arguments: &[u64],
    ) -> Result<Field, Error> {
        let word = |offset: u64| self.target().u32(at.wrapping_add(offset)).reading("a field's description");
        let (id, place) = (word(8)?, word(12)?);
        let row = id & 0x00ff_ffff;
        let definition = metadata.and_then(|m| m.field(row));
        let element = ElementType((place >> 27) as u8);
        let type_name = metadata
            .zip(definition.as_ref())
            .and_then(|(m, field)| {
                let ty = signature::field(field.signature)?;
                Some(self.signature_text(m, &ty, arguments))
            })
            .unwrap_or_else(|| "?".to_owned());
        Ok(Field {
            address: at,
            name: definition.map_or_else(|| "?".to_owned(), |field| field.name.into_owned()),
            row,
            type_name,
            declared_by: table.address,
            element,
            offset: place & 0x07ff_ffff,
            is_static: id >> 24 & 1 != 0,
            is_thread_static: id & THREAD_STATIC != 0,
            has_rva: id >> 26 & 1 != 0,
        })
    }

    /// What a value type is to the JIT (a number, for an enum the one behind it, else [`ElementType::VALUE_TYPE`]), and
    /// the bytes of a value; `None` when its class is not in the dump.
    pub(crate) fn value_shape(&self, table: &MethodTable) -> Option<(ElementType, u64)> {
        let class = self.method_table(table.canonical).ok()?.ee_class;
        // `m_cbBaseSizePadding`: what an object has besides its fields.
        let (norm_type, padding) = match self.layout().ee_class {
            EeClassLayout::Plain { norm_type, .. } => (norm_type, norm_type + 1),
            EeClassLayout::Packed { norm_type, .. } => (norm_type, norm_type + 3),
        };
        let byte = |at: u64| self.target().u8(class.wrapping_add(at)).ok();
        let size = u64::from(table.base_size).checked_sub(byte(padding)?.into())?;
        Some((ElementType(byte(norm_type)?), size))
    }

    /// Number of methods of a type, the inherited virtual ones included: its slots.
    ///
    /// # Errors
    /// [`Error::Missing`] when the type's class is not in the dump.
    pub fn method_count(&self, table: &MethodTable) -> Result<u32, Error> {
        Ok(self.field_counts(&self.method_table(table.canonical)?)?.methods)
    }

    fn field_counts(&self, canonical: &MethodTable) -> Result<Counts, Error> {
        let memory = self.target();
        let class = canonical.ee_class;
        let what = "a type's field counts";
        match self.layout().ee_class {
            EeClassLayout::Plain { instance_fields, methods, static_fields, .. } => {
                let half = |at: u64| memory.u16(class.wrapping_add(at)).reading(what);
                Ok(Counts {
                    instance: half(instance_fields)?.into(),
                    methods: half(methods)?.into(),
                    statics: half(static_fields)?.into(),
                })
            }
            EeClassLayout::Packed { fixed_size, packed_flag, .. } => {
                let start = memory.u8(class.wrapping_add(fixed_size)).reading(what)?;
                let packed = memory.u8(class.wrapping_add(packed_flag)).reading(what)? != 0;
                let at = class.wrapping_add(start.into());
                let fields = if packed { unpack(memory, at)? } else { plain(memory, at)? };
                let [instance, methods, statics] = fields;
                Ok(Counts { instance, methods, statics })
            }
        }
    }
}

fn plain(memory: &dyn Memory, at: u64) -> Result<[u32; 3], Error> {
    let mut out = [0; 3];
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = memory.u32(at.wrapping_add(4 * i as u64)).reading("a type's field counts")?;
    }
    Ok(out)
}

/// `PackedDWORDFields`: each field is five bits with its length less one, then that many bits.
fn unpack(memory: &dyn Memory, at: u64) -> Result<[u32; 3], Error> {
    let mut raw = [0u8; 16];
    memory.read(at, &mut raw).reading("a type's field counts")?;
    let bits = u128::from_le_bytes(raw);
    let mut position = 0u32;
    let mut out = [0; 3];
    for slot in &mut out {
        let length = (bits >> position & 31) as u32 + 1;
        position += 5;
        *slot = (bits >> position) as u32 & (u32::MAX >> (32 - length));
        position += length;
    }
    Ok(out)
}
