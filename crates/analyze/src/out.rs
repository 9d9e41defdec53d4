//! A large buffer that numbers are written into by hand.
//!
//! Listings have millions of rows; `core::fmt` would cost more than the walk over the heap. A failed write is kept
//! and reported by [`Out::check`], so that formatting needs no `?` at every column.

use std::io::{self, Write};

/// Bytes collected before they are handed on.
const CHUNK: usize = 128 * 1024;

/// Where the text or JSON of a command goes.
pub struct Out<'a> {
    buffer: Vec<u8>,
    to: &'a mut dyn Write,
    failed: Option<io::Error>,
}

impl<'a> Out<'a> {
    /// Collects output for `to`.
    pub fn new(to: &'a mut dyn Write) -> Self {
        Out { buffer: Vec::with_capacity(CHUNK + 4096), to, failed: None }
    }

    /// The first error of writing, once; later writes go nowhere.
    ///
    /// # Errors
    /// The error that the destination answered.
    pub fn check(&mut self) -> io::Result<()> {
        match self.failed.take() {
            None => Ok(()),
            Some(error) => {
                let again = io::Error::from(error.kind());
                self.failed = Some(error);
                Err(again)
            }
        }
    }

    /// Whether a write failed; loops stop then.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Hands everything on.
    ///
    /// # Errors
    /// The error that the destination answered, now or before.
    pub fn finish(&mut self) -> io::Result<()> {
        self.drain();
        if self.failed.is_none()
            && let Err(error) = self.to.flush()
        {
            self.failed = Some(error);
        }
        self.check()
    }

    #[cold]
    fn drain(&mut self) {
        if self.failed.is_none()
            && let Err(error) = self.to.write_all(&self.buffer)
        {
            self.failed = Some(error);
        }
        self.buffer.clear();
    }

    /// Appends bytes as they are.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > CHUNK {
            self.drain();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Appends text of this program.
    #[inline]
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Appends text of the target, made harmless for a terminal.
    pub fn name(&mut self, text: &str) {
        let escaped = dnd_contract::escape(text);
        self.bytes(escaped.as_bytes());
    }

    /// Appends text and a line end.
    pub fn line(&mut self, text: &str) {
        self.str(text);
        self.bytes(b"\n");
    }

    /// Ends a line.
    #[inline]
    pub fn end(&mut self) {
        self.bytes(b"\n");
    }

    /// Appends `count` blanks.
    #[inline]
    pub fn blanks(&mut self, mut count: usize) {
        const BLANKS: &[u8; 64] = &[b' '; 64];
        while count > 0 {
            let n = count.min(BLANKS.len());
            self.bytes(BLANKS.get(..n).unwrap_or(BLANKS));
            count -= n;
        }
    }

    /// Appends `text` with blanks before it up to `width` characters.
    pub fn right(&mut self, text: &str, width: usize) {
        self.blanks(width.saturating_sub(text.chars().count()));
        self.str(text);
    }

    /// Appends `text` with blanks behind it up to `width` characters.
    pub fn left(&mut self, text: &str, width: usize) {
        self.str(text);
        self.blanks(width.saturating_sub(text.chars().count()));
    }

    /// Appends a label, padded to `width`, and what follows it as a whole line.
    pub fn field(&mut self, label: &str, width: usize, value: &str) {
        self.left(label, width);
        self.name(value);
        self.end();
    }

    /// Appends formatted text of this program (not for listings).
    pub fn fmt(&mut self, args: std::fmt::Arguments<'_>) {
        // Write for Out never fails; it remembers.
        let _ = self.write_fmt(args);
    }

    /// Appends hexadecimal digits, lower case, at least `digits` of them, right-aligned to `width`.
    #[inline]
    pub fn hex(&mut self, value: u64, digits: usize, width: usize) {
        let text = hex(value);
        let from = text.len() - hex_digits(value).max(digits).min(16);
        let text = text.get(from..).unwrap_or(&text);
        self.blanks(width.saturating_sub(text.len()));
        self.bytes(text);
    }

    /// Appends an address as managed commands of dotnet-dump write it: at least 12 digits, right-aligned to 16.
    #[inline]
    pub fn addr(&mut self, value: u64) {
        self.hex(value, 12, 16);
    }

    /// Appends an address with 16 digits.
    #[inline]
    pub fn addr16(&mut self, value: u64) {
        self.hex(value, 16, 16);
    }

    /// Appends a decimal number, right-aligned to `width`.
    pub fn dec(&mut self, value: u64, width: usize) {
        let text = Digits::plain(value);
        self.blanks(width.saturating_sub(text.as_bytes().len()));
        self.bytes(text.as_bytes());
    }

    /// Appends a decimal number with commas, right-aligned to `width`.
    #[inline]
    pub fn grouped(&mut self, value: u64, width: usize) {
        let text = Digits::grouped(value);
        self.blanks(width.saturating_sub(text.as_bytes().len()));
        self.bytes(text.as_bytes());
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All 16 hexadecimal digits of a number.
#[inline]
fn hex(value: u64) -> [u8; 16] {
    // Eight nibbles at a time, spread to bytes; then 0-9 and a-f by arithmetic: no table, no loop over digits.
    fn half(x: u32) -> [u8; 8] {
        let mut v = u64::from(x);
        v = (v | (v << 16)) & 0x0000_ffff_0000_ffff;
        v = (v | (v << 8)) & 0x00ff_00ff_00ff_00ff;
        v = (v | (v << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
        let letters = ((v + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
        (v + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
    }
    let mut out = [0; 16];
    let (high, low) = out.split_at_mut(8);
    high.copy_from_slice(&half((value >> 32) as u32));
    low.copy_from_slice(&half(value as u32));
    out
}

/// Number of hexadecimal digits that a number needs, at least one.
#[inline]
fn hex_digits(value: u64) -> usize {
    (16 - value.leading_zeros() as usize / 4).max(1)
}

/// Decimal digits of a number, at the end of a fixed array.
struct Digits {
    text: [u8; 28],
    from: usize,
}

impl Digits {
    #[inline]
    fn make(mut value: u64, group: bool) -> Self {
        let mut digits = Digits { text: [b'0'; 28], from: 28 };
        let mut count = 0;
        loop {
            if group && count > 0 && count % 3 == 0 {
                digits.push(b',');
            }
            digits.push(b'0' + (value % 10) as u8);
            count += 1;
            value /= 10;
            if value == 0 {
                return digits;
            }
        }
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        // 20 digits and 6 commas at most.
        self.from -= 1;
        if let Some(slot) = self.text.get_mut(self.from) {
            *slot = byte;
        }
    }

    #[inline]
    fn plain(value: u64) -> Self {
        Self::make(value, false)
    }

    #[inline]
    fn grouped(value: u64) -> Self {
        Self::make(value, true)
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        self.text.get(self.from..).unwrap_or(&self.text)
    }
}

/// A number with commas, for places that need a string (column widths).
pub(crate) fn grouped(value: u64) -> String {
    String::from_utf8_lossy(Digits::grouped(value).as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Out<'_>)) -> String {
        let mut bytes = Vec::new();
        let mut out = Out::new(&mut bytes);
        write(&mut out);
        out.finish().expect("a vector takes everything");
        drop(out);
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn hexadecimal() {
        for value in [0, 1, 9, 10, 15, 16, 0xff, 0x7f0c_1401_1bb0, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(text(|o| o.hex(value, 0, 0)), format!("{value:x}"));
            assert_eq!(text(|o| o.addr16(value)), format!("{value:016x}"));
            assert_eq!(text(|o| o.addr(value)), format!("{:>16}", format!("{value:012x}")));
        }
    }

    #[test]
    fn decimals() {
        let cases: [(u64, &str); 7] = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (27_286, "27,286"),
            (123_456, "123,456"),
            (1_234_567, "1,234,567"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ];
        for (value, want) in cases {
            assert_eq!(text(|o| o.grouped(value, 0)), want);
            assert_eq!(text(|o| o.dec(value, 0)), want.replace(',', ""));
            assert_eq!(grouped(value), want);
        }
        assert_eq!(text(|o| o.grouped(1000, 14)), "         1,000");
    }

    #[test]
    fn long_output_arrives_in_order() {
        let text = text(|o| (0..100_000).for_each(|i| o.dec(i, 7)));
        assert_eq!(text.len(), 700_000);
        assert!(text.ends_with("  99999"));
    }

    #[test]
    fn a_failed_write_is_kept() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut full = Full;
        let mut out = Out::new(&mut full);
        out.str("text");
        assert!(out.finish().is_err());
        assert!(out.failed());
        assert!(out.check().is_err());
    }
}
