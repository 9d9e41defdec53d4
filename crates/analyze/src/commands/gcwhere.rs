//! `gcwhere`.

use dnd_clr::GenerationName;
use dnd_contract::Addr;
use serde::Serialize;

use super::committed_start;
use crate::error::Error;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["gcwhere", "GCWhere"],
    operands: "<address>",
    max_operands: 1,
    options: &[],
    summary: "Heap, segment and generation of an address.",
    about: "The address need not be that of an object: any address inside a segment will do.",
    run,
};

/// Where an address lies.
#[derive(Debug, Serialize)]
struct Place {
    address: Addr,
    heap: usize,
    segment: Addr,
    generation: GenerationName,
    allocated: (Addr, Addr),
    committed: (Addr, Addr),
    reserved: (Addr, Addr),
    /// Whether an object lies behind the last one that the segment holds: memory that is reserved, not used.
    beyond_objects: bool,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "an address")?;
    let heap = call.runtime().heap()?;
    let holds = |s: &&dnd_clr::Segment| {
        (committed_start(heap, s)..s.reserved.max(s.committed).max(s.end)).contains(&address)
    };
    let segment = heap.segment_of(address).or_else(|| heap.segments.iter().find(holds));
    let segment =
        segment.ok_or_else(|| Error::NotFound(format!("address {address:x} is not in the managed heap")))?;
    let facts = Place {
        address: Addr(address),
        heap: segment.heap,
        segment: Addr(segment.address),
        generation: heap.generation_of(segment, address),
        allocated: (Addr(segment.start), Addr(segment.end)),
        committed: (Addr(committed_start(heap, segment)), Addr(segment.committed)),
        reserved: (Addr(segment.committed), Addr(segment.reserved)),
        beyond_objects: !segment.contains(address),
    };
    if facts.beyond_objects {
        call.note(format!("{address:x} lies in the segment's memory, but outside its objects"));
    }
    call.emit("gcwhere", 1, &facts)
}

impl Facts for Place {
    fn text(&self, out: &mut Out<'_>) {
        let range = |(from, to): (Addr, Addr)| format!("{:012x}-{:012x}", from.0, to.0);
        let generation = match self.generation {
            GenerationName::Gen0 => "0",
            GenerationName::Gen1 => "1",
            GenerationName::Gen2 => "2",
            GenerationName::Large => "large",
            GenerationName::Pinned => "pinned",
            GenerationName::Frozen => "frozen",
        };
        let columns = [
            ("Address", format!("{:012x}", self.address.0), 16),
            ("Heap", self.heap.to_string(), 6),
            ("Segment", format!("{:012x}", self.segment.0), 16),
            ("Generation", generation.to_owned(), 10),
            ("Allocated", range(self.allocated), 25),
            ("Committed", range(self.committed), 25),
            ("Reserved", range(self.reserved), 25),
        ];
        for (index, (head, _, width)) in columns.iter().enumerate() {
            out.left(head, if index == 0 { *width } else { width + 1 });
        }
        out.end();
        for (index, (_, value, width)) in columns.iter().enumerate() {
            out.left(value, if index == 0 { *width } else { width + 1 });
        }
        out.end();
    }
}
