//! `dnd counters list`.

use serde::Serialize;

use crate::error::CliError;
use crate::output;

/// Arguments of `dnd counters list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON document (docs/json/counters-list.md)
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Facts {
    counters: Vec<dnd_counters::Known>,
}

/// Lists what is known without asking a process.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let counters = dnd_counters::known();
    if args.json {
        return output::json("dnd.counters.list", 1, &Facts { counters });
    }
    output::text(|out| dnd_counters::write_known(out, &counters))
}
