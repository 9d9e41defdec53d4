//! Large free blocks between objects: what is allocated, and why it is not given back.

use dnd_clr::{Runtime, SegmentKind};
use dnd_contract::Addr;
use serde::Serialize;

use crate::inspect::display_name;
use crate::out::Out;

/// A large free block, and the object behind it that keeps the space apart.
#[derive(Debug, Serialize)]
pub(crate) struct Fragment {
    /// Its address.
    address: Addr,
    /// Its bytes.
    size: u64,
    /// The object behind it.
    followed_by: Addr,
    /// That object's type.
    #[serde(rename = "type")]
    name: String,
}

/// Those of the free blocks that an object follows. The large object heap is left out: there blocks of this size are
/// the rule.
pub(crate) fn of(runtime: &Runtime<'_>, blocks: &[(u64, u64)]) -> Vec<Fragment> {
    let Ok(heap) = runtime.heap() else { return Vec::new() };
    let fragment = |&(address, size): &(u64, u64)| {
        let next = address.checked_add(size)?.checked_next_multiple_of(8)?;
        let segment = heap.segment_of(address).filter(|s| s.kind != SegmentKind::Large && next < s.end)?;
        // What follows may be the unused part of an allocation context.
        let gap = heap.contexts_in(segment).iter().any(|&(pointer, _)| pointer == next);
        let object = runtime.object(next).ok().filter(|o| !gap && o.table != runtime.free().address)?;
        let name = display_name(runtime, object.table);
        Some(Fragment { address: Addr(address), size, followed_by: Addr(next), name })
    };
    blocks.iter().filter_map(fragment).collect()
}

/// The table below the statistics.
pub(crate) fn text(fragments: &[Fragment], out: &mut Out<'_>) {
    out.end();
    out.line("Fragmented blocks larger than 0.5 MB:");
    out.line("         Address         Size      Followed By");
    for fragment in fragments {
        out.hex(fragment.address.0, 12, 16);
        out.blanks(1);
        out.grouped(fragment.size, 12);
        out.blanks(1);
        out.hex(fragment.followed_by.0, 12, 16);
        out.blanks(1);
        out.name(&fragment.name);
        out.end();
    }
}
