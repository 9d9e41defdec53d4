//! The terminal: taken over, drawn on, and given back whatever happens.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::style::{Attribute, Color, Print, SetAttribute, SetForegroundColor};
use crossterm::{cursor, event, queue, terminal};
use dnd_counters::text::{Line, Style};
use tokio::sync::mpsc;

use super::sink::{Input, Inputs};
use super::writer;

/// How often the thread that waits for keys sees whether it is still wanted.
const KEYS_WANTED: Duration = Duration::from_millis(200);

/// Whether the terminal is in our hands: a panic must give it back, too.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal in raw mode with its alternate screen; dropping it puts everything back.
pub(super) struct Terminal {
    shown: Vec<Line>,
    size: (usize, usize),
    color: bool,
}

impl Terminal {
    pub(super) fn open() -> io::Result<Self> {
        static HOOK: std::sync::Once = std::sync::Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        TAKEN.store(true, Ordering::SeqCst);
        let terminal = Self { shown: Vec::new(), size: (0, 0), color };
        if io::stdin().is_terminal() {
            terminal::enable_raw_mode()?;
        }
        let mut out = Vec::new();
        queue!(out, terminal::EnterAlternateScreen, cursor::Hide, terminal::Clear(terminal::ClearType::All))?;
        writer::stdout().write_always(out)?;
        Ok(terminal)
    }

    /// A thread that waits for keys; none when standard input is no terminal.
    pub(super) fn keys(&self) -> Option<Inputs> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            while !sender.is_closed() {
                let event = match event::poll(KEYS_WANTED) {
                    Ok(false) => continue,
                    Ok(true) => event::read(),
                    Err(error) => Err(error),
                };
                let failed = event.is_err();
                if sender.send(Input::Terminal(event)).is_err() || failed {
                    break;
                }
            }
        });
        Some(receiver)
    }

    /// Columns and rows.
    pub(super) fn size(&mut self) -> (usize, usize) {
        let size = match terminal::size() {
            Ok((columns, rows)) if columns > 0 && rows > 0 => (usize::from(columns), usize::from(rows)),
            _ => (80, 24),
        };
        if size != self.size {
            self.size = size;
            self.forget();
        }
        size
    }

    /// What is on the screen is not known any more.
    pub(super) fn forget(&mut self) {
        self.shown.clear();
    }

    /// Writes the lines that differ from those on the screen, with one write.
    pub(super) fn show(&mut self, lines: Vec<Line>) -> io::Result<()> {
        let mut out: Vec<u8> = Vec::new();
        if self.shown.is_empty() {
            queue!(out, terminal::Clear(terminal::ClearType::All))?;
        }
        let empty = Line::default();
        for row in 0..lines.len().max(self.shown.len()) {
            let line = lines.get(row).unwrap_or(&empty);
            if self.shown.get(row).unwrap_or(&empty) != line {
                queue!(out, cursor::MoveTo(0, u16::try_from(row).unwrap_or(u16::MAX)))?;
                self.line(line, &mut out)?;
                queue!(out, terminal::Clear(terminal::ClearType::UntilNewLine))?;
            }
        }
        self.shown = lines;
        if out.is_empty() {
            return Ok(());
        }
        writer::stdout().write_always(out)
    }

    fn line(&self, line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
        for span in &line.spans {
            if !self.color || span.style == Style::Plain {
                queue!(out, Print(&span.text))?;
                continue;
            }
            match span.style {
                Style::Bold => queue!(out, SetAttribute(Attribute::Bold))?,
                Style::Dim => queue!(out, SetAttribute(Attribute::Dim))?,
                Style::Warning => queue!(out, SetForegroundColor(Color::Yellow))?,
                Style::Plain => {}
            }
            queue!(out, Print(&span.text), SetAttribute(Attribute::Reset))?;
        }
        Ok(())
    }

    /// Gives the terminal back now, to write on its usual screen.
    pub(super) fn close(&mut self) {
        give_back();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Puts the terminal back, once.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // Whatever fails here, the rest must be tried.
        let mut out = Vec::new();
        let _ = queue!(out, SetAttribute(Attribute::Reset), cursor::Show, terminal::LeaveAlternateScreen);
        let _ = writer::stdout().write_always(out);
        // A terminal that takes nothing any more gets nothing.
        let _ = writer::stdout().finish(writer::FINISH);
        let _ = terminal::disable_raw_mode();
    }
}

#[cfg(test)]
mod tests {
    use dnd_testkit::Dnd;

    use super::Terminal;

    /// Not a test, but a program for the one below: it takes its terminal and panics.
    #[test]
    #[ignore = "run in a terminal by `a_panic_gives_the_terminal_back`"]
    fn panics_with_the_terminal_taken() {
        let _terminal = Terminal::open().expect("a terminal");
        panic!("on purpose");
    }

    #[test]
    fn a_panic_gives_the_terminal_back() {
        let tests = std::env::current_exe().expect("this program");
        let name = "cmd::counters::terminal::tests::panics_with_the_terminal_taken";
        let mut screen = Dnd::new(tests).args(["--ignored", "--exact", name, "--nocapture"]).pty(24, 100);
        // Nothing is dropped before the hook has run: where a panic ends the process at once it is all there is.
        screen.wait_for("on purpose");
        assert_eq!(screen.wait_end().code(), Some(101));
        let raw = screen.raw();
        let (before, after) = raw.split_once("on purpose").unwrap_or_default();
        assert!(before.contains("\x1b[?1049h") && before.contains("\x1b[?1049l"), "{raw:?}");
        assert!(before.contains("\x1b[?25h"), "{raw:?}");
        assert!(!after.contains("\x1b[?1049l"), "once: {raw:?}");
        assert!(screen.cooked());
        assert_eq!(screen.modes(), (false, false));
    }
}
