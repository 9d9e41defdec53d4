//! However watching ends: the target goes on, can be watched again, and what was written is whole.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroU32;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dnd_ipc::{Endpoint, EventLevel, Provider, Rundown, Session, SessionRequest, start_session};
use dnd_testkit::{DEADLINE, Dnd, Runtime, Target, must, one_per_major, runtimes};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;

use super::DND;

fn monitor(target: &Target) -> Dnd {
    let pid = target.pid().to_string();
    Dnd::new(DND).args(["counters", "monitor", "-p", &pid, "--refresh-interval", "0.1"])
}

fn newest() -> Option<Runtime> {
    runtimes().pop().filter(|runtime| runtime.major() >= 8)
}

/// That it goes on, and that a new session works.
#[track_caller]
fn unharmed(target: &mut Target) {
    target.ask("step", "stepped ");
    let running = monitor(target).spawn();
    running.wait_stdout(|text| text.contains("\tgc-heap-size\t").then_some(()));
    running.signal(Signal::SIGINT);
    running.wait().success();
    assert!(target.alive());
}

#[test]
fn every_end_on_every_runtime() {
    for runtime in one_per_major() {
        let mut target = Target::spawn(&runtime, "Counters", &[]);
        let mut screen = monitor(&target).pty(20, 80);
        screen.wait_for("Status: Running");
        assert!(!screen.cooked());
        screen.keys("q");
        assert!(screen.wait_end().success());
        assert_eq!((screen.modes(), screen.cooked()), ((false, false), true));
        unharmed(&mut target);
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let mut screen = monitor(&target).pty(20, 80);
            screen.wait_for("Status: Running");
            screen.signal(signal);
            assert!(screen.wait_end().success(), "{signal}");
            assert_eq!((screen.modes(), screen.cooked()), ((false, false), true), "{signal}");
        }
        unharmed(&mut target);
    }
}

#[test]
fn the_screen_of_a_stopped_target_can_be_left() {
    let Some(runtime) = newest() else { return };
    let mut target = Target::spawn(&runtime, "Counters", &[]);
    let mut screen = monitor(&target).pty(20, 120);
    screen.wait_for("GC Heap Size");
    target.signal(Signal::SIGSTOP);
    screen.wait_for("No sample for ");
    screen.keys("q");
    assert!(screen.wait_end().success());
    assert_eq!((screen.modes(), screen.cooked()), ((false, false), true));
    assert!(screen.text().contains("did not confirm the end of the session"), "{}", screen.text());
    target.signal(Signal::SIGCONT);
    unharmed(&mut target);
}

/// `dnd counters monitor` in a terminal: the end at which it is seen, the other one, and the program.
fn in_terminal(target: &Target) -> (File, File, Child) {
    let size = Winsize { ws_row: 20, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = must(openpty(&size, None), "a pseudo terminal");
    // The program under test must not hold the other end itself.
    let closed = FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC);
    must(fcntl(&pty.master, closed), "a flag of the terminal");
    let (terminal, slave) = (File::from(pty.master), File::from(pty.slave));
    let clone = || Stdio::from(must(slave.try_clone(), "a terminal"));
    let mut session = Command::new("setsid");
    session.args(["--ctty", DND, "counters", "monitor", "--refresh-interval", "0.1", "-p"]);
    session.arg(target.pid().to_string()).stdin(clone()).stdout(clone()).stderr(clone());
    let child = must(session.spawn(), "setsid");
    (terminal, slave, child)
}

#[test]
fn the_terminal_goes_away() {
    for runtime in one_per_major() {
        let mut target = Target::spawn(&runtime, "Counters", &[]);
        let (mut terminal, slave, mut child) = in_terminal(&target);
        drop(slave);
        let mut shown = String::new();
        let mut buffer = [0; 4096];
        while !shown.contains("Running") {
            let got = must(terminal.read(&mut buffer), "the screen");
            assert!(got > 0, "it ended early: {shown}");
            shown.push_str(&String::from_utf8_lossy(&buffer[..got]));
        }
        // As when a connection breaks: nobody holds the other end any more.
        drop(terminal);
        assert!(must(child.wait(), "dnd").success(), "{}", runtime.version);
        unharmed(&mut target);
    }
}

/// Waits until a thread of `pid` is in the midst of writing, and does not get on.
#[track_caller]
fn wait_blocked(pid: u32) {
    // The number of `write` on x86-64 and on ARM; a thread that runs has none.
    let writes = |call: &str| call.starts_with("1 ") || call.starts_with("64 ");
    let deadline = Instant::now() + DEADLINE;
    loop {
        let tasks = must(std::fs::read_dir(format!("/proc/{pid}/task")), "threads").filter_map(Result::ok);
        let calls =
            tasks.map(|task| std::fs::read_to_string(task.path().join("syscall")).unwrap_or_default());
        if calls.into_iter().any(|call| writes(&call)) {
            return;
        }
        assert!(Instant::now() < deadline, "it never came to that");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nobody_reads_what_it_writes() {
    for runtime in one_per_major() {
        for command in ["monitor", "collect"] {
            let mut target = Target::spawn(&runtime, "Counters", &[]);
            let (reader, writer) = must(std::io::pipe(), "a pipe");
            must(fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)), "a small pipe");
            let pid = target.pid().to_string();
            let mut dnd = Command::new(DND);
            dnd.args(["counters", command, "--refresh-interval", "0.1", "-p", &pid]);
            if command == "collect" {
                dnd.args(["-o", "-"]);
            }
            dnd.stdin(Stdio::null()).stdout(must(writer.try_clone(), "a pipe")).stderr(Stdio::piped());
            let child = must(dnd.spawn(), "dnd");
            drop(dnd);
            wait_blocked(child.id());
            // It goes on reading its sessions: the target is not held up, not even by its own end.
            target.ask("step", "stepped ");
            assert!(target.stop().success());
            // And it ends, although it can't get rid of what it has to say.
            let output = must(child.wait_with_output(), "dnd");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
            assert!(said.contains("the end of the output is missing: nobody was reading it"), "{said}");
            drop((reader, writer));
        }
    }
}

#[test]
fn a_terminal_that_shows_nothing_more() {
    let Some(runtime) = newest() else { return };
    let mut target = Target::spawn(&runtime, "Counters", &[]);
    let (_terminal, slave, mut child) = in_terminal(&target);
    // As a connection that hangs: nobody takes what is written.
    drop(slave);
    wait_blocked(child.id());
    target.ask("step", "stepped ");
    must(kill(Pid::from_raw(must(i32::try_from(child.id()), "a pid")), Signal::SIGTERM), "kill");
    assert!(must(child.wait(), "dnd").success());
    unharmed(&mut target);
}

/// `dnd counters ...` in a line of bash.
fn in_bash(line: &str, arguments: &[&str]) -> Dnd {
    Dnd::new(DND).arg("counters").args(arguments).args(["--refresh-interval", "0.1"]).bash(line)
}

#[test]
fn standard_output_on_a_full_disk() {
    let Some(runtime) = newest() else { return };
    let mut target = Target::spawn(&runtime, "Counters", &[]);
    let pid = target.pid().to_string();
    let ways: [&[&str]; 6] = [
        &["monitor", "-p", &pid],
        &["monitor", "-p", &pid, "--json"],
        &["collect", "-p", &pid, "-o", "-"],
        &["collect", "-p", &pid, "-o", "-", "--format", "json"],
        &["collect", "-p", &pid, "-o", "-", "--format", "ndjson"],
        &["alert", "-p", &pid, "--alert", "rss>1"],
    ];
    for way in ways {
        let said = in_bash("DND > /dev/full", way).run().fails(7);
        assert!(said.contains("cannot write to standard output: No space left"), "{way:?}: {said}");
    }
    unharmed(&mut target);
}

#[test]
fn watching_that_ends_as_it_begins() {
    // Asked to end before the runtime has answered: its first collection of values must not be disturbed.
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 8) {
        for _ in 0..6 {
            let mut target = Target::spawn(&runtime, "Counters", &[]);
            in_bash("DND > /dev/full", &["monitor", "-p", &target.pid().to_string()]).run().fails(7);
            unharmed(&mut target);
        }
    }
}

#[test]
fn files_on_a_full_disk_hold_what_had_room() {
    let Some(runtime) = newest() else { return };
    let mut target = Target::spawn(&runtime, "Counters", &[]);
    let (_scratch, dir) = Dnd::scratch();
    let pid = target.pid().to_string();
    // A limit for sizes of files stands for a full disk: 48 KB. Its signal would kill a program that doesn't mind.
    let limited = |format: &str, name: &str| {
        let arguments = ["collect", "-p", &pid, "--format", format, "-o", name];
        in_bash("ulimit -f 48; exec DND", &arguments).dir(&dir).run().fails(7)
    };
    for format in ["csv", "json", "ndjson"] {
        let said = limited(format, "full");
        assert!(said.contains(&format!("cannot write to full.{format}: File too large")), "{said}");
    }
    let text = |name: &str| must(std::fs::read_to_string(dir.join(name)), name);
    let document: serde_json::Value = must(serde_json::from_str(&text("full.json")), "a whole document");
    assert!(document["Events"].as_array().is_some_and(|events| events.len() > 10), "{document}");
    let lines = text("full.ndjson");
    assert!(lines.lines().count() > 1 && lines.ends_with('\n'), "{lines}");
    for line in lines.lines() {
        must(serde_json::from_str::<serde_json::Value>(line), line);
    }
    let rows = text("full.csv");
    assert!(rows.lines().count() > 100 && rows.ends_with('\n'), "{rows}");
    assert!(rows.lines().all(|row| row.matches(',').count() >= 4), "{rows}");
    unharmed(&mut target);
}

#[test]
fn a_stopped_dnd_does_not_stop_the_target() {
    for runtime in one_per_major() {
        let mut target = Target::spawn(&runtime, "Counters", &[]);
        let running = monitor(&target).spawn();
        running.wait_stdout(|text| text.contains("\tgc-heap-size\t").then_some(()));
        running.signal(Signal::SIGSTOP);
        for _ in 0..100 {
            target.ask("step", "stepped ");
        }
        // Others can watch meanwhile.
        unharmed(&mut target);
        running.signal(Signal::SIGCONT);
        let before = running.wait_stdout(|text| Some(text.matches("\tgc-heap-size\t").count()));
        running.wait_stdout(|text| (text.matches("\tgc-heap-size\t").count() > before + 3).then_some(()));
        running.signal(Signal::SIGINT);
        running.wait().success();
        unharmed(&mut target);
    }
}

/// The diagnostics socket of a target with a temporary folder of its own.
fn endpoint(target: &Target) -> Endpoint {
    let names = must(std::fs::read_dir(target.tmp()), "tmp").filter_map(Result::ok);
    let mut sockets =
        names.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with("-socket"));
    Endpoint::new(sockets.next().unwrap_or_default())
}

/// A session for Meters as dotnet-counters collect starts it: not to be shared. It is read until it is dropped.
async fn foreign(endpoint: &Endpoint) -> Session {
    let metrics = Provider::new("System.Diagnostics.Metrics", 2, EventLevel::Informational)
        .arg("SessionId", "somebody-else")
        .arg("Metrics", "Bench.Meter")
        .arg("RefreshInterval", "0.3")
        .arg("MaxTimeSeries", "1000")
        .arg("MaxHistograms", "10");
    let request = SessionRequest {
        buffer_mb: NonZeroU32::MIN.saturating_add(9),
        providers: vec![metrics],
        rundown: Rundown::None,
        stacks: false,
    };
    must(start_session(endpoint, request).await, "another session")
}

#[test]
fn a_session_of_somebody_else() {
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 8) {
        let mut target = Target::builder(&runtime, "Meters").own_tmp().spawn();
        let endpoint = endpoint(&target);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, started) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
            must(tokio, "tokio").block_on(async move {
                let mut session = foreign(&endpoint).await;
                let _ = ready.send(());
                let mut sink = [0; 4096];
                let reading = async { while session.read(&mut sink).await.is_ok_and(|got| got > 0) {} };
                tokio::select! {
                    () = reading => false,
                    _ = stopped => true,
                }
            })
        });
        must(started.recv(), "the other session");
        let name = &runtime.version;
        let running = monitor(&target)
            .env("TMPDIR", target.tmp())
            .args(["--counters", "Bench.Meter,System.Runtime[gc-heap-size],OS[rss]"])
            .spawn();
        // It is said, by the name of its session; what it sees, EventCounters and the system are shown.
        running.wait_stderr(|text| {
            (text.contains("another tool watches the Meters") && text.contains("somebody-else")).then_some(())
        });
        for shown in ["\tbench.gauge[room=red]\t7\t", "\tgc-heap-size\t", "\trss\t"] {
            running.wait_stdout(|text| text.contains(shown).then_some(()));
        }
        running.signal(Signal::SIGINT);
        running.wait().success();
        // The other one was not ended with ours.
        let _ = stop.send(());
        assert_eq!(other.join().ok(), Some(true), "{name}: the other session goes on");
        target.ask("step", "stepped ");
        assert!(target.alive());
    }
}
