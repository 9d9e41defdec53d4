//! Many processes as rows.

use std::time::Instant;

use dnd_contract::escape;

use super::layout::{clip, pad};
use super::number::number;
use super::screen::{Line, Style};
use crate::board::Board;
use crate::selection::SYSTEM_RUNTIME;

/// One process of a list.
#[derive(Debug, Clone, Copy)]
pub struct Process<'a> {
    /// Its id.
    pub pid: u32,
    /// Its name, and what else tells it apart.
    pub name: &'a str,
    /// What became of it, if it is not just watched.
    pub state: &'a str,
    /// Its values.
    pub board: &'a Board,
}

const COLUMNS: [(&str, usize); 6] =
    [("CPU %", 7), ("RSS MB", 9), ("Heap MB", 9), ("GC %", 6), ("Threads", 8), ("Limit %", 8)];

/// The list as lines of at most `width` columns; the row at `selected` is marked.
#[must_use]
pub fn processes(
    list: &[Process<'_>],
    selected: usize,
    alerts: &[String],
    now: Instant,
    width: usize,
    height: usize,
) -> Vec<Line> {
    let mut lines = vec![Line::new(Style::Plain, "Press q to quit, Enter for the counters of a process.")];
    lines.push(Line::new(Style::Plain, format!("    {} processes", list.len())));
    lines.extend(super::screen::alerts(alerts));
    lines.push(Line::default());
    let numbers: usize = COLUMNS.iter().map(|(_, width)| width + 1).sum();
    let state_width = 14;
    let name_width = width.saturating_sub(numbers + state_width + 11);
    let mut header = format!("  {:>7} {}", "PID", pad("Name", name_width));
    for (name, width) in COLUMNS {
        header.push_str(&format!(" {name:>width$}"));
    }
    lines.push(Line::new(Style::Bold, header + " State"));
    let room = height.saturating_sub(lines.len());
    let first = selected.saturating_sub(room.saturating_sub(1));
    for (index, process) in list.iter().enumerate().skip(first).take(room) {
        let mark = if index == selected { '>' } else { ' ' };
        let mut text = format!("{mark} {:>7} {}", process.pid, pad(&escape(process.name), name_width));
        for (value, (_, width)) in values(process.board).into_iter().zip(COLUMNS) {
            let value = value.map_or_else(|| "-".to_owned(), |value| number((value * 10.0).round() / 10.0));
            text.push_str(&format!(" {value:>width$}"));
        }
        let style = if index == selected { Style::Bold } else { Style::Plain };
        let mut line = Line::new(style, text);
        match process.board.late(now).filter(|_| process.state.is_empty()) {
            Some(age) => line.push(Style::Warning, format!(" late {} s", age.as_secs())),
            None => line.push(Style::Dim, format!(" {}", escape(process.state))),
        }
        lines.push(line);
    }
    lines.truncate(height);
    lines.iter_mut().for_each(|line| clip(line, width));
    lines
}

/// The numbers of [`COLUMNS`], from whatever source this runtime has.
fn values(board: &Board) -> [Option<f64>; 6] {
    let value = |provider: &str, name: &str| board.find(provider, name)?.sample.value.headline();
    let megabytes = |bytes: f64| bytes / 1e6;
    // The Meter has the time in collections since the start, the EventCounter the share of the last interval.
    let pause = board.find(SYSTEM_RUNTIME, "dotnet.gc.pause.time");
    let share = pause.and_then(|row| Some(row.delta()? / row.sample.interval * 100.0));
    [
        value("OS", "cpu"),
        value("OS", "rss").map(megabytes),
        value(SYSTEM_RUNTIME, "gc-heap-size"),
        share.or_else(|| value(SYSTEM_RUNTIME, "time-in-gc")),
        value("OS", "threads"),
        value("cgroup", "memory-used"),
    ]
}
