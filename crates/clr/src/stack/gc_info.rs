//! GC info: which registers and stack slots hold references at an offset of a method.
//!
//! A stream of bits: header, offsets of the method's calls ("safe points"), ranges in which it may be stopped anywhere,
//! a table of all its slots, and which of them are live where. Format versions 2 (3.1 to 8), 3 (9) and 4 (10), in
//! the encodings of x64 and arm64. Sources: `inc/gcinfotypes.h` (`AMD64GcInfoEncoding`, `ARM64GcInfoEncoding`),
//! `inc/gcinfodecoder.h`, `vm/gcinfodecoder.cpp` of dotnet/runtime v8.0.0 (2), v9.0.0 (3), v10.0.0 (4); dotnet/diagnostics
//! `src/shared/vm/gcinfodecoder.cpp`, which reads all of them.

use dnd_memory::{Arch, Memory, Missing};
use thiserror::Error;

/// Why GC info can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GcInfoError {
    /// Bytes that are not there.
    #[error("the GC info of a method is not in the dump")]
    Missing(#[from] Missing),
    /// Numbers that can't be right.
    #[error("the GC info of a method is damaged")]
    Damaged,
}

/// No method has so many slots, safe points or ranges.
const MAX_COUNT: u64 = 1 << 18;
/// Bits of all liveness data of a method, before it is taken for damage.
const MAX_BITS: u64 = 1 << 33;
/// Normalised code offsets that a chunk of liveness data covers.
const CHUNK: u64 = 64;

const HAS_GS_COOKIE: u64 = 0x4;
const HAS_PSP_SYM: u64 = 0x8;
const GENERIC_CONTEXT: u64 = 0x30;
const HAS_STACK_BASE: u64 = 0x40;
/// x64; on arm64 the bit says that the method has tail calls, and only the leaf ever reports.
const REPORT_ONLY_LEAF: u64 = 0x80;
const HAS_EDIT_AND_CONTINUE: u64 = 0x100;
const REVERSE_PINVOKE: u64 = 0x200;

const INTERIOR: u64 = 1;
const PINNED: u64 = 2;

/// Numbers of bits that differ between the processors.
#[derive(Debug, Clone, Copy)]
struct Encoding {
    stack_base: u32,
    /// Exclusive-or of the frame register's number.
    stack_base_default: u64,
    edit_and_continue_fields: u32,
    safe_points: u32,
    registers: u32,
    /// Code offsets are stored without these low bits.
    code_shift: u32,
}

impl Encoding {
    fn of(arch: Arch) -> Self {
        match arch {
            Arch::X64 => Self {
                stack_base: 3,
                stack_base_default: 5,
                edit_and_continue_fields: 1,
                safe_points: 2,
                registers: 2,
                code_shift: 0,
            },
            Arch::Arm64 => Self {
                stack_base: 2,
                stack_base_default: 29,
                edit_and_continue_fields: 2,
                safe_points: 3,
                registers: 3,
                code_shift: 2,
            },
        }
    }
}

/// What a stack slot's offset counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// Stack pointer of the caller, behind the return address.
    CallerSp,
    /// Stack pointer of the frame.
    Sp,
    /// The frame's base register ([`GcInfo::stack_base`]).
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

/// The GC info of a method.
#[derive(Debug, Clone)]
pub struct GcInfo<'m> {
    encoding: Encoding,
    version: u32,
    flags: u64,
    /// Bytes of the method's code.
    pub code_length: u64,
    /// Number of the register that frame offsets count from.
    pub stack_base: Option<usize>,
    /// Bytes at the bottom of the frame that a callee may use.
    pub scratch_area: u64,
    safe_points: u64,
    ranges: u64,
    /// Behind the counts.
    body: Bits<'m>,
}

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

impl<'m> GcInfo<'m> {
    /// Reads the header of the GC info at `address`.
    ///
    /// # Errors
    /// [`GcInfoError`].
    pub fn read(memory: &'m dyn Memory, arch: Arch, version: u32, address: u64) -> Result<Self, GcInfoError> {
        let encoding = Encoding::of(arch);
        let mut bits = Bits::new(memory, address);
        let old = version < 4;
        let slim = bits.take(1)? == 0;
        let (flags, code_length, stack_base, scratch_area, safe_points, ranges);
        if slim {
            flags = if bits.take(1)? == 1 { HAS_STACK_BASE } else { 0 };
            // Kind of return value.
            bits.skip(if old { 2 } else { 0 })?;
            code_length = bits.unsigned(8)?;
            stack_base = (flags != 0).then_some(encoding.stack_base_default);
            scratch_area = 0;
            safe_points = bits.unsigned(encoding.safe_points)?;
            ranges = 0;
        } else {
            flags = bits.take(10)?;
            bits.skip(if old { 4 } else { 0 })?;
            code_length = bits.unsigned(8)?;
            if flags & HAS_GS_COOKIE != 0 {
                bits.unsigned(5)?;
                bits.unsigned(3)?;
            } else if flags & GENERIC_CONTEXT != 0 {
                bits.unsigned(5)?;
            }
            if flags & HAS_GS_COOKIE != 0 {
                bits.signed(6)?;
            }
            if old && flags & HAS_PSP_SYM != 0 {
                bits.signed(6)?;
            }
            if flags & GENERIC_CONTEXT != 0 {
                bits.signed(6)?;
            }
            stack_base = match flags & HAS_STACK_BASE {
                0 => None,
                _ => Some(bits.unsigned(encoding.stack_base)? ^ encoding.stack_base_default),
            };
            if flags & HAS_EDIT_AND_CONTINUE != 0 {
                for _ in 0..encoding.edit_and_continue_fields {
                    bits.unsigned(4)?;
                }
            }
            if flags & REVERSE_PINVOKE != 0 {
                bits.signed(6)?;
            }
            scratch_area = bits.unsigned(3)? << 3;
            safe_points = bits.unsigned(encoding.safe_points)?;
            ranges = bits.unsigned(1)?;
        }
        if safe_points > MAX_COUNT || ranges > MAX_COUNT || code_length >> 32 != 0 {
            return Err(GcInfoError::Damaged);
        }
        let stack_base = stack_base.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        let code_length = code_length << encoding.code_shift;
        let report = if arch == Arch::Arm64 { REPORT_ONLY_LEAF } else { 0 };
        Ok(Self {
            encoding,
            version,
            flags: flags | report,
            code_length,
            stack_base,
            scratch_area,
            safe_points,
            ranges,
            body: bits,
        })
    }

    /// A funclet reports what its parent has, too: the parent's frame itself reports nothing.
    #[must_use]
    pub fn reports_only_leaf(&self) -> bool {
        self.flags & REPORT_ONLY_LEAF != 0
    }

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
            }
        }
        // Up to version 3 what is live during a call is stored for an offset inside the call instruction, since then for
        // where it returns to.
        self.decode(if self.version >= 4 { offset } else { before }, false, false)
    }

    fn offset_bits(&self) -> u32 {
        ceil_log2(self.code_length >> self.encoding.code_shift)
    }

    /// Number of the call that returns to `offset`; they are stored in order.
    fn find_safe_point(&self, offset: u64) -> Result<Option<u64>, GcInfoError> {
        let width = self.offset_bits();
        let wanted = offset >> self.encoding.code_shift;
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
        let normal = offset >> self.encoding.code_shift;
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

/// The table of slots: registers, stack slots, and stack slots that are live everywhere.
struct Slots {
    list: Vec<Live>,
    /// Number of those whose liveness is tracked; they come first.
    tracked: u64,
}

impl Slots {
    fn read(bits: &mut Bits<'_>, register_bits: u32) -> Result<Self, GcInfoError> {
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

    fn get(&self, index: u64) -> Option<Live> {
        self.list.get(usize::try_from(index).ok()?).copied()
    }

    /// Reads a set of tracked slots: a bit each, or lengths of runs of those that are not and those that are in it.
    fn set(&self, bits: &mut Bits<'_>, out: &mut Vec<u64>) -> Result<(), GcInfoError> {
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

/// A stream of bits, lowest first.
#[derive(Clone)]
struct Bits<'m> {
    memory: &'m dyn Memory,
    /// Bytes in one piece from `address` on; behind them memory is asked.
    bytes: &'m [u8],
    address: u64,
    /// Bits from `address`.
    position: u64,
}

impl std::fmt::Debug for Bits<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bit {} from {:#x}", self.position, self.address)
    }
}

impl<'m> Bits<'m> {
    fn new(memory: &'m dyn Memory, address: u64) -> Self {
        Self { memory, bytes: memory.run(address), address, position: 0 }
    }

    /// The same stream `bits` further.
    fn forward(&self, bits: u64) -> Result<Self, GcInfoError> {
        let mut copy = self.clone();
        copy.skip(bits)?;
        Ok(copy)
    }

    /// As [`Self::forward`].
    fn at(&self, bits: u64) -> Result<Self, GcInfoError> {
        self.forward(bits)
    }

    fn byte_aligned(mut self) -> Result<Self, GcInfoError> {
        self.position = self.position.next_multiple_of(8);
        Ok(self)
    }

    fn skip(&mut self, bits: u64) -> Result<(), GcInfoError> {
        self.position =
            self.position.checked_add(bits).filter(|&p| p < MAX_BITS).ok_or(GcInfoError::Damaged)?;
        Ok(())
    }

    /// The next `count` bits, at most 56.
    fn take(&mut self, count: u32) -> Result<u64, GcInfoError> {
        if count == 0 {
            return Ok(0);
        }
        let byte = self.position / 8;
        let shift = (self.position % 8) as u32;
        let index = usize::try_from(byte).map_err(|_| GcInfoError::Damaged)?;
        let word = match self.bytes.get(index..index + 8).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => u64::from_le_bytes(bytes),
            None => {
                let mut bytes = [0; 8];
                let needed = (shift + count).div_ceil(8) as usize;
                let at = self.address.wrapping_add(byte);
                self.memory.read(at, bytes.get_mut(..needed).ok_or(GcInfoError::Damaged)?)?;
                u64::from_le_bytes(bytes)
            }
        };
        self.skip(count.into())?;
        Ok(word >> shift & ((1 << count) - 1))
    }

    /// A number in groups of `base` bits, lowest first, each with a bit that says that another one follows.
    fn groups(&mut self, base: u32) -> Result<(u64, u32), GcInfoError> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let group = self.take(base + 1)?;
            value |= (group & ((1 << base) - 1)) << shift;
            shift += base;
            if group >> base == 0 {
                return Ok((value, shift));
            }
            if shift > 48 {
                return Err(GcInfoError::Damaged);
            }
        }
    }

    fn unsigned(&mut self, base: u32) -> Result<u64, GcInfoError> {
        Ok(self.groups(base)?.0)
    }

    /// The highest bit of the last group is the sign.
    fn signed(&mut self, base: u32) -> Result<i64, GcInfoError> {
        let (value, shift) = self.groups(base)?;
        Ok((value << (64 - shift)).cast_signed() >> (64 - shift))
    }
}
