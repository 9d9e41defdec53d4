//! Values as lines, for pipes and files: they can be cut, sorted and searched.

use std::collections::HashSet;
use std::io;
use std::time::Instant;

use dnd_counters::{Notice, Update, rfc3339, text};

use super::sink::{Sink, State, Target};
use super::{unix_nanos_now, writer};

/// So many different notices are said; a target that has more to complain about has been heard.
const MOST_SAID: usize = 1000;

/// Writes a line for each value as soon as it comes.
#[derive(Default)]
pub(super) struct Lines {
    /// When the last line about late samples was written, for each target.
    late: Vec<Option<Instant>>,
    said: Said,
    out: Vec<String>,
}

/// What was said on standard error already: a callback that fails does so in every interval.
#[derive(Default)]
pub(super) struct Said(HashSet<String>);

impl Said {
    /// Says on standard error what is new of the notices among `updates`. A closed standard error is no reason to stop.
    pub(super) fn notices(&mut self, targets: &[Target], index: usize, updates: &[Update]) {
        for update in updates {
            let Update::Notice(notice) = update else { continue };
            let of = match targets {
                [_] => String::new(),
                _ => targets.get(index).map(|t| format!("process {}: ", t.subject.pid)).unwrap_or_default(),
            };
            self.say(format!("{}: {of}{}", level(notice), text::notice(notice)));
        }
    }

    /// Says what has become of targets that can't be watched.
    pub(super) fn failures(&mut self, targets: &[Target]) {
        for target in targets {
            if let State::Failed(reason) = &target.state
                && targets.len() > 1
            {
                self.say(format!("error: process {}: {}", target.subject.pid, dnd_contract::escape(reason)));
            }
        }
    }

    pub(super) fn say(&mut self, text: String) {
        if self.0.len() < MOST_SAID && !self.0.contains(&text) {
            writer::say(&text);
            self.0.insert(text);
        }
    }
}

impl Lines {
    fn write(&mut self) -> io::Result<()> {
        let mut all = self.out.join("\n");
        self.out.clear();
        if all.is_empty() {
            return Ok(());
        }
        all.push('\n');
        writer::stdout().write(all.into_bytes())
    }
}

impl Sink for Lines {
    fn updates(&mut self, targets: &[Target], index: usize, updates: &[Update]) -> io::Result<()> {
        let Some(target) = targets.get(index) else { return Ok(()) };
        for update in updates {
            if let Update::Sample(sample) = update {
                text::line(target.subject.pid, &rfc3339(sample.unix_nanos), sample, &mut self.out);
            }
        }
        self.said.notices(targets, index, updates);
        self.write()
    }

    fn tick(&mut self, targets: &[Target]) -> io::Result<()> {
        let now = Instant::now();
        self.late.resize(targets.len(), None);
        for (target, said) in targets.iter().zip(&mut self.late) {
            let late =
                target.board.late(now).filter(|_| matches!(target.state, State::Starting | State::Watched));
            let Some(age) = late else {
                *said = None;
                continue;
            };
            // Once for each interval that passes without a sample.
            if said.is_some_and(|last| now.duration_since(last) < target.board.interval()) {
                continue;
            }
            *said = Some(now);
            let (time, pid) = (rfc3339(unix_nanos_now()), target.subject.pid);
            self.out.push(format!("{time}\t{pid}\t-\tno sample\t{:.1}\ts late", age.as_secs_f64()));
        }
        self.said.failures(targets);
        self.write()
    }

    fn end(&mut self, _targets: &[Target]) -> io::Result<()> {
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
