//! Many processes as rows.

use std::time::Instant;

use dnd_contract::escape;

use unicode_width::UnicodeWidthStr;

use super::head::{first_lines, hints, told};
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

const KEYS: &str = "Press q to quit, Enter for the counters of a process.";
const SHORT_KEYS: [&str; 3] = ["q quit", "Enter counters", "arrows choose"];

/// The numbers of a process, with the width of each and how early it gives way on a narrow screen.
const COLUMNS: [(&str, usize, u8); 6] = [
    ("CPU %", 7, 0),
    ("RSS MB", 9, 1),
    ("Heap MB", 9, 2),
    ("GC %", 6, 3),
    ("Threads", 8, 5),
    ("Limit %", 8, 4),
];
/// The mark, the id and the gaps beside it.
const PID_WIDTH: usize = 10;
/// Columns for names at least, and at most: numbers far away from their names are hard to read.
const NAME_WIDTH: usize = 12;
const MOST_NAME_WIDTH: usize = 60;
const STATE: &str = "State";
/// Columns kept free for states; longer ones are cut.
const STATE_WIDTH: usize = 12;

/// Places and widths of the columns that fit into `room`, the most important ones.
fn fitting(room: usize) -> Vec<(usize, usize)> {
    let mut shown: Vec<(usize, &(&str, usize, u8))> = COLUMNS.iter().enumerate().collect();
    while shown.iter().map(|(_, (_, width, _))| width + 1).sum::<usize>() > room {
        let Some(least) = shown.iter().map(|(_, (_, _, rank))| *rank).max() else { break };
        shown.retain(|(_, (_, _, rank))| *rank != least);
    }
    shown.into_iter().map(|(place, (_, width, _))| (place, *width)).collect()
}

/// What there is to say of a process.
fn state(process: &Process<'_>, now: Instant) -> (Style, String) {
    match process.board.late(now).filter(|_| process.state.is_empty()) {
        Some(age) => (Style::Warning, format!("late {} s", age.as_secs())),
        None => (Style::Dim, escape(process.state).into_owned()),
    }
}

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
    let keys = if width >= KEYS.len() { KEYS.to_owned() } else { hints(&SHORT_KEYS, width) };
    let mut lines = vec![Line::new(Style::Plain, keys)];
    lines.push(Line::new(Style::Plain, format!("    {} processes", list.len())));
    lines.extend(told(&first_lines(alerts), width, height));
    lines.push(Line::default());
    let states: Vec<(Style, String)> = list.iter().map(|process| state(process, now)).collect();
    let state_width = states.iter().map(|(_, text)| text.width()).max().unwrap_or(0).min(STATE_WIDTH);
    let state_width = if state_width > 0 { state_width.max(STATE.len()) + 1 } else { 0 };
    let numbers_room = width.saturating_sub(PID_WIDTH + NAME_WIDTH + state_width);
    let shown = fitting(numbers_room);
    let numbers: usize = shown.iter().map(|(_, width)| width + 1).sum();
    let name_width = width.saturating_sub(PID_WIDTH + numbers + state_width).min(MOST_NAME_WIDTH);
    let mut header = format!("  {:>7} {}", "PID", pad("Name", name_width));
    for (place, width) in &shown {
        header.push_str(&format!(" {:>width$}", COLUMNS.get(*place).map_or("", |column| column.0)));
    }
    if state_width > 0 {
        header.push_str(&format!(" {STATE}"));
    }
    lines.push(Line::new(Style::Bold, header));
    let room = height.saturating_sub(lines.len());
    let first = selected.saturating_sub(room.saturating_sub(1));
    for (index, process) in list.iter().enumerate().skip(first).take(room) {
        let mark = if index == selected { '>' } else { ' ' };
        let mut text = format!("{mark} {:>7} {}", process.pid, pad(&escape(process.name), name_width));
        let values = values(process.board);
        for (place, width) in &shown {
            let value = values.get(*place).copied().flatten();
            let value = value.map_or_else(|| "-".to_owned(), |value| number((value * 10.0).round() / 10.0));
            text.push_str(&format!(" {value:>width$}"));
        }
        let style = if index == selected { Style::Bold } else { Style::Plain };
        let mut line = Line::new(style, text);
        if let Some((style, text)) = states.get(index).filter(|(_, text)| !text.is_empty()) {
            line.push(*style, format!(" {text}"));
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
