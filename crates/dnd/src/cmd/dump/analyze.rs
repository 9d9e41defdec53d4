//! `dnd dump analyze`.

use crate::error::CliError;

/// Arguments of `dnd dump analyze`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: &Args) -> Result<(), CliError> {
    Err(CliError::new(dnd_contract::Kind::Internal, "not built yet"))
}
