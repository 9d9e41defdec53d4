//! Small readings that several commands share.

use dnd_clr::stack::StackProblem;
use dnd_clr::{
    HandleKind, MethodTable, NameStyle, Object, Progress, References, Root, RootKind, Runtime, StackRoots,
};

use crate::error::Error;

/// Objects larger than this are not copied to look for references: no single object is.
const MAX_OBJECT: u64 = 1 << 36;

/// Name of a type as the runtime writes it: ``List`1[[Demo.Node, TestApp]]``.
pub(crate) fn runtime_name(runtime: &Runtime<'_>, table: u64) -> String {
    runtime.type_name(table, NameStyle::Runtime)
}

/// Name of a type as `dumpheap` writes it: `List<Demo.Node>`.
pub(crate) fn display_name(runtime: &Runtime<'_>, table: u64) -> String {
    runtime.type_name(table, NameStyle::Display)
}

/// The object at an address, if a user may have meant one.
pub(crate) fn object(runtime: &Runtime<'_>, address: u64) -> Result<Object, Error> {
    // Objects lie at multiples of 8, and never in the lowest page.
    let found =
        if address < 0x1000 || !address.is_multiple_of(8) { None } else { runtime.object(address).ok() };
    found.ok_or(Error::NotA { addr: address, wanted: "the address of an object" })
}

/// The method table at an address, if it is one.
pub(crate) fn method_table(runtime: &Runtime<'_>, address: u64) -> Result<MethodTable, Error> {
    runtime.method_table(address).map_err(|_| Error::NotA { addr: address, wanted: "a method table" })
}

/// A string's UTF-16 units, at most `max`, and its whole length. `None` when they are not in the dump.
pub(crate) fn string_units(runtime: &Runtime<'_>, address: u64, max: u32) -> Option<(Vec<u16>, u32)> {
    let memory = runtime.target();
    let length = memory.u32(address.wrapping_add(8)).ok()?;
    let at = address.wrapping_add(12);
    let bytes = 2 * length.min(max) as usize;
    if let Some(borrowed) = memory.slice(at, bytes) {
        return Some((units(borrowed), length));
    }
    // Not in one piece: a look at the end first, so that a damaged length allocates nothing.
    memory.u8(at.wrapping_add(bytes as u64).wrapping_sub(1)).ok()?;
    let mut owned = vec![0; bytes];
    memory.read(at, &mut owned).ok()?;
    Some((units(&owned), length))
}

fn units(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok().map(u16::from_le_bytes)).collect()
}

/// The references of an object: (offset, object).
pub(crate) fn references(runtime: &Runtime<'_>, object: &Object) -> Result<Vec<(u64, u64)>, Error> {
    let table = runtime.method_table(object.table)?;
    let references = References::read(runtime.target(), &table)?;
    let size = usize::try_from((object.size + 7) & !7).ok().filter(|_| object.size < MAX_OBJECT);
    let mut found = Vec::new();
    let damaged = dnd_clr::Error::Damaged { what: "the object", addr: object.address };
    let size = size.ok_or(damaged)?;
    let mut each = |bytes: &[u8]| references.each(bytes, |offset, to| found.push((offset, to)));
    match runtime.target().slice(object.address, size) {
        Some(bytes) => each(bytes),
        None => {
            let missing = |source| dnd_clr::Error::Missing { what: "the object", source };
            runtime.target().u8(object.address + size as u64 - 1).map_err(missing)?;
            let mut bytes = vec![0; size];
            runtime.target().read(object.address, &mut bytes).map_err(missing)?;
            each(&bytes);
        }
    }
    Ok(found)
}

/// Managed thread id and recursion of a thin lock, for an object that has one.
///
/// Source: `src/coreclr/vm/syncblk.h`: the 32 bits before the object; bit 27 says that they are something else.
pub(crate) fn thin_lock(runtime: &Runtime<'_>, address: u64) -> Option<(u32, u32)> {
    const NOT_A_LOCK: u32 = 0x0800_0000;
    let word = runtime.target().u32(address.wrapping_sub(4)).ok()?;
    let (mask, shift) = if runtime.major() >= 8 { (0xffff, 16) } else { (0x3ff, 10) };
    let thread = word & mask;
    (word & NOT_A_LOCK == 0 && thread != 0).then_some((thread, word >> shift & 0x3f))
}

/// All roots, with or without those that the stacks hold, and a note for each thread whose stack roots are not exact.
pub(crate) fn roots(
    runtime: &Runtime<'_>,
    stacks: bool,
    progress: &Progress,
) -> Result<(Vec<Root>, Vec<String>), Error> {
    if !stacks {
        return Ok((runtime.roots(StackRoots::None, progress)?, Vec::new()));
    }
    let roots = runtime.roots(StackRoots::Exact, progress)?;
    let problem = |problem: &StackProblem| {
        format!("roots on the stack of thread {:#x} are conservative: {}", problem.thread, problem.reason)
    };
    Ok((roots, runtime.exact_stack_roots(progress)?.problems.iter().map(problem).collect()))
}

/// What should be known where roots may be none; `counted` is what objects are taken for because of them.
pub(crate) fn conservative(roots: &[Root], counted: &str) -> Option<String> {
    let kinds: Vec<_> = roots.iter().filter(|root| root.is_conservative()).map(|root| &root.kind).collect();
    let argument = |kind: &&RootKind| matches!(kind, RootKind::Stack { place: Some(_), .. });
    let what = match kinds.len() {
        0 => return None,
        1 if kinds.iter().all(argument) => {
            "1 stack root is a word that may be an argument of a call not yet begun".into()
        }
        n if kinds.iter().all(argument) => {
            format!("{n} stack roots are words that may be arguments of calls not yet begun")
        }
        n => format!("{n} stack roots are conservative"),
    };
    Some(format!("{what}: some objects counted as {counted} may not be"))
}

/// What should be known where ref-counted handles are among the roots.
pub(crate) fn ref_counted<'r>(roots: impl IntoIterator<Item = &'r Root>) -> Option<String> {
    let is_one = |root: &&Root| matches!(root.kind, RootKind::Handle { handle: HandleKind::RefCounted });
    match roots.into_iter().filter(is_one).count() {
        0 => None,
        1 => Some(
            "a ref-counted handle counts as a root: native code may hold no reference any more".to_owned(),
        ),
        n => Some(format!(
            "{n} ref-counted handles count as roots: native code may hold no reference to some of their objects any more"
        )),
    }
}

/// Operating system ids of the dump's threads, in ascending order: a thread's index is its place in this list.
pub(crate) fn os_threads(runtime: &Runtime<'_>) -> Vec<u32> {
    let mut ids: Vec<u32> = runtime.target().threads().iter().map(|thread| thread.tid).collect();
    ids.sort_unstable();
    ids
}
