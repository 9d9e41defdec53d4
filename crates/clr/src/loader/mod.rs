//! Memory of the loader and the JIT: what the runtime itself keeps of types, methods, stubs and code.
//!
//! Sources: `inc/loaderheap.h` (`UnlockedLoaderHeap`, `LoaderHeapBlock`), `vm/loaderallocator.hpp`, `vm/codeman.h`
//! (`EEJitManager`, `HeapList`, `LoaderCodeHeap`), `vm/dynamicmethod.h` (`HostCodeHeap`).

use std::collections::HashSet;

use dnd_memory::Memory;
use serde::Serialize;

use crate::error::{Error, Reading};
use crate::layout::LoaderLayout;
use crate::modules;
use crate::runtime::Runtime;

/// `m_pFirstBlock`, in a `LoaderHeap`: behind its vtable.
const FIRST_BLOCK: u64 = 8;
/// `EEJitManager::m_pCodeHeap`: the list of code heaps.
const CODE_HEAPS: u64 = 16;
/// Blocks of one heap; thousands in a large process.
const MAX_BLOCKS: usize = 1 << 20;
/// What a page is to the runtime.
const PAGE: u64 = 0x1000;
/// Vtables of `LoaderCodeHeap` and `HostCodeHeap`, counted from the end of the table of globals.
const LOADER_CODE_HEAP: usize = 4;
/// See [`LOADER_CODE_HEAP`].
const HOST_CODE_HEAP: usize = 3;

/// What a heap is for, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum LoaderHeapKind {
    /// What is seldom looked at.
    LowFrequencyHeap,
    /// Method tables and descriptions.
    HighFrequencyHeap,
    /// Stubs.
    StubHeap,
    /// Stubs that must be executable.
    ExecutableHeap,
    /// Entry points of methods that are not compiled yet.
    FixupPrecodeHeap,
    /// The same, of another form.
    NewStubPrecodeHeap,
    /// Virtual stub dispatch: cells that call sites go through.
    IndirectionCellHeap,
    /// Virtual stub dispatch: stubs for a first call.
    LookupHeap,
    /// Virtual stub dispatch: stubs that look types up.
    ResolveHeap,
    /// Virtual stub dispatch: stubs for one type.
    DispatchHeap,
    /// Virtual stub dispatch: what was looked up.
    CacheEntryHeap,
    /// Virtual stub dispatch: stubs through vtables.
    VtableHeap,
    /// Static fields of types (9 and later).
    StaticsHeap,
    /// Jitted code.
    LoaderCodeHeap,
    /// Jitted code of dynamic methods.
    HostCodeHeap,
    /// A code heap of neither kind.
    Unknown,
}

/// The loader's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderHeaps {
    /// Address of the `SystemDomain`.
    pub system_domain: u64,
    /// Address of the `AppDomain`.
    pub app_domain: u64,
    /// What nothing can unload.
    pub global: LoaderAllocator,
    /// Address of the `EEJitManager`.
    pub jit_manager: u64,
    /// Jitted code, by kind and address.
    pub code: Vec<LoaderHeap>,
    /// What can be unloaded, in the order in which it was loaded.
    pub collectible: Vec<LoaderAllocator>,
    /// What could not be read.
    pub problems: Vec<Error>,
}

/// Heaps that live and die together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderAllocator {
    /// Address of the `LoaderAllocator`.
    pub address: u64,
    /// Addresses of the modules in it; empty for the global one.
    pub modules: Vec<u64>,
    /// The heaps that have memory; one that serves two ends is told once.
    pub heaps: Vec<LoaderHeap>,
}

/// One heap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderHeap {
    /// What it is for.
    pub kind: LoaderHeapKind,
    /// Its blocks, in the runtime's order.
    pub blocks: Vec<Block>,
}

/// Memory of a heap that lies in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// First address.
    pub address: u64,
    /// Bytes of address space.
    pub reserved: u64,
    /// Bytes from the first on that are in the dump: in one of all memory, those that are committed.
    pub present: u64,
    /// The heap allocates from it; what is missing of others is wasted.
    pub current: bool,
}

impl Block {
    /// Bytes that nothing can use any more.
    #[must_use]
    pub fn wasted(&self) -> u64 {
        if self.current { 0 } else { self.reserved - self.present }
    }

    fn new(memory: &dyn Memory, address: u64, reserved: u64, current: bool) -> Self {
        // What does not fit into an address space is no size.
        let reserved = if address.checked_add(reserved).is_some() { reserved } else { 0 };
        let mut present = 0;
        while present < reserved {
            // Pages that are not in the dump in whole do not count.
            let run = memory.run(address + present).len() as u64 & !(PAGE - 1);
            if run == 0 {
                break;
            }
            present += run;
        }
        Self { address, reserved, present: present.min(reserved), current }
    }
}

impl LoaderHeap {
    /// Bytes of its blocks that are in the dump.
    #[must_use]
    pub fn present(&self) -> u64 {
        self.blocks.iter().fold(0, |sum, block| block.present.saturating_add(sum))
    }

    /// Bytes of its blocks that nothing can use any more.
    #[must_use]
    pub fn wasted(&self) -> u64 {
        self.blocks.iter().fold(0, |sum, block| block.wasted().saturating_add(sum))
    }
}

impl Runtime<'_> {
    /// The heaps of the loader and the JIT. What can't be read of them is left out and told.
    ///
    /// # Errors
    /// [`Error::NotKnown`] for a runtime whose layout of them was never checked; [`Error::Missing`] or
    /// [`Error::Damaged`] for what leads to all of them.
    pub fn loader_heaps(&self) -> Result<LoaderHeaps, Error> {
        let what = "the loader's heaps";
        let layout = self.layout().loader.ok_or(Error::NotKnown { what, major: self.major() })?;
        let pointer = |global: u64, what| self.target().u64(global).reading(what);
        let system_domain = pointer(self.globals().system_domain, "the pointer to the system domain")?;
        let address = system_domain.wrapping_add(layout.global);
        // The global allocator holds its heaps in itself, at the front.
        let heap = |kind| layout.heaps.iter().find(|&&(k, _)| k == kind).map_or(0, |&(_, at)| at);
        let low = pointer(address.wrapping_add(heap(LoaderHeapKind::LowFrequencyHeap)), what)?;
        if low != address.wrapping_add(16) {
            return Err(Error::Damaged { what: "the global loader allocator", addr: address });
        }
        let mut problems = Vec::new();
        let mut seen = HashSet::new();
        let global = self.allocator(&layout, address, &mut seen, &mut problems);
        let mut collectible: Vec<LoaderAllocator> = Vec::new();
        match self.modules() {
            Ok(all) => {
                for module in all {
                    let of = modules::loader_allocator(self.target(), self.layout(), module.address);
                    let of = match of.reading("a module's loader allocator") {
                        Ok(of) if of == 0 || of == address => continue,
                        Ok(of) => of,
                        Err(error) => {
                            problems.push(error);
                            continue;
                        }
                    };
                    match collectible.iter_mut().find(|known| known.address == of) {
                        Some(known) => known.modules.push(module.address),
                        None => {
                            let mut allocator = self.allocator(&layout, of, &mut seen, &mut problems);
                            allocator.modules.push(module.address);
                            collectible.push(allocator);
                        }
                    }
                }
            }
            Err(error) => problems.push(error),
        }
        let jit_manager = pointer(self.globals().jit_manager, "the pointer to the JIT manager")?;
        let mut code = self.code_heaps(&layout, jit_manager, &mut problems);
        code.sort_by_key(|heap| (heap.kind, heap.blocks.first().map(|block| block.address)));
        Ok(LoaderHeaps {
            system_domain,
            app_domain: pointer(self.globals().app_domain, "the pointer to the application domain")?,
            global,
            jit_manager,
            code,
            collectible,
            problems,
        })
    }

    fn allocator(
        &self,
        layout: &LoaderLayout,
        address: u64,
        seen: &mut HashSet<u64>,
        problems: &mut Vec<Error>,
    ) -> LoaderAllocator {
        let mut heaps = Vec::new();
        let mut add = |holder: u64, places: &[(LoaderHeapKind, u64)], problems: &mut Vec<Error>| {
            for &(kind, at) in places {
                let heap = self.target().u64(holder.wrapping_add(at)).reading("a loader allocator");
                let blocks = heap.and_then(|heap| {
                    if heap == 0 || !seen.insert(heap) {
                        return Ok(Vec::new());
                    }
                    self.blocks(heap.wrapping_add(FIRST_BLOCK), layout.current)
                });
                match blocks {
                    Ok(blocks) if blocks.is_empty() => {}
                    Ok(blocks) => heaps.push(LoaderHeap { kind, blocks }),
                    Err(error) => problems.push(error),
                }
            }
        };
        add(address, layout.heaps, problems);
        match self.stub_manager(layout, address) {
            Ok(Some(manager)) => add(manager, layout.stub_heaps, problems),
            Ok(None) => {}
            Err(error) => problems.push(error),
        }
        heaps.sort_by_key(|heap| heap.kind);
        LoaderAllocator { address, modules: Vec::new(), heaps }
    }

    /// The allocator's `VirtualCallStubManager`, when it is one: it knows whose it is.
    fn stub_manager(&self, layout: &LoaderLayout, allocator: u64) -> Result<Option<u64>, Error> {
        let what = "the manager of virtual call stubs";
        let word = |at: u64| self.target().u64(at).reading(what);
        let manager = word(allocator.wrapping_add(layout.stubs))?;
        if manager == 0 {
            return Ok(None);
        }
        if word(manager.wrapping_add(layout.stubs_owner))? != allocator {
            return Err(Error::Damaged { what, addr: manager });
        }
        Ok(Some(manager))
    }

    /// The blocks of a heap whose pointer to the first of them is at `first`.
    fn blocks(&self, first: u64, current: Option<u64>) -> Result<Vec<Block>, Error> {
        let what = "a loader heap";
        let word = |at: u64| self.target().u64(at).reading(what);
        let mut at = word(first)?;
        let current = match current {
            Some(offset) => word(first.wrapping_add(offset))?,
            None => at,
        };
        let mut blocks = Vec::new();
        let mut seen = HashSet::new();
        // `LoaderHeapBlock`: next, address, size.
        while at != 0 {
            if !seen.insert(at) || blocks.len() == MAX_BLOCKS {
                return Err(Error::Damaged { what, addr: first });
            }
            let (address, size) = (word(at.wrapping_add(8))?, word(at.wrapping_add(16))?);
            blocks.push(Block::new(self.target(), address, size, at == current));
            at = word(at)?;
        }
        Ok(blocks)
    }

    fn code_heaps(&self, layout: &LoaderLayout, manager: u64, problems: &mut Vec<Error>) -> Vec<LoaderHeap> {
        let what = "the list of code heaps";
        let vtable = |from_end: usize| self.vtables().iter().rev().nth(from_end - 1).copied();
        let mut heaps = Vec::new();
        let mut seen = HashSet::new();
        let mut read = || -> Result<(), Error> {
            let word = |at: u64| self.target().u64(at).reading(what);
            let mut node = word(manager.wrapping_add(CODE_HEAPS))?;
            while node != 0 {
                if !seen.insert(node) || heaps.len() == MAX_BLOCKS {
                    return Err(Error::Damaged { what, addr: manager });
                }
                // `HeapList`: next, code heap; that one begins with its vtable.
                let heap = word(node.wrapping_add(8))?;
                let class = Some(word(heap)?);
                heaps.push(if class == vtable(LOADER_CODE_HEAP) {
                    // `ExplicitControlLoaderHeap` has no vtable.
                    let blocks = self.blocks(heap.wrapping_add(8), layout.current)?;
                    LoaderHeap { kind: LoaderHeapKind::LoaderCodeHeap, blocks }
                } else if class == vtable(HOST_CODE_HEAP) {
                    // Behind the vtable: list node, JIT manager, base, end of what is committed.
                    let (base, end) = (word(heap.wrapping_add(24))?, word(heap.wrapping_add(32))?);
                    let size = end.saturating_sub(base);
                    let blocks = vec![Block::new(self.target(), base, size, true)];
                    LoaderHeap { kind: LoaderHeapKind::HostCodeHeap, blocks }
                } else {
                    LoaderHeap {
                        kind: LoaderHeapKind::Unknown,
                        blocks: vec![Block::new(self.target(), heap, 0, true)],
                    }
                });
                node = word(node)?;
            }
            Ok(())
        };
        if let Err(error) = read() {
            problems.push(error);
        }
        heaps
    }
}
