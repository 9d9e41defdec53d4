//! Values as lines, for pipes and files: they can be cut, sorted and searched.

use std::collections::HashSet;
use std::io::{self, Write};
use std::time::Instant;

use dnd_counters::{Notice, Update, rfc3339, text};

use super::watch::{Sink, Target};

/// So many different notices are said; a target that has more to complain about has been heard.
const MOST_SAID: usize = 1000;

/// Writes a line for each value as soon as it comes.
pub(super) struct Lines {
    /// When the last line about late samples was written.
    late: Option<Instant>,
    /// What was said on standard error already: a callback that fails does so in every interval.
    said: HashSet<String>,
    out: Vec<String>,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { late: None, said: HashSet::new(), out: Vec::new() }
    }

    fn write(&mut self) -> io::Result<()> {
        let mut all = self.out.join("\n");
        self.out.clear();
        if all.is_empty() {
            return Ok(());
        }
        all.push('\n');
        let mut stdout = io::stdout().lock();
        stdout.write_all(all.as_bytes())?;
        stdout.flush()
    }
}

impl Sink for Lines {
    fn updates(&mut self, target: &Target, updates: &[Update]) -> io::Result<()> {
        self.late = None;
        for update in updates {
            match update {
                Update::Sample(sample) => {
                    text::line(target.pid, &rfc3339(sample.unix_nanos), sample, &mut self.out);
                }
                Update::Notice(notice) => {
                    let text = format!("{}: {}", level(notice), text::notice(notice));
                    if self.said.len() < MOST_SAID && self.said.insert(text.clone()) {
                        // A closed standard error is no reason to stop.
                        let _ = writeln!(io::stderr(), "{text}");
                    }
                }
                _ => {}
            }
        }
        self.write()
    }

    fn tick(&mut self, target: &Target) -> io::Result<()> {
        let now = Instant::now();
        let Some(age) = target.board.late(now) else { return Ok(()) };
        // Once for each interval that passes without a sample.
        if self.late.is_some_and(|last| now.duration_since(last) < target.board.interval()) {
            return Ok(());
        }
        self.late = Some(now);
        let time = rfc3339(unix_nanos_now());
        self.out.push(format!("{time}\t{}\t-\tno sample\t{:.1}\ts late", target.pid, age.as_secs_f64()));
        self.write()
    }

    fn end(&mut self, _target: &Target) -> io::Result<()> {
        self.write()
    }
}

/// How serious a notice is.
fn level(notice: &Notice) -> &'static str {
    match notice {
        Notice::SharedSettings(_) | Notice::OtherSession { .. } => "note",
        _ => "warning",
    }
}

/// The wall clock.
pub(super) fn unix_nanos_now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
