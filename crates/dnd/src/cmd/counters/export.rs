//! `dnd counters export`: values for monitoring systems.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dnd_contract::Kind;
use dnd_counters::Update;
use dnd_counters::export::{Process, otlp, prometheus};
use tokio::sync::{mpsc, oneshot};

use super::action::OutputTo;
use super::http::{self, Collector};
use super::hub::watch;
use super::lines::Said;
use super::monitor::{finish, say_ends};
use super::schedule::Schedule;
use super::sink::{Input, Sink, State, Target};
use super::writer::say;
use super::{CountersArgs, WatchArgs};
use crate::error::CliError;
use crate::target::block_on;

/// The port that OpenTelemetry's Prometheus exporters have by default.
const PROMETHEUS: &str = "127.0.0.1:9464";

/// Arguments of `dnd counters export`.
///
/// Serves http://127.0.0.1:9464/metrics, unless told otherwise. Ctrl-C ends it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    counters: CountersArgs,

    #[command(flatten)]
    watch: WatchArgs,

    /// Address on which to serve /metrics to Prometheus [default: 127.0.0.1:9464, unless --otlp is given]
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    prometheus: Option<SocketAddr>,

    /// OpenTelemetry collector to push to: http://HOST:4318[/v1/metrics]
    #[arg(long, value_name = "URL")]
    otlp: Option<Collector>,

    /// Seconds between two pushes
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    otlp_interval: u64,
}

/// A question of a scraper.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) format: prometheus::Format,
    pub(super) answer: oneshot::Sender<String>,
}

/// Exports until the user, the duration or the process ends it.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let request = args.watch.request(args.counters.counters.clone());
    block_on(async {
        let address = match (args.prometheus, &args.otlp) {
            (Some(address), _) => Some(address),
            (None, Some(_)) => None,
            (None, None) => PROMETHEUS.parse().ok(),
        };
        let (arrivals, started) = args.watch.targets.resolve(&args.watch.port).await?;
        let (sender, inputs) = mpsc::unbounded_channel();
        if let Some(address) = address {
            let listener = tokio::net::TcpListener::bind(address).await.map_err(|error| {
                let kind = match error.kind() {
                    io::ErrorKind::PermissionDenied => Kind::Permission,
                    io::ErrorKind::AddrInUse => Kind::Usage,
                    _ => Kind::Failed,
                };
                let failed = CliError::new(kind, format!("cannot listen on {address}: {error}"));
                match error.kind() {
                    io::ErrorKind::AddrInUse => failed.hint("--prometheus IP:PORT chooses another port"),
                    _ => failed,
                }
            })?;
            let address = listener.local_addr().unwrap_or(address);
            say(&format!("serving http://{address}/metrics; Ctrl-C ends it"));
            tokio::spawn(http::serve(listener, sender.clone()));
        }
        let push = args.otlp.clone().map(|collector| {
            say(&format!("pushing to {collector} every {} s; Ctrl-C ends it", args.otlp_interval));
            // Room for one: what is not pushed in time is out of date.
            let (sender, receiver) = mpsc::channel(1);
            tokio::spawn(http::push(collector, receiver));
            Push { sender, interval: Duration::from_secs(args.otlp_interval), due: Schedule::default() }
        });
        let alerts = args.watch.alerts.start(request.interval, OutputTo::Stderr);
        let mut sink = Export { push, said: Said::default() };
        let watched = watch(arrivals, request, args.watch.duration, Some(inputs), alerts, &mut sink).await;
        drop(sender);
        say_ends(&watched?, started.as_ref());
        finish(started.as_ref())
    })
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("expected IP:PORT, such as {PROMETHEUS}"))
}

struct Export {
    push: Option<Push>,
    said: Said,
}

/// Pushing to a collector.
struct Push {
    sender: mpsc::Sender<Vec<u8>>,
    interval: Duration,
    /// When the next push is due; begun by the first value.
    due: Schedule,
}

fn processes(targets: &[Target]) -> Vec<Process<'_>> {
    let process = |target: &'_ Target| -> bool { matches!(target.state, State::Starting | State::Watched) };
    targets
        .iter()
        .map(|target| Process {
            pid: target.subject.pid,
            name: &target.subject.name,
            assembly: target.subject.assembly.as_deref(),
            runtime: target.subject.runtime.as_deref(),
            since: target.since,
            watched: process(target),
            board: &target.board,
        })
        .collect()
}

impl Export {
    fn push(&mut self, targets: &[Target]) {
        let Some(push) = &mut self.push else { return };
        let now = Instant::now();
        if targets.iter().any(|target| target.board.has_values()) {
            push.due.begin(now);
        }
        if !push.due.take(now, push.interval) {
            return;
        }
        // While a push is under way another one waits; a third would only be older.
        let _ = push.sender.try_send(otlp::encode(&processes(targets), now));
    }
}

impl Sink for Export {
    fn updates(&mut self, targets: &[Target], index: usize, updates: &[Update]) -> io::Result<()> {
        self.said.notices(targets, index, updates);
        Ok(())
    }

    fn tick(&mut self, targets: &[Target]) -> io::Result<()> {
        self.said.trouble(targets);
        self.push(targets);
        Ok(())
    }

    fn input(&mut self, targets: &[Target], input: Input) -> io::Result<bool> {
        if let Input::Scrape(scrape) = input {
            let text = prometheus::render(&processes(targets), scrape.format, Instant::now());
            // A scraper that has gone away needs no answer.
            let _ = scrape.answer.send(text);
        }
        Ok(true)
    }

    fn end(&mut self, _targets: &[Target]) -> io::Result<()> {
        Ok(())
    }
}
