//! Trying a layout that was never checked on a real core: what it says must fit together, or it is refused.
//!
//! A wrong offset leads to another field, to the middle of one, or out of the structure. So each place is followed to
//! something that is known from elsewhere: threads to those that the dump lists, the core library to its own metadata,
//! handles and sync blocks to objects, and back.

use dnd_memory::Target;
use dnd_metadata::{Table, Token};

use crate::code;
use crate::error::Error;
use crate::heap::Heap;
use crate::layout::{AllocAt, Globals, Layout};
use crate::types::MethodTable;
use crate::{finalizer, gc, handles, modules, threads};

/// Entries of the sync block table and segments that are looked at.
const MANY: u64 = 64;

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn text(error: Error) -> String {
    error.to_string()
}

fn refuse<T>(what: &str) -> Result<T, String> {
    Err(format!("by it, {what}"))
}

/// What a layout must at least give: threads that the dump knows, a core library, a heap.
pub(crate) fn plausible(target: &dyn Target, layout: &Layout, globals: &Globals<u64>) -> Result<(), String> {
    let threads = threads::read(target, layout, globals).map_err(text)?.threads;
    let known = |id: u32| target.threads().iter().find(|thread| thread.tid == id);
    let live = || threads.iter().filter(|thread| thread.os_id != 0);
    if live().next().is_none() || !live().all(|thread| known(thread.os_id).is_some()) {
        return refuse("the managed threads are none of the process");
    }
    let on_stack = |thread: &&threads::Thread| {
        let sp = known(thread.os_id).map_or(0, |thread| thread.registers.sp());
        (thread.stack_limit..thread.stack_base).contains(&sp)
    };
    if live().find(on_stack).is_none() {
        return refuse("no thread is on its own stack");
    }
    let first = modules::all(target, layout, globals).map_err(text)?.first().copied();
    let core = first.map(|address| modules::read(target, layout, address));
    let is_core = |module: &modules::Module<'_>| {
        [module.name.as_str(), module.path.as_str()]
            .iter()
            .any(|name| name.contains("System.Private.CoreLib"))
    };
    if !core.as_ref().is_some_and(is_core) {
        return refuse("the first assembly is not System.Private.CoreLib");
    }
    let heap = gc::read(target, layout, globals).map_err(text)?;
    if heap.segments.is_empty() {
        return refuse("there is no managed heap");
    }
    Ok(())
}

/// The same for a layout of which nothing is known but the runtime's source: whatever can be followed must lead to
/// where it should.
pub(crate) fn source_fits(
    target: &dyn Target,
    layout: &Layout,
    globals: &Globals<u64>,
) -> Result<(), String> {
    plausible(target, layout, globals)?;
    let heap = gc::read(target, layout, globals).map_err(text)?;
    let trial = Trial { target, layout, globals, heap: &heap };
    trial.types()?;
    trial.threads()?;
    trial.objects()?;
    trial.handles()?;
    trial.sync_blocks()?;
    trial.code()
}

struct Trial<'a> {
    target: &'a dyn Target,
    layout: &'a Layout,
    globals: &'a Globals<u64>,
    heap: &'a Heap,
}

impl Trial<'_> {
    fn word(&self, at: u64) -> Result<u64, String> {
        self.target.u64(at).map_err(|missing| missing.to_string())
    }

    fn table(&self, at: u64) -> Result<MethodTable, String> {
        MethodTable::read(self.target, self.layout, at).map_err(text)
    }

    fn is_object(&self, at: u64) -> bool {
        let table = || self.target.u64(at).ok().map(|table| table & !7);
        at.is_multiple_of(8)
            && self.heap.segment_of(at).is_some()
            && table()
                .and_then(|table| self.table(table).ok())
                .is_some_and(|t| t.plausible(self.target, self.layout))
    }

    /// What the handle in a word leads to: an object or nothing.
    fn handle(&self, at: u64) -> Option<u64> {
        let object = self.target.u64(self.target.u64(at).ok()? & !1).ok()?;
        (object == 0 || self.is_object(object)).then_some(object)
    }

    /// The types that globals point to are those of the core library that its metadata and its map say they are.
    fn types(&self) -> Result<(), String> {
        let first = modules::all(self.target, self.layout, self.globals).map_err(text)?.first().copied();
        let core = modules::read(self.target, self.layout, first.unwrap_or(0));
        if let Some(problem) = core.problem {
            return Err(problem);
        }
        let Some(metadata) = core.metadata() else { return refuse("the core library has no metadata") };
        let l = &self.layout.module;
        for (map, table) in [(l.type_def_map, Table::TypeDef), (l.method_def_map, Table::MethodDef)] {
            // Entry 0 stands for no row.
            let room = self.target.u32(core.address.wrapping_add(map + 16)).unwrap_or(0);
            if room != metadata.rows(table).saturating_add(1) {
                return refuse("the core library's maps are not in their places");
            }
        }
        let g = self.globals;
        let object = self.word(g.object_class)?;
        for (global, name) in [
            (g.object_class, "System.Object"),
            (g.string_class, "System.String"),
            (g.exception_class, "System.Exception"),
        ] {
            let at = self.word(global)?;
            let table = self.table(at)?;
            let found = metadata.type_name(Token::new(Table::TypeDef, table.row));
            let mapped = modules::type_def_table(self.target, self.layout, core.address, table.row);
            let module = table.module(self.target, self.layout).map_err(text)?;
            if found != name || mapped != at || module != core.address {
                return refuse(&format!("{name} is not in its place"));
            }
            if at != object && table.parent != object {
                return refuse(&format!("{name} does not derive from System.Object"));
            }
        }
        let free = self.table(self.word(g.free_object)?)?;
        if (free.component_size, free.base_size) != (1, 24) {
            return refuse("the type of free space is not in its place");
        }
        Ok(())
    }

    fn threads(&self) -> Result<(), String> {
        let found = threads::read(self.target, self.layout, self.globals).map_err(text)?;
        let all = &found.threads;
        let counts = found.counts;
        let parts = [counts.unstarted, counts.background, counts.pending, counts.dead];
        if usize::try_from(counts.total).ok() != Some(all.len()) || parts.iter().any(|&n| n > counts.total) {
            return refuse("the thread store's numbers are not those of its threads");
        }
        let ours = |address: u64| address == 0 || all.iter().any(|thread| thread.address == address);
        if found.finalizer == 0 || !ours(found.finalizer) || !ours(found.suspender) {
            return refuse("the finalizer's thread is none of the runtime's");
        }
        let domain = self.word(self.globals.app_domain)?;
        let l = &self.layout.thread;
        for thread in all {
            let live = thread.os_id != 0;
            let on_stack = |at: u64| (thread.stack_limit..thread.stack_base).contains(&at);
            let frame = !live || thread.frame == u64::MAX || on_stack(thread.frame);
            // Behind the one there is always a handle, behind the other one where something was thrown.
            let object = self.handle(thread.address.wrapping_add(l.exposed_object)).is_some();
            let thrown = thread.last_thrown == 0 || self.is_object(thread.last_thrown);
            let alloc = thread.alloc_limit == 0
                || self.heap.segments.iter().any(|s| {
                    (s.start..=s.reserved.max(s.end)).contains(&thread.alloc_pointer)
                        && (s.start..=s.reserved.max(s.end)).contains(&thread.alloc_limit)
                });
            let in_domain = l.app_domain.is_none() || thread.app_domain == domain;
            if !(frame && object && thrown && alloc && in_domain) || matches!(l.alloc, AllocAt::Behind(..)) {
                return refuse("a thread is not as threads are");
            }
            let gc_frame = l.gc_frame.filter(|_| live);
            if let Some(at) =
                gc_frame.and_then(|l| self.target.u64(thread.address.wrapping_add(l.first)).ok())
                && at != 0
                && at != u64::MAX
                && !on_stack(at)
            {
                return refuse("a thread's GC frames are not on its stack");
            }
        }
        Ok(())
    }

    /// Segments begin with objects; the finalizer queue holds some.
    fn objects(&self) -> Result<(), String> {
        let free = self.word(self.globals.free_object)?;
        for segment in self.heap.segments.iter().filter(|segment| segment.start < segment.end) {
            let first = self.target.u64(segment.start).ok();
            if first.is_some() && first != Some(free) && !self.is_object(segment.start) {
                return refuse("a heap segment does not begin with an object");
            }
        }
        let queues = finalizer::read(self.target, self.heap).map_err(text)?;
        if !queues.iter().flat_map(finalizer::FinalizerQueue::objects).all(|at| self.is_object(at)) {
            return refuse("the finalizer queue holds something else than objects");
        }
        Ok(())
    }

    fn handles(&self) -> Result<(), String> {
        let handles = handles::read(self.target, &self.layout.handles, self.heap).map_err(text)?;
        let all = |test: &dyn Fn(u64) -> bool| handles.iter().all(|handle| test(handle.object));
        if handles.is_empty() || !all(&|object| object == 0 || self.is_object(object)) {
            return refuse("the handles lead to something else than objects");
        }
        Ok(())
    }

    /// The header of an object in the table says its place there.
    fn sync_blocks(&self) -> Result<(), String> {
        const IS_INDEX: u32 = 0x0800_0000;
        const IS_HASH: u32 = 0x0400_0000;
        const INDEX: u32 = 0x03ff_ffff;
        let table = self.word(self.globals.sync_table)?;
        for index in 1..MANY {
            let at = table.wrapping_add(16 * index);
            let (block, object) = (self.word(at)?, self.word(at.wrapping_add(8))?);
            // Free, or behind the last that was ever used.
            if block == 0 && (object == 0 || object & 1 == 1) {
                continue;
            }
            let header = self.target.u32(object.wrapping_sub(4)).unwrap_or(0);
            let told = header & IS_INDEX != 0 && header & IS_HASH == 0 && u64::from(header & INDEX) == index;
            if !self.is_object(object) || !told {
                return refuse("the sync block table is not in its place");
            }
        }
        Ok(())
    }

    /// The core library's code is in the list of ranges, and its description leads back to it.
    fn code(&self) -> Result<(), String> {
        let l = &self.layout.code;
        let core = modules::all(self.target, self.layout, self.globals).map_err(text)?.first().copied();
        let core = core.unwrap_or(0);
        if l.range_list {
            let (ranges, manager) = (self.globals.code_ranges, self.globals.r2r_manager);
            let list = code::range_list(self.target, ranges, manager).map_err(text)?;
            if !list.iter().any(|range| range.holds == code::Holds::ReadyToRun { module: core }) {
                return refuse("the core library's code is not among the ranges of code");
            }
        }
        let info = self.word(core.wrapping_add(self.layout.module.ready_to_run))?;
        let functions = self.word(info.wrapping_add(l.r2r_functions))?;
        let count = self.target.u32(info.wrapping_add(l.r2r_functions + 8)).unwrap_or(0);
        let buckets = self.word(info.wrapping_add(l.r2r_entry_points))?;
        // Sorted by where they begin; the end of one is not behind the next one's beginning.
        let function = |i: u64| {
            let at = functions.wrapping_add(l.runtime_function * i);
            Some((self.target.u32(at).ok()?, self.target.u32(at.wrapping_add(4)).ok()?))
        };
        let sorted = (0..8).all(|i| match (function(i), function(i + 1)) {
            (Some((begin, end)), Some((next, _))) => begin != 0 && begin < end && end <= next,
            (first, _) => first.is_none(),
        });
        let back = self.word(info)? == core;
        // A table that is not in the dump can't be asked; the number of hash buckets is in front of them.
        let map = buckets == 0 || self.target.u64(buckets).map_or(true, |n| (2..1 << 24).contains(&n));
        if !back || functions == 0 || !(8..1 << 24).contains(&count) || !sorted || !map {
            return refuse("the core library's precompiled code is not described");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dnd_memory::{Arch, Core, FileOptions, Symbol, WithFiles};
    use dnd_testkit::{CoreSpec, core, runtimes};

    use super::*;
    use crate::Runtime;
    use crate::layout::{LoaderAllocatorAt, source_candidates};
    use crate::locate::from_source;

    type Place = fn(&mut Layout) -> &mut u64;
    type Global = fn(&mut Globals<u64>) -> &mut u64;

    /// The places that the trial must find wrong when they are wrong.
    const PLACES: &[(&str, Place)] = &[
        ("assemblies", |l| &mut l.app_domain.assemblies),
        ("domain_assembly", |l| &mut l.app_domain.domain_assembly),
        ("assembly_module", |l| &mut l.app_domain.assembly_module),
        ("pe_assembly", |l| &mut l.module.pe_assembly),
        ("type_def_map", |l| &mut l.module.type_def_map),
        ("method_def_map", |l| &mut l.module.method_def_map),
        ("ready_to_run", |l| &mut l.module.ready_to_run),
        ("first_link", |l| &mut l.thread.first_link),
        ("total", |l| &mut l.thread.total),
        ("link", |l| &mut l.thread.link),
        ("frame", |l| &mut l.thread.frame),
        ("app_domain", |l| l.thread.app_domain.as_mut().unwrap()),
        ("os_id", |l| &mut l.thread.os_id),
        ("stack_base", |l| &mut l.thread.stack_base),
        ("exposed_object", |l| &mut l.thread.exposed_object),
        ("first_pointer", |l| &mut l.gc.first_pointer),
        ("segments", |l| &mut l.handles.segments),
        ("r2r_functions", |l| &mut l.code.r2r_functions),
    ];

    #[test]
    fn a_true_layout_fits_and_a_displaced_one_does_not() {
        for runtime in runtimes().iter().filter(|runtime| runtime.major() <= 8) {
            for server_gc in [false, true] {
                let spec = CoreSpec { server_gc, ..CoreSpec::with_args(&["1000", "100"]) };
                let core = Core::open(&core(runtime, "Leak", &spec).path()).unwrap();
                let target = WithFiles::new(core, FileOptions::default());
                let opened = Runtime::open(&target).unwrap();
                let (layout, globals) = (*opened.layout(), opened.globals());
                assert_eq!(source_fits(&target, &layout, globals), Ok(()), "{}", runtime.version);
                for (name, place) in PLACES {
                    // Behind the handle of a thread's object is another one of the same object.
                    for step in if *name == "exposed_object" { [-8i64, -16] } else { [-8, 8] } {
                        let mut wrong = layout;
                        let slot = place(&mut wrong);
                        *slot = slot.wrapping_add_signed(step);
                        let fits = source_fits(&target, &wrong, globals);
                        assert!(fits.is_err(), "{}: {name} {step:+}", runtime.version);
                    }
                }
            }
        }
    }

    #[test]
    fn globals_of_other_places_do_not_fit() {
        let runtime = runtimes().into_iter().find(|runtime| runtime.major() == 3).unwrap();
        let core =
            Core::open(&core(&runtime, "Leak", &CoreSpec::with_args(&["1000", "100"])).path()).unwrap();
        let target = WithFiles::new(core, FileOptions::default());
        let opened = Runtime::open(&target).unwrap();
        let (layout, true_globals) = (opened.layout(), *opened.globals());
        assert!(matches!(layout.module.loader_allocator, LoaderAllocatorAt::Assembly(_)));
        let mut wrong: Vec<Globals<u64>> = Vec::new();
        let places: [Global; 11] = [
            |g| &mut g.code_ranges,
            |g| &mut g.r2r_manager,
            |g| &mut g.thread_store,
            |g| &mut g.finalizer_thread,
            |g| &mut g.gc_dac_globals,
            |g| &mut g.app_domain,
            |g| &mut g.object_class,
            |g| &mut g.string_class,
            |g| &mut g.exception_class,
            |g| &mut g.free_object,
            |g| &mut g.sync_table,
        ];
        for change in places {
            for other in [true_globals.app_domain, true_globals.string_class, true_globals.thread_store] {
                let mut globals = true_globals;
                let slot = change(&mut globals);
                if *slot != other {
                    *slot = other;
                    wrong.push(globals);
                }
            }
        }
        for globals in wrong {
            assert!(source_fits(&target, layout, &globals).is_err(), "{globals:x?}");
        }
    }

    #[test]
    fn the_candidate_that_fits_is_taken_and_marked() {
        let runtime = runtimes().into_iter().find(|runtime| runtime.major() == 3).unwrap();
        let core =
            Core::open(&core(&runtime, "Leak", &CoreSpec::with_args(&["1000", "100"])).path()).unwrap();
        let target = WithFiles::new(core, FileOptions::default());
        let opened = Runtime::open(&target).unwrap();
        let (shape, layout) = (*opened.table_shape(), *opened.layout());
        let table = Symbol { address: opened.table, size: 4 * shape.entries };
        let mut moved = shape;
        moved.globals.sync_table += 1;
        let mut other = layout;
        other.handles.segments = 48;
        let mut none = moved;
        none.globals.object_class += 1;
        let try_them = |candidates| from_source(&target, opened.image(), table, None, candidates);
        let all = vec![(none, layout), (moved, layout), (shape, other), (shape, layout)];
        let found = try_them(all).unwrap().unwrap();
        assert_eq!((found.0, found.1), (shape, layout));
        assert!(found.3.unverified.unwrap().contains("not verified on a real core"));
        let error = try_them(vec![(none, layout), (moved, layout)]).unwrap_err();
        assert!(error.to_string().contains("the sync block table is not in its place"), "{error}");
        assert!(try_them(Vec::new()).unwrap().is_none());
        // One shape of 5.0; 6.0 has one more global than the source, wherever it is.
        let shapes = |bytes| source_candidates(bytes, Arch::X64);
        assert_eq!((shapes(688).len(), shapes(704).len() > 20, shapes(700).len()), (1, true, 0));
        assert!(source_candidates(704, Arch::Arm64).is_empty());
    }
}
