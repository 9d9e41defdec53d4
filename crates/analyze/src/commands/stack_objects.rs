//! `dumpstackobjects`: the objects that a thread's stack refers to.

use dnd_clr::threads::Thread;
use dnd_clr::{Root, RootKind, Runtime};
use dnd_contract::Addr;
use serde::Serialize;

use super::clrstack::chosen;
use crate::args::Opt;
use crate::error::Error;
use crate::inspect::{display_name, os_threads, references};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["dumpstackobjects", "dso", "DumpStackObjects"],
    operands: "[<top> [<bottom>]]",
    max_operands: 2,
    options: &[
        Opt::flag(
            &["conservative"],
            "Every register and word of the stack that is the address of an object, as dotnet-dump has it.",
        ),
        Opt::flag(&["verify"], "Only objects whose own references are objects, too."),
    ],
    summary: "Lists the objects that the current thread's stack and registers refer to.",
    about: "The references are those that the methods on the stack say are live: what the garbage collector would see. \
            With -conservative also what methods are done with, and numbers that happen to look like addresses. \
            (interior) stands behind a reference to the inside of an object. With addresses (hexadecimal) only the \
            words from the first to in front of the second.",
    run,
};

#[derive(Debug, Serialize)]
struct StackObjects {
    os_id: u32,
    managed_id: u32,
    index: Option<usize>,
    /// Every word was taken.
    conservative: bool,
    objects: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    root: Root,
    mt: Addr,
    #[serde(rename = "type")]
    type_name: String,
    /// Of the frame that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    method_name: Option<String>,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let range = call.args.range()?;
    let threads = chosen(call, false)?;
    let Some(thread) = threads.first().copied() else {
        return Err(Error::NotFound("the dump has no thread".to_owned()));
    };
    runtime.objects_heap()?;
    let all_words = call.args.flag("conservative");
    let mut conservative = all_words;
    let roots = if all_words {
        runtime.conservative_stack_roots(&[thread], call.progress())?
    } else {
        let exact = runtime.exact_stack_roots(call.progress())?;
        if let Some(problem) = exact.problems.iter().find(|problem| problem.thread == thread.os_id) {
            conservative = true;
            call.note(format!("every word of the stack was taken: {}", problem.reason));
        }
        exact.roots.iter().filter(|root| of_thread(root, thread)).cloned().collect()
    };
    let verify = call.args.flag("verify");
    let mut objects = Vec::new();
    for root in roots {
        call.cancelled()?;
        // What points into the middle of an object is as a rule no reference; among all words it would be most of them.
        let interior = matches!(root.kind, RootKind::Stack { interior: true, conservative: true, .. });
        let inside = range.is_none_or(|(from, to)| root.address >= from && root.address < to);
        if interior || !inside {
            continue;
        }
        let Ok(object) = runtime.object(root.object) else { continue };
        if verify && !is_sound(runtime, &object) {
            continue;
        }
        let method = match &root.kind {
            RootKind::Stack { place: Some(place), .. } => place.method.map(|at| runtime.method_name(at.0)),
            _ => None,
        };
        let type_name = display_name(runtime, object.table);
        objects.push(Line { root, mt: Addr(object.table), type_name, method_name: method });
    }
    // Frame by frame, registers in front of words.
    objects.sort_by_key(|line| (frame_of(&line.root), line.root.address));
    let facts = StackObjects {
        os_id: thread.os_id,
        managed_id: thread.id,
        index: os_threads(runtime).binary_search(&thread.os_id).ok(),
        conservative,
        objects,
    };
    call.emit("dumpstackobjects", 1, &facts)
}

fn of_thread(root: &Root, thread: &Thread) -> bool {
    matches!(root.kind, RootKind::Stack { thread: id, .. } if id == thread.os_id)
}

/// Stack pointer of the frame that holds a root; 0 when no frame is known.
fn frame_of(root: &Root) -> u64 {
    match &root.kind {
        RootKind::Stack { place: Some(place), .. } => place.sp.0,
        _ => 0,
    }
}

/// Whether all that an object refers to is objects.
fn is_sound(runtime: &Runtime<'_>, object: &dnd_clr::Object) -> bool {
    references(runtime, object)
        .is_ok_and(|all| all.iter().all(|&(_, to)| to == 0 || runtime.object(to).is_ok()))
}

impl Facts for StackObjects {
    fn text(&self, out: &mut Out<'_>) {
        match self.index {
            Some(index) => out.fmt(format_args!("OS Thread Id: {:#x} ({index})\n", self.os_id)),
            None => out.fmt(format_args!("OS Thread Id: {:#x}\n", self.os_id)),
        }
        out.line("          SP/REG           Object Name");
        for line in &self.objects {
            let RootKind::Stack { register, interior, place, .. } = &line.root.kind else { continue };
            match (line.root.address, register, place) {
                (0, Some(register), _) => out.right(register, 16),
                (0, None, Some(place)) => out.right(&place.slot.to_string(), 16),
                (address, ..) => out.addr(address),
            }
            out.blanks(1);
            out.addr(line.root.object);
            out.blanks(1);
            out.name(&line.type_name);
            out.str(if *interior { " (interior)\n" } else { "\n" });
        }
    }
}
