//! The commands: one row each.

use crate::args::{Opt, Value};
use crate::commands;
use crate::error::Error;
use crate::session::{Call, Flow};
use crate::similar::similar;

/// One command of a session.
pub struct Command {
    /// Its name and its aliases, as dotnet-dump spells them. Case does not matter.
    pub names: &'static [&'static str],
    /// What follows the name, for people.
    pub operands: &'static str,
    /// Most operands that it takes.
    pub max_operands: usize,
    /// Its options.
    pub options: &'static [Opt],
    /// One line.
    pub summary: &'static str,
    /// What else there is to know; may be empty.
    pub about: &'static str,
    pub(crate) run: fn(&mut Call<'_, '_>) -> Result<Flow, Error>,
}

impl Command {
    /// The name that the help and JSON use.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }

    /// `dumpheap [-stat] [-mt <mt>] … [<start> [<end>]]`.
    #[must_use]
    pub fn usage(&self) -> String {
        let mut usage = self.name().to_owned();
        for opt in self.options {
            usage.push_str(" [-");
            usage.push_str(opt.names.first().copied().unwrap_or_default());
            if let Value::Word(what) = opt.value {
                usage.push_str(" <");
                usage.push_str(what);
                usage.push('>');
            }
            usage.push(']');
        }
        if !self.operands.is_empty() {
            usage.push(' ');
            usage.push_str(self.operands);
        }
        usage
    }
}

/// All commands, in the order of the help.
pub static COMMANDS: &[&Command] = &[
    &commands::modules::COMMAND,
    &commands::clrstack::COMMAND,
    &commands::threads::COMMAND,
    &commands::crash::COMMAND,
    &commands::array::COMMAND,
    &commands::dump_async::COMMAND,
    &commands::collections::DICTIONARY,
    &commands::collections::QUEUE,
    &commands::delegate::COMMAND,
    &commands::dump_gen::COMMAND,
    &commands::dumpheap::COMMAND,
    &commands::http::COMMAND,
    &commands::loader::ASSEMBLY,
    &commands::loader::DOMAIN,
    &commands::method::DUMPMD,
    &commands::loader::MODULE,
    &commands::method_table::COMMAND,
    &commands::object::COMMAND,
    &commands::stack_objects::COMMAND,
    &commands::value::COMMAND,
    &commands::eeheap::COMMAND,
    &commands::version::COMMAND,
    &commands::quit::COMMAND,
    &commands::finalize::COMMAND,
    &commands::handles::COMMAND,
    &commands::heap_stats::GC_HEAP_STAT,
    &commands::gcroot::COMMAND,
    &commands::gcwhere::COMMAND,
    &commands::help::COMMAND,
    &commands::method::IP2MD,
    &commands::near::COMMAND,
    &commands::native_modules::COMMAND,
    &commands::load_contexts::COMMAND,
    &commands::oom::COMMAND,
    &commands::names::NAME,
    &commands::objsize::COMMAND,
    &commands::parallel_stacks::COMMAND,
    &commands::registers::REGISTERS,
    &commands::registers::THREAD_STATE,
    &commands::path_to::COMMAND,
    &commands::exception::PRINT,
    &commands::exception::DUMP,
    &commands::syncblk::COMMAND,
    &commands::deadlocks::COMMAND,
    &commands::heap_stats::SIZE_STATS,
    &commands::task_state::COMMAND,
    &commands::threadpool::POOL,
    &commands::threadpool::QUEUE,
    &commands::threadpool::TIMERS,
    &commands::current_thread::COMMAND,
    &commands::names::TOKEN,
    &commands::verify::HEAP,
    &commands::verify::OBJECT,
];

/// Commands of dotnet-dump that exist there and not here (yet), so that the answer can say so.
static ELSEWHERE: &[&str] = &[
    "clrma",
    "clru",
    "comstate",
    "d",
    "da",
    "db",
    "dbgout",
    "dc",
    "dd",
    "dp",
    "dq",
    "du",
    "dumpccw",
    "dumpclass",
    "dumpgcdata",
    "dumpil",
    "dumplog",
    "dumpobjgcrefs",
    "dumprcw",
    "dumprequests",
    "dumpruntimetypes",
    "dumpsig",
    "dumpsigelem",
    "dumpstack",
    "dw",
    "eestack",
    "ehinfo",
    "enummem",
    "ephrefs",
    "ephtoloh",
    "findappdomain",
    "findpointersin",
    "gchandleleaks",
    "gcinfo",
    "gctonative",
    "histclear",
    "histinit",
    "histobj",
    "histobjfind",
    "histroot",
    "histstats",
    "hof",
    "loadsymbols",
    "logclose",
    "logging",
    "logopen",
    "maddress",
    "notreachableinrange",
    "readmemory",
    "runtimes",
    "setclrpath",
    "setruntime",
    "setsymbolserver",
    "sosflush",
    "sosstatus",
    "traverseheap",
    "u",
    "watsonbuckets",
];

/// Finds a command by any of its names, with or without the `!` that WinDbg's users type.
///
/// # Errors
/// [`Error::NotBuilt`] for a command that only dotnet-dump has, else [`Error::UnknownCommand`].
pub fn find(name: &str) -> Result<&'static Command, Error> {
    let name = name.strip_prefix('!').unwrap_or(name);
    let found = COMMANDS.iter().find(|c| c.names.iter().any(|n| n.eq_ignore_ascii_case(name)));
    if let Some(command) = found {
        return Ok(command);
    }
    if ELSEWHERE.iter().any(|n| n.eq_ignore_ascii_case(name)) {
        return Err(Error::NotBuilt(name.to_owned()));
    }
    let names = COMMANDS.iter().flat_map(|c| c.names.iter().copied());
    let similar = similar(name, names).map(str::to_owned);
    Err(Error::UnknownCommand { name: name.to_owned(), similar })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_only_once() {
        for name in ["dumpheap", "DumpHeap", "DUMPHEAP", "!dumpheap"] {
            assert_eq!(find(name).expect(name).name(), "dumpheap");
        }
        assert_eq!(find("do").expect("alias").name(), "dumpobj");
        assert_eq!(find("fq").expect("alias").name(), "finalizequeue");
        let mut names: Vec<String> =
            COMMANDS.iter().flat_map(|c| c.names).map(|n| n.to_lowercase()).collect();
        names.extend(ELSEWHERE.iter().map(|n| (*n).to_owned()));
        names.sort();
        names.dedup_by(|a, b| {
            // An alias that differs in case only is the same word.
            let same = a == b;
            assert!(
                !same
                    || COMMANDS
                        .iter()
                        .any(|c| c.names.iter().filter(|n| n.eq_ignore_ascii_case(a)).count() > 1),
                "{a}"
            );
            same
        });
    }

    #[test]
    fn unknown_names_get_a_suggestion() {
        assert!(
            matches!(find("dumphaep"), Err(Error::UnknownCommand { similar: Some(s), .. }) if s == "dumpheap")
        );
        assert!(matches!(find("nosuchcommand"), Err(Error::UnknownCommand { similar: None, .. })));
        assert!(matches!(find("dumpil"), Err(Error::NotBuilt(_))));
        assert!(matches!(find("da"), Err(Error::NotBuilt(_))));
    }
}
