//! Values on a terminal.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Color, Print, SetAttribute, SetForegroundColor};
use crossterm::{cursor, queue, terminal};
use dnd_counters::text::{self, Line, Status, Style, View};
use dnd_counters::{Board, Update};
use dnd_ps::ProcessFacts;
use tokio::sync::mpsc;

use super::watch::{Sink, Target};
use crate::error::{CliError, stdout_failed};

/// How often the thread that waits for keys sees whether it is still wanted.
const KEYS_WANTED: Duration = Duration::from_millis(200);

/// Keys, and changes of the terminal's size.
pub(super) type Keys = mpsc::UnboundedReceiver<io::Result<Event>>;

/// Draws boards on the alternate screen, and leaves the terminal as it was.
pub(super) struct Screen {
    terminal: Terminal,
    /// What is said of the process.
    target: String,
    deltas: bool,
    scroll: usize,
    /// Rows of the whole table when it was last drawn.
    rows: usize,
    started: bool,
    /// The values when the user paused, and when that was.
    frozen: Option<(Board, Instant)>,
}

impl Screen {
    /// Takes the terminal over.
    pub(super) fn open(facts: &ProcessFacts, deltas: bool) -> Result<(Self, Option<Keys>), CliError> {
        let terminal = Terminal::open().map_err(stdout_failed)?;
        let keys = terminal.keys();
        let mut target = format!("{} {}", facts.pid, facts.name);
        if let Some(assembly) = facts.entry_assembly.as_ref().filter(|assembly| **assembly != facts.name) {
            // Writing to a String can't fail.
            let _ = write!(target, " ({assembly})");
        }
        if let Some(version) = &facts.runtime_version {
            let _ = write!(target, ", .NET {version}");
        }
        let screen = Self { terminal, target, deltas, scroll: 0, rows: 0, started: false, frozen: None };
        Ok((screen, keys))
    }

    fn draw(&mut self, target: &Target) -> io::Result<()> {
        let (width, height) = self.terminal.size();
        let (board, now, status) = match &self.frozen {
            Some((board, when)) => (board, *when, Status::Paused),
            None if target.end.is_some() => (&target.board, Instant::now(), Status::Ended),
            None if self.started => (&target.board, Instant::now(), Status::Running),
            None => (&target.board, Instant::now(), Status::Waiting),
        };
        let view =
            View { target: &self.target, status, board, deltas: self.deltas, scroll: self.scroll, now };
        let (lines, rows) = text::render(&view, width, height);
        self.rows = rows;
        self.terminal.show(lines)
    }

    fn scroll_by(&mut self, rows: isize) {
        self.scroll = self.scroll.saturating_add_signed(rows).min(self.rows.saturating_sub(1));
    }
}

impl Sink for Screen {
    fn updates(&mut self, target: &Target, updates: &[Update]) -> io::Result<()> {
        self.started |= updates.iter().any(|update| matches!(update, Update::Sample(_)));
        self.draw(target)
    }

    fn tick(&mut self, target: &Target) -> io::Result<()> {
        self.draw(target)
    }

    fn terminal(&mut self, target: &Target, event: &Event) -> io::Result<bool> {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                match key.code {
                    KeyCode::Char('c' | 'd') if control => return Ok(false),
                    KeyCode::Char('q' | 'Q') => return Ok(false),
                    KeyCode::Char('p' | 'P') if self.frozen.is_none() => {
                        self.frozen = Some((target.board.clone(), Instant::now()));
                    }
                    KeyCode::Char('r' | 'R') => self.frozen = None,
                    KeyCode::Down | KeyCode::Char('j') => self.scroll_by(1),
                    KeyCode::Up | KeyCode::Char('k') => self.scroll_by(-1),
                    KeyCode::PageDown => self.scroll_by(10),
                    KeyCode::PageUp => self.scroll_by(-10),
                    KeyCode::Home => self.scroll = 0,
                    KeyCode::End => self.scroll = self.rows,
                    _ => return Ok(true),
                }
            }
            Event::Resize(..) => self.terminal.forget(),
            _ => return Ok(true),
        }
        self.draw(target)?;
        Ok(true)
    }

    fn end(&mut self, target: &Target) -> io::Result<()> {
        // Whoever looks after the process has died wants its last values: they stay on the terminal.
        if !matches!(
            target.end,
            Some(dnd_counters::session::End::TargetEnded | dnd_counters::session::End::TargetDied)
        ) {
            return Ok(());
        }
        self.frozen = None;
        let (width, _) = self.terminal.size();
        let now = Instant::now();
        let status = Status::Ended;
        let board = &target.board;
        let view = View { target: &self.target, status, board, deltas: self.deltas, scroll: 0, now };
        let (lines, _) = text::render(&view, width, usize::MAX);
        self.terminal.close();
        let mut all = String::new();
        for line in lines.iter().skip(1) {
            all.push_str(line.text().trim_end());
            all.push('\n');
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(all.as_bytes())?;
        stdout.flush()
    }
}

/// Whether the terminal is in our hands: a panic must give it back, too.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal in raw mode with its alternate screen; dropping it puts everything back.
struct Terminal {
    shown: Vec<Line>,
    size: (usize, usize),
    color: bool,
}

impl Terminal {
    fn open() -> io::Result<Self> {
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
        if io::IsTerminal::is_terminal(&io::stdin()) {
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
    fn keys(&self) -> Option<Keys> {
        if !io::IsTerminal::is_terminal(&io::stdin()) {
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
                if sender.send(event).is_err() || failed {
                    break;
                }
            }
        });
        Some(receiver)
    }

    /// Columns and rows.
    fn size(&mut self) -> (usize, usize) {
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
    fn forget(&mut self) {
        self.shown.clear();
    }

    /// Writes the lines that differ from those on the screen, with one write.
    fn show(&mut self, lines: Vec<Line>) -> io::Result<()> {
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

    fn close(&mut self) {
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
