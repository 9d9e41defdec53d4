//! `clrthreads`.

use dnd_clr::threads::{Thread, ThreadCounts, state};
use dnd_contract::Addr;
use serde::Serialize;

use crate::args::Opt;
use crate::error::Error;
use crate::inspect::{os_threads, runtime_name};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["clrthreads"],
    operands: "",
    max_operands: 0,
    options: &[Opt::flag(&["live"], "Only threads that have not ended.")],
    summary: "Lists the managed threads.",
    about: "DBG is the thread's place among all threads of the dump (XXXX: it has ended), ID the managed id, OSID the \
            operating system's in hexadecimal. The last column tells what the thread is for and the exception it threw \
            last. Lock Count is -00001 where the runtime no longer counts (all but 3.1).",
    run,
};

#[derive(Debug, Serialize)]
struct Threads {
    counts: ThreadCounts,
    threads: Vec<ThreadLine>,
}

#[derive(Debug, Serialize)]
struct ThreadLine {
    /// Place among the dump's threads; null for a thread that has ended.
    index: Option<usize>,
    managed_id: u32,
    os_id: u32,
    thread: Addr,
    state: Addr,
    cooperative: bool,
    allocation_pointer: Addr,
    allocation_limit: Addr,
    domain: Addr,
    /// Null where the runtime does not count.
    lock_count: Option<u32>,
    finalizer: bool,
    suspends_for_gc: bool,
    thread_pool_worker: bool,
    dead: bool,
    exception: Option<ExceptionLine>,
}

#[derive(Debug, Serialize)]
struct ExceptionLine {
    address: Addr,
    #[serde(rename = "type")]
    type_name: Option<String>,
    /// More exceptions are being handled on this thread.
    nested: bool,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let threads = runtime.threads()?;
    let ids = os_threads(runtime);
    let line = |thread: &Thread| {
        let exception = (thread.last_thrown != 0).then(|| ExceptionLine {
            address: Addr(thread.last_thrown),
            type_name: runtime
                .object(thread.last_thrown)
                .ok()
                .map(|object| runtime_name(runtime, object.table)),
            nested: thread.exceptions.iter().filter(|&&e| e != 0).count() > 1,
        });
        ThreadLine {
            index: ids.binary_search(&thread.os_id).ok().filter(|_| thread.os_id != 0),
            managed_id: thread.id,
            os_id: thread.os_id,
            thread: Addr(thread.address),
            state: Addr(thread.state.into()),
            cooperative: thread.cooperative,
            allocation_pointer: Addr(thread.alloc_pointer),
            allocation_limit: Addr(thread.alloc_limit),
            domain: Addr(thread.app_domain),
            lock_count: thread.lock_count,
            finalizer: thread.address == threads.finalizer,
            suspends_for_gc: thread.address == threads.suspender,
            thread_pool_worker: thread.state & state::THREAD_POOL_WORKER != 0,
            dead: thread.state & state::DEAD != 0,
            exception,
        }
    };
    let mut lines: Vec<ThreadLine> = threads.threads.iter().map(line).collect();
    if call.args.flag("live") {
        lines.retain(|thread| !thread.dead);
    }
    call.emit("clrthreads", 1, &Threads { counts: threads.counts, threads: lines })
}

impl Facts for Threads {
    fn text(&self, out: &mut Out<'_>) {
        let counts = [
            ("ThreadCount:", self.counts.total),
            ("UnstartedThread:", self.counts.unstarted),
            ("BackgroundThread:", self.counts.background),
            ("PendingThread:", self.counts.pending),
            ("DeadThread:", self.counts.dead),
        ];
        for (label, count) in counts {
            out.field(label, 18, &count.to_string());
        }
        out.field("Hosted Runtime:", 18, "no");
        out.blanks(108);
        out.line("Lock");
        out.line(
            " DBG   ID     OSID ThreadOBJ           State GC Mode     GC Alloc Context                  Domain           \
             Count Apt Exception",
        );
        for thread in &self.threads {
            match thread.index {
                Some(index) => out.fmt(format_args!("{index:>4} ")),
                None => out.str("XXXX "),
            }
            out.fmt(format_args!(
                "{:>4} {:>8x} {:016X} {:>8x} {:<11} {:016X}:{:016X} {:016X} ",
                thread.managed_id,
                thread.os_id,
                thread.thread.0,
                thread.state.0,
                if thread.cooperative { "Cooperative" } else { "Preemptive" },
                thread.allocation_pointer.0,
                thread.allocation_limit.0,
                thread.domain.0,
            ));
            match thread.lock_count {
                Some(count) => out.fmt(format_args!("{count:<6}")),
                None => out.str("-00001"),
            }
            out.str(" Ukn ");
            for (yes, text) in [
                (thread.finalizer, "(Finalizer) "),
                (thread.suspends_for_gc, "(GC) "),
                (thread.thread_pool_worker, "(Threadpool Worker) "),
            ] {
                if yes {
                    out.str(text);
                }
            }
            if let Some(exception) = &thread.exception {
                match &exception.type_name {
                    Some(name) => out.name(name),
                    None => out.str("<Invalid Object>"),
                }
                out.fmt(format_args!(" {:016x}", exception.address.0));
                if exception.nested {
                    out.str(" (nested exceptions)");
                }
            }
            out.end();
        }
    }
}
