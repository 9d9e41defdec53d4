//! `dnd counters monitor` that ends, and on real processes that stop, are silent, or end.

use std::process::Command;

use dnd_testkit::{Dnd, Target, one_per_major};
use nix::sys::signal::Signal;

use super::DND;
use super::counters::{can_be_watched, documents, interrupt, monitor, newest, of, wait_samples};

#[test]
fn signals_and_closed_pipes_are_good_ends() {
    for runtime in one_per_major() {
        let mut target = Target::spawn(&runtime, "Counters", &[]);
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let running = monitor(&target).args(["--refresh-interval", "0.1"]).spawn();
            running.wait_stdout(|text| text.contains("gc-heap-size").then_some(()));
            running.signal(signal);
            let output = running.wait();
            assert_eq!(output.stderr, "", "{signal}");
            output.success();
        }
        let script =
            "\"$0\" counters monitor -p $1 --refresh-interval 0.1 | head -n 1; echo ${PIPESTATUS[0]}";
        let mut piped = Command::new("bash");
        let output = piped.args(["-c", script, DND, &target.pid().to_string()]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("\tOS\t") && text.ends_with("\n0\n"), "a closed pipe is a good end: {text}");
        let output = monitor(&target).args(["--refresh-interval", "0.1", "--duration", "1s"]).run().success();
        assert!(output.contains("gc-heap-size"));
        assert!(target.alive());
        can_be_watched(&target);
    }
}

#[test]
fn a_killed_dnd_leaves_the_target_as_it_was() {
    for runtime in one_per_major() {
        let mut target = Target::spawn(&runtime, "Counters", &[]);
        let running = monitor(&target).args(["--refresh-interval", "0.1"]).spawn();
        running.wait_stdout(|text| text.contains("gc-heap-size").then_some(()));
        running.signal(Signal::SIGKILL);
        assert_eq!(running.wait().code, None);
        assert_eq!(target.ask("step", "stepped "), "1", "the target goes on");
        can_be_watched(&target);
        assert!(target.alive());
    }
}

#[test]
fn a_stopped_target_is_told_and_left_in_peace() {
    for runtime in one_per_major() {
        let mut target = Target::spawn(&runtime, "Counters", &[]);
        let running = monitor(&target).args(["--refresh-interval", "0.2"]).spawn();
        running.wait_stdout(|text| text.contains("gc-heap-size").then_some(()));
        target.signal(Signal::SIGSTOP);
        // The operating system goes on answering.
        running.wait_stdout(|text| {
            let (_, after) = text.split_once("\t-\tno sample\t")?;
            (after.matches("\tOS\trss\t").count() > 2).then_some(())
        });
        target.signal(Signal::SIGCONT);
        let late = "\tno sample\t";
        running.wait_stdout(|text| text.rsplit(late).next()?.contains("gc-heap-size").then_some(()));
        // Asked to end while the target can't answer: it ends, and says what it could not do.
        target.signal(Signal::SIGSTOP);
        running.signal(Signal::SIGINT);
        let output = running.wait();
        assert!(output.stderr.contains("did not confirm the end of the session"), "{}", output.stderr);
        output.success();
        target.signal(Signal::SIGCONT);
        target.ask("step", "stepped ");
        can_be_watched(&target);
        assert!(target.alive());
    }
}

#[test]
fn a_target_that_was_stopped_before_is_watched_from_outside_until_it_goes_on() {
    for runtime in one_per_major() {
        let mut target = Target::spawn(&runtime, "Counters", &[]);
        target.signal(Signal::SIGSTOP);
        let start = || monitor(&target).args(["--refresh-interval", "0.2"]).spawn();
        let outside = |text: &str| (text.matches("\tOS\trss\t").count() > 2).then_some(());
        // Asked to end before it could begin.
        let running = start();
        running.wait_stdout(outside);
        running.signal(Signal::SIGINT);
        let output = running.wait();
        assert!(output.stderr.contains("is stopped; until it goes on"), "{}", output.stderr);
        output.success();
        let running = start();
        running.wait_stdout(outside);
        target.signal(Signal::SIGCONT);
        running.wait_stdout(|text| text.contains("gc-heap-size").then_some(()));
        interrupt(running).success();
        assert_eq!(target.ask("step", "stepped "), "1", "the target goes on");
        can_be_watched(&target);
        assert!(target.alive());
    }
}

#[test]
fn silent_targets_are_found_among_all() {
    let Some(runtime) = newest() else { return };
    let target = Target::spawn(&runtime, "Counters", &[]);
    target.signal(Signal::SIGSTOP);
    let running = Dnd::new(DND).args(["counters", "monitor", "-n", "dotne*"]).spawn();
    let line = format!("\t{}\tOS\trss\t", target.pid());
    running.wait_stdout(|text| text.contains(&line).then_some(()));
    interrupt(running).success();
    target.signal(Signal::SIGCONT);
    can_be_watched(&target);
}

#[test]
fn the_end_of_the_target() {
    for runtime in one_per_major() {
        let mut target = Target::spawn(&runtime, "Counters", &[]);
        let running = monitor(&target).args(["--refresh-interval", "0.1", "--json"]).spawn();
        wait_samples(&running, |samples| !of(samples, "gc-heap-size").is_empty());
        target.signal(Signal::SIGKILL);
        target.wait();
        let output = running.wait();
        assert!(output.stderr.contains("has ended abruptly"), "{}", output.stderr);
        let last = documents(&output.success()).pop().unwrap_or_default();
        assert_eq!(last["end"], "target-died");

        let target = Target::spawn(&runtime, "Counters", &[]);
        let running = monitor(&target).args(["--refresh-interval", "0.1"]).spawn();
        running.wait_stdout(|text| text.contains("gc-heap-size").then_some(()));
        target.stop();
        let output = running.wait();
        assert!(output.stderr.contains("has ended\n"), "{}", output.stderr);
        output.success();
    }
}

#[test]
fn fresh_processes_survive_the_start_of_a_session() {
    // Switching Meters and EventCounters on at once hung the diagnostics of one in eight fresh .NET 10 processes.
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 8) {
        for _ in 0..10 {
            let target = Target::spawn(&runtime, "Counters", &[]);
            can_be_watched(&target);
            can_be_watched(&target);
        }
    }
}

#[test]
fn fresh_processes_survive_the_end_of_a_session() {
    // Ending the session for Meters during a process's first collection of values hung its diagnostics nearly always.
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 8) {
        for first in ["\tOS\t", "\tOS\tcpu\t", "gc-heap-size"] {
            let target = Target::spawn(&runtime, "Counters", &[]);
            let running = monitor(&target).args(["--refresh-interval", "0.1"]).spawn();
            running.wait_stdout(|text| text.contains(first).then_some(()));
            interrupt(running).success();
            can_be_watched(&target);
        }
    }
}
