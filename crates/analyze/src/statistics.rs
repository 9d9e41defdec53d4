//! The table below a listing: objects and bytes by type.

use dnd_contract::Addr;
use serde::Serialize;

use crate::out::{Out, grouped};

/// One type's line.
#[derive(Debug, Clone, Serialize)]
pub struct TypeLine {
    /// Its method table.
    pub mt: Addr,
    /// Objects.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Its name, generic arguments in angle brackets.
    #[serde(rename = "type")]
    pub name: String,
}

/// All types of a listing, ordered.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TypeLines {
    /// By bytes (or objects), smallest first, as dotnet-dump has it: what matters stands at the end.
    pub types: Vec<TypeLine>,
    /// All objects.
    pub total_count: u64,
    /// All bytes.
    pub total_bytes: u64,
}

impl TypeLines {
    /// Orders lines, which come in the order in which their types were first met.
    #[must_use]
    pub fn new(mut types: Vec<TypeLine>, by_count: bool) -> Self {
        types.sort_by_key(|line| if by_count { line.count } else { line.bytes });
        let total_count = types.iter().map(|line| line.count).sum();
        let total_bytes = types.iter().map(|line| line.bytes).sum();
        TypeLines { types, total_count, total_bytes }
    }

    /// `Statistics:`, a line for each type, the total.
    pub fn text(&self, out: &mut Out<'_>) {
        out.line("Statistics:");
        if !self.types.is_empty() {
            let widest = |text: fn(&TypeLine) -> String, head: &str| {
                self.types.iter().map(|line| text(line).len()).max().unwrap_or(0).max(head.len())
            };
            let mt = widest(|line| format!("{:012x}", line.mt.0), "MT");
            let count = widest(|line| grouped(line.count), "Count");
            let bytes = widest(|line| grouped(line.bytes), "TotalSize");
            out.right("MT", mt);
            out.blanks(1);
            out.right("Count", count);
            out.blanks(1);
            out.right("TotalSize", bytes);
            out.line(" Class Name");
            for line in &self.types {
                out.hex(line.mt.0, 12, mt);
                out.blanks(1);
                out.grouped(line.count, count);
                out.blanks(1);
                out.grouped(line.bytes, bytes);
                out.blanks(1);
                out.name(&line.name);
                out.end();
            }
        }
        out.str("Total ");
        out.grouped(self.total_count, 0);
        out.str(" objects, ");
        out.grouped(self.total_bytes, 0);
        out.line(" bytes");
    }
}

/// The head of an object listing.
pub(crate) fn listing_head(out: &mut Out<'_>) {
    out.line("         Address               MT           Size ");
}

/// One row of an object listing.
#[inline]
pub(crate) fn listing_row(out: &mut Out<'_>, address: u64, mt: u64, size: u64, free: bool) {
    out.addr(address);
    out.blanks(1);
    out.addr(mt);
    out.blanks(1);
    out.grouped(size, 14);
    out.bytes(if free { b" Free\n" } else { b" \n" });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let line =
            |mt, count, bytes, name: &str| TypeLine { mt: Addr(mt), count, bytes, name: name.to_owned() };
        let lines = TypeLines::new(
            vec![
                line(0x7f1f_eb05_dd58, 636, 51_858, "System.String"),
                line(0x7f1f_eb10_1570, 1, 24, "A\u{1b}B"),
            ],
            false,
        );
        let mut text = Vec::new();
        let mut out = Out::new(&mut text);
        lines.text(&mut out);
        out.finish().expect("written");
        drop(out);
        assert_eq!(
            String::from_utf8(text).expect("text"),
            "Statistics:\n          MT Count TotalSize Class Name\n\
             7f1feb101570     1        24 A\\x1bB\n\
             7f1feb05dd58   636    51,858 System.String\n\
             Total 637 objects, 51,882 bytes\n"
        );
    }

    #[test]
    fn rows_are_those_of_dotnet_dump() {
        let mut text = Vec::new();
        let mut out = Out::new(&mut text);
        listing_row(&mut out, 0x7f14_1180_1140, 0x7f1f_eb05_dd58, 130, false);
        listing_row(&mut out, 0x7f14_1180_1970, 0x7f1f_eb05_dd58, 27_286, true);
        out.finish().expect("written");
        drop(out);
        assert_eq!(
            String::from_utf8(text).expect("text"),
            "    7f1411801140     7f1feb05dd58            130 \n    7f1411801970     7f1feb05dd58         27,286 Free\n"
        );
    }
}
