//! Why a command has no answer.

use std::io;

use dnd_contract::{Explain, Kind};
use thiserror::Error;

/// Why a command has no answer, or not the whole one.
#[derive(Debug, Error)]
pub enum Error {
    /// The line can't be split into words.
    #[error("{0}")]
    Usage(String),
    /// The words behind a command's name make no sense.
    #[error("{command} {text}")]
    Arguments {
        /// The command.
        command: String,
        /// What is wrong, said of the command.
        text: String,
    },
    /// No command has this name.
    #[error("there is no command `{name}`{}", did_you_mean(.similar.as_deref()))]
    UnknownCommand {
        /// What was typed.
        name: String,
        /// A command with a name like it.
        similar: Option<String>,
    },
    /// A command of dotnet-dump that is not built yet.
    #[error("`{0}` is a command of dotnet-dump that this version does not have")]
    NotBuilt(String),
    /// The address given is not what the command wants.
    #[error("{addr:x} is not {wanted}")]
    NotA {
        /// The address.
        addr: u64,
        /// What it should have been, with its article.
        wanted: &'static str,
    },
    /// Something named on the command line is not in this dump.
    #[error("{0}")]
    NotFound(String),
    /// The runtime's structures can't be read.
    #[error(transparent)]
    Clr(#[from] dnd_clr::Error),
    /// The output can't be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    /// The answer was printed, but bytes that it needs are missing or damaged.
    #[error("{0}")]
    Partial(String),
}

fn did_you_mean(similar: Option<&str>) -> String {
    similar.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

impl Error {
    /// Whether the reader of the output went away.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Error::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether the user interrupted the command.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Error::Clr(dnd_clr::Error::Cancelled))
    }
}

impl Explain for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Usage(_) | Error::Arguments { .. } | Error::UnknownCommand { .. } => Kind::Usage,
            Error::NotBuilt(_) => Kind::Unsupported,
            Error::NotA { .. } | Error::NotFound(_) => Kind::NotFound,
            Error::Clr(error) => error.kind(),
            Error::Output(_) => Kind::Failed,
            Error::Partial(_) => Kind::Corrupt,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Error::UnknownCommand { similar: None, .. } => vec!["`help` lists the commands".to_owned()],
            Error::Arguments { command, .. } => vec![format!("`help {command}` tells how it is asked")],
            Error::Clr(error) => error.hints(),
            _ => Vec::new(),
        }
    }
}
