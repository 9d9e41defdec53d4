//! Every fact about the heap against Microsoft's DAC, on real cores of every runtime at hand: types with their names,
//! counts and bytes, segments, handles, finalizer queues, threads, modules.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod compare;

use std::collections::BTreeSet;
use std::path::Path;

use dnd_clr::{NameStyle, Progress, Runtime};
use dnd_memory::{Core, FileOptions, WithFiles};
use dnd_testkit::{
    By, CoreSpec, Kind, core, kernel_cores, oracle, oracle_for, runtimes, shared_cores, single_file_cores,
    skip,
};

use self::compare::{compare, same_heap, same_modules, same_threads, same_types};

const WHATS: &[&str] =
    &["info", "heap", "stat", "handles", "threads", "finalizer", "syncblocks", "exceptions"];

/// Opens a core. One that holds nothing of a DLL has its file held against the runtime's own tables.
fn open(path: &Path) -> WithFiles {
    WithFiles::new(Core::open(path).unwrap(), FileOptions { unchecked: true, ..FileOptions::default() })
}

/// Runs the comparison on the core that `spec` describes, of every runtime for which `wanted` holds.
fn matrix(app: &str, spec: &CoreSpec, wanted: impl Fn(&dnd_testkit::Runtime) -> bool) {
    let mut compared = 0;
    for runtime in runtimes().into_iter().filter(wanted) {
        let core = core(&runtime, app, spec);
        let Some(truth) = oracle(&core, WHATS) else { return };
        compare(&open(&core.path()), &truth, &format!("{app} on {} ({spec:?})", runtime.version));
        compared += 1;
    }
    if compared == 0 {
        skip(format_args!("{app} against the DAC ({spec:?}): none of the runtimes for it is here"));
    }
}

#[test]
fn heap_dumps() {
    matrix("Shapes", &CoreSpec::default(), |_| true);
}

/// Types of generics over pointers, exceptions that passed through reflection and marshalling.
#[test]
fn heap_dumps_of_waiting_threads() {
    matrix(
        "Stacks",
        &CoreSpec { env: vec![("MALLOC_ARENA_MAX".into(), "1".into())], ..CoreSpec::default() },
        |_| true,
    );
}

#[test]
fn heap_dumps_of_server_gc() {
    matrix("Shapes", &CoreSpec { server_gc: true, ..CoreSpec::default() }, |_| true);
}

/// The number of heaps follows the load (9 and later).
#[test]
fn heap_dumps_of_server_gc_that_adapts() {
    let env = vec![("DOTNET_gcServer".to_owned(), "1".to_owned())];
    matrix("Shapes", &CoreSpec { env, ..CoreSpec::default() }, |runtime| runtime.major() >= 8);
}

#[test]
fn heap_dumps_with_segments() {
    matrix("Shapes", &CoreSpec { segments: true, ..CoreSpec::default() }, |runtime| runtime.major() >= 8);
}

#[test]
fn heap_dumps_of_server_gc_with_segments() {
    let spec = CoreSpec { segments: true, server_gc: true, ..CoreSpec::default() };
    matrix("Shapes", &spec, |runtime| runtime.major() >= 8);
}

#[test]
fn full_dumps() {
    matrix("Shapes", &CoreSpec { kind: Kind::Full, ..CoreSpec::default() }, |_| true);
}

#[test]
fn cores_of_gcore() {
    matrix("Shapes", &CoreSpec { by: By::Gcore, kind: Kind::Full, ..CoreSpec::default() }, |_| true);
}

#[test]
fn cores_of_the_kernel() {
    if !kernel_cores() {
        return;
    }
    for kind in [Kind::Heap, Kind::Full] {
        matrix("Shapes", &CoreSpec { by: By::Kernel, kind, ..CoreSpec::default() }, |_| true);
    }
}

#[test]
fn web_services() {
    let spec = CoreSpec { kind: Kind::Heap, ..CoreSpec::default() };
    matrix("LeakWeb", &spec, dnd_testkit::Runtime::aspnet);
    matrix("LeakWeb", &CoreSpec { server_gc: true, ..spec }, dnd_testkit::Runtime::aspnet);
}

#[test]
fn programs_in_a_single_file() {
    for (what, core, dac) in single_file_cores() {
        let Some(truth) = oracle_for(&core.path(), Some(&dac), WHATS) else { return };
        compare(&open(&core.path()), &truth, &what);
    }
}

/// Without the heap there are still the threads and the modules.
#[test]
fn dumps_without_the_heap() {
    for runtime in runtimes() {
        for kind in [Kind::Mini, Kind::Triage] {
            let spec = CoreSpec { kind, ..CoreSpec::with_args(&["1000", "100"]) };
            let core = core(&runtime, "Leak", &spec);
            let what = format!("{} {kind:?}", runtime.version);
            let target = open(&core.path());
            let ours = Runtime::open(&target).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(ours.objects_heap().is_err(), "{what}");
            let Some(truth) = oracle(&core, &["info", "threads"]) else { return };
            same_threads(&ours, &truth, &what);
            same_modules(&ours, &truth, &what);
        }
    }
}

/// Threads that allocate and collect without a pause: between two GCs everything is as ever; during one it is said.
#[test]
fn dumps_of_a_busy_heap() {
    for runtime in runtimes() {
        for server_gc in [false, true] {
            let spec = CoreSpec { server_gc, ..CoreSpec::default() };
            let core = core(&runtime, "AllocLoop", &spec);
            let what = format!("AllocLoop on {} ({spec:?})", runtime.version);
            let Some(truth) = oracle(&core, &["info"]) else { return };
            let target = open(&core.path());
            let ours = Runtime::open(&target).unwrap_or_else(|e| panic!("{what}: {e}"));
            let heap = ours.objects_heap().unwrap();
            let valid = truth["info"]["gc_structures_valid"].as_bool().unwrap();
            assert_eq!(heap.gc_in_progress, !valid, "{what}");
            let counted = ours.count(&heap.segments, 2, &Progress::new()).unwrap();
            if valid {
                let truth = oracle(&core, WHATS).unwrap();
                same_heap(&ours, &truth, &what);
                same_threads(&ours, &truth, &what);
                // The oracle's walk ends at an object that is being made.
                if counted.damage.is_none() {
                    same_types(&ours, &truth, &what);
                }
            }
            assert!(counted.types.iter().map(|t| t.count).sum::<u64>() > 5000, "{what}");
        }
    }
}

/// Cores of another processor, held against what the DAC said of them there.
#[test]
fn cores_of_another_processor() {
    let mut compared = 0;
    for shared in shared_cores() {
        let Some(truth) = &shared.dac else { continue };
        compare(&open(&shared.path), truth, &shared.name);
        compared += 1;
    }
    assert!(compared > 0);
}

/// Cores of other machines, held against what ClrMD said of them there.
#[test]
fn cores_of_other_machines() {
    for shared in shared_cores() {
        let Some(oracle) = &shared.oracle else { continue };
        let text = std::fs::read_to_string(oracle).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
        let of = |name: &'static str| rows.iter().filter(move |row| row[0] == name);
        let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let what = &shared.name;
        let target = open(&shared.path);
        let runtime = Runtime::open(&target).unwrap_or_else(|e| panic!("{what}: {e}"));
        let heap = runtime.objects_heap().unwrap();
        let during_gc = text.contains("canwalk False");
        assert_eq!(heap.gc_in_progress, during_gc, "{what}");

        let threads: Vec<_> = runtime
            .threads()
            .unwrap()
            .threads
            .iter()
            .map(|t| (u64::from(t.id), u64::from(t.os_id), t.address))
            .collect();
        let theirs: Vec<_> = of("THREAD")
            .map(|row| (row[1].parse::<u64>().unwrap(), row[2].parse::<u64>().unwrap(), hex(row[3])))
            .collect();
        assert_eq!(threads, theirs, "{what}: threads");

        let ours: BTreeSet<_> =
            runtime.modules().unwrap().iter().map(|m| (m.address, m.path.clone())).collect();
        for row in of("MODULE").filter(|row| row[4] == "dynamic False") {
            assert!(ours.contains(&(hex(row[1]), row[3].to_owned())), "{what}: {row:?} of {ours:x?}");
        }

        let ours: BTreeSet<_> = heap.segments.iter().map(|s| s.start).collect();
        let theirs: BTreeSet<_> = of("SEG").map(|row| hex(row[3])).collect();
        assert_eq!(ours, theirs, "{what}: segments");

        let ours: BTreeSet<_> = runtime
            .handles()
            .unwrap()
            .iter()
            .map(|h| (format!("{:?}", h.kind), h.address, h.object))
            .collect();
        let theirs: BTreeSet<_> = of("HANDLE")
            .filter(|row| hex(row[3]) != 0)
            // ClrMD has no name for the tenth kind.
            .map(|row| {
                (if row[1] == "10" { "WeakInterior" } else { row[1] }.to_owned(), hex(row[2]), hex(row[3]))
            })
            .collect();
        assert_eq!(ours, theirs, "{what}: handles");

        let ours: BTreeSet<_> = runtime
            .finalizer_queues()
            .unwrap()
            .iter()
            .flat_map(|queue| queue.objects().collect::<Vec<_>>())
            .collect();
        assert!(of("FINQ").all(|row| ours.contains(&hex(row[1]))), "{what}: finalizer queue");

        let counted = runtime.count(&heap.segments, 2, &Progress::new()).unwrap();
        let mut compared = 0;
        for row in of("TYPE") {
            let (count, bytes, table) =
                (row[1].parse::<u64>().unwrap(), row[2].parse::<u64>().unwrap(), hex(row[3]));
            let ours = counted.types.iter().find(|t| t.table == table);
            let ours = ours.unwrap_or_else(|| panic!("{what}: there is no {row:?}"));
            compared += 1;
            if during_gc {
                continue;
            }
            assert_eq!(ours.count, count, "{what}: {row:?}");
            // Sizes there are those of the room that an object takes.
            assert!(ours.bytes <= bytes && bytes < ours.bytes + 8 * count, "{what}: {row:?}, {}", ours.bytes);
            if !row[4].contains(['+', '<', '[', '*']) {
                assert_eq!(runtime.type_name(table, NameStyle::Runtime), row[4], "{what}");
            }
        }
        assert!(
            during_gc || compared == counted.types.len(),
            "{what}: {compared} of {} types",
            counted.types.len()
        );
    }
}
