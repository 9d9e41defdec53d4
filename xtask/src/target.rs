//! A debuggee started by a task. (Tests have a better one in `dnd-testkit`.)

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::{Result, run};

/// A running debuggee; its stdin is closed and its end awaited when this is dropped.
#[derive(Debug)]
pub struct Started {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Kept open: what it says later need not be read, but must not fail.
    stdout: Option<BufReader<ChildStdout>>,
    /// What followed `ready PID ` on its first line.
    pub truth: String,
}

impl Started {
    /// Runs the command and waits for its line `ready PID {truth}`.
    ///
    /// # Errors
    /// It can't be run, or it ends without this line.
    pub fn new(command: &mut Command) -> Result<Self> {
        let shown = run::shown(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("can't run `{shown}`: {e}"))?;
        let stdin = child.stdin.take();
        let mut stdout = child.stdout.take().map(BufReader::new);
        let mut line = String::new();
        if let Some(stdout) = &mut stdout {
            stdout.read_line(&mut line)?;
        }
        let truth =
            line.strip_prefix("ready ").and_then(|rest| rest.split_once(' ')).map(|(_, truth)| truth.trim());
        match truth {
            Some(truth) => Ok(Self { truth: truth.to_owned(), child, stdin, stdout }),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("`{shown}` did not become ready; it said {line:?}").into())
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The number that follows `"name":` in its truth.
    pub fn number(&self, name: &str) -> Option<u64> {
        let (_, rest) = self.truth.split_once(&format!("\"{name}\":"))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// Writes a line to its stdin.
    ///
    /// # Errors
    /// It has ended.
    pub fn say(&mut self, line: &str) -> Result<()> {
        use std::io::Write;
        let stdin = self.stdin.as_mut().ok_or("its stdin is closed")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    /// Writes a line to its stdin, and reads the line that it answers.
    ///
    /// # Errors
    /// It has ended.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.say(line)?;
        let mut answer = String::new();
        self.stdout.as_mut().ok_or("its stdout is closed")?.read_line(&mut answer)?;
        if answer.is_empty() {
            return Err(format!("it ended instead of answering `{line}`").into());
        }
        Ok(answer.trim_end().to_owned())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}
