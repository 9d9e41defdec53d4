//! `pathto`: how one object leads to another.

use dnd_clr::{Root, RootKind};
use serde::Serialize;

use super::gcroot::steps;
use super::paths::{Describer, ObjectLine};
use crate::error::Error;
use crate::inspect;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["pathto", "PathTo"],
    operands: "<from> <to>",
    max_operands: 2,
    options: &[],
    summary: "Shows how one object leads to another: a path of references.",
    about: "One path is shown; each step of it was checked. There may be others.",
    run,
};

#[derive(Debug, Serialize)]
struct Path {
    path: Vec<ObjectLine>,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let from = call.args.required_addr(0, "the address of the object that the path begins at")?;
    let to = call.args.required_addr(1, "the address of the object that it leads to")?;
    let runtime = call.runtime();
    inspect::object(runtime, from)?;
    inspect::object(runtime, to)?;
    // The object as if it were a root.
    let root = Root { address: 0, object: from, kind: RootKind::FinalizerQueue };
    let paths = runtime.paths_to(to, std::slice::from_ref(&root), call.progress())?;
    let Some(path) = paths.first() else {
        return Err(Error::NotFound(format!("there is no path from {from:x} to {to:x}")));
    };
    let path = Describer::new(call.session).path(&root, &path.objects);
    call.emit("pathto", 1, &Path { path })
}

impl Facts for Path {
    fn text(&self, out: &mut Out<'_>) {
        steps(out, &self.path);
    }
}
