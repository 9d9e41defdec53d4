//! The terminal: taken over, drawn on, and given back whatever happens.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::style::{Attribute, Color, Print, SetAttribute, SetForegroundColor};
use crossterm::{cursor, event, queue, terminal};
use dnd_counters::text::{Line, Style};
use tokio::sync::mpsc;

use super::hub::{Input, Inputs};

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
        let mut stdout = io::stdout().lock();
        queue!(
            stdout,
            terminal::EnterAlternateScreen,
            cursor::Hide,
            terminal::Clear(terminal::ClearType::All)
        )?;
        stdout.flush()?;
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
        let mut stdout = io::stdout().lock();
        stdout.write_all(&out)?;
        stdout.flush()
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
        let mut stdout = io::stdout();
        let _ = queue!(stdout, SetAttribute(Attribute::Reset), cursor::Show, terminal::LeaveAlternateScreen);
        let _ = stdout.flush();
        let _ = terminal::disable_raw_mode();
    }
}
