//! The `dnd` binary, run as a user runs it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xtask::run;

use crate::lines::Captured;
use crate::pty::Screen;
use crate::{DEADLINE, Target, must};

/// A call of `dnd` to be.
#[derive(Debug)]
pub struct Dnd {
    command: Command,
    stdin: Vec<u8>,
    timeout: Duration,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command as one would type it.
    pub command: String,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output as bytes.
    pub bytes: Vec<u8>,
}

impl Dnd {
    /// A call of the binary at `exe`: in tests, `env!("CARGO_BIN_EXE_dnd")`.
    pub fn new(exe: impl AsRef<Path>) -> Self {
        Self::of(Command::new(exe.as_ref()))
    }

    /// A call of the binary beside the target, in its container if it has one.
    pub fn beside(exe: impl AsRef<Path>, target: &Target) -> Self {
        Self::of(target.beside(exe.as_ref()))
    }

    fn of(mut command: Command) -> Self {
        // Nothing of the caller's terminal or runtime settings may change what a test sees.
        for name in ["PAGER", "NO_COLOR", "CLICOLOR_FORCE", "TMPDIR", "COLUMNS", "LINES"] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        Self { command, stdin: Vec::new(), timeout: DEADLINE }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it in this directory.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// What it reads on stdin (nothing, unless given).
    #[must_use]
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = text.into();
        self
    }

    /// How long it may take before it is killed and the test fails.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A line of bash in which `DND` stands for this command.
    #[must_use]
    pub fn bash(self, line: &str) -> Self {
        let mut bash = Command::new("bash");
        bash.args(["-c", &line.replace("DND", "\"$0\" \"$@\"")]);
        bash.arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => bash.env(name, value),
                None => bash.env_remove(name),
            };
        }
        if let Some(dir) = self.command.get_current_dir() {
            bash.current_dir(dir);
        }
        Self { command: bash, ..self }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(mut self) -> Output {
        let (stdin, timeout) = (std::mem::take(&mut self.stdin), self.timeout);
        let mut running = self.spawn();
        let pipe = running.stdin.take();
        // Written beside the reading: a pipe holds only so much. A program that doesn't read all of it is no failure.
        let writer = std::thread::spawn(move || pipe.map(|mut pipe| pipe.write_all(&stdin)));
        let output = running.end(timeout);
        let _ = writer.join();
        output
    }

    /// Starts it, with its stdin open.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        let command = run::shown(&self.command);
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = must(self.command.spawn(), format_args!("can't run `{command}`"));
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else { panic!("`{command}` has no pipes") };
        Running { child, command, stdin, stdout: Captured::of(stdout), stderr: Captured::of(stderr) }
    }

    /// Starts it in a terminal of this size.
    #[track_caller]
    pub fn pty(self, rows: u16, columns: u16) -> Screen {
        Screen::open(&self.command, rows, columns)
    }
}

/// A running `dnd`; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command: String,
    stdin: Option<ChildStdin>,
    stdout: Captured,
    stderr: Captured,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its stdin.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        let Some(stdin) = &mut self.stdin else { panic!("stdin of `{}` is closed", self.command) };
        must(
            stdin.write_all(format!("{line}\n").as_bytes()),
            format_args!("can't write to `{}`", self.command),
        );
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until its stdout so far satisfies `find`; fails when it ends without.
    #[track_caller]
    pub fn wait_stdout<T>(&self, find: impl Fn(&str) -> Option<T>) -> T {
        match self.stdout.wait_for(DEADLINE, find) {
            Ok(found) => found,
            Err(all) => {
                panic!("`{}` never wrote what was expected:\n{all}\n{}", self.command, self.stderr.text())
            }
        }
    }

    /// Waits until its stderr so far satisfies `find`; fails when it ends without.
    #[track_caller]
    pub fn wait_stderr<T>(&self, find: impl Fn(&str) -> Option<T>) -> T {
        match self.stderr.wait_for(DEADLINE, find) {
            Ok(found) => found,
            Err(all) => panic!("`{}` never said what was expected on stderr:\n{all}", self.command),
        }
    }

    /// Sends it a signal: SIGINT is Ctrl-C.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        must(kill(pid, signal), format_args!("can't signal `{}`", self.command));
    }

    /// Waits for its end; its stdin is closed.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        self.stdin = None;
        self.end(DEADLINE)
    }

    #[track_caller]
    fn end(&mut self, timeout: Duration) -> Output {
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        let ends = (self.stdout.wait_end(left()), self.stderr.wait_end(left()));
        let (Some(bytes), Some(stderr)) = ends else {
            let said = format!("{}\n{}", self.stdout.text(), self.stderr.text());
            panic!("`{}` did not end within {timeout:?}; it said:\n{said}", self.command);
        };
        // Both pipes are closed, so it is ending.
        let status = must(self.child.wait(), "can't wait for dnd");
        Output {
            command: self.command.clone(),
            stdout: String::from_utf8_lossy(&bytes).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            code: status.code(),
            bytes,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    /// Its stdout; fails unless the exit code is 0.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "`{}`\n{}{}", self.command, self.stdout, self.stderr);
        self.stdout
    }

    /// Its stderr; fails unless the exit code is `code`.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "`{}`\n{}{}", self.command, self.stdout, self.stderr);
        self.stderr
    }

    /// Its stdout as one JSON document; fails unless the exit code is 0.
    #[track_caller]
    pub fn json(self) -> Value {
        let command = self.command.clone();
        let text = self.success();
        must(serde_json::from_str(&text), format_args!("`{command}` printed no JSON document:\n{text}"))
    }
}

/// Where scratch files of tests go: a directory of its own on the bench's file system.
impl Dnd {
    /// An empty directory that is removed when dropped.
    #[track_caller]
    pub fn scratch() -> (xtask::bench::Scratch, PathBuf) {
        let scratch = must(crate::bench().scratch("dnd"), "no scratch directory");
        let path = scratch.path().to_path_buf();
        (scratch, path)
    }
}
