//! Which `AssemblyLoadContext` a module was loaded into.
//!
//! Source: `vm/peassembly.h` (`PEAssembly`), `binder/inc/assembly.hpp` (`BINDER_SPACE::Assembly`, until 9),
//! `binder/inc/assemblybinder.h` (`AssemblyBinder`). Of .NET Core 3.1 no way from a module to its context is read.

use crate::runtime::Runtime;

/// `PEAssembly::m_pHostAssembly` until 9.
const HOST_ASSEMBLY: u64 = 56;
/// `BINDER_SPACE::Assembly::m_pBinder`.
const BINDER_OF_HOST: u64 = 32;
/// `PEAssembly::m_pFallbackBinder` until 9: of assemblies made at run time. Since 10 `m_pAssemblyBinder`.
const BINDER: u64 = 64;
/// `AssemblyBinder::m_ptrManagedAssemblyLoadContext`: a handle.
const MANAGED: u64 = 224;

impl Runtime<'_> {
    /// The `AssemblyLoadContext` object of a module: `Some(0)` when the runtime has made none (of the default context,
    /// which has one when somebody asks for it). `None` where it can't be told: .NET Core 3.1 to .NET 7, memory that the
    /// dump does not have.
    #[must_use]
    pub fn load_context(&self, module: u64) -> Option<u64> {
        if self.major() < 8 {
            return None;
        }
        let at = |base: u64, offset: u64| self.target().u64(base.wrapping_add(offset)).ok();
        let assembly = at(module, self.layout().module.pe_assembly)?;
        let host = if self.major() < 10 { at(assembly, HOST_ASSEMBLY)? } else { 0 };
        let binder = if host == 0 { at(assembly, BINDER)? } else { at(host, BINDER_OF_HOST)? };
        let handle = at(binder, MANAGED)?;
        let object = if handle == 0 { 0 } else { at(handle, 0)? };
        // Anything else would be another layout than the known ones.
        (object == 0 || self.object(object).is_ok()).then_some(object)
    }

    /// The `LoaderAllocator` object that keeps the types of a collectible module loaded; `None` for none.
    #[must_use]
    pub fn loader_allocator(&self, module: u64) -> Option<u64> {
        let object = crate::modules::loader_allocator_object(self.target(), self.layout(), module).ok();
        object.filter(|&object| object != 0)
    }
}
