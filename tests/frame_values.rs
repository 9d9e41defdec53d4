//! `clrstack -a` and `-r`: parameters, locals and registers of frames whose values are known by construction.

use std::collections::BTreeMap;

use dnd_testkit::{Core, CoreSpec, Dnd, core, runtimes};
use serde_json::{Value, json};

use super::DND;
use super::asking::list;
use super::source_lines::{app_source, line_of, stacks, waiting};

fn number(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

/// The frame of a method of a thread.
fn frame<'a>(stacks: &'a BTreeMap<u64, Value>, thread: &Value, method: &str) -> &'a Value {
    let frames = list(&stacks[&thread.as_u64().expect("an id")]["frames"]);
    let is_it = |frame: &&Value| frame["name"].as_str().is_some_and(|name| name.starts_with(method));
    frames.iter().find(is_it).unwrap_or_else(|| panic!("no frame of {method}"))
}

/// Variables by their names.
fn by_name(frame: &Value, what: &str) -> BTreeMap<String, Value> {
    let named = list(&frame[what])
        .iter()
        .filter_map(|variable| Some((variable["name"].as_str()?.to_owned(), variable.clone())));
    named.collect()
}

fn ask(core: &Core, command: &str) -> Value {
    let output = Dnd::new(DND).args(["dump", "analyze", "--json"]).arg(core.path()).args(["-c", command]);
    serde_json::from_str(&output.run().success()).expect("JSON")
}

fn string_at(core: &Core, variable: &Value) -> String {
    let address = variable["value"].as_str().expect("an address");
    ask(core, &format!("dumpobj {address}"))["string"].as_str().expect("a string").to_owned()
}

#[test]
fn parameters_and_locals_of_every_type() {
    for runtime in runtimes() {
        let core = waiting(&runtime);
        let stacks = stacks(&core, "clrstack -all -a");
        let at = &runtime.version;
        let values = frame(&stacks, &core.truth["threads"]["values"], "Lines.Program.Values(");
        let expected: [(&str, &str, u64); 15] = [
            ("yes", "Boolean", 1),
            ("letter", "Char", u64::from(b'x')),
            ("tiny", "SByte", 0xfb),
            ("octet", "Byte", 200),
            ("little", "Int16", 0xf448),
            ("half", "UInt16", 60000),
            ("number", "Int32", 0xfffe_ee90),
            ("positive", "UInt32", 4_000_000_000),
            ("big", "Int64", (-5_000_000_000i64).cast_unsigned()),
            ("huge", "UInt64", 0xfedc_ba98_7654_3210),
            ("single", "Single", 1.5f32.to_bits().into()),
            ("twice", "Double", 2.25f64.to_bits()),
            ("pointer", "IntPtr", 0x1234),
            ("colour", "Lines.Colour", 0x1234),
            ("nothing", "System.Object", 0),
        ];
        let parameters = by_name(values, "parameters");
        let order: Vec<&str> =
            list(&values["parameters"]).iter().filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(order.len(), 23);
        assert_eq!((order[0], order[22]), ("yes", "raw"));
        for (name, ty, value) in expected {
            let parameter = &parameters[name];
            assert_eq!(parameter["type"], ty, "{name} of {at}");
            assert_eq!(number(&parameter["value"]), Some(value), "{name} of {at}: {parameter}");
        }
        // Structs that fit into a word, and one that doesn't.
        assert_eq!(number(&parameters["small"]["value"]), Some(0x6_0000_0005), "{at}");
        assert_eq!(number(&parameters["one"]["value"]), Some(0x77), "{at}");
        let large = &parameters["large"];
        assert_eq!(large["value"], Value::Null);
        let (mt, address) = (large["mt"].as_str().expect("a type"), large["location"]["address"].as_str());
        let fields = ask(&core, &format!("dumpvc {mt} {}", address.expect("an address")));
        let fields: BTreeMap<&str, &Value> = list(&fields["fields"])
            .iter()
            .filter_map(|f| Some((f["name"].as_str()?, &f["value"]["value"])))
            .collect();
        assert_eq!((fields["A"], fields["C"]), (&json!(0x1111), &json!(0x3333)), "{at}");
        // References, and what they lead to.
        assert_eq!(string_at(&core, &parameters["text"]), "text", "{at}");
        for (name, value) in [("by", 77u32), ("raw", 88)] {
            let callers = by_name(
                frame(&stacks, &core.truth["threads"]["values"], "Lines.Program.CallValues("),
                "locals",
            );
            let local = &callers[name];
            assert_eq!(number(&local["value"]), Some(value.into()), "{name} of {at}");
            assert_eq!(parameters[name]["value"], local["location"]["address"], "{name} of {at}");
        }
        let locals = by_name(values, "locals");
        let locals_of_values = locals.clone();
        assert_eq!(number(&locals["localNumber"]["value"]), Some(0xfffe_ee91), "{at}");
        assert_eq!(number(&locals["localTwice"]["value"]), Some(4.5f64.to_bits()), "{at}");
        assert_eq!(number(&locals["inner"]["value"]), Some((-5_000_000_001i64).cast_unsigned()), "{at}");
        assert_eq!(string_at(&core, &locals["localText"]), "text!", "{at}");
        assert_eq!(locals["localLarge"]["mt"].as_str(), Some(mt), "{at}");

        // Instance and generic methods.
        let method = frame(&stacks, &core.truth["threads"]["instance"], "Lines.Program+Instance.Method[[");
        let (parameters, locals) = (by_name(method, "parameters"), by_name(method, "locals"));
        assert_eq!(list(&method["parameters"])[0]["name"], "this", "{at}");
        let this =
            ask(&core, &format!("dumpobj {}", parameters["this"]["value"].as_str().expect("an address")));
        assert_eq!(this["type"], "Lines.Program+Instance", "{at}");
        assert_eq!(
            (number(&parameters["value"]["value"]), number(&locals["local"]["value"])),
            (Some(0x55), Some(0x55))
        );
        assert_eq!(parameters["value"]["type"], "Int64", "{at}");
        assert_eq!(string_at(&core, &locals["joined"]), "nametext", "{at}");
        let generic = frame(&stacks, &core.truth["threads"]["generic"], "Lines.Program.Generic[[");
        assert_eq!(string_at(&core, &by_name(generic, "parameters")["value"]), "generic", "{at}");

        // Generic structs, of which there is no object: the loader's tables have them.
        let fields = |variable: &Value| -> (String, BTreeMap<String, Value>) {
            let mt = variable["mt"].as_str().unwrap_or_else(|| panic!("no type of {variable} on {at}"));
            let address = variable["location"]["address"].as_str().expect("an address");
            let dump = ask(&core, &format!("dumpvc {mt} {address}"));
            let fields = list(&dump["fields"]).iter();
            let fields = fields.map(|f| (f["name"].as_str().expect("a name").to_owned(), f.clone()));
            (dump["type"].as_str().expect("a type").to_owned(), fields.collect())
        };
        let (name, three) = fields(&locals_of_values["three"]);
        assert_eq!(name, "Lines.Three`1[[System.Int32[], System.Private.CoreLib]]", "{at}");
        assert_eq!(three["C"]["value"]["value"], json!(-5_000_000_000i64), "{at}");
        assert_eq!(three["A"]["type"], "System.Int32[]", "{at}");
        assert!(!three["A"]["mt"].is_null() && three["A"]["mt"] == three["B"]["mt"], "{at}: {three:?}");
        // Code that all reference types share says no more of its types.
        let all = by_name(generic, "locals");
        let (name, shared) = fields(&all["shared"]);
        assert_eq!(name, "Lines.Three`1[[System.__Canon, System.Private.CoreLib]]", "{at}");
        assert_eq!(shared["C"]["value"]["value"], json!(0x66), "{at}");
        let (_, nested) = fields(&all["nested"]);
        let pair = json!({"mt": nested["B"]["mt"], "location": {"address": nested["B"]["value"]["value"]}});
        let (name, pair) = fields(&pair);
        assert!(
            name.starts_with("System.Collections.Generic.KeyValuePair`2[[System.Int32, "),
            "{name} on {at}"
        );
        assert_eq!(pair["key"]["value"]["value"], json!(0x77), "{at}");
    }
}

/// Optimised code keeps some variables in registers, and forgets others: what is told is true.
#[test]
fn values_in_optimised_code_are_right_or_not_told() {
    let source = app_source("Optimised");
    for runtime in runtimes() {
        let core = core(&runtime, "Optimised", &CoreSpec::default());
        let stacks = stacks(&core, "clrstack -all -a");
        let at = &runtime.version;
        let (mut told, mut registers) = (0, 0);
        for (method, mark) in [("Outer", "outer"), ("Inner", "inner")] {
            let frame = frame(&stacks, &core.truth["thread"], &format!("Optimised.Program.{method}("));
            assert_eq!(frame["line"], line_of(&source, mark), "{method} of {at}");
            let all = by_name(frame, "parameters").into_iter().chain(by_name(frame, "locals"));
            for (name, variable) in all.filter(|(_, variable)| !variable["value"].is_null()) {
                let expected = match &name[..] {
                    "first" => 0x123_4567,
                    "sum" => 0x123_4567 * 3,
                    "small" => 7,
                    "last" => 0x89,
                    "twice" => 2.5f64.to_bits(),
                    "result" => 0,
                    "kept" | "dead" | "item" => {
                        let text = if name == "dead" { "dead" } else { "kept" };
                        assert_eq!(string_at(&core, &variable), text, "{name} in {method} of {at}");
                        told += 1;
                        registers += usize::from(variable["location"]["kind"] == "register");
                        continue;
                    }
                    other => panic!("{other} in {method} of {at}: {variable}"),
                };
                assert_eq!(
                    number(&variable["value"]),
                    Some(expected),
                    "{name} in {method} of {at}: {variable}"
                );
                told += 1;
                registers += usize::from(variable["location"]["kind"] == "register");
            }
        }
        assert!(told >= 4 && registers >= 2, "{told} values, {registers} of them in registers, {at}");
    }
}

#[test]
fn registers_of_every_frame() {
    for runtime in runtimes() {
        let core = waiting(&runtime);
        let mut unknown = 0;
        for (id, thread) in stacks(&core, "clrstack -all -r") {
            for frame in list(&thread["frames"]) {
                let registers: BTreeMap<&str, &Value> = list(&frame["registers"])
                    .iter()
                    .map(|register| (register["name"].as_str().expect("a name"), &register["value"]))
                    .collect();
                assert_eq!(registers.len(), 17);
                assert_eq!(registers["rip"], &frame["ip"], "thread {id} of {}", runtime.version);
                if frame["explicit"].is_null() {
                    assert_eq!(registers["rsp"], &frame["sp"], "thread {id} of {}", runtime.version);
                    // Behind a call nobody knows what was in it.
                    unknown += usize::from(registers["rax"].is_null());
                }
            }
        }
        assert!(unknown > 40, "{unknown}");
    }
}

/// The text is that of SOS, with the names of locals besides.
#[test]
fn values_as_text() {
    let runtime = runtimes().pop().expect("a runtime");
    let core = waiting(&runtime);
    let id = core.truth["threads"]["values"].as_u64().expect("an id");
    let dnd = Dnd::new(DND).args(["dump", "analyze"]).arg(core.path());
    let text = dnd.args(["-c", &format!("setthread -t {id}"), "-c", "clrstack -a"]).run().success();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.iter().position(|line| line.contains(" Lines.Program.Values(")).expect("the frame");
    let to = from + lines[from..].iter().position(|line| line.is_empty()).expect("an empty line behind it");
    assert_eq!(lines[from + 1], "    PARAMETERS:");
    let value = |name: &str| {
        let start = format!("        {name} (0x");
        let line = lines[from..to].iter().find(|line| line.starts_with(&start)).expect("a variable");
        line.split_once(" = ").expect("a value").1.to_owned()
    };
    assert_eq!(value("letter"), "0x0000000000000078");
    assert_eq!(value("number"), "0x00000000fffeee90");
    assert_eq!(value("localNumber"), "0x00000000fffeee91");
    assert!(value("large").starts_with("<Lines.Large, dumpvc "), "{}", value("large"));
    assert!(lines[from..to].contains(&"    LOCALS:"));
    let frames = lines.iter().filter(|line| line.contains("Monitor.Wait(System.Object, Int32)")).count();
    assert_eq!(frames, 1);
    assert!(
        lines.contains(&"        obj = <no data>")
            || lines.iter().any(|line| line.starts_with("        obj ("))
    );
}
