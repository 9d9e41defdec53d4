//! `deadlocks`: who waits for whom.

use std::collections::HashMap;

use dnd_clr::Runtime;
use dnd_clr::stack::{Frame, FrameKind, Stack};
use dnd_clr::threads::Thread;
use dnd_contract::Addr;
use serde::Serialize;

use super::clrstack::{FrameFacts, frame_facts};
use crate::error::Error;
use crate::inspect::{runtime_name, thin_lock};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["deadlocks"],
    operands: "",
    max_operands: 0,
    options: &[],
    summary: "Shows threads that wait for each other's locks, with their stacks.",
    about: "Monitors (lock, Monitor.Enter) and System.Threading.Lock. A thread waits for a lock when its stack stands in \
            the method that enters it, and holds a reference to the object of a lock that another thread owns. \
            (probably) stands behind a lock that counts no waiting thread: one in the object's header (a thin lock), or \
            one whose wait has only just begun; the thread may be about to get it. Not \
            found is a deadlock over reader-writer locks and mutexes, whose owners are not looked at, or over semaphores, \
            events and tasks, which have none.",
    run,
};

/// Methods in which a thread waits for a monitor or a lock: type, begin of the method's name.
const ENTERING: &[(&str, &[&str])] = &[
    ("System.Threading.Monitor", &["Enter", "ReliableEnter", "TryEnter", "ReliableEnterTimeout"]),
    ("System.Threading.Lock", &["Enter", "TryEnter"]),
];
const LOCK: &str = "System.Threading.Lock";

#[derive(Debug, Serialize)]
struct Answer {
    /// Threads that wait for each other; each waits for the next one, the last for the first.
    cycles: Vec<Vec<Waiter>>,
    /// Threads that wait for a lock outside these.
    waiting: Vec<Waiter>,
    /// Monitors that count more waiting threads than were found.
    unseen: Vec<Unseen>,
}

/// A monitor for which threads wait whose stacks do not tell.
#[derive(Debug, Serialize)]
struct Unseen {
    lock: Lock,
    /// How many.
    waiters: usize,
}

#[derive(Debug, Clone, Serialize)]
struct Waiter {
    os_id: u32,
    managed_id: u32,
    /// The lock that it waits for; null when the stack does not show which.
    lock: Option<Lock>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    frames: Vec<FrameFacts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    object: u64,
    /// `Thread*`.
    owner: u64,
    kind: LockKind,
    /// The lock itself knows of a waiting thread.
    certain: bool,
}

/// What kind of lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum LockKind {
    /// A monitor with a sync block.
    Monitor,
    /// A monitor in the object's header.
    ThinLock,
    /// A `System.Threading.Lock`.
    Lock,
}

/// Monitors with a sync block: object → (`Thread*` of the owner, whether threads wait).
type Monitors = HashMap<u64, (u64, bool)>;

#[derive(Debug, Clone, Serialize)]
struct Lock {
    object: Addr,
    #[serde(rename = "type")]
    type_name: String,
    kind: LockKind,
    /// The lock itself knows of a waiting thread; else the thread may be about to get it.
    certain: bool,
    owner_os_id: u32,
    owner_managed_id: u32,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let threads = &runtime.threads()?.threads;
    let blocks = runtime.sync_blocks()?;
    if blocks.cut {
        call.note(format!("the dump has no sync blocks behind number {}", blocks.total));
    }
    let monitors: Monitors = blocks
        .blocks
        .iter()
        .filter(|block| block.locked)
        .filter_map(|block| Some((block.object, (block.owner?, block.waiters > 0))))
        .collect();
    // Thread* → what it waits for.
    let mut waits: Vec<(&Thread, Option<Held>)> = Vec::new();
    let mut incomplete = 0;
    for thread in threads.iter().filter(|thread| thread.os_id != 0) {
        call.cancelled()?;
        match waits_for(runtime, threads, thread, &monitors) {
            Ok(Some(held)) => waits.push((thread, held)),
            Ok(None) => {}
            Err(why) => {
                incomplete += 1;
                call.note(format!("the stack of thread {:#x} is incomplete: {why}", thread.os_id));
            }
        }
    }
    let next: HashMap<u64, u64> =
        waits.iter().filter_map(|(thread, held)| Some((thread.address, held.as_ref()?.owner))).collect();
    let waiter = |address: u64, stack: bool| {
        let (thread, held) = waits.iter().find(|(thread, _)| thread.address == address)?;
        Some(Waiter {
            os_id: thread.os_id,
            managed_id: thread.id,
            lock: held.and_then(|held| lock(runtime, threads, held)),
            frames: if stack { frames(runtime, thread) } else { Vec::new() },
        })
    };
    let cycles = cycles(&next);
    let inside = |address: u64| cycles.iter().any(|cycle| cycle.contains(&address));
    let waiting = waits
        .iter()
        .filter(|(thread, _)| !inside(thread.address))
        .filter_map(|(thread, _)| waiter(thread.address, false))
        .collect();
    let cycles =
        cycles.iter().map(|cycle| cycle.iter().filter_map(|&one| waiter(one, true)).collect()).collect();
    let unseen = blocks.blocks.iter().filter(|block| block.locked).filter_map(|block| {
        let found = waits.iter().filter(|(_, held)| held.is_some_and(|held| held.object == block.object));
        let waiters = usize::try_from(block.waiters).unwrap_or(usize::MAX).saturating_sub(found.count());
        let held = Held { object: block.object, owner: block.owner?, kind: LockKind::Monitor, certain: true };
        (waiters > 0).then_some(Unseen { lock: lock(runtime, threads, held)?, waiters })
    });
    let answer = Answer { cycles, waiting, unseen: unseen.collect() };
    let flow = call.emit("deadlocks", 1, &answer)?;
    match incomplete {
        0 => Ok(flow),
        1 => Err(Error::Partial("a stack is incomplete: what its thread waits for is not known".to_owned())),
        n => Err(Error::Partial(format!(
            "{n} stacks are incomplete: what their threads wait for is not known"
        ))),
    }
}

/// The rings in a map in which each has at most one successor, each beginning with its lowest member.
fn cycles(next: &HashMap<u64, u64>) -> Vec<Vec<u64>> {
    let mut starts: Vec<u64> = next.keys().copied().collect();
    starts.sort_unstable();
    let mut found: Vec<Vec<u64>> = Vec::new();
    for start in starts {
        let mut path = vec![start];
        let mut at = start;
        while let Some(&to) = next.get(&at) {
            if to == start {
                found.push(path);
                break;
            }
            // Into a ring that does not hold the start, or one that a lower member begins.
            if to < start || path.contains(&to) {
                break;
            }
            path.push(to);
            at = to;
        }
    }
    found
}

/// The lock that a thread waits for: `None` when it waits for none, `Some(None)` when its stack does not show which.
fn waits_for(
    runtime: &Runtime<'_>,
    threads: &[Thread],
    thread: &Thread,
    monitors: &Monitors,
) -> Result<Option<Option<Held>>, String> {
    let stack = runtime.stack(thread);
    // The outermost of the frames that enter a lock; those further in work for it.
    let entering = stack.managed().enumerate().filter(|(_, (_, code))| enters(runtime, code.method)).last();
    let Some((depth, (frame, _))) = entering else {
        return match directly_waits_for(runtime, threads, thread, &stack, monitors) {
            Some(held) => Ok(Some(Some(held))),
            None if stack.end.is_complete() => Ok(None),
            None => Err(stack.end.to_string()),
        };
    };
    // All frames further in belong to the type of the lock, or to the runtime: else this is a lock held, entered further
    // out by a method that went on to other things.
    let works_for_it = |method: u64| {
        let name = runtime.method_name(method);
        name.starts_with("System.Threading.") || name.starts_with("ILStubClass.")
    };
    if !stack.managed().take(depth).all(|(_, code)| works_for_it(code.method)) {
        return Ok(None);
    }
    let mut held: Vec<Held> = Vec::new();
    for reference in runtime.stack_references(thread).references {
        // Frames up to the one that enters; explicit frames have their address for a stack pointer.
        if reference.interior || reference.sp > frame.sp && reference.method != 0 {
            continue;
        }
        let Some(one) = holder(runtime, threads, monitors, reference.value) else { continue };
        if one.owner != thread.address && !held.contains(&one) {
            held.push(one);
        }
    }
    // What has no waiting threads is one only if nothing has.
    if held.iter().any(|one| one.certain) {
        held.retain(|one| one.certain);
    }
    match held.as_slice() {
        [one] => Ok(Some(Some(*one))),
        _ => Ok(Some(None)),
    }
}

/// The lock of an object, if somebody holds it.
fn holder(runtime: &Runtime<'_>, threads: &[Thread], monitors: &Monitors, object: u64) -> Option<Held> {
    if let Some(&(owner, certain)) = monitors.get(&object) {
        return Some(Held { object, owner, kind: LockKind::Monitor, certain });
    }
    if let Some(owner) = owner_of_lock(runtime, threads, object) {
        return Some(Held { object, owner, kind: LockKind::Lock, certain: true });
    }
    let heap = runtime.heap().ok()?;
    heap.segment_of(object).filter(|_| object.is_multiple_of(8))?;
    let (id, _) = thin_lock(runtime, object)?;
    let owner = threads.iter().find(|thread| thread.id == id)?.address;
    Some(Held { object, owner, kind: LockKind::ThinLock, certain: false })
}

/// From 8 to 9 the JIT calls the runtime's own code to enter a monitor: no managed frame tells of it, but a helper frame
/// protects the object.
fn directly_waits_for(
    runtime: &Runtime<'_>,
    threads: &[Thread],
    thread: &Thread,
    stack: &Stack,
    monitors: &Monitors,
) -> Option<Held> {
    let helper = |frame: &Frame| match frame.kind {
        FrameKind::Explicit { kind, address, .. } if kind.name().starts_with("HelperMethodFrame") => {
            Some(address)
        }
        _ => None,
    };
    let inner = stack.frames.iter().take_while(|frame| !matches!(frame.kind, FrameKind::Managed(_)));
    let helper = inner.filter_map(helper).next()?;
    // Monitor.Wait, which protects its object in the same way, has a managed frame.
    let (_, caller) = stack.managed().next()?;
    if runtime.method_name(caller.method).starts_with("System.Threading.Monitor.") {
        return None;
    }
    let references = runtime.stack_references(thread).references;
    let mut protected =
        references.iter().filter(|one| one.method == 0 && one.sp == helper).map(|one| one.value);
    let held = protected.find_map(|object| holder(runtime, threads, monitors, object))?;
    (held.owner != thread.address).then_some(held)
}

fn enters(runtime: &Runtime<'_>, method: u64) -> bool {
    let Ok(description) = runtime.method(method) else { return false };
    let type_name = runtime_name(runtime, description.table);
    let Some((_, names)) = ENTERING.iter().find(|(name, _)| *name == type_name) else { return false };
    let full = runtime.method_name(method);
    let name = full.get(type_name.len() + 1..).unwrap_or_default();
    names.iter().any(|begin| name.starts_with(begin))
}

/// `Thread*` of the owner of a `System.Threading.Lock`, which keeps the operating system's id
/// (`System.Private.CoreLib`, `Lock.CoreCLR.cs`).
fn owner_of_lock(runtime: &Runtime<'_>, threads: &[Thread], address: u64) -> Option<u64> {
    let object = runtime.object(address).ok().filter(|_| address != 0)?;
    if runtime_name(runtime, object.table) != LOCK {
        return None;
    }
    let fields = runtime.fields(&runtime.method_table(object.table).ok()?).ok()?;
    let field = fields.iter().find(|field| field.name == "_owningThreadId" && !field.is_static)?;
    let id = runtime.target().u32(address.wrapping_add(8).wrapping_add(field.offset.into())).ok()?;
    threads.iter().find(|thread| id != 0 && thread.os_id == id).map(|thread| thread.address)
}

fn lock(runtime: &Runtime<'_>, threads: &[Thread], held: Held) -> Option<Lock> {
    let owner = threads.iter().find(|thread| thread.address == held.owner)?;
    let type_name = runtime.object(held.object).ok().map(|object| runtime_name(runtime, object.table));
    Some(Lock {
        object: Addr(held.object),
        type_name: type_name.unwrap_or_else(|| "<unreadable object>".to_owned()),
        kind: held.kind,
        certain: held.certain,
        owner_os_id: owner.os_id,
        owner_managed_id: owner.id,
    })
}

fn frames(runtime: &Runtime<'_>, thread: &Thread) -> Vec<FrameFacts> {
    let stack = runtime.stack(thread);
    let managed = stack.frames.iter().filter(|frame| matches!(frame.kind, FrameKind::Managed(_)));
    managed.map(|frame| frame_facts(runtime, frame, true)).collect()
}

impl Lock {
    fn text(&self, out: &mut Out<'_>) {
        out.fmt(format_args!("{:016x} ", self.object.0));
        out.name(&self.type_name);
        out.fmt(format_args!(
            ", which thread {:#x} (managed {}) holds{}\n",
            self.owner_os_id,
            self.owner_managed_id,
            if self.certain { "" } else { " (probably)" }
        ));
    }
}

impl Waiter {
    fn text(&self, out: &mut Out<'_>) {
        out.fmt(format_args!("Thread {:#x} (managed {}) waits for ", self.os_id, self.managed_id));
        match &self.lock {
            Some(lock) => lock.text(out),
            None => out.line("a lock; its stack does not show which"),
        }
        for frame in &self.frames {
            out.str("    ");
            frame.text(out, false);
        }
    }
}

impl Facts for Answer {
    fn text(&self, out: &mut Out<'_>) {
        for cycle in &self.cycles {
            out.fmt(format_args!("Deadlock of {} threads:\n", cycle.len()));
            cycle.iter().for_each(|waiter| waiter.text(out));
            out.end();
        }
        if !self.waiting.is_empty() {
            out.line("Waiting for a lock:");
            self.waiting.iter().for_each(|waiter| waiter.text(out));
        }
        if !self.unseen.is_empty() {
            out.line("Locks that threads wait for whose stacks do not show it:");
            for Unseen { lock, waiters } in &self.unseen {
                out.fmt(format_args!("{waiters} for "));
                lock.text(out);
            }
        }
        let (cycles, waiting) = (self.cycles.len(), self.waiting.len());
        let deadlocks = if cycles == 1 { "deadlock" } else { "deadlocks" };
        let threads = match (cycles, waiting) {
            (0, 1) => "thread waits",
            (0, _) => "threads wait",
            (_, 1) => "more thread waits",
            _ => "more threads wait",
        };
        let unseen: usize = self.unseen.iter().map(|unseen| unseen.waiters).sum();
        let unseen = match unseen {
            0 => String::new(),
            n => format!(", {n} more by the locks' own count"),
        };
        out.fmt(format_args!("{cycles} {deadlocks}, {waiting} {threads} for a lock{unseen}.\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_found_once() {
        let next = HashMap::from([(1, 2), (2, 1), (3, 1), (4, 4), (5, 6), (6, 7), (7, 5), (8, 9), (10, 6)]);
        assert_eq!(cycles(&next), [vec![1, 2], vec![4], vec![5, 6, 7]]);
    }
}
