//! `dumpasync`: which async method waits for which.

use std::ops::ControlFlow;

use dnd_clr::Object;
use dnd_contract::Addr;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use super::async_text::{Coalesced, write_stacks};
use super::dumpheap::{damage_notes, finish};
use super::fields::{self, FieldLine, Holder};
use crate::args::Opt;
use crate::error::Error;
use crate::managed::{Managed, Place};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;
use crate::tasks::{self, Kind, Kinds};

pub(crate) static COMMAND: Command = Command {
    names: &["dumpasync", "DumpAsync"],
    operands: "",
    max_operands: 0,
    options: &[
        Opt::word(&["address", "addr"], "address", "Only stacks with the object at this address."),
        Opt::word(&["methodtable", "mt"], "mt", "Only stacks with an object of this type."),
        Opt::word(&["type"], "text", "Only stacks with a type whose name has this part (case matters)."),
        Opt::flag(&["tasks", "t"], "Also stacks of tasks without any async method."),
        Opt::flag(&["completed", "c"], "Also tasks that have completed."),
        Opt::flag(&["fields", "f"], "With the fields of the state machines: arguments and locals."),
        Opt::flag(&["stats"], "Counts by type instead of stacks."),
        Opt::flag(&["coalesce"], "Stacks that are the same are merged, with their number."),
    ],
    summary: "Shows which async methods wait for which: the stacks of await.",
    about: "A stack begins with what everything else waits for: a task, a timer, a request to the network. What is indented \
            goes on when the line above completes. The number in parentheses is the await that the method stands at, \
            counted from 0; of a task without a method it is what it has been through. Methods that never had to wait are \
            not here.",
    run,
};

/// Depth of a stack that is followed.
const MAX_DEPTH: usize = 1 << 12;
/// Frames of all stacks together: what several tasks wait for is shown below each of them.
const MAX_FRAMES: usize = 1 << 20;

/// One line of a stack.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Frame {
    /// 0 for what everything waits for.
    pub(super) depth: usize,
    pub(super) address: Addr,
    pub(super) mt: Addr,
    /// Of the state machine, or of the task when it has none.
    #[serde(rename = "type")]
    pub(super) type_name: String,
    /// Number of the await, negative for none; null for a task without a state machine.
    pub(super) await_state: Option<i64>,
    /// The task's flags; null for what is no task.
    pub(super) flags: Option<u32>,
    /// What the first method of a stack waits for, when it is no task.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) awaiting: Vec<Awaiting>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) fields: Vec<FieldLine>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Awaiting {
    /// Where the awaiter is.
    pub(super) address: Addr,
    /// Its method table; null where that can't be found.
    pub(super) mt: Option<Addr>,
    #[serde(rename = "type")]
    pub(super) type_name: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Stack {
    pub(super) frames: Vec<Frame>,
}

/// What waits, as it was found.
struct Found {
    object: Object,
    kind: Kind,
    flags: Option<u32>,
    continuations: Vec<u64>,
}

#[derive(Debug, Serialize)]
struct Stacks {
    stacks: Vec<Stack>,
}

#[derive(Debug, Serialize)]
struct Counts {
    types: Vec<Count>,
}

#[derive(Debug, Serialize)]
struct Count {
    mt: Addr,
    count: usize,
    #[serde(rename = "type")]
    type_name: String,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let (address, table) = (call.args.addr("address")?, call.args.addr("methodtable")?);
    let part = call.args.word("type").map(str::to_owned);
    let runtime = call.runtime();
    let heap = runtime.objects_heap()?;
    let mut managed = Managed::new(runtime);
    let mut kinds = Kinds::default();
    let mut objects: Vec<(Object, Kind)> = Vec::new();
    let damage = runtime.walk_all(&heap.segments, call.progress(), |_, object| {
        if let Some(kind) = kinds.of(&mut managed, object.table) {
            objects.push((object, kind));
        }
        ControlFlow::Continue(())
    })?;
    let completed = call.args.flag("completed");
    let mut found: Vec<Found> = Vec::new();
    let mut places: FxHashMap<u64, usize> = FxHashMap::default();
    for (number, (object, kind)) in objects.into_iter().enumerate() {
        if number % 4096 == 0 {
            call.cancelled()?;
        }
        let flags = tasks::state_flags(&mut managed, &object);
        if flags.is_some_and(|flags| flags & tasks::flags::COMPLETED != 0) && !completed {
            continue;
        }
        let continuations = tasks::continuations(runtime, &mut managed, &mut kinds, &object, kind);
        places.insert(object.address, found.len());
        found.push(Found { object, kind, flags, continuations });
    }
    let continued: FxHashSet<u64> = found.iter().flat_map(|one| one.continuations.iter().copied()).collect();
    let with_fields = call.args.flag("fields");
    let mut stacks = Vec::new();
    let mut left = MAX_FRAMES;
    for (number, one) in found.iter().enumerate() {
        if continued.contains(&one.object.address) {
            continue;
        }
        call.cancelled()?;
        let order = order(&found, &places, number, &mut left);
        let of_methods = order.iter().any(|&(_, at)| found.get(at).is_some_and(|one| one.kind != Kind::Task));
        if !of_methods && !call.args.flag("tasks") {
            continue;
        }
        let frames: Vec<Frame> = order
            .iter()
            .filter_map(|&(depth, at)| Some(frame(runtime, &mut managed, found.get(at)?, depth, with_fields)))
            .collect();
        let wanted = |frame: &Frame| {
            address.is_none_or(|address| frame.address.0 == address)
                && table.is_none_or(|table| frame.mt.0 == table)
                && part.as_ref().is_none_or(|part| frame.type_name.contains(part))
        };
        if frames.iter().any(wanted) {
            stacks.push(Stack { frames });
        }
    }
    if left == 0 {
        call.note(format!("only the first {MAX_FRAMES} lines are shown: many wait for the same"));
    }
    if heap.gc_in_progress {
        call.note("the dump was taken during a garbage collection: references may be stale");
    }
    damage_notes(call, &damage);
    if call.args.flag("stats") {
        call.emit("dumpasync-stats", 1, &counts(&stacks))?;
    } else if call.args.flag("coalesce") {
        call.emit("dumpasync-coalesce", 1, &Coalesced::new(&stacks))?;
    } else {
        call.emit("dumpasync", 1, &Stacks { stacks })?;
    }
    finish(&damage)
}

/// What waits for one of those found, with its depth: itself first, then what goes on when it completes.
fn order(
    found: &[Found],
    places: &FxHashMap<u64, usize>,
    first: usize,
    left: &mut usize,
) -> Vec<(usize, usize)> {
    let mut order = Vec::new();
    let mut open = vec![(0, first)];
    // The way from the first to the one at hand: a ring ends where it closes.
    let mut way: Vec<usize> = Vec::new();
    while let Some((depth, at)) = open.pop() {
        way.truncate(depth);
        if way.contains(&at) || depth > MAX_DEPTH || *left == 0 {
            continue;
        }
        *left -= 1;
        way.push(at);
        order.push((depth, at));
        let next = found.get(at).map(|one| one.continuations.as_slice()).unwrap_or_default();
        let next = next.iter().rev().filter_map(|address| places.get(address));
        open.extend(next.map(|&next| (depth + 1, next)));
    }
    order
}

fn frame(
    runtime: &dnd_clr::Runtime<'_>,
    managed: &mut Managed<'_>,
    one: &Found,
    depth: usize,
    with_fields: bool,
) -> Frame {
    let machine = match one.kind {
        Kind::Task => None,
        Kind::Box | Kind::PooledBox => tasks::state_machine(managed, &one.object),
    };
    let await_state = machine.and_then(|machine| tasks::await_state(managed, machine));
    let named = machine.map_or(one.object.table, |machine| machine.table);
    let awaiting = match machine {
        Some(machine) if depth == 0 && await_state.is_some_and(|state| state >= 0) => {
            awaiters(runtime, managed, machine)
        }
        _ => Vec::new(),
    };
    let fields = match machine.filter(|_| with_fields) {
        Some(machine) => runtime
            .method_table(machine.table)
            .ok()
            .and_then(|table| fields::read(runtime, &table, Holder::Value(machine.data)).ok())
            .unwrap_or_default(),
        None => Vec::new(),
    };
    Frame {
        depth,
        address: Addr(one.object.address),
        mt: Addr(one.object.table),
        type_name: managed.name(named).to_string(),
        await_state: machine.map(|_| await_state.unwrap_or(-1)),
        flags: one.flags,
        awaiting,
        fields,
    }
}

/// The awaiters that a state machine holds: the compiler clears them when an await is over.
fn awaiters(runtime: &dnd_clr::Runtime<'_>, managed: &mut Managed<'_>, machine: Place) -> Vec<Awaiting> {
    let all = managed.fields(machine.table);
    let held = all.iter().filter(|field| field.name.starts_with("<>u__")).filter_map(|field| {
        let address = machine.data.wrapping_add(field.offset.into());
        let word = runtime.target().u64(address).ok()?;
        let declared = runtime.method_table(field.declared_by).ok();
        let mt = declared.and_then(|declared| runtime.field_type(&declared, field)).map(Addr);
        (word != 0).then(|| Awaiting { address: Addr(address), mt, type_name: field.type_name.clone() })
    });
    held.collect()
}

fn counts(stacks: &[Stack]) -> Counts {
    let mut counted: FxHashMap<u64, Count> = FxHashMap::default();
    let mut seen = FxHashSet::default();
    for frame in stacks.iter().flat_map(|stack| &stack.frames) {
        if seen.insert(frame.address.0) {
            let entry = counted.entry(frame.mt.0);
            let new = || Count { mt: frame.mt, count: 0, type_name: frame.type_name.clone() };
            entry.or_insert_with(new).count += 1;
        }
    }
    let mut types: Vec<Count> = counted.into_values().collect();
    types.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.type_name.cmp(&b.type_name)));
    Counts { types }
}

impl Facts for Stacks {
    fn text(&self, out: &mut Out<'_>) {
        write_stacks(out, &self.stacks);
    }
}

impl Facts for Counts {
    fn text(&self, out: &mut Out<'_>) {
        out.line("MT               Count    Type");
        for line in &self.types {
            out.fmt(format_args!("{:016x} {:<8} ", line.mt.0, line.count));
            out.name(&line.type_name);
            out.end();
        }
    }
}
