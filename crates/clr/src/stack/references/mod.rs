//! The references in a thread's stack.
//!
//! Which frames report follows `StackFrameIterator::Filter` in `vm/stackwalk.cpp` and `EECodeManager::EnumGcRefs` in
//! `vm/eetwain.cpp` (dotnet/runtime v8.0.0 to v10.0.14, dotnet/coreclr v3.1.23), which the DAC uses, too: a funclet that
//! is no filter reports what its method has, frames between it and its method's own frame were unwound by the exception and
//! report nothing, and the method's own frame reports nothing either, because its funclet did. The frames below a
//! filter are alive, its method's own among them, which reports what both have.

mod frame;
mod protected;

use std::ops::Range;

use serde::{Serialize, Serializer};

use super::End;
use super::explicit::ExplicitKind;
use super::walk::{Keep, ManagedFrame, Walk, walk};
use crate::code::Funclet;
use crate::names::NameStyle;
use crate::runtime::Runtime;
use crate::threads::Thread;

/// Where a reference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferenceSlot {
    /// A register of a frame.
    Register(&'static str),
    /// A word of a frame, as its method addresses it.
    Stack {
        /// Register that the offset counts from; for a caller's stack pointer `rsp` or `sp` of the frame, which is
        /// where it can be written as an offset, too.
        base: &'static str,
        /// Bytes from the register's value.
        offset: i64,
    },
    /// A word that an explicit frame of the runtime tells of.
    Explicit(ExplicitKind),
    /// None: the frame's method belongs to an assembly or `DynamicMethod` that is alive as long as its code runs.
    Code,
}

impl std::fmt::Display for ReferenceSlot {
    /// `rbx`, `rbp-10` (hexadecimal, as dotnet-dump writes it), `GCFrame`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReferenceSlot::Register(name) => f.write_str(name),
            ReferenceSlot::Stack { base, offset } if *offset < 0 => {
                write!(f, "{base}-{:x}", offset.unsigned_abs())
            }
            ReferenceSlot::Stack { base, offset } => write!(f, "{base}+{offset:x}"),
            ReferenceSlot::Explicit(kind) => f.write_str(kind.name()),
            ReferenceSlot::Code => f.write_str("code"),
        }
    }
}

impl Serialize for ReferenceSlot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A reference in a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// Address of the word, 0 for a register.
    pub address: u64,
    /// What is in it: an object, an address inside one, or 0.
    pub value: u64,
    /// Where it is.
    pub slot: ReferenceSlot,
    /// It may point into an object, or to no object at all.
    pub interior: bool,
    /// The object must not move.
    pub pinned: bool,
    /// Instruction pointer of the frame; for an explicit frame its address.
    pub ip: u64,
    /// Stack pointer of the frame; for an explicit frame its address.
    pub sp: u64,
    /// `MethodDesc*` of the frame, 0 for an explicit frame.
    pub method: u64,
    /// It was not told to be a reference, but is in a place where one may be: an argument of a call that has not yet begun.
    pub conservative: bool,
}

/// The references in a thread's stack, null ones among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadReferences {
    /// Innermost frame first.
    pub references: Vec<Reference>,
    /// Why they may not be all, or not exact.
    pub problem: Option<String>,
}

/// A funclet's method whose own frame is looked for.
#[derive(Debug, Clone, Copy)]
struct Parent {
    start: u64,
    /// Its function, when it is known: the method's first, or a funclet that the sought one lies in.
    function: Option<u64>,
    fp: Option<u64>,
    handling: Handling,
}

impl Parent {
    /// All functions of a method's frame share its frame pointer.
    fn is(&self, frame: &ManagedFrame) -> bool {
        let fp = frame.context.fp();
        frame.code.start == self.start
            && fp.is_some()
            && fp == self.fp
            && self.function.is_none_or(|function| function == frame.code.function_start)
    }
}

/// Where the managed frames of the exception handling are, seen from a frame above a funclet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handling {
    Ahead,
    Here,
    Past,
}

impl Runtime<'_> {
    /// The references in a managed thread's stack and registers.
    #[must_use]
    pub fn stack_references(&self, thread: &Thread) -> ThreadReferences {
        let walk = walk(self, thread, Keep::References);
        let mut found = ThreadReferences { references: Vec::new(), problem: None };
        if !walk.end.is_complete() {
            found.problem = Some(walk.end.to_string());
        }
        if walk.end == End::NoRegisters {
            return found;
        }
        let unwound = self.frames(&walk, &mut found);
        for explicit in &walk.chain {
            if unwound.iter().any(|part| part.contains(&explicit.address)) {
                continue;
            }
            self.protected(*explicit, &mut found);
            self.arguments(*explicit, &mut found);
        }
        self.native_frames(thread, &mut found);
        found
    }

    /// Returns the parts of the stack between funclets and their methods' own frames, where explicit frames report as little
    /// as managed ones.
    fn frames(&self, walk: &Walk, found: &mut ThreadReferences) -> Vec<Range<u64>> {
        let mut parent: Option<Parent> = None;
        let mut unwound: Vec<Range<u64>> = Vec::new();
        for frame in &walk.managed {
            if let Some(sought) = &mut parent
                && !sought.is(frame)
            {
                // The managed part of the exception handling called the funclet and is alive.
                sought.handling = match sought.handling {
                    Handling::Ahead => self.handles_exceptions(frame),
                    Handling::Here if !frame.from_native => Handling::Here,
                    _ => Handling::Past,
                };
                if sought.handling == Handling::Here {
                    self.report(frame, false, found);
                }
                continue;
            }
            let of_funclet = parent.take().is_some();
            if let Some(part) = unwound.last_mut().filter(|_| of_funclet) {
                part.end = frame.caller.sp();
            }
            let funclet = self.funclet(&frame.code).unwrap_or_else(|error| {
                found.problem.get_or_insert(error.to_string());
                None
            });
            let filter = funclet.is_some_and(|funclet| funclet.filter);
            // A filter runs while all frames up to its method's own are still alive.
            if let Some(funclet) = funclet.filter(|funclet| !funclet.filter) {
                parent = Some(self.parent(frame, funclet));
                unwound.push(frame.caller.sp()..u64::MAX);
            }
            if !of_funclet || self.parent_reports(frame) {
                self.report(frame, filter, found);
            }
        }
        unwound
    }

    fn parent(&self, frame: &ManagedFrame, funclet: Funclet) -> Parent {
        let function = funclet.tried.and_then(|tried| self.method_code(tried).ok().flatten());
        Parent {
            start: frame.code.start,
            function: function.map(|code| code.function_start),
            fp: frame.context.fp(),
            handling: Handling::Ahead,
        }
    }

    fn report(&self, frame: &ManagedFrame, filter: bool, found: &mut ThreadReferences) {
        if let Err(error) = self.frame(frame, filter, found) {
            found.problem.get_or_insert(format!("{error} ({:#x})", frame.context.ip));
        }
        self.code(frame, found);
    }

    /// Whether the first frame behind a funclet is one of `System.Runtime.EH`: exceptions are handled by managed code
    /// since 9, and until 10 its frames stay on the stack while a handler runs.
    fn handles_exceptions(&self, frame: &ManagedFrame) -> Handling {
        let name = || {
            let method = self.method(frame.code.method).ok()?;
            Some(self.type_name(method.table, NameStyle::Runtime))
        };
        if self.major() >= 9 && name().is_some_and(|name| name == "System.Runtime.EH") {
            Handling::Here
        } else {
            Handling::Past
        }
    }
}
