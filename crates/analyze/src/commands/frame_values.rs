//! What `clrstack` shows besides the frames: parameters, locals and registers of each.

use dnd_clr::Runtime;
use dnd_clr::code::{Variable, VariableAt, VariableKind, Variables};
use dnd_clr::stack::{Context, Frame};
use dnd_contract::Addr;
use dnd_memory::{Arch, Registers};
use serde::Serialize;

use crate::out::Out;

/// A register of a frame.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Register {
    name: &'static str,
    /// Null when it can't be told any more: a call may have changed it.
    value: Option<Addr>,
}

/// A parameter or local.
#[derive(Debug, Clone, Serialize)]
pub(super) struct VariableFacts {
    name: Option<String>,
    #[serde(rename = "type")]
    type_name: String,
    /// Null where the compiler keeps it nowhere.
    location: Option<Location>,
    /// The bits; null when they are not known or more than 64.
    value: Option<Addr>,
    /// Method table of a struct, for `dumpvc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mt: Option<Addr>,
    #[serde(skip)]
    is_struct: bool,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
enum Location {
    Register {
        register: &'static str,
    },
    FloatRegister,
    Memory {
        /// Null when it hangs on a register that isn't known.
        address: Option<Addr>,
    },
    /// In two registers, or one and memory.
    Split,
}

/// What was asked for of a frame.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Values {
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Vec<VariableFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locals: Option<Vec<VariableFacts>>,
    /// Why no locals can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_locals: Option<&'static str>,
    /// Why variables have no place, or there are none, when that is the dump's fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registers: Option<Vec<Register>>,
}

/// Which values of a frame are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    pub(super) parameters: bool,
    pub(super) locals: bool,
    pub(super) registers: bool,
}

impl Wanted {
    /// Whether the registers of frames are needed.
    pub(super) fn any(self) -> bool {
        self.parameters || self.locals || self.registers
    }
}

impl Values {
    pub(super) fn read(runtime: &Runtime<'_>, frame: &Frame, context: &Context, wanted: Wanted) -> Self {
        let mut values = Self::default();
        if wanted.parameters || wanted.locals {
            let Variables { parameters, locals, no_locals, problem } = runtime
                .variables(frame, context)
                .unwrap_or_else(|error| Variables { problem: Some(error), ..Variables::default() });
            values.problem = problem.map(|error| error.to_string());
            let facts = |all: Vec<Variable>| all.into_iter().map(variable).collect();
            if wanted.parameters {
                values.parameters = Some(facts(parameters));
            }
            if wanted.locals {
                values.locals = Some(facts(locals));
                values.no_locals = no_locals;
            }
        }
        values.registers = wanted.registers.then(|| named(context));
        values
    }

    pub(super) fn text(&self, out: &mut Out<'_>, managed: bool) {
        if let Some(parameters) = self.parameters.as_ref().filter(|all| !all.is_empty()) {
            out.line("    PARAMETERS:");
            parameters.iter().for_each(|parameter| parameter.text(out));
        }
        if let Some(locals) = self.locals.as_ref().filter(|all| !all.is_empty()) {
            out.line("    LOCALS:");
            locals.iter().for_each(|local| local.text(out));
        }
        if let Some(problem) = &self.problem {
            out.fmt(format_args!("    <no values: {problem}>\n"));
        }
        if managed && (self.parameters.is_some() || self.locals.is_some()) {
            out.end();
        }
        if let Some(registers) = &self.registers {
            write_registers(out, registers);
        }
    }
}

fn variable(variable: Variable) -> VariableFacts {
    let location = variable.at.map(|at| match at {
        VariableAt::Register(register) => Location::Register { register },
        VariableAt::FloatRegister(_) => Location::FloatRegister,
        VariableAt::Memory(address) => Location::Memory { address: Some(Addr(address)) },
        VariableAt::UnknownMemory => Location::Memory { address: None },
        VariableAt::Split => Location::Split,
    });
    let mt = match variable.kind {
        VariableKind::Struct { table, .. } => table.map(Addr),
        _ => None,
    };
    VariableFacts {
        name: variable.name,
        type_name: variable.type_name,
        location,
        value: variable.value.map(Addr),
        mt,
        is_struct: matches!(variable.kind, VariableKind::Struct { .. }),
    }
}

impl VariableFacts {
    fn text(&self, out: &mut Out<'_>) {
        out.str("        ");
        // Without a name the place stands alone, as SOS writes locals.
        let (open, close) = if self.name.is_some() { ("(", ")") } else { ("", "") };
        if let Some(name) = &self.name {
            out.name(name);
            out.str(" ");
        }
        match &self.location {
            Some(Location::Register { .. } | Location::FloatRegister) => {
                out.fmt(format_args!("{open}<CLR reg>{close} "));
            }
            Some(Location::Memory { address: Some(address) }) => {
                out.fmt(format_args!("{open}0x{:016X}{close} ", address.0));
            }
            Some(Location::Memory { address: None } | Location::Split) | None => {}
        }
        if self.name.is_some()
            || matches!(self.location, Some(Location::Register { .. } | Location::Memory { .. }))
        {
            out.str("= ");
        }
        match (self.value, &self.location) {
            (Some(value), _) => out.fmt(format_args!("0x{:016x}", value.0)),
            (None, Some(Location::Memory { address: Some(address) })) if self.is_struct => {
                out.str("<");
                out.name(&self.type_name);
                if let Some(mt) = self.mt {
                    out.fmt(format_args!(", dumpvc {:x} {:x}", mt.0, address.0));
                }
                out.str(">");
            }
            (None, Some(Location::Memory { address: Some(_) })) => out.str("<unable to retrieve data>"),
            (None, Some(Location::Split)) => out.str("<in two places>"),
            (None, _) => out.str("<no data>"),
        }
        out.end();
    }
}

/// All registers of a thread, in the order in which they are written.
pub(super) fn of_thread(registers: &Registers) -> Vec<Register> {
    named(&Context::of_thread(registers))
}

/// Registers in the order in which `clrstack -r` writes them.
fn named(context: &Context) -> Vec<Register> {
    let arch = context.arch();
    let get =
        |number: usize| Register { name: Context::name(arch, number), value: context.get(number).map(Addr) };
    match arch {
        // rsp rbp rip, then the others by number.
        Arch::X64 => {
            let rip = Register { name: "rip", value: Some(Addr(context.ip)) };
            let order = [0, 3, 1, 2, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
            [get(4), get(5), rip].into_iter().chain(order.map(get)).collect()
        }
        Arch::Arm64 => {
            let pc = Register { name: "pc", value: Some(Addr(context.ip)) };
            (0..32).map(get).chain([pc]).collect()
        }
    }
}

/// Three in a line.
fn write_registers(out: &mut Out<'_>, registers: &[Register]) {
    for three in registers.chunks(3) {
        out.str("   ");
        for (number, register) in three.iter().enumerate() {
            let width = if number + 1 < three.len() { 16 } else { 0 };
            match register.value {
                Some(value) => out.fmt(format_args!(" {}={:016x}", register.name, value.0)),
                None => out.fmt(format_args!(" {}={:<width$}", register.name, "<unknown>")),
            }
        }
        out.end();
    }
}
