//! Versions of a method's code, and where its IL is.
//!
//! Source: `vm/codeversion.h` (`MethodDescVersioningState`, `NativeCodeVersionNode`), `vm/tieredcompilation.cpp`
//! (`GetInitialOptimizationTier`) of dotnet/runtime v8.0.0 to v10.0.14 and dotnet/coreclr v3.1.23.

use serde::Serialize;

use super::CodeKind;
use super::method::{Method, MethodKind};
use super::native::{CODE_DATA, TIERED};
use super::ranges::{self, Holds};
use crate::error::{Error, Reading};
use crate::modules;
use crate::runtime::Runtime;

/// Native code versions of a method.
const MAX_VERSIONS: usize = 1 << 10;
/// Places in the table of methods with several versions.
const MAX_STATES: u32 = 1 << 24;
/// Flag of a version: calls go to it.
const ACTIVE: u32 = 1;
/// `MethodImplAttributes`.
const NO_OPTIMIZATION: u16 = 0x40;
const AGGRESSIVE_OPTIMIZATION: u16 = 0x200;

/// How the code of a method was optimized (`NativeCodeVersion::OptimizationTier`, and what is known without it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Compiled at build time.
    ReadyToRun,
    /// Compiled quickly.
    Quick,
    /// Compiled again because it was called often.
    Tier1,
    /// The same for a loop that was running.
    Tier1Osr,
    /// Compiled once, with optimizations.
    Optimized,
    /// Compiled once, as far as possible without optimizations.
    MinimallyOptimized,
    /// Compiled quickly, and counts what it does.
    QuickInstrumented,
    /// With optimizations, and counts what it does.
    Tier1Instrumented,
}

/// One version of a method's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeVersion {
    /// First instruction; 0 when it has not been compiled yet.
    pub code: u64,
    /// `NativeCodeVersionNode*`; 0 for the first version.
    pub node: u64,
    /// How it was optimized; `None` when that can't be told.
    pub tier: Option<Tier>,
    /// Calls go to it.
    pub active: bool,
}

impl Runtime<'_> {
    /// What made the code at an address; `None` when that can't be told.
    #[must_use]
    pub fn code_kind(&self, code: u64) -> Option<CodeKind> {
        match ranges::find(self, code).ok()??.holds {
            Holds::ReadyToRun { .. } => Some(CodeKind::ReadyToRun),
            Holds::Jit { .. } => Some(CodeKind::Jit),
            Holds::Stubs => None,
        }
    }

    /// All versions of a method's code: the first, then later ones, the newest first. Not those of a method whose IL a
    /// profiler has replaced.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Damaged`] for what the runtime keeps of them.
    pub fn code_versions(&self, method: &Method) -> Result<Vec<CodeVersion>, Error> {
        let what = "the versions of a method's code";
        let memory = self.target();
        let mut versions = Vec::new();
        // `NativeCodeVersionNode`: code, method, IL version, next; number, tier.
        let mut node = match self.versioning_state(method)? {
            0 => 0,
            state => memory.u64(state.wrapping_add(16)).reading(what)?,
        };
        while node != 0 {
            let word = |offset: u64| memory.u64(node.wrapping_add(offset)).reading(what);
            if word(8)? != method.address || versions.len() == MAX_VERSIONS {
                return Err(Error::Damaged { what, addr: node });
            }
            if word(16)? == 0 {
                let half = |offset: u64| memory.u32(node.wrapping_add(offset)).reading(what);
                let active = half(self.layout().method_desc.version_flags)? & ACTIVE != 0;
                versions.push(CodeVersion { code: word(0)?, node, tier: self.tier(half(36)?), active });
            }
            node = word(24)?;
        }
        if let Some(code) = self.first_code(method)? {
            let active = !versions.iter().any(|version| version.active);
            versions.insert(0, CodeVersion { code, node: 0, tier: self.first_tier(method, code), active });
        }
        Ok(versions)
    }

    /// `MethodDescVersioningState*`; 0 for a method of which there is one version only.
    fn versioning_state(&self, method: &Method) -> Result<u64, Error> {
        let memory = self.target();
        let what = "what a method keeps of its code";
        let Some(map) = self.layout().method_desc.versions_map else {
            // `MethodDescCodeData`: the state, the first entry.
            let data = memory.u64(method.address.wrapping_add(CODE_DATA)).reading(what)?;
            return if data == 0 { Ok(0) } else { memory.u64(data).reading(what) };
        };
        // A hash table in the `AppDomain`: table, size, count; the states in it begin with their method.
        let what = "the table of code versions";
        let domain = memory.u64(self.globals().app_domain).reading(what)?;
        let table = memory.u64(domain.wrapping_add(map)).reading(what)?;
        let size = memory.u32(domain.wrapping_add(map + 8)).reading(what)?;
        if table == 0 {
            return Ok(0);
        }
        if size > MAX_STATES {
            return Err(Error::Damaged { what, addr: domain });
        }
        for place in 0..u64::from(size) {
            let state = memory.u64(table.wrapping_add(8 * place)).reading(what)?;
            // An entry that was removed holds all bits.
            if state != 0 && state != u64::MAX && memory.u64(state).reading(what)? == method.address {
                return Ok(state);
            }
        }
        Ok(0)
    }

    /// `NativeCodeVersion::OptimizationTier`.
    fn tier(&self, number: u32) -> Option<Tier> {
        Some(match number {
            0 => Tier::Quick,
            1 => Tier::Tier1,
            2 if self.major() > 3 => Tier::Tier1Osr,
            2 | 3 => Tier::Optimized,
            4 => Tier::QuickInstrumented,
            5 => Tier::Tier1Instrumented,
            _ => return None,
        })
    }

    /// The tier of a method's first code, for which the runtime keeps none (`GetInitialOptimizationTier`).
    fn first_tier(&self, method: &Method, code: u64) -> Option<Tier> {
        if self.code_kind(code) == Some(CodeKind::ReadyToRun) {
            return Some(Tier::ReadyToRun);
        }
        let attributes = self.definition_of(method, |row| row.impl_flags);
        if method.flags & TIERED == 0 {
            return match attributes {
                Some(flags) if flags & NO_OPTIMIZATION != 0 => Some(Tier::MinimallyOptimized),
                Some(_) => Some(Tier::Optimized),
                None if method.kind == MethodKind::Dynamic => Some(Tier::Optimized),
                None => None,
            };
        }
        match attributes? & AGGRESSIVE_OPTIMIZATION {
            // 3.1 optimizes methods with loops at once, which shows nowhere.
            0 => Some(Tier::Quick).filter(|_| self.major() > 3),
            _ => Some(Tier::Tier1),
        }
    }

    /// Something of the metadata row of a method.
    fn definition_of<T>(
        &self,
        method: &Method,
        then: impl FnOnce(&dnd_metadata::Method<'_>) -> T,
    ) -> Option<T> {
        let module = self.method_table(method.table).ok()?.module(self.target(), self.layout()).ok()?;
        let module = self.module(module);
        let metadata = module.metadata()?;
        Some(then(&metadata.method(method.token & 0x00ff_ffff)?))
    }

    /// Address of a method's IL, header included; `None` for a method without IL, and where its module's image is not known.
    #[must_use]
    pub fn il_address(&self, method: &Method) -> Option<u64> {
        let module = self.method_table(method.table).ok()?.module(self.target(), self.layout()).ok()?;
        let rva = self.definition_of(method, |row| row.rva).filter(|&rva| rva != 0)?;
        modules::address_of(self.target(), &self.module(module), rva)
    }
}
