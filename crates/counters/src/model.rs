//! From events to updates.

use dnd_nettrace::{Event, Item, TraceInfo};

use crate::event_counters::EventCounters;
use crate::meters::Meters;
use crate::request::{METRICS, Request};
use crate::room::brief;
use crate::sample::{Notice, Update};
use crate::selection::{KEPT_BESIDE_METER, SYSTEM_RUNTIME, Selection};

/// Understands the events of one session. No I/O: [`Model::item`] takes what the parser finds.
#[derive(Debug)]
pub struct Model {
    selection: Selection,
    interval: f64,
    trace: Option<TraceInfo>,
    event_counters: EventCounters,
    meters: Meters,
}

impl Model {
    /// A model for the session of `request`.
    #[must_use]
    pub fn new(request: &Request) -> Self {
        let interval = request.interval.as_secs_f64();
        Self {
            selection: request.selection.clone(),
            interval,
            trace: None,
            event_counters: EventCounters::new(request.max_time_series),
            meters: Meters::new(&request.client, interval, request.max_time_series),
        }
    }

    /// Sets the name under which the session for Meters is asked for: the target uses it to speak to this client.
    pub fn joins_as(&mut self, client: &str) {
        self.meters.joins_as(client);
    }

    /// Whether the target's Metrics provider was heard of.
    pub(crate) fn has_meters(&self) -> bool {
        self.meters.present()
    }

    /// Whether the target has Meters and has not yet finished its first collection of their values.
    pub(crate) fn first_collection_pending(&self) -> bool {
        self.meters.first_collection_pending()
    }

    /// Appends to `updates` what an item of the stream changes.
    pub fn item(&mut self, item: &Item<'_>, updates: &mut Vec<Update>) {
        match item {
            Item::Trace(trace) => self.trace = Some((*trace).clone()),
            Item::Event(event) => self.event(event, updates),
            Item::Dropped(dropped) => {
                updates.push(Update::Notice(Notice::Dropped { events: u64::from(dropped.count) }));
            }
            Item::Damaged(error) => {
                updates.push(Update::Notice(Notice::Damaged { message: error.to_string() }));
            }
            _ => {}
        }
    }

    fn event(&mut self, event: &Event<'_>, updates: &mut Vec<Update>) {
        let unix_nanos = self.trace.as_ref().map_or(0, |trace| trace.unix_nanos(event.timestamp));
        let (selection, provider) = (&self.selection, event.kind.provider.as_str());
        match event.kind.name.as_str() {
            "EventCounters" => {
                let superseded = self.meters.reports(provider);
                let wanted = |counter: &str| {
                    selection.includes_event_counter(provider, counter)
                        && (!superseded || selection.keeps(provider, counter))
                };
                updates.extend(self.event_counters.event(event, unix_nanos, self.interval, wanted));
            }
            _ if provider == METRICS => {
                let wanted = |meter: &str, instrument: &str| selection.includes_instrument(meter, instrument);
                self.meters.event(event, unix_nanos, wanted, updates);
            }
            "EventSourceMessage" => {
                let payload = event.decode();
                let message = payload.unwrapped().iter().find_map(|(_, value)| value.as_text());
                let message = brief(message.unwrap_or_default());
                updates.push(Update::Notice(Notice::EventSourceError { provider: brief(provider), message }));
            }
            _ => {}
        }
    }
}

/// Whether an EventCounter stays although a Meter of the same name reports.
pub(crate) fn survives_meter(provider: &str, counter: &str) -> bool {
    counter == KEPT_BESIDE_METER && provider.eq_ignore_ascii_case(SYSTEM_RUNTIME)
}
