//! `dnd counters`.

use crate::error::CliError;

/// The subcommands of `dnd counters`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show counters on a screen that refreshes itself
    Monitor,
}

/// Runs a subcommand.
pub(crate) fn run(_command: Command) -> Result<(), CliError> {
    Err(CliError::new(dnd_contract::Kind::Internal, "not built yet"))
}
