//! Hostile memory: whatever the bytes of the runtime's structures are, every question ends, with an answer, a part of
//! one, or an error; within a bounded number of reads and a bounded memory, and never with a panic.
//!
//! Each question is asked once of the sound memory, and the words that it reads are noted: these are what is damaged. So
//! a case hits GC info as often as the list of threads, of which there is much less.
//!
//! `DND_HOSTILE_CASES=20000 cargo test -p dnd-clr --test hostile` tries more, `DND_HOSTILE_SEED=N` one case again.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod support;

use std::collections::HashSet;
use std::fs;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use dnd_clr::{NameStyle, Progress, Runtime, StackRoots};
use dnd_memory::{Core, FileOptions, Target, WithFiles};
use dnd_testkit::{CoreSpec, core, one_per_major, shared_cores};
use support::Patched;
use support::damage::{Numbers, Watched, damage, number};
use support::watchdog::Watchdog;

/// Bytes that a question may take beyond what the test has.
const MEMORY: u64 = 1 << 30;
/// Threads, frames and types that are asked about.
const MANY: usize = 64;

/// A question, or several of a kind. What the answers are doesn't matter here.
type Question = (&'static str, fn(&Runtime<'_>));

/// In an order in which each reads something that those before it don't.
const QUESTIONS: &[Question] = &[
    ("frame", frame),
    ("handles and finalizers", handles),
    ("sync blocks", |runtime| drop(runtime.sync_blocks())),
    ("types", types),
    ("heap", heap),
    ("threads' stacks", stacks),
    ("stack roots", stack_roots),
    ("debug info", debug_info),
    ("variables", variables),
    ("methods", methods),
    ("exceptions", exceptions),
    ("roots", roots),
];

/// What everything else stands on.
fn frame(runtime: &Runtime<'_>) {
    let _ = (runtime.version(), runtime.heap(), runtime.threads());
    for module in runtime.modules().unwrap_or_default().iter().take(4) {
        let _ = runtime.type_def_tables(module.address).take(MANY).count();
    }
}

fn handles(runtime: &Runtime<'_>) {
    let _ = (runtime.handles(), runtime.finalizer_queues());
}

/// The types on the heap, in the order of the method tables' addresses.
fn tables(runtime: &Runtime<'_>) -> Vec<u64> {
    let Ok(heap) = runtime.objects_heap() else { return Vec::new() };
    let counted = runtime.count(&heap.segments, 1, &Progress::new());
    let mut tables: Vec<u64> =
        counted.iter().flat_map(|counted| &counted.types).map(|slot| slot.table).collect();
    tables.sort_unstable();
    tables.truncate(300);
    tables
}

fn types(runtime: &Runtime<'_>) {
    let threads = runtime.threads().map(|all| all.threads.as_slice()).unwrap_or_default();
    let threads: Vec<_> = [None].into_iter().chain(threads.iter().take(2).map(Some)).collect();
    for table in tables(runtime) {
        let _ = runtime.type_name(table, NameStyle::Runtime);
        let Ok(table) = runtime.method_table(table) else { continue };
        let fields = runtime.fields(&table).unwrap_or_default();
        let _ = fields.iter().filter_map(|field| runtime.field_type(&table, field)).count();
        let _ = (runtime.method_count(&table), runtime.has_thread_statics(&table));
        let _ = threads.iter().filter_map(|thread| runtime.statics_start(&table, *thread)).count();
    }
}

fn methods(runtime: &Runtime<'_>) {
    for table in tables(runtime) {
        let Ok(table) = runtime.method_table(table) else { continue };
        for method in runtime.type_methods(&table).unwrap_or_default().iter().take(8) {
            let _ = runtime.method_name(method.method.address);
            let _ = (runtime.code_versions(&method.method), runtime.il_address(&method.method));
        }
    }
}

/// The last object of the heap.
fn last(runtime: &Runtime<'_>) -> u64 {
    let Ok(heap) = runtime.objects_heap() else { return 0 };
    let mut last = 0;
    for segment in heap.segments.iter().take(MANY) {
        let _ = runtime.walk(segment, &Progress::new(), |object| {
            last = object.address;
            ControlFlow::Continue(())
        });
    }
    last
}

fn heap(runtime: &Runtime<'_>) {
    let (last, progress) = (last(runtime), Progress::new());
    let _ = runtime.find_object(last.wrapping_add(8), &progress);
    let _ = runtime.closure_of(last, &progress, |reached| reached.contains(last));
}

fn roots(runtime: &Runtime<'_>) {
    let (last, progress) = (last(runtime), Progress::new());
    if let Ok(roots) = runtime.roots(StackRoots::Conservative, &progress) {
        let _ = runtime.reached(&roots, &progress, |reached| reached.contains(last));
        let _ = runtime.paths_to(last, &roots, &progress);
    }
    if let Ok(exact) = runtime.exact_stack_roots(&progress) {
        let _ = runtime.reached(&exact.roots, &progress, |reached| reached.contains(last));
    }
}

fn stacks(runtime: &Runtime<'_>) {
    let Ok(threads) = runtime.threads() else { return };
    for thread in threads.threads.iter().take(MANY) {
        let stack = runtime.stack(thread);
        for (_, code) in stack.managed().take(MANY) {
            let _ = runtime.method_name(code.method);
        }
    }
}

fn stack_roots(runtime: &Runtime<'_>) {
    let Ok(threads) = runtime.threads() else { return };
    for thread in threads.threads.iter().take(MANY) {
        let _ = runtime.stack_references(thread);
    }
}

fn debug_info(runtime: &Runtime<'_>) {
    let Ok(threads) = runtime.threads() else { return };
    for thread in threads.threads.iter().take(MANY) {
        for (frame, code) in runtime.stack(thread).managed().take(MANY) {
            let _ = (runtime.source_of_code(code, frame.at()), runtime.source_of(frame.ip, true));
            let _ = runtime.native_variables(code);
        }
    }
}

fn variables(runtime: &Runtime<'_>) {
    let Ok(threads) = runtime.threads() else { return };
    for thread in threads.threads.iter().take(MANY) {
        let stack = runtime.stack_with_registers(thread);
        for (frame, context) in stack.frames.iter().zip(&stack.contexts).take(MANY) {
            let _ = runtime.variables(frame, context);
        }
    }
}

fn exceptions(runtime: &Runtime<'_>) {
    let Ok(threads) = runtime.threads() else { return };
    for thread in threads.threads.iter().take(MANY) {
        for object in thread.exceptions.into_iter().chain([thread.last_thrown]) {
            let _ = runtime.exception(object);
        }
    }
}

/// Asks one kind of question, or all. Whether there was a runtime to ask.
fn ask(target: &dyn Target, only: Option<usize>) -> bool {
    let Ok(runtime) = Runtime::open(target) else { return false };
    for (_, question) in
        QUESTIONS.iter().enumerate().filter(|(i, _)| only.is_none_or(|only| only == *i)).map(|q| q.1)
    {
        question(&runtime);
    }
    true
}

/// The words that each kind of question reads and none before it did.
fn places(target: &dyn Target) -> Vec<Vec<u64>> {
    let mut known = HashSet::new();
    let new = |i: usize| {
        let noting = Watched::noting(target);
        assert!(ask(&noting, Some(i)));
        noting.places().into_iter().filter(|place| known.insert(*place)).collect()
    };
    (0..QUESTIONS.len()).map(new).collect()
}

/// Where objects begin, and the word behind: for some of them a length.
fn objects(target: &dyn Target) -> Vec<u64> {
    let runtime = Runtime::open(target).unwrap();
    let mut places = Vec::new();
    let segments = &runtime.objects_heap().unwrap().segments;
    let walked = runtime.walk_all(segments, &Progress::new(), |_, object| {
        places.extend([object.address, object.address + 8]);
        ControlFlow::Continue(())
    });
    assert!(walked.is_ok() && !places.is_empty());
    places
}

/// Damages `cases` times what is in a core. `first` is the seed of the first case.
fn hostile(path: &Path, first: u64, cases: u64, watchdog: &Watchdog, failures: &mut Vec<String>) -> u64 {
    let core = Core::open(path).unwrap();
    let target = WithFiles::new(core, FileOptions::default());
    let places = places(&target);
    let objects = objects(&target);
    for ((name, _), places) in QUESTIONS.iter().zip(&places) {
        // The last object is reached by what was read before.
        let few = if *name == "exceptions" { 0 } else { 2 };
        assert!(places.len() >= few, "{}: {name} read {} new words", path.display(), places.len());
    }
    // Where the heap is said to be anywhere, every word of the core may be looked at by each question about it.
    let words: u64 = target.ranges().iter().map(|range| (range.end - range.start) / 8).sum();
    let limit = 12 * words + 1_000_000;
    let mut opened = 0;
    for seed in first..first + cases {
        if number("DND_HOSTILE_SEED").is_some_and(|only| only != seed) {
            continue;
        }
        watchdog.begin(seed);
        let mut numbers = Numbers(seed);
        let mut damaged = Patched::new(&target);
        let kinds: Vec<usize> = (0..places.len()).filter(|&kind| !places[kind].is_empty()).collect();
        let kind = numbers.of(&kinds);
        for _ in 0..1 + numbers.below(4) {
            let places = match numbers.below(8) {
                0 => &places[0],
                1 => &objects,
                _ => &places[kind],
            };
            damage(&mut damaged, &mut numbers, places);
        }
        let watched = Watched::new(&damaged, limit);
        // Damage to what everything stands on is for everyone to see, other damage at least for its own question.
        let only = (kind > 0 && !numbers.next().is_multiple_of(4)).then_some(kind);
        match catch_unwind(AssertUnwindSafe(|| ask(&watched, only))) {
            Ok(open) => opened += u64::from(open),
            Err(_) => failures.push(format!("{seed}: panic ({})", path.display())),
        }
        if watched.asked() >= limit {
            failures.push(format!(
                "{seed}: {} reads, {limit} are plenty ({})",
                watched.asked(),
                path.display()
            ));
        }
    }
    opened
}

/// Tries each core with its share of the cases. `number` tells the tests' seeds apart.
fn try_all(cores: &[PathBuf], which: u64, share: u64) {
    // An allocation that believes a damaged size ends this process instead of the machine.
    let pid = std::process::id().to_string();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let now = status.lines().find_map(|line| line.strip_prefix("VmData:")?.trim().strip_suffix(" kB"));
    let limit = format!("--data={}", now.unwrap().parse::<u64>().unwrap() * 1024 + MEMORY);
    let limited = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(limited.is_ok_and(|status| status.success()));
    let watchdog = Watchdog::new();
    let cases = number("DND_HOSTILE_CASES").unwrap_or(3500) * share / 100 / cores.len().max(1) as u64;
    let mut failures = Vec::new();
    let mut opened = 0;
    for (core, path) in (0..).zip(cores) {
        opened += hostile(path, (which + core) * 1_000_000, cases, &watchdog, &mut failures);
    }
    watchdog.end();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
    // Damage that always prevents the opening would test little.
    let all = cases * cores.len() as u64;
    assert!(
        number("DND_HOSTILE_SEED").is_some() || opened > all / 3,
        "only {opened} of {all} runtimes opened"
    );
}

#[test]
fn any_damage_to_a_runtime_of_each_version_ends_in_an_answer_or_an_error() {
    let spec = CoreSpec::with_args(&["100", "10"]);
    let cores: Vec<PathBuf> =
        one_per_major().iter().map(|runtime| core(runtime, "Leak", &spec).path()).collect();
    assert!(!cores.is_empty());
    try_all(&cores, 0, 50);
}

#[test]
fn any_damage_to_busy_runtimes_ends_in_an_answer_or_an_error() {
    let server = CoreSpec { server_gc: true, ..CoreSpec::with_args(&["1000", "100"]) };
    let mut cores: Vec<PathBuf> =
        one_per_major().last().map(|runtime| core(runtime, "Leak", &server).path()).into_iter().collect();
    let arena = ("MALLOC_ARENA_MAX".to_owned(), "1".to_owned());
    let stacks = CoreSpec { env: vec![arena], ..CoreSpec::default() };
    cores.extend(one_per_major().first().map(|runtime| core(runtime, "Stacks", &stacks).path()));
    cores.extend(one_per_major().last().map(|runtime| core(runtime, "Stacks", &stacks).path()));
    // Locks, sync blocks, handles of all kinds.
    cores.extend(one_per_major().get(1).map(|runtime| core(runtime, "Shapes", &CoreSpec::default()).path()));
    let shared = shared_cores();
    cores.extend(shared.iter().filter(|core| core.name.contains("busy")).map(|core| core.path.clone()));
    try_all(&cores, 100, 50);
}

#[test]
fn a_type_that_claims_to_be_one_of_many() {
    // The rows of types beyond 65,534 are looked for in the map of their module. Before .NET 9 only.
    for runtime in one_per_major() {
        let core = Core::open(&core(&runtime, "Leak", &CoreSpec::with_args(&["100", "10"])).path()).unwrap();
        let target = WithFiles::new(core, FileOptions::default());
        let sound = Runtime::open(&target).unwrap();
        let table = tables(&sound)[0];
        let module = sound.method_table(table).unwrap().module(&target, sound.layout()).unwrap();
        let mut damaged = Patched::new(&target);
        damaged.write(table + 10, &[0xff; 2]);
        damaged.write(module + sound.layout().module.type_def_map + 16, &[0xff; 4]);
        let watched = Watched::new(&damaged, u64::MAX);
        let runtime = Runtime::open(&watched).unwrap();
        let claims = runtime.method_table(table).unwrap();
        let before = watched.asked();
        let row = runtime.definition_row(&claims, module);
        let asked = watched.asked() - before;
        assert!(asked < 1000, "{asked} reads of {}", sound.layout().major);
        assert!(sound.layout().method_table.wide_token || row.is_none());
    }
}
