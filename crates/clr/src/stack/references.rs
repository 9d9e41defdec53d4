//! The references in a thread's stack.
//!
//! Which frames report follows `StackFrameIterator::Filter` in `vm/stackwalk.cpp` and `EECodeManager::EnumGcRefs` in
//! `vm/eetwain.cpp` (dotnet/runtime v8.0.0 to v10.0.14, dotnet/coreclr v3.1.23), which the DAC uses, too: a funclet that
//! is no filter reports what its method has, frames between it and its method's own frame were unwound by the exception and
//! report nothing, and the method's own frame reports nothing either, because its funclet did. The frames below a
//! filter are alive, its method's own among them, which reports what both have.

use dnd_memory::Arch;
use serde::{Serialize, Serializer};

use super::explicit::{Explicit, ExplicitKind};
use super::gc_info::{Base, GcInfo, GcInfoError, Live, Place, Stands};
use super::walk::{Keep, ManagedFrame, Walk, walk};
use super::{Context, End};
use crate::code::{Funclet, Method, MethodKind};
use crate::names::NameStyle;
use crate::runtime::Runtime;
use crate::threads::Thread;

/// Frames of one method that protect references; more is damage.
const MAX_PROTECTED: u64 = 1 << 16;

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
        self.frames(&walk, &mut found);
        for explicit in &walk.chain {
            self.protected(*explicit, &mut found);
            self.arguments(*explicit, &mut found);
        }
        self.native_frames(thread, &mut found);
        found
    }

    fn frames(&self, walk: &Walk, found: &mut ThreadReferences) {
        let mut parent: Option<Parent> = None;
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
            let funclet = self.funclet(&frame.code).unwrap_or_else(|error| {
                found.problem.get_or_insert(error.to_string());
                None
            });
            let filter = funclet.is_some_and(|funclet| funclet.filter);
            // A filter runs while all frames up to its method's own are still alive.
            if let Some(funclet) = funclet.filter(|funclet| !funclet.filter) {
                parent = Some(self.parent(frame, funclet));
            }
            if !of_funclet || self.parent_reports(frame) {
                self.report(frame, filter, found);
            }
        }
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

    fn gc_info(&self, frame: &ManagedFrame) -> Result<GcInfo<'_>, GcInfoError> {
        let target = self.target();
        GcInfo::read(target, target.arch(), self.layout().code.gc_info, frame.code.gc_info)
    }

    /// Whether a method's own frame reports although a funclet of it does.
    fn parent_reports(&self, frame: &ManagedFrame) -> bool {
        self.gc_info(frame).is_ok_and(|info| !info.reports_only_leaf())
    }

    fn frame(
        &self,
        frame: &ManagedFrame,
        filter: bool,
        found: &mut ThreadReferences,
    ) -> Result<(), GcInfoError> {
        let info = self.gc_info(frame)?;
        let stands = match (frame.exception, frame.active) {
            ((true, true), _) => Stands::Faulted,
            ((true, false), _) => Stands::CallThrew,
            (_, true) => Stands::Between,
            (_, false) => Stands::BehindCall,
        };
        let offset = frame.context.ip.wrapping_sub(frame.code.start);
        let set = info.live_at(offset, stands)?;
        let context = &frame.context;
        let arch = context.arch();
        let sp = context.sp();
        for Live { place, interior, pinned, untracked } in set.live {
            // The frame of a filter's method reports these.
            if filter && untracked {
                continue;
            }
            let (address, value, slot) = match place {
                Place::Register(number) => {
                    if context.is_scratch(number) && !set.interruptible {
                        continue;
                    }
                    let Some(value) = context.get(number) else {
                        let name = Context::name(arch, number);
                        found.problem.get_or_insert(format!(
                            "register {name} of the frame at {:#x} is not known",
                            context.ip
                        ));
                        continue;
                    };
                    (0, value, ReferenceSlot::Register(Context::name(arch, number)))
                }
                Place::Stack(base, offset) => {
                    let (number, from) = match base {
                        Base::CallerSp => (None, frame.caller.sp()),
                        Base::Sp => (None, sp),
                        Base::FrameRegister => {
                            let number = info.stack_base.ok_or(GcInfoError::Damaged)?;
                            (Some(number), context.get(number).ok_or(GcInfoError::Damaged)?)
                        }
                    };
                    let address = from.wrapping_add_signed(offset);
                    let in_scratch = address >= sp && address.wrapping_sub(sp) < info.scratch_area;
                    if in_scratch && !set.interruptible && !untracked {
                        continue;
                    }
                    let value = self.target().u64(address)?;
                    let slot = match number {
                        Some(number) => ReferenceSlot::Stack { base: Context::name(arch, number), offset },
                        None => ReferenceSlot::Stack {
                            base: match arch {
                                Arch::X64 => "rsp",
                                Arch::Arm64 => "sp",
                            },
                            offset: address.wrapping_sub(sp).cast_signed(),
                        },
                    };
                    (address, value, slot)
                }
            };
            found.references.push(Reference {
                address,
                value,
                slot,
                interior,
                pinned,
                ip: context.ip,
                sp,
                method: frame.code.method,
                conservative: false,
            });
        }
        Ok(())
    }

    /// The object that keeps the code of a frame from being unloaded (`GcReportLoaderAllocator`, and the resolver of a
    /// `DynamicMethod`, in `GcStackCrawlCallBack` of `vm/gcenv.ee.common.cpp`).
    fn code(&self, frame: &ManagedFrame, found: &mut ThreadReferences) {
        let Ok(method) = self.method(frame.code.method) else { return };
        let keeper = match method.kind {
            MethodKind::Dynamic => self.resolver(&method),
            _ => match self.method_table(method.table) {
                Ok(table) if table.is_collectible(self.layout()) => Some(self.allocator_of(&table)),
                _ => None,
            },
        };
        let Some(value) = keeper.filter(|&object| object != 0) else { return };
        found.references.push(Reference {
            address: 0,
            value,
            slot: ReferenceSlot::Code,
            interior: false,
            pinned: false,
            ip: frame.context.ip,
            sp: frame.context.sp(),
            method: frame.code.method,
            conservative: false,
        });
    }

    /// The `DynamicResolver` object of a `DynamicMethod`: a handle among the first words of its `LCGMethodResolver`,
    /// which stands behind the method's name. Known by its type.
    fn resolver(&self, method: &Method) -> Option<u64> {
        const WORDS: u64 = 24;
        if !self.is_user_dynamic(method) {
            return None;
        }
        let memory = self.target();
        let at = method.address.wrapping_add(self.layout().method_desc.dynamic_name + 8);
        let resolver = memory.u64(at).ok()?;
        (0..WORDS).find_map(|i| {
            let handle = memory.u64(resolver.wrapping_add(8 * i)).ok().filter(|handle| handle % 8 == 0)?;
            let object = memory.u64(handle).ok()?;
            let table = self.object(object).ok()?.table;
            let name = self.type_name(table, NameStyle::Runtime);
            (name == "System.Reflection.Emit.DynamicResolver").then_some(object)
        })
    }

    /// References that native code of the runtime protects while it works with them: a chain of its own since 5
    /// (`GCFrame` in `vm/frames.h`). The DAC does not list them.
    fn native_frames(&self, thread: &Thread, found: &mut ThreadReferences) {
        let Some(l) = self.layout().thread.gc_frame else { return };
        let memory = self.target();
        let Ok(mut at) = memory.u64(thread.address.wrapping_add(l.first)) else { return };
        let mut last = 0;
        while at != 0 && at != u64::MAX {
            let word = |offset: u64| memory.u64(at.wrapping_add(offset)).unwrap_or(0);
            if at <= last || word(l.thread) != thread.address {
                found.problem.get_or_insert(format!("the chain of GCFrames at {at:#x} is damaged"));
                return;
            }
            let half = |offset: u64| word(offset) & 0xffff_ffff;
            for i in 0..half(l.count).min(MAX_PROTECTED) {
                let address = word(l.references).wrapping_add(8 * i);
                self.word(address, half(l.interior) != 0, ExplicitKind::GCFrame, at, found);
            }
            (last, at) = (at, word(0));
        }
    }

    /// A call that has not begun yet holds its arguments in the block of the explicit frame; which of them are
    /// references, only the callee's signature tells. Those that are objects are taken.
    fn arguments(&self, frame: Explicit, found: &mut ThreadReferences) {
        let Some((first, count)) = frame.arguments(self) else { return };
        for address in (0..count).map(|i| first.wrapping_add(8 * i)) {
            let Ok(value) = self.target().u64(address) else { continue };
            let in_heap = self.heap().is_ok_and(|heap| heap.segment_of(value).is_some());
            if value % 8 == 0 && in_heap && self.object(value).is_ok() {
                found.references.push(Reference {
                    address,
                    value,
                    slot: ReferenceSlot::Explicit(frame.kind),
                    interior: false,
                    pinned: false,
                    ip: frame.address,
                    sp: frame.address,
                    method: 0,
                    conservative: true,
                });
            }
        }
    }

    /// References that native code of the runtime protects by an explicit frame (3.1 to 9).
    fn protected(&self, frame: Explicit, found: &mut ThreadReferences) {
        let memory = self.target();
        let word = |offset: u64| memory.u64(frame.address.wrapping_add(offset)).unwrap_or(0);
        let at = self.layout().frames.helper_references;
        let mut places: Vec<(u64, bool)> = Vec::new();
        match frame.kind {
            ExplicitKind::HelperMethodFrame_1OBJ => places.push((word(at), false)),
            ExplicitKind::HelperMethodFrame_2OBJ => places.extend([(word(at), false), (word(at + 8), false)]),
            ExplicitKind::HelperMethodFrame_3OBJ => {
                places.extend([(word(at), false), (word(at + 8), false), (word(at + 16), false)]);
            }
            ExplicitKind::HelperMethodFrame_PROTECTOBJ => {
                let count = (word(at + 8) & 0xffff_ffff).min(MAX_PROTECTED);
                places.extend((0..count).map(|i| (word(at).wrapping_add(8 * i), false)));
            }
            // References, their number, the thread, whether they may point into objects.
            ExplicitKind::GCFrame => {
                let count = (word(24) & 0xffff_ffff).min(MAX_PROTECTED);
                let interior = word(40) & 0xffff_ffff != 0;
                places.extend((0..count).map(|i| (word(16).wrapping_add(8 * i), interior)));
            }
            _ => {}
        }
        for (address, interior) in places {
            self.word(address, interior, frame.kind, frame.address, found);
        }
    }

    /// A word that an explicit frame protects.
    fn word(
        &self,
        address: u64,
        interior: bool,
        kind: ExplicitKind,
        frame: u64,
        found: &mut ThreadReferences,
    ) {
        match self.target().u64(address) {
            _ if address == 0 => {}
            Ok(value) => found.references.push(Reference {
                address,
                value,
                slot: ReferenceSlot::Explicit(kind),
                interior,
                pinned: false,
                ip: frame,
                sp: frame,
                method: 0,
                conservative: false,
            }),
            Err(missing) => {
                found.problem.get_or_insert(missing.to_string());
            }
        }
    }
}
