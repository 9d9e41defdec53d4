//! `dnd counters` on runtimes that are played: they answer slowly, send nonsense, break off.

use std::io::Write;
use std::net::Shutdown;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use dnd_testkit::Dnd;
use dnd_testkit::nettrace::{Event, Stream, Value as Written, payload};
use nix::sys::signal::Signal;

use super::fake_runtime::{self, Asked, ok, process_info};

/// A process that answers `ProcessInfo` like a runtime, and whatever `session` does with a request for a session.
fn fake(session: impl Fn(Asked) + Send + Sync + 'static) -> (impl Sized, Dnd) {
    let (scratch, dir) = Dnd::scratch();
    fake_runtime::serve(&dir, move |asked| match (asked.set, asked.id) {
        (2, 1) => asked.answer(&ok(&7u64.to_le_bytes())),
        (2, 3) => session(asked),
        (2, _) => asked.answer(&fake_runtime::unknown_command()),
        _ => asked.answer(&process_info("8.0.4")),
    });
    (scratch, counters(&dir, "monitor"))
}

/// `dnd counters ...` for this very program, which plays the runtime.
fn counters(dir: &Path, command: &str) -> Dnd {
    let pid = std::process::id().to_string();
    let dnd = fake_runtime::dnd(dir).args(["counters", command, "-p", &pid, "--refresh-interval", "0.1"]);
    if command == "alert" { dnd } else { dnd.args(["--counters", "EventCounters\\System.Runtime"]) }
}

/// The start of a session, then these bytes; then the stream ends.
fn session_of(bytes: Vec<u8>) -> impl Fn(Asked) + Send + Sync + 'static {
    move |mut asked: Asked| {
        let start = ok(&7u64.to_le_bytes());
        // dnd may be gone already: that is its business.
        let _ = asked.stream.write_all(&start).and_then(|()| asked.stream.write_all(&bytes));
        let _ = asked.stream.shutdown(Shutdown::Write);
        asked.wait_closed();
    }
}

/// A stream with the counter `gc-heap-size` described.
fn stream_with_a_counter() -> Stream {
    let mut stream = Stream::new();
    stream.describe(1, "System.Runtime", 1, "EventCounters", &fields(0.0));
    stream
}

fn fields(value: f64) -> [(&'static str, Written<'static>); 1] {
    let counter = vec![
        ("Name", Written::Text("gc-heap-size")),
        ("Mean", Written::F64(value)),
        ("IntervalSec", Written::F32(0.1)),
        ("Series", Written::Text("Interval=100")),
        ("CounterType", Written::Text("Mean")),
    ];
    [("", Written::Object(vec![("Payload", Written::Object(counter))]))]
}

fn event(sequence: u32, value: f64) -> Event {
    Event { metadata: 1, sequence, thread: 3, payload: payload(&fields(value)), ..Event::default() }
}

fn good_stream() -> Stream {
    let mut stream = stream_with_a_counter();
    stream.events(&[event(1, 5.0)]);
    // Two are missing here.
    stream.events(&[event(4, 5.0)]);
    stream
}

#[test]
fn targets_that_send_nonsense() {
    let (_scratch, dnd) = fake(session_of(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()));
    assert!(dnd.run().fails(6).contains("does not begin with `Nettrace`"));

    let mut bytes = good_stream().bytes().to_vec();
    bytes.extend([0x42; 100]);
    let (_scratch, dnd) = fake(session_of(bytes));
    let output = dnd.run();
    assert_eq!(
        output.stdout.matches("\tgc-heap-size\t5\t").count(),
        2,
        "what was good is shown: {}",
        output.stdout
    );
    assert!(output.stderr.contains("no room for 2 events"), "{}", output.stderr);
    assert!(output.fails(6).contains("the stream is damaged at offset"));
}

#[test]
fn targets_that_break_off() {
    let mut stream = good_stream();
    let (_scratch, dnd) = fake(session_of(stream.bytes().to_vec()));
    let output = dnd.run();
    assert!(output.stderr.contains("has ended abruptly"), "{}", output.stderr);
    assert_eq!(output.success().matches("\tgc-heap-size\t5\t").count(), 2);

    stream.end();
    let (_scratch, dnd) = fake(session_of(stream.bytes().to_vec()));
    let output = dnd.run();
    assert!(output.stderr.contains("has ended\n"), "{}", output.stderr);

    let (_scratch, dnd) = fake(drop);
    assert!(dnd.run().fails(7).contains("closed the connection without answering CollectTracing2"));
}

#[test]
fn targets_that_stall() {
    // No answer to the start of the session.
    static ASKED: AtomicBool = AtomicBool::new(false);
    let (_scratch, dnd) = fake(|asked: Asked| {
        ASKED.store(true, Ordering::SeqCst);
        asked.wait_closed();
    });
    let running = dnd.spawn();
    running.wait_stdout(|text| text.contains("\tno sample\t").then_some(()));
    assert!(ASKED.load(Ordering::SeqCst));
    running.signal(Signal::SIGINT);
    running.wait().success();

    // A session that starts, and a stream without an end: stopping it is given up after a while.
    let (_scratch, dnd) = fake(|mut asked: Asked| {
        let mut bytes = ok(&7u64.to_le_bytes());
        bytes.extend(good_stream().bytes());
        let _ = asked.stream.write_all(&bytes);
        asked.wait_closed();
    });
    let running = dnd.spawn();
    running.wait_stdout(|text| text.contains("gc-heap-size").then_some(()));
    running.signal(Signal::SIGINT);
    let output = running.wait();
    assert!(output.stderr.contains("did not confirm the end of the session"), "{}", output.stderr);
    output.success();
}

#[test]
fn targets_that_tell_more_than_can_be_read() {
    // Without a pause: the time for which to watch is over all the same.
    let (_scratch, dir) = Dnd::scratch();
    fake_runtime::serve(&dir, |mut asked| match (asked.set, asked.id) {
        (2, 1) => asked.answer(&ok(&7u64.to_le_bytes())),
        (2, 3) => {
            let mut stream = stream_with_a_counter();
            let mut written = asked.stream.write_all(&ok(&7u64.to_le_bytes()));
            while written.is_ok() {
                stream.events(&[event(1, 5.0), event(2, 5.0), event(3, 5.0)]);
                let bytes = stream.take();
                // Blocks whose place in the stream makes them the same can be sent again and again.
                let many = if bytes.len().is_multiple_of(4) { bytes.repeat(1000) } else { bytes };
                written = asked.stream.write_all(&many);
            }
        }
        (2, _) => asked.answer(&fake_runtime::unknown_command()),
        _ => asked.answer(&process_info("8.0.4")),
    });
    let output = counters(&dir, "alert").args(["--alert", "gc-heap-size>1GB", "--duration", "1s"]).run();
    assert!(output.stderr.contains("did not confirm the end of the session"), "{}", output.stderr);
    output.success();
}

#[test]
fn targets_that_answer_slowly() {
    // Byte by byte, all of it.
    let (_scratch, dnd) = fake(|mut asked: Asked| {
        let mut stream = good_stream();
        stream.end();
        let mut bytes = ok(&7u64.to_le_bytes());
        bytes.extend(stream.bytes());
        for byte in bytes {
            let _ = asked.stream.write_all(&[byte]);
            std::thread::sleep(Duration::from_micros(500));
        }
        let _ = asked.stream.shutdown(Shutdown::Write);
        asked.wait_closed();
    });
    assert_eq!(dnd.run().success().matches("\tgc-heap-size\t5\t").count(), 2);
}

#[test]
fn answers_that_are_none() {
    let whole = ok(&7u64.to_le_bytes());
    let cut = |length: usize| whole[..length].to_vec();
    let mut long = whole.clone();
    long[14..16].copy_from_slice(&5u16.to_le_bytes());
    let refused = fake_runtime::failure("no more sessions");
    let answers: [(Vec<u8>, i32, &str); 5] = [
        (cut(10), 7, "closed the connection without answering CollectTracing2"),
        (cut(24), 7, "closed the connection without answering CollectTracing2"),
        (b"220 mail.example.org ESMTP Postfix\r\n".to_vec(), 6, "not of the diagnostics protocol"),
        (long, 6, "claims to be 5 bytes long"),
        (refused, 7, "refuses CollectTracing2: E_FAIL (0x80004005), no more sessions"),
    ];
    for (answer, code, words) in answers {
        let (_scratch, dnd) = fake(move |asked: Asked| asked.answer(&answer));
        let said = dnd.run().fails(code);
        assert!(said.contains(words), "{said}");
    }
}

/// A runtime that writes values until it is asked to stop, and then more than a socket holds, as a runtime that empties its
/// buffers; only when that is read it answers. Tells of each session whether it was.
fn played(dir: &Path) -> Receiver<bool> {
    let (sender, ended) = channel();
    // Whether it was asked to stop; whether all was read.
    let state = (Mutex::new((false, false)), Condvar::new());
    fake_runtime::serve(dir, move |mut asked| {
        let lock = || state.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (asked.set, asked.id) {
            (2, 1) => {
                lock().0 = true;
                state.1.notify_all();
                let _all = state.1.wait_while(lock(), |state| !state.1);
                asked.answer(&ok(&7u64.to_le_bytes()));
            }
            (2, 3) => {
                *lock() = (false, false);
                let mut stream = stream_with_a_counter();
                let mut sequence = 0;
                let mut next = |stream: &mut Stream, value| {
                    sequence += 1;
                    stream.events(&[event(sequence, value)]);
                };
                let mut written = asked.stream.write_all(&ok(&7u64.to_le_bytes()));
                while !lock().0 && written.is_ok() {
                    next(&mut stream, 5.0);
                    written = asked.stream.write_all(&stream.take());
                    // The pace of a runtime.
                    drop(state.1.wait_timeout_while(lock(), Duration::from_millis(20), |state| !state.0));
                }
                while stream.bytes().len() < 1 << 20 {
                    next(&mut stream, 6.0);
                }
                next(&mut stream, 7.0);
                stream.end();
                let written = written.and_then(|()| asked.stream.write_all(&stream.take()));
                let _ = asked.stream.shutdown(Shutdown::Write);
                let _ = sender.send(lock().0 && written.is_ok());
                lock().1 = true;
                state.1.notify_all();
            }
            (2, _) => asked.answer(&fake_runtime::unknown_command()),
            _ => asked.answer(&process_info("8.0.4")),
        }
    });
    ended
}

#[test]
fn every_session_is_stopped_and_read_to_its_end() {
    let (_scratch, dir) = Dnd::scratch();
    let ended = played(&dir);
    let drained = |how: &str| assert_eq!(ended.recv_timeout(dnd_testkit::DEADLINE), Ok(true), "{how}");
    // What the last value looks like there, if it is there.
    let sinks: [(&str, &[&str], &str); 7] = [
        ("monitor", &[], "\tgc-heap-size\t7\t"),
        ("monitor", &["--json"], "\"value\":7.0"),
        ("collect", &["-o", "-"], ",7\n"),
        ("collect", &["-o", "-", "--format", "json"], "\"value\":7.0"),
        ("collect", &["-o", "-", "--format", "ndjson"], "\"value\":7.0"),
        ("export", &["--prometheus", "127.0.0.1:0", "--alert", "gc-heap-size>4"], ""),
        ("alert", &["--alert", "gc-heap-size>4", "--json"], ""),
    ];
    for (command, more, last) in sinks {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let how = format!("{command} {more:?} {signal}");
            let running = counters(&dir, command).args(more).spawn();
            if command == "export" {
                running.wait_stderr(|text| text.contains("heap").then_some(()));
            } else {
                running.wait_stdout(|text| text.contains("heap").then_some(()));
            }
            running.signal(signal);
            drained(&how);
            let text = running.wait().success();
            assert!(text.contains(last), "{how}: {text}");
        }
        let limited = counters(&dir, command).args(more).args(["--duration", "1s"]).run();
        limited.success();
        drained(&format!("{command} {more:?} --duration"));
        if command != "export" {
            for (how, code) in [("| head -c 1 > /dev/null", 0), ("> /dev/full", 7)] {
                let line = format!("DND {how}; exit ${{PIPESTATUS[0]}}");
                let output = counters(&dir, command).args(more).bash(&line).run();
                assert_eq!(output.code, Some(code), "{command} {more:?} {how}: {}", output.stderr);
                drained(&format!("{command} {more:?} {how}"));
            }
        }
    }
}
