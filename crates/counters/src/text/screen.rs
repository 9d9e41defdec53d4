//! The live screen of one process, as styled lines: nothing here touches a terminal.
//!
//! The layout is that of dotnet-counters, but that a row is a row whatever a tag's value holds, and a late value says
//! how old it is.

use std::time::Instant;

use super::head::head;
use super::layout::clip;
use super::table::Table;
use crate::board::Board;

/// How a piece of text looks. Nothing depends on it: the text says all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// As it is.
    #[default]
    Plain,
    /// Headings, and the row with the cursor.
    Bold,
    /// What is less important, or out of date.
    Dim,
    /// What needs attention.
    Warning,
}

/// Text of one style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Safe to print, without line ends.
    pub text: String,
    /// How it looks.
    pub style: Style,
}

/// One line of the screen, not wider than the screen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    /// Its pieces, left to right.
    pub spans: Vec<Span>,
}

impl Line {
    pub(super) fn new(style: Style, text: impl Into<String>) -> Self {
        Self { spans: vec![Span { text: text.into(), style }] }
    }

    pub(super) fn push(&mut self, style: Style, text: impl Into<String>) {
        self.spans.push(Span { text: text.into(), style });
    }

    /// The line without its styles.
    #[must_use]
    pub fn text(&self) -> String {
        self.spans.iter().map(|span| span.text.as_str()).collect()
    }
}

/// What a target is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// No sample came yet.
    Waiting,
    /// Samples come.
    Running,
    /// The user stopped the screen; samples still come.
    Paused,
    /// The target has ended; what is shown is the last that was known.
    Ended,
    /// It could not be watched any longer; what is shown is the last that was known.
    Lost,
}

/// The order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// By provider, counter and tags, as tables.
    #[default]
    Name,
    /// The largest value first.
    Value,
    /// The largest change first.
    Change,
}

/// What to show.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The process, for the status line.
    pub target: &'a str,
    /// What it does.
    pub status: Status,
    /// Its values.
    pub board: &'a Board,
    /// Alerts to show.
    pub alerts: &'a [String],
    /// Whether to show how values changed.
    pub deltas: bool,
    /// Whether to write numbers from a hundred million on as `1e+08`; `None` where the screen is narrow.
    pub abbreviate: Option<bool>,
    /// The order of rows.
    pub sort: Sort,
    /// Only rows with this text in a name or tag; empty for all.
    pub search: &'a str,
    /// Whether the search is being typed.
    pub typing: bool,
    /// The row with the cursor, counted among those with values; `None` for no cursor.
    pub cursor: Option<usize>,
    /// Whether to chart the row with the cursor.
    pub chart: bool,
    /// How many lines of the table are scrolled out at its top.
    pub scroll: usize,
    /// The time, for ages.
    pub now: Instant,
}

/// A screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// Its lines.
    pub lines: Vec<Line>,
    /// How many rows with values there are: the range of the cursor.
    pub rows: usize,
    /// How many lines are scrolled out now: the cursor stays in sight.
    pub scroll: usize,
}

/// Draws the screen in at most `height` lines of at most `width` columns.
#[must_use]
pub fn render(view: &View<'_>, width: usize, height: usize) -> Drawn {
    let mut lines = head(view, width, height);
    let table = Table::new(view, width);
    lines.push(Line::default());
    let header = lines.len();
    let (rows, selected) = table.rows();
    let total = rows.iter().filter(|(_, row)| row.is_some()).count();
    let chart = if view.chart { table.chart(selected, width) } else { Vec::new() };
    let mut room = height.saturating_sub(header + 1);
    if room > chart.len() + 2 {
        room -= chart.len();
    }
    let mut scroll = view.scroll.min(rows.len().saturating_sub(room));
    if let Some(cursor) = view.cursor
        && let Some(line) = rows.iter().position(|(_, row)| *row == Some(cursor))
    {
        scroll = scroll.clamp((line + 1).saturating_sub(room.max(1)), line);
    }
    // What is out of sight is there all the same.
    let part = (rows.len() > room).then(|| (scroll + 1, scroll + room, rows.len()));
    lines.push(table.header(part));
    lines.extend(rows.into_iter().map(|(line, _)| line).skip(scroll).take(room));
    lines.extend(chart);
    lines.truncate(height);
    lines.iter_mut().for_each(|line| clip(line, width));
    Drawn { lines, rows: total, scroll }
}
