//! Events of counters: what becomes of them in every place where they are shown, and what users type about them.
#![no_main]

#[path = "../../crates/testkit/src/nettrace.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod stream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dnd_counters::alerts::{self, Engine, Rule, Settings};
use dnd_counters::export::{self, otlp, prometheus};
use dnd_counters::text::{self, Process, Sort, Status, View};
use dnd_counters::{Board, Model, Request, SampleFacts, Selection, Update, parse_duration};
use dnd_fuzz::Numbers;
use dnd_nettrace::{Order, Parser};
use libfuzzer_sys::fuzz_target;
use stream::{Event, Stream, Value, payload};

const PROVIDERS: [&str; 4] = ["System.Diagnostics.Metrics", "System.Runtime", "P", "p"];
const EVENTS: [&str; 14] = [
    "EventCounters",
    "CounterRateValuePublished",
    "UpDownCounterRateValuePublished",
    "GaugeValuePublished",
    "HistogramValuePublished",
    "BeginInstrumentReporting",
    "EndInstrumentReporting",
    "CollectionStop",
    "MultipleSessionsConfiguredIncorrectlyError",
    "MultipleSessionsNotSupportedError",
    "ObservableInstrumentCallbackError",
    "TimeSeriesLimitReached",
    "Error",
    "EventSourceMessage",
];
const FIELDS: [&str; 27] = [
    "Name",
    "DisplayName",
    "DisplayUnits",
    "Metadata",
    "IntervalSec",
    "Series",
    "CounterType",
    "Increment",
    "Mean",
    "meterName",
    "meterVersion",
    "instrumentName",
    "unit",
    "tags",
    "rate",
    "value",
    "lastValue",
    "quantiles",
    "count",
    "sum",
    "instrumentId",
    "meterTags",
    "clientId",
    "errorMessage",
    "expectedMaxHistograms",
    "expectedMaxTimeSeries",
    "expectedRefreshInterval",
];
const TEXTS: [&str; 16] = [
    "SHARED",
    "P",
    "System.Runtime",
    "gc-heap-size",
    "cpu-usage",
    "Sum",
    "MB",
    "By",
    "me",
    "Interval=1000",
    "a=1,b=\u{1b}[2J\n",
    "1e308",
    "-1e308",
    "∞",
    "NaN",
    "0.5=1;0.95=1e300;0.99=NaN",
];

/// A value of any kind; `texts` is where texts are kept.
fn value<'t>(numbers: &mut Numbers<'_>, text: &'t str) -> Value<'t> {
    match numbers.u8() % 8 {
        0 => Value::I32(i32::from(numbers.u16().cast_signed()) << (numbers.u8() % 17)),
        1 => Value::F32(f32::from_bits(u32::from(numbers.u16()) << 16)),
        2 => Value::F64(f64::from_bits(u64::from(numbers.u16()) << 48)),
        3 => Value::Text(text),
        _ => Value::Text(TEXTS[usize::from(numbers.u8()) % TEXTS.len()]),
    }
}

/// A stream of up to 64 events.
fn written(numbers: &mut Numbers<'_>) -> Vec<u8> {
    let mut stream = Stream::new();
    let mut timestamp = 0u64;
    for number in 1..=64 {
        if numbers.0.is_empty() {
            break;
        }
        let provider = PROVIDERS[usize::from(numbers.u8()) % PROVIDERS.len()];
        let event = EVENTS[usize::from(numbers.u8()) % EVENTS.len()];
        let len = usize::from(numbers.u8() % 24).min(numbers.0.len());
        let (text, rest) = numbers.0.split_at(len);
        numbers.0 = rest;
        let text = String::from_utf8_lossy(text).replace('\0', "");
        let mut fields = vec![("sessionId", Value::Text("SHARED"))];
        for _ in 0..numbers.u8() % 12 {
            fields.push((FIELDS[usize::from(numbers.u8()) % FIELDS.len()], value(numbers, &text)));
        }
        if event == "EventCounters" {
            fields = vec![("", Value::Object(vec![("Payload", Value::Object(fields))]))];
        }
        timestamp = timestamp.wrapping_add(u64::from(numbers.u16()) << (numbers.u8() % 48));
        stream.describe(number, provider, 1, event, &fields);
        let payload = payload(&fields);
        stream.events(&[Event {
            metadata: number,
            sequence: number,
            thread: 1,
            timestamp,
            payload,
            ..Event::default()
        }]);
    }
    stream.end();
    stream.bytes().to_vec()
}

/// What a user may have typed.
fn typed(text: &str) {
    let _ = (parse_duration(text), Selection::parse(text));
    if let Ok(rule) = Rule::parse(text) {
        let mut selection = Selection::default();
        rule.select(&mut selection);
        assert_eq!(rule.text(), text.trim());
    }
}

fn show(board: &Board, size: u8, now: Instant) {
    let (width, height) = (usize::from(size) * 2, usize::from(size % 60));
    for (number, sort) in [Sort::Name, Sort::Value, Sort::Change].into_iter().enumerate() {
        let view = View {
            target: "4711 shop",
            status: Status::Running,
            board,
            alerts: &[],
            deltas: number != 0,
            abbreviate: [None, Some(true), Some(false)][number],
            sort,
            search: ["", "a", "\n"][number],
            typing: number == 1,
            cursor: Some(usize::from(size) % 7),
            chart: true,
            scroll: usize::from(size),
            now,
        };
        assert!(text::render(&view, width, height).lines.len() <= height);
    }
    let process = Process { pid: 1, name: "\u{1b}]0;x\u{7}", state: "", board };
    let _ = text::processes(&[process], 0, &[], now, width, height);
    let process = export::Process {
        pid: 1,
        name: "n\"\n",
        assembly: None,
        runtime: Some("8"),
        since: 0,
        watched: true,
        board,
    };
    for format in [prometheus::Format::Prometheus, prometheus::Format::OpenMetrics] {
        let _ = prometheus::render(&[process], format, now);
    }
    let _ = otlp::encode(&[process], now);
}

fuzz_target!(|data: &[u8]| {
    let mut numbers = Numbers(data);
    if numbers.u8() % 4 == 0 {
        return typed(&String::from_utf8_lossy(numbers.0));
    }
    let size = numbers.u8();
    let mut request = Request::new(Selection::parse("System.Runtime,P").unwrap(), "me");
    request.max_time_series = 20;
    let rules = ["gc-heap-size>1", "P[P]{Percentile=95}>=-1e3", "P[SHARED]<5/s for 1s"];
    let rules = rules.iter().map(|rule| Rule::parse(rule).unwrap()).collect();
    let settings = Settings { cooldown: Duration::from_secs(1), most: 3, acts: true };
    let mut engine = Engine::new(rules, settings, Duration::from_secs(1));
    let start = Instant::now();
    engine.watch(0, start);
    let mut model = Model::new(&request);
    let mut board = Board::new(Duration::from_secs(1), start).with_history();
    let mut parser = Parser::new(Order::AsWritten);
    parser.push(&written(&mut numbers));
    parser.finish();
    let mut now = start;
    while let Ok(Some(item)) = parser.read() {
        let mut updates = Vec::new();
        model.item(&item, &mut updates);
        now += Duration::from_millis(u64::from(size) * 10);
        for update in &updates {
            board.apply(update, now);
            let mut events = Vec::new();
            match update {
                Update::Sample(sample) => {
                    engine.sample(0, sample, now, &mut events);
                    let mut lines = Vec::new();
                    text::line(1, "12:00:00", sample, &mut lines);
                    let _ = text::label(&sample.series, sample.interval);
                    serde_json::to_string(&SampleFacts::from(sample)).unwrap();
                    for row in text::peer_rows(sample) {
                        let _ = (row.csv(&[]), row.csv_compat(String::new()));
                        serde_json::to_string(&row.json(Some(1))).unwrap();
                    }
                }
                Update::Ended(series) => engine.ended(0, &Arc::clone(series)),
                _ => {}
            }
            engine.tick(now, &mut events);
            for event in &events {
                let what = alerts::facts(event, false, None, vec!["x".to_owned()]);
                let facts = alerts::Facts { time: String::new(), pid: 1, process: "\n".to_owned(), what };
                let _ = alerts::text(&facts);
                serde_json::to_string(&facts).unwrap();
            }
        }
        board.prune(now);
    }
    show(&board, size, now);
});
