//! The places that can hold references.

use super::bits::Bits;
use super::{GcInfoError, MAX_COUNT};

const INTERIOR: u64 = 1;
const PINNED: u64 = 2;

/// What a stack slot's offset counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// Stack pointer of the caller, behind the return address.
    CallerSp,
    /// Stack pointer of the frame.
    Sp,
    /// The frame's base register ([`GcInfo::stack_base`](super::GcInfo::stack_base)).
    FrameRegister,
}

/// A place that can hold a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// A register, by the processor's number.
    Register(usize),
    /// A word of the stack.
    Stack(Base, i64),
}

/// A place that holds a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Live {
    /// Where.
    pub place: Place,
    /// It may point into an object.
    pub interior: bool,
    /// The object must not move.
    pub pinned: bool,
    /// It is live everywhere in the method.
    pub untracked: bool,
}

/// The table of slots: registers, stack slots, and stack slots that are live everywhere.
pub(super) struct Slots {
    pub(super) list: Vec<Live>,
    /// Number of those whose liveness is tracked; they come first.
    pub(super) tracked: u64,
}

impl Slots {
    pub(super) fn read(bits: &mut Bits<'_>, register_bits: u32) -> Result<Self, GcInfoError> {
        let registers = if bits.take(1)? == 1 { bits.unsigned(register_bits)? } else { 0 };
        let (stack, untracked) =
            if bits.take(1)? == 1 { (bits.unsigned(2)?, bits.unsigned(1)?) } else { (0, 0) };
        if registers > 64 || stack > MAX_COUNT || untracked > MAX_COUNT {
            return Err(GcInfoError::Damaged);
        }
        let mut list = Vec::new();
        let live = |place: Place, flags: u64, untracked: bool| Live {
            place,
            interior: flags & INTERIOR != 0,
            pinned: flags & PINNED != 0,
            untracked,
        };
        // A slot without flags is followed by one that has none either, stored by the distance.
        let (mut number, mut flags) = (0, 0);
        for i in 0..registers {
            if i == 0 || flags != 0 {
                number = bits.unsigned(3)?;
                flags = bits.take(2)?;
            } else {
                number += bits.unsigned(2)? + 1;
            }
            let number = usize::try_from(number).map_err(|_| GcInfoError::Damaged)?;
            list.push(live(Place::Register(number), flags, false));
        }
        for (count, untracked) in [(stack, false), (untracked, true)] {
            let (mut offset, mut flags) = (0i64, 0);
            for i in 0..count {
                let base = match bits.take(2)? {
                    0 => Base::CallerSp,
                    1 => Base::Sp,
                    2 => Base::FrameRegister,
                    _ => return Err(GcInfoError::Damaged),
                };
                if i == 0 || flags != 0 {
                    offset = bits.signed(6)?;
                    flags = bits.take(2)?;
                } else {
                    offset = offset.wrapping_add_unsigned(bits.unsigned(4)?);
                }
                list.push(live(Place::Stack(base, offset.wrapping_mul(8)), flags, untracked));
            }
        }
        Ok(Self { list, tracked: registers + stack })
    }

    pub(super) fn get(&self, index: u64) -> Option<Live> {
        self.list.get(usize::try_from(index).ok()?).copied()
    }

    /// Reads a set of tracked slots: a bit each, or lengths of runs of those that are not and those that are in it.
    pub(super) fn set(&self, bits: &mut Bits<'_>, out: &mut Vec<u64>) -> Result<(), GcInfoError> {
        if bits.take(1)? == 0 {
            for index in 0..self.tracked {
                if bits.take(1)? == 1 {
                    out.push(index);
                }
            }
            return Ok(());
        }
        let mut skipping = bits.take(1)? == 0;
        let mut inside = true;
        let mut at = bits.unsigned(if skipping { 4 } else { 2 })?;
        skipping = !skipping;
        while at < self.tracked {
            let run = bits.unsigned(if skipping { 4 } else { 2 })? + 1;
            if inside {
                out.extend(at..at.saturating_add(run).min(self.tracked));
            }
            at = at.saturating_add(run);
            skipping = !skipping;
            inside = !inside;
        }
        Ok(())
    }
}
