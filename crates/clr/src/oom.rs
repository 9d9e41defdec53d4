//! What the GC remembers of the last allocation that failed.
//!
//! Source: `gc/gcinterface.dac.h` (`oom_history`, `oom_reason`, `failure_get_memory`), the same since 3.1.

use serde::Serialize;

use crate::error::{Error, Reading};
use crate::runtime::Runtime;

/// Why an allocation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OomReason {
    /// The GC's own budget: an error of the GC.
    Budget,
    /// Memory can't be committed.
    CantCommit,
    /// Address space can't be reserved.
    CantReserve,
    /// No room for a segment or region of large objects.
    LargeObjects,
    /// Memory was low during a GC.
    LowMemory,
    /// Full GCs free next to nothing.
    UnproductiveFullGc,
    /// One that is not known.
    Unknown,
}

/// What the GC could not get from the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OomDetail {
    /// To reserve a segment.
    ReserveSegment,
    /// To commit the begin of a segment.
    CommitSegmentBegin,
    /// To commit the segment of the young generations.
    CommitEphemeralSegment,
    /// To reserve a card table.
    GrowTable,
    /// To commit a card table.
    CommitTable,
    /// One that is not known.
    Unknown,
}

/// The last allocation of a heap that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oom {
    /// Number of the heap.
    pub heap: usize,
    /// Why.
    pub reason: OomReason,
    /// Bytes that were asked for.
    pub asked: u64,
    /// Number of the GC before it.
    pub gc: u64,
    /// What could not be had from the operating system.
    pub detail: Option<OomDetail>,
    /// How many bytes of it.
    pub bytes: u64,
    /// Megabytes that could be committed when that GC began.
    pub available_mb: u64,
    /// For large objects; means nothing without a detail.
    pub large: bool,
}

impl Runtime<'_> {
    /// The last failed allocation of each heap that had one.
    ///
    /// # Errors
    /// [`Error::NoHeap`]; [`Error::Missing`] when the dump does not have the GC's record.
    pub fn failed_allocations(&self) -> Result<Vec<Oom>, Error> {
        let memory = self.target();
        let mut all = Vec::new();
        for (heap, sub) in self.heap()?.heaps.iter().enumerate() {
            let place = |offset: u64| sub.oom_info.wrapping_add(offset);
            let word =
                |offset: u64| memory.u32(place(offset)).reading("the GC's record of failed allocations");
            let long =
                |offset: u64| memory.u64(place(offset)).reading("the GC's record of failed allocations");
            let reason = match word(0)? {
                0 => continue,
                1 => OomReason::Budget,
                2 => OomReason::CantCommit,
                3 => OomReason::CantReserve,
                4 => OomReason::LargeObjects,
                5 => OomReason::LowMemory,
                6 => OomReason::UnproductiveFullGc,
                _ => OomReason::Unknown,
            };
            let detail = match word(40)? {
                0 => None,
                1 => Some(OomDetail::ReserveSegment),
                2 => Some(OomDetail::CommitSegmentBegin),
                3 => Some(OomDetail::CommitEphemeralSegment),
                4 => Some(OomDetail::GrowTable),
                5 => Some(OomDetail::CommitTable),
                _ => Some(OomDetail::Unknown),
            };
            all.push(Oom {
                heap,
                reason,
                asked: long(8)?,
                gc: long(32)?,
                detail,
                bytes: long(48)?,
                available_mb: long(56)?,
                large: word(64)? != 0,
            });
        }
        Ok(all)
    }
}
