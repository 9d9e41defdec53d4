//! Addresses of a target.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// An address in a target's memory. In JSON a string such as `"0x7f0c14011bb0"`, because many JSON readers lose
/// the low bits of large numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Addr(pub u64);

impl Serialize for Addr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A text that is no hexadecimal address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseAddrError(String);

impl fmt::Display for ParseAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a hexadecimal address", crate::escape(&self.0))
    }
}

impl std::error::Error for ParseAddrError {}

impl FromStr for Addr {
    type Err = ParseAddrError;

    /// Reads hexadecimal digits with or without `0x`, with or without the backtick that debuggers put between the
    /// two halves of an address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        let plain: String = digits.chars().filter(|&c| c != '`').collect();
        let ok = !plain.is_empty() && plain.len() <= 16 && plain.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(&plain, 16) {
            Ok(value) if ok => Ok(Addr(value)),
            _ => Err(ParseAddrError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_usual_spellings() {
        for text in
            ["7f0c14011bb0", "0x7f0c14011bb0", "00007f0c14011bb0", "00007f0c`14011bb0", "0X7F0C14011BB0"]
        {
            assert_eq!(text.parse(), Ok(Addr(0x7f0c_1401_1bb0)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in ["", "0x", "`", "xyz", "-1", "+1", "0x0x1", "11112222333344445"] {
            assert!(text.parse::<Addr>().is_err(), "{text}");
        }
    }

    #[test]
    fn json_is_a_string() {
        assert_eq!(format!("{}", Addr(0x10)), "0x10");
    }
}
