//! Commands of `dump analyze` about threads: stacks, locks, exceptions.

use dnd_testkit::{CoreSpec, core, runtimes};
use serde_json::{Value, json};

use super::analyze::{analyze, ask, named};

#[test]
fn stacks_of_threads() {
    for runtime in runtimes() {
        let core = core(&runtime, "Shapes", &CoreSpec::default());
        let answer = ask(&core, "clrstack -all");
        let stacks = answer["threads"].as_array().expect("threads");
        let truth = core.truth["threads"].as_object().expect("the truth names its threads");
        assert!(truth.len() > 5);
        let calls = |os_id: &Value, method: &str| {
            let stack = stacks.iter().find(|stack| &stack["os_id"] == os_id).expect("a stack");
            assert_eq!(stack["complete"], true, "{}: {stack}", runtime.version);
            let frames = stack["frames"].as_array().expect("frames");
            frames
                .iter()
                .any(|f| f["explicit"].is_null() && f["name"].as_str().is_some_and(|n| n.contains(method)))
        };
        for (name, thread) in truth {
            assert!(calls(&thread["os_id"], "Shapes.Program"), "{}: {name}", runtime.version);
        }
        // What one thread answers is what it answers among all, and the session remembers which one was chosen.
        let id = &truth["holder"]["os_id"];
        assert!(calls(id, "Parked"), "{}", runtime.version);
        let text =
            analyze(&core, &[&format!("setthread -t {id}"), "clrstack", "clrstack -c 1"]).run().success();
        assert_eq!(text.matches("OS Thread Id: ").count(), 2, "{text}");
        assert!(text.contains("Shapes.Program.Parked()") && text.contains("more frames (-c)"), "{text}");
        let wrong = analyze(&core, &["setthread 99999"]).run();
        assert_eq!(wrong.code, Some(3), "{}", wrong.stderr);
    }
}

#[test]
fn locks_and_deadlocks() {
    for runtime in runtimes() {
        let version = &runtime.version;
        let shapes = core(&runtime, "Shapes", &CoreSpec::default());
        let held = ask(&shapes, "syncblk");
        let id = |name: &str| &shapes.truth["threads"][name]["managed_id"];
        for lock in
            shapes.truth["locks"].as_array().expect("locks").iter().filter(|l| l["kind"] == "sync block")
        {
            let blocks = held["blocks"].as_array().expect("blocks");
            let block = blocks.iter().find(|b| b["type"] == lock["object"]).expect("the lock is held");
            assert_eq!(
                &block["owner"]["managed_id"],
                id(lock["owner"].as_str().expect("a name")),
                "{version}"
            );
            assert_eq!(
                (&block["waiters"], &block["recursion"]),
                (&lock["waiters"], &lock["recursion"]),
                "{version}"
            );
        }
        // Waiting alone is no deadlock.
        let answer = ask(&shapes, "deadlocks");
        assert_eq!(answer["cycles"], json!([]), "{version}");
        let waiting = answer["waiting"].as_array().expect("waiting");
        let at_gate =
            |w: &&Value| w["lock"]["type"] == "Shapes.Gate" && &w["lock"]["owner_managed_id"] == id("holder");
        assert_eq!((waiting.len(), waiting.iter().filter(at_gate).count()), (3, 3), "{version}: {answer}");

        let dead = core(&runtime, "Deadlock", &CoreSpec::default());
        let id = |name: &str| &dead.truth["threads"][name];
        let answer = ask(&dead, "deadlocks");
        let cycles = answer["cycles"].as_array().expect("cycles");
        let lock = dead.truth["lock"].as_bool().expect("whether");
        assert_eq!(lock, runtime.major() >= 9);
        assert_eq!(cycles.len(), if lock { 2 } else { 1 }, "{version}: {answer}");
        let member = |name: &str| {
            let found =
                cycles.iter().flat_map(|c| c.as_array().expect("a cycle")).find(|w| &w["os_id"] == id(name));
            found.unwrap_or_else(|| panic!("{version}: {name} is in no cycle: {answer}"))
        };
        let waits = |name: &str, object: &str, owner: &str, method: &str| {
            let one = member(name);
            assert_eq!(
                (&one["lock"]["type"], &one["lock"]["owner_os_id"]),
                (&json!(object), id(owner)),
                "{version}"
            );
            assert!(one["frames"].to_string().contains(method), "{version}: {one}");
        };
        waits("left", "Deadlock.Right", "right", "Deadlock.Program.TakeRight()");
        waits("right", "Deadlock.Left", "left", "Deadlock.Program.TakeLeft()");
        if lock {
            waits("first", "System.Threading.Lock", "second", "System.Threading.Lock.Enter");
            waits("second", "System.Threading.Lock", "first", "System.Threading.Lock.Enter");
        }
        let behind = answer["waiting"].as_array().expect("waiting");
        assert_eq!(behind.len(), 1, "{version}: {answer}");
        assert_eq!(
            (&behind[0]["os_id"], &behind[0]["lock"]["owner_os_id"]),
            (id("behind"), id("left")),
            "{version}"
        );
        let text = analyze(&dead, &["deadlocks"]).run().success();
        assert!(text.starts_with("Deadlock of 2 threads:\n"), "{text}");
    }
}

#[test]
fn exceptions() {
    for runtime in runtimes() {
        let version = &runtime.version;
        let core = core(&runtime, "Shapes", &CoreSpec::default());
        // The chain that the truth tells: each the inner one of the one before it, all thrown by the same thread.
        let truth = core.truth["exceptions"].as_array().expect("exceptions");
        let mut next = named(&core, "exception");
        for (number, wanted) in truth.iter().enumerate() {
            let answer = ask(&core, &format!("printexception {next}"));
            let shown = &answer["exceptions"][0];
            assert_eq!(
                (&shown["type"], &shown["message"]),
                (&wanted["type"], &wanted["message"]),
                "{version}"
            );
            assert!(
                shown["frames"][0]["name"].as_str().expect("a frame").starts_with("Shapes.Program"),
                "{shown}"
            );
            match shown["inner"]["object"].as_str() {
                Some(inner) => inner.clone_into(&mut next),
                None => assert_eq!(number + 1, truth.len(), "{version}: {answer}"),
            }
        }
        let id = &core.truth["threads"]["catcher"]["os_id"];
        let text = analyze(&core, &[&format!("setthread -t {id}"), "pe"]).run().success();
        assert!(text.contains("Exception type:   System.InvalidOperationException"), "{version}: {text}");
        assert!(
            text.contains("InnerException:   Shapes.ShapeException, Use printexception "),
            "{version}: {text}"
        );
        let list = ask(&core, "dumpexceptions -type ShapeException");
        assert_eq!(list["exceptions"].as_array().map(Vec::len), Some(1), "{version}: {list}");
        assert_eq!(list["exceptions"][0]["message"], "in the middle", "{version}");
        analyze(&core, &[&format!("pe {}", named(&core, "closed delegate"))]).run().fails(3);
    }
}
