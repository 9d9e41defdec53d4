//! `threads` and `setthread`: all threads of the dump, and which of them the commands about a thread mean.

use serde::Serialize;

use crate::args::Opt;
use crate::error::Error;
use crate::inspect::os_threads;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["threads", "setthread"],
    operands: "[<index>]",
    max_operands: 1,
    options: &[Opt::flag(&["tid", "t"], "The number is the operating system's id, not the index.")],
    summary: "Lists the threads of the dump, or makes one of them the current thread.",
    about: "The index is the thread's place by id, the first column here and in clrthreads (decimal). Ids are \
            hexadecimal with 0x, else decimal. Commands about a thread, such as clrstack, mean the current one \
            (marked *): in the beginning that which got the signal that ended the process, else the first.",
    run,
};

#[derive(Debug, Serialize)]
struct List {
    threads: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    index: usize,
    os_id: u32,
    current: bool,
    /// There is a managed thread for it.
    managed: bool,
}

/// Operating system id of the current thread; `None` when the dump has no thread.
pub(super) fn current(call: &Call<'_, '_>) -> Option<u32> {
    let chosen = call.session.current_thread.get();
    chosen.or_else(|| {
        let threads = call.runtime().target().threads();
        // Dumps taken of a living process name a signal for no thread.
        let crashed = threads.iter().find(|thread| is_fatal(thread.signal)).map(|thread| thread.tid);
        crashed.or_else(|| threads.iter().map(|thread| thread.tid).min())
    })
}

/// SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV.
fn is_fatal(signal: u16) -> bool {
    [4, 6, 7, 8, 11].contains(&signal)
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let ids = os_threads(call.runtime());
    let wanted = call.args.operands().first().cloned();
    if let Some(text) = wanted {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let number = match digits {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        let number =
            number.ok_or_else(|| call.args.usage(format!("wants the number of a thread, not `{text}`")))?;
        let id = if call.args.flag("tid") {
            ids.iter().find(|&&id| id == number)
        } else {
            usize::try_from(number).ok().and_then(|index| ids.get(index))
        };
        let id = *id.ok_or_else(|| Error::NotFound(format!("there is no thread {text} in the dump")))?;
        call.session.current_thread.set(Some(id));
    }
    let chosen = !call.args.operands().is_empty();
    let current = current(call);
    let managed = |id: u32| call.runtime().thread_by_os_id(id).is_some();
    let line = |(index, &os_id): (usize, &u32)| Line {
        index,
        os_id,
        current: Some(os_id) == current,
        managed: managed(os_id),
    };
    let threads = ids.iter().enumerate().map(line).filter(|line| !chosen || line.current).collect();
    let list = List { threads };
    // To choose a thread answers nothing to people, as in dotnet-dump.
    if chosen && call.format == crate::session::Format::Text {
        Ok(Flow::Next)
    } else {
        call.emit("threads", 1, &list)
    }
}

impl Facts for List {
    fn text(&self, out: &mut Out<'_>) {
        for line in &self.threads {
            let mark = if line.current { '*' } else { ' ' };
            out.fmt(format_args!("{mark}{} 0x{:04X} ({})\n", line.index, line.os_id, line.os_id));
        }
    }
}
