//! Ends a test of which a case does not end.
#![allow(clippy::print_stderr, reason = "a case without an end says which one it is")]

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

use dnd_testkit::DEADLINE;

/// Waits for cases to end, and ends this process when one does not, with its seed.
pub(crate) struct Watchdog {
    running: Sender<Option<u64>>,
    thread: JoinHandle<()>,
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        let (running, watched) = channel::<Option<u64>>();
        let thread = std::thread::spawn(move || {
            let mut now = None;
            loop {
                match watched.recv_timeout(DEADLINE) {
                    Ok(Some(seed)) => now = Some(seed),
                    Ok(None) | Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        eprintln!("case {now:?} does not end");
                        std::process::abort();
                    }
                }
            }
        });
        Self { running, thread }
    }

    /// A case begins.
    pub(crate) fn begin(&self, seed: u64) {
        assert!(self.running.send(Some(seed)).is_ok());
    }

    /// All cases have ended.
    pub(crate) fn end(self) {
        assert!(self.running.send(None).is_ok());
        assert!(self.thread.join().is_ok());
    }
}
