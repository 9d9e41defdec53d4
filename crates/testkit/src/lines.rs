//! The output of a running process, read as it comes, and waiting for something in it.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

/// What a stream has said so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captured {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Captured {
    /// Reads `stream` on a thread of its own until its end.
    pub(crate) fn of(mut stream: impl Read + Send + 'static) -> Self {
        let captured = Self::default();
        let writer = captured.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            loop {
                let got = stream.read(&mut buffer).unwrap_or(0);
                let mut state = writer.state();
                state.bytes.extend_from_slice(buffer.get(..got).unwrap_or_default());
                state.ended = got == 0;
                writer.shared.1.notify_all();
                if state.ended {
                    break;
                }
            }
        });
        captured
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.state().bytes).into_owned()
    }

    /// Everything, once the stream has ended.
    pub(crate) fn wait_end(&self, within: Duration) -> Option<Vec<u8>> {
        self.wait(within, |state| state.ended.then(|| state.bytes.clone())).ok()
    }

    /// Waits until `find` finds something in the text so far. `Err` is all that came: the stream ended, or time is up.
    pub(crate) fn wait_for<T>(
        &self,
        within: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T, String> {
        self.wait(within, |state| find(&String::from_utf8_lossy(&state.bytes)))
    }

    fn wait<T>(&self, within: Duration, find: impl Fn(&State) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + within;
        let mut state = self.state();
        loop {
            if let Some(found) = find(&state) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return Err(String::from_utf8_lossy(&state.bytes).into_owned());
            }
            state = self.shared.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
