//! [`Runtime`]: what keeps objects alive, and paths to it.

use super::{Runtime, StackRoots};
use crate::conservative;
use crate::error::Error;
use crate::finalizer::{self, FinalizerQueue};
use crate::handles::{self, Handle, HandleKind};
use crate::modules;
use crate::progress::Progress;
use crate::reach::{self, Reached, RootPath, Setting};
use crate::roots::{Root, RootKind};
use crate::stack::{self, StackRootSet};
use crate::threads::{self, Thread};
use crate::types::MethodTable;

impl Runtime<'_> {
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
}
