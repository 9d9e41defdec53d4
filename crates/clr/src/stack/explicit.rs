//! The explicit frames that the runtime pushes where managed code calls into it: a chain from the thread's newest to its
//! oldest. They are how the runtime itself gets over native code, so they also lead through code without unwind
//! tables.
//!
//! Sources: `vm/frames.h`, `vm/FrameTypes.h` (dotnet/runtime v10.0.12: frames begin with an identifier),
//! `vm/amd64/cgencpu.h`, `vm/arm64/cgencpu.h`; before 10 frames begin with their vtable, whose addresses stand in
//! `g_dacTable` in the order of `inc/vptr_list.h` (v8.0.0, v9.0.5; dotnet/coreclr v3.1.23).

use dnd_memory::{Arch, Memory};
use serde::Serialize;

use super::context::Context;
use crate::layout::FrameKinds;
use crate::runtime::Runtime;
use crate::threads::Thread;

/// End of the chain.
const TOP: u64 = u64::MAX;
/// Frames of one thread; recursion through the runtime makes many.
const MAX_FRAMES: usize = 1 << 16;

macro_rules! kinds {
    ($($name:ident),* $(,)?) => {
        /// Kinds of explicit frames, named as in the runtime's source.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        #[allow(missing_docs, non_camel_case_types, reason = "the names are those of the runtime")]
        pub enum ExplicitKind { $($name),*, Unknown }

        impl ExplicitKind {
            /// Its name, for example `InlinedCallFrame`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Unknown => "unknown frame",
                }
            }
        }
    };
}

kinds!(
    CallCountingHelperFrame,
    DebuggerClassInitMarkFrame,
    DebuggerExitFrame,
    DebuggerSecurityCodeMarkFrame,
    DebuggerU2MCatchHandlerFrame,
    DynamicHelperFrame,
    ExceptionFilterFrame,
    ExternalMethodFrame,
    FaultingExceptionFrame,
    FuncEvalFrame,
    GCFrame,
    HelperMethodFrame,
    HelperMethodFrame_1OBJ,
    HelperMethodFrame_2OBJ,
    HelperMethodFrame_3OBJ,
    HelperMethodFrame_PROTECTOBJ,
    HijackFrame,
    InlinedCallFrame,
    MulticastFrame,
    PInvokeCalliFrame,
    PrestubMethodFrame,
    ProtectByRefsFrame,
    ProtectValueClassFrame,
    RedirectedThreadFrame,
    ResumableFrame,
    SoftwareExceptionFrame,
    StubDispatchFrame,
);

/// An explicit frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Explicit {
    pub(crate) address: u64,
    pub(crate) kind: ExplicitKind,
}

/// What an explicit frame says of the managed frame that called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resume {
    pub(crate) context: Context,
    /// The managed frame stands between two instructions of its own, with all registers as they were.
    pub(crate) active: bool,
}

/// The thread's chain, newest first; `false` when it ends in something that can't be right.
pub(crate) fn chain(runtime: &Runtime<'_>, thread: &Thread) -> (Vec<Explicit>, bool) {
    let memory = runtime.target();
    let mut list: Vec<Explicit> = Vec::new();
    let mut at = thread.frame;
    while at != TOP && at != 0 {
        // Older frames lie at higher addresses, but for those of a signal handler on a stack of its own.
        let in_order = list.last().is_none_or(|last| is_above(thread, last.address, at));
        let (Ok(first), Ok(next)) = (memory.u64(at), memory.u64(at.wrapping_add(8))) else {
            return (list, false);
        };
        if !in_order || list.len() >= MAX_FRAMES {
            return (list, false);
        }
        list.push(Explicit { address: at, kind: kind(runtime, first) });
        at = next;
    }
    (list, true)
}

/// Whether `older` is older than `newer`, both places of a thread's stack: above it, or on the thread's own stack where
/// `newer` is on the one that signal handlers have for themselves (after a stack overflow).
pub(crate) fn is_above(thread: &Thread, newer: u64, older: u64) -> bool {
    let own = thread.stack_limit..thread.stack_base;
    older > newer || own.contains(&older) && !own.contains(&newer)
}

fn kind(runtime: &Runtime<'_>, first: u64) -> ExplicitKind {
    let of = |kinds: &[ExplicitKind], index: Option<u64>| {
        let index = index.and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| kinds.get(index)).copied().unwrap_or(ExplicitKind::Unknown)
    };
    match runtime.layout().frames.kinds {
        FrameKinds::Identifiers(kinds) => of(kinds, first.checked_sub(1)),
        FrameKinds::Vtables { from_end, kinds } => {
            let index = runtime.vtables().iter().rev().take(from_end).position(|&vtable| vtable == first);
            of(kinds, index.and_then(|index| from_end.checked_sub(index + 1)).map(|index| index as u64))
        }
    }
}

/// Registers that `CalleeSavedRegisters` holds, in its order.
fn callee_saved(arch: Arch) -> &'static [usize] {
    match arch {
        // r12 r13 r14 r15 rbx rbp
        Arch::X64 => &[12, 13, 14, 15, 3, 5],
        // x29 x30 x19 … x28
        Arch::Arm64 => &[29, 30, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28],
    }
}

/// Registers of a `MachState`, in its order.
fn helper_saved(arch: Arch) -> &'static [usize] {
    match arch {
        Arch::X64 => callee_saved(arch),
        Arch::Arm64 => &[19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29],
    }
}

impl Explicit {
    /// Whether it is the frame of a P/Invoke that is being executed.
    pub(crate) fn active_call(&self, runtime: &Runtime<'_>) -> bool {
        self.kind == ExplicitKind::InlinedCallFrame
            && self.word(runtime, runtime.layout().frames.call_site + 8).is_some_and(|address| address != 0)
    }

    fn word(&self, runtime: &Runtime<'_>, offset: u64) -> Option<u64> {
        runtime.target().u64(self.address.wrapping_add(offset)).ok()
    }

    /// Where the managed code goes on when this frame's call returns; `None` for frames that no managed code made.
    pub(crate) fn return_address(&self, runtime: &Runtime<'_>) -> Option<u64> {
        let layout = &runtime.layout().frames;
        let address = match self.kind {
            ExplicitKind::InlinedCallFrame => self.word(runtime, layout.call_site + 8),
            ExplicitKind::HijackFrame | ExplicitKind::SoftwareExceptionFrame => self.word(runtime, 16),
            ExplicitKind::FaultingExceptionFrame
            | ExplicitKind::ResumableFrame
            | ExplicitKind::RedirectedThreadFrame => self.resume(runtime).map(|resume| resume.context.ip),
            _ if self.is_transition() => {
                let block = self.word(runtime, 16)?;
                runtime.target().u64(block.wrapping_add(layout.block_return)).ok()
            }
            _ => None,
        };
        address.filter(|&address| address != 0)
    }

    /// It has a transition block: the registers that the caller passed arguments in and those it wants back.
    fn is_transition(&self) -> bool {
        matches!(
            self.kind,
            ExplicitKind::PrestubMethodFrame
                | ExplicitKind::StubDispatchFrame
                | ExplicitKind::CallCountingHelperFrame
                | ExplicitKind::ExternalMethodFrame
                | ExplicitKind::DynamicHelperFrame
                | ExplicitKind::PInvokeCalliFrame
        )
    }

    /// Where a call that has not begun yet holds the registers with its arguments, or a method that has returned the
    /// registers with its result: address, number of words.
    pub(crate) fn arguments(&self, runtime: &Runtime<'_>) -> Option<(u64, u64)> {
        let arch = runtime.target().arch();
        match self.kind {
            // On x64 the six argument registers begin the block, on arm64 x8 and x0 to x7 end it.
            _ if self.is_transition() => {
                let block = self.word(runtime, 16)?;
                Some(match arch {
                    Arch::X64 => (block, 6),
                    Arch::Arm64 => (block.wrapping_add(runtime.layout().frames.block_size - 72), 9),
                })
            }
            ExplicitKind::HijackFrame => {
                let at = match arch {
                    Arch::X64 => 0,
                    Arch::Arm64 => runtime.layout().frames.block_saved + 96,
                };
                Some((self.word(runtime, 32)?.wrapping_add(at), 2))
            }
            _ => None,
        }
    }

    /// Its managed frame had been interrupted and stands between two instructions (`FRAME_ATTR_RESUMABLE`).
    pub(crate) fn is_resumable(&self) -> bool {
        matches!(
            self.kind,
            ExplicitKind::ResumableFrame | ExplicitKind::RedirectedThreadFrame | ExplicitKind::HijackFrame
        )
    }

    /// It was made by an exception: its managed frame does not go on (`FRAME_ATTR_EXCEPTION`); the second says that the
    /// exception came from the processor, not from a call (`FRAME_ATTR_FAULTED`).
    pub(crate) fn exception(&self, runtime: &Runtime<'_>) -> (bool, bool) {
        const EXCEPTION: u32 = 1;
        match self.kind {
            ExplicitKind::FaultingExceptionFrame => (true, true),
            ExplicitKind::SoftwareExceptionFrame => (true, false),
            _ if self.is_helper() => {
                // `HelperMethodFrame::m_FrameAttribs`, behind the method.
                let attributes = runtime.target().u32(self.address.wrapping_add(24)).unwrap_or(0);
                (attributes & EXCEPTION != 0, false)
            }
            _ => (false, false),
        }
    }

    fn is_helper(&self) -> bool {
        matches!(
            self.kind,
            ExplicitKind::HelperMethodFrame
                | ExplicitKind::HelperMethodFrame_1OBJ
                | ExplicitKind::HelperMethodFrame_2OBJ
                | ExplicitKind::HelperMethodFrame_3OBJ
                | ExplicitKind::HelperMethodFrame_PROTECTOBJ
        )
    }

    /// The registers that the runtime has worked out for a `HelperMethodFrame`, which it does when an exception or a
    /// collection first needs them; from then on this is where a collection writes the new addresses of objects.
    fn helper_state(&self, runtime: &Runtime<'_>) -> Option<Context> {
        let l = runtime.layout().frames.helper_state?;
        let word = |at: u64| self.word(runtime, at);
        let arch = runtime.target().arch();
        // On x64 a pointer, on arm64 a number of four bytes.
        let mask = if arch == Arch::X64 { u64::MAX } else { u32::MAX.into() };
        word(l.known).filter(|&known| known & mask != 0)?;
        let mut context = Context::new(arch, word(l.ip)?, word(l.sp)?);
        for (i, &register) in (0..).zip(helper_saved(arch)) {
            let value = match word(l.places + 8 * i)? {
                0 => word(l.values + 8 * i)?,
                place => runtime.target().u64(place).ok()?,
            };
            context.set(register, value);
        }
        Some(context)
    }

    /// Whether it is a `HelperMethodFrame` of which the runtime has not worked out yet what called it.
    pub(crate) fn leads_nowhere_yet(&self, runtime: &Runtime<'_>) -> bool {
        self.is_helper() && self.helper_state(runtime).is_none()
    }

    /// Where in the runtime a `HelperMethodFrame` was made: what the runtime itself would begin with.
    pub(crate) fn captured(&self, runtime: &Runtime<'_>) -> Option<Context> {
        let at = runtime.layout().frames.helper_state?.captured?;
        let arch = runtime.target().arch();
        let word = |at: u64| self.word(runtime, at);
        let mut context = Context::new(arch, word(at.ip)?, word(at.sp)?);
        saved(runtime, &mut context, helper_saved(arch), self.address.wrapping_add(at.registers))?;
        Some(context)
    }

    /// The method that it calls, where it says so.
    pub(crate) fn method(&self, runtime: &Runtime<'_>) -> Option<u64> {
        let method = match self.kind {
            // The low bit marks a value that is no method; small numbers are marks of the exception handling.
            ExplicitKind::InlinedCallFrame if self.active_call(runtime) => {
                self.word(runtime, 16).filter(|datum| datum & 1 == 0 && *datum > 0xffff)
            }
            ExplicitKind::PrestubMethodFrame
            | ExplicitKind::CallCountingHelperFrame
            | ExplicitKind::ExternalMethodFrame
            | ExplicitKind::StubDispatchFrame => self.word(runtime, 24),
            _ => None,
        };
        method.filter(|&method| method != 0 && runtime.method(method).is_ok())
    }

    /// The registers of the managed frame that this frame's call returns to.
    pub(crate) fn resume(&self, runtime: &Runtime<'_>) -> Option<Resume> {
        let layout = &runtime.layout().frames;
        let arch = runtime.target().arch();
        let context = match self.kind {
            ExplicitKind::InlinedCallFrame => {
                let at = layout.call_site;
                let mut context = Context::new(arch, self.word(runtime, at + 8)?, self.word(runtime, at)?);
                context.set(context.fp_number(), self.word(runtime, at + 16)?);
                context
            }
            ExplicitKind::ResumableFrame | ExplicitKind::RedirectedThreadFrame => {
                windows_context(runtime.target(), arch, self.word(runtime, 16)?)?
            }
            ExplicitKind::FaultingExceptionFrame => {
                windows_context(runtime.target(), arch, self.address.wrapping_add(layout.faulting_context))?
            }
            ExplicitKind::SoftwareExceptionFrame => {
                windows_context(runtime.target(), arch, self.address.wrapping_add(layout.software_context?))?
            }
            ExplicitKind::HijackFrame => {
                let arguments = self.word(runtime, 32)?;
                let sp = arguments.wrapping_add(layout.hijack_size);
                let mut context = Context::new(arch, self.word(runtime, 16)?, sp);
                saved(
                    runtime,
                    &mut context,
                    callee_saved(arch),
                    arguments.wrapping_add(layout.hijack_saved),
                )?;
                // What the method that was left returned: rax and rdx, or x0 and x1.
                let (at, results) = self.arguments(runtime)?;
                for (i, number) in (0..results.min(2)).zip([0, if arch == Arch::X64 { 2 } else { 1 }]) {
                    context.set(number, runtime.target().u64(at.wrapping_add(8 * i)).ok()?);
                }
                context
            }
            _ if self.is_transition() => {
                let block = self.word(runtime, 16)?;
                let ip = runtime.target().u64(block.wrapping_add(layout.block_return)).ok()?;
                let mut context = Context::new(arch, ip, block.wrapping_add(layout.block_size));
                saved(runtime, &mut context, callee_saved(arch), block.wrapping_add(layout.block_saved))?;
                context
            }
            _ if self.is_helper() => self.helper_state(runtime)?,
            _ => return None,
        };
        (context.ip != 0 && context.sp() != 0).then_some(Resume { context, active: self.is_resumable() })
    }
}

/// Takes registers from words that stand one behind the other.
fn saved(runtime: &Runtime<'_>, context: &mut Context, registers: &[usize], at: u64) -> Option<()> {
    for (i, &register) in registers.iter().enumerate() {
        context.set(register, runtime.target().u64(at.wrapping_add(8 * i as u64)).ok()?);
    }
    Some(())
}

/// A `CONTEXT` of Windows, which the runtime keeps registers in on every system: on x64 rax rcx rdx rbx rsp rbp rsi rdi
/// r8 … r15 rip at 120; on arm64 x0 … x30 sp pc at 8.
fn windows_context(memory: &dyn Memory, arch: Arch, at: u64) -> Option<Context> {
    let (first, count) = match arch {
        Arch::X64 => (120, 16),
        Arch::Arm64 => (8, 32),
    };
    let word = |i: usize| memory.u64(at.wrapping_add(first + 8 * i as u64)).ok();
    let mut context = Context::new(arch, word(count)?, 0);
    for number in 0..count {
        context.set(number, word(number)?);
    }
    Some(context)
}
