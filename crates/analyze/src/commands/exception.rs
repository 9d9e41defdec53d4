//! `printexception` and `dumpexceptions`.

use std::ops::ControlFlow;

use dnd_clr::{Exception, GenerationName, Runtime};
use dnd_contract::Addr;
use serde::Serialize;

use super::clrstack::{chosen, module_of};
use super::dumpheap::{damage_notes, finish};
use super::generation;
use crate::args::Opt;
use crate::error::Error;
use crate::inspect::{self, display_name, runtime_name, string_units};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static PRINT: Command = Command {
    names: &["printexception", "pe", "PrintException"],
    operands: "[<address>]",
    max_operands: 1,
    options: &[
        Opt::flag(&["nested"], "Also the exceptions that are being handled around this one."),
        Opt::flag(&["lines", "l"], "With source lines."),
    ],
    summary: "Shows an exception: type, message, inner exception, stack trace.",
    about: "Without an address the exception that the current thread (setthread) threw last.",
    run: print,
};

pub(crate) static DUMP: Command = Command {
    names: &["dumpexceptions", "DumpExceptions"],
    operands: "",
    max_operands: 0,
    options: &[
        Opt::word(&["type"], "text", "Only types whose name has this part (case matters)."),
        Opt::flag(&["live"], "Only exceptions that a root reaches."),
        Opt::flag(&["dead"], "Only exceptions that no root reaches: of the past, mostly handled."),
        Opt::word(
            &["gen"],
            "generation",
            "Only gen0, gen1, gen2, loh (large), poh (pinned) or foh (frozen).",
        ),
    ],
    summary: "Lists all exception objects with their messages and where they were thrown.",
    about: "Exceptions that were handled stay on the heap until the next GC of their generation: what a program throws \
            and catches all the time is in here, too. The runtime makes three of its own at start.",
    run: dump,
};

/// UTF-16 units of a message that are shown.
const MAX_MESSAGE: u32 = 1 << 16;

/// An exception, as the commands show it.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    object: Addr,
    mt: Addr,
    #[serde(rename = "type")]
    type_name: String,
    message: Option<String>,
    /// The message is not in the dump, or only its beginning is shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    message_incomplete: bool,
    inner: Option<Inner>,
    frames: Vec<TraceLine>,
    /// Frames that are not in the dump.
    #[serde(skip_serializing_if = "is_zero")]
    missing_frames: u64,
    stack_trace_string: Option<String>,
    hresult: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Inner {
    object: Addr,
    #[serde(rename = "type")]
    type_name: Option<String>,
}

#[derive(Debug, Serialize)]
struct TraceLine {
    sp: Addr,
    ip: Addr,
    method: Addr,
    name: String,
    module: Option<String>,
    /// Bytes from the method's first instruction.
    offset: Option<u64>,
    /// The source file, as the compiler was given it; with `-lines`.
    file: Option<String>,
    line: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn print(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let mut nested = Vec::new();
    let address = match call.args.operand_addr(0, "the address of an exception")? {
        Some(address) => address,
        None => {
            let threads = chosen(call, false)?;
            let thread = threads.first().filter(|thread| thread.last_thrown != 0);
            let none = || Error::NotFound("there is no current managed exception on this thread".to_owned());
            let thread = thread.ok_or_else(none)?;
            nested = thread.exceptions.into_iter().filter(|&e| e != 0 && e != thread.last_thrown).collect();
            thread.last_thrown
        }
    };
    let lines = call.args.flag("lines");
    let read = |address: u64| {
        read(runtime, address, lines)
            .ok_or(Error::NotA { addr: address, wanted: "the address of an exception object" })
    };
    let mut exceptions = vec![read(address)?];
    let more = !nested.is_empty() && !call.args.flag("nested");
    if !more {
        for address in nested {
            exceptions.push(read(address)?);
        }
    }
    call.emit("printexception", 1, &Printed { exceptions, more_nested: more })
}

/// The exception at an address; `None` when there is none, or it is not in the dump.
pub(super) fn read(runtime: &Runtime<'_>, address: u64, lines: bool) -> Option<Line> {
    let found = if address.is_multiple_of(8) { runtime.exception(address).ok().flatten() } else { None };
    found.map(|exception| line(runtime, &exception, lines))
}

fn line(runtime: &Runtime<'_>, exception: &Exception, lines: bool) -> Line {
    let text = |at: u64| if at == 0 { None } else { string_units(runtime, at, MAX_MESSAGE) };
    let message = text(exception.message);
    let message_incomplete = match &message {
        None => exception.message != 0,
        Some((units, length)) => units.len() < *length as usize,
    };
    let lossy = |(units, _): (Vec<u16>, u32)| String::from_utf16_lossy(&units);
    let frame = |frame: &dnd_clr::TraceFrame| {
        let code = runtime.method_code(frame.at).ok().flatten().filter(|code| code.method == frame.method);
        let source = code.filter(|_| lines).and_then(|code| runtime.source_of_code(&code, frame.at)?.line);
        TraceLine {
            sp: Addr(frame.sp),
            ip: Addr(frame.ip),
            method: Addr(frame.method),
            name: runtime.method_name(frame.method),
            module: module_of(runtime, frame.method),
            offset: code.map(|code| frame.ip.wrapping_sub(code.start)),
            line: source.as_ref().map(|source| source.line),
            file: source.map(|source| source.file),
        }
    };
    Line {
        object: Addr(exception.object),
        mt: Addr(exception.table),
        type_name: runtime_name(runtime, exception.table),
        message: message.map(lossy),
        message_incomplete,
        inner: (exception.inner != 0).then(|| Inner {
            object: Addr(exception.inner),
            type_name: runtime.object(exception.inner).ok().map(|inner| runtime_name(runtime, inner.table)),
        }),
        frames: exception.frames.iter().map(frame).collect(),
        missing_frames: exception.missing_frames,
        stack_trace_string: text(exception.trace_string).map(lossy),
        hresult: exception.hresult,
    }
}

#[derive(Debug, Serialize)]
struct Printed {
    /// The one asked for, then those around it.
    exceptions: Vec<Line>,
    /// There are nested exceptions that were not asked for.
    more_nested: bool,
}

impl Facts for Printed {
    fn text(&self, out: &mut Out<'_>) {
        for (number, exception) in self.exceptions.iter().enumerate() {
            if number > 0 {
                out.line("\nNested exception -------------------------------------------------------------");
            }
            exception.text(out);
        }
        if self.more_nested {
            out.line("There are nested exceptions on this thread. Run with -nested for details");
        }
    }
}

impl Line {
    pub(super) fn text(&self, out: &mut Out<'_>) {
        out.fmt(format_args!("Exception object: {:016x}\nException type:   ", self.object.0));
        out.name(&self.type_name);
        out.str("\nMessage:          ");
        out.name(self.message_text("<none>"));
        out.str("\nInnerException:   ");
        match &self.inner {
            Some(inner) => {
                out.name(inner.type_name.as_deref().unwrap_or("<unreadable object>"));
                out.fmt(format_args!(", Use printexception {:016x} to see more.\n", inner.object.0));
            }
            None => out.line("<none>"),
        }
        out.line("StackTrace (generated):");
        if self.frames.is_empty() && self.missing_frames == 0 {
            out.line("<none>");
        } else {
            out.line("    SP               IP               Function");
        }
        for frame in &self.frames {
            out.fmt(format_args!("    {:016X} {:016X} ", frame.sp.0, frame.ip.0));
            if let Some(module) = &frame.module {
                out.name(module);
                out.str("!");
            }
            out.name(&frame.name);
            if let Some(offset) = frame.offset {
                out.fmt(format_args!("+0x{offset:x}"));
            }
            super::clrstack::write_line(out, frame.file.as_deref(), frame.line);
            out.end();
        }
        if self.missing_frames > 0 {
            out.fmt(format_args!("    ... {} frames are not in the dump\n", self.missing_frames));
        }
        out.str("\nStackTraceString: ");
        out.name(self.stack_trace_string.as_deref().unwrap_or("<none>"));
        out.end();
        match self.hresult {
            Some(hresult) => out.fmt(format_args!("HResult: {hresult:x}\n")),
            None => out.line("HResult: <unknown>"),
        }
    }

    fn message_text<'t>(&'t self, none: &'t str) -> &'t str {
        match &self.message {
            Some(text) => text,
            None if self.message_incomplete => "<not in the dump>",
            None => none,
        }
    }
}

#[derive(Debug, Serialize)]
struct All {
    exceptions: Vec<Line>,
}

fn dump(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let wanted = call.args.word("type").unwrap_or_default().to_owned();
    let wanted_generation = generation(&call.args)?;
    let live = match (call.args.flag("live"), call.args.flag("dead")) {
        (true, true) => return Err(call.args.usage("takes -live or -dead, not both")),
        (false, false) => None,
        (live, _) => Some(live),
    };
    let heap = runtime.objects_heap()?;
    let mut known = std::collections::HashMap::new();
    let mut found = Vec::new();
    let damage = runtime.walk_all(&heap.segments, call.progress(), |segment, object| {
        let is_wanted = known.entry(object.table).or_insert_with(|| {
            runtime.is_exception(object.table).unwrap_or(false)
                && display_name(runtime, object.table).contains(&wanted)
        });
        let of_generation = |wanted: GenerationName| heap.generation_of(segment, object.address) == wanted;
        if *is_wanted && wanted_generation.is_none_or(of_generation) {
            found.push(object.address);
        }
        ControlFlow::Continue(())
    })?;
    if let Some(live) = live {
        let (roots, notes) = inspect::roots(runtime, true, call.progress())?;
        notes.into_iter().chain(inspect::ref_counted(&roots)).for_each(|note| call.note(note));
        runtime.reached(&roots, call.progress(), |reached| {
            found.retain(|&address| reached.contains(address) == live);
        })?;
    }
    let mut exceptions = Vec::new();
    let mut unreadable = 0;
    for address in found {
        call.cancelled()?;
        match runtime.exception(address) {
            Ok(Some(exception)) => exceptions.push(line(runtime, &exception, false)),
            Ok(None) => {}
            Err(_) => unreadable += 1,
        }
    }
    if unreadable > 0 {
        call.note(format!("{unreadable} exceptions could not be read"));
    }
    damage_notes(call, &damage);
    call.emit("dumpexceptions", 1, &All { exceptions })?;
    finish(&damage)
}

impl Facts for All {
    fn text(&self, out: &mut Out<'_>) {
        out.line("         Address      MethodTable Message Name");
        for exception in &self.exceptions {
            out.fmt(format_args!("{:>16x} {:>16x} ", exception.object.0, exception.mt.0));
            out.name(&exception.type_name);
            out.str("\n        Message: ");
            out.name(exception.message_text("<null>"));
            out.end();
            if let Some(frame) = exception.frames.first() {
                out.str("        StackFrame: ");
                out.name(&frame.name);
                out.end();
            }
        }
        out.fmt(format_args!("\n    Total: {} objects\n", self.exceptions.len()));
    }
}
