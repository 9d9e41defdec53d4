//! The thread pool's queues, and timers.
//!
//! Source: `ThreadPoolWorkQueue.cs`, `PortableThreadPool*.cs`, `Timer.cs` of System.Private.CoreLib 3.1 to 10.0.

use std::ops::ControlFlow;

use dnd_clr::{Damage, Object, Runtime};
use rustc_hash::FxHashMap;

use crate::collections;
use crate::delegates;
use crate::error::Error;
use crate::managed::{Managed, Place};
use crate::session::Call;
use crate::tasks::{self, Kind, Kinds};

/// Timers of one queue.
const MAX_TIMERS: usize = 1 << 20;

/// The objects of some types, in the order of the heap.
pub(crate) fn instances(
    call: &Call<'_, '_>,
    managed: &mut Managed<'_>,
    wanted: impl Fn(&str) -> bool,
) -> Result<(Vec<Object>, Damage), Error> {
    let runtime = call.runtime();
    let mut known: FxHashMap<u64, bool> = FxHashMap::default();
    let mut found = Vec::new();
    let segments = &runtime.objects_heap()?.segments;
    let damage = runtime.walk_all(segments, call.progress(), |_, object| {
        if *known.entry(object.table).or_insert_with(|| wanted(&managed.name(object.table))) {
            found.push(object);
        }
        ControlFlow::Continue(())
    })?;
    Ok((found, damage))
}

/// Which queue a work item is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Queue {
    /// Of all threads, before all others.
    GlobalHighPriority,
    /// Of all threads.
    Global,
    /// Of one thread, which the others may take from.
    Local,
}

/// Work that waits for a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkItem {
    pub(crate) queue: Queue,
    pub(crate) item: Object,
    /// It is a task.
    pub(crate) task: bool,
    /// What it will run: `MethodDesc*`.
    pub(crate) method: Option<u64>,
    /// State machine that it will go on with.
    pub(crate) machine: Option<u64>,
}

/// What is queued; `None` in a queue's place when its insides are not in the dump.
pub(crate) fn work_items(
    runtime: &Runtime<'_>,
    managed: &mut Managed<'_>,
    queues: &[Object],
) -> (Vec<WorkItem>, usize) {
    let mut kinds = Kinds::default();
    let (mut items, mut unreadable) = (Vec::new(), 0);
    for queue in queues {
        if managed.name(queue.table).ends_with("+WorkStealingQueue") {
            let Some(local) = stealing(runtime, managed, queue) else {
                unreadable += 1;
                continue;
            };
            items.extend(
                local.into_iter().map(|item| describe(runtime, managed, &mut kinds, Queue::Local, item)),
            );
            continue;
        }
        let place = Place::of(queue);
        for field in managed.fields(queue.table).iter().filter(|field| field.element.is_reference()) {
            let reference = runtime.target().u64(place.data.wrapping_add(field.offset.into())).unwrap_or(0);
            let Some(found) = managed.object(reference) else { continue };
            let priority = if field.name.contains("igh") { Queue::GlobalHighPriority } else { Queue::Global };
            for queue in one_or_many(runtime, managed, found) {
                let Some(slots) = collections::queue(runtime, managed, &queue) else {
                    unreadable += 1;
                    continue;
                };
                for slot in slots {
                    let reference = runtime.target().u64(slot.address).unwrap_or(0);
                    if let Some(item) = managed.object(reference) {
                        items.push(describe(runtime, managed, &mut kinds, priority, item));
                    }
                }
            }
        }
    }
    items.sort_by_key(|item| item.queue as u8);
    (items, unreadable)
}

/// A queue, or those in an array of queues; nothing for what is neither.
fn one_or_many(runtime: &Runtime<'_>, managed: &mut Managed<'_>, found: Object) -> Vec<Object> {
    let is_queue = |managed: &mut Managed<'_>, object: &Object| {
        managed.name(object.table).starts_with("System.Collections.Concurrent.ConcurrentQueue<System.Object>")
    };
    match managed.vector(&found) {
        Some(vector) if is_queue(managed, &found) => (0..vector.count)
            .filter_map(|index| managed.object(runtime.target().u64(vector.element(index).data).ok()?))
            .collect(),
        None if is_queue(managed, &found) => vec![found],
        _ => Vec::new(),
    }
}

/// The items of a thread's own queue, the next to be taken by others first.
fn stealing(runtime: &Runtime<'_>, managed: &mut Managed<'_>, queue: &Object) -> Option<Vec<Object>> {
    let place = Place::of(queue);
    let head = managed.number(place, &["m_headIndex", "_headIndex"])?;
    let tail = managed.number(place, &["m_tailIndex", "_tailIndex"])?;
    let array = managed.follow(place, &["m_array", "_array"])?;
    let vector = managed.vector(&array)?;
    let count = tail.wrapping_sub(head).clamp(0, vector.count.into());
    let item = |number: i64| {
        // The length is a power of two.
        let index = head.wrapping_add(number) & (i64::from(vector.count) - 1);
        let index = u32::try_from(index).ok()?;
        managed.object(runtime.target().u64(vector.element(index).data).ok()?)
    };
    Some((0..count).filter_map(item).collect())
}

fn describe(
    runtime: &Runtime<'_>,
    managed: &mut Managed<'_>,
    kinds: &mut Kinds,
    queue: Queue,
    item: Object,
) -> WorkItem {
    let place = Place::of(&item);
    let kind = kinds.of(managed, item.table);
    let machine = match kind {
        Some(Kind::Box | Kind::PooledBox) => {
            tasks::state_machine(managed, &item).map(|machine| machine.table)
        }
        _ => None,
    };
    let names = ["m_action", "_action", "_callback", "_timerCallback", "m_timerCallback", "_continuation"];
    let delegate = managed.follow(place, &names);
    let method = delegate.and_then(|delegate| {
        delegates::calls(runtime, managed, &delegate).first().and_then(|call| call.method)
    });
    WorkItem { queue, item, task: matches!(kind, Some(Kind::Task | Kind::Box)), method, machine }
}

/// A timer that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timer {
    pub(crate) timer: u64,
    /// It stands in the list of those that are due soon.
    pub(crate) short: bool,
    /// Milliseconds after it was set.
    pub(crate) due: u32,
    /// Milliseconds between its calls; `None` for a single one.
    pub(crate) period: Option<u32>,
    /// The object that its callback is given, 0 for none.
    pub(crate) state: u64,
    /// `MethodDesc*` of its callback.
    pub(crate) method: Option<u64>,
}

/// The timers in a `TimerQueue`; `None` when they are not in the dump.
pub(crate) fn timers(runtime: &Runtime<'_>, managed: &mut Managed<'_>, queue: &Object) -> Option<Vec<Timer>> {
    let mut timers = Vec::new();
    for (names, short) in
        [(["_shortTimers", "m_shortTimers"], true), (["_longTimers", "m_longTimers"], false)]
    {
        let mut at = managed.reference(Place::of(queue), &names)?;
        while at != 0 && timers.len() < MAX_TIMERS {
            let timer = managed.object(at)?;
            let place = Place::of(&timer);
            let mut number = |names: &[&str]| {
                managed.number(place, names).and_then(|number| u32::try_from(number & 0xffff_ffff).ok())
            };
            let due = number(&["_dueTime", "m_dueTime"])?;
            let period = number(&["_period", "m_period"])?;
            let state = managed.reference(place, &["_state", "m_state"]).unwrap_or(0);
            let callback = managed.follow(place, &["_timerCallback", "m_timerCallback"]);
            let method = callback.and_then(|callback| {
                delegates::calls(runtime, managed, &callback).first().and_then(|call| call.method)
            });
            timers.push(Timer {
                timer: at,
                short,
                due,
                period: (period != u32::MAX).then_some(period),
                state,
                method,
            });
            at = managed.reference(place, &["_next", "m_next"])?;
        }
    }
    Some(timers)
}

/// The numbers of the thread pool that is written in C# (6 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct PoolNumbers {
    /// Percent.
    pub(crate) cpu_utilization: i64,
    /// Threads that do work.
    pub(crate) running: u64,
    /// Threads.
    pub(crate) total: u64,
    /// Threads that it aims at.
    pub(crate) goal: u64,
    /// Least and most threads.
    pub(crate) min: i64,
    pub(crate) max: i64,
}

/// Reads them from the `PortableThreadPool`.
pub(crate) fn numbers(managed: &mut Managed<'_>, pool: &Object) -> Option<PoolNumbers> {
    let place = Place::of(pool);
    let separated = managed.inside(place, &["_separated"])?;
    let counts = managed.inside(separated, &["counts", "_counts"])?;
    let data = managed.number(counts, &["_data"])?.cast_unsigned();
    Some(PoolNumbers {
        cpu_utilization: managed.number(place, &["_cpuUtilization"])?,
        running: data & 0xffff,
        total: data >> 16 & 0xffff,
        goal: data >> 32 & 0xffff,
        min: managed.number(place, &["_minThreads"])?,
        max: managed.number(place, &["_maxThreads"])?,
    })
}
