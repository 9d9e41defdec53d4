//! The facts: series, samples, and what else a target has to say.

use std::sync::Arc;

use serde::Serialize;

use crate::tags::Tags;

/// Where a series comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Source {
    /// An EventCounter of an EventSource.
    EventCounter,
    /// An instrument of a Meter.
    Meter,
    /// The operating system.
    Os,
}

/// What the numbers of a series mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SeriesKind {
    /// A value that goes up and down: the mean of an EventCounter, the last value of a gauge.
    Gauge,
    /// An amount per interval: an incrementing EventCounter, or a counter of a Meter in .NET 7 and before, which
    /// does not send its total.
    Rate,
    /// A counter of a Meter: its total, and the change in the interval.
    Counter,
    /// A counter of a Meter that also goes down.
    UpDownCounter,
    /// A distribution of measurements.
    Histogram,
}

/// A row of numbers over time: a counter with one combination of tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Series {
    /// Where it comes from.
    pub source: Source,
    /// The EventSource or Meter.
    pub provider: String,
    /// The counter's name, as in `--counters`.
    pub name: String,
    /// Its name for people; the name again where there is none.
    pub display_name: String,
    /// What it is, in the words of its Meter; often empty.
    #[serde(skip)]
    pub description: String,
    /// Its unit; often empty.
    pub unit: String,
    /// What the numbers mean.
    pub kind: SeriesKind,
    /// The tags of the time series.
    pub tags: Tags,
    /// The Meter's version; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub meter_version: String,
    /// Tags of the Meter.
    #[serde(skip_serializing_if = "Tags::is_empty")]
    pub meter_tags: Tags,
    /// Tags of the instrument.
    #[serde(skip_serializing_if = "Tags::is_empty")]
    pub instrument_tags: Tags,
    /// The runtime's number for the instrument, which tells apart instruments of the same names (.NET 9 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instrument_id: Option<i64>,
}

impl Series {
    /// All that tells it from others of its name: tags of the Meter, of the instrument, and its own.
    pub fn all_tags(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = [&self.meter_tags, &self.instrument_tags, &self.tags];
        all.into_iter().flat_map(Tags::pairs).map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// What sorts and identifies a series within a process.
    pub(crate) fn key(&self) -> Key<'_> {
        let names = [&self.provider, &self.display_name, &self.name, &self.meter_version, &self.unit];
        (names.map(String::as_str), self.source, self.instrument_id, self.tags.text())
    }
}

pub(crate) type Key<'a> = ([&'a str; 5], Source, Option<i64>, &'a str);

/// The numbers of a sample.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A value at the end of the interval, or the mean over it.
    Gauge(f64),
    /// A change during the interval, and the total where it is sent.
    Change {
        /// The amount in this interval; `None` in the first interval of an observable counter.
        increment: Option<f64>,
        /// For an observable instrument the value it reports; for others the sum since the session began.
        total: Option<f64>,
    },
    /// The distribution of the measurements of the interval.
    Histogram {
        /// Quantile (0.5) and value; empty when nothing was measured.
        quantiles: Vec<(f64, f64)>,
        /// Number of measurements in this interval (.NET 8 and later).
        count: Option<i64>,
        /// Their sum.
        sum: Option<f64>,
    },
}

impl Value {
    /// The one number to show for it: the total of what has one, else the amount; `None` for histograms and for the
    /// first interval of some counters.
    #[must_use]
    pub fn headline(&self) -> Option<f64> {
        match *self {
            Self::Gauge(value) => Some(value),
            Self::Change { increment, total } => total.or(increment),
            Self::Histogram { .. } => None,
        }
    }
}

/// The numbers of one series for one interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Whose they are.
    pub series: Arc<Series>,
    /// When the target sent them: UTC, nanoseconds since 1970.
    pub unix_nanos: i64,
    /// The interval they stand for, in seconds.
    pub interval: f64,
    /// The numbers.
    pub value: Value,
}

/// Something that a target says about the session rather than in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "notice")]
#[non_exhaustive]
pub enum Notice {
    /// The target tracks no further histograms.
    HistogramLimit,
    /// The target tracks no further time series.
    TimeSeriesLimit,
    /// The target's Metrics provider failed.
    MetricsError {
        /// Its words.
        message: String,
    },
    /// A callback of an observable instrument threw; its value is missing in this interval.
    CallbackError {
        /// The exception.
        message: String,
    },
    /// The target sends several values of the same names and tags in one interval, which can't be told apart: of Meters
    /// that differ in something that is not sent, or with tags that look the same as text (null and empty).
    Ambiguous {
        /// The Meter.
        provider: String,
        /// The instrument.
        name: String,
    },
    /// An EventSource reports a mistake of its own.
    EventSourceError {
        /// The EventSource.
        provider: String,
        /// Its words.
        message: String,
    },
    /// Another tool watches the Meters of this process in a session that can't be shared: its values are shown, in
    /// its interval, and only of the Meters that it asked for.
    OtherSession {
        /// The other session's id.
        id: String,
    },
    /// Another tool watches with other limits or another interval; all that share must have the same. They are
    /// taken over.
    SharedSettings(SharedSettings),
    /// The target had no room for events and threw some away: values may be missing.
    Dropped {
        /// How many.
        events: u64,
    },
    /// A part of the stream could not be read.
    Damaged {
        /// What is wrong with it.
        message: String,
    },
}

/// What all tools that share a session must agree about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SharedSettings {
    /// The most histograms.
    pub max_histograms: u32,
    /// The most time series.
    pub max_time_series: u32,
    /// Seconds between two samples.
    pub interval: f64,
}

/// What an event changes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// New numbers.
    Sample(Sample),
    /// A series will have no more numbers: its instrument is gone, or its time series is.
    Ended(Arc<Series>),
    /// A Meter has the same provider's EventCounters in a better form: those seen so far are superseded.
    EventCountersSuperseded {
        /// The provider.
        provider: String,
    },
    /// Something to tell.
    Notice(Notice),
}
