//! `dumpobj`.

use dnd_clr::{MethodTable, Object, Runtime};
use dnd_contract::Addr;
use serde::Serialize;

use super::fields::{self, FieldLine, Holder};
use crate::args::Opt;
use crate::error::Error;
use crate::inspect::{self, runtime_name};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

/// Characters of a string that are shown.
const MAX_TEXT: u32 = 100_000;
/// Elements of a char or byte array that are shown.
const MAX_CONTENT: u32 = 128;

pub(crate) static COMMAND: Command = Command {
    names: &["dumpobj", "do", "DumpObj"],
    operands: "<address>",
    max_operands: 1,
    options: &[
        Opt::flag(&["nofields"], "Only the head."),
        Opt::flag(&["refs"], "Also the objects that it refers to."),
    ],
    summary: "Shows an object: type, size, fields and their values.",
    about: "Value of a reference is the address of the object it leads to, of a struct (VT Yes, a type that is no \
            number) the address for `dumpvc <MT> <address>`. A static field's offset is one into the statics' memory.",
    run,
};

/// What an object's head says.
#[derive(Debug, Serialize)]
struct Head {
    address: Addr,
    #[serde(rename = "type")]
    name: String,
    mt: Addr,
    size: u64,
    free: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    array: Option<ArrayLine>,
    /// File of the module that defines the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// A string's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    string: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thin_lock: Option<ThinLock>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ArrayLine {
    pub(crate) rank: u32,
    pub(crate) count: u64,
    /// Kind of the elements: `CLASS`, `VALUETYPE`, `Int32`…
    pub(crate) element: &'static str,
    /// Beginning of a char or byte array.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
}

#[derive(Debug, Serialize)]
struct ThinLock {
    /// Managed id of the thread that holds it.
    thread: u32,
    recursion: u32,
}

/// What is shown of an object.
#[derive(Debug, Serialize)]
pub(crate) struct Dump {
    #[serde(flatten)]
    head: Head,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<FieldLine>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    references: Option<Vec<Reference>>,
}

#[derive(Debug, Serialize)]
struct Reference {
    offset: u64,
    object: Addr,
    #[serde(rename = "type")]
    type_name: String,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "the address of an object")?;
    let object = inspect::object(call.runtime(), address)?;
    let (fields, references) = (!call.args.flag("nofields"), call.args.flag("refs"));
    let facts = read(call, &object, fields, references)?;
    call.emit("dumpobj", 1, &facts)
}

/// Reads an object: its head, and what else is wanted of it.
pub(crate) fn read(
    call: &mut Call<'_, '_>,
    object: &Object,
    fields: bool,
    references: bool,
) -> Result<Dump, Error> {
    let runtime = call.runtime();
    let table = runtime.method_table(object.table)?;
    let head = head(runtime, object, &table);
    let fields = match () {
        () if !fields || head.free => None,
        () if table.is_array() => Some(Vec::new()),
        () => match fields::read(runtime, &table, Holder::Object(object.address)) {
            Ok(fields) => Some(fields),
            Err(error) => {
                call.note(format!("the fields can't be read: {error}"));
                None
            }
        },
    };
    let references = if references { Some(list_references(runtime, object)?) } else { None };
    Ok(Dump { head, fields, references })
}

fn head(runtime: &Runtime<'_>, object: &Object, table: &MethodTable) -> Head {
    let is_string = runtime.string_table().is_ok_and(|string| string == object.table);
    let text = || {
        inspect::string_units(runtime, object.address, MAX_TEXT)
            .map(|(units, _)| String::from_utf16_lossy(&units))
    };
    Head {
        address: Addr(object.address),
        name: runtime_name(runtime, object.table),
        mt: Addr(object.table),
        size: object.size,
        free: object.table == runtime.free().address,
        array: table.is_array().then(|| array_line(runtime, object, table)),
        file: if table.is_array() { None } else { file_of(runtime, table) },
        string: is_string.then(text).flatten(),
        thin_lock: inspect::thin_lock(runtime, object.address)
            .map(|(thread, recursion)| ThinLock { thread, recursion }),
    }
}

/// File of a type's module.
pub(crate) fn file_of(runtime: &Runtime<'_>, table: &MethodTable) -> Option<String> {
    let module = runtime.module(table.module(runtime.target(), runtime.layout()).ok()?);
    Some(if module.path.is_empty() { module.file_name() } else { module.path.clone() })
}

/// Rank, number and kind of the elements of an array.
pub(crate) fn array_line(runtime: &Runtime<'_>, object: &Object, table: &MethodTable) -> ArrayLine {
    let memory = runtime.target();
    let count = memory.u32(object.address.wrapping_add(8)).unwrap_or(0);
    let element = super::array::element_kind(runtime, table);
    let data = object.address.wrapping_add(16);
    let shown = count.min(MAX_CONTENT);
    let content = match element {
        "Char" if table.is_vector() => Some(
            char::decode_utf16(
                (0..u64::from(shown)).map_while(|i| memory.u16(data.wrapping_add(2 * i)).ok()),
            )
            .map(|c| c.ok().filter(|c| !c.is_control()).unwrap_or('.'))
            .collect(),
        ),
        "Byte" if table.is_vector() => Some(
            (0..u64::from(shown))
                .map_while(|i| memory.u8(data.wrapping_add(i)).ok())
                .map(|b| if b.is_ascii_graphic() || b == b' ' { char::from(b) } else { '.' })
                .collect(),
        ),
        _ => None,
    };
    ArrayLine { rank: table.rank(), count: count.into(), element, content }
}

fn list_references(runtime: &Runtime<'_>, object: &Object) -> Result<Vec<Reference>, Error> {
    let found = inspect::references(runtime, object)?;
    let line = |(offset, to): (u64, u64)| Reference {
        offset,
        object: Addr(to),
        type_name: runtime
            .object(to)
            .map_or_else(|_| "<not an object>".to_owned(), |o| runtime_name(runtime, o.table)),
    };
    Ok(found.into_iter().map(line).collect())
}

impl Head {
    fn text(&self, out: &mut Out<'_>) {
        if self.free {
            out.line("Free Object");
            out.fmt(format_args!("Size:        {}(0x{:x}) bytes\n", self.size, self.size));
            return;
        }
        out.field("Name:", 13, &self.name);
        out.fmt(format_args!("MethodTable: {:016x}\n", self.mt.0));
        out.fmt(format_args!("Size:        {}(0x{:x}) bytes\n", self.size, self.size));
        if let Some(array) = &self.array {
            array.text(out);
            if let Some(content) = &array.content {
                out.field("Content:", 13, content);
            }
        }
        if let Some(file) = &self.file {
            out.field("File:", 13, file);
        }
        if let Some(string) = &self.string {
            out.field("String:", 13, string);
        }
    }
}

impl ArrayLine {
    /// The line that tells of an array's shape.
    pub(crate) fn text(&self, out: &mut Out<'_>) {
        out.fmt(format_args!(
            "Array:       Rank {}, Number of elements {}, Type {}\n",
            self.rank, self.count, self.element
        ));
    }
}

impl Facts for Dump {
    fn text(&self, out: &mut Out<'_>) {
        self.head.text(out);
        if let Some(fields) = &self.fields {
            out.line("Fields:");
            if fields.is_empty() {
                out.line("None");
            } else {
                fields::head(out);
                fields.iter().for_each(|field| field.text(out));
            }
        }
        if let Some(lock) = &self.head.thin_lock {
            out.fmt(format_args!("ThinLock owner {}, Recursive {}\n", lock.thread, lock.recursion));
        }
        if let Some(references) = &self.references {
            if references.is_empty() {
                out.line("GC Refs: none");
            } else {
                out.line("GC Refs:");
                out.line("  Offset           Object Type");
                for line in references {
                    out.fmt(format_args!("{:>8x} {:016x} ", line.offset, line.object.0));
                    out.name(&line.type_name);
                    out.end();
                }
            }
        }
    }
}
