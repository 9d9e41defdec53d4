//! `dnd counters monitor`.

use std::io::{self, IsTerminal, Write};

use dnd_counters::session::End;

use super::WatchArgs;
use super::json::Documents;
use super::lines::Lines;
use super::screen::Screen;
use super::watch::{Sink, watch};
use crate::error::CliError;
use crate::target::block_on;

/// Arguments of `dnd counters monitor`.
///
/// On a terminal a screen; otherwise a line for each value and interval: time, process, provider, counter, value and
/// unit, separated by tabs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    watch: WatchArgs,

    /// Also show by how much each value changed
    #[arg(long = "showDeltas", alias = "show-deltas")]
    show_deltas: bool,

    /// Print one JSON document a line for each interval (docs/json/counters.md)
    #[arg(long)]
    json: bool,
}

/// Watches until the user, the duration or the process ends it.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let request = args.watch.request();
    block_on(async {
        let chosen = args.watch.target.resolve().await?;
        let (pid, name) = (chosen.facts.pid, chosen.facts.name.clone());
        let duration = args.watch.duration;
        let mut keys = None;
        let mut sink: Box<dyn Sink> = if args.json {
            Box::new(Documents::new(request.interval))
        } else if io::stdout().is_terminal() {
            let (screen, receiver) = Screen::open(&chosen.facts, args.show_deltas)?;
            keys = receiver;
            Box::new(screen)
        } else {
            Box::new(Lines::new())
        };
        let end = watch(chosen, request, duration, keys, sink.as_mut()).await;
        // The terminal is put back before anything is said on it.
        drop(sink);
        say(pid, &name, end?);
        Ok(())
    })
}

/// What a user should know about the end.
fn say(pid: u32, name: &str, end: End) {
    let name = dnd_contract::escape(name);
    let text = match end {
        End::Stopped => return,
        End::Abandoned => format!(
            "note: process {pid} ({name}) did not confirm the end of the session; the connection was closed, which ends \
             it as soon as the process goes on"
        ),
        End::TargetEnded => format!("process {pid} ({name}) has ended"),
        End::TargetDied => format!("process {pid} ({name}) has ended abruptly: killed, or crashed"),
    };
    // Nothing is left to do when standard error is gone.
    let _ = writeln!(io::stderr(), "{text}");
}
