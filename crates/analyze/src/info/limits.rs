//! Which commands can't answer, or not in full, and why.

use std::collections::BTreeSet;

use dnd_clr::Runtime;
use dnd_memory::{FileUse, Verdict};
use serde::Serialize;

use super::needs::{self, Needs};
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
    fn new(parts: Needs, severity: Severity, reason: impl Into<String>) -> Self {
        Self { commands: needs::commands(parts), severity, reason: reason.into() }
    }

    fn all(severity: Severity, reason: impl Into<String>) -> Self {
        Self { commands: Vec::new(), severity, reason: reason.into() }
    }
}

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
        out.push(Limit::new(needs::THREADS, Unavailable, with_causes(&error)));
    }
    let without_stack = info.threads.without_stack;
    if without_stack > 0 {
        let reason =
            format!("the stacks of {without_stack} of {} threads are not in the dump", info.threads.native);
        out.push(Limit::new(needs::STACKS, Partial, reason));
    } else if let Some(reason) = unfinished_stacks(runtime) {
        out.push(Limit::new(needs::STACKS, Partial, reason));
    }
    match (&info.modules, runtime.modules()) {
        (_, Err(error)) => out.push(Limit::new(needs::MODULES, Unavailable, with_causes(&error))),
        (Some(modules), _) if !modules.without_metadata.is_empty() => {
            let reason = format!(
                "the metadata of {} of {} modules can't be read, so the names of their types, fields and methods are unknown",
                modules.without_metadata.len(),
                modules.count
            );
            out.push(Limit::new(needs::NAMES, Partial, reason));
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
        out.push(Limit::new(needs::SEGMENTS, Unavailable, with_causes(&error)));
        let reason = if runtime.image().single_file {
            "the runtime's own data is not in this dump; of single-file programs only full dumps have it"
        } else {
            "the managed heap is not in this dump"
        };
        out.push(Limit::new(needs::OBJECTS, Unavailable, reason));
        out.push(Limit::new(needs::OBJECT_NAMES, Partial, NO_OBJECTS));
        sync_blocks(runtime, out);
        return;
    }
    if let Err(error) = runtime.objects_heap() {
        out.push(Limit::new(needs::OBJECTS, Unavailable, with_causes(&error)));
        out.push(Limit::new(needs::OBJECT_NAMES, Partial, NO_OBJECTS));
    } else if let Some(heap) = info.heap.as_ref().filter(|heap| heap.present < heap.bytes) {
        let reason =
            format!("{} of {} bytes of the heap are not in the dump", heap.bytes - heap.present, heap.bytes);
        out.push(Limit::new(needs::WALK, Partial, reason));
    }
    if info.heap.as_ref().is_some_and(|heap| heap.gc_in_progress) {
        let reason = "the dump was taken during a GC: the heap can't be walked everywhere, and references may point to where \
                      objects were or will be";
        out.push(Limit::new(needs::WALK, Partial, reason));
    }
    if let Err(error) = runtime.handles() {
        out.push(Limit::new(needs::HANDLES, Unavailable, with_causes(&error)));
    }
    if let Err(error) = runtime.finalizer_queues() {
        out.push(Limit::new(needs::FINALIZERS, Unavailable, with_causes(&error)));
    }
    sync_blocks(runtime, out);
}

const NO_OBJECTS: &str =
    "the objects that they tell of are not in the dump, so neither are their types and values";

fn sync_blocks(runtime: &Runtime<'_>, out: &mut Vec<Limit>) {
    if let Err(error) = runtime.sync_blocks() {
        out.push(Limit::new(needs::SYNC_BLOCKS, Severity::Unavailable, with_causes(&error)));
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
        Limit::new(needs::NAMES, Severity::Unsure, reason)
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
