//! Meters: the events of the `System.Diagnostics.Metrics` EventSource.
//!
//! Source: `MetricsEventSource.cs` of dotnet/runtime, in the packages for .NET 6 and 7 and in .NET 8 to 10. Fields are
//! found by name, because later versions add some.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dnd_nettrace::{Event, Payload};

use crate::request::SHARED;
use crate::room::{Room, brief};
use crate::sample::{Notice, Sample, Series, SeriesKind, SharedSettings, Source, Update, Value};
use crate::tags::Tags;

/// Instruments of `System.Runtime` that are declared as counters (.NET 9 and 10) and go up and down.
const MISTYPED: [&str; 2] = ["dotnet.thread_pool.thread.count", "dotnet.thread_pool.queue.length"];

/// So many quantiles of a histogram are kept.
const MOST_QUANTILES: usize = 100;

/// What tells instruments apart: the runtime's number where it has one, else all that is known of the name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum InstrumentKey {
    Id(i64),
    Name { meter: String, version: String, name: String, unit: String },
}

/// What the runtime says of an instrument when it starts to report it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Instrument {
    description: String,
    meter_tags: Tags,
    instrument_tags: Tags,
    /// What was taken for it of the room.
    bytes: usize,
}

/// A series, and the collection of values in which it had its last one.
#[derive(Debug)]
struct Known {
    series: Arc<Series>,
    collection: u64,
}

/// Turns events into samples.
#[derive(Debug)]
pub(crate) struct Meters {
    /// The session whose events are ours.
    session: String,
    client: String,
    instruments: HashMap<InstrumentKey, Instrument>,
    series: HashMap<InstrumentKey, HashMap<String, Known>>,
    /// How many collections of values have begun.
    collection: u64,
    /// Instruments of which it was told that they can't be told apart.
    ambiguous: HashSet<InstrumentKey>,
    room: Room,
    /// Meters that report instruments.
    reporting: HashSet<String>,
    /// Whether the target has the Metrics provider: any of its events was seen.
    present: bool,
    /// Whether a collection of values was seen to its end.
    collected: bool,
    /// Seconds between two samples; another sharer of the session may have set it.
    interval: f64,
}

/// A payload, by name.
struct Fields<'a>(Payload<'a>);

impl Fields<'_> {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(|value| value.as_text()).unwrap_or_default()
    }

    fn integer(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(dnd_nettrace::Value::as_i64)
    }

    /// A number that is sent as text; `None` if it is not given.
    fn number(&self, name: &str) -> Option<f64> {
        let text = self.text(name);
        // .NET writes its special values in words that Rust understands, but for the sign of infinity in old versions.
        match text {
            "∞" => Some(f64::INFINITY),
            "-∞" => Some(f64::NEG_INFINITY),
            _ => text.parse().ok(),
        }
    }

    fn instrument(&self) -> InstrumentKey {
        match self.integer("instrumentId") {
            Some(id) if id != 0 => InstrumentKey::Id(id),
            _ => InstrumentKey::Name {
                meter: self.text("meterName").to_owned(),
                version: self.text("meterVersion").to_owned(),
                name: self.text("instrumentName").to_owned(),
                unit: self.text("unit").to_owned(),
            },
        }
    }
}

impl Meters {
    /// `series` is how many are wanted at most, see [`Room::new`].
    pub(crate) fn new(client: &str, interval: f64, series: u32) -> Self {
        Self {
            session: SHARED.to_owned(),
            client: client.to_owned(),
            instruments: HashMap::new(),
            series: HashMap::new(),
            collection: 0,
            ambiguous: HashSet::new(),
            room: Room::new(series),
            reporting: HashSet::new(),
            present: false,
            collected: false,
            interval,
        }
    }

    /// Whether the target has the Metrics provider.
    pub(crate) fn present(&self) -> bool {
        self.present
    }

    /// Whether the target's first collection of values is yet to come, or under way.
    pub(crate) fn first_collection_pending(&self) -> bool {
        self.present && !self.collected
    }

    pub(crate) fn joins_as(&mut self, client: &str) {
        client.clone_into(&mut self.client);
    }

    /// Whether a Meter of that name reports instruments.
    pub(crate) fn reports(&self, meter: &str) -> bool {
        self.reporting.iter().any(|m| m.eq_ignore_ascii_case(meter))
    }

    /// Appends to `updates` what an event changes. `wanted` decides by Meter and instrument.
    pub(crate) fn event(
        &mut self,
        event: &Event<'_>,
        unix_nanos: i64,
        wanted: impl FnOnce(&str, &str) -> bool,
        updates: &mut Vec<Update>,
    ) {
        let fields = Fields(event.decode());
        let session = fields.text("sessionId");
        self.present = true;
        self.collected |= event.kind.name == "CollectionStop";
        match event.kind.name.as_str() {
            "MultipleSessionsNotSupportedError" => {
                // We get no data of our own. What the other session sends is seen by all.
                let running = fields.text("runningSessionId");
                let id = brief(if running.is_empty() { session } else { running });
                if id != self.session {
                    self.session.clone_from(&id);
                    updates.push(Update::Notice(Notice::OtherSession { id }));
                }
                return;
            }
            "MultipleSessionsConfiguredIncorrectlyError" => {
                if fields.text("clientId") == self.client
                    && let Some(settings) = shared_settings(&fields)
                {
                    self.interval = settings.interval;
                    self.room.allow(settings.max_time_series);
                    updates.push(Update::Notice(Notice::SharedSettings(settings)));
                }
                return;
            }
            _ => {}
        }
        if session != self.session {
            return;
        }
        self.collection += u64::from(event.kind.name == "CollectionStart");
        if self.session != SHARED && event.kind.name == "CollectionStop" {
            // Somebody else's session: nobody told us its interval.
            self.measure(&fields);
        }
        let message = || brief(fields.text("errorMessage"));
        let kind = match event.kind.name.as_str() {
            "CounterRateValuePublished" if fields.0.get("value").is_none() => SeriesKind::Rate,
            "CounterRateValuePublished" if MISTYPED.contains(&fields.text("instrumentName")) => {
                SeriesKind::UpDownCounter
            }
            "CounterRateValuePublished" => SeriesKind::Counter,
            "UpDownCounterRateValuePublished" => SeriesKind::UpDownCounter,
            "GaugeValuePublished" => SeriesKind::Gauge,
            "HistogramValuePublished" => SeriesKind::Histogram,
            "BeginInstrumentReporting" => {
                if wanted(fields.text("meterName"), fields.text("instrumentName")) {
                    self.begin(&fields, updates);
                }
                return;
            }
            "EndInstrumentReporting" => return self.end(&fields, updates),
            "TimeSeriesLimitReached" => return updates.push(Update::Notice(Notice::TimeSeriesLimit)),
            "HistogramLimitReached" => return updates.push(Update::Notice(Notice::HistogramLimit)),
            "Error" => return updates.push(Update::Notice(Notice::MetricsError { message: message() })),
            "ObservableInstrumentCallbackError" => {
                return updates.push(Update::Notice(Notice::CallbackError { message: message() }));
            }
            _ => return,
        };
        if !wanted(fields.text("meterName"), fields.text("instrumentName")) {
            return;
        }
        let value = match kind {
            SeriesKind::Gauge => fields.number("lastValue").map(Value::Gauge),
            SeriesKind::Histogram => Some(Value::Histogram {
                quantiles: quantiles(fields.text("quantiles")),
                count: fields.integer("count"),
                sum: fields.0.get("sum").and_then(dnd_nettrace::Value::as_f64),
            }),
            _ => match (fields.number("rate"), fields.number("value")) {
                (None, None) => None,
                (increment, total) => Some(Value::Change { increment, total }),
            },
        };
        // No value in this interval: nothing was recorded, or a callback failed.
        let Some(value) = value else { return };
        if let Some(series) = self.series(fields.instrument(), kind, &fields, updates) {
            updates.push(Update::Sample(Sample { series, unix_nanos, interval: self.interval, value }));
        } else {
            updates.extend(self.room.full());
        }
    }

    fn measure(&mut self, fields: &Fields<'_>) {
        let time = |name: &str| match fields.0.get(name) {
            Some(dnd_nettrace::Value::DateTime(units)) => Some(*units),
            _ => None,
        };
        if let (Some(start), Some(end)) = (time("intervalStartTime"), time("intervalEndTime")) {
            // Units of 100 ns, to a tenth of a second: what people set, without the jitter of a timer.
            let tenths = end.saturating_sub(start).saturating_add(500_000) / 1_000_000;
            #[expect(clippy::cast_precision_loss, reason = "tenths of a second")]
            if tenths > 0 {
                self.interval = tenths as f64 / 10.0;
            }
        }
    }

    fn begin(&mut self, fields: &Fields<'_>, updates: &mut Vec<Update>) {
        let meter = fields.text("meterName");
        let [description, meter_tags, instrument_tags] =
            ["description", "meterTags", "instrumentTags"].map(|name| fields.text(name));
        let names = meter.len() + fields.text("meterVersion").len() + fields.text("instrumentName").len();
        let bytes = 512 + 2 * names + description.len() + 3 * (meter_tags.len() + instrument_tags.len());
        let key = fields.instrument();
        let known = self.forget(&key);
        let new = !self.reporting.contains(meter);
        // A Meter stays known when its instruments are gone.
        if !self.room.take_bytes(if new { bytes + 512 + meter.len() } else { bytes }) {
            updates.extend(self.room.full());
            return;
        }
        let instrument = Instrument {
            description: description.to_owned(),
            meter_tags: Tags::parse(meter_tags),
            instrument_tags: Tags::parse(instrument_tags),
            bytes,
        };
        // It is told again for everyone who joins the session. Where it says something else this time, there are two
        // such instruments, and the values of neither can be given to it.
        let other = known.is_some_and(|known| known != instrument);
        self.instruments
            .insert(key, if other { Instrument { bytes, ..Instrument::default() } } else { instrument });
        if new {
            self.reporting.insert(meter.to_owned());
            updates.push(Update::EventCountersSuperseded { provider: meter.to_owned() });
        }
    }

    /// Forgets what was said of an instrument, and gives that.
    fn forget(&mut self, key: &InstrumentKey) -> Option<Instrument> {
        let instrument = self.instruments.remove(key)?;
        self.room.give_bytes(instrument.bytes);
        Some(instrument)
    }

    fn end(&mut self, fields: &Fields<'_>, updates: &mut Vec<Update>) {
        let key = fields.instrument();
        self.forget(&key);
        let series = self.series.remove(&key).unwrap_or_default();
        series.values().for_each(|known| self.room.give(&known.series));
        self.ambiguous.remove(&key);
        updates.extend(series.into_values().map(|known| Update::Ended(known.series)));
    }

    /// The series of a value, made when it is new.
    fn series(
        &mut self,
        key: InstrumentKey,
        kind: SeriesKind,
        fields: &Fields<'_>,
        updates: &mut Vec<Update>,
    ) -> Option<Arc<Series>> {
        let tags = fields.text("tags");
        let collection = self.collection;
        if let Some(known) = self.series.get_mut(&key).and_then(|series| series.get_mut(tags)) {
            let again = std::mem::replace(&mut known.collection, collection) == collection && collection > 0;
            let series = Arc::clone(&known.series);
            if again && self.ambiguous.insert(key) {
                let (provider, name) = (series.provider.clone(), series.name.clone());
                updates.push(Update::Notice(Notice::Ambiguous { provider, name }));
            }
            return Some(series);
        }
        let instrument = self.instruments.get(&key).cloned().unwrap_or_default();
        let name = fields.text("instrumentName").to_owned();
        let series = Arc::new(Series {
            source: Source::Meter,
            provider: fields.text("meterName").to_owned(),
            display_name: name.clone(),
            description: instrument.description,
            name,
            unit: fields.text("unit").to_owned(),
            kind,
            tags: Tags::parse(tags),
            meter_version: fields.text("meterVersion").to_owned(),
            meter_tags: instrument.meter_tags,
            instrument_tags: instrument.instrument_tags,
            instrument_id: if let InstrumentKey::Id(id) = key { Some(id) } else { None },
        });
        if !self.room.take(&series) {
            return None;
        }
        let known = Known { series: Arc::clone(&series), collection };
        self.series.entry(key).or_default().insert(tags.to_owned(), known);
        Some(series)
    }
}

/// `0.5=1;0.95=2;0.99=3`; .NET sends these three.
fn quantiles(text: &str) -> Vec<(f64, f64)> {
    let pair = |part: &str| {
        let (quantile, value) = part.split_once('=')?;
        Some((quantile.parse().ok()?, value.parse().ok()?))
    };
    text.split(';').filter_map(pair).take(MOST_QUANTILES).collect()
}

fn shared_settings(fields: &Fields<'_>) -> Option<SharedSettings> {
    // Integers in the event, or text, depending on the version.
    let whole = |name: &str| {
        let value = fields.integer(name).or_else(|| fields.text(name).parse().ok())?;
        u32::try_from(value).ok()
    };
    let seconds = fields.0.get("expectedRefreshInterval")?;
    Some(SharedSettings {
        max_histograms: whole("expectedMaxHistograms")?,
        max_time_series: whole("expectedMaxTimeSeries")?,
        interval: seconds.as_f64().or_else(|| seconds.as_text()?.parse().ok())?,
    })
}
