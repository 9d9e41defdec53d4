//! Descriptions of events: names, and the fields of their payloads.

use std::collections::HashMap;

use crate::cursor::{Cursor, OutOfBytes};
use crate::error::Damage;

/// Real programs have a few thousand event types at most.
const MOST_TYPES: usize = 1 << 17;
/// Bytes of memory that they take.
const MOST_BYTES: usize = 32 << 20;
/// Real types nest three or four deep.
const DEEPEST: usize = 16;

/// An event as its provider describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventType {
    /// The name of the provider (an EventSource, or a part of the runtime).
    pub provider: String,
    /// The provider's number for the event.
    pub id: u32,
    /// The event's name; empty for the runtime's own events.
    pub name: String,
    /// Keywords of the event, as sent.
    pub keywords: u64,
    /// Version of the event's layout.
    pub version: u32,
    /// Level, 0 (always) to 5 (verbose).
    pub level: u32,
    /// Opcode, where the stream tells it: 1 start, 2 stop.
    pub opcode: Option<u8>,
    /// Fields of the payload, in order; empty for the runtime's own events and for some that hold arrays.
    pub fields: Vec<Field>,
}

impl EventType {
    /// An event without a description.
    pub(crate) const UNKNOWN: &Self = &Self {
        provider: String::new(),
        id: 0,
        name: String::new(),
        keywords: 0,
        version: 0,
        level: 0,
        opcode: None,
        fields: Vec::new(),
    };

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.provider.len() + self.name.len() + fields_bytes(&self.fields)
    }
}

fn fields_bytes(fields: &[Field]) -> usize {
    fields.iter().map(|field| size_of::<Field>() + field.name.len() + field.kind.bytes()).sum()
}

/// The types that a stream has described so far, by the ids that it gave them.
#[derive(Debug, Default)]
pub(crate) struct EventTypes {
    types: Vec<EventType>,
    /// Bytes that they take.
    bytes: usize,
    index: HashMap<u32, usize>,
}

impl EventTypes {
    pub(crate) fn add(&mut self, id: u32, event_type: EventType) -> Result<(), Damage> {
        // Told again: a stream may do so for as long as it lasts.
        if self.find(id).and_then(|index| self.get(index)) == Some(&event_type) {
            return Ok(());
        }
        if self.types.len() >= MOST_TYPES {
            return Err(Damage::TooMany(MOST_TYPES));
        }
        let bytes = self.bytes + event_type.bytes();
        if bytes > MOST_BYTES {
            return Err(Damage::TypesTooLarge(MOST_BYTES));
        }
        self.bytes = bytes;
        self.index.insert(id, self.types.len());
        self.types.push(event_type);
        Ok(())
    }

    /// Where the type with an id is; it stays there until [`Self::clear`].
    pub(crate) fn find(&self, id: u32) -> Option<usize> {
        self.index.get(&id).copied()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&EventType> {
        self.types.get(index)
    }

    pub(crate) fn clear(&mut self) {
        self.types.clear();
        self.bytes = 0;
        self.index.clear();
    }
}

/// A field of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name; empty for the one object that wraps a self-describing payload.
    pub name: String,
    /// How it is encoded.
    pub kind: FieldType,
}

/// The encoding of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldType {
    /// A truth value: four bytes in most providers, one in self-describing ones, told apart by trial.
    Bool,
    /// A truth value of one byte (version 6).
    Bool8,
    /// A UTF-16 code unit.
    Char,
    /// A signed number of this many bytes.
    Int(u8),
    /// An unsigned number of this many bytes.
    UInt(u8),
    /// A 4-byte floating point number.
    Float,
    /// An 8-byte floating point number. Decimals are sent like this, too.
    Double,
    /// 100 ns since 1601, UTC.
    DateTime,
    /// A GUID.
    Guid,
    /// UTF-16 text with a terminating zero.
    Text,
    /// A count of two bytes, then items of one type.
    Array(Box<FieldType>),
    /// Items of one type, always this many (version 6).
    FixedArray(u16, Box<FieldType>),
    /// Fields one after the other.
    Object(Vec<Field>),
    /// A variable-length number (version 6); signed ones are zigzag-encoded.
    VarInt {
        /// Whether it is signed.
        signed: bool,
    },
    /// UTF-8 text with its length in two bytes before it (version 6).
    Utf8,
    /// A type code that this reader doesn't know: it and what follows stays undecoded.
    Unknown(u32),
}

impl FieldType {
    /// Bytes of memory that it refers to.
    fn bytes(&self) -> usize {
        match self {
            Self::Array(item) | Self::FixedArray(_, item) => size_of::<Self>() + item.bytes(),
            Self::Object(fields) => fields_bytes(fields),
            _ => 0,
        }
    }

    /// Whether a truth value of uncertain size is in it.
    pub(crate) fn has_bool(&self) -> bool {
        match self {
            Self::Bool => true,
            Self::Array(item) | Self::FixedArray(_, item) => item.has_bool(),
            Self::Object(fields) => fields.iter().any(|field| field.kind.has_bool()),
            _ => false,
        }
    }
}

/// Reads a metadata payload of version 4: the id that events refer to, and the description.
pub(crate) fn read_v4(bytes: &[u8]) -> Result<(u32, EventType), Damage> {
    let mut cursor = Cursor::new(bytes);
    let id = cursor.u32()?;
    let mut event = EventType {
        provider: cursor.utf16_zero()?,
        id: cursor.u32()?,
        name: cursor.utf16_zero()?,
        keywords: cursor.u64()?,
        version: cursor.u32()?,
        level: cursor.u32()?,
        opcode: None,
        fields: fields_v1(&mut cursor, 0)?,
    };
    // Version "5": tagged additions after the fields.
    while cursor.left() > 0 {
        let length = cursor.u32()? as usize;
        let kind = cursor.u8()?;
        let mut tag = Cursor::new(cursor.take(length)?);
        match kind {
            1 => event.opcode = Some(tag.u8()?),
            2 => event.fields = fields_v2(&mut tag, 0)?,
            _ => {}
        }
    }
    Ok((id, event))
}

/// A type code that stands for itself; the others have parameters behind them.
fn simple_type(code: u32) -> FieldType {
    match code {
        3 => FieldType::Bool,
        4 => FieldType::Char,
        5 => FieldType::Int(1),
        6 => FieldType::UInt(1),
        7 => FieldType::Int(2),
        8 => FieldType::UInt(2),
        9 => FieldType::Int(4),
        10 => FieldType::UInt(4),
        11 => FieldType::Int(8),
        12 => FieldType::UInt(8),
        13 => FieldType::Float,
        14 | 15 => FieldType::Double,
        16 => FieldType::DateTime,
        17 => FieldType::Guid,
        18 => FieldType::Text,
        _ => FieldType::Unknown(code),
    }
}

fn deeper(depth: usize) -> Result<usize, Damage> {
    if depth == DEEPEST { Err(Damage::TooDeep(DEEPEST)) } else { Ok(depth + 1) }
}

/// Version 1: type code, nested fields if it is an object, name.
fn fields_v1(cursor: &mut Cursor<'_>, depth: usize) -> Result<Vec<Field>, Damage> {
    let depth = deeper(depth)?;
    let count = cursor.u32()?;
    // No capacity from the count: it may be a lie, while every field read takes bytes from the input.
    let mut fields = Vec::new();
    for _ in 0..count {
        let code = cursor.u32()?;
        let kind = match code {
            1 => FieldType::Object(fields_v1(cursor, depth)?),
            _ => simple_type(code),
        };
        fields.push(Field { name: cursor.utf16_zero()?, kind });
    }
    Ok(fields)
}

/// Version 2: size, name, type; a reader goes on after the size whatever it understood.
fn fields_v2(cursor: &mut Cursor<'_>, depth: usize) -> Result<Vec<Field>, Damage> {
    let depth = deeper(depth)?;
    let count = cursor.u32()?;
    let mut fields = Vec::new();
    for _ in 0..count {
        let size = cursor.u32()? as usize;
        let mut field = Cursor::new(cursor.take(size.checked_sub(4).ok_or(OutOfBytes)?)?);
        let name = field.utf16_zero()?;
        let mut arrays = 0;
        let mut code = field.u32()?;
        while code == 19 {
            arrays = deeper(arrays)?;
            code = field.u32()?;
        }
        let mut kind = match code {
            1 => FieldType::Object(fields_v2(&mut field, depth)?),
            _ => simple_type(code),
        };
        for _ in 0..arrays {
            kind = FieldType::Array(Box::new(kind));
        }
        fields.push(Field { name, kind });
    }
    Ok(fields)
}

/// Reads one row of a metadata block of version 6.
pub(crate) fn read_v6(bytes: &[u8]) -> Result<(u32, EventType), Damage> {
    let mut cursor = Cursor::new(bytes);
    let id = cursor.varuint32()?;
    let mut event = EventType {
        provider: cursor.utf8_counted()?,
        id: cursor.varuint32()?,
        name: cursor.utf8_counted()?,
        fields: fields_v6(&mut cursor, 0)?,
        ..EventType::default()
    };
    let size = usize::from(cursor.u16()?);
    let mut optional = Cursor::new(cursor.take(size)?);
    while optional.left() > 0 {
        match optional.u8()? {
            1 => event.opcode = Some(optional.u8()?),
            3 => event.keywords = optional.u64()?,
            4 | 5 => drop(optional.utf8_counted()?), // message template, description
            6 => {
                optional.utf8_counted()?;
                optional.utf8_counted()?;
            }
            7 => drop(optional.guid()?),
            8 => event.level = u32::from(optional.u8()?),
            9 => event.version = u32::from(optional.u8()?),
            // Its size is unknown, and so is where the next one starts.
            _ => break,
        }
    }
    Ok((id, event))
}

fn fields_v6(cursor: &mut Cursor<'_>, depth: usize) -> Result<Vec<Field>, Damage> {
    let depth = deeper(depth)?;
    let count = cursor.u16()?;
    let mut fields = Vec::new();
    for _ in 0..count {
        let size = usize::from(cursor.u16()?);
        let mut field = Cursor::new(cursor.take(size)?);
        fields.push(Field { name: field.utf8_counted()?, kind: type_v6(&mut field, depth)? });
    }
    Ok(fields)
}

fn type_v6(cursor: &mut Cursor<'_>, depth: usize) -> Result<FieldType, Damage> {
    let depth = deeper(depth)?;
    Ok(match cursor.u8()? {
        1 => FieldType::Object(fields_v6(cursor, depth)?),
        19 => FieldType::Array(Box::new(type_v6(cursor, depth)?)),
        20 => FieldType::VarInt { signed: true },
        21 => FieldType::VarInt { signed: false },
        22 => {
            let item = type_v6(cursor, depth)?;
            FieldType::FixedArray(cursor.u16()?, Box::new(item))
        }
        // The collectors that use it send text as a length of two bytes and UTF-8.
        23 => FieldType::Utf8,
        26 => FieldType::Bool8,
        code => simple_type(u32::from(code)),
    })
}
