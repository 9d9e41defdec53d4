//! `dumpalc`: assembly load contexts, and what is loaded into them.

use std::collections::BTreeMap;

use dnd_clr::{Object, Runtime};
use dnd_contract::Addr;
use serde::Serialize;

use crate::error::Error;
use crate::inspect;
use crate::managed::{Managed, Place};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["dumpalc", "DumpALC"],
    operands: "[<object or method table>]",
    max_operands: 1,
    options: &[],
    summary: "Shows assembly load contexts and their assemblies.",
    about: "Without an address all contexts are listed; with one, the context that the object's type was loaded into (or the \
            context itself). A collectible context that is `unloading` is kept by its LoaderAllocator: gcroot of that \
            object shows who still uses it. Which assembly belongs to which context is known since .NET 8.",
    run,
};

const CONTEXT: &str = "System.Runtime.Loader.AssemblyLoadContext";

#[derive(Debug, Serialize)]
struct Contexts {
    contexts: Vec<Context>,
    #[serde(skip)]
    one: bool,
}

#[derive(Debug, Serialize)]
struct Context {
    /// 0 for the default context when the runtime has made no object for it.
    object: Addr,
    #[serde(rename = "type")]
    type_name: Option<String>,
    name: Option<String>,
    collectible: Option<bool>,
    /// `alive` or `unloading`.
    state: Option<&'static str>,
    /// What keeps a collectible context's types loaded.
    loader_allocator: Option<Addr>,
    /// Null before .NET 8.
    assemblies: Option<Vec<Assembly>>,
}

#[derive(Debug, Serialize)]
struct Assembly {
    module: Addr,
    name: String,
    path: String,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let wanted = match call.args.operand_addr(0, "an object")? {
        Some(address) => Some(context_of(runtime, address)?),
        None => None,
    };
    let mut objects = BTreeMap::new();
    if wanted.is_none() {
        let mut managed = Managed::new(runtime);
        let handles = runtime.handles()?;
        let targets = handles.iter().filter_map(|handle| managed.object(handle.object)).collect::<Vec<_>>();
        for object in targets {
            if managed.is_a(object.table, |name| name == CONTEXT) {
                objects.insert(object.address, Vec::new());
            }
        }
    }
    if let Some(wanted) = wanted {
        objects.insert(wanted, Vec::new());
    }
    let mut unknown = 0_usize;
    for module in runtime.modules()? {
        call.cancelled()?;
        match runtime.load_context(module.address) {
            Some(context) if wanted.is_none_or(|wanted| wanted == context) => {
                objects.entry(context).or_default().push(module);
            }
            Some(_) => {}
            None => unknown += 1,
        }
    }
    let knows = runtime.major() >= 8;
    if knows && unknown > 0 {
        call.note(format!("{unknown} modules are left out: the dump does not have what tells their context"));
    }
    let mut managed = Managed::new(runtime);
    let contexts = objects.into_iter().map(|(object, modules)| {
        let allocator = modules.iter().find_map(|module| runtime.loader_allocator(module.address));
        let assembly = |module: &std::sync::Arc<dnd_clr::Module<'_>>| Assembly {
            module: Addr(module.address),
            name: module.name.clone(),
            path: module.path.clone(),
        };
        let mut context = describe(&mut managed, object);
        context.loader_allocator = allocator.filter(|_| context.collectible == Some(true)).map(Addr);
        context.assemblies = knows.then(|| modules.iter().map(assembly).collect());
        context
    });
    let facts = Contexts { contexts: contexts.collect(), one: wanted.is_some() };
    call.emit("dumpalc", 1, &facts)
}

/// The context that is meant with an address.
fn context_of<'r>(runtime: &'r Runtime<'r>, address: u64) -> Result<u64, Error> {
    let mut managed = Managed::new(runtime);
    let object = runtime.object(address).ok();
    if let Some(object) = object
        && managed.is_a(object.table, |name| name == CONTEXT)
    {
        return Ok(address);
    }
    let table = match object {
        Some(Object { table, .. }) => runtime.method_table(table)?,
        None => inspect::method_table(runtime, address)
            .map_err(|_| Error::NotA { addr: address, wanted: "an object or a method table" })?,
    };
    let module = table.module(runtime.target(), runtime.layout()).ok();
    module.and_then(|module| runtime.load_context(module)).ok_or_else(|| {
        let why = if runtime.major() < 8 {
            "before .NET 8 this is not read"
        } else {
            "the dump does not have what tells it"
        };
        Error::NotFound(format!("no load context of {address:x} is known: {why}"))
    })
}

fn describe(managed: &mut Managed<'_>, address: u64) -> Context {
    let object = managed.object(address);
    let place = object.as_ref().map(Place::of);
    let mut number = |names: &[&str]| place.and_then(|place| managed.number(place, names));
    let collectible = number(&["_isCollectible"]).map(|value| value != 0);
    let state = match number(&["_state"]) {
        Some(0) => Some("alive"),
        Some(1) => Some("unloading"),
        _ => None,
    };
    let name = place.and_then(|place| managed.reference(place, &["_name"]));
    Context {
        object: Addr(address),
        type_name: object.map(|object| managed.name(object.table).to_string()),
        name: name.and_then(|name| managed.text(name)),
        collectible,
        state,
        loader_allocator: None,
        assemblies: None,
    }
}

impl Facts for Contexts {
    fn text(&self, out: &mut Out<'_>) {
        if self.one {
            self.contexts.iter().for_each(|context| context.text(out));
            return;
        }
        out.line("          Object Collectible     State Assemblies Name, Type");
        for context in &self.contexts {
            let collectible = context.collectible.map_or("-", |yes| if yes { "true" } else { "false" });
            let count =
                context.assemblies.as_ref().map_or_else(|| "-".to_owned(), |all| all.len().to_string());
            out.fmt(format_args!(
                "{:16x} {collectible:>11} {:>9} {count:>10} ",
                context.object.0,
                context.state.unwrap_or("-")
            ));
            let name = if context.object.0 == 0 { Some("Default") } else { context.name.as_deref() };
            if let Some(name) = name {
                out.name(name);
                out.str(", ");
            }
            out.name(context.type_name.as_deref().unwrap_or("no object yet"));
            out.end();
        }
        out.fmt(format_args!("Total {} contexts\n", self.contexts.len()));
    }
}

impl Context {
    fn text(&self, out: &mut Out<'_>) {
        if self.object.0 == 0 {
            out.line(
                "AssemblyLoadContext: Default ALC - The managed instance of this context doesn't exist yet.",
            );
        } else {
            out.fmt(format_args!("AssemblyLoadContext: {:016x}\n", self.object.0));
        }
        let mut line = |label: &str, value: Option<&str>| {
            if let Some(value) = value {
                out.field(label, 21, value);
            }
        };
        line("Type:", self.type_name.as_deref());
        line("Name:", self.name.as_deref());
        line("Collectible:", self.collectible.map(|yes| if yes { "true" } else { "false" }));
        line("State:", self.state);
        line("LoaderAllocator:", self.loader_allocator.map(|at| format!("{:016x}", at.0)).as_deref());
        match &self.assemblies {
            None => out.line("Assemblies:          not known before .NET 8"),
            Some(assemblies) => {
                out.fmt(format_args!("Assemblies:          {}\n", assemblies.len()));
                for assembly in assemblies {
                    out.fmt(format_args!("    {:016x} ", assembly.module.0));
                    out.name(if assembly.path.is_empty() { &assembly.name } else { &assembly.path });
                    out.end();
                }
            }
        }
    }
}
