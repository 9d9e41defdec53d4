//! Runtimes that connect to us: `DOTNET_DiagnosticPorts=PATH` (.NET 5 and later).
//!
//! Such a runtime connects, says who it is, and waits for one request on that connection; after it, it connects anew.
//! So there is one idle connection for each runtime, and a request takes the newest.
//!
//! Layout of the message: dotnet/diagnostics `documentation/design-docs/ipc-protocol.md`, "diagnostic ports".

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::endpoint::Endpoint;

/// `ADVR_V1\0`, cookie, pid, two bytes of zero.
const ADVERTISE_LEN: usize = 34;
const MAGIC: &[u8; 8] = b"ADVR_V1\0";
/// A runtime says who it is at once.
const ADVERTISE_WITHIN: Duration = Duration::from_secs(5);
/// A runtime connects anew at once; while it is suspended or busy, within half a second.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Many more runtimes than ever share a port: more are turned away.
const MOST_RUNTIMES: usize = 10_000;

/// A socket on which runtimes report.
#[derive(Debug)]
pub struct ReversePort {
    path: PathBuf,
    found: mpsc::UnboundedReceiver<Reported>,
    accepting: tokio::task::JoinHandle<()>,
}

/// A runtime that reported.
#[derive(Debug)]
pub struct Reported {
    /// Identifies the runtime; the same in its `ProcessInfo`.
    pub cookie: [u8; 16],
    /// Its process id in its own pid namespace.
    pub inner_pid: u32,
    /// Its process id as seen from here; unknown for a process that this pid namespace can't see.
    pub pid: Option<u32>,
    /// Where to send it requests.
    pub endpoint: Endpoint,
}

/// The idle connection of one runtime.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    newest: Mutex<Option<UnixStream>>,
    came: Notify,
}

impl Idle {
    fn put(&self, stream: UnixStream) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        self.came.notify_one();
    }

    /// The connection, or the next one that comes.
    pub(crate) async fn take(&self) -> io::Result<UnixStream> {
        let next = async {
            loop {
                let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(stream) = newest.filter(|stream| !given_up(stream)) {
                    return stream;
                }
                self.came.notified().await;
            }
        };
        timeout(CONNECT_WITHIN, next).await.map_err(|_| io::ErrorKind::TimedOut.into())
    }
}

/// The runtimes that have reported: their idle connections, and their process ids as seen from here.
type Known = HashMap<[u8; 16], (Arc<Idle>, Option<u32>)>;

/// Forgets the runtimes that have ended, and closes what is left of their connections: new ones may come for ever. One
/// that has only given its connection up to connect anew is there still; where that can't be seen, it is kept for as
/// long as anybody has its endpoint.
fn forget_ended(known: &mut Known) {
    known.retain(|_, (idle, pid)| {
        let mut newest = idle.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let there = match *pid {
            Some(pid) => Path::new(&format!("/proc/{pid}")).exists(),
            None => Arc::strong_count(idle) > 1,
        };
        if there || !newest.as_ref().is_some_and(given_up) {
            return true;
        }
        *newest = None;
        false
    });
}

/// Whether the runtime has closed its end. It says nothing on an idle connection: what can be read is its end.
fn given_up(stream: &UnixStream) -> bool {
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

impl ReversePort {
    /// Listens at `path`, which must not exist. Start the runtimes after that. Needs a tokio runtime.
    ///
    /// # Errors
    /// Those of binding a socket.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let (sender, found) = mpsc::unbounded_channel();
        let accepting = tokio::spawn(accept(listener, path.to_owned(), sender));
        Ok(Self { path: path.to_owned(), found, accepting })
    }

    /// Waits for a runtime that has not reported before.
    ///
    /// # Errors
    /// The socket can't be listened on any more.
    pub async fn next(&mut self) -> io::Result<Reported> {
        self.found.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for ReversePort {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, path: PathBuf, found: mpsc::UnboundedSender<Reported>) {
    let known: Arc<Mutex<Known>> = Arc::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, as a rule: not for ever.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (known, path, found) = (Arc::clone(&known), path.clone(), found.clone());
        tokio::spawn(async move {
            let mut stream = stream;
            // Whoever doesn't say who it is in time is no runtime: the connection is closed.
            let Ok(Some((cookie, inner_pid))) = timeout(ADVERTISE_WITHIN, advertise(&mut stream)).await
            else {
                return;
            };
            let pid = stream
                .peer_cred()
                .ok()
                .and_then(|cred| u32::try_from(cred.pid()?).ok())
                .filter(|&pid| pid != 0);
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((idle, _)) = known.get(&cookie) {
                idle.put(stream);
                return;
            }
            forget_ended(&mut known);
            if known.len() >= MOST_RUNTIMES {
                return;
            }
            let idle = Arc::<Idle>::default();
            idle.put(stream);
            known.insert(cookie, (Arc::clone(&idle), pid));
            // Nobody may be left to hear of it.
            let _ = found.send(Reported { cookie, inner_pid, pid, endpoint: Endpoint::reverse(path, idle) });
        });
    }
}

async fn advertise(stream: &mut UnixStream) -> Option<([u8; 16], u32)> {
    let mut message = [0; ADVERTISE_LEN];
    stream.read_exact(&mut message).await.ok()?;
    parse(&message)
}

/// Cookie and pid of an advertise message.
pub(crate) fn parse(message: &[u8; ADVERTISE_LEN]) -> Option<([u8; 16], u32)> {
    let (magic, rest) = message.split_first_chunk::<8>()?;
    let (cookie, rest) = rest.split_first_chunk::<16>()?;
    let (pid, _) = rest.split_first_chunk::<8>()?;
    if magic != MAGIC {
        return None;
    }
    Some((*cookie, u32::try_from(u64::from_le_bytes(*pid)).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_forgotten() {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        tokio.block_on(async {
            let (mut known, mut kept) = (Known::new(), Vec::new());
            let mut add = |name: u8, pid: Option<u32>, open: bool, used: bool| {
                let (stream, peer) = UnixStream::pair().expect("a pair");
                let idle = Arc::<Idle>::default();
                idle.put(stream);
                kept.push((open.then_some(peer), used.then(|| Arc::clone(&idle))));
                known.insert([name; 16], (idle, pid));
            };
            let (us, nobody) = (Some(std::process::id()), Some(u32::MAX));
            add(1, nobody, false, true);
            add(2, nobody, true, true);
            add(3, us, false, true);
            add(4, None, false, true);
            add(5, None, false, false);
            forget_ended(&mut known);
            let mut left: Vec<u8> = known.keys().map(|[name, ..]| *name).collect();
            left.sort_unstable();
            assert_eq!(left, [2, 3, 4]);
            let (_, idle) = &kept[0];
            assert!(idle.as_ref().expect("used").newest.lock().expect("a lock").is_none(), "it is closed");
        });
    }

    #[test]
    fn the_message() {
        let mut message = [0; ADVERTISE_LEN];
        message[..8].copy_from_slice(MAGIC);
        message[8..24].copy_from_slice(&[7; 16]);
        message[24..32].copy_from_slice(&4711u64.to_le_bytes());
        assert_eq!(parse(&message), Some(([7; 16], 4711)));
        message[31] = 1;
        assert_eq!(parse(&message), None, "no such pid");
        assert_eq!(parse(&[0; ADVERTISE_LEN]), None);
    }
}
