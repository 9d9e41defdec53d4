//! Counters that .NET itself and this program have: what `dnd counters list` shows without a process to ask.
//!
//! Names and units are those that real processes of 3.1, 8, 9 and 10 sent.

use std::io::{self, Write};

use serde::Serialize;

use crate::os;
use crate::selection::{SYSTEM_RUNTIME, also_shown};

/// A counter that `--counters` can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Its provider.
    pub provider: &'static str,
    /// Its name.
    pub name: &'static str,
    /// `event-counter`, `meter` or `system` (the operating system), as in samples.
    pub source: &'static str,
    /// The unit, empty for a plain number.
    pub unit: &'static str,
    /// The first of the versions 3.1, 8, 9 and 10 that has it; `None` for `system`.
    pub since: Option<&'static str>,
    /// Counters that asking for this one shows too: what took its place in another version.
    pub also_shows: Vec<&'static str>,
    /// What it is; empty where the name says it.
    pub description: &'static str,
}

/// Provider, source, first version, and name with unit of each.
type Group = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const EVENT_COUNTER: &str = "event-counter";
const METER: &str = "meter";

const GROUPS: [Group; 9] = [
    (
        SYSTEM_RUNTIME,
        EVENT_COUNTER,
        "3.1",
        &[
            ("cpu-usage", "%"),
            ("working-set", "MB"),
            ("gc-heap-size", "MB"),
            ("gen-0-gc-count", ""),
            ("gen-1-gc-count", ""),
            ("gen-2-gc-count", ""),
            ("gen-0-size", "B"),
            ("gen-1-size", "B"),
            ("gen-2-size", "B"),
            ("loh-size", "B"),
            ("alloc-rate", "B"),
            ("time-in-gc", "%"),
            ("exception-count", ""),
            ("threadpool-thread-count", ""),
            ("threadpool-queue-length", ""),
            ("threadpool-completed-items-count", ""),
            ("monitor-lock-contention-count", ""),
            ("active-timer-count", ""),
            ("assembly-count", ""),
        ],
    ),
    (
        SYSTEM_RUNTIME,
        EVENT_COUNTER,
        "8",
        &[
            ("poh-size", "B"),
            ("gen-0-gc-budget", "MB"),
            ("gc-fragmentation", "%"),
            ("gc-committed", "MB"),
            ("total-pause-time-by-gc", "ms"),
            ("il-bytes-jitted", "B"),
            ("methods-jitted-count", ""),
            ("time-in-jit", "ms"),
        ],
    ),
    (
        SYSTEM_RUNTIME,
        METER,
        "9",
        &[
            ("dotnet.process.cpu.time", "s"),
            ("dotnet.process.cpu.count", "{cpu}"),
            ("dotnet.process.memory.working_set", "By"),
            ("dotnet.gc.collections", "{collection}"),
            ("dotnet.gc.heap.total_allocated", "By"),
            ("dotnet.gc.last_collection.heap.size", "By"),
            ("dotnet.gc.last_collection.heap.fragmentation.size", "By"),
            ("dotnet.gc.last_collection.memory.committed_size", "By"),
            ("dotnet.gc.pause.time", "s"),
            ("dotnet.exceptions", "{exception}"),
            ("dotnet.thread_pool.thread.count", "{thread}"),
            ("dotnet.thread_pool.queue.length", "{work_item}"),
            ("dotnet.thread_pool.work_item.count", "{work_item}"),
            ("dotnet.monitor.lock_contentions", "{contention}"),
            ("dotnet.timer.count", "{timer}"),
            ("dotnet.assembly.count", "{assembly}"),
            ("dotnet.jit.compiled_il.size", "By"),
            ("dotnet.jit.compiled_methods", "{method}"),
            ("dotnet.jit.compilation.time", "s"),
        ],
    ),
    (
        "Microsoft.AspNetCore.Hosting",
        EVENT_COUNTER,
        "3.1",
        &[
            ("requests-per-second", ""),
            ("total-requests", ""),
            ("current-requests", ""),
            ("failed-requests", ""),
        ],
    ),
    (
        "Microsoft.AspNetCore.Hosting",
        METER,
        "8",
        &[("http.server.active_requests", "{request}"), ("http.server.request.duration", "s")],
    ),
    (
        "Microsoft-AspNetCore-Server-Kestrel",
        EVENT_COUNTER,
        "8",
        &[
            ("connections-per-second", ""),
            ("total-connections", ""),
            ("current-connections", ""),
            ("connection-queue-length", ""),
            ("request-queue-length", ""),
            ("current-upgraded-requests", ""),
            ("tls-handshakes-per-second", ""),
            ("total-tls-handshakes", ""),
            ("current-tls-handshakes", ""),
            ("failed-tls-handshakes", ""),
        ],
    ),
    (
        "Microsoft.AspNetCore.Server.Kestrel",
        METER,
        "8",
        &[
            ("kestrel.active_connections", "{connection}"),
            ("kestrel.connection.duration", "s"),
            ("kestrel.queued_connections", "{connection}"),
        ],
    ),
    ("Microsoft.AspNetCore.Routing", METER, "8", &[("aspnetcore.routing.match_attempts", "{match_attempt}")]),
    (
        "System.Net.Sockets",
        EVENT_COUNTER,
        "8",
        &[
            ("outgoing-connections-established", ""),
            ("incoming-connections-established", ""),
            ("current-outgoing-connect-attempts", ""),
            ("bytes-received", ""),
            ("bytes-sent", ""),
            ("datagrams-received", ""),
            ("datagrams-sent", ""),
        ],
    ),
];

/// All of them, those of a provider one after the other.
#[must_use]
pub fn known() -> Vec<Known> {
    let system = os::COUNTERS.iter().map(|&(provider, name, unit, _, description)| Known {
        provider,
        name,
        source: "system",
        unit,
        since: None,
        also_shows: Vec::new(),
        description,
    });
    let runtime = GROUPS.iter().flat_map(|&(provider, source, since, counters)| {
        counters.iter().map(move |&(name, unit)| Known {
            provider,
            name,
            source,
            unit,
            since: Some(since),
            also_shows: if provider == SYSTEM_RUNTIME { also_shown(name).collect() } else { Vec::new() },
            description: "",
        })
    });
    runtime.chain(system).collect()
}

/// A table for each provider and source.
///
/// # Errors
///
/// Those of `out`.
pub fn write_known(out: &mut dyn Write, known: &[Known]) -> io::Result<()> {
    let name = known.iter().map(|counter| counter.name.len()).max().unwrap_or(0);
    let unit = known.iter().map(|counter| counter.unit.len()).max().unwrap_or(0);
    let groups = known.chunk_by(|a, b| (a.provider, a.source, a.since) == (b.provider, b.source, b.since));
    for (index, group) in groups.enumerate() {
        let Some(first) = group.first() else { continue };
        let blank = if index == 0 { "" } else { "\n" };
        let what = match (first.source, first.since) {
            (EVENT_COUNTER, Some(since)) => format!("EventCounters, .NET {since} and later"),
            (METER, Some(since)) => format!("Meter, .NET {since} and later"),
            _ => "from the operating system".to_owned(),
        };
        writeln!(out, "{blank}[{}]  {what}", first.provider)?;
        for counter in group {
            let more = match counter.also_shows.as_slice() {
                [] => counter.description.to_owned(),
                same => format!("also shows {}", same.join(", ")),
            };
            let line = format!("    {:<name$}  {:<unit$}  {more}", counter.name, counter.unit);
            writeln!(out, "{}", line.trim_end())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Selection;

    #[test]
    fn what_is_listed_can_be_asked_for() {
        let known = known();
        for counter in &known {
            let asked = Selection::parse(&format!("{}[{}]", counter.provider, counter.name)).unwrap();
            let found = match counter.source {
                EVENT_COUNTER => asked.includes_event_counter(counter.provider, counter.name),
                METER => asked.includes_instrument(counter.provider, counter.name),
                _ => asked.includes_system(counter.provider, counter.name),
            };
            assert!(found, "{counter:?}");
            for other in &counter.also_shows {
                assert!(
                    known.iter().any(|k| k.name == *other && k.also_shows.contains(&counter.name)),
                    "{other}"
                );
            }
        }
        let mut names: Vec<_> = known.iter().map(|k| (k.provider, k.name)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), known.len());
    }

    #[test]
    fn a_table() {
        let mut text = Vec::new();
        write_known(&mut text, &known()).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.starts_with("[System.Runtime]  EventCounters, .NET 3.1 and later\n    cpu-usage "),
            "{text}"
        );
        let line = text.lines().find(|line| line.trim_start().starts_with("gc-heap-size ")).unwrap();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["gc-heap-size", "MB", "also", "shows", "dotnet.gc.last_collection.heap.size"]
        );
        assert!(text.contains("\n\n[OS]  from the operating system\n"), "{text}");
    }
}
