//! `dnd dump collect`.

use crate::error::CliError;

/// Arguments of `dnd dump collect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: &Args) -> Result<(), CliError> {
    Err(CliError::new(dnd_contract::Kind::Internal, "not built yet"))
}
