//! `crashinfo`: why the process ended, as far as the dump tells.

use dnd_clr::stack::{FrameKind, Stack};
use dnd_clr::threads::Thread;
use dnd_clr::{Progress, RootKind, Runtime, StackPlace};
use serde::Serialize;

use super::clrstack::{FrameFacts, frame_facts};
use super::exception::{self, Line};
use crate::error::Error;
use crate::info::Signal;
use crate::inspect::{os_threads, runtime_name, string_units};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["crashinfo", "CrashInfo"],
    operands: "",
    max_operands: 0,
    options: &[],
    summary: "Shows why the process ended: signal, crashing thread, its exception and stack.",
    about: "The signal is what the dump's writer noted. `(probably)` stands behind a reason that is concluded from the \
            state of a thread: dumps of 3.1 do not say which thread the signal was for, and Environment.FailFast leaves no \
            frame of its own before .NET 9. A dump that was taken of a running process has no crash, and that is said.",
    run,
};

/// Frames that are shown; a stack overflow has a hundred thousand.
const MAX_FRAMES: usize = 60;
/// An overflow happens within so many bytes of the end of the stack.
const NEAR_END: u64 = 256 << 10;
/// UTF-16 units of a message.
const MAX_MESSAGE: u32 = 1 << 16;
/// Frames of `Environment.FailFast`, innermost ones of a stack.
const FAIL_FAST_FRAMES: usize = 6;
const SIGABRT: i32 = 6;
/// SIGILL, SIGBUS, SIGFPE, SIGSEGV.
const FAULTS: [i32; 4] = [4, 7, 8, 11];

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Reason {
    UnhandledException,
    FailFast,
    StackOverflow,
    /// An address that can't be used, or an instruction that can't be executed.
    Fault,
    /// SIGABRT, for none of the reasons above.
    Abort,
    /// Another signal.
    Signal,
}

#[derive(Debug, Serialize)]
struct Crash {
    reason: Reason,
    /// The reason is written in the dump, not concluded.
    certain: bool,
    /// Null where the dump does not name it.
    signal: Option<Signal>,
    /// The crashing thread; null where it is not known.
    thread: Option<ThreadFacts>,
    /// File that its instruction pointer is in, and the distance from the file's first byte in memory.
    file: Option<String>,
    offset: Option<u64>,
    /// What was given to `Environment.FailFast`.
    message: Option<String>,
    exception: Option<Line>,
    frames: Vec<FrameFacts>,
    /// Further frames.
    left_out: usize,
    runtime_version: Option<String>,
}

#[derive(Debug, Serialize)]
struct ThreadFacts {
    os_id: u32,
    index: Option<usize>,
    /// Null for a thread without managed code.
    managed_id: Option<u32>,
}

/// What the state of a thread tells.
struct Evidence<'r> {
    thread: &'r Thread,
    stack: Stack,
    reason: Reason,
    certain: bool,
    message: Option<String>,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let signal = call.session.signal.clone();
    let threads = runtime.threads().map(|all| all.threads.as_slice()).unwrap_or_default();
    let hit = signal.as_ref().and_then(|signal| signal.thread);
    let (thread, evidence) = match (hit, &signal) {
        (Some(id), _) => {
            let thread = threads.iter().find(|thread| thread.os_id == id);
            let evidence = match thread {
                Some(thread) => evidence(runtime, thread, call.progress())?,
                None => None,
            };
            (thread, evidence)
        }
        // The signal is not told of, or not for whom it was.
        (None, _) => {
            let mut found = Vec::new();
            for thread in threads.iter().filter(|thread| thread.os_id != 0) {
                call.cancelled()?;
                let one = evidence(runtime, thread, call.progress())?;
                // Only createdump of 3.1 hides the signal: else an exception was on its way in a running process.
                let hidden = runtime.major() < 5;
                found.extend(one.filter(|one| hidden || one.reason != Reason::UnhandledException));
            }
            if found.len() > 1 {
                let ids: Vec<String> = found.iter().map(|one| format!("{:#x}", one.thread.os_id)).collect();
                call.note(format!("any of these threads may have ended the process: {}", ids.join(", ")));
            }
            let only = if found.len() == 1 { found.pop() } else { None };
            (only.as_ref().map(|one| one.thread), only)
        }
    };
    let Some((reason, certain)) = reason(signal.as_ref(), evidence.as_ref()) else {
        return Err(Error::NotFound(
            "there is no crash in this dump: it names no signal, and no thread is ending the process"
                .to_owned(),
        ));
    };
    let ids = os_threads(runtime);
    let id = hit.or(thread.map(|thread| thread.os_id));
    let message = evidence.as_ref().and_then(|one| one.message.clone());
    let stack = evidence.map(|one| one.stack).or_else(|| thread.map(|thread| runtime.stack(thread)));
    let shown = stack.iter().flat_map(|stack| &stack.frames).filter(|frame| frame.kind != FrameKind::Native);
    let shown: Vec<_> = shown.collect();
    if let Some(end) = stack.as_ref().map(|stack| stack.end).filter(|end| !end.is_complete()) {
        call.note(format!("the stack of the crashing thread is incomplete: {end}"));
    }
    // The exceptions that stand for the end of a process tell nothing.
    let thrown = thread.map_or(0, |thread| thread.last_thrown);
    let told = matches!(reason, Reason::FailFast | Reason::StackOverflow) || thrown == 0;
    let exception = if told { None } else { exception::read(runtime, thrown, true) };
    if exception.is_none() && !told {
        call.note(format!("the exception at {thrown:#x} is not in the dump"));
    }
    let place = id.and_then(|id| instruction(runtime, id));
    let facts = Crash {
        reason,
        certain,
        signal,
        thread: id.map(|os_id| ThreadFacts {
            os_id,
            index: ids.binary_search(&os_id).ok(),
            managed_id: thread.map(|thread| thread.id),
        }),
        file: place.as_ref().map(|(file, _)| file.clone()),
        offset: place.map(|(_, offset)| offset),
        message,
        exception,
        frames: shown.iter().take(MAX_FRAMES).map(|frame| frame_facts(runtime, frame, true)).collect(),
        left_out: shown.len().saturating_sub(MAX_FRAMES),
        runtime_version: runtime.release().or_else(|| runtime.version().map(|version| version.text.clone())),
    };
    call.emit("crashinfo", 1, &facts)
}

/// The reason, and whether it is written in the dump.
fn reason(signal: Option<&Signal>, evidence: Option<&Evidence<'_>>) -> Option<(Reason, bool)> {
    // An exception may be on its way when a dump of a running process is taken.
    let concluded = evidence.map(|one| match one.reason {
        Reason::UnhandledException => (one.reason, signal.is_some()),
        reason => (reason, one.certain),
    });
    match signal.map(|signal| signal.number) {
        None => concluded,
        Some(number) if FAULTS.contains(&number) => match concluded {
            Some((Reason::StackOverflow, certain)) => Some((Reason::StackOverflow, certain)),
            _ => Some((Reason::Fault, true)),
        },
        Some(SIGABRT) => concluded.or(Some((Reason::Abort, true))),
        Some(_) => Some((Reason::Signal, true)),
    }
}

/// What a thread was doing, if that ends a process.
fn evidence<'r>(
    runtime: &Runtime<'_>,
    thread: &'r Thread,
    progress: &Progress,
) -> Result<Option<Evidence<'r>>, Error> {
    let stack = runtime.stack(thread);
    let found =
        |stack, reason, certain, message| Ok(Some(Evidence { thread, stack, reason, certain, message }));
    let Some(first) = stack.managed().next().map(|(frame, _)| *frame) else { return Ok(None) };
    // The runtime sets an exception of its own for what can't be caught.
    let last_thrown = runtime.object(thread.last_thrown).ok().filter(|_| thread.last_thrown != 0);
    let last_thrown = last_thrown.map(|object| runtime_name(runtime, object.table)).unwrap_or_default();
    let at_end = first.sp < thread.stack_limit.saturating_add(NEAR_END);
    if at_end && stack.frames.len() > MAX_FRAMES {
        let certain = last_thrown == "System.StackOverflowException";
        return found(stack, Reason::StackOverflow, certain, None);
    }
    let fail_fast = |method: u64| {
        let name = runtime.method_name(method);
        name.starts_with("System.Environment.FailFast(") || name.starts_with("System.Environment._FailFast(")
    };
    let frames = stack.managed().take(FAIL_FAST_FRAMES).filter(|(_, code)| fail_fast(code.method));
    if let Some(outer) = frames.map(|(frame, _)| frame.sp).last() {
        let message = string_in(runtime, thread, progress, |place| place.sp.0 <= outer)?;
        return found(stack, Reason::FailFast, true, message);
    }
    if at_throw(runtime, thread, &stack) {
        return found(stack, Reason::UnhandledException, true, None);
    }
    if last_thrown != "System.ExecutionEngineException" {
        return Ok(None);
    }
    // Until 8 the runtime's own code is called directly, and a frame of its own protects the message.
    let helper = stack.frames.iter().find_map(|frame| match frame.kind {
        FrameKind::Explicit { kind, address, .. } => {
            (kind.name() == "HelperMethodFrame_1OBJ").then_some(address)
        }
        _ => None,
    });
    let message = match helper {
        Some(helper) => string_in(runtime, thread, progress, |place| place.sp.0 == helper)?,
        None => None,
    };
    match message {
        Some(message) => found(stack, Reason::FailFast, true, Some(message)),
        None => found(stack, Reason::Abort, true, None),
    }
}

/// An exception stands where it was thrown, or thrown again: nobody catches it.
fn at_throw(runtime: &Runtime<'_>, thread: &Thread, stack: &Stack) -> bool {
    let Some(&current) = thread.exceptions.first().filter(|&&exception| exception != 0) else { return false };
    let Ok(Some(exception)) = runtime.exception(current) else { return false };
    let handling = |method: u64| runtime.method_name(method).starts_with("System.Runtime.EH.");
    let again = |method: u64| {
        runtime.method_name(method) == "System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw()"
    };
    let here = stack.managed().find(|(_, code)| !handling(code.method));
    here.is_some_and(|(frame, code)| {
        let passed = exception.frames.iter().any(|one| one.sp == frame.sp && one.method == code.method);
        passed && !code.funclet || again(code.method)
    })
}

/// The text that some places of a thread's stack refer to, when it is one.
fn string_in(
    runtime: &Runtime<'_>,
    thread: &Thread,
    progress: &Progress,
    wanted: impl Fn(&StackPlace) -> bool,
) -> Result<Option<String>, Error> {
    let roots = match runtime.exact_stack_roots(progress) {
        Ok(roots) => roots,
        Err(dnd_clr::Error::Cancelled) => return Err(dnd_clr::Error::Cancelled.into()),
        // A dump without the heap.
        Err(_) => return Ok(None),
    };
    let Ok(string) = runtime.string_table() else { return Ok(None) };
    let mut found: Vec<u64> = roots
        .roots
        .iter()
        .filter(|root| match &root.kind {
            RootKind::Stack { thread: id, place: Some(place), .. } => *id == thread.os_id && wanted(place),
            _ => false,
        })
        .map(|root| root.object)
        .filter(|&object| runtime.object(object).is_ok_and(|object| object.table == string))
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(match found.as_slice() {
        [one] => string_units(runtime, *one, MAX_MESSAGE).map(|(units, _)| String::from_utf16_lossy(&units)),
        _ => None,
    })
}

/// The file that a thread stands in, and how far from the file's first byte in memory.
fn instruction(runtime: &Runtime<'_>, id: u32) -> Option<(String, u64)> {
    let target = runtime.target();
    let ip = target.threads().iter().find(|thread| thread.tid == id)?.registers.ip();
    let mapping = target.mappings().iter().find(|mapping| mapping.start <= ip && ip < mapping.end)?;
    let same = target.mappings().iter().filter(|other| other.path == mapping.path && other.start <= ip);
    let base = same.map(|mapping| mapping.start).min()?;
    Some((mapping.path.display().to_string(), ip - base))
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Reason::UnhandledException => "an exception that nobody catches",
            Reason::FailFast => "Environment.FailFast",
            Reason::StackOverflow => "stack overflow",
            Reason::Fault => "fault in native code, or in the runtime",
            Reason::Abort => "abort in native code, or in the runtime",
            Reason::Signal => "a signal",
        }
    }
}

impl Facts for Crash {
    fn text(&self, out: &mut Out<'_>) {
        let mut line = |label: &str, value: &str| out.field(label, 20, value);
        line(
            "CrashReason:",
            &format!("{}{}", self.reason.text(), if self.certain { "" } else { " (probably)" }),
        );
        match &self.signal {
            Some(signal) => {
                let name = signal.name.map(|name| format!(" ({name})")).unwrap_or_default();
                let at =
                    signal.fault_address.map(|at| format!(" at address {:#x}", at.0)).unwrap_or_default();
                line("Signal:", &format!("{}{name}{at}", signal.number));
            }
            None => line("Signal:", "not recorded"),
        }
        match &self.thread {
            Some(thread) => {
                let index = thread.index.map(|index| format!(" ({index})")).unwrap_or_default();
                let managed = thread.managed_id.map(|id| format!(", managed {id}")).unwrap_or_default();
                line("ThreadId:", &format!("{:#x}{index}{managed}", thread.os_id));
            }
            None => line("ThreadId:", "not recorded"),
        }
        if let (Some(file), Some(offset)) = (&self.file, self.offset) {
            line("Instruction:", &format!("{file} + {offset:#x}"));
        }
        line("RuntimeType:", "CoreCLR");
        line("RuntimeVersion:", self.runtime_version.as_deref().unwrap_or("<unknown>"));
        if let Some(message) = &self.message {
            line("Message:", message);
        }
        if let Some(exception) = &self.exception {
            out.line("\n** Current Exception **");
            exception.text(out);
        }
        if self.frames.is_empty() {
            return;
        }
        out.line("\n** Stack **\n        Child SP               IP Call Site");
        self.frames.iter().for_each(|frame| frame.text(out, false));
        if self.left_out > 0 {
            out.fmt(format_args!("... {} more frames (clrstack shows them)\n", self.left_out));
        }
    }
}
