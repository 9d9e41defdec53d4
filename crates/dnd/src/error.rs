//! The one place where an error becomes text and an exit code.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use dnd_contract::{Explain, Kind, escape};

/// What ended a command.
#[derive(Debug)]
pub(crate) enum CliError {
    /// An error with a kind and hints; boxed because it is rare and its causes can be large.
    Explained {
        /// Decides the exit code.
        kind: Kind,
        /// The error itself; its sources are printed as causes.
        error: Box<dyn Error + Send + Sync>,
        /// What would help.
        hints: Vec<String>,
    },
    /// The reader of standard output went away: that is success (`dnd ... | head`).
    ClosedPipe,
    /// Everything was printed already; only the exit code is left.
    Quiet(Kind),
    /// The exit code of a program that was run, which becomes that of this one.
    Code(u8),
}

impl CliError {
    /// An error made of a sentence, for what only the command line can know.
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self::Explained { kind, error: text.into().into(), hints: Vec::new() }
    }

    /// The same with one more hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Explained { hints, .. } = &mut self {
            hints.push(hint.into());
        }
        self
    }
}

impl<E: Explain + Send + Sync + 'static> From<E> for CliError {
    fn from(error: E) -> Self {
        Self::Explained { kind: error.kind(), hints: error.hints(), error: Box::new(error) }
    }
}

/// Turns a failed write to standard output into the right end of the command.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(crate) fn stdout_failed(error: io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CliError::ClosedPipe;
    }
    CliError::Explained {
        kind: Kind::Failed,
        error: format!("cannot write to standard output: {error}").into(),
        hints: Vec::new(),
    }
}

/// Prints what there is to say and gives the exit code.
pub(crate) fn exit(result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) | Err(CliError::ClosedPipe) => ExitCode::SUCCESS,
        Err(CliError::Quiet(kind)) => ExitCode::from(kind.exit_code()),
        Err(CliError::Code(code)) => ExitCode::from(code),
        Err(CliError::Explained { kind, error, hints }) => {
            // Nothing is left to do when standard error is gone too.
            let _ = render(&mut io::stderr().lock(), error.as_ref(), &hints);
            ExitCode::from(kind.exit_code())
        }
    }
}

/// `error: …`, each cause, each hint, a line each.
pub(crate) fn render(out: &mut dyn Write, error: &dyn Error, hints: &[String]) -> io::Result<()> {
    writeln!(out, "error: {}", escape(&error.to_string()))?;
    let mut cause = error.source();
    while let Some(error) = cause {
        writeln!(out, "  caused by: {}", escape(&error.to_string()))?;
        cause = error.source();
    }
    for hint in hints {
        writeln!(out, "hint: {}", escape(hint))?;
    }
    Ok(())
}
