//! Roots: the places from which the GC begins to mark.

use dnd_contract::Addr;
use serde::Serialize;

use crate::handles::HandleKind;
use crate::stack::ReferenceSlot;

/// What kind of place a root is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum RootKind {
    /// A GC handle that keeps its object alive.
    Handle {
        /// Which kind of handle.
        handle: HandleKind,
    },
    /// The object's finalizer waits to be run.
    FinalizerQueue,
    /// A thread static of .NET 9 and later.
    ThreadStatic {
        /// Operating system id of the thread.
        thread: u32,
    },
    /// A register or a word of a thread's stack.
    Stack {
        /// Operating system id of the thread.
        thread: u32,
        /// The register, when it is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        register: Option<&'static str>,
        /// `true`: any word that looks like a pointer to an object was taken, so this may be no reference at all.
        conservative: bool,
        /// The value points into the object, not to its start.
        interior: bool,
        /// The frame that holds it; none where every word was taken.
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        place: Option<StackPlace>,
    },
}

/// Where in a stack an exact root is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StackPlace {
    /// Instruction pointer of the frame; address of an explicit frame.
    pub ip: Addr,
    /// Stack pointer of the frame; address of an explicit frame.
    pub sp: Addr,
    /// `MethodDesc*` of the frame; none for an explicit frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Addr>,
    /// `rbp-10`, `rsp+28` (hexadecimal), a register, the name of an explicit frame, or `code` for what keeps the code
    /// itself.
    pub slot: ReferenceSlot,
    /// The object must not move.
    pub pinned: bool,
}

/// A root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The place: address of the handle, of the queue's entry, of the stack word; 0 for a register.
    pub address: u64,
    /// The object.
    pub object: u64,
    /// What kind of place it is.
    pub kind: RootKind,
}

impl Root {
    /// It is a stack root that may be none.
    #[must_use]
    pub fn is_conservative(&self) -> bool {
        matches!(self.kind, RootKind::Stack { conservative: true, .. })
    }
}

impl Serialize for Root {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape<'a> {
            address: Addr,
            object: Addr,
            #[serde(flatten)]
            kind: &'a RootKind,
        }
        Shape { address: Addr(self.address), object: Addr(self.object), kind: &self.kind }
            .serialize(serializer)
    }
}
