//! A reader over bytes that never reads past their end.

/// Fewer bytes were left than a value needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value is cut off by the end of its block")]
pub struct OutOfBytes;

/// Reads little-endian values one after the other.
///
/// Useful for payloads of the runtime's own events, whose layout is not in the stream. `Copy`: a copy remembers a
/// place to come back to.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

macro_rules! number {
    ($($name:ident: $type:ty),*) => {
        $(
            #[doc = concat!("Reads a little-endian `", stringify!($type), "`.")]
            #[inline]
            pub fn $name(&mut self) -> Result<$type, OutOfBytes> {
                let (bytes, rest) = self.rest.split_first_chunk().ok_or(OutOfBytes)?;
                self.rest = rest;
                Ok(<$type>::from_le_bytes(*bytes))
            }
        )*
    };
}

impl<'a> Cursor<'a> {
    /// A reader that starts at the first of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    number!(u8: u8, u16: u16, u32: u32, u64: u64, i8: i8, i16: i16, i32: i32, i64: i64, f32: f32, f64: f64);

    /// The bytes not yet read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// How many bytes are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Takes the next `count` bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], OutOfBytes> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(OutOfBytes)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Takes the next 16 bytes: a GUID in its memory layout.
    #[inline]
    pub fn guid(&mut self) -> Result<[u8; 16], OutOfBytes> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(OutOfBytes)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// Reads UTF-16 text up to its terminating zero. Unpaired surrogates become U+FFFD.
    pub fn utf16_zero(&mut self) -> Result<String, OutOfBytes> {
        let (units, tail) = self.rest.as_chunks::<2>();
        let length = units.iter().position(|&unit| unit == [0, 0]).ok_or(OutOfBytes)?;
        let (text, rest) = units.split_at_checked(length).ok_or(OutOfBytes)?;
        let text = char::decode_utf16(text.iter().map(|&unit| u16::from_le_bytes(unit)))
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
        // The terminator, and an odd byte after the last whole unit, which `as_chunks` set apart.
        let used = self.rest.len() - tail.len() - rest.as_flattened().len();
        self.take(used + 2)?;
        Ok(text)
    }

    /// Reads a variable-length number of at most 32 bits: 7 bits a byte, lowest first.
    #[inline]
    pub fn varuint32(&mut self) -> Result<u32, OutOfBytes> {
        // Longer or larger ones don't occur; what doesn't fit is cut off as the reference reader does.
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        self.varuint(5).map(|value| value as u32)
    }

    /// Reads a variable-length number of at most 64 bits.
    #[inline]
    pub fn varuint64(&mut self) -> Result<u64, OutOfBytes> {
        self.varuint(10)
    }

    #[inline]
    fn varuint(&mut self, most: usize) -> Result<u64, OutOfBytes> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().enumerate().take(most) {
            value |= u64::from(byte & 0x7f) << (7 * index).min(63);
            if byte & 0x80 == 0 {
                self.take(index + 1)?;
                return Ok(value);
            }
        }
        Err(OutOfBytes)
    }

    /// Reads UTF-8 text with a variable-length byte count before it (version 6).
    pub fn utf8_counted(&mut self) -> Result<String, OutOfBytes> {
        let length = self.varuint32()?;
        let bytes = self.take(usize::try_from(length).map_err(|_| OutOfBytes)?)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_at_its_zero() {
        let bytes = [b'h', 0, 0xfc, 0, 0, 0, 7, 0, 9];
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(cursor.utf16_zero().unwrap(), "hü");
        assert_eq!(cursor.u16(), Ok(7));
        assert_eq!(cursor.utf16_zero(), Err(OutOfBytes));
        assert_eq!(cursor.rest(), [9]);
    }

    #[test]
    fn variable_length_numbers() {
        let mut cursor = Cursor::new(&[0x05, 0x80, 0x01, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x80]);
        assert_eq!(cursor.varuint32(), Ok(5));
        assert_eq!(cursor.varuint32(), Ok(128));
        assert_eq!(cursor.varuint32(), Ok(u32::MAX));
        assert_eq!(cursor.varuint32(), Err(OutOfBytes));
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Cursor::new(&largest).varuint64(), Ok(u64::MAX));
        assert_eq!(Cursor::new(&[0xff; 12]).varuint64(), Err(OutOfBytes));
    }
}
