//! Managed stacks and stack roots against Microsoft's own library: every frame (instruction pointer, stack pointer,
//! method, name), every explicit frame, every slot, on real cores of every runtime at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use dnd_clr::stack::{ExplicitKind, FrameKind, Reference, ReferenceSlot, Stack};
use dnd_clr::threads::Thread;
use dnd_clr::{Progress, Root, RootKind, Runtime, StackRoots};
use dnd_memory::{Core as CoreFile, FileOptions, WithFiles};
use dnd_testkit::{
    By, Core, CoreSpec, Dnd, Kind, core, crash_core, kernel_cores, must, one_per_major, oracle_for, runtime,
    runtimes, shared_core, single_files, skip,
};
use serde_json::Value;

use super::DND;

/// (instruction pointer, stack pointer, method, name)
type Managed = (u64, u64, u64, String);
/// (place, value, interior, pinned, instruction pointer)
type Slot = (String, u64, bool, bool, u64);

fn with_runtime<T>(path: &Path, files: bool, then: impl FnOnce(&Runtime<'_>) -> T) -> T {
    let core = must(CoreFile::open(path), path.display());
    // Cores of gdb hold nothing that an assembly could be held against.
    let options = FileOptions { local: files, unchecked: files, ..FileOptions::default() };
    let target = WithFiles::new(core, options);
    then(&must(Runtime::open(&target), path.display()))
}

fn managed(runtime: &Runtime<'_>, stack: &Stack) -> Vec<Managed> {
    let row = |(frame, code): (&dnd_clr::stack::Frame, &dnd_clr::code::Code)| {
        (frame.ip, frame.sp, code.method, runtime.method_name(code.method))
    };
    stack.managed().map(row).collect()
}

fn explicit(stack: &Stack) -> Vec<(u64, String)> {
    let row = |frame: &dnd_clr::stack::Frame| match frame.kind {
        FrameKind::Explicit { kind, address, .. } => Some((address, kind.name().to_owned())),
        _ => None,
    };
    stack.frames.iter().filter_map(row).collect()
}

fn hex(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or("0").trim_start_matches("0x");
    must(u64::from_str_radix(text, 16), value)
}

fn threads(answer: &Value) -> BTreeMap<u32, &Value> {
    let rows = answer.as_array().unwrap_or_else(|| panic!("no answer: {answer}"));
    let id = |row: &Value| row["os_id"].as_u64().unwrap_or(0) as u32;
    rows.iter().map(|row| (id(row), row)).filter(|(id, _)| *id != 0).collect()
}

fn their_frames(row: &Value) -> (Vec<Managed>, Vec<(u64, String)>) {
    let (mut frames, mut explicit) = (Vec::new(), Vec::new());
    for frame in row["frames"].as_array().into_iter().flatten() {
        let name = |key: &str| frame[key].as_str().unwrap_or_default().to_owned();
        match frame["kind"].as_str() {
            Some("managed") => {
                frames.push((
                    hex(&frame["ip"]),
                    hex(&frame["sp"]),
                    hex(&frame["method_desc"]),
                    name("method"),
                ));
            }
            Some("frame") => explicit.push((hex(&frame["frame"]), name("frame_name"))),
            _ => {}
        }
    }
    (frames, explicit)
}

fn their_slots(row: &Value) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::new();
    for slot in row["references"].as_array().into_iter().flatten() {
        let place = match hex(&slot["address"]) {
            0 => slot["register"].as_str().unwrap_or("?").to_owned(),
            address => format!("{address:x}"),
        };
        let flag = |key: &str| slot[key].as_bool().unwrap_or(false);
        slots.push((place, hex(&slot["object"]), flag("interior"), flag("pinned"), hex(&slot["source"])));
    }
    slots.sort();
    slots
}

/// What the DAC does not list: references of native code since 5, what keeps running code, arguments of calls that
/// have not begun.
fn unlisted(major: u8, reference: &Reference) -> bool {
    let native = major >= 5 && reference.slot == ReferenceSlot::Explicit(ExplicitKind::GCFrame);
    native || reference.slot == ReferenceSlot::Code || reference.conservative
}

fn our_slots(major: u8, references: &[Reference]) -> Vec<Slot> {
    let row = |r: &Reference| {
        let place = if r.address == 0 { r.slot.to_string() } else { format!("{:x}", r.address) };
        (place, r.value, r.interior, r.pinned, r.ip)
    };
    let mut slots: Vec<Slot> = references.iter().filter(|r| !unlisted(major, r)).map(row).collect();
    slots.sort();
    slots
}

/// Which differences a core may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Threads {
    /// All threads wait: none.
    Wait,
    /// Some run. Where one stands in native code that has pushed no explicit frame, the DAC sees less of its stack; where
    /// it was stopped by the runtime, it does not list what the method that has just returned gave back.
    Run,
}

struct Compared {
    frames: usize,
    slots: usize,
}

fn compare(what: &str, path: &Path, stacks: &Value, roots: Option<&Value>, how: Threads) -> Compared {
    with_runtime(path, true, |runtime| {
        let major = runtime.major();
        let stacks = threads(stacks);
        let roots = roots.map(threads);
        let mut compared = Compared { frames: 0, slots: 0 };
        for (&id, row) in &stacks {
            let thread = runtime.thread_by_os_id(id).unwrap_or_else(|| panic!("{what}: no thread {id}"));
            let stack = runtime.stack(thread);
            let (frames, chain) = their_frames(row);
            let ours = managed(runtime, &stack);
            compared.frames += frames.len();
            let sees_less = how == Threads::Run && frames.len() < ours.len() && is_within(&frames, &ours);
            if !sees_less {
                assert_eq!(ours, frames, "{what}: thread {id}, ends at {}", stack.end);
                assert_eq!(explicit(&stack), chain, "{what}: thread {id}");
                assert!(stack.end.is_complete(), "{what}: thread {id} ends at {}", stack.end);
            }
            let Some(row) = roots.as_ref().and_then(|roots| roots.get(&id)) else { continue };
            compared.slots +=
                compare_slots(what, runtime, thread, row, major, sees_less || how == Threads::Run);
        }
        compared
    })
}

/// The rows of `part`, in order, among those of `all`.
fn is_within<T: PartialEq>(part: &[T], all: &[T]) -> bool {
    let mut all = all.iter();
    part.iter().all(|row| all.any(|other| other == row))
}

fn compare_slots(
    what: &str,
    runtime: &Runtime<'_>,
    thread: &Thread,
    row: &Value,
    major: u8,
    more: bool,
) -> usize {
    let found = runtime.stack_references(thread);
    let id = thread.os_id;
    assert!(more || found.problem.is_none(), "{what}: thread {id}: {:?}", found.problem);
    let theirs = their_slots(row);
    let count = theirs.len();
    if major == 9 && takes_handler_for_unwound(runtime, thread, &theirs) {
        // Now and then the DAC of 9 takes a handler and all that it has called for unwound, and gives the slots of the
        // handler's method for the method's own frame instead.
        let ours: BTreeSet<(String, u64)> =
            our_slots(major, &found.references).into_iter().map(|slot| (slot.0, slot.1)).collect();
        // At the place where a method's own frame threw, other slots may be live than in the handler.
        let stack = runtime.stack(thread);
        let own: BTreeSet<u64> = stack
            .managed()
            .skip_while(|(_, code)| !code.funclet)
            .skip(1)
            .map(|(frame, _)| frame.ip)
            .collect();
        assert!(
            theirs.iter().all(|slot| own.contains(&slot.4) || ours.contains(&(slot.0.clone(), slot.1))),
            "{what}: thread {id}: {theirs:x?}"
        );
        return count;
    }
    let mut ours = our_slots(major, &found.references);
    let mut left = Vec::new();
    for slot in theirs {
        let same = |other: &Slot| {
            // The DAC of 3.1 gives the object that an inner pointer points into.
            let value = other.1 == slot.1 || major < 5 && slot.2;
            value && (&other.0, other.2, other.3, other.4) == (&slot.0, slot.2, slot.3, slot.4)
        };
        match ours.iter().position(same) {
            Some(index) => drop(ours.swap_remove(index)),
            None => left.push(slot),
        }
    }
    // Arguments of a call that has not begun: the DAC knows the signature, we take all that are objects.
    left.retain(|slot| {
        !found.references.iter().any(|r| r.conservative && format!("{:x}", r.address) == slot.0)
    });
    if more {
        ours.clear();
    }
    if major < 5 {
        // The DAC of 3.1 knows no registers of frames behind a HelperMethodFrame.
        ours.retain(|slot| slot.0.starts_with(|c: char| c.is_ascii_digit()) || !slot.0.starts_with('r'));
    }
    assert!(
        left.is_empty() && ours.is_empty(),
        "{what}: thread {id}: only the DAC {left:x?}, only we {ours:x?}"
    );
    count
}

/// Whether the slots are none of those of the frames up to the innermost handler.
fn takes_handler_for_unwound(runtime: &Runtime<'_>, thread: &Thread, theirs: &[Slot]) -> bool {
    let stack = runtime.stack(thread);
    let handler = stack.managed().position(|(_, code)| code.funclet);
    let inner: Vec<u64> =
        stack.managed().take(handler.map_or(0, |i| i + 1)).map(|(frame, _)| frame.ip).collect();
    handler.is_some() && theirs.iter().all(|slot| !inner.contains(&slot.4))
}

fn against_oracle(what: &str, core: &Core, roots: bool, how: Threads) -> Option<Compared> {
    against(what, core, None, roots, how)
}

/// The same with another library than the one beside the runtime.
fn against(what: &str, core: &Core, dac: Option<&Path>, roots: bool, how: Threads) -> Option<Compared> {
    let stacks = oracle_for(&core.path(), dac, &["stacks"])?;
    let roots = if roots { Some(oracle_for(&core.path(), dac, &["roots"])?) } else { None };
    let roots = roots.as_ref().map(|roots| &roots["roots"]);
    Some(compare(what, &core.path(), &stacks["stacks"], roots, how))
}

fn stacks_app(version: &dnd_testkit::Runtime, mode: &str) -> Core {
    let arena = ("MALLOC_ARENA_MAX".to_owned(), "1".to_owned());
    let args = if mode.is_empty() { vec![] } else { vec![mode.to_owned()] };
    core(version, "Stacks", &CoreSpec { args, env: vec![arena], ..CoreSpec::default() })
}

#[test]
fn every_kind_of_place_that_a_thread_can_wait_at() {
    for runtime in runtimes() {
        let core = stacks_app(&runtime, "");
        let what = format!("Stacks on {} waiting", runtime.version);
        let Some(compared) = against_oracle(&what, &core, true, Threads::Wait) else { return };
        assert!(compared.frames > 250 && compared.slots > 500, "{what}: {} frames", compared.frames);
    }
}

#[test]
fn exceptions_that_are_handled_inside_of_others() {
    for runtime in runtimes() {
        let core = stacks_app(&runtime, "");
        // A catch, a finally and a filter each, inside a catch or finally of another exception.
        let nested = with_runtime(&core.path(), true, |runtime| {
            let threads = must(runtime.threads(), "threads");
            let handled = |thread: &Thread| thread.exceptions.iter().filter(|&&object| object != 0).count();
            threads.threads.iter().filter(|thread| handled(thread) == 2).count()
        });
        assert!(nested >= 3, "{}: {nested} threads handle two exceptions", runtime.version);
    }
}

#[test]
fn threads_inside_exception_filters() {
    for runtime in one_per_major() {
        let core = stacks_app(&runtime, "filters");
        let what = format!("Stacks on {} in filters", runtime.version);
        // The DAC of 10 dies on the roots of such a thread.
        let roots = runtime.major() < 10;
        if !roots {
            skip("stack roots of threads inside filters on .NET 10: Microsoft's own library dies on them");
        }
        let Some(compared) = against_oracle(&what, &core, roots, Threads::Wait) else { return };
        assert!(compared.frames > 20, "{what}: {} frames", compared.frames);
    }
}

#[test]
fn threads_that_run() {
    for runtime in one_per_major() {
        let core = stacks_app(&runtime, "busy");
        let what = format!("Stacks on {} running", runtime.version);
        let Some(compared) = against_oracle(&what, &core, true, Threads::Run) else { continue };
        assert!(compared.frames > 250, "{what}: {} frames", compared.frames);
    }
}

#[test]
fn threads_that_throw() {
    for runtime in one_per_major() {
        let core = stacks_app(&runtime, "throwing");
        let what = format!("Stacks on {} throwing", runtime.version);
        // Where an exception is on its way, the DAC's slots are at times none, at times those of frames that are gone, and
        // that of 10 dies.
        if against_oracle(&what, &core, false, Threads::Run).is_none() {
            return;
        }
        with_runtime(&core.path(), true, |runtime| {
            let progress = Progress::new();
            let exact = must(runtime.exact_stack_roots(&progress), &what);
            for root in exact.roots.iter().filter(|root| !root.is_conservative()) {
                must(runtime.object(root.object), format_args!("{what}: {root:x?}"));
            }
        });
    }
}

#[test]
fn every_gc_and_writer() {
    let specs = [
        CoreSpec::default(),
        CoreSpec { server_gc: true, ..CoreSpec::default() },
        CoreSpec { kind: Kind::Full, ..CoreSpec::default() },
        CoreSpec { by: By::Gcore, ..CoreSpec::default() },
        CoreSpec { segments: true, ..CoreSpec::default() },
        CoreSpec { by: By::Kernel, kind: Kind::Heap, ..CoreSpec::default() },
        CoreSpec { by: By::Kernel, kind: Kind::Full, ..CoreSpec::default() },
    ];
    let kernel = kernel_cores();
    for runtime in one_per_major() {
        for spec in &specs {
            if spec.segments && runtime.major() < 8 || spec.by == By::Kernel && !kernel {
                continue;
            }
            let core = core(&runtime, "Shapes", spec);
            let what = format!("Shapes on {} {spec:?}", runtime.version);
            let Some(compared) = against_oracle(&what, &core, true, Threads::Wait) else { return };
            assert!(compared.frames > 50 && compared.slots > 300, "{what}: {} slots", compared.slots);
        }
    }
}

/// What a dump without the heap is for.
#[test]
fn dumps_of_the_stacks_alone() {
    for runtime in runtimes() {
        for kind in [Kind::Mini, Kind::Triage] {
            let core = core(&runtime, "Shapes", &CoreSpec { kind, ..CoreSpec::default() });
            let what = format!("Shapes on {} {kind:?}", runtime.version);
            let Some(compared) = against_oracle(&what, &core, false, Threads::Wait) else { return };
            assert!(compared.frames > 50, "{what}: {} frames", compared.frames);
        }
    }
}

#[test]
fn programs_in_a_single_file() {
    for program in single_files().into_iter().filter(|program| !program.native_aot()) {
        let version = program.name.rsplit('-').next().unwrap_or_default();
        let Some(framework) = runtime(version) else { continue };
        let dac = framework.framework().join("libmscordaccore.so");
        for by in [By::Createdump, By::Gcore] {
            let Some(core) = program.core(by) else { continue };
            let what = format!("{} {by:?}", program.name);
            let Some(compared) = against(&what, &core, Some(&dac), true, Threads::Wait) else { return };
            assert!(compared.frames > 0, "{what}: {} frames", compared.frames);
        }
    }
}

#[test]
fn threads_that_died() {
    for runtime in one_per_major() {
        for end in ["throw", "failfast", "segv"] {
            let core = crash_core(&runtime, "Stacks", end);
            let what = format!("Stacks on {} {end}", runtime.version);
            // The DAC of 10 dies on the roots of a thread with an unhandled exception.
            let roots = runtime.major() < 10 || end != "throw";
            if against_oracle(&what, &core, roots, Threads::Wait).is_none() {
                return;
            }
        }
    }
}

#[test]
fn a_stack_overflow() {
    // The runtimes of 9 write no dump of it; Microsoft's library sees nothing of the thread on 3.1.
    for version in ["3.1.23", "8.0.33"] {
        let Some(runtime) = runtime(version) else { continue };
        let core = crash_core(&runtime, "Stacks", "overflow");
        with_runtime(&core.path(), true, |runtime| {
            let main = runtime.thread_by_os_id(core.pid).expect("the main thread");
            let stack = runtime.stack(main);
            let frames: Vec<_> = stack.managed().collect();
            let names: BTreeSet<String> = frames
                .iter()
                .map(|(_, code)| code.method)
                .collect::<BTreeSet<u64>>()
                .into_iter()
                .map(|m| runtime.method_name(m))
                .collect();
            assert!(
                frames.len() > 100_000 && stack.end.is_complete(),
                "{version}: {} {}",
                frames.len(),
                stack.end
            );
            let expected =
                ["Stacks.Program.Main(System.String[])", "Stacks.Program.Overflow(Stacks.Node, Int64)"];
            assert_eq!(names, expected.map(str::to_owned).into(), "{version}");
            // The explicit frames of the handler and the frame of Main, from which it is known that nothing is missing.
            assert_eq!(runtime.method_name(frames[frames.len() - 1].1.method), expected[0], "{version}");
        });
    }
}

/// What ClrMD said on the target: THREAD, FRAME (sp, ip, kind, frame, method), SROOT (address, object, flags, ...).
#[derive(Default)]
struct Listed {
    managed: Vec<(u64, u64, String)>,
    explicit: Vec<(u64, String)>,
    slots: BTreeSet<(u64, u64)>,
}

fn listed(path: &Path) -> BTreeMap<u32, Listed> {
    let text = must(fs::read_to_string(path), path.display());
    let mut threads: BTreeMap<u32, Listed> = BTreeMap::new();
    let mut current = 0;
    for line in text.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        let address = |i: usize| must(u64::from_str_radix(words[i], 16), line);
        let thread = threads.entry(current).or_default();
        match words[0] {
            "THREAD" => {
                current = must(words[2].parse(), line);
                threads.entry(current).or_default();
            }
            "FRAME" if words[3] == "ManagedMethod" => {
                thread.managed.push((address(2), address(1), words[5].to_owned()));
            }
            "FRAME" => thread.explicit.push((address(1), words[4].to_owned())),
            "SROOT" => drop(thread.slots.insert((address(1), address(2)))),
            _ => {}
        }
    }
    threads.remove(&0);
    threads
}

#[test]
fn other_processors_and_libraries() {
    for name in [
        "linux-arm64-10.0.12/wks-gc.withheap",
        "linux-arm64-10.0.12/busy.withheap",
        "linux-musl-x64-10.0.12/wks-gc.withheap",
        "linux-musl-x64-10.0.12/busy.withheap",
    ] {
        let Some(core) = shared_core(name) else { continue };
        let expected = listed(&core.oracle.expect("the oracle's answers"));
        with_runtime(&core.path, false, |runtime| {
            let mut slots = 0;
            for (id, listed) in expected {
                let thread = runtime.thread_by_os_id(id).unwrap_or_else(|| panic!("{name}: no thread {id}"));
                let stack = runtime.stack(thread);
                let ours: Vec<_> =
                    managed(runtime, &stack).into_iter().map(|(ip, sp, _, n)| (ip, sp, n)).collect();
                // Where a thread stands in native code without an explicit frame, ClrMD sees none of its frames.
                if !(listed.managed.is_empty() && name.contains("busy")) {
                    assert_eq!(ours, listed.managed, "{name}: thread {id}");
                    assert_eq!(explicit(&stack), listed.explicit, "{name}: thread {id}");
                }
                let found = runtime.stack_references(thread);
                let in_heap =
                    |r: &&Reference| runtime.heap().is_ok_and(|heap| heap.segment_of(r.value).is_some());
                let listed_too = |r: &&Reference| !unlisted(runtime.major(), r);
                let ours: BTreeSet<_> =
                    found.references.iter().filter(in_heap).filter(listed_too).map(|r| r.address).collect();
                if !listed.slots.is_empty() {
                    let theirs: BTreeSet<_> = listed.slots.iter().map(|&(address, _)| address).collect();
                    assert_eq!(ours, theirs, "{name}: thread {id}");
                    slots += theirs.len();
                }
            }
            assert!(slots > 100 || name.contains("busy"), "{name}: {slots} slots");
        });
    }
}

#[test]
fn as_dotnet_dump_printed_them() {
    let Some(core) = shared_core("linux-x64-10.0.14/modern.withheap") else { return };
    let text = must(fs::read_to_string(core.dotnet_dump.expect("its commands")), "modern.dotnet-dump.txt");
    with_runtime(&core.path, true, |runtime| {
        let (frames, slots) = (clrstack_lines(&text), gcroot_slots(&text));
        assert!(frames.len() > 100 && slots.len() > 20, "{} frames, {} slots", frames.len(), slots.len());
        let mut ours = Vec::new();
        for thread in &must(runtime.threads(), "threads").threads {
            let stack = runtime.stack(thread);
            for frame in &stack.frames {
                match frame.kind {
                    FrameKind::Managed(code) => {
                        ours.push((frame.sp, frame.ip, runtime.method_name(code.method)));
                    }
                    FrameKind::Explicit { kind, address, .. } => {
                        ours.push((address, frame.ip, format!("[{}: {address:016x}]", kind.name())));
                    }
                    FrameKind::Native => {}
                }
            }
        }
        assert_eq!(ours, frames);
        let roots = must(runtime.roots(StackRoots::Exact, &Progress::new()), "roots");
        let mut known = BTreeSet::new();
        for Root { address, object, kind } in &roots {
            if let RootKind::Stack { place: Some(place), .. } = kind {
                known.insert((place.sp.0, place.slot.to_string(), *address, *object));
            }
        }
        for slot in slots {
            assert!(known.contains(&slot), "{slot:x?}");
        }
    });
}

/// Lines of `clrstack -all`: (child SP, IP, call site without source).
fn clrstack_lines(text: &str) -> Vec<(u64, u64, String)> {
    let part =
        text.split("\n> clrstack -all\n").nth(1).and_then(|t| t.split("\n> ").next()).expect("clrstack -all");
    let row = |line: &str| {
        let (sp, rest) = line.split_at_checked(16)?;
        let (ip, site) = rest.trim_start().split_at_checked(16)?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        // `Method(...) [/src/File.cs @ 7]`, `[InlinedCallFrame: 00007f…] Method(...)`.
        let site = match site.trim().strip_prefix('[') {
            Some(frame) => format!("[{}]", frame.split_once(']')?.0),
            None => site.split(" [/").next()?.trim().to_owned(),
        };
        Some((number(sp)?, number(ip)?, site))
    };
    part.lines().filter_map(row).collect()
}

/// The stack slots in all `gcroot` answers: (SP, slot, address, object).
fn gcroot_slots(text: &str) -> BTreeSet<(u64, String, u64, u64)> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut slots = BTreeSet::new();
    let mut frame = None;
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.windows(2) {
        let words: Vec<&str> = pair[0].split_whitespace().collect();
        let indent = pair[0].len() - pair[0].trim_start().len();
        match (indent, words.as_slice()) {
            (4, [sp, _, _, ..]) => frame = number(sp),
            (8, [slot, address, ..]) if slot.starts_with("rbp") || slot.starts_with("rsp") => {
                let object = pair[1].split_whitespace().nth(1).and_then(number);
                if let (Some(sp), Some(address), Some(object)) = (frame, number(address), object) {
                    slots.insert((sp, slot.trim_end_matches(':').to_owned(), address, object));
                }
            }
            _ => {}
        }
    }
    slots
}

#[test]
fn exact_roots_are_objects_and_name_what_they_are_in() {
    for version in runtimes() {
        let core = stacks_app(&version, "");
        with_runtime(&core.path(), true, |runtime| {
            let progress = Progress::new();
            let exact = must(runtime.exact_stack_roots(&progress), &version.version);
            assert_eq!(exact.problems, [], "{}", version.version);
            let conservative = must(runtime.roots(StackRoots::Conservative, &progress), &version.version);
            let of_stacks = |root: &&Root| matches!(root.kind, RootKind::Stack { .. });
            let loose: BTreeSet<u64> =
                conservative.iter().filter(of_stacks).map(|root| root.object).collect();
            let mut code = Vec::new();
            for root in &exact.roots {
                let RootKind::Stack { place: Some(place), .. } = &root.kind else { panic!("{root:?}") };
                let object = must(runtime.object(root.object), format_args!("{root:x?}"));
                if place.slot == ReferenceSlot::Code {
                    code.push(runtime.type_name(object.table, dnd_clr::NameStyle::Display));
                } else {
                    // A collector that looked at every word finds all of them.
                    assert!(loose.contains(&root.object), "{}: {root:x?}", version.version);
                }
            }
            code.sort();
            assert_eq!(
                code,
                ["System.Reflection.Emit.DynamicResolver", "System.Reflection.LoaderAllocator"],
                "{}: the DynamicMethod and the collectible assembly whose code runs",
                version.version
            );
            assert!(exact.roots.len() < conservative.iter().filter(of_stacks).count(), "{}", version.version);
        });
    }
}

#[test]
fn a_dump_without_the_tables_says_so() {
    let Some(core) = shared_core("linux-musl-x64-10.0.12/wks-gc.gcore") else { return };
    with_runtime(&core.path, false, |runtime| {
        let exact = must(runtime.exact_stack_roots(&Progress::new()), "roots");
        let said = |problem: &&dnd_clr::stack::StackProblem| problem.reason.contains("are not in the dump");
        assert!(
            exact.problems.len() >= 5 && exact.problems.iter().filter(said).count() == exact.problems.len()
        );
        assert!(exact.roots.iter().any(Root::is_conservative));
    });
}

/// A lock counts its waiting threads even where no stack tells which they are.
#[test]
fn waiting_threads_that_no_stack_shows_are_counted() {
    let Some(core) = shared_core("linux-musl-x64-10.0.12/wks-gc.gcore") else { return };
    let ask = || Dnd::new(DND).args(["dump", "analyze"]).arg(&core.path).args(["-c", "deadlocks"]);
    let output = ask().run();
    let said = "0 deadlocks, 0 threads wait for a lock, 2 more by the locks' own count.\n";
    assert!(output.code == Some(6) && output.stdout.ends_with(said), "{} {}", output.stdout, output.stderr);
    assert!(output.stderr.contains("what their threads wait for is not known"), "{}", output.stderr);
    assert!(output.stderr.contains("so types have no names: --modules FOLDER"), "{}", output.stderr);
    let answer = ask().args(["--json"]).run();
    let answer: Value = must(serde_json::from_str(&answer.stdout), &answer.stderr);
    let unseen = answer["unseen"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(unseen.iter().map(|one| &one["waiters"]).collect::<Vec<_>>(), [1, 1], "{answer}");
}

#[test]
fn a_dump_during_a_collection() {
    let Some(core) = shared_core("linux-x64-10.0.14/mid-gc.withheap") else { return };
    let Some(runtime) = runtime("10.0.14") else { return };
    let dac = runtime.framework().join("libmscordaccore.so");
    let Some(stacks) = oracle_for(&core.path, Some(&dac), &["stacks"]) else { return };
    let Some(roots) = oracle_for(&core.path, Some(&dac), &["roots"]) else { return };
    let compared = compare("mid-gc", &core.path, &stacks["stacks"], Some(&roots["roots"]), Threads::Wait);
    assert!(compared.frames > 60 && compared.slots > 300, "{} slots", compared.slots);
}
