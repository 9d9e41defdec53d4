//! Commands about stacks, on cores of every runtime: merged stacks, objects on stacks.

use std::collections::{BTreeMap, BTreeSet};

use dnd_testkit::{Core, CoreSpec, Dnd, Kind, core, oracle, runtimes};
use serde_json::Value;

use super::DND;
use super::asking::{list, number};

fn analyze(core: &Core, commands: &[&str]) -> Dnd {
    let dnd = Dnd::new(DND).args(["dump", "analyze"]).arg(core.path());
    commands.iter().fold(dnd, |dnd, command| dnd.args(["-c", command]))
}

/// The answer to the last of some commands, as JSON.
fn ask(core: &Core, commands: &[&str]) -> Value {
    let output = analyze(core, commands).args(["--json"]).run().success();
    let last = output.lines().last().expect("an answer");
    let answer: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(answer["version"], 1, "{answer}");
    answer
}

/// A method's own name without type, arguments and parameters.
fn simple(method: &str) -> String {
    let mut depth = 0u32;
    let outside = method.chars().filter(|&c| {
        let inside = depth > 0 || c == '[';
        depth = depth + u32::from(c == '[') - u32::from(c == ']' && depth > 0);
        !inside
    });
    let name: String = outside.collect();
    let name = name.split('(').next().expect("a name");
    name.rsplit('.').next().expect("a name").to_owned()
}

fn waiting(runtime: &dnd_testkit::Runtime) -> Core {
    let env = vec![("MALLOC_ARENA_MAX".to_owned(), "1".to_owned())];
    core(runtime, "Stacks", &CoreSpec { env, ..CoreSpec::default() })
}

/// Methods of each thread, innermost first, as the oracle lists them.
fn their_methods(answer: &Value) -> BTreeMap<u64, Vec<String>> {
    let frames = |row: &Value| -> Vec<String> {
        let managed = list(&row["frames"]).iter().filter(|frame| frame["kind"] == "managed");
        managed.map(|frame| simple(frame["method"].as_str().unwrap_or_default())).collect()
    };
    let rows = list(&answer["stacks"]).iter().map(|row| (number(&row["os_id"]), frames(row)));
    rows.filter(|(id, frames)| *id != 0 && !frames.is_empty()).collect()
}

/// The same out of the groups of merged stacks.
fn our_methods(answer: &Value) -> BTreeMap<u64, Vec<String>> {
    let groups = list(&answer["groups"]);
    let mut methods = BTreeMap::new();
    for group in groups {
        for thread in list(&group["threads"]) {
            let mut frames = Vec::new();
            let mut at = Some(group);
            while let Some(group) = at {
                let names = list(&group["frames"]).iter().map(|name| simple(name.as_str().expect("a name")));
                frames.extend(names);
                at = group["parent"].as_u64().map(|parent| &groups[parent as usize]);
            }
            assert!(methods.insert(number(thread), frames).is_none(), "thread {thread} ends twice");
        }
    }
    methods
}

#[test]
fn merged_stacks_hold_every_frame_of_every_thread() {
    for runtime in runtimes() {
        let core = waiting(&runtime);
        let answer = ask(&core, &["pstacks"]);
        let ours = our_methods(&answer);
        assert_eq!(number(&answer["threads"]) as usize, ours.len(), "{}", runtime.version);
        // A group counts those that end in it and in what branches off.
        let groups = list(&answer["groups"]);
        for (number_of, group) in groups.iter().enumerate() {
            let branches = groups.iter().filter(|other| other["parent"].as_u64() == Some(number_of as u64));
            let below: u64 = branches.map(|branch| number(&branch["count"])).sum();
            assert_eq!(number(&group["count"]), below + list(&group["threads"]).len() as u64);
        }
        let Some(theirs) = oracle(&core, &["stacks"]) else { continue };
        assert_eq!(ours, their_methods(&theirs), "{}", runtime.version);
        assert!(ours.len() > 20, "{}: {} threads", runtime.version, ours.len());
    }
}

#[test]
fn stacks_of_small_dumps_are_merged_too() {
    for runtime in runtimes() {
        let args = vec!["1000".to_owned(), "100".to_owned()];
        for kind in [Kind::Mini, Kind::Triage] {
            let core = core(&runtime, "Leak", &CoreSpec { kind, args: args.clone(), ..CoreSpec::default() });
            let output = analyze(&core, &["pstacks"]).run();
            let what = format!("{} {kind:?}: {} {}", runtime.version, output.stdout, output.stderr);
            assert!(output.stdout.contains("==> ") && [Some(0), Some(6)].contains(&output.code), "{what}");
            assert!(output.code == Some(0) || output.stderr.contains("incomplete"), "{what}");
            // There is no heap in them, and this is said.
            let output = analyze(&core, &["dso"]).run();
            assert!(output.code == Some(6) && output.stderr.contains("heap"), "{what}");
        }
    }
}

/// (place on the stack, object) of an answer, registers and inner references aside.
fn words(answer: &Value) -> BTreeSet<(String, String)> {
    let rows = list(&answer["objects"]).iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    rows.filter(|row| row["interior"] == false && row["address"] != "0x0")
        .map(|row| (text(&row["address"]), text(&row["object"])))
        .collect()
}

#[test]
fn objects_on_stacks_are_those_of_the_oracle() {
    for runtime in runtimes() {
        let core = core(&runtime, "Shapes", &CoreSpec::default());
        let Some(theirs) = oracle(&core, &["roots"]) else { continue };
        let mut slots = 0;
        for row in list(&theirs["roots"]) {
            let id = number(&row["os_id"]);
            if id == 0 {
                continue;
            }
            let choose = format!("setthread -t {id}");
            let exact = ask(&core, &[&choose, "dso"]);
            assert_eq!((number(&exact["os_id"]), &exact["conservative"]), (id, &Value::Bool(false)));
            let place = |row: &Value| {
                let text = |key: &str| row[key].as_str().unwrap_or("0x0").to_owned();
                (text("address"), text("object"))
            };
            let theirs: BTreeSet<(String, String)> = list(&row["references"])
                .iter()
                .filter(|slot| slot["interior"] != true && slot["object"] != "0x0")
                .map(place)
                .filter(|(address, _)| address != "0x0")
                .collect();
            // The DAC does not list what native code protects.
            let mut ours = words(&exact);
            let native = |row: &&Value| row["slot"] == "GCFrame" || row["conservative"] == true;
            if runtime.major() >= 5 {
                let native: BTreeSet<_> = list(&exact["objects"]).iter().filter(native).map(place).collect();
                ours.retain(|place| !native.contains(place));
            }
            if runtime.major() == 9 {
                // Now and then the DAC of 9 takes a handler, and all that it has called, for unwound.
                assert!(ours.is_superset(&theirs), "{}: thread {id}: {ours:?} {theirs:?}", runtime.version);
            } else {
                assert_eq!(ours, theirs, "{}: thread {id}", runtime.version);
            }
            slots += theirs.len();
            // Every word that is the address of an object: all of these, and more.
            let loose = words(&ask(&core, &[&choose, "dso -conservative"]));
            assert!(loose.is_superset(&theirs), "{}: thread {id}", runtime.version);
        }
        assert!(slots > 50, "{}: {slots}", runtime.version);
    }
}

#[test]
fn objects_on_a_part_of_a_stack() {
    for runtime in runtimes() {
        let core = core(&runtime, "Shapes", &CoreSpec::default());
        let all = words(&ask(&core, &["dso -conservative"]));
        let places: BTreeSet<u64> = all
            .iter()
            .map(|(at, _)| u64::from_str_radix(at.trim_start_matches("0x"), 16).expect("hexadecimal"))
            .collect();
        let (from, to) = (places.iter().nth(3).expect("four"), places.iter().nth(9).expect("ten"));
        let part = words(&ask(&core, &[&format!("dumpstackobjects -conservative {from:x} {to:x}")]));
        assert_eq!(part.len(), 6, "{}", runtime.version);
        assert!(part.is_subset(&all));
        // On a heap without damage nothing is dropped.
        assert_eq!(words(&ask(&core, &["dso -conservative -verify"])), all, "{}", runtime.version);
    }
}

fn hex(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().expect("an address").trim_start_matches("0x"), 16)
        .expect("hexadecimal")
}

#[test]
fn held_locks_row_by_row() {
    for runtime in runtimes() {
        for (app, rows) in [("Shapes", 1), ("Deadlock", 2)] {
            let core = core(&runtime, app, &CoreSpec::default());
            let Some(theirs) = oracle(&core, &["syncblocks"]) else { return };
            let theirs = &theirs["syncblocks"];
            let threads = ask(&core, &["threads"]);
            let index = |id: &Value| {
                let mut threads = list(&threads["threads"]).iter();
                number(&threads.find(|thread| thread["os_id"] == *id).expect("the owner")["index"])
            };
            let row = |held: &Value| {
                format!(
                    "{:>5} {:016X}  {:>11} {:>9} {:016X} {:x}{:>4}   {:016x} {}",
                    number(&held["index"]),
                    hex(&held["sync_block"]),
                    number(&held["monitor_held"]),
                    number(&held["recursion"]),
                    hex(&held["owner_thread"]),
                    number(&held["owner_os_id"]),
                    index(&held["owner_os_id"]),
                    hex(&held["object"]),
                    held["object_type"].as_str().expect("a type"),
                )
            };
            let mut expected = vec![
                "Index         SyncBlock MonitorHeld Recursion Owning Thread Info          SyncBlock Owner"
                    .to_owned(),
            ];
            expected.extend(list(&theirs["held"]).iter().map(row));
            assert!(expected.len() > rows, "{} {app}", runtime.version);
            let in_use = list(&theirs["in_use"]).len() as u64;
            expected.push("-----------------------------".to_owned());
            expected.push(format!("{:<16}{}", "Total", number(&theirs["count"])));
            expected.push(format!("{:<16}{}", "Free", number(&theirs["count"]) - in_use));
            let ours = analyze(&core, &["syncblk"]).run().success();
            assert_eq!(ours.lines().collect::<Vec<_>>(), expected, "{} {app}", runtime.version);
        }
    }
}
