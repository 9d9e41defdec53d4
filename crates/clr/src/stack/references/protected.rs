//! References that native code of the runtime protects, and those that calls on their way hold.

use super::{Reference, ReferenceSlot, ThreadReferences};
use crate::runtime::Runtime;
use crate::stack::explicit::{Explicit, ExplicitKind};
use crate::threads::Thread;

/// Frames of one method that protect references; more is damage.
const MAX_PROTECTED: u64 = 1 << 16;

impl Runtime<'_> {
    /// References that native code of the runtime protects while it works with them: a chain of its own since 5
    /// (`GCFrame` in `vm/frames.h`). The DAC does not list them.
    pub(super) fn native_frames(&self, thread: &Thread, found: &mut ThreadReferences) {
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
    pub(super) fn arguments(&self, frame: Explicit, found: &mut ThreadReferences) {
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
    pub(super) fn protected(&self, frame: Explicit, found: &mut ThreadReferences) {
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
