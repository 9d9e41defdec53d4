//! What to ask of a process: from a selection to the providers of a session.

use std::num::NonZeroU32;
use std::time::Duration;

use dnd_ipc::{EventLevel, Provider, Rundown, SessionRequest};

use crate::error::Error;
use crate::selection::Selection;

/// The EventSource that publishes Meters.
pub(crate) const METRICS: &str = "System.Diagnostics.Metrics";

/// The session id with which several tools can watch the Meters of one process (.NET 8 and later; for earlier ones it
/// is an id like any other).
pub(crate) const SHARED: &str = "SHARED";

/// Room for events in the target while nobody reads. It is a limit and not set aside at once: a few hundred counters
/// take some 100 KB an interval.
const BUFFER_MB: NonZeroU32 = NonZeroU32::new(16).expect("16 is not 0");

/// What is to be watched.
#[derive(Debug, Clone)]
pub struct Request {
    /// The counters.
    pub selection: Selection,
    /// Time between two samples.
    pub interval: Duration,
    /// The most histograms that the target keeps track of.
    pub max_histograms: u32,
    /// The most tag combinations that the target keeps track of.
    pub max_time_series: u32,
    /// Names this client in messages of the target to all sharers of a session.
    pub client: String,
}

impl Request {
    /// A request with the usual limits: a sample a second, 10 histograms, 1000 time series. `client` is any text that
    /// no other tool uses.
    pub fn new(selection: Selection, client: impl Into<String>) -> Self {
        Self {
            selection,
            interval: Duration::from_secs(1),
            max_histograms: 10,
            max_time_series: 1000,
            client: client.into(),
        }
    }

    /// Checks what a user can get wrong.
    ///
    /// # Errors
    ///
    /// The interval is one that runtimes replace by another, silently.
    pub fn check(&self) -> Result<(), Error> {
        if (0.1..=86_400.0).contains(&self.interval.as_secs_f64()) {
            Ok(())
        } else {
            Err(Error::Interval(self.interval))
        }
    }

    /// The sessions to start, each after the one before was answered.
    ///
    /// Meters and EventCounters must not be switched on together. While a runtime switches the Metrics provider on, it
    /// holds the lock of all EventSources; if the first EventCounters of the process fall due meanwhile, their thread
    /// holds the lock of an EventSource that is used for the first time (`ArrayPoolEventSource`) and waits for the
    /// former, while the former needs the latter: the runtime's diagnostics hang until it is restarted. Seen on .NET
    /// 10 with intervals of 0.1 and 0.2 s; a process that gets little CPU can get there with longer ones. One after
    /// the other is safe, because a runtime answers when a provider is switched on (.NET 5 and later).
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionRequest> {
        self.meters_session().into_iter().chain(self.event_counters_session()).collect()
    }

    /// The session for Meters; `None` if none are wanted.
    pub(crate) fn meters_session(&self) -> Option<SessionRequest> {
        let meters: Vec<_> = self.selection.meters().collect();
        if meters.is_empty() {
            return None;
        }
        // 2: values of time series.
        let metrics = Provider::new(METRICS, 2, EventLevel::Informational)
            .arg("SessionId", SHARED)
            .arg("Metrics", meters.join(","))
            .arg("RefreshInterval", self.seconds())
            .arg("MaxTimeSeries", self.max_time_series.to_string())
            .arg("MaxHistograms", self.max_histograms.to_string())
            .arg("ClientId", &self.client);
        Some(session(vec![metrics]))
    }

    /// The session for EventCounters; `None` if only the operating system is asked. They are written whatever the level, so the lowest is asked for: a higher one
    /// would also start the ordinary events of their EventSource.
    fn event_counters_session(&self) -> Option<SessionRequest> {
        let interval = self.seconds();
        let provider = |provider: &crate::selection::Provider| {
            Provider::new(&provider.name, 0, EventLevel::Critical).arg("EventCounterIntervalSec", &interval)
        };
        let providers: Vec<_> = self.selection.providers().map(provider).collect();
        if providers.is_empty() { None } else { Some(session(providers)) }
    }

    fn seconds(&self) -> String {
        self.interval.as_secs_f64().to_string()
    }
}

fn session(providers: Vec<Provider>) -> SessionRequest {
    SessionRequest { buffer_mb: BUFFER_MB, providers, rundown: Rundown::None, stacks: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_first() {
        let selection = Selection::parse("System.Runtime,EventCounters\\Old,My.Meter[a]").unwrap();
        let mut request = Request::new(selection, "me");
        request.interval = Duration::from_millis(500);
        let sessions = request.sessions();
        let [meters, event_counters] = sessions.as_slice() else { panic!("{sessions:?}") };
        let [metrics] = meters.providers.as_slice() else { panic!("{meters:?}") };
        assert_eq!((metrics.name.as_str(), metrics.keywords), ("System.Diagnostics.Metrics", 2));
        let args: Vec<_> = metrics.args.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            args.join(";"),
            "SessionId=SHARED;Metrics=System.Runtime,My.Meter;RefreshInterval=0.5;MaxTimeSeries=1000;\
             MaxHistograms=10;ClientId=me"
        );
        let names: Vec<_> =
            event_counters.providers.iter().map(|p| (p.name.as_str(), p.keywords, p.level)).collect();
        let expected = ["System.Runtime", "Old", "My.Meter"].map(|name| (name, 0, EventLevel::Critical));
        assert_eq!(names, expected);
        assert_eq!(event_counters.providers[0].args, [("EventCounterIntervalSec".into(), "0.5".into())]);
    }

    #[test]
    fn without_meters_the_metrics_provider_is_left_alone() {
        let request = Request::new(Selection::parse("EventCounters\\A").unwrap(), "me");
        assert_eq!(request.sessions().len(), 1);
    }

    #[test]
    fn intervals() {
        for (seconds, ok) in
            [(0.0, false), (0.05, false), (0.1, true), (1.0, true), (86_400.0, true), (1e9, false)]
        {
            let mut request = Request::new(Selection::default(), "me");
            request.interval = Duration::from_secs_f64(seconds);
            assert_eq!(request.check().is_ok(), ok, "{seconds}");
        }
    }
}
