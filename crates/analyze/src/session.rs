//! A dump being asked questions: one command after another.

use std::cell::{Cell, OnceCell};
use std::io::Write;

use dnd_clr::{Progress, Runtime};
use dnd_contract::Envelope;
use serde::Serialize;

use crate::args::{Args, words};
use crate::error::Error;
use crate::info::Signal;
use crate::inspect::display_name;
use crate::out::Out;
use crate::statics::Statics;
use crate::table;

/// Text for people or JSON for programs; from the same facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Rows as dotnet-dump writes them.
    Text,
    /// One JSON document for each command, on a line of its own.
    Json,
}

/// Whether the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Next,
    /// `quit`.
    Quit,
}

/// What came of a command.
#[derive(Debug)]
pub struct Answer {
    /// Whether it worked, and whether the session goes on.
    pub result: Result<Flow, Error>,
    /// What the reader should know of the answer: damage met, a GC in progress. They stand in the JSON too.
    pub notes: Vec<String>,
}

/// A dump, opened.
pub struct Session<'r> {
    pub(crate) runtime: &'r Runtime<'r>,
    pub(crate) progress: &'r Progress,
    type_names: OnceCell<Vec<String>>,
    /// Static fields of the types that the modules list.
    statics: OnceCell<Statics>,
    /// Those of instances of generic types too.
    all_statics: OnceCell<Statics>,
    /// Those of threads.
    thread_statics: OnceCell<Statics>,
    /// The signal that the dump was taken for.
    pub(crate) signal: Option<Signal>,
    /// Operating system id of the thread that commands about a thread mean.
    pub(crate) current_thread: Cell<Option<u32>>,
    /// Of how many modules it was said that their types have no names.
    nameless: Cell<usize>,
}

impl<'r> Session<'r> {
    /// A session with the runtime of a dump. `progress` ends commands early when it is cancelled.
    #[must_use]
    pub fn new(runtime: &'r Runtime<'r>, progress: &'r Progress) -> Self {
        Session {
            runtime,
            progress,
            type_names: OnceCell::new(),
            statics: OnceCell::new(),
            all_statics: OnceCell::new(),
            thread_statics: OnceCell::new(),
            signal: None,
            current_thread: Cell::new(None),
            nameless: Cell::new(0),
        }
    }

    /// The same, with the signal that the dump was taken for (`info::signal`), if it was for one.
    #[must_use]
    pub fn with_signal(self, signal: Option<Signal>) -> Self {
        Session { signal, ..self }
    }

    /// Runs one command line and writes its answer to `to`.
    pub fn run(&self, line: &str, to: &mut dyn Write, format: Format) -> Answer {
        let mut notes = Vec::new();
        let result = self.dispatch(line, to, format, &mut notes);
        Answer { result, notes }
    }

    fn dispatch(
        &self,
        line: &str,
        to: &mut dyn Write,
        format: Format,
        notes: &mut Vec<String>,
    ) -> Result<Flow, Error> {
        let mut words = words(line)?.into_iter().peekable();
        // `sos dumpheap` and `ext dumpheap` are how users of other debuggers type it.
        words.next_if(|word| ["sos", "ext"].contains(&word.as_str()));
        let Some(name) = words.next() else { return Ok(Flow::Next) };
        let command = table::find(&name)?;
        let args = Args::parse(command.name(), words, command.options, command.max_operands)?;
        let mut call = Call { session: self, args, out: Out::new(to), format, notes };
        let result = (command.run)(&mut call);
        call.note_names();
        // What was written before an error is part of the answer.
        let written = call.out.finish();
        let flow = result?;
        written?;
        Ok(flow)
    }

    /// Completes the last word of `line`: where that word starts, and what it could be.
    #[must_use]
    pub fn complete(&self, line: &str) -> (usize, Vec<String>) {
        let names = || self.type_names.get_or_init(|| self.heap_type_names());
        crate::complete::complete(line, names)
    }

    /// Name of the static field whose reference stands at one of `slots`.
    pub(crate) fn static_name(&self, slots: &[u64]) -> Option<String> {
        let name = |statics: &Statics| slots.iter().find_map(|&slot| statics.name(self.runtime, slot));
        let instances = || Statics::new(self.runtime, self.generic_types());
        name(self.statics.get_or_init(|| Statics::new(self.runtime, [])))
            .or_else(|| name(self.all_statics.get_or_init(instances)))
    }

    /// Name of the thread static whose reference stands at one of `slots`.
    pub(crate) fn thread_static_name(&self, slots: &[u64]) -> Option<String> {
        let all = || Statics::of_threads(self.runtime, self.generic_types());
        let statics = self.thread_statics.get_or_init(all);
        slots.iter().find_map(|&slot| statics.name(self.runtime, slot))
    }

    /// Instances of generic types: from the loader's tables, else those that have objects.
    fn generic_types(&self) -> Vec<u64> {
        let known = self.runtime.constructed_types();
        if known.is_empty() { self.heap_types() } else { known }
    }

    /// Method tables of the types that have objects; empty when the heap can't be read.
    fn heap_types(&self) -> Vec<u64> {
        let Ok(heap) = self.runtime.objects_heap() else { return Vec::new() };
        let counted = self.runtime.count(&heap.segments, threads(), self.progress);
        counted.map(|all| all.types.iter().map(|slot| slot.table).collect()).unwrap_or_default()
    }

    fn heap_type_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.heap_types().iter().map(|&table| display_name(self.runtime, table)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Threads to count the heap with: all that this process may use.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Facts that can be written as text too.
pub(crate) trait Facts: Serialize {
    /// Writes them as dotnet-dump would.
    fn text(&self, out: &mut Out<'_>);
}

/// One command being run.
pub(crate) struct Call<'c, 's> {
    pub(crate) session: &'c Session<'s>,
    pub(crate) args: Args,
    pub(crate) out: Out<'c>,
    pub(crate) format: Format,
    pub(crate) notes: &'c mut Vec<String>,
}

/// Facts with what should be known of them.
#[derive(Serialize)]
struct Noted<'n, F> {
    #[serde(flatten)]
    facts: F,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'n [String],
}

impl<'s> Call<'_, 's> {
    pub(crate) fn runtime(&self) -> &'s Runtime<'s> {
        self.session.runtime
    }

    /// Adds a note, once.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Notes that types have no names; in text not twice of the same modules.
    fn note_names(&mut self) {
        let nameless = self.runtime().nameless_modules();
        let Some(first) = nameless.first().map(|module| module.path.clone()) else { return };
        let said = self.session.nameless.replace(nameless.len());
        if self.format == Format::Text && said == nameless.len() {
            return;
        }
        let (modules, besides) = match nameless.len() {
            1 => (first, String::new()),
            n => (first, format!(" and {} more", n - 1)),
        };
        self.note(format!(
            "the metadata of {modules}{besides} is neither in the dump nor in a file that is the same, so types have no names: \
             --modules FOLDER names a folder that has these files"
        ));
    }

    pub(crate) fn progress(&self) -> &'s Progress {
        self.session.progress
    }

    /// Writes `,"name":value` of a JSON document that is written piece by piece.
    pub(crate) fn json_field(&mut self, name: &str, value: &impl Serialize) -> Result<(), Error> {
        self.out.fmt(format_args!(",\"{name}\":"));
        serde_json::to_writer(&mut self.out, value).map_err(std::io::Error::from)?;
        Ok(())
    }

    /// Writes the notes so far as the field `notes` of such a document.
    pub(crate) fn json_notes(&mut self) -> Result<(), Error> {
        self.note_names();
        if self.notes.is_empty() {
            return Ok(());
        }
        self.out.str(",\"notes\":");
        serde_json::to_writer(&mut self.out, &*self.notes).map_err(std::io::Error::from)?;
        Ok(())
    }

    /// Ends the command when the user interrupted it.
    pub(crate) fn cancelled(&self) -> Result<(), Error> {
        Ok(self.session.progress.check()?)
    }

    /// Writes the answer.
    pub(crate) fn emit<F: Facts>(&mut self, command: &str, version: u32, facts: &F) -> Result<Flow, Error> {
        match self.format {
            Format::Text => facts.text(&mut self.out),
            Format::Json => {
                self.note_names();
                let schema = format!("dnd.analyze.{command}");
                let facts = Noted { facts, notes: self.notes };
                let document = Envelope { schema: &schema, version, facts };
                serde_json::to_writer(&mut self.out, &document).map_err(std::io::Error::from)?;
                self.out.end();
            }
        }
        self.out.check()?;
        Ok(Flow::Next)
    }
}
