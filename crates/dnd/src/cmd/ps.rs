//! `dnd ps`.

use std::io::IsTerminal;

use dnd_ipc::procfs::ProcFs;

use crate::error::CliError;
use crate::output;
use crate::target::{block_on, discovery};

/// Arguments of `dnd ps`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON document (docs/json/ps.md)
    #[arg(long)]
    json: bool,
}

/// Lists the processes.
pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    let found = discovery().scan();
    let proc = ProcFs::default();
    let facts = block_on(async { Ok(dnd_ps::list(&proc, found).await) })?;
    if args.json {
        return output::json("dnd.ps", 1, &facts);
    }
    output::text(|out| dnd_ps::write_table(out, &facts, terminal_width()))
}

/// The width to cut to; none in a pipe or a file.
fn terminal_width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    crossterm::terminal::size().ok().map(|(columns, _)| usize::from(columns)).filter(|&columns| columns > 0)
}
