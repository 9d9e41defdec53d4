//! `gcroot`.

use std::collections::HashSet;

use dnd_clr::{HandleKind, Root, RootKind, SegmentKind, StackPlace};
use dnd_contract::Addr;
use serde::Serialize;

use super::paths::{Describer, ObjectLine, Via};
use crate::args::Opt;
use crate::error::Error;
use crate::inspect::{self, display_name};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["gcroot", "GCRoot"],
    operands: "<address>",
    max_operands: 1,
    options: &[
        Opt::flag(&["all"], "Accepted: all roots are shown anyway."),
        Opt::flag(&["nostacks"], "Leave out what stacks and registers hold."),
        Opt::word(&["limit"], "count", "Show at most so many roots (decimal)."),
    ],
    summary: "Shows what keeps an object alive: a path from every root that reaches it.",
    about: "Each step of a path was checked: the object refers to the next one. There may be other paths from the same \
            root; one is shown.\n`(conservative)` marks a root found by looking at every word of a stack: the word is \
            the address of (or inside) an object, but the method may be done with it. Handles, statics, thread statics \
            and the finalizer queue are exact.\nA static field is shown with the array that holds it: \
            `(static variable: Type.field)`.",
    run,
};

/// Objects shown at each end of a very long path (a linked list, a queue).
const SHOWN_STEPS: usize = 100;

/// What keeps an object alive.
#[derive(Debug, Serialize)]
struct Roots {
    target: ObjectLine,
    roots: Vec<RootLine>,
    /// Number of roots that reach the object, those behind `-limit` included.
    count: usize,
    /// Stack roots were left out.
    without_stacks: bool,
}

#[derive(Debug, Serialize)]
struct RootLine {
    #[serde(flatten)]
    root: Root,
    /// Of the frame that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    method_name: Option<String>,
    path: Vec<ObjectLine>,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "the address of an object")?;
    let runtime = call.runtime();
    let object = inspect::object(runtime, address)?;
    let without_stacks = call.args.flag("nostacks");
    let limit = call.args.number("limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let (roots, notes) = inspect::roots(runtime, !without_stacks, call.progress())?;
    let roots = without_echoes(roots);
    notes.into_iter().for_each(|note| call.note(note));
    if runtime.heap()?.gc_in_progress {
        call.note("the dump was taken during a garbage collection: references may be stale");
    }
    let paths = runtime.paths_to(address, &roots, call.progress())?;
    let count = paths.len();
    let mut describer = Describer::new(call.session);
    let mut lines = Vec::new();
    for path in paths.into_iter().take(limit) {
        let Some(root) = roots.get(path.root) else { continue };
        let method = match &root.kind {
            RootKind::Stack { place: Some(place), .. } => {
                place.method.map(|method| runtime.method_name(method.0))
            }
            _ => None,
        };
        lines.push(RootLine {
            root: root.clone(),
            method_name: method,
            path: describer.path(root, &path.objects),
        });
        call.cancelled()?;
    }
    if let Some(note) = inspect::ref_counted(lines.iter().map(|line| &line.root)) {
        call.note(note);
    }
    if lines.iter().any(|line| line.root.is_conservative()) {
        call.note("roots marked (conservative) may be no references any more");
    }
    if count == 0 && !without_stacks {
        let heap = runtime.heap()?;
        call.note(match heap.segment_of(address) {
            Some(segment) if segment.kind == SegmentKind::Frozen => {
                "no root reaches this object, but it is in the frozen heap, which is never collected"
            }
            _ => "no root reaches this object: the next full GC would free it",
        });
    }
    let target = ObjectLine {
        address: Addr(address),
        mt: Some(Addr(object.table)),
        type_name: display_name(runtime, object.table),
        via: None,
    };
    call.emit("gcroot", 1, &Roots { target, roots: lines, count, without_stacks })
}

/// Leaves out stack words that point into the middle of an object that a handle keeps anyway: nearly always pointers to
/// static fields, which lie in such arrays. They would repeat every path through a static field for many threads.
fn without_echoes(mut roots: Vec<Root>) -> Vec<Root> {
    let is_handle = |root: &&Root| matches!(root.kind, RootKind::Handle { .. });
    let held: HashSet<u64> = roots.iter().filter(is_handle).map(|root| root.object).collect();
    roots.retain(|root| {
        let echo = matches!(root.kind, RootKind::Stack { conservative: true, interior: true, .. });
        !(echo && held.contains(&root.object))
    });
    roots
}

impl Facts for Roots {
    fn text(&self, out: &mut Out<'_>) {
        let mut section = String::new();
        let mut frame = None;
        for line in &self.roots {
            let title = title(&line.root);
            if title != section {
                out.line(&title);
                section = title;
                frame = None;
            }
            let stands = place(&line.root).map(|place| (place.sp, place.ip));
            if stands.is_some() && stands != frame {
                line.frame(out);
            }
            frame = stands;
            line.text(out);
        }
        out.fmt(format_args!("Found {} unique roots.\n", self.count));
        if self.roots.len() < self.count {
            out.fmt(format_args!("{} of them are shown (-limit).\n", self.roots.len()));
        }
    }
}

/// The heading that a root stands under.
fn title(root: &Root) -> String {
    match &root.kind {
        RootKind::Handle { .. } => "HandleTable:".to_owned(),
        RootKind::FinalizerQueue => "Finalizer Queue:".to_owned(),
        RootKind::ThreadStatic { thread } => format!("Thread statics of {thread:x}:"),
        RootKind::Stack { thread, .. } => format!("Thread {thread:x}:"),
    }
}

fn handle_name(kind: HandleKind) -> &'static str {
    match kind {
        HandleKind::WeakShort => "weak short handle",
        HandleKind::WeakLong => "weak long handle",
        HandleKind::Strong => "strong handle",
        HandleKind::Pinned => "pinned handle",
        HandleKind::Variable => "variable handle",
        HandleKind::RefCounted => "ref counted handle",
        HandleKind::Dependent => "dependent handle",
        HandleKind::AsyncPinned => "async pinned handle",
        HandleKind::SizedRef => "sized ref handle",
        HandleKind::WeakNativeCom => "weak WinRT handle",
        HandleKind::WeakInterior => "weak interior handle",
        HandleKind::CrossReference => "cross reference handle",
    }
}

/// The frame of an exact stack root.
fn place(root: &Root) -> Option<&StackPlace> {
    match &root.kind {
        RootKind::Stack { place, .. } => place.as_ref(),
        _ => None,
    }
}

impl RootLine {
    /// The line of the frame that holds it.
    fn frame(&self, out: &mut Out<'_>) {
        let Some(place) = place(&self.root) else { return };
        out.fmt(format_args!("    {:x} {:x} ", place.sp.0, place.ip.0));
        out.name(self.method_name.as_deref().unwrap_or("[frame of the runtime]"));
        out.end();
    }

    fn text(&self, out: &mut Out<'_>) {
        let address = self.root.address;
        match &self.root.kind {
            RootKind::Handle { handle } => {
                out.fmt(format_args!("    {address:016x} ({})\n", handle_name(*handle)));
            }
            RootKind::FinalizerQueue => out.fmt(format_args!("    {address:016x} (finalizer root)\n")),
            RootKind::ThreadStatic { .. } => out.fmt(format_args!("    {address:016x} (thread static)\n")),
            RootKind::Stack { register, conservative, interior, place, .. } => {
                out.str("        ");
                match (register, place) {
                    (Some(name), None) => out.str(name),
                    (_, Some(place)) if address == 0 => out.fmt(format_args!("{}:", place.slot)),
                    (_, Some(place)) => out.fmt(format_args!("{}: {address:016x}", place.slot)),
                    (None, None) => out.fmt(format_args!("{address:016x}")),
                }
                out.str(match (conservative, interior) {
                    (true, true) => " (conservative, points inside the object)",
                    (true, false) => " (conservative)",
                    (false, true) => " (interior)",
                    (false, false) => "",
                });
                out.end();
            }
        }
        steps(out, &self.path);
        out.end();
    }
}

/// The objects of a path; the middle of a very long one is left out.
pub(super) fn steps(out: &mut Out<'_>, path: &[ObjectLine]) {
    let skipped = path.len().saturating_sub(2 * SHOWN_STEPS);
    let (head, tail) = match skipped {
        0 => (path, &[][..]),
        _ => {
            let (head, rest) = path.split_at(SHOWN_STEPS);
            (head, rest.get(skipped..).unwrap_or_default())
        }
    };
    head.iter().for_each(|object| step(out, object));
    if skipped > 0 {
        out.fmt(format_args!("          -> ... {skipped} more objects (all of them with --json)\n"));
    }
    tail.iter().for_each(|object| step(out, object));
}

/// One object of a path.
fn step(out: &mut Out<'_>, object: &ObjectLine) {
    out.str("          -> ");
    out.hex(object.address.0, 12, 0);
    out.blanks(5);
    out.name(&object.type_name);
    out.blanks(1);
    match &object.via {
        Some(Via::StaticField(name)) => {
            out.str("(static variable: ");
            out.name(name);
            out.str(")");
        }
        Some(Via::ThreadStaticField(name)) => {
            out.str("(thread static variable: ");
            out.name(name);
            out.str(")");
        }
        Some(Via::DependentHandle) => out.str("(dependent handle)"),
        Some(Via::LoadContext) => out.str("(load context of the type)"),
        Some(Via::Field(_) | Via::Element(_)) | None => {}
    }
    out.end();
}
