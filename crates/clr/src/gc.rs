//! The GC's own description of itself, turned into [`Heap`].
//!
//! Sources: `gc/gcinterface.dac.h`, `gc/gcinterface.dacvars.def`, `gc/dac_gcheap_fields.h`,
//! `gc/dac_generation_fields.h` of dotnet/runtime 8.0 to 10.0; for 3.1 dotnet/coreclr v3.1.23, `src/gc`.

use dnd_memory::Memory;

use crate::error::{Error, Reading};
use crate::heap::{Generation, Heap, Segment, SegmentKind, SubHeap};
use crate::layout::{FixedHeap, Globals, Layout};

/// More heaps than any machine has processors for; a larger number is damage.
const MAX_HEAPS: u32 = 4096;
/// More segments than a heap of 16 TB has regions.
const MAX_SEGMENTS: usize = 1 << 22;

/// Position of a pointer among those of `GcDacVars`, in the order of `gcinterface.dacvars.def`.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Var {
    GenerationTable = 3,
    CurrentState = 6,
    EphemeralSegment = 7,
    AllocAllocated = 12,
    OomInfo = 14,
    FinalizeQueue = 15,
    HeapCount = 19,
    Heaps = 20,
    StructuresInvalid = 21,
    HandleTableMap = 26,
    HeapFieldOffsets = 27,
    GenerationFieldOffsets = 28,
    /// `dynamic_adaptation_mode`, 9 and later: at a fixed place behind three 32-bit values.
    DynamicAdaptation = 37,
}

/// Indices into `gc_heap_field_offsets`, from `dac_gcheap_fields.h`.
mod field {
    pub(super) const ALLOC_ALLOCATED: usize = 0;
    pub(super) const EPHEMERAL_SEGMENT: usize = 1;
    pub(super) const FINALIZE_QUEUE: usize = 2;
    pub(super) const OOM_INFO: usize = 3;
    pub(super) const GENERATION_TABLE: usize = 18;
    pub(super) const COUNT: usize = 19;
}

struct Vars<'a> {
    memory: &'a dyn Memory,
    at: u64,
    first: u64,
}

impl Vars<'_> {
    /// Address of the variable that a pointer of the structure leads to.
    fn pointer(&self, var: Var) -> Result<u64, Error> {
        self.memory
            .u64(self.at.wrapping_add(self.first + 8 * var as u64))
            .reading("the GC's table of variables")
    }

    /// Value of a pointer-sized variable.
    fn value(&self, var: Var) -> Result<u64, Error> {
        self.memory.u64(self.pointer(var)?).reading("a variable of the GC")
    }

    /// Value of a 32-bit variable, where there is one.
    fn word(&self, var: Var) -> Option<u32> {
        let at = self.pointer(var).ok().filter(|&at| at != 0)?;
        self.memory.u32(at).ok()
    }
}

/// Offsets of the generation fields: allocation context, start segment, allocation start (none: regions).
struct GenerationFields {
    context: u64,
    start_segment: u64,
    allocation_start: Option<u64>,
}

/// Addresses in one heap (server), or of the global variables (workstation).
struct HeapFields {
    address: u64,
    alloc_allocated: u64,
    ephemeral_segment: u64,
    finalize_queue: u64,
    oom_info: u64,
    generation_table: u64,
}

/// Reads heaps, generations and segments.
pub(crate) fn read(memory: &dyn Memory, layout: &Layout, globals: &Globals<u64>) -> Result<Heap, Error> {
    let at = memory.u64(globals.gc_dac_globals).reading("the pointer to the GC's table of variables")?;
    let vars = Vars { memory, at, first: layout.gc.first_pointer };
    let generation_size = memory.u64(at.wrapping_add(8)).reading("the GC's table of variables")?;
    let generations = match layout.gc.fixed_generations {
        Some(n) => n,
        None => memory.u64(at.wrapping_add(16)).reading("the GC's table of variables")?,
    };
    if !(4..=8).contains(&generations) || generation_size > 4096 {
        return Err(Error::Damaged { what: "the GC's table of variables", addr: at });
    }
    let server = memory.u32(globals.heap_type).reading("the kind of the heap")? == 2;
    let fields = if layout.gc.fixed_heap.is_some() {
        GenerationFields { context: 0, start_segment: 56, allocation_start: Some(64) }
    } else {
        generation_fields(memory, vars.pointer(Var::GenerationFieldOffsets)?)?
    };
    let regions = fields.allocation_start.is_none();

    let mut heap = Heap {
        server,
        regions,
        dynamic_adaptation: (layout.major >= 9).then(|| vars.word(Var::DynamicAdaptation)).flatten(),
        gc_in_progress: vars.word(Var::StructuresInvalid).is_some_and(|count| count != 0),
        background_state: vars.word(Var::CurrentState).unwrap_or(0),
        handle_table_map: vars.pointer(Var::HandleTableMap)?,
        generation_count: generations,
        heaps: Vec::new(),
        segments: Vec::new(),
        contexts: Vec::new(),
    };
    let places = if server {
        server_heaps(&vars, layout.gc.fixed_heap)?
    } else {
        vec![HeapFields {
            address: 0,
            alloc_allocated: vars.pointer(Var::AllocAllocated)?,
            ephemeral_segment: vars.pointer(Var::EphemeralSegment)?,
            finalize_queue: vars.pointer(Var::FinalizeQueue)?,
            oom_info: vars.pointer(Var::OomInfo)?,
            generation_table: vars.pointer(Var::GenerationTable)?,
        }]
    };
    for (index, place) in places.iter().enumerate() {
        read_heap(memory, &mut heap, index, place, &fields, generation_size)?;
    }
    Ok(heap)
}

fn generation_fields(memory: &dyn Memory, at: u64) -> Result<GenerationFields, Error> {
    let offset = |i: u64| memory.u32(at.wrapping_add(4 * i)).reading("the GC's generation field offsets");
    let (context, start_segment, start) = (offset(0)?, offset(1)?, offset(2)?);
    // -1 says that the field does not exist: a GC with regions.
    let allocation_start = (start != u32::MAX).then_some(u64::from(start));
    Ok(GenerationFields { context: context.into(), start_segment: start_segment.into(), allocation_start })
}

fn server_heaps(vars: &Vars<'_>, fixed: Option<FixedHeap>) -> Result<Vec<HeapFields>, Error> {
    let memory = vars.memory;
    let count = vars.word(Var::HeapCount).unwrap_or(0);
    if count == 0 || count > MAX_HEAPS {
        return Err(Error::Damaged { what: "the number of GC heaps", addr: vars.pointer(Var::HeapCount)? });
    }
    let array = vars.value(Var::Heaps)?;
    let fixed = match fixed {
        Some(fixed) => fixed,
        None => described_heap(memory, vars.pointer(Var::HeapFieldOffsets)?)?,
    };
    let mut out = Vec::new();
    for i in 0..u64::from(count) {
        let address = memory.u64(array.wrapping_add(8 * i)).reading("the array of GC heaps")?;
        out.push(HeapFields {
            address,
            alloc_allocated: address.wrapping_add(fixed.alloc_allocated),
            ephemeral_segment: address.wrapping_add(fixed.ephemeral_segment),
            finalize_queue: address.wrapping_add(fixed.finalize_queue),
            oom_info: address.wrapping_add(fixed.oom_info),
            generation_table: address.wrapping_add(fixed.generation_table),
        });
    }
    Ok(out)
}

/// A server heap's own description of where its fields are.
fn described_heap(memory: &dyn Memory, at: u64) -> Result<FixedHeap, Error> {
    let mut offsets = [0u64; field::COUNT];
    for (i, slot) in offsets.iter_mut().enumerate() {
        *slot = memory.u32(at.wrapping_add(4 * i as u64)).reading("the GC's heap field offsets")?.into();
    }
    let [.., generation_table] = offsets;
    debug_assert_eq!(field::GENERATION_TABLE, field::COUNT - 1);
    let at = |i: usize| offsets.get(i).copied().unwrap_or(0);
    Ok(FixedHeap {
        alloc_allocated: at(field::ALLOC_ALLOCATED),
        ephemeral_segment: at(field::EPHEMERAL_SEGMENT),
        finalize_queue: at(field::FINALIZE_QUEUE),
        oom_info: at(field::OOM_INFO),
        generation_table,
    })
}

fn read_heap(
    memory: &dyn Memory,
    heap: &mut Heap,
    index: usize,
    place: &HeapFields,
    fields: &GenerationFields,
    generation_size: u64,
) -> Result<(), Error> {
    let read = |at: u64| memory.u64(at).reading("a GC heap");
    let ephemeral = read(place.ephemeral_segment)?;
    let mut sub = SubHeap {
        address: place.address,
        alloc_allocated: read(place.alloc_allocated)?,
        ephemeral_segment: ephemeral,
        finalize_queue: read(place.finalize_queue)?,
        oom_info: place.oom_info,
        generations: Vec::new(),
    };
    for number in 0..heap.generation_count {
        let at = place.generation_table.wrapping_add(number * generation_size);
        let context = at.wrapping_add(fields.context);
        let generation = Generation {
            start_segment: read(at.wrapping_add(fields.start_segment))?,
            allocation_start: fields.allocation_start.map(|f| read(at.wrapping_add(f))).transpose()?,
            alloc_pointer: read(context)?,
            alloc_limit: read(context.wrapping_add(8))?,
        };
        heap.add_context(generation.alloc_pointer, generation.alloc_limit);
        sub.generations.push(generation);
    }
    // With regions every generation has its own list, and frozen segments head that of generation 2. With segments
    // generations 0 and 1 live in the ephemeral segment, which is the last of generation 2's list.
    let order: &[u64] = if heap.regions { &[2, 1, 0, 3, 4] } else { &[2, 3, 4] };
    let first_of_heap = heap.segments.len();
    for &number in order {
        let Some(generation) = usize::try_from(number).ok().and_then(|n| sub.generations.get(n)) else {
            continue;
        };
        let mut at = generation.start_segment;
        while at != 0 {
            let known = heap.segments.iter().skip(first_of_heap).any(|s| s.address == at);
            if known || heap.segments.len() >= MAX_SEGMENTS {
                break;
            }
            let mut segment = read_segment(memory, at, index, number, heap.regions)?;
            let next = segment.next;
            if at == ephemeral {
                segment.end = sub.alloc_allocated;
                if !heap.regions {
                    segment.kind = SegmentKind::Ephemeral;
                }
            }
            heap.segments.push(segment);
            at = next;
        }
    }
    heap.heaps.push(sub);
    Ok(())
}

/// `heap_segment` of `gc/gcpriv.h`: allocated, committed, reserved, used, mem, flags, next, background_allocated.
fn read_segment(
    memory: &dyn Memory,
    at: u64,
    heap: usize,
    generation: u64,
    regions: bool,
) -> Result<Segment, Error> {
    const READ_ONLY: u64 = 1;
    let word = |i: u64| memory.u64(at.wrapping_add(8 * i)).reading("a GC segment");
    let flags = word(5)?;
    let kind = match generation {
        _ if flags & READ_ONLY != 0 => SegmentKind::Frozen,
        3 => SegmentKind::Large,
        4 => SegmentKind::Pinned,
        0 if regions => SegmentKind::Gen0,
        1 if regions => SegmentKind::Gen1,
        _ => SegmentKind::Gen2,
    };
    let allocated = word(0)?;
    Ok(Segment {
        address: at,
        heap,
        kind,
        start: word(4)?,
        end: allocated,
        committed: word(1)?,
        reserved: word(2)?,
        flags,
        next: word(6)?,
        background_allocated: word(7)?,
    })
}
