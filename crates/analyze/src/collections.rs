//! What concurrent collections hold.
//!
//! Source: `ConcurrentQueue.cs`, `ConcurrentQueueSegment.cs` of System.Private.CoreLib and `ConcurrentDictionary.cs` of
//! System.Collections.Concurrent, 3.1 to 10.0.

use dnd_clr::{Object, Runtime};

use crate::managed::{Managed, Place};

/// Items of one collection that are read.
const MAX_ITEMS: usize = 1 << 24;
/// Segments of a queue.
const MAX_SEGMENTS: usize = 1 << 20;

/// A value in a collection: where it is, and its type as the collection knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Address of the value, or of the reference to it.
    pub(crate) address: u64,
    /// Type that the collection is declared with.
    pub(crate) table: u64,
}

/// Whether a type's name is that of an instance of a concurrent collection: not an array of them, nor a type inside.
pub(crate) fn is_instance(name: &str, collection: &str) -> bool {
    let rest =
        name.strip_prefix("System.Collections.Concurrent.").and_then(|rest| rest.strip_prefix(collection));
    let Some(arguments) = rest.filter(|rest| rest.starts_with('<')) else { return false };
    let mut open = 0u32;
    let closed = arguments.find(|c| {
        match c {
            '<' => open += 1,
            '>' => open = open.saturating_sub(1),
            _ => {}
        }
        open == 0
    });
    closed.is_some_and(|end| end + 1 == arguments.len())
}

/// The items of a `ConcurrentQueue<T>`, the next to be taken first; `None` when the object is none, or not in the dump.
pub(crate) fn queue(runtime: &Runtime<'_>, managed: &mut Managed<'_>, queue: &Object) -> Option<Vec<Slot>> {
    if !managed.is_a(queue.table, |name| is_instance(name, "ConcurrentQueue")) {
        return None;
    }
    let mut items = Vec::new();
    let mut at = Some(managed.follow(Place::of(queue), &["_head"])?);
    let last = managed.reference(Place::of(queue), &["_tail"]);
    for _ in 0..MAX_SEGMENTS {
        let Some(segment) = at else { break };
        let place = Place::of(&segment);
        let slots = managed.follow(place, &["_slots"])?;
        let slots = managed.vector(&slots)?;
        let mask = u32::try_from(managed.number(place, &["_slotsMask"])?).ok()?;
        // `PaddedHeadAndTail`: both count on for ever.
        let ends = managed.inside(place, &["_headAndTail"])?;
        let head = managed.number(ends, &["Head"])?;
        let tail = managed.number(ends, &["Tail"])?;
        // A segment that takes no more has so much added to its tail (`FreezeOffset`: twice its slots).
        let frozen = managed.number(place, &["_frozenForEnqueues"])? != 0;
        let slots_count = i64::from(mask) + 1;
        let tail = if frozen { tail - 2 * slots_count } else { tail };
        let count = tail.wrapping_sub(head).clamp(0, slots_count);
        for number in 0..count {
            let index = u32::try_from(head.wrapping_add(number) & i64::from(mask)).ok()?;
            if index >= slots.count || items.len() >= MAX_ITEMS {
                break;
            }
            items.push(field(runtime, managed, slots.element(index), &["Item"])?);
        }
        if Some(segment.address) == last {
            break;
        }
        at = managed.follow(place, &["_nextSegment"]);
    }
    Some(items)
}

/// Keys and values of a `ConcurrentDictionary<K, V>`, bucket by bucket; `None` when the object is none, or not in the dump.
pub(crate) fn dictionary(
    runtime: &Runtime<'_>,
    managed: &mut Managed<'_>,
    dictionary: &Object,
) -> Option<Vec<(Slot, Slot)>> {
    if !managed.is_a(dictionary.table, |name| is_instance(name, "ConcurrentDictionary")) {
        return None;
    }
    let tables = managed.follow(Place::of(dictionary), &["_tables"])?;
    let buckets = managed.follow(Place::of(&tables), &["_buckets"])?;
    let buckets = managed.vector(&buckets)?;
    let mut items = Vec::new();
    for index in 0..buckets.count {
        // A reference, alone or in a struct.
        let first = runtime.target().u64(buckets.element(index).data).ok()?;
        let mut node = managed.object(first);
        while let Some(found) = node.filter(|_| items.len() < MAX_ITEMS) {
            let place = Place::of(&found);
            let key = field(runtime, managed, place, &["_key"])?;
            let value = field(runtime, managed, place, &["_value"])?;
            items.push((key, value));
            node = managed.follow(place, &["_next"]);
        }
    }
    Some(items)
}

/// A field of a collection's own type, with the type that it is declared with.
fn field(runtime: &Runtime<'_>, managed: &mut Managed<'_>, at: Place, names: &[&str]) -> Option<Slot> {
    let (field, address) = managed.field(at, names)?;
    let declared = runtime.method_table(field.declared_by).ok()?;
    Some(Slot { address, table: runtime.field_type(&declared, &field)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_collections_and_types_inside_are_no_collections() {
        let name = |rest: &str| format!("System.Collections.Concurrent.ConcurrentQueue<System.{rest}");
        let is_queue = |name: &str| is_instance(name, "ConcurrentQueue");
        assert!(is_queue(&name("Int32>")) && is_queue(&name("Tuple<System.Int32, System.Int32[]>>")));
        for other in ["Int32>[]", "Int32>+Enumerator", "Int32>+Inner<System.Int32>"] {
            assert!(!is_queue(&name(other)), "{other}");
        }
        assert!(!is_instance(&name("Int32>"), "ConcurrentDictionary"));
    }
}
