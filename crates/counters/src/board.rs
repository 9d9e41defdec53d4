//! The last state of every series of one process.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::survives_meter;
use crate::sample::{Notice, Sample, Series, SeriesKind, Source, Update, Value};

/// How many past values of a series are kept: five minutes of seconds.
const HISTORY: usize = 300;
/// How long a series without values is kept, at least.
const FORGET: Duration = Duration::from_secs(300);
/// How many different notices are kept.
const NOTICES: usize = 20;

/// What is known of one series.
#[derive(Debug, Clone)]
pub struct Row {
    /// The last sample.
    pub sample: Sample,
    /// The value before the last, for differences.
    pub previous: Option<Value>,
    /// All samples since the board was made, added up: for sinks that want totals.
    pub total: Total,
    /// When the last sample came in.
    pub received: Instant,
    /// The recent past, oldest first, if the board keeps it: when (UTC, nanoseconds since 1970), and what is worth a chart: the change of what
    /// only grows, the lowest quantile of a histogram, else the value.
    pub history: VecDeque<(i64, f64)>,
}

/// Samples of a series added up.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Total {
    /// Of the increments of a rate or a counter.
    pub increments: f64,
    /// Of the numbers of measurements of a histogram.
    pub count: i64,
    /// Of the sums of these measurements.
    pub sum: f64,
}

impl Total {
    fn add(&mut self, value: &Value) {
        match value {
            Value::Gauge(_) => {}
            Value::Change { increment, .. } => self.increments += increment.unwrap_or(0.0),
            Value::Histogram { count, sum, .. } => {
                self.count = self.count.saturating_add(count.unwrap_or(0));
                self.sum += sum.unwrap_or(0.0);
            }
        }
    }
}

impl Row {
    /// By how much the value changed last.
    #[must_use]
    pub fn delta(&self) -> Option<f64> {
        Some(self.sample.value.headline()? - self.previous.as_ref()?.headline()?)
    }

    /// How long the value is overdue; `None` while it is not.
    #[must_use]
    pub fn late(&self, now: Instant) -> Option<Duration> {
        late(self.received, self.sample.interval, now)
    }
}

/// A sample is late when half an interval, and half a second, have passed since it was due.
fn late(received: Instant, interval: f64, now: Instant) -> Option<Duration> {
    let age = now.saturating_duration_since(received);
    let allowed = interval + (interval / 2.0).max(0.5);
    (age.as_secs_f64() > allowed).then_some(age)
}

/// A series in its place: by provider, name, tags.
#[derive(Debug, Clone)]
pub(crate) struct Place(pub(crate) Arc<Series>);

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Place {}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(&other.0.key())
    }
}

/// All series of a process, sorted by provider, name and tags.
#[derive(Debug, Clone)]
pub struct Board {
    rows: BTreeMap<Place, Row>,
    notices: Vec<Notice>,
    dropped: u64,
    /// When the session was started, or the last sample came in.
    heard: Instant,
    interval: f64,
    /// Whether the rows have a history.
    history: bool,
    /// Whether the runtime was asked for anything.
    runtime: bool,
}

impl Board {
    /// An empty board for samples every `interval`.
    #[must_use]
    pub fn new(interval: Duration, now: Instant) -> Self {
        let interval = interval.as_secs_f64();
        Self {
            rows: BTreeMap::new(),
            notices: Vec::new(),
            dropped: 0,
            heard: now,
            interval,
            history: false,
            runtime: true,
        }
    }

    /// Keeps the recent past of each row, for charts: some 5 KB a row.
    #[must_use]
    pub fn with_history(self) -> Self {
        Self { history: true, ..self }
    }

    /// Only the operating system is asked: nothing of the runtime is missed.
    #[must_use]
    pub fn without_runtime(self) -> Self {
        Self { runtime: false, ..self }
    }

    /// Takes an update in.
    pub fn apply(&mut self, update: &Update, now: Instant) {
        match update {
            Update::Sample(sample) => self.sample(sample, now),
            Update::Ended(series) => drop(self.rows.remove(&Place(Arc::clone(series)))),
            Update::EventCountersSuperseded { provider } => self.rows.retain(|Place(series), _| {
                series.source != Source::EventCounter
                    || !series.provider.eq_ignore_ascii_case(provider)
                    || survives_meter(provider, &series.name)
            }),
            Update::Notice(notice) => self.notice(notice),
        }
    }

    fn sample(&mut self, sample: &Sample, now: Instant) {
        if sample.series.source != Source::Os {
            self.heard = now;
            self.interval = sample.interval;
        }
        let point = match &sample.value {
            _ if !self.history => None,
            Value::Histogram { quantiles, .. } => quantiles.first().map(|&(_, value)| value),
            Value::Change { increment, .. } if sample.series.kind == SeriesKind::Counter => *increment,
            value => value.headline(),
        };
        let row = self.rows.entry(Place(Arc::clone(&sample.series))).or_insert_with(|| Row {
            sample: sample.clone(),
            previous: None,
            total: Total::default(),
            received: now,
            history: VecDeque::new(),
        });
        if row.received != now || row.sample.unix_nanos != sample.unix_nanos {
            row.previous = Some(std::mem::replace(&mut row.sample, sample.clone()).value);
        }
        row.total.add(&sample.value);
        row.received = now;
        if let Some(value) = point {
            if row.history.len() == HISTORY {
                row.history.pop_front();
            } else if row.history.len() == row.history.capacity() {
                // Doubling would end far beyond what is ever needed.
                row.history.reserve_exact(HISTORY / 10);
            }
            row.history.push_back((sample.unix_nanos, value));
        }
    }

    fn notice(&mut self, notice: &Notice) {
        if let Notice::Dropped { events } = notice {
            self.dropped += events;
            return;
        }
        let text = crate::text::notice(notice);
        if self.notices.len() < NOTICES && !self.notices.iter().any(|said| crate::text::notice(said) == text)
        {
            self.notices.push(notice.clone());
        }
    }

    /// Forgets series that have had no value for long, while others had: a time series of something that is gone.
    /// The runtime doesn't tell when one ends.
    pub fn prune(&mut self, now: Instant) {
        if self.late(now).is_none() {
            self.rows.retain(|_, row| {
                let keep = Duration::try_from_secs_f64(row.sample.interval * 10.0).unwrap_or(Duration::MAX);
                now.saturating_duration_since(row.received) < keep.max(FORGET)
            });
        }
    }

    /// The rows in order.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// The row of a series without tags.
    #[must_use]
    pub fn find(&self, provider: &str, name: &str) -> Option<&Row> {
        self.rows().find(|row| {
            let series = &row.sample.series;
            series.name == name && series.provider == provider && series.tags.is_empty()
        })
    }

    /// Whether the runtime is asked for values, too.
    #[must_use]
    pub fn asks_runtime(&self) -> bool {
        self.runtime
    }

    /// Whether values are there: of the runtime, if it is asked for any.
    #[must_use]
    pub fn has_values(&self) -> bool {
        self.rows().any(|row| !self.runtime || row.sample.series.source != Source::Os)
    }

    /// What the target said besides values, each once.
    #[must_use]
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// How many events the target had no room for.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The time between two samples.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::try_from_secs_f64(self.interval).unwrap_or(Duration::from_secs(1))
    }

    /// How long nothing at all has come from the runtime, if that is longer than it should be.
    #[must_use]
    pub fn late(&self, now: Instant) -> Option<Duration> {
        late(self.heard, self.interval, now).filter(|_| self.runtime)
    }
}
