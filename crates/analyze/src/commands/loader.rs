//! `dumpdomain`, `dumpassembly`, `dumpmodule`: what the runtime has loaded.

use dnd_clr::{Module, NameStyle, Runtime};
use dnd_contract::Addr;
use dnd_metadata::Table;
use serde::Serialize;

use crate::args::Opt;
use crate::error::Error;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static DOMAIN: Command = Command {
    names: &["dumpdomain", "DumpDomain"],
    operands: "[<domain>]",
    max_operands: 1,
    options: &[],
    summary: "Lists the assemblies of the application domain with their modules.",
    about: "There is one domain since .NET Core. Assemblies of collectible load contexts are in it as well.",
    run: domain,
};

pub(crate) static ASSEMBLY: Command = Command {
    names: &["dumpassembly", "DumpAssembly"],
    operands: "<assembly>",
    max_operands: 1,
    options: &[],
    summary: "Shows an assembly: its file and its module.",
    about: "dumpdomain lists the addresses of assemblies.",
    run: assembly,
};

pub(crate) static MODULE: Command = Command {
    names: &["dumpmodule", "DumpModule"],
    operands: "<module>",
    max_operands: 1,
    options: &[Opt::flag(&["mt"], "Also the types that are defined in it and loaded.")],
    summary: "Shows a module: file, assembly, image, identity.",
    about: "dumpdomain and dumpmt show the addresses of modules.",
    run: module,
};

#[derive(Debug, Serialize)]
struct Domain {
    system_domain: Addr,
    domain: Addr,
    assemblies: Vec<AssemblyLine>,
}

#[derive(Debug, Serialize)]
struct AssemblyLine {
    assembly: Addr,
    module: Addr,
    /// Empty for an assembly made at run time.
    path: String,
    name: String,
    dynamic: bool,
}

fn line(runtime: &Runtime<'_>, module: &Module<'_>) -> AssemblyLine {
    AssemblyLine {
        assembly: Addr(runtime.module_assembly(module.address).unwrap_or(0)),
        module: Addr(module.address),
        path: module.path.clone(),
        name: module.name.clone(),
        dynamic: module.dynamic,
    }
}

/// Addresses of the application domain and the system domain.
fn domains(runtime: &Runtime<'_>) -> (u64, u64) {
    let at = |global: u64| runtime.target().u64(global).unwrap_or(0);
    (at(runtime.globals().app_domain), at(runtime.globals().system_domain))
}

fn domain(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let wanted = call.args.operand_addr(0, "the address of a domain")?;
    let runtime = call.runtime();
    let (domain, system_domain) = domains(runtime);
    if let Some(wanted) = wanted.filter(|&wanted| wanted != domain) {
        return Err(Error::NotA { addr: wanted, wanted: "the application domain" });
    }
    let assemblies = runtime.modules()?.iter().map(|module| line(runtime, module)).collect();
    call.emit(
        "dumpdomain",
        1,
        &Domain { system_domain: Addr(system_domain), domain: Addr(domain), assemblies },
    )
}

impl AssemblyLine {
    fn name_text(&self, out: &mut Out<'_>) {
        match (self.path.as_str(), self.dynamic) {
            ("", true) => {
                out.name(&self.name);
                out.str(" (dynamic)");
            }
            ("", false) => out.name(&self.name),
            (path, _) => out.name(path),
        }
    }
}

impl Facts for Domain {
    fn text(&self, out: &mut Out<'_>) {
        out.line("--------------------------------------");
        out.fmt(format_args!("System Domain:      {:016x}\n", self.system_domain.0));
        out.line("--------------------------------------");
        out.fmt(format_args!("Domain 1:           {:016x}\n", self.domain.0));
        out.line("Name:               clrhost");
        for assembly in &self.assemblies {
            out.fmt(format_args!("Assembly:           {:016x} [", assembly.assembly.0));
            assembly.name_text(out);
            out.fmt(format_args!("]\n  Module\n  {:016x}    ", assembly.module.0));
            assembly.name_text(out);
            out.str("\n\n");
        }
    }
}

#[derive(Debug, Serialize)]
struct Assembly {
    #[serde(flatten)]
    line: AssemblyLine,
    domain: Addr,
}

fn assembly(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "an assembly")?;
    let runtime = call.runtime();
    let modules = runtime.modules()?;
    let found = modules.iter().find(|module| runtime.module_assembly(module.address) == Some(address));
    let found = found.ok_or(Error::NotA { addr: address, wanted: "an assembly (dumpdomain lists them)" })?;
    let line = line(runtime, found);
    call.emit("dumpassembly", 1, &Assembly { line, domain: Addr(domains(runtime).0) })
}

impl Facts for Assembly {
    fn text(&self, out: &mut Out<'_>) {
        out.fmt(format_args!("Parent Domain:      {:016x}\nName:               ", self.domain.0));
        self.line.name_text(out);
        out.fmt(format_args!("\n  Module\n  {:016x}    ", self.line.module.0));
        self.line.name_text(out);
        out.end();
    }
}

#[derive(Debug, Serialize)]
struct ModuleFacts {
    #[serde(flatten)]
    line: AssemblyLine,
    /// Address of the image, 0 for none.
    base: Addr,
    size: u64,
    mvid: Option<String>,
    /// Rows of the metadata: types and methods that it defines.
    type_definitions: Option<u32>,
    method_definitions: Option<u32>,
    /// Why there is no metadata.
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    types: Option<Vec<TypeFacts>>,
}

#[derive(Debug, Serialize)]
struct TypeFacts {
    mt: Addr,
    token: u32,
    #[serde(rename = "type")]
    name: String,
}

fn module(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "a module")?;
    let runtime = call.runtime();
    let modules = runtime.modules()?;
    let found = modules.iter().find(|module| module.address == address);
    let found = found.ok_or(Error::NotA { addr: address, wanted: "a module (dumpdomain lists them)" })?;
    let rows = |table: Table| found.metadata().map(|metadata| metadata.rows(table));
    let types = call.args.flag("mt").then(|| {
        let rows = 1..=rows(Table::TypeDef).unwrap_or(0);
        let loaded = rows.filter_map(|row| Some((row, runtime.type_def_table(address, row)?)));
        let facts = |(row, table): (u32, u64)| TypeFacts {
            mt: Addr(table),
            token: 0x0200_0000 | row,
            name: runtime.type_name(table, NameStyle::Runtime),
        };
        loaded.map(facts).collect()
    });
    let facts = ModuleFacts {
        line: line(runtime, found),
        base: Addr(found.image_base),
        size: found.image_size.into(),
        mvid: found.mvid.map(|mvid| mvid.to_string()),
        type_definitions: rows(Table::TypeDef),
        method_definitions: rows(Table::MethodDef),
        problem: found.problem.clone(),
        types,
    };
    call.emit("dumpmodule", 1, &facts)
}

impl Facts for ModuleFacts {
    fn text(&self, out: &mut Out<'_>) {
        out.str("Name: ");
        self.line.name_text(out);
        out.end();
        let mut row = |label: &str, value: String| out.field(label, 25, &value);
        row("Attributes:", if self.line.dynamic { "IsDynamic" } else { "PEFile" }.to_owned());
        row("Assembly:", format!("{:016x}", self.line.assembly.0));
        row("BaseAddress:", format!("{:016X}", self.base.0));
        row("Size:", format!("{:X}", self.size));
        row("MVID:", self.mvid.clone().unwrap_or_else(|| "<unknown>".to_owned()));
        let count = |rows: Option<u32>| rows.map_or_else(|| "<unknown>".to_owned(), |rows| rows.to_string());
        row("Type definitions:", count(self.type_definitions));
        row("Method definitions:", count(self.method_definitions));
        if let Some(problem) = &self.problem {
            row("No metadata:", problem.clone());
        }
        if let Some(types) = &self.types {
            out.line("\nTypes defined in this module\n\n              MT          TypeDef Name");
            out.line("------------------------------------------------------------------------------");
            for one in types {
                out.fmt(format_args!("{:016x} 0x{:08x} ", one.mt.0, one.token));
                out.name(&one.name);
                out.end();
            }
        }
    }
}
