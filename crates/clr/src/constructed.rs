//! Loaded types that no map of a module holds: arrays, and instances of generic types.
//!
//! Each module has a hash table of those that the loader put into it (`Module::m_pAvailableParamTypes`). Which module that is
//! depends on the arguments, so all tables are read, once. An entry of 3.1 may be the description of an array
//! (`ArrayTypeDesc`), which leads to its method table.
//!
//! Sources: `vm/typehash.h` (`EETypeHashTable`), `vm/dacenumerablehash.h` and `.inl`; 3.1: `vm/ngenhash.h`.

use dnd_memory::Memory;
use dnd_metadata::signature::Type;
use rustc_hash::FxHashMap;

use crate::layout::TypeTable;
use crate::names::MAX_DEPTH;
use crate::runtime::Runtime;
use crate::types::MethodTable;

/// Types of one module; a large program has some tens of thousands.
const MAX_TYPES: u32 = 1 << 20;
/// Buckets in front of the chains of 8 and later: their number, the next list while it grows, the mark of a chain's end.
const SPECIAL: u64 = 3;
/// Lists of buckets of one table.
const MAX_LISTS: usize = 8;

/// What a constructed type is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Shape {
    /// An array.
    Array {
        /// Dimensions; `None` for a vector.
        rank: Option<u32>,
        /// Type handle of the elements.
        element: u64,
    },
    /// An instance of a generic type.
    Instance {
        /// Module and row of the definition.
        definition: (u64, u32),
        /// Type handles.
        arguments: Vec<u64>,
    },
}

/// A constructed type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// The loader's handle of it: with bit 1 set, a description.
    handle: u64,
    /// Its method table.
    table: u64,
}

/// All constructed types of a target.
#[derive(Debug, Default)]
pub(crate) struct Constructed {
    /// `None` where two different ones look alike.
    types: FxHashMap<Shape, Option<Known>>,
}

/// What the tokens and parameters of a signature stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// The module that the tokens are of.
    pub(crate) module: u64,
    /// Type handles for the parameters of the type.
    pub(crate) type_arguments: &'a [u64],
    /// Type handles for the parameters of the method.
    pub(crate) method_arguments: &'a [u64],
}

impl Runtime<'_> {
    /// Method tables of all arrays and instances of generic types that are loaded, as far as the dump has the loader's
    /// tables of them; empty for runtimes whose tables were never checked.
    #[must_use]
    pub fn constructed_types(&self) -> Vec<u64> {
        let mut tables: Vec<u64> =
            self.constructed().types.values().flatten().map(|known| known.table).collect();
        tables.sort_unstable();
        tables
    }

    /// The method table of a type that a signature names; `None` when it isn't loaded or is no type of its own (pointers,
    /// parameters of generic types that are not known).
    pub(crate) fn signature_table(&self, scope: &Scope<'_>, ty: &Type) -> Option<u64> {
        let known = self.signature_handle(scope, ty, 0)?;
        Some(known.table).filter(|&table| table != 0)
    }

    fn signature_handle(&self, scope: &Scope<'_>, ty: &Type, depth: u32) -> Option<Known> {
        if depth > MAX_DEPTH {
            return None;
        }
        let plain = |table: u64| Known { handle: table, table };
        let inner = |ty: &Type| self.signature_handle(scope, ty, depth + 1).map(|known| known.handle);
        let argument = |all: &[u64], number: u32| {
            let handle = *all.get(number as usize)?;
            Some(Known { handle, table: self.table_of_handle(handle).unwrap_or(0) })
        };
        let shape = match ty {
            Type::Primitive(primitive) => return self.core_type(primitive.name()).map(plain),
            Type::Class(token) | Type::ValueType(token) => {
                return self.token_type(scope.module, *token).map(plain);
            }
            Type::TypeParameter(number) => return argument(scope.type_arguments, *number),
            Type::MethodParameter(number) => return argument(scope.method_arguments, *number),
            Type::Pinned(ty) | Type::Modified(_, _, ty) => {
                return self.signature_handle(scope, ty, depth + 1);
            }
            Type::Internal(handle) => return argument(&[*handle], 0),
            Type::Vector(element) => Shape::Array { rank: None, element: inner(element)? },
            Type::Array(element, shape) => Shape::Array { rank: Some(shape.rank), element: inner(element)? },
            Type::Instance(token, _, arguments) => {
                let open = self.method_table(self.token_type(scope.module, *token)?).ok()?;
                self.instance(&open, arguments.iter().map(inner).collect::<Option<_>>()?)?
            }
            Type::InternalInstance(handle, arguments) => {
                let open = self.method_table(*handle).ok()?;
                self.instance(&open, arguments.iter().map(inner).collect::<Option<_>>()?)?
            }
            Type::Pointer(_) | Type::ByRef(_) | Type::Function(_) => return None,
        };
        self.constructed().types.get(&shape).copied().flatten()
    }

    fn instance(&self, open: &MethodTable, arguments: Vec<u64>) -> Option<Shape> {
        let module = open.module(self.target(), self.layout()).ok()?;
        Some(Shape::Instance { definition: (module, self.definition_row(open, module)?), arguments })
    }

    /// The method table that a type handle stands for; `None` for what has none.
    fn table_of_handle(&self, handle: u64) -> Option<u64> {
        if handle & 2 == 0 {
            return Some(handle);
        }
        // `ArrayTypeDesc`, which only 3.1 has: kind, template, element.
        let desc = handle & !2;
        let word = |at: u64| self.target().u64(desc.wrapping_add(at)).ok();
        if !matches!(word(0)? & 0xff, 0x14 | 0x1d) {
            return None;
        }
        let (template, element) = (word(8)?, word(16)?);
        let table = self.method_table(template).ok()?;
        (table.is_array() && table.per_inst_info == element).then_some(template)
    }

    /// Reads the tables of all modules.
    pub(crate) fn read_constructed(&self) -> Constructed {
        let mut out = Constructed::default();
        let Some(layout) = self.layout().module.constructed_types else { return out };
        for module in self.modules().unwrap_or_default() {
            for handle in entries(self.target(), &layout, module.address) {
                let Some(table) = self.table_of_handle(handle) else { continue };
                let Some(shape) = self.method_table(table).ok().and_then(|table| self.shape(&table)) else {
                    continue;
                };
                let known = Known { handle, table };
                let entry = out.types.entry(shape).or_insert(Some(known));
                if *entry != Some(known) {
                    *entry = None;
                }
            }
        }
        out
    }

    fn shape(&self, table: &MethodTable) -> Option<Shape> {
        if table.is_array() {
            let rank = (!table.is_vector()).then(|| table.rank());
            return Some(Shape::Array { rank, element: table.per_inst_info });
        }
        if !table.is_generic() {
            return None;
        }
        self.instance(table, self.type_arguments(table))
            .filter(|shape| matches!(shape, Shape::Instance { arguments, .. } if !arguments.is_empty()))
    }
}

/// The type handles in a module's table; none when what is there is no such table.
fn entries(memory: &dyn Memory, layout: &TypeTable, module: u64) -> Vec<u64> {
    let mut out = Vec::new();
    let mut read = || -> Result<(), dnd_memory::Missing> {
        let table = memory.u64(module.wrapping_add(layout.table))?;
        // Module, heap, buckets, their number (3.1), number of entries.
        if table == 0 || memory.u64(table)? != module {
            return Ok(());
        }
        let mut list = memory.u64(table.wrapping_add(16))?;
        let count = memory.u32(table.wrapping_add(layout.count))?.min(MAX_TYPES);
        for _ in 0..MAX_LISTS {
            let (length, first, next) = if layout.special {
                (memory.u64(list)?, list.wrapping_add(8 * SPECIAL), memory.u64(list.wrapping_add(8))?)
            } else {
                (memory.u32(table.wrapping_add(24))?.into(), list, 0)
            };
            // A table has at most a few buckets for each entry.
            for bucket in 0..length.min(u64::from(count) * 8 + 4096) {
                // Entry: value, next, hash. The end of a chain is 0, or (8 and later) odd.
                let mut entry = memory.u64(first.wrapping_add(8 * bucket))?;
                while entry != 0 && entry & 1 == 0 {
                    if out.len() >= count as usize {
                        return Ok(());
                    }
                    out.push(memory.u64(entry)? & !1);
                    entry = memory.u64(entry.wrapping_add(8))?;
                }
            }
            if next == 0 {
                break;
            }
            list = next;
        }
        Ok(())
    };
    // What is missing of a table ends it; the others are asked all the same.
    let _ = read();
    out
}
