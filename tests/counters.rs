//! `dnd counters monitor` on real processes, and on ones that misbehave.

use std::collections::BTreeMap;

use dnd_testkit::{Dnd, Output, Running, Target, must, one_per_major, runtimes};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::DND;

pub(crate) fn monitor(target: &Target) -> Dnd {
    Dnd::new(DND).args(["counters", "monitor", "-p", &target.pid().to_string()])
}

/// The documents of `--json` so far, the last line left out if it is not whole.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// All samples so far.
fn samples(text: &str) -> Vec<Value> {
    documents(text).iter().flat_map(|d| d["samples"].as_array().cloned().unwrap_or_default()).collect()
}

/// The samples of one counter.
pub(crate) fn of<'a>(samples: &'a [Value], name: &str) -> Vec<&'a Value> {
    samples.iter().filter(|sample| sample["name"] == name).collect()
}

fn sum(samples: &[Value], name: &str, field: &str) -> f64 {
    of(samples, name).iter().filter_map(|sample| sample[field].as_f64()).sum()
}

/// Waits until the samples so far satisfy `want`.
#[track_caller]
pub(crate) fn wait_samples(running: &Running, want: impl Fn(&[Value]) -> bool) {
    running.wait_stdout(|text| want(&samples(text)).then_some(()));
}

/// Asks it to end as Ctrl-C does.
#[track_caller]
pub(crate) fn interrupt(running: Running) -> Output {
    running.signal(Signal::SIGINT);
    running.wait()
}

/// That a new session works, with values in it.
#[track_caller]
pub(crate) fn can_be_watched(target: &Target) {
    let running = monitor(target).args(["--json", "--refresh-interval", "0.1"]).spawn();
    wait_samples(&running, |samples| !of(samples, "gc-heap-size").is_empty());
    interrupt(running).success();
}

#[test]
fn event_counters_are_exact_on_every_runtime() {
    for runtime in runtimes() {
        let mut target = Target::spawn(&runtime, "Counters", &[]);
        let running = monitor(&target)
            .args(["--counters", "Bench-Counters", "--json", "--refresh-interval", "0.5"])
            .spawn();
        wait_samples(&running, |samples| !of(samples, "polled").is_empty());
        for _ in 0..3 {
            target.ask("step", "stepped ");
        }
        // +10 a step, all of them counted once.
        wait_samples(&running, |samples| sum(samples, "rate", "increment") >= 30.0);
        wait_samples(&running, |samples| of(samples, "polled").len() >= 4);
        let output = interrupt(running);
        let samples = samples(&output.success());
        let name = &runtime.version;
        assert_eq!(sum(&samples, "rate", "increment"), 30.0, "{name}");
        assert!(of(&samples, "polled").iter().all(|s| s["value"] == 42.5), "{name}: {samples:?}");
        // Every poll adds 3; .NET Core 3.1 may poll more than once in an interval.
        let polls = of(&samples, "polled-rate");
        assert!(
            polls.iter().all(|s| s["increment"].as_f64().is_some_and(|n| n > 0.0 && n % 3.0 == 0.0)),
            "{name}"
        );
        if runtime.major() >= 5 {
            assert!(polls.iter().skip(1).all(|s| s["increment"] == 3.0), "{name}: {polls:?}");
        }
        // 10, 20 and 60 a step: whatever steps fall into an interval, the mean is 30.
        let means: Vec<_> = of(&samples, "sizes").iter().map(|s| s["value"].as_f64()).collect();
        assert!(means.contains(&Some(30.0)), "{name}: {means:?}");
        assert!(means.iter().all(|&mean| mean == Some(30.0) || mean == Some(0.0)), "{name}: {means:?}");
        let size = of(&samples, "sizes")[0];
        assert_eq!((&size["display_name"], &size["unit"]), (&"Sizes".into(), &"B".into()), "{name}");
        assert_eq!(size["tags"], serde_json::json!({"color": "blue"}), "{name}");
        assert_eq!((&size["source"], &size["interval"]), (&"event-counter".into(), &0.5.into()), "{name}");
        assert!(target.alive(), "{name}");
    }
}

#[test]
fn meters_are_exact_on_every_runtime() {
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 8) {
        let mut target = Target::spawn(&runtime, "Meters", &[]);
        let counters = "Bench.Meter,Bench.Tagged";
        let running =
            monitor(&target).args(["--counters", counters, "--json", "--refresh-interval", "0.5"]).spawn();
        wait_samples(&running, |samples| !of(samples, "bench.gauge").is_empty());
        for _ in 0..3 {
            target.ask("step", "stepped ");
        }
        // Observable instruments: what they say now. Others: the sum since the session began.
        let total = |samples: &[Value], name| {
            of(samples, name).last().map(|s| s["total"].clone()).unwrap_or_default()
        };
        wait_samples(&running, |samples| {
            total(samples, "bench.total") == 300.0 && total(samples, "bench.hits") == 3.0
        });
        let samples = samples(&interrupt(running).success());
        let name = &runtime.version;
        let mut last: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for sample in &samples {
            let key = format!("{} {}", sample["name"].as_str().unwrap_or_default(), sample["tags"]);
            let entry = last.entry(key).or_default();
            let value = if sample["value"].is_null() { &sample["total"] } else { &sample["value"] };
            entry.0 = value.as_f64().unwrap_or_default();
            entry.1 += sample["increment"].as_f64().unwrap_or_default();
        }
        let expect = |key: &str, value, added| {
            assert_eq!(last.get(key), Some(&(value, added)), "{name}: {key} in {last:#?}");
        };
        expect(r#"bench.done {"kind":"a"}"#, 6.0, 6.0);
        expect(r#"bench.done {"kind":"b"}"#, 9.0, 9.0);
        expect("bench.level {}", 12.0, 12.0);
        expect(r#"bench.gauge {"room":"blue"}"#, 9.0, 0.0);
        expect(r#"bench.gauge {"room":"red"}"#, 7.0, 0.0);
        expect("bench.total {}", 300.0, 300.0);
        expect("bench.balance {}", -4.5, -4.5);
        expect("bench.hits {}", 3.0, 3.0);
        // 1 to 100 three times, in whatever intervals.
        assert_eq!(
            (sum(&samples, "bench.sizes", "count"), sum(&samples, "bench.sizes", "sum")),
            (300.0, 15150.0),
            "{name}"
        );
        let measured =
            of(&samples, "bench.sizes").into_iter().find(|s| s["count"] != 0).cloned().unwrap_or_default();
        for (quantile, expected) in [("0.5", 50.0), ("0.95", 95.0), ("0.99", 99.0)] {
            // The runtime's histogram has buckets: exact to a few percent.
            let value = measured["quantiles"][quantile].as_f64().unwrap_or_default();
            assert!((value - expected).abs() <= expected * 0.05, "{name}: {measured}");
        }
        let hits = of(&samples, "bench.hits")[0];
        assert_eq!(hits["meter_tags"], serde_json::json!({"esc": "\u{1b}[31m", "region": "eu"}), "{name}");
        assert_eq!(hits["instrument_tags"], serde_json::json!({"shard": "3"}), "{name}");
        assert!(target.alive(), "{name}");
    }
}

#[test]
fn the_size_of_the_heap_is_found_on_every_runtime() {
    for runtime in runtimes() {
        let target = Target::spawn(&runtime, "Leak", &["1000", "1"]);
        for selection in [None, Some("gc-heap-size"), Some("dotnet.gc.last_collection.heap.size")] {
            let mut dnd = monitor(&target).args(["--refresh-interval", "0.1", "--json"]);
            if let Some(selection) = selection {
                dnd = dnd.args(["--counters", selection]);
            }
            let running = dnd.spawn();
            let meter = runtime.major() >= 9;
            wait_samples(&running, |samples| {
                !of(samples, "gc-heap-size").is_empty()
                    && (!meter || !of(samples, "dotnet.gc.last_collection.heap.size").is_empty())
            });
            let samples = samples(&interrupt(running).success());
            // Before the Meter, the sizes of the generations were counters of their own.
            let is_size =
                |name: &str| name.contains("heap") || name.starts_with("gen-") || name.ends_with("oh-size");
            let others = samples.iter().filter(|s| !s["name"].as_str().is_some_and(is_size)).count();
            assert_eq!(others == 0, selection.is_some(), "{}: {selection:?} {samples:?}", runtime.version);
            let old = of(&samples, "cpu-usage").len();
            assert!(!meter || old == 0, "{}: EventCounters beside the Meter", runtime.version);
        }
    }
}

#[test]
fn lines_can_be_searched() {
    for runtime in one_per_major() {
        let mut target = Target::spawn(&runtime, "Counters", &[]);
        let running =
            monitor(&target).args(["--counters", "Bench-Counters", "--refresh-interval", "0.2"]).spawn();
        running.wait_stdout(|text| text.contains("\tpolled\t").then_some(()));
        target.ask("step", "stepped ");
        running.wait_stdout(|text| text.contains("\tsizes[color=blue]\t30\tB\n").then_some(()));
        running.wait_stdout(|text| text.contains("\trate\t10\tstep / 0.2 sec\n").then_some(()));
        let text = interrupt(running).success();
        // A machine with much to do is late.
        for line in text.lines().filter(|line| !line.contains("\tno sample\t")) {
            let columns: Vec<_> = line.split('\t').collect();
            let [time, pid, "Bench-Counters", _, value, _] = columns.as_slice() else { panic!("{line}") };
            assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
            assert_eq!(*pid, target.pid().to_string(), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}

/// The runtime whose Meters are the richest.
pub(crate) fn newest() -> Option<dnd_testkit::Runtime> {
    runtimes().pop().filter(|runtime| runtime.major() >= 8)
}

#[test]
fn nothing_is_late_of_a_runtime_that_is_not_asked() {
    let Some(runtime) = newest() else { return };
    let target = Target::builder(&runtime, "Counters").spawn();
    let lines = monitor(&target).args(["--counters", "OS[threads]", "--duration", "3s"]).run().success();
    assert!(
        lines.lines().count() >= 3 && lines.lines().all(|line| line.contains("\tOS\tthreads")),
        "{lines}"
    );
    let text = monitor(&target).args(["--counters", "OS", "--duration", "3s", "--json"]).run().success();
    let documents = documents(&text);
    assert!(
        documents.len() > 3 && documents.iter().all(|document| document["late_seconds"].is_null()),
        "{text}"
    );
}

#[test]
fn two_watch_the_same_process() {
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 8) {
        let mut target = Target::spawn(&runtime, "Meters", &[]);
        let watch = |interval: &str| {
            let counters = ["--counters", "Bench.Meter", "--json", "--refresh-interval", interval];
            monitor(&target).args(counters).spawn()
        };
        let first = watch("0.2");
        wait_samples(&first, |samples| !of(samples, "bench.gauge").is_empty());
        // Sharing needs the same interval: the second takes over the first one's, and says so.
        let second = watch("0.5");
        wait_samples(&second, |samples| !of(samples, "bench.gauge").is_empty());
        let output = interrupt(second);
        let all = documents(&output.success());
        let notices: Vec<_> = all.iter().filter_map(|d| d["notices"].as_array()).flatten().collect();
        assert!(
            notices.iter().any(|n| n["notice"] == "shared-settings" && n["interval"] == 0.2),
            "{notices:?}"
        );
        let gauge =
            all.iter().flat_map(|d| d["samples"].as_array()).flatten().find(|s| s["name"] == "bench.gauge");
        assert_eq!(gauge.map(|g| g["interval"].clone()), Some(0.2.into()));
        // The first goes on undisturbed.
        let before = first.wait_stdout(|text| Some(of(&samples(text), "bench.gauge").len()));
        wait_samples(&first, |samples| of(samples, "bench.gauge").len() > before + 4);
        interrupt(first).success();
        assert!(target.alive());
    }
}

#[test]
fn limits_of_the_target_are_told() {
    let Some(runtime) = newest() else { return };
    let mut target = Target::spawn(&runtime, "Meters", &[]);
    let counters = "Bench.Odd[odd.many,odd.failing]";
    let limit = ["--counters", counters, "--maxTimeSeries", "6", "--refresh-interval", "0.2"];
    let running = monitor(&target).args(limit).spawn();
    running.wait_stdout(|text| text.contains("\todd.failing\t").then_some(()));
    target.ask("many 50", "done");
    running.wait_stderr(|text| text.contains("limit of time series was reached").then_some(()));
    running.wait_stdout(|text| text.contains("\todd.many[").then_some(()));
    let text = interrupt(running).success();
    let series: std::collections::BTreeSet<_> =
        text.lines().filter_map(|line| line.split('\t').nth(3)).collect();
    assert!(series.len() > 1 && series.len() <= 6, "{series:?}");
}

#[test]
fn limits_of_histograms_are_told() {
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 8) {
        let mut target = Target::spawn(&runtime, "Meters", &[]);
        let counters = ["--counters", "Bench.Odd[odd.spread,odd.failing]", "--refresh-interval", "0.2"];
        let running = monitor(&target).args(counters).args(["--maxHistograms", "3"]).spawn();
        running.wait_stdout(|text| text.contains("\todd.failing\t").then_some(()));
        target.ask("spread 20", "done");
        running.wait_stderr(|text| text.contains("limit of histograms was reached").then_some(()));
        running.wait_stdout(|text| text.contains("\todd.spread[").then_some(()));
        let text = interrupt(running).success();
        let series: std::collections::BTreeSet<_> = text
            .lines()
            .filter(|line| line.contains("Percentile=50]"))
            .filter_map(|l| l.split('\t').nth(3))
            .collect();
        assert_eq!(series.len(), 3, "{}: {series:?}", runtime.version);
    }
}

#[test]
fn what_the_system_says_is_what_it_says_elsewhere() {
    for runtime in one_per_major() {
        let target = Target::spawn(&runtime, "Counters", &[]);
        let pid = target.pid();
        let count =
            |folder: &str| must(std::fs::read_dir(format!("/proc/{pid}/{folder}")), folder).count() as f64;
        let memory = || {
            let status = must(std::fs::read_to_string(format!("/proc/{pid}/status")), "status");
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() * 1024.0
        };
        // No session is started for these, so nothing in the process changes.
        let arguments = ["--counters", "OS[threads,fds,rss,pss]", "--refresh-interval", "0.2", "--json"];
        let running = monitor(&target).args(arguments).spawn();
        wait_samples(&running, |samples| !of(samples, "rss").is_empty());
        target.signal(Signal::SIGSTOP);
        let (threads, fds, rss) = (count("task"), count("fd"), memory());
        let before = running.wait_stdout(|text| Some(of(&samples(text), "rss").len()));
        wait_samples(&running, |samples| of(samples, "rss").len() > before + 3);
        let samples = samples(&interrupt(running).success());
        let last = |name: &str| of(&samples, name).last().and_then(|s| s["value"].as_f64());
        assert_eq!((last("threads"), last("fds"), last("rss")), (Some(threads), Some(fds), Some(rss)));
        assert!(last("pss").is_some_and(|pss| pss > 0.0 && pss <= rss), "{samples:?}");
        target.signal(Signal::SIGCONT);
        target.stop();
    }
}

#[test]
fn bad_arguments() {
    let fails = |args: &[&str]| Dnd::new(DND).args(["counters", "monitor"]).args(args).run().fails(2);
    assert!(fails(&["-p", "1", "--counters", "A[b"]).contains("a `[` is not closed"));
    assert!(fails(&["-p", "1", "--refresh-interval", "0"]).contains("0.1 to 86400"));
    assert!(fails(&["-p", "1", "--maxHistograms", "-1"]).contains("maxHistograms"));
    assert!(fails(&["-p", "1", "--duration", "soon"]).contains("DD:HH:MM:SS"));
    assert!(fails(&["-p", "0"]).contains("0"));
    assert!(fails(&["-p", "x"]).contains("'x'"));
    assert!(fails(&["-p", "1", "-n", "x"]).contains("cannot be used with"));
    assert!(fails(&["-p", "1", "--", "true"]).contains("cannot be used with"));
    assert!(fails(&[]).contains("which process?"));
    assert!(fails(&["--diagnostic-port", "/tmp/port,both"]).contains("PATH,listen or PATH,connect"));
    // Bad is one thing, absent another.
    let absent = |args: &[&str]| Dnd::new(DND).args(["counters", "monitor"]).args(args).run().fails(3);
    assert!(absent(&["-p", "4294967295"]).contains("there is no process 4294967295"));
    assert!(absent(&["-n", "no such name"]).contains("no .NET process is named `no such name`"));
    assert!(absent(&["-p", &std::process::id().to_string()]).contains("is not a .NET process"));
    assert!(absent(&["--diagnostic-port", "/no/such/port,connect"]).contains("/no/such/port"));
    assert!(absent(&["--", "/no/such/program"]).contains("cannot run `/no/such/program`"));
}
