//! Static fields: their values, and their names on the way from a root.

use dnd_testkit::{Core, CoreSpec, core, runtimes};
use serde_json::{Value, json};

use super::asking::{ask, list, number, text};

fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    list(&object["fields"])
        .iter()
        .find(|field| field["name"] == name)
        .unwrap_or_else(|| panic!("no field {name} in {object}"))
}

/// The holders of static fields, by name.
fn holders(core: &Core) -> Vec<(&str, &Value)> {
    let all = core.truth["holders"].as_object().expect("holders");
    all.iter().map(|(name, holder)| (name.as_str(), holder)).collect()
}

/// `0x` before an address that the program wrote without.
fn address(value: &Value) -> Value {
    json!(format!("0x{}", text(value)))
}

/// The `Number` in a struct that a field's value tells the address of.
fn number_in(core: &Core, field: &Value, value: &Value) -> Value {
    assert_eq!(value["kind"], "struct", "{field}");
    let inside = ask(core, &format!("dumpvc {} {}", text(&field["mt"]), text(&value["value"])));
    self::field(&inside, "Number")["value"]["value"].clone()
}

#[test]
fn values_of_static_fields_of_every_kind_of_type() {
    for runtime in runtimes() {
        let core = core(&runtime, "Statics", &CoreSpec::default());
        for (name, holder) in holders(&core) {
            let what = format!("{} {name}", runtime.version);
            let object = ask(&core, &format!("dumpobj {}", text(&holder["address"])));
            let value = |name: &str| &field(&object, name)["value"]["value"];
            let n = number(&holder["number"]);
            assert_eq!(*value("Number"), json!(n), "{what}: {object}");
            assert_eq!(*value("Mark"), address(&holder["mark"]), "{what}: {object}");
            if holder["own_mark"].is_null() {
                continue;
            }
            let pair = field(&object, "Pair");
            assert_eq!(number_in(&core, pair, &pair["value"]), json!(n), "{what}");
            let own = |name: &str| -> &Value {
                let values = list(&field(&object, name)["thread_values"]).iter();
                let mut values = values.filter(|value| value["thread"] == core.truth["owner"]);
                &values.next().unwrap_or_else(|| panic!("{what}: {name} of the thread in {object}"))["value"]
            };
            assert_eq!(own("OwnNumber")["value"], json!(n + 1), "{what}: {object}");
            assert_eq!(own("OwnMark")["value"], address(&holder["own_mark"]), "{what}: {object}");
            let of_pair = number_in(&core, field(&object, "OwnPair"), own("OwnPair"));
            assert_eq!(of_pair, json!(n + 1), "{what}");
        }
    }
}

#[test]
fn paths_name_static_fields_of_every_kind_of_type() {
    for runtime in runtimes() {
        let core = core(&runtime, "Statics", &CoreSpec::default());
        for (name, holder) in holders(&core) {
            let (version, of) = (&runtime.version, text(&holder["type"]));
            let ways = [("mark", "static-field", "Mark"), ("own_mark", "thread-static-field", "OwnMark")];
            for (object, kind, field) in ways {
                let Some(address) = holder[object].as_str() else { continue };
                let found = ask(&core, &format!("gcroot {address}"));
                let name_of_last = |root: &Value| {
                    list(&root["path"]).last().map_or(Value::Null, |last| last["via"][kind].clone())
                };
                let roots = list(&found["roots"]);
                assert!(!roots.is_empty(), "{version} {name}: {found}");
                let expected = json!(format!("{of}.{field}"));
                assert!(
                    roots.iter().all(|root| name_of_last(root) == expected),
                    "{version} {name}: {object} is held by {expected}: {found}"
                );
            }
        }
    }
}
