//! What delegates call.

use dnd_clr::{Object, Runtime};

use crate::managed::{Managed, Place};

/// Delegates in one; more is damage.
const MAX_CALLS: usize = 1 << 16;

/// One call of a delegate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// The object that the method is called on; 0 for a static method.
    pub(crate) target: u64,
    /// `MethodDesc*`; `None` when it can't be told.
    pub(crate) method: Option<u64>,
}

/// Whether a type is that of a delegate.
pub(crate) fn is_delegate(managed: &mut Managed<'_>, table: u64) -> bool {
    managed.is_a(table, |name| name == "System.Delegate")
}

/// What a delegate calls, one after the other; empty for an object that is none.
///
/// Source: `System.MulticastDelegate` and `System.Delegate` (`MulticastDelegate.CoreCLR.cs`), `vm/comdelegate.cpp`.
pub(crate) fn calls(runtime: &Runtime<'_>, managed: &mut Managed<'_>, delegate: &Object) -> Vec<Call> {
    if !is_delegate(managed, delegate.table) {
        return Vec::new();
    }
    let place = Place::of(delegate);
    let count = managed.number(place, &["_invocationCount"]).unwrap_or(0);
    let list = managed.follow(place, &["_invocationList"]);
    if let Some(list) = list
        && let Some(vector) = managed.vector(&list)
        && count > 0
    {
        let count = usize::try_from(count).unwrap_or(0).min(vector.count as usize).min(MAX_CALLS);
        let element = |index: usize| {
            let place = vector.element(u32::try_from(index).ok()?);
            managed.object(runtime.target().u64(place.data).ok()?)
        };
        let all: Vec<Object> = (0..count).filter_map(element).collect();
        // What is in such a list has none itself.
        return all.iter().map(|one| call(runtime, managed, one)).collect();
    }
    vec![call(runtime, managed, delegate)]
}

fn call(runtime: &Runtime<'_>, managed: &mut Managed<'_>, delegate: &Object) -> Call {
    let place = Place::of(delegate);
    let mut pointer =
        |name: &str| managed.number(place, &[name]).map(i64::cast_unsigned).filter(|&pointer| pointer != 0);
    // A static method is called through a stub that moves the arguments; its own entry stands beside.
    let (open, entry) = (pointer("_methodPtrAux"), pointer("_methodPtr"));
    let target = managed.reference(place, &["_target"]).unwrap_or(0);
    let method = open.or(entry).and_then(|entry| runtime.method_at_entry(entry));
    Call {
        target: if open.is_some() && target == delegate.address { 0 } else { target },
        method: method.map(|method| method.address),
    }
}
