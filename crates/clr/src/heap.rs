//! The managed heap as facts: heaps, generations, segments.

use dnd_contract::Addr;
use serde::Serialize;
use serde::ser::SerializeStruct;

/// What a segment (or region) holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SegmentKind {
    /// A region of generation 0.
    Gen0,
    /// A region of generation 1.
    Gen1,
    /// A region or segment of generation 2.
    Gen2,
    /// The segment that holds generations 0 and 1, and behind them perhaps some of 2 (segments only).
    Ephemeral,
    /// The large object heap.
    Large,
    /// The pinned object heap.
    Pinned,
    /// Frozen: the NonGC heap, objects that are never collected.
    Frozen,
}

/// The generation of an object, as `gcwhere` and `-gen` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GenerationName {
    /// Generation 0.
    Gen0,
    /// Generation 1.
    Gen1,
    /// Generation 2.
    Gen2,
    /// Large object heap.
    Large,
    /// Pinned object heap.
    Pinned,
    /// Frozen (NonGC) heap.
    Frozen,
}

/// A contiguous piece of the heap: a segment, or a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Address of its `heap_segment` structure.
    pub address: u64,
    /// Index of the heap that it belongs to (0 in workstation mode).
    pub heap: usize,
    /// What it holds.
    pub kind: SegmentKind,
    /// Address of the first object.
    pub start: u64,
    /// End of the objects.
    pub end: u64,
    /// End of the committed memory.
    pub committed: u64,
    /// End of the reserved memory.
    pub reserved: u64,
    /// `heap_segment` flags.
    pub flags: u64,
    /// Next `heap_segment`.
    pub next: u64,
    /// End of the objects that a background GC in progress looks at.
    pub background_allocated: u64,
}

impl Segment {
    /// Bytes between the first object and the end of the last.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it holds no object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `address` lies between the first object and the end of the last.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        self.start <= address && address < self.end
    }
}

impl Serialize for Segment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut s = serializer.serialize_struct("Segment", 7)?;
        s.serialize_field("address", &Addr(self.address))?;
        s.serialize_field("heap", &self.heap)?;
        s.serialize_field("kind", &self.kind)?;
        s.serialize_field("start", &Addr(self.start))?;
        s.serialize_field("end", &Addr(self.end))?;
        s.serialize_field("committed", &Addr(self.committed))?;
        s.serialize_field("reserved", &Addr(self.reserved))?;
        s.end()
    }
}

/// One generation of one heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// First `heap_segment`.
    pub start_segment: u64,
    /// Where the generation begins in the ephemeral segment (segments only).
    pub allocation_start: Option<u64>,
    /// Next byte to allocate, 0 for none.
    pub alloc_pointer: u64,
    /// End of what may be allocated.
    pub alloc_limit: u64,
}

/// One of the GC's heaps: the only one in workstation mode, one per processor in server mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubHeap {
    /// Address of the `gc_heap` (0 in workstation mode, where its fields are global variables).
    pub address: u64,
    /// End of the objects in the ephemeral segment.
    pub alloc_allocated: u64,
    /// The ephemeral segment (or the region being allocated in).
    pub ephemeral_segment: u64,
    /// The finalizer queue (`CFinalize*`).
    pub finalize_queue: u64,
    /// Where the GC writes what it knows of the last allocation that failed (`oom_history`).
    pub oom_info: u64,
    /// Generations 0, 1, 2, large objects, pinned objects.
    pub generations: Vec<Generation>,
}

/// The managed heap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heap {
    /// Server GC: a heap per processor.
    pub server: bool,
    /// Regions (7 and later) instead of segments.
    pub regions: bool,
    /// `DATAS`: the mode of dynamic adaptation, 9 and later.
    pub dynamic_adaptation: Option<u32>,
    /// The dump was taken while a GC was moving objects or rebuilding its tables.
    pub gc_in_progress: bool,
    /// State of the background GC (`c_gc_state`): 0 marking, 1 planning, 2 none.
    pub background_state: u32,
    /// Address of the first handle table map.
    pub handle_table_map: u64,
    /// Number of generations, large and pinned object heaps included.
    pub generation_count: u64,
    /// The heaps.
    pub heaps: Vec<SubHeap>,
    /// All segments, heap by heap.
    pub segments: Vec<Segment>,
    /// Allocation contexts (pointer, limit), sorted: gaps in generation 0 that hold no objects.
    pub contexts: Vec<(u64, u64)>,
}

impl Heap {
    pub(crate) fn add_context(&mut self, pointer: u64, limit: u64) {
        if pointer != 0 && pointer <= limit {
            self.contexts.push((pointer, limit));
        }
    }

    /// Sorts what was collected; to be called once all contexts are known.
    pub(crate) fn finish(&mut self) {
        self.contexts.sort_unstable();
        self.contexts.dedup();
    }

    /// The segment that holds an address.
    #[must_use]
    pub fn segment_of(&self, address: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.contains(address))
    }

    /// The generation of an address inside `segment`.
    #[must_use]
    pub fn generation_of(&self, segment: &Segment, address: u64) -> GenerationName {
        match segment.kind {
            SegmentKind::Gen0 => GenerationName::Gen0,
            SegmentKind::Gen1 => GenerationName::Gen1,
            SegmentKind::Gen2 => GenerationName::Gen2,
            SegmentKind::Large => GenerationName::Large,
            SegmentKind::Pinned => GenerationName::Pinned,
            SegmentKind::Frozen => GenerationName::Frozen,
            SegmentKind::Ephemeral => {
                let start = |n: usize| {
                    self.heaps.get(segment.heap).and_then(|heap| heap.generations.get(n)?.allocation_start)
                };
                match (start(0), start(1)) {
                    (Some(start), _) if address >= start => GenerationName::Gen0,
                    (_, Some(start)) if address >= start => GenerationName::Gen1,
                    _ => GenerationName::Gen2,
                }
            }
        }
    }

    /// Allocation contexts that are gaps in `segment`.
    #[must_use]
    pub fn contexts_in(&self, segment: &Segment) -> &[(u64, u64)] {
        // With regions only generation 0 is allocated in; a context elsewhere is stale.
        if self.regions && segment.kind != SegmentKind::Gen0 {
            return &[];
        }
        let from = self.contexts.partition_point(|&(pointer, _)| pointer < segment.start);
        let to = self.contexts.partition_point(|&(pointer, _)| pointer < segment.end);
        self.contexts.get(from..to).unwrap_or(&[])
    }
}
