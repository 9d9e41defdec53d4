//! `gcheapstat` and `sizestats`: the heap's generations in numbers.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use dnd_clr::{Damage, GenerationName, Heap, Segment, SegmentKind};
use serde::Serialize;

use super::committed_start;
use super::dumpheap::{damage_notes, finish};
use crate::args::Opt;
use crate::error::Error;
use crate::inspect;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static GC_HEAP_STAT: Command = Command {
    names: &["gcheapstat", "GCHeapStat"],
    operands: "",
    max_operands: 0,
    options: &[Opt::flag(&["unreachable", "inclUnrooted", "iu"], "Also what no root reaches.")],
    summary: "Shows how much each generation of each heap holds: bytes of objects, free, committed.",
    about: "Free space lies between objects that the GC could not move together. SOH (Gen0 to Gen2), LOH and POH: the share \
            of it in what is allocated. EPH is the segment that holds the young generations, where there are segments \
            instead of regions.",
    run: gc_heap_stat,
};

pub(crate) static SIZE_STATS: Command = Command {
    names: &["sizestats", "SizeStats"],
    operands: "",
    max_operands: 0,
    options: &[],
    summary: "Counts objects and free blocks by size, for each generation.",
    about: "The cumulative columns count what is smaller than the row's size.",
    run: size_stats,
};

const GENERATIONS: [GenerationName; 6] = [
    GenerationName::Gen0,
    GenerationName::Gen1,
    GenerationName::Gen2,
    GenerationName::Large,
    GenerationName::Pinned,
    GenerationName::Frozen,
];

fn place(generation: GenerationName) -> usize {
    GENERATIONS.iter().position(|&one| one == generation).unwrap_or(0)
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Bytes {
    allocated: u64,
    free: u64,
    /// Null without `-unreachable`.
    unreachable: Option<u64>,
    /// With segments, the ephemeral one counts as a whole in `ephemeral`, and not here.
    committed: u64,
}

#[derive(Debug, Clone, Serialize)]
struct HeapLine {
    heap: usize,
    gen0: Bytes,
    gen1: Bytes,
    gen2: Bytes,
    loh: Bytes,
    poh: Bytes,
    foh: Bytes,
    /// The segment that holds the young generations; null where there are regions.
    ephemeral: Option<Ephemeral>,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Ephemeral {
    allocated: u64,
    committed: u64,
}

#[derive(Debug, Serialize)]
struct HeapStat {
    heaps: Vec<HeapLine>,
    #[serde(skip)]
    unreachable: bool,
}

fn gc_heap_stat(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let heap = runtime.objects_heap()?;
    let unreachable = call.args.flag("unreachable");
    let mut lines: Vec<([Bytes; 6], Ephemeral)> =
        vec![([Bytes::default(); 6], Ephemeral::default()); heap.heaps.len().max(1)];
    for segment in &heap.segments {
        let Some((generations, ephemeral)) = lines.get_mut(segment.heap) else { continue };
        let committed = segment.committed.saturating_sub(committed_start(heap, segment));
        if segment.kind == SegmentKind::Ephemeral {
            ephemeral.allocated += segment.len();
            ephemeral.committed += committed;
        }
        for (generation, bytes) in parts(heap, segment) {
            let Some(cell) = generations.get_mut(place(generation)) else { continue };
            cell.allocated += bytes;
            if segment.kind != SegmentKind::Ephemeral {
                cell.committed += committed;
            }
        }
    }
    let free = runtime.free().address;
    let mut dead = Vec::new();
    let damage = runtime.walk_all(&heap.segments, call.progress(), |segment, object| {
        if object.table == free {
            let generation = place(heap.generation_of(segment, object.address));
            let cell = lines.get_mut(segment.heap).and_then(|(all, _)| all.get_mut(generation));
            if let Some(cell) = cell {
                cell.free += object.size;
            }
        }
        ControlFlow::Continue(())
    })?;
    if unreachable {
        dead = dead_bytes(call, heap)?;
    }
    let line = |(number, (mut generations, ephemeral)): (usize, ([Bytes; 6], Ephemeral))| {
        if let Some(dead) = dead.get(number) {
            for (cell, dead) in generations.iter_mut().zip(dead) {
                cell.unreachable = Some(*dead);
            }
        }
        let [gen0, gen1, gen2, loh, poh, foh] = generations;
        let ephemeral = (!heap.regions).then_some(ephemeral);
        HeapLine { heap: number, gen0, gen1, gen2, loh, poh, foh, ephemeral }
    };
    let heaps = lines.into_iter().enumerate().map(line).collect();
    damage_notes(call, &damage);
    call.emit("gcheapstat", 1, &HeapStat { heaps, unreachable })?;
    finish(&damage)
}

/// Bytes of each generation in a segment.
fn parts(heap: &Heap, segment: &Segment) -> Vec<(GenerationName, u64)> {
    if segment.kind != SegmentKind::Ephemeral {
        return vec![(heap.generation_of(segment, segment.start), segment.len())];
    }
    let start = |number: usize| {
        let start = heap.heaps.get(segment.heap)?.generations.get(number)?.allocation_start?;
        segment.contains(start).then_some(start)
    };
    let gen0 = start(0).unwrap_or(segment.end);
    let gen1 = start(1).unwrap_or(gen0).min(gen0);
    vec![
        (GenerationName::Gen0, segment.end - gen0),
        (GenerationName::Gen1, gen0 - gen1),
        (GenerationName::Gen2, gen1.saturating_sub(segment.start)),
    ]
}

/// Bytes that no root reaches, by heap and generation.
fn dead_bytes(call: &mut Call<'_, '_>, heap: &Heap) -> Result<Vec<[u64; 6]>, Error> {
    let runtime = call.runtime();
    let free = runtime.free().address;
    let (roots, notes) = inspect::roots(runtime, true, call.progress())?;
    notes.into_iter().chain(inspect::ref_counted(&roots)).for_each(|note| call.note(note));
    let progress = call.progress();
    let walked = runtime.reached(&roots, progress, |reached| {
        let mut dead = vec![[0u64; 6]; heap.heaps.len().max(1)];
        runtime
            .walk_all(&heap.segments, progress, |segment, object| {
                if object.table != free && !reached.contains(object.address) {
                    let generation = place(heap.generation_of(segment, object.address));
                    let cell = dead.get_mut(segment.heap).and_then(|all| all.get_mut(generation));
                    if let Some(cell) = cell {
                        *cell += object.size;
                    }
                }
                ControlFlow::Continue(())
            })
            .map(|_| dead)
    })?;
    Ok(walked?)
}

impl HeapLine {
    fn generations(&self) -> [&Bytes; 6] {
        [&self.gen0, &self.gen1, &self.gen2, &self.loh, &self.poh, &self.foh]
    }
}

impl Facts for HeapStat {
    fn text(&self, out: &mut Out<'_>) {
        let ephemeral = self.heaps.iter().any(|heap| heap.ephemeral.is_some());
        self.part(out, |bytes| bytes.allocated, ephemeral.then_some(|e: &Ephemeral| e.allocated), false);
        out.line("\nFree space:");
        self.part(out, |bytes| bytes.free, None, true);
        if self.unreachable {
            out.line("\nUnrooted objects:");
            self.part(out, |bytes| bytes.unreachable.unwrap_or(0), None, true);
        }
        out.line("\nCommitted space:");
        self.part(out, |bytes| bytes.committed, ephemeral.then_some(|e: &Ephemeral| e.committed), false);
    }
}

impl HeapStat {
    fn part(
        &self,
        out: &mut Out<'_>,
        of: fn(&Bytes) -> u64,
        of_ephemeral: Option<fn(&Ephemeral) -> u64>,
        share: bool,
    ) {
        out.left("Heap", 9);
        if of_ephemeral.is_some() {
            out.left("EPH", 11);
        }
        for head in ["Gen0", "Gen1", "Gen2", "LOH", "POH"] {
            out.left(head, 11);
        }
        out.line("FRZ");
        let mut total = [0u64; 6];
        let mut total_ephemeral = 0u64;
        for heap in &self.heaps {
            out.left(&format!("Heap{}", heap.heap), 9);
            let ephemeral = of_ephemeral.map(|of| heap.ephemeral.as_ref().map_or(0, of));
            if let Some(bytes) = ephemeral {
                out.left(&bytes.to_string(), 11);
                total_ephemeral += bytes;
            }
            for (cell, sum) in heap.generations().into_iter().zip(&mut total) {
                *sum += of(cell);
                out.left(&of(cell).to_string(), 11);
            }
            if share {
                let all = heap.generations();
                let percent = |cells: &[&Bytes]| {
                    let allocated: u64 = cells.iter().map(|cell| cell.allocated).sum();
                    let part: u64 = cells.iter().map(|cell| of(cell)).sum();
                    part.saturating_mul(100).checked_div(allocated)
                };
                let parts =
                    [("SOH", percent(&all[..3])), ("LOH", percent(&all[3..4])), ("POH", percent(&all[4..5]))];
                for (name, percent) in parts {
                    if let Some(percent) = percent {
                        out.fmt(format_args!("{name}:{percent}% "));
                    }
                }
            }
            out.end();
        }
        out.left("Total", 9);
        if of_ephemeral.is_some() {
            out.left(&total_ephemeral.to_string(), 11);
        }
        total.iter().for_each(|sum| out.left(&sum.to_string(), 11));
        out.end();
    }
}

#[derive(Debug, Serialize)]
struct SizeStats {
    generations: Vec<Sizes>,
}

#[derive(Debug, Serialize)]
struct Sizes {
    generation: GenerationName,
    /// Of free blocks, not of objects.
    free: bool,
    sizes: Vec<SizeLine>,
}

#[derive(Debug, Serialize)]
struct SizeLine {
    size: u64,
    count: u64,
}

fn size_stats(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let heap = runtime.objects_heap()?;
    let free = runtime.free().address;
    let mut counts: [[BTreeMap<u64, u64>; 6]; 2] = Default::default();
    let damage: Damage = runtime.walk_all(&heap.segments, call.progress(), |segment, object| {
        let generation = place(heap.generation_of(segment, object.address));
        let kind = counts.get_mut(usize::from(object.table == free));
        if let Some(sizes) = kind.and_then(|kind| kind.get_mut(generation)) {
            *sizes.entry(object.size.next_multiple_of(8)).or_default() += 1;
        }
        ControlFlow::Continue(())
    })?;
    let generations = counts.into_iter().zip([false, true]).flat_map(|(kind, free)| {
        kind.into_iter().zip(GENERATIONS).map(move |(sizes, generation)| Sizes {
            generation,
            free,
            sizes: sizes.into_iter().map(|(size, count)| SizeLine { size, count }).collect(),
        })
    });
    let mut generations: Vec<Sizes> = generations.collect();
    // There are no holes in what is never collected.
    generations.retain(|one| !(one.free && one.generation == GenerationName::Frozen && one.sizes.is_empty()));
    damage_notes(call, &damage);
    call.emit("sizestats", 1, &SizeStats { generations })?;
    finish(&damage)
}

/// As these commands write a generation's name.
pub(super) fn generation_name(generation: GenerationName) -> &'static str {
    match generation {
        GenerationName::Gen0 => "generation0",
        GenerationName::Gen1 => "generation1",
        GenerationName::Gen2 => "generation2",
        GenerationName::Large => "large",
        GenerationName::Pinned => "pinned",
        GenerationName::Frozen => "frozen",
    }
}

impl Facts for SizeStats {
    fn text(&self, out: &mut Out<'_>) {
        for one in &self.generations {
            let kind = if one.free { "free objects" } else { "objects" };
            out.fmt(format_args!("Size Statistics for {} {kind}\n\n", generation_name(one.generation)));
            if one.sizes.is_empty() {
                out.line("(none)\n");
                continue;
            }
            out.line("          Size          Count Cumulative Size Cumulative Count");
            let (mut bytes, mut count) = (0u64, 0u64);
            for line in &one.sizes {
                out.grouped(line.size, 14);
                out.blanks(1);
                out.grouped(line.count, 14);
                out.blanks(1);
                out.grouped(bytes, 15);
                out.blanks(1);
                out.grouped(count, 16);
                out.end();
                bytes = bytes.saturating_add(line.size.saturating_mul(line.count));
                count += line.count;
            }
            out.end();
        }
    }
}
