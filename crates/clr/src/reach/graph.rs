//! The heap as a graph: what each object refers to, straight from the dump's bytes.

use std::ops::ControlFlow;

use super::Setting;
use super::index::HeapIndex;
use crate::error::Error;
use crate::types::{MethodTable, References};
use crate::typetable::{Edges, Slot};
use crate::walk::{Damage, Part, Walker, words};

/// No object is larger; a larger size is damage.
const MAX_OBJECT: usize = 1 << 36;

/// What a type's objects refer to.
#[derive(Default)]
struct TypeEdges {
    /// The `LoaderAllocator` object that objects of a collectible type keep alive, 0 for none.
    allocator: u64,
    references: References,
}

/// What is met on a walk over a part of the heap.
pub(super) trait Visitor {
    /// An object; its references follow.
    fn object(&mut self, address: u64);
    /// What a reference of that object holds, null included.
    fn reference(&mut self, value: u64);
}

/// The heap as one thread sees it; the types met, and how many objects of each were looked at.
pub(super) struct Graph<'g, 'r> {
    setting: &'g Setting<'r>,
    pub(super) index: &'g HeapIndex<'r>,
    /// For walks; the types met are also those of single objects.
    walker: Walker<'r>,
    others: Others,
}

/// References that are not simply one run in one piece of memory.
struct Others {
    /// By the types' ordinals.
    edges: Vec<TypeEdges>,
    scratch: Vec<u8>,
    /// Pointers that led to no object: of missing or damaged memory.
    dangling: u64,
}

impl<'g, 'r> Graph<'g, 'r> {
    pub(super) fn new(setting: &'g Setting<'r>, index: &'g HeapIndex<'r>) -> Self {
        Self::with(setting, index, setting.walker())
    }

    pub(super) fn with(setting: &'g Setting<'r>, index: &'g HeapIndex<'r>, walker: Walker<'r>) -> Self {
        let others = Others { edges: Vec::new(), scratch: Vec::new(), dangling: 0 };
        Self { setting, index, walker, others }
    }

    pub(super) fn setting(&self) -> &'g Setting<'r> {
        self.setting
    }

    /// Types of the objects counted.
    pub(super) fn types(&self) -> impl Iterator<Item = &Slot> {
        self.walker.types.types()
    }

    /// Pointers that led to no object.
    pub(super) fn dangling(&self) -> u64 {
        self.others.dangling
    }

    /// What walks could not read.
    pub(super) fn damage(&self) -> &Damage {
        &self.walker.damage
    }

    /// Walks a part of the heap; where the walk ended.
    pub(super) fn walk(&mut self, part: Part<'_>, visitor: &mut impl Visitor) -> Result<u64, Error> {
        let (setting, others) = (self.setting, &mut self.others);
        let ended = self.walker.part(part, |address, slot, size, object| {
            visitor.object(address);
            match one_run(slot.edges, size, object) {
                Some(run) => {
                    for word in run.as_chunks().0 {
                        visitor.reference(u64::from_le_bytes(*word));
                    }
                }
                None => others.visit(setting, slot, address, size, object, &mut |value| {
                    visitor.reference(value);
                }),
            }
            ControlFlow::Continue(())
        })?;
        Ok(ended.unwrap_or(part.start))
    }

    /// Calls `visit` with the address of every object that begins in a part of the heap.
    pub(super) fn objects(&mut self, part: Part<'_>, mut visit: impl FnMut(u64)) -> Result<(), Error> {
        self.walker.part(part, |address, _, _, _| {
            visit(address);
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    /// Calls `visit` with what each reference of an object holds, null included. With `COUNT`, counts the object by type.
    #[inline(always)]
    pub(super) fn references<const COUNT: bool>(&mut self, dense: u64, visit: impl FnMut(u64)) {
        self.references_in::<COUNT>(dense, self.index.bytes(dense), visit);
    }

    /// The same; `object` is the memory from the object on.
    #[inline(always)]
    pub(super) fn references_in<const COUNT: bool>(
        &mut self,
        dense: u64,
        object: &'r [u8],
        mut visit: impl FnMut(u64),
    ) {
        if let Some(head) = object.first_chunk() {
            let [w0, w1] = words(head);
            if let Some(slot) = self.walker.types.known(w0 & !7) {
                let size = slot.size(w1 as u32);
                if let Some(run) = one_run(slot.edges, size, object) {
                    if COUNT {
                        slot.add(self.index.address(dense), size);
                    }
                    for word in run.as_chunks().0 {
                        visit(u64::from_le_bytes(*word));
                    }
                    return;
                }
            }
        }
        self.other::<COUNT>(dense, object, &mut visit);
    }

    /// The same for all that is not simple: types not met before or with several runs, objects in several pieces.
    #[inline(never)]
    fn other<const COUNT: bool>(&mut self, dense: u64, object: &'r [u8], visit: &mut impl FnMut(u64)) {
        let address = self.index.address(dense);
        let (target, layout) = (self.setting.target, self.setting.layout);
        let [w0, w1] = match object.first_chunk() {
            Some(head) => words(head),
            // The head goes on in another piece, or is nowhere: no type has address 0.
            None => [target.u64(address).unwrap_or(0), target.u32(address + 8).unwrap_or(0).into()],
        };
        let types = &mut self.walker.types;
        let found = types.find(target, layout, w0 & !7);
        let Some(slot) = found.and_then(|at| types.slot_mut(at)) else {
            self.others.dangling += 1;
            return;
        };
        let size = slot.size(w1 as u32);
        if COUNT {
            slot.add(address, size);
        }
        self.others.visit(self.setting, slot, address, size, object, visit);
    }

    /// The dependent handles, as dense numbers.
    pub(super) fn dependents(&self) -> impl Iterator<Item = (u64, u64)> {
        let index = self.index;
        let pairs = self.setting.dependents.iter();
        pairs.filter_map(|&(primary, secondary)| Some((index.dense(primary)?, index.dense(secondary)?)))
    }

    /// Whether the object `from` refers to `to`, by a field, as its load context, or through a dependent handle.
    pub(super) fn refers(&mut self, from: u64, to: u64) -> bool {
        let Some(dense) = self.index.dense(from) else { return false };
        let mut found = false;
        self.references::<false>(dense, |value| found |= value == to);
        found || self.setting.dependents.contains(&(from, to))
    }
}

impl Others {
    /// Calls `visit` with what each reference of an object holds. `object` is the memory from the object on, as far as it
    /// is in one piece.
    #[inline(never)]
    fn visit(
        &mut self,
        setting: &Setting<'_>,
        slot: &mut Slot,
        address: u64,
        size: u64,
        object: &[u8],
        visit: &mut impl FnMut(u64),
    ) {
        let ordinal = slot.ordinal as usize;
        if slot.edges == Edges::Unknown {
            let (edges, known) = load(setting, slot.table);
            slot.edges = known;
            if self.edges.len() <= ordinal {
                self.edges.resize_with(ordinal + 1, TypeEdges::default);
            }
            if let Some(place) = self.edges.get_mut(ordinal) {
                *place = edges;
            }
        }
        let Some(edges) = self.edges.get(ordinal) else { return };
        if edges.allocator != 0 {
            visit(edges.allocator);
        }
        if edges.references == References::None {
            return;
        }
        let rounded = ((size + 7) & !7) as usize;
        if let Some(object) = object.get(..rounded) {
            return edges.references.each(object, |_, value| visit(value));
        }
        // The object goes on in another piece of the dump, or not at all.
        let target = setting.target;
        let there = rounded <= MAX_OBJECT && target.u8(address + rounded as u64 - 1).is_ok();
        self.scratch.clear();
        if there {
            self.scratch.resize(rounded, 0);
        }
        if !there || target.read(address, &mut self.scratch).is_err() {
            self.dangling += 1;
            return;
        }
        edges.references.each(&self.scratch, |_, value| visit(value));
    }
}

/// The references of an object whose type has them in one run. `object` is the memory from the object on.
#[inline(always)]
fn one_run(edges: Edges, size: u64, object: &[u8]) -> Option<&[u8]> {
    match edges {
        Edges::None => Some(&[]),
        Edges::Run(first, extra) => {
            let length = (((size + 7) & !7).cast_signed() + i64::from(extra)).max(0);
            object.get(first as usize..).and_then(|rest| rest.get(..length as usize))
        }
        Edges::Unknown | Edges::Other => None,
    }
}

fn load(setting: &Setting<'_>, table: u64) -> (TypeEdges, Edges) {
    let Ok(table) = MethodTable::read(setting.target, setting.layout, table) else {
        return (TypeEdges::default(), Edges::None);
    };
    let collectible = table.is_collectible(setting.layout);
    let allocator = if collectible { (setting.allocator_of)(&table) } else { 0 };
    let references = References::read(setting.target, &table).unwrap_or_default();
    let known = match &references {
        _ if allocator != 0 => Edges::Other,
        References::None => Edges::None,
        References::Series(series) => match *series.as_slice() {
            [(first, extra)] => match (u32::try_from(first), i32::try_from(extra)) {
                (Ok(first), Ok(extra)) => Edges::Run(first, extra),
                _ => Edges::Other,
            },
            _ => Edges::Other,
        },
        References::Repeating { .. } => Edges::Other,
    };
    (TypeEdges { allocator, references }, known)
}
