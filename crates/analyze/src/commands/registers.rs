//! `registers` and `threadstate`.

use dnd_contract::Addr;
use dnd_memory::Registers;
use serde::Serialize;

use super::current_thread;
use crate::error::Error;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static REGISTERS: Command = Command {
    names: &["registers", "r"],
    operands: "",
    max_operands: 0,
    options: &[],
    summary: "Shows the registers of the current thread (setthread).",
    about: "Segment registers are left out: 64-bit code does not use them.",
    run: registers,
};

pub(crate) static THREAD_STATE: Command = Command {
    names: &["threadstate", "ThreadState"],
    operands: "<state>",
    max_operands: 1,
    options: &[],
    summary: "Tells what the state bits of a thread mean (the column State of clrthreads).",
    about: "",
    run: thread_state,
};

/// Names of the bits, from bit 0 on; source: `ThreadState` in `vm/threads.h`.
const STATES: [&str; 32] = [
    "Thread Abort Requested",
    "GC Suspend Pending",
    "User Suspend Pending",
    "Debug Suspend Pending",
    "GC On Transitions",
    "Legal to Join",
    "Yield Requested",
    "Hijacked by the GC",
    "Blocking GC for Stack Overflow",
    "Background",
    "Unstarted",
    "Dead",
    "CLR Owns",
    "CoInitialized",
    "In Single Threaded Apartment",
    "In Multi Threaded Apartment",
    "Reported Dead",
    "Fully initialized",
    "Task Reset",
    "Sync Suspended",
    "Debug Will Sync",
    "Stack Crawl Needed",
    "Suspend Unstarted",
    "Aborted",
    "Thread Pool Worker Thread",
    "Interruptible",
    "Interrupted",
    "Completion Port Thread",
    "Abort Initiated",
    "Finalized",
    "Failed to Start",
    "Detached",
];

#[derive(Debug, Serialize)]
struct List {
    os_id: u32,
    registers: Vec<Register>,
}

#[derive(Debug, Serialize)]
struct Register {
    name: &'static str,
    value: Addr,
}

fn registers(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let threads = call.runtime().target().threads();
    let current = current_thread::current(call);
    let thread = threads.iter().find(|thread| Some(thread.tid) == current);
    let thread = thread.ok_or_else(|| Error::NotFound("the dump has no thread".to_owned()))?;
    let all = &thread.registers;
    let mut registers: Vec<Register> =
        all.named().map(|(name, value)| Register { name, value: Addr(value) }).collect();
    let mut push = |name, value| registers.push(Register { name, value: Addr(value) });
    match all {
        Registers::X64(r) => {
            push("rip", r.rip);
            push("eflags", r.rflags);
        }
        Registers::Arm64(r) => {
            push("sp", r.sp);
            push("pc", r.pc);
            push("cpsr", r.pstate);
        }
    }
    call.emit("registers", 1, &List { os_id: thread.tid, registers })
}

impl Facts for List {
    fn text(&self, out: &mut Out<'_>) {
        for register in &self.registers {
            out.fmt(format_args!("{} = 0x{:016X}\n", register.name, register.value.0));
        }
    }
}

#[derive(Debug, Serialize)]
struct States {
    state: Addr,
    names: Vec<&'static str>,
}

fn thread_state(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let state = call.args.required_addr(0, "the state of a thread")?;
    let names =
        STATES.iter().enumerate().filter(|(bit, _)| state >> bit & 1 == 1).map(|(_, &name)| name).collect();
    call.emit("threadstate", 1, &States { state: Addr(state), names })
}

impl Facts for States {
    fn text(&self, out: &mut Out<'_>) {
        for name in &self.names {
            out.fmt(format_args!("    {name}\n"));
        }
    }
}
