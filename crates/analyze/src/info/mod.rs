//! What a dump is, how complete it is, and which questions it can't answer: the facts of `dump info`.
//!
//! Everything is tried, nothing concluded from the dump's name or type: a command is said to suffer because what it
//! needs was looked for and is not there.

mod kind;
mod limits;
mod modules;
mod needs;
mod process;
mod text;

use dnd_clr::layout::{LayoutFacts, TableEntry};
use dnd_clr::{Runtime, VersionSource};
use dnd_contract::{Addr, Explain};
use dnd_memory::{Core, FileUse, Memory, Target, Truncation, WithFiles};
use serde::Serialize;

pub use kind::{DumpKind, FilePages, Kind};
pub use limits::{Limit, Severity, warnings};
pub use modules::{MissingMetadata, Modules};
pub use process::{ArgumentsFrom, Process, Signal, signal};
pub use text::write_text;

/// What a dump is and holds.
#[derive(Debug, Serialize)]
pub struct DumpInfo {
    /// The file.
    pub file: File,
    /// Who wrote it and what is in it.
    pub dump: Kind,
    /// When it was taken.
    pub taken: Option<Taken>,
    /// Nothing was cut off, neither of the dump nor of its packed data.
    pub complete: bool,
    /// What was cut off.
    pub truncation: Option<Truncation>,
    /// Processor of the process, in .NET's words.
    pub arch: &'static str,
    /// The process, as far as the dump tells.
    pub process: Option<Process>,
    /// The signal that it was taken for; `None` for a dump taken on demand.
    pub signal: Option<Signal>,
    /// Its threads.
    pub threads: ThreadNumbers,
    /// The .NET runtime.
    pub runtime: Option<RuntimeFacts>,
    /// Why the runtime can't be read.
    pub problem: Option<Problem>,
    /// The GC and its heap, when its structures can be read.
    pub heap: Option<HeapFacts>,
    /// Managed modules, when their list can be read.
    pub modules: Option<Modules>,
    /// Module files that were looked for because the dump lacks bytes of them.
    pub files: Vec<FileUse>,
    /// What can't be answered, or not in full.
    pub limits: Vec<Limit>,
}

/// The dump's file.
#[derive(Debug, Serialize)]
pub struct File {
    /// Its path as given.
    pub path: String,
    /// Bytes; of a packed one what was unpacked.
    pub bytes: u64,
    /// How it was packed.
    pub packed: Option<dnd_memory::Packed>,
    /// Bytes of the process's memory that are in it.
    pub memory_present: u64,
    /// Bytes of memory that its headers describe.
    pub memory_described: u64,
    /// Segments that claim addresses which another one has already: damage.
    pub overlaps: usize,
}

/// When a dump was taken, and how that is known.
#[derive(Debug, Clone, Serialize)]
pub struct Taken {
    /// RFC 3339.
    pub at: String,
    /// How it is known.
    pub from: TakenFrom,
}

/// How the time of a dump is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TakenFrom {
    /// From the name that systemd-coredump gave it.
    FileName,
    /// From the file's time of change: when the dump, or this copy of it, was written.
    FileModified,
}

/// Numbers of threads.
#[derive(Debug, Default, Serialize)]
pub struct ThreadNumbers {
    /// Threads of the process.
    pub native: usize,
    /// Managed threads, when they can be read; those that have ended included.
    pub managed: Option<u32>,
    /// Of the managed threads those that have ended, or not begun.
    pub managed_ended: Option<u32>,
    /// Threads whose stack is not in the dump at its stack pointer.
    pub without_stack: usize,
}

/// The runtime of a dump.
#[derive(Debug, Serialize)]
pub struct RuntimeFacts {
    /// Release, for example `8.0.4`; `None` when nothing tells.
    pub version: Option<String>,
    /// Number of the build, for example `8.0.424.16909`.
    pub build: Option<String>,
    /// Commit of dotnet/runtime.
    pub commit: Option<String>,
    /// Where these are from.
    pub version_from: Option<VersionSource>,
    /// Major version whose structures were found and checked; 3 is .NET Core 3.1.
    pub major: u8,
    /// Portable runtime identifier.
    pub rid: String,
    /// `glibc` or `musl`.
    pub libc: Option<&'static str>,
    /// File that it was loaded from.
    pub image: String,
    /// The runtime is part of the program's own file.
    pub single_file: bool,
    /// Address of the image.
    pub base: Addr,
    /// Build-id of the image, where the dump has it.
    pub build_id: Option<String>,
    /// The table of globals that it was recognised by.
    pub table: Table,
    /// Where the places of its structures are from.
    pub layout: LayoutFacts,
}

/// The runtime's table of globals (`g_dacTable`).
#[derive(Debug, Serialize)]
pub struct Table {
    /// Its entries.
    pub entries: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// An error with what would help.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// The error and its causes, in one line.
    pub text: String,
    /// What would help.
    pub hints: Vec<String>,
}

/// The managed heap in numbers.
#[derive(Debug, Serialize)]
pub struct HeapFacts {
    /// Server GC.
    pub server: bool,
    /// Number of its heaps.
    pub heaps: usize,
    /// Regions instead of segments.
    pub regions: bool,
    /// Number of segments or regions.
    pub segments: usize,
    /// Bytes between the first and the last object of all of them.
    pub bytes: u64,
    /// Bytes of these that are in the dump.
    pub present: u64,
    /// Bytes that the GC has committed.
    pub committed: u64,
    /// The dump was taken during a GC.
    pub gc_in_progress: bool,
}

/// Collects the facts. `runtime` is what opening the runtime of `target` came to; `taken` is for the caller to find
/// out.
#[must_use]
pub fn gather(
    target: &WithFiles,
    runtime: Result<&Runtime<'_>, &dnd_clr::Error>,
    taken: Option<Taken>,
) -> DumpInfo {
    let core = target.core();
    let opened = runtime.ok();
    let heap = opened.and_then(|runtime| runtime.heap().ok()).map(|heap| HeapFacts {
        server: heap.server,
        heaps: heap.heaps.len(),
        regions: heap.regions,
        segments: heap.segments.len(),
        bytes: heap.segments.iter().map(dnd_clr::Segment::len).fold(0, u64::saturating_add),
        present: heap
            .segments
            .iter()
            .map(|s| kind::present(core, s.start, s.end))
            .fold(0, u64::saturating_add),
        committed: heap
            .segments
            .iter()
            .map(|s| s.committed.saturating_sub(s.start))
            .fold(0, u64::saturating_add),
        gc_in_progress: heap.gc_in_progress,
    });
    let counts = opened.and_then(|runtime| runtime.threads().ok()).map(|threads| threads.counts);
    let threads = ThreadNumbers {
        native: core.threads().len(),
        managed: counts.map(|counts| counts.total),
        managed_ended: counts.map(|counts| counts.dead.saturating_add(counts.unstarted)),
        without_stack: core.threads().iter().filter(|t| core.run(t.registers.sp()).is_empty()).count(),
    };
    let modules = opened.and_then(modules::gather);
    let mut info = DumpInfo {
        file: File {
            path: core.path().display().to_string(),
            bytes: core.file_size(),
            packed: core.packed().cloned(),
            memory_present: core.present_memory(),
            memory_described: core.described_memory(),
            overlaps: core.overlaps(),
        },
        dump: kind::recognise(core, opened, heap.as_ref()),
        taken,
        complete: core.truncation().is_none() && core.packed().is_none_or(|packed| packed.damage.is_none()),
        truncation: core.truncation(),
        arch: core.arch().name(),
        process: process::process(core),
        signal: process::signal(core, opened),
        threads,
        runtime: opened.map(|runtime| runtime_facts(core, runtime)),
        problem: runtime.err().map(problem),
        heap,
        modules,
        files: Vec::new(),
        limits: Vec::new(),
    };
    info.limits = limits::gather(&info, opened);
    // Last: what was looked at above may have needed more files.
    info.files = target.uses();
    info.limits.extend(limits::of_files(&info.files));
    limits::once(&mut info.limits);
    info
}

fn problem(error: &dnd_clr::Error) -> Problem {
    Problem { text: with_causes(error), hints: error.hints() }
}

/// An error and its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn runtime_facts(core: &Core, runtime: &Runtime<'_>) -> RuntimeFacts {
    let version = runtime.version();
    let image = runtime.image();
    let libc = libc(core);
    let arch = core.arch().name();
    let rid = if libc == Some("musl") { format!("linux-musl-{arch}") } else { format!("linux-{arch}") };
    let shape = runtime.table_shape();
    let size = match shape.entry {
        TableEntry::Absolute => 8,
        TableEntry::Relative => 4,
    };
    RuntimeFacts {
        version: runtime.release(),
        build: version.filter(|v| v.source != VersionSource::Path).map(|v| v.text.clone()),
        commit: version.and_then(|v| v.commit.clone()),
        version_from: version.map(|v| v.source),
        major: runtime.major(),
        rid,
        libc,
        image: image.path.display().to_string(),
        single_file: image.single_file,
        base: Addr(image.base),
        build_id: image.build_id.as_deref().map(hex),
        table: Table { entries: shape.entries, bytes: shape.entries * size },
        layout: runtime.layout_facts().clone(),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a String can't fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Which C library the process ran with, by the files that it had mapped.
fn libc(core: &Core) -> Option<&'static str> {
    core.mappings().iter().find_map(|mapping| {
        let name = mapping.file_name();
        if name.starts_with("ld-musl-") || name.starts_with("libc.musl-") {
            Some("musl")
        } else if name == "libc.so.6" || name.starts_with("ld-linux-") {
            Some("glibc")
        } else {
            None
        }
    })
}
