//! Values as lines, for pipes and files: they can be cut, sorted and searched.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use dnd_counters::{Notice, Update, rfc3339, text};

use super::sink::{Sink, State, Target};
use super::{unix_nanos_now, writer};

/// So many different notices are said; a target that has more to complain about has been heard.
const MOST_SAID: usize = 1000;

/// A runtime that has sent nothing for so long (and for longer than it should) is told.
const NOTHING: Duration = Duration::from_secs(10);

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

    /// Says which targets can't be watched, and of which nothing has ever come.
    pub(super) fn trouble(&mut self, targets: &[Target]) {
        self.trouble_at(targets, Instant::now());
    }

    fn trouble_at(&mut self, targets: &[Target], now: Instant) {
        for target in targets {
            match &target.state {
                State::Failed(reason) if targets.len() > 1 => {
                    self.say(format!(
                        "error: process {}: {}",
                        target.subject.pid,
                        dnd_contract::escape(reason)
                    ));
                }
                State::Watched
                    if !target.board.has_values()
                        && target.board.late(now).is_some_and(|age| age > NOTHING) =>
                {
                    self.say(format!(
                        "warning: process {}: nothing has come from the runtime so far: it is stopped, waits at its \
                         start to be let run (DOTNET_DiagnosticPorts), or has none of these counters (`dnd counters \
                         list` shows the usual ones)",
                        target.subject.pid
                    ));
                }
                _ => {}
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
        self.said.trouble(targets);
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

#[cfg(test)]
mod tests {
    use dnd_counters::Board;
    use dnd_ipc::Endpoint;

    use super::super::targets::Subject;
    use super::*;

    #[test]
    fn a_runtime_that_never_sends_anything_is_told_once() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let now = begun + NOTHING + second;
        let target = |board: Board| Target {
            subject: Subject {
                pid: 7,
                local: true,
                name: "api".to_owned(),
                assembly: None,
                runtime: None,
                endpoint: Endpoint::new("/nowhere"),
                resume: false,
            },
            board,
            state: State::Watched,
            since: 0,
            probe: None,
        };
        let said = |board: Board, now: Instant| {
            let (mut said, targets) = (Said::default(), [target(board)]);
            said.trouble_at(&targets, now);
            said.trouble_at(&targets, now + second);
            said.0.len()
        };
        assert_eq!(said(Board::new(second, begun), now), 1);
        assert_eq!(said(Board::new(second, begun), begun + NOTHING - second), 0, "it may still come");
        assert_eq!(said(Board::new(3600 * second, begun), begun + 3600 * second), 0, "it is not due");
        assert_eq!(said(Board::new(second, begun).without_runtime(), now), 0, "it was not asked");
    }
}
