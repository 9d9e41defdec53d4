//! What is live at an offset of a method.

use super::bits::Bits;
use super::slots::{Live, Slots};
use super::{GcInfo, GcInfoError};

/// Normalised code offsets that a chunk of liveness data covers.
const CHUNK: u64 = 64;

/// How a frame stands at its instruction pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// Behind a call that it made.
    BehindCall,
    /// Between two instructions; it will go on from there.
    Between,
    /// Behind a call that has thrown an exception: it will not go on from there.
    CallThrew,
    /// At an instruction that has raised an exception.
    Faulted,
}

/// What is live in a frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveSet {
    /// Live places, those that are live everywhere last.
    pub live: Vec<Live>,
    /// It stands between two instructions: registers that callees destroy count, too.
    pub interruptible: bool,
}

impl GcInfo<'_> {
    /// What is live at an offset from the method's start (`EECodeManager::EnumGcRefs` in `vm/eetwain.cpp`).
    ///
    /// # Errors
    /// [`GcInfoError`].
    pub fn live_at(&self, offset: u64, stands: Stands) -> Result<LiveSet, GcInfoError> {
        let before = offset.wrapping_sub(1);
        match stands {
            Stands::Faulted => return self.decode(offset, true, false),
            Stands::CallThrew => {
                return self.decode(if self.version >= 4 { offset } else { before }, true, false);
            }
            Stands::BehindCall => {}
            Stands::Between => {
                let set = self.decode(offset, false, true)?;
                // Where it can't be stopped, it stands behind a call after all: what was called has been left.
                if set.interruptible {
                    return Ok(set);
                }
                // Version 3 already lets it be stopped there, with what was returned still in registers
                // (`AreSafePointsInterruptible`); what is live is stored as in version 2.
                if self.version == 3 {
                    let mut set = self.decode(before, false, false)?;
                    set.interruptible = self.find_safe_point(before)?.is_some();
                    return Ok(set);
                }
            }
        }
        // Up to version 3 what is live during a call is stored for an offset inside the call instruction, since then for
        // where it returns to.
        self.decode(if self.version >= 4 { offset } else { before }, false, false)
    }

    fn offset_bits(&self) -> u32 {
        ceil_log2(self.code_length >> self.offset_shift)
    }

    /// Number of the call that returns to `offset`; they are stored in order.
    fn find_safe_point(&self, offset: u64) -> Result<Option<u64>, GcInfoError> {
        let width = self.offset_bits();
        let wanted = offset >> self.offset_shift;
        let (mut low, mut high) = (0, self.safe_points);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut bits = self.body.at(middle * u64::from(width))?;
            let found = bits.take(width)?;
            if found == wanted {
                return Ok(Some(middle));
            }
            if found < wanted { low = middle + 1 } else { high = middle }
        }
        Ok(None)
    }

    fn decode(&self, offset: u64, aborted: bool, active: bool) -> Result<LiveSet, GcInfoError> {
        let safe_point = self.find_safe_point(offset)?;
        let normal = offset >> self.offset_shift;
        let mut bits = self.body.at(self.safe_points * u64::from(self.offset_bits()))?;
        // Ranges, each by its distance from the one before and its length.
        let (mut last, mut covered) = (0u64, 0u64);
        let mut pseudo = None;
        for _ in 0..self.ranges {
            let start = last + bits.unsigned(6)?;
            let stop = start + bits.unsigned(6)? + 1;
            if (start..stop).contains(&normal) && pseudo.is_none() {
                pseudo = Some(covered + normal - start);
            }
            covered += stop - start;
            last = stop;
            if last >> 32 != 0 {
                return Err(GcInfoError::Damaged);
            }
        }
        let interruptible = pseudo.is_some();
        // Between its ranges a method that will not go on keeps nothing alive.
        if self.ranges > 0 && pseudo.is_none() && (aborted || safe_point.is_none()) {
            return Ok(LiveSet::default());
        }
        let slots = Slots::read(&mut bits, self.encoding.registers)?;
        let tracked = slots.tracked;
        let mut live = Vec::new();
        if tracked > 0 {
            let pointer_bits =
                if self.safe_points > 0 && bits.take(1)? == 1 { bits.unsigned(3)? + 1 } else { 0 };
            if pointer_bits > 32 {
                return Err(GcInfoError::Damaged);
            }
            match safe_point.filter(|_| !aborted) {
                Some(number) if pointer_bits > 0 => {
                    let pointer = bits.forward(number * pointer_bits)?.take(pointer_bits as u32)?;
                    let table = bits.forward(self.safe_points * pointer_bits)?.byte_aligned()?;
                    slots.set(&mut table.forward(pointer)?, &mut live)?;
                }
                Some(number) => {
                    let mut state = bits.forward(number * tracked)?;
                    for index in 0..tracked {
                        if state.take(1)? == 1 {
                            live.push(index);
                        }
                    }
                }
                None => {
                    if let Some(pseudo) = pseudo {
                        // Their liveness at calls comes first. With an indirection its length is not known, but such
                        // methods have no ranges.
                        let data = bits.forward(self.safe_points * tracked)?;
                        self.live_in_range(data, &slots, pseudo, covered, &mut live)?;
                    }
                }
            }
        }
        let mut out: Vec<Live> = Vec::with_capacity(live.len());
        for index in live {
            out.extend(slots.get(index));
        }
        out.extend((tracked..slots.list.len() as u64).filter_map(|index| slots.get(index)));
        // From version 4 on the registers that return values are in count as live at calls.
        let stoppable = interruptible || self.version >= 4 && safe_point.is_some();
        Ok(LiveSet { live: out, interruptible: active && stoppable })
    }

    /// Liveness where a method may be stopped anywhere: chunks of 64 offsets, each with the slots that may be live in
    /// it, their state at its end, and the offsets at which they change.
    fn live_in_range(
        &self,
        mut bits: Bits<'_>,
        slots: &Slots,
        pseudo: u64,
        covered: u64,
        live: &mut Vec<u64>,
    ) -> Result<(), GcInfoError> {
        let width = bits.unsigned(3)?;
        if width == 0 {
            return Ok(());
        }
        if width > 32 {
            return Err(GcInfoError::Damaged);
        }
        let chunks = covered.div_ceil(CHUNK);
        let here = pseudo / CHUNK;
        // A chunk without data of its own has the state in which an earlier one ends.
        let mut chunk = here;
        let pointer = loop {
            let pointer = bits.forward(chunk * width)?.take(width as u32)?;
            if pointer != 0 {
                break pointer;
            }
            let Some(before) = chunk.checked_sub(1) else { return Ok(()) };
            chunk = before;
        };
        let mut bits = bits.forward(chunks * width)?.byte_aligned()?.forward(pointer - 1)?;
        let mut possible = Vec::new();
        slots.set(&mut bits, &mut possible)?;
        let mut states = Vec::with_capacity(possible.len());
        for _ in &possible {
            states.push(bits.take(1)? == 1);
        }
        for (slot, mut state) in possible.into_iter().zip(states) {
            if chunk == here {
                while bits.take(1)? == 1 {
                    // The state is that at the chunk's end: changes that lie ahead are undone.
                    if bits.take(6)? > pseudo % CHUNK {
                        state = !state;
                    }
                }
            }
            if state {
                live.push(slot);
            }
        }
        Ok(())
    }
}

fn ceil_log2(value: u64) -> u32 {
    if value <= 1 { 0 } else { 64 - (value - 1).leading_zeros() }
}
