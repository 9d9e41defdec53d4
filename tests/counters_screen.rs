//! The screen of `dnd counters monitor`, in a real terminal.

use dnd_testkit::{Dnd, Key, Target, one_per_major, runtimes};
use nix::sys::signal::Signal;

use super::DND;

fn monitor(target: &Target) -> Dnd {
    Dnd::new(DND).args(["counters", "monitor", "-p", &target.pid().to_string()])
}

/// The runtime whose Meters are the richest.
fn newest() -> Option<dnd_testkit::Runtime> {
    runtimes().pop().filter(|runtime| runtime.major() >= 8)
}

/// A screen without its first two lines, which differ from run to run.
fn steady(screen: &str) -> String {
    screen.lines().skip(2).map(|line| format!("{line}\n")).collect()
}

#[test]
fn screens_at_three_widths() {
    let Some(runtime) = newest() else { return };
    let mut target = Target::spawn(&runtime, "Meters", &[]);
    for width in [40u16, 80, 160] {
        let dnd = monitor(&target).args([
            "--counters",
            "Bench.Odd[odd.tags,odd.failing]",
            "--refresh-interval",
            "0.2",
        ]);
        let mut screen = dnd.pty(20, width);
        let text = screen.wait_until(|text| text.contains("a,b=c") && text.contains("odd.failing"));
        let gap = usize::from(width) - 40;
        let row = |name: &str, value: &str| format!("{name:<24}{}{value:>12}\n", " ".repeat(gap));
        let expected = [
            "\n".to_owned(),
            format!("Name{}{:>36}\n", " ".repeat(gap), "Current Value"),
            "[Bench.Odd]\n".to_owned(),
            row("    odd.failing", "5"),
            "    odd.tags\n        room\n        -------\n".to_owned(),
            row(r"        \x1b[2J", "3"),
            row("        \"q\"\\n", "1"),
            row("        a,b=c", "2"),
        ];
        assert_eq!(steady(&text), expected.concat(), "{text}");
        assert!(text.contains("\n    Status: Running - "), "{text}");
        assert_eq!(screen.modes(), (true, true));
        screen.keys("q");
        assert!(screen.wait_end().success());
        assert_eq!(screen.modes(), (false, false), "the terminal is as it was");
    }
    // A callback that fails is told, and its last value is marked as old.
    let screen = monitor(&target).args(["--counters", "Bench.Odd", "--refresh-interval", "0.2"]).pty(24, 200);
    screen.wait_for("odd.failing");
    target.ask("fail", "done");
    screen.wait_until(|text| {
        text.contains("no value today")
            && text.lines().any(|l| l.contains("odd.failing") && l.contains(" old)"))
    });
    target.ask("mend", "done");
    screen.wait_until(|text| text.lines().any(|l| l.contains("odd.failing") && !l.contains(" old)")));
}

#[test]
fn keys_resizing_and_the_end_of_the_target() {
    for runtime in one_per_major() {
        let target = Target::spawn(&runtime, "Counters", &[]);
        let mut screen =
            monitor(&target).args(["--counters", "Bench-Counters", "--refresh-interval", "0.2"]).pty(20, 80);
        screen.wait_for("Polled value (u)");
        screen.keys("p");
        screen.wait_for("Status: Paused");
        screen.keys("r");
        screen.wait_for("Status: Running");
        screen.resize(12, 50);
        screen.wait_until(|text| {
            let value = text.lines().find(|line| line.contains("Polled value (u)"));
            value.is_some_and(|line| line.ends_with("42.5") && line.len() == 48)
        });
        target.stop();
        assert!(screen.wait_end().success(), "the end of the target is a good end");
        let text = screen.text();
        assert_eq!(screen.modes(), (false, false));
        assert!(text.contains("has ended") && text.contains("Polled value (u)"), "{text}");
    }
}

#[test]
fn every_way_to_end_it_restores_the_terminal() {
    let Some(runtime) = newest() else { return };
    let mut target = Target::spawn(&runtime, "Counters", &[]);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut screen = monitor(&target).args(["--refresh-interval", "0.2"]).pty(20, 80);
        screen.wait_for("Status: Running");
        screen.signal(signal);
        assert!(screen.wait_end().success(), "{signal}");
        assert_eq!(screen.modes(), (false, false), "{signal}");
    }
    let mut screen = monitor(&target).args(["--refresh-interval", "0.2"]).pty(20, 80);
    screen.wait_for("Status: Running");
    screen.press(Key::CtrlC);
    assert!(screen.wait_end().success());
    assert_eq!(screen.modes(), (false, false));
    // Colours only say what the text says, too; and who doesn't want them doesn't get them.
    let mut screen = monitor(&target).env("NO_COLOR", "1").args(["--refresh-interval", "0.2"]).pty(20, 80);
    screen.wait_for("Status: Running");
    screen.keys("q");
    screen.wait_end();
    assert!(!screen.raw().contains("\x1b[1m"), "{:?}", screen.raw());
    // That the watching ends is not the end of the process.
    assert!(!screen.raw().contains("has ended"), "{:?}", screen.raw());
    assert!(target.alive());
}
