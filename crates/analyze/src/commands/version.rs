//! `eeversion`.

use serde::Serialize;

use crate::error::Error;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["eeversion"],
    operands: "",
    max_operands: 0,
    options: &[],
    summary: "Version of the runtime, and how its GC is set up.",
    about: "",
    run,
};

/// The runtime, in short.
#[derive(Debug, Serialize)]
struct Version {
    /// For example `8.0.424.16909`; null when nothing in the dump tells.
    runtime_version: Option<String>,
    commit: Option<String>,
    /// How the version was found.
    version_source: Option<dnd_clr::VersionSource>,
    /// Major version whose structures were found and checked.
    major: u8,
    arch: &'static str,
    /// File that the runtime was loaded from.
    image: String,
    /// The runtime is part of the program's own file.
    single_file: bool,
    server_gc: Option<bool>,
    gc_heaps: Option<usize>,
    /// Regions instead of segments.
    regions: Option<bool>,
    /// The dump was taken during a GC.
    gc_in_progress: Option<bool>,
    /// Version of this program.
    dnd: &'static str,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let version = runtime.version();
    if let Some(why) = &runtime.layout_facts().unverified {
        call.note(why.as_str());
    }
    let heap = match call.runtime().heap() {
        Ok(heap) => Some(heap),
        Err(error) => {
            call.note(format!("the GC's structures can't be read: {error}"));
            None
        }
    };
    let facts = Version {
        runtime_version: version.map(|v| v.text.clone()),
        commit: version.and_then(|v| v.commit.clone()),
        version_source: version.map(|v| v.source),
        major: runtime.major(),
        arch: runtime.target().arch().name(),
        image: runtime.image().path.display().to_string(),
        single_file: runtime.image().single_file,
        server_gc: heap.map(|heap| heap.server),
        gc_heaps: heap.map(|heap| heap.heaps.len()),
        regions: heap.map(|heap| heap.regions),
        gc_in_progress: heap.map(|heap| heap.gc_in_progress),
        dnd: env!("CARGO_PKG_VERSION"),
    };
    call.emit("eeversion", 1, &facts)
}

impl Facts for Version {
    fn text(&self, out: &mut Out<'_>) {
        match (&self.runtime_version, &self.commit) {
            (Some(version), commit) => {
                out.name(version);
                out.end();
                if let Some(commit) = commit {
                    out.name(version);
                    out.str(" @Commit: ");
                    out.name(commit);
                    out.end();
                }
            }
            (None, _) => out.fmt(format_args!("{} (the exact version is not in the dump)\n", self.major)),
        }
        match (self.server_gc, self.gc_heaps) {
            (Some(true), Some(heaps)) => out.fmt(format_args!("Server mode with {heaps} gc heaps\n")),
            (Some(_), _) => out.line("Workstation mode"),
            (None, _) => {}
        }
        if self.gc_in_progress == Some(true) {
            out.line("In the middle of a garbage collection");
        }
        if self.single_file {
            out.line("Single-file program");
        }
        out.fmt(format_args!("dnd version: {}\n", self.dnd));
    }
}
