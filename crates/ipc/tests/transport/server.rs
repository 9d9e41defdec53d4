//! Servers of a test's own, and their messages.

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dnd-ipc-{}-{id}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server that handles `connections` connections with `handle`, one after the other.
pub(crate) fn serve<T: Send + 'static>(
    path: &Path,
    connections: usize,
    mut handle: impl FnMut(usize, UnixStream) -> T + Send + 'static,
) -> JoinHandle<Vec<T>> {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || (0..connections).map(|n| handle(n, listener.accept().unwrap().0)).collect())
}

/// Reads a request: command set, command id, payload.
pub(crate) fn request(stream: &mut UnixStream) -> (u8, u8, Vec<u8>) {
    let mut head = [0; 20];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head[..14], b"DOTNET_IPC_V1\0");
    let mut payload = vec![0; usize::from(u16::from_le_bytes([head[14], head[15]])) - 20];
    stream.read_exact(&mut payload).unwrap();
    (head[16], head[17], payload)
}

pub(crate) fn message(set: u8, id: u8, payload: &[u8]) -> Vec<u8> {
    let size = u16::try_from(20 + payload.len()).unwrap().to_le_bytes();
    [b"DOTNET_IPC_V1\0".as_slice(), &size, &[set, id, 0, 0], payload].concat()
}

pub(crate) fn ok(payload: &[u8]) -> Vec<u8> {
    message(0xff, 0, payload)
}

pub(crate) fn refusal(code: u32) -> Vec<u8> {
    message(0xff, 0xff, &code.to_le_bytes())
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let units: Vec<u16> = text.encode_utf16().chain([0]).collect();
    let mut out = u32::try_from(units.len()).unwrap().to_le_bytes().to_vec();
    out.extend(units.iter().flat_map(|u| u.to_le_bytes()));
    out
}

pub(crate) fn info_1() -> Vec<u8> {
    let mut out = 7u64.to_le_bytes().to_vec();
    out.extend([1; 16]);
    for text in ["/app/x", "Linux", "x64"] {
        out.extend(string(text));
    }
    out
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
