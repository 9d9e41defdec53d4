//! The table of a screen: one row for each number, with its name, its tags and its past.

use std::time::Duration;

use dnd_contract::escape;
use unicode_width::UnicodeWidthStr;

use super::chart::{chart, trend};
use super::head::seconds;
use super::layout::{cut_front, pad, pad_middle, shrink};
use super::lines::{label, percentile};
use super::number::aligned;
use super::screen::{Line, Sort, Status, Style, View};
use crate::board::Row;
use crate::sample::{Series, SeriesKind, Value};
use crate::selection::other_names;
use crate::tags::Tags;

const VALUE_WIDTH: usize = 15;
/// From this width on, there is room for a name beside two columns of large numbers.
const WIDE: usize = 72;
const INDENT: usize = 4;
const TAG_INDENT: usize = 8;
const TAG_WIDTH: usize = 5;
/// Lines of a chart, if there is room for a table beside it.
const CHART: usize = 8;

/// Names get so many columns before anything else does, and more only if they need them.
const NAME_WIDTH: usize = 72;
/// Room for ` (123 s old)`.
const AGE_WIDTH: usize = 12;
/// Columns of a trend: below the least there is none.
const LEAST_TREND: usize = 12;
const MOST_TREND: usize = 60;

/// One number of a table, with what it is labelled by.
struct Cell<'a> {
    row: &'a Row,
    tags: Vec<(&'a str, String)>,
    value: Option<f64>,
    delta: Option<f64>,
    late: Option<Duration>,
    /// Whether the row's history is that of this number.
    trend: bool,
}

/// Lines of a table; those with values have their number among these.
type Lines = Vec<(Line, Option<usize>)>;

pub(super) struct Table<'a> {
    view: &'a View<'a>,
    rows: Vec<&'a Row>,
    name_width: usize,
    value_width: usize,
    /// Columns for the recent past of each row, on a wide screen.
    trend_width: usize,
    /// Whether large numbers are written with all their digits.
    whole: bool,
}

impl<'a> Table<'a> {
    pub(super) fn new(view: &'a View<'a>, width: usize) -> Self {
        let rows: Vec<&Row> =
            view.board.rows().filter(|row| found(&row.sample.series, view.search)).collect();
        let values = rows.iter().flat_map(|row| cells(row)).flat_map(|cell| [cell.value, cell.delta]);
        let whole = !view.abbreviate.unwrap_or(width < WIDE);
        let widths = values.flatten().map(|value| aligned(value, whole).width());
        let value_width = widths.fold(VALUE_WIDTH, usize::max);
        let columns = if view.deltas { 2 } else { 1 };
        let name_width = width.saturating_sub(columns * (value_width + 1));
        let mut table = Self { view, rows, name_width, value_width, trend_width: 0, whole };
        if name_width > NAME_WIDTH {
            // Numbers far away from their names are hard to read: the room is for their past.
            let (lines, _) = table.rows();
            let names: Vec<&str> =
                lines.iter().filter_map(|(line, _)| Some(line.spans.first()?.text.trim_end())).collect();
            // What doesn't fit is cut anyway: it shall not take all the room from the others' past.
            let (cut, whole): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| name.contains('…'));
            let least =
                if cut.is_empty() { 0 } else { name_width.saturating_sub(AGE_WIDTH + MOST_TREND + 2) };
            let used = whole.iter().map(|name| name.width()).fold(least, usize::max);
            table.name_width = (used + AGE_WIDTH).clamp(NAME_WIDTH, name_width);
            let left = name_width - table.name_width;
            table.trend_width = if left > LEAST_TREND { (left - 2).min(MOST_TREND) } else { 0 };
        }
        table
    }

    /// The headings; `part` is which lines are in sight, if not all.
    pub(super) fn header(&self, part: Option<(usize, usize, usize)>) -> Line {
        let name = match part {
            Some((first, last, all)) => format!("Name  (lines {first}-{last} of {all})"),
            None => "Name".to_owned(),
        };
        let mut text = pad(&name, self.name_width);
        for heading in ["Current Value", "Last Delta"].iter().take(if self.view.deltas { 2 } else { 1 }) {
            text.push_str(&format!(" {heading:>width$}", width = self.value_width));
        }
        if self.trend_width > 0 {
            text.push_str("  Trend");
        }
        Line::new(Style::Bold, text)
    }

    /// The lines, and the row with the cursor.
    pub(super) fn rows(&self) -> (Lines, Option<&'a Row>) {
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
            None => line.push(style, pad_middle(&name, self.name_width)),
            Some(age) => {
                style = Style::Dim;
                let note = format!(" ({} old)", seconds(age));
                line.push(style, pad_middle(&name, self.name_width.saturating_sub(note.width())));
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
        if self.trend_width > 0 && cell.trend {
            let values: Vec<f64> = cell.row.history.iter().map(|&(_, value)| value).collect();
            line.push(Style::Dim, format!("  {}", trend(&values, self.trend_width)));
        }
        line
    }

    pub(super) fn chart(&self, selected: Option<&Row>, width: usize) -> Vec<Line> {
        let Some(row) = selected else { return Vec::new() };
        let series = &*row.sample.series;
        let mut title = label(series, row.sample.interval);
        let tags: Vec<_> =
            series.all_tags().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
        if !tags.is_empty() {
            title.push_str(&format!(" [{}]", tags.join(",")));
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
    let tags = [&series.meter_tags, &series.instrument_tags, &series.tags].map(Tags::text);
    let names = [series.provider.as_str(), &series.name, &series.display_name].into_iter().chain(tags);
    let contains = |name: &str| name.to_lowercase().contains(&search);
    search.is_empty() || names.into_iter().any(contains) || other_names(&series.name).any(contains)
}

/// The numbers of a row: one, or one for each quantile.
fn cells(row: &Row) -> Vec<Cell<'_>> {
    let tags = || -> Vec<(&str, String)> {
        row.sample.series.all_tags().map(|(key, value)| (key, escape(value).into_owned())).collect()
    };
    match &row.sample.value {
        Value::Histogram { quantiles, .. } => {
            let before = match &row.previous {
                Some(Value::Histogram { quantiles, .. }) => quantiles.as_slice(),
                _ => &[],
            };
            let find = |all: &[(f64, f64)], quantile| {
                all.iter().find(|(q, _)| *q == quantile).map(|&(_, value)| value)
            };
            let cell = |quantile: f64| {
                let mut tags = tags();
                tags.push(("Percentile", percentile(quantile)));
                let value = find(quantiles, quantile);
                let delta = value.and_then(|value| Some(value - find(before, quantile)?));
                Cell { row, tags, value, delta, late: None, trend: false }
            };
            // An interval without measurements has none; its rows stay where they are.
            let mut cells: Vec<_> = match quantiles.as_slice() {
                [] => [0.5, 0.95, 0.99].map(cell).into(),
                some => some.iter().map(|&(quantile, _)| cell(quantile)).collect(),
            };
            // The history is of the lowest quantile.
            cells.iter_mut().take(1).for_each(|cell| cell.trend = true);
            cells
        }
        value => {
            let (value, delta) = (value.headline(), row.delta());
            vec![Cell { row, tags: tags(), value, delta, late: None, trend: true }]
        }
    }
}
