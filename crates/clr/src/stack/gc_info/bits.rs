//! The stream of bits.

use dnd_memory::Memory;

use super::GcInfoError;

/// Bits of all liveness data of a method, before it is taken for damage.
const MAX_BITS: u64 = 1 << 33;

/// A stream of bits, lowest first.
#[derive(Clone)]
pub(super) struct Bits<'m> {
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
    pub(super) fn new(memory: &'m dyn Memory, address: u64) -> Self {
        Self { memory, bytes: memory.run(address), address, position: 0 }
    }

    /// The same stream `bits` further.
    pub(super) fn forward(&self, bits: u64) -> Result<Self, GcInfoError> {
        let mut copy = self.clone();
        copy.skip(bits)?;
        Ok(copy)
    }

    /// As [`Self::forward`].
    pub(super) fn at(&self, bits: u64) -> Result<Self, GcInfoError> {
        self.forward(bits)
    }

    pub(super) fn byte_aligned(mut self) -> Result<Self, GcInfoError> {
        self.position = self.position.next_multiple_of(8);
        Ok(self)
    }

    pub(super) fn skip(&mut self, bits: u64) -> Result<(), GcInfoError> {
        self.position =
            self.position.checked_add(bits).filter(|&p| p < MAX_BITS).ok_or(GcInfoError::Damaged)?;
        Ok(())
    }

    /// The next `count` bits, at most 56.
    pub(super) fn take(&mut self, count: u32) -> Result<u64, GcInfoError> {
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
    pub(super) fn groups(&mut self, base: u32) -> Result<(u64, u32), GcInfoError> {
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

    pub(super) fn unsigned(&mut self, base: u32) -> Result<u64, GcInfoError> {
        Ok(self.groups(base)?.0)
    }

    /// The highest bit of the last group is the sign.
    pub(super) fn signed(&mut self, base: u32) -> Result<i64, GcInfoError> {
        let (value, shift) = self.groups(base)?;
        Ok((value << (64 - shift)).cast_signed() >> (64 - shift))
    }
}
