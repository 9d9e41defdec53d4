//! `verifyheap` finds damage exactly where it was done.

#[path = "../../clr/tests/support/mod.rs"]
mod support;

use std::ops::ControlFlow;

use dnd_analyze::{Error, Format, Session};
use dnd_clr::{NameStyle, Progress, Runtime};
use dnd_memory::{Core, FileOptions, Memory, Target, WithFiles};
use dnd_testkit::{CoreSpec, core, one_per_major};
use serde_json::{Value, json};
use support::Patched;

fn verify(target: &dyn Target, command: &str) -> Value {
    let runtime = Runtime::open(target).expect("a runtime");
    let progress = Progress::new();
    let session = Session::new(&runtime, &progress);
    let mut out = Vec::new();
    let answer = session.run(command, &mut out, Format::Json);
    assert!(matches!(answer.result, Err(Error::Partial(_))), "{command}: {answer:?}");
    serde_json::from_slice(&out).expect("JSON")
}

/// Orders, and a block of free space.
fn objects(target: &dyn Target) -> (Vec<u64>, u64) {
    let runtime = Runtime::open(target).expect("a runtime");
    let (mut orders, mut free) = (Vec::new(), 0);
    let segments = &runtime.objects_heap().expect("the heap").segments;
    let walked = runtime.walk_all(segments, &Progress::new(), |_, object| {
        if object.table == runtime.free().address {
            free = object.address;
        } else if runtime.type_name(object.table, NameStyle::Display) == "Shop.Order" {
            orders.push(object.address);
        }
        ControlFlow::Continue(())
    });
    assert!(walked.is_ok() && orders.len() == 1000);
    (orders, free)
}

#[test]
fn every_kind_of_damage_is_found() {
    for version in one_per_major() {
        let core = core(&version, "Leak", &CoreSpec::with_args(&["1000", "100"]));
        let core = Core::open(&core.path()).expect("a core");
        let target = WithFiles::new(core, FileOptions::default());
        let (orders, free) = objects(&target);
        let [a, b, c, d, e, f, ..] = orders.as_slice() else { panic!("orders") };
        let table = target.u64(*a).expect("a type");
        let mut damaged = Patched::new(&target);
        // The first two fields of an order are references.
        damaged.write(a + 8, &(a + 3).to_le_bytes());
        damaged.write(b + 16, &(b + 8).to_le_bytes());
        damaged.write(c + 8, &0x10u64.to_le_bytes());
        let mut expected = vec![
            (*a, "object-reference-not-pointer-aligned", 8, a + 3),
            (*b, "invalid-object-reference", 16, b + 8),
            (*c, "invalid-object-reference", 8, 0x10),
            (*d, "invalid-thinlock", 0, 0x3ff),
            (*e, "sync-block-zero", 0, 0x0800_0000),
            (*f, "sync-block-mismatch", 0, 0x0800_ffff),
        ];
        if free != 0 {
            damaged.write(c + 16, &free.to_le_bytes());
            expected.insert(3, (*c, "free-object-reference", 16, free));
        }
        // No thread has this id.
        damaged.write(d - 4, &0x3ffu32.to_le_bytes());
        damaged.write(e - 4, &0x0800_0000u32.to_le_bytes());
        damaged.write(f - 4, &0x0800_ffffu32.to_le_bytes());
        let answer = verify(&damaged, "verifyheap");
        let row = |object: u64, kind: &str, offset: u64, value: u64| {
            (json!(format!("{object:#x}")), json!(kind), json!(offset), json!(format!("{value:#x}")))
        };
        let mut expected: Vec<_> = expected
            .into_iter()
            .map(|(object, kind, offset, value)| row(object, kind, offset, value))
            .collect();
        let shown = |problem: &Value| {
            let field = |name: &str| problem[name].clone();
            (field("object"), field("kind"), field("offset"), field("value"))
        };
        let problems = answer["problems"].as_array().expect("problems");
        let mut found: Vec<_> = problems.iter().map(shown).collect();
        let key = |row: &(Value, Value, Value, Value)| (row.0.to_string(), row.2.to_string());
        found.sort_by_key(key);
        expected.sort_by_key(key);
        assert_eq!(found, expected, "{}", version.version);
        assert_eq!(answer["errors"], json!(expected.len()), "{}", version.version);
        let one = verify(&damaged, &format!("verifyobj {a:x}"));
        assert_eq!(one["problems"][0]["kind"], "object-reference-not-pointer-aligned");
        // Only what was asked for.
        let range = verify(&damaged, &format!("verifyheap {a:x} {:x}", a + 8));
        assert_eq!((&range["objects"], &range["errors"]), (&json!(1), &json!(1)), "{}", version.version);
        // A type that is none: the walk goes on behind it.
        let mut broken = Patched::new(&target);
        broken.write(*b, &(table + 8).to_le_bytes());
        let answer = verify(&broken, "verifyheap");
        assert_eq!(answer["skipped"], json!(1), "{}: {answer}", version.version);
    }
}
