//! The walk over a thread's stack.
//!
//! The order of explicit and managed frames, and which managed frame counts as interrupted, follow `StackFrameIterator` in
//! `vm/stackwalk.cpp`: an explicit frame is met before the managed frame whose part of the stack it lies in.

use std::cell::Cell;

use dnd_memory::Arch;

use super::context::Context;
use super::explicit::{self, Explicit};
use super::unwind_x64::Failure;
use super::{End, FoundBy, Frame, FrameKind, Stack, unwind_arm64, unwind_x64};
use crate::code::Code;
use crate::runtime::Runtime;
use crate::threads::Thread;

/// Frames of a stack. A stack overflow has some hundred thousand.
const MAX_FRAMES: usize = 1 << 21;
/// Native frames in a row.
pub(super) const MAX_NATIVE: usize = 1 << 14;
/// Words of a `Thread` that may hold the return address that a hijack replaced.
const THREAD_WORDS: u64 = 256;
/// `TS_Hijacked`.
const HIJACKED: u32 = 0x80;

/// A managed frame with what is needed to find the references in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ManagedFrame {
    pub(super) code: Code,
    pub(super) context: Context,
    /// Registers of its caller.
    pub(super) caller: Context,
    /// It stands between two instructions, not behind a call.
    pub(super) active: bool,
    /// The frame below it is native.
    pub(super) from_native: bool,
    /// An exception was thrown in it: (it does not go on, the processor raised it).
    pub(super) exception: (bool, bool),
}

/// What a walk found.
pub(super) struct Walk {
    pub(super) frames: Vec<Frame>,
    /// Registers of each frame, if they were asked for.
    pub(super) contexts: Vec<Context>,
    /// What is needed to find references, if it was asked for.
    pub(super) managed: Vec<ManagedFrame>,
    /// Explicit frames, newest first.
    pub(super) chain: Vec<Explicit>,
    pub(super) end: End,
}

/// What to keep of each frame: registers are many bytes for the hundred thousands of frames of an overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Nothing else.
    Frames,
    /// The registers of all frames.
    Registers,
    /// What leads to the references in managed frames.
    References,
}

pub(super) struct Walker<'r, 't> {
    pub(super) runtime: &'r Runtime<'t>,
    pub(super) thread: &'r Thread,
    pub(super) frames: Vec<Frame>,
    pub(super) keep: Keep,
    pub(super) contexts: Vec<Context>,
    pub(super) managed: Vec<ManagedFrame>,
    /// A managed frame was met.
    pub(super) in_managed: bool,
    pub(super) chain: Vec<Explicit>,
    /// First explicit frame that was not met yet.
    pub(super) next: usize,
    /// The innermost frame of the native code that is being walked.
    pub(super) region: Context,
    /// First address whose code could not be looked up.
    pub(super) unknown: Cell<Option<u64>>,
    /// First native code whose managed callers could not be found, where the walk went on behind them.
    pub(super) lost: Option<u64>,
}

impl Runtime<'_> {
    /// The stack of a managed thread. Never fails: a stack that can't be read to its end says so.
    #[must_use]
    pub fn stack(&self, thread: &Thread) -> Stack {
        let walk = walk(self, thread, Keep::Frames);
        Stack { frames: walk.frames, contexts: walk.contexts, end: walk.end }
    }

    /// The same, with the registers of each frame.
    #[must_use]
    pub fn stack_with_registers(&self, thread: &Thread) -> Stack {
        let walk = walk(self, thread, Keep::Registers);
        Stack { frames: walk.frames, contexts: walk.contexts, end: walk.end }
    }
}

/// Walks a thread's stack.
pub(super) fn walk(runtime: &Runtime<'_>, thread: &Thread, keep: Keep) -> Walk {
    let (chain, _) = explicit::chain(runtime, thread);
    let nowhere = Context::new(runtime.target().arch(), 0, 0);
    let mut walker = Walker {
        runtime,
        thread,
        frames: Vec::new(),
        keep,
        contexts: Vec::new(),
        managed: Vec::new(),
        in_managed: false,
        chain,
        next: 0,
        region: nowhere,
        unknown: Cell::new(None),
        lost: None,
    };
    let os = runtime.target().threads().iter().find(|os| thread.os_id != 0 && os.tid == thread.os_id);
    let end = match os {
        Some(os) => match walker.run(Context::of_thread(&os.registers)) {
            end if end.is_complete() => match (walker.unknown.get(), walker.lost) {
                (Some(ip), _) => End::UnknownCode { ip },
                (None, Some(ip)) => End::NoUnwindInformation { ip },
                (None, None) => end,
            },
            end => end,
        },
        None => End::NoRegisters,
    };
    walker.rest();
    let Walker { frames, contexts, managed, chain, .. } = walker;
    Walk { frames, contexts, managed, chain, end }
}

impl<'r> Walker<'r, '_> {
    fn run(&mut self, first: Context) -> End {
        let mut context = first;
        let mut found_by = FoundBy::Context;
        // It stands between two instructions of its own.
        let mut active = true;
        let mut returned = false;
        let mut exception = (false, false);
        loop {
            if self.frames.len() >= MAX_FRAMES {
                return End::TooManyFrames;
            }
            if let Some(code) = self.code(&context, active) {
                let Ok(caller) = self.unwind(&context, &code, active) else {
                    self.push(context, FrameKind::Managed(code), found_by, active && !returned);
                    return End::Broken { ip: context.ip };
                };
                self.skipped(&context, caller.sp(), found_by);
                self.push(context, FrameKind::Managed(code), found_by, active && !returned);
                let from_native = found_by != FoundBy::UnwindCodes;
                self.in_managed = true;
                if self.keep == Keep::References {
                    self.managed.push(ManagedFrame { code, context, caller, active, from_native, exception });
                }
                if caller.ip == 0 {
                    return End::Bottom;
                }
                if caller.sp() <= context.sp()
                    && !(active && caller.ip != context.ip && caller.sp() == context.sp())
                {
                    return End::NotGrowing { ip: context.ip };
                }
                context = self.without_hijack(caller);
                (found_by, active, returned) = (FoundBy::UnwindCodes, false, false);
                exception = (false, false);
                continue;
            }
            match self.native(context, found_by, active) {
                Ok(entered) => {
                    context = entered.context;
                    (found_by, active, returned) = (entered.found_by, entered.active, entered.returned);
                    exception = entered.exception;
                }
                Err(end) => return end,
            }
        }
    }

    pub(super) fn push(&mut self, context: Context, kind: FrameKind, found_by: FoundBy, active: bool) {
        self.frames.push(Frame { ip: context.ip, sp: context.sp(), kind, found_by, active });
        if self.keep == Keep::Registers {
            self.contexts.push(context);
        }
    }

    /// The managed code that a frame stands in.
    pub(super) fn code(&self, context: &Context, active: bool) -> Option<Code> {
        // A return address may be that of the next function.
        let ip = if active { context.ip } else { context.ip.checked_sub(1)? };
        self.runtime.method_code(ip).unwrap_or_else(|_| {
            self.unknown.set(self.unknown.get().or(Some(context.ip)));
            None
        })
    }

    pub(super) fn unwind(&self, context: &Context, code: &Code, active: bool) -> Result<Context, Failure> {
        let memory = self.runtime.target();
        match context.arch() {
            Arch::X64 => {
                unwind_x64::unwind(memory, context, code.function_start, code.unwind, code.image, active)
            }
            Arch::Arm64 => unwind_arm64::unwind(memory, context, code.function_start, code.unwind, active),
        }
    }

    /// While the runtime suspends threads it may have replaced a return address by that of a stub of its own; the
    /// `Thread` holds the place and what stood there (`m_ppvHJRetAddrPtr`, `m_pvHJRetAddr`), next to each other.
    pub(super) fn without_hijack(&self, mut caller: Context) -> Context {
        if self.thread.state & HIJACKED == 0 || self.code(&caller, false).is_some() {
            return caller;
        }
        let memory = self.runtime.target();
        let place = match caller.arch() {
            Arch::X64 => caller.sp().wrapping_sub(8),
            // The link register was saved somewhere in the frame: the stub's address alone must do.
            Arch::Arm64 => 0,
        };
        let word = |i: u64| memory.u64(self.thread.address.wrapping_add(8 * i)).unwrap_or(0);
        for i in 1..THREAD_WORDS {
            let slot = word(i);
            let here = match caller.arch() {
                Arch::X64 => slot == place,
                Arch::Arm64 => {
                    slot < caller.sp() && slot > self.thread.stack_limit && memory.u64(slot) == Ok(caller.ip)
                }
            };
            if !here {
                continue;
            }
            for original in [word(i - 1), word(i + 1)] {
                let mut candidate = caller;
                candidate.ip = original;
                if self.code(&candidate, false).is_some() {
                    caller.ip = original;
                    return caller;
                }
            }
        }
        caller
    }

    /// Meets the explicit frames that lie in the part of the stack that a managed frame has, up to `end`.
    fn skipped(&mut self, context: &Context, end: u64, found_by: FoundBy) {
        while let Some(frame) = self.chain.get(self.next).filter(|frame| frame.address < end).copied() {
            self.meet(frame, context, found_by);
            self.next += 1;
        }
    }

    pub(super) fn meet(&mut self, frame: Explicit, before: &Context, found_by: FoundBy) {
        let kind = FrameKind::Explicit {
            kind: frame.kind,
            address: frame.address,
            method: frame.method(self.runtime),
        };
        self.push(*before, kind, found_by, false);
    }

    /// The explicit frames that are left when the walk ends.
    fn rest(&mut self) {
        let region = self.region;
        while let Some(frame) = self.chain.get(self.next).copied() {
            self.meet(frame, &region, FoundBy::FrameChain);
            self.next += 1;
        }
    }
}
