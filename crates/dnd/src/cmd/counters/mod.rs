//! `dnd counters`: arguments that its subcommands share, and the loop that serves them.

mod collect;
mod export;
mod http;
mod hub;
mod json;
mod lines;
mod monitor;
mod output;
mod port;
mod screen;
mod targets;
mod terminal;

use std::time::Duration;

use dnd_counters::{Request, Selection};

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
}

/// Runs a subcommand.
pub(crate) fn run(command: &Command) -> Result<(), CliError> {
    match command {
        Command::Monitor(args) => monitor::run(args),
        Command::Collect(args) => collect::run(args),
        Command::Export(args) => export::run(args),
    }
}

/// What to watch, and for how long.
#[derive(Debug, clap::Args)]
struct WatchArgs {
    #[command(flatten)]
    targets: targets::TargetsArgs,

    #[command(flatten)]
    port: targets::PortOptions,

    /// Counters to watch: PROVIDER or PROVIDER[COUNTER,...], separated by commas [default: System.Runtime,OS,cgroup]
    ///
    /// A provider is an EventSource or a Meter; both are asked for, and a Meter is preferred. `EventCounters\PROVIDER`
    /// leaves the Meter out. A well-known counter of System.Runtime needs no provider: `gc-heap-size` is
    /// `System.Runtime[gc-heap-size]`. Its old and its new names (`dotnet.gc.last_collection.heap.size`) each find both.
    /// `OS` and `cgroup` are what the operating system knows of the process and its container.
    #[arg(long, value_name = "LIST", value_parser = Selection::parse)]
    counters: Option<Selection>,

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
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
}

impl WatchArgs {
    fn request(&self) -> Request {
        let selection = self.counters.clone().unwrap_or_default();
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

/// `DD:HH:MM:SS` as the peers have it, or numbers with units.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "expected DD:HH:MM:SS, or as in 90s, 10m, 1h30m".to_owned();
    let parts: Vec<&str> = text.split(':').collect();
    if let [days, hours, minutes, seconds] = parts.as_slice() {
        let mut total = 0u64;
        for (part, factor) in [(days, 86_400), (hours, 3_600), (minutes, 60), (seconds, 1)] {
            let number: u64 = part.parse().map_err(|_| bad())?;
            total = number.checked_mul(factor).and_then(|n| total.checked_add(n)).ok_or_else(bad)?;
        }
        return Ok(Duration::from_secs(total));
    }
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let mut chars = tail.chars();
        let factor = match chars.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            _ => return Err(bad()),
        };
        total = number.checked_mul(factor).and_then(|n| total.checked_add(n)).ok_or_else(bad)?;
        rest = chars.as_str();
    }
    if text.is_empty() { Err(bad()) } else { Ok(Duration::from_secs(total)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let seconds = |text| duration(text).map(|d| d.as_secs());
        assert_eq!(seconds("00:00:01:30"), Ok(90));
        assert_eq!(seconds("1:0:0:0"), Ok(86_400));
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("1h30m"), Ok(5_400));
        for bad in
            ["", "5", "1:2", "1:2:3:4:5", "m", "5x", "-1s", "99999999999999999999s", "999999999999999999d"]
        {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn intervals() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "0.05", "-1", "x", "NaN", "inf", "1e9"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
