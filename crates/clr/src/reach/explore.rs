//! Breadth-first search over the heap, straight on the dump's bytes.
//!
//! The queue is never emptied: it is the order in which objects were found. Because an object's finder stands before it
//! and finders follow each other in the same order, the finder of any object can be worked out afterwards from a few
//! checkpoints; no parent pointers are stored. A search over 30 million objects takes four bytes for each of them
//! and a bit for every eight bytes of heap.

use rustc_hash::FxHashMap;

use dnd_memory::{Target, prefetch};

use super::index::HeapIndex;
use crate::error::Error;
use crate::layout::Layout;
use crate::progress::Progress;
use crate::types::{MethodTable, References};
use crate::typetable::TypeTable;

/// Objects fetched from memory ahead of the one being looked at.
const AHEAD: usize = 16;
/// Finders between two checkpoints.
const CHECKPOINT: usize = 256;
const CHECK_EVERY: usize = 1 << 16;

/// A queue entry: a dense number. 32 bits reach 32 GB of heap.
pub(super) trait Word: Copy {
    fn pack(dense: u64) -> Self;
    fn unpack(self) -> u64;
}

impl Word for u32 {
    fn pack(dense: u64) -> Self {
        dense as u32
    }
    fn unpack(self) -> u64 {
        self.into()
    }
}

impl Word for u64 {
    fn pack(dense: u64) -> Self {
        dense
    }
    fn unpack(self) -> u64 {
        self
    }
}

/// What a search needs of a type besides its size.
#[derive(Default)]
struct Edges {
    loaded: bool,
    /// The `LoaderAllocator` object that objects of a collectible type keep alive, 0 for none.
    allocator: u64,
    /// Most types have their references in one run: where it begins, and what to add to the size for its length.
    run: Option<(u64, i64)>,
    /// All others.
    references: References,
}

/// Gives the `LoaderAllocator` object of a collectible type.
pub(super) type AllocatorOf<'r> = &'r (dyn Fn(&MethodTable) -> u64 + Sync);

/// What all searches share: the heap, the types on it, the dependent handles.
pub(super) struct Graph<'r> {
    target: &'r dyn Target,
    layout: &'r Layout,
    pub(super) index: HeapIndex<'r>,
    pub(super) types: TypeTable,
    edges: Vec<Edges>,
    allocator_of: AllocatorOf<'r>,
    /// Dependent handles: the second object lives while the first does.
    dependents: Vec<(u64, u64)>,
    scratch: Vec<u8>,
    pub(super) progress: &'r Progress,
    /// Pointers that led to no object: of missing or damaged memory.
    pub(super) dangling: u64,
}

impl<'r> Graph<'r> {
    pub(super) fn new(
        target: &'r dyn Target,
        layout: &'r Layout,
        index: HeapIndex<'r>,
        free: &MethodTable,
        allocator_of: AllocatorOf<'r>,
        dependents: Vec<(u64, u64)>,
        progress: &'r Progress,
    ) -> Self {
        let mut types = TypeTable::new();
        types.insert_trusted(free);
        Self {
            target,
            layout,
            index,
            types,
            edges: Vec::new(),
            allocator_of,
            dependents,
            scratch: Vec::new(),
            progress,
            dangling: 0,
        }
    }

    #[cold]
    fn load_edges(&mut self, table: u64, ordinal: usize) {
        let mut edges = Edges { loaded: true, ..Edges::default() };
        if let Ok(table) = MethodTable::read(self.target, self.layout, table) {
            if table.is_collectible(self.layout) {
                edges.allocator = (self.allocator_of)(&table);
            }
            edges.references = References::read(self.target, &table).unwrap_or_default();
            if let References::Series(series) = &edges.references
                && let [run] = series.as_slice()
            {
                edges.run = Some(*run);
                edges.references = References::None;
            }
        }
        if self.edges.len() <= ordinal {
            self.edges.resize_with(ordinal + 1, Edges::default);
        }
        if let Some(place) = self.edges.get_mut(ordinal) {
            *place = edges;
        }
    }

    /// Calls `visit` with the address that each reference of an object holds. With `COUNT`, counts the object by type.
    #[inline]
    pub(super) fn references<const COUNT: bool>(
        &mut self,
        dense: u64,
        mut visit: impl FnMut(&HeapIndex<'r>, u64),
    ) {
        let Some((piece, offset)) = self.index.place(dense) else { return };
        let (start, bytes) = (piece.start, piece.bytes);
        let Some(object) = bytes.get(offset..) else { return };
        let (w0, count) = match object.first_chunk::<16>() {
            Some(head) => {
                let all = u128::from_le_bytes(*head);
                (all as u64, (all >> 64) as u32)
            }
            None => {
                let at = start + offset as u64;
                (self.target.u64(at).unwrap_or(0), self.target.u32(at + 8).unwrap_or(0))
            }
        };
        let Some(slot) =
            self.types.find(self.target, self.layout, w0 & !7).and_then(|i| self.types.slot_mut(i))
        else {
            self.dangling += 1;
            return;
        };
        let size = u64::from(slot.base_size) + u64::from(slot.component_size) * u64::from(count);
        if COUNT {
            slot.add(start + offset as u64, size);
        }
        let (table, ordinal) = (slot.table, slot.ordinal as usize);
        if !self.edges.get(ordinal).is_some_and(|edges| edges.loaded) {
            self.load_edges(table, ordinal);
        }
        let Some(edges) = self.edges.get(ordinal) else { return };
        if edges.allocator != 0 {
            visit(&self.index, edges.allocator);
        }
        let rounded = ((size + 7) & !7) as usize;
        if let Some((first, extra)) = edges.run {
            let length = (rounded as i64).saturating_add(extra).max(0) as usize;
            if let Some(run) = object.get(first as usize..).and_then(|rest| rest.get(..length)) {
                for word in run.as_chunks::<8>().0 {
                    let value = u64::from_le_bytes(*word);
                    if value != 0 {
                        visit(&self.index, value);
                    }
                }
                return;
            }
        } else if edges.references == References::None {
            return;
        }
        let whole = object.get(..rounded);
        if let Some(object) = whole
            && edges.run.is_none()
        {
            return edges.references.each(object, |_, value| visit(&self.index, value));
        }
        // The object goes on in another piece of the dump.
        self.scratch.clear();
        if rounded <= 1 << 32 {
            self.scratch.resize(rounded, 0);
        }
        if self.target.read(start + offset as u64, &mut self.scratch).is_err() {
            self.dangling += 1;
            return;
        }
        match edges.run {
            Some(run) => {
                References::Series(vec![run]).each(&self.scratch, |_, value| visit(&self.index, value))
            }
            None => edges.references.each(&self.scratch, |_, value| visit(&self.index, value)),
        }
    }

    /// The dependent handles, as dense numbers.
    pub(super) fn dependent_pairs(&self) -> Vec<(u64, u64)> {
        let dense = |address| self.index.dense(address);
        self.dependents
            .iter()
            .filter_map(|&(primary, secondary)| Some((dense(primary)?, dense(secondary)?)))
            .collect()
    }

    /// Whether the object `from` refers to `to`, by a field, as its load context, or through a dependent handle.
    pub(super) fn refers(&mut self, from: u64, to: u64) -> bool {
        let Some(dense) = self.index.dense(from) else { return false };
        let mut found = false;
        self.references::<false>(dense, |_, value| found |= value == to);
        found || self.dependents.contains(&(from, to))
    }
}

/// One bit for each dense number.
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn new(len: u64) -> Self {
        Self(vec![0; len.div_ceil(64) as usize])
    }

    /// Sets a bit; whether it was clear.
    #[inline]
    pub(super) fn set(&mut self, at: u64) -> bool {
        match self.0.get_mut((at >> 6) as usize) {
            Some(word) => {
                let bit = 1 << (at & 63);
                let clear = *word & bit == 0;
                *word |= bit;
                clear
            }
            None => false,
        }
    }

    pub(super) fn clear(&mut self, at: u64) {
        if let Some(word) = self.0.get_mut((at >> 6) as usize) {
            *word &= !(1 << (at & 63));
        }
    }

    pub(super) fn get(&self, at: u64) -> bool {
        self.0.get((at >> 6) as usize).is_some_and(|word| word >> (at & 63) & 1 != 0)
    }
}

/// Marks everything reachable from what is on `stack` (and marked already), in no particular order.
///
/// Depth first, because objects that refer to each other were often made one after the other and lie together. Between
/// the stack and the work stands a short queue whose objects are on their way from memory to the cache.
pub(super) fn mark<W: Word>(graph: &mut Graph<'_>, bits: &mut Bits, stack: &mut Vec<W>) -> Result<(), Error> {
    let mut coming = [0u64; AHEAD];
    let (mut first, mut waiting) = (0usize, 0usize);
    let mut until_check = CHECK_EVERY;
    loop {
        while waiting < AHEAD
            && let Some(next) = stack.pop()
        {
            let next = next.unpack();
            if let Some((piece, offset)) = graph.index.place(next) {
                prefetch(piece.bytes, offset);
            }
            if let Some(slot) = coming.get_mut((first + waiting) % AHEAD) {
                *slot = next;
            }
            waiting += 1;
        }
        if waiting == 0 {
            return Ok(());
        }
        let dense = coming.get(first).copied().unwrap_or(0);
        first = (first + 1) % AHEAD;
        waiting -= 1;
        until_check -= 1;
        if until_check == 0 {
            until_check = CHECK_EVERY;
            graph.progress.check()?;
        }
        graph.references::<true>(dense, |index, address| {
            index.fetch(address, |next| {
                let new = bits.set(next);
                if new {
                    stack.push(W::pack(next));
                }
                new
            });
        });
    }
}

/// Marks also what dependent handles keep alive, until nothing more is found.
pub(super) fn mark_all<W: Word>(
    graph: &mut Graph<'_>,
    bits: &mut Bits,
    mut stack: Vec<W>,
) -> Result<(), Error> {
    loop {
        mark(graph, bits, &mut stack)?;
        for (primary, secondary) in graph.dependent_pairs() {
            if bits.get(primary) && bits.set(secondary) {
                stack.push(W::pack(secondary));
            }
        }
        if stack.is_empty() {
            return Ok(());
        }
    }
}

/// The objects found by a search, in order, and how.
pub(super) struct Found<W> {
    queue: Vec<W>,
    head: usize,
    /// Length of the queue each time another [`CHECKPOINT`] finders were done.
    tails: Vec<usize>,
    /// Objects found through a dependent handle: position in the queue and the handle's first object.
    by_dependent: FxHashMap<usize, u64>,
}

impl<W: Word> Found<W> {
    pub(super) fn new() -> Self {
        Self { queue: Vec::new(), head: 0, tails: Vec::new(), by_dependent: FxHashMap::default() }
    }

    pub(super) fn into_queue(self) -> Vec<W> {
        self.queue
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn get(&self, position: usize) -> Option<u64> {
        self.queue.get(position).map(|w| w.unpack())
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        self.queue.iter().map(|w| w.unpack())
    }

    pub(super) fn push(&mut self, bits: &mut Bits, dense: u64) -> bool {
        let new = bits.set(dense);
        if new {
            self.queue.push(W::pack(dense));
        }
        new
    }

    pub(super) fn reset(&mut self) {
        self.queue.clear();
        self.head = 0;
        self.tails.clear();
        self.by_dependent.clear();
    }

    /// Searches on until everything reachable is found, or an object for which `wanted` says so; then its position.
    pub(super) fn search<const COUNT: bool>(
        &mut self,
        graph: &mut Graph<'_>,
        bits: &mut Bits,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<Option<usize>, Error> {
        loop {
            while self.head < self.queue.len() {
                if self.head.is_multiple_of(CHECKPOINT) {
                    self.tails.push(self.queue.len());
                    if self.head.is_multiple_of(CHECK_EVERY) {
                        graph.progress.check()?;
                    }
                }
                let dense = self.queue.get(self.head).map_or(0, |w| w.unpack());
                if let Some((piece, offset)) =
                    self.queue.get(self.head + AHEAD).and_then(|w| graph.index.place(w.unpack()))
                {
                    prefetch(piece.bytes, offset);
                }
                self.head += 1;
                let queue = &mut self.queue;
                let mut hit = None;
                graph.references::<COUNT>(dense, |index, address| {
                    if let Some(next) = index.dense(address)
                        && bits.set(next)
                    {
                        queue.push(W::pack(next));
                        if hit.is_none() && wanted(next) {
                            hit = Some(queue.len() - 1);
                        }
                    }
                });
                if hit.is_some() {
                    return Ok(hit);
                }
            }
            if let Some(hit) = self.follow_dependents(graph, bits, &wanted) {
                return Ok(Some(hit));
            }
            if self.head == self.queue.len() {
                return Ok(None);
            }
        }
    }

    fn follow_dependents(
        &mut self,
        graph: &Graph<'_>,
        bits: &mut Bits,
        wanted: &impl Fn(u64) -> bool,
    ) -> Option<usize> {
        for &(primary, secondary) in &graph.dependents {
            if !graph.index.dense(primary).is_some_and(|d| bits.get(d)) {
                continue;
            }
            if let Some(next) = graph.index.dense(secondary)
                && self.push(bits, next)
            {
                self.by_dependent.insert(self.queue.len() - 1, primary);
                if wanted(next) {
                    return Some(self.queue.len() - 1);
                }
            }
        }
        None
    }

    /// The chain of positions from the start of the search to `position`.
    pub(super) fn chain(&self, graph: &mut Graph<'_>, position: usize) -> Vec<usize> {
        let mut chain = vec![position];
        let mut at = position;
        while at > 0 && chain.len() <= self.queue.len() {
            match self.finder(graph, at) {
                Some(finder) if finder < at => {
                    chain.push(finder);
                    at = finder;
                }
                _ => break,
            }
        }
        chain.reverse();
        chain
    }

    fn finder(&self, graph: &mut Graph<'_>, position: usize) -> Option<usize> {
        let dense = self.get(position)?;
        if let Some(&primary) = self.by_dependent.get(&position) {
            let primary = graph.index.dense(primary)?;
            // Rare, so a look through the queue will do.
            return self.iter().position(|d| d == primary);
        }
        let block = self.tails.partition_point(|&tail| tail <= position).checked_sub(1)?;
        let address = graph.index.address(dense);
        (block * CHECKPOINT..self.queue.len().min((block + 1) * CHECKPOINT)).find(|&candidate| {
            let Some(from) = self.get(candidate) else { return false };
            let mut found = false;
            graph.references::<false>(from, |_, value| found |= value == address);
            found
        })
    }
}
