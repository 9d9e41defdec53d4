//! `objsize`.

use super::listing::{Listing, Show};
use crate::args::Opt;
use crate::error::Error;
use crate::inspect::{self, display_name};
use crate::session::{Call, Flow, Format};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["objsize", "ObjSize"],
    operands: "<address>",
    max_operands: 1,
    options: &[
        Opt::flag(&["stat", "summary"], "Only the statistics."),
        Opt::flag(&["short"], "Only addresses, one a line."),
        Opt::word(&["mt"], "mt", "Only objects of the type with this method table."),
    ],
    summary: "Lists what an object keeps alive: itself, and all that its references lead to.",
    about: "Other objects may keep some of these alive as well: freeing the object frees at most this much. Second \
            objects of dependent handles (ConditionalWeakTable) are counted with their first ones.",
    run,
};

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let address = call.args.required_addr(0, "the address of an object")?;
    let runtime = call.runtime();
    let object = inspect::object(runtime, address)?;
    let wanted = call.args.addr("mt")?;
    let show = Show::of(call);
    let progress = call.progress();
    let objects = runtime.closure_of(address, progress, |reached| reached.objects.clone())?;
    let mut listing = Listing::begin(call, "objsize", 1, show);
    match (call.format, show) {
        (_, Show::Addresses) => {}
        (Format::Text, _) => {
            let name = display_name(runtime, object.table);
            call.out.fmt(format_args!("Objects which {address:x} ("));
            call.out.name(&name);
            call.out.line(") transitively keep alive:");
            call.out.end();
        }
        (Format::Json, _) => call.json_field("object", &dnd_contract::Addr(address))?,
    }
    let mut broken = 0u64;
    for (number, &address) in objects.iter().enumerate() {
        match runtime.object(address) {
            Ok(object) if wanted.is_none_or(|table| table == object.table) => {
                listing.row(&mut call.out, &object);
            }
            Ok(_) => {}
            Err(_) => broken += 1,
        }
        if number % 4096 == 0 {
            call.out.check()?;
            call.cancelled()?;
        }
    }
    if broken > 0 {
        call.note(format!("{broken} references lead to what is no object in this dump"));
    }
    listing.end(call, false)?;
    Ok(Flow::Next)
}
