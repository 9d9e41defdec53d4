//! Where a command's output goes: standard output, a pager, a shell command.

use std::io::{self, IsTerminal, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::progress::Bar;

/// One command's output. [`Output::finish`] must be called: it waits for the pager or shell command.
pub(super) struct Output {
    to: To,
    bar: Bar,
    touched: bool,
}

enum To {
    Stdout(io::Stdout),
    /// Not yet more than a screen.
    Held {
        bytes: Vec<u8>,
        screen: Screen,
    },
    Child {
        child: Child,
        stdin: Option<ChildStdin>,
    },
}

/// The size of the terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    columns: usize,
    rows: usize,
}

impl Screen {
    /// The terminal that standard output is, if it is one.
    pub(super) fn of_stdout() -> Option<Self> {
        if !io::stdout().is_terminal() {
            return None;
        }
        let (columns, rows) = crossterm::terminal::size().ok()?;
        (columns > 0 && rows > 1).then(|| Screen { columns: columns.into(), rows: rows.into() })
    }

    /// Whether `text` needs more rows than there are above the prompt.
    fn overflows(self, text: &[u8]) -> bool {
        let lines = text.split(|&b| b == b'\n');
        let rows: usize =
            lines.map(|line| line.len().div_ceil(self.columns).max(1)).take(self.rows + 1).sum();
        // The end of the last line makes one more piece.
        rows > self.rows
    }
}

impl Output {
    /// Straight to standard output.
    pub(super) fn stdout(bar: Bar) -> Self {
        Output { to: To::Stdout(io::stdout()), bar, touched: false }
    }

    /// To standard output, or to a pager once it is longer than `screen`.
    pub(super) fn paged(screen: Screen, bar: Bar) -> Self {
        Output { to: To::Held { bytes: Vec::new(), screen }, bar, touched: false }
    }

    /// To the standard input of a shell command.
    ///
    /// # Errors
    /// When there is no shell here (a distroless container has none).
    pub(super) fn shell(command: &str, bar: Bar) -> io::Result<Self> {
        let child = Command::new("sh").arg("-c").arg(command).stdin(Stdio::piped()).spawn()?;
        Ok(Output { to: To::child(child), bar, touched: false })
    }

    /// Hands on what was held back, closes the pipe and waits for its reader.
    ///
    /// # Errors
    /// When standard output can't be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.bar.end();
        match self.to {
            To::Stdout(mut out) => out.flush(),
            To::Held { bytes, .. } => {
                let mut out = io::stdout();
                out.write_all(&bytes)?;
                out.flush()
            }
            To::Child { mut child, stdin } => {
                drop(stdin);
                // Its exit code is its own affair: `grep` without a match, a pager left early.
                child.wait().map(drop)
            }
        }
    }

    /// Whether a reader other than our own standard output decides when it has had enough.
    pub(super) fn has_reader(&self) -> bool {
        matches!(self.to, To::Child { .. })
    }
}

impl To {
    fn child(mut child: Child) -> Self {
        let stdin = child.stdin.take();
        To::Child { child, stdin }
    }
}

impl Write for Output {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if !self.touched {
            self.touched = true;
            self.bar.output_begins();
        }
        match &mut self.to {
            To::Stdout(out) => out.write_all(text)?,
            To::Child { stdin, .. } => {
                if let Some(stdin) = stdin {
                    stdin.write_all(text)?;
                }
            }
            To::Held { bytes, screen } => {
                bytes.extend_from_slice(text);
                if screen.overflows(bytes) {
                    let held = std::mem::take(bytes);
                    self.to = match pager() {
                        Some(child) => To::child(child),
                        None => To::Stdout(io::stdout()),
                    };
                    return self.write_all(&held).map(|()| text.len());
                }
            }
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::Stdout(out) => out.flush(),
            To::Held { .. } => Ok(()),
            To::Child { stdin, .. } => stdin.as_mut().map_or(Ok(()), Write::flush),
        }
    }
}

/// Starts `$PAGER`, or `less` where it is installed.
fn pager() -> Option<Child> {
    let named = std::env::var("PAGER").ok();
    let line = named.as_deref().unwrap_or("less");
    let mut words = line.split_whitespace();
    let program = words.next().filter(|&p| p != "cat")?;
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        // Quit when it fits, long rows cut at the edge (arrow keys scroll), leave the text on the screen.
        command.env("LESS", "FSX");
    }
    command.spawn().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_full_when_the_prompt_no_longer_fits() {
        let screen = Screen { columns: 10, rows: 3 };
        assert!(!screen.overflows(b""));
        assert!(!screen.overflows(b"1\n2\n"));
        assert!(screen.overflows(b"1\n2\n3\n"));
        assert!(screen.overflows(b"123456789012345678901\n"));
        assert!(!screen.overflows(b"1234567890\n2\n"));
    }
}
