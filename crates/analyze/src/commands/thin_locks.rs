//! `dumpheap -thinlock`: objects locked by a thin lock.

use std::ops::ControlFlow;

use dnd_clr::{Object, Segment};
use dnd_contract::Addr;
use serde::Serialize;

use super::dumpheap::{damage_notes, finish};
use crate::error::Error;
use crate::inspect::{display_name, thin_lock};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};

#[derive(Debug, Serialize)]
struct Locks {
    locks: Vec<Lock>,
}

#[derive(Debug, Serialize)]
struct Lock {
    object: Addr,
    #[serde(rename = "type")]
    type_name: String,
    /// Managed id of the thread that holds it.
    thread_id: u32,
    /// The runtime's `Thread`; null when no thread has that id any more.
    thread: Option<Addr>,
    os_id: Option<u32>,
    /// How often the thread took it again.
    recursion: u32,
}

/// Lists the locked objects among those that are `wanted`.
pub(super) fn list(
    call: &mut Call<'_, '_>,
    segments: &[Segment],
    mut wanted: impl FnMut(&Object) -> bool,
) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let threads = runtime.threads()?;
    let mut locks = Vec::new();
    let damage = runtime.walk_all(segments, call.progress(), |_, object| {
        if let Some((thread_id, recursion)) = thin_lock(runtime, object.address)
            && wanted(&object)
        {
            let thread = threads.threads.iter().find(|thread| thread.id == thread_id);
            locks.push(Lock {
                object: Addr(object.address),
                type_name: display_name(runtime, object.table),
                thread_id,
                thread: thread.map(|thread| Addr(thread.address)),
                os_id: thread.map(|thread| thread.os_id),
                recursion,
            });
        }
        ControlFlow::Continue(())
    })?;
    damage_notes(call, &damage);
    call.emit("dumpheap-thinlock", 1, &Locks { locks })?;
    finish(&damage)
}

impl Facts for Locks {
    fn text(&self, out: &mut Out<'_>) {
        out.line("          Object           Thread     OSId Recursion Type");
        for lock in &self.locks {
            out.addr(lock.object.0);
            out.blanks(1);
            out.addr(lock.thread.unwrap_or_default().0);
            out.fmt(format_args!(" {:>8x} {:>9} ", lock.os_id.unwrap_or(0), lock.recursion));
            out.name(&lock.type_name);
            out.end();
        }
    }
}
