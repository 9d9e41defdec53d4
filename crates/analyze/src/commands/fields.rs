//! Fields and their values: what `dumpobj` and `dumpvc` show below the head.

use dnd_clr::{ElementType, Field, MethodTable, Runtime};
use dnd_contract::Addr;
use serde::Serialize;

use crate::error::Error;
use crate::inspect;
use crate::out::Out;

/// One field and its value.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FieldLine {
    /// Method table of the declared type; null where the runtime has not loaded it or it can't be found.
    mt: Option<Addr>,
    /// Metadata token.
    token: u32,
    /// Bytes from the object's (or value's) start; of a static field the same sum, as dotnet-dump has it, though its
    /// value lies elsewhere.
    offset: u32,
    #[serde(rename = "type")]
    type_name: String,
    value_type: bool,
    attribute: Attribute,
    name: String,
    /// Null for a thread static, which has one value for each thread.
    value: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    thread_values: Vec<ThreadValue>,
    #[serde(skip)]
    element: ElementType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Attribute {
    Instance,
    Static,
    ThreadStatic,
}

#[derive(Debug, Clone, Serialize)]
struct ThreadValue {
    /// Operating system id of the thread.
    thread: u32,
    value: Value,
}

/// A field's value.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", content = "value", rename_all = "kebab-case")]
enum Value {
    /// A reference; 0 is null.
    Reference(Addr),
    /// A struct: where it is.
    Struct(Addr),
    /// A native pointer or `nint`.
    Pointer(Addr),
    /// One byte; anything but 0 is true.
    Bool(u8),
    /// A UTF-16 unit.
    Char(u16),
    Signed(i64),
    Unsigned(u64),
    Single(f32),
    Double(f64),
    /// The statics of the type do not exist yet.
    NotInitialized,
    /// The bytes are not in the dump.
    Missing,
}

/// Whether the fields are those of an object, or of a value inside another object or on a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The address is an object's: its data begin 8 bytes on.
    Object(u64),
    /// The address is the value's first byte.
    Value(u64),
}

/// Reads all fields of a type, those of base types first.
pub(crate) fn read(
    runtime: &Runtime<'_>,
    table: &MethodTable,
    holder: Holder,
) -> Result<Vec<FieldLine>, Error> {
    let (data, shift) = match holder {
        Holder::Object(at) => (at.wrapping_add(8), 8),
        Holder::Value(at) => (at, 0),
    };
    let threads = runtime.threads().map(|t| t.threads.as_slice()).unwrap_or_default();
    let mut lines = Vec::new();
    for field in runtime.fields(table)? {
        let declared = runtime.method_table(field.declared_by).unwrap_or(*table);
        let place = |thread: Option<&dnd_clr::threads::Thread>| {
            runtime.static_address(&declared, &field, thread).ok().flatten()
        };
        let (attribute, value, thread_values) = if field.is_thread_static {
            let value = |thread: &dnd_clr::threads::Thread| {
                let at = place(Some(thread))?;
                Some(ThreadValue { thread: thread.os_id, value: value(runtime, &field, at, true) })
            };
            (Attribute::ThreadStatic, None, threads.iter().filter_map(value).collect())
        } else if field.is_static {
            let value = match place(None) {
                Some(at) => value(runtime, &field, at, true),
                None => Value::NotInitialized,
            };
            (Attribute::Static, Some(value), Vec::new())
        } else {
            let at = data.wrapping_add(field.offset.into());
            (Attribute::Instance, Some(value(runtime, &field, at, false)), Vec::new())
        };
        lines.push(FieldLine {
            mt: runtime
                .field_type(&declared, &field)
                .or_else(|| type_of_value(runtime, &field, value.as_ref()))
                .map(Addr),
            token: 0x0400_0000 | field.row,
            offset: field.offset.saturating_add(if attribute == Attribute::ThreadStatic { 0 } else { shift }),
            type_name: field.type_name.clone(),
            value_type: !field.element.is_reference(),
            attribute,
            name: field.name.clone(),
            value,
            thread_values,
            element: field.element,
        });
    }
    Ok(lines)
}

/// The declared type of a field that the module's maps don't hold (arrays, instances of generic types): the method table
/// of the object that it refers to, when that is of just this type.
fn type_of_value(runtime: &Runtime<'_>, field: &Field, value: Option<&Value>) -> Option<u64> {
    let Some(Value::Reference(Addr(address))) = value else { return None };
    let table = inspect::object(runtime, *address).ok()?.table;
    (inspect::display_name(runtime, table) == field.type_name).then_some(table)
}

/// Reads a value. A static field of a value type holds a reference to a box.
fn value(runtime: &Runtime<'_>, field: &Field, at: u64, is_static: bool) -> Value {
    let memory = runtime.target();
    let read = || -> Result<Value, dnd_memory::Missing> {
        Ok(match field.element.0 {
            0x02 => Value::Bool(memory.u8(at)?),
            0x03 => Value::Char(memory.u16(at)?),
            0x04 => Value::Signed(memory.u8(at)?.cast_signed().into()),
            0x05 => Value::Unsigned(memory.u8(at)?.into()),
            0x06 => Value::Signed(memory.u16(at)?.cast_signed().into()),
            0x07 => Value::Unsigned(memory.u16(at)?.into()),
            0x08 => Value::Signed(memory.u32(at)?.cast_signed().into()),
            0x09 => Value::Unsigned(memory.u32(at)?.into()),
            0x0a => Value::Signed(memory.u64(at)?.cast_signed()),
            0x0b => Value::Unsigned(memory.u64(at)?),
            0x0c => Value::Single(f32::from_bits(memory.u32(at)?)),
            0x0d => Value::Double(f64::from_bits(memory.u64(at)?)),
            0x11 if is_static => match memory.u64(at)? {
                0 => Value::NotInitialized,
                boxed => Value::Struct(Addr(boxed.wrapping_add(8))),
            },
            0x11 => Value::Struct(Addr(at)),
            0x0f | 0x10 | 0x18 | 0x19 | 0x1b => Value::Pointer(Addr(memory.u64(at)?)),
            _ => Value::Reference(Addr(memory.u64(at)?)),
        })
    };
    read().unwrap_or(Value::Missing)
}

/// Name that dotnet-dump has for a primitive type's values: an enum's is that of the type below it.
fn primitive(element: ElementType) -> Option<&'static str> {
    Some(match element.0 {
        0x02 => "System.Boolean",
        0x03 => "System.Char",
        0x04 => "System.SByte",
        0x05 => "System.Byte",
        0x06 => "System.Int16",
        0x07 => "System.UInt16",
        0x08 => "System.Int32",
        0x09 => "System.UInt32",
        0x0a => "System.Int64",
        0x0b => "System.UInt64",
        0x0c => "System.Single",
        0x0d => "System.Double",
        0x18 => "System.IntPtr",
        0x19 => "System.UIntPtr",
        _ => return None,
    })
}

impl Value {
    fn text(&self) -> String {
        match self {
            Value::Reference(a) | Value::Struct(a) => format!("{:016x}", a.0),
            Value::Pointer(a) => format!("{:016X}", a.0),
            Value::Bool(b) => b.to_string(),
            Value::Char(c) => format!("{c:x}"),
            Value::Signed(n) => n.to_string(),
            Value::Unsigned(n) => n.to_string(),
            Value::Single(n) => format!("{n:.6}"),
            Value::Double(n) => format!("{n:.6}"),
            // dotnet-dump leaves the column empty.
            Value::NotInitialized => String::new(),
            Value::Missing => "(not in dump)".to_owned(),
        }
    }
}

/// The head of a table of fields.
pub(crate) fn head(out: &mut Out<'_>) {
    out.line("              MT    Field   Offset                 Type   VT     Attr            Value Name");
}

impl FieldLine {
    /// The field's row.
    pub(crate) fn text(&self, out: &mut Out<'_>) {
        let type_name = primitive(self.element).unwrap_or(&self.type_name);
        let attribute = match self.attribute {
            Attribute::Instance => "instance",
            Attribute::Static => "static",
            Attribute::ThreadStatic => "TLstatic",
        };
        out.fmt(format_args!(
            "{:016x} {:08x} {:>8x} ",
            self.mt.unwrap_or_default().0,
            self.token,
            self.offset
        ));
        out.name(&format!("{:>20}", cut(type_name, 20)));
        out.fmt(format_args!(" {:>4} {attribute:>8} ", if self.value_type { "Yes" } else { "No" }));
        match &self.value {
            Some(value) => out.fmt(format_args!("{:>16} ", value.text())),
            None => out.blanks(1),
        }
        out.name(&self.name);
        out.end();
        if self.attribute == Attribute::ThreadStatic {
            out.line("    Thread static values (Thread:Value)");
            for value in &self.thread_values {
                out.fmt(format_args!(" {:x}:{}", value.thread, value.value.text()));
            }
            out.end();
        }
    }
}

/// The end of a long text, with dots before it.
fn cut(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let tail: String = text.chars().skip(count - width + 3).collect();
    format!("...{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_types_keep_their_end() {
        assert_eq!(cut("System.Int32", 20), "System.Int32");
        assert_eq!(cut("System.Diagnostics.Tracing.EventDispatcher", 20), "...g.EventDispatcher");
    }
}
