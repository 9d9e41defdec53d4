//! `dumpheap`.

use std::ops::ControlFlow;

use dnd_clr::{Damage, GenerationName, Object, Reached, Runtime, Segment, SegmentKind, Slot};
use rustc_hash::FxHashMap;

use super::listing::{Listing, Show};
use super::{generation, segment_filter, strings};
use crate::args::Opt;
use crate::error::Error;
use crate::inspect::{self, display_name};
use crate::session::{Call, Flow, threads};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["dumpheap", "DumpHeap"],
    operands: "[<start> [<end>]]",
    max_operands: 2,
    options: &[
        Opt::flag(&["stat"], "Only the statistics: objects and bytes by type."),
        Opt::word(&["mt"], "mt", "Only objects of the type with this method table."),
        Opt::word(&["type"], "text", "Only objects whose type name holds this text (case matters)."),
        Opt::word(&["min"], "bytes", "Only objects of at least this size (decimal, or 0x…)."),
        Opt::word(&["max"], "bytes", "Only objects of at most this size."),
        Opt::flag(&["live"], "Only objects that a root reaches."),
        Opt::flag(
            &["dead"],
            "Only objects that no root reaches: the next full GC would free them (but for frozen ones).",
        ),
        Opt::word(
            &["gen"],
            "generation",
            "Only gen0, gen1, gen2, loh (large), poh (pinned) or foh (frozen).",
        ),
        Opt::word(&["heap"], "number", "Only this GC heap (server GC)."),
        Opt::word(&["segment"], "address", "Only this segment or region (its address, or one inside it)."),
        Opt::flag(&["strings"], "Only strings, counted by their text."),
        Opt::flag(&["short"], "Only addresses, one a line."),
        Opt::flag(&["bycount"], "Statistics ordered by number of objects instead of bytes."),
        Opt::flag(
            &["thinlock"],
            "Only objects that are locked by a thin lock, with the thread that holds it.",
        ),
        Opt::flag(
            &["ignoreGCState"],
            "Accepted: a dump taken during a GC is read anyway, and a note says so.",
        ),
        Opt::flag(&["noprogress"], "Accepted: progress is shown on terminals only."),
    ],
    summary: "Lists the objects on the managed heap, or counts them by type.",
    about: "Sizes are those of the objects themselves, what they refer to is not counted (see objsize). `Free` is space \
            between objects.\nA range is given by its first address and the one behind it, or by L and a length in hex: \
            `dumpheap 7f0c14000000 L1000`.\nFinding a leak: `dumpheap -stat`, then `dumpheap -mt <mt>` for a type of \
            which there is too much (the end of the table), then `gcroot <address>` of one or two of its objects.",
    run,
};

/// Which objects are wanted.
struct Filter {
    table: Option<u64>,
    name: Option<String>,
    by_name: FxHashMap<u64, bool>,
    last: (u64, bool),
    min: u64,
    max: u64,
    range: Option<(u64, u64)>,
    generation: Option<GenerationName>,
}

impl Filter {
    /// Whether every object is wanted, so that counting need not look at each.
    fn is_all(&self) -> bool {
        self.table.is_none()
            && self.name.is_none()
            && self.range.is_none()
            && (self.min, self.max) == (0, u64::MAX)
    }

    /// Whether a segment can hold a wanted object. Ephemeral segments hold three generations.
    fn wants_segment(&self, segment: &Segment) -> bool {
        let generation = match (self.generation, segment.kind) {
            (None, _) => true,
            (Some(wanted), SegmentKind::Ephemeral) => {
                matches!(wanted, GenerationName::Gen0 | GenerationName::Gen1 | GenerationName::Gen2)
            }
            (Some(wanted), kind) => {
                wanted
                    == match kind {
                        SegmentKind::Gen0 => GenerationName::Gen0,
                        SegmentKind::Gen1 => GenerationName::Gen1,
                        SegmentKind::Gen2 | SegmentKind::Ephemeral => GenerationName::Gen2,
                        SegmentKind::Large => GenerationName::Large,
                        SegmentKind::Pinned => GenerationName::Pinned,
                        SegmentKind::Frozen => GenerationName::Frozen,
                    }
            }
        };
        let range = self.range.is_none_or(|(from, to)| segment.start < to && from < segment.end);
        generation && range
    }

    /// What to say when no type's name holds the text of `-type`, but some would if case did not matter.
    fn case_hint(&self, runtime: &Runtime<'_>) -> Option<String> {
        let part = self.name.as_ref().filter(|_| !self.by_name.values().any(|&wanted| wanted))?;
        let lower = part.to_lowercase();
        let like = |table: &&u64| display_name(runtime, **table).to_lowercase().contains(&lower);
        let count = self.by_name.keys().filter(like).count();
        (count > 0).then(|| format!("no type's name holds `{part}`; {count} do when case is ignored"))
    }

    #[inline]
    fn wants(&mut self, object: &Object, name: impl FnOnce(u64) -> String) -> bool {
        if self.table.is_some_and(|table| table != object.table)
            || object.size < self.min
            || object.size > self.max
        {
            return false;
        }
        if self.range.is_some_and(|(from, to)| object.address < from || object.address >= to) {
            return false;
        }
        let Some(part) = &self.name else { return true };
        if self.last.0 != object.table {
            let wanted =
                *self.by_name.entry(object.table).or_insert_with(|| name(object.table).contains(part));
            self.last = (object.table, wanted);
        }
        self.last.1
    }
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let heap = runtime.objects_heap()?;
    let args = &call.args;
    let mut filter = Filter {
        table: args.addr("mt")?,
        name: args.word("type").map(str::to_owned),
        by_name: FxHashMap::default(),
        last: (0, false),
        min: args.number("min")?.unwrap_or(0),
        max: args.number("max")?.unwrap_or(u64::MAX),
        range: args.range()?,
        generation: generation(args)?,
    };
    let live = match (args.flag("live"), args.flag("dead")) {
        (true, true) => return Err(args.usage("takes -live or -dead, not both")),
        (false, false) => None,
        (live, _) => Some(live),
    };
    let in_place = segment_filter(args, heap)?;
    let by_count = args.flag("bycount");
    let show = Show::of(call);
    let (only_strings, thin_locks) = (args.flag("strings"), args.flag("thinlock"));
    if heap.gc_in_progress {
        call.note("the dump was taken during a garbage collection: the heap may be inconsistent");
    }
    let mut segments: Vec<Segment> =
        heap.segments.iter().filter(|s| in_place(s) && filter.wants_segment(s)).copied().collect();
    segments.sort_by_key(|segment| segment.start);
    if only_strings {
        filter.table = Some(runtime.string_table()?);
    }
    let query = Query { segments, show, by_count, only_strings, thin_locks };
    let Some(live) = live else { return query.run(call, filter, None) };
    let (roots, notes) = inspect::roots(runtime, true, call.progress())?;
    notes.into_iter().chain(inspect::ref_counted(&roots)).for_each(|note| call.note(note));
    if let Some(note) = inspect::conservative(&roots, "live") {
        call.note(note);
    }
    let progress = call.progress();
    runtime.reached(&roots, progress, |reached| query.run(call, filter, Some((reached, live))))?
}

/// A listing to be made.
struct Query {
    segments: Vec<Segment>,
    show: Show,
    by_count: bool,
    only_strings: bool,
    thin_locks: bool,
}

impl Query {
    fn run(
        self,
        call: &mut Call<'_, '_>,
        filter: Filter,
        reached: Option<(&Reached<'_>, bool)>,
    ) -> Result<Flow, Error> {
        let heap = call.runtime().heap()?;
        let mixed =
            filter.generation.is_some() && self.segments.iter().any(|s| s.kind == SegmentKind::Ephemeral);
        let whole = self.segments.len() == heap.segments.len();
        let plain = self.show == Show::Statistics
            && filter.is_all()
            && !mixed
            && !self.only_strings
            && !self.thin_locks;
        match reached {
            // Counting is what the engine does by itself, on all processors and without a look at each object here.
            None if plain => {
                let counted = call.runtime().count(&self.segments, threads(), call.progress())?;
                self.statistics(call, counted.types, counted.large_free, &counted.damage)
            }
            Some((reached, true)) if plain && whole => {
                self.statistics(call, reached.types.clone(), Vec::new(), &Damage::default())
            }
            _ => self.list(call, filter, reached),
        }
    }

    fn statistics(
        &self,
        call: &mut Call<'_, '_>,
        mut types: Vec<Slot>,
        large_free: Vec<(u64, u64)>,
        damage: &Damage,
    ) -> Result<Flow, Error> {
        types.sort_by_key(|slot| slot.first);
        let mut listing = Listing::begin(call, "dumpheap", 1, self.show);
        listing.large_free = large_free;
        for slot in &types {
            listing.tally.add(slot.table, slot.count, slot.bytes + slot.padding);
        }
        damage_notes(call, damage);
        listing.end(call, self.by_count)?;
        finish(damage)
    }

    fn list(
        self,
        call: &mut Call<'_, '_>,
        mut filter: Filter,
        reached: Option<(&Reached<'_>, bool)>,
    ) -> Result<Flow, Error> {
        let (runtime, progress) = (call.runtime(), call.progress());
        let heap = runtime.heap()?;
        if self.thin_locks {
            return super::thin_locks::list(call, &self.segments, |object| {
                filter.wants(object, |table| display_name(runtime, table))
                    && reached.is_none_or(|(set, live)| set.contains(object.address) == live)
            });
        }
        let schema = if self.only_strings { "dumpheap-strings" } else { "dumpheap" };
        let mut listing = Listing::begin(call, schema, 1, self.show);
        progress.start(self.segments.iter().map(Segment::len).sum());
        let out = &mut call.out;
        let only = filter.table;
        let mut walk = |mut sender: Option<&mut strings::Sender>| {
            let visit = |segment: &Segment, object: Object| {
                let wanted = filter.wants(&object, |table| display_name(runtime, table))
                    && reached.is_none_or(|(set, live)| set.contains(object.address) == live)
                    && (segment.kind != SegmentKind::Ephemeral
                        || filter
                            .generation
                            .is_none_or(|g| g == heap.generation_of(segment, object.address)));
                if wanted {
                    listing.row(out, &object);
                    if let Some(sender) = &mut sender {
                        sender.add(&object);
                    }
                }
                if out.failed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            match only {
                Some(table) => runtime.walk_type(&self.segments, table, threads(), progress, visit),
                None => runtime.walk_all(&self.segments, progress, visit),
            }
        };
        let (texts, damage) = if self.only_strings {
            let (texts, damage) = strings::counted(runtime.target(), |sender| walk(Some(sender)));
            (Some(texts), damage?)
        } else {
            (None, walk(None)?)
        };
        damage_notes(call, &damage);
        if let Some(hint) = filter.case_hint(runtime) {
            call.note(hint);
        }
        match texts {
            None => {
                if !filter.is_all() || reached.is_some() {
                    // What stands behind a block may have been filtered out.
                    listing.large_free.clear();
                }
                listing.end(call, self.by_count)?;
            }
            Some(texts) => texts.end(call, &listing, self.by_count)?,
        }
        finish(&damage)
    }
}

/// Notes what the reader must know of an answer that is not whole.
pub(super) fn damage_notes(call: &mut Call<'_, '_>, damage: &Damage) {
    if damage.places > 0 {
        let places = if damage.places == 1 {
            "a damaged place was".to_owned()
        } else {
            format!("{} damaged places were", damage.places)
        };
        let bytes = damage.bytes;
        call.note(format!(
            "{places} skipped, {bytes} bytes in all: the objects there are not in this answer"
        ));
    }
    if damage.missing_bytes > 0 {
        call.note(format!("{} bytes of the heap are not in the dump", damage.missing_bytes));
    }
}

/// A whole answer, or the error that it is not.
pub(super) fn finish(damage: &Damage) -> Result<Flow, Error> {
    if damage.is_none() {
        return Ok(Flow::Next);
    }
    Err(Error::Partial("a part of the heap could not be read; the answer above is of the rest".to_owned()))
}
