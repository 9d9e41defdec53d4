//! `analyzeoom`: the last allocations that failed.

use dnd_clr::{Oom, OomDetail, OomReason};
use serde::Serialize;

use crate::error::Error;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["analyzeoom", "AnalyzeOOM"],
    operands: "",
    max_operands: 0,
    options: &[],
    summary: "Tells of the last allocation that the GC had no memory for.",
    about: "The GC keeps one record for each of its heaps, of a process that caught the OutOfMemoryException as well. It keeps \
            none when memory ran out outside of it, or when the kernel killed the process.",
    run,
};

#[derive(Debug, Serialize)]
struct Failures {
    failures: Vec<Failure>,
}

#[derive(Debug, Serialize)]
struct Failure {
    heap: usize,
    reason: OomReason,
    /// Bytes that were asked for.
    asked: u64,
    /// Number of the GC before it.
    gc: u64,
    /// What could not be had from the operating system; null when it was not that.
    detail: Option<OomDetail>,
    /// It was for large objects; null without a detail.
    large_objects: Option<bool>,
    detail_bytes: u64,
    /// 0 where it is not known.
    available_mb: u64,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let failures = call.runtime().failed_allocations()?;
    let failure = |oom: &Oom| Failure {
        heap: oom.heap,
        reason: oom.reason,
        asked: oom.asked,
        gc: oom.gc,
        detail: oom.detail,
        large_objects: oom.detail.map(|_| oom.large),
        detail_bytes: oom.bytes,
        available_mb: oom.available_mb,
    };
    call.emit("analyzeoom", 1, &Failures { failures: failures.iter().map(failure).collect() })
}

fn reason(reason: OomReason) -> &'static str {
    match reason {
        OomReason::Budget | OomReason::CantReserve => {
            "OOM was due to an internal .Net error, likely a bug in the GC"
        }
        OomReason::CantCommit => "Didn't have enough memory to commit",
        OomReason::LargeObjects => "Didn't have enough memory to allocate an LOH segment",
        OomReason::LowMemory => "Low on memory during GC",
        OomReason::UnproductiveFullGc => "Could not do a full GC",
        OomReason::Unknown => "The reason is not known",
    }
}

fn detail(detail: OomDetail) -> &'static str {
    match detail {
        OomDetail::ReserveSegment => "Failed to reserve memory",
        OomDetail::CommitSegmentBegin => "Didn't have enough memory to commit beginning of the segment",
        OomDetail::CommitEphemeralSegment => "Didn't have enough memory to commit the new ephemeral segment",
        OomDetail::GrowTable => "Didn't have enough memory to grow the internal GC data structures",
        OomDetail::CommitTable => "Didn't have enough memory to commit the internal GC data structures",
        OomDetail::Unknown => "The operating system had no memory",
    }
}

impl Facts for Failures {
    fn text(&self, out: &mut Out<'_>) {
        if self.failures.is_empty() {
            out.line("There was no managed OOM due to allocations on the GC heap");
        }
        for one in &self.failures {
            out.line(reason(one.reason));
            let (heap, asked, gc) = (one.heap, one.asked, one.gc);
            out.fmt(format_args!("Heap {heap}: {asked} bytes were asked for, after GC {gc}\n"));
            if let Some(why) = one.detail {
                let what = if one.large_objects == Some(true) { "LOH" } else { "SOH" };
                out.fmt(format_args!("Details: {what} {} {} bytes\n", detail(why), one.detail_bytes));
                if one.available_mb > 0 {
                    let available = one.available_mb;
                    out.fmt(format_args!(" - on GC entry available commit space was {available} MB\n"));
                }
            }
        }
    }
}
