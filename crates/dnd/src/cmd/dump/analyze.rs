//! `dnd dump analyze`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dnd_analyze::{Format, Session};
use dnd_clr::{Progress, Runtime};
use dnd_contract::{Kind, escape};
use dnd_memory::{Core, FileOptions, WithFiles};

use crate::error::CliError;
use crate::repl;

/// Arguments of `dnd dump analyze`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The core dump [default: the newest core_* or core.* of the current folder]
    core: Option<PathBuf>,
    /// Run this command and end; may be given several times (`help` lists the commands)
    #[arg(short = 'c', long = "command", value_name = "COMMAND", allow_hyphen_values = true)]
    commands: Vec<String>,
    /// Answer each command with one JSON document on a line (docs/json)
    #[arg(long)]
    json: bool,
    /// Never put long output through a pager
    #[arg(long)]
    no_pager: bool,
    /// Folder with the target's files: a copy of its root, or the modules themselves; may be given several times
    #[arg(long = "modules", visible_alias = "sysroot", value_name = "FOLDER")]
    folders: Vec<PathBuf>,
}

/// What Ctrl-C cancels and the progress bar watches; one command runs at a time.
static PROGRESS: Progress = Progress::new();

/// Opens the dump and answers commands.
pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    let path = match &args.core {
        Some(path) => path.clone(),
        None => {
            let newest = newest_core(Path::new("."))?;
            talk(&format!("opening {}, the newest core dump here", newest.display()));
            newest
        }
    };
    let core = Core::open(&path)?;
    if let Some(cut) = core.truncation() {
        talk(&format!(
            "warning: {} is cut off: {} of {} bytes are there; answers may lack what was in the rest",
            path.display(),
            cut.actual,
            cut.expected
        ));
    }
    let options = FileOptions { folders: args.folders.clone(), ..FileOptions::default() };
    let target = WithFiles::new(core, options);
    let runtime = Runtime::open(&target)?;
    repl::cancel_on_ctrl_c(&PROGRESS)
        .map_err(|error| CliError::new(Kind::Failed, format!("cannot handle signals: {error}")))?;
    let session = Session::new(&runtime, &PROGRESS);
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

/// The file of a folder whose name is that of a core dump and that was written last.
fn newest_core(folder: &Path) -> Result<PathBuf, CliError> {
    let unreadable = |error: io::Error| {
        CliError::new(Kind::Permission, format!("cannot list the folder {}: {error}", folder.display()))
    };
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        if !is_core_name(&name.to_string_lossy()) {
            continue;
        }
        // The link's target counts: whoever links a core here wants it opened.
        let Ok(metadata) = fs::metadata(entry.path()) else { continue };
        let Some(modified) = metadata.modified().ok().filter(|_| metadata.is_file()) else { continue };
        let path = PathBuf::from(name);
        if newest.as_ref().is_none_or(|(time, other)| (*time, other) < (modified, &path)) {
            newest = Some((modified, path));
        }
    }
    newest.map(|(_, path)| path).ok_or_else(|| {
        CliError::new(Kind::NotFound, "there is no file core_* or core.* in this folder")
            .hint("name the core dump: dnd dump analyze <CORE>")
            .hint("`dnd dump collect -p <PID>` makes one")
    })
}

/// Names that createdump, `dnd dump collect`, dotnet-dump and the kernel give to core dumps.
fn is_core_name(name: &str) -> bool {
    const BESIDES: [&str; 4] = [".json", ".txt", ".part", ".tmp"];
    let core = name == "core"
        || name.starts_with("core_")
        || name.starts_with("core.")
        || name.starts_with("coredump.");
    core && !BESIDES.iter().any(|end| name.ends_with(end))
}

/// Says something beside the data.
fn talk(text: &str) {
    // Nothing is left to do when standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{}", escape(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_core_dumps() {
        for name in ["core", "core_20261122_173000", "core.1234", "coredump.1"] {
            assert!(is_core_name(name), "{name}");
        }
        for name in ["core_1.crashreport.json", "cores", "corelib.dll", "notes.core.md", "core_1.oracle.txt"]
        {
            assert!(!is_core_name(name), "{name}");
        }
    }
}
