//! `dumpconcurrentdictionary` and `dumpconcurrentqueue`: what they hold.

use dnd_clr::Runtime;
use dnd_contract::Addr;
use serde::Serialize;

use crate::collections::{self, Slot};
use crate::error::Error;
use crate::inspect;
use crate::managed::Managed;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static DICTIONARY: Command = Command {
    names: &["dumpconcurrentdictionary", "dcd", "DumpConcurrentDictionary"],
    operands: "<address>",
    max_operands: 1,
    options: &[],
    summary: "Lists the keys and values of a ConcurrentDictionary.",
    about: "Numbers and strings are shown as they are, of other values the command that shows them. The order is that of \
            the buckets.",
    run: dictionary,
};

pub(crate) static QUEUE: Command = Command {
    names: &["dumpconcurrentqueue", "dcq", "DumpConcurrentQueue"],
    operands: "<address>",
    max_operands: 1,
    options: &[],
    summary: "Lists the items of a ConcurrentQueue, the next to be taken first.",
    about: "Numbers and strings are shown as they are, of other items the command that shows them.",
    run: queue,
};

/// A value as people read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "value")]
pub(super) enum Item {
    Null,
    Text(String),
    Signed(i64),
    Unsigned(u64),
    Bool(bool),
    Double(f64),
    /// An object.
    Object {
        address: Addr,
        mt: Addr,
        #[serde(rename = "type")]
        type_name: String,
        #[serde(skip)]
        array: bool,
    },
    /// A struct inside another object.
    Struct {
        address: Addr,
        mt: Addr,
        #[serde(rename = "type")]
        type_name: String,
    },
    /// It is not in the dump.
    Missing,
}

#[derive(Debug, Serialize)]
struct Pairs {
    #[serde(rename = "type")]
    type_name: String,
    items: Vec<Pair>,
}

#[derive(Debug, Serialize)]
struct Pair {
    key: Item,
    value: Item,
}

#[derive(Debug, Serialize)]
struct Items {
    #[serde(rename = "type")]
    type_name: String,
    items: Vec<Item>,
}

fn dictionary(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "the address of a ConcurrentDictionary")?;
    let runtime = call.runtime();
    let object = inspect::object(runtime, address)?;
    let mut managed = Managed::new(runtime);
    let type_name = managed.name(object.table).to_string();
    let Some(found) = collections::dictionary(runtime, &mut managed, &object) else {
        return Err(not_a(address, "ConcurrentDictionary", &type_name));
    };
    let mut pair = |(key, value): (Slot, Slot)| Pair {
        key: item(runtime, &mut managed, key),
        value: item(runtime, &mut managed, value),
    };
    let items = found.into_iter().map(&mut pair).collect();
    call.emit("dumpconcurrentdictionary", 1, &Pairs { type_name, items })
}

fn queue(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "the address of a ConcurrentQueue")?;
    let runtime = call.runtime();
    let object = inspect::object(runtime, address)?;
    let mut managed = Managed::new(runtime);
    let type_name = managed.name(object.table).to_string();
    let Some(found) = collections::queue(runtime, &mut managed, &object) else {
        return Err(not_a(address, "ConcurrentQueue", &type_name));
    };
    let items = found.into_iter().map(|slot| item(runtime, &mut managed, slot)).collect();
    call.emit("dumpconcurrentqueue", 1, &Items { type_name, items })
}

fn not_a(address: u64, wanted: &str, found: &str) -> Error {
    let plain = collections::is_instance(found, wanted);
    Error::NotFound(match plain {
        true => format!("the insides of the {wanted} at {address:x} are not in the dump"),
        false => format!("{address:x} is not a {wanted} but an instance of {found}"),
    })
}

/// What a slot of a collection holds.
fn item(runtime: &Runtime<'_>, managed: &mut Managed<'_>, slot: Slot) -> Item {
    let memory = runtime.target();
    let at = slot.address;
    let table = runtime.method_table(slot.table).ok();
    if !table.as_ref().is_some_and(dnd_clr::MethodTable::is_value_type) {
        let Ok(reference) = memory.u64(at) else { return Item::Missing };
        if reference == 0 {
            return Item::Null;
        }
        if let Some(text) = managed.text(reference) {
            return Item::Text(text);
        }
        let Some(object) = managed.object(reference) else { return Item::Missing };
        let array = runtime.method_table(object.table).is_ok_and(|table| table.is_array());
        let type_name = managed.name(object.table).to_string();
        return Item::Object { address: Addr(reference), mt: Addr(object.table), type_name, array };
    }
    let type_name = managed.name(slot.table);
    let number = match &*type_name {
        "System.Boolean" => memory.u8(at).map(|byte| Item::Bool(byte != 0)),
        "System.SByte" => memory.u8(at).map(|byte| Item::Signed(byte.cast_signed().into())),
        "System.Byte" => memory.u8(at).map(|byte| Item::Unsigned(byte.into())),
        "System.Char" => memory.u16(at).map(|unit| Item::Text(String::from_utf16_lossy(&[unit]))),
        "System.Int16" => memory.u16(at).map(|half| Item::Signed(half.cast_signed().into())),
        "System.UInt16" => memory.u16(at).map(|half| Item::Unsigned(half.into())),
        "System.Int32" => memory.u32(at).map(|word| Item::Signed(word.cast_signed().into())),
        "System.UInt32" => memory.u32(at).map(|word| Item::Unsigned(word.into())),
        "System.Int64" | "System.IntPtr" => memory.u64(at).map(|word| Item::Signed(word.cast_signed())),
        "System.UInt64" | "System.UIntPtr" => memory.u64(at).map(Item::Unsigned),
        "System.Single" => memory.u32(at).map(|word| Item::Double(f32::from_bits(word).into())),
        "System.Double" => memory.u64(at).map(|word| Item::Double(f64::from_bits(word))),
        name => Ok(Item::Struct { address: Addr(at), mt: Addr(slot.table), type_name: name.to_owned() }),
    };
    number.unwrap_or(Item::Missing)
}

impl Item {
    fn text(&self, out: &mut Out<'_>) {
        match self {
            Item::Null => out.str("null"),
            Item::Text(text) => out.name(text),
            Item::Signed(number) => out.fmt(format_args!("{number}")),
            Item::Unsigned(number) => out.fmt(format_args!("{number}")),
            Item::Bool(value) => out.fmt(format_args!("{value}")),
            Item::Double(number) => out.fmt(format_args!("{number}")),
            Item::Object { address, array, type_name, .. } => {
                let command = if *array { "dumparray" } else { "dumpobj" };
                out.fmt(format_args!("{command} 0x{:016x} ", address.0));
                out.name(type_name);
            }
            Item::Struct { address, mt, type_name } => {
                out.fmt(format_args!("dumpvc 0x{:016x} 0x{:016x} ", mt.0, address.0));
                out.name(type_name);
            }
            Item::Missing => out.str("<not in the dump>"),
        }
    }
}

impl Facts for Pairs {
    fn text(&self, out: &mut Out<'_>) {
        out.name(&self.type_name);
        out.end();
        for pair in &self.items {
            out.str("    -----\n      Key: ");
            pair.key.text(out);
            out.str("\n    Value: ");
            pair.value.text(out);
            out.end();
        }
        out.line("---------------------------------------------");
        out.fmt(format_args!("{} items\n", self.items.len()));
    }
}

impl Facts for Items {
    fn text(&self, out: &mut Out<'_>) {
        out.name(&self.type_name);
        out.end();
        for (number, item) in self.items.iter().enumerate() {
            out.fmt(format_args!("{:>4} - ", number + 1));
            item.text(out);
            out.end();
        }
        out.line("---------------------------------------------");
        out.fmt(format_args!("{} items\n", self.items.len()));
    }
}
