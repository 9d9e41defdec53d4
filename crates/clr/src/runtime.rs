//! A runtime in a target: the entry to everything else.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, OnceLock};

use rustc_hash::FxHashMap;

use dnd_memory::{ElfImage, Target};
use dnd_metadata::Table;

use crate::code::{self, RangeList};
use crate::conservative;
use crate::constructed::Constructed;
use crate::error::{Error, Reading};
use crate::finalizer::{self, FinalizerQueue};
use crate::gc;
use crate::handles::{self, Handle, HandleKind};
use crate::heap::{Heap, Segment};
use crate::layout::{Globals, Layout, LayoutFacts, TableEntry, TableShape};
use crate::locate::{self, RuntimeImage};
use crate::modules::{self, Module};
use crate::progress::Progress;
use crate::reach::{self, Reached, RootPath, Setting};
use crate::roots::{Root, RootKind};
use crate::source::ModulePdb;
use crate::stack::{self, StackRootSet, UnwindTables};
use crate::threads::{self, Thread, Threads};
use crate::types::MethodTable;
use crate::version::{self, Version};
use crate::walk::{self, Damage, Object, Statistics, Walker};

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

    /// The method table at an address.
    ///
    /// # Errors
    /// [`Error::Missing`], or [`Error::Damaged`] when what is there can't be one.
    pub fn method_table(&self, address: u64) -> Result<MethodTable, Error> {
        if address == self.free.address {
            return Ok(self.free);
        }
        if let Ok(tables) = self.tables.lock()
            && let Some(table) = tables.get(&address)
        {
            return Ok(*table);
        }
        let table = MethodTable::read(self.target, &self.layout, address)?;
        if !table.plausible(self.target, &self.layout) {
            return Err(Error::Damaged { what: "the method table", addr: address });
        }
        if let Ok(mut tables) = self.tables.lock() {
            tables.insert(address, table);
        }
        Ok(table)
    }

    /// The module at an address. What can't be read of it is left out, with the reason.
    #[must_use]
    pub fn module(&self, address: u64) -> Arc<Module<'t>> {
        if let Ok(modules) = self.modules.lock()
            && let Some(module) = modules.get(&address)
        {
            return Arc::clone(module);
        }
        let module = Arc::new(modules::read(self.target, &self.layout, address));
        if let Ok(mut modules) = self.modules.lock() {
            modules.insert(address, Arc::clone(&module));
        }
        module
    }

    /// PDBs that were looked for.
    pub(crate) fn pdbs(&self) -> &Mutex<Pdbs> {
        &self.pdbs
    }

    /// The modules of all assemblies, in the order in which they were loaded.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn modules(&self) -> Result<Vec<Arc<Module<'t>>>, Error> {
        let addresses = modules::all(self.target, &self.layout, &self.globals)?;
        Ok(addresses.into_iter().map(|address| self.module(address)).collect())
    }

    /// The method table of a type definition, when the type is loaded.
    #[must_use]
    pub fn type_def_table(&self, module: u64, row: u32) -> Option<u64> {
        Some(modules::type_def_table(self.target, &self.layout, module, row)).filter(|&table| table != 0)
    }

    /// The method description of a method definition; `None` while the runtime has made none. Of a generic type it is that
    /// of the open form.
    #[must_use]
    pub fn method_def(&self, module: u64, row: u32) -> Option<u64> {
        Some(modules::method_def(self.target, &self.layout, module, row)).filter(|&method| method != 0)
    }

    /// The `Assembly*` of a module.
    #[must_use]
    pub fn module_assembly(&self, module: u64) -> Option<u64> {
        let at = module.wrapping_add(self.layout.module.assembly);
        self.target.u64(at).ok().filter(|&assembly| assembly != 0)
    }

    /// The method tables of all loaded type definitions of a module, generic ones in their open form.
    pub fn type_def_tables(&self, module: u64) -> impl Iterator<Item = u64> + '_ {
        let rows =
            self.module(module).metadata().map_or(MAX_TYPES, |m| m.rows(Table::TypeDef).saturating_add(1));
        let count = modules::type_def_count(self.target, &self.layout, module).min(rows);
        (1..count).filter_map(move |row| self.type_def_table(module, row))
    }

    /// The object at an address: its type and size. Checks that the type can be one, not that the address is the start
    /// of an object; [`Self::find_object`] does.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Damaged`].
    pub fn object(&self, address: u64) -> Result<Object, Error> {
        let word = self.target.u64(address).reading("an object")?;
        let table =
            self.method_table(word & !7).map_err(|_| Error::Damaged { what: "the object", addr: address })?;
        let count = if table.component_size == 0 {
            0
        } else {
            self.target.u32(address.wrapping_add(8)).reading("an object's length")?
        };
        Ok(Object { address, table: table.address, size: table.object_size(count) })
    }

    /// The object that holds an address, and the one before it in the same segment, by a walk of the segment.
    ///
    /// # Errors
    /// As for [`Self::walk`].
    pub fn find_object(&self, address: u64, progress: &Progress) -> Result<Option<Object>, Error> {
        let heap = self.heap()?;
        let Some(segment) = heap.segment_of(address) else { return Ok(None) };
        let mut found = None;
        self.walk(segment, progress, |object| {
            if object.address > address {
                return ControlFlow::Break(());
            }
            if address - object.address < object.size.saturating_add(7) & !7 {
                found = Some(object);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    fn walker<'r>(&'r self, heap: &'r Heap, progress: &'r Progress) -> Walker<'r> {
        Walker::new(self.target, &self.layout, heap, &self.free, progress)
    }

    /// Calls `visit` for every object of a segment, by address, free space included.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; damage is no error but counted in what is returned.
    pub fn walk(
        &self,
        segment: &Segment,
        progress: &Progress,
        mut visit: impl FnMut(Object) -> ControlFlow<()>,
    ) -> Result<Damage, Error> {
        let mut walker = self.walker(self.heap()?, progress);
        let _ = walker
            .segment(segment, |address, slot, size| visit(Object { address, table: slot.table, size }))?;
        Ok(walker.damage)
    }

    /// Walks several segments one after the other; cheaper than [`Self::walk`] for each.
    ///
    /// # Errors
    /// As for [`Self::walk`].
    pub fn walk_all<'s>(
        &self,
        segments: impl IntoIterator<Item = &'s Segment>,
        progress: &Progress,
        mut visit: impl FnMut(&Segment, Object) -> ControlFlow<()>,
    ) -> Result<Damage, Error> {
        let mut walker = self.walker(self.heap()?, progress);
        for segment in segments {
            let flow = walker.segment(segment, |address, slot, size| {
                visit(segment, Object { address, table: slot.table, size })
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(walker.damage)
    }

    /// Walks several segments like [`Self::walk_all`], for the objects of one type; on several threads.
    ///
    /// # Errors
    /// As for [`Self::walk`].
    pub fn walk_type(
        &self,
        segments: &[Segment],
        table: u64,
        threads: usize,
        progress: &Progress,
        visit: impl FnMut(&Segment, Object) -> ControlFlow<()>,
    ) -> Result<Damage, Error> {
        let heap = self.heap()?;
        walk::each_of(&|| self.walker(heap, progress), segments, threads, table, visit)
    }

    /// Counts the objects of some segments by type, on several threads.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn count(
        &self,
        segments: &[Segment],
        threads: usize,
        progress: &Progress,
    ) -> Result<Statistics, Error> {
        let heap = self.heap()?;
        progress.start(segments.iter().map(Segment::len).sum());
        walk::count(&|| self.walker(heap, progress), segments, threads)
    }

    /// All GC handles that are not null.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Damaged`].
    pub fn handles(&self) -> Result<Vec<Handle>, Error> {
        handles::read(self.target, &self.layout.handles, self.heap()?)
    }

    /// The finalizer queues, one for each heap.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Damaged`].
    pub fn finalizer_queues(&self) -> Result<Vec<FinalizerQueue>, Error> {
        finalizer::read(self.target, self.heap()?)
    }

    /// The roots in the order handles, finalizer queue, thread statics, stacks.
    ///
    /// # Errors
    /// Those of the parts.
    pub fn roots(&self, stacks: StackRoots, progress: &Progress) -> Result<Vec<Root>, Error> {
        let mut roots: Vec<Root> = self
            .handles()?
            .iter()
            .filter(|handle| handle.kind.is_strong())
            .map(|handle| Root {
                address: handle.address,
                object: handle.object,
                kind: RootKind::Handle { handle: handle.kind },
            })
            .collect();
        for queue in self.finalizer_queues()? {
            for part in [&queue.critical_ready, &queue.ready] {
                roots.extend(part.objects.iter().enumerate().map(|(i, &object)| Root {
                    address: part.start + 8 * i as u64,
                    object,
                    kind: RootKind::FinalizerQueue,
                }));
            }
        }
        for thread in &self.threads()?.threads {
            for (address, object) in threads::thread_static_roots(self.target, thread) {
                roots.push(Root { address, object, kind: RootKind::ThreadStatic { thread: thread.os_id } });
            }
        }
        match stacks {
            StackRoots::None => {}
            StackRoots::Conservative => {
                let threads: Vec<&Thread> = self.threads()?.threads.iter().collect();
                roots.extend(self.conservative_stack_roots(&threads, progress)?);
            }
            StackRoots::Exact => roots.extend_from_slice(&self.exact_stack_roots(progress)?.roots),
        }
        Ok(roots)
    }

    /// The roots in the stacks of all managed threads, and which of them are not exact; found on the first call.
    ///
    /// # Errors
    /// [`Error::Cancelled`], those of the heap and the threads.
    pub fn exact_stack_roots(&self, progress: &Progress) -> Result<&StackRootSet, Error> {
        if let Some(known) = self.stack_roots.get() {
            return Ok(known);
        }
        // A cancelled search is not kept.
        let found = stack::collect_roots(self, progress)?;
        Ok(self.stack_roots.get_or_init(|| found))
    }

    /// What every word of some threads' stacks and every register of theirs may refer to, thread by thread, registers
    /// first, then by address.
    ///
    /// # Errors
    /// [`Error::Cancelled`], those of the heap.
    pub fn conservative_stack_roots(
        &self,
        threads: &[&Thread],
        progress: &Progress,
    ) -> Result<Vec<Root>, Error> {
        conservative::roots(self, threads, progress)
    }

    fn setting<'r>(
        &'r self,
        allocator_of: &'r (dyn Fn(&MethodTable) -> u64 + Sync),
        progress: &'r Progress,
    ) -> Result<Setting<'r>, Error> {
        let dependents = self
            .handles()?
            .iter()
            .filter(|handle| handle.kind == HandleKind::Dependent && handle.secondary != 0)
            .map(|handle| (handle.object, handle.secondary))
            .collect();
        Ok(Setting {
            target: self.target,
            layout: &self.layout,
            heap: self.objects_heap()?,
            free: &self.free,
            allocator_of,
            dependents,
            progress,
            cards: &self.cards,
        })
    }

    /// The `LoaderAllocator` object that the objects of a collectible type keep alive, 0 for none.
    #[must_use]
    pub fn allocator_of(&self, table: &MethodTable) -> u64 {
        let module = if self.layout.method_table.direct_module {
            // `MethodTableAuxiliaryData::m_pLoaderModule`
            self.target.u64(table.auxiliary.wrapping_add(8)).unwrap_or(0)
        } else {
            table.module_word
        };
        modules::loader_allocator_object(self.target, &self.layout, module).unwrap_or(0)
    }

    /// Marks everything that `roots` reach and calls `then` with the result.
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::NoHeap`], those of the handles.
    pub fn reached<T>(
        &self,
        roots: &[Root],
        progress: &Progress,
        then: impl FnOnce(&Reached<'_>) -> T,
    ) -> Result<T, Error> {
        let allocator_of = |table: &MethodTable| self.allocator_of(table);
        let setting = self.setting(&allocator_of, progress)?;
        Ok(then(&reach::closure(&setting, roots.iter().map(|root| root.object), false)?))
    }

    /// Everything that one object keeps alive, itself first, and calls `then` with it.
    ///
    /// # Errors
    /// As for [`Self::reached`].
    pub fn closure_of<T>(
        &self,
        object: u64,
        progress: &Progress,
        then: impl FnOnce(&Reached<'_>) -> T,
    ) -> Result<T, Error> {
        let allocator_of = |table: &MethodTable| self.allocator_of(table);
        let setting = self.setting(&allocator_of, progress)?;
        Ok(then(&reach::closure(&setting, std::iter::once(object), true)?))
    }

    /// Paths to `target` from every one of `roots` that reaches it.
    ///
    /// # Errors
    /// As for [`Self::reached`].
    pub fn paths_to(&self, target: u64, roots: &[Root], progress: &Progress) -> Result<Vec<RootPath>, Error> {
        let allocator_of = |table: &MethodTable| self.allocator_of(table);
        let setting = self.setting(&allocator_of, progress)?;
        reach::paths(&setting, roots, target)
    }

    /// The managed thread with an operating system id.
    #[must_use]
    pub fn thread_by_os_id(&self, id: u32) -> Option<&Thread> {
        self.threads().ok()?.threads.iter().find(|thread| thread.os_id == id)
    }
}
