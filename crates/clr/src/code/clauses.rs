//! Exception clauses: which funclets are filters.
//!
//! Sources: `IJitManager::IsFilterFunclet`, `EEJitManager::InitializeEHEnumeration` and
//! `ReadyToRunJitManager::InitializeEHEnumeration` in `vm/codeman.cpp`, `EE_ILEXCEPTION` in `inc/corhlpr.h` and
//! `vm/codeman.h`.

use dnd_memory::Memory;

use super::{Code, sections};
use crate::error::{Error, Reading};
use crate::runtime::Runtime;

/// Where a method's clauses are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClausesAt {
    /// `EE_ILEXCEPTION*`, 0 for none.
    Jit(u64),
    /// In a table of the image, by the offset of the method's first instruction.
    ReadyToRun {
        /// Base of the image.
        image: u64,
        /// Offset of the method.
        method: u32,
    },
}

/// `COR_ILEXCEPTION_CLAUSE_FILTER`.
const FILTER: u32 = 1;
/// `COR_ILEXCEPTION_CLAUSE_DUPLICATED`: a handler's clause for another funclet that it is around.
const DUPLICATE: u32 = 8;
/// Entries that are searched one by one.
const LINEAR: u64 = 10;
/// Clauses of one method; more is damage.
const MAX_CLAUSES: u64 = 1 << 16;

/// What a funclet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Funclet {
    /// It decides whether an exception is caught (`catch … when (…)`).
    pub(crate) filter: bool,
    /// First instruction of what is tried, when it is known: it lies in the function that the funclet belongs to.
    pub(crate) tried: Option<u64>,
}

/// A clause: offsets from the method's first instruction.
pub(crate) struct Clause {
    flags: u32,
    tried: u32,
    handler: u32,
    filter: u32,
}

impl Runtime<'_> {
    /// What the funclet of `code` is for; `None` when the code is no funclet.
    ///
    /// # Errors
    /// [`Error::Missing`] when the method's clauses are not in the dump.
    pub(crate) fn funclet(&self, code: &Code) -> Result<Option<Funclet>, Error> {
        if !code.funclet {
            return Ok(None);
        }
        let offset = code.function_start.wrapping_sub(code.start);
        let clauses = match code.clauses {
            ClausesAt::Jit(at) => jit_clauses(self.target(), at)?,
            ClausesAt::ReadyToRun { image, method } => r2r_clauses(self.target(), image, method)?,
        };
        let is = |at: u32| u64::from(at) == offset;
        if clauses.iter().any(|clause| clause.flags & FILTER != 0 && is(clause.filter)) {
            return Ok(Some(Funclet { filter: true, tried: None }));
        }
        // A handler around another one has clauses for what that one tries and does, too.
        let own = clauses.iter().find(|clause| is(clause.handler) && clause.flags & DUPLICATE == 0);
        let tried = own.map(|clause| code.start.wrapping_add(clause.tried.into()));
        Ok(Some(Funclet { filter: false, tried }))
    }
}

/// The number of clauses stands in front; clauses of 32 bytes follow a header of 8: flags, begin and end of what is tried,
/// begin and end of the handler, 4 bytes of padding, offset of the filter.
pub(crate) fn jit_clauses(memory: &dyn Memory, at: u64) -> Result<Vec<Clause>, Error> {
    let what = "the exception clauses of a method";
    if at == 0 {
        return Ok(Vec::new());
    }
    let count = memory.u64(at.wrapping_sub(8)).reading(what)?;
    if count > MAX_CLAUSES {
        return Err(Error::Damaged { what, addr: at });
    }
    (0..count).map(|i| clause(memory, at.wrapping_add(8 + 32 * i), 24)).collect()
}

fn clause(memory: &dyn Memory, at: u64, filter: u64) -> Result<Clause, Error> {
    let half = |offset: u64| memory.u32(at.wrapping_add(offset)).reading("an exception clause");
    Ok(Clause { flags: half(0)?, tried: half(4)?, handler: half(12)?, filter: half(filter)? })
}

pub(crate) fn r2r_clauses(memory: &dyn Memory, image: u64, method: u32) -> Result<Vec<Clause>, Error> {
    let what = "the exception clauses of a ReadyToRun method";
    let Some((_, section)) = sections::find(memory, image, sections::EXCEPTION_INFO)? else {
        return Ok(Vec::new());
    };
    let (table, bytes) = (image.wrapping_add(section.rva.into()), section.size);
    // Sorted (method, clauses); the clauses of a method end where the next one's begin.
    let entry = |index: u64| memory.u32(table.wrapping_add(8 * index)).reading(what);
    let clauses_of = |index: u64| memory.u32(table.wrapping_add(8 * index + 4)).reading(what);
    // The runtime's own steps, as for runtime functions; the last entry is a sentinel.
    let Some(last) = u64::from(bytes / 8).checked_sub(2) else { return Ok(Vec::new()) };
    let (mut low, mut high) = (0, last);
    while high - low > LINEAR {
        let middle = low + (high - low) / 2;
        if method < entry(middle)? { high = middle - 1 } else { low = middle }
    }
    for index in low..=high {
        if entry(index)? == method {
            let (first, end) = (clauses_of(index)?, clauses_of(index + 1)?);
            let count = u64::from(end.saturating_sub(first)) / 24;
            let at = |i: u64| image.wrapping_add(u64::from(first) + 24 * i);
            return (0..count.min(MAX_CLAUSES)).map(|i| clause(memory, at(i), 20)).collect();
        }
    }
    Ok(Vec::new())
}
