//! Managed threads.
//!
//! Source: `src/coreclr/vm/threads.h` (`Thread`, `ThreadStore`), `vm/exstate.h` (`ThreadExceptionState`).

use std::collections::HashSet;

use dnd_memory::Memory;

use crate::error::{Error, Reading};
use crate::layout::{AllocAt, Globals, Layout, ThreadLayout};

/// More threads than a process can have.
const MAX_THREADS: usize = 1 << 20;

/// State bits that decide what a tool says of a thread (`ThreadState` in threads.h).
pub mod state {
    /// Ended.
    pub const DEAD: u32 = 0x800;
    /// A worker of the thread pool.
    pub const THREAD_POOL_WORKER: u32 = 0x0100_0000;
}

/// A managed thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thread {
    /// Address of the `Thread`.
    pub address: u64,
    /// Managed thread id.
    pub id: u32,
    /// Operating system thread id in the target's own pid namespace; 0 when it has none any more.
    pub os_id: u32,
    /// State bits.
    pub state: u32,
    /// In cooperative mode: running managed code, or in a part of the runtime that holds off the GC.
    pub cooperative: bool,
    /// First explicit frame; `u64::MAX` for none.
    pub frame: u64,
    /// `AppDomain*`.
    pub app_domain: u64,
    /// Next byte that it allocates, 0 for none.
    pub alloc_pointer: u64,
    /// End of its allocation context.
    pub alloc_limit: u64,
    /// Highest address of its stack.
    pub stack_base: u64,
    /// Lowest address of its stack.
    pub stack_limit: u64,
    /// The managed `Thread` object, 0 for none.
    pub object: u64,
    /// The exception that it threw last, 0 for none.
    pub last_thrown: u64,
    /// Exceptions being handled, innermost first.
    pub exceptions: [u64; 4],
    /// `ThreadLocalData*`, where thread statics are (9 and later), 0 for none.
    pub thread_local_data: u64,
    /// Lock count, where the runtime keeps one (3.1).
    pub lock_count: Option<u32>,
}

/// Numbers that the thread store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct ThreadCounts {
    /// All managed threads.
    pub total: u32,
    /// Created, not started.
    pub unstarted: u32,
    /// Background threads.
    pub background: u32,
    /// Started, not running yet.
    pub pending: u32,
    /// Ended, not collected yet.
    pub dead: u32,
}

/// The managed threads of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Threads {
    /// In the order of the thread store.
    pub threads: Vec<Thread>,
    /// The store's own counts.
    pub counts: ThreadCounts,
    /// `Thread*` of the finalizer thread.
    pub finalizer: u64,
    /// `Thread*` of the thread that suspends the others for a GC, 0 for none.
    pub suspender: u64,
}

/// Reads the thread store.
pub(crate) fn read(memory: &dyn Memory, layout: &Layout, globals: &Globals<u64>) -> Result<Threads, Error> {
    let l = &layout.thread;
    let store = memory.u64(globals.thread_store).reading("the pointer to the thread store")?;
    let count = |i: u64| memory.u32(store.wrapping_add(l.counts + 4 * i)).unwrap_or(0);
    let mut out = Threads {
        threads: Vec::new(),
        counts: ThreadCounts {
            total: memory.u32(store.wrapping_add(l.total)).unwrap_or(0),
            unstarted: count(0),
            background: count(1),
            pending: count(2),
            dead: count(3),
        },
        finalizer: memory.u64(globals.finalizer_thread).unwrap_or(0),
        suspender: memory.u64(globals.suspension_thread).unwrap_or(0),
    };
    let domain = memory.u64(globals.app_domain).unwrap_or(0);
    let mut seen = HashSet::new();
    let mut link = memory.u64(store.wrapping_add(l.first_link)).reading("the thread store")?;
    while link != 0 && seen.insert(link) && out.threads.len() < MAX_THREADS {
        out.threads.push(read_thread(memory, l, link.wrapping_sub(l.link), domain)?);
        link = memory.u64(link).reading("a thread")?;
    }
    Ok(out)
}

fn read_thread(memory: &dyn Memory, l: &ThreadLayout, address: u64, domain: u64) -> Result<Thread, Error> {
    let word = |offset: u64| memory.u64(address.wrapping_add(offset)).reading("a thread");
    let half = |offset: u64| memory.u32(address.wrapping_add(offset)).reading("a thread");
    let alloc = match l.alloc {
        AllocAt::Inline(offset) => address.wrapping_add(offset),
        AllocAt::Behind(pointer, offset) => match word(pointer)? {
            0 => 0,
            locals => locals.wrapping_add(offset),
        },
    };
    let context =
        |offset: u64| if alloc == 0 { 0 } else { memory.u64(alloc.wrapping_add(offset)).unwrap_or(0) };
    // A handle that was never made, or whose page is missing, is "no object".
    let behind = |handle: u64| if handle == 0 { 0 } else { memory.u64(handle).unwrap_or(0) };
    let mut exceptions = [0; 4];
    let mut tracker = word(l.exception_tracker)?;
    for slot in &mut exceptions {
        if tracker == 0 {
            break;
        }
        *slot = behind(memory.u64(tracker.wrapping_add(l.tracker_thrown)).unwrap_or(0));
        tracker = memory.u64(tracker.wrapping_add(l.tracker_previous)).unwrap_or(0);
    }
    Ok(Thread {
        address,
        id: half(l.id)?,
        os_id: half(l.os_id)?,
        state: half(l.state)?,
        cooperative: half(l.preemptive_disabled)? != 0,
        frame: word(l.frame)?,
        app_domain: l.app_domain.map_or(Ok(domain), word)?,
        alloc_pointer: context(0),
        alloc_limit: context(8),
        stack_base: word(l.stack_base)?,
        stack_limit: word(l.stack_base + 8)?,
        // The low bit of a handle marks special ones.
        object: behind(word(l.exposed_object)? & !1),
        last_thrown: behind(word(l.last_thrown)? & !1),
        exceptions,
        thread_local_data: l.thread_local_data.map_or(Ok(0), word)?,
        lock_count: l.lock_count.map(half).transpose()?,
    })
}

/// Objects that thread statics of 9 and later hold, which nothing else points to.
///
/// Source: `src/coreclr/vm/threadstatics.h` (`ThreadLocalData`). Before 9 thread statics are reached through handles.
pub(crate) fn thread_static_roots(memory: &dyn Memory, thread: &Thread) -> Vec<(u64, u64)> {
    let at = thread.thread_local_data;
    let mut roots = Vec::new();
    if at == 0 {
        return roots;
    }
    let mut push = |place: u64| match memory.u64(place) {
        Ok(object) if object != 0 => roots.push((place, object)),
        _ => {}
    };
    push(at.wrapping_add(8));
    let collectible = memory.u32(at.wrapping_add(4)).unwrap_or(0);
    let handles = memory.u64(at.wrapping_add(16)).unwrap_or(0);
    if handles != 0 {
        for i in 0..u64::from(collectible.min(1 << 20)) {
            match memory.u64(handles.wrapping_add(8 * i)) {
                Ok(handle) if handle != 0 => push(handle),
                _ => {}
            }
        }
    }
    // Statics whose memory was just made and is not in the array yet.
    let mut flight = memory.u64(at.wrapping_add(32)).unwrap_or(0);
    for _ in 0..1 << 16 {
        if flight == 0 {
            break;
        }
        push(flight.wrapping_add(16));
        flight = memory.u64(flight).unwrap_or(0);
    }
    roots
}
