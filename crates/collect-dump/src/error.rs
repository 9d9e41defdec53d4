//! Why there is no dump.

use std::io;

use dnd_contract::{Explain, Kind};
use dnd_ipc::DumpType;
use thiserror::Error;

use crate::facts::{size, type_name};

/// Why no dump was written. Nothing is left behind.
#[derive(Debug, Error)]
pub enum Error {
    /// The destination exists.
    #[error("{path} exists already: it is {what}")]
    Exists {
        /// The destination.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// The destination has no name, or is no UTF-8.
    #[error("`{path}` is not a file name that a dump can be written to")]
    BadPath {
        /// The destination.
        path: String,
    },
    /// A relative path that the target would understand otherwise.
    #[error("`{path}` is a relative path, and process {pid} sees another file system than this program")]
    Relative {
        /// The destination.
        path: String,
        /// The target.
        pid: u32,
    },
    /// The destination's directory can't be used.
    #[error("no dump can be written to the directory {path}")]
    Directory {
        /// The directory, as seen from here.
        path: String,
        /// Whether it is one of another file system than this program's.
        elsewhere: bool,
        /// Why.
        source: io::Error,
    },
    /// It would not fit.
    #[error("a full dump needs at least {} and only {} are free", size(*needed), size(*available))]
    NoSpace {
        /// Resident memory of the process, in bytes.
        needed: u64,
        /// Free bytes.
        available: u64,
    },
    /// Nothing to dump with.
    #[error("process {pid} was compiled ahead of time (NativeAOT): its runtime can't write dumps")]
    NativeAot {
        /// The target.
        pid: u32,
    },
    /// The runtime's program for dumps can't be run.
    #[error("the runtime of process {pid} can't write dumps: its {path} {problem}")]
    Createdump {
        /// The target.
        pid: u32,
        /// The program, as the target sees it.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Dangerous, or known to fail.
    #[error("{}", single_file(*pid, version.as_deref(), *dump_type))]
    SingleFile {
        /// The target.
        pid: u32,
        /// Its runtime's version.
        version: Option<String>,
        /// What was asked for.
        dump_type: DumpType,
    },
    /// It can't be seen whether it is dangerous.
    #[error(
        "process {pid} may not be looked into; if it is a single-file application of .NET {}, a dump by its runtime \
         can make it crash later",
        version.as_deref().unwrap_or("8 or 9")
    )]
    UnknownHost {
        /// The target.
        pid: u32,
        /// The user it runs as.
        uid: u32,
        /// Its runtime's version.
        version: Option<String>,
    },
    /// The runtime tried and failed, or did not try.
    #[error("the runtime did not write the dump")]
    Runtime {
        /// What it said.
        source: dnd_ipc::Error,
        /// What is wrong on this machine, as far as can be seen.
        hints: Vec<String>,
    },
    /// The runtime said "done", and there is nothing.
    #[error("the runtime reports success, but wrote nothing")]
    NothingWritten {
        /// What is wrong on this machine, as far as can be seen.
        hints: Vec<String>,
    },
    /// What it wrote is no core dump.
    #[error("the runtime reports success, but what it wrote is not a core dump")]
    NotACore {
        /// Why.
        source: dnd_memory::Error,
        /// What is wrong on this machine, as far as can be seen.
        hints: Vec<String>,
    },
    /// What it wrote is cut off.
    #[error("the dump is cut off: {} of {} were written", size(*present), size(*expected))]
    Truncated {
        /// Its size by its headers.
        expected: u64,
        /// Its size.
        present: u64,
        /// What is wrong on this machine, as far as can be seen.
        hints: Vec<String>,
    },
    /// The finished file could not be given its name.
    #[error("the finished dump can't be put at {path}")]
    Publish {
        /// The destination, as seen from here.
        path: String,
        /// Why.
        source: io::Error,
    },
}

fn single_file(pid: u32, version: Option<&str>, dump_type: DumpType) -> String {
    let version = version.unwrap_or("of unknown version");
    let nothing = match dump_type {
        DumpType::Full => String::new(),
        other => format!(" and, for a {} dump, writes nothing", type_name(other)),
    };
    format!(
        "process {pid} is a single-file application on .NET {version}, whose runtime, once asked for a dump, crashes in a \
         later event session (trace, stacks, counters of several providers){nothing}"
    )
}

impl Explain for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Exists { .. } | Self::BadPath { .. } | Self::Relative { .. } => Kind::Usage,
            Self::Directory { source, .. } | Self::Publish { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Kind::NotFound,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Permission,
                io::ErrorKind::AlreadyExists => Kind::Usage,
                _ => Kind::Failed,
            },
            Self::NativeAot { .. } | Self::SingleFile { .. } | Self::Createdump { .. } => Kind::Unsupported,
            Self::UnknownHost { .. } => Kind::Permission,
            Self::Runtime { source, .. } => source.kind(),
            Self::NoSpace { .. }
            | Self::NothingWritten { .. }
            | Self::NotACore { .. }
            | Self::Truncated { .. } => Kind::Failed,
        }
    }

    fn hints(&self) -> Vec<String> {
        let one = |text: &str| vec![text.to_owned()];
        match self {
            Self::Exists { .. } => one("dumps are never overwritten: give another name with -o"),
            Self::BadPath { .. } => one("give the file, not only its directory"),
            Self::Relative { .. } => {
                one("give the absolute path of a directory that exists there, such as -o /tmp/core_1")
            }
            Self::Directory { elsewhere, source, .. } => {
                let mut hints = Vec::new();
                if *elsewhere {
                    hints.push(
                        "the process is in another mount namespace (a container, a private /tmp), and it is the process \
                         that writes: -o is a path as it sees it"
                            .to_owned(),
                    );
                }
                if source.kind() == io::ErrorKind::ReadOnlyFilesystem {
                    hints.push(
                        "choose a directory that can be written to with -o; in a container, a mounted volume or /dev/shm"
                            .to_owned(),
                    );
                }
                hints
            }
            Self::NoSpace { .. } => vec![
                "choose another directory with -o, or a smaller dump with --type Heap (all that `dnd dump analyze` needs \
                 for the heap)"
                    .to_owned(),
                "--force tries all the same".to_owned(),
            ],
            Self::Createdump { pid, .. } => vec![
                "put the file of the same runtime version back, executable; no restart is needed".to_owned(),
                format!("gdb's `gcore {pid}` writes a dump without the runtime's help, and `dnd dump analyze` reads it"),
            ],
            Self::NativeAot { pid } => vec![format!("gdb's `gcore {pid}` writes a dump without the runtime's help")],
            Self::SingleFile { pid, .. } => vec![
                format!("gdb's `gcore {pid}` writes a dump without the runtime's help, and `dnd dump analyze` reads it"),
                "--force --type Full has the runtime write one all the same; then don't trace the process until it was \
                 restarted"
                    .to_owned(),
            ],
            Self::UnknownHost { uid, .. } => vec![
                format!("run dnd as user {uid} or with sudo (in a container: --cap-add=SYS_PTRACE) to have it checked"),
                "--force when you know that it is no single-file application".to_owned(),
            ],
            Self::Runtime { source, hints } => source.hints().into_iter().chain(hints.iter().cloned()).collect(),
            Self::NothingWritten { hints }
            | Self::NotACore { hints, .. }
            | Self::Truncated { hints, .. } => hints.clone(),
            Self::Publish { .. } => Vec::new(),
        }
    }
}
