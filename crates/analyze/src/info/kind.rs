//! Who wrote a dump, and how much of the process is in it.

use dnd_clr::Runtime;
use dnd_memory::{Core, Maker, Target};
use serde::Serialize;

use super::HeapFacts;

/// Who wrote a dump and what it holds.
#[derive(Debug, Serialize)]
pub struct Kind {
    /// Who wrote it; `None` when its notes look like none of the known programs'.
    pub written_by: Option<Maker>,
    /// What createdump calls this; for others how much of the process is there.
    pub kind: DumpKind,
    /// Pages of libraries and assemblies that were never written to: code, constants, metadata.
    pub file_pages: FilePages,
}

/// How much of a process is in a dump, in the words of `dump collect --type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DumpKind {
    /// All memory.
    Full,
    /// The GC heap and what is needed to read it; of kernel and gdb cores: all but pages that files have, too.
    Heap,
    /// Threads and modules.
    Mini,
    /// As Mini, without what may be private.
    Triage,
    /// One of the last two; .NET Core 3.1 writes the same for both as far as is looked at here.
    MiniOrTriage,
    /// There is no runtime to judge by, or not enough of it.
    Unknown,
}

/// Whether pages are in a dump that could as well be read from the files that they were loaded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilePages {
    /// All of them.
    All,
    /// Those that the dump's maker found useful.
    Some,
    /// None but each image's first page.
    None,
}

pub(super) fn recognise(core: &Core, runtime: Option<&Runtime<'_>>, heap: Option<&HeapFacts>) -> Kind {
    let written_by = core.maker();
    let file_pages = file_pages(core, runtime);
    // A Mini dump has pages of the heap, too: those that hold exceptions, threads and what their stacks lead to.
    let scraps = heap.is_some_and(|heap| heap.present < heap.bytes / 2) && core.truncation().is_none();
    let objects = !scraps && runtime.is_some_and(|runtime| runtime.objects_heap().is_ok());
    let kind = match (runtime, objects) {
        (None, _) => DumpKind::Unknown,
        (Some(_), true) if file_pages == FilePages::All => DumpKind::Full,
        (Some(_), true) => DumpKind::Heap,
        // The runtime's own data is missing, so nothing tells whether the heap is there.
        (Some(runtime), false) if runtime.image().single_file && heap.is_none() => DumpKind::Unknown,
        // A Mini dump has what the runtime's own tools ask the GC for; a Triage dump has not.
        (Some(runtime), false) if runtime.major() < 8 => DumpKind::MiniOrTriage,
        (Some(_), false) if heap.is_some() => DumpKind::Mini,
        (Some(_), false) => DumpKind::Triage,
    };
    Kind { written_by, kind, file_pages }
}

/// By the runtime's own image; without one, by all that are mapped.
fn file_pages(core: &Core, runtime: Option<&Runtime<'_>>) -> FilePages {
    let path = runtime.map(|runtime| runtime.image().path.as_path());
    let of_image = core.mappings().iter().filter(|mapping| path.is_none_or(|path| mapping.path == path));
    let (mut there, mut all, mut beyond_first) = (0u64, 0u64, false);
    for mapping in of_image {
        let bytes = present(core, mapping.start, mapping.end);
        there = there.saturating_add(bytes);
        all = all.saturating_add(mapping.end.saturating_sub(mapping.start));
        // Data is in every dump, because it was written to; code and constants never are.
        let code = core.ranges().iter().any(|range| {
            range.permissions.execute
                && !range.permissions.write
                && range.start < mapping.end
                && mapping.start < range.end
        });
        beyond_first |= code && bytes > FIRST_PAGES;
    }
    match (there, all) {
        (there, all) if all > 0 && there == all => FilePages::All,
        _ if beyond_first => FilePages::Some,
        _ => FilePages::None,
    }
}

/// What a kernel writes of a mapping whose pages it leaves out, if it is the start of an image.
const FIRST_PAGES: u64 = 0x1_0000;

/// How many bytes of a range are in the core.
pub(super) fn present(core: &Core, start: u64, end: u64) -> u64 {
    let ranges = core.ranges();
    let first = ranges.partition_point(|range| range.end <= start);
    let inside = ranges.iter().skip(first).take_while(|range| range.start < end);
    inside.map(|range| range.end.min(end).saturating_sub(range.start.max(start))).sum()
}

/// What a dump is, in words for people.
impl Kind {
    /// For example `createdump, Heap`.
    #[must_use]
    pub fn text(&self) -> String {
        let kind = match (self.kind, self.written_by) {
            (DumpKind::Unknown, _) => "",
            (DumpKind::Full, _) => "all memory",
            (DumpKind::Heap, Some(Maker::Kernel | Maker::Gcore)) => {
                "the heap and all other data, without the pages that can be read from files"
            }
            (DumpKind::Heap, _) => "the heap and what is needed to read it",
            (DumpKind::Mini | DumpKind::Triage | DumpKind::MiniOrTriage, _) => {
                "threads and modules, without the heap"
            }
        };
        let name = match (self.written_by, self.kind) {
            (Some(Maker::Createdump), DumpKind::Full) => "Full dump by createdump",
            (Some(Maker::Createdump), DumpKind::Heap) => "Heap dump by createdump",
            (Some(Maker::Createdump), DumpKind::Mini) => "Mini dump by createdump",
            (Some(Maker::Createdump), DumpKind::Triage) => "Triage dump by createdump",
            (Some(Maker::Createdump), DumpKind::MiniOrTriage) => "Mini or Triage dump by createdump",
            (Some(Maker::Createdump), DumpKind::Unknown) => {
                "dump by createdump, of a kind that can't be told"
            }
            (Some(Maker::Gcore), _) => "core by gdb (gcore)",
            (Some(Maker::Kernel), _) => "core by the kernel",
            (None, _) => "core by an unknown program",
        };
        if kind.is_empty() { name.to_owned() } else { format!("{name}: {kind}") }
    }
}
