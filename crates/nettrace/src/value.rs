//! Payloads, decoded with the field list of their event.

use crate::cursor::{Cursor, OutOfBytes};
use crate::metadata::{EventType, Field, FieldType};

/// A decoded value. Field names borrow from the parser.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// A truth value.
    Bool(bool),
    /// A UTF-16 code unit; an unpaired surrogate is U+FFFD.
    Char(char),
    /// A signed number of any size.
    Int(i64),
    /// An unsigned number of any size.
    UInt(u64),
    /// A floating point number of any size.
    Float(f64),
    /// A FILETIME: units of 100 ns since 1601, UTC.
    DateTime(i64),
    /// A GUID in its memory layout.
    Guid([u8; 16]),
    /// Text.
    Text(String),
    /// Items of one type.
    Array(Vec<Value<'a>>),
    /// Named values.
    Object(Vec<(&'a str, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// The text, if this is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The number, if this is a number of any kind; large integers lose their low bits.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "documented")]
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Int(value) => Some(value as f64),
            Self::UInt(value) => Some(value as f64),
            Self::Float(value) => Some(value),
            _ => None,
        }
    }

    /// The number, if this is an integer that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Int(value) => Some(value),
            Self::UInt(value) => i64::try_from(value).ok(),
            _ => None,
        }
    }

    /// The named values, if this is an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&[(&'a str, Value<'a>)]> {
        if let Self::Object(fields) = self { Some(fields) } else { None }
    }
}

/// A payload, as far as its field list explains it.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload<'a> {
    /// The values, in order.
    pub fields: Vec<(&'a str, Value<'a>)>,
    /// Bytes that no field explains: the whole payload for events without a field list.
    pub rest: &'a [u8],
}

impl<'a> Payload<'a> {
    /// The first value of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        find(&self.fields, name)
    }

    /// The fields themselves: without the one unnamed object in which self-describing events wrap them.
    #[must_use]
    pub fn unwrapped(&self) -> &[(&'a str, Value<'a>)] {
        match self.fields.as_slice() {
            [("", Value::Object(fields))] => fields,
            fields => fields,
        }
    }
}

/// The first value of that name in a list of fields.
pub(crate) fn find<'v, 'a>(fields: &'v [(&'a str, Value<'a>)], name: &str) -> Option<&'v Value<'a>> {
    fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
}

/// Decodes `payload`.
///
/// A truth value has four bytes in the payloads of most providers and one in those of self-describing events, and
/// the metadata is the same for both. So both are tried, and the one that explains every byte is right; if none
/// does, the one that goes wrong is cut off where it does and the rest stays undecoded.
pub(crate) fn decode<'a>(kind: &'a EventType, payload: &'a [u8]) -> Payload<'a> {
    let wide = Decoder::run(&kind.fields, payload, 4);
    if wide.rest.is_empty() && wide.fields.len() == kind.fields.len()
        || !kind.fields.iter().any(|field| field.kind.has_bool())
    {
        return wide;
    }
    let narrow = Decoder::run(&kind.fields, payload, 1);
    if narrow.rest.is_empty() && narrow.fields.len() == kind.fields.len() { narrow } else { wide }
}

struct Decoder<'a> {
    cursor: Cursor<'a>,
    bool_size: usize,
    /// How many more values may be made: arrays of items without any bytes could ask for billions.
    budget: usize,
}

impl<'a> Decoder<'a> {
    fn run(fields: &'a [Field], payload: &'a [u8], bool_size: usize) -> Payload<'a> {
        let mut decoder = Self { cursor: Cursor::new(payload), bool_size, budget: payload.len() + 1024 };
        let mut values = Vec::with_capacity(fields.len().min(64));
        for field in fields {
            let before = decoder.cursor;
            match decoder.value(&field.kind) {
                Ok(value) => values.push((field.name.as_str(), value)),
                Err(OutOfBytes) => {
                    decoder.cursor = before;
                    break;
                }
            }
        }
        Payload { fields: values, rest: decoder.cursor.rest() }
    }

    /// Nesting is that of the type, which is limited where types are read.
    fn value(&mut self, kind: &'a FieldType) -> Result<Value<'a>, OutOfBytes> {
        self.budget = self.budget.checked_sub(1).ok_or(OutOfBytes)?;
        let cursor = &mut self.cursor;
        Ok(match kind {
            FieldType::Bool => Value::Bool(cursor.take(self.bool_size)?.iter().any(|&byte| byte != 0)),
            FieldType::Bool8 => Value::Bool(cursor.u8()? != 0),
            FieldType::Char => {
                Value::Char(char::from_u32(u32::from(cursor.u16()?)).unwrap_or(char::REPLACEMENT_CHARACTER))
            }
            FieldType::Int(1) => Value::Int(i64::from(cursor.i8()?)),
            FieldType::Int(2) => Value::Int(i64::from(cursor.i16()?)),
            FieldType::Int(4) => Value::Int(i64::from(cursor.i32()?)),
            FieldType::Int(_) => Value::Int(cursor.i64()?),
            FieldType::UInt(1) => Value::UInt(u64::from(cursor.u8()?)),
            FieldType::UInt(2) => Value::UInt(u64::from(cursor.u16()?)),
            FieldType::UInt(4) => Value::UInt(u64::from(cursor.u32()?)),
            FieldType::UInt(_) => Value::UInt(cursor.u64()?),
            FieldType::Float => Value::Float(f64::from(cursor.f32()?)),
            FieldType::Double => Value::Float(cursor.f64()?),
            FieldType::DateTime => Value::DateTime(cursor.i64()?),
            FieldType::Guid => Value::Guid(cursor.guid()?),
            FieldType::Text => Value::Text(cursor.utf16_zero()?),
            FieldType::Utf8 => {
                let length = cursor.u16()?;
                Value::Text(String::from_utf8_lossy(cursor.take(usize::from(length))?).into_owned())
            }
            FieldType::VarInt { signed: false } => Value::UInt(cursor.varuint64()?),
            FieldType::VarInt { signed: true } => {
                let value = cursor.varuint64()?;
                Value::Int((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
            }
            FieldType::Array(item) => {
                let count = cursor.u16()?;
                Value::Array(self.items(count, item)?)
            }
            FieldType::FixedArray(count, item) => Value::Array(self.items(*count, item)?),
            FieldType::Object(fields) => {
                let mut values = Vec::with_capacity(fields.len().min(64));
                for field in fields {
                    values.push((field.name.as_str(), self.value(&field.kind)?));
                }
                Value::Object(values)
            }
            FieldType::Unknown(_) => return Err(OutOfBytes),
        })
    }

    fn items(&mut self, count: u16, item: &'a FieldType) -> Result<Vec<Value<'a>>, OutOfBytes> {
        (0..count).map(|_| self.value(item)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(fields: Vec<Field>) -> EventType {
        EventType { fields, ..EventType::default() }
    }

    fn field(name: &str, kind: FieldType) -> Field {
        Field { name: name.to_owned(), kind }
    }

    #[test]
    fn truth_values_of_both_sizes() {
        let kind = event(vec![field("a", FieldType::Bool), field("b", FieldType::Int(4))]);
        let expected = vec![("a", Value::Bool(true)), ("b", Value::Int(5))];
        assert_eq!(decode(&kind, &[1, 0, 0, 0, 5, 0, 0, 0]), Payload { fields: expected.clone(), rest: &[] });
        assert_eq!(decode(&kind, &[1, 5, 0, 0, 0]), Payload { fields: expected, rest: &[] });
        let odd = decode(&kind, &[1, 0, 0, 0, 5, 0]);
        assert_eq!(odd.fields, [("a", Value::Bool(true))]);
        assert_eq!(odd.rest, [5, 0]);
    }

    #[test]
    fn nested_values() {
        let array = FieldType::Array(Box::new(FieldType::UInt(1)));
        let kind = event(vec![field(
            "",
            FieldType::Object(vec![field("x", array), field("y", FieldType::VarInt { signed: true })]),
        )]);
        let payload = decode(&kind, &[2, 0, 7, 8, 3]);
        assert_eq!(
            payload.unwrapped(),
            [("x", Value::Array(vec![Value::UInt(7), Value::UInt(8)])), ("y", Value::Int(-2))]
        );
    }

    #[test]
    fn items_without_bytes_are_limited() {
        let nothing = FieldType::Object(vec![]);
        let mut kind = nothing;
        for _ in 0..10 {
            kind = FieldType::FixedArray(u16::MAX, Box::new(kind));
        }
        let kind = event(vec![field("a", kind)]);
        assert_eq!(decode(&kind, &[1, 2]), Payload { fields: vec![], rest: &[1, 2] });
    }
}
