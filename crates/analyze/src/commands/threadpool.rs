//! `threadpool`, `threadpoolqueue` and `timerinfo`: work that waits for a thread or for its time.

use std::collections::BTreeMap;

use dnd_clr::threads::state;
use dnd_clr::{Damage, Object, Runtime};
use dnd_contract::Addr;
use serde::Serialize;

use super::dumpheap::{damage_notes, finish};
use super::method_text::MethodTexts;
use crate::args::Opt;
use crate::error::Error;
use crate::managed::Managed;
use crate::out::Out;
use crate::pool::{self, PoolNumbers, Queue, WorkItem};
use crate::session::{Call, Facts, Flow};
use crate::statistics::{TypeLine, TypeLines};
use crate::table::Command;

pub(crate) static POOL: Command = Command {
    names: &["threadpool", "ThreadPool"],
    operands: "",
    max_operands: 0,
    options: &[
        Opt::flag(&["wi"], "Also the work items that are queued."),
        Opt::flag(&["stat", "summary"], "Also the queued work items by type."),
    ],
    summary: "Shows the thread pool: its threads and limits, and how much work is queued.",
    about: "Work that is queued while all workers run and none is idle means that the pool is starved: pstacks shows what \
            the workers do. The pool of 3.1 is native code; of it only the number of workers is told.",
    run: threadpool,
};

pub(crate) static QUEUE: Command = Command {
    names: &["threadpoolqueue", "tpq", "ThreadPoolQueue"],
    operands: "",
    max_operands: 0,
    options: &[],
    summary: "Lists the work items in the thread pool's queues, and counts them by what they run.",
    about: "Global items are taken by any worker in turn, local ones first by the worker that queued them.",
    run: queue,
};

pub(crate) static TIMERS: Command = Command {
    names: &["timerinfo", "ti", "TimerInfo"],
    operands: "",
    max_operands: 0,
    options: &[],
    summary: "Lists the timers that run: when they are due, and what they call.",
    about: "Times are milliseconds as they were set, not until the next call. S stands before timers that are due soon, L \
            before others. Below, timers that differ in nothing but their address are counted.",
    run: timers,
};

#[derive(Debug, Serialize)]
struct Pool {
    /// Null where the pool has not been used, or is native (3.1).
    portable: Option<PoolNumbers>,
    /// Threads that the runtime marks as workers of the pool.
    worker_threads: usize,
    items: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics: Option<TypeLines>,
    #[serde(skip)]
    listed: bool,
}

#[derive(Debug, Clone, Serialize)]
struct Item {
    queue: Queue,
    item: Addr,
    mt: Addr,
    #[serde(rename = "type")]
    type_name: String,
    task: bool,
    method: Option<Addr>,
    /// The method that it will run, or the state machine that it goes on with.
    name: Option<String>,
}

/// The pool's queues and itself, and what is queued.
fn collect(call: &mut Call<'_, '_>) -> Result<(Vec<Item>, Option<PoolNumbers>, Damage), Error> {
    let runtime = call.runtime();
    let mut managed = Managed::new(runtime);
    let wanted = |name: &str| {
        matches!(
            name,
            "System.Threading.ThreadPoolWorkQueue"
                | "System.Threading.ThreadPoolWorkQueue+WorkStealingQueue"
                | "System.Threading.PortableThreadPool"
        )
    };
    let (found, damage) = pool::instances(call, &mut managed, wanted)?;
    let (pools, queues): (Vec<Object>, Vec<Object>) = found
        .into_iter()
        .partition(|object| &*managed.name(object.table) == "System.Threading.PortableThreadPool");
    let (work, unreadable) = pool::work_items(runtime, &mut managed, &queues);
    if unreadable > 0 {
        call.note(format!("the insides of {unreadable} queues are not in the dump"));
    }
    let mut texts = MethodTexts::default();
    let items = work.iter().map(|work| item(runtime, &mut managed, &mut texts, work)).collect();
    let numbers = pools.first().and_then(|pool| pool::numbers(&mut managed, pool));
    Ok((items, numbers, damage))
}

fn item(runtime: &Runtime<'_>, managed: &mut Managed<'_>, texts: &mut MethodTexts, work: &WorkItem) -> Item {
    let machine = work.machine.map(|table| managed.name(table).to_string());
    Item {
        queue: work.queue,
        item: Addr(work.item.address),
        mt: Addr(work.item.table),
        type_name: managed.name(work.item.table).to_string(),
        task: work.task,
        method: work.method.map(Addr),
        name: machine.or_else(|| work.method.map(|method| texts.get(runtime, method).to_owned())),
    }
}

fn threadpool(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let (items, portable, damage) = collect(call)?;
    let workers = runtime.threads()?.threads.iter();
    let worker_threads =
        workers.filter(|thread| thread.os_id != 0 && thread.state & state::THREAD_POOL_WORKER != 0).count();
    if portable.is_none() {
        call.note(match runtime.major() {
            3 => "the thread pool of 3.1 is native code: its limits are not told",
            _ => "the program has not used the thread pool: there is none on the heap",
        });
    }
    let statistics = call.args.flag("stat").then(|| statistics(runtime, &items));
    damage_notes(call, &damage);
    let listed = call.args.flag("wi");
    call.emit("threadpool", 1, &Pool { portable, worker_threads, items, statistics, listed })?;
    finish(&damage)
}

fn statistics(runtime: &Runtime<'_>, items: &[Item]) -> TypeLines {
    let mut lines: Vec<TypeLine> = Vec::new();
    for item in items {
        let size = runtime.object(item.item.0).map_or(0, |object| object.size);
        match lines.iter_mut().find(|line| line.mt == item.mt) {
            Some(line) => {
                line.count += 1;
                line.bytes += size;
            }
            None => {
                lines.push(TypeLine { mt: item.mt, count: 1, bytes: size, name: item.type_name.clone() });
            }
        }
    }
    TypeLines::new(lines, false)
}

fn queue_name(queue: Queue) -> &'static str {
    match queue {
        Queue::GlobalHighPriority => "[Global high-pri]",
        Queue::Global => "[Global]",
        Queue::Local => "[Local]",
    }
}

impl Facts for Pool {
    fn text(&self, out: &mut Out<'_>) {
        let row = |out: &mut Out<'_>, label: &str, value: String| out.field(label, 19, &value);
        match &self.portable {
            Some(pool) => {
                out.line("Using the Portable thread pool.\n");
                row(out, "CPU utilization:", format!("{}%", pool.cpu_utilization));
                row(out, "Workers Total:", pool.total.to_string());
                row(out, "Workers Running:", pool.running.to_string());
                row(out, "Workers Idle:", pool.total.saturating_sub(pool.running).to_string());
                row(out, "Worker Min Limit:", pool.min.to_string());
                row(out, "Worker Max Limit:", pool.max.to_string());
            }
            None => row(out, "Threads of it:", self.worker_threads.to_string()),
        }
        out.end();
        if self.listed {
            match self.items.is_empty() {
                true => out.line("No queued work items."),
                false => out.line("            Queue           Object Type"),
            }
            for item in &self.items {
                out.right(queue_name(item.queue), 17);
                out.blanks(1);
                out.addr(item.item.0);
                out.blanks(1);
                out.name(&item.type_name);
                if let Some(name) = &item.name {
                    out.str(" => ");
                    out.name(name);
                }
                out.end();
            }
        } else {
            out.fmt(format_args!("Work Request in Queue: {}\n", self.items.len()));
        }
        if let Some(statistics) = &self.statistics {
            statistics.text(out);
        }
    }
}

#[derive(Debug, Serialize)]
struct Queues {
    items: Vec<Item>,
    /// By what they run, the rarest first.
    counts: Vec<NameCount>,
}

#[derive(Debug, Serialize)]
struct NameCount {
    task: bool,
    name: String,
    count: usize,
}

fn queue(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let (items, _, damage) = collect(call)?;
    let mut counted: BTreeMap<(bool, String), usize> = BTreeMap::new();
    for item in &items {
        *counted.entry((item.task, item.text().to_owned())).or_default() += 1;
    }
    let counts = counted.into_iter().map(|((task, name), count)| NameCount { task, name, count });
    let mut counts: Vec<NameCount> = counts.collect();
    counts.sort_by_key(|line| line.count);
    damage_notes(call, &damage);
    call.emit("threadpoolqueue", 1, &Queues { items, counts })?;
    finish(&damage)
}

impl Item {
    fn text(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.type_name)
    }

    fn kind(&self) -> &'static str {
        if self.task { "Task" } else { "Work" }
    }
}

impl Facts for Queues {
    fn text(&self, out: &mut Out<'_>) {
        let (local, global): (Vec<&Item>, Vec<&Item>) =
            self.items.iter().partition(|item| item.queue == Queue::Local);
        let mut part = |title: &str, items: &[&Item]| {
            out.line(title);
            for item in items {
                out.fmt(format_args!("0x{:016X} {} | ", item.item.0, item.kind()));
                out.name(item.text());
                out.end();
            }
            out.end();
        };
        part("global work item queue________________________________", &global);
        part("local per thread work items_____________________________________", &local);
        if self.items.is_empty() {
            return;
        }
        for line in &self.counts {
            out.fmt(format_args!(" {:>4} {}  ", line.count, if line.task { "Task" } else { "Work" }));
            out.name(&line.name);
            out.end();
        }
        out.fmt(format_args!(" ----\n {:>4}\n", self.items.len()));
    }
}

#[derive(Debug, Serialize)]
struct Timers {
    timers: Vec<TimerLine>,
}

#[derive(Debug, Serialize)]
struct TimerLine {
    timer: Addr,
    short: bool,
    due_ms: u32,
    /// Null for a single call.
    period_ms: Option<u32>,
    /// Null for none.
    state: Option<Addr>,
    state_type: Option<String>,
    method: Option<Addr>,
    name: Option<String>,
}

fn timers(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let mut managed = Managed::new(runtime);
    let (queues, damage) = pool::instances(call, &mut managed, |name| name == "System.Threading.TimerQueue")?;
    let mut texts = MethodTexts::default();
    let mut lines = Vec::new();
    for queue in &queues {
        let Some(timers) = pool::timers(runtime, &mut managed, queue) else {
            call.note(format!("the timers of the queue {:x} are not all in the dump", queue.address));
            continue;
        };
        for timer in timers {
            let state = managed.object(timer.state);
            lines.push(TimerLine {
                timer: Addr(timer.timer),
                short: timer.short,
                due_ms: timer.due,
                period_ms: timer.period,
                state: (timer.state != 0).then_some(Addr(timer.state)),
                state_type: state.map(|state| managed.name(state.table).to_string()),
                method: timer.method.map(Addr),
                name: timer.method.map(|method| texts.get(runtime, method).to_owned()),
            });
        }
    }
    damage_notes(call, &damage);
    call.emit("timerinfo", 1, &Timers { timers: lines })?;
    finish(&damage)
}

impl TimerLine {
    /// Everything but the addresses.
    fn rest(&self, with_state: bool) -> String {
        let period = self.period_ms.map_or_else(|| "  ------".to_owned(), |period| format!("{period:>8}"));
        let state =
            if with_state { format!("{:016X} ", self.state.unwrap_or_default().0) } else { String::new() };
        let state_type = self.state_type.as_deref().unwrap_or_default();
        let name = self.name.as_deref().unwrap_or("<unknown method>");
        format!("@{:>8} ms every {period} ms |  {state}({state_type}) -> {name}", self.due_ms)
    }
}

impl Facts for Timers {
    fn text(&self, out: &mut Out<'_>) {
        let mut counted: BTreeMap<String, usize> = BTreeMap::new();
        for timer in &self.timers {
            let kind = if timer.short { 'S' } else { 'L' };
            out.fmt(format_args!("({kind}) 0x{:016X} ", timer.timer.0));
            out.name(&timer.rest(true));
            out.end();
            *counted.entry(timer.rest(false)).or_default() += 1;
        }
        out.fmt(format_args!("\n   {} timers\n", self.timers.len()));
        out.line("-----------------------------------------------");
        let mut counted: Vec<_> = counted.into_iter().collect();
        counted.sort_by_key(|(_, count)| *count);
        for (line, count) in counted {
            out.fmt(format_args!("{count:>4} | "));
            out.name(&line);
            out.end();
        }
    }
}
