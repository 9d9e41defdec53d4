//! The loader's tables of arrays and instances of generic types against the heap, on real cores of every runtime at hand.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use dnd_clr::{NameStyle, Progress, Runtime};
use dnd_memory::{Core, FileOptions, WithFiles};
use dnd_testkit::{CoreSpec, Kind, core, runtimes, shared_cores};

/// Every type of the heap that is constructed is in the tables; returns the names of all that are in them.
fn holds_the_heap(path: &Path, what: &str) -> BTreeSet<String> {
    let target = WithFiles::new(Core::open(path).unwrap(), FileOptions::default());
    let runtime = Runtime::open(&target).unwrap_or_else(|e| panic!("{what}: {e}"));
    let known: BTreeSet<u64> = runtime.constructed_types().into_iter().collect();
    let heap = runtime.objects_heap().unwrap();
    let counted = runtime.count(&heap.segments, 2, &Progress::new()).unwrap();
    let mut compared = 0;
    for slot in &counted.types {
        let table = runtime.method_table(slot.table).unwrap();
        if table.is_array() || table.is_generic() {
            let name = runtime.type_name(slot.table, NameStyle::Runtime);
            assert!(known.contains(&slot.table), "{what}: {name} ({:x}) is in no table", slot.table);
            compared += 1;
        }
    }
    assert!(compared > 20, "{what}: {compared} types");
    known.into_iter().map(|table| runtime.type_name(table, NameStyle::Display)).collect()
}

#[test]
fn constructed_types_of_the_heap_are_in_the_tables() {
    for runtime in runtimes() {
        for kind in [Kind::Heap, Kind::Full] {
            let core = core(&runtime, "Shapes", &CoreSpec { kind, ..CoreSpec::default() });
            let what = format!("{} {kind:?}", runtime.version);
            let names = holds_the_heap(&core.path(), &what);
            // A struct and a class.
            for name in ["Shapes.Slot<System.Int32>", "Shapes.Pair<System.Int32, System.String>"] {
                assert!(names.contains(name), "{what}: {name} of {names:?}");
            }
        }
    }
}

#[test]
fn so_are_those_of_other_machines() {
    for shared in shared_cores()
        .into_iter()
        .filter(|shared| !shared.name.contains("gc.") && !shared.name.contains("mid"))
    {
        holds_the_heap(&shared.path, &shared.name);
    }
}
