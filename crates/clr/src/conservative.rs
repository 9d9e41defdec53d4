//! Stack roots without knowing what a stack word is: everything that points into an object might be a reference.
//!
//! This finds every real stack root and some that are none; whoever shows them has to say so.

use std::ops::ControlFlow;

use dnd_memory::{Memory, Registers};

use crate::error::Error;
use crate::heap::Segment;
use crate::progress::Progress;
use crate::roots::{Root, RootKind};
use crate::runtime::Runtime;

/// No thread's stack is larger; a larger number is damage.
const MAX_STACK: u64 = 1 << 32;

struct Candidate {
    value: u64,
    address: u64,
    thread: u32,
    register: Option<&'static str>,
}

/// The conservative stack roots of all managed threads, thread by thread, registers first, then by address.
pub(crate) fn roots(runtime: &Runtime<'_>, progress: &Progress) -> Result<Vec<Root>, Error> {
    let heap = runtime.heap()?;
    let mut segments: Vec<&Segment> = heap.segments.iter().filter(|s| !s.is_empty()).collect();
    segments.sort_unstable_by_key(|s| s.start);
    let segment_of = |value: u64| -> Option<usize> {
        let i = segments.partition_point(|s| s.start <= value).checked_sub(1)?;
        segments.get(i).is_some_and(|s| value < s.end).then_some(i)
    };
    let mut by_segment: Vec<Vec<(u64, usize)>> = vec![Vec::new(); segments.len()];
    let mut candidates = Vec::new();
    let mut consider = |candidate: Candidate| {
        if let Some(list) = segment_of(candidate.value).and_then(|i| by_segment.get_mut(i)) {
            list.push((candidate.value, candidates.len()));
            candidates.push(candidate);
        }
    };
    for thread in &runtime.threads()?.threads {
        let id = thread.os_id;
        let Some(os) = runtime.target().threads().iter().find(|os| id != 0 && os.tid == id) else { continue };
        collect(runtime.target(), id, &os.registers, thread.stack_base, &mut consider);
    }
    // One walk of each segment that something points into, up to the last such place.
    let mut owner: Vec<Option<u64>> = vec![None; candidates.len()];
    for (segment, mut values) in segments.into_iter().zip(by_segment) {
        values.sort_unstable();
        let mut left = values.into_iter().peekable();
        if left.peek().is_none() {
            continue;
        }
        runtime.walk(segment, progress, |object| {
            let end = object.address + ((object.size + 7) & !7);
            while let Some(&(value, number)) = left.peek() {
                if value >= end {
                    return ControlFlow::Continue(());
                }
                left.next();
                if value >= object.address
                    && object.table != runtime.free().address
                    && let Some(slot) = owner.get_mut(number)
                {
                    *slot = Some(object.address);
                }
            }
            ControlFlow::Break(())
        })?;
    }
    Ok(candidates
        .iter()
        .zip(owner)
        .filter_map(|(candidate, object)| {
            let object = object?;
            Some(Root {
                address: candidate.address,
                object,
                kind: RootKind::Stack {
                    thread: candidate.thread,
                    register: candidate.register,
                    conservative: true,
                    interior: candidate.value != object,
                },
            })
        })
        .collect())
}

fn collect(
    memory: &dyn Memory,
    thread: u32,
    registers: &Registers,
    stack_base: u64,
    consider: &mut impl FnMut(Candidate),
) {
    for (name, value) in registers.named() {
        consider(Candidate { value, address: 0, thread, register: Some(name) });
    }
    let start = registers.sp() & !7;
    if stack_base <= start || stack_base - start > MAX_STACK {
        return;
    }
    let mut at = start;
    while at < stack_base {
        let run = memory.run(at);
        let left = usize::try_from(stack_base - at).unwrap_or(usize::MAX);
        let run = run.get(..left).unwrap_or(run);
        if run.len() < 8 {
            at += 8;
            continue;
        }
        for word in run.chunks_exact(8) {
            if let Ok(word) = word.try_into() {
                consider(Candidate { value: u64::from_le_bytes(word), address: at, thread, register: None });
            }
            at += 8;
        }
    }
}
