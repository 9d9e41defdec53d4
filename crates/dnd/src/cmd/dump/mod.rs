//! `dnd dump`.

mod analyze;
mod collect;
mod open;

use crate::error::CliError;

/// The subcommands of `dnd dump`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Have a process's runtime write a dump of it
    Collect(collect::Args),
    /// Ask questions about a core dump
    Analyze(analyze::Args),
}

/// Runs a subcommand.
pub(crate) fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Collect(args) => collect::run(&args),
        Command::Analyze(args) => analyze::run(&args),
    }
}
