//! `dnd counters collect`: files that other programs read, whatever happens while they are written.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use dnd_testkit::{DEADLINE, Dnd, Running, Target, must, one_per_major, runtimes, skip};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::DND;

fn collect(target: &Target, dir: &Path) -> Dnd {
    let pid = target.pid().to_string();
    Dnd::new(DND).args(["counters", "collect", "-p", &pid, "--refresh-interval", "0.2"]).dir(dir)
}

fn newest(app: &str) -> Option<Target> {
    Some(Target::spawn(&runtimes().pop().filter(|runtime| runtime.major() >= 8)?, app, &[]))
}

/// Waits until the file satisfies `want`, as its writer goes on.
#[track_caller]
fn wait_file<T>(running: &Running, path: &Path, want: impl Fn(&str) -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        match want(&text) {
            Some(found) => return found,
            None => assert!(
                Instant::now() < deadline,
                "process {} never wrote what was expected: {text}",
                running.pid()
            ),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The rows of a csv file as RFC 4180 has them.
fn csv(text: &str) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new()]];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(field) = rows.last_mut().and_then(|row| row.last_mut()) else { unreachable!() };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => rows.last_mut().expect("a row").push(String::new()),
            '\n' if !quoted => rows.push(vec![String::new()]),
            c => field.push(c),
        }
    }
    assert!(!quoted, "a quote is not closed: {text}");
    assert_eq!(rows.pop(), Some(vec![String::new()]), "the last row is whole");
    rows
}

#[test]
fn csv_files() {
    let Some(target) = newest("Meters") else { return };
    let (_scratch, dir) = Dnd::scratch();
    let path = dir.join("odd.csv");
    let running =
        collect(&target, &dir).args(["--counters", "Bench.Odd[odd.tags],OS[threads]", "-o", "odd"]).spawn();
    wait_file(&running, &path, |text| (text.matches("a,b=c").count() > 2).then_some(()));
    running.signal(Signal::SIGINT);
    let output = running.wait();
    assert!(output.stderr.contains("writing to odd.csv"), "{}", output.stderr);
    output.success();
    let mode = must(std::fs::metadata(&path), "file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = must(std::fs::read_to_string(&path), "file");
    let rows = csv(&text);
    assert_eq!(rows[0].join(","), "Timestamp,Provider,Counter Name,Counter Type,Mean/Increment");
    assert!(rows.iter().all(|row| row.len() == 5), "{text}");
    let value = |name: &str| {
        rows.iter().find(|row| row[2] == name).map(|row| (row[1].as_str(), row[3].as_str(), row[4].as_str()))
    };
    assert_eq!(value("odd.tags[room=\"q\"\n]"), Some(("Bench.Odd", "Metric", "1")));
    assert_eq!(value("odd.tags[room=a,b=c]"), Some(("Bench.Odd", "Metric", "2")));
    assert_eq!(value("odd.tags[room=\u{1b}[2J]"), Some(("Bench.Odd", "Metric", "3")));
    assert!(value("threads").is_some_and(|(provider, ..)| provider == "OS"));

    // Python's own reader agrees.
    let script = "import csv,sys; print(sorted({r[2] for r in csv.reader(open(sys.argv[1], newline=''))} - {'threads'}))";
    match std::process::Command::new("python3").args(["-c", script]).arg(&path).output() {
        Ok(output) => assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            r#"['Counter Name', 'odd.tags[room=\x1b[2J]', 'odd.tags[room="q"\n]', 'odd.tags[room=a,b=c]']"#
        ),
        Err(_) => skip("reading csv with python3: it is not here"),
    }

    // What exists is not overwritten.
    let again = collect(&target, &dir).args(["-o", "odd.csv"]).run().fails(2);
    assert!(again.contains("odd.csv exists"), "{again}");
    assert_eq!(must(std::fs::read_to_string(&path), "file"), text);
    must(std::os::unix::fs::symlink("/nonexistent/target", dir.join("link.csv")), "symlink");
    assert!(collect(&target, &dir).args(["-o", "link.csv"]).run().fails(2).contains("exists"));
    // What a terminal would obey is not sent to it.
    let said = collect(&target, &dir).args(["--duration", "1s", "-o", "a\x1b[2J.csv"]).run().stderr;
    assert!(said.contains(r"writing to a\x1b[2J.csv;"), "{said}");
}

#[test]
fn csv_as_the_peers_write_it() {
    let Some(target) = newest("Counters") else { return };
    let (_scratch, dir) = Dnd::scratch();
    let arguments = ["--counters", "Bench-Counters,OS", "--compat", "-o", "-", "--duration", "2s"];
    let text = collect(&target, &dir).env("TZ", "UTC").args(arguments).run().success();
    let rows: Vec<_> = text.lines().collect();
    assert_eq!(rows[0], "Timestamp,Provider,Counter Name,Counter Type,Mean/Increment");
    let ends_with = |end: &str| rows.iter().any(|row| row.ends_with(end));
    assert!(ends_with(",Bench-Counters,Polled value (u),Metric,42.5"), "{text}");
    assert!(ends_with(",Bench-Counters,Polled rate (Count / 0.2 sec),Rate,3"), "{text}");
    assert!(!text.contains(",OS,"), "{text}");
    // 11/22/2026 16:12:00
    let time: Vec<_> = rows[1].split(['/', ' ', ':', ',']).take(6).collect();
    assert!(time.iter().all(|part| part.bytes().all(|b| b.is_ascii_digit())) && time[2].len() == 4, "{text}");
}

#[test]
fn json_files_are_whole_after_a_kill() {
    let Some(mut target) = newest("Meters") else { return };
    let (_scratch, dir) = Dnd::scratch();
    let path = dir.join("c.json");
    let arguments = ["--counters", "Bench.Odd[odd.tags]", "--format", "JSON", "-o", "c.json"];
    let running = collect(&target, &dir).args(arguments).spawn();
    // At any moment it is a document.
    let whole = |text: &str| -> Option<Value> {
        Some(text).filter(|t| !t.is_empty()).map(|t| must(serde_json::from_str(t), t))
    };
    wait_file(&running, &path, |text| (whole(text)?["Events"].as_array()?.len() > 6).then_some(()));
    running.signal(Signal::SIGKILL);
    running.wait();
    let text = must(std::fs::read_to_string(&path), "file");
    let document = whole(&text).unwrap_or_default();
    assert_eq!(document["TargetProcess"], "dotnet");
    let events = document["Events"].as_array().cloned().unwrap_or_default();
    let odd = events.iter().find(|event| event["tags"] == "room=\"q\"\n").unwrap_or_else(|| panic!("{text}"));
    let expected =
        ["provider", "name", "counterType", "meterTags", "instrumentTags"].map(|key| odd[key].as_str());
    assert_eq!(expected, [Some("Bench.Odd"), Some("odd.tags"), Some("Metric"), Some(""), Some("")]);
    assert_eq!(odd["value"], 1.0);
    assert!(odd["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
    assert!(target.alive());
}

#[test]
fn documents_on_standard_output() {
    for runtime in one_per_major() {
        let target = Target::spawn(&runtime, "Counters", &[]);
        let (_scratch, dir) = Dnd::scratch();
        for format in ["ndjson", "json"] {
            let arguments =
                ["--counters", "Bench-Counters", "--format", format, "-o", "-", "--duration", "1s"];
            let text = collect(&target, &dir).args(arguments).run().success();
            assert!(text.contains("42.5"), "{text}");
            let documents: Vec<Value> = match format {
                "json" => vec![must(serde_json::from_str(&text), &text)],
                _ => text.lines().map(|line| must(serde_json::from_str(line), line)).collect(),
            };
            assert!(!documents.is_empty());
        }
        assert_eq!(std::fs::read_dir(&dir).map(Iterator::count).ok(), Some(0), "no file beside it");
    }
}

#[test]
fn several_processes_in_one_file() {
    let targets: Vec<_> =
        one_per_major().iter().take(2).map(|runtime| Target::spawn(runtime, "Counters", &[])).collect();
    let [a, b] = targets.as_slice() else { return };
    let (_scratch, dir) = Dnd::scratch();
    let pids = format!("{},{}", a.pid(), b.pid());
    let all =
        ["counters", "collect", "-p", &pids, "--counters", "Bench-Counters", "--duration", "2s", "-o", "-"];
    let text = Dnd::new(DND).args(all).dir(&dir).run().success();
    let rows = csv(&text);
    assert_eq!(rows[0][5..], ["Process ID", "Process Name"]);
    for target in [a, b] {
        assert!(rows.iter().any(|row| row[4] == "42.5" && row[5] == target.pid().to_string()), "{text}");
    }
    let refused = Dnd::new(DND).args(all).arg("--compat").dir(&dir).run().fails(2);
    assert!(refused.contains("--compat is for one process"), "{refused}");
}

/// Tags that other tools get wrong, in every form that is written here; the screen, Prometheus and OTLP have tests of their own.
#[test]
fn tags_that_hold_anything() {
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 8) {
        let target = Target::spawn(&runtime, "Meters", &[]);
        let (_scratch, dir) = Dnd::scratch();
        let pid = target.pid().to_string();
        let written = |command: &str, more: &[&str]| {
            let arguments = ["counters", command, "-p", &pid, "--counters", "Bench.Odd[odd.tags]"];
            let dnd = Dnd::new(DND).args(arguments).args(["--refresh-interval", "0.2", "--duration", "1s"]);
            dnd.args(more).dir(&dir).run().success()
        };
        let rooms = ["\"q\"\n", "a,b=c", "\u{1b}[2J"];
        let name = &runtime.version;

        // Lines are lines, and no escape reaches a terminal.
        let text = written("monitor", &[]);
        for (room, value) in [("\"q\"\\n", 1), ("a,b=c", 2), ("\\x1b[2J", 3)] {
            let line = format!("\tBench.Odd\todd.tags[room={room}]\t{value}\t");
            assert!(text.contains(&line), "{name}: {line} in {text}");
        }
        assert!(!text.contains('\u{1b}') && text.lines().all(|line| line.split('\t').count() == 6), "{text}");

        // The peers' exact form: nothing quoted, so a newline breaks the row; commas are semicolons there.
        let text = written("collect", &["-o", "-", "--compat"]);
        for row in [",Bench.Odd,odd.tags[room=\"q\"\n],Metric,1\n", ",odd.tags[room=a;b=c],Metric,2\n"] {
            assert!(text.contains(row), "{name}: {row} in {text}");
        }
        let rows = csv(&written("collect", &["-o", "-"]));
        for (room, value) in rooms.iter().zip(["1", "2", "3"]) {
            let is = |row: &&Vec<String>| row[2] == format!("odd.tags[room={room}]") && row[4] == value;
            assert!(rows.iter().any(|row| is(&row)), "{name}: {rows:?}");
        }

        let json: Value =
            must(serde_json::from_str(&written("collect", &["-o", "-", "--format", "json"])), name);
        for (room, value) in rooms.iter().zip([1.0, 2.0, 3.0]) {
            let events = json["Events"].as_array().cloned().unwrap_or_default();
            let is = |event: &&Value| event["tags"] == format!("room={room}") && event["value"] == value;
            assert!(events.iter().any(|event| is(&event)), "{name}: {json}");
        }
        for (command, more) in [("collect", &["-o", "-", "--format", "ndjson"][..]), ("monitor", &["--json"])]
        {
            let text = written(command, more);
            for (room, value) in rooms.iter().zip([1.0, 2.0, 3.0]) {
                let is = |sample: &Value| sample["tags"]["room"] == *room && sample["value"] == value;
                let found = text.lines().any(|line| {
                    let document: Value = must(serde_json::from_str(line), line);
                    document["samples"].as_array().is_some_and(|samples| samples.iter().any(is))
                });
                assert!(found, "{name}: {room:?} in {text}");
            }
        }
    }
}

#[test]
fn five_a_second_is_5() {
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 8) {
        let target = Target::spawn(&runtime, "Meters", &[]);
        let (_scratch, dir) = Dnd::scratch();
        let pid = target.pid().to_string();
        // It grows by 5 whenever it is collected, which is once a second.
        let arguments =
            ["counters", "collect", "-p", &pid, "--counters", "Bench.Odd[odd.steady]", "-o", "c.csv"];
        let rate = "odd.steady (Count / 1 sec),Rate,";
        let more = ["--alert", "Bench.Odd[odd.steady]>4/s", "--alert", "Bench.Odd[odd.steady]>5/s"];
        let running = Dnd::new(DND).args(arguments).args(more).dir(&dir).spawn();
        let path = dir.join("c.csv");
        wait_file(&running, &path, |text| (text.matches(rate).count() >= 3).then_some(()));
        running.wait_stderr(|text| text.contains("odd.steady").then_some(()));
        running.signal(Signal::SIGINT);
        let output = running.wait();
        let text = must(std::fs::read_to_string(&path), "file");
        let rates: Vec<_> = text.lines().filter_map(|line| Some(line.split_once(rate)?.1)).collect();
        assert!(rates.iter().all(|rate| *rate == "5"), "{}: {text}", runtime.version);
        let raised = |limit: &str| {
            output
                .stderr
                .lines()
                .any(|l| l.contains(&format!("odd.steady]>{limit}/s")) && !l.contains("watching"))
        };
        assert!(raised("4") && !raised("5"), "{}", output.stderr);
    }
}

#[test]
fn bad_arguments() {
    let Some(target) = newest("Counters") else { return };
    let (_scratch, dir) = Dnd::scratch();
    let fails = |args: &[&str], code: i32| collect(&target, &dir).args(args).run().fails(code);
    assert!(fails(&["--format", "xml"], 2).contains("csv, json, ndjson"));
    assert!(fails(&["--format", "json", "--compat"], 2).contains("--compat is for csv"));
    assert!(fails(&["-o", "no/such/folder/x"], 3).contains("cannot create no/such/folder/x.csv"));
    assert!(fails(&["-o", "/proc/x.csv"], 3).contains("cannot create /proc/x.csv"));
}
