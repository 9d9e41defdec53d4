//! The text formats of Prometheus (0.0.4) and OpenMetrics (1.0).
//!
//! Names follow the OpenTelemetry specification ("Prometheus and OpenMetrics Compatibility"): characters that are not
//! allowed become `_`, the unit is appended, and `_total` for what only grows. The names of EventCounters begin with
//! their provider, because they are only unique there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::time::Instant;

use super::{Point, Process, point, rows, unit};
use crate::board::Row;
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
    unit: String,
    help: String,
    lines: String,
    /// The labels of the samples that are there: no two may have the same.
    labels: HashSet<String>,
}

/// A document in the making.
struct Document {
    format: Format,
    families: BTreeMap<String, Family>,
    /// Names of families and of their samples, and whose they are: no two families may share one.
    taken: HashMap<String, String>,
}

type Labels = Vec<(String, String)>;

/// The document.
#[must_use]
pub fn render(processes: &[Process<'_>], format: Format, now: Instant) -> String {
    let mut document = Document { format, families: BTreeMap::new(), taken: HashMap::new() };
    for process in processes {
        let labels: Labels = vec![
            ("pid".to_owned(), process.pid.to_string()),
            ("process".to_owned(), process.name.to_owned()),
        ];
        let up = process.watched && process.board.has_values() && process.board.late(now).is_none();
        let help = "whether the runtime's values come in time";
        let (name, family) = document.family("dnd_up".to_owned(), "gauge", "", help);
        sample(&mut family.lines, &name, &labels, None, f64::from(u8::from(up)));
        for row in rows(process, now) {
            document.add(row, &labels);
        }
    }
    let mut out = String::new();
    for (name, family) in &document.families {
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

impl Document {
    /// The family of that name and kind, made when it is new, and its name in the end: another one where that name, or
    /// that of one of its samples, is taken by a family of another kind.
    fn family(&mut self, name: String, kind: &'static str, unit: &str, help: &str) -> (String, &mut Family) {
        let mut name = name;
        if !self.is_free(&name, kind) {
            name = match name.strip_suffix(&format!("_{unit}")) {
                Some(stem) if !unit.is_empty() => format!("{stem}_{kind}_{unit}"),
                _ => format!("{name}_{kind}"),
            };
            while !self.is_free(&name, kind) {
                name = format!("{name}_");
            }
        }
        for suffix in suffixes(kind) {
            self.taken.insert(format!("{name}{suffix}"), name.clone());
        }
        // OpenMetrics wants the unit behind the name, and nothing else for one.
        let unit = if name.ends_with(&format!("_{unit}")) { unit } else { "" };
        let family = self.families.entry(name.clone()).or_insert_with(|| Family {
            kind,
            unit: unit.to_owned(),
            help: help.to_owned(),
            lines: String::new(),
            labels: HashSet::new(),
        });
        (name, family)
    }

    fn is_free(&self, name: &str, kind: &str) -> bool {
        let same = self.families.get(name).is_some_and(|family| family.kind == kind);
        same || !suffixes(kind).iter().any(|suffix| self.taken.contains_key(&format!("{name}{suffix}")))
    }

    fn add(&mut self, row: &Row, process: &[(String, String)]) {
        let series = &*row.sample.series;
        let Some(point) = point(row) else { return };
        let kind = match point {
            Point::Gauge(_) | Point::UpDown(_) => "gauge",
            Point::Counter(_) => "counter",
            Point::Summary { .. } => "summary",
        };
        let unit = unit::word(&series.unit, kind == "gauge");
        let help = match series.description.as_str() {
            "" => format!("{} of {}", series.display_name, series.provider),
            description => description.to_owned(),
        };
        let openmetrics = self.format == Format::OpenMetrics;
        let (name, family) = self.family(name(series, &unit), kind, &unit, &help);
        let mut labels = labels(series, process, kind);
        let mut key = identity(&labels);
        // What is called the same here, but not in the process.
        for number in 2.. {
            if family.labels.insert(key) {
                break;
            }
            labels.retain(|(label, _)| label != DUPLICATE);
            labels.push((DUPLICATE.to_owned(), number.to_string()));
            key = identity(&labels);
        }
        let lines = &mut family.lines;
        match point {
            Point::Gauge(value) | Point::UpDown(value) => sample(lines, &name, &labels, None, value),
            Point::Counter(value) => sample(lines, &format!("{name}_total"), &labels, None, value),
            #[expect(clippy::cast_precision_loss, reason = "a count of measurements")]
            Point::Summary { quantiles, count, sum } => {
                // In OpenMetrics nothing of a summary is negative.
                let allowed = |value: f64| !openmetrics || value >= 0.0;
                for &(quantile, value) in quantiles.iter().filter(|(_, value)| allowed(*value)) {
                    sample(lines, &name, &labels, Some(quantile), value);
                }
                if allowed(sum) {
                    sample(lines, &format!("{name}_sum"), &labels, None, sum);
                }
                sample(lines, &format!("{name}_count"), &labels, None, count as f64);
            }
        }
    }
}

/// What is appended to the name of a family for those of its samples, and for the family itself.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["", "_total", "_created"],
        "summary" => &["", "_count", "_sum", "_created"],
        _ => &[""],
    }
}

/// Tells apart samples that would be the same one.
const DUPLICATE: &str = "dnd_duplicate";

/// What makes a sample another one: a label without a value is none.
fn identity(labels: &[(String, String)]) -> String {
    let mut labels: Vec<_> = labels.iter().filter(|(_, value)| !value.is_empty()).collect();
    labels.sort();
    format!("{labels:?}")
}

fn labels(series: &Series, process: &[(String, String)], kind: &str) -> Labels {
    let mut labels = process.to_vec();
    if series.source == Source::Meter {
        labels.push(("otel_scope_name".to_owned(), series.provider.clone()));
        if !series.meter_version.is_empty() {
            labels.push(("otel_scope_version".to_owned(), series.meter_version.clone()));
        }
    }
    let own = labels.len();
    let scope = series.meter_tags.pairs().iter();
    let scope = scope.map(|(key, value)| (allowed(&format!("otel_scope_{key}"), false), value));
    let measured = series.tags.pairs();
    let instrument = series.instrument_tags.pairs().iter();
    let instrument = instrument.filter(|(key, _)| !measured.iter().any(|(other, _)| other == key));
    let tags = measured.iter().chain(instrument).map(|(key, value)| (allowed(key, false), value));
    for (mut key, value) in scope.chain(tags) {
        // As Prometheus does it with labels that are taken.
        if labels.iter().take(own).any(|(taken, _)| *taken == key) || (kind == "summary" && key == "quantile")
        {
            key = format!("exported_{key}");
        }
        match labels.iter_mut().find(|(known, _)| *known == key) {
            // Two keys that look the same once they are allowed ones: the specification joins their values.
            Some((_, joined)) => {
                joined.push(';');
                joined.push_str(value);
            }
            None => labels.push((key, value.clone())),
        }
    }
    labels
}

fn sample(out: &mut String, name: &str, labels: &[(String, String)], quantile: Option<f64>, value: f64) {
    out.push_str(name);
    let quantile = quantile.map(|quantile| ("quantile".to_owned(), quantile.to_string()));
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
            description: String::new(),
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
            name(&series, &unit::word(&series.unit, true))
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
        assert_eq!(allowed("http.request-method", false), "http_request_method");
        assert_eq!(allowed("", false), "_");
    }
}
