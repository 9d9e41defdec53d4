//! `dnd dump analyze`.

use dnd_analyze::info::{signal, warnings};
use dnd_analyze::{Format, Session};
use dnd_clr::{Progress, Runtime};
use dnd_contract::Kind;

use super::open::{CoreArgs, talk};
use crate::error::CliError;
use crate::repl;

/// Arguments of `dnd dump analyze`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    core: CoreArgs,
    /// Run this command and end; may be given several times (`help` lists the commands)
    #[arg(short = 'c', long = "command", value_name = "COMMAND", allow_hyphen_values = true)]
    commands: Vec<String>,
    /// Answer each command with one JSON document on a line (docs/json)
    #[arg(long)]
    json: bool,
    /// Never put long output through a pager
    #[arg(long)]
    no_pager: bool,
}

/// What Ctrl-C cancels and the progress bar watches; one command runs at a time.
static PROGRESS: Progress = Progress::new();

/// Opens the dump and answers commands.
pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    let path = args.core.path()?;
    let target = args.core.open(&path)?;
    let runtime = Runtime::open(&target);
    for warning in warnings(target.core(), runtime.as_ref().ok()) {
        talk(&format!("warning: {warning}"));
    }
    let runtime = runtime?;
    repl::cancel_on_ctrl_c(&PROGRESS)
        .map_err(|error| CliError::new(Kind::Failed, format!("cannot handle signals: {error}")))?;
    let session = Session::new(&runtime, &PROGRESS).with_signal(signal(target.core(), Some(&runtime)));
    let options = repl::Options {
        format: if args.json { Format::Json } else { Format::Text },
        pager: !args.no_pager && !args.json,
    };
    if args.commands.is_empty() {
        repl::run_session(&session, &PROGRESS, options)
    } else {
        repl::run_commands(&session, &args.commands, &PROGRESS, options)
    }
}
