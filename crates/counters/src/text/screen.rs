//! The live screen, as styled lines: nothing here touches a terminal.
//!
//! The layout is that of dotnet-counters, but that a row is a row whatever a tag's value holds, and a late value says
//! how old it is.

use std::time::{Duration, Instant};

use dnd_contract::escape;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::lines::{label, notice, percentile};
use super::number::aligned;
use crate::board::{Board, Row};
use crate::sample::{Series, Value};

/// How a piece of text looks. Nothing depends on it: the text says all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// As it is.
    #[default]
    Plain,
    /// Headings.
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
    fn new(style: Style, text: impl Into<String>) -> Self {
        Self { spans: vec![Span { text: text.into(), style }] }
    }

    fn push(&mut self, style: Style, text: impl Into<String>) {
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
    /// Whether to show how values changed.
    pub deltas: bool,
    /// How many rows of the table are scrolled out at its top.
    pub scroll: usize,
    /// The time, for ages.
    pub now: Instant,
}

const VALUE_WIDTH: usize = 15;
const INDENT: usize = 4;
const TAG_INDENT: usize = 8;
const TAG_WIDTH: usize = 5;

/// The screen's lines, at most `height` of at most `width` columns, and how many rows the whole table has.
#[must_use]
pub fn render(view: &View<'_>, width: usize, height: usize) -> (Vec<Line>, usize) {
    let mut lines = head(view);
    let table = Table::new(view, width);
    lines.push(Line::default());
    lines.push(table.header());
    let rows = table.rows();
    let total = rows.len();
    let room = height.saturating_sub(lines.len());
    let scroll = view.scroll.min(total.saturating_sub(room));
    lines.extend(rows.into_iter().skip(scroll).take(room));
    lines.truncate(height);
    for line in &mut lines {
        clip(line, width);
    }
    (lines, total)
}

fn head(view: &View<'_>) -> Vec<Line> {
    let mut keys = Line::new(Style::Plain, "Press p to pause, r to resume, q to quit.");
    keys.push(Style::Dim, format!("  {}", escape(view.target)));
    let late = view.board.late(view.now).filter(|_| view.status != Status::Ended);
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
    }
    let mut lines = vec![keys, status];
    for said in view.board.notices() {
        lines.push(Line::new(Style::Warning, format!("Warning: {}.", notice(said))));
    }
    if view.board.dropped() > 0 {
        let lost = notice(&crate::sample::Notice::Dropped { events: view.board.dropped() });
        lines.push(Line::new(Style::Warning, format!("Warning: {lost}.")));
    }
    lines
}

fn seconds(age: Duration) -> String {
    format!("{} s", age.as_secs())
}

/// One number of a table, with what it is labelled by.
struct Cell<'a> {
    tags: Vec<(&'a str, String)>,
    value: Option<f64>,
    delta: Option<f64>,
    late: Option<Duration>,
}

struct Table<'a> {
    view: &'a View<'a>,
    name_width: usize,
    value_width: usize,
}

impl<'a> Table<'a> {
    fn new(view: &'a View<'a>, width: usize) -> Self {
        let values = view.board.rows().flat_map(cells).flat_map(|cell| [cell.value, cell.delta]);
        let value_width = values.flatten().map(|value| aligned(value).width()).fold(VALUE_WIDTH, usize::max);
        let columns = if view.deltas { 2 } else { 1 };
        Self { view, name_width: width.saturating_sub(columns * (value_width + 1)), value_width }
    }

    fn header(&self) -> Line {
        let mut text = pad("Name", self.name_width);
        for heading in ["Current Value", "Last Delta"].iter().take(if self.view.deltas { 2 } else { 1 }) {
            text.push_str(&format!(" {heading:>width$}", width = self.value_width));
        }
        Line::new(Style::Bold, text)
    }

    fn rows(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut provider = None;
        let rows: Vec<&Row> = self.view.board.rows().collect();
        for group in rows.chunk_by(|a, b| same_instrument(&a.sample.series, &b.sample.series)) {
            let Some(first) = group.first() else { continue };
            let series = &*first.sample.series;
            if provider != Some(&series.provider) {
                provider = Some(&series.provider);
                lines.push(Line::new(Style::Bold, format!("[{}]", escape(&series.provider))));
            }
            self.instrument(&label(series, first.sample.interval), group, &mut lines);
        }
        lines
    }

    /// The rows of one instrument: a single one without tags beside its name, others in a table for each set of keys.
    fn instrument(&self, name: &str, rows: &[&Row], lines: &mut Vec<Line>) {
        let cells: Vec<Cell<'_>> = rows.iter().flat_map(|row| self.late_cells(row)).collect();
        let (plain, tagged): (Vec<_>, Vec<_>) = cells.into_iter().partition(|cell| cell.tags.is_empty());
        let indented = format!("{:INDENT$}{name}", "");
        if plain.is_empty() {
            lines.push(Line::new(Style::Plain, indented.clone()));
        }
        lines.extend(plain.iter().map(|cell| self.row(&indented, cell)));
        let mut groups: Vec<(Vec<&str>, Vec<Cell<'_>>)> = Vec::new();
        for cell in tagged {
            let keys: Vec<&str> = cell.tags.iter().map(|(key, _)| *key).collect();
            match groups.iter_mut().find(|(k, _)| *k == keys) {
                Some((_, cells)) => cells.push(cell),
                None => groups.push((keys, vec![cell])),
            }
        }
        for (keys, cells) in groups {
            self.tag_table(&keys, &cells, lines);
        }
    }

    fn late_cells<'r>(&self, row: &'r Row) -> Vec<Cell<'r>> {
        let mut cells = cells(row);
        let ended = self.view.status == Status::Ended;
        // When nothing comes at all, the status line says so; a row is marked when it alone is late.
        if !ended && self.view.board.late(self.view.now).is_none() {
            let late = row.late(self.view.now);
            cells.iter_mut().for_each(|cell| cell.late = late);
        }
        cells
    }

    fn tag_table(&self, keys: &[&str], cells: &[Cell<'_>], lines: &mut Vec<Line>) {
        let heads: Vec<_> = keys.iter().map(|key| escape(key)).collect();
        let mut widths: Vec<usize> = heads.iter().map(|head| head.width().max(TAG_WIDTH)).collect();
        for cell in cells {
            for (width, (_, value)) in widths.iter_mut().zip(&cell.tags) {
                *width = (*width).max(value.width());
            }
        }
        shrink(&mut widths, self.name_width.saturating_sub(TAG_INDENT));
        let row = |texts: &mut dyn Iterator<Item = String>| {
            let columns: Vec<String> = texts.zip(&widths).map(|(text, &width)| pad(&text, width)).collect();
            format!("{:TAG_INDENT$}{}", "", columns.join(" "))
        };
        let heading = row(&mut heads.iter().zip(&widths).map(|(head, &width)| cut_front(head, width)));
        lines.push(Line::new(Style::Dim, heading.trim_end()));
        lines.push(Line::new(Style::Dim, row(&mut widths.iter().map(|&width| "-".repeat(width)))));
        for cell in cells {
            lines.push(self.row(&row(&mut cell.tags.iter().map(|(_, value)| value.clone())), cell));
        }
    }

    /// A name with its numbers.
    fn row(&self, name: &str, cell: &Cell<'_>) -> Line {
        let mut line = Line::default();
        let mut style = Style::Plain;
        match cell.late {
            None => line.push(style, pad(name, self.name_width)),
            Some(age) => {
                style = Style::Dim;
                let note = format!(" ({} old)", seconds(age));
                line.push(style, pad(name, self.name_width.saturating_sub(note.width())));
                line.push(Style::Warning, note);
            }
        }
        let text = |value: Option<f64>, missing: &str| value.map_or(format!("{missing}    "), aligned);
        line.push(style, format!(" {:>width$}", text(cell.value, "-"), width = self.value_width));
        if self.view.deltas {
            line.push(style, format!(" {:>width$}", text(cell.delta, ""), width = self.value_width));
        }
        line
    }
}

fn same_instrument(a: &Series, b: &Series) -> bool {
    (&a.provider, &a.display_name, &a.name, a.source, a.instrument_id)
        == (&b.provider, &b.display_name, &b.name, b.source, b.instrument_id)
}

/// The numbers of a row: one, or one for each quantile.
fn cells(row: &Row) -> Vec<Cell<'_>> {
    let tags = || -> Vec<(&str, String)> {
        let pairs = row.sample.series.tags.pairs().iter();
        pairs.map(|(key, value)| (key.as_str(), escape(value).into_owned())).collect()
    };
    let difference = |now: Option<f64>, before: Option<f64>| Some(now? - before?);
    match &row.sample.value {
        Value::Histogram { quantiles, .. } if !quantiles.is_empty() => {
            let before = match &row.previous {
                Some(Value::Histogram { quantiles, .. }) => quantiles.as_slice(),
                _ => &[],
            };
            let cell = |&(quantile, value): &(f64, f64)| {
                let mut tags = tags();
                tags.push(("Percentile", percentile(quantile)));
                let before = before.iter().find(|(q, _)| *q == quantile).map(|&(_, value)| value);
                Cell { tags, value: Some(value), delta: difference(Some(value), before), late: None }
            };
            quantiles.iter().map(cell).collect()
        }
        value => {
            let before = row.previous.as_ref().and_then(Value::headline);
            let value = value.headline();
            vec![Cell { tags: tags(), value, delta: difference(value, before), late: None }]
        }
    }
}

/// Takes from the widest column until all fit.
fn shrink(widths: &mut [usize], room: usize) {
    loop {
        let total: usize = widths.iter().sum::<usize>() + widths.len().saturating_sub(1);
        let Some(widest) = widths.iter_mut().max() else { return };
        if total <= room || *widest <= TAG_WIDTH {
            return;
        }
        *widest -= 1;
    }
}

/// `text` in exactly `width` columns: cut at its end, or padded.
fn pad(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(width);
    let mut used = 0;
    let whole = text.width() <= width;
    let room = if whole { width } else { width.saturating_sub(1) };
    for c in text.chars() {
        let columns = c.width().unwrap_or(0);
        if used + columns > room {
            break;
        }
        used += columns;
        out.push(c);
    }
    if !whole && width > 0 {
        out.push('…');
        used += 1;
    }
    out.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
    out
}

/// `text` in at most `width` columns, cut at its front: the end of a key says more.
fn cut_front(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let tail = text.char_indices().rev().take_while(|(_, c)| {
        used += c.width().unwrap_or(0);
        used <= width
    });
    let start = tail.last().map_or(text.len(), |(index, _)| index);
    format!("…{}", text.get(start..).unwrap_or_default())
}

/// Cuts what goes beyond the screen.
fn clip(line: &mut Line, width: usize) {
    let mut left = width;
    for span in &mut line.spans {
        let columns = span.text.width();
        if columns > left {
            span.text = pad(&span.text, left);
        }
        left -= span.text.width().min(left);
    }
}
