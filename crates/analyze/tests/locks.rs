//! Deadlocks over locks that count no waiting thread: in objects' headers, and where a wait has only just begun. Real
//! deadlocks, whose locks are rewritten to what they were a moment before.

#[path = "../../clr/tests/support/mod.rs"]
mod support;

use dnd_analyze::{Format, Session};
use dnd_clr::{Progress, Runtime};
use dnd_memory::{Core, FileOptions, Memory, Target, WithFiles};
use dnd_testkit::{CoreSpec, core, one_per_major};
use serde_json::{Value, json};
use support::Patched;

fn ask(target: &dyn Target, command: &str, format: Format) -> String {
    let runtime = Runtime::open(target).expect("a runtime");
    let progress = Progress::new();
    let session = Session::new(&runtime, &progress);
    let mut out = Vec::new();
    let answer = session.run(command, &mut out, format);
    assert!(answer.result.is_ok(), "{command}: {answer:?}");
    String::from_utf8(out).expect("text")
}

fn json(target: &dyn Target, command: &str) -> Value {
    serde_json::from_str(&ask(target, command, Format::Json)).expect("JSON")
}

fn address(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().expect("an address").trim_start_matches("0x"), 16)
        .expect("hexadecimal")
}

/// The threads of the deadlock over monitors: (thread, object, owner).
fn ring(answer: &Value) -> Vec<(u64, u64, u64)> {
    let number = |value: &Value| value.as_u64().expect("a number");
    let cycles = answer["cycles"].as_array().expect("cycles").iter();
    let monitors = cycles.flat_map(|cycle| cycle.as_array().expect("a cycle"));
    let monitors = monitors.filter(|waiter| waiter["lock"]["kind"] != "lock");
    let row = |waiter: &Value| {
        let lock = &waiter["lock"];
        (number(&waiter["os_id"]), address(&lock["object"]), number(&lock["owner_os_id"]))
    };
    monitors.map(row).collect()
}

#[test]
fn locks_without_counted_waiters_are_found_and_marked() {
    for version in one_per_major() {
        let core = core(&version, "Deadlock", &CoreSpec::default());
        let core = Core::open(&core.path()).expect("a core");
        let target = WithFiles::new(core, FileOptions::default());
        let certain = json(&target, "deadlocks");
        let expected = ring(&certain);
        assert_eq!(expected.len(), 2, "{}: {certain}", version.version);
        let blocks = json(&target, "syncblk");
        let of = |object: u64| {
            let mut blocks = blocks["blocks"].as_array().expect("blocks").iter();
            blocks.find(|block| address(&block["object"]) == object).expect("its sync block").clone()
        };
        let all = |answer: &Value, kind: &str| {
            let cycles = answer["cycles"].as_array().expect("cycles").iter();
            let waiters = cycles.flat_map(|cycle| cycle.as_array().expect("a cycle"));
            let waiters: Vec<&Value> = waiters.filter(|waiter| waiter["lock"]["kind"] == kind).collect();
            assert_eq!(waiters.len(), 2, "{}: {answer}", version.version);
            assert!(waiters.iter().all(|waiter| waiter["lock"]["certain"] == false), "{answer}");
        };
        // Held, and nobody counted yet.
        let mut begun = Patched::new(&target);
        for (_, object, _) in &expected {
            let block = address(&of(*object)["sync_block"]);
            let state = begun.u32(block).expect("its state");
            assert!(state & 1 == 1 && state >> 6 > 0, "held and waited for: {state:x}");
            begun.write(block, &1u32.to_le_bytes());
        }
        let answer = json(&begun, "deadlocks");
        assert_eq!(ring(&answer), expected, "{}: {answer}", version.version);
        all(&answer, "monitor");
        // Not held by the sync block, but by the header.
        let mut thin = Patched::new(&target);
        for (_, object, _) in &expected {
            let block = of(*object);
            thin.write(address(&block["sync_block"]), &0u32.to_le_bytes());
            let id = block["owner"]["managed_id"].as_u64().expect("an id") as u32;
            thin.write(object - 4, &id.to_le_bytes());
        }
        let answer = json(&thin, "deadlocks");
        assert_eq!(ring(&answer), expected, "{}: {answer}", version.version);
        all(&answer, "thin-lock");
        let text = ask(&thin, "deadlocks", Format::Text);
        assert!(text.contains("Deadlock of 2 threads:\n"), "{text}");
        assert_eq!(text.matches(" holds (probably)\n").count(), 3, "{}: {text}", version.version);
        let text = ask(&target, "deadlocks", Format::Text);
        assert!(!text.contains("(probably)"), "{text}");
        let waiting = certain["waiting"][0]["lock"]["certain"].clone();
        assert_eq!(waiting, json!(true), "{}", version.version);
    }
}
