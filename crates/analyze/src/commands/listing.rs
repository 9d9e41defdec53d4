//! Objects one after another with the statistics below them: `dumpheap`, `objsize`, `finalizequeue`.
//!
//! Rows are written as they come; only the counts by type are kept.

use dnd_clr::{LARGE_FREE, Object, Runtime};
use dnd_contract::Addr;
use rustc_hash::FxHashMap;

use super::fragments;
use crate::error::Error;
use crate::inspect::display_name;
use crate::out::Out;
use crate::session::{Call, Format};
use crate::statistics::{TypeLine, TypeLines, listing_head, listing_row};

/// Bytes that the smallest object takes up.
const MIN_SIZE: u64 = 24;

/// What a listing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Rows, then statistics.
    All,
    /// Statistics only.
    Statistics,
    /// One address a line, nothing else.
    Addresses,
}

impl Show {
    /// What `-stat` and `-short` ask for.
    pub(crate) fn of(call: &Call<'_, '_>) -> Self {
        match (call.args.flag("short"), call.args.flag("stat")) {
            (true, _) => Show::Addresses,
            (_, true) => Show::Statistics,
            _ => Show::All,
        }
    }
}

/// Counts by type, in the order in which the types were met.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    places: FxHashMap<u64, usize>,
    lines: Vec<(u64, u64, u64)>,
    last: (u64, usize),
}

impl Tally {
    /// Counts objects of a type.
    #[inline]
    pub(crate) fn add(&mut self, table: u64, count: u64, bytes: u64) {
        if self.last.0 != table || self.lines.is_empty() {
            let next = self.lines.len();
            let place = *self.places.entry(table).or_insert(next);
            if place == next {
                self.lines.push((table, 0, 0));
            }
            self.last = (table, place);
        }
        if let Some(line) = self.lines.get_mut(self.last.1) {
            line.1 += count;
            line.2 += bytes;
        }
    }

    /// The lines with their types' names.
    pub(crate) fn lines(&self, runtime: &Runtime<'_>, by_count: bool) -> TypeLines {
        let line = |&(mt, count, bytes): &(u64, u64, u64)| TypeLine {
            mt: Addr(mt),
            count,
            bytes,
            name: display_name(runtime, mt),
        };
        TypeLines::new(self.lines.iter().map(line).collect(), by_count)
    }
}

/// A listing being written.
pub(crate) struct Listing {
    show: Show,
    format: Format,
    free: u64,
    pub(crate) tally: Tally,
    /// Large free blocks, by address; listed at the end.
    pub(crate) large_free: Vec<(u64, u64)>,
    rows: u64,
}

impl Listing {
    /// Writes what stands before the first row.
    pub(crate) fn begin(call: &mut Call<'_, '_>, command: &str, version: u32, show: Show) -> Self {
        let listing = Listing {
            show,
            format: call.format,
            free: call.runtime().free().address,
            tally: Tally::default(),
            large_free: Vec::new(),
            rows: 0,
        };
        if call.format == Format::Json {
            call.out.fmt(format_args!("{{\"schema\":\"dnd.analyze.{command}\",\"version\":{version}"));
        }
        listing
    }

    /// Writes one object's row and counts it.
    #[inline]
    pub(crate) fn row(&mut self, out: &mut Out<'_>, object: &Object) {
        // An empty string is smaller than the smallest object; what it takes up is what counts here.
        let object = Object { size: object.size.max(MIN_SIZE), ..*object };
        self.tally.add(object.table, 1, object.size);
        if object.size >= LARGE_FREE && object.table == self.free {
            self.large_free.push((object.address, object.size));
        }
        if self.show != Show::Statistics {
            self.write_row(out, &object);
        }
    }

    #[inline]
    fn write_row(&mut self, out: &mut Out<'_>, object: &Object) {
        match (self.format, self.show) {
            (Format::Text, Show::Addresses) => {
                out.hex(object.address, 12, 0);
                out.end();
            }
            (Format::Text, _) => {
                if self.rows == 0 {
                    listing_head(out);
                }
                listing_row(out, object.address, object.table, object.size, object.table == self.free);
            }
            (Format::Json, show) => {
                out.bytes(if self.rows == 0 { b",\"objects\":[" } else { b"," });
                out.bytes(b"{\"address\":\"0x");
                out.hex(object.address, 1, 0);
                if show == Show::Addresses {
                    out.bytes(b"\"}");
                } else {
                    out.bytes(b"\",\"mt\":\"0x");
                    out.hex(object.table, 1, 0);
                    out.bytes(b"\",\"size\":");
                    out.dec(object.size, 0);
                    out.bytes(b"}");
                }
            }
        }
        self.rows += 1;
    }

    /// Ends the rows: a blank line before what follows, or the end of the JSON list.
    pub(crate) fn end_rows(&self, call: &mut Call<'_, '_>) {
        match (self.format, self.rows, self.show) {
            (Format::Text, 1.., Show::All) => call.out.end(),
            (Format::Text, ..) | (Format::Json, _, Show::Statistics) => {}
            (Format::Json, 0, _) => call.out.str(",\"objects\":[]"),
            (Format::Json, ..) => call.out.str("]"),
        }
    }

    /// Writes the statistics and ends the answer.
    pub(crate) fn end(self, call: &mut Call<'_, '_>, by_count: bool) -> Result<(), Error> {
        self.end_rows(call);
        if self.show != Show::Addresses {
            let runtime = call.runtime();
            let statistics = self.tally.lines(runtime, by_count);
            let fragments = fragments::of(runtime, &self.large_free);
            match self.format {
                Format::Text => {
                    statistics.text(&mut call.out);
                    if !fragments.is_empty() {
                        fragments::text(&fragments, &mut call.out);
                    }
                }
                Format::Json => {
                    call.json_field("statistics", &statistics)?;
                    if !fragments.is_empty() {
                        call.json_field("fragmented", &fragments)?;
                    }
                }
            }
        }
        if self.format == Format::Json {
            call.json_notes()?;
            call.out.line("}");
        }
        call.out.check()?;
        Ok(())
    }
}
