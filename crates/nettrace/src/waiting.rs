//! Events that wait for their turn, when they are handed out in order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::blob::Header;

/// How much may wait for its turn; real streams stay below a tenth of it.
const MOST_WAITING: usize = 1 << 20;

const MOST_WAITING_BYTES: usize = 64 << 20;

/// An event by its places.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) header: Header,
    pub(crate) event_type: usize,
    pub(crate) payload: (usize, usize),
    /// Whether the payload is in the container's buffer or was set aside.
    pub(crate) set_aside: bool,
}

/// Events that wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// Time and index of each; equal times keep the order in which they were written.
    heap: BinaryHeap<Reverse<(u64, usize)>>,
    records: Vec<Record>,
    payloads: Vec<u8>,
    /// Events up to this time may go out.
    pub(crate) until: Option<u64>,
}

impl Waiting {
    pub(crate) fn push(&mut self, mut record: Record, payload: &[u8]) {
        let start = self.payloads.len();
        self.payloads.extend_from_slice(payload);
        record.payload = (start, self.payloads.len());
        record.set_aside = true;
        self.heap.push(Reverse((record.header.timestamp, self.records.len())));
        self.records.push(record);
    }

    pub(crate) fn pop(&mut self) -> Option<Record> {
        let until = self.until?;
        match self.heap.peek() {
            Some(&Reverse((time, index))) if time <= until => {
                self.heap.pop();
                self.records.get(index).copied()
            }
            _ => {
                self.until = None;
                None
            }
        }
    }

    /// The payload of a record that waited.
    pub(crate) fn payload(&self, (start, end): (usize, usize)) -> &[u8] {
        self.payloads.get(start..end).unwrap_or_default()
    }

    /// Gives memory back for new events, once nothing waits.
    pub(crate) fn reclaim(&mut self) {
        if self.heap.is_empty() {
            self.records.clear();
            self.payloads.clear();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    pub(crate) fn overfull(&self) -> bool {
        self.records.len() >= MOST_WAITING || self.payloads.len() >= MOST_WAITING_BYTES
    }
}
