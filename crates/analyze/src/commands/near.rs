//! `listnearobj`: what lies around an address on the heap.

use std::ops::ControlFlow;

use dnd_clr::{Object, Runtime};
use dnd_contract::Addr;
use serde::Serialize;

use super::dumpheap::{damage_notes, finish};
use crate::error::Error;
use crate::inspect::display_name;
use crate::out::{Out, grouped};
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["listnearobj", "lno", "ListNearObj"],
    operands: "<address>",
    max_operands: 1,
    options: &[],
    summary: "Shows the objects before, at and behind an address on the heap.",
    about: "Objects lie one behind the other. Where one does not end where the next begins, there is a gap: the memory \
            that a thread allocates from, or damage. An address inside an object shows that object.",
    run,
};

#[derive(Debug, Serialize)]
struct Near {
    address: Addr,
    before: Option<Line>,
    /// The object at the address, or around it.
    current: Option<Line>,
    next: Option<Line>,
    /// Gaps between these that no thread allocates from.
    gaps: Vec<Gap>,
}

#[derive(Debug, Serialize)]
struct Line {
    address: Addr,
    size: u64,
    #[serde(rename = "type")]
    type_name: String,
    #[serde(skip)]
    end: u64,
}

#[derive(Debug, Serialize)]
struct Gap {
    start: Addr,
    bytes: u64,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "an address on the heap")?;
    let runtime = call.runtime();
    let heap = runtime.objects_heap()?;
    let segment = heap
        .segment_of(address)
        .ok_or_else(|| Error::NotFound(format!("{address:x} is not in the managed heap")))?;
    let (mut before, mut current, mut next) = (None, None, None);
    let damage = runtime.walk(segment, call.progress(), |object| {
        let end = object.address.saturating_add((object.size + 7) & !7);
        if end <= address {
            before = Some(object);
            return ControlFlow::Continue(());
        }
        if object.address <= address {
            current = Some(object);
            return ControlFlow::Continue(());
        }
        next = Some(object);
        ControlFlow::Break(())
    })?;
    let line = |object: Option<Object>| object.map(|object| line(runtime, &object));
    let mut near = Near {
        address: Addr(address),
        before: line(before),
        current: line(current),
        next: line(next),
        gaps: Vec::new(),
    };
    let around: Vec<&Line> = [&near.before, &near.current, &near.next].into_iter().flatten().collect();
    let contexts = heap.contexts_in(segment);
    let gaps = around.iter().zip(around.iter().skip(1)).filter_map(|(first, second)| {
        let (start, end) = (first.end, second.address.0);
        let allocating = contexts.iter().any(|&(pointer, _)| start <= pointer && pointer <= end);
        (start < end && !allocating).then(|| Gap { start: Addr(start), bytes: end - start })
    });
    near.gaps = gaps.collect();
    damage_notes(call, &damage);
    call.emit("listnearobj", 1, &near)?;
    finish(&damage)
}

fn line(runtime: &Runtime<'_>, object: &Object) -> Line {
    Line {
        address: Addr(object.address),
        size: object.size,
        type_name: display_name(runtime, object.table),
        end: object.address.saturating_add((object.size + 7) & !7),
    }
}

impl Facts for Near {
    fn text(&self, out: &mut Out<'_>) {
        for (label, line) in [("Before:", &self.before), ("Current:", &self.current), ("Next:", &self.next)] {
            let Some(line) = line else { continue };
            out.left(label, 19);
            out.addr(line.address.0);
            out.blanks(1);
            out.left(&format!("{} (0x{:x})", grouped(line.size), line.size), 33);
            out.name(&line.type_name);
            out.end();
            for gap in self.gaps.iter().filter(|gap| gap.start.0 == line.end) {
                out.left("Gap:", 19);
                out.addr(gap.start.0);
                out.fmt(format_args!(" {} (0x{:x})\n", grouped(gap.bytes), gap.bytes));
            }
        }
        match self.gaps.is_empty() && self.current.is_some() {
            true => out.line("Heap local consistency confirmed."),
            false => out.line("Heap local consistency not confirmed."),
        }
    }
}
