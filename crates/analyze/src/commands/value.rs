//! `dumpvc`.

use dnd_contract::Addr;
use serde::Serialize;

use super::fields::{self, FieldLine, Holder};
use super::object::file_of;
use crate::error::Error;
use crate::inspect::{self, runtime_name};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["dumpvc", "DumpVC"],
    operands: "<mt> <address>",
    max_operands: 2,
    options: &[],
    summary: "Shows the fields of a value: a struct inside an object, an array or a stack.",
    about: "Method table and address stand in the rows of `dumpobj` and `dumparray`. The address is that of the \
            value's first byte; a value has no header that could tell its type, so the method table is believed.",
    run,
};

/// A value.
#[derive(Debug, Serialize)]
pub(crate) struct ValueDump {
    address: Addr,
    #[serde(rename = "type")]
    name: String,
    mt: Addr,
    /// Method table whose code it shares; null when that is its own.
    canonical: Option<Addr>,
    /// Bytes of the value in a box.
    size: u32,
    file: Option<String>,
    fields: Vec<FieldLine>,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let table = call.args.required_addr(0, "a method table and an address")?;
    let address = call.args.required_addr(1, "the address of the value, behind the method table")?;
    let facts = read(call, table, address)?;
    call.emit("dumpvc", 1, &facts)
}

/// Reads the value of type `table` at an address.
pub(crate) fn read(call: &Call<'_, '_>, table: u64, address: u64) -> Result<ValueDump, Error> {
    let runtime = call.runtime();
    let table = inspect::method_table(runtime, table)?;
    Ok(ValueDump {
        address: Addr(address),
        name: runtime_name(runtime, table.address),
        mt: Addr(table.address),
        canonical: (table.canonical != table.address).then_some(Addr(table.canonical)),
        size: table.base_size,
        file: file_of(runtime, &table),
        fields: fields::read(runtime, &table, Holder::Value(address))?,
    })
}

impl Facts for ValueDump {
    fn text(&self, out: &mut Out<'_>) {
        out.field("Name:", 13, &self.name);
        out.fmt(format_args!("MethodTable: {:016x}\n", self.mt.0));
        if let Some(canonical) = self.canonical {
            out.fmt(format_args!("Canonical: {:016x}\n", canonical.0));
        }
        out.fmt(format_args!("Size:        {}(0x{:x}) bytes\n", self.size, self.size));
        if let Some(file) = &self.file {
            out.field("File:", 13, file);
        }
        out.line("Fields:");
        if !self.fields.is_empty() {
            fields::head(out);
            self.fields.iter().for_each(|field| field.text(out));
        }
    }
}
