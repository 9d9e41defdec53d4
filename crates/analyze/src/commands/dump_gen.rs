//! `dumpgen`: the objects of one generation.

use std::ops::ControlFlow;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::dumpheap::{damage_notes, finish};
use super::generation_of_text;
use super::listing::Tally;
use crate::args::Opt;
use crate::error::Error;
use crate::inspect::{display_name, method_table};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::statistics::TypeLines;
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["dumpgen", "dg", "DumpGen"],
    operands: "<generation>",
    max_operands: 1,
    options: &[
        Opt::word(&["type"], "text", "Only types whose name has this part (case matters)."),
        Opt::word(&["mt"], "mt", "The objects of the type with this method table, one a line."),
        Opt::flag(&["stat"], "Accepted: without -mt there are only statistics."),
    ],
    summary: "Counts the objects of one generation by type, or lists those of a type.",
    about: "The generation is gen0, gen1, gen2, loh, poh or foh. dumpheap -gen does the same, and more.",
    run,
};

#[derive(Debug, Serialize)]
struct Answer {
    generation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics: Option<TypeLines>,
    #[serde(skip_serializing_if = "Option::is_none")]
    objects: Option<Vec<Line>>,
}

#[derive(Debug, Serialize)]
struct Line {
    address: dnd_contract::Addr,
    mt: dnd_contract::Addr,
    size: u64,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let Some(text) = call.args.operands().first() else {
        return Err(call.args.usage("needs a generation: gen0, gen1, gen2, loh, poh or foh"));
    };
    let wanted = generation_of_text(&call.args, text)?;
    let runtime = call.runtime();
    let table = call.args.addr("mt")?.map(|mt| method_table(runtime, mt)).transpose()?;
    let part = call.args.word("type").map(str::to_owned);
    let heap = runtime.objects_heap()?;
    let mut known: FxHashMap<u64, bool> = FxHashMap::default();
    let mut tally = Tally::default();
    let mut objects = Vec::new();
    let damage = runtime.walk_all(&heap.segments, call.progress(), |segment, object| {
        if heap.generation_of(segment, object.address) != wanted {
            return ControlFlow::Continue(());
        }
        if let Some(part) = &part {
            let name = || display_name(runtime, object.table).contains(part);
            if !*known.entry(object.table).or_insert_with(name) {
                return ControlFlow::Continue(());
            }
        }
        match &table {
            Some(table) if table.address != object.table => {}
            Some(_) => objects.push(Line {
                address: dnd_contract::Addr(object.address),
                mt: dnd_contract::Addr(object.table),
                size: object.size,
            }),
            None => tally.add(object.table, 1, object.size),
        }
        ControlFlow::Continue(())
    })?;
    let listed = table.is_some();
    let answer = Answer {
        generation: super::heap_stats::generation_name(wanted),
        statistics: (!listed).then(|| tally.lines(runtime, false)),
        objects: listed.then_some(objects),
    };
    damage_notes(call, &damage);
    call.emit("dumpgen", 1, &answer)?;
    finish(&damage)
}

impl Facts for Answer {
    fn text(&self, out: &mut Out<'_>) {
        let mut count = 0;
        if let Some(objects) = &self.objects {
            out.line("         Address               MT     Size");
            for object in objects {
                out.fmt(format_args!("{:016x} {:016x} {:8}\n", object.address.0, object.mt.0, object.size));
            }
            count = objects.len() as u64;
        }
        if let Some(statistics) = &self.statistics {
            out.line("Statistics:\n              MT    Count    TotalSize Class Name");
            for line in &statistics.types {
                out.fmt(format_args!("{:016x} {:8} {:12} ", line.mt.0, line.count, line.bytes));
                out.name(&line.name);
                out.end();
            }
            count = statistics.total_count;
        }
        out.fmt(format_args!("Total {count} objects\n"));
    }
}
