//! The live screen of one process, as styled lines: nothing here touches a terminal.
//!
//! The layout is that of dotnet-counters, but that a row is a row whatever a tag's value holds, and a late value says
//! how old it is.

use std::time::{Duration, Instant};

use dnd_contract::escape;
use unicode_width::UnicodeWidthStr;

use super::chart::chart;
use super::layout::{clip, cut_front, pad, shrink};
use super::lines::{label, notice, percentile};
use super::number::aligned;
use crate::board::{Board, Row};
use crate::sample::{Notice, Series, SeriesKind, Value};
use crate::selection::other_names;

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

const VALUE_WIDTH: usize = 15;
/// From this width on, there is room for a name beside two columns of large numbers.
const WIDE: usize = 72;
const INDENT: usize = 4;
const TAG_INDENT: usize = 8;
const TAG_WIDTH: usize = 5;
/// Lines of a chart, if there is room for a table beside it.
const CHART: usize = 8;

/// Draws the screen in at most `height` lines of at most `width` columns.
#[must_use]
pub fn render(view: &View<'_>, width: usize, height: usize) -> Drawn {
    let mut lines = head(view);
    let table = Table::new(view, width);
    lines.push(Line::default());
    lines.push(table.header());
    let (rows, selected) = table.rows();
    let total = rows.iter().filter(|(_, row)| row.is_some()).count();
    let chart = if view.chart { table.chart(selected, width) } else { Vec::new() };
    let mut room = height.saturating_sub(lines.len());
    if room > chart.len() + 2 {
        room -= chart.len();
    }
    let mut scroll = view.scroll.min(rows.len().saturating_sub(room));
    if let Some(cursor) = view.cursor
        && let Some(line) = rows.iter().position(|(_, row)| *row == Some(cursor))
    {
        scroll = scroll.clamp((line + 1).saturating_sub(room), line);
    }
    lines.extend(rows.into_iter().map(|(line, _)| line).skip(scroll).take(room));
    lines.extend(chart);
    lines.truncate(height);
    lines.iter_mut().for_each(|line| clip(line, width));
    Drawn { lines, rows: total, scroll }
}

fn head(view: &View<'_>) -> Vec<Line> {
    let mut keys = Line::new(Style::Plain, "Press p to pause, r to resume, q to quit.");
    keys.push(Style::Dim, "  / search  s sort  c chart  d deltas");
    let late = view.board.late(view.now).filter(|_| !matches!(view.status, Status::Ended | Status::Lost));
    let mut status = Line::new(Style::Plain, "    Status: ");
    match (view.status, late) {
        (Status::Waiting, None) => status.push(Style::Plain, "Waiting for initial payload..."),
        (Status::Waiting, Some(age)) => {
            status.push(Style::Warning, format!("Waiting for initial payload, {} so far", seconds(age)));
        }
        (Status::Running, None) => status.push(Style::Plain, "Running"),
        (Status::Running, Some(age)) => status.push(
            Style::Warning,
            format!(
                "No sample for {}: the process is stopped, busy collecting garbage, or starved",
                seconds(age)
            ),
        ),
        (Status::Paused, _) => status.push(Style::Bold, "Paused"),
        (Status::Ended, _) => status.push(Style::Warning, "The process has ended; these are its last values"),
        (Status::Lost, _) => {
            status.push(Style::Warning, "Not watched any more; these are the last values");
        }
    }
    status.push(Style::Dim, format!(" - {}", escape(view.target)));
    let mut lines = vec![keys, status];
    lines.extend(alerts(view.alerts));
    for said in view.board.notices() {
        lines.push(Line::new(Style::Warning, format!("Warning: {}.", notice(said))));
    }
    if view.board.dropped() > 0 {
        let lost = notice(&Notice::Dropped { events: view.board.dropped() });
        lines.push(Line::new(Style::Warning, format!("Warning: {lost}.")));
    }
    if view.typing || !view.search.is_empty() {
        let cursor = if view.typing { "_" } else { "" };
        lines.push(Line::new(Style::Bold, format!("    Search: {}{cursor}", escape(view.search))));
    }
    match view.sort {
        Sort::Name => {}
        Sort::Value => lines.push(Line::new(Style::Plain, "    Sorted by value")),
        Sort::Change => lines.push(Line::new(Style::Plain, "    Sorted by change")),
    }
    lines
}

/// Each alert in a line: what its action printed comes when the screen is left.
pub(super) fn alerts(alerts: &[String]) -> impl Iterator<Item = Line> {
    alerts.iter().map(|text| Line::new(Style::Warning, text.lines().next().unwrap_or_default()))
}

fn seconds(age: Duration) -> String {
    format!("{} s", age.as_secs())
}

/// One number of a table, with what it is labelled by.
struct Cell<'a> {
    row: &'a Row,
    tags: Vec<(&'a str, String)>,
    value: Option<f64>,
    delta: Option<f64>,
    late: Option<Duration>,
}

/// Lines of a table; those with values have their number among these.
type Lines = Vec<(Line, Option<usize>)>;

struct Table<'a> {
    view: &'a View<'a>,
    rows: Vec<&'a Row>,
    name_width: usize,
    value_width: usize,
    /// Whether large numbers are written with all their digits.
    whole: bool,
}

impl<'a> Table<'a> {
    fn new(view: &'a View<'a>, width: usize) -> Self {
        let rows: Vec<&Row> =
            view.board.rows().filter(|row| found(&row.sample.series, view.search)).collect();
        let values = rows.iter().flat_map(|row| cells(row)).flat_map(|cell| [cell.value, cell.delta]);
        let whole = !view.abbreviate.unwrap_or(width < WIDE);
        let widths = values.flatten().map(|value| aligned(value, whole).width());
        let value_width = widths.fold(VALUE_WIDTH, usize::max);
        let columns = if view.deltas { 2 } else { 1 };
        let name_width = width.saturating_sub(columns * (value_width + 1));
        Self { view, rows, name_width, value_width, whole }
    }

    fn header(&self) -> Line {
        let mut text = pad("Name", self.name_width);
        for heading in ["Current Value", "Last Delta"].iter().take(if self.view.deltas { 2 } else { 1 }) {
            text.push_str(&format!(" {heading:>width$}", width = self.value_width));
        }
        Line::new(Style::Bold, text)
    }

    /// The lines, and the row with the cursor.
    fn rows(&self) -> (Lines, Option<&'a Row>) {
        let mut out = Out { lines: Vec::new(), cursor: self.view.cursor, count: 0, selected: None };
        if self.view.sort == Sort::Name {
            let mut provider = None;
            for group in self.rows.chunk_by(|a, b| same_instrument(&a.sample.series, &b.sample.series)) {
                let Some(first) = group.first() else { continue };
                let series = &*first.sample.series;
                if provider != Some(&series.provider) {
                    provider = Some(&series.provider);
                    out.heading(Style::Bold, format!("[{}]", escape(&series.provider)));
                }
                self.instrument(&label(series, first.sample.interval), group, &mut out);
            }
        } else {
            self.sorted(&mut out);
        }
        (out.lines, out.selected)
    }

    /// One line for each number, whatever it belongs to.
    fn sorted(&self, out: &mut Out<'a>) {
        let mut cells: Vec<Cell<'a>> = self.rows.iter().flat_map(|row| self.late_cells(row)).collect();
        let weight = |cell: &Cell<'_>| match self.view.sort {
            Sort::Change => cell.delta.map_or(f64::NEG_INFINITY, f64::abs),
            _ => cell.value.unwrap_or(f64::NEG_INFINITY),
        };
        cells.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
        for cell in &cells {
            let series = &*cell.row.sample.series;
            let mut name = format!("{:INDENT$}{}", "", label(series, cell.row.sample.interval));
            let tags: Vec<String> =
                cell.tags.iter().map(|(key, value)| format!("{}={value}", escape(key))).collect();
            if !tags.is_empty() {
                name.push_str(&format!(" [{}]", tags.join(",")));
            }
            out.value(self, &name, cell);
        }
    }

    /// The rows of one instrument: a single one without tags beside its name, others in a table for each set of keys.
    fn instrument(&self, name: &str, rows: &[&'a Row], out: &mut Out<'a>) {
        let cells: Vec<Cell<'a>> = rows.iter().flat_map(|row| self.late_cells(row)).collect();
        let (plain, tagged): (Vec<_>, Vec<_>) = cells.into_iter().partition(|cell| cell.tags.is_empty());
        let indented = format!("{:INDENT$}{name}", "");
        if plain.is_empty() {
            out.heading(Style::Plain, indented.clone());
        }
        for cell in &plain {
            out.value(self, &indented, cell);
        }
        let mut groups: Vec<(Vec<&str>, Vec<Cell<'a>>)> = Vec::new();
        for cell in tagged {
            let keys: Vec<&str> = cell.tags.iter().map(|(key, _)| *key).collect();
            match groups.iter_mut().find(|(k, _)| *k == keys) {
                Some((_, cells)) => cells.push(cell),
                None => groups.push((keys, vec![cell])),
            }
        }
        for (keys, cells) in groups {
            self.tag_table(&keys, &cells, out);
        }
    }

    fn late_cells(&self, row: &'a Row) -> Vec<Cell<'a>> {
        let mut cells = cells(row);
        let ended = self.view.status == Status::Ended;
        // When nothing comes at all, the status line says so; a row is marked when it alone is late.
        if !ended && self.view.board.late(self.view.now).is_none() {
            let late = row.late(self.view.now);
            cells.iter_mut().for_each(|cell| cell.late = late);
        }
        cells
    }

    fn tag_table(&self, keys: &[&str], cells: &[Cell<'a>], out: &mut Out<'a>) {
        let heads: Vec<_> = keys.iter().map(|key| escape(key)).collect();
        let mut widths: Vec<usize> = heads.iter().map(|head| head.width().max(TAG_WIDTH)).collect();
        for cell in cells {
            for (width, (_, value)) in widths.iter_mut().zip(&cell.tags) {
                *width = (*width).max(value.width());
            }
        }
        shrink(&mut widths, self.name_width.saturating_sub(TAG_INDENT), TAG_WIDTH);
        let row = |texts: &mut dyn Iterator<Item = String>| {
            let columns: Vec<String> = texts.zip(&widths).map(|(text, &width)| pad(&text, width)).collect();
            format!("{:TAG_INDENT$}{}", "", columns.join(" "))
        };
        let heading = row(&mut heads.iter().zip(&widths).map(|(head, &width)| cut_front(head, width)));
        out.heading(Style::Dim, heading.trim_end().to_owned());
        out.heading(Style::Dim, row(&mut widths.iter().map(|&width| "-".repeat(width))));
        for cell in cells {
            out.value(self, &row(&mut cell.tags.iter().map(|(_, value)| value.clone())), cell);
        }
    }

    /// A name with its numbers.
    fn row(&self, name: &str, cell: &Cell<'_>, cursor: bool) -> Line {
        let mut line = Line::default();
        let mut style = if cursor { Style::Bold } else { Style::Plain };
        let name = match name.strip_prefix(' ').filter(|_| cursor) {
            Some(rest) => format!(">{rest}"),
            None => name.to_owned(),
        };
        match cell.late {
            None => line.push(style, pad(&name, self.name_width)),
            Some(age) => {
                style = Style::Dim;
                let note = format!(" ({} old)", seconds(age));
                line.push(style, pad(&name, self.name_width.saturating_sub(note.width())));
                line.push(Style::Warning, note);
            }
        }
        let text = |value: Option<f64>, missing: &str| {
            value.map_or(format!("{missing}    "), |value| aligned(value, self.whole))
        };
        line.push(style, format!(" {:>width$}", text(cell.value, "-"), width = self.value_width));
        if self.view.deltas {
            line.push(style, format!(" {:>width$}", text(cell.delta, ""), width = self.value_width));
        }
        line
    }

    fn chart(&self, selected: Option<&Row>, width: usize) -> Vec<Line> {
        let Some(row) = selected else { return Vec::new() };
        let series = &*row.sample.series;
        let mut title = label(series, row.sample.interval);
        if !series.tags.is_empty() {
            title.push_str(&format!(" [{}]", escape(series.tags.text())));
        }
        match series.kind {
            SeriesKind::Counter => title.push_str(", change"),
            SeriesKind::Histogram => title.push_str(", median"),
            _ => {}
        }
        let values: Vec<f64> = row.history.iter().map(|&(_, value)| value).collect();
        let mut lines = chart(&title, &values, self.whole, width, CHART);
        lines.insert(0, Line::default());
        lines
    }
}

/// A table being put together.
struct Out<'a> {
    lines: Lines,
    cursor: Option<usize>,
    count: usize,
    selected: Option<&'a Row>,
}

impl<'a> Out<'a> {
    fn heading(&mut self, style: Style, text: String) {
        self.lines.push((Line::new(style, text), None));
    }

    fn value(&mut self, table: &Table<'a>, name: &str, cell: &Cell<'a>) {
        let cursor = self.cursor == Some(self.count);
        if cursor {
            self.selected = Some(cell.row);
        }
        self.lines.push((table.row(name, cell, cursor), Some(self.count)));
        self.count += 1;
    }
}

fn same_instrument(a: &Series, b: &Series) -> bool {
    (&a.provider, &a.display_name, &a.name, a.source, a.instrument_id)
        == (&b.provider, &b.display_name, &b.name, b.source, b.instrument_id)
}

/// Whether a search finds a series: by a part of any of its names or tags.
fn found(series: &Series, search: &str) -> bool {
    let search = search.to_lowercase();
    let names = [series.provider.as_str(), &series.name, &series.display_name, series.tags.text()];
    let contains = |name: &str| name.to_lowercase().contains(&search);
    search.is_empty() || names.into_iter().any(contains) || other_names(&series.name).any(contains)
}

/// The numbers of a row: one, or one for each quantile.
fn cells(row: &Row) -> Vec<Cell<'_>> {
    let tags = || -> Vec<(&str, String)> {
        let pairs = row.sample.series.tags.pairs().iter();
        pairs.map(|(key, value)| (key.as_str(), escape(value).into_owned())).collect()
    };
    match &row.sample.value {
        Value::Histogram { quantiles, .. } if !quantiles.is_empty() => {
            let before = match &row.previous {
                Some(Value::Histogram { quantiles, .. }) => quantiles.as_slice(),
                _ => &[],
            };
            let cell = |&(quantile, value): &(f64, f64)| {
                let mut tags = tags();
                tags.push(("Percentile", percentile(quantile)));
                let delta = before.iter().find(|(q, _)| *q == quantile).map(|&(_, before)| value - before);
                Cell { row, tags, value: Some(value), delta, late: None }
            };
            quantiles.iter().map(cell).collect()
        }
        value => vec![Cell { row, tags: tags(), value: value.headline(), delta: row.delta(), late: None }],
    }
}
