//! Little-endian numbers at offsets of a slice.

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// The bytes up to the first NUL or the end.
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or_default()
}

/// A compressed number (II.23.2) and how many bytes it takes.
pub(crate) fn compressed(bytes: &[u8]) -> Option<(u32, usize)> {
    match *bytes {
        [a @ 0..=0x7f, ..] => Some((a.into(), 1)),
        [a @ 0x80..=0xbf, b, ..] => Some((u32::from(a & 0x3f) << 8 | u32::from(b), 2)),
        [a @ 0xc0..=0xdf, b, c, d, ..] => Some((u32::from_be_bytes([a & 0x1f, b, c, d]), 4)),
        _ => None,
    }
}

/// A signed compressed number (II.23.2) and how many bytes it takes: rotated left by one, so that the sign is the lowest
/// bit.
pub(crate) fn compressed_signed(bytes: &[u8]) -> Option<(i32, usize)> {
    let (value, len) = compressed(bytes)?;
    let bits = match len {
        1 => 6,
        2 => 13,
        _ => 28,
    };
    let magnitude = (value >> 1) as i32;
    Some((if value & 1 == 0 { magnitude } else { magnitude - (1 << bits) }, len))
}
