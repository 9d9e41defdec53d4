//! The lines above a table.

use std::time::Duration;

use dnd_contract::escape;
use unicode_width::UnicodeWidthStr;

use super::layout::wrap;
use super::lines::notice;
use super::screen::{Line, Sort, Status, Style, View};
use crate::sample::Notice;

const KEYS: &str = "Press p to pause, r to resume, q to quit.";
const MORE_KEYS: [&str; 4] = ["/ search", "s sort", "c chart", "d deltas"];
/// What fits of these on narrow screens.
const SHORT_KEYS: [&str; 4] = ["q quit", "p pause", "/ search", "s sort"];

/// As many of them as fit.
pub(super) fn hints(all: &[&str], width: usize) -> String {
    let mut text = String::new();
    for hint in all {
        let gap = if text.is_empty() { "" } else { "  " };
        if text.width() + gap.len() + hint.width() > width {
            break;
        }
        text.push_str(gap);
        text.push_str(hint);
    }
    text
}

/// The lines above the table: what can be done, what the process does, what is to be known.
pub(super) fn head(view: &View<'_>, width: usize, height: usize) -> Vec<Line> {
    let keys = if width < KEYS.len() {
        Line::new(Style::Plain, hints(&SHORT_KEYS, width))
    } else {
        let mut keys = Line::new(Style::Plain, KEYS);
        let gap = "  ";
        keys.push(
            Style::Dim,
            gap.to_owned() + &hints(&MORE_KEYS, width - (KEYS.len() + gap.len()).min(width)),
        );
        keys
    };
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
            format!("No sample for {}: stopped, collecting garbage, or starved", seconds(age)),
        ),
        (Status::Paused, _) => status.push(Style::Bold, "Paused"),
        (Status::Ended, _) => status.push(Style::Warning, "The process has ended; these are its last values"),
        (Status::Lost, _) => {
            status.push(Style::Warning, "Not watched any more; these are the last values");
        }
    }
    status.push(Style::Dim, format!(" - {}", escape(view.target)));
    let mut lines = vec![keys, status];
    let mut texts = first_lines(view.alerts);
    texts.extend(view.board.notices().iter().map(|said| format!("Warning: {}.", notice(said))));
    if view.board.dropped() > 0 {
        texts.push(format!("Warning: {}.", notice(&Notice::Dropped { events: view.board.dropped() })));
    }
    lines.extend(told(&texts, width, height));
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

/// What alerts say: what their actions printed comes when the screen is left.
pub(super) fn first_lines(alerts: &[String]) -> Vec<String> {
    alerts.iter().map(|text| text.lines().next().unwrap_or_default().to_owned()).collect()
}

/// These texts in at most a third of the screen: whole if there is room, else a line each.
pub(super) fn told(texts: &[String], width: usize, height: usize) -> Vec<Line> {
    let most = (height / 3).max(1);
    let line = |text: &str| Line::new(Style::Warning, text);
    let whole: Vec<Line> = texts.iter().flat_map(|text| wrap(text, width)).map(|text| line(&text)).collect();
    if whole.len() <= most {
        return whole;
    }
    let mut lines: Vec<Line> = texts.iter().map(|text| line(text)).collect();
    if lines.len() > most {
        lines.truncate(most - 1);
        lines.push(line(&format!("    … {} more like these", texts.len() - lines.len())));
    }
    lines
}

pub(super) fn seconds(age: Duration) -> String {
    format!("{} s", age.as_secs())
}
