//! One file per command: its row of the table, its facts, their text.

pub(crate) mod array;
pub(crate) mod async_text;
pub(crate) mod clrstack;
pub(crate) mod collections;
pub(crate) mod crash;
pub(crate) mod current_thread;
pub(crate) mod deadlocks;
pub(crate) mod delegate;
pub(crate) mod dump_async;
pub(crate) mod dump_gen;
pub(crate) mod dumpheap;
pub(crate) mod eeheap;
pub(crate) mod exception;
pub(crate) mod fields;
pub(crate) mod finalize;
mod fragments;
mod frame_values;
pub(crate) mod gcroot;
pub(crate) mod gcwhere;
pub(crate) mod handles;
pub(crate) mod heap_stats;
pub(crate) mod help;
pub(crate) mod http;
pub(crate) mod listing;
pub(crate) mod load_contexts;
pub(crate) mod loader;
mod loader_heaps;
pub(crate) mod method;
pub(crate) mod method_table;
pub(crate) mod method_text;
pub(crate) mod modules;
pub(crate) mod names;
pub(crate) mod native_modules;
pub(crate) mod near;
pub(crate) mod object;
pub(crate) mod objsize;
pub(crate) mod oom;
pub(crate) mod parallel_stacks;
pub(crate) mod path_to;
pub(crate) mod paths;
pub(crate) mod quit;
pub(crate) mod registers;
pub(crate) mod stack_objects;
pub(crate) mod strings;
pub(crate) mod syncblk;
pub(crate) mod task_state;
pub(crate) mod thin_locks;
pub(crate) mod threadpool;
pub(crate) mod threads;
pub(crate) mod value;
pub(crate) mod verify;
pub(crate) mod version;

use dnd_clr::{GenerationName, Heap, Segment};

use crate::args::Args;
use crate::error::Error;

/// What `-gen` takes.
pub(crate) const GENERATIONS: &[&str] =
    &["gen0", "gen1", "gen2", "loh", "large", "poh", "pinned", "foh", "frozen"];

/// What `gchandles -type` takes.
pub(crate) const HANDLE_TYPES: &[&str] = &[
    "Pinned",
    "RefCounted",
    "WeakShort",
    "WeakLong",
    "Strong",
    "Variable",
    "AsyncPinned",
    "SizedRef",
    "Dependent",
    "WeakWinRT",
    "WeakInteriorPointer",
    "CrossReference",
];

/// The value of `-gen`.
pub(crate) fn generation(args: &Args) -> Result<Option<GenerationName>, Error> {
    args.word("gen").map(|text| generation_of_text(args, text)).transpose()
}

/// A generation as it is typed.
pub(crate) fn generation_of_text(args: &Args, text: &str) -> Result<GenerationName, Error> {
    let name = match text.to_ascii_lowercase().as_str() {
        "gen0" | "0" => GenerationName::Gen0,
        "gen1" | "1" => GenerationName::Gen1,
        "gen2" | "2" => GenerationName::Gen2,
        "loh" | "large" => GenerationName::Large,
        "poh" | "pinned" => GenerationName::Pinned,
        "foh" | "frozen" => GenerationName::Frozen,
        _ => {
            let known = GENERATIONS.join(", ");
            return Err(args.usage(format!("does not know the generation `{text}`; there are {known}")));
        }
    };
    Ok(name)
}

/// The segments that `-heap` and `-segment` select. `-segment` takes the address of the segment, or one inside it.
pub(crate) fn segment_filter(args: &Args, heap: &Heap) -> Result<impl Fn(&Segment) -> bool + use<>, Error> {
    let number = args.number("heap")?;
    if let Some(number) = number
        && usize::try_from(number).is_ok_and(|n| n >= heap.heaps.len())
    {
        let count = heap.heaps.len();
        return Err(Error::NotFound(format!(
            "there is no GC heap {number}: this process has {count}, numbered from 0"
        )));
    }
    let at = args.addr("segment")?;
    let inside = |s: &Segment, at: u64| s.address == at || s.contains(at);
    if let Some(at) = at
        && !heap.segments.iter().any(|s| inside(s, at))
    {
        return Err(Error::NotFound(format!(
            "{at:x} is no segment, and no address inside one; see `eeheap -gc`"
        )));
    }
    Ok(move |segment: &Segment| {
        number.is_none_or(|n| segment.heap as u64 == n) && at.is_none_or(|at| inside(segment, at))
    })
}

/// First address of a segment's committed memory. A segment begins with its own header; a region's header is
/// elsewhere, and its memory begins at a page.
pub(crate) fn committed_start(heap: &Heap, segment: &Segment) -> u64 {
    const SEGMENT_HEADER: u64 = 0x1_0000;
    let holds_header = segment.address <= segment.start && segment.start - segment.address <= SEGMENT_HEADER;
    if !heap.regions && holds_header { segment.address } else { segment.start & !0xfff }
}
