//! Sessions with processes that are played, in virtual time.

use dnd_testkit::Dnd;
use dnd_testkit::nettrace::{Event, Stream, Value as Written, payload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use tokio::time::Instant;

use super::watching::REST;
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

/// What came of watching.
struct Watched {
    end: Result<End, Error>,
    /// How long it took.
    after: Duration,
    messages: Vec<Message>,
}

impl Watched {
    /// The counter and the value of each sample.
    fn samples(&self) -> Vec<(&str, f64)> {
        self.messages.iter().flat_map(samples).collect()
    }
}

fn samples(message: &Message) -> Vec<(&str, f64)> {
    let mut samples = Vec::new();
    if let Message::Updates(updates) = message {
        for update in updates {
            let Update::Sample(sample) = update else { continue };
            samples.extend(sample.value.headline().map(|value| (sample.series.name.as_str(), value)));
        }
    }
    samples
}

/// Watches a process that `runtime` plays; the clock goes on whenever nothing else does. What the runtime gets beside
/// its socket stops the watching.
fn watch_for<F: Future<Output = ()> + 'static>(
    counters: &str,
    interval: Duration,
    runtime: impl FnOnce(UnixListener, watch::Sender<bool>) -> F,
) -> Watched {
    let (_scratch, dir) = Dnd::scratch();
    let path = dir.join("socket");
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    tokio.expect("tokio").block_on(async {
        let (stop, stopped) = watch::channel(false);
        let runtime = runtime(UnixListener::bind(&path).expect("a socket"), stop);
        let mut request = Request::new(Selection::parse(counters).expect("a list"), "me");
        request.interval = interval;
        let begun = Instant::now();
        let endpoint = Endpoint::new(&path);
        let mut messages = Vec::new();
        let watched = run(&endpoint, 1, request, false, stopped, |message| messages.push(message));
        let both = async { tokio::join!(watched, runtime) };
        let (end, ()) = tokio::time::timeout(Duration::from_secs(1_000_000), both).await.expect("an end");
        Watched { end, after: begun.elapsed(), messages }
    })
}

/// Watches a process that `runtime` plays.
fn watch<F: Future<Output = ()> + 'static>(
    runtime: impl FnOnce(UnixListener) -> F,
) -> (Result<End, Error>, Duration) {
    watch_until(|listener, _stop| runtime(listener))
}

/// The same; whoever plays the process can end the watching, too.
fn watch_until<F: Future<Output = ()> + 'static>(
    runtime: impl FnOnce(UnixListener, watch::Sender<bool>) -> F,
) -> (Result<End, Error>, Duration) {
    let watched = watch_for("A", Duration::from_secs(1), runtime);
    (watched.end, watched.after)
}

fn fields(counter: &'static str, value: f64) -> [(&'static str, Written<'static>); 1] {
    let counter = vec![
        ("Name", Written::Text(counter)),
        ("Mean", Written::F64(value)),
        ("IntervalSec", Written::F32(1.0)),
        ("Series", Written::Text("Interval=1000")),
        ("CounterType", Written::Text("Mean")),
    ];
    [("", Written::Object(vec![("Payload", Written::Object(counter))]))]
}

/// A stream with an EventCounter of provider `A` described.
fn stream_of(counter: &'static str) -> Stream {
    let mut stream = Stream::new();
    stream.describe(1, "A", 1, "EventCounters", &fields(counter, 0.0));
    stream
}

fn sample(stream: &mut Stream, sequence: u32, counter: &'static str, value: f64) {
    let payload = payload(&fields(counter, value));
    stream.events(&[Event { metadata: 1, sequence, thread: 3, payload, ..Event::default() }]);
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
        first.write_all(Stream::new().bytes()).await.expect("read");
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
        let mut stream = Stream::new();
        first.write_all(&stream.take()).await.expect("read");
        // No second session, but StopTracing, which has the id 1.
        let mut second = accept(&listener).await;
        assert_eq!(asked(&mut second).await, 1);
        stream.end();
        first.write_all(stream.bytes()).await.expect("still read");
        drop(first);
        started(&mut second).await;
    });
    assert_eq!(end.expect("a good end"), End::Stopped);
}

#[test]
fn a_session_that_has_not_begun_is_not_stopped() {
    // A runtime that waits at its start would begin the next session twice, and crash.
    let (end, _) = watch_until(async |listener, stop| {
        let mut meters = accept(&listener).await;
        asked(&mut meters).await;
        started(&mut meters).await;
        let mut counters = accept(&listener).await;
        asked(&mut counters).await;
        started(&mut counters).await;
        stop.send_replace(true);
        for mut stream in [meters, counters] {
            assert_eq!(stream.read(&mut [0; 1]).await.expect("an end"), 0, "the connection is closed");
        }
        let more = tokio::time::timeout(Duration::from_secs(100), listener.accept()).await;
        assert!(more.is_err(), "nothing else is asked");
    });
    assert!(matches!(end, Ok(End::Abandoned)), "{end:?}");
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

#[test]
fn two_sessions_that_never_stop_telling_are_read_in_turn() {
    // Both have more to tell than is read at a time.
    let told = |counter| {
        let mut stream = stream_of(counter);
        for sequence in 1.. {
            sample(&mut stream, sequence, counter, 1.0);
            if stream.bytes().len() > 100_000 {
                break;
            }
        }
        stream.take()
    };
    let watched = watch_for("A", Duration::from_secs(1), |listener, _stop| async move {
        let mut first = accept(&listener).await;
        asked(&mut first).await;
        started(&mut first).await;
        let mut second = accept(&listener).await;
        asked(&mut second).await;
        // The sockets hold this: it is there before any of it is read.
        started(&mut second).await;
        first.write_all(&told("first")).await.expect("room");
        second.write_all(&told("second")).await.expect("room");
    });
    assert_eq!(watched.end.expect("a good end"), End::TargetDied);
    let order: Vec<_> =
        watched.messages.iter().filter_map(|message| samples(message).first().map(|s| s.0)).collect();
    assert_eq!(order.get(..4), Some(["first", "second"].repeat(2).as_slice()), "{order:?}");
}

#[test]
fn what_a_session_tells_at_its_end_has_a_limit() {
    let watched = watch_for("EventCounters\\A", Duration::from_secs(1), |listener, stop| async move {
        let mut session = accept(&listener).await;
        asked(&mut session).await;
        started(&mut session).await;
        let mut stream = stream_of("counter");
        session.write_all(&stream.take()).await.expect("it is read");
        // Once it has started.
        tokio::time::sleep(Duration::from_millis(1)).await;
        stop.send_replace(true);
        let mut stopping = accept(&listener).await;
        assert_eq!(asked(&mut stopping).await, 1);
        sample(&mut stream, 1, "counter", 1.0);
        let mut told = 0;
        for value in [2.0, 3.0] {
            // Half of the limit, and a little more.
            while told < REST / 2 {
                stream.block("Unknown", &[0; 60_000]);
                let bytes = stream.take();
                told += bytes.len();
                session.write_all(&bytes).await.expect("it is read");
            }
            told = 0;
            sample(&mut stream, 2, "counter", value);
        }
        stream.end();
        session.write_all(&stream.take()).await.expect("it is read");
        drop(session);
        started(&mut stopping).await;
    });
    assert_eq!(watched.samples(), [("counter", 1.0), ("counter", 2.0)]);
    assert_eq!(watched.end.expect("a good end"), End::Stopped);
}

#[test]
fn long_intervals_end_at_once_when_asked() {
    const HOUR: Duration = Duration::from_secs(3600);
    let watched = watch_for("A", HOUR, |listener, stop| async move {
        let mut sessions = Vec::new();
        for _ in 0..2 {
            let mut session = accept(&listener).await;
            asked(&mut session).await;
            started(&mut session).await;
            session.write_all(Stream::new().bytes()).await.expect("read");
            sessions.push(session);
        }
        // Long before the first values.
        tokio::time::sleep(HOUR / 2).await;
        stop.send_replace(true);
        for session in sessions {
            let mut stopping = accept(&listener).await;
            assert_eq!(asked(&mut stopping).await, 1);
            drop(session);
            started(&mut stopping).await;
        }
    });
    assert_eq!(watched.end.expect("a good end"), End::Stopped);
    assert!(watched.after < HOUR / 2 + Duration::from_secs(1), "{:?}", watched.after);
}

/// Watches process 7 of a made-up machine whose `stat` becomes another one after 10 s; gives the end and when it came.
fn watch_stat(later: &str) -> (End, Duration) {
    let (_scratch, dir) = Dnd::scratch();
    let path = dir.join("7/stat");
    std::fs::create_dir(dir.join("7")).expect("a folder");
    std::fs::write(&path, stat('S', 100)).expect("a file");
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    tokio.expect("tokio").block_on(async {
        let (stop, mut stopped) = watch::channel(false);
        let begun = Instant::now();
        let changes = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            std::fs::write(&path, later).expect("a file");
            tokio::time::sleep(Duration::from_secs(10)).await;
            stop.send_replace(true);
        };
        let proc = ProcFs::at(&dir);
        let watched = async { (without_sessions(&proc, 7, &mut stopped).await, begun.elapsed()) };
        tokio::join!(watched, changes).0
    })
}

fn stat(state: char, start_time: u64) -> String {
    format!("7 (a) {state} 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 23 0 {start_time} 0 0 0 0 0 0 0 0 0\n")
}

#[test]
fn without_sessions_a_process_is_known_by_its_start() {
    let (end, after) = watch_stat(&stat('T', 100));
    assert_eq!((end, after), (End::Stopped, Duration::from_secs(20)), "it is only stopped");
    // Ended, but nobody waits for it; another one with its id; nothing there.
    for later in [stat('Z', 100), stat('X', 100), stat('S', 101), String::new()] {
        let (end, after) = watch_stat(&later);
        assert_eq!(end, End::TargetEnded, "{later}");
        assert!((10..=11).contains(&after.as_secs()), "{later}: {after:?}");
    }
}

#[test]
fn a_block_of_more_events_than_there_can_be() {
    // What comes of them is handed on a part at a time, and nothing else waits until all are understood.
    let watched = watch_for("A", Duration::from_secs(1), |listener, stop| async move {
        let mut first = accept(&listener).await;
        asked(&mut first).await;
        started(&mut first).await;
        let mut stream = Stream::new();
        stream.describe(1, "A", 1, "EventSourceMessage", &[]);
        // Two bytes for each event but the first.
        stream.block("EventBlock", &[&[4, 0, 1, 0, 0x81, 1, 0, 0][..], &[0; 400_000]].concat());
        stream.end();
        first.write_all(stream.bytes()).await.expect("room");
        let second = listener.accept().await;
        drop((first, second));
        stop.send_replace(true);
    });
    let updates = |message: &Message| if let Message::Updates(updates) = message { updates.len() } else { 0 };
    let all: Vec<usize> = watched.messages.iter().map(updates).collect();
    assert_eq!(all.iter().sum::<usize>(), 200_001);
    assert!(all.iter().all(|&part| part <= 4096), "{all:?}");
}
