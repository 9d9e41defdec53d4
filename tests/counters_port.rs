//! Counters of runtimes that report to `dnd`: programs that it starts, and diagnostic ports.

use std::collections::HashSet;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use dnd_testkit::{Dnd, Runtime, Target, app, must, one_per_major, runtimes};
use nix::sys::signal::Signal;

use super::DND;

/// `dotnet APP.dll`.
fn command(runtime: &Runtime, name: &str) -> Vec<String> {
    vec![
        runtime.dotnet().get_program().to_string_lossy().into_owned(),
        app(name).to_string_lossy().into_owned(),
    ]
}

fn monitor(interval: &str) -> Dnd {
    let dnd = Dnd::new(DND).env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1");
    dnd.args(["counters", "monitor", "--refresh-interval", interval])
}

/// Whether a process is there and no zombie.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

#[test]
fn a_program_from_its_first_moment() {
    for runtime in one_per_major() {
        // Its stdin is empty, so it ends by itself at once. .NET Core 3 can't be made to wait for its sessions.
        // (With a short interval, .NET 9 itself can hang when it ends during its first collection of values.)
        for _ in 0..if runtime.major() >= 5 { 5 } else { 0 } {
            let output = monitor("1").arg("--").args(command(&runtime, "Counters")).run();
            assert!(
                output.stderr.contains("has ended (exit status: 0)"),
                "{}: {}",
                runtime.version,
                output.stderr
            );
            output.success();
        }

        // One that goes on is ended with dnd.
        let script = "exec \"$0\" \"$1\" < <(sleep 1000)";
        let arguments = ["--".to_owned(), "bash".into(), "-c".into(), script.into()];
        let running = monitor("0.2").args(arguments).args(command(&runtime, "Counters")).spawn();
        let pid = running.wait_stdout(|text| {
            let line = text.lines().find(|line| line.contains("\tgc-heap-size\t"))?;
            line.split('\t').nth(1).map(str::to_owned)
        });
        assert!(runs(&pid));
        running.signal(Signal::SIGINT);
        running.wait().success();
        assert!(!runs(&pid), "{}: the program was ended", runtime.version);
    }
}

#[test]
fn exit_codes_of_programs() {
    let run = |program: &[&str]| monitor("1").arg("--").args(program).run();
    let ended = run(&["sh", "-c", "exit 3"]).fails(7);
    assert!(ended.contains("ended (exit status: 3) before a .NET runtime reported"), "{ended}");
    assert!(run(&["/nonexistent/program"]).fails(3).contains("cannot run"));

    let Some(runtime) = runtimes().pop() else { return };
    // The app ends well, the shell around it doesn't.
    let script = "\"$0\" \"$1\" < /dev/null; exit 42";
    let output = monitor("1").args(["--", "sh", "-c", script]).args(command(&runtime, "Counters")).run();
    assert_eq!(output.code, Some(42), "{}", output.stderr);
}

#[test]
fn the_io_of_a_program() {
    let Some(runtime) = runtimes().pop() else { return };
    let (_scratch, dir) = Dnd::scratch();
    let collect = |more: &[&str]| {
        let arguments = ["counters", "collect", "-o", "c.csv"];
        let dnd = Dnd::new(DND)
            .env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1")
            .args(arguments)
            .args(more)
            .arg("--");
        let output = dnd.args(command(&runtime, "Counters")).dir(&dir).run();
        must(std::fs::remove_file(dir.join("c.csv")), "file");
        output.success()
    };
    assert_eq!(collect(&[]), "");
    assert!(collect(&["--show-child-io"]).starts_with("ready "));
}

#[test]
fn a_document_knows_whose_it_is() {
    let Some(runtime) = runtimes().pop() else { return };
    let collect = Dnd::new(DND).args(["counters", "collect", "-o", "-", "--format", "json", "--"]);
    let collect = collect.env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1");
    let document = collect.args(command(&runtime, "Counters")).run().json();
    // It was not there yet when this began.
    assert_eq!(document["TargetProcess"], "dotnet");
}

#[test]
fn runtimes_that_report_on_a_port() {
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 5) {
        let (_scratch, dir) = Dnd::scratch();
        let path = dir.join("port");
        let spec = path.to_string_lossy().into_owned();
        let running =
            monitor("0.2").args(["--counters", "Bench-Counters", "--diagnostic-port", &spec]).spawn();
        running.wait_stderr(|text| text.contains("waiting for runtimes").then_some(()));
        // It becomes ready only because it is resumed.
        let spawn = || Target::builder(&runtime, "Counters").env("DOTNET_DiagnosticPorts", &spec).spawn();
        let (mut first, second) = (spawn(), spawn());
        let polled = |target: &Target| format!("\t{}\tBench-Counters\tpolled\t42.5\t", target.pid());
        running.wait_stdout(|text| [&first, &second].iter().all(|t| text.contains(&polled(t))).then_some(()));
        first.ask("step", "stepped ");
        running.wait_stdout(|text| text.contains("\trate\t10\t").then_some(()));
        second.stop();
        let third = spawn();
        running.wait_stdout(|text| text.contains(&polled(&third)).then_some(()));
        running.signal(Signal::SIGINT);
        running.wait().success();
        assert!(!path.exists(), "the socket is gone");
        assert!(first.alive());
    }
}

/// A runtime that was asked to stop a session which it had not begun would begin the next one twice, and crash.
#[test]
fn a_runtime_that_waits_at_its_start_survives_being_watched() {
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 5) {
        let (_scratch, dir) = Dnd::scratch();
        let mut program = runtime.dotnet();
        program.arg(app("Counters")).env("TMPDIR", &dir).env("DOTNET_DefaultDiagnosticPortSuspend", "1");
        program.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut program = must(program.spawn(), "dotnet");
        let pid = program.id().to_string();
        let socket = loop {
            let entries = must(std::fs::read_dir(&dir), "folder").filter_map(Result::ok);
            let mut paths = entries.map(|entry| entry.path().to_string_lossy().into_owned());
            match paths.find(|path| path.ends_with("-socket")) {
                Some(socket) => break socket,
                None => std::thread::yield_now(),
            }
        };
        let watch =
            |target: &[&str]| monitor("0.2").args(["--counters", "System.Runtime"]).args(target).spawn();
        for target in [
            &["-p", &pid][..],
            &["--diagnostic-port", &format!("{socket},connect"), "--resume-runtime", "false"],
        ] {
            let running = watch(target);
            running.wait_stdout(|text| text.contains("\tno sample\t").then_some(()));
            running.signal(Signal::SIGINT);
            let output = running.wait();
            assert!(
                output.stderr.contains("did not confirm the end"),
                "{}: {}",
                runtime.version,
                output.stderr
            );
            output.success();
        }
        let running = watch(&["--diagnostic-port", &format!("{socket},connect")]);
        running.wait_stdout(|text| text.contains("\tgc-heap-size\t").then_some(()));
        running.signal(Signal::SIGINT);
        running.wait().success();
        drop(program.stdin.take());
        assert!(must(program.wait(), "dotnet").success(), "{}", runtime.version);
    }
}

#[test]
fn more_processes_than_are_remembered() {
    // New ones take the places of those that have ended: each must have its own last document all the same.
    const PROCESSES: usize = 28;
    let Some(runtime) = runtimes().pop() else { return };
    let script =
        "for i in 1 2 3 4 5 6 7; do for j in 1 2 3 4; do \"$0\" \"$1\" < /dev/null & done; wait; done";
    // Nobody comes to the first values.
    let dnd = monitor("60").args(["--json", "--", "bash", "-c", script]).args(command(&runtime, "Counters"));
    let text = dnd.run().success();
    let ended = |line: &&str| line.contains("\"end\":");
    let pid = |line: &str| {
        line.split_once("\"pid\":").and_then(|(_, rest)| rest.split(',').next().map(str::to_owned))
    };
    let pids: HashSet<String> = text.lines().filter(ended).filter_map(pid).collect();
    assert_eq!(pids.len(), PROCESSES, "{text}");
    assert_eq!(text.lines().count(), PROCESSES, "{text}");
}

/// A runtime waits at its start for whoever listens on its port: nobody else may hold that up.
#[test]
fn who_reports_and_is_silent_holds_up_no_others() {
    let Some(runtime) = runtimes().pop() else { return };
    let (_scratch, dir) = Dnd::scratch();
    let spec = dir.join("port").to_string_lossy().into_owned();
    let running = monitor("0.2").args(["--counters", "Bench-Counters", "--diagnostic-port", &spec]).spawn();
    running.wait_stderr(|text| text.contains("waiting for runtimes").then_some(()));
    // Each would take seconds; all of them together more than anybody waits for here.
    let silent: Vec<UnixStream> = (0..20u8)
        .map(|cookie| {
            let mut stream = must(UnixStream::connect(&spec), "the port");
            let pid = u64::from(std::process::id()).to_le_bytes();
            let report = [b"ADVR_V1\0".as_slice(), &[cookie; 16], &pid, &[0; 2]].concat();
            must(stream.write_all(&report), "a report");
            stream
        })
        .collect();
    let target = Target::builder(&runtime, "Counters").env("DOTNET_DiagnosticPorts", &spec).spawn();
    let polled = format!("\t{}\tBench-Counters\tpolled\t42.5\t", target.pid());
    running.wait_stdout(|text| text.contains(&polled).then_some(()));
    drop(silent);
    running.signal(Signal::SIGINT);
    running.wait().success();
}

#[test]
fn ports_of_runtimes() {
    let Some(runtime) = runtimes().pop() else { return };
    let target = Target::builder(&runtime, "Counters").own_tmp().spawn();
    let socket =
        must(std::fs::read_dir(target.tmp()), "tmp").filter_map(Result::ok).map(|entry| entry.path());
    let is_socket = |path: &Path| path.to_string_lossy().ends_with("-socket");
    let socket = socket.into_iter().find(|path| is_socket(path)).unwrap_or_default();
    let spec = format!("{},connect", socket.display());
    let running = monitor("0.2").args(["--counters", "Bench-Counters", "--diagnostic-port", &spec]).spawn();
    running.wait_stdout(|text| text.contains("\tpolled\t42.5\t").then_some(()));
    running.signal(Signal::SIGTERM);
    running.wait().success();
    let gone = monitor("1").args(["--diagnostic-port", "/nonexistent/socket,connect"]).run();
    assert!(gone.fails(3).contains("/nonexistent/socket"));
    let taken = monitor("1").args(["--diagnostic-port", &socket.to_string_lossy()]).run();
    assert!(taken.fails(2).contains("cannot listen"));
    let long = format!("/tmp/{}", "x".repeat(103));
    let refused = monitor("1").args(["--diagnostic-port", &long]).run().fails(2);
    assert!(refused.contains("at most 107 bytes, this has 108"), "{refused}");
    assert!(monitor("1").args(["-p", "1", "-n", "x"]).run().fails(2).contains("cannot be used with"));
}
