//! `dnd dump collect`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dnd_collect_dump::{DumpType, Request, prepare};
use dnd_contract::{Kind, escape};
use dnd_ps::Chosen;
use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::CliError;
use crate::output;
use crate::target::{TargetArgs, block_on};

/// Arguments of `dnd dump collect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,

    /// The file to write, as the process sees it; must not exist [default: core_YYYYMMDD_HHMMSS in this folder]
    ///
    /// It is the process's own runtime that writes it. When the process sees another file system (a container), the
    /// default is its temporary folder; the path behind /proc/PID/root under which the file is found from here is
    /// printed at the end.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// What the dump holds
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t = Type::Full, ignore_case = true)]
    dump_type: Type,

    /// Have the runtime log on the process's own console what it does
    #[arg(long)]
    diag: bool,

    /// Also write FILE.crashreport.json: threads, stacks and modules (.NET 6 and later)
    #[arg(long = "crashreport")]
    crash_report: bool,

    /// Try even what is known to fail, or to make the process crash later
    #[arg(long)]
    force: bool,

    /// Print one JSON document (docs/json/dump-collect.md)
    #[arg(long)]
    json: bool,
}

/// The types by the names that dotnet-dump gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Type {
    /// All memory
    Full,
    /// Threads, modules and the heaps of the garbage collector: what `dnd dump analyze` needs
    Heap,
    /// Threads and modules
    Mini,
    /// Threads and modules, without paths and other personal information
    Triage,
}

impl From<Type> for DumpType {
    fn from(from: Type) -> Self {
        match from {
            Type::Full => Self::Full,
            Type::Heap => Self::Heap,
            Type::Mini => Self::Mini,
            Type::Triage => Self::Triage,
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    block_on(async {
        let target = args.target.resolve().await?;
        let request = Request {
            output: args.output.clone().unwrap_or_else(|| default_output(&target)),
            dump_type: args.dump_type.into(),
            diag: args.diag,
            crash_report: args.crash_report,
            force: args.force,
            // A second dump within the second gets a number behind its name.
            numbered: args.output.is_none(),
        };
        let cwd = std::env::current_dir()
            .map_err(|e| CliError::new(Kind::NotFound, format!("the current folder can't be used: {e}")))?;
        // From here on a signal must not leave files behind.
        let interrupted = interruption()?;
        let prepared = prepare(&target, request, &cwd)?;
        for warning in prepared.warnings() {
            say(&format!("warning: {warning}"));
        }
        let known = prepared.warnings().len();
        if !args.json {
            let line = prepared.announcement();
            output::text(|out| writeln!(out, "{line}"))?;
        }
        let bar = progress();
        let facts = tokio::select! {
            facts = prepared.run(|size| bar.set_message(DecimalBytes(size).to_string())) => Some(facts),
            () = interrupted => None,
        };
        bar.finish_and_clear();
        let facts = facts.ok_or_else(|| cancelled(&target))??;
        for warning in facts.warnings.iter().skip(known) {
            say(&format!("warning: {warning}"));
        }
        if args.json {
            return output::json("dnd.dump.collect", 1, &facts);
        }
        output::text(|out| dnd_collect_dump::write_text(out, &facts))
    })
}

/// A line that shows the size so far; draws nothing where standard error is no terminal.
fn progress() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {msg} in {elapsed}; the process stands still meanwhile")
    {
        bar.set_style(style);
    }
    bar.set_message("0 B");
    bar.tick();
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Ends with the first Ctrl-C, or when the terminal or the system wants this program to end.
fn interruption() -> Result<impl Future<Output = ()>, CliError> {
    let listen = |kind| {
        signal(kind).map_err(|e| CliError::new(Kind::Failed, format!("cannot watch for signals: {e}")))
    };
    let (mut int, mut term, mut hup) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    Ok(async move {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    })
}

fn cancelled(target: &Chosen) -> CliError {
    let pid = target.process.pid;
    CliError::new(Kind::Failed, "cancelled: no dump was written")
        .hint(format!(
            "the runtime can't be told to stop: process {pid} may stand still until its dump would have been finished"
        ))
        .hint("what it had written is removed, and its disk space is free again when it is done")
}

/// `core_{yyyyMMdd_HHmmss}`, in the current folder or where a target that doesn't see it surely can write: where its
/// socket is.
fn default_output(target: &Chosen) -> PathBuf {
    let name = jiff::Zoned::now().strftime("core_%Y%m%d_%H%M%S").to_string();
    match target.process.other_root {
        Some(true) => target.endpoint.inner_path().parent().unwrap_or(Path::new("/tmp")).join(name),
        _ => PathBuf::from(name),
    }
}

/// A line on standard error.
fn say(line: &str) {
    // Nothing is left to do when standard error is gone.
    let _ = writeln!(std::io::stderr().lock(), "{}", escape(line));
}
