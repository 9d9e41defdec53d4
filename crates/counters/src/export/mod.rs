//! Boards in the formats of monitoring systems. No I/O.
//!
//! * [`prometheus`]: the text formats of Prometheus and OpenMetrics;
//! * [`otlp`]: the OpenTelemetry protocol, as protobuf.
//!
//! Both want totals. A counter of a Meter has one; the increments of EventCounters, and the counts and sums of
//! histograms, are added up from the moment the watching began. A histogram is told as a summary: the runtime sends
//! quantiles and no buckets.

pub mod otlp;
pub mod prometheus;
mod unit;

use std::time::Instant;

use crate::board::{Board, Row};
use crate::sample::{SeriesKind, Value};

/// A process to tell about.
#[derive(Debug, Clone, Copy)]
pub struct Process<'a> {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: &'a str,
    /// Its entry assembly, where known.
    pub assembly: Option<&'a str>,
    /// Version of its runtime, where known.
    pub runtime: Option<&'a str>,
    /// When the watching began: UTC, nanoseconds since 1970.
    pub since: i64,
    /// Whether it is watched still.
    pub watched: bool,
    /// Its values.
    pub board: &'a Board,
}

/// A row as what these formats know.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Point<'a> {
    /// Goes up and down.
    Gauge(f64),
    /// Goes up and down, and adds up over processes.
    UpDown(f64),
    /// Only grows.
    Counter(f64),
    /// Quantiles of the last interval; count and sum since the watching began.
    Summary { quantiles: &'a [(f64, f64)], count: i64, sum: f64 },
}

/// What a row is; `None` before there is a number.
fn point(row: &Row) -> Option<Point<'_>> {
    Some(match (&row.sample.value, row.sample.series.kind) {
        (Value::Gauge(value), _) => Point::Gauge(*value),
        (Value::Change { total, increment }, SeriesKind::UpDownCounter) => {
            Point::UpDown((*total).or(*increment)?)
        }
        (Value::Change { total, .. }, _) => match total.unwrap_or(row.total.increments) {
            total if total >= 0.0 => Point::Counter(total),
            // Whatever its instrument is declared to be, this has not only grown.
            total => Point::UpDown(total),
        },
        (Value::Histogram { quantiles, .. }, _) => {
            Point::Summary { quantiles, count: row.total.count, sum: row.total.sum }
        }
    })
}

/// The rows of a process that are up to date: an old value must not look like a new one.
fn rows<'a>(process: &Process<'a>, now: Instant) -> impl Iterator<Item = &'a Row> {
    let watched = process.watched;
    process.board.rows().filter(move |row| watched && row.late(now).is_none())
}
