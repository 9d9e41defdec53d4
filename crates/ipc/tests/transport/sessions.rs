//! Event sessions and their ends.

use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::os::unix::net::UnixListener;
use std::thread;

use dnd_ipc::{Endpoint, Error, EventLevel, Provider, Rundown, SessionId, SessionRequest, start_session};
use tokio::io::AsyncReadExt;

use super::server::{Dir, block_on, ok, refusal, request, serve};
use super::{LONG, SHORT};

pub(crate) fn session() -> SessionRequest {
    SessionRequest {
        buffer_mb: NonZeroU32::MIN,
        providers: vec![Provider::new("P", 1, EventLevel::Verbose)],
        rundown: Rundown::None,
        stacks: true,
    }
}

#[test]
fn a_session_is_stopped_while_its_stream_is_read() {
    // As in a runtime, the stop is answered only after the whole rest of the stream was taken.
    const REST: usize = 4 << 20;
    let dir = Dir::new();
    let path = dir.0.join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(request(&mut stream).1, 3);
        stream.write_all(&ok(&0xabcd_u64.to_le_bytes())).unwrap();
        stream.write_all(b"begin").unwrap();
        let (mut stopper, _) = listener.accept().unwrap();
        let (set, id, payload) = request(&mut stopper);
        assert_eq!((set, id, payload), (2, 1, 0xabcd_u64.to_le_bytes().to_vec()));
        stream.write_all(&vec![7; REST]).unwrap();
        drop(stream);
        let _ = stopper.write_all(&ok(&0xabcd_u64.to_le_bytes()));
    });
    block_on(async {
        let mut session = start_session(&Endpoint::new(&path), session()).await.unwrap();
        assert_eq!((session.id(), session.version()), (SessionId(0xabcd), 2));
        let mut begin = [0; 5];
        session.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"begin");
        let mut rest = 0;
        session.stop(LONG, |bytes| rest += bytes.len()).await.unwrap();
        assert_eq!(rest, REST);
    });
    server.join().unwrap();
}

#[test]
fn a_session_that_does_not_end_is_closed() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        request(&mut stream);
        stream.write_all(&ok(&1u64.to_le_bytes())).unwrap();
        let (mut stopper, _) = listener.accept().unwrap();
        request(&mut stopper);
        // Never answers; both connections are closed by the other side.
        (stream.read(&mut [0]).unwrap(), stopper.read(&mut [0]).unwrap())
    });
    block_on(async {
        let session = start_session(&Endpoint::new(&path), session()).await.unwrap();
        let error = session.stop(SHORT, |_| {}).await.unwrap_err();
        assert!(matches!(error, Error::NotFinished { .. } | Error::NoAnswer { .. }), "{error}");
    });
    assert_eq!(server.join().unwrap(), (0, 0));
}

#[test]
fn a_target_that_ended_gives_the_rest_of_its_stream() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let server = serve(&path, 1, |_, mut stream| {
        request(&mut stream);
        stream.write_all(&ok(&1u64.to_le_bytes())).unwrap();
        stream.write_all(b"rundown").unwrap();
    });
    block_on(async {
        let session = start_session(&Endpoint::new(&path), session()).await.unwrap();
        server.join().unwrap();
        let mut rest = Vec::new();
        session.stop(LONG, |bytes| rest.extend_from_slice(bytes)).await.unwrap();
        assert_eq!(rest, b"rundown");
    });
}

#[test]
fn a_dropped_session_is_closed() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let server = serve(&path, 1, |_, mut stream| {
        request(&mut stream);
        stream.write_all(&ok(&1u64.to_le_bytes())).unwrap();
        stream.read(&mut [0]).unwrap()
    });
    block_on(async { drop(start_session(&Endpoint::new(&path), session()).await.unwrap()) });
    assert_eq!(server.join().unwrap(), [0]);
}

#[test]
fn a_session_that_needs_more_than_the_runtime_has() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let server = serve(&path, 3, |n, mut stream| {
        let (_, id, payload) = request(&mut stream);
        let answer = if n < 2 { refusal(0x8013_1385) } else { ok(&9u64.to_le_bytes()) };
        stream.write_all(&answer).unwrap();
        (id, payload[8])
    });
    let request = SessionRequest { rundown: Rundown::Keywords(8), stacks: false, ..session() };
    let session = block_on(start_session(&Endpoint::new(&path), request)).unwrap();
    assert_eq!((session.id(), session.version()), (SessionId(9), 2));
    drop(session);
    // CollectTracing 4, 3, 2; the rundown as keywords, then as a yes.
    assert_eq!(server.join().unwrap(), [(5, 8), (4, 1), (3, 1)]);
}
