//! The walk over a thread's stack.
//!
//! The order of explicit and managed frames, and which managed frame counts as interrupted, follow `StackFrameIterator` in
//! `vm/stackwalk.cpp`: an explicit frame is met before the managed frame whose part of the stack it lies in.

use std::cell::Cell;

use dnd_memory::Arch;

use super::cfi::Caller;
use super::context::Context;
use super::explicit::{self, Explicit, Resume};
use super::unwind_x64::Failure;
use super::{End, ExplicitKind, FoundBy, Frame, FrameKind, Stack, unwind_arm64, unwind_x64};
use crate::code::{Code, CodeAt};
use crate::runtime::Runtime;
use crate::threads::Thread;

/// Frames of a stack. A stack overflow has some hundred thousand.
const MAX_FRAMES: usize = 1 << 21;
/// Native frames in a row.
const MAX_NATIVE: usize = 1 << 14;
/// Explicit frames to look at for the one that leads on; a few that lead nowhere may lie in between.
const MAX_AHEAD: usize = 1 << 10;
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
    pub(super) managed: Vec<ManagedFrame>,
    /// Explicit frames, newest first.
    pub(super) chain: Vec<Explicit>,
    pub(super) end: End,
}

struct Walker<'r, 't> {
    runtime: &'r Runtime<'t>,
    thread: &'r Thread,
    frames: Vec<Frame>,
    /// Registers of each frame; `None` when nobody wants them.
    contexts: Option<Vec<Context>>,
    managed: Vec<ManagedFrame>,
    chain: Vec<Explicit>,
    /// First explicit frame that was not met yet.
    next: usize,
    /// The innermost frame of the native code that is being walked.
    region: Context,
    /// First address whose code could not be looked up.
    unknown: Cell<Option<u64>>,
}

/// Where a region of native code leads.
struct Entered {
    context: Context,
    found_by: FoundBy,
    /// Interrupted by a signal, or known to be by its explicit frame.
    active: bool,
    /// Although it counts as interrupted, it stands behind a call: one that returned to the runtime instead.
    returned: bool,
    exception: (bool, bool),
}

impl Runtime<'_> {
    /// The stack of a managed thread. Never fails: a stack that can't be read to its end says so.
    #[must_use]
    pub fn stack(&self, thread: &Thread) -> Stack {
        let walk = walk(self, thread, false);
        Stack { frames: walk.frames, contexts: walk.contexts, end: walk.end }
    }

    /// The same, with the registers of each frame.
    #[must_use]
    pub fn stack_with_registers(&self, thread: &Thread) -> Stack {
        let walk = walk(self, thread, true);
        Stack { frames: walk.frames, contexts: walk.contexts, end: walk.end }
    }
}

/// Walks a thread's stack.
pub(super) fn walk(runtime: &Runtime<'_>, thread: &Thread, registers: bool) -> Walk {
    let (chain, _) = explicit::chain(runtime, thread);
    let nowhere = Context::new(runtime.target().arch(), 0, 0);
    let mut walker = Walker {
        runtime,
        thread,
        frames: Vec::new(),
        contexts: registers.then(Vec::new),
        managed: Vec::new(),
        chain,
        next: 0,
        region: nowhere,
        unknown: Cell::new(None),
    };
    let os = runtime.target().threads().iter().find(|os| thread.os_id != 0 && os.tid == thread.os_id);
    let end = match os {
        Some(os) => match walker.run(Context::of_thread(&os.registers)) {
            end if end.is_complete() => walker.unknown.get().map_or(end, |ip| End::UnknownCode { ip }),
            end => end,
        },
        None => End::NoRegisters,
    };
    walker.rest();
    let contexts = walker.contexts.unwrap_or_default();
    Walk { frames: walker.frames, contexts, managed: walker.managed, chain: walker.chain, end }
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
                self.managed.push(ManagedFrame { code, context, caller, active, from_native, exception });
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

    fn push(&mut self, context: Context, kind: FrameKind, found_by: FoundBy, active: bool) {
        self.frames.push(Frame { ip: context.ip, sp: context.sp(), kind, found_by, active });
        if let Some(contexts) = &mut self.contexts {
            contexts.push(context);
        }
    }

    /// The managed code that a frame stands in.
    fn code(&self, context: &Context, active: bool) -> Option<Code> {
        // A return address may be that of the next function.
        let ip = if active { context.ip } else { context.ip.checked_sub(1)? };
        self.runtime.method_code(ip).unwrap_or_else(|_| {
            self.unknown.set(self.unknown.get().or(Some(context.ip)));
            None
        })
    }

    fn unwind(&self, context: &Context, code: &Code, active: bool) -> Result<Context, Failure> {
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
    fn without_hijack(&self, mut caller: Context) -> Context {
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

    fn meet(&mut self, frame: Explicit, before: &Context, found_by: FoundBy) {
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

    /// From native code to the managed frame that called it.
    fn native(&mut self, from: Context, found_by: FoundBy, exact: bool) -> Result<Entered, End> {
        self.region = from;
        let before = self.frames.len();
        let by_cfi = self.by_cfi(from, found_by, exact);
        if let Ok(entered) = by_cfi {
            return Ok(self.through_chain(from, entered, before));
        }
        let Err(end) = by_cfi else { return Err(End::Bottom) };
        if let Some(entered) = self.by_chain(from) {
            return Ok(entered);
        }
        if let Some(entered) = self.by_frame_pointers(from) {
            return Ok(entered);
        }
        // Only in preemptive mode has the runtime seen to it that its chain leads to all managed frames.
        let chain_tells = !self.thread.cooperative || !self.managed.is_empty();
        Err(match end {
            End::NoUnwindInformation { .. } if chain_tells => End::ChainEnd,
            end => end,
        })
    }

    /// Steps over native frames with call frame information.
    fn by_cfi(&mut self, from: Context, found_by: FoundBy, exact: bool) -> Result<Entered, End> {
        let target = self.runtime.target();
        let tables = self.runtime.unwind_tables();
        let (mut context, mut found_by, mut exact) = (from, found_by, exact);
        for _ in 0..MAX_NATIVE {
            self.push(context, FrameKind::Native, found_by, exact);
            if context.ip == 0 {
                return Err(End::Bottom);
            }
            let caller = match tables.caller(target, &context, exact) {
                Some(caller) => caller,
                None => match self.behind_stub(&context, exact) {
                    Some(context) => {
                        let context = self.without_hijack(context);
                        return Ok(Entered {
                            context,
                            found_by: FoundBy::ReturnAddress,
                            active: false,
                            returned: false,
                            exception: (false, false),
                        });
                    }
                    None => match self.behind_jump(&context, exact) {
                        Some(context) => Caller { context, interrupted: false },
                        None => return Err(End::NoUnwindInformation { ip: context.ip }),
                    },
                },
            };
            if caller.context.ip == 0 {
                return Err(End::Bottom);
            }
            let same = caller.context.sp() == context.sp() && caller.context.ip == context.ip;
            if caller.context.sp() < context.sp() || same {
                return Err(End::NotGrowing { ip: context.ip });
            }
            context = caller.context;
            exact = caller.interrupted;
            found_by = FoundBy::CallFrameInformation;
            if self.code(&context, exact).is_some() {
                let exception = (false, false);
                return Ok(Entered { context, found_by, active: exact, returned: false, exception });
            }
        }
        Err(End::TooManyFrames)
    }

    /// Code made at run time that managed code has just called: it pushes nothing, so the return address is where the call
    /// left it.
    fn behind_stub(&self, context: &Context, exact: bool) -> Option<Context> {
        if !exact {
            return None;
        }
        let target = self.runtime.target();
        // Stubs; copies of the runtime's write barriers, which are patched at run time.
        let stub = matches!(self.runtime.code_at(context.ip), Ok(CodeAt::Stub));
        if !stub && self.runtime.unwind_tables().in_image(target, context.ip) {
            return None;
        }
        let mut caller = *context;
        match context.arch() {
            Arch::X64 => {
                caller.ip = target.u64(context.sp()).ok()?;
                caller.set_sp(context.sp().wrapping_add(8));
            }
            Arch::Arm64 => caller.ip = context.lr()?,
        }
        caller.forget_scratch();
        self.code(&caller, false).map(|_| caller)
    }

    /// An entry of a procedure linkage table, for which linkers need not write call frame information: a jump through a
    /// pointer.
    fn behind_jump(&self, context: &Context, exact: bool) -> Option<Context> {
        let target = self.runtime.target();
        let jump = target.slice(context.ip, 2) == Some(&[0xff, 0x25]);
        if !exact || context.arch() != Arch::X64 || !jump {
            return None;
        }
        let mut caller = *context;
        caller.ip = target.u64(context.sp()).ok()?;
        caller.set_sp(context.sp().wrapping_add(8));
        caller.forget_scratch();
        Some(caller)
    }

    /// The managed frame that unwinding found, checked against the runtime's chain, which also says how it stands.
    fn through_chain(&mut self, from: Context, mut entered: Entered, native_frames: usize) -> Entered {
        // An explicit frame that leads to a managed frame nearer than the one that was found.
        if let Some((index, nearer)) =
            self.leading(from).filter(|(_, near)| near.context.sp() < entered.context.sp())
        {
            self.frames.truncate(native_frames + 1);
            if let Some(contexts) = &mut self.contexts {
                contexts.truncate(native_frames + 1);
            }
            self.meet_up_to(index, &from);
            return nearer;
        }
        let sp = entered.context.sp();
        let mut last = None;
        while let Some(frame) = self.chain.get(self.next).copied() {
            if !explicit::is_above(self.thread, frame.address, sp) {
                // The frame of the P/Invoke lies in the managed frame itself.
                if frame.active_call(self.runtime) && frame.call_site(self.runtime) == Some(sp) {
                    self.meet(frame, &from, FoundBy::FrameChain);
                    // Where the runtime says that the call returns to: a label of the same call.
                    if let Some(address) = frame.return_address(self.runtime) {
                        entered.context.ip = address;
                    }
                    last = None;
                }
                break;
            }
            self.meet(frame, &from, FoundBy::FrameChain);
            last = Some(frame);
            self.next += 1;
        }
        if let Some(frame) =
            last.filter(|frame| frame.return_address(self.runtime).is_none_or(|at| at == entered.context.ip))
        {
            entered.exception = frame.exception(self.runtime);
            entered.active |= frame.is_resumable() || entered.exception.1;
            entered.returned = frame.kind == ExplicitKind::HijackFrame;
            // What the processor held when the frame was interrupted: all registers, and not only those that calls leave
            // alone. Behind a processor's exception the native frames were made by hand, too.
            // A handler on a stack of its own leads to the right instruction, but not to the right place of the stack.
            let whole = |resume: &Resume| {
                resume.context.ip == entered.context.ip && (entered.exception.1 || resume.context.sp() == sp)
            };
            if let Some(resume) = frame.resume(self.runtime).filter(|resume| entered.active && whole(resume))
            {
                entered.context = resume.context;
            }
        }
        entered
    }

    /// The first explicit frame ahead that leads to managed code, with its number.
    fn leading(&self, from: Context) -> Option<(usize, Entered)> {
        for (index, frame) in self.chain.iter().enumerate().skip(self.next).take(MAX_AHEAD) {
            let Some(resume) = frame.resume(self.runtime) else { continue };
            if resume.context.sp() != from.sp()
                && !explicit::is_above(self.thread, from.sp(), resume.context.sp())
            {
                continue;
            }
            if self.code(&resume.context, resume.active).is_some() {
                let exception = frame.exception(self.runtime);
                let entered = Entered {
                    context: resume.context,
                    found_by: FoundBy::FrameChain,
                    active: resume.active || exception.1,
                    returned: frame.kind == ExplicitKind::HijackFrame,
                    exception,
                };
                return Some((index, entered));
            }
        }
        None
    }

    fn meet_up_to(&mut self, index: usize, from: &Context) {
        while let Some(frame) = self.chain.get(self.next).filter(|_| self.next <= index).copied() {
            self.meet(frame, from, FoundBy::FrameChain);
            // The frame of a P/Invoke is met again in the managed frame that it lies in.
            if self.next == index && frame.active_call(self.runtime) {
                break;
            }
            self.next += 1;
        }
    }

    /// The managed frame that the runtime's chain leads to.
    fn by_chain(&mut self, from: Context) -> Option<Entered> {
        let (index, entered) = self.leading(from)?;
        self.meet_up_to(index, &from);
        Some(entered)
    }

    /// arm64: native code of the runtime keeps frame pointers; what the frames between saved is not known.
    fn by_frame_pointers(&mut self, from: Context) -> Option<Entered> {
        if from.arch() != Arch::Arm64 || !self.managed.is_empty() {
            return None;
        }
        let memory = self.runtime.target();
        let mut fp = from.fp()?;
        let mut sp = from.sp();
        for _ in 0..MAX_NATIVE {
            if fp < sp || fp % 8 != 0 {
                return None;
            }
            let (next, ip) = (memory.u64(fp).ok()?, memory.u64(fp.wrapping_add(8)).ok()?);
            let mut context = Context::new(Arch::Arm64, ip, fp.wrapping_add(16));
            context.set(context.fp_number(), next);
            if self.code(&context, false).is_some() {
                return Some(Entered {
                    context,
                    found_by: FoundBy::FramePointer,
                    active: false,
                    returned: false,
                    exception: (false, false),
                });
            }
            self.push(context, FrameKind::Native, FoundBy::FramePointer, false);
            (sp, fp) = (fp, next);
        }
        None
    }
}
