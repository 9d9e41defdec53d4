//! Which commands can't answer, or not in full, and why.

use std::collections::BTreeSet;

use dnd_clr::Runtime;
use dnd_memory::{FileUse, Verdict};
use serde::Serialize;

use super::{DumpInfo, with_causes};

/// How much an answer suffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// There is no answer.
    Unavailable,
    /// Something is left out of it.
    Partial,
    /// It may be wrong.
    Unsure,
}

/// Commands that suffer, and from what.
#[derive(Debug, Serialize)]
pub struct Limit {
    /// The commands; empty for all of them.
    pub commands: Vec<&'static str>,
    /// How much.
    pub severity: Severity,
    /// Why, in a sentence.
    pub reason: String,
}

impl Limit {
    fn new(commands: &[&'static str], severity: Severity, reason: impl Into<String>) -> Self {
        Self { commands: commands.to_vec(), severity, reason: reason.into() }
    }

    fn all(severity: Severity, reason: impl Into<String>) -> Self {
        Self { commands: Vec::new(), severity, reason: reason.into() }
    }
}

/// What looks at objects.
const OBJECTS: &[&str] = &[
    "dumpheap",
    "dumpobj",
    "dumparray",
    "dumpvc",
    "gcroot",
    "pathto",
    "objsize",
    "listnearobj",
    "dumpdelegate",
    "dumpexceptions",
    "printexception",
    "dumpasync",
    "taskstate",
    "threadpool",
    "threadpoolqueue",
    "timerinfo",
    "dumphttp",
    "dumpconcurrentdictionary",
    "dumpconcurrentqueue",
    "dumpgen",
    "gcheapstat",
    "sizestats",
    "verifyheap",
    "verifyobj",
    "dumpstackobjects",
];
/// What walks the heap.
const WALKS: &[&str] = &[
    "dumpheap",
    "gcroot",
    "pathto",
    "objsize",
    "listnearobj",
    "gcwhere",
    "dumpexceptions",
    "dumpasync",
    "threadpool",
    "threadpoolqueue",
    "timerinfo",
    "dumphttp",
    "dumpgen",
    "gcheapstat",
    "sizestats",
    "verifyheap",
];
/// What can answer without objects, but then not what they are.
const NAMES_OBJECTS: &[&str] =
    &["finalizequeue", "gchandles", "syncblk", "deadlocks", "clrthreads", "clrstack", "crashinfo", "dumpalc"];
const HEAP_STRUCTURE: &[&str] = &["eeheap", "gcwhere", "gchandles", "finalizequeue", "analyzeoom", "dumpalc"];
const HANDLES: &[&str] = &["gchandles", "gcroot", "dumpalc"];
const FINALIZERS: &[&str] = &["finalizequeue", "gcroot"];
const SYNC_BLOCKS: &[&str] = &["syncblk", "deadlocks"];
const THREADS: &[&str] = &[
    "clrthreads",
    "clrstack",
    "parallelstacks",
    "gcroot",
    "syncblk",
    "dumpstackobjects",
    "printexception",
    "deadlocks",
    "crashinfo",
];
const STACKS: &[&str] =
    &["clrstack", "parallelstacks", "gcroot", "dumpstackobjects", "deadlocks", "crashinfo"];
const NAMES: &[&str] = &[
    "dumpheap",
    "dumpobj",
    "dumparray",
    "dumpmt",
    "dumpmd",
    "dumpmodule",
    "name2ee",
    "token2ee",
    "ip2md",
    "gcroot",
    "pathto",
    "clrstack",
    "parallelstacks",
    "printexception",
    "dumpexceptions",
    "dumpasync",
    "dumpdelegate",
    "threadpool",
    "threadpoolqueue",
    "timerinfo",
    "dumphttp",
    "dumpconcurrentdictionary",
    "dumpconcurrentqueue",
    "dumpgen",
    "dumpstackobjects",
    "gchandles",
    "finalizequeue",
    "syncblk",
    "deadlocks",
    "crashinfo",
];
const MODULES: &[&str] = &["clrmodules", "dumpdomain", "name2ee", "dumpalc", "gcroot"];

pub(super) fn gather(info: &DumpInfo, runtime: Option<&Runtime<'_>>) -> Vec<Limit> {
    use Severity::{Partial, Unavailable};
    let mut out = Vec::new();
    if let Some(cut) = info.truncation {
        out.push(Limit::all(Partial, truncated(cut.missing_memory, cut.segments, cut.notes)));
    }
    let Some(runtime) = runtime else {
        let why = info.problem.as_ref().map_or("there is no runtime", |problem| problem.text.as_str());
        out.push(Limit::all(Unavailable, why));
        return out;
    };
    if let Some(why) = &runtime.layout_facts().unverified {
        out.push(Limit::all(Severity::Unsure, why.as_str()));
    }
    heap(info, runtime, &mut out);
    if let Err(error) = runtime.threads() {
        out.push(Limit::new(THREADS, Unavailable, with_causes(&error)));
    }
    let without_stack = info.threads.without_stack;
    if without_stack > 0 {
        let reason =
            format!("the stacks of {without_stack} of {} threads are not in the dump", info.threads.native);
        out.push(Limit::new(STACKS, Partial, reason));
    } else if let Some(reason) = unfinished_stacks(runtime) {
        out.push(Limit::new(STACKS, Partial, reason));
    }
    match (&info.modules, runtime.modules()) {
        (_, Err(error)) => out.push(Limit::new(MODULES, Unavailable, with_causes(&error))),
        (Some(modules), _) if !modules.without_metadata.is_empty() => {
            let reason = format!(
                "the metadata of {} of {} modules can't be read, so the names of their types, fields and methods are unknown",
                modules.without_metadata.len(),
                modules.count
            );
            out.push(Limit::new(NAMES, Partial, reason));
        }
        _ => {}
    }
    out
}

/// Names a command that has no answer once, and does not say besides that its answer is incomplete.
pub(super) fn once(limits: &mut Vec<Limit>) {
    if limits.iter().any(|limit| limit.severity == Severity::Unavailable && limit.commands.is_empty()) {
        limits.retain(|limit| limit.commands.is_empty());
        return;
    }
    let mut without = BTreeSet::new();
    for severity in [Severity::Unavailable, Severity::Partial, Severity::Unsure] {
        limits.retain_mut(|limit| {
            // None stands for all.
            if limit.severity != severity || limit.commands.is_empty() {
                return true;
            }
            match severity {
                Severity::Unavailable => limit.commands.retain(|name| without.insert(*name)),
                _ => limit.commands.retain(|name| !without.contains(name)),
            }
            !limit.commands.is_empty()
        });
    }
}

/// Managed threads whose stacks can't be followed to their first frames.
fn unfinished_stacks(runtime: &Runtime<'_>) -> Option<String> {
    let threads = runtime.threads().ok()?;
    let live: Vec<_> = threads.threads.iter().filter(|thread| thread.os_id != 0).collect();
    let ends = live.iter().map(|thread| (thread.os_id, runtime.stack(thread).end));
    let unfinished: Vec<_> = ends.filter(|(_, end)| !end.is_complete()).collect();
    let (id, end) = unfinished.first()?;
    let (count, all) = (unfinished.len(), live.len());
    Some(format!(
        "the stacks of {count} of {all} managed threads can't be followed to their end (thread {id:#x}: {end})"
    ))
}

fn heap(info: &DumpInfo, runtime: &Runtime<'_>, out: &mut Vec<Limit>) {
    use Severity::{Partial, Unavailable};
    if let Err(error) = runtime.heap() {
        out.push(Limit::new(HEAP_STRUCTURE, Unavailable, with_causes(&error)));
        let reason = if runtime.image().single_file {
            "the runtime's own data is not in this dump; of single-file programs only full dumps have it"
        } else {
            "the managed heap is not in this dump"
        };
        out.push(Limit::new(OBJECTS, Unavailable, reason));
        out.push(Limit::new(NAMES_OBJECTS, Partial, NO_OBJECTS));
        sync_blocks(runtime, out);
        return;
    }
    if let Err(error) = runtime.objects_heap() {
        out.push(Limit::new(OBJECTS, Unavailable, with_causes(&error)));
        out.push(Limit::new(NAMES_OBJECTS, Partial, NO_OBJECTS));
    } else if let Some(heap) = info.heap.as_ref().filter(|heap| heap.present < heap.bytes) {
        let reason =
            format!("{} of {} bytes of the heap are not in the dump", heap.bytes - heap.present, heap.bytes);
        out.push(Limit::new(WALKS, Partial, reason));
    }
    if info.heap.as_ref().is_some_and(|heap| heap.gc_in_progress) {
        let reason = "the dump was taken during a GC: the heap can't be walked everywhere, and references may point to where \
                      objects were or will be";
        out.push(Limit::new(WALKS, Partial, reason));
    }
    if let Err(error) = runtime.handles() {
        out.push(Limit::new(HANDLES, Unavailable, with_causes(&error)));
    }
    if let Err(error) = runtime.finalizer_queues() {
        out.push(Limit::new(FINALIZERS, Unavailable, with_causes(&error)));
    }
    sync_blocks(runtime, out);
}

const NO_OBJECTS: &str =
    "the objects that they tell of are not in the dump, so neither are their types and values";

fn sync_blocks(runtime: &Runtime<'_>, out: &mut Vec<Limit>) {
    if let Err(error) = runtime.sync_blocks() {
        out.push(Limit::new(SYNC_BLOCKS, Severity::Unavailable, with_causes(&error)));
    }
}

fn truncated(bytes: u64, segments: usize, notes: bool) -> String {
    let notes = if notes { ", and of its notes, which tell of threads and files" } else { "" };
    format!("the dump is cut off: {bytes} bytes of {segments} memory segments are lost{notes}")
}

pub(super) fn of_files(files: &[FileUse]) -> Option<Limit> {
    let unchecked = files.iter().filter(|file| matches!(file.verdict, Verdict::Unchecked(_))).count();
    (unchecked > 0).then(|| {
        let reason = format!(
            "{unchecked} module files of this machine were used although the dump has nothing to compare them with; \
             the number of their types and methods is that of the loaded modules"
        );
        Limit::new(NAMES, Severity::Unsure, reason)
    })
}

/// What somebody who opens a dump should know before the first question, in a line or two; cheap.
#[must_use]
pub fn warnings(core: &dnd_memory::Core, runtime: Option<&Runtime<'_>>) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(cut) = core.truncation() {
        out.push(truncated(cut.missing_memory, cut.segments, cut.notes));
    }
    if let Some(why) = runtime.and_then(|runtime| runtime.layout_facts().unverified.clone()) {
        out.push(why);
    }
    match runtime.map(Runtime::objects_heap) {
        Some(Err(error @ dnd_clr::Error::NoHeap { .. })) => out.push(error.to_string()),
        Some(Err(error)) => out.push(format!("the managed heap can't be read: {}", with_causes(&error))),
        Some(Ok(heap)) if heap.gc_in_progress => {
            out.push(
                "the dump was taken during a garbage collection: answers about objects are partial"
                    .to_owned(),
            );
        }
        _ => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    /// Commands that need nothing of a dump but what every dump of .NET has.
    const UNAFFECTED: &[&str] =
        &["dumpassembly", "eeversion", "exit", "help", "modules", "registers", "threadstate", "threads"];

    #[test]
    fn every_command_is_known_to_suffer_from_something() {
        let lists = [
            OBJECTS,
            WALKS,
            NAMES_OBJECTS,
            HEAP_STRUCTURE,
            HANDLES,
            FINALIZERS,
            SYNC_BLOCKS,
            THREADS,
            STACKS,
            NAMES,
            MODULES,
            UNAFFECTED,
        ];
        let listed: Vec<_> = lists.concat();
        for name in &listed {
            let found = table::find(name).map(table::Command::name);
            assert_eq!(found.ok(), Some(*name), "as JSON names it");
        }
        for command in table::COMMANDS {
            let known = listed.contains(&command.name());
            assert!(known, "what does {} need of a dump?", command.name());
        }
    }
}
