//! `dumparray`.

use dnd_clr::{MethodTable, Object, Runtime};
use dnd_contract::Addr;
use serde::Serialize;

use super::object::{self, ArrayLine};
use super::value;
use crate::args::Opt;
use crate::error::Error;
use crate::inspect::{self, display_name, runtime_name};
use crate::out::Out;
use crate::session::{Call, Facts, Flow, Format};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["dumparray", "DumpArray"],
    operands: "<address>",
    max_operands: 1,
    options: &[
        Opt::word(&["start"], "index", "First element to show (decimal)."),
        Opt::word(&["length"], "count", "Number of elements to show (decimal)."),
        Opt::flag(&["details"], "Each element as dumpobj or dumpvc would show it."),
        Opt::flag(&["nofields"], "With -details: no fields."),
    ],
    summary: "Shows the elements of an array.",
    about: "An element is shown as the address of the object that it refers to, as a number, or (structs) as the \
            address at which `dumpvc <element's method table> <address>` finds it.",
    run,
};

/// Elements in a row that are not in the dump before the rest is given up: a damaged length may claim billions.
const MAX_MISSING: u64 = 64;
/// More elements in one answer would need a filter, not eyes; `-start` and `-length` move the window.
const MAX_DETAILS: u64 = 100_000;

#[derive(Debug, Serialize)]
struct Head {
    address: Addr,
    #[serde(rename = "type")]
    name: String,
    mt: Addr,
    canonical: Addr,
    size: u64,
    #[serde(flatten)]
    shape: ArrayLine,
    lengths: Vec<u32>,
    lower_bounds: Vec<i32>,
    element_mt: Addr,
}

/// An array's elements, read one by one.
struct Elements<'r> {
    runtime: &'r Runtime<'r>,
    data: u64,
    step: u64,
    kind: &'static str,
    lengths: Vec<u32>,
    lower_bounds: Vec<i32>,
}

/// What an element is.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Element {
    /// A reference; null for none.
    Reference { object: Option<Addr> },
    /// A struct inside the array.
    Struct { address: Addr },
    /// A number, as text.
    Number { address: Addr, value: String },
    /// Not in the dump.
    Missing { missing: bool },
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "the address of an array")?;
    let runtime = call.runtime();
    let object = inspect::object(runtime, address)?;
    let table = runtime.method_table(object.table)?;
    if !table.is_array() {
        return Err(Error::NotFound(format!(
            "{address:x} is a {}, not an array; `dumpobj {address:x}` shows it",
            display_name(runtime, object.table)
        )));
    }
    let elements = Elements::new(runtime, &object, &table)?;
    let head = Head {
        address: Addr(address),
        name: runtime_name(runtime, table.address),
        mt: Addr(table.address),
        canonical: Addr(table.canonical),
        size: object.size,
        shape: object::array_line(runtime, &object, &table),
        lengths: elements.lengths.clone(),
        lower_bounds: elements.lower_bounds.clone(),
        element_mt: Addr(table.per_inst_info),
    };
    let count = head.shape.count;
    let start = call.args.number("start")?.unwrap_or(0).min(count);
    let end = start.saturating_add(call.args.number("length")?.unwrap_or(u64::MAX)).min(count);
    let details = call.args.flag("details");
    if details && end - start > MAX_DETAILS {
        return Err(call
            .args
            .usage(format!("shows details of at most {MAX_DETAILS} elements; use -start and -length")));
    }
    match call.format {
        Format::Text => head.text(&mut call.out),
        Format::Json => {
            call.out.str("{\"schema\":\"dnd.analyze.dumparray\",\"version\":1");
            call.json_field("array", &head)?;
            call.out.str(",\"elements\":[");
        }
    }
    let mut missing = 0;
    for index in start..end {
        let element = elements.at(index);
        missing = if matches!(element, Element::Missing { .. }) { missing + 1 } else { 0 };
        if missing > MAX_MISSING {
            call.note(format!(
                "the elements from {index} on are not in the dump, or the array's length is damaged"
            ));
            break;
        }
        let inner = if details { inner(call, &element, table.per_inst_info)? } else { None };
        match call.format {
            Format::Text => {
                elements.write_index(&mut call.out, index);
                element.text(&mut call.out);
                if let Some(inner) = &inner {
                    write_indented(&mut call.out, inner.as_ref());
                }
            }
            Format::Json => {
                if index > start {
                    call.out.str(",");
                }
                let value = inner.map(|inner| inner.json()).transpose()?;
                let line = ElementLine { index, element, details: value };
                serde_json::to_writer(&mut call.out, &line).map_err(std::io::Error::from)?;
            }
        }
        if index % 1024 == 0 {
            call.cancelled()?;
            call.out.check()?;
        }
    }
    if call.format == Format::Json {
        call.out.str("]");
        call.json_notes()?;
        call.out.line("}");
    }
    call.out.check()?;
    Ok(Flow::Next)
}

#[derive(Serialize)]
struct ElementLine {
    index: u64,
    #[serde(flatten)]
    element: Element,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<serde_json::Value>,
}

/// Facts about an element, for `-details`.
trait Inner {
    fn text(&self, out: &mut Out<'_>);
    fn json(&self) -> Result<serde_json::Value, Error>;
}

impl<F: Facts> Inner for F {
    fn text(&self, out: &mut Out<'_>) {
        Facts::text(self, out);
    }

    fn json(&self) -> Result<serde_json::Value, Error> {
        Ok(serde_json::to_value(self).map_err(std::io::Error::from)?)
    }
}

fn inner(call: &mut Call<'_, '_>, element: &Element, table: u64) -> Result<Option<Box<dyn Inner>>, Error> {
    let fields = !call.args.flag("nofields");
    Ok(match element {
        Element::Reference { object: Some(at) } => match inspect::object(call.runtime(), at.0) {
            Ok(object) => Some(Box::new(object::read(call, &object, fields, false)?)),
            Err(_) => None,
        },
        Element::Struct { address } => Some(Box::new(value::read(call, table, address.0)?)),
        _ => None,
    })
}

/// Writes facts with four blanks before each line.
fn write_indented(out: &mut Out<'_>, facts: &dyn Inner) {
    let mut text = Vec::new();
    let mut inner = Out::new(&mut text);
    facts.text(&mut inner);
    // A vector takes everything.
    let _ = inner.finish();
    drop(inner);
    for line in text.split_inclusive(|&b| b == b'\n') {
        out.blanks(4);
        out.bytes(line);
    }
}

impl<'r> Elements<'r> {
    fn new(runtime: &'r Runtime<'r>, object: &Object, table: &MethodTable) -> Result<Self, Error> {
        let memory = runtime.target();
        let missing = |source| dnd_clr::Error::Missing { what: "the array's bounds", source };
        let (mut lengths, mut lower_bounds) = (Vec::new(), Vec::new());
        let mut data = object.address.wrapping_add(16);
        if table.is_vector() {
            lengths.push(memory.u32(object.address.wrapping_add(8)).map_err(missing)?);
            lower_bounds.push(0);
        } else {
            let rank = u64::from(table.rank().min(32));
            for i in 0..rank {
                lengths.push(memory.u32(data.wrapping_add(4 * i)).map_err(missing)?);
                lower_bounds
                    .push(memory.u32(data.wrapping_add(4 * (rank + i))).map_err(missing)?.cast_signed());
            }
            data = data.wrapping_add(8 * rank);
        }
        let kind = element_kind(runtime, table);
        Ok(Elements { runtime, data, step: table.component_size.into(), kind, lengths, lower_bounds })
    }

    fn at(&self, index: u64) -> Element {
        let memory = self.runtime.target();
        let at = self.data.wrapping_add(index.wrapping_mul(self.step));
        let missing = Element::Missing { missing: true };
        let value = match self.kind {
            "CLASS" | "SZARRAY" | "ARRAY" => {
                return match memory.u64(at) {
                    Ok(object) => Element::Reference { object: (object != 0).then_some(Addr(object)) },
                    Err(_) => missing,
                };
            }
            "Boolean" | "Byte" => memory.u8(at).map(|v| v.to_string()),
            "SByte" => memory.u8(at).map(|v| v.cast_signed().to_string()),
            "Char" | "UInt16" => memory.u16(at).map(|v| v.to_string()),
            "Int16" => memory.u16(at).map(|v| v.cast_signed().to_string()),
            "Int32" => memory.u32(at).map(|v| v.cast_signed().to_string()),
            "UInt32" => memory.u32(at).map(|v| v.to_string()),
            "Int64" => memory.u64(at).map(|v| v.cast_signed().to_string()),
            "UInt64" => memory.u64(at).map(|v| v.to_string()),
            "Single" => memory.u32(at).map(|v| f32::from_bits(v).to_string()),
            "Double" => memory.u64(at).map(|v| f64::from_bits(v).to_string()),
            "IntPtr" | "UIntPtr" | "PTR" => memory.u64(at).map(|v| format!("{v:016X}")),
            _ => return Element::Struct { address: Addr(at) },
        };
        value.map_or(missing, |value| Element::Number { address: Addr(at), value })
    }

    /// `[2]`, or `[0][1]` with more dimensions.
    fn write_index(&self, out: &mut Out<'_>, index: u64) {
        let mut left = index;
        let mut places = Vec::new();
        for (length, bound) in self.lengths.iter().zip(&self.lower_bounds).rev() {
            let length = u64::from((*length).max(1));
            places.push(i64::from(*bound).saturating_add_unsigned(left % length));
            left /= length;
        }
        for place in places.into_iter().rev() {
            out.fmt(format_args!("[{place}]"));
        }
        out.blanks(1);
    }
}

impl Element {
    fn text(&self, out: &mut Out<'_>) {
        match self {
            Element::Reference { object: Some(at) } | Element::Struct { address: at } => out.addr16(at.0),
            Element::Reference { object: None } => out.str("null"),
            Element::Number { value, .. } => out.str(value),
            Element::Missing { .. } => out.str("(not in dump)"),
        }
        out.end();
    }
}

impl Head {
    fn text(&self, out: &mut Out<'_>) {
        out.field("Name:", 13, &self.name);
        out.fmt(format_args!("MethodTable: {:016x}\n", self.mt.0));
        out.fmt(format_args!("EEClass:     {:016x}\n", self.canonical.0));
        out.fmt(format_args!("Size:        {}(0x{:x}) bytes\n", self.size, self.size));
        self.shape.text(out);
        out.fmt(format_args!("Element Methodtable: {:016x}\n", self.element_mt.0));
    }
}

/// What the elements of an array are, by dotnet-dump's words.
pub(crate) fn element_kind(runtime: &Runtime<'_>, array: &MethodTable) -> &'static str {
    let handle = array.per_inst_info;
    if handle & 2 != 0 {
        return "PTR";
    }
    let Ok(element) = runtime.method_table(handle) else {
        return if array.contains_pointers() && array.component_size == 8 { "CLASS" } else { "VALUETYPE" };
    };
    if element.is_array() {
        return if element.is_vector() { "SZARRAY" } else { "ARRAY" };
    }
    if !element.is_value_type() {
        return "CLASS";
    }
    match display_name(runtime, handle).as_str() {
        "System.Boolean" => "Boolean",
        "System.Char" => "Char",
        "System.SByte" => "SByte",
        "System.Byte" => "Byte",
        "System.Int16" => "Int16",
        "System.UInt16" => "UInt16",
        "System.Int32" => "Int32",
        "System.UInt32" => "UInt32",
        "System.Int64" => "Int64",
        "System.UInt64" => "UInt64",
        "System.Single" => "Single",
        "System.Double" => "Double",
        "System.IntPtr" => "IntPtr",
        "System.UIntPtr" => "UIntPtr",
        _ => "VALUETYPE",
    }
}
