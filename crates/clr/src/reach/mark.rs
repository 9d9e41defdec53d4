//! Marking everything that roots reach, on several threads.
//!
//! Depth first, because objects that refer to each other were often made one after the other and lie together. Between
//! a thread's stack and its work stands a short queue whose objects are on their way from memory to the cache.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::Word;
use super::bits::Bits;
use super::graph::Graph;
use crate::error::Error;
use crate::walk::on_threads;

/// Objects fetched from memory ahead of the one being looked at. Two lines each: as many as a core of this time waits for.
const AHEAD: usize = 8;
/// Objects between two looks at what the other threads and the user want.
const CHECK_EVERY: usize = 1 << 12;
/// A stack shorter than this is not shared.
const WORTH_SHARING: usize = 256;

/// Marks all that `starts` (marked already) reach, and what dependent handles keep alive then. One thread for each of
/// `graphs`.
pub(super) fn mark<W: Word>(graphs: &mut [Graph<'_, '_>], bits: &Bits, starts: Vec<W>) -> Result<(), Error> {
    let mut stack = starts;
    loop {
        match &mut *graphs {
            [alone] => drain::<W, false>(alone, bits, stack, None)?,
            several => drain_shared(several, bits, stack)?,
        }
        stack = Vec::new();
        let Some(graph) = graphs.first() else { return Ok(()) };
        for (primary, secondary) in graph.dependents() {
            if bits.get(primary) && bits.set::<false>(secondary) {
                stack.push(W::pack(secondary));
            }
        }
        if stack.is_empty() {
            return Ok(());
        }
    }
}

fn drain_shared<W: Word>(graphs: &mut [Graph<'_, '_>], bits: &Bits, stack: Vec<W>) -> Result<(), Error> {
    let pool = Pool::new(graphs.len(), stack);
    let work = |graph: &mut Graph<'_, '_>| {
        let mut result = Ok(());
        while result.is_ok()
            && let Some(stack) = pool.take()
        {
            result = drain::<W, true>(graph, bits, stack, Some(&pool));
        }
        if result.is_err() {
            pool.close();
        }
        result
    };
    on_threads(graphs, work).into_iter().collect()
}

/// Works until the stack is empty.
fn drain<W: Word, const SHARED: bool>(
    graph: &mut Graph<'_, '_>,
    bits: &Bits,
    mut stack: Vec<W>,
    pool: Option<&Pool<W>>,
) -> Result<(), Error> {
    let index = graph.index;
    let mut coming: [(u64, &[u8]); AHEAD] = [(0, &[]); AHEAD];
    let (mut first, mut waiting) = (0usize, 0usize);
    let mut until_check = CHECK_EVERY;
    loop {
        while waiting < AHEAD
            && let Some(next) = stack.pop()
        {
            let next = next.unpack();
            let object = index.fetch(next);
            if let Some(place) = coming.get_mut((first + waiting) % AHEAD) {
                *place = (next, object);
            }
            waiting += 1;
        }
        if waiting == 0 {
            return Ok(());
        }
        let (dense, object) = coming.get(first).copied().unwrap_or_default();
        first = (first + 1) % AHEAD;
        waiting -= 1;
        until_check -= 1;
        if until_check == 0 {
            until_check = CHECK_EVERY;
            graph.setting().progress.check()?;
            if let Some(pool) = pool {
                pool.share(&mut stack);
            }
        }
        graph.references_in::<true>(dense, object, |address| {
            if let Some(next) = index.dense(address)
                && bits.set::<SHARED>(next)
            {
                stack.push(W::pack(next));
            }
        });
    }
}

/// Where threads that have too much leave work for those that have none.
struct Pool<W> {
    state: Mutex<State<W>>,
    changed: Condvar,
    /// Threads that wait for work.
    hungry: AtomicUsize,
    threads: usize,
}

struct State<W> {
    stacks: Vec<Vec<W>>,
    /// All threads wait, or one failed: there will be no more work.
    closed: bool,
}

impl<W: Word> Pool<W> {
    fn new(threads: usize, stack: Vec<W>) -> Self {
        let state = Mutex::new(State { stacks: vec![stack], closed: false });
        Self { state, changed: Condvar::new(), hungry: AtomicUsize::new(0), threads }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State<W>> {
        // Nothing here panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Work to do; `None` when all is done.
    fn take(&self) -> Option<Vec<W>> {
        let mut state = self.state();
        if let Some(stack) = state.stacks.pop() {
            return Some(stack);
        }
        if self.hungry.fetch_add(1, Ordering::Relaxed) + 1 == self.threads {
            state.closed = true;
            self.changed.notify_all();
        }
        loop {
            if state.closed {
                return None;
            }
            if let Some(stack) = state.stacks.pop() {
                self.hungry.fetch_sub(1, Ordering::Relaxed);
                return Some(stack);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Leaves half of a stack for a thread that waits: the older half, which usually leads to more.
    fn share(&self, stack: &mut Vec<W>) {
        if self.hungry.load(Ordering::Relaxed) == 0 || stack.len() < WORTH_SHARING {
            return;
        }
        let half = stack.drain(..stack.len() / 2).collect();
        self.state().stacks.push(half);
        self.changed.notify_one();
    }

    fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }
}
