//! What is watched, and where its values go.

use std::io;

use crossterm::event::Event as TerminalEvent;
use dnd_counters::os::Probe;
use dnd_counters::session::End;
use dnd_counters::{Board, Update};
use tokio::sync::mpsc;

use super::alerts::{Told, lines};
use super::export::Scrape;
use super::targets::Subject;
use super::writer::say;
use crate::error::{CliError, stdout_failed};

/// A process being watched.
pub(super) struct Target {
    /// The process.
    pub(super) subject: Subject,
    /// Its values.
    pub(super) board: Board,
    /// What became of it.
    pub(super) state: State,
    /// When the watching began: UTC, nanoseconds since 1970.
    pub(super) since: i64,
    /// What the operating system knows of it.
    pub(super) probe: Option<Probe>,
}

/// What became of a process.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// Its sessions are being started.
    Starting,
    /// It is watched.
    Watched,
    /// It isn't any more.
    Ended(End),
    /// It can't be watched.
    Failed(String),
}

impl State {
    /// Whether it is over with it.
    pub(super) fn over(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Failed(_))
    }
}

/// Where values go.
pub(super) trait Sink {
    /// New values of the target at `index`; its board has them already.
    fn updates(&mut self, targets: &[Target], index: usize, updates: &[Update]) -> io::Result<()>;

    /// Time has passed, or a target has changed its state.
    fn tick(&mut self, targets: &[Target]) -> io::Result<()>;

    /// Whether it shows charts, which need the recent past of all values.
    fn charts(&self) -> bool {
        false
    }

    /// The target at `index`, which ended long ago, has made room for another one.
    fn replaced(&mut self, _index: usize) {}

    /// Somebody wants something. Whether to go on.
    fn input(&mut self, _targets: &[Target], _input: Input) -> io::Result<bool> {
        Ok(true)
    }

    /// An alert was raised, or what it ran has ended.
    fn alert(&mut self, _targets: &[Target], told: &Told) -> io::Result<()> {
        say(&lines(told));
        Ok(())
    }

    /// Nothing more will be asked; what was taken (a terminal) is to be given back.
    fn close(&mut self) {}

    /// Nothing more will come.
    fn end(&mut self, targets: &[Target]) -> io::Result<()>;

    /// What it means that one of these failed.
    fn failed(&self, error: io::Error) -> CliError {
        stdout_failed(error)
    }
}

/// What comes from outside while processes are watched.
#[derive(Debug)]
pub(super) enum Input {
    /// A key, a change of the terminal's size, or the end of the terminal.
    Terminal(io::Result<TerminalEvent>),
    /// A question of a monitoring system.
    Scrape(Scrape),
}

/// Where inputs come from; its end is the end of the watching.
pub(super) type Inputs = mpsc::UnboundedReceiver<Input>;
