//! Stack roots without knowing what a stack word is: everything that points into an object might be a reference.
//!
//! This finds every real stack root and some that are none; whoever shows them has to say so.

use std::ops::ControlFlow;

use dnd_memory::{Memory, Registers};

use crate::error::Error;
use crate::heap::{Heap, Segment};
use crate::progress::Progress;
use crate::roots::{Root, RootKind};
use crate::runtime::Runtime;
use crate::threads::Thread;

/// No thread's stack is larger; a larger number is damage.
const MAX_STACK: u64 = 1 << 32;

struct Candidate {
    value: u64,
    address: u64,
    thread: u32,
    register: Option<&'static str>,
}

/// Finds the objects that addresses point into.
pub(crate) struct Owners<'h> {
    segments: Vec<&'h Segment>,
    by_segment: Vec<Vec<(u64, usize)>>,
    count: usize,
}

impl<'h> Owners<'h> {
    fn new(heap: &'h Heap) -> Self {
        let mut segments: Vec<&Segment> = heap.segments.iter().filter(|s| !s.is_empty()).collect();
        segments.sort_unstable_by_key(|s| s.start);
        let by_segment = vec![Vec::new(); segments.len()];
        Self { segments, by_segment, count: 0 }
    }

    /// Takes an address if it lies in the heap, and says so; its number is how many were taken before.
    fn consider(&mut self, value: u64) -> bool {
        let index = self.segments.partition_point(|s| s.start <= value).checked_sub(1);
        let index = index.filter(|&i| self.segments.get(i).is_some_and(|s| value < s.end));
        let Some(list) = index.and_then(|i| self.by_segment.get_mut(i)) else { return false };
        list.push((value, self.count));
        self.count += 1;
        true
    }

    /// The objects by number: one walk of each segment that something points into, up to the last such place.
    fn resolve(self, runtime: &Runtime<'_>, progress: &Progress) -> Result<Vec<Option<u64>>, Error> {
        let mut owner: Vec<Option<u64>> = vec![None; self.count];
        for (segment, mut values) in self.segments.into_iter().zip(self.by_segment) {
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
        Ok(owner)
    }

    /// The object around each of `values`.
    pub(crate) fn find(
        runtime: &Runtime<'_>,
        values: Vec<u64>,
        progress: &Progress,
    ) -> Result<Vec<Option<u64>>, Error> {
        let mut owners = Owners::new(runtime.heap()?);
        let taken: Vec<bool> = values.into_iter().map(|value| owners.consider(value)).collect();
        let mut found = owners.resolve(runtime, progress)?.into_iter();
        Ok(taken.into_iter().map(|taken| if taken { found.next().flatten() } else { None }).collect())
    }
}

/// The conservative stack roots of some threads, thread by thread, registers first, then by address.
pub(crate) fn roots(
    runtime: &Runtime<'_>,
    threads: &[&Thread],
    progress: &Progress,
) -> Result<Vec<Root>, Error> {
    let mut owners = Owners::new(runtime.heap()?);
    let mut candidates = Vec::new();
    let mut consider = |candidate: Candidate| {
        if owners.consider(candidate.value) {
            candidates.push(candidate);
        }
    };
    for thread in threads {
        let id = thread.os_id;
        let Some(os) = runtime.target().threads().iter().find(|os| id != 0 && os.tid == id) else { continue };
        collect(runtime.target(), id, &os.registers, thread.stack_base, &mut consider);
    }
    let owner = owners.resolve(runtime, progress)?;
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
                    place: None,
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
            // Memory comes in pages.
            at = (at & !0xfff).saturating_add(0x1000);
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
