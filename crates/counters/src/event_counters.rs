//! EventCounters: an event for each counter and interval, with a dictionary as its payload.
//!
//! Two things make a sample out of more than one event. .NET Core 3.1 sends every counter twice, the second time with
//! an interval of a few milliseconds: its mean is worth nothing, its increment counts. And all sessions of a process
//! share the shortest interval that any of them asked for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use dnd_nettrace::{Event, Value as Field};

use crate::room::Room;
use crate::sample::{Sample, Series, SeriesKind, Source, Update, Value};
use crate::tags::Tags;

/// Turns events into samples.
#[derive(Debug)]
pub(crate) struct EventCounters {
    series: HashMap<(String, String), State>,
    room: Room,
}

#[derive(Debug)]
struct State {
    series: Arc<Series>,
    /// What happened in intervals too short for a sample of their own.
    increment: f64,
    seconds: f64,
}

/// The payload of an event, by name.
struct Dictionary<'e, 'a>(&'e [(&'a str, Field<'a>)]);

impl<'e, 'a> Dictionary<'e, 'a> {
    fn get(&self, name: &str) -> Option<&'e Field<'a>> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> &'e str {
        self.get(name).and_then(Field::as_text).unwrap_or_default()
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(Field::as_f64)
    }
}

impl EventCounters {
    /// `series` is how many are wanted at most, see [`Room::new`].
    pub(crate) fn new(series: u32) -> Self {
        Self { series: HashMap::new(), room: Room::new(series) }
    }

    /// The sample that is complete with this event, if any. `wanted` decides by the counter's name; `own_interval` is
    /// the one asked for, in seconds.
    pub(crate) fn event(
        &mut self,
        event: &Event<'_>,
        unix_nanos: i64,
        own_interval: f64,
        wanted: impl FnOnce(&str) -> bool,
    ) -> Option<Update> {
        let payload = event.decode();
        let [(_, Field::Object(fields))] = payload.unwrapped() else { return None };
        let fields = Dictionary(fields);
        let name = fields.text("Name");
        if !wanted(name) {
            return None;
        }
        let rate = fields.text("CounterType") == "Sum" || fields.get("Increment").is_some();
        let number = fields.number(if rate { "Increment" } else { "Mean" })?;
        let seconds =
            fields.number("IntervalSec").filter(|s| s.is_finite() && *s >= 0.0).unwrap_or(own_interval);
        // `Interval=1000`: what the target's timer is set to, in milliseconds.
        let set = fields.text("Series").split_once('=').and_then(|(_, ms)| ms.parse::<f64>().ok());
        let timer = set.filter(|ms| *ms > 0.0).map_or(seconds, |ms| ms / 1000.0);

        let key = (event.kind.provider.clone(), name.to_owned());
        let state = match self.series.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let series = Arc::new(Series {
                    source: Source::EventCounter,
                    provider: event.kind.provider.clone(),
                    name: name.to_owned(),
                    display_name: first_filled(fields.text("DisplayName"), name),
                    description: String::new(),
                    unit: fields.text("DisplayUnits").to_owned(),
                    kind: if rate { SeriesKind::Rate } else { SeriesKind::Gauge },
                    tags: metadata(fields.text("Metadata")),
                    meter_version: String::new(),
                    meter_tags: Tags::default(),
                    instrument_tags: Tags::default(),
                    instrument_id: None,
                });
                if !self.room.take(&series) {
                    return self.room.full();
                }
                place.insert(State { series, increment: 0.0, seconds: 0.0 })
            }
        };
        if rate {
            state.increment += number;
        }
        let repeated = seconds < timer / 2.0;
        if repeated {
            return None;
        }
        state.seconds += seconds;
        // Somebody else's shorter interval: wait until ours is over, give or take half of theirs.
        if state.seconds + timer / 2.0 < own_interval {
            return None;
        }
        let interval = if timer < own_interval { own_interval } else { timer };
        let increment = std::mem::take(&mut state.increment);
        state.seconds = 0.0;
        let value = if rate {
            Value::Change { increment: Some(increment), total: None }
        } else {
            Value::Gauge(number)
        };
        Some(Update::Sample(Sample { series: Arc::clone(&state.series), unix_nanos, interval, value }))
    }
}

fn first_filled(text: &str, other: &str) -> String {
    if text.trim().is_empty() { other.to_owned() } else { text.to_owned() }
}

/// `key:value,key:value`, unsorted and unescaped; shown as the tags they are.
fn metadata(text: &str) -> Tags {
    let tags: Vec<_> = text.split(',').filter_map(|part| part.split_once(':')).collect();
    let mut tags: Vec<_> = tags.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    tags.sort();
    Tags::parse(&tags.join(","))
}
