//! A runtime in a target: the entry to everything else.

mod objects;
mod roots;
mod types;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};

use rustc_hash::FxHashMap;

use dnd_memory::{ElfImage, Target};

use crate::code::{self, RangeList};
use crate::constructed::Constructed;
use crate::error::{Error, Reading};
use crate::gc;
use crate::heap::{Heap, Segment};
use crate::layout::{Globals, Layout, LayoutFacts, TableEntry, TableShape};
use crate::locate::{self, RuntimeImage};
use crate::modules::Module;
use crate::reach;
use crate::source::ModulePdb;
use crate::stack::{StackRootSet, UnwindTables};
use crate::threads::{self, Thread, Threads};
use crate::types::MethodTable;
use crate::version::{self, Version};

/// A CoreCLR in a target.
pub struct Runtime<'t> {
    target: &'t dyn Target,
    image: RuntimeImage,
    elf: ElfImage,
    shape: TableShape,
    pub(crate) table: u64,
    layout: Layout,
    globals: Globals<u64>,
    facts: LayoutFacts,
    free: MethodTable,
    heap: OnceLock<Result<Heap, Error>>,
    threads: OnceLock<Result<Threads, Error>>,
    version: OnceLock<Option<Version>>,
    modules: Mutex<FxHashMap<u64, Arc<Module<'t>>>>,
    pdbs: Mutex<Pdbs>,
    /// Modules whose types were asked for their names and have none.
    nameless: Mutex<BTreeSet<u64>>,
    tables: Mutex<FxHashMap<u64, MethodTable>>,
    ranges: OnceLock<Result<RangeList, Error>>,
    unwind_tables: UnwindTables,
    vtables: OnceLock<Vec<u64>>,
    constructed: OnceLock<Constructed>,
    stack_roots: OnceLock<StackRootSet>,
    /// Kept for the next question: it takes a walk over the whole heap.
    cards: OnceLock<reach::Cards>,
}

/// PDBs of modules by their addresses, also those that were not found.
type Pdbs = FxHashMap<u64, Option<Arc<ModulePdb>>>;

/// Rows of a type map that are looked at when there is no metadata to tell how many there are.
const MAX_TYPES: u32 = 1 << 18;

/// Which stack roots to collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StackRoots {
    /// None at all.
    None,
    /// Every word of the stacks and every register that points into an object; some are no references.
    Conservative,
    /// What the methods on the stacks say is live. Threads whose stack can't be walked exactly are taken as with
    /// [`Self::Conservative`]; [`Runtime::exact_stack_roots`] tells which and why.
    Exact,
}

impl<'t> Runtime<'t> {
    /// Finds the runtime in `target` and checks that its layout is a known one.
    ///
    /// # Errors
    /// [`Error::NoRuntime`], [`Error::UnknownRuntime`], [`Error::NoTable`], [`Error::FailedCheck`].
    pub fn open(target: &'t dyn Target) -> Result<Self, Error> {
        let located = locate::locate(target)?;
        let free = target.u64(located.globals.free_object).reading("the type of free space")?;
        let free = MethodTable::read(target, &located.layout, free)?;
        Ok(Self {
            target,
            image: located.image,
            elf: located.elf,
            shape: located.shape,
            table: located.table,
            layout: located.layout,
            globals: located.globals,
            facts: located.facts,
            free,
            heap: OnceLock::new(),
            threads: OnceLock::new(),
            version: OnceLock::new(),
            modules: Mutex::default(),
            pdbs: Mutex::default(),
            nameless: Mutex::default(),
            tables: Mutex::default(),
            ranges: OnceLock::new(),
            unwind_tables: UnwindTables::default(),
            vtables: OnceLock::new(),
            constructed: OnceLock::new(),
            stack_roots: OnceLock::new(),
            cards: OnceLock::new(),
        })
    }

    /// The memory that it reads.
    #[must_use]
    pub fn target(&self) -> &'t dyn Target {
        self.target
    }

    /// The runtime's image.
    #[must_use]
    pub fn image(&self) -> &RuntimeImage {
        &self.image
    }

    /// The same as an ELF image.
    #[must_use]
    pub fn elf(&self) -> &ElfImage {
        &self.elf
    }

    /// Major version; 3 is .NET Core 3.1.
    #[must_use]
    pub fn major(&self) -> u8 {
        self.layout.major
    }

    /// The table of globals that it was recognised by.
    #[must_use]
    pub fn table_shape(&self) -> &TableShape {
        &self.shape
    }

    /// Where things are in this runtime.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where that layout is from, and how sure it is.
    #[must_use]
    pub fn layout_facts(&self) -> &LayoutFacts {
        &self.facts
    }

    /// Addresses of the runtime's globals.
    #[must_use]
    pub fn globals(&self) -> &Globals<u64> {
        &self.globals
    }

    /// The code ranges of 3.1, read on the first call.
    pub(crate) fn range_list(&self) -> Result<&RangeList, Error> {
        let read = || code::range_list(self.target, self.globals.code_ranges, self.globals.r2r_manager);
        self.ranges.get_or_init(read).as_ref().map_err(Clone::clone)
    }

    /// The last entries of the table of globals: vtables of the runtime's classes, 0 for one that can't be read.
    pub(crate) fn vtables(&self) -> &[u64] {
        let read = || {
            let entry = |index: u64| match self.shape.entry {
                TableEntry::Absolute => self.target.u64(self.table.wrapping_add(8 * index)).unwrap_or(0),
                TableEntry::Relative => self
                    .target
                    .u32(self.table.wrapping_add(4 * index))
                    .map_or(0, |offset| self.image.base.wrapping_add(offset.into())),
            };
            (0..self.shape.entries).map(entry).collect()
        };
        self.vtables.get_or_init(read)
    }

    /// Arrays and instances of generic types, read on the first call.
    pub(crate) fn constructed(&self) -> &Constructed {
        self.constructed.get_or_init(|| self.read_constructed())
    }

    /// Unwind tables of native images met so far.
    pub(crate) fn unwind_tables(&self) -> &UnwindTables {
        &self.unwind_tables
    }

    /// The build, as far as it can be told; looked for on the first call.
    pub fn version(&self) -> Option<&Version> {
        self.version.get_or_init(|| version::find(self.target, &self.image)).as_ref()
    }

    /// Modules whose types could not be named so far, because there is no metadata of them.
    #[must_use]
    pub fn nameless_modules(&self) -> Vec<Arc<Module<'t>>> {
        let nameless = self.nameless.lock().map(|nameless| nameless.clone()).unwrap_or_default();
        nameless.into_iter().map(|address| self.module(address)).collect()
    }

    pub(crate) fn has_no_names(&self, module: u64) {
        if let Ok(mut nameless) = self.nameless.lock() {
            nameless.insert(module);
        }
    }

    /// The number under which it was released, for example `8.0.4`: from the number of its build, else (3.1) from the
    /// folder that it was loaded from.
    pub fn release(&self) -> Option<String> {
        let built = self.version().and_then(Version::release);
        built.or_else(|| Some(version::in_path(&self.image.path.to_string_lossy())?.text))
    }

    /// The method table of free space.
    #[must_use]
    pub fn free(&self) -> &MethodTable {
        &self.free
    }

    /// The method table of `System.String`.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn string_table(&self) -> Result<u64, Error> {
        self.target.u64(self.globals.string_class).reading("the type System.String")
    }

    /// The managed heap's structure.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Damaged`] for the GC's own structures.
    pub fn heap(&self) -> Result<&Heap, Error> {
        let read = || -> Result<Heap, Error> {
            let mut heap = gc::read(self.target, &self.layout, &self.globals)?;
            if let Some(global) = self.globals.global_alloc {
                let at = global.wrapping_add(self.layout.gc.global_alloc_pointer);
                if let (Ok(pointer), Ok(limit)) = (self.target.u64(at), self.target.u64(at.wrapping_add(8))) {
                    heap.add_context(pointer, limit);
                }
            }
            for thread in self.threads().map(|t| t.threads.as_slice()).unwrap_or_default() {
                heap.add_context(thread.alloc_pointer, thread.alloc_limit);
            }
            heap.finish();
            Ok(heap)
        };
        self.heap.get_or_init(read).as_ref().map_err(Clone::clone)
    }

    /// The same, if its objects are in the dump.
    ///
    /// # Errors
    /// [`Error::NoHeap`] besides those of [`Self::heap`].
    pub fn objects_heap(&self) -> Result<&Heap, Error> {
        let heap = self.heap()?;
        let there = |segment: &Segment| !self.target.run(segment.start).is_empty();
        let mut holding = heap.segments.iter().filter(|segment| !segment.is_empty()).peekable();
        // A Mini dump may hold a page of the heap that a stack pointed to; the first objects of most segments it lacks.
        let segments = heap.segments.len();
        if holding.peek().is_some() {
            let (mut present, mut all) = (0, 0);
            for segment in holding {
                all += 1;
                present += usize::from(there(segment));
            }
            if present == 0 || present * 8 < all {
                return Err(Error::NoHeap { segments });
            }
        }
        Ok(heap)
    }

    /// The managed threads.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn threads(&self) -> Result<&Threads, Error> {
        let read = || threads::read(self.target, &self.layout, &self.globals);
        self.threads.get_or_init(read).as_ref().map_err(Clone::clone)
    }

    /// The managed thread with an operating system id.
    #[must_use]
    pub fn thread_by_os_id(&self, id: u32) -> Option<&Thread> {
        self.threads().ok()?.threads.iter().find(|thread| thread.os_id == id)
    }
}
