//! From native frames to the managed frame that called them: by call frame information, by the explicit frames that the
//! runtime pushed, by frame pointers.

use dnd_memory::Arch;

use super::cfi::Caller;
use super::context::Context;
use super::explicit::{self, Explicit, Resume};
use super::walk::{MAX_NATIVE, Walker};
use super::{End, ExplicitKind, FoundBy, FrameKind};
use crate::code::CodeAt;

/// Explicit frames to look at for the one that leads on; a few that lead nowhere may lie in between.
const MAX_AHEAD: usize = 1 << 10;

/// Where a region of native code leads.
pub(super) struct Entered {
    pub(super) context: Context,
    pub(super) found_by: FoundBy,
    /// Interrupted by a signal, or known to be by its explicit frame.
    pub(super) active: bool,
    /// Although it counts as interrupted, it stands behind a call: one that returned to the runtime instead.
    pub(super) returned: bool,
    pub(super) exception: (bool, bool),
}

impl Walker<'_, '_> {
    /// From native code to the managed frame that called it.
    pub(super) fn native(&mut self, from: Context, found_by: FoundBy, exact: bool) -> Result<Entered, End> {
        self.region = from;
        let before = self.frames.len();
        let by_cfi = self.by_cfi(from, found_by, exact);
        if let Ok(entered) = by_cfi {
            return Ok(self.through_chain(from, entered, before));
        }
        let Err(end) = by_cfi else { return Err(End::Bottom) };
        let leading = self.leading(from);
        // What called the runtime there is known to nobody yet, and lies in front of where the chain leads.
        let ahead = leading.as_ref().map_or(self.chain.len(), |(index, _)| *index);
        let unknown = self.chain.get(self.next..ahead).unwrap_or_default().iter();
        let unknown = unknown.take(MAX_AHEAD).find(|frame| frame.leads_nowhere_yet(self.runtime)).copied();
        if let Some(entered) = unknown.and_then(|frame| self.by_capture(from, &frame)) {
            return Ok(entered);
        }
        if let Some((index, entered)) = leading {
            if unknown.is_some() {
                self.lost.get_or_insert(from.ip);
            }
            self.meet_up_to(index, &from);
            return Ok(entered);
        }
        if let Some(entered) = self.by_frame_pointers(from) {
            return Ok(entered);
        }
        // Only in preemptive mode has the runtime seen to it that its chain leads to all managed frames.
        let chain_tells = (!self.thread.cooperative || self.in_managed) && unknown.is_none();
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
            self.contexts.truncate(native_frames + 1);
            self.meet_up_to(index, &from);
            return nearer;
        }
        let sp = entered.context.sp();
        let mut last = None;
        while let Some(frame) = self.chain.get(self.next).copied() {
            if !explicit::is_above(self.thread, frame.address, sp) {
                if self.calls_from(&frame, &entered) {
                    self.meet(frame, &from, FoundBy::FrameChain);
                    // Where the runtime says that the call returns to: a label of the same call. Its stack pointer is that
                    // from before the method made room for what it passes.
                    if let Some(resume) = frame.resume(self.runtime) {
                        entered.context.ip = resume.context.ip;
                        entered.context.set_sp(resume.context.sp());
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
            if let Some(mut resume) = frame.resume(self.runtime).filter(whole) {
                if entered.active {
                    entered.context = resume.context;
                } else {
                    // A collection since the call has moved objects, and told the runtime's copy of the registers only:
                    // the frames of native code in between still hold the old addresses.
                    resume.context.forget_scratch();
                    entered.context.overlay(&resume.context);
                }
            }
        }
        entered
    }

    /// Whether an explicit frame is that of a P/Invoke, and lies in the managed frame that makes it.
    fn calls_from(&self, frame: &Explicit, entered: &Entered) -> bool {
        let own = &entered.context;
        let Some(call) = frame.resume(self.runtime).filter(|_| frame.active_call(self.runtime)) else {
            return false;
        };
        if call.context.sp() == own.sp() {
            return true;
        }
        // Stubs put what they marshal on the stack, below the pointer that is in the frame.
        let code = |context: &Context| self.code(context, false);
        let (Some(caller), Some(callee)) = (code(&call.context), code(own)) else { return false };
        call.context.sp() > own.sp()
            && caller.function_start == callee.function_start
            && self
                .unwind(own, &callee, false)
                .is_ok_and(|end| call.context.sp() < end.sp() && frame.address < end.sp())
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

    /// From the runtime's own code that made an explicit frame: for its library there may be call frame information where
    /// there is none for the code in which the thread stands, for example in the middle of throwing an exception.
    fn by_capture(&mut self, from: Context, frame: &Explicit) -> Option<Entered> {
        let captured = frame.captured(self.runtime)?;
        if !explicit::is_above(self.thread, from.sp(), captured.sp()) {
            return None;
        }
        let before = (self.frames.len(), self.contexts.len());
        if let Ok(entered) = self.by_cfi(captured, FoundBy::FrameChain, false) {
            return Some(self.through_chain(from, entered, before.0));
        }
        self.frames.truncate(before.0);
        self.contexts.truncate(before.1);
        None
    }

    /// arm64: native code of the runtime keeps frame pointers; what the frames between saved is not known.
    fn by_frame_pointers(&mut self, from: Context) -> Option<Entered> {
        if from.arch() != Arch::Arm64 || self.in_managed {
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
