//! What reaches what: live objects, what one object keeps, and paths from roots.

mod backwards;
mod bits;
mod cards;
mod graph;
mod index;
mod mark;
mod paths;
mod search;
mod settle;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use dnd_memory::Target;

pub(crate) use cards::Cards;
pub use paths::RootPath;

use crate::error::Error;
use crate::heap::Heap;
use crate::layout::Layout;
use crate::progress::Progress;
use crate::roots::Root;
use crate::types::MethodTable;
use crate::typetable::Slot;
use crate::walk::Walker;
use backwards::Effort;
use bits::Bits;
use graph::Graph;
use index::HeapIndex;
use paths::Patience;
use search::Found;

/// Words of heap for which another thread is worth its start.
const WORTH_A_THREAD: u64 = 1 << 19;

/// Everything that a search needs of a runtime.
pub(crate) struct Setting<'r> {
    pub(crate) target: &'r dyn Target,
    pub(crate) layout: &'r Layout,
    pub(crate) heap: &'r Heap,
    pub(crate) free: &'r MethodTable,
    pub(crate) allocator_of: AllocatorOf<'r>,
    /// Dependent handles: (first object, second object).
    pub(crate) dependents: Vec<(u64, u64)>,
    pub(crate) progress: &'r Progress,
    /// Which parts of the heap refer to which; found when first needed.
    pub(crate) cards: &'r OnceLock<Cards>,
}

impl<'r> Setting<'r> {
    fn walker(&self) -> Walker<'r> {
        Walker::new(self.target, self.layout, self.heap, self.free, self.progress)
    }

    fn cards(&self, index: &HeapIndex<'_>) -> Result<&'r Cards, Error> {
        if let Some(known) = self.cards.get() {
            return Ok(known);
        }
        let found = Cards::new(self, index, threads(index))?;
        Ok(self.cards.get_or_init(|| found))
    }
}

/// Gives the `LoaderAllocator` object of a collectible type.
type AllocatorOf<'r> = &'r (dyn Fn(&MethodTable) -> u64 + Sync);

/// An entry of a queue or stack: a dense number. 32 bits reach 32 GB of heap.
trait Word: Copy + Send {
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

/// The objects that a search reached.
pub struct Reached<'r> {
    index: HeapIndex<'r>,
    bits: Bits,
    /// Types and how many of each were reached, in no order.
    pub types: Vec<Slot>,
    /// References that led to nothing readable.
    pub dangling: u64,
    /// Objects in the order found; only kept for small sets (see `closure`).
    pub objects: Vec<u64>,
}

impl Reached<'_> {
    /// Whether the object at an address was reached.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        self.index.dense(address).is_some_and(|dense| self.bits.get(dense))
    }
}

/// Marks everything that `starts` reach, those included. `keep` lists the objects in the order found.
pub(crate) fn closure<'r>(
    setting: &Setting<'r>,
    starts: impl Iterator<Item = u64>,
    keep: bool,
) -> Result<Reached<'r>, Error> {
    let index = HeapIndex::new(setting.target, setting.heap);
    if u32::try_from(index.dense_len()).is_ok() {
        closure_with::<u32>(setting, index, starts, keep)
    } else {
        closure_with::<u64>(setting, index, starts, keep)
    }
}

fn closure_with<'r, W: Word>(
    setting: &Setting<'r>,
    index: HeapIndex<'r>,
    starts: impl Iterator<Item = u64>,
    keep: bool,
) -> Result<Reached<'r>, Error> {
    let bits = Bits::new(index.dense_len())?;
    let mut dangling = 0;
    let mut found = Found::<W>::new();
    for start in starts.filter(|&start| start != 0) {
        match index.dense(start) {
            Some(dense) => {
                found.push(&bits, dense);
            }
            None => dangling += 1,
        }
    }
    let mut graphs = if keep { vec![Graph::new(setting, &index)] } else { graphs(setting, &index) };
    let mut objects = Vec::new();
    match graphs.as_mut_slice() {
        [graph] if keep => {
            found.search::<true>(graph, &bits, usize::MAX, |_| false)?;
            objects = found.iter().map(|dense| index.address(dense)).collect();
        }
        graphs => mark::mark(graphs, &bits, found.into_queue())?,
    }
    let mut types: FxHashMap<u64, Slot> = FxHashMap::default();
    for graph in graphs {
        dangling += graph.dangling();
        for slot in graph.types() {
            types.entry(slot.table).and_modify(|all| all.merge(slot)).or_insert(*slot);
        }
    }
    Ok(Reached { dangling, types: types.into_values().collect(), bits, objects, index })
}

/// Threads that work on the whole heap is worth: a small one is done sooner than a thread is started.
fn threads(index: &HeapIndex<'_>) -> usize {
    let worth = usize::try_from(index.dense_len() / WORTH_A_THREAD).unwrap_or(usize::MAX);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    threads.min(worth).max(1)
}

/// One graph for each thread that marking is worth.
fn graphs<'g, 'r>(setting: &'g Setting<'r>, index: &'g HeapIndex<'r>) -> Vec<Graph<'g, 'r>> {
    (0..threads(index)).map(|_| Graph::new(setting, index)).collect()
}

/// Finds, for each root that reaches `target`, a path from it; in the order of `roots`.
pub(crate) fn paths(setting: &Setting<'_>, roots: &[Root], target: u64) -> Result<Vec<RootPath>, Error> {
    let index = HeapIndex::new(setting.target, setting.heap);
    // The smallest object takes three words, a usual one six or more.
    let objects = index.dense_len() / 6;
    let backwards = Effort { rounds: 64, cards: objects / 300 + 1000 };
    let patience = Patience { search: objects / 128 + 50_000, all: objects / 4 + 1_000_000, backwards };
    if u32::try_from(index.dense_len()).is_ok() {
        paths::find::<u32>(setting, &index, roots, target, patience)
    } else {
        paths::find::<u64>(setting, &index, roots, target, patience)
    }
}

/// Next step towards a target, by dense number.
type NextStep = FxHashMap<u64, u64>;
