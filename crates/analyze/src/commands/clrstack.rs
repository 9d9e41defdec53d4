//! `clrstack`.

use dnd_clr::Runtime;
use dnd_clr::code::IlOffset;
use dnd_clr::stack::{End, FoundBy, Frame, FrameKind};
use dnd_clr::threads::Thread;
use dnd_contract::Addr;
use serde::Serialize;

use super::current_thread;
use super::frame_values::{Register, Values, Wanted, of_thread};
use crate::args::Opt;
use crate::error::Error;
use crate::inspect::os_threads;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["clrstack", "ClrStack"],
    operands: "",
    max_operands: 0,
    options: &[
        Opt::flag(&["all"], "The stacks of all managed threads."),
        Opt::flag(
            &["f", "full"],
            "With the assembly of each method and the distance from its first instruction.",
        ),
        Opt::flag(&["p"], "With parameters, where they are and what they hold."),
        Opt::flag(&["l"], "With locals."),
        Opt::flag(&["a"], "With parameters and locals."),
        Opt::flag(&["r", "registers"], "With the registers of each frame, as far as they are known."),
        Opt::flag(&["n"], "Without source lines."),
        Opt::word(&["c"], "count", "At most so many frames of each thread (decimal)."),
    ],
    summary: "Shows the managed stack of the current thread (setthread), or of all.",
    about: "Frames in brackets are marks that the runtime leaves on the stack where managed code calls into it. A stack \
            that could not be read to its end says why, and the exit code is 6. Values are of the moment of the call \
            that a frame waits for. `<no data>`: the compiler keeps the variable nowhere at this place, or in a \
            register that a call may have changed since.",
    run,
};

#[derive(Debug, Serialize)]
struct Stacks {
    threads: Vec<StackFacts>,
    #[serde(skip)]
    all: bool,
    #[serde(skip)]
    full: bool,
}

#[derive(Debug, Serialize)]
struct StackFacts {
    os_id: u32,
    managed_id: u32,
    index: Option<usize>,
    frames: Vec<FrameFacts>,
    /// Frames left out by `-c`.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: usize,
    /// No managed frame is missing.
    complete: bool,
    /// Why there are no more frames.
    end: EndFacts,
    /// Where the thread stands (`-r`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    registers: Vec<Register>,
}

#[derive(Debug, Serialize)]
struct EndFacts {
    #[serde(flatten)]
    end: End,
    text: String,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct FrameFacts {
    sp: Addr,
    ip: Addr,
    found_by: FoundBy,
    /// Kind of an explicit frame of the runtime; null for managed code.
    explicit: Option<&'static str>,
    /// Method description; null when the frame has none.
    method: Option<Addr>,
    name: Option<String>,
    /// The assembly's file name.
    module: Option<String>,
    /// Bytes from the method's first instruction; null for an explicit frame.
    offset: Option<u64>,
    /// Where in the method's IL it stands; null when that isn't told.
    il_offset: Option<u32>,
    /// The source file, as the compiler was given it.
    file: Option<String>,
    line: Option<u32>,
    /// Why the two can't be told, when that is the dump's fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_source: Option<String>,
    /// Parameters, locals and registers, as asked for.
    #[serde(flatten)]
    values: Option<Values>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let all = call.args.flag("all");
    let limit = call.args.number("c")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let both = call.args.flag("a");
    let wanted = Wanted {
        parameters: both || call.args.flag("p"),
        locals: both || call.args.flag("l"),
        registers: call.args.flag("r"),
    };
    let lines = !call.args.flag("n");
    let ids = os_threads(runtime);
    let threads = chosen(call, all)?;
    let mut stacks = Vec::new();
    for thread in threads {
        call.cancelled()?;
        let index = ids.binary_search(&thread.os_id).ok();
        stacks.push(facts(runtime, thread, index, limit, lines, wanted));
    }
    let broken: Vec<String> = stacks
        .iter()
        .filter(|stack| !stack.complete)
        .map(|stack| format!("the stack of thread {:#x} is incomplete: {}", stack.os_id, stack.end.text))
        .collect();
    for note in &broken {
        call.note(note.clone());
    }
    let frames = || stacks.iter().flat_map(|stack| &stack.frames);
    if let Some(problem) = frames().find_map(|frame| frame.no_source.clone()) {
        let count = frames().filter(|frame| frame.no_source.is_some()).count();
        call.note(format!("where {count} frames stand in their source can't be told: {problem}"));
    }
    let flow = call.emit("clrstack", 1, &Stacks { threads: stacks, all, full: call.args.flag("f") })?;
    match broken.len() {
        0 => Ok(flow),
        1 => Err(Error::Partial("a stack is incomplete".to_owned())),
        n => Err(Error::Partial(format!("{n} stacks are incomplete"))),
    }
}

/// The managed threads that a command is about: all that have not ended, or the current one.
pub(super) fn chosen<'r>(call: &Call<'_, 'r>, all: bool) -> Result<Vec<&'r Thread>, Error> {
    let runtime = call.runtime();
    if all {
        return Ok(runtime.threads()?.threads.iter().filter(|thread| thread.os_id != 0).collect());
    }
    let no_thread = || Error::NotFound("the dump has no thread".to_owned());
    let id = current_thread::current(call).ok_or_else(no_thread)?;
    // An error about the list of threads is not to look like a thread without managed code.
    let found = runtime.threads()?.threads.iter().find(|thread| thread.os_id == id);
    let found = found.ok_or_else(|| {
        Error::NotFound(format!(
            "thread {id:#x} is no managed thread (clrthreads lists them, setthread chooses one)"
        ))
    })?;
    Ok(vec![found])
}

fn facts(
    runtime: &Runtime<'_>,
    thread: &Thread,
    index: Option<usize>,
    limit: usize,
    lines: bool,
    wanted: Wanted,
) -> StackFacts {
    let stack = if wanted.any() { runtime.stack_with_registers(thread) } else { runtime.stack(thread) };
    let mut frames = Vec::new();
    let mut count = 0usize;
    for (number, frame) in stack.frames.iter().enumerate() {
        if frame.kind == FrameKind::Native {
            continue;
        }
        count += 1;
        if count <= limit {
            let mut facts = frame_facts(runtime, frame, lines);
            let context = stack.contexts.get(number).filter(|_| wanted.any());
            facts.values = context.map(|context| Values::read(runtime, frame, context, wanted));
            frames.push(facts);
        }
    }
    let os = runtime.target().threads().iter().find(|os| os.tid == thread.os_id);
    let os = os.filter(|_| wanted.registers);
    StackFacts {
        os_id: thread.os_id,
        managed_id: thread.id,
        index,
        frames,
        left_out: count.saturating_sub(limit),
        complete: stack.end.is_complete(),
        end: EndFacts { end: stack.end, text: stack.end.to_string() },
        registers: os.map(|os| of_thread(&os.registers)).unwrap_or_default(),
    }
}

pub(super) fn frame_facts(runtime: &Runtime<'_>, frame: &Frame, lines: bool) -> FrameFacts {
    let source = match &frame.kind {
        FrameKind::Managed(code) if lines => runtime.source_of_code(code, frame.at()),
        _ => None,
    };
    let il_offset = source.as_ref().and_then(|source| match source.il {
        Some(IlOffset::At(offset)) => Some(offset),
        _ => None,
    });
    let no_source = source.as_ref().and_then(|source| source.problem.as_ref()).map(ToString::to_string);
    let line = source.and_then(|source| source.line);
    let (sp, explicit, method, offset) = match &frame.kind {
        FrameKind::Managed(code) => {
            let method = (code.method != 0).then_some(code.method);
            (frame.sp, None, method, Some(frame.ip.wrapping_sub(code.start)))
        }
        FrameKind::Explicit { kind, address, method } => (*address, Some(kind.name()), *method, None),
        FrameKind::Native => (frame.sp, None, None, None),
    };
    FrameFacts {
        sp: Addr(sp),
        ip: Addr(frame.ip),
        found_by: frame.found_by,
        explicit,
        method: method.map(Addr),
        name: method.map(|method| runtime.method_name(method)),
        module: method.and_then(|method| module_of(runtime, method)),
        offset,
        il_offset,
        line: line.as_ref().map(|line| line.line),
        file: line.map(|line| line.file),
        no_source,
        values: None,
    }
}

/// File name of the assembly that a method belongs to.
pub(super) fn module_of(runtime: &Runtime<'_>, method: u64) -> Option<String> {
    let table = runtime.method_table(runtime.method(method).ok()?.table).ok()?;
    let module = table.module(runtime.target(), runtime.layout()).ok()?;
    Some(runtime.module(module).file_name()).filter(|name| !name.is_empty())
}

impl Facts for Stacks {
    fn text(&self, out: &mut Out<'_>) {
        for stack in &self.threads {
            match stack.index.filter(|_| !self.all) {
                Some(index) => out.fmt(format_args!("OS Thread Id: {:#x} ({index})\n", stack.os_id)),
                None => out.fmt(format_args!("OS Thread Id: {:#x}\n", stack.os_id)),
            }
            out.line("        Child SP               IP Call Site");
            for frame in &stack.frames {
                frame.text(out, self.full);
                if let Some(values) = &frame.values {
                    values.text(out, frame.explicit.is_none());
                }
            }
            if stack.left_out > 0 {
                out.fmt(format_args!("... {} more frames (-c)\n", stack.left_out));
            }
            if !stack.complete {
                out.fmt(format_args!("<the stack is incomplete: {}>\n", stack.end.text));
            }
        }
    }
}

/// ` [file @ line]`, if the line is known.
pub(super) fn write_line(out: &mut Out<'_>, file: Option<&str>, line: Option<u32>) {
    if let (Some(file), Some(line)) = (file, line) {
        out.str(" [");
        out.name(file);
        out.fmt(format_args!(" @ {line}]"));
    }
}

impl FrameFacts {
    pub(super) fn text(&self, out: &mut Out<'_>, full: bool) {
        let name = self.name.as_deref();
        if let Some(kind) = self.explicit {
            match full {
                true => out.fmt(format_args!("{:016X} {:16} [{kind}: {:016x}] ", self.sp.0, "", self.sp.0)),
                false => out
                    .fmt(format_args!("{:016X} {:016x} [{kind}: {:016x}] ", self.sp.0, self.ip.0, self.sp.0)),
            }
            out.name(name.unwrap_or_default());
            out.end();
            return;
        }
        out.fmt(format_args!("{:016X} {:016X} ", self.sp.0, self.ip.0));
        if full && let Some(module) = &self.module {
            out.name(module);
            out.str("!");
        }
        out.name(name.unwrap_or("<unknown method>"));
        if full && let Some(offset) = self.offset {
            out.fmt(format_args!(" + {offset}"));
        }
        write_line(out, self.file.as_deref(), self.line);
        out.end();
    }
}
