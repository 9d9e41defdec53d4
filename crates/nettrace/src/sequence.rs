//! Sequence numbers: how lost events are noticed.

use std::collections::HashMap;

/// A target with more threads than this at a time is not believed.
const MOST_THREADS: usize = 1 << 18;

/// The last sequence number of every thread that writes events.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    last: HashMap<u64, u32>,
    /// The thread of the last event: most events come in runs of one thread.
    current: Option<(u64, u32)>,
    /// Threads were forgotten: the first number seen of a thread says nothing about lost events any more.
    forgot: bool,
}

impl Sequences {
    /// Notes an event and gives the number of events of its thread that were lost before it.
    pub(crate) fn event(&mut self, thread: u64, sequence: u32) -> u32 {
        let before = match self.current {
            Some((current, before)) if current == thread => before,
            _ => {
                self.store_current();
                self.before(thread, sequence)
            }
        };
        self.current = Some((thread, sequence));
        // A thread's first event has number 1; so has the first one of a new thread with the number of one that ended.
        if sequence == 1 { 0 } else { gap(before, sequence) }
    }

    /// Notes what a thread had written at a sequence point and gives the number of lost events.
    pub(crate) fn point(&mut self, thread: u64, sequence: u32) -> u32 {
        self.store_current();
        let after = sequence.wrapping_add(1);
        let before = self.before(thread, after);
        self.store(thread, sequence);
        gap(before, after)
    }

    /// The number of a thread's last event; one less than `now` if that can't be known.
    fn before(&self, thread: u64, now: u32) -> u32 {
        let unknown = if self.forgot { now.wrapping_sub(1) } else { 0 };
        self.last.get(&thread).copied().unwrap_or(unknown)
    }

    fn store_current(&mut self) {
        if let Some((thread, sequence)) = self.current.take() {
            self.store(thread, sequence);
        }
    }

    fn store(&mut self, thread: u64, sequence: u32) {
        if self.last.len() >= MOST_THREADS && !self.last.contains_key(&thread) {
            self.last.clear();
            self.forgot = true;
        }
        self.last.insert(thread, sequence);
    }

    /// Forgets all threads (version 6 asks for it at some sequence points).
    pub(crate) fn clear(&mut self) {
        self.last.clear();
        self.current = None;
        self.forgot = true;
    }

    /// Forgets a thread that ended (version 6).
    pub(crate) fn remove(&mut self, thread: u64) {
        self.store_current();
        self.last.remove(&thread);
    }
}

/// Numbers left out between two consecutive events. A step back is no gap: it would be one of billions.
fn gap(before: u32, now: u32) -> u32 {
    let gap = now.wrapping_sub(before).wrapping_sub(1);
    if gap > u32::MAX / 2 { 0 } else { gap }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps() {
        let mut sequences = Sequences::default();
        assert_eq!(sequences.event(7, 1), 0);
        assert_eq!(sequences.event(7, 2), 0);
        assert_eq!(sequences.event(8, 4), 3, "a head of 3 is lost");
        assert_eq!(sequences.event(7, 5), 2);
        assert_eq!(sequences.point(7, 9), 4, "a tail of 4 is lost");
        assert_eq!(sequences.point(8, 4), 0);
        assert_eq!(sequences.event(7, 10), 0);
        assert_eq!(sequences.event(7, 1), 0, "a new thread with the old number");
        assert_eq!(sequences.point(7, 1), 0);
        assert_eq!(sequences.event(9, u32::MAX), 0, "a step back, not four billion events");
        assert_eq!(sequences.event(9, 0), 0);
    }
}
