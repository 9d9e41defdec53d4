//! Writing where nobody may be reading: a pager, a terminal behind a connection that hangs.
//!
//! Whoever watches a process must read its sessions all the time, and hear of Ctrl-C. So writing to standard output and
//! standard error happens on threads of their own; what they can't get rid of waits here, up to a limit, and beyond that
//! is left out and counted.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How much waits at most, in bytes.
const WAITING: usize = 4 << 20;

/// How long the end of a command waits for what is not written yet.
pub(super) const FINISH: Duration = Duration::from_secs(2);

/// A thread that writes, and what waits for it.
pub(super) struct Writer {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether something is being written.
    writing: bool,
    lost: u64,
    /// Whether somebody has waited for the end in vain.
    given_up: bool,
    /// Why writing failed; nothing more is written then.
    failed: Option<(io::ErrorKind, Option<i32>)>,
}

impl State {
    fn idle(&self) -> bool {
        self.waiting.is_empty() && !self.writing
    }

    fn result(&self) -> io::Result<()> {
        match self.failed {
            None => Ok(()),
            Some((_, Some(code))) => Err(io::Error::from_raw_os_error(code)),
            Some((kind, None)) => Err(kind.into()),
        }
    }
}

static STDOUT: OnceLock<Writer> = OnceLock::new();
static STDERR: OnceLock<Writer> = OnceLock::new();

/// Standard output.
pub(super) fn stdout() -> &'static Writer {
    STDOUT.get_or_init(|| Writer::new(io::stdout().as_fd().try_clone_to_owned().map(File::from)))
}

/// Whether standard output has failed, or has lost its reader, if it is in use: who has nothing to write would never know.
///
/// # Errors
/// Those of writing.
pub(super) fn check() -> io::Result<()> {
    let Some(writer) = STDOUT.get() else { return Ok(()) };
    lock(&writer.shared).result()?;
    let stdout = io::stdout();
    let mut asked = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    // The end of a pipe that is written gets this once nobody can read it any more.
    match poll(&mut asked, PollTimeout::ZERO) {
        Ok(1..) if asked[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)) => {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        _ => Ok(()),
    }
}

/// Tells a line on standard error; a closed one is no reason to stop.
pub(super) fn say(text: &str) {
    let stderr =
        STDERR.get_or_init(|| Writer::new(io::stderr().as_fd().try_clone_to_owned().map(File::from)));
    let _ = stderr.write(format!("{text}\n").into_bytes());
}

/// Waits until what was said is written, but not for ever.
pub(super) fn finish_saying() {
    if let Some(stderr) = STDERR.get() {
        let _ = stderr.finish(FINISH);
    }
}

/// Waits for everything that was to be written, but not for ever. Says what was left out.
///
/// # Errors
/// Those of standard output.
pub(super) fn finish() -> io::Result<()> {
    let Some(stdout) = STDOUT.get() else { return Ok(()) };
    let done = stdout.finish(FINISH);
    let lost = stdout.lost();
    if lost > 0 {
        let pieces = if lost == 1 { "piece" } else { "pieces" };
        say(&format!("warning: {lost} {pieces} of the output were left out: nobody was reading it"));
    }
    if done.is_ok() && !stdout.idle() {
        say("warning: the end of the output is missing: nobody was reading it");
    }
    done
}

impl Writer {
    fn new(file: io::Result<impl Write + Send + 'static>) -> Self {
        let shared = Arc::<Shared>::default();
        match file {
            Ok(file) => {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || write_all(file, &shared));
            }
            Err(error) => lock(&shared).failed = Some((error.kind(), error.raw_os_error())),
        }
        Self { shared }
    }

    /// Has a piece written, unless too much is waiting already: then it is left out as a whole.
    ///
    /// # Errors
    /// Those of an earlier piece.
    pub(super) fn write(&self, piece: Vec<u8>) -> io::Result<()> {
        self.add(piece, WAITING)
    }

    /// Has a piece written that must not be left out.
    pub(super) fn write_always(&self, piece: Vec<u8>) -> io::Result<()> {
        self.add(piece, usize::MAX)
    }

    fn add(&self, piece: Vec<u8>, most: usize) -> io::Result<()> {
        let mut state = lock(&self.shared);
        state.result()?;
        if piece.is_empty() {
            return Ok(());
        }
        if state.bytes.saturating_add(piece.len()) > most && !state.waiting.is_empty() {
            state.lost += 1;
            return Ok(());
        }
        state.bytes += piece.len();
        state.waiting.push_back(piece);
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Whether all was written.
    pub(super) fn idle(&self) -> bool {
        lock(&self.shared).idle()
    }

    /// How many pieces were left out.
    pub(super) fn lost(&self) -> u64 {
        lock(&self.shared).lost
    }

    /// Waits until all was written, or until `within` is over.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) fn finish(&self, within: Duration) -> io::Result<()> {
        let deadline = Instant::now() + within;
        let mut state = lock(&self.shared);
        while !state.idle() && state.failed.is_none() && !state.given_up {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Nobody waits a second time.
                state.given_up = true;
                break;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.result()
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_all(mut file: impl Write, shared: &Shared) {
    let mut state = lock(shared);
    loop {
        let Some(piece) = state.waiting.pop_front() else {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        state.bytes -= piece.len();
        state.writing = true;
        drop(state);
        let written = file.write_all(&piece).and_then(|()| file.flush());
        state = lock(shared);
        state.writing = false;
        if let Err(error) = written {
            state.failed = Some((error.kind(), error.raw_os_error()));
            state.waiting.clear();
            state.bytes = 0;
        }
        shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes a piece whenever it is allowed to.
    struct Reluctant {
        allowed: Receiver<io::Result<()>>,
        taken: Sender<Vec<u8>>,
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.allowed.recv().expect("the test goes on")?;
            self.taken.send(bytes.to_owned()).expect("the test goes on");
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn reluctant() -> (Writer, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
        let (allow, allowed) = channel();
        let (taken, receiver) = channel();
        (Writer::new(Ok(Reluctant { allowed, taken })), allow, receiver)
    }

    #[test]
    fn pieces_are_whole_or_left_out() {
        let (writer, allow, taken) = reluctant();
        let piece = || vec![b'x'; WAITING / 2];
        // One may be under way already; two more fill what may wait.
        for _ in 0..6 {
            writer.write(piece()).expect("no error");
        }
        writer.write_always(b"end".to_vec()).expect("no error");
        let lost = writer.lost();
        assert!((3..=4).contains(&lost), "{lost}");
        assert!(!writer.idle());
        for _ in lost..6 {
            allow.send(Ok(())).expect("it writes");
            assert_eq!(taken.recv().map(|piece| piece.len()), Ok(WAITING / 2));
        }
        allow.send(Ok(())).expect("it writes");
        assert_eq!(taken.recv(), Ok(b"end".to_vec()));
        writer.finish(Duration::from_secs(60)).expect("done");
        assert!(writer.idle());
    }

    #[test]
    fn nobody_waits_twice() {
        let (writer, _allow, _taken) = reluctant();
        writer.write(b"a".to_vec()).expect("no error");
        writer.finish(Duration::ZERO).expect("no error");
        // Without end, were it not for the first.
        writer.finish(Duration::from_secs(3600)).expect("no error");
    }

    #[test]
    fn failures_are_told_with_the_next_piece() {
        let (writer, allow, _taken) = reluctant();
        writer.write(b"a".to_vec()).expect("not known yet");
        allow.send(Err(io::Error::from_raw_os_error(28))).expect("it writes");
        let error = writer.finish(Duration::from_secs(60)).expect_err("a full disk");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(writer.write(b"b".to_vec()).expect_err("still").kind(), io::ErrorKind::StorageFull);
        assert!(writer.idle());
    }
}
