//! Tasks and state machines of async methods, and what goes on when one completes.
//!
//! Source: `System.Threading.Tasks.Task` (`Task.cs`, `TaskContinuation.cs`), `AsyncTaskMethodBuilderT.cs`,
//! `PoolingAsyncValueTaskMethodBuilderT.cs`, `AsyncMethodBuilderCore.cs` of System.Private.CoreLib 3.1 to 10.0.

use dnd_clr::{Object, Runtime};
use rustc_hash::FxHashMap;

use crate::delegates;
use crate::managed::{Managed, Place};

/// `m_stateFlags` of a task.
pub(crate) mod flags {
    pub(crate) const STARTED: u32 = 0x1_0000;
    pub(crate) const DELEGATE_INVOKED: u32 = 0x2_0000;
    pub(crate) const FAULTED: u32 = 0x20_0000;
    pub(crate) const CANCELED: u32 = 0x40_0000;
    pub(crate) const WAITING_ON_CHILDREN: u32 = 0x80_0000;
    pub(crate) const RAN_TO_COMPLETION: u32 = 0x100_0000;
    pub(crate) const WAITING_FOR_ACTIVATION: u32 = 0x200_0000;
    pub(crate) const COMPLETED: u32 = FAULTED | CANCELED | RAN_TO_COMPLETION;
}

/// `Task.Status` of these flags.
pub(crate) fn status(state: u32) -> &'static str {
    let first = [
        (flags::FAULTED, "Faulted"),
        (flags::CANCELED, "Canceled"),
        (flags::RAN_TO_COMPLETION, "RanToCompletion"),
        (flags::WAITING_ON_CHILDREN, "WaitingForChildrenToComplete"),
        (flags::DELEGATE_INVOKED, "Running"),
        (flags::STARTED, "WaitingToRun"),
        (flags::WAITING_FOR_ACTIVATION, "WaitingForActivation"),
    ];
    first.into_iter().find(|(flag, _)| state & flag != 0).map_or("Created", |(_, name)| name)
}

/// What an object is to an async stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A task.
    Task,
    /// A task that holds the state machine of an async method.
    Box,
    /// The same for a pooled `ValueTask`: no task.
    PooledBox,
}

/// Tells kinds of types apart; remembers them.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    known: FxHashMap<u64, Option<Kind>>,
}

impl Kinds {
    pub(crate) fn of(&mut self, managed: &mut Managed<'_>, table: u64) -> Option<Kind> {
        *self.known.entry(table).or_insert_with(|| {
            let name = managed.name(table);
            let boxed = name.contains("StateMachineBox<")
                && managed.fields(table).iter().any(|field| field.name == "StateMachine");
            match (boxed, is_task(managed, table)) {
                (true, true) => Some(Kind::Box),
                (true, false) => Some(Kind::PooledBox),
                (false, true) => Some(Kind::Task),
                (false, false) => None,
            }
        })
    }
}

/// Whether a type is `Task` or derived from it.
pub(crate) fn is_task(managed: &mut Managed<'_>, table: u64) -> bool {
    managed.is_a(table, |name| name == "System.Threading.Tasks.Task")
}

/// The flags of a task.
pub(crate) fn state_flags(managed: &mut Managed<'_>, task: &Object) -> Option<u32> {
    let flags = managed.number(Place::of(task), &["m_stateFlags", "_stateFlags"])?;
    u32::try_from(flags & i64::from(u32::MAX)).ok()
}

/// The state machine in a box: a struct inside it, or (debug builds) an object.
pub(crate) fn state_machine(managed: &mut Managed<'_>, boxed: &Object) -> Option<Place> {
    let place = Place::of(boxed);
    let machine = managed.inside(place, &["StateMachine"]);
    machine.or_else(|| managed.follow(place, &["StateMachine"]).as_ref().map(Place::of))
}

/// Number of the `await` that a state machine stands at; negative when it stands at none.
pub(crate) fn await_state(managed: &mut Managed<'_>, machine: Place) -> Option<i64> {
    managed.number(machine, &["<>1__state"])
}

/// Continuations of a task; more is damage.
const MAX_CONTINUATIONS: usize = 1 << 16;
/// Wrappers around a continuation.
const MAX_WRAPPERS: usize = 8;

/// What goes on when a task completes: tasks and boxes.
pub(crate) fn continuations(
    runtime: &Runtime<'_>,
    managed: &mut Managed<'_>,
    kinds: &mut Kinds,
    object: &Object,
    kind: Kind,
) -> Vec<u64> {
    let mut found = Vec::new();
    // A pooled box keeps who awaits it in a struct of its own, which is not looked into.
    let next = match kind {
        Kind::PooledBox => None,
        Kind::Task | Kind::Box => {
            managed.follow(Place::of(object), &["m_continuationObject", "_continuationObject"])
        }
    };
    let Some(next) = next else { return found };
    if &*managed.name(next.table) == "System.Collections.Generic.List<System.Object>" {
        let place = Place::of(&next);
        let size = managed.number(place, &["_size"]).unwrap_or(0);
        let items = managed.follow(place, &["_items"]);
        if let Some(vector) = items.and_then(|items| managed.vector(&items)) {
            let size = u32::try_from(size).unwrap_or(0).min(vector.count).min(MAX_CONTINUATIONS as u32);
            for index in 0..size {
                let item = runtime.target().u64(vector.element(index).data).unwrap_or(0);
                if let Some(item) = managed.object(item) {
                    found.extend(resolve(runtime, managed, kinds, item));
                }
            }
        }
    } else {
        found.extend(resolve(runtime, managed, kinds, next));
    }
    found.dedup();
    found
}

/// The task or box behind a continuation.
fn resolve(
    runtime: &Runtime<'_>,
    managed: &mut Managed<'_>,
    kinds: &mut Kinds,
    continuation: Object,
) -> Option<u64> {
    let mut at = continuation;
    for _ in 0..MAX_WRAPPERS {
        if kinds.of(managed, at.table).is_some() {
            return Some(at.address);
        }
        let place = Place::of(&at);
        at = if delegates::is_delegate(managed, at.table) {
            let target = delegates::calls(runtime, managed, &at).first()?.target;
            managed.object(target)?
        } else {
            // `ContinueWith` has the task that it made, `await` an action, and a wrapper of an action the inner one.
            managed.follow(
                place,
                &["m_task", "_task", "m_action", "_action", "_continuation", "m_continuation"],
            )?
        };
    }
    None
}
