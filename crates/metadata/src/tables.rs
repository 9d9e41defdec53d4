//! Which tables there are, which columns they have, and where their rows are (II.22, II.24.2.6; for portable PDBs
//! dotnet/runtime docs/design/specs/PortablePdb-Metadata.md).

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::Error;

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident = $number:literal : [$($column:expr),*];)*) => {
        /// A metadata table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the names are those of the specification")]
        pub enum Table {
            $($(#[$doc])* $name = $number,)*
        }

        impl Table {
            /// The table with that number.
            #[must_use]
            pub fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Table::$name),)*
                    _ => None,
                }
            }

            fn columns(self) -> &'static [Column] {
                use Coded::*;
                use Column::*;
                match self {
                    $(Table::$name => &[$($column),*],)*
                }
            }
        }
    };
}

/// What a column holds, from which its width follows.
#[derive(Debug, Clone, Copy)]
enum Column {
    U16,
    U32,
    Str,
    Gid,
    Blb,
    /// A row of one table.
    Row(Table),
    /// A row of one of several tables.
    Tok(Coded),
}

/// The coded indices of II.24.2.6: which table a value of the low bits stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coded {
    TypeDefOrRef,
    HasConstant,
    HasCustomAttribute,
    HasFieldMarshal,
    HasDeclSecurity,
    MemberRefParent,
    HasSemantics,
    MethodDefOrRef,
    MemberForwarded,
    Implementation,
    CustomAttributeType,
    ResolutionScope,
    TypeOrMethodDef,
    HasCustomDebugInformation,
}

/// A tag that no table has.
const NONE: u8 = 0xff;

impl Coded {
    /// Number of low bits, and the table number for each of their values.
    fn tags(self) -> (u32, &'static [u8]) {
        match self {
            Coded::TypeDefOrRef => (2, &[0x02, 0x01, 0x1b]),
            Coded::HasConstant => (2, &[0x04, 0x08, 0x17]),
            Coded::HasCustomAttribute => (
                5,
                &[
                    0x06, 0x04, 0x01, 0x02, 0x08, 0x09, 0x0a, 0x00, 0x0e, 0x17, 0x14, 0x11, 0x1a, 0x1b, 0x20,
                    0x23, 0x26, 0x27, 0x28, 0x2a, 0x2c, 0x2b,
                ],
            ),
            Coded::HasFieldMarshal => (1, &[0x04, 0x08]),
            Coded::HasDeclSecurity => (2, &[0x02, 0x06, 0x20]),
            Coded::MemberRefParent => (3, &[0x02, 0x01, 0x1a, 0x06, 0x1b]),
            Coded::HasSemantics => (1, &[0x14, 0x17]),
            Coded::MethodDefOrRef => (1, &[0x06, 0x0a]),
            Coded::MemberForwarded => (1, &[0x04, 0x06]),
            Coded::Implementation => (2, &[0x26, 0x23, 0x27]),
            Coded::CustomAttributeType => (3, &[NONE, NONE, 0x06, 0x0a, NONE]),
            Coded::ResolutionScope => (2, &[0x00, 0x1a, 0x23, 0x01]),
            Coded::TypeOrMethodDef => (1, &[0x02, 0x06]),
            Coded::HasCustomDebugInformation => (
                5,
                &[
                    0x06, 0x04, 0x01, 0x02, 0x08, 0x09, 0x0a, 0x00, 0x0e, 0x17, 0x14, 0x11, 0x1a, 0x1b, 0x20,
                    0x23, 0x26, 0x27, 0x28, 0x2a, 0x2c, 0x2b, 0x30, 0x32, 0x33, 0x34, 0x35,
                ],
            ),
        }
    }

    /// The token that a value of such a column stands for; nil when its low bits are no table's.
    pub(crate) fn decode(self, value: u32) -> crate::Token {
        let (bits, tags) = self.tags();
        let table = tags.get((value & ((1 << bits) - 1)) as usize).copied().unwrap_or(NONE);
        let row = value >> bits;
        if table == NONE || row > 0xff_ffff {
            crate::Token(0)
        } else {
            crate::Token(u32::from(table) << 24 | row)
        }
    }

    /// The column value for a token; the reverse of [`Coded::decode`].
    pub(crate) fn encode(self, token: crate::Token) -> Option<u32> {
        let (bits, tags) = self.tags();
        let table = (token.0 >> 24) as u8;
        let tag = tags.iter().position(|&t| t == table)? as u32;
        token.row().checked_shl(bits).map(|row| row | tag)
    }
}

tables! {
    Module = 0x00: [U16, Str, Gid, Gid, Gid];
    TypeRef = 0x01: [Tok(ResolutionScope), Str, Str];
    TypeDef = 0x02: [U32, Str, Str, Tok(TypeDefOrRef), Row(Table::Field), Row(Table::MethodDef)];
    FieldPtr = 0x03: [Row(Table::Field)];
    Field = 0x04: [U16, Str, Blb];
    MethodPtr = 0x05: [Row(Table::MethodDef)];
    MethodDef = 0x06: [U32, U16, U16, Str, Blb, Row(Table::Param)];
    ParamPtr = 0x07: [Row(Table::Param)];
    Param = 0x08: [U16, U16, Str];
    InterfaceImpl = 0x09: [Row(Table::TypeDef), Tok(TypeDefOrRef)];
    MemberRef = 0x0a: [Tok(MemberRefParent), Str, Blb];
    Constant = 0x0b: [U16, Tok(HasConstant), Blb];
    CustomAttribute = 0x0c: [Tok(HasCustomAttribute), Tok(CustomAttributeType), Blb];
    FieldMarshal = 0x0d: [Tok(HasFieldMarshal), Blb];
    DeclSecurity = 0x0e: [U16, Tok(HasDeclSecurity), Blb];
    ClassLayout = 0x0f: [U16, U32, Row(Table::TypeDef)];
    FieldLayout = 0x10: [U32, Row(Table::Field)];
    StandAloneSig = 0x11: [Blb];
    EventMap = 0x12: [Row(Table::TypeDef), Row(Table::Event)];
    EventPtr = 0x13: [Row(Table::Event)];
    Event = 0x14: [U16, Str, Tok(TypeDefOrRef)];
    PropertyMap = 0x15: [Row(Table::TypeDef), Row(Table::Property)];
    PropertyPtr = 0x16: [Row(Table::Property)];
    Property = 0x17: [U16, Str, Blb];
    MethodSemantics = 0x18: [U16, Row(Table::MethodDef), Tok(HasSemantics)];
    MethodImpl = 0x19: [Row(Table::TypeDef), Tok(MethodDefOrRef), Tok(MethodDefOrRef)];
    ModuleRef = 0x1a: [Str];
    TypeSpec = 0x1b: [Blb];
    ImplMap = 0x1c: [U16, Tok(MemberForwarded), Str, Row(Table::ModuleRef)];
    FieldRva = 0x1d: [U32, Row(Table::Field)];
    EncLog = 0x1e: [U32, U32];
    EncMap = 0x1f: [U32];
    Assembly = 0x20: [U32, U16, U16, U16, U16, U32, Blb, Str, Str];
    AssemblyProcessor = 0x21: [U32];
    AssemblyOs = 0x22: [U32, U32, U32];
    AssemblyRef = 0x23: [U16, U16, U16, U16, U32, Blb, Str, Str, Blb];
    AssemblyRefProcessor = 0x24: [U32, Row(Table::AssemblyRef)];
    AssemblyRefOs = 0x25: [U32, U32, U32, Row(Table::AssemblyRef)];
    File = 0x26: [U32, Str, Blb];
    ExportedType = 0x27: [U32, U32, Str, Str, Tok(Implementation)];
    ManifestResource = 0x28: [U32, U32, Str, Tok(Implementation)];
    NestedClass = 0x29: [Row(Table::TypeDef), Row(Table::TypeDef)];
    GenericParam = 0x2a: [U16, U16, Tok(TypeOrMethodDef), Str];
    MethodSpec = 0x2b: [Tok(MethodDefOrRef), Blb];
    GenericParamConstraint = 0x2c: [Row(Table::GenericParam), Tok(TypeDefOrRef)];
    Document = 0x30: [Blb, Gid, Blb, Gid];
    MethodDebugInformation = 0x31: [Row(Table::Document), Blb];
    LocalScope = 0x32: [
        Row(Table::MethodDef), Row(Table::ImportScope), Row(Table::LocalVariable), Row(Table::LocalConstant), U32, U32
    ];
    LocalVariable = 0x33: [U16, U16, Str];
    LocalConstant = 0x34: [Str, Blb];
    ImportScope = 0x35: [Row(Table::ImportScope), Blb];
    StateMachineMethod = 0x36: [Row(Table::MethodDef), Row(Table::MethodDef)];
    CustomDebugInformation = 0x37: [Tok(HasCustomDebugInformation), Gid, Blb];
}

const MAX_TABLES: usize = 64;
const MAX_COLUMNS: usize = 9;

/// Where a table's rows are and how wide its columns.
#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    rows: u32,
    offset: usize,
    row_size: usize,
    /// Offset and width (2 or 4) of each column.
    columns: [(u8, u8); MAX_COLUMNS],
}

/// The table stream (`#~` or `#-`), its layout worked out.
#[derive(Debug, Clone)]
pub(crate) struct Tables<'a> {
    bytes: &'a [u8],
    shapes: [Shape; MAX_TABLES],
    sorted: u64,
}

const WIDE_STRINGS: u8 = 1;
const WIDE_GUIDS: u8 = 2;
const WIDE_BLOBS: u8 = 4;
/// Four bytes follow the row counts (only in `#-` of edit and continue).
const EXTRA_DATA: u8 = 0x40;

impl<'a> Tables<'a> {
    /// `external`: row counts of the tables of the assembly that a portable PDB belongs to.
    pub(crate) fn parse(bytes: &'a [u8], external: &[u32; MAX_TABLES]) -> Result<Self, Error> {
        let damaged = |what| Error::Damaged { what };
        let short = || damaged("the table stream ends inside its header");
        let widths = *bytes.get(6).ok_or_else(short)?;
        let valid = u64_at(bytes, 8).ok_or_else(short)?;
        let sorted = u64_at(bytes, 16).ok_or_else(short)?;
        let mut at = 24;
        let mut shapes = [Shape::default(); MAX_TABLES];
        let mut rows = *external;
        for (i, (shape, rows)) in shapes.iter_mut().zip(&mut rows).enumerate() {
            if valid >> i & 1 != 0 {
                let count = u32_at(bytes, at).ok_or_else(short)?;
                if count > 0xff_ffff {
                    return Err(damaged("a table has more rows than a token can number"));
                }
                shape.rows = count;
                *rows = count;
                at += 4;
            }
        }
        if widths & EXTRA_DATA != 0 {
            at += 4;
        }
        for (i, shape) in shapes.iter_mut().enumerate() {
            if shape.rows == 0 {
                continue;
            }
            // A table of an unknown kind has rows of an unknown size: nothing behind it can be found.
            let table =
                Table::from_number(i as u8).ok_or_else(|| damaged("it has a table of an unknown kind"))?;
            shape.offset = at;
            for (place, column) in shape.columns.iter_mut().zip(table.columns()) {
                let width = width(*column, widths, &rows);
                *place = (shape.row_size as u8, width);
                shape.row_size += usize::from(width);
            }
            at = at
                .checked_add(shape.row_size * shape.rows as usize)
                .filter(|&end| end <= bytes.len())
                .ok_or_else(|| damaged("the tables are longer than their stream"))?;
        }
        Ok(Self { bytes, shapes, sorted })
    }

    fn shape(&self, table: Table) -> Option<&Shape> {
        self.shapes.get(table as usize)
    }

    pub(crate) fn rows(&self, table: Table) -> u32 {
        self.shape(table).map_or(0, |shape| shape.rows)
    }

    /// Whether the writer says that the table is sorted by its key.
    pub(crate) fn is_sorted(&self, table: Table) -> bool {
        self.sorted >> (table as u8) & 1 != 0
    }

    /// Column `column` (from 0) of row `row` (from 1).
    #[inline]
    pub(crate) fn get(&self, table: Table, row: u32, column: usize) -> Option<u32> {
        let shape = self.shape(table)?;
        let index = row.checked_sub(1).filter(|&index| index < shape.rows)? as usize;
        let &(offset, width) = shape.columns.get(column)?;
        let at = shape.offset + index * shape.row_size + usize::from(offset);
        match width {
            2 => u16_at(self.bytes, at).map(u32::from),
            4 => u32_at(self.bytes, at),
            _ => None,
        }
    }
}

fn width(column: Column, widths: u8, rows: &[u32; MAX_TABLES]) -> u8 {
    let count = |table: u8| rows.get(usize::from(table)).copied().unwrap_or(0);
    let wide = match column {
        Column::U16 => false,
        Column::U32 => true,
        Column::Str => widths & WIDE_STRINGS != 0,
        Column::Gid => widths & WIDE_GUIDS != 0,
        Column::Blb => widths & WIDE_BLOBS != 0,
        Column::Row(table) => count(table as u8) > 0xffff,
        Column::Tok(coded) => {
            let (bits, tags) = coded.tags();
            tags.iter().map(|&table| count(table)).max().unwrap_or(0) >= 1 << (16 - bits)
        }
    };
    if wide { 4 } else { 2 }
}
