//! Values on a terminal: the list of processes if there are several, and the counters of one.

use std::io;
use std::time::Instant;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use dnd_counters::session::End;
use dnd_counters::text::{self, Process, Sort, Status, View};
use dnd_counters::{Board, Update};

use super::alerts::{Told, lines};
use super::sink::{Input, Inputs, Sink, State, Target};
use super::terminal::Terminal;
use super::writer::{self, say};
use crate::error::{CliError, stdout_failed};

/// Draws boards on the alternate screen, and leaves the terminal as it was.
pub(super) struct Screen {
    terminal: Terminal,
    deltas: bool,
    abbreviate: Option<bool>,
    sort: Sort,
    search: String,
    typing: bool,
    /// The row with the cursor; none until it is moved.
    cursor: Option<usize>,
    chart: bool,
    scroll: usize,
    /// Rows with values when the table was last drawn.
    rows: usize,
    /// The values when the user paused, and when that was.
    frozen: Option<(Board, Instant)>,
    /// The process that is shown; none while the list is.
    shown: Option<usize>,
    /// The process chosen in the list.
    chosen: usize,
    /// Alerts, as they were told.
    alerts: Vec<String>,
    closed: bool,
}

/// So many alerts are kept, and so many shown.
const ALERTS: usize = 1000;
const ALERTS_SHOWN: usize = 3;

impl Screen {
    /// Takes the terminal over. A single process is shown at once, several as a list first.
    pub(super) fn open(
        deltas: bool,
        abbreviate: Option<bool>,
        single: bool,
    ) -> Result<(Self, Option<Inputs>), CliError> {
        let terminal = Terminal::open().map_err(stdout_failed)?;
        let keys = terminal.keys();
        let screen = Self {
            terminal,
            deltas,
            abbreviate,
            sort: Sort::default(),
            search: String::new(),
            typing: false,
            cursor: None,
            chart: false,
            scroll: 0,
            rows: 0,
            frozen: None,
            shown: if single { Some(0) } else { None },
            chosen: 0,
            alerts: Vec::new(),
            closed: false,
        };
        Ok((screen, keys))
    }

    fn draw(&mut self, targets: &[Target]) -> io::Result<()> {
        if !writer::stdout().idle() {
            // The terminal has not taken the last picture yet; the next one will be newer.
            return Ok(());
        }
        let (width, height) = self.terminal.size();
        if let Some(index) = self.shown {
            let Some(target) = targets.get(index) else { return Ok(()) };
            let description = target.subject.describe();
            let drawn = text::render(&self.view(target, &description), width, height);
            (self.rows, self.scroll) = (drawn.rows, drawn.scroll);
            return self.terminal.show(drawn.lines);
        }
        let described: Vec<(String, String)> = targets.iter().map(|t| (name(t), state(t))).collect();
        let list: Vec<Process<'_>> = targets
            .iter()
            .zip(&described)
            .map(|(target, (name, state))| Process {
                pid: target.subject.pid,
                name,
                state,
                board: &target.board,
            })
            .collect();
        let lines = text::processes(&list, self.chosen, self.last_alerts(), Instant::now(), width, height);
        self.terminal.show(lines)
    }

    fn view<'a>(&'a self, target: &'a Target, description: &'a str) -> View<'a> {
        let (board, now, status) = match &self.frozen {
            Some((board, when)) => (board, *when, Status::Paused),
            None => {
                let status = match target.state {
                    State::Ended(End::TargetEnded | End::TargetDied) => Status::Ended,
                    State::Failed(_) => Status::Lost,
                    _ if target.board.has_values() => Status::Running,
                    _ => Status::Waiting,
                };
                (&target.board, Instant::now(), status)
            }
        };
        View {
            target: description,
            status,
            board,
            alerts: self.last_alerts(),
            deltas: self.deltas,
            abbreviate: self.abbreviate,
            sort: self.sort,
            search: &self.search,
            typing: self.typing,
            cursor: self.cursor,
            chart: self.chart,
            scroll: self.scroll,
            now,
        }
    }

    fn last_alerts(&self) -> &[String] {
        self.alerts.get(self.alerts.len().saturating_sub(ALERTS_SHOWN)..).unwrap_or_default()
    }

    /// Whether to go on.
    fn key(&mut self, key: KeyEvent, targets: &[Target]) -> bool {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return !matches!(key.code, KeyCode::Char('c' | 'd'));
        }
        if self.typing {
            match key.code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    self.typing = false;
                    self.search.clear();
                }
                KeyCode::Backspace => drop(self.search.pop()),
                KeyCode::Char(c) => self.search.push(c),
                _ => {}
            }
            self.cursor = self.cursor.map(|_| 0);
            return true;
        }
        match (key.code, self.shown) {
            (KeyCode::Char('q' | 'Q'), _) => return false,
            (KeyCode::Down | KeyCode::Char('j'), None) => {
                self.chosen = (self.chosen + 1).min(targets.len().saturating_sub(1));
            }
            (KeyCode::Up | KeyCode::Char('k'), None) => self.chosen = self.chosen.saturating_sub(1),
            (KeyCode::Enter, None) if self.chosen < targets.len() => {
                self.shown = Some(self.chosen);
                (self.cursor, self.scroll) = (None, 0);
            }
            (_, None) => {}
            (KeyCode::Esc | KeyCode::Backspace, _) => {
                if !self.search.is_empty() {
                    self.search.clear();
                } else if targets.len() > 1 {
                    self.shown = None;
                    self.frozen = None;
                }
            }
            (KeyCode::Char('p' | 'P'), Some(index)) if self.frozen.is_none() => {
                self.frozen = targets.get(index).map(|target| (target.board.clone(), Instant::now()));
            }
            (KeyCode::Char('r' | 'R'), _) => self.frozen = None,
            (KeyCode::Char('/'), _) => self.typing = true,
            (KeyCode::Char('d' | 'D'), _) => self.deltas = !self.deltas,
            (KeyCode::Char('s' | 'S'), _) => {
                self.sort = match self.sort {
                    Sort::Name => Sort::Value,
                    Sort::Value => Sort::Change,
                    Sort::Change => Sort::Name,
                };
            }
            (KeyCode::Char('c' | 'C'), _) => {
                self.chart = !self.chart;
                self.cursor = self.cursor.or(Some(0));
            }
            (KeyCode::Down | KeyCode::Char('j'), _) => self.move_by(1),
            (KeyCode::Up | KeyCode::Char('k'), _) => self.move_by(-1),
            (KeyCode::PageDown, _) => self.move_by(10),
            (KeyCode::PageUp, _) => self.move_by(-10),
            (KeyCode::Home, _) => self.cursor = Some(0),
            (KeyCode::End, _) => self.cursor = Some(self.rows.saturating_sub(1)),
            _ => {}
        }
        true
    }

    fn move_by(&mut self, rows: isize) {
        let last = self.rows.saturating_sub(1);
        self.cursor = Some(self.cursor.map_or(0, |cursor| cursor.saturating_add_signed(rows).min(last)));
    }
}

fn name(target: &Target) -> String {
    match &target.subject.assembly {
        Some(assembly) if *assembly != target.subject.name => format!("{} ({assembly})", target.subject.name),
        _ => target.subject.name.clone(),
    }
}

fn state(target: &Target) -> String {
    match &target.state {
        State::Starting => "starting".to_owned(),
        State::Watched | State::Ended(End::Stopped | End::Abandoned) => String::new(),
        State::Ended(End::TargetDied) => "died".to_owned(),
        State::Ended(End::TargetEnded) => "ended".to_owned(),
        State::Failed(reason) => reason.clone(),
    }
}

impl Sink for Screen {
    fn charts(&self) -> bool {
        true
    }

    fn replaced(&mut self, index: usize) {
        if self.shown == Some(index) {
            (self.shown, self.frozen) = (None, None);
        }
    }

    fn updates(&mut self, targets: &[Target], index: usize, _updates: &[Update]) -> io::Result<()> {
        // The list of many processes is not drawn for each of them: a tick does, a moment later.
        if self.shown == Some(index) { self.draw(targets) } else { Ok(()) }
    }

    fn tick(&mut self, targets: &[Target]) -> io::Result<()> {
        self.draw(targets)
    }

    fn input(&mut self, targets: &[Target], input: Input) -> io::Result<bool> {
        let Input::Terminal(Ok(event)) = input else { return Ok(true) };
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                if !self.key(key, targets) {
                    return Ok(false);
                }
            }
            Event::Resize(..) => self.terminal.forget(),
            _ => return Ok(true),
        }
        self.draw(targets)?;
        Ok(true)
    }

    fn alert(&mut self, targets: &[Target], told: &Told) -> io::Result<()> {
        let text = lines(told);
        if self.closed {
            say(&text);
            return Ok(());
        }
        if self.alerts.len() == ALERTS {
            self.alerts.remove(0);
        }
        self.alerts.push(text);
        self.draw(targets)
    }

    fn close(&mut self) {
        self.closed = true;
        self.terminal.close();
        // They were seen on the screen at best, and that is gone.
        self.alerts.iter().for_each(|text| say(text));
    }

    fn end(&mut self, targets: &[Target]) -> io::Result<()> {
        // Whoever looks after the process has died wants its last values: they stay on the terminal.
        let Some(target) = self.shown.and_then(|index| targets.get(index)) else { return Ok(()) };
        if !matches!(target.state, State::Ended(End::TargetEnded | End::TargetDied)) {
            return Ok(());
        }
        self.frozen = None;
        (self.cursor, self.chart, self.scroll) = (None, false, 0);
        let (width, _) = self.terminal.size();
        let description = target.subject.describe();
        let drawn = text::render(&self.view(target, &description), width, usize::MAX);
        let mut all = String::new();
        for line in drawn.lines.iter().skip(1) {
            all.push_str(line.text().trim_end());
            all.push('\n');
        }
        writer::stdout().write_always(all.into_bytes())
    }

    fn failed(&self, error: io::Error) -> CliError {
        // The terminal is gone, and with it the one who watched.
        if error.raw_os_error() == Some(nix::libc::EIO) { CliError::ClosedPipe } else { stdout_failed(error) }
    }
}
