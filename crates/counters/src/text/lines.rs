//! Counters as lines: what is written when standard output is no terminal.

use std::fmt::Write;

use dnd_contract::escape;

use super::number::number;
use crate::sample::{Notice, Sample, Series, SeriesKind, Source, Value};

/// A series' name for people, with its unit: `GC Heap Size (MB)`, `orders (Count / 1 sec)`.
#[must_use]
pub fn label(series: &Series, interval: f64) -> String {
    let name = escape(&series.display_name);
    let unit = unit(series, interval);
    if unit.is_empty() { name.into_owned() } else { format!("{name} ({unit})") }
}

/// The unit of what is shown as the value: per interval for rates, `Count` where a count has none.
fn unit(series: &Series, interval: f64) -> String {
    let unit = escape(series.unit.trim());
    let counted = if unit.is_empty() { "Count" } else { &unit };
    match series.kind {
        SeriesKind::Rate => format!("{counted} / {} sec", number(interval)),
        SeriesKind::Counter if series.source == Source::Meter => counted.to_owned(),
        _ => unit.into_owned(),
    }
}

/// The values of a sample as lines without an end: time, process, provider, counter with tags, value, unit, separated
/// by tabs. A histogram has one line for each quantile, and one each for its count and sum where they are sent.
pub fn line(pid: u32, time: &str, sample: &Sample, out: &mut Vec<String>) {
    let series = &*sample.series;
    let unit = unit(series, sample.interval);
    let mut push = |more: Option<(&str, &str)>, suffix: &str, value: f64, unit: &str| {
        let mut name = escape(&series.name).into_owned();
        name.push_str(suffix);
        let mut before = '[';
        for (key, value) in series.all_tags().chain(more) {
            // Writing to a String can't fail.
            let _ = write!(name, "{before}{}={}", escape(key), escape(value));
            before = ',';
        }
        if before == ',' {
            name.push(']');
        }
        out.push(format!("{time}\t{pid}\t{}\t{name}\t{value}\t{unit}", escape(&series.provider)));
    };
    match &sample.value {
        Value::Histogram { quantiles, count, sum } => {
            for &(quantile, value) in quantiles {
                push(Some(("Percentile", &percentile(quantile))), "", value, &unit);
            }
            if let Some(count) = count {
                #[expect(clippy::cast_precision_loss, reason = "a count of measurements")]
                push(None, ".count", *count as f64, "Count");
            }
            if let Some(sum) = sum {
                push(None, ".sum", *sum, &unit);
            }
        }
        value => {
            if let Some(value) = value.headline() {
                push(None, "", value, &unit);
            }
        }
    }
}

/// 0.5 → `50`.
pub(super) fn percentile(quantile: f64) -> String {
    number(quantile * 100.0)
}

/// A notice as a sentence, without a full stop.
#[must_use]
pub fn notice(notice: &Notice) -> String {
    match notice {
        Notice::HistogramLimit => {
            "the limit of histograms was reached, not all are shown; --maxHistograms raises it, \
                                   at the cost of memory in the target"
                .to_owned()
        }
        Notice::TimeSeriesLimit => {
            "the limit of time series was reached, not all are shown; --maxTimeSeries raises \
                                    it, at the cost of memory in the target"
                .to_owned()
        }
        Notice::MetricsError { message } => format!("the target reports an error: {}", escape(message)),
        Notice::CallbackError { message } => {
            format!("a callback in the target failed, its value is missing: {}", escape(first_line(message)))
        }
        Notice::Ambiguous { provider, name } => format!(
            "several values of `{}` of {} have the same tags, and the target doesn't say which is whose; the last one \
             counts",
            escape(name),
            escape(provider)
        ),
        Notice::EventSourceError { provider, message } => {
            format!("{} reports a mistake of its own: {}", escape(provider), escape(first_line(message)))
        }
        Notice::OtherSession { id } => format!(
            "another tool watches the Meters of this process in a session that can't be shared ({}); what it sees is \
             shown, in its own interval",
            escape(id)
        ),
        Notice::SharedSettings(settings) => format!(
            "another tool watches the Meters of this process; its settings are taken over: an interval of {} s, \
             {} histograms, {} time series",
            number(settings.interval),
            settings.max_histograms,
            settings.max_time_series
        ),
        Notice::Dropped { events } => {
            format!("the target had no room for {events} events, values may be missing")
        }
        Notice::Damaged { message } => {
            format!("a part of the event stream can't be read: {}", escape(message))
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
