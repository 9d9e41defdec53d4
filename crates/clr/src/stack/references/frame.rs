//! What the methods of frames say is live in them.

use dnd_memory::Arch;

use super::{Reference, ReferenceSlot, ThreadReferences};
use crate::code::{Method, MethodKind};
use crate::names::NameStyle;
use crate::runtime::Runtime;
use crate::stack::Context;
use crate::stack::gc_info::{Base, GcInfo, GcInfoError, Live, Place, Stands};
use crate::stack::walk::ManagedFrame;

impl Runtime<'_> {
    fn gc_info(&self, frame: &ManagedFrame) -> Result<GcInfo<'_>, GcInfoError> {
        let target = self.target();
        GcInfo::read(target, target.arch(), self.layout().code.gc_info, frame.code.gc_info)
    }

    /// Whether a method's own frame reports although a funclet of it does.
    pub(super) fn parent_reports(&self, frame: &ManagedFrame) -> bool {
        self.gc_info(frame).is_ok_and(|info| !info.reports_only_leaf())
    }

    pub(super) fn frame(
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
    pub(super) fn code(&self, frame: &ManagedFrame, found: &mut ThreadReferences) {
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
}
