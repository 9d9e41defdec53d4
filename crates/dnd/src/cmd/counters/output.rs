//! Where collected counters go: a new file, or standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dnd_contract::Kind;

use crate::error::{CliError, stdout_failed};

/// A file that did not exist before, or standard output.
pub(super) enum Output {
    /// Standard output.
    Stdout,
    /// A file, and its path for messages.
    File(File, PathBuf),
}

impl Output {
    /// Standard output.
    pub(super) fn stdout() -> Self {
        Self::Stdout
    }

    /// A new file, readable by its owner only. One that is there is never touched.
    pub(super) fn create(path: &Path) -> Result<Self, CliError> {
        // `create_new` follows no symbolic link either.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => Ok(Self::File(file, path.to_owned())),
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
            Self::File(_, path) => Some(path),
        }
    }

    /// The file, if it is one: it can be written at any place.
    pub(super) fn file(&mut self) -> Option<&mut File> {
        match self {
            Self::Stdout => None,
            Self::File(file, _) => Some(file),
        }
    }

    /// What it means that writing failed.
    pub(super) fn failed(&self, error: io::Error) -> CliError {
        match self {
            Self::Stdout => stdout_failed(error),
            Self::File(_, path) => {
                CliError::new(Kind::Failed, format!("cannot write to {}: {error}", path.display()))
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => io::stdout().write(bytes),
            Self::File(file, _) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().flush(),
            Self::File(file, _) => file.flush(),
        }
    }
}
