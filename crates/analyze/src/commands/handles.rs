//! `gchandles`.

use dnd_clr::HandleKind;
use dnd_contract::Addr;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::HANDLE_TYPES;
use crate::args::Opt;
use crate::error::Error;
use crate::inspect::runtime_name;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::statistics::TypeLine;
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["gchandles", "GCHandles"],
    operands: "",
    max_operands: 0,
    options: &[
        Opt::word(&["type"], "kind", "Only handles of this kind, for example Pinned."),
        Opt::flag(&["stat"], "Only the statistics."),
        Opt::flag(&["perdomain"], "Accepted; .NET Core has one application domain."),
    ],
    summary: "GC handles, and what they point to.",
    about: "A strong or pinned handle that is never freed keeps its object alive for ever. Data is the second object \
            of a dependent handle.\nKinds: Pinned, RefCounted, WeakShort, WeakLong, Strong, Variable, AsyncPinned, \
            SizedRef, Dependent, WeakWinRT, WeakInteriorPointer, CrossReference.",
    run,
};

#[derive(Debug, Serialize)]
struct Handles {
    #[serde(skip_serializing_if = "Option::is_none")]
    handles: Option<Vec<HandleLine>>,
    types: Vec<TypeLine>,
    total_count: u64,
    counts: Vec<KindCount>,
    /// Only one kind was asked for.
    filtered: bool,
}

#[derive(Debug, Serialize)]
struct HandleLine {
    handle: Addr,
    kind: HandleKind,
    object: Addr,
    size: u64,
    /// Second object of a dependent handle, pointer of a weak interior one.
    data: Option<Addr>,
    #[serde(rename = "type")]
    type_name: String,
}

#[derive(Debug, Serialize)]
struct KindCount {
    kind: HandleKind,
    count: u64,
}

/// The name that dotnet-dump has for a kind, and the one it counts under.
fn names(kind: HandleKind) -> (&'static str, &'static str) {
    use HandleKind::*;
    match kind {
        WeakShort => ("WeakShort", "Weak Short Handles:"),
        WeakLong => ("WeakLong", "Weak Long Handles:"),
        Strong => ("Strong", "Strong Handles:"),
        Pinned => ("Pinned", "Pinned Handles:"),
        Variable => ("Variable", "Variable Handles:"),
        RefCounted => ("RefCounted", "Ref Count Handles:"),
        Dependent => ("Dependent", "Dependent Handles:"),
        AsyncPinned => ("AsyncPinned", "Async Pinned Handles:"),
        SizedRef => ("SizedRef", "SizedRef Handles:"),
        WeakNativeCom => ("WeakWinRT", "Weak WinRT Handles:"),
        WeakInterior => ("WeakInteriorPointer", "Weak Interior Pointer Handles:"),
        CrossReference => ("CrossReference", "Cross Reference Handles:"),
    }
}

/// The order of the counts.
const COUNT_ORDER: [HandleKind; 12] = {
    use HandleKind::*;
    [
        Strong,
        Pinned,
        AsyncPinned,
        RefCounted,
        WeakLong,
        WeakShort,
        WeakNativeCom,
        WeakInterior,
        Variable,
        SizedRef,
        Dependent,
        CrossReference,
    ]
};

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let wanted = match call.args.word("type") {
        None => None,
        Some(text) => Some(
            COUNT_ORDER.into_iter().find(|k| names(*k).0.eq_ignore_ascii_case(text)).ok_or_else(|| {
                call.args
                    .usage(format!("does not know the kind `{text}`; there are {}", HANDLE_TYPES.join(", ")))
            })?,
        ),
    };
    let runtime = call.runtime();
    let mut all: Vec<_> =
        runtime.handles()?.into_iter().filter(|h| wanted.is_none_or(|w| h.kind == w)).collect();
    all.sort_by_key(|handle| handle.kind);
    let mut by_type: FxHashMap<u64, (u64, u64)> = FxHashMap::default();
    let mut counts = Vec::new();
    let mut lines = Vec::new();
    let mut broken = 0;
    for kind in COUNT_ORDER {
        let count = all.iter().filter(|h| h.kind == kind).count() as u64;
        if count > 0 {
            counts.push(KindCount { kind, count });
        }
    }
    for handle in &all {
        let object = runtime.object(handle.object);
        let (size, type_name) = match &object {
            Ok(object) => {
                let seen = by_type.entry(object.table).or_default();
                seen.0 += 1;
                seen.1 += object.size;
                (object.size, runtime_name(runtime, object.table))
            }
            Err(_) => {
                broken += 1;
                (0, "<not an object>".to_owned())
            }
        };
        let data =
            (handle.secondary != 0 || handle.kind == HandleKind::Dependent).then_some(Addr(handle.secondary));
        lines.push(HandleLine {
            handle: Addr(handle.address),
            kind: handle.kind,
            object: Addr(handle.object),
            size,
            data,
            type_name,
        });
    }
    if broken > 0 {
        call.note(format!("{broken} handles point to what is no object in this dump"));
    }
    let line = |(mt, (count, bytes)): (u64, (u64, u64))| TypeLine {
        mt: Addr(mt),
        count,
        bytes,
        name: runtime_name(runtime, mt),
    };
    let mut types: Vec<TypeLine> = by_type.into_iter().map(line).collect();
    types.sort_by_key(|line| (line.bytes, std::cmp::Reverse(line.mt)));
    let facts = Handles {
        total_count: lines.len() as u64,
        handles: (!call.args.flag("stat")).then_some(lines),
        types,
        counts,
        filtered: wanted.is_some(),
    };
    call.emit("gchandles", 1, &facts)
}

impl Facts for Handles {
    fn text(&self, out: &mut Out<'_>) {
        if let Some(handles) = &self.handles {
            out.line("          Handle Type                  Object     Size             Data Type");
            for line in handles {
                out.fmt(format_args!("{:016X} ", line.handle.0));
                // dotnet-dump cuts the longest name to the column.
                out.left(names(line.kind).0.get(..11).unwrap_or(names(line.kind).0), 11);
                out.fmt(format_args!(" {:016X} {:>8} ", line.object.0, line.size));
                match line.data {
                    Some(data) => out.fmt(format_args!("{:016X}", data.0)),
                    None => out.blanks(16),
                }
                out.blanks(1);
                out.name(&line.type_name);
                out.end();
            }
            out.end();
        }
        out.line("Statistics:");
        out.line("              MT    Count    TotalSize Class Name");
        for line in &self.types {
            out.fmt(format_args!("{:016x} {:>8} {:>12} ", line.mt.0, line.count, line.bytes));
            out.name(&line.name);
            out.end();
        }
        out.fmt(format_args!("Total {} objects\n", self.total_count));
        if !self.filtered {
            out.end();
            out.line("Handles:");
            for KindCount { kind, count } in &self.counts {
                let label = names(*kind).1;
                out.blanks(4);
                out.left(label.get(..22).unwrap_or(label), 22);
                out.fmt(format_args!("{count}\n"));
            }
        }
    }
}
