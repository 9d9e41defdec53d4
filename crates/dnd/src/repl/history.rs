//! Lines typed before, in a file that only its owner can read.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc::O_NOFOLLOW;

/// Lines kept when the file has grown to twice as many.
const KEEP: usize = 1000;
/// A history longer than this is not ours.
const MAX_BYTES: u64 = 4 << 20;

/// The history file, open for appending.
#[derive(Debug)]
pub(super) struct History {
    file: File,
}

impl History {
    /// Opens the file below the user's state folder and gives the lines in it, oldest first.
    ///
    /// A session without a home folder, or with one that can't be written, has no history: that is no error.
    pub(super) fn open() -> Option<(Self, Vec<String>)> {
        let folder = folder(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"))?;
        Self::in_folder(&folder).ok()
    }

    fn in_folder(folder: &Path) -> io::Result<(Self, Vec<String>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = folder.join("history");
        let mut lines = match options().read(true).open(&path) {
            Ok(file) => read_lines(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        if lines.len() > 2 * KEEP {
            lines.drain(..lines.len() - KEEP);
            replace(folder, &path, &lines)?;
        }
        let file = options().append(true).create(true).mode(0o600).open(&path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            file.set_permissions(PermissionsExt::from_mode(0o600))?;
        }
        Ok((History { file }, lines))
    }

    /// Appends a line. A disk that is full must not end the session, so failure is silent.
    pub(super) fn add(&mut self, line: &str) {
        let _ = self.file.write_all(format!("{line}\n").as_bytes());
    }
}

/// `$XDG_STATE_HOME/dnd`, or `$HOME/.local/state/dnd`.
fn folder(state: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|p| p.is_absolute());
    let state = state.and_then(absolute);
    let state = state.or_else(|| Some(home.and_then(absolute)?.join(".local/state")));
    Some(state?.join("dnd"))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(O_NOFOLLOW);
    options
}

fn read_lines(file: File) -> io::Result<Vec<String>> {
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let lines = BufReader::new(file.take(MAX_BYTES)).split(b'\n');
    let text = lines.map(|line| Ok(String::from_utf8_lossy(&line?).into_owned()));
    text.filter(|line: &io::Result<String>| !line.as_ref().is_ok_and(String::is_empty)).collect()
}

/// Puts a shorter history in the place of the file, complete or not at all.
fn replace(folder: &Path, path: &Path, lines: &[String]) -> io::Result<()> {
    let new = folder.join("history.new");
    let _ = fs::remove_file(&new);
    let mut file = options().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all((lines.join("\n") + "\n").as_bytes())?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("dnd-history-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn keeps_lines_privately() {
        let folder = scratch("lines");
        let (mut history, lines) = History::in_folder(&folder).expect("opens");
        assert!(lines.is_empty());
        history.add("dumpheap -stat");
        history.add("quit");
        drop(history);
        let (_, lines) = History::in_folder(&folder).expect("opens again");
        assert_eq!(lines, ["dumpheap -stat", "quit"]);
        let mode = fs::metadata(folder.join("history")).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_dir_all(folder).expect("cleaned up");
    }

    #[test]
    fn follows_no_symlink_and_narrows_permissions() {
        let folder = scratch("link");
        fs::create_dir_all(&folder).expect("made");
        let victim = folder.join("victim");
        fs::write(&victim, "mine\n").expect("written");
        std::os::unix::fs::symlink(&victim, folder.join("history")).expect("linked");
        assert!(History::in_folder(&folder).is_err());
        assert_eq!(fs::read_to_string(&victim).expect("read"), "mine\n");
        fs::rename(&victim, folder.join("history")).expect("moved");
        fs::set_permissions(folder.join("history"), PermissionsExt::from_mode(0o644)).expect("widened");
        let (_, lines) = History::in_folder(&folder).expect("opens");
        assert_eq!(lines, ["mine"]);
        let mode = fs::metadata(folder.join("history")).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_dir_all(folder).expect("cleaned up");
    }

    #[test]
    fn a_long_history_is_cut() {
        let folder = scratch("long");
        let (mut history, _) = History::in_folder(&folder).expect("opens");
        (0..=2 * KEEP).for_each(|i| history.add(&format!("line {i}")));
        let (_, lines) = History::in_folder(&folder).expect("opens");
        assert_eq!((lines.len(), lines.first().map(String::as_str)), (KEEP, Some("line 1001")));
        let (_, lines) = History::in_folder(&folder).expect("opens");
        assert_eq!(lines.len(), KEEP);
        fs::remove_dir_all(folder).expect("cleaned up");
    }

    #[test]
    fn the_folder_follows_the_xdg_rules() {
        let os = |text: &str| Some(OsString::from(text));
        assert_eq!(folder(os("/s"), os("/h")), Some("/s/dnd".into()));
        assert_eq!(folder(os("relative"), os("/h")), Some("/h/.local/state/dnd".into()));
        assert_eq!(folder(None, os("/h")), Some("/h/.local/state/dnd".into()));
        assert_eq!(folder(None, None), None);
    }
}
