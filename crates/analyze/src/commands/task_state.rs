//! `taskstate`: what a task's flags mean.

use dnd_contract::Addr;
use serde::Serialize;

use crate::args::Opt;
use crate::error::Error;
use crate::inspect;
use crate::managed::Managed;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;
use crate::tasks;

pub(crate) static COMMAND: Command = Command {
    names: &["taskstate", "tks", "TaskState"],
    operands: "[<address>]",
    max_operands: 1,
    options: &[Opt::word(
        &["value", "v"],
        "flags",
        "The value of m_stateFlags (decimal, or 0x…) instead of a task.",
    )],
    summary: "Shows the state of a task: Task.Status.",
    about: "",
    run,
};

#[derive(Debug, Serialize)]
struct State {
    task: Option<Addr>,
    flags: u32,
    status: &'static str,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let (task, flags) =
        match (call.args.number("value")?, call.args.operand_addr(0, "the address of a task")?) {
            (Some(value), None) => {
                let flags = u32::try_from(value).map_err(|_| call.args.usage("wants flags of 32 bits"))?;
                (None, flags)
            }
            (None, Some(address)) => {
                let runtime = call.runtime();
                let object = inspect::object(runtime, address)?;
                let mut managed = Managed::new(runtime);
                let flags = tasks::is_task(&mut managed, object.table)
                    .then(|| tasks::state_flags(&mut managed, &object))
                    .flatten();
                let none = Error::NotA { addr: address, wanted: "the address of a task" };
                (Some(Addr(address)), flags.ok_or(none)?)
            }
            _ => return Err(call.args.usage("needs the address of a task, or -value")),
        };
    call.emit("taskstate", 1, &State { task, flags, status: tasks::status(flags) })
}

impl Facts for State {
    fn text(&self, out: &mut Out<'_>) {
        out.line(self.status);
        out.end();
    }
}
