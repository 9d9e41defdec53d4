//! Hostile memory: whatever the bytes of the runtime's structures are, every question ends, with an answer, a part of
//! one, or an error; within a bounded number of reads and a bounded memory, and never with a panic.
//!
//! `DND_HOSTILE_CASES=20000 cargo test -p dnd-clr --test hostile` tries more, `DND_HOSTILE_SEED=N` one case again.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod support;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};

use dnd_clr::{NameStyle, Progress, Runtime, StackRoots};
use dnd_memory::{Core, FileOptions, Target, WithFiles};
use dnd_testkit::{CoreSpec, DEADLINE, core, one_per_major, shared_cores};
use support::Patched;
use support::damage::{Numbers, Watched, damage, number};

/// Asks for what everything else stands on.
fn ask_the_frame(target: &dyn Target) {
    let Ok(runtime) = Runtime::open(target) else { return };
    let _ =
        (runtime.heap(), runtime.threads(), runtime.modules(), runtime.handles(), runtime.finalizer_queues());
}

/// Asks everything that can be asked. What the answers are doesn't matter here.
fn ask_everything(target: &dyn Target) {
    let Ok(runtime) = Runtime::open(target) else { return };
    let progress = Progress::new();
    let _ = runtime.version();
    if let Ok(modules) = runtime.modules() {
        for module in modules.iter().take(4) {
            let _ = runtime.type_def_tables(module.address).take(64).count();
        }
    }
    if let Ok(heap) = runtime.objects_heap() {
        let counted = runtime.count(&heap.segments, 1, &progress);
        for slot in counted.iter().flat_map(|counted| &counted.types).take(300) {
            let _ = runtime.type_name(slot.table, NameStyle::Runtime);
            let Ok(table) = runtime.method_table(slot.table) else { continue };
            let fields = runtime.fields(&table).unwrap_or_default();
            let _ = fields.iter().filter_map(|field| runtime.field_type(&table, field)).count();
            let _ = runtime.method_count(&table);
            let _ = runtime.statics_start(&table);
            for method in runtime.type_methods(&table).unwrap_or_default().iter().take(8) {
                let _ = runtime.method_name(method.method.address);
                let _ = (runtime.code_versions(&method.method), runtime.il_address(&method.method));
            }
        }
        let mut last = 0;
        for segment in heap.segments.iter().take(64) {
            let _ = runtime.walk(segment, &progress, |object| {
                last = object.address;
                ControlFlow::Continue(())
            });
        }
        if let Ok(roots) = runtime.roots(StackRoots::Conservative, &progress) {
            let _ = runtime.reached(&roots, &progress, |reached| reached.contains(last));
            let _ = runtime.paths_to(last, &roots, &progress);
        }
        if let Ok(exact) = runtime.exact_stack_roots(&progress) {
            let _ = runtime.reached(&exact.roots, &progress, |reached| reached.contains(last));
        }
        let _ = runtime.find_object(last.wrapping_add(8), &progress);
        let _ = runtime.closure_of(last, &progress, |reached| reached.contains(last));
    }
    let _ = runtime.handles();
    let _ = runtime.finalizer_queues();
    let _ = runtime.sync_blocks();
    if let Ok(threads) = runtime.threads() {
        for thread in threads.threads.iter().take(64) {
            let _ = runtime.exception(thread.last_thrown);
            let stack = runtime.stack(thread);
            for (frame, code) in stack.managed().take(64) {
                let _ = runtime.method_name(code.method);
                let _ = (runtime.source_of_code(code, frame.at()), runtime.source_of(frame.ip, true));
                let _ = runtime.native_variables(code);
            }
            let with_registers = runtime.stack_with_registers(thread);
            for (frame, context) in with_registers.frames.iter().zip(&with_registers.contexts).take(64) {
                let _ = runtime.variables(frame, context);
            }
            let _ = runtime.stack_references(thread);
        }
    }
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

/// Small cores of every kind of runtime.
fn cores() -> Vec<PathBuf> {
    let spec = CoreSpec::with_args(&["100", "10"]);
    let mut all: Vec<PathBuf> =
        one_per_major().iter().map(|runtime| core(runtime, "Leak", &spec).path()).collect();
    let server = CoreSpec { server_gc: true, ..CoreSpec::with_args(&["1000", "100"]) };
    all.extend(one_per_major().last().map(|runtime| core(runtime, "Leak", &server).path()));
    let shared = shared_cores();
    all.extend(shared.iter().filter(|shared| shared.name.contains("busy")).map(|shared| shared.path.clone()));
    all
}

#[test]
fn any_damage_of_the_runtimes_structures_ends_in_an_answer_or_an_error() {
    // First of all, since the programs of which cores may have to be made need more than the limit allows.
    let cores = cores();
    // An allocation that believes a damaged size ends this process instead of the machine.
    let limit = format!("--as={}", 6u64 << 30);
    let pid = std::process::id().to_string();
    assert!(
        Command::new("prlimit").args(["--pid", &pid, &limit]).status().is_ok_and(|status| status.success())
    );
    // A case without an end ends the test, with its seed.
    let (running, watched) = channel::<Option<u64>>();
    let watchdog = std::thread::spawn(move || {
        let mut now = None;
        loop {
            match watched.recv_timeout(DEADLINE) {
                Ok(Some(seed)) => now = Some(seed),
                Ok(None) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("case {now:?} does not end");
                    std::process::abort();
                }
            }
        }
    });
    let cases = number("DND_HOSTILE_CASES").unwrap_or(3500);
    let only = number("DND_HOSTILE_SEED");
    let mut failures = Vec::new();
    let mut opened = 0;
    for (which, path) in cores.iter().enumerate() {
        let core = Core::open(path).unwrap();
        let target = WithFiles::new(core, FileOptions::default());
        let noting = Watched::noting(&target);
        ask_the_frame(&noting);
        let frame = noting.places();
        ask_everything(&noting);
        let all = noting.places();
        let objects = objects(&target);
        // Where the heap is said to be anywhere, every word of the core may be looked at by each question about it.
        let words: u64 = target.ranges().iter().map(|range| (range.end - range.start) / 8).sum();
        let limit = 12 * words + 1_000_000;
        assert!(frame.len() > 500 && all.len() > frame.len(), "{}: nothing was read", path.display());
        let share = cases / cores.len() as u64;
        for case in 0..share {
            let seed = which as u64 * 1_000_000 + case;
            if only.is_some_and(|only| only != seed) {
                continue;
            }
            running.send(Some(seed)).unwrap();
            let mut numbers = Numbers(seed);
            let mut damaged = Patched::new(&target);
            for _ in 0..1 + numbers.below(4) {
                let places = match numbers.below(8) {
                    0..4 => &frame,
                    4..7 => &all,
                    _ => &objects,
                };
                damage(&mut damaged, &mut numbers, places);
            }
            let watched = Watched::new(&damaged, limit);
            let ended = catch_unwind(AssertUnwindSafe(|| {
                opened += u64::from(Runtime::open(&watched).is_ok());
                ask_everything(&watched);
            }));
            if ended.is_err() {
                failures.push(format!("{seed}: panic ({})", path.display()));
            }
            if watched.asked() >= limit {
                failures.push(format!(
                    "{seed}: {} reads, {limit} are plenty ({})",
                    watched.asked(),
                    path.display()
                ));
            }
        }
    }
    running.send(None).unwrap();
    assert!(watchdog.join().is_ok());
    assert!(failures.is_empty(), "{} of {cases} cases failed:\n{}", failures.len(), failures.join("\n"));
    // Damage that always prevents the opening would test little.
    assert!(only.is_some() || opened > cases / 3, "only {opened} of {cases} damaged runtimes were opened");
    assert!(!cores.is_empty());
}
