//! What can be wrong with a dump, seen from the runtime's structures.

use dnd_contract::{Explain, Kind};
use dnd_memory::Missing;
use thiserror::Error;

/// Why an answer can't be given, or not in full.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// No loaded image is a CoreCLR.
    #[error("no .NET runtime was found among the {images} images of this dump{}", without_runtime(*.native_aot, .unread.as_deref()))]
    NoRuntime {
        /// Number of files mapped from their first byte.
        images: usize,
        /// One of them is a program compiled by NativeAOT.
        native_aot: bool,
        /// The first image whose symbols are neither in the dump nor in a file at hand.
        unread: Option<String>,
    },
    /// The runtime's file was mapped, but the dump lacks the image, and with it what would tell whether a file is the same.
    #[error("the .NET runtime was loaded from {path}, but its image at {base:#x} is not in the dump")]
    RuntimeNotInDump {
        /// Address of the runtime's image.
        base: u64,
        /// The file it was loaded from.
        path: String,
    },
    /// The runtime is there and is none of those whose layout is known.
    #[error(
        "the .NET runtime at {base:#x} is not one whose layout is known: {}{}; {descriptor}",
        table_text(*.table_bytes),
        version_text(.version.as_deref())
    )]
    UnknownRuntime {
        /// Address of the runtime's image.
        base: u64,
        /// Size of `g_dacTable` in bytes; 0 when it exports none.
        table_bytes: u64,
        /// Version found in the image or its path.
        version: Option<String>,
        /// What became of its own descriptor, in a few words.
        descriptor: String,
    },
    /// A table of the expected size whose content is not what it should be.
    #[error(
        "the runtime at {base:#x} looks like .NET {major}, but its globals are not in their places ({what})"
    )]
    FailedCheck {
        /// Address of the runtime's image.
        base: u64,
        /// Major version that the size of the table stands for.
        major: u8,
        /// The check that failed.
        what: &'static str,
    },
    /// The table of globals of .NET Core 3.1, which no symbol names, was not found by its structure.
    #[error(
        "the runtime at {base:#x} exports no table of globals, and none was found in its data by structure"
    )]
    NoTable {
        /// Address of the runtime's image.
        base: u64,
    },
    /// Memory that an answer needs is not in the dump.
    #[error("cannot read {what}")]
    Missing {
        /// The structure that was to be read.
        what: &'static str,
        /// The bytes that are not there.
        #[source]
        source: Missing,
    },
    /// A structure that can't be right.
    #[error("{what} at {addr:#x} is damaged")]
    Damaged {
        /// The structure.
        what: &'static str,
        /// Its address.
        addr: u64,
    },
    /// A part of the runtime whose layout was never checked for its version.
    #[error("where {what} are in .NET {major} is not known")]
    NotKnown {
        /// The part.
        what: &'static str,
        /// Major version.
        major: u8,
    },
    /// The dump was made without the heap.
    #[error("the managed heap is not in this dump: none of its {segments} segments is there")]
    NoHeap {
        /// Number of segments that the GC's tables tell of.
        segments: usize,
    },
    /// The system refuses memory for a search.
    #[error("no memory for the search: {bytes} bytes are needed")]
    NoMemory {
        /// Bytes asked for.
        bytes: u64,
    },
    /// The user interrupted the work.
    #[error("interrupted")]
    Cancelled,
}

fn without_runtime(native_aot: bool, unread: Option<&str>) -> String {
    match (native_aot, unread) {
        (true, _) => "; it is of a NativeAOT program".to_owned(),
        (_, Some(path)) => format!("; the symbols of {path} are not in it"),
        _ => String::new(),
    }
}

fn table_text(bytes: u64) -> String {
    match bytes {
        0 => "it exports no table of globals".to_owned(),
        bytes => format!("its table of globals has {bytes} bytes"),
    }
}

fn version_text(version: Option<&str>) -> String {
    version.map(|v| format!(" (version {v})")).unwrap_or_default()
}

impl Explain for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::NoRuntime { .. } => Kind::NotFound,
            Error::UnknownRuntime { .. }
            | Error::FailedCheck { .. }
            | Error::NoTable { .. }
            | Error::NotKnown { .. } => Kind::Unsupported,
            Error::RuntimeNotInDump { .. }
            | Error::Missing { .. }
            | Error::Damaged { .. }
            | Error::NoHeap { .. } => Kind::Corrupt,
            Error::NoMemory { .. } => Kind::Failed,
            Error::Cancelled => Kind::Negative,
        }
    }

    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Error::NoRuntime { native_aot: true, .. } => {
                "NativeAOT programs have no CoreCLR; their heaps are not read here"
            }
            Error::NoRuntime { unread: Some(_), .. } => {
                "is this a dump of a .NET process? if the runtime is inside its program, the program's file is needed: \
                 --modules FOLDER names a folder that has it"
            }
            Error::NoRuntime { .. } => "is this a dump of a .NET process?",
            Error::RuntimeNotInDump { .. } => {
                "was the dump cut off, by a full disk or a limit of its size? `dnd dump info` tells what is there"
            }
            Error::UnknownRuntime { version: Some(version), .. } if version.starts_with("7.") => {
                "for .NET 7 there is no table: neither a runtime nor the source of its release was at hand to make one \
                 (docs/new-runtime.md). dotnet-dump reads this dump where the process's own libmscordaccore.so is; \
                 counters, traces and collecting dumps work with .NET 7, and `dump info` says what needs no table"
            }
            Error::UnknownRuntime { .. } | Error::NoTable { .. } => {
                "known are .NET Core 3.1, .NET 8, 9 and 10, from their source .NET 5 and 6; docs/new-runtime.md tells how a version is added"
            }
            Error::NoHeap { .. } => {
                "dumps of type Mini and Triage have no heap; collect one with `dnd dump collect --type Heap` (of a program in \
                 a single file with `--type Full`). eeversion, clrthreads and clrmodules work without it"
            }
            Error::Missing { .. } => {
                "dumps of type Mini and Triage have no heap; collect one with `dnd dump collect --type Heap` (of a program in \
                 a single file with `--type Full`). Where the runtime can be opened, eeversion, clrthreads and clrmodules work; \
                 `dnd dump info` tells"
            }
            _ => return Vec::new(),
        };
        vec![hint.to_owned()]
    }
}

/// Names the structure that a failed read was for.
pub(crate) trait Reading<T> {
    /// Turns [`Missing`] into [`Error::Missing`] of `what`.
    fn reading(self, what: &'static str) -> Result<T, Error>;
}

impl<T> Reading<T> for Result<T, Missing> {
    fn reading(self, what: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Missing { what, source })
    }
}
