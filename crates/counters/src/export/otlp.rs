//! An `ExportMetricsServiceRequest` of the OpenTelemetry protocol, in protobuf.
//!
//! Written by hand: a dozen messages, of which only a few fields are used. Field numbers are those of
//! `opentelemetry/proto/metrics/v1/metrics.proto`, `common/v1/common.proto` and `resource/v1/resource.proto` of
//! open-telemetry/opentelemetry-proto 1.x.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Point, Process, point, rows};
use crate::board::Row;
use crate::sample::Source;

/// Totals since a start time, as Prometheus has them; what was missed does not matter.
const CUMULATIVE: u64 = 2;

/// Serialises the boards of `processes`, a resource each.
#[must_use]
pub fn encode(processes: &[Process<'_>], now: Instant) -> Vec<u8> {
    let mut request = Message::default();
    for process in processes {
        let mut resource = Message::default();
        let assembly = process.assembly.unwrap_or(process.name);
        for (key, value) in [("service.name", assembly), ("process.executable.name", process.name)] {
            resource.message(1, &attribute(key, value));
        }
        resource.message(1, &number_attribute("process.pid", process.pid.into()));
        resource.message(1, &attribute("process.runtime.name", ".NET"));
        if let Some(version) = process.runtime {
            resource.message(1, &attribute("process.runtime.version", version));
        }
        let mut metrics = Message::default();
        metrics.message(1, &resource);
        let mut scopes: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
        for row in rows(process, now) {
            let series = &row.sample.series;
            scopes
                .entry((&series.provider, &series.meter_version, &series.meter_tags))
                .or_default()
                .push(row);
        }
        for rows in scopes.values() {
            metrics.message(2, &scope_metrics(process, rows));
        }
        request.message(1, &metrics);
    }
    request.0
}

fn scope_metrics(process: &Process<'_>, rows: &[&Row]) -> Message {
    let mut out = Message::default();
    if let Some(first) = rows.first() {
        let series = &first.sample.series;
        let mut scope = Message::default();
        scope.text(1, &series.provider);
        scope.text(2, &series.meter_version);
        for (key, value) in series.meter_tags.pairs() {
            scope.message(3, &attribute(key, value));
        }
        out.message(1, &scope);
    }
    let same = |a: &&Row, b: &&Row| {
        let (a, b) = (&a.sample.series, &b.sample.series);
        (&a.name, &a.unit, a.kind, a.source) == (&b.name, &b.unit, b.kind, b.source)
    };
    for rows in rows.chunk_by(same) {
        if let Some(metric) = metric(process, rows) {
            out.message(2, &metric);
        }
    }
    out
}

fn metric(process: &Process<'_>, rows: &[&Row]) -> Option<Message> {
    let series = &rows.first()?.sample.series;
    let mut out = Message::default();
    out.text(1, &series.name);
    if !series.description.is_empty() {
        out.text(2, &series.description);
    } else if series.display_name != series.name {
        out.text(2, &series.display_name);
    }
    out.text(3, unit(&series.unit, series.source));
    let mut data = Message::default();
    let mut field = None;
    for row in rows {
        let Some(point) = point(row) else { continue };
        let monotonic = matches!(point, Point::Counter(_));
        let (number, point) = match point {
            Point::Gauge(value) => (5, number_point(process, row, value)),
            Point::UpDown(value) | Point::Counter(value) => (7, number_point(process, row, value)),
            Point::Summary { quantiles, count, sum } => {
                (11, summary_point(process, row, quantiles, count, sum))
            }
        };
        field = Some((number, monotonic && field.is_none_or(|(_, before)| before)));
        data.message(1, &point);
    }
    let (number, monotonic) = field?;
    if number == 7 {
        data.varint(2, CUMULATIVE);
        data.varint(3, u64::from(monotonic));
    }
    out.message(number, &data);
    Some(out)
}

fn number_point(process: &Process<'_>, row: &Row, value: f64) -> Message {
    let mut out = Message::default();
    times(&mut out, process, row);
    out.double(4, value);
    attributes(&mut out, 7, row);
    out
}

fn summary_point(
    process: &Process<'_>,
    row: &Row,
    quantiles: &[(f64, f64)],
    count: i64,
    sum: f64,
) -> Message {
    let mut out = Message::default();
    times(&mut out, process, row);
    out.fixed(4, u64::try_from(count).unwrap_or(0));
    out.double(5, sum);
    for &(quantile, value) in quantiles {
        let mut at = Message::default();
        at.double(1, quantile);
        at.double(2, value);
        out.message(6, &at);
    }
    attributes(&mut out, 7, row);
    out
}

fn times(out: &mut Message, process: &Process<'_>, row: &Row) {
    let (start, time) = span(process.since, row.sample.unix_nanos);
    out.fixed(2, start);
    out.fixed(3, time);
}

/// When the totals began, and when they were what they are. A clock that was set back meanwhile must not make them end
/// before they began.
fn span(since: i64, sampled: i64) -> (u64, u64) {
    let unsigned = |nanos| u64::try_from(nanos).unwrap_or(0);
    (unsigned(since.min(sampled)), unsigned(sampled))
}

fn attributes(out: &mut Message, field: u32, row: &Row) {
    let series = &row.sample.series;
    let measured = series.tags.pairs();
    let instrument = series.instrument_tags.pairs().iter();
    let instrument = instrument.filter(|(key, _)| !measured.iter().any(|(other, _)| other == key));
    for (key, value) in measured.iter().chain(instrument) {
        out.message(field, &attribute(key, value));
    }
}

/// Units in UCUM, which Meters have anyway; EventCounters write some of theirs differently.
fn unit(unit: &str, source: Source) -> &str {
    match (source, unit.trim()) {
        (Source::EventCounter, "B") => "By",
        (Source::EventCounter, "MB") => "MBy",
        (_, unit) => unit,
    }
}

fn attribute(key: &str, value: &str) -> Message {
    let mut text = Message::default();
    // An empty text is a value, too: it must be there.
    text.bytes(1, value.as_bytes());
    let mut out = Message::default();
    out.text(1, key);
    out.message(2, &text);
    out
}

fn number_attribute(key: &str, value: u64) -> Message {
    let mut number = Message::default();
    number.varint(3, value);
    let mut out = Message::default();
    out.text(1, key);
    out.message(2, &number);
    out
}

/// A protobuf message being written.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u32, wire_type: u32) {
        self.raw_varint(u64::from(field << 3 | wire_type));
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or(0));
    }

    fn varint(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    fn fixed(&mut self, field: u32, value: u64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn double(&mut self, field: u32, value: f64) {
        self.fixed(field, value.to_bits());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    /// Text that is left out when it is empty.
    fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn message(&mut self, field: u32, message: &Self) {
        self.bytes(field, &message.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_format() {
        let mut message = Message::default();
        message.varint(1, 300);
        message.fixed(2, 1);
        message.text(3, "ü");
        message.text(4, "");
        message.message(5, &attribute("k", ""));
        assert_eq!(
            message.0,
            [8, 0xac, 2, 17, 1, 0, 0, 0, 0, 0, 0, 0, 26, 2, 0xc3, 0xbc, 42, 7, 10, 1, b'k', 18, 2, 10, 0]
        );
    }

    #[test]
    fn a_clock_that_was_set_back() {
        assert_eq!(span(5, 7), (5, 7));
        assert_eq!(span(7, 5), (5, 5));
        assert_eq!(span(7, -5), (0, 0));
    }
}
