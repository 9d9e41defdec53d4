//! Sessions with processes that are played, in virtual time.

use dnd_testkit::Dnd;
use dnd_testkit::nettrace::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use tokio::time::Instant;

use super::*;
use crate::selection::Selection;

/// Reads a request, and gives its command id.
async fn asked(stream: &mut UnixStream) -> u8 {
    let mut head = [0; 20];
    stream.read_exact(&mut head).await.expect("a request");
    let mut payload = vec![0; usize::from(u16::from_le_bytes([head[14], head[15]])) - 20];
    stream.read_exact(&mut payload).await.expect("a request");
    head[17]
}

async fn accept(listener: &UnixListener) -> UnixStream {
    listener.accept().await.expect("a connection").0
}

/// The answer to the start of a session.
async fn started(stream: &mut UnixStream) {
    let message = [b"DOTNET_IPC_V1\0".as_slice(), &[28, 0, 0xff, 0, 0, 0], &7u64.to_le_bytes()].concat();
    stream.write_all(&message).await.expect("an answer");
}

/// Watches a process that `runtime` plays; the clock goes on whenever nothing else does.
fn watch<F: Future<Output = ()> + 'static>(
    runtime: impl FnOnce(UnixListener) -> F,
) -> (Result<End, Error>, Duration) {
    watch_until(|listener, _stop| runtime(listener))
}

/// The same; whoever plays the process can end the watching, too.
fn watch_until<F: Future<Output = ()> + 'static>(
    runtime: impl FnOnce(UnixListener, watch::Sender<bool>) -> F,
) -> (Result<End, Error>, Duration) {
    let (_scratch, dir) = Dnd::scratch();
    let path = dir.join("socket");
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    tokio.expect("tokio").block_on(async {
        let (stop, stopped) = watch::channel(false);
        let runtime = runtime(UnixListener::bind(&path).expect("a socket"), stop);
        let request = Request::new(Selection::parse("A").expect("a list"), "me");
        let begun = Instant::now();
        let endpoint = Endpoint::new(&path);
        let watched = run(&endpoint, 1, request, false, stopped, |_| ());
        let (end, ()) = tokio::join!(watched, runtime);
        (end, begun.elapsed())
    })
}

#[test]
fn a_process_that_ends_between_its_sessions() {
    // Its diagnostics are closed; its sessions come to their end seconds later.
    let (end, after) = watch(|listener| async move {
        let mut first = accept(&listener).await;
        asked(&mut first).await;
        started(&mut first).await;
        let mut second = accept(&listener).await;
        asked(&mut second).await;
        drop((second, listener));
        tokio::time::sleep(Duration::from_secs(8)).await;
        let mut stream = Stream::new();
        stream.end();
        first.write_all(stream.bytes()).await.expect("the rest");
    });
    assert_eq!(end.expect("a good end"), End::TargetEnded);
    assert!(after >= Duration::from_secs(8));
}

#[test]
fn a_process_that_refuses_its_second_session() {
    let (end, _) = watch(|listener| async move {
        let mut first = accept(&listener).await;
        asked(&mut first).await;
        started(&mut first).await;
        drop(accept(&listener).await);
        // The first one is ended properly: StopTracing has the id 1.
        let mut third = accept(&listener).await;
        assert_eq!(asked(&mut third).await, 1);
    });
    let error = end.expect_err("no second session").to_string();
    assert!(error.contains("closed the connection without answering CollectTracing"), "{error}");
}

#[test]
fn a_session_is_read_while_the_next_is_started() {
    // More than a socket holds: who starts the second session only then would wait for ever.
    let (end, _) = watch(|listener| async move {
        let mut first = accept(&listener).await;
        asked(&mut first).await;
        started(&mut first).await;
        let mut second = accept(&listener).await;
        asked(&mut second).await;
        let mut stream = Stream::new();
        while stream.bytes().len() < 2_000_000 {
            stream.describe(1, "P", 1, "E", &[]);
        }
        first.write_all(stream.bytes()).await.expect("room");
        started(&mut second).await;
    });
    assert_eq!(end.expect("a good end"), End::TargetDied);
}

#[test]
fn a_session_that_is_being_started_is_ended_in_order() {
    // Asked to stop before the process has answered: closing the connection would end the session at any moment.
    let (end, _) = watch_until(|listener, stop| async move {
        let mut first = accept(&listener).await;
        asked(&mut first).await;
        stop.send_replace(true);
        tokio::time::sleep(Duration::from_secs(1)).await;
        started(&mut first).await;
        // No second session, but StopTracing, which has the id 1.
        let mut second = accept(&listener).await;
        assert_eq!(asked(&mut second).await, 1);
        let mut stream = Stream::new();
        stream.end();
        first.write_all(stream.bytes()).await.expect("still read");
        drop(first);
        started(&mut second).await;
    });
    assert_eq!(end.expect("a good end"), End::Stopped);
}

#[test]
fn a_process_that_never_answers_does_not_hold_up_the_end() {
    let (end, after) = watch_until(|listener, stop| async move {
        let mut first = accept(&listener).await;
        asked(&mut first).await;
        stop.send_replace(true);
        assert_eq!(first.read(&mut [0]).await.ok(), Some(0), "closed");
    });
    assert!(end.is_ok() && after < Duration::from_secs(5), "{end:?}");
}
