//! Stacks of managed threads, frame by frame, and the references in them.
//!
//! A walk begins with a thread's registers. Managed frames are unwound by the codes that the JIT and crossgen write
//! (`unwind_x64`, `unwind_arm64`), native ones by DWARF call frame information where there is any (`cfi`), else the walk
//! goes on at the next explicit frame that the runtime pushed (`explicit`). Which way a frame was found stands in it.
//! What is live in a frame is read from the method's GC info (`gc_info`), by the rules of `roots`.
//!
//! Sources: `vm/stackwalk.cpp`, `vm/frames.h`, `vm/eetwain.cpp`, `vm/gcinfodecoder.cpp` of dotnet/runtime v8.0.0 to v10.0.14
//! and dotnet/coreclr v3.1.23; each file names its own.

pub(crate) mod cfi;
mod context;
mod explicit;
mod gc_info;
mod references;
mod roots;
pub(crate) mod unwind_arm64;
#[cfg(test)]
mod unwind_tests;
pub(crate) mod unwind_x64;
mod walk;
mod walk_native;

use serde::Serialize;

pub(crate) use cfi::UnwindTables;
pub use context::Context;
pub use explicit::ExplicitKind;
pub use gc_info::{Base, GcInfo, GcInfoError, Live, LiveSet, Place, Stands};
pub use references::{Reference, ReferenceSlot, ThreadReferences};
pub(crate) use roots::collect as collect_roots;
pub use roots::{StackProblem, StackRootSet};
pub(crate) use unwind_arm64::header as xdata_header;

use crate::code::Code;

/// How a frame was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FoundBy {
    /// It is where the thread stands.
    Context,
    /// By the unwind codes of the managed frame below it.
    UnwindCodes,
    /// By the DWARF call frame information of the native frame below it.
    CallFrameInformation,
    /// By an explicit frame of the runtime.
    FrameChain,
    /// By the return address at the top of the stack: the frame below it is a stub that has pushed nothing.
    ReturnAddress,
    /// By the chain of frame pointers: callee-saved registers are not known.
    FramePointer,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Managed code.
    Managed(Code),
    /// An explicit frame of the runtime: no code of its own.
    Explicit {
        /// Which kind.
        kind: ExplicitKind,
        /// Its address.
        address: u64,
        /// `MethodDesc*` of the method that is called, where it says so.
        method: Option<u64>,
    },
    /// Native code, or a stub of the runtime.
    Native,
}

/// A frame of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Instruction pointer. For an explicit frame that of the frame that it stands in front of.
    pub ip: u64,
    /// Stack pointer; for an explicit frame as `ip`.
    pub sp: u64,
    /// What it is.
    pub kind: FrameKind,
    /// How it was found.
    pub found_by: FoundBy,
    /// It stands between two instructions of its own, not behind a call: its instruction pointer is no return address.
    pub active: bool,
}

impl Frame {
    /// An address inside the instruction that the frame stands at: that of its call, where it stands behind one.
    #[must_use]
    pub fn at(&self) -> u64 {
        if self.active { self.ip } else { self.ip.wrapping_sub(1) }
    }
}

/// Why a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum End {
    /// At the thread's first frame.
    Bottom,
    /// In native code that can't be unwound, and the runtime's own chain tells of no further managed frame.
    ChainEnd,
    /// The thread's registers are not in the dump.
    NoRegisters,
    /// In native code that can't be unwound, in front of managed frames if there are any: the thread holds off the GC,
    /// so the runtime's own chain may not tell of them.
    NoUnwindInformation {
        /// Where.
        ip: u64,
    },
    /// A managed frame whose unwind codes or stack are missing or damaged.
    Broken {
        /// Where.
        ip: u64,
    },
    /// The tables that tell what code is at an address are not in the dump.
    UnknownCode {
        /// Where.
        ip: u64,
    },
    /// Frames would go on for ever.
    NotGrowing {
        /// Where.
        ip: u64,
    },
    /// There are more frames than are read.
    TooManyFrames,
}

impl End {
    /// No managed frame is missing.
    #[must_use]
    pub fn is_complete(self) -> bool {
        matches!(self, End::Bottom | End::ChainEnd)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Bottom => f.write_str("the thread's first frame"),
            End::ChainEnd => f.write_str("the end of the runtime's frame chain"),
            End::NoRegisters => f.write_str("the thread's registers are not in the dump"),
            End::NoUnwindInformation { ip } => {
                write!(f, "no unwind information for the native code at {ip:#x}")
            }
            End::Broken { ip } => write!(f, "the managed frame at {ip:#x} can't be unwound"),
            End::UnknownCode { ip } => write!(f, "the tables of the code at {ip:#x} are not in the dump"),
            End::NotGrowing { ip } => write!(f, "the stack pointer does not grow at {ip:#x}"),
            End::TooManyFrames => f.write_str("too many frames"),
        }
    }
}

/// The stack of a thread, innermost frame first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Its frames.
    pub frames: Vec<Frame>,
    /// Registers of each of these frames, for a frame of the runtime those of the native code in front of it; empty
    /// when they were not asked for.
    pub contexts: Vec<Context>,
    /// Why there are no more.
    pub end: End,
}

impl Stack {
    /// Its managed frames with their code.
    pub fn managed(&self) -> impl Iterator<Item = (&Frame, &Code)> {
        self.frames.iter().filter_map(|frame| match &frame.kind {
            FrameKind::Managed(code) => Some((frame, code)),
            _ => None,
        })
    }
}
