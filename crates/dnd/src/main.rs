//! `dnd`: what is my .NET process doing, and why does it grow?
//!
//! The binary holds what touches the user: arguments, terminals, progress, exit codes. Everything else is in the
//! crates beside it; `docs/architecture.md` walks one command from here to the last byte.

mod cmd;
mod error;
mod output;
mod repl;
mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Find out what a .NET process is doing, and why it grows
///
/// Reads .NET Core 3.1 to .NET 10 on Linux: live processes through their diagnostics socket, core dumps without any
/// help of the runtime that wrote them.
#[derive(Debug, Parser)]
#[command(name = "dnd", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the .NET processes of this machine
    Ps(cmd::ps::Args),
    /// Watch the counters of a process
    #[command(subcommand)]
    Counters(cmd::counters::Command),
    /// Collect and analyze dumps
    #[command(subcommand)]
    Dump(cmd::dump::Command),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Ps(args) => cmd::ps::run(&args),
        Command::Counters(command) => cmd::counters::run(&command),
        Command::Dump(command) => cmd::dump::run(command),
    };
    error::exit(result)
}
