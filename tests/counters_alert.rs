//! Alerts on counters of real processes, and what they run.

use std::path::Path;
use std::time::{Duration, Instant};

use dnd_testkit::{DEADLINE, Dnd, Output, Running, Target, must, one_per_major, runtimes};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;

use super::DND;

fn counters(command: &str, target: &Target, dir: &Path) -> Dnd {
    let pid = target.pid().to_string();
    Dnd::new(DND).args(["counters", command, "-p", &pid, "--refresh-interval", "0.2"]).dir(dir)
}

fn newest(app: &str, args: &[&str]) -> Option<Target> {
    Some(Target::spawn(&runtimes().pop().filter(|runtime| runtime.major() >= 8)?, app, args))
}

#[track_caller]
fn interrupt(running: Running) -> Output {
    running.signal(Signal::SIGINT);
    running.wait()
}

/// A pipe with a name: whoever reads it waits until somebody writes.
fn fifo(dir: &Path) -> String {
    let path = dir.join("fifo");
    must(nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR), "mkfifo");
    path.to_string_lossy().into_owned()
}

/// Whether a process is there and no zombie.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// Waits for what only files tell.
#[track_caller]
fn wait_until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "it never came to that");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_leak_is_caught_in_a_dump() {
    for runtime in one_per_major() {
        let name = &runtime.version;
        let mut target = Target::spawn(&runtime, "Leak", &["10000", "1"]);
        let (_scratch, dir) = Dnd::scratch();
        let running = counters("monitor", &target, &dir)
            .args(["--alert", "gc-heap-size > 30MB for 1s", "--then", "dnd dump collect --type Heap -o core"])
            .spawn();
        running.wait_stdout(|text| text.contains("\tgc-heap-size\t").then_some(()));
        for _ in 0..4 {
            target.ask("more", "leaked ");
        }
        running.wait_stderr(|text| {
            let (_, rest) = text.split_once(" alert: process ")?;
            let (_, rest) = rest.split_once(" MB (gc-heap-size > 30MB for 1s); runs: dnd dump collect ")?;
            rest.contains("` succeeded\n").then_some(())
        });
        // It was watched all the time, and goes on.
        let before = running.wait_stdout(|text| Some(text.matches("\tgc-heap-size\t").count()));
        running.wait_stdout(|text| (text.matches("\tgc-heap-size\t").count() > before + 2).then_some(()));
        let output = interrupt(running);
        assert!(
            output.stderr.contains(&format!("--type Heap -o core -p {}\n", target.pid())),
            "{}",
            output.stderr
        );
        assert_eq!(output.stderr.matches(" alert: ").count(), 2, "{name}: {}", output.stderr);
        let stdout = output.success();
        assert!(stdout.lines().all(|line| line.split('\t').count() == 6), "{name}: data only: {stdout}");
        let listing =
            Dnd::new(DND).args(["dump", "analyze", "core", "-c", "dumpheap -stat"]).dir(&dir).run().success();
        let orders = listing.lines().find(|line| line.ends_with(" Shop.Order")).unwrap_or_default();
        let count = orders.split_whitespace().nth(1).map(|count| count.replace(',', ""));
        assert_eq!(count.as_deref(), Some("50000"), "{name}: {listing}");
        assert!(target.alive());
    }
}

#[test]
fn actions_do_not_hold_up_the_watching() {
    let Some(mut target) = newest("Leak", &["10", "1"]) else { return };
    let (_scratch, dir) = Dnd::scratch();
    let fifo = fifo(&dir);
    let arguments = ["--alert", "rss>1MB", "--alert", "threads>=1", "--exec", "sh -c 'cat fifo; exit 5'"];
    let running = counters("collect", &target, &dir).args(arguments).args(["-o", "c.csv"]).spawn();
    running.wait_stderr(|text| {
        // The second one fires while the first one's action is running.
        text.contains("(threads>=1); nothing is run: the action before is still running").then_some(())
    });
    let path = dir.join("c.csv");
    let rows = || std::fs::read_to_string(&path).unwrap_or_default().matches(",GC Heap Size").count();
    let before = rows();
    wait_until(|| rows() > before + 4);
    running.signal(Signal::SIGINT);
    running.wait_stderr(|text| text.contains("\nwaiting for the action of process ").then_some(()));
    // What it prints goes to standard error.
    must(std::fs::write(&fifo, "released\n"), "fifo");
    let output = running.wait();
    assert!(output.stderr.contains("\nreleased\n"), "{}", output.stderr);
    assert!(output.stderr.contains("` failed: exit code 5\n"), "{}", output.stderr);
    assert_eq!(output.success(), "");
    assert!(target.alive());
}

#[test]
fn the_impatient_leave_actions_alone() {
    let Some(target) = newest("Leak", &["10", "1"]) else { return };
    let (_scratch, dir) = Dnd::scratch();
    let fifo = fifo(&dir);
    let action = "sh -c 'cat fifo > copy; mv copy done'";
    let running = counters("alert", &target, &dir).args(["--alert", "rss>1MB", "--exec", action]).spawn();
    running.wait_stdout(|text| text.contains("; runs: sh -c ").then_some(()));
    running.signal(Signal::SIGTERM);
    running.wait_stderr(|text| text.contains("\nwaiting for the action of process ").then_some(()));
    running.signal(Signal::SIGINT);
    let pid = running.pid();
    wait_until(|| !runs(pid));
    must(std::fs::write(fifo, "the rest\n"), "fifo");
    wait_until(|| dir.join("done").exists());
    let said = running.wait().fails(1);
    assert!(said.contains(&format!("what is running for process {} goes on alone", target.pid())), "{said}");
    assert_eq!(must(std::fs::read_to_string(dir.join("done")), "file"), "the rest\n");
}

#[test]
fn what_actions_are_told() {
    let Some(target) = newest("Meters", &[]) else { return };
    let (_scratch, dir) = Dnd::scratch();
    let condition = "Bench.Odd[odd.tags]{room=\"\u{1b}[2J\"} >= 3";
    let running = counters("alert", &target, &dir)
        .args([
            "--alert",
            condition,
            "--exec",
            "sh -c 'env > \"$0\"; echo \"$@\" > args' env-{pid} {value} {counter}",
        ])
        .spawn();
    let told = running.wait_stdout(|text| text.contains("` succeeded\n").then(|| text.to_owned()));
    let pid = target.pid();
    let (alert, _) = told.split_once('\n').unwrap_or_default();
    assert!(
        alert.contains(&format!(
            " alert: process {pid} (dotnet): odd.tags{{room=\\x1b[2J}} is 3 (Bench.Odd[odd.tags]{{room=\"\\x1b[2J\"}} >= 3); runs: sh -c "
        )),
        "{alert}"
    );
    interrupt(running).success();
    let all = must(std::fs::read_to_string(dir.join(format!("env-{pid}"))), "environment");
    let mut environment: Vec<_> = all.lines().filter(|line| line.starts_with("DND_ALERT_")).collect();
    environment.sort_unstable();
    let expected = [
        "DND_ALERT_CONDITION=Bench.Odd[odd.tags]{room=\"\\x1b[2J\"} >= 3".to_owned(),
        "DND_ALERT_COUNTER=Bench.Odd[odd.tags]".to_owned(),
        format!("DND_ALERT_PID={pid}"),
        "DND_ALERT_PROCESS=dotnet".to_owned(),
        "DND_ALERT_TAGS=room=\\x1b[2J".to_owned(),
        "DND_ALERT_UNIT=".to_owned(),
        "DND_ALERT_VALUE=3".to_owned(),
    ];
    assert_eq!(environment, expected);
    // The counter is one word, as the user wrote it.
    let args = must(std::fs::read_to_string(dir.join("args")), "arguments");
    assert_eq!(args, "3 Bench.Odd[odd.tags]{room=\"\u{1b}[2J\"}\n");
}

#[test]
fn old_names_mean_the_same_on_every_runtime() {
    // Counters whose Meter says something else, or nothing.
    let rules =
        ["cpu-usage<=100%", "time-in-gc<=100%", "gen-2-size>=0B", "alloc-rate>=0B/s", "working-set>1MB"];
    for runtime in one_per_major() {
        let target = Target::spawn(&runtime, "Leak", &["10", "1"]);
        let (_scratch, dir) = Dnd::scratch();
        let running =
            counters("alert", &target, &dir).args(rules.iter().flat_map(|rule| ["--alert", rule])).spawn();
        running.wait_stdout(|text| {
            rules.iter().all(|rule| text.contains(&format!(" ({rule})\n"))).then_some(())
        });
        let output = interrupt(running);
        assert!(!output.stderr.contains("warning"), "{}: {}", runtime.version, output.stderr);
        assert_eq!(output.success().lines().count(), rules.len(), "{}: each once", runtime.version);
    }
}

#[test]
fn a_dry_run_runs_nothing() {
    let Some(target) = newest("Leak", &["10", "1"]) else { return };
    let (_scratch, dir) = Dnd::scratch();
    let actions = ["--then", "dnd dump collect -o core-{pid}", "--exec", "touch ran", "--dry-run"];
    let running = counters("alert", &target, &dir)
        .args(["--json", "--cooldown", "1s", "--max-alerts", "2", "--alert", "rss>1MB"])
        .args(actions)
        .spawn();
    let documents = |text: &str| -> Vec<Value> {
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| must(serde_json::from_str(line), line)).collect()
    };
    running.wait_stdout(|text| (documents(text).len() > 2).then_some(()));
    let output = interrupt(running);
    assert!(output.stderr.contains("watching for rss>1MB; then it would run: dnd dump"), "{}", output.stderr);
    let documents = documents(&output.success());
    let pid = target.pid();
    for document in &documents[..2] {
        let document = document.as_object().cloned().unwrap_or_default();
        assert!(document["value"].as_f64().is_some_and(|value| value > 1e6));
        let mut rest = document.clone();
        for key in ["time", "value", "held_seconds"] {
            assert!(rest.remove(key).is_some(), "{key}");
        }
        let expected = serde_json::json!({
            "schema": "dnd.counters.alert", "version": 1, "pid": pid, "process": "dotnet", "event": "alert",
            "alert": "rss>1MB", "provider": "OS", "name": "rss", "tags": {}, "unit": "By", "action": "dry-run",
            "commands": [format!("dnd dump collect -o core-{pid} -p {pid}"), "touch ran"],
        });
        assert_eq!(Value::Object(rest), expected);
    }
    assert_eq!(documents[2]["action"], "skipped");
    assert_eq!(documents[2]["reason"], "the maximum is reached, --max-alerts 2");
    assert_eq!(std::fs::read_dir(&dir).map(Iterator::count).ok(), Some(0), "nothing was run");
}

#[test]
fn a_stopped_process_raises_alerts_of_the_system() {
    let Some(mut target) = newest("Leak", &["10", "1"]) else { return };
    let (_scratch, dir) = Dnd::scratch();
    let running = counters("monitor", &target, &dir)
        .args(["--counters", "gc-heap-size", "--alert", "rss>1MB", "--cooldown", "1s"])
        .spawn();
    running.wait_stdout(|text| text.contains("\tgc-heap-size\t").then_some(()));
    target.signal(Signal::SIGSTOP);
    running.wait_stdout(|text| text.contains("\tno sample\t").then_some(()));
    let alerts = |text: &str| text.matches("(rss>1MB)\n").count();
    let before = running.wait_stderr(|text| Some(alerts(text)));
    running.wait_stderr(|text| (alerts(text) > before + 1).then_some(()));
    target.signal(Signal::SIGCONT);
    target.ask("more", "leaked ");
    interrupt(running).success();
}

#[test]
fn several_processes_have_an_action_each() {
    let targets: Vec<_> =
        one_per_major().iter().take(2).map(|runtime| Target::spawn(runtime, "Leak", &["10", "1"])).collect();
    let [a, b] = targets.as_slice() else { return };
    let (_scratch, dir) = Dnd::scratch();
    let pids = format!("{},{}", a.pid(), b.pid());
    let arguments = ["counters", "monitor", "--json", "--refresh-interval", "0.2", "-p", &pids];
    let running = Dnd::new(DND)
        .args(arguments)
        .args(["--alert", "rss>1MB", "--exec", "touch ran-{pid}"])
        .dir(&dir)
        .spawn();
    let alerts = |text: &str| -> Vec<Value> {
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let documents = whole.map(|line| must(serde_json::from_str::<Value>(line), line));
        documents.flat_map(|document| document["alerts"].as_array().cloned().unwrap_or_default()).collect()
    };
    let ended = |text: &str| alerts(text).iter().filter(|alert| alert["event"] == "action-ended").count();
    running.wait_stdout(|text| (ended(text) == 2).then_some(()));
    let all = alerts(&interrupt(running).success());
    for target in &targets {
        let events: Vec<_> = all.iter().filter(|alert| alert["pid"] == target.pid()).collect();
        let kinds: Vec<_> = events.iter().map(|alert| alert["event"].as_str().unwrap_or_default()).collect();
        assert_eq!(kinds, ["alert", "action-ended"]);
        assert_eq!(events[1]["command"], format!("touch ran-{}", target.pid()));
        assert_eq!((&events[1]["exit_code"], &events[1]["error"]), (&Value::from(0), &Value::Null));
        assert!(dir.join(format!("ran-{}", target.pid())).exists());
    }
}

#[test]
fn alerts_on_the_screen() {
    let Some(target) = newest("Leak", &["10", "1"]) else { return };
    let (_scratch, dir) = Dnd::scratch();
    let mut screen = counters("monitor", &target, &dir)
        .args(["--alert", "rss>1MB", "--exec", "sh -c 'echo $((6 * 7)) of 42; exit 4'"])
        .pty(20, 150);
    let text = screen.wait_for("` failed: exit code 4");
    assert!(text.contains(" alert: process ") && !text.contains("42 of 42"), "{text}");
    screen.keys("q");
    assert!(screen.wait_end().success());
    assert_eq!(screen.modes(), (false, false));
    // What the screen showed is gone with it: it is said again, with what the action printed.
    let text = screen.text();
    assert!(text.contains("; runs: sh -c 'echo $((6 * 7)) of 42; exit 4'\n"), "{text}");
    assert!(text.contains("` failed: exit code 4\n    42 of 42"), "{text}");
}

#[test]
fn conditions_that_never_come_true_are_told() {
    let Some(mut target) = newest("Meters", &[]) else { return };
    let (_scratch, dir) = Dnd::scratch();
    let conditions = ["No.Such[counter]>1", "Bench.Meter[bench.gauge]>1MB", "Bench.Meter[bench.sizes]>1B"];
    let running = counters("alert", &target, &dir)
        .args(conditions.iter().flat_map(|condition| ["--alert", condition]))
        .spawn();
    running.wait_stderr(|text| text.contains("`Cel`").then_some(()));
    target.ask("step", "stepped ");
    let reasons = ["no value of No.Such[counter] was seen", "the counter is in `Cel`", "is a histogram"];
    running.wait_stderr(|text| reasons.iter().all(|reason| text.contains(reason)).then_some(()));
    assert_eq!(interrupt(running).success(), "");
}

#[test]
fn bad_alerts() {
    let fails = |args: &[&str]| {
        let all = ["counters", "alert", "-p", "1"].iter().chain(args);
        Dnd::new(DND).args(all).run().fails(2)
    };
    assert!(fails(&[]).contains("no condition is given"));
    assert!(fails(&["--alert", "gc-heap-size"]).contains("there is no `>`"));
    assert!(fails(&["--alert", "rss>5ms"]).contains("not measured in that unit"));
    assert!(fails(&["--alert", "rss>5MB for a while"]).contains("as in 30s"));
    assert!(fails(&["--alert", "rss>1", "--then", "dnd dump colect"]).contains("colect"));
    assert!(fails(&["--alert", "rss>1", "--exec", "'"]).contains("never closed"));
    assert!(fails(&["--alert", "rss>1", "--max-alerts", "-1"]).contains("max-alerts"));
    assert!(fails(&["--exec", "true"]).contains("--alert"));
    assert!(fails(&["--alert", "rss>1", "--cooldown", "soon"]).contains("as in 90s"));
}
