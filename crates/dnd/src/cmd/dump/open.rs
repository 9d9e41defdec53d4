//! Opening a core dump: the one way in for every command that reads one.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dnd_contract::{Kind, escape};
use dnd_memory::{Core, FileOptions, Packing, WithFiles};
use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::CliError;

/// Which dump, and where the files are that its process had loaded.
#[derive(Debug, clap::Args)]
pub(crate) struct CoreArgs {
    /// The core dump, also one packed with zstd, gzip, xz or LZ4 [default: the newest core, core_*,
    /// core.* or coredump.* of this folder]
    core: Option<PathBuf>,
    /// Folder with the target's files: a copy of its root, or the modules themselves; may be given several times
    ///
    /// Pages that the dump's maker left out are read from the module files: first those below these folders, then
    /// those of this machine. A file is used only when it is the one that the process had loaded (same build-id, or
    /// for DLLs the same time stamp and size); `dnd dump info` lists what was used and refused.
    #[arg(long = "modules", visible_alias = "sysroot", value_name = "FOLDER")]
    folders: Vec<PathBuf>,
}

impl CoreArgs {
    /// The dump's path; says on standard error which one was chosen when none was named.
    pub(crate) fn path(&self) -> Result<PathBuf, CliError> {
        if let Some(path) = &self.core {
            return Ok(path.clone());
        }
        let newest = newest_core(Path::new("."))?;
        talk(&format!("opening {}, the newest core dump here", newest.display()));
        Ok(newest)
    }

    /// Opens the dump at `path` with the module files behind it.
    ///
    /// A packed one is unpacked first, into a file without a name that is gone when the program ends.
    pub(crate) fn open(&self, path: &Path) -> Result<WithFiles, CliError> {
        if let Some(folder) = self.folders.iter().find(|folder| !folder.is_dir()) {
            return Err(CliError::new(Kind::NotFound, format!("{} is not a folder", folder.display())));
        }
        let core = match packing(path) {
            Some(packing) => unpack(path, packing)?,
            None => Core::open(path)?,
        };
        // A DLL that the dump has no byte of can't be compared as a file; its tables are held against the runtime's
        // own when its metadata is read.
        let options = FileOptions { folders: self.folders.clone(), local: true, unchecked: true };
        Ok(WithFiles::new(core, options))
    }
}

/// How a file is packed; `None` also when it can't be read: opening it will say why.
fn packing(path: &Path) -> Option<Packing> {
    // Opening a pipe waits until somebody writes to it.
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut magic = Vec::new();
    fs::File::open(path).ok()?.take(6).read_to_end(&mut magic).ok()?;
    Packing::of(&magic)
}

fn unpack(path: &Path, packing: Packing) -> Result<Core, CliError> {
    let folder = std::env::temp_dir();
    talk(&format!(
        "{} is packed ({}): unpacking it into a temporary file in {}",
        path.display(),
        packing.name(),
        folder.display()
    ));
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent}% {msg}") {
        bar.set_style(style);
    }
    let shown = io::stderr().is_terminal();
    let core = Core::open_packed(path, &folder, &mut |progress| {
        if shown {
            bar.set_length(progress.of.max(1));
            bar.set_position(progress.read);
            bar.set_message(DecimalBytes(progress.unpacked).to_string());
        }
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    let core = core?;
    if let Some(damage) = core.packed().and_then(|packed| packed.damage.as_ref()) {
        talk(&format!(
            "warning: the packed data of {} is damaged after {} bytes of the dump: {damage}",
            path.display(),
            core.file_size()
        ));
    }
    Ok(core)
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
        CliError::new(Kind::NotFound, "there is no file core, core_*, core.* or coredump.* in this folder")
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
pub(super) fn talk(text: &str) {
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
