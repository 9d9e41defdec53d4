//! The text formats of Prometheus (0.0.4) and OpenMetrics (1.0).
//!
//! Names follow the OpenTelemetry specification ("Prometheus and OpenMetrics Compatibility"): characters that are not
//! allowed become `_`, the unit is appended, and `_total` for what only grows. The names of EventCounters begin with
//! their provider, because they are only unique there.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use super::{Point, Process, point, rows};
use crate::board::Row;
use crate::os;
use crate::sample::{Series, Source};

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type` header.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All samples of one name.
struct Family {
    kind: &'static str,
    unit: &'static str,
    help: String,
    lines: String,
}

/// The document.
#[must_use]
pub fn render(processes: &[Process<'_>], format: Format, now: Instant) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for process in processes {
        let labels = vec![("pid", process.pid.to_string()), ("process", process.name.to_owned())];
        let up = process.watched && process.board.has_values() && process.board.late(now).is_none();
        let help = "whether the runtime's values come in time";
        let family = family(&mut families, "dnd_up", "gauge", "", help);
        sample(&mut family.lines, "dnd_up", &labels, None, f64::from(u8::from(up)));
        for row in rows(process, now) {
            add(&mut families, row, &labels);
        }
    }
    let mut out = String::new();
    for (name, family) in &families {
        // Before OpenMetrics, a counter's family is named like its samples.
        let (suffix, kind) = match format {
            Format::Prometheus if family.kind == "counter" => ("_total", "counter"),
            _ => ("", family.kind),
        };
        // Writing to a String can't fail.
        let _ =
            writeln!(out, "# HELP {name}{suffix} {}", escaped(&family.help, format == Format::OpenMetrics));
        let _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
        if format == Format::OpenMetrics && !family.unit.is_empty() {
            let _ = writeln!(out, "# UNIT {name} {}", family.unit);
        }
        out.push_str(&family.lines);
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn family<'f>(
    families: &'f mut BTreeMap<String, Family>,
    name: &str,
    kind: &'static str,
    unit: &'static str,
    help: &str,
) -> &'f mut Family {
    families.entry(name.to_owned()).or_insert_with(|| Family {
        kind,
        unit,
        help: help.to_owned(),
        lines: String::new(),
    })
}

fn add(families: &mut BTreeMap<String, Family>, row: &Row, process: &[(&str, String)]) {
    let series = &*row.sample.series;
    let Some(point) = point(row) else { return };
    let kind = match point {
        Point::Gauge(_) | Point::UpDown(_) => "gauge",
        Point::Counter(_) => "counter",
        Point::Summary { .. } => "summary",
    };
    let unit = unit(&series.unit);
    let mut name = name(series, unit);
    // The same name for different kinds of things, in different processes: one of them gets another name.
    if families.get(&name).is_some_and(|known| known.kind != kind) {
        name = format!("{name}_{kind}");
        if !unit.is_empty() {
            name = format!("{name}_{unit}");
        }
    }
    let mut labels = process.to_vec();
    if series.source == Source::Meter {
        labels.push(("otel_scope_name", series.provider.clone()));
        if !series.meter_version.is_empty() {
            labels.push(("otel_scope_version", series.meter_version.clone()));
        }
    }
    let keys: Vec<String> = series.tags.pairs().iter().map(|(key, _)| label_name(key)).collect();
    for (key, (_, value)) in keys.iter().zip(series.tags.pairs()) {
        match labels.iter_mut().find(|(known, _)| known == key) {
            // Two keys that look the same once they are allowed ones: the specification joins their values.
            Some((_, joined)) => {
                joined.push(';');
                joined.push_str(value);
            }
            None => labels.push((key, value.clone())),
        }
    }
    let (provider, counter) = (series.provider.as_str(), series.name.as_str());
    let help = match os::COUNTERS.iter().find(|known| (known.0, known.1) == (provider, counter)) {
        Some(&(.., what)) if series.source == Source::Os => what.to_owned(),
        _ => format!("{} of {provider}", series.display_name),
    };
    let lines = &mut family(families, &name, kind, unit, &help).lines;
    match point {
        Point::Gauge(value) | Point::UpDown(value) => sample(lines, &name, &labels, None, value),
        Point::Counter(value) => sample(lines, &format!("{name}_total"), &labels, None, value),
        #[expect(clippy::cast_precision_loss, reason = "a count of measurements")]
        Point::Summary { quantiles, count, sum } => {
            for &(quantile, value) in quantiles {
                sample(lines, &name, &labels, Some(quantile), value);
            }
            sample(lines, &format!("{name}_sum"), &labels, None, sum);
            sample(lines, &format!("{name}_count"), &labels, None, count as f64);
        }
    }
}

fn sample(out: &mut String, name: &str, labels: &[(&str, String)], quantile: Option<f64>, value: f64) {
    out.push_str(name);
    let quantile = quantile.map(|quantile| ("quantile", quantile.to_string()));
    let mut before = '{';
    for (key, value) in labels.iter().chain(&quantile) {
        let _ = write!(out, "{before}{key}=\"{}\"", escaped(value, true));
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
    let value = match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    };
    let _ = writeln!(out, " {value}");
}

fn escaped(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out
}

/// A metric's name, without `_total`.
fn name(series: &Series, unit: &str) -> String {
    let text = match series.source {
        Source::Meter => series.name.clone(),
        Source::EventCounter | Source::Os => format!("{}_{}", series.provider, series.name),
    };
    let mut name = allowed(&text, true);
    if let Some(stem) = name.strip_suffix("_total") {
        name.truncate(stem.len());
    }
    if !unit.is_empty() && name != unit && !name.ends_with(&format!("_{unit}")) {
        name.push('_');
        name.push_str(unit);
    }
    name
}

fn label_name(key: &str) -> String {
    allowed(key, false)
}

/// Letters, digits, `_`, in metric names `:`; anything else becomes one `_`, and a digit does not come first.
fn allowed(text: &str, colons: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let good = c.is_ascii_alphanumeric() || (colons && c == ':');
        if good {
            if out.is_empty() && c.is_ascii_digit() {
                out.push('_');
            }
            out.push(c);
        } else if !out.ends_with('_') {
            out.push('_');
        }
    }
    if out.is_empty() { "_".to_owned() } else { out }
}

/// The word for a unit, as the OpenTelemetry specification has it; nothing for counts of things.
fn unit(unit: &str) -> &'static str {
    match unit.trim() {
        "By" | "B" | "bytes" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "kBy" | "KB" => "kilobytes",
        "MBy" | "MB" => "megabytes",
        "GBy" | "GB" => "gigabytes",
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "%" => "percent",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "m" => "meters",
        "g" => "grams",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SeriesKind;
    use crate::tags::Tags;

    fn series(source: Source, provider: &str, name: &str, unit: &str) -> Series {
        Series {
            source,
            provider: provider.into(),
            name: name.into(),
            display_name: name.into(),
            unit: unit.into(),
            kind: SeriesKind::Gauge,
            tags: Tags::default(),
            meter_version: String::new(),
            meter_tags: Tags::default(),
            instrument_tags: Tags::default(),
            instrument_id: None,
        }
    }

    #[test]
    fn names() {
        let of = |source, provider, text, u| {
            let series = series(source, provider, text, u);
            name(&series, unit(&series.unit))
        };
        assert_eq!(
            of(Source::Meter, "System.Runtime", "dotnet.gc.heap.total_allocated", "By"),
            "dotnet_gc_heap_total_allocated_bytes"
        );
        assert_eq!(of(Source::Meter, "M", "dotnet.gc.collections", "{collection}"), "dotnet_gc_collections");
        assert_eq!(of(Source::Meter, "M", "requests_total", ""), "requests");
        assert_eq!(of(Source::Meter, "M", "size_bytes", "By"), "size_bytes");
        assert_eq!(
            of(Source::EventCounter, "System.Runtime", "gc-heap-size", "MB"),
            "System_Runtime_gc_heap_size_megabytes"
        );
        assert_eq!(of(Source::Os, "OS", "rss", "By"), "OS_rss_bytes");
        assert_eq!(of(Source::Meter, "M", "9 lives!", ""), "_9_lives_");
        assert_eq!(label_name("http.request-method"), "http_request_method");
        assert_eq!(label_name(""), "_");
    }
}
