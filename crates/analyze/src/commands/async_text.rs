//! The text of async stacks, and stacks merged where they are the same.

use dnd_contract::Addr;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::dump_async::{Frame, Stack};
use super::fields;
use crate::out::Out;
use crate::session::Facts;
use crate::tasks::flags;

/// Flags of a task that are told, as dotnet-dump names them.
const NAMES: [(u32, &str); 10] = [
    (flags::STARTED, "Started"),
    (flags::DELEGATE_INVOKED, "DelegateInvoked"),
    (0x4_0000, "Disposed"),
    (0x8_0000, "ExceptionObservedByParent"),
    (0x10_0000, "CancellationAcknowledged"),
    (flags::FAULTED, "Faulted"),
    (flags::CANCELED, "Canceled"),
    (flags::WAITING_ON_CHILDREN, "WaitingOnChildren"),
    (flags::RAN_TO_COMPLETION, "RanToCompletion"),
    (0x400_0000, "CompletionReserved"),
];

/// What stands in parentheses.
fn state(await_state: Option<i64>, flags: Option<u32>) -> String {
    if let Some(state) = await_state {
        return state.to_string();
    }
    let flags = flags.unwrap_or(0);
    let set: Vec<&str> = NAMES.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { " ".to_owned() } else { set.join("|") }
}

/// `STACK 1`, its frames, an empty line.
pub(super) fn write_stacks(out: &mut Out<'_>, stacks: &[Stack]) {
    for (number, stack) in stacks.iter().enumerate() {
        if number > 0 {
            out.end();
        }
        out.fmt(format_args!("STACK {}\n", number + 1));
        for frame in &stack.frames {
            for awaiting in &frame.awaiting {
                let mt = awaiting.mt.unwrap_or_default();
                out.fmt(format_args!("<< Awaiting: {:016x} {:016x} ", awaiting.address.0, mt.0));
                out.name(&awaiting.type_name);
                out.line(" >>");
            }
            // What a method without a task waits for stands where the task would.
            let depth = frame.depth + usize::from(!frame.awaiting.is_empty());
            out.blanks(2 * depth);
            out.fmt(format_args!("{:016x} {:016x} ", frame.address.0, frame.mt.0));
            out.fmt(format_args!("({}) ", state(frame.await_state, frame.flags)));
            out.name(&frame.type_name);
            out.end();
            if !frame.fields.is_empty() {
                fields::head(out);
                frame.fields.iter().for_each(|field| field.text(out));
            }
        }
    }
}

/// Stacks merged from their beginning on.
#[derive(Debug, Serialize)]
pub(super) struct Coalesced {
    stacks: usize,
    lines: Vec<Merged>,
}

#[derive(Debug, Clone, Serialize)]
struct Merged {
    depth: usize,
    count: usize,
    mt: Addr,
    #[serde(rename = "type")]
    type_name: String,
    await_state: Option<i64>,
    flags: Option<u32>,
}

struct Node {
    line: Merged,
    children: Vec<usize>,
}

impl Coalesced {
    pub(super) fn new(stacks: &[Stack]) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        let mut roots: Vec<usize> = Vec::new();
        // (parent, type, state) → node.
        let mut known: FxHashMap<(usize, u64, String), usize> = FxHashMap::default();
        for stack in stacks {
            let mut way: Vec<usize> = Vec::new();
            for frame in &stack.frames {
                way.truncate(frame.depth);
                let parent = way.last().copied();
                let key = (parent.unwrap_or(usize::MAX), frame.mt.0, state(frame.await_state, frame.flags));
                let next = nodes.len();
                let place = *known.entry(key).or_insert(next);
                if place == next {
                    nodes.push(Node { line: line(frame), children: Vec::new() });
                    match parent.and_then(|parent| nodes.get_mut(parent)) {
                        Some(parent) => parent.children.push(place),
                        None => roots.push(place),
                    }
                }
                if let Some(node) = nodes.get_mut(place) {
                    node.line.count += 1;
                }
                way.push(place);
            }
        }
        let mut lines = Vec::new();
        let by_count = |nodes: &[Node], mut places: Vec<usize>| {
            places.sort_by_key(|&place| nodes.get(place).map_or(0, |node| node.line.count));
            places
        };
        // The most frequent first; those pushed last come first.
        let mut open = by_count(&nodes, roots);
        while let Some(place) = open.pop() {
            let Some(node) = nodes.get(place) else { continue };
            lines.push(node.line.clone());
            open.extend(by_count(&nodes, node.children.clone()));
        }
        Coalesced { stacks: stacks.len(), lines }
    }
}

fn line(frame: &Frame) -> Merged {
    Merged {
        depth: frame.depth,
        count: 0,
        mt: frame.mt,
        type_name: frame.type_name.clone(),
        await_state: frame.await_state,
        flags: frame.flags,
    }
}

impl Facts for Coalesced {
    fn text(&self, out: &mut Out<'_>) {
        out.fmt(format_args!("STACKS {}\n", self.stacks));
        for line in &self.lines {
            out.blanks(2 * line.depth);
            out.fmt(format_args!("[{}] {:016x} ", line.count, line.mt.0));
            out.fmt(format_args!("({}) ", state(line.await_state, line.flags)));
            out.name(&line.type_name);
            out.end();
        }
    }
}
