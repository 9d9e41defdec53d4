//! Commands about what is loaded: domain, assemblies, modules, names, files.

use std::collections::BTreeSet;

use dnd_testkit::{Core, CoreSpec, Kind, core, must, runtimes};
use serde_json::Value;

use super::asking::{ask_all, list, number, refused, text};

fn one(core: &Core, command: &str) -> Value {
    ask_all(core, &[command.to_owned()]).remove(0)
}

fn address(value: &Value) -> u64 {
    let digits = text(value).trim_start_matches("0x");
    must(u64::from_str_radix(digits, 16), digits)
}

fn leak(runtime: &dnd_testkit::Runtime, kind: Kind) -> Core {
    let args = vec!["1000".to_owned(), "100".to_owned()];
    core(runtime, "Leak", &CoreSpec { kind, args, ..CoreSpec::default() })
}

/// The only match of a search.
fn only(answer: &Value) -> &Value {
    let modules = list(&answer["modules"]);
    assert_eq!(modules.len(), 1, "{answer}");
    assert_eq!(modules[0]["file"], "Leak.dll", "{answer}");
    let matches = list(&modules[0]["matches"]);
    assert_eq!(matches.len(), 1, "{answer}");
    &matches[0]
}

#[test]
fn names_and_tokens_lead_to_types_and_methods() {
    for runtime in runtimes() {
        for kind in [Kind::Heap, Kind::Full] {
            let core = leak(&runtime, kind);
            let what = format!("{} {kind:?}", runtime.version);
            let types = one(&core, "dumpheap -stat -type Shop.PriceListener");
            let known = &list(&types["statistics"]["types"])[0];
            assert_eq!(known["type"], "Shop.PriceListener", "{what}");
            let methods = one(&core, &format!("dumpmt -md {}", text(&known["mt"])));
            let method =
                list(&methods["method_list"]).iter().find(|m| text(&m["name"]).contains("OnChanged"));
            let method = method.expect("the listener's method");

            let by_name = one(&core, "name2ee Shop.PriceListener");
            let found = only(&by_name);
            assert_eq!(found["mt"], known["mt"], "{what}");
            assert_eq!(found["name"], "Shop.PriceListener", "{what}");
            assert_eq!(found["method"], Value::Null, "{what}");
            let all = number(&by_name["scanned"]) + 1;
            assert_eq!(all, list(&one(&core, "clrmodules")["modules"]).len() as u64, "{what}");
            let token = number(&found["token"]);
            assert_eq!(token >> 24, 2, "{what}");
            for same in [
                format!("token2ee Leak.dll {token:x}"),
                format!("token2ee leak {token:08x}"),
                "name2ee Leak.dll Shop.PriceListener".to_owned(),
                "Name2EE Leak!Shop.PriceListener".to_owned(),
                "!name2ee * Shop.PriceListener".to_owned(),
            ] {
                let answer = one(&core, &same);
                let answer =
                    list(&answer["modules"]).iter().find(|m| m["file"] == "Leak.dll").expect("Leak.dll");
                assert_eq!(list(&answer["matches"]), std::slice::from_ref(found), "{what}: {same}");
            }

            let by_name = one(&core, "name2ee Leak.dll Shop.PriceListener.OnChanged");
            let found = only(&by_name);
            assert_eq!(number(&by_name["scanned"]), 0, "{what}");
            assert_eq!(found["method"], method["method"], "{what}: {methods}");
            assert_eq!(found["name"], method["name"], "{what}");
            let token = number(&found["token"]);
            assert_eq!(token >> 24, 6, "{what}");
            let same = one(&core, &format!("token2ee Leak.dll {token:x}"));
            assert_eq!(only(&same), found, "{what}");
            // Both ways lead to the same code, or to none.
            let dumped = one(&core, &format!("dumpmd {}", text(&found["method"])));
            let active = list(&dumped["versions"]).iter().find(|version| version["active"] == true);
            let code = active.map_or(Value::Null, |version| version["code"].clone());
            let code = if code == "0x0" { Value::Null } else { code };
            assert_eq!(found["code"], code, "{what}");

            // A constructor's name begins with a dot.
            let answer = one(&core, "name2ee Leak.dll Shop.PriceListener..ctor");
            assert!(text(&only(&answer)["name"]).starts_with("Shop.PriceListener..ctor("), "{what}");
            // A static class that was never needed is known by its metadata alone.
            let (code, error) = refused(&core, "name2ee Leak.dll Shop.Nothing");
            assert_eq!(code, Some(3), "{what}");
            assert!(error.contains("no module has `Shop.Nothing`; 1 were asked"), "{what}: {error}");
            let (code, error) = refused(&core, "name2ee Nowhere.dll Shop.PriceFeed");
            assert_eq!(code, Some(3), "{what}");
            assert!(error.contains("there is no module `Nowhere.dll`"), "{what}: {error}");
            let (code, error) = refused(&core, "token2ee Leak.dll 1000001");
            assert_eq!(code, Some(2), "{what}");
            assert!(error.contains("wants the token of a type"), "{what}: {error}");
        }
    }
}

#[test]
fn the_domain_has_the_modules_and_these_their_types() {
    for runtime in runtimes() {
        for kind in [Kind::Mini, Kind::Triage, Kind::Heap, Kind::Full] {
            let core = leak(&runtime, kind);
            let what = format!("{} {kind:?}", runtime.version);
            let domain = one(&core, "dumpdomain");
            let by_address: BTreeSet<u64> =
                list(&domain["assemblies"]).iter().map(|line| address(&line["module"])).collect();
            let modules = one(&core, "clrmodules");
            assert_eq!(by_address.len(), list(&modules["modules"]).len(), "{what}");
            for line in list(&domain["assemblies"]) {
                let same = one(&core, &format!("dumpassembly {}", text(&line["assembly"])));
                for field in ["assembly", "module", "path", "name", "dynamic"] {
                    assert_eq!(same[field], line[field], "{what}: {same}");
                }
                assert_eq!(same["domain"], domain["domain"], "{what}");
            }
            let same = one(&core, &format!("dumpdomain {}", text(&domain["domain"])));
            assert_eq!(same["assemblies"], domain["assemblies"], "{what}");
            let wrong = format!("dumpdomain {}", text(&domain["system_domain"]));
            let (code, error) = refused(&core, &wrong);
            assert_eq!(code, Some(3), "{what}: {error}");
            assert!(error.contains("the application domain"), "{what}: {error}");

            let own = list(&domain["assemblies"]).iter().find(|line| line["name"] == "Leak");
            let own = own.expect("the program's assembly");
            assert!(text(&own["path"]).ends_with("/Leak.dll"), "{what}");
            let module = one(&core, &format!("dumpmodule -mt {}", text(&own["module"])));
            assert_eq!(module["assembly"], own["assembly"], "{what}");
            assert_ne!(module["mvid"], Value::Null, "{what}");
            let types = list(&module["types"]);
            assert!(types.iter().any(|one| one["type"] == "Shop.PriceFeed"), "{what}: {module}");
            assert!(types.len() as u64 <= number(&module["type_definitions"]), "{what}");
            if matches!(kind, Kind::Heap | Kind::Full) {
                for one_type in types {
                    let table = one(&core, &format!("dumpmt {}", text(&one_type["mt"])));
                    assert_eq!(table["module"], own["module"], "{what}: {table}");
                    assert_eq!(table["token"], one_type["token"], "{what}: {table}");
                }
            }
        }
    }
}

#[test]
fn files_of_the_process() {
    for runtime in runtimes() {
        for kind in [Kind::Mini, Kind::Heap, Kind::Full] {
            let core = leak(&runtime, kind);
            let what = format!("{} {kind:?}", runtime.version);
            let all = one(&core, "modules");
            let lines = list(&all["modules"]);
            // Neither overlap, and in order.
            for pair in lines.windows(2) {
                assert!(
                    address(&pair[0]["base"]) + number(&pair[0]["size"]) <= address(&pair[1]["base"]),
                    "{what}: {pair:?}"
                );
            }
            let found = one(&core, "modules -name CoreCLR.so");
            let [library] = list(&found["modules"]) else { panic!("{what}: {found}") };
            assert!(text(&library["path"]).ends_with("/libcoreclr.so"), "{what}");
            // The note of the linker in the file on disk, and in the dump, is the same.
            let file = must(std::fs::read(text(&library["path"])), text(&library["path"]));
            let id = text(&library["build_id"]);
            let bytes: Vec<u8> = (0..id.len() / 2)
                .map(|at| must(u8::from_str_radix(&id[2 * at..2 * at + 2], 16), id))
                .collect();
            assert_eq!(bytes.len(), 20, "{what}");
            assert!(file[..0x1000].windows(20).any(|part| part == bytes), "{what}: {id}");
            // As far as its segments go.
            let headers = u64::from_le_bytes(must(file[32..40].try_into(), "e_phoff"));
            let count = usize::from(u16::from_le_bytes(must(file[56..58].try_into(), "e_phnum")));
            let headers = &file[usize::try_from(headers).expect("small")..];
            let end = headers
                .chunks_exact(56)
                .take(count)
                .filter(|header| header[..4] == [1, 0, 0, 0])
                .map(|header| {
                    let at = |at: usize| u64::from_le_bytes(must(header[at..at + 8].try_into(), "a word"));
                    at(16) + at(40)
                })
                .max();
            assert_eq!(Some(number(&library["size"])), end, "{what}");
            let base = address(&library["base"]);
            for at in [base, base + number(&library["size"]) - 1] {
                assert_eq!(one(&core, &format!("lm -address {at:x}"))["modules"], found["modules"], "{what}");
            }
            let (code, error) = refused(&core, "modules -address 10");
            assert_eq!(code, Some(3), "{what}");
            assert!(error.contains("no file is mapped at 10"), "{what}: {error}");
            let assemblies = one(&core, "modules -name Leak.dll");
            assert!(!list(&assemblies["modules"]).is_empty(), "{what}");
        }
    }
}
