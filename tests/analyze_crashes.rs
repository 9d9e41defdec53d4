//! `crashinfo` on cores of programs that ended in a known way.

use std::collections::BTreeSet;

use dnd_testkit::{Core, CoreSpec, Dnd, Kind, core, crash_core, one_per_major, oracle, runtime};
use serde_json::{Value, json};

use super::DND;

fn crash(core: &Core) -> Value {
    Dnd::new(DND).args(["dump", "analyze", "--json", "-c", "crashinfo"]).arg(core.path()).run().json()
}

fn names(answer: &Value) -> Vec<&str> {
    let frames = answer["frames"].as_array().expect("frames").iter();
    frames.filter(|frame| frame["explicit"].is_null()).filter_map(|frame| frame["name"].as_str()).collect()
}

#[test]
fn an_exception_that_nobody_catches() {
    for runtime in one_per_major() {
        let core = crash_core(&runtime, "Stacks", "throw");
        let answer = crash(&core);
        let what = format!("{}: {answer}", runtime.version);
        // createdump of 3.1 marks all threads alike.
        let recorded = runtime.major() > 3;
        assert_eq!(answer["reason"], "unhandled-exception", "{what}");
        assert_eq!(answer["certain"], recorded, "{what}");
        assert_eq!(answer["signal"]["number"], if recorded { json!(6) } else { Value::Null }, "{what}");
        assert_eq!(answer["exception"]["type"], "System.InvalidOperationException", "{what}");
        assert_eq!(answer["exception"]["message"], "through", "{what}");
        assert_eq!(answer["exception"]["hresult"], 0x8013_1509_u32, "{what}");
        let thrown = answer["exception"]["frames"][0]["name"].as_str().expect("a frame");
        assert_eq!(thrown, "Stacks.Program.Throw(System.String)", "{what}");
        assert!(answer["file"].as_str().is_some_and(|file| file.contains("libc")), "{what}");
        // The thread is the one with the exception.
        let threads =
            Dnd::new(DND).args(["dump", "analyze", "-c", "clrthreads"]).arg(core.path()).run().success();
        let id = answer["thread"]["os_id"].as_u64().expect("a thread");
        let line = threads.lines().find(|line| line.contains(&format!(" {id:>8x} "))).expect("the thread");
        assert!(line.contains("System.InvalidOperationException"), "{line}");
        let text =
            Dnd::new(DND).args(["dump", "analyze", "-c", "crashinfo"]).arg(core.path()).run().success();
        let reason = if recorded { "nobody catches" } else { "nobody catches (probably)" };
        assert_eq!(text.lines().next(), Some(&*format!("CrashReason:        an exception that {reason}")));
        assert!(text.contains("Message:          through\n"), "{text}");
    }
}

#[test]
fn fail_fast_and_its_message() {
    for runtime in one_per_major() {
        let answer = crash(&crash_core(&runtime, "Stacks", "failfast"));
        let what = format!("{}: {answer}", runtime.version);
        assert_eq!((&answer["reason"], &answer["certain"]), (&json!("fail-fast"), &json!(true)), "{what}");
        assert_eq!(answer["message"], "on purpose", "{what}");
        // The exception that the runtime keeps for this tells nothing.
        assert_eq!(answer["exception"], Value::Null, "{what}");
        assert!(names(&answer).contains(&"Stacks.Program.Main(System.String[])"), "{what}");
    }
}

#[test]
fn a_fault_in_native_code() {
    for runtime in one_per_major() {
        let core = crash_core(&runtime, "Stacks", "segv");
        if runtime.major() == 3 {
            // Nothing in it tells of the signal.
            let output = Dnd::new(DND).args(["dump", "analyze", "-c", "crashinfo"]).arg(core.path()).run();
            assert!(output.stderr.contains("there is no crash in this dump: it names no signal"));
            continue;
        }
        let answer = crash(&core);
        let what = format!("{}: {answer}", runtime.version);
        assert_eq!((&answer["reason"], &answer["certain"]), (&json!("fault"), &json!(true)), "{what}");
        assert_eq!(answer["signal"]["name"], "SIGSEGV", "{what}");
        // The program writes to address 8.
        assert_eq!(answer["signal"]["fault_address"], "0x8", "{what}");
        assert_eq!(names(&answer).first(), Some(&"Stacks.Program.Main(System.String[])"), "{what}");
    }
}

#[test]
fn a_stack_overflow() {
    // The runtimes of 9 write no dump of it.
    for version in ["3.1.23", "8.0.33"] {
        let Some(runtime) = runtime(version) else { continue };
        let answer = crash(&crash_core(&runtime, "Stacks", "overflow"));
        let what = format!("{version}: {}", answer["reason"]);
        assert_eq!(answer["reason"], "stack-overflow", "{what}");
        assert_eq!(answer["certain"], runtime.major() > 3, "{what}");
        assert!(answer["left_out"].as_u64().is_some_and(|more| more > 100_000), "{what}");
        let frames = names(&answer);
        assert!(frames.len() > 50, "{what}");
        assert!(frames.iter().all(|name| *name == "Stacks.Program.Overflow(Stacks.Node, Int64)"), "{what}");
    }
}

#[test]
fn a_running_process_has_not_crashed() {
    for runtime in one_per_major() {
        let args = vec!["1000".to_owned(), "100".to_owned()];
        for kind in [Kind::Heap, Kind::Mini] {
            let core = core(&runtime, "Leak", &CoreSpec { args: args.clone(), kind, ..CoreSpec::default() });
            let output = Dnd::new(DND).args(["dump", "analyze", "-c", "crashinfo"]).arg(core.path()).run();
            let what = format!("{} {kind:?}: {}", runtime.version, output.stderr);
            assert!(output.code != Some(0) && output.stdout.is_empty(), "{what}");
            assert!(output.stderr.contains("there is no crash in this dump"), "{what}");
        }
    }
}

/// Addresses in the list of an answer.
fn objects(core: &Core, command: &str, list: &str) -> BTreeSet<String> {
    let answer =
        Dnd::new(DND).args(["dump", "analyze", "--json", "-c", command]).arg(core.path()).run().json();
    let key = if list == "exceptions" { "object" } else { "address" };
    let rows = answer[list].as_array().unwrap_or_else(|| panic!("{command}: {answer}")).iter();
    rows.map(|row| row[key].as_str().expect("an address").to_owned()).collect()
}

#[test]
fn exceptions_by_life_and_generation() {
    for runtime in one_per_major() {
        let version = &runtime.version;
        let core = core(&runtime, "Shapes", &CoreSpec::default());
        let all = objects(&core, "dumpexceptions", "exceptions");
        if let Some(theirs) = oracle(&core, &["exceptions"]) {
            let theirs = theirs["exceptions"]["objects"].as_array().expect("exceptions").iter();
            let theirs: BTreeSet<String> =
                theirs.map(|row| row["object"].as_str().expect("an address").to_owned()).collect();
            assert_eq!(all, theirs, "{version}");
        }
        let live = objects(&core, "dumpexceptions -live", "exceptions");
        let dead = objects(&core, "DumpExceptions -dead", "exceptions");
        assert_eq!(live.union(&dead).cloned().collect::<BTreeSet<_>>(), all, "{version}");
        assert!(live.is_disjoint(&dead) && !live.is_empty(), "{version}");
        let lives = objects(&core, "dumpheap -live -type Exception", "objects");
        assert_eq!(lives.intersection(&all).cloned().collect::<BTreeSet<_>>(), live, "{version}");
        let mut by_generation = 0;
        for generation in ["gen0", "gen1", "gen2", "loh", "poh", "foh"] {
            let ours = objects(&core, &format!("dumpexceptions -gen {generation}"), "exceptions");
            let heap = objects(&core, &format!("dumpheap -gen {generation} -type Exception"), "objects");
            assert_eq!(heap.intersection(&all).cloned().collect::<BTreeSet<_>>(), ours, "{version}");
            by_generation += ours.len();
        }
        assert_eq!(by_generation, all.len(), "{version}");
        let output = Dnd::new(DND).args(["dump", "analyze", "-c", "dumpexceptions -live -dead"]);
        output.arg(core.path()).run().fails(2);
    }
}
