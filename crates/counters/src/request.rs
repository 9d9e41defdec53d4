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

    /// The session to start.
    ///
    /// EventCounters are written whatever the level, so the lowest is asked for: a higher one would also start the
    /// ordinary events of their EventSource.
    #[must_use]
    pub fn session(&self) -> SessionRequest {
        let interval = format!("{}", self.interval.as_secs_f64());
        let event_counters = self.selection.providers().iter().map(|provider| {
            Provider::new(&provider.name, 0, EventLevel::Critical).arg("EventCounterIntervalSec", &interval)
        });
        let mut providers: Vec<_> = event_counters.collect();
        let meters: Vec<_> = self.selection.meters().collect();
        if !meters.is_empty() {
            // 2: values of time series.
            let metrics = Provider::new(METRICS, 2, EventLevel::Informational)
                .arg("SessionId", SHARED)
                .arg("Metrics", meters.join(","))
                .arg("RefreshInterval", &interval)
                .arg("MaxTimeSeries", self.max_time_series.to_string())
                .arg("MaxHistograms", self.max_histograms.to_string())
                .arg("ClientId", &self.client);
            providers.push(metrics);
        }
        SessionRequest { buffer_mb: BUFFER_MB, providers, rundown: Rundown::None, stacks: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_of_a_session() {
        let selection = Selection::parse("System.Runtime,EventCounters\\Old,My.Meter[a]").unwrap();
        let mut request = Request::new(selection, "me");
        request.interval = Duration::from_millis(500);
        let session = request.session();
        let names: Vec<_> =
            session.providers.iter().map(|p| (p.name.as_str(), p.keywords, p.level)).collect();
        assert_eq!(
            names,
            [
                ("System.Runtime", 0, EventLevel::Critical),
                ("Old", 0, EventLevel::Critical),
                ("My.Meter", 0, EventLevel::Critical),
                ("System.Diagnostics.Metrics", 2, EventLevel::Informational),
            ]
        );
        assert_eq!(session.providers[0].args, [("EventCounterIntervalSec".into(), "0.5".into())]);
        let args: Vec<_> = session.providers[3].args.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            args.join(";"),
            "SessionId=SHARED;Metrics=System.Runtime,My.Meter;RefreshInterval=0.5;MaxTimeSeries=1000;\
             MaxHistograms=10;ClientId=me"
        );
    }

    #[test]
    fn without_meters_the_metrics_provider_is_left_alone() {
        let request = Request::new(Selection::parse("EventCounters\\A").unwrap(), "me");
        assert_eq!(request.session().providers.len(), 1);
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
