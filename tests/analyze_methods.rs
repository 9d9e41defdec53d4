//! Commands about methods and code, on cores of every runtime.

use std::collections::BTreeMap;

use dnd_testkit::{Core, CoreSpec, Dnd, Kind, core, one_per_major, oracle, runtimes};
use serde_json::Value;

use super::DND;
use super::asking::{ask_all, list, text};

fn token(frame: &Value) -> u64 {
    u64::from_str_radix(text(&frame["token"]).trim_start_matches("0x"), 16).expect("a token")
}

fn waiting(runtime: &dnd_testkit::Runtime) -> Core {
    let env = vec![("MALLOC_ARENA_MAX".to_owned(), "1".to_owned())];
    core(runtime, "Stacks", &CoreSpec { env, ..CoreSpec::default() })
}

#[test]
fn every_instruction_pointer_of_every_stack_leads_to_its_method() {
    for runtime in runtimes() {
        let core = waiting(&runtime);
        let Some(theirs) = oracle(&core, &["stacks"]) else { return };
        let frames: BTreeMap<&str, &Value> = list(&theirs["stacks"])
            .iter()
            .flat_map(|row| list(&row["frames"]))
            .filter(|frame| frame["kind"] == "managed")
            .map(|frame| (text(&frame["ip"]), frame))
            .collect();
        assert!(frames.len() > 100, "{}", runtime.version);
        let by_ip: Vec<String> = frames.keys().map(|ip| format!("ip2md {ip}")).collect();
        let answers = ask_all(&core, &by_ip);
        let by_method: Vec<String> =
            frames.values().map(|frame| format!("dumpmd {}", text(&frame["method_desc"]))).collect();
        let methods = ask_all(&core, &by_method);
        for ((frame, answer), method) in frames.values().zip(&answers).zip(&methods) {
            let what = format!("{}: {frame} {answer}", runtime.version);
            assert_eq!(answer["method"], frame["method_desc"], "{what}");
            assert_eq!(answer["name"], frame["method"], "{what}");
            assert_eq!(answer["code"], frame["code_start"], "{what}");
            // Of some methods made at run time the DAC tells no more.
            if frame["method_table"].is_string() {
                assert_eq!(answer["mt"], frame["method_table"], "{what}");
                assert_eq!(answer["module"], frame["module"], "{what}");
                assert_eq!(answer["token"].as_u64(), Some(token(frame)), "{what}");
            } else {
                assert_eq!(answer["kind"], "dynamic", "{what}");
            }
            assert_eq!(answer["jitted"], true, "{what}");
            let of_code = |answer: &Value| {
                let found = list(&answer["versions"]).iter().find(|v| v["code"] == frame["code_start"]);
                found.cloned()
            };
            let version = of_code(answer).unwrap_or_else(|| panic!("{what}"));
            // 1 is what the JIT made, 2 what was compiled before.
            let made_by = if frame["jit_type"] == 1 { "jit" } else { "ready-to-run" };
            assert_eq!(version["made_by"], made_by, "{what}");
            assert_eq!(version["tier"] == "ready-to-run", made_by == "ready-to-run", "{what}");
            // The method tells of this code, too, except what was made at run time.
            assert!(of_code(method).is_some() || answer["kind"] == "dynamic", "{what}");
            let has_il = ["il", "instantiated"].contains(&text(&answer["kind"]));
            // What Reflection.Emit made lies in no image.
            let has_il = has_il && !text(&answer["name"]).starts_with("Unloadable.");
            assert_eq!(answer["il"].is_string(), has_il, "{what}");
        }
    }
}

#[test]
fn code_that_was_compiled_again_has_versions() {
    for runtime in one_per_major() {
        let args = vec!["busy".to_owned()];
        let env = vec![("MALLOC_ARENA_MAX".to_owned(), "1".to_owned())];
        let core = core(&runtime, "Stacks", &CoreSpec { args, env, ..CoreSpec::default() });
        let Some(theirs) = oracle(&core, &["stacks"]) else { continue };
        let methods: Vec<String> = list(&theirs["stacks"])
            .iter()
            .flat_map(|row| list(&row["frames"]))
            .filter(|frame| frame["kind"] == "managed")
            .map(|frame| format!("dumpmd {}", text(&frame["method_desc"])))
            .collect();
        let mut several = 0;
        for method in ask_all(&core, &methods) {
            let versions = list(&method["versions"]);
            let active = versions.iter().filter(|version| version["active"] == true).count();
            assert!(active <= 1, "{}: {method}", runtime.version);
            several += usize::from(versions.len() > 1);
            for version in versions {
                let later = version["node"] != "0x0";
                let tier = version["tier"].as_str().unwrap_or("unknown");
                let tiers = ["tier1", "tier1-osr", "quick-instrumented", "tier1-instrumented"];
                assert!(!later || tiers.contains(&tier), "{}: {method}", runtime.version);
            }
        }
        // 3.1 replaces no loop that runs.
        assert!(several > 0 || runtime.major() == 3, "{}", runtime.version);
    }
}

#[test]
fn methods_of_a_type_by_construction() {
    let inherited =
        ["Object.Finalize()", "Object.ToString()", "Object.Equals(System.Object)", "Object.GetHashCode()"];
    for runtime in runtimes() {
        for kind in [Kind::Heap, Kind::Full] {
            let args = vec!["1000".to_owned(), "100".to_owned()];
            let core = core(&runtime, "Leak", &CoreSpec { kind, args, ..CoreSpec::default() });
            let types = &ask_all(&core, &["dumpheap -stat -type Shop.Price".to_owned()])[0];
            let mt = |name: &str| {
                let types = list(&types["statistics"]["types"]);
                text(&types.iter().find(|t| t["type"] == name).expect("the type")["mt"]).to_owned()
            };
            let commands =
                ["Shop.PriceListener", "Shop.PriceFeed"].map(|name| format!("dumpmt -md {}", mt(name)));
            let answers = ask_all(&core, &commands);
            let names = |answer: &Value| -> Vec<String> {
                list(&answer["method_list"]).iter().map(|m| text(&m["name"]).to_owned()).collect()
            };
            let own = [
                "Shop.PriceListener..ctor(Shop.PriceFeed)",
                "Shop.PriceListener.OnChanged(System.Object, System.EventArgs)",
            ];
            let virtuals = inherited.map(|name| format!("System.{name}"));
            let mut expected: Vec<String> = virtuals.to_vec();
            expected.extend(own.map(str::to_owned));
            let found = names(&answers[0]);
            // Non-virtual methods come in an order of the runtime's own.
            assert_eq!(found[..4], expected[..4], "{}", runtime.version);
            let sorted = |mut all: Vec<String>| {
                all.sort();
                all
            };
            assert_eq!(sorted(found), sorted(expected), "{}", runtime.version);
            assert_eq!(list(&answers[0]["method_list"]).len() as u64, answers[0]["methods"]);
            let feed = sorted(names(&answers[1])[4..].to_vec());
            let expected = [
                "Shop.PriceFeed..ctor()",
                "Shop.PriceFeed.Raise()",
                "Shop.PriceFeed.add_Changed(System.EventHandler)",
                "Shop.PriceFeed.remove_Changed(System.EventHandler)",
            ];
            assert_eq!(feed, expected, "{}", runtime.version);
            // Nobody ever raised the event, or left it.
            let jit = |name: &str| {
                let methods = answers.iter().flat_map(|answer| list(&answer["method_list"]));
                methods.filter(|m| text(&m["name"]).contains(name)).map(|m| m["jit"].clone()).next()
            };
            assert_eq!(jit("add_Changed"), Some("jit".into()), "{}", runtime.version);
            for never in ["OnChanged", "Raise", "remove_Changed"] {
                assert_eq!(jit(never), Some(Value::Null), "{}: {never}", runtime.version);
            }
        }
    }
}

#[test]
fn what_is_no_method_is_told_apart() {
    for runtime in one_per_major() {
        let args = vec!["1000".to_owned(), "100".to_owned()];
        let core = core(&runtime, "Leak", &CoreSpec { args, ..CoreSpec::default() });
        let module = &ask_all(&core, &["clrmodules".to_owned()])[0];
        assert!(module.to_string().contains("Leak.dll"));
        for (command, words) in [
            ("ip2md 0", "0 is not in managed code"),
            ("ip2md 1000", "the runtime knows no code there"),
            ("ip2md", "needs an address in code"),
            ("dumpmd 0", "0 is not a method description"),
            ("dumpmd 7", "7 is not a method description"),
            ("dumpmd 1000", "1000 is not a method description"),
        ] {
            let output = Dnd::new(DND).args(["dump", "analyze"]).arg(core.path()).args(["-c", command]).run();
            assert!(output.code != Some(0) && output.stderr.contains(words), "{command}: {}", output.stderr);
            assert_eq!(output.stdout, "", "{command}");
        }
    }
}

#[test]
fn an_address_in_code_has_the_line_of_its_frame() {
    for runtime in one_per_major() {
        let core = super::source_lines::waiting(&runtime);
        let mut compared = 0;
        for stack in super::source_lines::stacks(&core, "clrstack -all").values() {
            // What a call returns to stands behind it.
            let frames = list(&stack["frames"]).iter().filter(|frame| frame["line"].is_u64());
            let frames: Vec<&Value> = frames.filter(|frame| frame["found_by"] == "unwind-codes").collect();
            let before = |frame: &&Value| {
                let ip = text(&frame["ip"]).trim_start_matches("0x");
                format!("ip2md {:x}", u64::from_str_radix(ip, 16).expect("an address") - 1)
            };
            let commands: Vec<String> = frames.iter().map(before).collect();
            for (frame, answer) in frames.iter().zip(ask_all(&core, &commands)) {
                let name = text(&frame["name"]);
                // The processor's exception is at the address itself.
                if name.contains("Fault") {
                    continue;
                }
                assert_eq!((&answer["name"], &answer["file"]), (&frame["name"], &frame["file"]), "{answer}");
                assert_eq!(answer["line"], frame["line"], "{}: {frame}", runtime.version);
                compared += 1;
            }
        }
        assert!(compared > 15, "{}: {compared}", runtime.version);
    }
}
