//! `finalizequeue`.

use std::collections::HashSet;

use dnd_clr::FinalizerQueue;
use dnd_contract::Addr;
use serde::Serialize;

use super::listing::{Listing, Show};
use crate::args::Opt;
use crate::error::Error;
use crate::inspect;
use crate::session::{Call, Flow, Format};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["finalizequeue", "fq", "FinalizeQueue"],
    operands: "",
    max_operands: 0,
    options: &[
        Opt::flag(&["stat", "summary"], "Only the statistics."),
        Opt::flag(&["short"], "Only addresses, one a line."),
        Opt::word(&["mt"], "mt", "Only objects of the type with this method table."),
        Opt::flag(&["allReady"], "Only objects that no root reaches any more."),
        Opt::flag(&["detail"], "Accepted; the COM wrappers that it is about don't exist on Linux."),
    ],
    summary: "Objects with a finalizer, and those whose finalizer waits to be run.",
    about: "Many objects ready for finalization, dump after dump, mean that the finalizer thread is stuck or too slow.",
    run,
};

#[derive(Debug, Serialize)]
struct HeapQueue {
    heap: usize,
    generations: Vec<QueuePart>,
    ready: QueuePart,
    critical_ready: QueuePart,
}

#[derive(Debug, Serialize)]
struct QueuePart {
    count: usize,
    start: Addr,
    end: Addr,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let queues = runtime.finalizer_queues()?;
    let wanted = call.args.addr("mt")?;
    let show = Show::of(call);
    let mut objects: Vec<u64> = Vec::new();
    let mut seen = HashSet::new();
    for queue in &queues {
        objects.extend(queue.objects().filter(|&object| seen.insert(object)));
    }
    let all_ready = call.args.flag("allReady");
    if all_ready {
        let (roots, notes) = inspect::roots(runtime, true, call.progress())?;
        notes.into_iter().chain(inspect::ref_counted(&roots)).for_each(|note| call.note(note));
        // Those whose finalizer waits are roots themselves, and ready all the same.
        let waiting: HashSet<u64> = queues.iter().flat_map(FinalizerQueue::roots).collect();
        let roots: Vec<_> =
            roots.into_iter().filter(|r| r.kind != dnd_clr::RootKind::FinalizerQueue).collect();
        let progress = call.progress();
        runtime.reached(&roots, progress, |reached| {
            objects.retain(|object| waiting.contains(object) || !reached.contains(*object));
        })?;
        if let Some(note) = inspect::conservative(&roots, "rooted") {
            call.note(note);
        }
    }
    let mut listing = Listing::begin(call, "finalizequeue", 1, show);
    let heaps: Vec<HeapQueue> = queues.iter().enumerate().map(|(heap, queue)| parts(heap, queue)).collect();
    match (call.format, show) {
        (_, Show::Addresses) => {}
        (Format::Text, _) => {
            for heap in &heaps {
                heap.text(&mut call.out);
            }
            call.out.line("------------------------------");
            call.out.line(if all_ready {
                "Statistics for all finalizable objects that are no longer rooted:"
            } else {
                "Statistics for all finalizable objects (including all objects ready for finalization):"
            });
        }
        (Format::Json, _) => call.json_field("heaps", &heaps)?,
    }
    let mut broken = 0;
    for &address in &objects {
        match runtime.object(address) {
            Ok(object) if wanted.is_none_or(|table| table == object.table) => {
                listing.row(&mut call.out, &object);
            }
            Ok(_) => {}
            Err(_) => broken += 1,
        }
    }
    if broken > 0 {
        call.note(format!("{broken} entries point to what is no object in this dump"));
    }
    listing.end(call, false)?;
    Ok(Flow::Next)
}

fn parts(heap: usize, queue: &FinalizerQueue) -> HeapQueue {
    let part =
        |p: &dnd_clr::Part| QueuePart { count: p.objects.len(), start: Addr(p.start), end: Addr(p.end) };
    HeapQueue {
        heap,
        generations: queue.generations.iter().map(part).collect(),
        ready: part(&queue.ready),
        critical_ready: part(&queue.critical_ready),
    }
}

impl HeapQueue {
    fn text(&self, out: &mut crate::out::Out<'_>) {
        out.fmt(format_args!("Heap {}\n", self.heap));
        for (number, part) in self.generations.iter().enumerate() {
            let QueuePart { count, start, end } = part;
            // The large and pinned object heaps are generations 3 and 4; worth a line when they hold something.
            if number <= 2 || *count > 0 {
                out.fmt(format_args!(
                    "generation {number} has {count} objects ({:x}->{:x})\n",
                    start.0, end.0
                ));
            }
        }
        let count = self.critical_ready.count + self.ready.count;
        out.fmt(format_args!(
            "Ready for finalization {count} objects ({:x}->{:x})\n",
            self.critical_ready.start.0, self.ready.end.0
        ));
    }
}
