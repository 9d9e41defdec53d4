//! Where collected counters go: a new file, or standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dnd_contract::Kind;

use super::writer;
use crate::error::{CliError, stdout_failed};

/// A file that did not exist before, or standard output.
pub(super) enum Output {
    /// Standard output.
    Stdout,
    /// A file.
    File(NewFile),
}

/// A file that holds what was written whole, and no part of what had no room any more.
pub(super) struct NewFile {
    file: File,
    path: PathBuf,
    /// Where the next piece comes.
    end: u64,
}

impl NewFile {
    /// Writes `piece` behind what is there, and `tail` behind that; the next piece takes the place of the tail.
    fn append(&mut self, mut piece: Vec<u8>, tail: &[u8]) -> io::Result<()> {
        let end = self.end + u64::try_from(piece.len()).unwrap_or(0);
        piece.extend_from_slice(tail);
        // One write: nobody sees the file without its tail.
        let written = self.seek(self.end).and_then(|()| self.file.write_all(&piece));
        match written {
            Ok(()) => self.end = end,
            // Of a full disk: what was there before fits.
            Err(_) => {
                let _ = self.file.set_len(self.end);
                if self.end > 0 {
                    let _ = self.seek(self.end).and_then(|()| self.file.write_all(tail));
                }
            }
        }
        written
    }

    fn seek(&mut self, to: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(to)).map(drop)
    }
}

impl Output {
    /// Standard output.
    pub(super) fn stdout() -> Self {
        // From now on it is in use: its reader may go before the first piece.
        let _ = writer::stdout();
        Self::Stdout
    }

    /// A new file, readable by its owner only. One that is there is never touched.
    pub(super) fn create(path: &Path) -> Result<Self, CliError> {
        // `create_new` follows no symbolic link either.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => Ok(Self::File(NewFile { file, path: path.to_owned(), end: 0 })),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(CliError::new(Kind::Usage, format!("{} exists; it is not overwritten", path.display())))
            }
            Err(error) => {
                let kind = match error.kind() {
                    io::ErrorKind::PermissionDenied => Kind::Permission,
                    io::ErrorKind::NotFound => Kind::NotFound,
                    _ => Kind::Failed,
                };
                Err(CliError::new(kind, format!("cannot create {}: {error}", path.display())))
            }
        }
    }

    /// The file's path.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Stdout => None,
            Self::File(file) => Some(&file.path),
        }
    }

    /// Whether it is standard output.
    pub(super) fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }

    /// What it means that writing failed.
    pub(super) fn failed(&self, error: io::Error) -> CliError {
        match self {
            Self::Stdout => stdout_failed(error),
            Self::File(NewFile { path, .. }) => {
                CliError::new(Kind::Failed, format!("cannot write to {}: {error}", path.display()))
            }
        }
    }

    /// Writes whole rows or documents; those that nobody reads may be left out, as a whole.
    pub(super) fn write(&mut self, piece: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Stdout => writer::stdout().write(piece),
            Self::File(file) => file.append(piece, &[]),
        }
    }

    /// Writes what the rest makes no sense without.
    pub(super) fn write_always(&mut self, piece: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Stdout => writer::stdout().write_always(piece),
            Self::File(file) => file.append(piece, &[]),
        }
    }

    /// Writes a piece of a document that ends with `tail`: in a file after every piece, elsewhere only when it is closed.
    pub(super) fn write_closed(&mut self, piece: Vec<u8>, tail: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => writer::stdout().write(piece),
            Self::File(file) => file.append(piece, tail),
        }
    }
}
