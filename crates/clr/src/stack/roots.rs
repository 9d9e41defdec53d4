//! Stack roots of all threads: exact where a stack can be walked, else every word that may be a reference.

use dnd_contract::Addr;
use serde::Serialize;

use super::references::{Reference, ReferenceSlot};
use crate::conservative::{self, Owners};
use crate::error::Error;
use crate::progress::Progress;
use crate::roots::{Root, RootKind, StackPlace};
use crate::runtime::Runtime;
use crate::threads::Thread;

/// A thread whose stack roots are not exact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StackProblem {
    /// Operating system id of the thread.
    pub thread: u32,
    /// Why.
    pub reason: String,
}

/// The stack roots of all managed threads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StackRootSet {
    /// Thread by thread, innermost frame first.
    pub roots: Vec<Root>,
    /// Threads of which every word of the stack that points into an object was taken.
    pub problems: Vec<StackProblem>,
}

/// Collects them.
pub(crate) fn collect(runtime: &Runtime<'_>, progress: &Progress) -> Result<StackRootSet, Error> {
    let mut set = StackRootSet::default();
    let mut inside: Vec<(usize, u64)> = Vec::new();
    let mut unknown: Vec<&Thread> = Vec::new();
    for thread in runtime.threads()?.threads.iter().filter(|thread| thread.os_id != 0) {
        let found = runtime.stack_references(thread);
        if let Some(reason) = found.problem {
            set.problems.push(StackProblem { thread: thread.os_id, reason });
            unknown.push(thread);
            continue;
        }
        for reference in found.references {
            if reference.value == 0 {
                continue;
            }
            if reference.interior {
                inside.push((set.roots.len(), reference.value));
            }
            set.roots.push(root(thread, &reference));
        }
    }
    let heap = runtime.heap()?;
    let values = inside.iter().map(|&(_, value)| value).collect();
    let owners = Owners::find(runtime, values, progress)?;
    for ((index, value), owner) in inside.into_iter().zip(owners) {
        // Such a reference may also point to a stack, to a static of a value type, or behind an array's last element.
        if let Some(root) = set.roots.get_mut(index) {
            root.object = owner.unwrap_or(0);
            if let RootKind::Stack { interior, .. } = &mut root.kind {
                *interior = root.object != value;
            }
        }
    }
    set.roots.retain(|root| heap.segment_of(root.object).is_some());
    set.roots.extend(conservative::roots(runtime, &unknown, progress)?);
    Ok(set)
}

fn root(thread: &Thread, reference: &Reference) -> Root {
    let register = match reference.slot {
        ReferenceSlot::Register(name) => Some(name),
        _ => None,
    };
    Root {
        address: reference.address,
        object: reference.value,
        kind: RootKind::Stack {
            thread: thread.os_id,
            register,
            conservative: reference.conservative,
            interior: reference.interior,
            place: Some(StackPlace {
                ip: Addr(reference.ip),
                sp: Addr(reference.sp),
                method: (reference.method != 0).then_some(Addr(reference.method)),
                slot: reference.slot,
                pinned: reference.pinned,
            }),
        },
    }
}
