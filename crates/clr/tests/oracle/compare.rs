//! How our facts are held against the DAC's.

use std::collections::{BTreeMap, BTreeSet};

use dnd_clr::{NameStyle, Progress, Runtime};
use dnd_memory::Target;
use serde_json::Value;

fn hex(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no hexadecimal string"));
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or_else(|| panic!("the oracle has no {key}: {value}"), Vec::as_slice)
}

/// Compares everything on one core; `what` names it in a failure.
pub(crate) fn compare(target: &dyn Target, truth: &Value, what: &str) {
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

pub(crate) fn same_types(runtime: &Runtime<'_>, truth: &Value, what: &str) {
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

pub(crate) fn same_heap(runtime: &Runtime<'_>, truth: &Value, what: &str) {
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

pub(crate) fn same_threads(runtime: &Runtime<'_>, truth: &Value, what: &str) {
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

pub(crate) fn same_modules(runtime: &Runtime<'_>, truth: &Value, what: &str) {
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
