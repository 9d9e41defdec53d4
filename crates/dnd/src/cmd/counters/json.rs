//! Values as JSON: a document a line for each interval.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use dnd_contract::Envelope;
use dnd_counters::{Interval, Notice, Sample, SampleFacts, Update, rfc3339};

use super::lines::unix_nanos_now;
use super::watch::{Sink, Target};

/// Collects samples and writes them once in an interval, each exactly once.
pub(super) struct Documents {
    interval: Duration,
    /// When the next document is due; set by the first sample, half an interval before the samples that follow, so
    /// that a little jitter does not move a sample into the neighbouring document.
    due: Option<Instant>,
    samples: Vec<Sample>,
    notices: Vec<Notice>,
}

impl Documents {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, due: None, samples: Vec::new(), notices: Vec::new() }
    }

    fn write(&mut self, target: &Target) -> io::Result<()> {
        let document = Interval {
            time: rfc3339(unix_nanos_now()),
            pid: target.pid,
            process: &target.name,
            late_seconds: target.board.late(Instant::now()).map(|age| age.as_secs_f64()),
            dropped_events: target.board.dropped(),
            samples: self.samples.iter().map(SampleFacts::from).collect(),
            notices: self.notices.iter().collect(),
            end: target.end,
        };
        let envelope = Envelope { schema: "dnd.counters.monitor", version: 1, facts: document };
        let mut line = serde_json::to_vec(&envelope)?;
        line.push(b'\n');
        self.samples.clear();
        self.notices.clear();
        let mut stdout = io::stdout().lock();
        stdout.write_all(&line)?;
        stdout.flush()
    }
}

impl Sink for Documents {
    fn updates(&mut self, _target: &Target, updates: &[Update]) -> io::Result<()> {
        for update in updates {
            match update {
                Update::Sample(sample) => self.samples.push(sample.clone()),
                Update::Notice(notice) => self.notices.push(notice.clone()),
                _ => {}
            }
        }
        if self.due.is_none() && !self.samples.is_empty() {
            self.due = Some(Instant::now() + (self.interval / 2).min(Duration::from_millis(500)));
        }
        Ok(())
    }

    fn tick(&mut self, target: &Target) -> io::Result<()> {
        let now = Instant::now();
        let due = match self.due {
            Some(due) => due,
            // No sample ever came: that is worth a document, too, once in an interval.
            None if target.board.late(now).is_some() => now,
            None => return Ok(()),
        };
        if now < due {
            return Ok(());
        }
        let mut next = due + self.interval;
        if next <= now {
            next = now + self.interval;
        }
        self.due = Some(next);
        self.write(target)
    }

    fn end(&mut self, target: &Target) -> io::Result<()> {
        self.write(target)
    }
}
