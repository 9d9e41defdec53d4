//! What reaches what: live objects, what one object keeps, and paths from roots.

mod explore;
mod index;
mod paths;

use rustc_hash::FxHashMap;

use dnd_memory::Target;

pub use paths::RootPath;

use crate::error::Error;
use crate::heap::Heap;
use crate::layout::Layout;
use crate::progress::Progress;
use crate::roots::Root;
use crate::types::MethodTable;
use crate::typetable::Slot;
use explore::{AllocatorOf, Bits, Found, Graph, Word};
use index::HeapIndex;

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
}

impl<'r> Setting<'r> {
    fn graph(&self) -> Graph<'r> {
        let index = HeapIndex::new(self.target, self.heap);
        let dependents = self.dependents.clone();
        Graph::new(self.target, self.layout, index, self.free, self.allocator_of, dependents, self.progress)
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
    /// Objects in the order found; only kept for small sets (see [`closure`]).
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
    let graph = setting.graph();
    // 32-bit queue entries do for 32 GB of heap.
    if u32::try_from(graph.index.dense_len()).is_ok() {
        closure_with::<u32>(graph, starts, keep)
    } else {
        closure_with::<u64>(graph, starts, keep)
    }
}

fn closure_with<'r, W: Word>(
    mut graph: Graph<'r>,
    starts: impl Iterator<Item = u64>,
    keep: bool,
) -> Result<Reached<'r>, Error> {
    let mut bits = Bits::new(graph.index.dense_len());
    let mut found = Found::<W>::new();
    for start in starts {
        match graph.index.dense(start) {
            Some(dense) => {
                found.push(&mut bits, dense);
            }
            None if start != 0 => graph.dangling += 1,
            None => {}
        }
    }
    let objects = if keep {
        found.search::<true>(&mut graph, &mut bits, |_| false)?;
        found.iter().map(|d| graph.index.address(d)).collect()
    } else {
        explore::mark_all(&mut graph, &mut bits, found.into_queue())?;
        Vec::new()
    };
    let types = graph.types.types().copied().collect();
    Ok(Reached { dangling: graph.dangling, index: graph.index, bits, types, objects })
}

/// Finds, for each root that reaches `target`, a path from it; in the order of `roots`.
pub(crate) fn paths(setting: &Setting<'_>, roots: &[Root], target: u64) -> Result<Vec<RootPath>, Error> {
    let graph = setting.graph();
    if u32::try_from(graph.index.dense_len()).is_ok() {
        paths::find::<u32>(graph, roots, target)
    } else {
        paths::find::<u64>(graph, roots, target)
    }
}

/// Next step towards a target, by dense number.
type NextStep = FxHashMap<u64, u64>;
