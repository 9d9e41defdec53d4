//! Samples as JSON: `docs/json/counters.md`.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::sample::{Notice, Sample, Series, Value};

/// The samples that came in one interval: one document of `dnd counters monitor --json`.
#[derive(Debug, Clone, Serialize)]
pub struct Interval<'a> {
    /// When this was put together: RFC 3339, UTC.
    pub time: String,
    /// Id of the process, as seen from here.
    pub pid: u32,
    /// Its name.
    pub process: &'a str,
    /// How many seconds ago the last sample came, if that is longer than it should be.
    pub late_seconds: Option<f64>,
    /// Events that the target had no room for, since the start.
    pub dropped_events: u64,
    /// The samples.
    pub samples: Vec<SampleFacts<'a>>,
    /// What the target said besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<&'a Notice>,
    /// Alerts that were raised, and what became of what they ran.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<&'a crate::alerts::Facts>,
    /// In the last document, how the session came to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<crate::session::End>,
}

/// One sample. Numbers that JSON has no words for (NaN, infinity) are null.
#[derive(Debug, Clone, Serialize)]
pub struct SampleFacts<'a> {
    /// When the target sent it: RFC 3339, UTC.
    pub time: String,
    /// The interval that the numbers stand for, in seconds.
    pub interval: f64,
    /// Whose numbers they are.
    #[serde(flatten)]
    pub series: &'a Series,
    /// `value`; or `increment` and `total`; or `quantiles`, `count` and `sum`.
    #[serde(flatten)]
    pub numbers: Numbers<'a>,
}

/// The numbers of a sample, each under its name.
#[derive(Debug, Clone)]
pub struct Numbers<'a>(&'a Value);

impl<'a> From<&'a Sample> for SampleFacts<'a> {
    fn from(sample: &'a Sample) -> Self {
        Self {
            time: rfc3339(sample.unix_nanos),
            interval: sample.interval,
            series: &sample.series,
            numbers: Numbers(&sample.value),
        }
    }
}

impl Serialize for Numbers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.0 {
            Value::Gauge(value) => map.serialize_entry("value", value)?,
            Value::Change { increment, total } => {
                map.serialize_entry("increment", increment)?;
                if total.is_some() {
                    map.serialize_entry("total", total)?;
                }
            }
            Value::Histogram { quantiles, count, sum } => {
                map.serialize_entry("quantiles", &Quantiles(quantiles))?;
                map.serialize_entry("count", count)?;
                map.serialize_entry("sum", sum)?;
            }
        }
        map.end()
    }
}

struct Quantiles<'a>(&'a [(f64, f64)]);

impl Serialize for Quantiles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(quantile, value)| (quantile.to_string(), value)))
    }
}

/// A time as in `2026-11-22T16:12:00.123Z`.
#[must_use]
pub fn rfc3339(unix_nanos: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(unix_nanos)) {
        Ok(time) => format!("{time:.3}"),
        // Not reached: 64 bits of nanoseconds stay far within the years that jiff knows.
        Err(_) => unix_nanos.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sample::{SeriesKind, Source};
    use crate::tags::Tags;

    #[test]
    fn a_sample_as_json() {
        let series = Series {
            source: Source::Meter,
            provider: "M".into(),
            name: "n".into(),
            display_name: "n".into(),
            description: String::new(),
            unit: "By".into(),
            kind: SeriesKind::UpDownCounter,
            tags: Tags::parse("a=1"),
            meter_version: String::new(),
            meter_tags: Tags::default(),
            instrument_tags: Tags::default(),
            instrument_id: Some(7),
        };
        let mut sample = Sample {
            series: Arc::new(series),
            unix_nanos: 1_795_363_200_123_456_789,
            interval: 0.5,
            value: Value::Change { increment: None, total: Some(3.0) },
        };
        let json = |sample: &Sample| serde_json::to_value(SampleFacts::from(sample)).unwrap();
        assert_eq!(
            json(&sample),
            serde_json::json!({
                "time": "2026-11-22T16:00:00.123Z", "interval": 0.5, "source": "meter", "provider": "M", "name": "n",
                "display_name": "n", "unit": "By", "kind": "up-down-counter", "tags": {"a": "1"}, "instrument_id": 7,
                "increment": null, "total": 3.0
            })
        );
        sample.value = Value::Histogram { quantiles: vec![(0.5, 1.0)], count: Some(2), sum: None };
        assert_eq!(json(&sample)["quantiles"], serde_json::json!({"0.5": 1.0}));
        sample.value = Value::Gauge(f64::NAN);
        assert_eq!(json(&sample)["value"], serde_json::Value::Null);
    }
}
