//! Managed stacks and stack roots against Microsoft's own library: every frame (instruction pointer, stack pointer,
//! method, name), every explicit frame, every slot, on real cores of every runtime at hand.

mod printed;
mod truth;

use std::collections::BTreeSet;
use std::fs;

use dnd_clr::stack::{FrameKind, Reference, ReferenceSlot};
use dnd_clr::threads::Thread;
use dnd_clr::{Progress, Root, RootKind, StackRoots};
use dnd_testkit::{
    By, Core, CoreSpec, Dnd, Kind, core, crash_core, kernel_cores, must, one_per_major, oracle_for, runtime,
    runtimes, shared_core, shared_cores, single_file_cores, skip,
};
use serde_json::Value;

use self::printed::{clrstack_lines, gcroot_slots, listed};
use self::truth::{Threads, against, against_oracle, compare, explicit, managed, unlisted, with_runtime};
use super::DND;

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
    for (what, core, dac) in single_file_cores() {
        let Some(compared) = against(&what, &core, Some(&dac), true, Threads::Wait) else { return };
        assert!(compared.frames > 0, "{what}: {} frames", compared.frames);
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

/// arm64, whose library was asked on that processor.
#[test]
fn stacks_of_another_processor() {
    let mut compared = 0;
    for core in shared_cores() {
        let Some(truth) = &core.dac else { continue };
        let found = compare(&core.name, &core.path, &truth["stacks"], Some(&truth["roots"]), Threads::Wait);
        assert!(found.frames > 30, "{}: {} frames", core.name, found.frames);
        compared += 1;
    }
    assert!(compared > 0);
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

/// For .NET 9 on arm64 there is no library to ask.
#[test]
fn roots_of_net_9_on_arm64_are_objects() {
    let Some(core) = shared_core("linux-arm64-9.0.9/vsce-sign.full") else { return };
    with_runtime(&core.path, false, |runtime| {
        let progress = Progress::new();
        let exact = must(runtime.exact_stack_roots(&progress), &core.name);
        assert_eq!(exact.problems, []);
        assert!(exact.roots.len() > 50, "{} roots", exact.roots.len());
        for root in &exact.roots {
            must(runtime.object(root.object), format_args!("{root:x?}"));
        }
    });
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
