//! Several processes at once, and those that come and go.

use dnd_testkit::{Dnd, Key, Target, one_per_major};

use super::DND;
use super::counters::{interrupt, newest};

#[test]
fn several_processes_at_once() {
    let mut targets: Vec<_> =
        one_per_major().iter().map(|runtime| Target::spawn(runtime, "Counters", &[])).collect();
    let (Some(first), true) = (targets.first(), targets.len() > 1) else { return };
    let pids: Vec<_> = targets.iter().map(|target| target.pid().to_string()).collect();
    let all =
        || Dnd::new(DND).args(["counters", "monitor", "-p", &pids.join(","), "--refresh-interval", "0.2"]);
    let running = all().args(["--counters", "Bench-Counters"]).spawn();
    let seen = |text: &str, pid: &str| text.contains(&format!("\t{pid}\tBench-Counters\tpolled\t42.5\t"));
    running.wait_stdout(|text| pids.iter().all(|pid| seen(text, pid)).then_some(()));
    interrupt(running).success();

    let mut screen = all().pty(20, 100);
    screen.wait_until(|text| {
        let row = |pid: &String| text.lines().any(|line| line.contains(pid) && !line.contains(" - "));
        text.contains(&format!("{} processes", pids.len())) && pids.iter().all(row)
    });
    screen.press(Key::Down);
    screen.wait_until(|text| text.lines().any(|line| line.starts_with('>') && line.contains(&pids[1])));
    screen.press(Key::Enter);
    screen.wait_for(&format!("Status: Running - {}", pids[1]));
    screen.keys("/gc-heap-size\r");
    screen.wait_until(|text| text.contains("GC Heap Size (MB)") && !text.contains("threads"));
    screen.keys("c");
    screen.wait_until(|text| text.contains("\nGC Heap Size (MB)") && text.contains(">   GC Heap Size (MB)"));
    screen.press(Key::Escape);
    screen.wait_until(|text| !text.contains("Search:"));
    screen.press(Key::Escape);
    screen.wait_for("processes");
    // One that ends stays in the list; the others go on.
    let gone = first.pid().to_string();
    targets.remove(0).stop();
    screen.wait_until(|text| text.lines().any(|line| line.contains(&gone) && line.ends_with("ended")));
    screen.keys("q");
    assert!(screen.wait_end().success());
    assert!(targets.iter_mut().all(Target::alive));
}

#[test]
fn processes_that_come_later() {
    let Some(runtime) = newest() else { return };
    let pattern = [
        "counters",
        "monitor",
        "-n",
        "Mete*",
        "--counters",
        "OS[threads],Bench.Meter",
        "--refresh-interval",
        "0.2",
    ];
    let running = Dnd::new(DND).args(pattern).spawn();
    running.wait_stderr(|text| {
        text.contains("watching all .NET processes named Mete*, also those that start later").then_some(())
    });
    let target = Target::spawn(&runtime, "Meters", &[]);
    let sees = |target: &Target| format!("\t{}\tBench.Meter\tbench.gauge[room=red]\t7\t", target.pid());
    running.wait_stdout(|text| text.contains(&sees(&target)).then_some(()));
    target.stop();
    let target = Target::spawn(&runtime, "Meters", &[]);
    running.wait_stdout(|text| text.contains(&sees(&target)).then_some(()));
    interrupt(running).success();
}

#[test]
fn processes_that_cannot_be_reached_are_counted() {
    let Some(runtime) = newest() else { return };
    let target = Target::builder(&runtime, "Meters").env("DOTNET_EnableDiagnostics", "0").spawn();
    let all = ["counters", "monitor", "--all", "--counters", "OS[threads]", "--duration", "1s"];
    let output = Dnd::new(DND).args(all).run();
    assert!(output.stderr.contains("left out that can't be reached; `dnd ps` says why"), "{}", output.stderr);
    drop(target);
    // None of a name that nothing has.
    let none = ["counters", "monitor", "-n", "no-such-name*", "--duration", "1s"];
    let output = Dnd::new(DND).args(none).run();
    assert!(!output.stderr.contains("left out"), "{}", output.stderr);
}

#[test]
fn all_processes_of_a_container() {
    let Some(runtime) = newest() else { return };
    let Some(builder) = Target::builder(&runtime, "Counters").in_container() else { return };
    let target = builder.spawn();
    // Inside there is only this one: others are none of our business.
    let running =
        Dnd::beside(DND, &target).args(["counters", "monitor", "--all", "--refresh-interval", "0.2"]).spawn();
    running.wait_stdout(|text| text.contains("\t1\tSystem.Runtime\tgc-heap-size\t").then_some(()));
    running.wait_stdout(|text| text.contains("\t1\tOS\trss\t").then_some(()));
}
