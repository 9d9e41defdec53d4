//! `dnd counters alert`: nothing but conditions and what is done about them.

use std::io;

use dnd_contract::{Envelope, Kind, escape};
use dnd_counters::alerts::What;
use dnd_counters::{Selection, Update};

use super::WatchArgs;
use super::action::OutputTo;
use super::alerts::{Told, lines};
use super::hub::watch;
use super::lines::Said;
use super::monitor::{finish, say_ends};
use super::output::Output;
use super::sink::{Sink, Target};
use super::writer::say;
use crate::error::CliError;
use crate::target::block_on;

/// Arguments of `dnd counters alert`.
///
/// Only the counters of the conditions are watched. A line on standard output for each alert, and for the end of what it
/// ran. It goes on until the process ends, or Ctrl-C.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    watch: WatchArgs,

    /// Print one JSON document a line for each event (docs/json/counters.md)
    #[arg(long)]
    json: bool,
}

/// Waits until the user, the duration or the process ends it.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    if args.watch.alerts.rules.is_empty() {
        return Err(CliError::new(Kind::Usage, "no condition is given")
            .hint("--alert 'gc-heap-size>500MB for 30s' --then 'dnd dump collect'"));
    }
    let request = args.watch.request(Some(Selection::empty()));
    block_on(async {
        let (arrivals, started) = args.watch.targets.resolve(&args.watch.port).await?;
        let alerts = args.watch.alerts.start(request.interval, OutputTo::Stderr);
        for text in args.watch.alerts.described() {
            say(&escape(&text));
        }
        let mut sink = Events { out: Output::stdout(), json: args.json, said: Said::default() };
        let watched = watch(arrivals, request, args.watch.duration, None, alerts, &mut sink).await?;
        say_ends(&watched, started.as_ref());
        finish(started.as_ref())
    })
}

/// Writes events as they come.
struct Events {
    out: Output,
    json: bool,
    said: Said,
}

impl Sink for Events {
    fn updates(&mut self, targets: &[Target], index: usize, updates: &[Update]) -> io::Result<()> {
        self.said.notices(targets, index, updates);
        Ok(())
    }

    fn tick(&mut self, targets: &[Target]) -> io::Result<()> {
        self.said.trouble(targets);
        Ok(())
    }

    fn alert(&mut self, _targets: &[Target], told: &Told) -> io::Result<()> {
        let mut line = if self.json {
            serde_json::to_string(&Envelope { schema: "dnd.counters.alert", version: 1, facts: &told.facts })?
        } else if matches!(told.facts.what, What::Warning { .. }) {
            say(&lines(told));
            return Ok(());
        } else {
            lines(told)
        };
        line.push('\n');
        self.out.write(line.into_bytes())
    }

    fn end(&mut self, _targets: &[Target]) -> io::Result<()> {
        Ok(())
    }

    fn failed(&self, error: io::Error) -> CliError {
        self.out.failed(error)
    }
}
