//! `dnd ps`.

use crate::error::CliError;

/// Arguments of `dnd ps`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON document (docs/json/ps.md)
    #[arg(long)]
    json: bool,
}

/// Lists the processes.
pub(crate) fn run(_args: &Args) -> Result<(), CliError> {
    Err(CliError::new(dnd_contract::Kind::Internal, "not built yet"))
}
