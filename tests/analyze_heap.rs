//! Commands that count, verify and look around on the heap, on cores of every runtime.

use dnd_testkit::{Core, CoreSpec, Dnd, Kind, core, must, one_per_major, oracle, runtimes};
use serde_json::Value;

use super::DND;
use super::asking::{list, number, text};

fn ask(core: &Core, commands: &[&str]) -> Vec<Value> {
    let dnd = Dnd::new(DND).args(["dump", "analyze", "--json"]).arg(core.path());
    let dnd = commands.iter().fold(dnd, |dnd, command| dnd.args(["-c", command]));
    let output = dnd.run().success();
    output.lines().map(|line| must(serde_json::from_str(line), line)).collect()
}

/// Shapes with each kind of collector.
fn shapes() -> Vec<(String, Core)> {
    let mut all = Vec::new();
    for runtime in runtimes() {
        for (server_gc, segments) in [(false, false), (true, false), (false, true)] {
            if segments && runtime.major() == 3 {
                continue;
            }
            let spec = CoreSpec { server_gc, segments, ..CoreSpec::default() };
            all.push((format!("{} {spec:?}", runtime.version), core(&runtime, "Shapes", &spec)));
        }
    }
    all
}

#[test]
fn memory_of_the_loader_adds_up() {
    for (what, core) in shapes() {
        let answers = ask(&core, &["eeheap", "eeheap -gc", "eeheap -loader"]);
        let [all, gc, loader] = answers.as_slice() else { panic!("{what}") };
        assert_eq!((&all["gc"], &all["loader"]), (&gc["gc"], &loader["loader"]), "{what}");
        assert!(gc["loader"].is_null() && loader["gc"].is_null() && gc["total_bytes"].is_null(), "{what}");
        let loader = &all["loader"];
        let total = number(&all["gc"]["committed_bytes"]) + number(&loader["size_bytes"]);
        assert_eq!(number(&all["total_bytes"]), total, "{what}");
        assert_eq!(loader["partial"], false, "{what}");
        let allocators = std::iter::once(&loader["global"]).chain(list(&loader["collectible"]));
        let heaps = allocators.flat_map(|allocator| list(&allocator["heaps"])).chain(list(&loader["code"]));
        let blocks = heaps.flat_map(|heap| list(&heap["blocks"]));
        let sizes: u64 = blocks.map(|block| number(&block["size_bytes"])).sum();
        assert_eq!(number(&loader["size_bytes"]), sizes, "{what}");
        // The assembly that the program loaded into a context of its own, and the one that it made.
        let of = |allocator: &Value| list(&allocator["modules"]).len();
        assert!(list(&loader["collectible"]).iter().all(|allocator| of(allocator) == 1), "{what}: {loader}");
        assert_eq!(list(&loader["collectible"]).len(), 2, "{what}: {loader}");
    }
}

const GENERATIONS: [&str; 6] = ["gen0", "gen1", "gen2", "loh", "poh", "foh"];

#[test]
fn generations_add_up() {
    for (what, core) in shapes() {
        let commands =
            ["gcheapstat -iu", "eeheap -gc", "dumpheap -stat", "dumpheap -dead -stat", "sizestats"];
        let answers = ask(&core, &commands);
        let [stat, memory, all, dead, sizes] = answers.as_slice() else { panic!("{what}") };
        let heaps = list(&stat["heaps"]);
        let sum = |key: &str| -> u64 {
            let cells = heaps.iter().flat_map(|heap| GENERATIONS.map(|name| &heap[name][key]));
            cells.map(number).sum()
        };
        let memory = &memory["gc"];
        assert_eq!(heaps.len(), list(&memory["heaps"]).len(), "{what}");
        // The same bytes as eeheap, which counts segments.
        assert_eq!(sum("allocated"), number(&memory["allocated_bytes"]), "{what}");
        let ephemeral: u64 = heaps.iter().filter_map(|heap| heap["ephemeral"]["committed"].as_u64()).sum();
        assert_eq!(sum("committed") + ephemeral, number(&memory["committed_bytes"]), "{what}");
        let regions = what.contains("segments: false") && !what.starts_with('3');
        assert_eq!(heaps[0]["ephemeral"].is_null(), regions, "{what}: {}", heaps[0]);
        let types = list(&all["statistics"]["types"]);
        let free = types.iter().find(|line| line["type"] == "Free").expect("free blocks");
        assert_eq!(sum("free"), number(&free["bytes"]), "{what}");
        let dead_types = list(&dead["statistics"]["types"]).iter().filter(|line| line["type"] != "Free");
        assert_eq!(sum("unreachable"), dead_types.map(|line| number(&line["bytes"])).sum::<u64>(), "{what}");
        // Every object and every free block is in one of the sizes.
        let of = |free: bool| -> (u64, u64) {
            let sizes = list(&sizes["generations"]).iter().filter(|one| one["free"] == free);
            let lines = sizes.flat_map(|one| list(&one["sizes"]));
            lines.fold((0, 0), |(count, bytes), line| {
                let n = number(&line["count"]);
                (count + n, bytes + n * number(&line["size"]))
            })
        };
        let total = number(&all["statistics"]["total_count"]);
        assert_eq!(of(true).0, number(&free["count"]), "{what}");
        assert_eq!(of(false).0 + of(true).0, total, "{what}");
        if let Some(theirs) = oracle(&core, &["stat"]) {
            let types = list(&theirs["stat"]["types"]).iter();
            let aligned: u64 = types.map(|line| number(&line["aligned_bytes"])).sum();
            assert_eq!(of(false).1 + of(true).1, aligned, "{what}");
        }
        let mut counted = 0;
        for generation in GENERATIONS {
            let answer = &ask(&core, &[&format!("dumpgen {generation}")])[0];
            counted += number(&answer["statistics"]["total_count"]);
        }
        assert_eq!(counted, total, "{what}");
    }
}

/// From .NET 9 on, the number of heaps of a server GC follows the load when nobody sets it; a thread's handles stay in the
/// table of the processor that it ran on first.
#[test]
fn handles_of_heaps_that_are_not_used_now() {
    for runtime in runtimes().into_iter().filter(|runtime| runtime.major() >= 8) {
        let env = vec![("DOTNET_gcServer".to_owned(), "1".to_owned())];
        let core = core(&runtime, "Shapes", &CoreSpec { env, ..CoreSpec::default() });
        let version = &runtime.version;
        let handles = &ask(&core, &["gchandles"])[0];
        let kinds = core.truth["handles"].as_object().expect("handles by kind");
        for (kind, expected) in kinds {
            let of_kind = list(&handles["handles"]).iter().filter(|handle| {
                text(&handle["kind"]).replace('-', "") == kind.to_lowercase()
                    && handle["type"] == expected["type"]
            });
            assert_eq!(of_kind.count() as u64, number(&expected["count"]), "{version}: {kind}");
        }
        let roots = core.truth["roots"].as_object().expect("roots by object");
        for (name, root) in roots.iter().filter(|(_, root)| !text(root).starts_with("none")) {
            let Some(address) = core.truth["objects"][name]["address"].as_str() else { continue };
            let found = &ask(&core, &[&format!("gcroot {address}")])[0];
            assert!(number(&found["count"]) > 0, "{version}: {name}, held by: {root}");
        }
    }
}

#[test]
fn frozen_objects_that_no_root_reaches_stay() {
    for runtime in runtimes().into_iter().filter(|runtime| runtime.major() >= 8) {
        let core = core(&runtime, "Shapes", &CoreSpec::default());
        let note = |generation: &str| {
            let command = format!("dumpheap -dead -gen {generation} -type System.String");
            let dead = &ask(&core, &[&command])[0];
            let first = list(&dead["objects"]).first().expect("a string that nobody holds");
            let found = &ask(&core, &[&format!("gcroot {}", text(&first["address"]))])[0];
            assert_eq!(found["count"], 0, "{}: {found}", runtime.version);
            text(&found["notes"][0]).to_owned()
        };
        let version = &runtime.version;
        assert!(note("foh").ends_with("the frozen heap, which is never collected"), "{version}");
        assert!(note("gen0").ends_with("the next full GC would free it"), "{version}");
    }
}

#[test]
fn objects_of_a_generation() {
    for runtime in runtimes() {
        let core = core(&runtime, "Shapes", &CoreSpec::default());
        // Where these are is what the runtime itself said.
        for (name, generation) in core.truth["generations"].as_object().expect("generations") {
            let generation = format!("gen{generation}");
            let all = &ask(&core, &[&format!("dumpgen {generation} -type {name}")])[0];
            let types = list(&all["statistics"]["types"]);
            let line = types.iter().find(|line| line["type"] == **name).expect("the type");
            let mt = text(&line["mt"]).trim_start_matches("0x");
            let rows = &ask(&core, &[&format!("dg {generation} -mt {mt}")])[0];
            assert_eq!(list(&rows["objects"]).len() as u64, number(&line["count"]), "{}", runtime.version);
            let rows =
                Dnd::new(DND).args(["dump", "analyze", "-c", &format!("dumpgen {generation} -mt {mt}")]);
            let rows = rows.arg(core.path()).run().success();
            let last = format!("Total {} objects", number(&line["count"]));
            assert_eq!(rows.lines().last(), Some(&*last), "{}", runtime.version);
        }
        let output = Dnd::new(DND).args(["dump", "analyze", "-c", "dumpgen", "-c", "dumpgen gen7"]);
        output.arg(core.path()).run().fails(2);
    }
}

#[test]
fn undamaged_heaps_are_verified() {
    for (what, core) in shapes() {
        let answer = &ask(&core, &["verifyheap"])[0];
        assert_eq!(answer["problems"], Value::Array(Vec::new()), "{what}");
        assert_eq!((number(&answer["errors"]), number(&answer["skipped"])), (0, 0), "{what}");
        let all = &ask(&core, &["dumpheap -stat"])[0];
        assert_eq!(answer["objects"], all["statistics"]["total_count"], "{what}");
    }
    for runtime in one_per_major() {
        // Without the heap there is nothing to verify, and this is said.
        let core =
            core(&runtime, "Leak", &CoreSpec { kind: Kind::Mini, ..CoreSpec::with_args(&["1000", "100"]) });
        for command in ["verifyheap", "gcheapstat", "sizestats", "dumpgen gen0", "listnearobj 7f0000000000"] {
            let output = Dnd::new(DND).args(["dump", "analyze", "-c", command]).arg(core.path()).run();
            let what = format!("{} {command}: {} {}", runtime.version, output.stdout, output.stderr);
            assert!(output.code == Some(6) && output.stdout.is_empty(), "{what}");
            assert!(output.stderr.contains("heap"), "{what}");
        }
    }
}

/// Objects that native code holds, or held: through ref-counted handles.
#[test]
fn objects_that_native_code_holds() {
    for runtime in runtimes() {
        let core = core(&runtime, "RefCounted", &CoreSpec::default());
        let (held, released) = (number(&core.truth["held"]), number(&core.truth["released"]));
        let what = &runtime.version;
        assert_eq!(core.truth["supported"] == true, runtime.major() >= 5, "{what}");
        let answers = ask(&core, &["gchandles -type RefCounted", "dumpheap -stat -live -type RefCounted."]);
        let [handles, live] = answers.as_slice() else { panic!("{what}") };
        let handles = list(&handles["handles"]);
        assert_eq!(handles.len() as u64, held + released, "{what}");
        if let Some(theirs) = oracle(&core, &["handles"]) {
            let theirs = list(&theirs["handles"]).iter().filter(|h| h["type_name"] == "RefCounted");
            let mut theirs: Vec<_> = theirs.map(|h| (text(&h["handle"]), text(&h["object"]))).collect();
            let mut ours: Vec<_> = handles.iter().map(|h| (text(&h["handle"]), text(&h["object"]))).collect();
            ours.sort_unstable();
            theirs.sort_unstable();
            assert_eq!(ours, theirs, "{what}");
        }
        let notes = live["notes"].to_string();
        if held == 0 {
            assert!(!notes.contains("ref-counted"), "{what}: {notes}");
            continue;
        }
        let types = list(&live["statistics"]["types"]);
        let count = |name: &str| types.iter().find(|t| t["type"] == name).map(|t| number(&t["count"]));
        assert_eq!((count("RefCounted.Held"), count("RefCounted.Child")), (Some(held), Some(held)), "{what}");
        // Those given back are not told apart, and this is said.
        assert_eq!(count("RefCounted.Released"), Some(released), "{what}");
        let all = held + released;
        assert!(notes.contains(&format!("{all} ref-counted handles count as roots")), "{what}: {notes}");
        let child = ask(&core, &["dumpheap -type RefCounted.Child"]);
        let child = text(&list(&child[0]["objects"])[0]["address"]).to_owned();
        let rooted = Dnd::new(DND).args(["dump", "analyze"]).arg(core.path());
        let rooted = rooted.args(["-c", &format!("gcroot {child}")]).run();
        let path = "(ref counted handle)\n";
        assert!(
            rooted.stdout.contains(path) && rooted.stdout.contains("RefCounted.Held"),
            "{what}: {rooted:?}"
        );
        assert!(rooted.stderr.contains("a ref-counted handle counts as a root"), "{what}: {}", rooted.stderr);
    }
}

#[test]
fn neighbours_and_paths() {
    for runtime in runtimes() {
        let version = &runtime.version;
        let core = core(&runtime, "Leak", &CoreSpec::with_args(&["1000", "100"]));
        let orders = &ask(&core, &["dumpheap -type Shop.Order"])[0];
        let orders: Vec<&Value> =
            list(&orders["objects"]).iter().filter(|object| number(&object["size"]) == 40).collect();
        let order = text(&orders[500]["address"]);
        let near = &ask(&core, &[&format!("listnearobj {order}")])[0];
        assert_eq!(
            (&near["current"]["address"], &near["current"]["type"]),
            (&orders[500]["address"], &"Shop.Order".into())
        );
        assert_eq!(near["gaps"], Value::Array(Vec::new()), "{version}");
        // Each neighbour sees the object from its own side.
        let side = |of: &str, side: &str| {
            let address = text(&near[of]["address"]);
            ask(&core, &[&format!("lno {address}")])[0][side]["address"].clone()
        };
        assert_eq!(side("before", "next"), orders[500]["address"], "{version}");
        assert_eq!(side("next", "before"), orders[500]["address"], "{version}");
        // From the inside of the object it is the same one.
        let inside = u64::from_str_radix(order.trim_start_matches("0x"), 16).expect("an address") + 20;
        let again = &ask(&core, &[&format!("lno {inside:x}")])[0];
        assert_eq!(again["current"], near["current"], "{version}");

        let root = &ask(&core, &[&format!("gcroot -nostacks {order}")])[0];
        let path = list(&root["roots"][0]["path"]);
        let types: Vec<&str> = path.iter().map(|step| text(&step["type"])).collect();
        assert_eq!(types[1..], ["System.Collections.Generic.List<Shop.Order>", "Shop.Order[]", "Shop.Order"]);
        let from = text(&path[1]["address"]);
        let there = &ask(&core, &[&format!("pathto {from} {order}")])[0];
        let steps: Vec<&Value> = list(&there["path"]).iter().map(|step| &step["address"]).collect();
        assert_eq!(steps, [&path[1]["address"], &path[2]["address"], &path[3]["address"]], "{version}");
        let back = Dnd::new(DND).args(["dump", "analyze", "-c", &format!("pathto {order} {from}")]);
        back.arg(core.path()).run().fails(3);
        let valid = Dnd::new(DND).args(["dump", "analyze", "-c", &format!("verifyobj {order}")]);
        let valid = valid.arg(core.path()).run().success();
        assert_eq!(valid, format!("object {order} is a valid object\n"), "{version}");
    }
}

#[test]
fn what_delegates_call() {
    for runtime in runtimes() {
        let core = core(&runtime, "Shapes", &CoreSpec::default());
        let address = |name: &str| text(&core.truth["objects"][name]["address"]).to_owned();
        let calls = |name: &str| {
            let answer = &ask(&core, &[&format!("dumpdelegate {}", address(name))])[0];
            assert_eq!(answer["type"], "Shapes.Handler", "{}", runtime.version);
            let name = |call: &Value| (text(&call["name"]).to_owned(), call["target_type"].clone());
            list(&answer["calls"]).iter().map(name).collect::<Vec<_>>()
        };
        let [closed] = calls("closed delegate").try_into().expect("one call");
        assert!(
            closed.0.starts_with("Shapes.Program+<>c__DisplayClass")
                && closed.0.contains("<BoxesAndDelegates>b__")
        );
        assert!(closed.1.as_str().is_some_and(|target| target.contains("<>c__DisplayClass")), "{closed:?}");
        let open = ("Shapes.Program.Static(Int32)".to_owned(), Value::Null);
        assert_eq!(calls("static delegate"), std::slice::from_ref(&open), "{}", runtime.version);
        assert_eq!(calls("multicast delegate"), [open.clone(), closed, open], "{}", runtime.version);
        let wrong =
            Dnd::new(DND).args(["dump", "analyze", "-c", &format!("dumpdelegate {}", address("chain"))]);
        wrong.arg(core.path()).run().fails(3);
    }
}
