//! Why a core file can't be read.

use std::io;
use std::path::PathBuf;

use dnd_contract::{Explain, Kind};
use thiserror::Error;

use crate::packed::Packing;

/// Why a core file can't be read at all. What is merely absent from a readable one is no error but
/// [`Missing`](crate::Missing) when it is asked for, and [`Truncation`](crate::Truncation) for a file cut off.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file can't be opened, mapped or asked for its length.
    #[error("can't read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The temporary file for unpacking can't be made or filled.
    #[error("can't unpack into a temporary file in {}", folder.display())]
    Temporary {
        /// Where it was to be.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The compressed data is damaged so early that nothing of use came out.
    #[error("the {} data of {} can't be unpacked: {what}", packing.name(), path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// How it is compressed.
        packing: Packing,
        /// What is wrong.
        what: String,
    },
    /// The caller stopped the unpacking.
    #[error("unpacking of {} was cancelled", path.display())]
    Cancelled {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing in it.
    #[error("{} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{} is not an ELF file but {what}", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        what: String,
    },
    /// It is an ELF file, but no core.
    #[error("{} is {what}, not a core dump", path.display())]
    NotCore {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A core of a kind that this program doesn't read.
    #[error("{} is a core dump of {what}, only 64-bit little-endian x86-64 and arm64 ones can be read", path.display())]
    Machine {
        /// The file.
        path: PathBuf,
        /// Which machine.
        what: String,
    },
    /// Its headers contradict themselves or end too early.
    #[error("the headers of {} are damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the numbers.
        what: String,
    },
}

impl Explain for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Io { source, .. } | Error::Temporary { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Kind::NotFound,
                io::ErrorKind::PermissionDenied => Kind::Permission,
                io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory => Kind::Usage,
                _ => Kind::Failed,
            },
            Error::Cancelled { .. } => Kind::Failed,
            Error::Empty { .. } | Error::Damaged { .. } | Error::Packed { .. } => Kind::Corrupt,
            Error::NotElf { .. } | Error::NotCore { .. } | Error::Machine { .. } => Kind::Unsupported,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Error::Empty { .. } => {
                vec![
                    "the dump was not written: a full disk, a size limit (ulimit -c), or still in work"
                        .to_owned(),
                ]
            }
            Error::Temporary { .. } => {
                vec!["TMPDIR names another folder, with room for the unpacked dump".to_owned()]
            }
            Error::Damaged { .. } | Error::Packed { .. } => {
                vec![
                    "compare the file's size with that on the machine it was taken on, and copy it again"
                        .to_owned(),
                ]
            }
            _ => Vec::new(),
        }
    }
}
