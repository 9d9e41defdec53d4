//! What to watch for: `gc-heap-size>500MB for 30s`.

use std::time::Duration;

use super::grammar;
use super::unit::{self, Unit};
use crate::error::Error;
use crate::sample::{Sample, Series, SeriesKind, Source, Value};
use crate::selection::Selection;
use crate::text::number;

/// A condition on the values of a counter.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub(super) text: String,
    pub(super) counter: String,
    pub(super) provider: String,
    pub(super) name: String,
    pub(super) event_counters_only: bool,
    pub(super) tags: Vec<(String, String)>,
    pub(super) percentile: Option<f64>,
    pub(super) operator: Operator,
    pub(super) limit: f64,
    pub(super) unit: Option<Unit>,
    /// The unit as it was given.
    pub(super) unit_name: String,
    pub(super) per_second: bool,
    pub(super) hold: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// What a rule has to say about a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reading {
    /// It is of another counter.
    Other,
    /// It is of this one, but has no number this time.
    Nothing,
    /// The number that is compared, and whether it is beyond the limit.
    Value(f64, bool),
    /// It can't be compared.
    Unusable(Unusable),
}

/// Why the values of a counter can't be compared with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unusable {
    /// The units measure different things, or the counter's is not known.
    Unit,
    /// A rate of something that is no amount.
    NoAmount,
    /// A distribution, and no percentile was chosen.
    Histogram,
}

impl Rule {
    /// Reads `COUNTER OPERATOR NUMBER[UNIT][/s] [for DURATION]`, where the counter is `PROVIDER[COUNTER]` or a
    /// well-known name alone, both with `{TAG=VALUE,...}` behind it if wanted.
    ///
    /// # Errors
    ///
    /// [`Error::Alert`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        grammar::read(text).map_err(|reason| Error::Alert { text: text.to_owned(), reason })
    }

    /// The rule as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The counter as it was given.
    #[must_use]
    pub fn counter(&self) -> &str {
        &self.counter
    }

    /// Whether it is about the amount in a second.
    pub(super) fn per_second(&self) -> bool {
        self.per_second
    }

    /// How long the condition must hold.
    #[must_use]
    pub fn hold(&self) -> Duration {
        self.hold
    }

    /// Adds the counter to what is watched.
    pub fn select(&self, selection: &mut Selection) {
        selection.watch(&self.provider, &self.name, self.event_counters_only);
    }

    fn is_of(&self, series: &Series) -> bool {
        if series.name != self.name
            || !series.provider.eq_ignore_ascii_case(&self.provider)
            || (self.event_counters_only && series.source != Source::EventCounter)
        {
            return false;
        }
        let has = |(key, value): &(String, String)| {
            [&series.tags, &series.instrument_tags, &series.meter_tags]
                .iter()
                .any(|tags| tags.pairs().iter().any(|(k, v)| k == key && v == value))
        };
        self.tags.iter().all(has)
    }

    /// A value of the counter in the unit of the limit.
    pub(super) fn shown(&self, value: f64, series: &Series) -> String {
        let own = series.unit.trim();
        let (value, unit) = match (self.unit, unit::known(own)) {
            (Some(limit), Some(own)) => (value * own.factor / limit.factor, self.unit_name.as_str()),
            _ => (value, own),
        };
        let glue = if unit.is_empty() || unit == "%" { "" } else { " " };
        let per = if self.per_second { "/s" } else { "" };
        format!("{}{glue}{unit}{per}", number(value))
    }

    pub(super) fn read(&self, sample: &Sample) -> Reading {
        let series = &*sample.series;
        if !self.is_of(series) {
            return Reading::Other;
        }
        let value = match &sample.value {
            Value::Histogram { .. } if self.per_second => return Reading::Unusable(Unusable::NoAmount),
            Value::Histogram { quantiles, .. } => {
                let Some(wanted) = self.percentile else { return Reading::Unusable(Unusable::Histogram) };
                let found = quantiles.iter().find(|(quantile, _)| (quantile * 100.0 - wanted).abs() < 1e-6);
                found.map(|&(_, value)| value)
            }
            Value::Change { increment, .. } if self.per_second => {
                increment.map(|increment| increment / sample.interval).filter(|rate| rate.is_finite())
            }
            // An amount is not a rate: EventCounters that are rates already say so by their unit, which is none here.
            Value::Gauge(_) if self.per_second => return Reading::Unusable(Unusable::NoAmount),
            Value::Change { increment, .. } if series.kind == SeriesKind::Rate => *increment,
            value => value.headline(),
        };
        let Some(value) = value else { return Reading::Nothing };
        let limit = match self.unit {
            None => self.limit,
            Some(limit_unit) => match unit::known(series.unit.trim()) {
                Some(own) if own.dimension == limit_unit.dimension => {
                    self.limit * limit_unit.factor / own.factor
                }
                _ => return Reading::Unusable(Unusable::Unit),
            },
        };
        let beyond = match self.operator {
            Operator::Above => value > limit,
            Operator::AtLeast => value >= limit,
            Operator::Below => value < limit,
            Operator::AtMost => value <= limit,
        };
        Reading::Value(value, beyond)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tags::Tags;

    fn rule(text: &str) -> Rule {
        Rule::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn sample(provider: &str, name: &str, unit: &str, kind: SeriesKind, tags: &str, value: Value) -> Sample {
        let series = Series {
            source: Source::Meter,
            provider: provider.into(),
            name: name.into(),
            display_name: name.into(),
            description: String::new(),
            unit: unit.into(),
            kind,
            tags: Tags::parse(tags),
            meter_version: String::new(),
            meter_tags: Tags::default(),
            instrument_tags: Tags::default(),
            instrument_id: None,
        };
        Sample { series: Arc::new(series), unix_nanos: 0, interval: 2.0, value }
    }

    fn gauge(name: &str, unit: &str, value: f64) -> Sample {
        sample("P", name, unit, SeriesKind::Gauge, "", Value::Gauge(value))
    }

    #[test]
    fn units_are_converted() {
        let read = |text: &str, unit, value| match rule(text).read(&gauge("x", unit, value)) {
            Reading::Value(_, beyond) => Ok(beyond),
            Reading::Unusable(reason) => Err(reason),
            other => panic!("{other:?}"),
        };
        // Half a gigabyte: the EventCounter has MB, the Meter bytes.
        assert_eq!(read("P[x]>500MB", "MB", 500.0), Ok(false));
        assert_eq!(read("P[x]>500MB", "MB", 500.1), Ok(true));
        assert_eq!(read("P[x]>=500MB", "By", 5e8), Ok(true));
        assert_eq!(read("P[x]>500MiB", "MB", 524.0), Ok(false));
        assert_eq!(read("P[x]>500MiB", "MB", 525.0), Ok(true));
        assert_eq!(read("P[x]<20ms", "s", 0.019), Ok(true));
        assert_eq!(read("P[x]>50%", "1", 0.6), Ok(true));
        // A plain number is in the counter's own unit, whatever that is.
        assert_eq!(read("P[x]>5", "{order}", 6.0), Ok(true));
        assert_eq!(read("P[x]>5ms", "{order}", 6.0), Err(Unusable::Unit));
        assert_eq!(read("P[x]>5ms", "", 6.0), Err(Unusable::Unit));
        assert_eq!(read("P[x]>5MB", "%", 6.0), Err(Unusable::Unit));
        assert_eq!(read("P[x]>5/s", "", 6.0), Err(Unusable::NoAmount));
        assert_eq!(read("P[x]>5", "", f64::NAN), Ok(false));
    }

    #[test]
    fn values_in_the_unit_of_the_limit() {
        let shown = |text: &str, unit, value| rule(text).shown(value, &gauge("x", unit, value).series);
        assert_eq!(shown("P[x]>1GB", "MB", 1512.3), "1.512 GB");
        assert_eq!(shown("P[x]>1MiB/s", "By", 2_097_152.0), "2 MiB/s");
        assert_eq!(shown("P[x]>5%", "%", 7.0), "7%");
        assert_eq!(shown("P[x]>5", "MB", 7.0), "7 MB");
        assert_eq!(shown("P[x]>5/s", "", 7.0), "7/s");
        assert_eq!(shown("P[x]>5/s", "{order}", 7.0), "7 {order}/s");
    }

    #[test]
    fn what_is_compared() {
        let change = |kind, increment, total| {
            sample("P", "x", "B", kind, "a=1,b=2", Value::Change { increment, total })
        };
        let value = |text: &str, sample: &Sample| rule(text).read(sample);
        let rate = change(SeriesKind::Rate, Some(10.0), None);
        assert_eq!(value("P[x]>4", &rate), Reading::Value(10.0, true));
        assert_eq!(value("P[x]>4B/s", &rate), Reading::Value(5.0, true));
        let counter = change(SeriesKind::Counter, Some(10.0), Some(100.0));
        assert_eq!(value("p[x]>4", &counter), Reading::Value(100.0, true));
        assert_eq!(value("P[x]>6/s", &counter), Reading::Value(5.0, false));
        assert_eq!(value("P[x]>6/s", &change(SeriesKind::Counter, None, Some(1.0))), Reading::Nothing);
        assert_eq!(value("P[x]{a=1}>4", &counter), Reading::Value(100.0, true));
        for other in ["P[y]>4", "Q[x]>4", "P[x]{a=2}>4", "P[x]{c=1}>4", r"EventCounters\P[x]>4"] {
            assert_eq!(value(other, &counter), Reading::Other, "{other}");
        }
        let quantiles = vec![(0.5, 1.0), (0.95, 9.0)];
        let histogram = Value::Histogram { quantiles, count: Some(2), sum: None };
        let histogram = sample("P", "x", "ms", SeriesKind::Histogram, "", histogram);
        assert_eq!(value("P[x]{Percentile=95}>8ms", &histogram), Reading::Value(9.0, true));
        assert_eq!(value("P[x]{Percentile=99}>8ms", &histogram), Reading::Nothing);
        assert_eq!(value("P[x]>8ms", &histogram), Reading::Unusable(Unusable::Histogram));
    }

    #[test]
    fn the_counter_is_watched() {
        let with = |list: &str, text: &str| {
            let mut selection = Selection::parse(list).expect("a list");
            rule(text).select(&mut selection);
            selection
        };
        let selection = with("Shop[orders]", "gc-heap-size>1");
        assert!(selection.includes_event_counter("System.Runtime", "gc-heap-size"));
        assert!(!selection.includes_event_counter("System.Runtime", "cpu-usage"));
        // The old names are EventCounters on every version: no Meter has to be switched on for them.
        assert!(!selection.includes_instrument("System.Runtime", "dotnet.gc.last_collection.heap.size"));
        assert!(with("Shop", "rss>1").includes_system("OS", "rss"));
        // What is watched already stays as it is.
        assert_eq!(with("Shop", "Shop[orders]>1"), Selection::parse("Shop").expect("a list"));
        let both = with("System.Runtime", "time-in-gc>20%");
        assert!(both.includes_instrument("System.Runtime", "dotnet.gc.collections"));
        assert!(both.keeps("System.Runtime", "time-in-gc") && !both.keeps("System.Runtime", "cpu-usage"));
        let new = with("Shop", "dotnet.exceptions>1/s");
        assert!(new.includes_instrument("System.Runtime", "dotnet.exceptions"));
    }
}
