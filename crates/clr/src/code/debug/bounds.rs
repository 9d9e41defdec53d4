//! Which IL a piece of native code was made from.
//!
//! Sources: `DoBounds` in `vm/debuginfostore.cpp`, `inc/cordebuginfo.h`; for 10 `docs/design/datacontracts/DebugInfo.md`.

use serde::Serialize;

use super::stream::Nibbles;

/// The largest magnitude of the special values that IL offsets have (`MAX_MAPPING_VALUE`): offsets are stored above it.
const BIAS: u32 = 3;
/// Bits of an entry's flags in the packed form.
const FLAG_BITS: u32 = 2;

/// What a piece of native code was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IlOffset {
    /// The IL at this offset from the method's first byte of IL.
    At(u32),
    /// None: the method's prolog.
    Prolog,
    /// None: one of its epilogs.
    Epilog,
    /// None that the compiler tells of.
    Unmapped,
}

impl IlOffset {
    fn from_biased(value: u32) -> Self {
        match value {
            0 => IlOffset::Epilog,
            1 => IlOffset::Prolog,
            2 => IlOffset::Unmapped,
            value => IlOffset::At(value - BIAS),
        }
    }
}

/// A piece of native code: from `native` to where the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Bytes from the method's first instruction.
    pub native: u32,
    /// What it was made from.
    pub il: IlOffset,
}

/// A method's map from native code to IL, by native offset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IlMap {
    /// Its pieces.
    pub bounds: Vec<Bound>,
}

impl IlMap {
    /// What the byte at `native` was made from; `None` when the map begins behind it or is empty.
    #[must_use]
    pub fn at(&self, native: u32) -> Option<IlOffset> {
        // Of several pieces that begin at the same byte only the last one has any.
        let after = self.bounds.partition_point(|bound| bound.native <= native);
        Some(self.bounds.get(after.checked_sub(1)?)?.il)
    }

    /// The IL offset that a source line is looked up with: the prolog counts as the method's first IL, epilogs as the
    /// last that any code was made from (as SOS does).
    #[must_use]
    pub fn line_offset(&self, native: u32) -> Option<u32> {
        match self.at(native)? {
            IlOffset::At(offset) => Some(offset),
            IlOffset::Prolog => Some(0),
            IlOffset::Epilog => {
                let offsets = self.bounds.iter().filter_map(|bound| match bound.il {
                    IlOffset::At(offset) => Some(offset),
                    _ => None,
                });
                Some(offsets.max().unwrap_or(0))
            }
            IlOffset::Unmapped => None,
        }
    }

    /// Reads the form of 3.1 to 9: every number in nibbles. `None` when the bytes end too early.
    pub(super) fn from_nibbles(bytes: &[u8]) -> Option<Self> {
        let mut stream = Nibbles::new(bytes);
        let count = stream.unsigned()?;
        let mut bounds = Vec::new();
        let mut native = 0u32;
        for _ in 0..count {
            native = native.checked_add(stream.unsigned()?)?;
            let il = IlOffset::from_biased(stream.unsigned()?);
            let _flags = stream.unsigned()?;
            bounds.push(Bound { native, il });
        }
        Some(Self { bounds })
    }

    /// Reads the form of 10: numbers of as many bits as the largest needs, behind each other.
    pub(super) fn from_bits(bytes: &[u8]) -> Option<Self> {
        let mut stream = Nibbles::new(bytes);
        let count = u64::from(stream.unsigned()?);
        // Width minus one; a width above 32 would not be that of an offset.
        let mut width = || stream.unsigned().filter(|&bits| bits < 32).map(|bits| bits + 1);
        let (native_bits, il_bits) = (width()?, width()?);
        let packed = bytes.get(stream.position()..)?;
        let entry = u64::from(FLAG_BITS + native_bits + il_bits);
        if count * entry > 8 * packed.len() as u64 {
            return None;
        }
        let mut bounds = Vec::new();
        let mut native = 0u32;
        for index in 0..count {
            let at = index * entry + u64::from(FLAG_BITS);
            native = native.checked_add(bits(packed, at, native_bits)?)?;
            let il = IlOffset::from_biased(bits(packed, at + u64::from(native_bits), il_bits)?);
            bounds.push(Bound { native, il });
        }
        Some(Self { bounds })
    }
}

/// `width` bits (at most 32) from bit `at` on, the lowest first.
fn bits(bytes: &[u8], at: u64, width: u32) -> Option<u32> {
    let first = usize::try_from(at / 8).ok()?;
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(bytes.get(first..)?) {
        *to = *from;
    }
    // 7 bits in front and 32 of the number are within the word.
    let value = u64::from_le_bytes(word) >> (at % 8);
    Some((value & ((1 << width) - 1)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pieces: &[(u32, IlOffset)]) -> IlMap {
        IlMap { bounds: pieces.iter().map(|&(native, il)| Bound { native, il }).collect() }
    }

    #[test]
    fn a_byte_belongs_to_the_last_piece_that_begins_before_it() {
        use IlOffset::*;
        let map = map(&[
            (0, Prolog),
            (8, At(0)),
            (8, At(1)),
            (20, Unmapped),
            (24, At(9)),
            (30, At(4)),
            (40, Epilog),
        ]);
        assert_eq!(map.at(7), Some(Prolog));
        assert_eq!(map.at(8), Some(At(1)));
        assert_eq!(map.at(19), Some(At(1)));
        assert_eq!(map.at(1000), Some(Epilog));
        assert_eq!(map.line_offset(3), Some(0));
        assert_eq!(map.line_offset(21), None);
        assert_eq!(map.line_offset(30), Some(4));
        assert_eq!(map.line_offset(41), Some(9), "the highest offset, not the last");
        assert_eq!(IlMap::default().at(0), None);
        assert_eq!(self::map(&[(4, At(0))]).at(3), None);
    }

    #[test]
    fn both_forms_hold_the_same() {
        use IlOffset::*;
        let expected = map(&[(0, Prolog), (5, At(0)), (63, At(4)), (64, Epilog)]);
        // (delta, il + 3, flags): (0, 1, 0), (5, 3, 2), (58, 7, 0), (1, 0, 2)
        let nibbles = [0x04, 0x01, 0x35, 0xf2, 0x72, 0x10, 0x20];
        assert_eq!(IlMap::from_nibbles(&nibbles), Some(expected.clone()));
        // 6 bits for deltas, 3 for IL: (flags | delta << 2 | il << 8), 11 bits each.
        let entries = [1u64 << 8, 2 | 5 << 2 | 3 << 8, 58 << 2 | 7 << 8, 2 | 1 << 2];
        let packed = entries.iter().enumerate().fold(0u64, |all, (i, entry)| all | entry << (11 * i));
        let mut bits = vec![0x54, 0x02];
        bits.extend_from_slice(&packed.to_le_bytes()[..6]);
        assert_eq!(IlMap::from_bits(&bits), Some(expected));
    }

    #[test]
    fn damage_is_no_map() {
        assert_eq!(IlMap::from_nibbles(&[0xff, 0x7f]), None);
        // Sixty entries and no bytes for them; widths of 40 bits.
        assert_eq!(IlMap::from_bits(&[0x4f, 0x11]), None);
        assert_eq!(IlMap::from_bits(&[0xd1, 0x0d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(IlMap::from_bits(&[]), None);
    }
}
