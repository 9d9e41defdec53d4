//! `verifyheap` and `verifyobj`: whether the heap makes sense.

use std::ops::ControlFlow;

use dnd_clr::{Heap, Object, References, Runtime};
use dnd_contract::Addr;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::dumpheap::damage_notes;
use super::segment_filter;
use crate::args::Opt;
use crate::error::Error;
use crate::inspect::{self, thin_lock};
use crate::out::{Out, grouped};
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static HEAP: Command = Command {
    names: &["verifyheap", "VerifyHeap"],
    operands: "[<start> [<end>]]",
    max_operands: 2,
    options: &[
        Opt::word(&["heap"], "number", "Only this GC heap (server GC)."),
        Opt::word(&["segment"], "address", "Only this segment or region (its address, or one inside it)."),
        Opt::flag(
            &["ignoreGCState"],
            "Accepted: a dump taken during a GC is read anyway, and a note says so.",
        ),
        Opt::flag(&["noprogress"], "Accepted: progress is shown on terminals only."),
    ],
    summary: "Looks for damage on the heap: every object, its references, its header.",
    about: "References must be null or lead to an object; a sync block must be that of its object; a lock in an object's \
            header must be held by a thread that exists. Damage on the heap mostly comes from native code or unsafe code \
            that writes where it must not. The exit code is 6 when something is found.",
    run: heap,
};

pub(crate) static OBJECT: Command = Command {
    names: &["verifyobj", "VerifyObj"],
    operands: "<address>",
    max_operands: 1,
    options: &[],
    summary: "Looks for damage of one object: its references, its header.",
    about: "See verifyheap.",
    run: object,
};

/// Problems that are listed; more are counted.
const MAX_LISTED: usize = 10_000;
/// Objects larger than this are not looked into.
const MAX_OBJECT: u64 = 1 << 36;

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    CouldNotReadObject,
    ObjectReferenceNotPointerAligned,
    InvalidObjectReference,
    FreeObjectReference,
    SyncBlockZero,
    SyncBlockMismatch,
    InvalidThinlock,
}

#[derive(Debug, Serialize)]
struct Problem {
    heap: usize,
    segment: Addr,
    object: Addr,
    kind: Kind,
    /// Where in the object; 0 for its header.
    offset: u64,
    /// What is there.
    value: Addr,
}

#[derive(Debug, Serialize)]
struct Verified {
    objects: u64,
    errors: u64,
    /// Places where no object was found.
    skipped: u64,
    problems: Vec<Problem>,
}

/// Checks objects; remembers what types and threads there are.
struct Checker<'r> {
    runtime: &'r Runtime<'r>,
    /// Start, end and place among the heap's segments, by start.
    segments: Vec<(u64, u64)>,
    references: FxHashMap<u64, Option<References>>,
    types: FxHashMap<u64, bool>,
    /// Objects by the number of their sync block.
    sync_blocks: FxHashMap<u32, u64>,
    /// The table of sync blocks is not in the dump as a whole.
    sync_blocks_cut: bool,
    threads: Vec<u32>,
    buffer: Vec<u8>,
}

impl<'r> Checker<'r> {
    fn new(runtime: &'r Runtime<'r>, heap: &Heap) -> Self {
        let mut segments: Vec<(u64, u64)> = heap.segments.iter().map(|s| (s.start, s.end)).collect();
        segments.sort_unstable();
        let blocks = runtime.sync_blocks();
        let threads = runtime.threads().map(|all| all.threads.iter().map(|t| t.id).collect());
        Checker {
            runtime,
            segments,
            references: FxHashMap::default(),
            types: FxHashMap::default(),
            sync_blocks_cut: blocks.as_ref().map_or(true, |blocks| blocks.cut),
            sync_blocks: blocks
                .map(|all| all.blocks.iter().map(|block| (block.index, block.object)).collect())
                .unwrap_or_default(),
            threads: threads.unwrap_or_default(),
            buffer: Vec::new(),
        }
    }

    fn check(&mut self, object: &Object, mut found: impl FnMut(Kind, u64, u64)) {
        let runtime = self.runtime;
        // In front of free space lies whatever was there before.
        if object.table == runtime.free().address {
            return;
        }
        self.header(object, &mut found);
        let entry = self.references.entry(object.table).or_insert_with(|| {
            let table =
                runtime.method_table(object.table).ok().filter(dnd_clr::MethodTable::contains_pointers)?;
            References::read(runtime.target(), &table).ok()
        });
        let Some(references) = entry.clone() else { return };
        let Some(size) = usize::try_from((object.size + 7) & !7).ok().filter(|_| object.size < MAX_OBJECT)
        else {
            return found(Kind::CouldNotReadObject, 0, object.size);
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let bytes = match runtime.target().slice(object.address, size) {
            Some(bytes) => bytes,
            None => {
                let last = object.address.wrapping_add(size as u64).wrapping_sub(1);
                let there = runtime.target().u8(last).is_ok();
                buffer.resize(if there { size } else { 0 }, 0);
                if !there || runtime.target().read(object.address, &mut buffer).is_err() {
                    found(Kind::CouldNotReadObject, 0, object.size);
                    buffer.clear();
                }
                buffer.as_slice()
            }
        };
        references.each(bytes, |offset, to| {
            if let Some(kind) = self.reference(to) {
                found(kind, offset, to);
            }
        });
        self.buffer = buffer;
    }

    /// What is wrong with a reference.
    fn reference(&mut self, to: u64) -> Option<Kind> {
        if to == 0 {
            return None;
        }
        if !to.is_multiple_of(8) {
            return Some(Kind::ObjectReferenceNotPointerAligned);
        }
        let index = self.segments.partition_point(|&(start, _)| start <= to).checked_sub(1);
        let inside = index.and_then(|index| self.segments.get(index)).is_some_and(|&(_, end)| to < end);
        let runtime = self.runtime;
        let table = runtime.target().u64(to).ok().filter(|_| inside);
        let Some(table) = table else { return Some(Kind::InvalidObjectReference) };
        if table == runtime.free().address {
            return Some(Kind::FreeObjectReference);
        }
        let known = *self.types.entry(table).or_insert_with(|| runtime.method_table(table).is_ok());
        (!known).then_some(Kind::InvalidObjectReference)
    }

    /// The 32 bits in front of an object: `src/coreclr/vm/syncblk.h`.
    fn header(&self, object: &Object, found: &mut impl FnMut(Kind, u64, u64)) {
        const HASH_OR_BLOCK: u32 = 0x0800_0000;
        const HASH: u32 = 0x0400_0000;
        let Ok(header) = self.runtime.target().u32(object.address.wrapping_sub(4)) else { return };
        if header & HASH_OR_BLOCK != 0 {
            let number = header & (HASH - 1);
            if header & HASH != 0 {
                return;
            }
            match self.sync_blocks.get(&number) {
                _ if number == 0 => found(Kind::SyncBlockZero, 0, header.into()),
                Some(&owner) if owner == object.address => {}
                None if self.sync_blocks_cut => {}
                _ => found(Kind::SyncBlockMismatch, 0, header.into()),
            }
        } else if let Some((thread, _)) = thin_lock(self.runtime, object.address)
            && !self.threads.contains(&thread)
            && !self.threads.is_empty()
        {
            found(Kind::InvalidThinlock, 0, header.into());
        }
    }
}

fn heap(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let heap = runtime.objects_heap()?;
    let range = call.args.range()?;
    let in_place = segment_filter(&call.args, heap)?;
    if heap.gc_in_progress {
        call.note("the dump was taken during a garbage collection: what looks like damage may be none");
    }
    let segments: Vec<_> = heap.segments.iter().filter(|segment| in_place(segment)).collect();
    let mut checker = Checker::new(runtime, heap);
    let mut verified = Verified { objects: 0, errors: 0, skipped: 0, problems: Vec::new() };
    let damage = runtime.walk_all(segments, call.progress(), |segment, object| {
        if range.is_some_and(|(from, to)| object.address < from || object.address >= to) {
            return ControlFlow::Continue(());
        }
        verified.objects += 1;
        let (errors, problems) = (&mut verified.errors, &mut verified.problems);
        checker.check(&object, |kind, offset, value| {
            *errors += 1;
            if problems.len() < MAX_LISTED {
                problems.push(Problem {
                    heap: segment.heap,
                    segment: Addr(segment.address),
                    object: Addr(object.address),
                    kind,
                    offset,
                    value: Addr(value),
                });
            }
        });
        ControlFlow::Continue(())
    })?;
    verified.skipped = damage.places;
    damage_notes(call, &damage);
    let errors = verified.errors;
    call.emit("verifyheap", 1, &verified)?;
    match (errors, damage.is_none()) {
        (0, true) => Ok(Flow::Next),
        (0, false) => Err(Error::Partial(
            "a part of the heap could not be read; the answer above is of the rest".to_owned(),
        )),
        _ => Err(Error::Partial("the heap is damaged".to_owned())),
    }
}

impl Facts for Verified {
    fn text(&self, out: &mut Out<'_>) {
        if !self.problems.is_empty() {
            out.line("Heap          Segment           Object Failure                          Reason");
        }
        for problem in &self.problems {
            out.left(&problem.heap.to_string(), 4);
            for address in [problem.segment, problem.object] {
                out.blanks(1);
                out.addr(address.0);
            }
            out.blanks(1);
            out.left(problem.kind.name(), 32);
            out.blanks(1);
            out.line(&problem.reason());
        }
        let more = self.errors - self.problems.len() as u64;
        if more > 0 {
            out.fmt(format_args!("... {} more errors\n", grouped(more)));
        }
        out.fmt(format_args!(
            "{} objects verified, {} errors.\n",
            grouped(self.objects),
            grouped(self.errors)
        ));
        if self.errors == 0 && self.skipped == 0 {
            out.line("No heap corruption detected.");
        }
    }
}

impl Kind {
    /// As dotnet-dump calls it.
    fn name(self) -> &'static str {
        match self {
            Kind::CouldNotReadObject => "CouldNotReadObject",
            Kind::ObjectReferenceNotPointerAligned => "ObjectReferenceNotPointerAligned",
            Kind::InvalidObjectReference => "InvalidObjectReference",
            Kind::FreeObjectReference => "FreeObjectReference",
            Kind::SyncBlockZero => "SyncBlockZero",
            Kind::SyncBlockMismatch => "SyncBlockMismatch",
            Kind::InvalidThinlock => "InvalidThinlock",
        }
    }
}

impl Problem {
    fn reason(&self) -> String {
        let (object, offset, value) = (self.object.0, self.offset, self.value.0);
        match self.kind {
            Kind::CouldNotReadObject => format!("not all of its {value} bytes are in the dump"),
            Kind::ObjectReferenceNotPointerAligned => {
                format!("{object:x}+{offset:02x} refers to {value:x}, where no object can begin")
            }
            Kind::InvalidObjectReference => {
                format!("{object:x}+{offset:02x} refers to {value:x}, which is no object")
            }
            Kind::FreeObjectReference => {
                format!("{object:x}+{offset:02x} refers to {value:x}, which is free space")
            }
            Kind::SyncBlockZero => format!("its header {value:08x} names the sync block 0"),
            Kind::SyncBlockMismatch => {
                format!("its header {value:08x} names a sync block of another object")
            }
            Kind::InvalidThinlock => format!("its header {value:08x} names a thread that does not exist"),
        }
    }
}

#[derive(Debug, Serialize)]
struct One {
    object: Addr,
    problems: Vec<Problem>,
}

fn object(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "the address of an object")?;
    let runtime = call.runtime();
    let object = inspect::object(runtime, address)?;
    let heap = runtime.objects_heap()?;
    let segment = heap.segment_of(address);
    let mut problems = Vec::new();
    Checker::new(runtime, heap).check(&object, |kind, offset, value| {
        if problems.len() < MAX_LISTED {
            problems.push(Problem {
                heap: segment.map_or(0, |segment| segment.heap),
                segment: Addr(segment.map_or(0, |segment| segment.address)),
                object: Addr(address),
                kind,
                offset,
                value: Addr(value),
            });
        }
    });
    if segment.is_none() {
        call.note(format!("{address:x} is not on the heap"));
    }
    let damaged = !problems.is_empty();
    call.emit("verifyobj", 1, &One { object: Addr(address), problems })?;
    if damaged { Err(Error::Partial("the object is damaged".to_owned())) } else { Ok(Flow::Next) }
}

impl Facts for One {
    fn text(&self, out: &mut Out<'_>) {
        if self.problems.is_empty() {
            out.fmt(format_args!("object 0x{:x} is a valid object\n", self.object.0));
            return;
        }
        out.line("Offset Issue                            Description");
        for problem in &self.problems {
            out.left(&format!("0x{:02x}", problem.offset), 7);
            out.left(problem.kind.name(), 33);
            out.line(&problem.reason());
        }
        out.fmt(format_args!("{} errors  detected.\n", self.problems.len()));
    }
}
