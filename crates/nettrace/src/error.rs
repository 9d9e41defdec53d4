//! What can be wrong with a stream.

use dnd_contract::{Explain, Kind};

use crate::container::BlockKind;
use crate::cursor::OutOfBytes;

/// A stream, or one block of it, that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The first bytes are those of something else.
    #[error("the stream does not begin with `Nettrace` (found {found:02x?})")]
    NotNettrace {
        /// The first eight bytes.
        found: [u8; 8],
    },
    /// The format that was used before .NET Core 3.0.
    #[error("the stream has the NetPerf format of .NET Core 2, which is not supported")]
    NetPerf,
    /// A version of the format that this reader does not know.
    #[error("the stream has version {found} of the nettrace format; versions 4 to 6 are supported")]
    UnsupportedVersion {
        /// The version that a reader must know to understand the stream.
        found: u32,
    },
    /// The bytes between two blocks are not what the format demands; where the next block begins is unknown.
    #[error("the stream is damaged at offset {offset:#x}: expected {expected}, found {found:#04x}")]
    Framing {
        /// Bytes from the start of the stream.
        offset: u64,
        /// What the format demands there.
        expected: &'static str,
        /// The byte that is there.
        found: u8,
    },
    /// A block says it is larger than any block is.
    #[error("the block at offset {offset:#x} claims {size} bytes; at most {limit} are accepted")]
    TooLarge {
        /// Bytes from the start of the stream.
        offset: u64,
        /// The size it claims.
        size: u64,
        /// The largest size accepted.
        limit: u64,
    },
    /// A block whose contents contradict themselves. Blocks after it can be read.
    #[error("the {block} at offset {offset:#x} is damaged: {what}")]
    Block {
        /// The kind of block.
        block: BlockKind,
        /// Bytes from the start of the stream to the block's contents.
        offset: u64,
        /// What is wrong.
        what: Damage,
    },
}

/// What is wrong inside a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A value goes on after the end of the block.
    #[error("{0}")]
    CutOff(#[from] OutOfBytes),
    /// An event refers to metadata that was not sent, or could not be read.
    #[error("event metadata {0} is not in the stream")]
    UnknownMetadata(u32),
    /// The header is shorter than it must be.
    #[error("its header has {0} bytes")]
    ShortHeader(u16),
    /// Types are nested deeper than any real type is.
    #[error("field types are nested more than {0} deep")]
    TooDeep(usize),
    /// More distinct event types, threads or the like than a reader keeps.
    #[error("it holds more than {0} distinct items")]
    TooMany(usize),
    /// A label of a kind whose size is unknown (version 6).
    #[error("label kind {0} is unknown")]
    UnknownLabel(u8),
    /// A stack refers to bytes beyond the limit of what is kept.
    #[error("stacks take more than {0} bytes")]
    StacksTooLarge(usize),
    /// The descriptions of events are longer than what is kept.
    #[error("descriptions of events take more than {0} bytes")]
    TypesTooLarge(usize),
}

impl Explain for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NetPerf | Self::UnsupportedVersion { .. } => Kind::Unsupported,
            Self::NotNettrace { .. } | Self::Framing { .. } | Self::TooLarge { .. } | Self::Block { .. } => {
                Kind::Corrupt
            }
        }
    }
}
