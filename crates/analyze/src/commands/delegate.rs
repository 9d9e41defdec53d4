//! `dumpdelegate`: what a delegate calls.

use dnd_contract::Addr;
use serde::Serialize;

use crate::delegates::{calls, is_delegate};
use crate::error::Error;
use crate::inspect;
use crate::managed::Managed;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["dumpdelegate", "DumpDelegate"],
    operands: "<address>",
    max_operands: 1,
    options: &[],
    summary: "Shows what a delegate calls: objects and methods, one line for each.",
    about: "An event's handlers are the calls of one delegate: who subscribed is the target.",
    run,
};

#[derive(Debug, Serialize)]
struct Delegate {
    delegate: Addr,
    #[serde(rename = "type")]
    type_name: String,
    calls: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    /// Null for a static method.
    target: Option<Addr>,
    target_type: Option<String>,
    /// Null when it can't be told.
    method: Option<Addr>,
    name: Option<String>,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "the address of a delegate")?;
    let runtime = call.runtime();
    let object = inspect::object(runtime, address)?;
    let mut managed = Managed::new(runtime);
    if !is_delegate(&mut managed, object.table) {
        return Err(Error::NotA { addr: address, wanted: "the address of a delegate" });
    }
    let mut unknown = 0;
    let mut lines = Vec::new();
    for one in calls(runtime, &mut managed, &object) {
        unknown += usize::from(one.method.is_none());
        let target = managed.object(one.target);
        lines.push(Line {
            target: (one.target != 0).then_some(Addr(one.target)),
            target_type: target.map(|target| managed.name(target.table).to_string()),
            method: one.method.map(Addr),
            name: one.method.map(|method| runtime.method_name(method)),
        });
    }
    if unknown > 0 {
        call.note(format!("{unknown} methods can't be told: what their stubs lead to is not in the dump"));
    }
    let type_name = managed.name(object.table).to_string();
    call.emit("dumpdelegate", 1, &Delegate { delegate: Addr(address), type_name, calls: lines })
}

impl Facts for Delegate {
    fn text(&self, out: &mut Out<'_>) {
        out.line("Target           Method           Name");
        for line in &self.calls {
            let (target, method) = (line.target.unwrap_or_default().0, line.method.unwrap_or_default().0);
            out.fmt(format_args!("{target:016x} {method:016x} "));
            out.name(line.name.as_deref().unwrap_or("<unknown method>"));
            out.end();
        }
    }
}
