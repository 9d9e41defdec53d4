//! `dnd counters`: arguments that its subcommands share, and the loop that serves them.

mod action;
mod alert;
mod alerts;
mod collect;
mod export;
mod http;
mod hub;
mod json;
mod lines;
mod list;
mod monitor;
mod output;
mod port;
mod schedule;
mod screen;
mod signals;
mod sink;
mod targets;
mod terminal;
mod writer;

use std::time::Duration;

use dnd_counters::{Request, Selection, parse_duration};

use crate::error::CliError;

/// The subcommands of `dnd counters`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show counters on a screen that refreshes itself
    Monitor(Box<monitor::Args>),
    /// Write counters to a file, or to standard output
    Collect(Box<collect::Args>),
    /// Offer counters to Prometheus, or push them to an OpenTelemetry collector
    Export(Box<export::Args>),
    /// Only wait for conditions on counters, and act on them
    Alert(Box<alert::Args>),
    /// List the counters of .NET and of the operating system, with their units and their names on other versions
    List(list::Args),
    /// List the .NET processes of this machine
    Ps(super::ps::Args),
}

/// Runs a subcommand.
pub(crate) fn run(command: &Command) -> Result<(), CliError> {
    let result = match command {
        Command::Monitor(args) => monitor::run(args),
        Command::Collect(args) => collect::run(args),
        Command::Export(args) => export::run(args),
        Command::Alert(args) => alert::run(args),
        Command::List(args) => list::run(args),
        Command::Ps(args) => super::ps::run(args),
    };
    // What was said comes before the reason of a failure.
    writer::finish_saying();
    result
}

/// What to watch, and for how long.
#[derive(Debug, clap::Args)]
struct WatchArgs {
    #[command(flatten)]
    targets: targets::TargetsArgs,

    #[command(flatten)]
    port: targets::PortOptions,

    /// Seconds between two samples, from 0.1
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    refresh_interval: Duration,

    /// The most histograms that the process keeps track of
    #[arg(
        long = "maxHistograms",
        alias = "max-histograms",
        value_name = "COUNT",
        default_value_t = 10,
        allow_negative_numbers = true
    )]
    max_histograms: u32,

    /// The most time series (combinations of tags) that the process keeps track of
    #[arg(
        long = "maxTimeSeries",
        alias = "max-time-series",
        value_name = "COUNT",
        default_value_t = 1000,
        allow_negative_numbers = true
    )]
    max_time_series: u32,

    /// Stop after this time: DD:HH:MM:SS, or as in 90s, 10m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,

    #[command(flatten, next_help_heading = "Alerts")]
    alerts: alerts::AlertArgs,
}

/// Which counters to show.
#[derive(Debug, clap::Args)]
struct CountersArgs {
    /// Counters to watch: PROVIDER or PROVIDER[COUNTER,...], separated by commas [default: System.Runtime,OS,cgroup]
    ///
    /// A provider is an EventSource or a Meter; both are asked for, and a Meter is preferred. `EventCounters\PROVIDER`
    /// leaves the Meter out. A well-known counter of System.Runtime needs no provider: `gc-heap-size` is
    /// `System.Runtime[gc-heap-size]`. Its old and its new names (`dotnet.gc.last_collection.heap.size`) each find both.
    /// `OS` and `cgroup` are what the operating system knows of the process and its container.
    #[arg(long, value_name = "LIST", value_parser = Selection::parse)]
    counters: Option<Selection>,
}

impl WatchArgs {
    /// What to ask of a process: the counters that are to be shown (`None` for the default), and those of alerts.
    fn request(&self, counters: Option<Selection>) -> Request {
        let mut selection = counters.unwrap_or_default();
        self.alerts.select(&mut selection);
        // Process ids repeat in containers: the time makes the name unique among all that watch a process.
        let started = jiff::Timestamp::now().as_nanosecond();
        let mut request = Request::new(selection, format!("dnd-{}-{started}", std::process::id()));
        request.interval = self.refresh_interval;
        request.max_histograms = self.max_histograms;
        request.max_time_series = self.max_time_series;
        request
    }
}

/// The wall clock: UTC, nanoseconds since 1970.
fn unix_nanos_now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let interval = Duration::try_from_secs_f64(seconds).map_err(|_| "not a number of seconds".to_owned())?;
    let mut request = Request::new(Selection::default(), "");
    request.interval = interval;
    request.check().map_err(|_| "must be from 0.1 to 86400".to_owned())?;
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "0.05", "-1", "x", "NaN", "inf", "1e9"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
