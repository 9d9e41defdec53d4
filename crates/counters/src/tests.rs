//! Whole streams of events: what comes out of them.

use std::time::{Duration, Instant};

use dnd_nettrace::{Order, Parser};
use dnd_testkit::nettrace::{Event, Stream, Value as Written, payload};

use crate::text;
use crate::*;

/// A stream of counters being written, and the model that reads it.
pub(crate) struct Bench {
    stream: Stream,
    parser: Parser,
    model: Model,
    described: u32,
    sequence: u32,
    seconds: f64,
}

impl Bench {
    pub(crate) fn new(counters: &str, interval: f64) -> Self {
        let mut request = Request::new(Selection::parse(counters).unwrap(), "me");
        request.interval = Duration::from_secs_f64(interval);
        Self {
            stream: Stream::new(),
            parser: Parser::new(Order::AsWritten),
            model: Model::new(&request),
            described: 0,
            sequence: 0,
            seconds: 0.0,
        }
    }

    /// Sends an event and gives what it changes.
    pub(crate) fn send(&mut self, provider: &str, name: &str, fields: &[(&str, Written<'_>)]) -> Vec<Update> {
        // Described anew each time: that is allowed, and saves telling versions of an event apart.
        self.described += 1;
        self.stream.describe(self.described, provider, 1, name, fields);
        self.sequence += 1;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time in a test")]
        let timestamp = (self.seconds * 1e9) as u64;
        let metadata = self.described;
        let payload = payload(fields);
        self.stream.events(&[Event {
            metadata,
            sequence: self.sequence,
            thread: 1,
            timestamp,
            payload,
            ..Event::default()
        }]);
        self.parser.push(&self.stream.take());
        let mut updates = Vec::new();
        while let Some(item) = self.parser.read().unwrap() {
            self.model.item(&item, &mut updates);
        }
        updates
    }

    /// An EventCounter's event: a rate if there is an increment.
    pub(crate) fn counter(
        &mut self,
        provider: &str,
        name: &str,
        number: f64,
        sum: bool,
        took: f32,
        series: &str,
    ) -> Vec<Update> {
        self.seconds += f64::from(took);
        let mut fields = vec![
            ("Name", Written::Text(name)),
            ("DisplayName", Written::Text("")),
            ("DisplayUnits", Written::Text("u")),
            ("Metadata", Written::Text("")),
            ("IntervalSec", Written::F32(took)),
            ("Series", Written::Text(series)),
            ("CounterType", Written::Text(if sum { "Sum" } else { "Mean" })),
        ];
        fields.push(if sum { ("Increment", Written::F64(number)) } else { ("Mean", Written::F64(number)) });
        self.send(
            provider,
            "EventCounters",
            &[("", Written::Object(vec![("Payload", Written::Object(fields))]))],
        )
    }

    /// An event of the Metrics provider about an instrument.
    pub(crate) fn metric(
        &mut self,
        event: &str,
        instrument: (&str, &str),
        more: &[(&str, Written<'_>)],
    ) -> Vec<Update> {
        let (meter, name) = instrument;
        let mut fields = vec![
            ("sessionId", Written::Text("SHARED")),
            ("meterName", Written::Text(meter)),
            ("meterVersion", Written::Text("")),
            ("instrumentName", Written::Text(name)),
            ("unit", Written::Text("")),
        ];
        fields.extend_from_slice(more);
        self.send("System.Diagnostics.Metrics", event, &fields)
    }
}

fn values(updates: &[Update]) -> Vec<(&str, Value, f64)> {
    let mut values = Vec::new();
    for update in updates {
        if let Update::Sample(sample) = update {
            values.push((sample.series.name.as_str(), sample.value.clone(), sample.interval));
        }
    }
    values
}

pub(crate) fn notices(updates: &[Update]) -> Vec<Notice> {
    updates.iter().filter_map(|u| if let Update::Notice(n) = u { Some(n.clone()) } else { None }).collect()
}

fn amount(increment: f64) -> Value {
    Value::Change { increment: Some(increment), total: None }
}

#[test]
fn event_counters() {
    let mut bench = Bench::new("P[a,b]", 1.0);
    let series = "Interval=1000";
    assert_eq!(values(&bench.counter("P", "a", 7.5, false, 1.0, series)), [("a", Value::Gauge(7.5), 1.0)]);
    assert_eq!(values(&bench.counter("P", "b", 5.0, true, 1.01, series)), [("b", amount(5.0), 1.0)]);
    assert_eq!(bench.counter("P", "c", 5.0, true, 1.0, series), [], "not asked for");
    assert_eq!(bench.counter("Q", "a", 5.0, true, 1.0, series), [], "not asked for");
}

#[test]
fn the_second_event_of_an_interval() {
    // .NET Core 3.1: at once, with an increment that is real and a mean that isn't.
    let mut bench = Bench::new("P", 1.0);
    let series = "Interval=1000";
    assert_eq!(values(&bench.counter("P", "sum", 100.0, true, 1.0, series)), [("sum", amount(100.0), 1.0)]);
    assert_eq!(bench.counter("P", "sum", 32.0, true, 0.002, series), []);
    assert_eq!(values(&bench.counter("P", "sum", 100.0, true, 1.0, series)), [("sum", amount(132.0), 1.0)]);
    assert_eq!(
        values(&bench.counter("P", "mean", 1.0, false, 1.0, series)),
        [("mean", Value::Gauge(1.0), 1.0)]
    );
    assert_eq!(bench.counter("P", "mean", 99.0, false, 0.002, series), []);
}

#[test]
fn an_interval_shorter_than_ours() {
    // Another tool asked for a second, we for three: sums add up, the last mean counts.
    let mut bench = Bench::new("P", 3.0);
    let series = "Interval=1000";
    for (number, expected) in
        [(1.0, None), (2.0, None), (4.0, Some(7.0)), (1.0, None), (1.0, None), (1.0, Some(3.0))]
    {
        let updates = bench.counter("P", "sum", number, true, 1.0, series);
        let expected: Vec<_> = expected.map(|sum| ("sum", amount(sum), 3.0)).into_iter().collect();
        assert_eq!(values(&updates), expected);
    }
    for (number, expected) in [(1.0, None), (2.0, None), (4.0, Some(4.0))] {
        let updates = bench.counter("P", "mean", number, false, 0.99, series);
        let expected: Vec<_> = expected.map(|mean| ("mean", Value::Gauge(mean), 3.0)).into_iter().collect();
        assert_eq!(values(&updates), expected);
    }
    // And a longer one, which can't be helped: it is told.
    assert_eq!(
        values(&bench.counter("P", "slow", 8.0, true, 5.0, "Interval=5000")),
        [("slow", amount(8.0), 5.0)]
    );
}

#[test]
fn instruments_of_every_kind() {
    let mut bench = Bench::new("M", 1.0);
    let text = Written::Text;
    let tags = ("tags", text("a=1"));
    let with_total =
        [tags.clone(), ("rate", text("5")), ("value", text("15")), ("instrumentId", Written::I32(1))];
    let updates = bench.metric("CounterRateValuePublished", ("M", "c"), &with_total);
    let change = Value::Change { increment: Some(5.0), total: Some(15.0) };
    assert_eq!(values(&updates), [("c", change.clone(), 1.0)]);
    let Update::Sample(sample) = &updates[0] else { panic!("{updates:?}") };
    assert_eq!((sample.series.kind, sample.series.tags.text()), (SeriesKind::Counter, "a=1"));
    assert_eq!(sample.series.instrument_id, Some(1));

    let mut with_total = with_total;
    with_total[3].1 = Written::I32(2);
    let updates = bench.metric("UpDownCounterRateValuePublished", ("M", "u"), &with_total);
    assert_eq!(values(&updates), [("u", change, 1.0)]);

    // The packages for .NET 6 and 7 don't send totals.
    let updates =
        bench.metric("CounterRateValuePublished", ("M", "old"), &[tags.clone(), ("rate", text("2.5"))]);
    assert_eq!(values(&updates), [("old", amount(2.5), 1.0)]);
    let Update::Sample(sample) = &updates[0] else { panic!("{updates:?}") };
    assert_eq!((sample.series.kind, sample.series.instrument_id), (SeriesKind::Rate, None));

    // The first interval of an observable counter has no rate.
    let first = [tags.clone(), ("rate", text("")), ("value", text("100"))];
    let updates = bench.metric("CounterRateValuePublished", ("M", "o"), &first);
    assert_eq!(values(&updates), [("o", Value::Change { increment: None, total: Some(100.0) }, 1.0)]);

    let updates =
        bench.metric("GaugeValuePublished", ("M", "g"), &[tags.clone(), ("lastValue", text("-1E-05"))]);
    assert_eq!(values(&updates), [("g", Value::Gauge(-1e-5), 1.0)]);
    let none = bench.metric("GaugeValuePublished", ("M", "g"), &[tags.clone(), ("lastValue", text(""))]);
    assert_eq!(none, [], "nothing was recorded in this interval");

    let quantiles = ("quantiles", text("0.5=1;0.95=2.5;0.99=3"));
    let histogram = [tags.clone(), quantiles, ("count", Written::I32(9)), ("sum", Written::F64(12.5))];
    let updates = bench.metric("HistogramValuePublished", ("M", "h"), &histogram);
    let value = Value::Histogram {
        quantiles: vec![(0.5, 1.0), (0.95, 2.5), (0.99, 3.0)],
        count: Some(9),
        sum: Some(12.5),
    };
    assert_eq!(values(&updates), [("h", value, 1.0)]);
    let none = [tags, ("quantiles", text("")), ("count", Written::I32(0)), ("sum", Written::F64(0.0))];
    let updates = bench.metric("HistogramValuePublished", ("M", "h"), &none);
    let value = Value::Histogram { quantiles: vec![], count: Some(0), sum: Some(0.0) };
    assert_eq!(values(&updates), [("h", value, 1.0)]);
}

#[test]
fn an_instrument_that_ends_takes_its_series_along() {
    let mut bench = Bench::new("M", 1.0);
    for tags in ["a=1", "a=2"] {
        bench.metric(
            "GaugeValuePublished",
            ("M", "g"),
            &[("tags", Written::Text(tags)), ("lastValue", Written::Text("1"))],
        );
    }
    let updates = bench.metric("EndInstrumentReporting", ("M", "g"), &[]);
    assert_eq!(updates.iter().filter(|update| matches!(update, Update::Ended(_))).count(), 2);
}

#[test]
fn other_sessions() {
    let mut bench = Bench::new("M", 1.0);
    let event = |session| {
        vec![
            ("sessionId", Written::Text(session)),
            ("meterName", Written::Text("M")),
            ("instrumentName", Written::Text("g")),
            ("tags", Written::Text("")),
            ("lastValue", Written::Text("1")),
        ]
    };
    let metrics = "System.Diagnostics.Metrics";
    assert_eq!(bench.send(metrics, "GaugeValuePublished", &event("theirs")), []);
    let running = [("runningSessionId", Written::Text("theirs"))];
    let updates = bench.send(metrics, "MultipleSessionsNotSupportedError", &running);
    assert_eq!(notices(&updates), [Notice::OtherSession { id: "theirs".into() }]);
    assert_eq!(bench.send(metrics, "MultipleSessionsNotSupportedError", &running), [], "said once");
    assert_eq!(values(&bench.send(metrics, "GaugeValuePublished", &event("theirs"))).len(), 1);
    assert_eq!(bench.send(metrics, "GaugeValuePublished", &event("SHARED")), []);
}

#[test]
fn settings_of_a_shared_session() {
    let mut bench = Bench::new("M", 1.0);
    let wrong = |client| {
        vec![
            ("clientId", Written::Text(client)),
            ("expectedMaxHistograms", Written::I32(20)),
            ("actualMaxHistograms", Written::I32(10)),
            ("expectedMaxTimeSeries", Written::I32(500)),
            ("actualMaxTimeSeries", Written::I32(1000)),
            ("expectedRefreshInterval", Written::F64(2.0)),
            ("actualRefreshInterval", Written::F64(1.0)),
        ]
    };
    let event = "MultipleSessionsConfiguredIncorrectlyError";
    assert_eq!(bench.send("System.Diagnostics.Metrics", event, &wrong("somebody")), []);
    let updates = bench.send("System.Diagnostics.Metrics", event, &wrong("me"));
    let settings = SharedSettings { max_histograms: 20, max_time_series: 500, interval: 2.0 };
    assert_eq!(notices(&updates), [Notice::SharedSettings(settings)]);
}

#[test]
fn a_meter_supersedes_event_counters_of_its_name() {
    let mut bench = Bench::new("System.Runtime", 1.0);
    let now = Instant::now();
    let mut board = Board::new(Duration::from_secs(1), now);
    let show = |board: &mut Board, updates: Vec<Update>| {
        updates.iter().for_each(|update| board.apply(update, now));
        board.rows().map(|row| row.sample.series.name.clone()).collect::<Vec<_>>()
    };
    let series = "Interval=1000";
    for name in ["cpu-usage", "gc-heap-size"] {
        let updates = bench.counter("System.Runtime", name, 1.0, false, 1.0, series);
        show(&mut board, updates);
    }
    assert_eq!(show(&mut board, vec![]), ["cpu-usage", "gc-heap-size"]);
    let updates = bench.metric("BeginInstrumentReporting", ("System.Runtime", "dotnet.exceptions"), &[]);
    assert_eq!(show(&mut board, updates), ["gc-heap-size"], "what the Meter lacks stays");
    let updates = bench.counter("System.Runtime", "cpu-usage", 1.0, false, 1.0, series);
    assert_eq!(updates, []);
    let updates = bench.counter("System.Runtime", "gc-heap-size", 2.0, false, 1.0, series);
    assert_eq!(values(&updates), [("gc-heap-size", Value::Gauge(2.0), 1.0)]);
}

#[test]
fn what_a_target_complains_about() {
    let mut bench = Bench::new("M", 1.0);
    let metrics = "System.Diagnostics.Metrics";
    let session = ("sessionId", Written::Text("SHARED"));
    let updates = bench.send(metrics, "HistogramLimitReached", std::slice::from_ref(&session));
    assert_eq!(notices(&updates), [Notice::HistogramLimit]);
    let updates = bench.send(metrics, "TimeSeriesLimitReached", std::slice::from_ref(&session));
    assert_eq!(notices(&updates), [Notice::TimeSeriesLimit]);
    let fields = [session, ("errorMessage", Written::Text("Boom\n at X"))];
    let updates = bench.send(metrics, "ObservableInstrumentCallbackError", &fields);
    assert_eq!(notices(&updates), [Notice::CallbackError { message: "Boom\n at X".into() }]);
    assert!(text::notice(&notices(&updates)[0]).ends_with(": Boom"));
    let updates = bench.send("P", "EventSourceMessage", &[("message", Written::Text("bad event"))]);
    assert_eq!(
        notices(&updates),
        [Notice::EventSourceError { provider: "P".into(), message: "bad event".into() }]
    );
}

#[test]
fn more_series_than_anybody_needs() {
    let mut bench = Bench::new("M,P", 1.0);
    let mut gauge = |tags: &str| {
        let fields = [("tags", Written::Text(tags)), ("lastValue", Written::Text("1"))];
        bench.metric("GaugeValuePublished", ("M", "g"), &fields)
    };
    for n in 0..10_000 {
        assert_eq!(values(&gauge(&format!("n={n}"))).len(), 1, "series {n}");
    }
    assert_eq!(gauge("n=new"), [Update::Notice(Notice::TimeSeriesLimit)]);
    assert_eq!(gauge("n=newer"), [], "it is told once");
    assert_eq!(values(&gauge("n=0")).len(), 1, "those that are there go on");

    let mut counter = |name: &str| bench.counter("P", name, 1.0, false, 1.0, "Interval=1000");
    for n in 0..10_000 {
        assert_eq!(values(&counter(&n.to_string())).len(), 1, "counter {n}");
    }
    assert_eq!(counter("new"), [Update::Notice(Notice::TimeSeriesLimit)]);
    assert_eq!(counter("newer"), []);
    assert_eq!(values(&counter("0")).len(), 1);
}

#[test]
fn series_longer_than_anybody_needs() {
    let mut bench = Bench::new("M,P", 1.0);
    let long = "x".repeat(500_000);
    // 10,000 of them would be gigabytes.
    let mut gauge = |n: usize| {
        let tags = format!("n={n},x={long}");
        let fields = [("tags", Written::Text(&tags)), ("lastValue", Written::Text("1"))];
        bench.metric("GaugeValuePublished", ("M", "g"), &fields)
    };
    let kept = (0..50).take_while(|&n| values(&gauge(n)).len() == 1).count();
    assert!((10..49).contains(&kept), "{kept} series");
    assert_eq!(gauge(100), [], "it was told");
    assert_eq!(values(&gauge(0)).len(), 1, "those that are there go on");
    assert_eq!(bench.metric("EndInstrumentReporting", ("M", "g"), &[]).len(), kept);

    // There is room again, and it is not used up by what is told again and again.
    for n in 0..50 {
        let tags = format!("n={n},x={long}");
        let updates =
            bench.metric("BeginInstrumentReporting", ("M", "h"), &[("meterTags", Written::Text(&tags))]);
        assert_eq!(updates.len(), usize::from(n == 0), "number {n}");
    }
    let mut counter = |n: usize| bench.counter("P", &format!("{n}{long}"), 1.0, false, 1.0, "Interval=1000");
    let kept = (0..50).take_while(|&n| values(&counter(n)).len() == 1).count();
    assert!((10..49).contains(&kept), "{kept} counters");
}

#[test]
fn histograms_of_more_quantiles_than_there_are() {
    let mut bench = Bench::new("M", 1.0);
    let quantiles = "0.5=1;".repeat(10_000);
    let fields = [("tags", Written::Text("")), ("quantiles", Written::Text(&quantiles))];
    let updates = bench.metric("HistogramValuePublished", ("M", "h"), &fields);
    let [(_, Value::Histogram { quantiles, .. }, _)] = &values(&updates)[..] else { panic!("{updates:?}") };
    assert_eq!(quantiles.len(), 100);
}

#[test]
fn what_a_target_complains_about_at_length() {
    let mut bench = Bench::new("P", 1.0);
    let long = "ü".repeat(100_000);
    let updates = bench.send("P", "EventSourceMessage", &[("message", Written::Text(&long))]);
    let [Notice::EventSourceError { message, .. }] = &notices(&updates)[..] else { panic!() };
    assert_eq!(message.chars().count(), 2001);
}

#[test]
fn nothing_is_missed_of_a_runtime_that_is_not_asked() {
    let start = Instant::now();
    let board = Board::new(Duration::from_secs(1), start);
    let later = start + Duration::from_secs(9);
    assert_eq!(board.late(later), Some(Duration::from_secs(9)));
    assert_eq!(board.without_runtime().late(later), None);
}

#[test]
fn the_past_that_a_board_keeps() {
    let now = Instant::now();
    let mut bench = Bench::new("P", 1.0);
    let new = || Board::new(Duration::from_secs(1), now);
    let (mut with, mut without) = (new().with_history(), new());
    for n in 0..400 {
        for update in bench.counter("P", "a", f64::from(n), false, 1.0, "Interval=1000") {
            with.apply(&update, now);
            without.apply(&update, now);
        }
    }
    let row = with.find("P", "a").expect("a row");
    assert_eq!((row.history.len(), row.history.back().map(|&(_, value)| value)), (300, Some(399.0)));
    assert!(row.history.capacity() < 400, "{}", row.history.capacity());
    assert!(without.find("P", "a").expect("a row").history.is_empty());
}
