//! The loader's heaps and the slots of types against Microsoft's DAC, and against what lies in them, on real cores of every
//! runtime at hand.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dnd_clr::{LoaderAllocator, LoaderHeapKind, Runtime};
use dnd_memory::{Core, FileOptions, WithFiles};
use dnd_testkit::{By, CoreSpec, Kind, core, entries_oracle, loader_oracle, runtimes, shared_cores};
use serde_json::Value;

fn open(path: &Path) -> WithFiles {
    WithFiles::new(Core::open(path).unwrap(), FileOptions::default())
}

fn hex(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

/// Kind -> address, bytes and whether it is the current one, of each block.
type Heaps = BTreeMap<String, Vec<(u64, u64, bool)>>;

fn ours(allocator: &LoaderAllocator) -> Heaps {
    let heaps = allocator.heaps.iter().map(|heap| {
        let blocks = heap.blocks.iter().map(|b| (b.address, b.reserved, b.current)).collect();
        (format!("{:?}", heap.kind), blocks)
    });
    heaps.collect()
}

fn theirs(heaps: &Value) -> Heaps {
    let mut out = Heaps::new();
    let mut seen = BTreeSet::new();
    let order =
        |name: &str| ["LowFrequencyHeap", "HighFrequencyHeap"].iter().position(|&first| first == name);
    let mut heaps: Vec<_> = heaps.as_object().unwrap().iter().collect();
    heaps.sort_by_key(|(name, _)| order(name).unwrap_or(2));
    for (name, blocks) in heaps {
        let blocks: Vec<_> = blocks.as_array().unwrap().iter().collect();
        let Some(first) = blocks.first() else { continue };
        // A heap that serves two ends is told twice there.
        if !seen.insert(hex(&first[0])) {
            continue;
        }
        let name = if name == "IndcellHeap" { "IndirectionCellHeap" } else { name };
        let row = |b: &&Value| (hex(&b[0]), b[1].as_u64().unwrap(), b[2].as_bool().unwrap());
        out.insert(name.to_owned(), blocks.iter().map(row).collect());
    }
    out
}

fn compare(path: &Path, truth: Option<&Value>, what: &str) {
    let target = open(path);
    let runtime = Runtime::open(&target).unwrap_or_else(|e| panic!("{what}: {e}"));
    let heaps = runtime.loader_heaps().unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(heaps.problems, [], "{what}");
    assert!(heaps.global.heaps.iter().any(|h| h.kind == LoaderHeapKind::IndirectionCellHeap), "{what}");
    inside(&runtime, &heaps, what);
    let Some(truth) = truth else { return };
    assert_eq!(heaps.global.address, hex(&truth["global"]), "{what}");
    let allocators = truth["allocators"].as_object().unwrap();
    let mut global = ours(&heaps.global);
    if runtime.major() == 3 {
        // The library of 3.1 does not tell these two.
        global.remove("VtableHeap").unwrap();
        global.remove("ExecutableHeap");
    }
    assert_eq!(global, theirs(&allocators[&format!("{:#x}", heaps.global.address)]), "{what}");
    if runtime.major() > 3 {
        assert_eq!(heaps.collectible.len() + 1, allocators.len(), "{what}");
        for allocator in &heaps.collectible {
            let theirs = theirs(&allocators[&format!("{:#x}", allocator.address)]);
            assert_eq!(ours(allocator), theirs, "{what}: {:x}", allocator.address);
        }
    }
    assert_eq!(heaps.jit_manager, hex(&truth["jit_manager"]), "{what}");
    let code: BTreeSet<_> = heaps
        .code
        .iter()
        .flat_map(|heap| heap.blocks.iter().map(move |b| (format!("{:?}", heap.kind), b.address, b.reserved)))
        .collect();
    let theirs: BTreeSet<_> = truth["code"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row[0].as_str().unwrap().to_owned(), hex(&row[1]), row[2].as_u64().unwrap()))
        .collect();
    assert_eq!(code, theirs, "{what}: code heaps");
}

/// Every loaded type lies in a heap of its own allocator, and no two blocks overlap.
fn inside(runtime: &Runtime<'_>, heaps: &dnd_clr::LoaderHeaps, what: &str) {
    let mut blocks: Vec<(u64, u64)> = Vec::new();
    for allocator in std::iter::once(&heaps.global).chain(&heaps.collectible) {
        blocks.extend(
            allocator.heaps.iter().flat_map(|h| &h.blocks).map(|b| (b.address, b.address + b.reserved)),
        );
    }
    blocks.sort_unstable();
    for pair in blocks.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{what}: {pair:x?} overlap");
    }
    let mut types = 0;
    for module in runtime.modules().unwrap() {
        let of =
            heaps.collectible.iter().find(|a| a.modules.contains(&module.address)).unwrap_or(&heaps.global);
        for table in runtime.type_def_tables(module.address) {
            let holds = |b: &dnd_clr::Block| (b.address..b.address + b.present).contains(&table);
            let heap = of.heaps.iter().find(|heap| heap.blocks.iter().any(holds));
            let kind =
                heap.unwrap_or_else(|| panic!("{what}: {table:x} is in no heap of {:x}", of.address)).kind;
            let fits = matches!(kind, LoaderHeapKind::LowFrequencyHeap | LoaderHeapKind::HighFrequencyHeap);
            assert!(fits, "{what}: {table:x} in {kind:?}");
            types += 1;
        }
    }
    assert!(types > 100, "{what}: {types} types");
}

#[test]
fn loader_heaps() {
    for runtime in runtimes() {
        for spec in [CoreSpec::default(), CoreSpec { kind: Kind::Full, ..CoreSpec::default() }] {
            let core = core(&runtime, "Shapes", &spec);
            let what = format!("Shapes on {} ({spec:?})", runtime.version);
            compare(&core.path(), loader_oracle(&core).as_ref(), &what);
        }
    }
}

#[test]
fn loader_heaps_in_cores_of_gcore() {
    for runtime in
        runtimes().into_iter().filter(|runtime| ["3.1.23", "10.0.14"].contains(&runtime.version.as_str()))
    {
        let core =
            core(&runtime, "Shapes", &CoreSpec { kind: Kind::Full, by: By::Gcore, ..CoreSpec::default() });
        compare(&core.path(), loader_oracle(&core).as_ref(), &format!("gcore of {}", runtime.version));
    }
}

/// musl and arm64: no library can be asked here.
#[test]
fn loader_heaps_of_other_machines() {
    for shared in shared_cores() {
        compare(&shared.path, None, &shared.name);
    }
}

/// What a call of a method jumps to: virtual methods, others with a slot in their type, and those without one.
#[test]
fn entries_of_methods() {
    for runtime in runtimes() {
        let core = core(&runtime, "Shapes", &CoreSpec::default());
        let Some(truth) = entries_oracle(&core) else { return };
        let target = open(&core.path());
        let ours = Runtime::open(&target).unwrap();
        let (mut compared, mut own) = (0, 0);
        for (table, slots) in truth.as_object().unwrap() {
            let address = u64::from_str_radix(table.trim_start_matches("0x"), 16).unwrap();
            let table = ours.method_table(address).unwrap();
            let slots = slots.as_array().unwrap();
            for method in ours.type_methods(&table).unwrap() {
                let entry = slots.get(usize::from(method.slot)).filter(|entry| !entry.is_null());
                let Some(entry) = entry.map(hex) else { continue };
                let name = ours.type_name(address, dnd_clr::NameStyle::Runtime);
                assert_eq!(method.entry, entry, "{}: {name}, {method:x?}", runtime.version);
                compared += 1;
                own += usize::from(method.slot >= table.virtuals);
            }
        }
        assert!(compared > 3000, "{}: {compared} entries", runtime.version);
        assert!(own > 1000, "{}: {own} of methods that are not virtual", runtime.version);
    }
}
