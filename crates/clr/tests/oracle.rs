//! Every fact about the heap against Microsoft's DAC, on real cores of every runtime at hand: types with their names,
//! counts and bytes, segments, handles, finalizer queues, threads, modules.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dnd_clr::{NameStyle, Progress, Runtime};
use dnd_memory::{Core, FileOptions, Target, WithFiles};
use dnd_testkit::{
    By, CoreSpec, Kind, core, kernel_cores, oracle, oracle_for, runtime, runtimes, shared_cores,
    single_files, skip,
};
use serde_json::Value;

const WHATS: &[&str] =
    &["info", "heap", "stat", "handles", "threads", "finalizer", "syncblocks", "exceptions"];

fn hex(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no hexadecimal string"));
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or_else(|| panic!("the oracle has no {key}: {value}"), Vec::as_slice)
}

/// Compares everything on one core; `what` names it in a failure.
fn compare(target: &dyn Target, truth: &Value, what: &str) {
    let runtime = Runtime::open(target).unwrap_or_else(|e| panic!("{what}: {e}"));
    same_types(&runtime, truth, what);
    same_heap(&runtime, truth, what);
    same_handles(&runtime, truth, what);
    same_finalizers(&runtime, truth, what);
    same_threads(&runtime, truth, what);
    same_modules(&runtime, truth, what);
    same_sync_blocks(&runtime, truth, what);
    same_exceptions(&runtime, truth, what);
}

fn same_types(runtime: &Runtime<'_>, truth: &Value, what: &str) {
    let heap = runtime.objects_heap().unwrap();
    let progress = Progress::new();
    let counted = runtime.count(&heap.segments, 2, &progress).unwrap();
    assert!(counted.damage.is_none(), "{what}: {:?}", counted.damage);
    let again = runtime.count(&heap.segments, 1, &progress).unwrap();
    let sorted = |types: &[dnd_clr::Slot]| -> BTreeMap<u64, (u64, u64)> {
        types.iter().map(|t| (t.table, (t.count, t.bytes))).collect()
    };
    let ours = sorted(&counted.types);
    assert_eq!(ours, sorted(&again.types), "{what}: one thread and two count differently");
    let theirs: BTreeMap<u64, (u64, u64)> = list(&truth["stat"], "types")
        .iter()
        .map(|t| (hex(&t["mt"]), (t["count"].as_u64().unwrap(), t["bytes"].as_u64().unwrap())))
        .collect();
    assert_eq!(ours, theirs, "{what}: counts and bytes by type");
    for t in list(&truth["stat"], "types") {
        // The DAC has no name for types of modules that it can't read; those that it has must be ours.
        let Some(name) = t["name"].as_str().filter(|name| !name.starts_with('<')) else { continue };
        let ours = runtime.type_name(hex(&t["mt"]), NameStyle::Runtime);
        assert_eq!(ours, name, "{what}: name of {}", t["mt"]);
    }
}

fn same_heap(runtime: &Runtime<'_>, truth: &Value, what: &str) {
    let heap = runtime.heap().unwrap();
    let info = &truth["info"];
    assert_eq!(heap.server, info["server"].as_bool().unwrap(), "{what}");
    assert_eq!(heap.heaps.len() as u64, info["heap_count"].as_u64().unwrap(), "{what}");
    assert_eq!(heap.regions, info["regions"].as_bool().unwrap(), "{what}");
    assert_eq!(heap.gc_in_progress, !info["gc_structures_valid"].as_bool().unwrap(), "{what}");
    let ours: BTreeSet<_> =
        heap.segments.iter().map(|s| (s.heap, s.address, s.start, s.end, s.committed, s.reserved)).collect();
    let mut theirs = BTreeSet::new();
    for (number, sub) in list(&truth["heap"], "heaps").iter().enumerate() {
        for s in list(sub, "segments") {
            let field = |key: &str| hex(&s[key]);
            theirs.insert((
                number,
                field("segment"),
                field("start"),
                field("end"),
                field("committed"),
                field("reserved"),
            ));
        }
    }
    assert_eq!(ours, theirs, "{what}: segments");
}

fn same_handles(runtime: &Runtime<'_>, truth: &Value, what: &str) {
    let ours: BTreeSet<_> = runtime
        .handles()
        .unwrap()
        .iter()
        .map(|h| (h.address, h.object, format!("{:?}", h.kind), h.secondary))
        .collect();
    let theirs: BTreeSet<_> = truth["handles"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|h| hex(&h["object"]) != 0)
        .map(|h| {
            let kind = h["type_name"].as_str().unwrap().to_owned();
            (hex(&h["handle"]), hex(&h["object"]), kind, hex(&h["secondary"]))
        })
        .collect();
    if truth["info"]["server"] == true && ours != theirs {
        // The DAC asks as many tables as there are heaps now; there is one for each processor.
        assert!(theirs.is_subset(&ours), "{what}: handles");
        assert!(what.contains("gcServer"), "{what}: only where the number of heaps is left to the GC");
    } else {
        assert_eq!(ours, theirs, "{what}: handles");
    }
}

fn same_finalizers(runtime: &Runtime<'_>, truth: &Value, what: &str) {
    let queues = runtime.finalizer_queues().unwrap();
    let theirs = truth["finalizer"].as_array().unwrap();
    assert_eq!(queues.len(), theirs.len(), "{what}");
    for (ours, theirs) in queues.iter().zip(theirs) {
        let objects = |key: &str| -> Vec<u64> { list(theirs, key).iter().map(hex).collect() };
        for generation in 0..3 {
            assert_eq!(
                ours.generations[generation].objects,
                objects(&format!("gen{generation}")),
                "{what}: finalizable objects of generation {generation}"
            );
        }
        assert_eq!(ours.critical_ready.objects, objects("critical"), "{what}: critical f-reachable");
        assert_eq!(ours.ready.objects, objects("f_reachable"), "{what}: f-reachable");
    }
}

fn same_threads(runtime: &Runtime<'_>, truth: &Value, what: &str) {
    let threads = runtime.threads().unwrap();
    let counts = &truth["info"]["threads"];
    let number = |key: &str| counts[key].as_u64().unwrap() as u32;
    let ours = &threads.counts;
    assert_eq!(
        (ours.total, ours.unstarted, ours.background, ours.pending, ours.dead),
        (
            number("thread_count"),
            number("unstarted_count"),
            number("background_count"),
            number("pending_count"),
            number("dead_count")
        ),
        "{what}: thread counts"
    );
    assert_eq!(threads.finalizer, hex(&counts["finalizer_thread"]), "{what}");
    assert_eq!(threads.suspender, hex(&counts["gc_thread"]), "{what}");
    // Theirs are by number, ours as the runtime lists them.
    let mut ours: Vec<_> = threads.threads.iter().collect();
    ours.sort_by_key(|thread| thread.id);
    let theirs = truth["threads"].as_array().unwrap();
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (ours, theirs) in ours.into_iter().zip(theirs) {
        let field = |key: &str| hex(&theirs[key]);
        let number = |key: &str| theirs[key].as_u64().unwrap() as u32;
        let who = format!("{what}: thread {:#x}", ours.address);
        assert_eq!(ours.address, field("thread"), "{who}");
        assert_eq!((ours.id, ours.os_id), (number("managed_id"), number("os_id")), "{who}");
        assert_eq!(u64::from(ours.state), field("state"), "{who}");
        assert_eq!(u32::from(ours.cooperative), number("preemptive_gc_disabled"), "{who}");
        assert_eq!(
            (ours.alloc_pointer, ours.alloc_limit),
            (field("alloc_ptr"), field("alloc_limit")),
            "{who}"
        );
        assert_eq!(ours.app_domain, field("domain"), "{who}");
        assert_eq!(ours.frame, field("frame"), "{who}");
        assert_eq!(ours.object, field("thread_object"), "{who}");
        assert_eq!(ours.last_thrown, field("last_thrown"), "{who}");
        assert_eq!((ours.stack_base, ours.stack_limit), (field("stack_base"), field("stack_limit")), "{who}");
        if let Some(count) = ours.lock_count {
            assert_eq!(i64::from(count), theirs["lock_count"].as_i64().unwrap(), "{who}");
        }
    }
}

fn same_modules(runtime: &Runtime<'_>, truth: &Value, what: &str) {
    let ours: BTreeSet<u64> = runtime.modules().unwrap().iter().map(|m| m.address).collect();
    let theirs: BTreeSet<u64> =
        list(&truth["info"], "assemblies").iter().map(|a| hex(&a["module"])).filter(|&m| m != 0).collect();
    assert!(theirs.is_subset(&ours), "{what}: modules {:x?} are missing", theirs.difference(&ours));
    for assembly in list(&truth["info"], "assemblies") {
        let module = runtime.module(hex(&assembly["module"]));
        if assembly["is_dynamic"] == false
            // An assembly loaded from bytes has a full name instead of a path.
            && let Some(name) = assembly["name"].as_str().filter(|name| name.starts_with('/'))
        {
            assert_eq!(module.path, name, "{what}");
            assert_eq!(module.problem, None, "{what}: {}", module.path);
        }
    }
}

fn same_sync_blocks(runtime: &Runtime<'_>, truth: &Value, what: &str) {
    let truth = &truth["syncblocks"];
    assert!(list(truth, "errors").is_empty(), "{what}: {truth}");
    let ours = runtime.sync_blocks().unwrap();
    assert!(!ours.cut, "{what}");
    assert_eq!(u64::from(ours.total), truth["count"].as_u64().unwrap(), "{what}: sync blocks");
    let in_use: BTreeSet<_> = ours.blocks.iter().map(|b| (u64::from(b.index), b.address, b.object)).collect();
    let theirs: BTreeSet<_> = list(truth, "in_use")
        .iter()
        .map(|b| (b["index"].as_u64().unwrap(), hex(&b["sync_block"]), hex(&b["object"])))
        .collect();
    assert_eq!(in_use, theirs, "{what}: sync blocks in use");
    assert_eq!(ours.total as usize, ours.blocks.len() + ours.free as usize, "{what}");
    let held: BTreeSet<_> = ours
        .blocks
        .iter()
        .filter(|b| b.locked || b.waiters != 0)
        .map(|b| (u64::from(b.index), b.owner.unwrap_or(0), u64::from(b.waiters), u64::from(b.recursion)))
        .collect();
    let theirs: BTreeSet<_> = list(truth, "held")
        .iter()
        .map(|b| {
            let number = |key: &str| b[key].as_u64().unwrap();
            (number("index"), hex(&b["owner_thread"]), number("waiters"), number("recursion"))
        })
        .collect();
    assert_eq!(held, theirs, "{what}: locks held");
}

fn same_exceptions(runtime: &Runtime<'_>, truth: &Value, what: &str) {
    let objects = list(&truth["exceptions"], "objects");
    assert!(objects.len() >= 3, "{what}");
    for theirs in objects {
        let who = format!("{what}: {theirs}");
        let ours = runtime.exception(hex(&theirs["object"])).unwrap().unwrap();
        assert_eq!(ours.inner, hex(&theirs["inner"]), "{who}");
        assert_eq!(u64::from(ours.hresult.unwrap()), hex(&theirs["hresult"]), "{who}");
        let frames: Vec<_> = ours.frames.iter().map(|f| (f.ip, f.sp, f.method)).collect();
        let trace = list(theirs, "stack_trace");
        let theirs: Vec<_> =
            trace.iter().map(|f| (hex(&f["ip"]), hex(&f["sp"]), hex(&f["method_desc"]))).collect();
        assert_eq!(frames, theirs, "{who}");
        for frame in trace.iter().filter(|f| f["method"].is_string()) {
            assert_eq!(
                runtime.method_name(hex(&frame["method_desc"])),
                frame["method"].as_str().unwrap(),
                "{who}"
            );
        }
    }
}

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

/// The library of a framework of the same build knows programs that bring that runtime, trimmed, in their own file.
#[test]
fn programs_in_a_single_file() {
    for program in single_files().into_iter().filter(|program| !program.native_aot()) {
        let version = program.name.rsplit('-').next().unwrap_or_default();
        let Some(framework) = runtime(version) else { continue };
        let dac = framework.framework().join("libmscordaccore.so");
        for by in [By::Createdump, By::Gcore] {
            let Some(core) = program.core(by) else { continue };
            let Some(truth) = oracle_for(&core.path(), Some(&dac), WHATS) else { return };
            compare(&open(&core.path()), &truth, &format!("{} {by:?}", program.name));
        }
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
