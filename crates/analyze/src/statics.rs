//! Which static field a slot belongs to.
//!
//! References in static fields live in arrays of objects that a strong handle, a thread, or the allocator of what can be
//! unloaded keeps. A path through such an array says nothing to its reader until the field has a name; the slot's address
//! tells it.

use dnd_clr::threads::Thread;
use dnd_clr::{MethodTable, Runtime};

use crate::inspect::display_name;

/// Where the references of types' static fields begin.
#[derive(Debug, Default)]
pub(crate) struct Statics {
    /// By address.
    starts: Vec<Start>,
}

/// A type's first static reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Start {
    address: u64,
    /// Method table.
    table: u64,
    /// Of thread statics: which thread in the list of threads.
    thread: Option<usize>,
}

/// A slot further behind the start of a type's statics than this belongs to another type's.
const MAX_STATICS: u64 = 1 << 20;

impl Statics {
    /// Looks at all loaded type definitions, and at `instances`: instances of generic types, which the modules don't
    /// list.
    pub(crate) fn new(runtime: &Runtime<'_>, instances: impl IntoIterator<Item = u64>) -> Self {
        let tables = tables(runtime, instances);
        Self::sorted(tables.filter_map(|table| {
            let address = runtime.statics_start(&table, None)?;
            Some(Start { address, table: table.address, thread: None })
        }))
    }

    /// The same for the thread statics of all threads.
    pub(crate) fn of_threads(runtime: &Runtime<'_>, instances: impl IntoIterator<Item = u64>) -> Self {
        let tables = tables(runtime, instances).filter(|table| runtime.has_thread_statics(table));
        Self::sorted(tables.flat_map(|table| {
            threads(runtime).iter().enumerate().filter_map(move |(number, thread)| {
                let address = runtime.statics_start(&table, Some(thread))?;
                Some(Start { address, table: table.address, thread: Some(number) })
            })
        }))
    }

    fn sorted(starts: impl Iterator<Item = Start>) -> Self {
        let mut starts: Vec<Start> = starts.collect();
        starts.sort_unstable();
        starts.dedup();
        Statics { starts }
    }

    /// `Demo.Cache.items`, for the static field whose reference stands at `slot`.
    pub(crate) fn name(&self, runtime: &Runtime<'_>, slot: u64) -> Option<String> {
        let behind = self.starts.partition_point(|start| start.address <= slot);
        let nearest = self.starts.get(behind.checked_sub(1)?)?.address;
        if slot - nearest >= MAX_STATICS {
            return None;
        }
        // Before 9 all types of a module share one start, and only their fields tell whose the slot is.
        let first = self.starts.partition_point(|start| start.address < nearest);
        self.starts.get(first..behind)?.iter().find_map(|start| {
            let table = runtime.method_table(start.table).ok()?;
            Self::field(runtime, &table, start.thread, slot)
                .map(|field| format!("{}.{field}", display_name(runtime, table.address)))
        })
    }

    fn field(runtime: &Runtime<'_>, table: &MethodTable, thread: Option<usize>, slot: u64) -> Option<String> {
        let fields = runtime.declared_fields(table).ok()?;
        let owner = thread.and_then(|number| threads(runtime).get(number));
        let mut candidates =
            fields.iter().filter(|field| field.is_static && field.is_thread_static == owner.is_some());
        let found = candidates
            .find(|field| runtime.static_address(table, field, owner).ok().flatten() == Some(slot))?;
        Some(found.name.clone())
    }
}

/// All loaded type definitions, and `instances`.
fn tables(
    runtime: &Runtime<'_>,
    instances: impl IntoIterator<Item = u64>,
) -> impl Iterator<Item = MethodTable> {
    let modules = runtime.modules().unwrap_or_default();
    let defined = modules.iter().flat_map(|module| runtime.type_def_tables(module.address));
    let tables: Vec<u64> = defined.chain(instances).collect();
    tables.into_iter().filter_map(|table| runtime.method_table(table).ok())
}

fn threads<'r>(runtime: &'r Runtime<'_>) -> &'r [Thread] {
    runtime.threads().map(|all| all.threads.as_slice()).unwrap_or_default()
}
