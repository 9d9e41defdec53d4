//! `dumpmt`.

use dnd_clr::code::{CodeKind, MethodKind, TypeMethod};
use dnd_clr::{MethodTable, Runtime};
use dnd_contract::Addr;
use serde::Serialize;

use super::object::file_of;
use crate::args::Opt;
use crate::error::Error;
use crate::inspect::{self, runtime_name};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["dumpmt", "DumpMT"],
    operands: "<mt>",
    max_operands: 1,
    options: &[Opt::flag(&["md"], "Also the methods.")],
    summary: "Shows a method table: a type as the runtime keeps it.",
    about: "JIT tells what made a method's code: the JIT at run time, PreJIT for code in the assembly, FCall for the \
            runtime's own, NONE when there is no code yet. Entry is where calls go: the code, or a stub in front of it; 0 \
            where there is none yet, or (before .NET 9) it is not known.",
    run,
};

#[derive(Debug, Serialize)]
struct Table {
    mt: Addr,
    #[serde(rename = "type")]
    name: String,
    /// It stands for free space.
    free: bool,
    parent: Addr,
    canonical: Addr,
    module: Option<Addr>,
    token: u32,
    file: Option<String>,
    /// The object that keeps a collectible type loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    loader_allocator: Option<Addr>,
    /// The `AssemblyLoadContext` object of its module; 0 when the default one was never asked for, null when unknown.
    load_context: Option<Addr>,
    base_size: u32,
    component_size: u32,
    contains_references: bool,
    has_finalizer: bool,
    /// Slots: the virtual methods, inherited ones included, and the type's other methods.
    methods: Option<u32>,
    virtual_methods: u16,
    interfaces: u16,
    /// With `-md`.
    #[serde(skip_serializing_if = "Option::is_none")]
    method_list: Option<Vec<MethodLine>>,
}

#[derive(Debug, Serialize)]
struct MethodLine {
    slot: u16,
    entry: Addr,
    method: Addr,
    kind: MethodKind,
    /// What made its code; null when it has none.
    jit: Option<CodeKind>,
    name: String,
}

impl MethodLine {
    fn new(runtime: &Runtime<'_>, method: &TypeMethod) -> Self {
        let versions = runtime.code_versions(&method.method).unwrap_or_default();
        let code = versions.iter().find(|version| version.active).map_or(0, |version| version.code);
        MethodLine {
            slot: method.slot,
            entry: Addr(method.entry),
            method: Addr(method.method.address),
            kind: method.method.kind,
            jit: if code == 0 { None } else { runtime.code_kind(code) },
            name: runtime.method_name(method.method.address),
        }
    }

    fn text(&self, out: &mut Out<'_>) {
        let jit = match (self.jit, self.kind) {
            (Some(CodeKind::Jit), _) => "JIT",
            (Some(CodeKind::ReadyToRun), _) => "PreJIT",
            (None, MethodKind::FCall) => "FCall",
            (None, _) => "NONE",
        };
        let (entry, method) = (self.entry.0, self.method.0);
        out.fmt(format_args!("{entry:016X} {method:016X} {jit:>6} {:016X} ", self.slot));
        out.name(&self.name);
        out.end();
    }
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "a method table")?;
    let runtime = call.runtime();
    let table = inspect::method_table(runtime, address)?;
    let listed = if call.args.flag("md") {
        let methods = runtime.type_methods(&table)?;
        Some(methods.iter().map(|method| MethodLine::new(runtime, method)).collect())
    } else {
        None
    };
    let free = table.address == runtime.free().address;
    let module = if free { None } else { table.module(runtime.target(), runtime.layout()).ok() };
    let facts = Table {
        mt: Addr(table.address),
        name: runtime_name(runtime, table.address),
        free,
        parent: Addr(table.parent),
        canonical: Addr(table.canonical),
        module: module.map(Addr),
        // An array is no type definition of its own.
        token: 0x0200_0000 | if table.is_array() { 0 } else { definition_row(runtime, &table) },
        file: if free { None } else { file_of(runtime, &table) },
        loader_allocator: table
            .is_collectible(runtime.layout())
            .then(|| runtime.allocator_of(&table))
            .filter(|&object| object != 0)
            .map(Addr),
        load_context: module.and_then(|module| runtime.load_context(module)).map(Addr),
        base_size: table.base_size,
        component_size: table.component_size,
        contains_references: table.contains_pointers(),
        has_finalizer: table.has_finalizer(),
        methods: runtime.method_count(&table).ok(),
        virtual_methods: table.virtuals,
        interfaces: table.interfaces,
        method_list: listed,
    };
    call.emit("dumpmt", 1, &facts)
}

/// Row of the type's definition, 0 when it can't be told.
fn definition_row(runtime: &Runtime<'_>, table: &MethodTable) -> u32 {
    let module = table.module(runtime.target(), runtime.layout()).ok();
    module.and_then(|module| runtime.definition_row(table, module)).unwrap_or(0)
}

impl Facts for Table {
    fn text(&self, out: &mut Out<'_>) {
        if self.free {
            out.line("Free MethodTable");
            return;
        }
        let mut line = |label: &str, value: String| out.field(label, 21, &value);
        line("Parent:", format!("{:016x}", self.parent.0));
        if self.canonical != self.mt {
            line("Canonical:", format!("{:016x}", self.canonical.0));
        }
        if let Some(module) = self.module {
            line("Module:", format!("{:016X}", module.0));
        }
        line("Name:", self.name.clone());
        line("mdToken:", format!("{:016X}", self.token));
        if let Some(file) = &self.file {
            line("File:", file.clone());
        }
        if let Some(object) = self.loader_allocator {
            line("LoaderAllocator:", format!("{:016X}", object.0));
        }
        match self.load_context {
            Some(Addr(0)) => out.line(
                "AssemblyLoadContext: Default ALC - The managed instance of this context doesn't exist yet.",
            ),
            Some(object) => out.fmt(format_args!("AssemblyLoadContext: {:016X}\n", object.0)),
            None => {}
        }
        let mut line = |label: &str, value: String| out.field(label, 21, &value);
        line("BaseSize:", format!("0x{:x}", self.base_size));
        if self.component_size != 0 {
            line("ComponentSize:", format!("0x{:x}", self.component_size));
        }
        line("Has GC Pointers:", self.contains_references.to_string());
        if let Some(methods) = self.methods {
            line("Number of Methods:", methods.to_string());
        }
        out.fmt(format_args!("Number of IFaces in IFaceMap: {}\n", self.interfaces));
        if let Some(methods) = &self.method_list {
            out.line("--------------------------------------\nMethodDesc Table");
            out.line("           Entry       MethodDesc    JIT Slot             Name");
            methods.iter().for_each(|method| method.text(out));
        }
    }
}
