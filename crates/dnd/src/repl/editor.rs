//! The line editor: prompt, history, completion.

use rustyline::completion::{Completer, Pair};
use rustyline::config::{Builder, CompletionType};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, Helper};

use super::history::History;

/// Gives the start of the last word of a line, and what that word could be.
type Completions<'s> = &'s dyn Fn(&str) -> (usize, Vec<String>);

/// Reads commands from a terminal.
pub(super) struct LineEditor<'s> {
    editor: Editor<Complete<'s>, MemHistory>,
    history: Option<History>,
}

/// What the user did at the prompt.
pub(super) enum Input {
    /// A line.
    Line(String),
    /// Ctrl-C: the line typed so far is dropped.
    Dropped,
    /// Ctrl-D.
    End,
}

impl<'s> LineEditor<'s> {
    /// An editor that completes with what `completions` answers.
    ///
    /// # Errors
    /// When the terminal can't be used.
    pub(super) fn new(completions: Completions<'s>) -> rustyline::Result<Self> {
        let config = Builder::new().completion_type(CompletionType::List).history_ignore_space(true).build();
        let mut editor = Editor::with_history(config, MemHistory::new())?;
        editor.set_helper(Some(Complete { completions }));
        let mut history = None;
        if let Some((file, lines)) = History::open() {
            for line in lines {
                editor.add_history_entry(line)?;
            }
            history = Some(file);
        }
        Ok(LineEditor { editor, history })
    }

    /// Waits for a line.
    ///
    /// # Errors
    /// When the terminal fails.
    pub(super) fn read(&mut self) -> rustyline::Result<Input> {
        match self.editor.readline("> ") {
            Ok(line) => {
                let text = line.trim();
                if !text.is_empty() && self.editor.add_history_entry(text)? {
                    // Lines typed after a blank stay out of the file, as in a shell.
                    if let Some(history) = &mut self.history
                        && !line.starts_with(' ')
                    {
                        history.add(text);
                    }
                }
                Ok(Input::Line(line))
            }
            Err(ReadlineError::Interrupted) => Ok(Input::Dropped),
            Err(ReadlineError::Eof) => Ok(Input::End),
            Err(error) => Err(error),
        }
    }
}

/// Completion of commands, options and type names.
struct Complete<'s> {
    completions: Completions<'s>,
}

impl Completer for Complete<'_> {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = line.get(..pos).unwrap_or(line);
        let (start, words) = (self.completions)(before);
        let pair =
            |text: String| Pair { display: dnd_contract::escape(&text).into_owned(), replacement: text };
        Ok((start, words.into_iter().map(pair).collect()))
    }
}

impl Hinter for Complete<'_> {
    type Hint = String;
}
impl Highlighter for Complete<'_> {}
impl Validator for Complete<'_> {}
impl Helper for Complete<'_> {}
