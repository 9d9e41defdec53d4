//! Which static field a slot belongs to.
//!
//! References in static fields live in arrays of objects that a strong handle keeps. A path that begins in such an array
//! says nothing to its reader until the field has a name; the slot's address tells it.

use dnd_clr::{MethodTable, Runtime};

use crate::inspect::display_name;

/// Where the references of types' static fields begin.
#[derive(Debug, Default)]
pub(crate) struct Statics {
    /// (address of the first static reference, method table), by address.
    starts: Vec<(u64, u64)>,
}

/// A slot further behind the start of a type's statics than this belongs to another type's.
const MAX_STATICS: u64 = 1 << 20;

impl Statics {
    /// Looks at all loaded type definitions, and at `instances`: instances of generic types, which the modules don't
    /// list.
    pub(crate) fn new(runtime: &Runtime<'_>, instances: impl IntoIterator<Item = u64>) -> Self {
        let mut starts = Vec::new();
        let mut add = |table: u64| {
            let Ok(table) = runtime.method_table(table) else { return };
            if let Some(start) = runtime.statics_start(&table) {
                starts.push((start, table.address));
            }
        };
        for module in runtime.modules().unwrap_or_default() {
            runtime.type_def_tables(module.address).for_each(&mut add);
        }
        instances.into_iter().for_each(&mut add);
        starts.sort_unstable();
        starts.dedup();
        Statics { starts }
    }

    /// `Demo.Cache.items`, for the static field whose reference stands at `slot`.
    pub(crate) fn name(&self, runtime: &Runtime<'_>, slot: u64) -> Option<String> {
        let behind = self.starts.partition_point(|&(start, _)| start <= slot);
        let nearest = self.starts.get(behind.checked_sub(1)?)?.0;
        if slot - nearest >= MAX_STATICS {
            return None;
        }
        // Before 9 all types of a module share one start, and only their fields tell whose the slot is.
        let first = self.starts.partition_point(|&(start, _)| start < nearest);
        self.starts.get(first..behind)?.iter().find_map(|&(_, table)| {
            let table = runtime.method_table(table).ok()?;
            Self::field(runtime, &table, slot)
                .map(|field| format!("{}.{field}", display_name(runtime, table.address)))
        })
    }

    fn field(runtime: &Runtime<'_>, table: &MethodTable, slot: u64) -> Option<String> {
        let fields = runtime.declared_fields(table).ok()?;
        let mut candidates = fields.iter().filter(|field| field.is_static && !field.is_thread_static);
        let found = candidates
            .find(|field| runtime.static_address(table, field, None).ok().flatten() == Some(slot))?;
        Some(found.name.clone())
    }
}
