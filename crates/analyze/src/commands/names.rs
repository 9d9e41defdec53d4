//! `name2ee` and `token2ee`: from a name or a token to what the runtime has of it.

use std::sync::Arc;

use dnd_clr::{Module, Runtime};
use dnd_contract::Addr;
use dnd_metadata::Table;
use serde::Serialize;

use crate::error::Error;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static NAME: Command = Command {
    names: &["name2ee", "Name2EE"],
    operands: "[<module>] <name>",
    max_operands: 2,
    options: &[],
    summary: "Finds a type or method by its name: method table, method description, code.",
    about: "The name is that of a type (Namespace.Outer+Inner, List`1 with the number of its parameters) or of a method \
            (Namespace.Type.Method). The module is a file's name, with or without .dll; * or none means all of them: \
            `name2ee Shop.OrderCache`, `name2ee Shop.dll!Shop.OrderCache`. Of generic types it is the open form, which \
            has no objects: dumpheap -type finds the others.",
    run: name,
};

pub(crate) static TOKEN: Command = Command {
    names: &["token2ee", "Token2EE"],
    operands: "<module> <token>",
    max_operands: 2,
    options: &[],
    summary: "Finds a type or method by its metadata token (hexadecimal).",
    about: "The module is a file's name, with or without .dll; * means all of them.",
    run: token,
};

#[derive(Debug, Serialize)]
struct Names {
    /// Modules with a match.
    modules: Vec<InModule>,
    /// Modules without.
    scanned: usize,
}

#[derive(Debug, Serialize)]
struct InModule {
    module: Addr,
    file: String,
    matches: Vec<Match>,
}

#[derive(Debug, Serialize)]
struct Match {
    token: u32,
    name: String,
    /// Null for a type that is not loaded, and for methods.
    mt: Option<Addr>,
    /// Null for a method that was never needed, and for types.
    method: Option<Addr>,
    /// Where calls of a method go, when it has code.
    code: Option<Addr>,
    #[serde(skip)]
    is_method: bool,
}

fn name(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let operands = call.args.operands();
    let (module, name) = match operands {
        [one] => match one.split_once('!') {
            Some((module, name)) => (module.to_owned(), name.to_owned()),
            None => ("*".to_owned(), one.clone()),
        },
        [module, name] => (module.clone(), name.clone()),
        _ => return Err(call.args.usage("needs the name of a type or method")),
    };
    let runtime = call.runtime();
    search(call, "name2ee", &module, &name, |module| by_name(runtime, module, &name))
}

fn token(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let Some(module) = call.args.operands().first().cloned() else {
        return Err(call.args.usage("needs a module and a token"));
    };
    let token = call.args.required_addr(1, "a metadata token")?;
    let row = u32::try_from(token & 0x00ff_ffff).unwrap_or(0);
    let runtime = call.runtime();
    let table = match token >> 24 {
        2 => Table::TypeDef,
        6 => Table::MethodDef,
        _ => return Err(call.args.usage("wants the token of a type (02……) or a method (06……)")),
    };
    search(call, "token2ee", &module, &format!("{token:08x}"), |module| {
        let Some(metadata) = module.metadata() else { return Vec::new() };
        if row == 0 || row > metadata.rows(table) {
            return Vec::new();
        }
        match table {
            Table::TypeDef => vec![type_match(runtime, module, row)],
            _ => vec![method_match(runtime, module, row)],
        }
    })
}

/// Asks the modules that are meant, and writes what they have.
fn search(
    call: &mut Call<'_, '_>,
    command: &str,
    wanted: &str,
    what: &str,
    mut find: impl FnMut(&Module<'_>) -> Vec<Match>,
) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let all = runtime.modules()?;
    let is_wanted = |module: &&Arc<Module<'_>>| {
        let file = module.file_name();
        wanted == "*"
            || [file.as_str(), module.name.as_str()].iter().any(|name| name.eq_ignore_ascii_case(wanted))
    };
    let meant: Vec<_> = all.iter().filter(is_wanted).collect();
    if meant.is_empty() {
        return Err(Error::NotFound(format!("there is no module `{wanted}`; clrmodules lists them")));
    }
    let unread = meant.iter().filter(|module| module.metadata().is_none()).count();
    if unread > 0 {
        call.note(format!("{unread} modules could not be asked: their metadata is not at hand"));
    }
    let mut modules = Vec::new();
    for module in &meant {
        call.cancelled()?;
        let matches = find(module);
        if !matches.is_empty() {
            modules.push(InModule { module: Addr(module.address), file: module.file_name(), matches });
        }
    }
    if modules.is_empty() {
        return Err(Error::NotFound(format!("no module has `{what}`; {} were asked", meant.len())));
    }
    let scanned = meant.len() - modules.len();
    call.emit(command, 1, &Names { modules, scanned })
}

fn by_name(runtime: &Runtime<'_>, module: &Module<'_>, name: &str) -> Vec<Match> {
    let Some(metadata) = module.metadata() else { return Vec::new() };
    let of_type = |wanted: &str| {
        // Only names that can be it are put together: a module has thousands of types.
        let last = wanted.rsplit(['.', '+']).next().unwrap_or(wanted);
        let rows = 1..=metadata.rows(Table::TypeDef);
        let rows =
            rows.filter(|&row| metadata.type_def(row).is_some_and(|definition| definition.name == last));
        rows.filter(|&row| metadata.type_def_name(row).as_deref() == Some(wanted)).collect::<Vec<_>>()
    };
    let mut matches: Vec<Match> =
        of_type(name).into_iter().map(|row| type_match(runtime, module, row)).collect();
    // `Type.Method`; constructors are `Type..ctor`.
    let cut =
        name.rfind('.').map(|at| if name.get(..at).is_some_and(|n| n.ends_with('.')) { at - 1 } else { at });
    if let Some(at) = cut
        && let (Some(type_name), Some(method)) = (name.get(..at), name.get(at + 1..))
    {
        for row in of_type(type_name) {
            let rows = metadata.methods_of(row);
            let rows = rows.filter(|&row| metadata.method(row).is_some_and(|one| one.name == method));
            matches
                .extend(rows.collect::<Vec<_>>().into_iter().map(|row| method_match(runtime, module, row)));
        }
    }
    matches
}

fn type_match(runtime: &Runtime<'_>, module: &Module<'_>, row: u32) -> Match {
    let name = module.metadata().and_then(|metadata| metadata.type_def_name(row));
    Match {
        token: 0x0200_0000 | row,
        name: name.unwrap_or_default(),
        mt: runtime.type_def_table(module.address, row).map(Addr),
        method: None,
        code: None,
        is_method: false,
    }
}

fn method_match(runtime: &Runtime<'_>, module: &Module<'_>, row: u32) -> Match {
    let method = runtime.method_def(module.address, row);
    let code = method.and_then(|method| {
        let versions = runtime.code_versions(&runtime.method(method).ok()?).ok()?;
        versions.iter().find(|version| version.active && version.code != 0).map(|version| Addr(version.code))
    });
    let plain = || {
        let metadata = module.metadata()?;
        let owner = metadata.method_owner(row)?;
        let name = metadata.method(row)?.name.into_owned();
        Some(format!("{}.{name}", metadata.type_def_name(owner)?))
    };
    let name = method.map(|method| runtime.method_name(method)).or_else(plain);
    Match {
        token: 0x0600_0000 | row,
        name: name.unwrap_or_default(),
        mt: None,
        method: method.map(Addr),
        code,
        is_method: true,
    }
}

impl Facts for Names {
    fn text(&self, out: &mut Out<'_>) {
        for module in &self.modules {
            out.fmt(format_args!("Module:      {:016x}\n", module.module.0));
            out.field("Assembly:", 13, &module.file);
            for (number, one) in module.matches.iter().enumerate() {
                if number > 0 {
                    out.line("-----------------------");
                }
                out.fmt(format_args!("Token:       {:016x}\n", one.token));
                match (one.is_method, one.method, one.mt) {
                    (true, Some(method), _) => out.fmt(format_args!("MethodDesc:  {:016x}\n", method.0)),
                    (true, None, _) => out.line("MethodDesc:  <not loaded yet>"),
                    (false, _, Some(mt)) => out.fmt(format_args!("MethodTable: {:016x}\n", mt.0)),
                    (false, _, None) => out.line("MethodTable: <not loaded yet>"),
                }
                out.field("Name:", 13, &one.name);
                match one.code {
                    Some(code) => out.fmt(format_args!("JITTED Code Address: {:016x}\n", code.0)),
                    None if one.is_method => out.line("Not JITTED yet."),
                    None => {}
                }
            }
            out.line("--------------------------------------");
        }
        out.fmt(format_args!("\nScanned {} modules which had no matches.\n", self.scanned));
    }
}
