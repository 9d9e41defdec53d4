//! `dnd counters monitor`.

use std::io::{self, IsTerminal};

use dnd_contract::Kind;
use dnd_counters::session::End;

use super::action::OutputTo;
use super::hub::watch;
use super::json::Documents;
use super::lines::Lines;
use super::output::Output;
use super::port::Started;
use super::screen::Screen;
use super::sink::{Sink, State, Target};
use super::writer;
use super::{CountersArgs, WatchArgs};
use crate::error::CliError;
use crate::target::block_on;

/// Arguments of `dnd counters monitor`.
///
/// On a terminal a screen; otherwise a line for each value and interval: time, process, provider, counter, value and
/// unit, separated by tabs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    counters: CountersArgs,

    #[command(flatten)]
    watch: WatchArgs,

    /// Also show by how much each value changed
    #[arg(long = "showDeltas", alias = "show-deltas")]
    show_deltas: bool,

    /// Write numbers from a hundred million on as 1e+08 [default: only on a screen of less than 72 columns]
    #[arg(
        long = "abbreviateLargeNumbers",
        alias = "abbreviate-large-numbers",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = false
    )]
    abbreviate: Option<bool>,

    /// Print one JSON document a line for each interval (docs/json/counters.md)
    #[arg(long)]
    json: bool,
}

/// Watches until the user, the duration or the process ends it.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let request = args.watch.request(args.counters.counters.clone());
    block_on(async {
        // A terminal that calls itself dumb moves no cursor.
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let screen = !args.json && io::stdout().is_terminal() && !dumb;
        if screen && args.watch.port.show_child_io {
            return Err(CliError::new(
                Kind::Usage,
                "--show-child-io would write into the screen; `dnd counters collect` can",
            ));
        }
        let (arrivals, started) = args.watch.targets.resolve(&args.watch.port).await?;
        let duration = args.watch.duration;
        let mut keys = None;
        let mut sink: Box<dyn Sink> = if args.json {
            Box::new(Documents::new(request.interval, Output::stdout()))
        } else if screen {
            let (screen, receiver) = Screen::open(args.show_deltas, args.abbreviate, arrivals.single)?;
            keys = receiver;
            Box::new(screen)
        } else {
            Box::new(Lines::default())
        };
        let output = if screen { OutputTo::Kept } else { OutputTo::Stderr };
        let alerts = args.watch.alerts.start(request.interval, output);
        let watched = watch(arrivals, request, duration, keys, alerts, sink.as_mut()).await;
        // The terminal is put back before anything is said on it.
        drop(sink);
        say_ends(&watched?, started.as_ref());
        finish(started.as_ref())
    })
}

/// The exit code of a program that was started for this and has ended.
pub(super) fn finish(started: Option<&Started>) -> Result<(), CliError> {
    match started.and_then(Started::code) {
        Some(code) if code != 0 => Err(CliError::Code(code)),
        _ => Ok(()),
    }
}

/// What a user should know about the end of processes, on standard error.
pub(super) fn say_ends(targets: &[Target], started: Option<&Started>) {
    for target in targets {
        let (pid, name) = (target.subject.pid, dnd_contract::escape(&target.subject.name));
        let State::Ended(end) = target.state else { continue };
        let known = started.and_then(|started| started.status(pid));
        let text = match end {
            // Some leave without closing their event stream.
            End::TargetEnded | End::TargetDied if let Some(status) = known => {
                format!("process {pid} ({name}) has ended ({status})")
            }
            End::Stopped => continue,
            End::Abandoned => format!(
                "note: process {pid} ({name}) did not confirm the end of the session; the connection was closed, which \
                 ends it as soon as the process goes on"
            ),
            End::TargetEnded => format!("process {pid} ({name}) has ended"),
            End::TargetDied => format!("process {pid} ({name}) has ended abruptly: killed, or crashed"),
        };
        writer::say(&text);
    }
}
