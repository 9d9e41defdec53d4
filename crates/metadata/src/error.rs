//! Why an image or its metadata can't be read.

use dnd_contract::{Explain, Kind};
use thiserror::Error;

/// Why an image or its metadata can't be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// It has no PE headers.
    #[error("there is no PE image: {what}")]
    NotPe {
        /// What is wrong.
        what: &'static str,
    },
    /// Bytes of the image are not there.
    #[error("{len} bytes at offset {offset:#x} of the image are missing")]
    Missing {
        /// Offset in the source.
        offset: u64,
        /// Bytes wanted.
        len: usize,
    },
    /// It is a PE image without a CLI header: native code.
    #[error("the PE image has no CLI header, it is not a .NET assembly")]
    NotCli,
    /// It is no metadata.
    #[error("there is no ECMA-335 metadata: {what}")]
    NotMetadata {
        /// What is wrong.
        what: &'static str,
    },
    /// It contradicts itself.
    #[error("the metadata is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
}

impl Explain for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::NotPe { .. } | Error::NotCli => Kind::Unsupported,
            Error::Missing { .. } | Error::NotMetadata { .. } | Error::Damaged { .. } => Kind::Corrupt,
        }
    }
}
