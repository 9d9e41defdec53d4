//! Commands after commands: given on the command line, typed at a prompt, or read from a pipe.

mod editor;
mod history;
mod interrupt;
mod output;
mod progress;

use std::io::{self, BufRead, IsTerminal};

use dnd_analyze::{Error, Flow, Format, Session, split_pipe};
use dnd_clr::Progress;
use dnd_contract::{Explain, Kind, escape};

use crate::error::{CliError, render, stdout_failed};
use editor::{Input, LineEditor};
pub(crate) use interrupt::cancel_on_ctrl_c;
use output::{Output, Screen};
use progress::Bar;

/// How a session shows its answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Text or JSON.
    pub(crate) format: Format,
    /// Long output goes through a pager when standard output is a terminal.
    pub(crate) pager: bool,
}

/// What came of one line.
#[derive(Clone, Copy)]
enum Done {
    Next,
    Failed(Kind),
    Interrupted(Kind),
    Quit,
}

/// Runs the commands given with `-c`, all of them, and ends with the kind of the first error.
pub(crate) fn run_commands(
    session: &Session<'_>,
    commands: &[String],
    progress: &'static Progress,
    options: Options,
) -> Result<(), CliError> {
    let mut first = FirstFailure::default();
    for command in commands {
        if first.ends(run_line(session, command, progress, options)?) {
            break;
        }
    }
    first.result()
}

/// What a sequence of commands ends with.
#[derive(Default)]
struct FirstFailure(Option<Kind>);

impl FirstFailure {
    /// Takes what came of a line; whether it was the last one.
    fn ends(&mut self, done: Done) -> bool {
        match done {
            Done::Next => false,
            Done::Failed(kind) => {
                self.0.get_or_insert(kind);
                false
            }
            Done::Interrupted(kind) => {
                self.0.get_or_insert(kind);
                true
            }
            Done::Quit => true,
        }
    }

    fn result(self) -> Result<(), CliError> {
        self.0.map_or(Ok(()), |kind| Err(CliError::Quiet(kind)))
    }
}

/// Runs what is typed (or piped in) until `quit` or the end of the input.
pub(crate) fn run_session(
    session: &Session<'_>,
    progress: &'static Progress,
    options: Options,
) -> Result<(), CliError> {
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        interactive(session, progress, options)
    } else {
        scripted(session, progress, options)
    }
}

fn interactive(session: &Session<'_>, progress: &'static Progress, options: Options) -> Result<(), CliError> {
    let terminal = |error| CliError::new(Kind::Failed, format!("cannot use the terminal: {error}"));
    let completions = |line: &str| session.complete(line);
    let mut editor = LineEditor::new(&completions).map_err(terminal)?;
    talk("Type `help` for the commands, `quit` or Ctrl-D to leave.");
    loop {
        match editor.read().map_err(terminal)? {
            Input::Line(line) => {
                if let Done::Quit = run_line(session, &line, progress, options)? {
                    return Ok(());
                }
            }
            Input::Dropped => {}
            Input::End => return Ok(()),
        }
    }
}

fn scripted(session: &Session<'_>, progress: &'static Progress, options: Options) -> Result<(), CliError> {
    let mut first = FirstFailure::default();
    let mut line = Vec::new();
    let mut input = io::stdin().lock();
    loop {
        line.clear();
        let read = input.read_until(b'\n', &mut line);
        let read = read
            .map_err(|error| CliError::new(Kind::Failed, format!("cannot read standard input: {error}")))?;
        if read == 0 {
            break;
        }
        if first.ends(run_line(session, &String::from_utf8_lossy(&line), progress, options)?) {
            break;
        }
    }
    first.result()
}

/// Runs one line; errors of the command are printed here, only a closed standard output ends the session.
fn run_line(
    session: &Session<'_>,
    line: &str,
    progress: &'static Progress,
    options: Options,
) -> Result<Done, CliError> {
    let (command, shell) = split_pipe(line);
    if command.is_empty() && shell.is_none() {
        return Ok(Done::Next);
    }
    progress.reset();
    let bar = Bar::watch(progress);
    let output = match (shell, Screen::of_stdout()) {
        (Some(""), _) => return Ok(fail(&Error::Usage("nothing follows the `|`".to_owned()))),
        (Some(shell), _) => match Output::shell(shell, bar) {
            Ok(output) => output,
            Err(error) => {
                let error =
                    CliError::new(Kind::Failed, format!("cannot start a shell for `| {shell}`: {error}"));
                return Ok(fail_cli(error));
            }
        },
        (None, Some(screen)) if options.pager => Output::paged(screen, bar),
        _ => Output::stdout(bar),
    };
    let mut output = output;
    let answer = session.run(command, &mut output, options.format);
    let has_reader = output.has_reader();
    let finished = output.finish();
    if !has_reader {
        finished.map_err(stdout_failed)?;
    }
    for note in &answer.notes {
        talk(&format!("note: {}", escape(note)));
    }
    Ok(match answer.result {
        Ok(Flow::Next) => Done::Next,
        Ok(Flow::Quit) => Done::Quit,
        // The pager was left, or `head` has its lines: success.
        Err(error) if error.is_closed_pipe() && has_reader => Done::Next,
        Err(Error::Output(error)) if !has_reader => return Err(stdout_failed(error)),
        Err(error) => fail(&error),
    })
}

fn fail(error: &Error) -> Done {
    // Nothing is left to do when standard error is gone.
    let _ = render(&mut io::stderr().lock(), error, &error.hints());
    if error.is_cancelled() { Done::Interrupted(error.kind()) } else { Done::Failed(error.kind()) }
}

fn fail_cli(error: CliError) -> Done {
    match error {
        CliError::Explained { kind, error, hints } => {
            let _ = render(&mut io::stderr().lock(), error.as_ref(), &hints);
            Done::Failed(kind)
        }
        CliError::Quiet(kind) => Done::Failed(kind),
        CliError::Code(_) => Done::Failed(dnd_contract::Kind::Failed),
        CliError::ClosedPipe => Done::Next,
    }
}

/// Says something beside the data.
fn talk(text: &str) {
    use std::io::Write;
    let _ = writeln!(io::stderr().lock(), "{text}");
}
