//! Which counters to watch: the `--counters` list.
//!
//! The grammar is that of dotnet-counters: `provider`, `provider[counter1,counter2]`, separated by commas, and
//! `EventCounters\provider` for one whose Meters are not wanted. Added to it: the name of a well-known counter alone, of
//! `System.Runtime` in its old or its new spelling, such as `gc-heap-size`, or of the operating system, such as `rss`.

use crate::error::{Error, SelectionError};
use crate::os::{COUNTERS, PROVIDERS};

/// The provider that every process has.
pub const SYSTEM_RUNTIME: &str = "System.Runtime";

/// The prefix that leaves Meters out.
pub(crate) const EVENT_COUNTERS: &str = "EventCounters\\";

/// EventCounters of `System.Runtime`, and the instruments of its Meter (.NET 9 and later) that took their place.
/// Either name finds both.
const SAME: [(&str, &[&str]); 25] = [
    ("cpu-usage", &["dotnet.process.cpu.time", "dotnet.process.cpu.count"]),
    ("working-set", &["dotnet.process.memory.working_set"]),
    ("gc-heap-size", &["dotnet.gc.last_collection.heap.size"]),
    ("gen-0-gc-count", &["dotnet.gc.collections"]),
    ("gen-1-gc-count", &["dotnet.gc.collections"]),
    ("gen-2-gc-count", &["dotnet.gc.collections"]),
    ("gen-0-size", &["dotnet.gc.last_collection.heap.size"]),
    ("gen-1-size", &["dotnet.gc.last_collection.heap.size"]),
    ("gen-2-size", &["dotnet.gc.last_collection.heap.size"]),
    ("loh-size", &["dotnet.gc.last_collection.heap.size"]),
    ("poh-size", &["dotnet.gc.last_collection.heap.size"]),
    ("alloc-rate", &["dotnet.gc.heap.total_allocated"]),
    ("time-in-gc", &["dotnet.gc.pause.time"]),
    ("gc-fragmentation", &["dotnet.gc.last_collection.heap.fragmentation.size"]),
    ("gc-committed", &["dotnet.gc.last_collection.memory.committed_size"]),
    ("exception-count", &["dotnet.exceptions"]),
    ("threadpool-thread-count", &["dotnet.thread_pool.thread.count"]),
    ("threadpool-queue-length", &["dotnet.thread_pool.queue.length"]),
    ("threadpool-completed-items-count", &["dotnet.thread_pool.work_item.count"]),
    ("monitor-lock-contention-count", &["dotnet.monitor.lock_contentions"]),
    ("active-timer-count", &["dotnet.timer.count"]),
    ("assembly-count", &["dotnet.assembly.count"]),
    ("il-bytes-jitted", &["dotnet.jit.compiled_il.size"]),
    ("methods-jitted-count", &["dotnet.jit.compiled_methods"]),
    ("time-in-jit", &["dotnet.jit.compilation.time"]),
];

/// The EventCounter of `System.Runtime` that is shown beside its Meter: the size of the heap now. The Meter only has
/// the size at the last collection, per generation, and nothing before the first one.
pub(crate) const KEPT_BESIDE_METER: &str = "gc-heap-size";

/// Whether a counter of that name is what `wanted` means.
fn same(wanted: &str, name: &str) -> bool {
    wanted == name
        || SAME.iter().any(|(old, new)| {
            (*old == wanted && new.contains(&name)) || (*old == name && new.contains(&wanted))
        })
}

/// Other names of a counter of `System.Runtime`, by which a user may search for it.
pub(crate) fn other_names(name: &str) -> impl Iterator<Item = &'static str> {
    SAME.iter().filter_map(move |(old, new)| if new.contains(&name) { Some(*old) } else { None })
}

/// What else is shown when a counter of `System.Runtime` is asked for.
pub(crate) fn also_shown(name: &str) -> impl Iterator<Item = &'static str> {
    let new = SAME.iter().filter(move |(old, _)| *old == name).flat_map(|(_, new)| new.iter().copied());
    new.chain(other_names(name))
}

/// The provider of a well-known counter.
pub(crate) fn provider_of(name: &str) -> Option<&'static str> {
    if SAME.iter().any(|(old, new)| *old == name || new.contains(&name)) {
        return Some(SYSTEM_RUNTIME);
    }
    COUNTERS.iter().find(|(_, counter, ..)| *counter == name).map(|(provider, ..)| *provider)
}

/// Whether it is an EventCounter of `System.Runtime`: the instruments of its Meter begin with `dotnet.`.
fn is_old_runtime(provider: &str, name: &str) -> bool {
    provider.eq_ignore_ascii_case(SYSTEM_RUNTIME) && !name.starts_with("dotnet.")
}

/// One provider of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// Only EventCounters, no Meter.
    pub event_counters_only: bool,
    /// Names of its counters; empty for all.
    pub counters: Vec<String>,
}

impl Provider {
    /// Whether it is read from the operating system and not from the runtime.
    fn is_system(&self) -> bool {
        !self.event_counters_only && PROVIDERS.iter().any(|name| self.name.eq_ignore_ascii_case(name))
    }

    fn includes(&self, counter: &str) -> bool {
        let alias = self.name.eq_ignore_ascii_case(SYSTEM_RUNTIME);
        self.counters.is_empty()
            || self.counters.iter().any(|wanted| wanted == counter || alias && same(wanted, counter))
    }
}

/// Providers and counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    providers: Vec<Provider>,
    /// EventCounters of `System.Runtime` that are wanted beside its Meter.
    kept: Vec<String>,
}

impl Default for Selection {
    /// Everything of `System.Runtime` and of the operating system.
    fn default() -> Self {
        let all =
            |name: &str| Provider { name: name.to_owned(), event_counters_only: false, counters: Vec::new() };
        let names = std::iter::once(SYSTEM_RUNTIME).chain(PROVIDERS);
        Self { providers: names.map(all).collect(), kept: Vec::new() }
    }
}

impl Selection {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self { providers: Vec::new(), kept: Vec::new() }
    }

    /// Reads a `--counters` list.
    ///
    /// # Errors
    ///
    /// [`Error::Selection`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut selection = Self::empty();
        selection.read(text).map_err(|reason| Error::Selection { text: text.to_owned(), reason })?;
        Ok(selection)
    }

    fn read(&mut self, text: &str) -> Result<(), SelectionError> {
        let mut rest = text;
        loop {
            let end = rest.find(['[', ']', ',']).unwrap_or(rest.len());
            let (name, tail) = rest.split_at(end);
            let mut counters = Vec::new();
            rest = tail;
            if let Some(list) = tail.strip_prefix('[') {
                let (list, after) = list.split_once(']').ok_or(SelectionError::Unclosed)?;
                if list.contains('[') {
                    return Err(SelectionError::StrayBracket);
                }
                counters =
                    list.split(',').map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect();
                rest = after.trim_start();
                if !rest.is_empty() && !rest.starts_with(',') {
                    return Err(SelectionError::AfterClosing);
                }
            }
            self.add(name.trim(), counters)?;
            rest = match rest.strip_prefix(',') {
                Some(rest) => rest,
                None if rest.is_empty() => return Ok(()),
                None => return Err(SelectionError::StrayBracket),
            };
        }
    }

    fn add(&mut self, name: &str, mut counters: Vec<String>) -> Result<(), SelectionError> {
        let (event_counters_only, mut name) = match name.strip_prefix(EVENT_COUNTERS) {
            Some(name) => (true, name),
            None => (false, name),
        };
        if name.is_empty() {
            return Err(SelectionError::EmptyProvider);
        }
        if counters.is_empty()
            && let Some(provider) = provider_of(name)
        {
            counters.push(name.to_owned());
            name = provider;
        }
        let Some(same) = self.providers.iter_mut().find(|p| p.name == name) else {
            self.providers.push(Provider { name: name.to_owned(), event_counters_only, counters });
            return Ok(());
        };
        if same.event_counters_only != event_counters_only {
            return Err(SelectionError::MixedPrefix);
        }
        if counters.is_empty() || same.counters.is_empty() {
            same.counters.clear();
        } else {
            counters.retain(|counter| !same.counters.contains(counter));
            same.counters.append(&mut counters);
        }
        Ok(())
    }

    /// Adds a counter that must be watched, whatever else is. A provider that is there already stays as it is asked for.
    pub(crate) fn watch(&mut self, provider: &str, counter: &str, event_counters_only: bool) {
        let old = is_old_runtime(provider, counter);
        if old && !self.kept.iter().any(|kept| kept == counter) {
            self.kept.push(counter.to_owned());
        }
        match self.providers.iter_mut().find(|p| p.name.eq_ignore_ascii_case(provider)) {
            Some(there) => {
                if !there.counters.is_empty() && !there.counters.iter().any(|c| c == counter) {
                    there.counters.push(counter.to_owned());
                }
                // Only the Meter of System.Runtime has these.
                if provider.eq_ignore_ascii_case(SYSTEM_RUNTIME) && !old && !event_counters_only {
                    there.event_counters_only = false;
                }
            }
            None => self.providers.push(Provider {
                name: provider.to_owned(),
                event_counters_only: event_counters_only || old,
                counters: vec![counter.to_owned()],
            }),
        }
    }

    /// Whether an EventCounter is wanted although a Meter of the same name reports.
    pub(crate) fn keeps(&self, provider: &str, counter: &str) -> bool {
        provider.eq_ignore_ascii_case(SYSTEM_RUNTIME)
            && (counter == KEPT_BESIDE_METER || self.kept.iter().any(|kept| kept == counter))
    }

    /// The providers to ask the runtime for, in the order given.
    pub fn providers(&self) -> impl Iterator<Item = &Provider> {
        self.providers.iter().filter(|p| !p.is_system())
    }

    /// Whether a counter of the operating system is wanted.
    #[must_use]
    pub fn includes_system(&self, provider: &str, counter: &str) -> bool {
        self.providers
            .iter()
            .any(|p| p.is_system() && p.name.eq_ignore_ascii_case(provider) && p.includes(counter))
    }

    /// Whether an EventCounter is wanted.
    #[must_use]
    pub fn includes_event_counter(&self, provider: &str, counter: &str) -> bool {
        self.providers.iter().any(|p| p.name.eq_ignore_ascii_case(provider) && p.includes(counter))
    }

    /// Whether a Meter's instrument is wanted.
    #[must_use]
    pub fn includes_instrument(&self, meter: &str, instrument: &str) -> bool {
        let matches = |p: &&Provider| !p.event_counters_only && p.name.eq_ignore_ascii_case(meter);
        self.providers.iter().filter(matches).any(|p| p.includes(instrument))
    }

    /// The Meters to ask for.
    pub(crate) fn meters(&self) -> impl Iterator<Item = &str> {
        self.providers().filter(|p| !p.event_counters_only).map(|p| p.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, bool, Vec<String>)> {
        let selection = Selection::parse(text).unwrap();
        selection.providers.into_iter().map(|p| (p.name, p.event_counters_only, p.counters)).collect()
    }

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    #[test]
    fn the_grammar_of_the_peers() {
        assert_eq!(
            names("System.Runtime[cpu-usage, working-set],My.Meter , EventCounters\\Other[a]"),
            [
                ("System.Runtime".into(), false, list(&["cpu-usage", "working-set"])),
                ("My.Meter".into(), false, vec![]),
                ("Other".into(), true, list(&["a"])),
            ]
        );
        assert_eq!(names("A[x],A[y,x]"), [("A".into(), false, list(&["x", "y"]))]);
        assert_eq!(names("A[x],A"), [("A".into(), false, vec![])]);
        assert_eq!(names("A,A[x]"), [("A".into(), false, vec![])]);
        assert_eq!(names("A[]"), [("A".into(), false, vec![])]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let reason = |text| match Selection::parse(text) {
            Err(Error::Selection { reason, .. }) => reason,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(reason(""), SelectionError::EmptyProvider);
        assert_eq!(reason("A,,B"), SelectionError::EmptyProvider);
        assert_eq!(reason("A,"), SelectionError::EmptyProvider);
        assert_eq!(reason("[a]"), SelectionError::EmptyProvider);
        assert_eq!(reason("A[a"), SelectionError::Unclosed);
        assert_eq!(reason("A[a]b"), SelectionError::AfterClosing);
        assert_eq!(reason("A[a][b]"), SelectionError::AfterClosing);
        assert_eq!(reason("A[a[b]]"), SelectionError::StrayBracket);
        assert_eq!(reason("A]"), SelectionError::StrayBracket);
        assert_eq!(reason("A,EventCounters\\A"), SelectionError::MixedPrefix);
        assert_eq!(reason("EventCounters\\"), SelectionError::EmptyProvider);
    }

    #[test]
    fn old_and_new_names_find_each_other() {
        for text in ["gc-heap-size", "System.Runtime[gc-heap-size]", "dotnet.gc.last_collection.heap.size"] {
            let selection = Selection::parse(text).unwrap();
            assert!(selection.includes_event_counter("System.Runtime", "gc-heap-size"), "{text}");
            assert!(
                selection.includes_instrument("System.Runtime", "dotnet.gc.last_collection.heap.size"),
                "{text}"
            );
            assert!(!selection.includes_event_counter("System.Runtime", "working-set"), "{text}");
            assert!(!selection.includes_event_counter("Other", "gc-heap-size"), "{text}");
        }
        assert!(Selection::default().includes_instrument("System.Runtime", "anything"));
        let old_only = Selection::parse("EventCounters\\System.Runtime").unwrap();
        assert!(!old_only.includes_instrument("System.Runtime", "dotnet.exceptions"));
        assert_eq!(old_only.meters().count(), 0);
    }
}
