//! `dnd dump`.

mod analyze;
mod collect;
mod info;
mod open;

use crate::error::CliError;

/// The subcommands of `dnd dump`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Have a process's runtime write a dump of it
    Collect(collect::Args),
    /// Tell what a core dump is, how complete it is, and which commands will suffer
    Info(info::Args),
    /// Ask questions about a core dump
    Analyze(analyze::Args),
    /// List the .NET processes of this machine
    Ps(super::ps::Args),
}

/// Runs a subcommand.
pub(crate) fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Collect(args) => collect::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Analyze(args) => analyze::run(&args),
        Command::Ps(args) => super::ps::run(&args),
    }
}
