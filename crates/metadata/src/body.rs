//! Headers of method bodies (II.25.4).

use crate::bytes::{u16_at, u32_at};
use crate::token::Token;

/// Bytes of the longer of the two kinds of headers.
pub const BODY_HEADER: usize = 12;

/// What the header of a method's IL says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHeader {
    /// Bytes of IL.
    pub code_size: u32,
    /// Signature of the locals (StandAloneSig); nil for none.
    pub locals: Token,
}

/// Reads the header of a method body; of a short one the first byte is enough.
#[must_use]
pub fn body_header(bytes: &[u8]) -> Option<BodyHeader> {
    let first = *bytes.first()?;
    match first & 3 {
        2 => Some(BodyHeader { code_size: u32::from(first >> 2), locals: Token(0) }),
        3 => {
            // The header's size in words of four bytes.
            let size = u16_at(bytes, 0)? >> 12;
            (size >= 3).then_some(())?;
            Some(BodyHeader { code_size: u32_at(bytes, 4)?, locals: Token(u32_at(bytes, 8)?) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_headers() {
        let short = body_header(&[0x2a << 2 | 2]).unwrap();
        assert_eq!(short, BodyHeader { code_size: 0x2a, locals: Token(0) });
        let long = [0x13, 0x30, 2, 0, 0x44, 1, 0, 0, 7, 0, 0, 0x11];
        assert_eq!(body_header(&long), Some(BodyHeader { code_size: 0x144, locals: Token(0x1100_0007) }));
        assert_eq!(body_header(&long[..11]), None);
        assert_eq!(
            body_header(&[0x13, 0x20, 2, 0, 0x44, 1, 0, 0, 7, 0, 0, 0x11]),
            None,
            "too short a header"
        );
        assert_eq!(body_header(&[0]), None);
        assert_eq!(body_header(&[]), None);
    }
}
