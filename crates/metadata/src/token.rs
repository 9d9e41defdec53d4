//! Tokens and GUIDs.

use std::fmt;

use crate::tables::Table;

/// A metadata token: the table in the upper eight bits, the row (from 1) in the lower 24. Row 0 means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Token(pub u32);

impl Token {
    /// The token of `row` of `table`.
    #[must_use]
    pub fn new(table: Table, row: u32) -> Self {
        Token((table as u32) << 24 | (row & 0xff_ffff))
    }

    /// Its row, from 1; 0 for none.
    #[must_use]
    pub fn row(self) -> u32 {
        self.0 & 0xff_ffff
    }

    /// Its table; `None` for a number that is no table (string tokens, 0x70, among them).
    #[must_use]
    pub fn table(self) -> Option<Table> {
        Table::from_number((self.0 >> 24) as u8)
    }

    /// The row if it is one of `table`, and not 0.
    #[must_use]
    pub fn row_of(self, table: Table) -> Option<u32> {
        (self.table() == Some(table) && self.row() != 0).then(|| self.row())
    }

    /// Whether it names nothing.
    #[must_use]
    pub fn is_nil(self) -> bool {
        self.row() == 0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A GUID, in the byte order of files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Guid(pub [u8; 16]);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, rest @ ..] = self.0;
        write!(f, "{:08x}-", u32::from_le_bytes([a0, a1, a2, a3]))?;
        write!(f, "{:04x}-{:04x}", u16::from_le_bytes([b0, b1]), u16::from_le_bytes([c0, c1]))?;
        for (i, byte) in rest.iter().enumerate() {
            let dash = if i == 0 || i == 2 { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
