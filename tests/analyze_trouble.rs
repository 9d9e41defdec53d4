//! Commands about what went wrong in a process that still runs: tests/apps/Trouble.cs says what.

use dnd_testkit::{Core, CoreSpec, Kind, core, runtimes};
use serde_json::{Value, json};

use super::asking::{ask, list, refused, show, text};

fn trouble(server: bool, kind: Kind) -> Vec<(String, Core)> {
    let made = |runtime: dnd_testkit::Runtime| {
        // 3.1 knows only the old name.
        let limit = |prefix| (format!("{prefix}_GCHeapHardLimit"), "0x10000000".to_owned());
        let env = ["DOTNET", "COMPlus"].map(limit).to_vec();
        let core =
            core(&runtime, "Trouble", &CoreSpec { env, server_gc: server, kind, ..CoreSpec::default() });
        (runtime.version.clone(), core)
    };
    runtimes().into_iter().map(made).collect()
}

#[test]
fn an_allocation_that_failed() {
    for server in [false, true] {
        for (version, core) in trouble(server, Kind::Heap) {
            let what = format!("{version} {server} {}", core.truth);
            let answer = ask(&core, "analyzeoom");
            let [failure] = list(&answer["failures"]) else { panic!("{what}: {answer}") };
            let (asked, size) = (failure["asked"].as_u64(), core.truth["asked"].as_u64());
            // The array's header, and some space for the GC.
            let more = asked.zip(size).and_then(|(asked, size)| asked.checked_sub(size));
            assert!(more.is_some_and(|more| (24..=64).contains(&more)), "{what}: {failure}");
            assert_eq!(failure["gc"], core.truth["gc"], "{what}: {failure}");
            // Which limit is met first, that of the segment or that of what may be committed, differs from run to run.
            let reason = text(&failure["reason"]);
            let possible = if version.starts_with("3.") {
                &["large-objects"][..]
            } else {
                &["cant-commit", "large-objects"]
            };
            assert!(possible.contains(&reason), "{what}: {failure}");
            assert_eq!(failure["large_objects"].is_null(), failure["detail"].is_null(), "{what}: {failure}");
            let shown = show(&core, "AnalyzeOOM");
            let first = match reason {
                "cant-commit" => "Didn't have enough memory to commit\n",
                _ => "Didn't have enough memory to allocate an LOH segment\n",
            };
            let (heap, asked, gc) = (&failure["heap"], &failure["asked"], &failure["gc"]);
            let second = format!("Heap {heap}: {asked} bytes were asked for, after GC {gc}\n");
            assert!(shown.starts_with(&format!("{first}{second}")), "{what}: {shown}");
        }
    }
    for (version, core) in trouble(false, Kind::Mini) {
        let (code, error) = refused(&core, "analyzeoom");
        // The record may lie in a page that such a dump has; if not, that is said.
        let told = code == Some(0) && show(&core, "analyzeoom").contains("bytes were asked for");
        assert!(told || error.contains("heap"), "{version}: {code:?} {error}");
    }
}

#[test]
fn a_load_context_that_can_not_go_away() {
    for (version, core) in trouble(false, Kind::Heap) {
        let answer = ask(&core, "dumpalc");
        let contexts = list(&answer["contexts"]);
        let named = |name: &str| contexts.iter().find(|context| context["name"] == name);
        let known = !version.starts_with("3.");
        let assemblies = |count: usize, context: &Value| match known {
            true => assert_eq!(list(&context["assemblies"]).len(), count, "{version}: {context}"),
            false => assert_eq!(context["assemblies"], Value::Null, "{version}"),
        };
        let alive = named("alive").expect("the context that is used");
        assert_eq!((&alive["collectible"], &alive["state"]), (&json!(false), &json!("alive")), "{version}");
        assert_eq!(alive["loader_allocator"], Value::Null, "{version}");
        assemblies(1, alive);
        let kept = named("kept").expect("the context that is kept");
        assert_eq!((&kept["collectible"], &kept["state"]), (&json!(true), &json!("unloading")), "{version}");
        assert_eq!(kept["type"], "System.Runtime.Loader.AssemblyLoadContext", "{version}");
        assemblies(1, kept);
        assert!(named("gone").is_none(), "{version}: {answer}");

        let holder = text(&core.truth["holder"]);
        if !known {
            assert_eq!(contexts.len(), 2, "{version}: {answer}");
            let (code, error) = refused(&core, &format!("dumpalc {holder}"));
            assert_eq!(code, Some(3), "{version}");
            assert!(error.contains("before .NET 8 this is not read"), "{version}: {error}");
            // The context itself is always known.
            let itself = ask(&core, &format!("dumpalc {}", text(&kept["object"])));
            assert_eq!(itself["contexts"], json!([kept]), "{version}");
            continue;
        }
        let default = contexts.iter().find(|context| context["object"] == "0x0").expect("the default one");
        let all = list(&ask(&core, "clrmodules")["modules"]).len();
        assemblies(all - 2, default);
        assert_eq!(contexts.len(), 3, "{version}: {answer}");
        // From the object that keeps it, its type, and itself.
        let object = ask(&core, &format!("dumpobj {holder}"));
        assert_eq!(object["type"], "Trouble.Plugin", "{version}");
        for from in [holder, text(&object["mt"]), text(&kept["object"])] {
            assert_eq!(
                ask(&core, &format!("dumpalc {from}"))["contexts"],
                json!([kept]),
                "{version}: {from}"
            );
        }
        let table = ask(&core, &format!("dumpmt {}", text(&object["mt"])));
        assert_eq!(table["load_context"], kept["object"], "{version}");
        assert_eq!(table["loader_allocator"], kept["loader_allocator"], "{version}");
        // The way to who keeps it.
        let allocator = text(&kept["loader_allocator"]);
        let shown = show(&core, &format!("gcroot {allocator}"));
        assert!(shown.contains("Trouble.Plugin"), "{version}: {shown}");
        let shown = show(&core, &format!("dumpalc {holder}"));
        for line in ["Name:                kept", "State:               unloading", "Assemblies:          1"]
        {
            assert!(shown.lines().any(|one| one == line), "{version}: {shown}");
        }
    }
}
