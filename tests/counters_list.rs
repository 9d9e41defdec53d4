//! `dnd counters list` says what real processes have.

use std::collections::BTreeSet;

use dnd_testkit::{Dnd, Target, one_per_major};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::DND;

/// Name and unit.
type Names = BTreeSet<(String, String)>;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

/// What is listed of a source of `System.Runtime` up to a major version.
fn listed(source: &str, major: u32) -> Names {
    let document = Dnd::new(DND).args(["counters", "list", "--json"]).run().success();
    let document: Value = serde_json::from_str(&document).expect("JSON");
    assert_eq!(
        (text(&document["schema"]), &document["version"]),
        ("dnd.counters.list".to_owned(), &1.into())
    );
    let all = document["counters"].as_array().expect("a list");
    let since = |c: &Value| text(&c["since"]).split('.').next().and_then(|major| major.parse::<u32>().ok());
    let wanted = all
        .iter()
        .filter(|c| c["provider"] == "System.Runtime" && c["source"] == source && since(c) <= Some(major));
    wanted.map(|c| (text(&c["name"]), text(&c["unit"]))).collect()
}

/// What a process sends, once `enough` of it has come.
fn sent(target: &Target, provider: &str, enough: impl Fn(&Names) -> bool) -> Names {
    let names = |stdout: &str| -> Names {
        let whole = stdout.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let documents = whole.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let samples = documents.flat_map(|d| d["samples"].as_array().cloned().unwrap_or_default());
        samples.map(|sample| (text(&sample["name"]), text(&sample["unit"]))).collect()
    };
    let running = Dnd::new(DND)
        .args(["counters", "monitor", "-p", &target.pid().to_string(), "--json", "--counters", provider])
        .spawn();
    running.wait_stdout(|stdout| enough(&names(stdout)).then_some(()));
    running.signal(Signal::SIGINT);
    names(&running.wait().success())
}

#[test]
fn what_processes_have_is_listed() {
    for runtime in one_per_major() {
        let major = runtime.version.split('.').next().unwrap().parse().unwrap();
        let target = Target::spawn(&runtime, "Leak", &[]);
        let listed = |source| listed(source, major);
        let counters = listed("event-counter");
        let sent_counters =
            sent(&target, "EventCounters\\System.Runtime", |names| names.len() >= counters.len());
        assert_eq!(sent_counters, counters, "{}", runtime.version);
        if major >= 9 {
            // The count of exceptions begins with the first one.
            let mut instruments = listed("meter");
            instruments.remove(&("dotnet.exceptions".to_owned(), "{exception}".to_owned()));
            let only = |names: &Names| {
                names.iter().filter(|(name, _)| name.starts_with("dotnet.")).cloned().collect::<Names>()
            };
            let sent = sent(&target, "System.Runtime", |names| only(names).len() >= instruments.len());
            assert_eq!(only(&sent), instruments, "{}", runtime.version);
        }
    }
}

#[test]
fn the_list_is_text_for_people() {
    let text = Dnd::new(DND).args(["counters", "list"]).run().success();
    assert!(text.contains("[System.Runtime]  Meter, .NET 9 and later\n"), "{text}");
    assert!(text.contains("memory that is resident"), "{text}");
}

#[test]
fn ps_is_where_users_of_the_other_tools_look_for_it() {
    for group in ["counters", "dump"] {
        let document = Dnd::new(DND).args([group, "ps", "--json"]).run().success();
        assert_eq!(serde_json::from_str::<Value>(&document).unwrap()["schema"], "dnd.ps");
    }
}
