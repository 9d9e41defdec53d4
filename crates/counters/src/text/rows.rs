//! Samples in the words of dotnet-counters: the rows of its csv and json files.

use serde::Serialize;

use super::lines::percentile;
use super::number::{number, round_trip};
use crate::facts::rfc3339;
use crate::sample::{Sample, SeriesKind, Value};

/// One number of a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerRow<'a> {
    /// UTC, nanoseconds since 1970.
    pub unix_nanos: i64,
    /// The provider.
    pub provider: &'a str,
    /// Name and unit: `orders ({order} / 1 sec)`.
    pub name: String,
    /// Tags of the time series, `key=value,key=value`; those of a quantile have `Percentile`.
    pub tags: String,
    /// Tags of the Meter.
    pub meter_tags: &'a str,
    /// Tags of the instrument.
    pub instrument_tags: &'a str,
    /// Whether the value is an amount per interval.
    pub rate: bool,
    /// The value.
    pub value: f64,
}

/// The rows of a sample: one, or one for each quantile; none in the first interval of an observable counter.
pub fn peer_rows(sample: &Sample) -> impl Iterator<Item = PeerRow<'_>> {
    let series = &*sample.series;
    // Counters are told as rates here, also where their total is known.
    let rate = matches!(series.kind, SeriesKind::Rate | SeriesKind::Counter);
    let unit = series.unit.trim();
    let name = match (rate, unit) {
        (true, "") => format!("{} (Count / {} sec)", series.display_name, number(sample.interval)),
        (true, unit) => format!("{} ({unit} / {} sec)", series.display_name, number(sample.interval)),
        (false, "") => series.display_name.clone(),
        (false, unit) => format!("{} ({unit})", series.display_name),
    };
    let values: Vec<(Option<f64>, f64)> = match &sample.value {
        Value::Gauge(value) => vec![(None, *value)],
        Value::Change { increment, total } => {
            let value = if rate { *increment } else { total.or(*increment) };
            value.map(|value| (None, value)).into_iter().collect()
        }
        Value::Histogram { quantiles, .. } => quantiles.iter().map(|&(q, value)| (Some(q), value)).collect(),
    };
    values.into_iter().map(move |(quantile, value)| {
        let mut tags = series.tags.text().to_owned();
        if let Some(quantile) = quantile {
            if !tags.is_empty() {
                tags.push(',');
            }
            tags.push_str(&format!("Percentile={}", percentile(quantile)));
        }
        PeerRow {
            unix_nanos: sample.unix_nanos,
            provider: &series.provider,
            name: name.clone(),
            tags,
            meter_tags: series.meter_tags.text(),
            instrument_tags: series.instrument_tags.text(),
            rate,
            value,
        }
    })
}

/// The header of a csv file.
pub const CSV_HEADER: &str = "Timestamp,Provider,Counter Name,Counter Type,Mean/Increment";

impl PeerRow<'_> {
    fn all_tags(&self) -> String {
        let parts = [self.meter_tags, self.instrument_tags, &self.tags];
        parts.into_iter().filter(|tags| !tags.is_empty()).collect::<Vec<_>>().join(",")
    }

    fn counter_type(&self) -> &'static str {
        if self.rate { "Rate" } else { "Metric" }
    }

    /// The columns of a csv row, without quotes; `time` as it is to be shown.
    fn columns(&self, time: String, tags: &str) -> [String; 5] {
        let name = if tags.is_empty() { self.name.clone() } else { format!("{}[{tags}]", self.name) };
        [time, self.provider.to_owned(), name, self.counter_type().to_owned(), round_trip(self.value)]
    }

    /// A csv row as RFC 4180 has it, without its end; `more` are further columns.
    #[must_use]
    pub fn csv(&self, more: &[String]) -> String {
        let columns = self.columns(rfc3339(self.unix_nanos), &self.all_tags());
        let quoted = |column: &String| {
            if column.contains(['"', ',', '\n', '\r']) {
                format!("\"{}\"", column.replace('"', "\"\""))
            } else {
                column.clone()
            }
        };
        columns.iter().chain(more).map(quoted).collect::<Vec<_>>().join(",")
    }

    /// A csv row exactly as dotnet-counters writes it: nothing is quoted, commas between tags are semicolons, and
    /// `time` is local.
    #[must_use]
    pub fn csv_compat(&self, time: String) -> String {
        self.columns(time, &self.all_tags().replace(',', ";")).join(",")
    }

    /// The object of a json file.
    #[must_use]
    pub fn json(&self, pid: Option<u32>) -> PeerEvent<'_> {
        PeerEvent {
            timestamp: rfc3339(self.unix_nanos),
            provider: self.provider,
            name: &self.name,
            tags: &self.tags,
            counter_type: self.counter_type(),
            meter_tags: self.meter_tags,
            instrument_tags: self.instrument_tags,
            value: self.value,
            pid,
        }
    }
}

/// An element of `Events` in a json file of dotnet-counters.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerEvent<'a> {
    timestamp: String,
    provider: &'a str,
    name: &'a str,
    tags: &'a str,
    counter_type: &'static str,
    meter_tags: &'a str,
    instrument_tags: &'a str,
    /// null for NaN and infinity, which JSON can't say.
    value: f64,
    /// Only where several processes share a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sample::{Series, Source};
    use crate::tags::Tags;

    fn sample(kind: SeriesKind, tags: &str, value: Value) -> Sample {
        let series = Series {
            source: Source::Meter,
            provider: "M".into(),
            name: "n".into(),
            display_name: "n, \"q\"".into(),
            description: String::new(),
            unit: "u".into(),
            kind,
            tags: Tags::parse(tags),
            meter_version: String::new(),
            meter_tags: Tags::parse("m=1"),
            instrument_tags: Tags::default(),
            instrument_id: None,
        };
        Sample { series: Arc::new(series), unix_nanos: 1_795_363_200_500_000_000, interval: 1.0, value }
    }

    #[test]
    fn rows_are_quoted_where_needed() {
        let sample = sample(SeriesKind::Gauge, "a=x,b=\"y\"\n", Value::Gauge(1.5));
        let rows: Vec<_> = peer_rows(&sample).collect();
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!(
            row.csv(&[]),
            "2026-11-22T16:00:00.500Z,M,\"n, \"\"q\"\" (u)[m=1,a=x,b=\"\"y\"\"\n]\",Metric,1.5"
        );
        assert_eq!(
            row.csv_compat("11/22/2026 16:00:00".into()),
            "11/22/2026 16:00:00,M,n, \"q\" (u)[m=1;a=x;b=\"y\"\n],Metric,1.5"
        );
        let json = serde_json::to_value(row.json(None)).unwrap();
        assert_eq!(json["tags"], "a=x,b=\"y\"\n");
        assert_eq!((&json["meterTags"], &json["counterType"]), (&"m=1".into(), &"Metric".into()));
    }

    #[test]
    fn counters_are_rates() {
        let change = |increment| Value::Change { increment, total: Some(9.0) };
        let rates = |sample: &Sample| -> Vec<_> {
            peer_rows(sample).map(|row| (row.name, row.rate, row.value)).collect()
        };
        let counter = sample(SeriesKind::Counter, "", change(Some(5.0)));
        assert_eq!(rates(&counter), [("n, \"q\" (u / 1 sec)".to_owned(), true, 5.0)]);
        assert_eq!(rates(&sample(SeriesKind::Counter, "", change(None))), []);
        let up_down = sample(SeriesKind::UpDownCounter, "", change(Some(5.0)));
        assert_eq!(rates(&up_down), [("n, \"q\" (u)".to_owned(), false, 9.0)]);
        let quantiles = vec![(0.5, 1.0), (0.99, 2.0)];
        let histogram =
            sample(SeriesKind::Histogram, "a=1", Value::Histogram { quantiles, count: None, sum: None });
        let tags: Vec<_> = peer_rows(&histogram).map(|row| row.tags).collect();
        assert_eq!(tags, ["a=1,Percentile=50", "a=1,Percentile=99"]);
    }
}
