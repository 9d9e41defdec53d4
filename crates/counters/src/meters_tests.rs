//! Meters and instruments that have the same names.

use std::time::{Duration, Instant};

use dnd_testkit::nettrace::Value as Written;

use crate::tests::{Bench, notices};
use crate::*;

#[test]
fn instruments_that_cannot_be_told_apart() {
    let text = Written::Text;
    let begin = |meter_tags, id| {
        [
            ("description", text("what it is")),
            ("instrumentTags", text("")),
            ("meterTags", text(meter_tags)),
            ("instrumentId", Written::I32(id)),
        ]
    };
    let value =
        |number, id| [("tags", text("")), ("lastValue", text(number)), ("instrumentId", Written::I32(id))];
    // .NET 8 has no ids: what is known of one of the two must not be said of the other.
    for (ids, tags) in [([0, 0], ["", ""]), ([1, 2], ["r=a", "r=b"])] {
        let mut bench = Bench::new("M", 1.0);
        for (id, meter_tags) in ids.into_iter().zip(["r=a", "r=b"]) {
            bench.metric("BeginInstrumentReporting", ("M", "g"), &begin(meter_tags, id));
        }
        let mut seen = Vec::new();
        let mut said = Vec::new();
        for _ in 0..2 {
            bench.metric("CollectionStart", ("", ""), &[]);
            for (id, number) in ids.into_iter().zip(["1", "2"]) {
                let updates = bench.metric("GaugeValuePublished", ("M", "g"), &value(number, id));
                said.extend(notices(&updates));
                seen.extend(updates.into_iter().filter_map(|update| match update {
                    Update::Sample(sample) => Some(sample.series.meter_tags.text().to_owned()),
                    _ => None,
                }));
            }
        }
        assert_eq!(seen, [tags, tags].concat());
        let ambiguous = Notice::Ambiguous { provider: "M".into(), name: "g".into() };
        assert_eq!(said, if ids == [0, 0] { vec![ambiguous] } else { vec![] });
    }
    // An instrument is described anew for everyone who joins the session.
    let mut bench = Bench::new("M", 1.0);
    for _ in 0..2 {
        bench.metric("BeginInstrumentReporting", ("M", "g"), &begin("r=a", 0));
    }
    let updates = bench.metric("GaugeValuePublished", ("M", "g"), &value("1", 0));
    let Update::Sample(sample) = &updates[0] else { panic!("{updates:?}") };
    assert_eq!((sample.series.meter_tags.text(), sample.series.description.as_str()), ("r=a", "what it is"));
}

#[test]
fn versions_of_a_meter_have_rows_of_their_own() {
    let mut bench = Bench::new("M", 1.0);
    let now = Instant::now();
    let mut board = Board::new(Duration::from_secs(1), now);
    for (version, unit, value) in [("1", "a", "1"), ("2", "a", "2"), ("2", "b", "3")] {
        let fields = [("sessionId", "SHARED"), ("meterName", "M"), ("meterVersion", version)];
        let fields =
            fields.into_iter().chain([("instrumentName", "g"), ("unit", unit), ("lastValue", value)]);
        let fields: Vec<_> = fields.map(|(name, text)| (name, Written::Text(text))).collect();
        for update in bench.send("System.Diagnostics.Metrics", "GaugeValuePublished", &fields) {
            board.apply(&update, now);
        }
    }
    let shown: Vec<_> = board.rows().map(|row| row.sample.value.headline()).collect();
    assert_eq!(shown, [Some(1.0), Some(2.0), Some(3.0)]);
}
