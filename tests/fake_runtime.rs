//! A process that looks like .NET and isn't: this test program itself, with a diagnostics socket in a folder of the test's
//! own, on which it answers whatever the test wants.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use dnd_testkit::{Dnd, must};

use super::DND;

/// Start of the message header, up to the size.
const MAGIC: &[u8] = b"DOTNET_IPC_V1\0";

/// The answer of a runtime that doesn't know a command.
pub(crate) fn unknown_command() -> Vec<u8> {
    message(0xff, 0xff, &0x8013_1385_u32.to_le_bytes())
}

/// A success.
pub(crate) fn ok(payload: &[u8]) -> Vec<u8> {
    message(0xff, 0, payload)
}

/// A failure with the runtime's words.
pub(crate) fn failure(words: &str) -> Vec<u8> {
    message(0xff, 0xff, &[&0x8000_4005_u32.to_le_bytes()[..], &string(words)].concat())
}

/// The answer to `ProcessInfo3` of a runtime of this version.
pub(crate) fn process_info(version: &str) -> Vec<u8> {
    let mut payload = 1_u32.to_le_bytes().to_vec();
    payload.extend(u64::from(std::process::id()).to_le_bytes());
    payload.extend([7; 16]);
    for text in ["/app/fake /app/fake.dll", "Linux", "x64", "fake", version, "linux-x64"] {
        payload.extend(string(text));
    }
    ok(&payload)
}

fn message(set: u8, id: u8, payload: &[u8]) -> Vec<u8> {
    let size = must(u16::try_from(20 + payload.len()), "a long message").to_le_bytes();
    [MAGIC, &size, &[set, id, 0, 0], payload].concat()
}

fn string(text: &str) -> Vec<u8> {
    let units: Vec<u16> = text.encode_utf16().chain([0]).collect();
    let count = must(u32::try_from(units.len()), "a long string").to_le_bytes();
    [&count[..], &units.iter().flat_map(|u| u.to_le_bytes()).collect::<Vec<u8>>()].concat()
}

/// A request as it arrived.
pub(crate) struct Asked {
    pub(crate) set: u8,
    pub(crate) id: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) stream: UnixStream,
}

impl Asked {
    /// Sends the answer; that the other side has gone is its business.
    pub(crate) fn answer(mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Waits until the other side closes the connection.
    pub(crate) fn wait_closed(mut self) {
        let _ = self.stream.read(&mut [0]);
    }

    /// The first string of the payload.
    pub(crate) fn path(&self) -> PathBuf {
        let units: Vec<u16> = self.payload[4..]
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&b| u16::from_le_bytes(b))
            .take_while(|&u| u != 0)
            .collect();
        PathBuf::from(must(String::from_utf16(&units), "a path"))
    }
}

/// The name of this program's socket, with `key` in place of its start time if given.
pub(crate) fn socket_name(key: Option<u64>) -> String {
    let stat = must(std::fs::read_to_string("/proc/self/stat"), "stat");
    let start = must(
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).ok_or("no start time"),
        "stat",
    );
    let key = key.map_or_else(|| start.to_owned(), |key| key.to_string());
    format!("dotnet-diagnostic-{}-{key}-socket", std::process::id())
}

/// Listens in `dir`, and gives each request to `handle`, on a thread that lives as long as the program.
pub(crate) fn serve(dir: &Path, handle: impl Fn(Asked) + Send + Sync + 'static) {
    let listener = must(UnixListener::bind(dir.join(socket_name(None))), "no socket");
    thread::spawn(move || {
        thread::scope(|scope| {
            for stream in listener.incoming().map_while(Result::ok) {
                let handle = &handle;
                scope.spawn(move || {
                    if let Some(asked) = read(stream) {
                        handle(asked);
                    }
                });
            }
        });
    });
}

fn read(mut stream: UnixStream) -> Option<Asked> {
    let mut head = [0; 20];
    stream.read_exact(&mut head).ok()?;
    assert_eq!(&head[..14], MAGIC);
    let mut payload = vec![0; usize::from(u16::from_le_bytes([head[14], head[15]])) - 20];
    stream.read_exact(&mut payload).ok()?;
    Some(Asked { set: head[16], id: head[17], payload, stream })
}

/// `dnd` that looks for sockets in `dir` first.
pub(crate) fn dnd(dir: &Path) -> Dnd {
    Dnd::new(DND).env("TMPDIR", dir)
}
