//! `eeheap`.

use dnd_clr::{Generation, Heap, Segment, SegmentKind};
use dnd_contract::Addr;
use serde::Serialize;

use super::loader_heaps::LoaderMemory;
use super::{committed_start, segment_filter};
use crate::args::Opt;
use crate::error::Error;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["eeheap", "EEHeap"],
    operands: "",
    max_operands: 0,
    options: &[
        Opt::flag(&["gc"], "Only the GC's heaps."),
        Opt::flag(&["loader"], "Only the loader's and the JIT's heaps."),
        Opt::word(&["heap"], "number", "Of the GC's heaps only this one."),
        Opt::word(&["segment"], "address", "Of the GC's heaps only this segment or region."),
    ],
    summary: "Memory of the GC, the loader and the JIT.",
    about: "A block of a loader heap is written as address(reserved:size), in bytes. Its size are the pages from its first on \
            that are in the dump; in a dump of all memory these are the committed ones. What is missing of a block that is \
            not allocated from any more is wasted.",
    run,
};

/// What the runtime uses itself.
#[derive(Debug, Serialize)]
struct Memory {
    /// Null with `-gc`, and where the loader's heaps can't be read.
    loader: Option<LoaderMemory>,
    /// Null with `-loader`.
    gc: Option<HeapMemory>,
    /// Loader, JIT and what is committed for the GC; null when one of them is missing.
    total_bytes: Option<u64>,
}

/// The GC heap's memory.
#[derive(Debug, Serialize)]
struct HeapMemory {
    server: bool,
    regions: bool,
    /// Mode of dynamic adaptation to application sizes (DATAS); null where the runtime has none.
    datas: Option<u32>,
    gc_in_progress: bool,
    heaps: Vec<HeapLines>,
    allocated_bytes: u64,
    committed_bytes: u64,
    /// A filter left out a part.
    partial: bool,
}

#[derive(Debug, Serialize)]
struct HeapLines {
    index: usize,
    /// `gc_heap` of a server heap; null in workstation mode.
    address: Option<Addr>,
    /// Where generations 0, 1 and 2 start (segments only).
    generation_starts: Vec<Addr>,
    /// Allocation context of generation 0 (segments only).
    allocation_context: Option<(Addr, Addr)>,
    segments: Vec<SegmentLine>,
    allocated_bytes: u64,
    committed_bytes: u64,
}

#[derive(Debug, Serialize)]
struct SegmentLine {
    kind: SegmentKind,
    address: Addr,
    begin: Addr,
    allocated: Addr,
    committed: Addr,
    allocated_bytes: u64,
    committed_bytes: u64,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let (gc, loader) = (call.args.flag("gc"), call.args.flag("loader"));
    let (gc, loader) = (gc || !loader, loader || !gc);
    let gc = if gc { Some(gc_memory(call)?) } else { None };
    let loader = match loader.then(|| call.runtime().loader_heaps()) {
        // What was asked for must be there; beside the GC's heaps it may be missing.
        Some(Err(error)) if gc.is_none() => return Err(error.into()),
        Some(Err(error)) => {
            call.note(format!("the loader's heaps are left out: {error}"));
            None
        }
        Some(Ok(heaps)) => {
            for problem in &heaps.problems {
                call.note(format!("a part of the loader's heaps is left out: {problem}"));
            }
            Some(LoaderMemory::new(call.runtime(), &heaps))
        }
        None => None,
    };
    let total_bytes = gc
        .as_ref()
        .zip(loader.as_ref())
        .map(|(gc, loader)| gc.committed_bytes.saturating_add(loader.bytes()));
    call.emit("eeheap", 2, &Memory { loader, gc, total_bytes })
}

fn gc_memory(call: &mut Call<'_, '_>) -> Result<HeapMemory, Error> {
    let heap = call.runtime().heap()?;
    let wanted = segment_filter(&call.args, heap)?;
    let heaps: Vec<HeapLines> = (0..heap.heaps.len()).filter_map(|i| lines(heap, i, &wanted)).collect();
    Ok(HeapMemory {
        server: heap.server,
        regions: heap.regions,
        datas: heap.dynamic_adaptation,
        gc_in_progress: heap.gc_in_progress,
        allocated_bytes: heaps.iter().map(|h| h.allocated_bytes).sum(),
        committed_bytes: heaps.iter().map(|h| h.committed_bytes).sum(),
        heaps,
        partial: call.args.word("heap").is_some() || call.args.word("segment").is_some(),
    })
}

fn lines(heap: &Heap, index: usize, wanted: &dyn Fn(&Segment) -> bool) -> Option<HeapLines> {
    let sub = heap.heaps.get(index)?;
    let line = |segment: &Segment| SegmentLine {
        kind: segment.kind,
        address: Addr(segment.address),
        begin: Addr(segment.start),
        allocated: Addr(segment.end),
        committed: Addr(segment.committed),
        allocated_bytes: segment.len(),
        committed_bytes: segment.committed.saturating_sub(committed_start(heap, segment)),
    };
    let segments: Vec<SegmentLine> =
        heap.segments.iter().filter(|s| s.heap == index && wanted(s)).map(line).collect();
    if segments.is_empty() {
        return None;
    }
    let youngest = sub.generations.first();
    let context =
        |g: &Generation| (g.alloc_pointer != 0).then_some((Addr(g.alloc_pointer), Addr(g.alloc_limit)));
    Some(HeapLines {
        index,
        address: heap.server.then_some(Addr(sub.address)),
        generation_starts: sub
            .generations
            .iter()
            .take(3)
            .filter_map(|g| g.allocation_start.map(Addr))
            .collect(),
        allocation_context: if heap.regions { None } else { youngest.and_then(context) },
        allocated_bytes: segments.iter().map(|s| s.allocated_bytes).sum(),
        committed_bytes: segments.iter().map(|s| s.committed_bytes).sum(),
        segments,
    })
}

impl Facts for Memory {
    fn text(&self, out: &mut Out<'_>) {
        if let Some(loader) = &self.loader {
            loader.text(out);
        }
        if let Some(gc) = &self.gc {
            gc.text(out);
        }
        if let Some(bytes) = self.total_bytes {
            let partial = self.gc.as_ref().is_some_and(|gc| gc.partial);
            out.end();
            out.fmt(format_args!(
                "{} bytes consumed by CLR: 0x{bytes:x} ({bytes})\n",
                if partial { "Partial" } else { "Total" }
            ));
        }
    }
}

impl HeapMemory {
    fn text(&self, out: &mut Out<'_>) {
        out.end();
        if let Some(datas) = self.datas {
            out.fmt(format_args!("DATAS = {datas}\n"));
        }
        out.line("========================================");
        out.fmt(format_args!("Number of GC Heaps: {}\n", self.heaps.len()));
        for heap in &self.heaps {
            out.line("----------------------------------------");
            if let Some(address) = heap.address {
                out.fmt(format_args!("Heap {} ({:016x})\n", heap.index, address.0));
            }
            heap.text(out, self.regions);
            if self.server {
                out.line("------------------------------");
                total(out, "Allocated Heap Size:       Size: ", heap.allocated_bytes);
                total(out, "Committed Heap Size:       Size: ", heap.committed_bytes);
            }
        }
        out.line("------------------------------");
        let partial = if self.partial { " (a part only)" } else { "" };
        total(out, &format!("GC Allocated Heap Size{partial}:    Size: "), self.allocated_bytes);
        total(out, &format!("GC Committed Heap Size{partial}:    Size: "), self.committed_bytes);
    }
}

fn total(out: &mut Out<'_>, label: &str, bytes: u64) {
    out.fmt(format_args!("{label}0x{bytes:x} ({bytes}) bytes.\n"));
}

impl HeapLines {
    fn text(&self, out: &mut Out<'_>, regions: bool) {
        use SegmentKind::{Ephemeral, Frozen, Gen0, Gen1, Gen2, Large, Pinned};
        for (number, start) in self.generation_starts.iter().enumerate() {
            out.fmt(format_args!("generation {number} starts at {:x}\n", start.0));
        }
        if !regions {
            out.str("ephemeral segment allocation context: ");
            match self.allocation_context {
                Some((pointer, limit)) => out.fmt(format_args!("(0x{:x}, 0x{:x})\n", pointer.0, limit.0)),
                None => out.line("none"),
            }
        }
        out.line("Small object heap");
        head(out);
        if regions {
            for (number, kind) in [Gen0, Gen1, Gen2].into_iter().enumerate() {
                out.fmt(format_args!("generation {number}:\n"));
                self.rows(out, &[kind]);
            }
        } else {
            self.rows(out, &[Gen2, Ephemeral]);
        }
        for (kind, name) in
            [(Frozen, "NonGC heap"), (Large, "Large object heap"), (Pinned, "Pinned object heap")]
        {
            if self.segments.iter().any(|s| s.kind == kind) {
                out.line(name);
                head(out);
                self.rows(out, &[kind]);
            }
        }
    }

    fn rows(&self, out: &mut Out<'_>, kinds: &[SegmentKind]) {
        for segment in self.segments.iter().filter(|s| kinds.contains(&s.kind)) {
            for address in [segment.address, segment.begin, segment.allocated, segment.committed] {
                out.addr(address.0);
                out.blanks(1);
            }
            let size = |bytes: u64| if bytes == 0 { String::new() } else { format!("0x{bytes:x} ({bytes})") };
            out.left(&size(segment.allocated_bytes), 16);
            out.blanks(1);
            out.left(&size(segment.committed_bytes), 16);
            out.end();
        }
    }
}

fn head(out: &mut Out<'_>) {
    out.line("         segment            begin        allocated        committed allocated size   committed size  ");
}
