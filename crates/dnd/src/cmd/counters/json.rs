//! Values as JSON: a document a line for each process and interval.

use std::io;
use std::time::{Duration, Instant};

use dnd_contract::Envelope;
use dnd_counters::{Interval, Notice, Sample, SampleFacts, Update, alerts, rfc3339};

use super::alerts::Told;
use super::lines::Said;
use super::output::Output;
use super::schedule::Schedule;
use super::sink::{Sink, State, Target};
use super::unix_nanos_now;
use crate::error::CliError;

/// Collects samples and writes them once in an interval, each exactly once.
pub(super) struct Documents {
    out: Output,
    interval: Duration,
    targets: Vec<Pending>,
    said: Said,
}

/// What waits to be written of one target.
#[derive(Default)]
struct Pending {
    /// When the next document is due; begun by the first sample, half an interval before the samples that follow, so
    /// that a little jitter does not move a sample into the neighbouring document.
    due: Schedule,
    samples: Vec<Sample>,
    notices: Vec<Notice>,
    alerts: Vec<alerts::Facts>,
    over: bool,
}

impl Documents {
    /// Writes to `out`.
    pub(super) fn new(interval: Duration, out: Output) -> Self {
        Self { out, interval, targets: Vec::new(), said: Said::default() }
    }

    fn write(&mut self, target: &Target, index: usize) -> io::Result<()> {
        let Some(pending) = self.targets.get_mut(index) else { return Ok(()) };
        let late = target.board.late(Instant::now()).filter(|_| !pending.over);
        let document = Interval {
            time: rfc3339(unix_nanos_now()),
            pid: target.subject.pid,
            process: &target.subject.name,
            late_seconds: late.map(|age| age.as_secs_f64()),
            dropped_events: target.board.dropped(),
            samples: pending.samples.iter().map(SampleFacts::from).collect(),
            notices: pending.notices.iter().collect(),
            alerts: pending.alerts.iter().collect(),
            end: if let State::Ended(end) = target.state { Some(end) } else { None },
        };
        let envelope = Envelope { schema: "dnd.counters.monitor", version: 1, facts: document };
        let mut line = serde_json::to_vec(&envelope)?;
        line.push(b'\n');
        pending.samples.clear();
        pending.notices.clear();
        pending.alerts.clear();
        self.out.write(line)
    }
}

impl Sink for Documents {
    fn updates(&mut self, targets: &[Target], index: usize, updates: &[Update]) -> io::Result<()> {
        self.targets.resize_with(targets.len(), Pending::default);
        let Some(pending) = self.targets.get_mut(index) else { return Ok(()) };
        let asks_runtime = targets.get(index).is_none_or(|target| target.board.asks_runtime());
        let mut begun = false;
        for update in updates {
            match update {
                Update::Sample(sample) => {
                    begun |= sample.series.source != dnd_counters::Source::Os || !asks_runtime;
                    pending.samples.push(sample.clone());
                }
                Update::Notice(notice) => pending.notices.push(notice.clone()),
                _ => {}
            }
        }
        if begun {
            pending.due.begin(Instant::now() + (self.interval / 2).min(Duration::from_millis(500)));
        }
        Ok(())
    }

    fn tick(&mut self, targets: &[Target]) -> io::Result<()> {
        let now = Instant::now();
        self.targets.resize_with(targets.len(), Pending::default);
        for (index, target) in targets.iter().enumerate() {
            let Some(pending) = self.targets.get_mut(index).filter(|pending| !pending.over) else { continue };
            let over = matches!(target.state, State::Ended(_) | State::Failed(_));
            if target.board.late(now).is_some() {
                // No sample of the runtime ever came: that is worth a document, too, once in an interval.
                pending.due.begin(now);
            }
            if !pending.due.take(now, self.interval) && !over {
                continue;
            }
            pending.over = over;
            self.write(target, index)?;
        }
        self.said.trouble(targets);
        Ok(())
    }

    fn replaced(&mut self, index: usize) {
        if let Some(pending) = self.targets.get_mut(index) {
            *pending = Pending::default();
        }
    }

    fn alert(&mut self, targets: &[Target], told: &Told) -> io::Result<()> {
        self.targets.resize_with(targets.len(), Pending::default);
        let (Some(pending), Some(target)) = (self.targets.get_mut(told.index), targets.get(told.index))
        else {
            return Ok(());
        };
        pending.alerts.push(told.facts.clone());
        // Behind the last document of its process there is no other to take it along.
        if pending.over { self.write(target, told.index) } else { Ok(()) }
    }

    fn end(&mut self, targets: &[Target]) -> io::Result<()> {
        self.tick(targets)
    }

    fn failed(&self, error: io::Error) -> CliError {
        self.out.failed(error)
    }
}
