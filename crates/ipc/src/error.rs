//! What can go wrong between here and a runtime.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use dnd_contract::{Explain, Kind};
use thiserror::Error;

use crate::codec::{DecodeError, EncodeError, HResult};

/// An error of the transport, or a runtime's refusal.
#[derive(Debug, Error)]
pub enum Error {
    /// The socket can't be connected to.
    #[error("cannot connect to the diagnostics socket {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process that listens on the socket is not the one the socket is named after.
    #[error("the diagnostics socket {} belongs to process {found}, not to process {expected}", path.display())]
    Impostor {
        /// The socket.
        path: PathBuf,
        /// The process it was found for.
        expected: u32,
        /// The process that listens.
        found: u32,
    },
    /// The target accepted a connection (or its kernel did) and then was silent.
    #[error("the process did not answer {command} within {:?}", after)]
    NoAnswer {
        /// The command sent.
        command: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The target closed the connection instead of answering.
    #[error("the process closed the connection without answering {command}")]
    Closed {
        /// The command sent.
        command: &'static str,
    },
    /// Reading or writing failed.
    #[error("the connection failed during {command}")]
    Io {
        /// The command sent.
        command: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The answer can't be understood.
    #[error("the answer to {command} can't be understood")]
    Decode {
        /// The command sent.
        command: &'static str,
        /// Why.
        source: DecodeError,
    },
    /// The request can't be sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The runtime refuses.
    #[error("the runtime refuses {command}: {code}{}", words(message.as_deref()))]
    Refused {
        /// The command sent.
        command: &'static str,
        /// The runtime's error code.
        code: HResult,
        /// The runtime's own words, from some versions for some commands.
        message: Option<String>,
    },
    /// A session's stream was not ended by the target in time after it had been asked to stop; the connection was
    /// closed, which ends the session too.
    #[error("the process did not finish its event stream within {:?}", after)]
    NotFinished {
        /// How long was waited.
        after: Duration,
    },
}

fn words(message: Option<&str>) -> String {
    message.map(|m| format!(", {m}")).unwrap_or_default()
}

impl Error {
    /// Whether the runtime is too old to know the command.
    #[must_use]
    pub fn is_unknown_command(&self) -> bool {
        matches!(self, Self::Refused { code: HResult::UNKNOWN_COMMAND, .. })
    }
}

impl Explain for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Connect { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Kind::NotFound,
                io::ErrorKind::PermissionDenied => Kind::Permission,
                _ => Kind::Failed,
            },
            Self::Impostor { .. } => Kind::NotFound,
            Self::Decode { .. } => Kind::Corrupt,
            Self::Encode(_) => Kind::Usage,
            Self::Refused { code: HResult::UNKNOWN_COMMAND, .. } => Kind::Unsupported,
            Self::NoAnswer { .. }
            | Self::Closed { .. }
            | Self::Io { .. }
            | Self::Refused { .. }
            | Self::NotFinished { .. } => Kind::Failed,
        }
    }

    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Connect { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    "the process has ended or is ending; `dnd ps` lists those that can be reached"
                }
                io::ErrorKind::PermissionDenied => {
                    "only the user that the process runs as, and root, may connect: run dnd as that user or with sudo"
                }
                io::ErrorKind::WouldBlock => {
                    "more connections are waiting than the process takes: it is stopped or hangs"
                }
                _ => return Vec::new(),
            },
            Self::NoAnswer { .. } => {
                "the process may be stopped (state T in `ps`, `kill -CONT` resumes it) or be busy with another \
                 diagnostics command, such as a dump"
            }
            Self::Closed { .. } => "the process may have ended meanwhile",
            Self::Refused { code: HResult::FAIL, command, .. } if command.starts_with("CollectTracing") => {
                "a process can have 64 sessions at a time; other tools may be holding them"
            }
            _ => return Vec::new(),
        };
        vec![hint.to_owned()]
    }
}
