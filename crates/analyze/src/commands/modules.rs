//! `clrmodules`.

use dnd_contract::Addr;
use serde::Serialize;

use crate::args::Opt;
use crate::error::Error;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["clrmodules", "assemblies"],
    operands: "",
    max_operands: 0,
    options: &[Opt::word(
        &["name", "n"],
        "text",
        "Only files whose name holds this text (case does not matter).",
    )],
    summary: "Lists the managed assemblies.",
    about: "Columns: address of the image, its size, its file. Assemblies made at run time have no file.",
    run,
};

#[derive(Debug, Serialize)]
struct Modules {
    modules: Vec<ModuleLine>,
}

#[derive(Debug, Serialize)]
struct ModuleLine {
    /// Address of the runtime's `Module`.
    module: Addr,
    /// Address of the image, 0 for none.
    base: Addr,
    /// Bytes of the image, 0 when unknown.
    size: u64,
    /// Its file; empty for an assembly made at run time.
    path: String,
    name: String,
    dynamic: bool,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let wanted = call.args.word("name").map(str::to_lowercase);
    let mut modules = Vec::new();
    for module in call.runtime().modules()? {
        let line = ModuleLine {
            module: Addr(module.address),
            base: Addr(module.image_base),
            size: module.image_size.into(),
            path: module.path.clone(),
            name: module.name.clone(),
            dynamic: module.dynamic,
        };
        let file = line.path.rsplit('/').next().unwrap_or_default().to_lowercase();
        if wanted.as_ref().is_none_or(|text| file.contains(text) || line.name.to_lowercase().contains(text)) {
            modules.push(line);
        }
    }
    call.emit("clrmodules", 1, &Modules { modules })
}

impl Facts for Modules {
    fn text(&self, out: &mut Out<'_>) {
        for module in &self.modules {
            out.fmt(format_args!("{:016X} {:08X} ", module.base.0, module.size));
            match (module.path.as_str(), module.dynamic) {
                ("", true) => {
                    out.name(&module.name);
                    out.str(" (dynamic)");
                }
                ("", false) => out.name(&module.name),
                (path, _) => out.name(path),
            }
            out.end();
        }
    }
}
