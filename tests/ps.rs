//! `dnd ps`, and choosing a process by id or name.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use dnd_testkit::{
    By, CoreSpec, Dnd, Kind, Output, Target, core, must, one_per_major, runtimes, single_files, skip,
};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde_json::{Value, json};

use super::DND;
use super::fake_runtime::{self, socket_name};

fn ps() -> Dnd {
    Dnd::new(DND).args(["ps", "--json"])
}

/// The entry of a process, or null.
fn entry(document: &Value, pid: u32) -> Value {
    assert_eq!((&document["schema"], &document["version"]), (&json!("dnd.ps"), &json!(1)));
    let all = document["processes"].as_array().expect("a list");
    all.iter().find(|p| p["pid"] == pid).cloned().unwrap_or_default()
}

pub(crate) fn cmdline(pid: u32) -> Vec<String> {
    let bytes = must(std::fs::read(format!("/proc/{pid}/cmdline")), "cmdline");
    bytes
        .strip_suffix(b"\0")
        .expect("an end")
        .split(|&b| b == 0)
        .map(|a| String::from_utf8_lossy(a).into())
        .collect()
}

/// A child that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that is not .NET.
fn sleeper() -> Ended {
    Ended(must(Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn(), "sleep"))
}

/// What `dump collect` says to a choice of process that it can't follow.
fn refused(args: &[&str], code: i32) -> String {
    Dnd::new(DND).args(["dump", "collect"]).args(args).run().fails(code)
}

#[test]
fn lists_every_runtime() {
    let targets: Vec<_> =
        runtimes().into_iter().map(|r| (Target::spawn(&r, "Leak", &["1", "1"]), r)).collect();
    let document = ps().run().json();
    for (target, runtime) in &targets {
        let pid = target.pid();
        let modern = |value: Value| if runtime.major() >= 5 { value } else { Value::Null };
        let found = entry(&document, pid);
        let arguments = cmdline(pid);
        let expected = json!({
            "pid": pid,
            "ns_pid": pid,
            "name": "dotnet",
            "executable": runtime.host(),
            "arguments": arguments,
            "uid": nix::unistd::geteuid().as_raw(),
            "hosting": "coreclr",
            "runtime_version": runtime.version,
            "runtime_version_from": if runtime.major() >= 5 { "runtime" } else { "path" },
            "rid": modern(json!("linux-x64")),
            "arch": modern(json!("x64")),
            "os": modern(json!("Linux")),
            "entry_assembly": "Leak",
            "entry_assembly_from": if runtime.major() >= 6 { "runtime" } else { "arguments" },
            "command_line": modern(json!(format!("{} {} 1 1", runtime.host().display(), arguments[1]))),
            "other_root": false,
            "unreachable": null,
            "socket": found["socket"],
        });
        assert_eq!(found, expected);
        let socket = PathBuf::from(found["socket"].as_str().expect("a socket"));
        assert!(socket.exists() && socket.starts_with(target.tmp()), "{}", socket.display());
    }
}

#[test]
fn a_row_for_people() {
    let Some(runtime) = one_per_major().pop() else { return };
    let target = Target::spawn(&runtime, "Leak", &["1", "1", "two words", "\x1b[2J\n"]);
    let pid = target.pid();
    let text = Dnd::new(DND).arg("ps").run().success();
    assert!(!text.contains('\x1b'));
    let row = text
        .lines()
        .find(|line| line.starts_with(&format!(" {pid} ")) || line.contains(&format!(" {pid}  ")));
    let row: Vec<&str> =
        row.expect("a row").split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let host = runtime.host().display().to_string();
    let shown = cmdline(pid)[1..].join(" ").replace('\x1b', "\\x1b").replace('\n', "\\n");
    assert_eq!(row, [pid.to_string().as_str(), "dotnet", &host, &shown]);
    // The truth is in the JSON.
    assert_eq!(entry(&ps().run().json(), pid)["arguments"], json!(cmdline(pid)));
}

#[test]
fn a_terminal_is_not_overrun() {
    let Some(runtime) = one_per_major().pop() else { return };
    let long = "x".repeat(300);
    let target = Target::spawn(&runtime, "Leak", &["1", "1", &long]);
    let mut screen = Dnd::new(DND).arg("ps").pty(50, 200);
    assert!(screen.wait_end().success());
    let raw = screen.raw();
    let row = raw.lines().find(|line| line.contains(&format!("{} ", target.pid()))).expect("a row");
    assert!(row.contains('…') && row.trim_end().chars().count() < 200, "{row}");
}

#[test]
fn a_target_with_its_own_tmpdir() {
    for runtime in one_per_major() {
        let target = Target::builder(&runtime, "Leak").args(&["1", "1"]).own_tmp().spawn();
        let found = entry(&ps().run().json(), target.pid());
        assert_eq!(found["unreachable"], Value::Null, "{found}");
        // A short path is shown as it is; a longer one than a socket address holds is reached all the same.
        assert!(found["socket"].as_str().expect("a socket").contains(&*target.tmp().to_string_lossy()));
        assert_eq!(found["runtime_version"], json!(runtime.version));
    }
}

#[test]
fn our_own_tmpdir_does_not_hide_the_targets() {
    let Some(runtime) = one_per_major().pop() else { return };
    let target = Target::spawn(&runtime, "Leak", &["1", "1"]);
    let (_scratch, dir) = Dnd::scratch();
    let found = entry(&ps().env("TMPDIR", dir).run().json(), target.pid());
    assert_eq!((&found["unreachable"], &found["entry_assembly"]), (&Value::Null, &json!("Leak")));
}

#[test]
fn diagnostics_switched_off() {
    for runtime in one_per_major() {
        // .NET Core 3 knows only the second name.
        let target = Target::builder(&runtime, "Leak")
            .args(&["1", "1"])
            .env("DOTNET_EnableDiagnostics", "0")
            .env("COMPlus_EnableDiagnostics", "0")
            .spawn();
        let found = entry(&ps().run().json(), target.pid());
        assert_eq!(found["unreachable"], "diagnostics disabled");
        assert_eq!((&found["socket"], &found["hosting"]), (&Value::Null, &json!("coreclr")));
        // What the path of the runtime tells is known all the same.
        assert_eq!(found["runtime_version"], json!(runtime.version));
        let error = refused(&["-p", &target.pid().to_string()], 5);
        assert!(
            error.contains("switches the diagnostics off") && error.contains("restart the process"),
            "{error}"
        );
    }
}

#[test]
fn a_socket_that_was_removed() {
    for runtime in one_per_major() {
        let target = Target::builder(&runtime, "Leak").args(&["1", "1"]).own_tmp().spawn();
        for file in must(std::fs::read_dir(target.tmp()), "its sockets") {
            must(std::fs::remove_file(must(file, "a socket").path()), "rm");
        }
        assert_eq!(entry(&ps().run().json(), target.pid())["unreachable"], "socket gone");
        let error = refused(&["-p", &target.pid().to_string()], 3);
        assert!(error.contains("diagnostics socket is not there") && error.contains("TMPDIR"), "{error}");
    }
}

#[test]
fn a_stopped_target_does_not_stop_the_list() {
    let Some(runtime) = one_per_major().pop() else { return };
    let hung = Target::spawn(&runtime, "Leak", &["1", "1"]);
    let well = Target::spawn(&runtime, "Leak", &["1", "1"]);
    hung.signal(Signal::SIGSTOP);
    // A signal is on its way until the kernel tells the parent.
    let pid = nix::unistd::Pid::from_raw(must(hung.pid().try_into(), "a pid"));
    let state = must(waitpid(pid, Some(WaitPidFlag::WUNTRACED)), "wait");
    assert_eq!(state, WaitStatus::Stopped(pid, Signal::SIGSTOP));
    let document = ps().run().json();
    let error = refused(&["-p", &hung.pid().to_string()], 7);
    hung.signal(Signal::SIGCONT);
    let found = entry(&document, hung.pid());
    assert_eq!(found["unreachable"], "stopped");
    assert_eq!(found["arguments"], json!(cmdline(hung.pid())));
    assert!(found["socket"].as_str().expect("a socket").contains(&format!("-{}-", hung.pid())), "{found}");
    assert_eq!(entry(&document, well.pid())["unreachable"], Value::Null);
    assert!(error.contains("it is stopped") && error.contains("kill -CONT"), "{error}");
    assert_eq!(entry(&ps().run().json(), hung.pid())["unreachable"], Value::Null);
}

#[test]
fn a_silent_target_does_not_silence_the_others() {
    let (_scratch, dir) = Dnd::scratch();
    fake_runtime::serve(&dir, fake_runtime::Asked::wait_closed);
    let targets: Vec<_> = one_per_major().iter().map(|r| Target::spawn(r, "Leak", &["1", "1"])).collect();
    let document = fake_runtime::dnd(&dir).args(["ps", "--json"]).run().json();
    assert_eq!(entry(&document, std::process::id())["unreachable"], "no answer");
    for target in targets {
        assert_eq!(entry(&document, target.pid())["unreachable"], Value::Null);
    }
}

#[test]
fn a_target_that_was_killed_is_gone() {
    let Some(runtime) = one_per_major().pop() else { return };
    let mut target = Target::builder(&runtime, "Leak").args(&["1", "1"]).own_tmp().spawn();
    target.signal(Signal::SIGKILL);
    target.wait();
    // Its socket is still there.
    assert!(must(std::fs::read_dir(target.tmp()), "its TMPDIR").count() > 0);
    let found = entry(&ps().env("TMPDIR", target.tmp()).run().json(), target.pid());
    assert_eq!(found, Value::Null);
    let error = refused(&["-p", &target.pid().to_string()], 3);
    assert!(
        error.contains(&format!("there is no process {}", target.pid())) && error.contains("dnd ps"),
        "{error}"
    );
}

#[test]
fn a_socket_of_an_earlier_process_with_the_same_id() {
    let (_scratch, dir) = Dnd::scratch();
    let _old = must(UnixListener::bind(dir.join(socket_name(Some(1)))), "a socket");
    let own = std::process::id();
    assert_eq!(entry(&fake_runtime::dnd(&dir).args(["ps", "--json"]).run().json(), own), Value::Null);
    let error = fake_runtime::dnd(&dir).args(["dump", "collect", "-p", &own.to_string()]).run().fails(3);
    assert!(error.contains("is not a .NET process"), "{error}");
}

#[test]
fn what_listens_may_be_anything() {
    let own = std::process::id();
    let reason = |dir: &Path| {
        entry(&fake_runtime::dnd(dir).args(["ps", "--json"]).run().json(), own)["unreachable"].clone()
    };
    let (_a, dir) = Dnd::scratch();
    fake_runtime::serve(&dir, |asked| asked.answer(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(reason(&dir), "bad answer");
    let error = fake_runtime::dnd(&dir).args(["dump", "collect", "-p", &own.to_string()]).run().fails(6);
    assert!(error.contains("is not a .NET runtime"), "{error}");

    let (_b, dir) = Dnd::scratch();
    fake_runtime::serve(&dir, |asked| asked.answer(&fake_runtime::process_info("8.0.4")[..70]));
    assert_eq!(reason(&dir), "bad answer");

    let (_c, dir) = Dnd::scratch();
    fake_runtime::serve(&dir, fake_runtime::Asked::wait_closed);
    assert_eq!(reason(&dir), "no answer");

    let (_d, dir) = Dnd::scratch();
    drop(must(UnixListener::bind(dir.join(socket_name(None))), "a socket"));
    assert_eq!(reason(&dir), "not listening");

    let (_e, dir) = Dnd::scratch();
    fake_runtime::serve(&dir, |asked| {
        let name_with_terminal_codes = fake_runtime::process_info("8.0.4\x1b[31m");
        asked.answer(&name_with_terminal_codes);
    });
    assert_eq!(reason(&dir), Value::Null);
    let document = fake_runtime::dnd(&dir).args(["ps", "--json"]).run().json();
    assert_eq!(entry(&document, own)["runtime_version"], "8.0.4\x1b[31m");
    // The runtime can't be seen in this process, so nothing is said of where it comes from.
    assert_eq!(entry(&document, own)["hosting"], Value::Null);
}

#[test]
fn single_files_and_native_code() {
    for app in single_files() {
        let target = app.builder(1).spawn();
        let found = entry(&ps().run().json(), target.pid());
        let hosting = if app.native_aot() { "nativeaot" } else { "single-file" };
        assert_eq!((&found["hosting"], &found["name"]), (&json!(hosting), &json!("Service")), "{}", app.name);
        assert_eq!(found["unreachable"], Value::Null);
        assert_eq!(found["runtime_version"], json!(app.version()), "{}", app.name);
    }
}

#[test]
fn single_files_without_a_socket() {
    for app in single_files() {
        let target = app.builder(1).env("DOTNET_EnableDiagnostics", "0").spawn();
        let found = entry(&ps().run().json(), target.pid());
        let hosting = if app.native_aot() { "nativeaot" } else { "single-file" };
        assert_eq!(found["hosting"], json!(hosting), "{}", app.name);
        assert_eq!(found["unreachable"], "diagnostics disabled", "{}", app.name);
    }
}

/// The analysis of a dump reads the runtime's library, and has none.
#[test]
fn an_analysis_is_no_dotnet_process() {
    let spec = CoreSpec { by: By::Gcore, kind: Kind::Full, ..CoreSpec::with_args(&["1000", "100"]) };
    let core = core(&one_per_major().pop().expect("a runtime"), "Leak", &spec);
    let mut analysis = Dnd::new(DND).args(["dump", "analyze"]).arg(core.path()).spawn();
    analysis.say("clrstack -all");
    analysis.wait_stdout(|text| text.contains("Main").then_some(()));
    let maps = must(std::fs::read_to_string(format!("/proc/{}/maps", analysis.pid())), "its maps");
    assert!(maps.contains("/libcoreclr.so"), "{maps}");
    assert_eq!(entry(&ps().run().json(), analysis.pid()), Value::Null);
}

#[test]
fn by_id() {
    let sleeper = sleeper();
    let pid = sleeper.0.id();
    let error = refused(&["-p", &pid.to_string()], 3);
    assert!(error.contains(&format!("process {pid} (sleep) is not a .NET process")), "{error}");
    assert!(refused(&["-p", "0"], 2).contains("0"));
    assert!(refused(&["-p", "1", "-n", "x"], 2).contains("cannot be used with"));
    assert!(refused(&["-p", &i32::MAX.to_string()], 3).contains("there is no process"));
}

#[test]
fn by_name() {
    let Some(runtime) = one_per_major().pop() else { return };
    let first = Target::spawn(&runtime, "Leak", &["1", "1"]);
    let second = Target::spawn(&runtime, "Leak", &["1", "1"]);
    let pids = [first.pid(), second.pid()];
    // Both the name of the executable and that of the entry assembly; other tests may have more of them running.
    for name in ["dotnet", "Leak"] {
        let error = refused(&["-n", name], 2);
        assert!(error.contains(&format!(".NET processes are named `{name}`")), "{error}");
        for pid in pids {
            assert!(error.contains(&format!("hint: -p {pid}  dotnet (Leak)")), "{error}");
        }
    }
    let error = refused(&["-n", "no such name"], 3);
    assert!(error.contains("no .NET process is named `no such name`"), "{error}");
    assert!(error.contains(&format!("-p {}", pids[0])), "{error}");
    let error = refused(&[], 2);
    assert!(error.contains("which process?") && error.contains(&format!("-p {}", pids[1])), "{error}");
}

#[test]
fn one_by_name_is_found() {
    let Some(app) = single_files().into_iter().find(|app| app.name.starts_with("singlefile-10")) else {
        return;
    };
    // A name that only this test uses.
    let (_scratch, dir) = Dnd::scratch();
    let renamed = dir.join("OnlyOneOfThisName");
    must(std::fs::copy(&app.path, &renamed), "copy");
    let app = dnd_testkit::SingleFile { path: renamed, ..app };
    let target = app.builder(1).spawn();
    // The kernel keeps 15 characters of it.
    let found = entry(&ps().run().json(), target.pid());
    assert_eq!(found["name"], "OnlyOneOfThisName");
    let out = dir.join("core");
    let facts = collect_by_name("OnlyOneOfThisName", &out).json();
    assert_eq!((&facts["pid"], &facts["name"]), (&json!(target.pid()), &json!("OnlyOneOfThisName")));
}

fn collect_by_name(name: &str, out: &Path) -> Output {
    Dnd::new(DND).args(["dump", "collect", "--json", "-n", name, "-o"]).arg(out).run()
}

/// The binary where every user may run it, in a folder where every user may write; removed with the first value.
pub(crate) fn for_everybody() -> Option<(Cleared, PathBuf)> {
    if !nix::unistd::geteuid().is_root() {
        skip("other users: only root can be them");
        return None;
    }
    let dir = std::env::temp_dir().join(format!(
        "dnd-test-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    must(std::fs::create_dir(&dir), "a folder");
    must(std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)), "chmod");
    let exe = dir.join("dnd");
    must(std::fs::copy(DND, &exe), "copy");
    must(std::fs::set_permissions(&exe, PermissionsExt::from_mode(0o755)), "chmod");
    Some((Cleared(dir), exe))
}

/// A folder that is removed with this.
pub(crate) struct Cleared(pub(crate) PathBuf);

impl Drop for Cleared {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn another_users_process() {
    let Some((dir, exe)) = for_everybody() else { return };
    let Some(runtime) = one_per_major().pop() else { return };
    let target = Target::spawn(&runtime, "Leak", &["1", "1"]);
    let hidden = Target::builder(&runtime, "Leak").args(&["1", "1"]).own_tmp().spawn();
    let nobody = |args: &[&str]| {
        Dnd::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&exe)
            .args(args)
            .dir(&dir.0)
            .run()
    };
    let document = nobody(&["ps", "--json"]).json();
    let found = entry(&document, target.pid());
    assert_eq!(found["unreachable"], "other user");
    assert_eq!((&found["executable"], &found["hosting"]), (&Value::Null, &Value::Null));
    // Nothing of it is to be seen.
    assert_eq!(entry(&document, hidden.pid()), Value::Null);
    let error = nobody(&["dump", "collect", "-p", &target.pid().to_string()]).fails(4);
    assert!(error.contains("it runs as user 0") && error.contains("sudo"), "{error}");
    let error = nobody(&["dump", "collect", "-p", &hidden.pid().to_string()]).fails(4);
    assert!(error.contains("may not be looked into") && error.contains("sudo"), "{error}");
}

#[test]
fn root_reaches_everybody() {
    let Some((dir, _)) = for_everybody() else { return };
    for app in single_files().into_iter().filter(|app| !app.native_aot()) {
        let path = dir.0.join(&app.name);
        must(std::fs::copy(&app.path, &path), "copy");
        let app = dnd_testkit::SingleFile { path, ..app };
        let target = app.builder(1).as_user(65534).spawn();
        let found = entry(&ps().run().json(), target.pid());
        assert_eq!((&found["uid"], &found["unreachable"]), (&json!(65534), &Value::Null), "{}", app.name);
        let out = dir.0.join(format!("{}.core", app.name));
        let collected = Dnd::new(DND)
            .args(["dump", "collect", "--json", "--force", "-p", &target.pid().to_string(), "-o"])
            .arg(&out)
            .run()
            .json();
        assert_eq!(collected["path"], json!(out));
    }
}
