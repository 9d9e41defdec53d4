//! `dump analyze` on cores of real processes, whose objects are known by construction, and on files that are no cores.

use std::fs;

use dnd_testkit::{Core, CoreSpec, Dnd, Kind, Runtime, core, must, one_per_major, runtimes, shared_core};
use serde_json::{Value, json};

use super::DND;

pub(super) fn analyze(core: &Core, commands: &[&str]) -> Dnd {
    commands
        .iter()
        .fold(Dnd::new(DND).args(["dump", "analyze"]).arg(core.path()), |dnd, c| dnd.args(["-c", c]))
}

/// The answer to one command, as JSON.
pub(super) fn ask(core: &Core, command: &str) -> Value {
    let answer = analyze(core, &[command]).args(["--json"]).run().json();
    let name = command.split(' ').next().expect("a name");
    assert!(
        answer["schema"].as_str().is_some_and(|s| s.starts_with(&format!("dnd.analyze.{name}"))),
        "{answer}"
    );
    assert_eq!(answer["version"], if name == "eeheap" { 2 } else { 1 });
    answer
}

/// Objects of a type in the statistics of an answer.
fn count(answer: &Value, name: &str) -> u64 {
    let types = answer["statistics"]["types"].as_array().expect("types");
    types.iter().filter(|t| t["type"] == name).map(|t| t["count"].as_u64().expect("a count")).sum()
}

pub(super) fn leak(runtime: &Runtime, spec: CoreSpec) -> Core {
    core(runtime, "Leak", &CoreSpec { args: vec!["1000".to_owned(), "100".to_owned()], ..spec })
}

/// The object that the truth of Shapes names.
pub(super) fn named(core: &Core, name: &str) -> String {
    core.truth["objects"][name]["address"].as_str().expect("an address").to_owned()
}

#[test]
fn the_walk_to_a_leak() {
    for runtime in runtimes() {
        for spec in [CoreSpec::default(), CoreSpec { server_gc: true, ..CoreSpec::default() }] {
            let core = leak(&runtime, spec);
            let version = &runtime.version;
            let stat = analyze(&core, &["dumpheap -stat"]).run().success();
            let line = stat.lines().find(|l| l.ends_with(" Shop.Order")).expect("orders are counted");
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words[1], "1,000", "{version}: {line}");
            let rows = analyze(&core, &[&format!("dumpheap -mt {}", words[0])]).run().success();
            let order = rows.lines().nth(500).and_then(|row| row.split_whitespace().next()).expect("a row");
            let root = analyze(&core, &[&format!("gcroot -all {order}")]).run().success();
            assert!(
                root.contains("List<Shop.Order> (static variable: Shop.OrderCache.Recent)"),
                "{version}: {root}"
            );
            // What the event keeps: the feed is in a static field, too.
            let listeners = ask(&core, "dumpheap -type Shop.PriceListener");
            assert_eq!(count(&listeners, "Shop.PriceListener"), 100, "{version}");
            let listener = listeners["objects"][7]["address"].as_str().expect("an address");
            let root = ask(&core, &format!("gcroot -nostacks {listener}"));
            let text = root["roots"].to_string();
            assert!(text.contains("Shop.Program.feed"), "{version}: {text}");
            let step = |name: &str| text.contains(&format!("\"field\":\"{name}\""));
            assert!(step("Changed") && step("_invocationList") && step("_target"), "{version}: {text}");
        }
    }
}

#[test]
fn every_kind_of_dump_of_it_says_the_same() {
    for runtime in one_per_major() {
        let heap = ask(&leak(&runtime, CoreSpec::default()), "dumpheap -stat");
        let full =
            ask(&leak(&runtime, CoreSpec { kind: Kind::Full, ..CoreSpec::default() }), "dumpheap -stat");
        for name in ["Shop.Order", "Shop.PriceListener", "Shop.PriceFeed"] {
            assert!(count(&heap, name) > 0, "{}: {name}", runtime.version);
            assert_eq!(count(&heap, name), count(&full, name), "{}: {name}", runtime.version);
        }
    }
}

#[test]
fn filters_of_dumpheap() {
    for runtime in one_per_major() {
        let core = leak(&runtime, CoreSpec::default());
        let all = ask(&core, "dumpheap -stat");
        let total = |answer: &Value| answer["statistics"]["total_count"].as_u64().expect("a total");
        // What is live and what is dead is everything; so are the generations.
        let (live, dead) = (ask(&core, "dumpheap -live -stat"), ask(&core, "dumpheap -dead -stat"));
        assert_eq!(total(&live) + total(&dead), total(&all), "{}", runtime.version);
        assert_eq!(count(&live, "Shop.Order"), 1000, "{}", runtime.version);
        let generations = ["gen0", "gen1", "gen2", "loh", "poh", "foh"];
        let sum: u64 =
            generations.iter().map(|g| total(&ask(&core, &format!("dumpheap -gen {g} -stat")))).sum();
        assert_eq!(sum, total(&all), "{}", runtime.version);
        // Documents are arrays of 1000 bytes; nothing else has their size.
        let documents = ask(&core, "dumpheap -stat -type System.Byte[] -min 1000 -max 1100");
        assert!(count(&documents, "System.Byte[]") >= 1000, "{}", runtime.version);
        assert_eq!(documents["statistics"]["types"].as_array().map(Vec::len), Some(1));
        // A range of addresses, with an end and with a length.
        let orders = ask(&core, "dumpheap -type Shop.Order");
        let listed: Vec<&str> = orders["objects"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|o| o["address"].as_str())
            .collect();
        let (from, to) = (listed[10], listed[20]);
        let range = ask(&core, &format!("dumpheap -type Shop.Order {from} {to}"));
        assert_eq!(range["objects"].as_array().expect("a list").len(), 10, "{}", runtime.version);
        let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hex");
        let length = format!("dumpheap -type Shop.Order {from} L{:x}", hex(to) - hex(from));
        assert_eq!(ask(&core, &length)["objects"], range["objects"], "{}", runtime.version);
        // Strings by text; each customer has a name of its own.
        let strings = ask(&core, "dumpheap -strings -stat");
        let customers = strings["strings"].as_array().expect("strings").iter();
        let customers = customers.filter(|s| s["text"].as_str().is_some_and(|t| t.starts_with("customer ")));
        assert!(customers.clone().all(|s| s["count"] == 1), "{}", runtime.version);
        assert_eq!(customers.filter(|s| s["text"] != "customer ").count(), 1000, "{}", runtime.version);
        // Addresses alone.
        let short = analyze(&core, &["dumpheap -short -type Shop.Order"]).run().success();
        assert_eq!(
            short.lines().map(hex).collect::<Vec<_>>(),
            listed.iter().map(|a| hex(a)).collect::<Vec<_>>()
        );
    }
}

#[test]
fn one_of_everything() {
    for runtime in runtimes() {
        let core = core(&runtime, "Shapes", &CoreSpec::default());
        let version = &runtime.version;
        let heap = ask(&core, "dumpheap -stat");
        for (name, number) in core.truth["types"].as_object().expect("types") {
            assert_eq!(json!(count(&heap, name)), *number, "{version}: {name}");
        }
        for (name, generation) in core.truth["generations"].as_object().expect("generations") {
            let answer = ask(&core, &format!("dumpheap -type {name} -gen {generation} -stat"));
            assert_eq!(json!(count(&answer, name)), core.truth["types"][name], "{version}: {name}");
        }
        // Each of these is kept by one root only, of a known kind.
        for (name, kind) in core.truth["roots"].as_object().expect("roots") {
            if core.truth["objects"][name].is_null() {
                continue;
            }
            let answer = ask(&core, &format!("gcroot {}", named(&core, name)));
            let roots = answer["roots"].as_array().expect("roots");
            let exact: Vec<&Value> = roots.iter().filter(|r| r["conservative"] != true).collect();
            let of_kind = |kind: &str| exact.iter().any(|r| r["kind"] == kind);
            let handle = |kind: &str| exact.iter().any(|r| r["kind"] == "handle" && r["handle"] == kind);
            let static_field = |field: &str| answer["roots"].to_string().contains(field);
            let expected = match kind.as_str().expect("a kind") {
                "stack" | "stack, by an interior pointer" => roots.iter().any(|r| r["kind"] == "stack"),
                "finalizer queue" => of_kind("finalizer-queue"),
                "pinned handle" => handle("pinned"),
                "strong handle" => handle("strong"),
                "thread static" => !exact.is_empty(),
                "static" if name == "ByStatic" => static_field("Shapes.Program.Only"),
                kind if kind.starts_with("none") => exact.is_empty(),
                _ => !exact.is_empty(),
            };
            assert!(expected, "{version}: {name} is kept by {kind}: {answer}");
        }
    }
}

#[test]
fn fields_of_every_type() {
    for runtime in runtimes() {
        let core = core(&runtime, "Shapes", &CoreSpec::default());
        let version = &runtime.version;
        let answer = ask(&core, &format!("dumpobj {}", named(&core, "every")));
        let fields = answer["fields"].as_array().expect("fields");
        let field = |name: &str| {
            fields.iter().find(|f| f["name"] == name).unwrap_or_else(|| panic!("{version}: no field {name}"))
        };
        let value = |name: &str| field(name)["value"]["value"].clone();
        assert_eq!(value("Yes"), json!(1), "{version}");
        assert_eq!((value("I1"), value("U1")), (json!(-2), json!(0xfe)), "{version}");
        assert_eq!((value("I2"), value("U2")), (json!(-300), json!(0xfedc)), "{version}");
        assert_eq!((value("I4"), value("U4")), (json!(-70000), json!(0xfedc_ba98_u32)), "{version}");
        assert_eq!(
            (value("I8"), value("U8")),
            (json!(-5_000_000_000_i64), json!(0xfedc_ba98_7654_3210_u64)),
            "{version}"
        );
        assert_eq!((value("R4"), value("R8")), (json!(1.5), json!(-2.25)), "{version}");
        assert_eq!(value("Character"), json!('ß' as u32), "{version}");
        assert_eq!(value("UNative"), json!("0xabcdef"), "{version}");
        assert_eq!(value("Null"), json!("0x0"), "{version}");
        assert_eq!(field("Text")["type"], "System.String", "{version}");
        let text = ask(&core, &format!("dumpobj {}", value("Text").as_str().expect("an address")));
        assert_eq!(text["string"], "every text", "{version}");
        let numbers = ask(&core, &format!("dumparray {}", value("Numbers").as_str().expect("an address")));
        let elements: Vec<&Value> =
            numbers["elements"].as_array().expect("elements").iter().map(|e| &e["value"]).collect();
        assert_eq!(elements, [&json!("1"), &json!("2"), &json!("3")], "{version}");
        // A struct inside: its place and its type are what dumpvc needs.
        let inline = field("Inline");
        let (mt, at) =
            (inline["mt"].as_str().expect("a type"), inline["value"]["value"].as_str().expect("a place"));
        let inner = ask(&core, &format!("dumpvc {mt} {at}"));
        assert_eq!(inner["type"], "Shapes.WithRefs", "{version}");
        assert_eq!(inner["fields"].as_array().map(Vec::len), Some(4), "{version}");
    }
}

#[test]
fn names_cannot_steer_a_terminal() {
    for runtime in one_per_major() {
        let core = core(&runtime, "Shapes", &CoreSpec::default());
        let commands = ["dumpheap -stat", "dumpheap -strings -stat", "dumpheap -type red"];
        let output = analyze(&core, &commands).run();
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!output.stdout.contains(control), "{}: {:?}", runtime.version, output.stdout.find(control));
        assert!(output.stdout.contains("\\x1b"), "{}: the escape is there, written out", runtime.version);
    }
}

#[test]
fn other_shared_cores_open() {
    for name in ["linux-arm64-10.0.12/wks-gc.withheap", "linux-musl-x64-10.0.12/wks-gc.withheap"] {
        let Some(core) = shared_core(name) else { continue };
        let oracle = must(fs::read_to_string(core.oracle.expect("an oracle")), "the oracle's text");
        let output = Dnd::new(DND)
            .args(["dump", "analyze", "--json"])
            .arg(&core.path)
            .args(["-c", "dumpheap -stat"])
            .run();
        let answer = output.json();
        let types = answer["statistics"]["types"].as_array().expect("types");
        let mut compared = 0;
        for line in oracle.lines() {
            let columns: Vec<&str> = line.split('\t').collect();
            let ["TYPE", number, bytes, mt, _] = columns.as_slice() else { continue };
            let ours = types.iter().find(|t| t["mt"] == format!("0x{}", mt.trim_start_matches('0')));
            let ours = ours.unwrap_or_else(|| panic!("{name}: no {line}"));
            assert_eq!(ours["count"].to_string(), *number, "{name}: {line}");
            let (ours, theirs): (u64, u64) =
                (ours["bytes"].as_u64().expect("bytes"), must(bytes.parse(), line));
            // Sizes there are rounded up to what an object takes up.
            let count: u64 = must(number.parse(), line);
            assert!(ours <= theirs && theirs < ours + 8 * count, "{name}: {ours}, {line}");
            compared += 1;
        }
        assert!(compared > 100, "{name}: {compared} types");
    }
}

/// .NET 9 on arm64: no library of Microsoft's was at hand for it, so what is told must fit together, and it is marked.
#[test]
fn a_program_of_net_9_on_arm64() {
    let Some(core) = shared_core("linux-arm64-9.0.9/vsce-sign.full") else { return };
    let ask =
        |command: &str| Dnd::new(DND).args(["dump", "analyze"]).arg(&core.path).args(["-c", command]).run();
    let objects = ask("verifyheap");
    assert!(objects.stderr.contains("not verified on a real core"), "{}", objects.stderr);
    assert!(objects.success().contains("326 objects verified, 0 errors."));
    // It waits for another program to open its input.
    let stacks = ask("clrstack -all").success();
    let frames: Vec<&str> = stacks.lines().filter_map(|line| line.get(34..)).collect();
    let innermost =
        frames.iter().position(|frame| frame.starts_with("Interop+Sys.Open(")).expect("a call of open");
    let outermost = frames.iter().position(|frame| frame.contains("CLI.Program.<Main>(")).expect("its Main");
    assert!(outermost - innermost > 20, "{stacks}");
    let threads = ask("clrthreads").success();
    assert!(threads.contains("ThreadCount:      2") && threads.contains("(Finalizer)"), "{threads}");
}

#[test]
fn a_dump_taken_during_a_gc_says_so() {
    let Some(core) = shared_core("linux-x64-10.0.14/mid-gc.withheap") else { return };
    let output = Dnd::new(DND).args(["dump", "analyze"]).arg(&core.path).args(["-c", "dumpheap -stat"]).run();
    assert!(output.stderr.contains("garbage collection"), "{}", output.stderr);
    assert!(
        output.stdout.contains("Statistics:") && output.stdout.contains(" Modern.Point"),
        "{}",
        output.stdout
    );
    let version =
        Dnd::new(DND).args(["dump", "analyze"]).arg(&core.path).args(["-c", "eeversion"]).run().success();
    assert!(version.contains("In the middle of a garbage collection"), "{version}");
}

#[test]
fn dumps_without_the_heap_say_what_can_still_be_asked() {
    for runtime in one_per_major() {
        for kind in [Kind::Mini, Kind::Triage] {
            let core = leak(&runtime, CoreSpec { kind, ..CoreSpec::default() });
            let error = analyze(&core, &["dumpheap -stat"]).run().fails(6);
            assert!(
                error.contains("heap") && error.contains("hint:"),
                "{} {kind:?}: {error}",
                runtime.version
            );
            assert!(error.contains("clrthreads"), "{} {kind:?}: {error}", runtime.version);
            analyze(&core, &["eeversion", "clrthreads", "clrmodules"]).run().success();
        }
    }
}

#[test]
fn errors_of_commands() {
    let Some(runtime) = one_per_major().pop() else { return };
    let core = leak(&runtime, CoreSpec::default());
    let cases: [(&str, i32, &str); 14] = [
        ("nosuchcommand", 2, "no command `nosuchcommand`"),
        ("dumphaep -stat", 2, "did you mean `dumpheap`?"),
        ("dumpil 1234", 5, "does not have"),
        ("dumpheap -mt xyz", 2, "hexadecimal"),
        ("dumpheap -sta", 2, "did you mean -stat?"),
        ("dumpheap -gen gen9", 2, "gen9"),
        ("dumpheap -type 'a", 2, "never closed"),
        ("dumpobj 1234", 3, "1234 is not the address of an object"),
        ("dumpobj", 2, "needs the address of an object\nhint: `help dumpobj` tells"),
        ("dumpobj 1 2", 2, "takes only one argument; `2` is one more"),
        ("dumpgen zzz", 2, "there are gen0"),
        ("dumpmt 10", 3, "not a method table"),
        ("gcwhere 1000", 3, "not in the managed heap"),
        ("help dumpheep", 2, "did you mean `dumpheap`?"),
    ];
    for (command, code, words) in cases {
        let error = analyze(&core, &[command]).run().fails(code);
        assert!(error.contains(words), "{command}: {error}");
    }
    // The first error decides, and the commands behind it still run; after `quit` none does.
    let output = analyze(&core, &["dumpobj 0", "eeversion", "nosuchcommand"]).run();
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    assert!(output.stdout.contains("Workstation mode"));
    let output = analyze(&core, &["quit", "nosuchcommand"]).run();
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), ""));
}

#[test]
fn every_command_answers_in_json() {
    for runtime in one_per_major() {
        let core = leak(&runtime, CoreSpec::default());
        let stat = ask(&core, "dumpheap -stat");
        let types = stat["statistics"]["types"].as_array().expect("types");
        let orders = types.iter().find(|t| t["type"] == "Shop.Order").expect("orders");
        let orders = ask(&core, &format!("dumpheap -mt {}", orders["mt"].as_str().expect("a type")));
        let order = &orders["objects"][0];
        let (at, mt) =
            (order["address"].as_str().expect("an address"), order["mt"].as_str().expect("a type"));
        let list = ask(&core, &format!("gcroot -nostacks {at}"));
        let array = list["roots"][0]["path"][2]["address"].as_str().expect("the list's array").to_owned();
        let commands = [
            "clrmodules".to_owned(),
            "clrthreads".to_owned(),
            "dumpheap".to_owned(),
            "dumpheap -strings".to_owned(),
            format!("dumparray -details -length 3 {array}"),
            format!("dumpmt {mt}"),
            format!("dumpobj -refs {at}"),
            format!("dumpvc {mt} {at}"),
            "eeheap -gc".to_owned(),
            "eeheap".to_owned(),
            "eeversion".to_owned(),
            "finalizequeue".to_owned(),
            "gchandles".to_owned(),
            format!("gcroot {at}"),
            format!("gcwhere {at}"),
            "help".to_owned(),
            "help gcroot".to_owned(),
            format!("objsize {at}"),
        ];
        for command in &commands {
            ask(&core, command);
        }
        // One document for each command, a line each.
        let all: Vec<&str> = commands.iter().map(String::as_str).collect();
        let output = analyze(&core, &all).args(["--json"]).run().success();
        let documents: Vec<Value> =
            output.lines().map(|line| must(serde_json::from_str(line), line)).collect();
        assert_eq!(documents.len(), commands.len());
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let Some(runtime) = one_per_major().pop() else { return };
    let core = leak(&runtime, CoreSpec::default());
    let path = core.path();
    let script =
        format!("{DND} dump analyze {} -c dumpheap | head -n 3; echo ${{PIPESTATUS[0]}}", path.display());
    let output = must(std::process::Command::new("bash").args(["-c", &script]).output(), "bash");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.ends_with("\n0\n"), "{text}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    // The same inside a session.
    let output =
        analyze(&core, &["dumpheap | head -n 2", "dumpheap -stat | grep -c ' Shop.Order$'"]).run().success();
    assert_eq!(output.lines().count(), 3, "{output}");
    assert_eq!(output.lines().last(), Some("1"), "{output}");
}

#[test]
fn free_space_in_front_of_pinned_objects() {
    for runtime in runtimes() {
        let version = &runtime.version;
        let core = core(&runtime, "Fragments", &CoreSpec::default());
        let pinned = core.truth["pinned"].as_array().expect("addresses");
        let between = core.truth["between"].as_u64().expect("bytes");
        let stat = ask(&core, "dumpheap -stat");
        let blocks = stat["fragmented"].as_array().expect("blocks");
        // Garbage at the end of a region may lie before no pinned object; most of it does.
        assert!(blocks.len() >= 6, "{version}: {blocks:?}");
        for block in blocks {
            assert!(pinned.contains(&block["followed_by"]), "{version}: {block} before none of {pinned:?}");
            assert_eq!(block["type"], "System.Byte[]", "{version}");
            let size = block["size"].as_u64().expect("a size");
            assert!((512 << 10..=2 * between).contains(&size), "{version}: {block}");
        }
        let first = &blocks[0];
        let from = |key: &str| first[key].as_str().expect("an address").trim_start_matches("0x").to_owned();
        let text = analyze(&core, &["dumpheap -stat"]).run().success();
        let (_, table) = text.split_once("\n\nFragmented blocks larger than 0.5 MB:\n").expect("the table");
        let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!((row[0], row[2], row[3]), (&*from("address"), &*from("followed_by"), "System.Byte[]"));
        // A listing of all objects finds the same ones; where some objects are left out there is nothing to say.
        assert_eq!(ask(&core, "dumpheap")["fragmented"], stat["fragmented"], "{version}");
        assert!(ask(&core, "dumpheap -stat -type Byte").get("fragmented").is_none(), "{version}");
    }
}
