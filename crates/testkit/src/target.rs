//! Real .NET processes to look at.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xtask::bench::{Scratch, names_in};
use xtask::runtimes::Runtime;
use xtask::{apps, run, workspace};

use crate::lines::Captured;
use crate::{DEADLINE, bench, must, skip};

/// A running debuggee. It ends when this is dropped, or by [`Target::stop`].
#[derive(Debug)]
pub struct Target {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Captured,
    stderr: Captured,
    pid: u32,
    inner_pid: u32,
    truth: Value,
    tmp: PathBuf,
    container: bool,
    _scratch: Option<Scratch>,
}

/// A target to be; see [`Target::builder`].
#[derive(Debug)]
pub struct TargetBuilder {
    command: Command,
    tmp: Option<Scratch>,
    container: bool,
}

impl Target {
    /// Starts the app (a source of tests/apps) on the runtime and waits until it says that it is ready.
    #[track_caller]
    pub fn spawn(runtime: &Runtime, app: &str, args: &[&str]) -> Self {
        Self::builder(runtime, app).args(args).spawn()
    }

    /// For targets with an environment, a folder for their sockets or a container of their own.
    #[track_caller]
    pub fn builder(runtime: &Runtime, app: &str) -> TargetBuilder {
        let dll = must(apps::ensure(bench(), app), format_args!("no debuggee {app}"));
        let mut command = runtime.dotnet();
        command.arg(dll);
        TargetBuilder::new(command)
    }

    /// The app on .NET 10.0.11, in a single file (a simple app: the framework in it is trimmed). Unlike the programs of
    /// [`single_files`](crate::single_files), it is on every machine.
    #[track_caller]
    pub fn single_file(app: &str) -> TargetBuilder {
        TargetBuilder::new(single_file(app))
    }

    /// Its process id, as seen from here.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its process id as it sees itself: 1 in a container.
    pub fn inner_pid(&self) -> u32 {
        self.inner_pid
    }

    /// What the app said of itself when it was ready: exact by construction.
    pub fn truth(&self) -> &Value {
        &self.truth
    }

    /// The folder where the target puts its diagnostics socket, as seen from here.
    pub fn tmp(&self) -> &Path {
        &self.tmp
    }

    /// Everything that it has written to stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Everything that it has written to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Sends the app a line.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        let Some(stdin) = &mut self.stdin else { panic!("the target's stdin is closed") };
        must(stdin.write_all(format!("{line}\n").as_bytes()), "can't write to the target");
    }

    /// Sends the app a line, and waits for a new line of its output that starts with `prefix`; returns the rest of it.
    #[track_caller]
    pub fn ask(&mut self, line: &str, prefix: &str) -> String {
        let before = self.stdout.text().len();
        self.say(line);
        let find = |all: &str| whole_line(all.get(before..)?, prefix).map(str::to_owned);
        match self.stdout.wait_for(DEADLINE, find) {
            Ok(rest) => rest,
            Err(all) => {
                panic!("the target did not answer `{line}` with `{prefix}`:\n{all}{}", self.stderr.text())
            }
        }
    }

    /// Whether it still runs (a zombie does not).
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        must(kill(nix_pid(self.pid), signal), "can't signal the target");
    }

    /// Lets it end by itself (its stdin is closed), and returns how it did.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        drop(self.stdin.take());
        if self.stdout.wait_end(DEADLINE).is_none() {
            panic!("the target does not end when its stdin does:\n{}", self.stderr.text());
        }
        must(self.child.wait(), "can't wait for the target")
    }

    /// Waits until it has ended, whoever ended it.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        if self.stdout.wait_end(DEADLINE).is_none() {
            panic!("the target does not end:\n{}{}", self.stdout.text(), self.stderr.text());
        }
        must(self.child.wait(), "can't wait for the target")
    }

    /// A command that runs `program` beside the target: in its container, if it has one.
    pub fn beside(&self, program: &Path) -> Command {
        if !self.container {
            return Command::new(program);
        }
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.pid.to_string(), "--pid", "--mount", "--"]).arg(program);
        nsenter
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // With all that it has forked: behind `unshare` the target itself, and copies of a runtime that hang because
        // they found no createdump.
        if matches!(self.child.try_wait(), Ok(None)) {
            for pid in descendants(self.child.id()) {
                let _ = kill(nix_pid(pid), Signal::SIGKILL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A killed runtime leaves its socket and pipes behind.
        for name in names_in(&self.tmp) {
            let own = format!("-{}-", self.inner_pid);
            if (name.starts_with("dotnet-diagnostic-") || name.starts_with("clr-debug-pipe-"))
                && name.contains(&own)
            {
                let _ = std::fs::remove_file(self.tmp.join(name));
            }
        }
    }
}

impl TargetBuilder {
    pub(crate) fn new(command: Command) -> Self {
        Self { command, tmp: None, container: false }
    }

    /// Adds arguments of the app.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable of the target.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Has it run in this folder.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Has it run as another user, which only root can do.
    #[must_use]
    pub fn as_user(mut self, uid: u32) -> Self {
        std::os::unix::process::CommandExt::uid(&mut self.command, uid);
        self
    }

    /// Server GC with two heaps.
    #[must_use]
    pub fn server_gc(self) -> Self {
        let both = |s: Self, name: &str, value| {
            s.env(&format!("COMPlus_{name}"), value).env(&format!("DOTNET_{name}"), value)
        };
        both(both(self, "gcServer", "1"), "GCHeapCount", "2")
    }

    /// Gives the target a TMPDIR of its own, removed with it.
    #[track_caller]
    #[must_use]
    pub fn own_tmp(mut self) -> Self {
        let scratch = must(bench().scratch("target"), "no scratch directory");
        self.command.env("TMPDIR", scratch.path());
        self.tmp = Some(scratch);
        self
    }

    /// Makes the target PID 1 of its own pid and mount namespaces, with a /tmp of its own: what it is in a container.
    /// `None`, with a visible skip, where this machine does not allow that.
    #[must_use]
    pub fn in_container(mut self) -> Option<Self> {
        const FLAGS: [&str; 5] = ["--pid", "--mount", "--fork", "--kill-child", "--mount-proc"];
        // A checkout below /tmp stays in sight: the target's working directory and the program under test are in it.
        const SCRIPT: &str = r#"
            here=$PWD
            cd "$1" && shift && mount -t tmpfs tmpfs /tmp || exit
            case $PWD in /tmp/*) mkdir -p "$PWD" && mount --no-canonicalize --bind . "$PWD" || exit ;; esac
            cd "$here" && exec "$@""#;
        let user = if nix::unistd::geteuid().is_root() { None } else { Some("--map-root-user") };
        let unshare = || {
            let mut unshare = Command::new("unshare");
            unshare.args(FLAGS).args(user).args(["sh", "-c", SCRIPT, "sh"]).arg(workspace());
            unshare
        };
        if let Err(error) = run::quietly(unshare().arg("true")) {
            skip(format_args!("targets in a container of their own: {}", error.to_string().trim_end()));
            return None;
        }
        let program = must(std::env::current_exe(), "where this program is");
        for path in [bench().path("").as_path(), &program] {
            if path.starts_with("/tmp") && !path.starts_with(workspace()) {
                let path = path.display();
                skip(format_args!(
                    "targets in a container of their own: they don't share /tmp, which has {path}"
                ));
                return None;
            }
        }
        let mut command = unshare();
        command.arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.command = command;
        self.container = true;
        Some(self)
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn spawn(mut self) -> Target {
        let command = run::shown(&self.command);
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = must(self.command.spawn(), format_args!("can't run `{command}`"));
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else { panic!("the target has no pipes") };
        let (stdout, stderr) = (Captured::of(stdout), Captured::of(stderr));
        let ready = stdout.wait_for(DEADLINE, |text| whole_line(text, "ready ").map(str::to_owned));
        let line = match ready {
            Ok(line) => line,
            Err(all) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("`{command}` did not become ready:\n{all}{}", stderr.text());
            }
        };
        let (inner, truth) = line.split_once(' ').unwrap_or((&line, "null"));
        let inner_pid = must(inner.parse(), format_args!("`{command}` said `ready {line}`"));
        // `Service` of ../shared/dotnet says its version there, which is no JSON.
        let truth = serde_json::from_str(truth).unwrap_or_else(|_| Value::from(truth));
        let pid = if self.container { only_child(child.id()) } else { child.id() };
        let tmp = match (&self.tmp, self.container) {
            (Some(scratch), _) => scratch.path().to_path_buf(),
            (None, true) => PathBuf::from(format!("/proc/{pid}/root/tmp")),
            (None, false) => std::env::temp_dir(),
        };
        let _scratch = self.tmp;
        Target {
            child,
            stdin,
            stdout,
            stderr,
            pid,
            inner_pid,
            truth,
            tmp,
            container: self.container,
            _scratch,
        }
    }
}

#[track_caller]
pub(crate) fn single_file(app: &str) -> Command {
    let program = must(apps::ensure_single_file(bench(), app), format_args!("no single file of {app}"));
    let mut command = Command::new(program);
    command.env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1");
    command
}

/// The rest of the first complete line that starts with `prefix`.
fn whole_line<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.split_inclusive('\n')
        .find_map(|line| line.strip_suffix('\n')?.trim_end_matches('\r').strip_prefix(prefix))
}

/// The processes that a process has forked, and those these have forked, as far as they still have their parents.
fn descendants(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        let tasks = names_in(Path::new(&format!("/proc/{parent}/task")));
        let children = tasks.iter().map(|task| format!("/proc/{parent}/task/{task}/children"));
        let text: String = children.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
        all.extend(text.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        next += 1;
    }
    all.remove(0);
    all
}

/// The process that `unshare` forked.
#[track_caller]
fn only_child(parent: u32) -> u32 {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let children = must(std::fs::read_to_string(&path), &path);
    must(children.trim().parse(), format_args!("{path} says {children:?}"))
}

fn nix_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}
