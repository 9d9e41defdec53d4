//! Numbers in nibbles, as debug info has them.
//!
//! Source: `inc/nibblestream.h`: three bits a nibble, the most significant ones first; the fourth bit says that more
//! follow. The low nibble of a byte comes first.

/// Nibbles of one number at most: eleven hold 33 bits.
const MAX_NIBBLES: usize = 11;

/// Reads numbers from bytes.
pub(super) struct Nibbles<'a> {
    bytes: &'a [u8],
    next: usize,
}

impl<'a> Nibbles<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0 }
    }

    fn nibble(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.next / 2)?;
        let nibble = if self.next.is_multiple_of(2) { byte & 0xf } else { byte >> 4 };
        self.next += 1;
        Some(nibble)
    }

    /// An unsigned number; `None` where the bytes end, or when it has more digits than a number can.
    pub(super) fn unsigned(&mut self) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..MAX_NIBBLES {
            let nibble = self.nibble()?;
            value = value << 3 | u32::from(nibble & 7);
            if nibble & 8 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A signed number: its sign is the lowest bit.
    pub(super) fn signed(&mut self) -> Option<i32> {
        let value = self.unsigned()?;
        let magnitude = (value >> 1) as i32;
        Some(if value & 1 == 0 { magnitude } else { -magnitude })
    }

    /// Bytes that were begun so far.
    pub(super) fn position(&self) -> usize {
        self.next.div_ceil(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of `docs/design/datacontracts/DebugInfo.md`.
    #[test]
    fn numbers_of_one_and_more_nibbles() {
        let cases: [(u32, &[u8]); 9] = [
            (0, &[0x00]),
            (7, &[0x07]),
            (8, &[0x09]),
            (9, &[0x19]),
            (63, &[0x7f]),
            (64, &[0x89, 0x00]),
            (511, &[0xff, 0x07]),
            (512, &[0x89, 0x08]),
            (513, &[0x89, 0x18]),
        ];
        for (value, bytes) in cases {
            let mut stream = Nibbles::new(bytes);
            assert_eq!(stream.unsigned(), Some(value), "{bytes:02x?}");
            assert_eq!(stream.position(), bytes.len());
        }
        // 2 * 5 with the sign behind it.
        assert_eq!(Nibbles::new(&[0x39]).signed(), Some(-5));
        assert_eq!(Nibbles::new(&[0x29]).signed(), Some(5));
    }

    #[test]
    fn what_does_not_end_is_no_number() {
        assert_eq!(Nibbles::new(&[]).unsigned(), None);
        assert_eq!(Nibbles::new(&[0x89]).unsigned(), None);
        assert_eq!(Nibbles::new(&[0xff; 20]).unsigned(), None);
        assert_eq!(Nibbles::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x07]).unsigned(), Some(u32::MAX));
    }
}
