//! The screen of `dnd counters monitor`, in a real terminal.

use dnd_testkit::{Dnd, Key, Target, one_per_major};
use nix::sys::signal::Signal;

use super::DND;
use super::counters::newest;

fn monitor(target: &Target) -> Dnd {
    Dnd::new(DND).args(["counters", "monitor", "-p", &target.pid().to_string()])
}

/// A screen without its first two lines, which differ from run to run.
fn steady(screen: &str) -> String {
    screen.lines().skip(2).map(|line| format!("{line}\n")).collect()
}

#[test]
fn screens_at_every_width() {
    let Some(runtime) = newest() else { return };
    let mut target = Target::spawn(&runtime, "Meters", &[]);
    let arguments = ["--counters", "Bench.Odd[odd.tags,odd.failing]", "--refresh-interval", "0.2"];
    for width in [40u16, 80, 120, 250] {
        let mut screen = monitor(&target).args(arguments).pty(20, width);
        let text = screen.wait_until(|text| text.contains("a,b=c") && text.contains("odd.failing"));
        // Beyond 88 columns names get no more room: numbers stay beside them, and the past comes behind.
        let gap = usize::from(width).min(88) - 40;
        let row = |name: &str, value: &str| format!("{name:<24}{}{value:>12}", " ".repeat(gap));
        let trend = if width > 100 { "  Trend" } else { "" };
        let expected = [
            String::new(),
            format!("Name{}{:>36}{trend}", " ".repeat(gap), "Current Value"),
            "[Bench.Odd]".to_owned(),
            row("    odd.failing", "5"),
            "    odd.tags".to_owned(),
            "        room".to_owned(),
            "        -------".to_owned(),
            row(r"        \x1b[2J", "3"),
            row("        \"q\"\\n", "1"),
            row("        a,b=c", "2"),
        ];
        // The trend of what never changes, as long as it was watched.
        let steady: Vec<_> =
            steady(&text).lines().map(|line| line.trim_end_matches(['▁', ' ']).to_owned()).collect();
        assert_eq!(steady, expected, "{text}");
        assert_eq!(text.contains('▁'), width > 100, "{text}");
        assert!(text.contains("\n    Status: Running - "), "{text}");
        let keys = match width {
            40 => "q quit  p pause  / search  s sort",
            _ => "Press p to pause, r to resume, q to quit.  / search  s sort  c chart  d deltas",
        };
        assert_eq!(text.lines().next(), Some(keys));
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
    // Attributes and colours end in `m`; there is none but the one that takes all away at the end.
    let raw = screen.raw();
    let styles: Vec<_> = raw
        .split("\x1b[")
        .skip(1)
        .filter_map(|text| {
            let end = text.find(|c: char| c.is_ascii_alphabetic())?;
            text.get(..=end).filter(|code| code.ends_with('m'))
        })
        .collect();
    assert_eq!(styles, ["0m"], "{raw:?}");
    // That the watching ends is not the end of the process.
    assert!(!screen.raw().contains("has ended"), "{:?}", screen.raw());
    assert!(target.alive());
}

#[test]
fn sorting_searching_and_deltas() {
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 8) {
        let mut target = Target::spawn(&runtime, "Meters", &[]);
        let arguments = ["--counters", "Bench.Meter", "--refresh-interval", "0.2"];
        let mut screen = monitor(&target).args(arguments).pty(30, 80);
        screen.wait_until(|text| text.contains("bench.total (s)"));
        target.ask("step", "stepped ");
        // All instruments, all kinds, exact. A histogram without measurements keeps its rows.
        let row = |text: &str, name: &str, value: &str| {
            text.lines().any(|line| line.trim().starts_with(name) && line.ends_with(value))
        };
        screen.wait_until(|text| {
            let rows = [
                ("bench.balance ", " -1.5"),
                ("a ", " 2"),
                ("b ", " 3"),
                ("blue ", " 9"),
                ("red ", " 7"),
                ("bench.level ({item}) ", " 4"),
                ("bench.total (s) ", " 100"),
                ("50 ", " -"),
                ("95 ", " -"),
                ("99 ", " -"),
            ];
            rows.into_iter().all(|(name, value)| row(text, name, value))
        });
        // Sorted by value, the largest first: the order of what is on the screen.
        screen.keys("s");
        let text = screen.wait_for("Sorted by value");
        let order: Vec<_> = text
            .lines()
            .skip_while(|line| !line.starts_with("Name"))
            .skip(1)
            .filter_map(|line| line.split_whitespace().last()?.parse::<f64>().ok())
            .collect();
        assert_eq!(order, [100.0, 9.0, 7.0, 4.0, 3.0, 2.0, -1.5], "{text}");
        screen.keys("d");
        screen.wait_for("Last Delta");
        screen.keys("s");
        screen.wait_for("Sorted by change");
        screen.keys("sd");
        screen.wait_until(|text| !text.contains("Sorted by") && !text.contains("Last Delta"));
        // A search leaves what has the text in a name or tag; Esc ends it.
        screen.keys("/ROOM");
        screen.wait_until(|text| {
            text.contains("Search: ROOM_") && text.contains("red") && !text.contains("bench.total")
        });
        screen.keys("\u{7f}\u{7f}\u{7f}\u{7f}nothing\r");
        screen.wait_until(|text| text.contains("Search: nothing\n") && !text.contains("bench."));
        screen.press(Key::Escape);
        screen.wait_until(|text| text.contains("bench.total") && !text.contains("Search"));
        // Paused, nothing moves, whatever happens; then it is there.
        screen.keys("p");
        screen.wait_for("Status: Paused");
        target.ask("step", "stepped ");
        screen.keys("d");
        let text = screen.wait_for("Last Delta");
        assert!(
            text.lines().any(|line| line.contains("bench.total (s)") && line.contains(" 100 ")),
            "{text}"
        );
        screen.keys("dr");
        screen.wait_until(|text| row(text, "bench.total (s) ", " 200"));
        screen.keys("q");
        assert!(screen.wait_end().success());
    }
}

#[test]
fn what_is_out_of_sight_is_told_and_reached() {
    let Some(runtime) = newest() else { return };
    let target = Target::spawn(&runtime, "Meters", &[]);
    let arguments = ["--counters", "Bench.Meter,Bench.Odd", "--refresh-interval", "0.2"];
    let mut screen = monitor(&target).args(arguments).pty(12, 80);
    screen.wait_until(|text| text.contains("Name  (lines 1-8 of ") && !text.contains("odd.tags"));
    screen.keys("\u{1b}[F");
    screen.wait_until(|text| text.lines().last().is_some_and(|line| line.starts_with(">       a,b=c ")));
    screen.keys("\u{1b}[H");
    screen.wait_until(|text| text.contains("Name  (lines ") && text.contains(">   bench.balance"));
    // The chart of the row with the cursor, with the range of its values; on a low screen beside the table.
    screen.keys("c");
    screen.resize(24, 60);
    screen.wait_until(|text| text.contains("\nbench.balance\n") && text.contains(">   bench.balance"));
    screen.press(Key::Down);
    screen.wait_until(|text| text.contains("\nbench.gauge (Cel) [room=blue]\n10 ") && text.contains("\n 8 "));
    screen.keys("c");
    screen.wait_until(|text| !text.contains("[room=blue]"));
    // As small as a window gets.
    for (rows, columns) in [(2, 10), (5, 20), (24, 80)] {
        screen.resize(rows, columns);
    }
    screen.wait_for("Press p to pause, r to resume, q to quit.");
    screen.press(Key::CtrlC);
    assert!(screen.wait_end().success());
}

#[test]
fn lists_of_processes_at_every_width() {
    let Some(runtime) = newest() else { return };
    let targets = [Target::spawn(&runtime, "Meters", &[]), Target::spawn(&runtime, "Counters", &[])];
    let pids = targets.each_ref().map(|target| target.pid().to_string());
    let all = ["counters", "monitor", "-p", &pids.join(","), "--refresh-interval", "0.2"];
    let mut screen = Dnd::new(DND).args(all).pty(8, 40);
    let head = |text: &str| text.lines().nth(3).unwrap_or_default().to_owned();
    let text =
        screen.wait_until(|text| pids.iter().all(|pid| text.contains(pid)) && !text.contains("starting"));
    assert_eq!(head(&text), "      PID Name           CPU %    RSS MB", "{text}");
    assert_eq!(text.lines().next(), Some("q quit  Enter counters  arrows choose"));
    for (width, expected) in [
        (60, "      PID Name              CPU %    RSS MB   Heap MB   GC %"),
        (80, "      PID Name                CPU %    RSS MB   Heap MB   GC %  Threads  Limit %"),
    ] {
        screen.resize(8, width);
        let text = screen.wait_until(|text| head(text) == expected);
        for (pid, app) in pids.iter().zip(["dotnet (Mete", "dotnet (Coun"]) {
            assert!(text.lines().any(|line| line.contains(pid) && line.contains(app)), "{text}");
        }
    }
    screen.resize(8, 250);
    screen.wait_until(|text| head(text).len() == 123 && head(text).ends_with("Limit %"));
    // A runtime that ends during its first collection of values can hang: this column needs two of them.
    let collected = |line: &str| line.contains(&pids[0]) && line.split_whitespace().rev().nth(2) != Some("-");
    screen.wait_until(|text| text.lines().any(collected));
    // What became of one is in sight at every width.
    let [first, _second] = targets;
    first.stop();
    for width in [250, 80, 40] {
        screen.resize(8, width);
        screen.wait_until(|text| {
            let line = text.lines().find(|line| line.contains(&pids[0])).unwrap_or_default();
            head(text).ends_with(" State") && line.ends_with(" ended")
        });
    }
    screen.keys("q");
    assert!(screen.wait_end().success());
}

#[test]
fn a_dumb_terminal_gets_lines() {
    let Some(runtime) = newest() else { return };
    let target = Target::spawn(&runtime, "Counters", &[]);
    let pid = target.pid().to_string();
    let arguments = ["counters", "monitor", "-p", &pid, "--counters", "Bench-Counters[polled]"];
    let mut screen = Dnd::new(DND).env("TERM", "dumb").args(arguments).pty(24, 100);
    screen.wait_until(|text| text.contains("polled") && text.contains("42.5"));
    assert!(!screen.text().contains("Press p"), "{}", screen.text());
    screen.keys("\x03");
    assert!(screen.wait_end().success());
}
