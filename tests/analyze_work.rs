//! Commands about work that waits, collections and HTTP messages: tests/apps/Work.cs says what there is.

use std::collections::BTreeMap;

use dnd_testkit::{Core, CoreSpec, Dnd, Kind, core, one_per_major, runtimes};
use serde_json::{Value, json};

use super::DND;
use super::asking::{ask, list, show, text};

fn work() -> Vec<(String, Core)> {
    let made = |runtime: dnd_testkit::Runtime| {
        let core = core(&runtime, "Work", &CoreSpec::default());
        (runtime.version.clone(), core)
    };
    runtimes().into_iter().map(made).collect()
}

fn named(core: &Core, name: &str) -> String {
    text(&core.truth["objects"][name]["address"]).to_owned()
}

#[test]
fn stacks_of_async_methods() {
    for (version, core) in work() {
        let answer = ask(&core, "dumpasync");
        let stacks = list(&answer["stacks"]);
        // Two tasks that nothing completes are what everything waits for.
        assert_eq!(stacks.len(), 2, "{version}: {answer}");
        let never = format!("0x{}", named(&core, "never"));
        let source = ask(&core, &format!("dumpobj {never}"));
        let inner = list(&source["fields"])
            .iter()
            .find(|field| field["name"] == "_task" || field["name"] == "m_task");
        let task = &inner.expect("its task")["value"]["value"];
        let frames = list(&stacks[0]["frames"]);
        assert_eq!((&frames[0]["address"], &frames[0]["await_state"]), (task, &Value::Null), "{version}");
        // (depth, await, type) of the others: two chains of the method that awaits itself, the innermost at its first await.
        let rows = |frames: &[Value]| -> Vec<(u64, i64, String)> {
            let row = |frame: &Value| {
                let depth = frame["depth"].as_u64().expect("a depth");
                (depth, frame["await_state"].as_i64().unwrap_or(-9), text(&frame["type"]).to_owned())
            };
            frames.iter().map(row).collect()
        };
        let deep = |depth: u64| (depth, i64::from(depth > 1), "Work.Program+<Deep>d__13".to_owned());
        let mut expected = Vec::new();
        for chain in &list(&core.truth["chains"])[..2] {
            expected.extend((1..=chain.as_u64().expect("a length")).map(deep));
        }
        let found = rows(&frames[1..]);
        let same_type = |rows: Vec<(u64, i64, String)>| -> Vec<(u64, i64, String)> {
            let cut = |name: String| name.split(">d__").next().expect("a name").to_owned();
            rows.into_iter().map(|(depth, state, name)| (depth, state, cut(name))).collect()
        };
        assert_eq!(same_type(found), same_type(expected), "{version}");
        // What waits for two tasks is below each of them.
        let types: Vec<String> =
            rows(list(&stacks[1]["frames"])).into_iter().map(|(_, _, name)| name).collect();
        let both = |name: &&String| name.contains("<Both>d__");
        assert_eq!(types.iter().filter(both).count(), 2, "{version}: {types:?}");
        assert_eq!(types.iter().filter(|name| name.ends_with("+WhenAllPromise")).count(), 2, "{version}");

        // Filters, and the ends of the chains.
        let end = named(&core, "chain of 4");
        let only = ask(&core, &format!("dumpasync --address {end}"));
        assert_eq!(only["stacks"], json!([stacks[0]]), "{version}");
        let none = ask(&core, "dumpasync --type NoSuchType");
        assert_eq!(none["stacks"], json!([]), "{version}");
        let deepest = |frames: &[Value]| frames.iter().map(|frame| frame["depth"].as_u64()).max();
        assert_eq!(deepest(frames), Some(Some(4)), "{version}");
        let counts = ask(&core, "dumpasync --stats");
        let of = |part: &str| {
            let line = list(&counts["types"]).iter().find(|line| text(&line["type"]).contains(part));
            line.map(|line| line["count"].clone())
        };
        assert_eq!((of("<Deep>d__"), of("<Both>d__")), (Some(json!(7)), Some(json!(1))), "{version}");
        let merged = ask(&core, "dumpasync --coalesce");
        assert_eq!(merged["stacks"], json!(2), "{version}");
        let first = &list(&merged["lines"])[0];
        assert_eq!((&first["depth"], &first["count"]), (&json!(0), &json!(2)), "{version}: {merged}");
        // Arguments stand in the fields of the state machine.
        let with_fields = ask(&core, &format!("dumpasync --fields --address {end}"));
        let frames = list(&with_fields["stacks"][0]["frames"]);
        let depth = |frame: &Value| {
            let mut fields = list(&frame["fields"]).iter();
            fields.find(|field| field["name"] == "depth").map(|field| field["value"]["value"].clone())
        };
        let depths: Vec<Value> = frames[1..5].iter().filter_map(depth).collect();
        assert_eq!(depths, [json!(1), json!(2), json!(3), json!(4)], "{version}");
        // Completed ones are there when they are asked for, tasks without a method as well.
        let all = list(&ask(&core, "dumpasync --completed --tasks")["stacks"]).to_vec();
        let roots: Vec<&str> = all.iter().map(|stack| text(&stack["frames"][0]["address"])).collect();
        for name in ["succeeded", "canceled", "faulted", "waiting", "created"] {
            assert!(roots.contains(&&*format!("0x{}", named(&core, name))), "{version}: {name}");
        }
    }
}

#[test]
fn states_of_tasks() {
    for (version, core) in work() {
        for (name, state) in core.truth["states"].as_object().expect("states") {
            let answer = show(&core, &format!("taskstate {}", named(&core, name)));
            assert_eq!(answer, format!("{}\n\n", text(state)), "{version}: {name}");
        }
        assert_eq!(show(&core, "tks -v 33555456"), "WaitingForActivation\n\n", "{version}");
        let wrong = format!("taskstate {}", named(&core, "queue"));
        Dnd::new(DND).args(["dump", "analyze", "-c", &wrong]).arg(core.path()).run().fails(3);
    }
}

#[test]
fn queued_work() {
    for (version, core) in work() {
        let answer = ask(&core, "threadpoolqueue");
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for item in list(&answer["items"]) {
            let name = text(&item["name"]).to_owned();
            let local = name.contains("LocalWork");
            assert_eq!(item["queue"], if local { "local" } else { "global" }, "{version}: {item}");
            assert_eq!(item["task"], name.contains("TaskWork"), "{version}: {item}");
            *counted.entry(name).or_default() += 1;
        }
        let expected = core.truth["queued"].as_object().expect("queued").iter();
        let expected =
            expected.map(|(name, count)| (name.clone(), count.as_u64().expect("a count"))).collect();
        assert_eq!(counted, expected, "{version}");
        let lines = show(&core, "tpq");
        assert!(lines.ends_with("    5 Work  Work.Program.GlobalWork(Object)\n ----\n   10\n"), "{lines}");

        let workers = core.truth["workers"].as_u64().expect("workers");
        let pool = ask(&core, "threadpool -wi -stat");
        let numbers = &pool["portable"];
        if version.starts_with('3') {
            assert_eq!(numbers, &Value::Null);
            assert!(list(&pool["notes"])[0].as_str().is_some_and(|note| note.contains("native")), "{pool}");
        } else {
            // All of them are inside a method that waits, and no more may be made.
            for name in ["running", "total", "min", "max"] {
                assert_eq!(numbers[name].as_u64(), Some(workers), "{version}: {pool}");
            }
            let text = show(&core, "threadpool");
            let line = format!("Workers Running:   {workers}\n");
            assert!(
                text.starts_with("Using the Portable thread pool.\n\n") && text.contains(&line),
                "{text}"
            );
        }
        assert!(pool["worker_threads"].as_u64() >= Some(workers), "{version}: {pool}");
        assert_eq!(list(&pool["items"]).len(), 10, "{version}");
        assert_eq!(pool["statistics"]["total_count"], 10, "{version}");
    }
}

#[test]
fn timers() {
    for (version, core) in work() {
        let answer = ask(&core, "timerinfo");
        let timers = list(&answer["timers"]);
        for (name, wanted) in core.truth["timers"].as_object().expect("timers") {
            let mine: Vec<&Value> = timers.iter().filter(|timer| timer["name"] == **name).collect();
            assert_eq!(json!(mine.len()), wanted["count"], "{version}: {answer}");
            for timer in mine {
                assert_eq!(timer["due_ms"], wanted["due"], "{version}: {timer}");
                let period = if wanted["period"] == -1 { Value::Null } else { wanted["period"].clone() };
                assert_eq!(timer["period_ms"], period, "{version}: {timer}");
                let state = name.contains("Tick").then(|| format!("0x{}", named(&core, "state")));
                assert_eq!(timer["state"].as_str(), state.as_deref(), "{version}: {timer}");
            }
        }
        // And that of Task.Delay.
        let delays = timers.iter().filter(|timer| text(&timer["name"]).contains("DelayPromise"));
        assert_eq!(
            delays.map(|timer| timer["due_ms"].clone()).collect::<Vec<_>>(),
            [json!(5_400_000)],
            "{version}"
        );
        let lines = show(&core, "ti");
        let same = "   3 | @ 3600000 ms every  7200000 ms |  (Work.Item) -> Work.Program.Tick(Object)\n";
        assert!(lines.ends_with(same), "{version}: {lines}");
    }
}

#[test]
fn what_collections_hold() {
    for (version, core) in work() {
        let at = |command: &str, name: &str| ask(&core, &format!("{command} {}", named(&core, name)));
        let number_of = |item: &Value| {
            let object = ask(&core, &format!("dumpobj {}", text(&item["value"]["address"])));
            let fields = list(&object["fields"]).to_vec();
            fields.iter().find(|field| field["name"] == "Number").expect("a number")["value"]["value"].clone()
        };
        let answer = at("dumpconcurrentdictionary", "dictionary");
        let items = list(&answer["items"]);
        let found: BTreeMap<String, Value> = items
            .iter()
            .map(|pair| (text(&pair["key"]["value"]).to_owned(), number_of(&pair["value"])))
            .collect();
        assert_eq!(json!(found), core.truth["dictionary"], "{version}");
        let answer = at("dcd", "numbers by number");
        let found: BTreeMap<i64, i64> = list(&answer["items"])
            .iter()
            .map(|pair| {
                (
                    pair["key"]["value"].as_i64().expect("a key"),
                    pair["value"]["value"].as_i64().expect("a value"),
                )
            })
            .collect();
        assert_eq!(found, (0..100).map(|number| (number, number * 1000)).collect(), "{version}");
        let answer = at("dcd", "pairs");
        let value = &list(&answer["items"])[0]["value"];
        assert_eq!(value["kind"], "struct", "{version}");
        let (mt, address) = (text(&value["value"]["mt"]), text(&value["value"]["address"]));
        let pair = ask(&core, &format!("dumpvc {mt} {address}"));
        assert!(
            list(&pair["fields"]).iter().any(|field| field["name"] == "Left" && field["value"]["value"] == 7)
        );
        assert_eq!(at("dcd", "empty dictionary")["items"], json!([]), "{version}");

        let texts = |answer: &Value| -> Vec<Value> {
            list(&answer["items"]).iter().map(|item| item["value"].clone()).collect()
        };
        assert_eq!(json!(texts(&at("dumpconcurrentqueue", "queue"))), core.truth["queue"], "{version}");
        // Of several segments, of which the first is begun.
        let many = texts(&at("dcq", "many"));
        assert_eq!(many, (25..125).map(|number| json!(number)).collect::<Vec<_>>(), "{version}");
        let items = at("dcq", "items");
        assert_eq!(number_of(&list(&items["items"])[0]), json!(1), "{version}");
        assert_eq!(list(&items["items"])[1]["kind"], "null", "{version}");
        assert_eq!(at("dcq", "empty queue")["items"], json!([]), "{version}");
        assert!(
            show(&core, &format!("dcq {}", named(&core, "queue"))).contains("\n   3 - third\n"),
            "{version}"
        );
        // Each refuses the other's, and says what it is.
        let wrong = format!("dcd {}", named(&core, "queue"));
        let output = Dnd::new(DND).args(["dump", "analyze", "-c", &wrong]).arg(core.path()).run();
        assert!(output.stderr.contains("is not a ConcurrentDictionary but an instance of System.Collections.Concurrent.ConcurrentQueue<System.String>"));
    }
}

#[test]
fn http_messages() {
    for (version, core) in work() {
        if core.truth["http"] == false {
            continue;
        }
        let rows = |command: &str| {
            let answer = ask(&core, command);
            let row = |one: &Value| json!([one["address"], one["method"], one["status"], one["uri"]]);
            list(&answer["requests"]).iter().map(row).collect::<Vec<_>>()
        };
        let pending = json!([
            format!("0x{}", named(&core, "pending")),
            "GET",
            null,
            "http://example.com/pending?page=1"
        ]);
        let answered =
            json!([format!("0x{}", named(&core, "answered")), "POST", 404, "https://example.org/answered"]);
        assert_eq!(rows("dumphttp"), [pending.clone(), answered.clone()], "{version}");
        for (command, expected) in [
            ("dumphttp --pending", vec![&pending]),
            ("dumphttp --completed", vec![&answered]),
            ("dumphttp --uri example.com", vec![&pending]),
            ("dumphttp --statuscode 404", vec![&answered]),
            ("dumphttp --statuscode 200", vec![]),
        ] {
            assert_eq!(rows(command).iter().collect::<Vec<_>>(), expected, "{version}: {command}");
        }
        let stats = show(&core, "dumphttp --stats");
        assert!(stats.contains("             1 POST           404 example.org\n"), "{stats}");
    }
}

#[test]
fn dumps_without_the_heap_say_so() {
    for runtime in one_per_major() {
        let core =
            core(&runtime, "Leak", &CoreSpec { kind: Kind::Mini, ..CoreSpec::with_args(&["1000", "100"]) });
        for command in ["dumpasync", "threadpool", "tpq", "timerinfo", "dumphttp"] {
            let output = Dnd::new(DND).args(["dump", "analyze", "-c", command]).arg(core.path()).run();
            let what = format!("{} {command}: {} {}", runtime.version, output.stdout, output.stderr);
            assert!(
                output.code == Some(6) && output.stdout.is_empty() && output.stderr.contains("heap"),
                "{what}"
            );
        }
    }
}
