//! The seam between whatever holds a target's bytes and everything that interprets them.

use thiserror::Error;

/// Bytes that a reader asked for and that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{len} bytes at {addr:#x} are not in the dump")]
pub struct Missing {
    /// First address asked for.
    pub addr: u64,
    /// Number of bytes asked for.
    pub len: u64,
}

/// A target's memory: addresses in, bytes out. All numbers are little endian.
///
/// Implementations never invent bytes: what is not there is [`Missing`], also in the middle of a range.
pub trait Memory: Sync {
    /// The bytes from `addr` to the end of the run of bytes that lie behind each other in the backing store;
    /// empty when the byte at `addr` is missing or can't be borrowed.
    fn run(&self, addr: u64) -> &[u8];

    /// Fills `buf` with the bytes at `addr`, or says which are missing.
    ///
    /// # Errors
    /// [`Missing`] when any byte of the range is not there.
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing>;

    /// `len` bytes at `addr`, borrowed; `None` when they are not all there or not in one piece.
    fn slice(&self, addr: u64, len: usize) -> Option<&[u8]> {
        self.run(addr).get(..len)
    }

    /// The byte at `addr`.
    ///
    /// # Errors
    /// [`Missing`] when it is not there.
    fn u8(&self, addr: u64) -> Result<u8, Missing> {
        let mut b = [0; 1];
        self.read(addr, &mut b)?;
        Ok(u8::from_le_bytes(b))
    }

    /// The 16-bit number at `addr`.
    ///
    /// # Errors
    /// [`Missing`] when any byte of it is not there.
    fn u16(&self, addr: u64) -> Result<u16, Missing> {
        let mut b = [0; 2];
        self.read(addr, &mut b)?;
        Ok(u16::from_le_bytes(b))
    }

    /// The 32-bit number at `addr`.
    ///
    /// # Errors
    /// [`Missing`] when any byte of it is not there.
    fn u32(&self, addr: u64) -> Result<u32, Missing> {
        let mut b = [0; 4];
        self.read(addr, &mut b)?;
        Ok(u32::from_le_bytes(b))
    }

    /// The 64-bit number (or pointer) at `addr`.
    ///
    /// # Errors
    /// [`Missing`] when any byte of it is not there.
    fn u64(&self, addr: u64) -> Result<u64, Missing> {
        let mut b = [0; 8];
        self.read(addr, &mut b)?;
        Ok(u64::from_le_bytes(b))
    }

    /// The bytes at `addr` up to the first NUL, at most `max` of them; also stops where memory is missing.
    fn c_string(&self, addr: u64, max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for i in 0..max {
            match self.u8(addr.wrapping_add(i as u64)) {
                Ok(b) if b != 0 => out.push(b),
                _ => break,
            }
        }
        out
    }

    /// The UTF-16 text at `addr` up to the first NUL, at most `max` units; unpaired surrogates are replaced.
    ///
    /// # Errors
    /// [`Missing`] when memory ends before the NUL.
    fn utf16_z(&self, addr: u64, max: usize) -> Result<String, Missing> {
        let mut units = Vec::new();
        while units.len() < max {
            match self.u16(addr.wrapping_add(2 * units.len() as u64))? {
                0 => break,
                unit => units.push(unit),
            }
        }
        Ok(String::from_utf16_lossy(&units))
    }
}
