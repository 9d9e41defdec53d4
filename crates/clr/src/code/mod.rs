//! Managed code: from an instruction pointer to the method it belongs to.
//!
//! An address lies in a range section (`ranges`) that is either a heap of jitted code, whose nibble map leads to the
//! start of the method (`jit`), or a ReadyToRun image, whose sorted runtime functions do (`r2r`). Both say how the
//! function is unwound and where its GC info is. Nothing is enumerated: each question reads a few words.
//!
//! Sources (dotnet/runtime, `src/coreclr`, tags v8.0.0 to v10.0.14; .NET Core 3.1: dotnet/coreclr v3.1.23, `src`):
//! `vm/codeman.h` and `vm/codeman.cpp` (`RangeSectionMap`, `EEJitManager::JitCodeToMethodInfo`,
//! `ReadyToRunJitManager`), `vm/hash.h` (`HashMap`), `vm/readytoruninfo.h`, `inc/nibblemapmacros.h`,
//! `docs/design/datacontracts/ExecutionManager.md`.

pub(crate) mod clauses;
pub(crate) mod debug;
mod entry;
mod jit;
mod method;
mod native;
pub(crate) mod nibble;
mod r2r;
mod ranges;
mod sections;
mod signature;
mod variables;
mod versions;

use dnd_memory::Memory;
use serde::Serialize;

use crate::error::{Error, Reading};
use crate::runtime::Runtime;

pub(crate) use clauses::Funclet;
pub use debug::{Bound, DebugInfoForm, IlMap, IlOffset, NativeVariable, VariablePlace};
pub use method::{Method, MethodKind};
pub use native::TypeMethod;
pub(crate) use ranges::{Holds, RangeList, list as range_list};
pub use variables::{Variable, VariableAt, VariableKind, Variables};
pub use versions::{CodeVersion, Tier};

/// What made a piece of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodeKind {
    /// The JIT compiler, at run time.
    Jit,
    /// crossgen, at build time (ReadyToRun).
    ReadyToRun,
}

/// Code of a method at an instruction pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// What made it.
    pub kind: CodeKind,
    /// `MethodDesc*`; 0 when the image's map does not have the method.
    pub method: u64,
    /// First instruction of the method.
    pub start: u64,
    /// First instruction of the function around the address: the method's, or that of a funclet.
    pub function_start: u64,
    /// Address of the function's unwind information.
    pub unwind: u64,
    /// What offsets in runtime functions count from.
    pub image: u64,
    /// Address of the method's GC info.
    pub gc_info: u64,
    /// The function is a funclet: a catch, finally, fault or filter block.
    pub funclet: bool,
    /// Where the method's exception clauses are.
    pub(crate) clauses: clauses::ClausesAt,
    /// Where the method's debug info is.
    pub(crate) debug_info: debug::DebugInfoAt,
}

/// What is at an address that code may be at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeAt {
    /// A method.
    Method(Code),
    /// A stub that the runtime made: it has no unwind information.
    Stub,
    /// No code that the runtime knows.
    Native,
}

impl Runtime<'_> {
    /// What the runtime knows about the code at an address.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Damaged`] for the runtime's tables.
    pub fn code_at(&self, ip: u64) -> Result<CodeAt, Error> {
        let Some(range) = ranges::find(self, ip)? else { return Ok(CodeAt::Native) };
        match range.holds {
            ranges::Holds::Stubs => Ok(CodeAt::Stub),
            ranges::Holds::Jit { heap } => jit::find(self, ip, range.base, heap),
            ranges::Holds::ReadyToRun { module } => r2r::find(self, ip, range.base, module),
        }
    }

    /// The method whose code is at an address, `None` when there is none.
    ///
    /// # Errors
    /// As for [`Self::code_at`].
    pub fn method_code(&self, ip: u64) -> Result<Option<Code>, Error> {
        Ok(match self.code_at(ip)? {
            CodeAt::Method(code) => Some(code),
            CodeAt::Stub | CodeAt::Native => None,
        })
    }
}

/// A `RUNTIME_FUNCTION`: offsets of the first instruction and of the unwind information.
#[derive(Debug, Clone, Copy)]
struct RuntimeFunction {
    begin: u32,
    unwind: u32,
}

/// Reads entry `index` of a table of `RUNTIME_FUNCTION`s: {begin, end, unwind} on x64, {begin, unwind} on arm64.
fn runtime_function(
    memory: &dyn Memory,
    table: u64,
    size: u64,
    index: u64,
) -> Result<RuntimeFunction, Error> {
    let at = table.wrapping_add(size.wrapping_mul(index));
    let what = "a runtime function";
    Ok(RuntimeFunction {
        begin: memory.u32(at).reading(what)?,
        unwind: memory.u32(at.wrapping_add(size - 4)).reading(what)?,
    })
}
