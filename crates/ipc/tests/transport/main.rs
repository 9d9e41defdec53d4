//! The transport against servers that behave, and servers that don't. No server here is a runtime: what is tested is
//! what this side does, above all that it ends.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod server;
mod sessions;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use dnd_contract::{Explain, Kind};
use dnd_ipc::codec::Request;
use dnd_ipc::{
    Connection, DumpFlags, DumpRequest, DumpType, Endpoint, Error, HResult, ReversePort, SessionRequest,
    generate_core_dump, process_environment, process_info, resume_runtime, set_environment_variable,
};
use tokio::io::AsyncReadExt;

use self::server::{Dir, block_on, info_1, message, ok, refusal, request, serve, string};
use self::sessions::session;

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(60);
/// For servers that never answer.
const SHORT: Duration = Duration::from_millis(50);

#[test]
fn older_commands_follow_newer_ones() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let server = serve(&path, 3, |_, mut stream| {
        let (set, id, payload) = request(&mut stream);
        assert!(payload.is_empty());
        let answer = if id == 0 { ok(&info_1()) } else { refusal(0x8013_1385) };
        stream.write_all(&answer).unwrap();
        (set, id)
    });
    let info = block_on(process_info(&Endpoint::new(&path), LONG)).unwrap().unwrap();
    assert_eq!((info.pid, info.command_line.as_str(), info.runtime_version), (7, "/app/x", None));
    assert_eq!(server.join().unwrap(), [(4, 8), (4, 4), (4, 0)]);
}

#[test]
fn net_core_3_knows_none_of_them() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let server = serve(&path, 3, |_, mut stream| {
        request(&mut stream);
        stream.write_all(&refusal(0x8013_1385)).unwrap();
    });
    assert_eq!(block_on(process_info(&Endpoint::new(&path), LONG)).unwrap(), None);
    server.join().unwrap();
}

#[test]
fn an_answer_in_single_bytes_is_an_answer() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let server = serve(&path, 2, |n, mut stream| {
        request(&mut stream);
        let answer = if n == 1 {
            ok(&[&info_1()[..], &string("x"), &string("8.0.4")].concat())
        } else {
            refusal(0x8013_1385)
        };
        for byte in answer {
            stream.write_all(&[byte]).unwrap();
        }
    });
    let info = block_on(process_info(&Endpoint::new(&path), LONG)).unwrap().unwrap();
    assert_eq!(info.runtime_version.as_deref(), Some("8.0.4"));
    server.join().unwrap();
}

#[test]
fn truncated_everywhere() {
    let whole = ok(&[&1u32.to_le_bytes()[..], &info_1(), &string("x"), &string("8"), &string("r")].concat());
    let dir = Dir::new();
    let path = dir.0.join("s");
    let answer = whole.clone();
    let server = serve(&path, whole.len() + 1, move |n, mut stream| {
        request(&mut stream);
        stream.write_all(&answer[..n]).unwrap();
    });
    block_on(async {
        for n in 0..whole.len() {
            let error = process_info(&Endpoint::new(&path), LONG).await.unwrap_err();
            assert!(matches!(error, Error::Closed { .. }), "{n}: {error}");
        }
        assert!(process_info(&Endpoint::new(&path), LONG).await.unwrap().is_some());
    });
    server.join().unwrap();
}

#[test]
fn garbage_is_called_so() {
    let answers: Vec<(Vec<u8>, &str)> = vec![
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "not of the diagnostics protocol"),
        (vec![0; 4096], "not of the diagnostics protocol"),
        (message(4, 8, &[]), "unknown kind"),
        (b"DOTNET_IPC_V1\0\x05\0\xff\0\0\0".to_vec(), "5 bytes long"),
        (message(0xff, 0xff, &[1]), "ends inside"),
        (ok(&[0xff; 64]), "ends inside"),
        (ok(&[]), "ends inside"),
    ];
    let dir = Dir::new();
    let path = dir.0.join("s");
    let bytes: Vec<_> = answers.iter().map(|(bytes, _)| bytes.clone()).collect();
    let server = serve(&path, answers.len(), move |n, mut stream| {
        request(&mut stream);
        // The other side closes as soon as it has seen enough.
        let _ = stream.write_all(&bytes[n]);
    });
    block_on(async {
        for (_, words) in &answers {
            let error = process_info(&Endpoint::new(&path), LONG).await.unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains(words), "{cause}");
            assert_eq!(error.kind(), Kind::Corrupt);
        }
    });
    server.join().unwrap();
}

#[test]
fn silence_ends_and_the_connection_is_closed() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let server = serve(&path, 2, |n, mut stream| {
        request(&mut stream);
        if n == 1 {
            stream.write_all(&ok(&info_1())[..30]).unwrap();
        }
        // Reads the end of the connection, which comes when the other side gives up.
        stream.read(&mut [0]).unwrap()
    });
    block_on(async {
        for _ in 0..2 {
            let error = process_info(&Endpoint::new(&path), SHORT).await.unwrap_err();
            assert!(matches!(error, Error::NoAnswer { command: "ProcessInfo3", .. }), "{error}");
            assert!(!error.hints().is_empty());
        }
    });
    assert_eq!(server.join().unwrap(), [0, 0]);
}

#[test]
fn nobody_listens() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let missing = block_on(Connection::connect(&Endpoint::new(&path))).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    drop(UnixListener::bind(&path).unwrap());
    let stale = block_on(Connection::connect(&Endpoint::new(&path))).unwrap_err();
    assert_eq!(stale.kind(), Kind::NotFound);
    assert!(stale.to_string().contains(path.to_str().unwrap()));
}

#[test]
fn a_path_longer_than_an_address() {
    let dir = Dir::new();
    let deep = dir.0.join("x".repeat(100)).join("y".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    // The server has the same trouble: it binds nearby, and the socket is moved.
    let near = dir.0.join("s");
    let server = serve(&near, 1, |_, mut stream| {
        request(&mut stream);
        stream.write_all(&refusal(0x8000_4005)).unwrap();
    });
    let path = deep.join("s");
    std::fs::rename(near, &path).unwrap();
    assert!(path.as_os_str().len() > 107);
    let error = block_on(process_info(&Endpoint::new(&path), LONG)).unwrap_err();
    assert!(matches!(error, Error::Refused { code: HResult::FAIL, .. }), "{error}");
    server.join().unwrap();
}

#[test]
fn another_process_listens() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let own = std::process::id();
    let server = serve(&path, 2, |_, stream| drop(stream));
    let endpoint = Endpoint::new(&path);
    let error = block_on(Connection::connect(&endpoint.clone().of_process(own + 1))).unwrap_err();
    assert!(matches!(error, Error::Impostor { found, .. } if found == own), "{error}");
    assert!(block_on(Connection::connect(&endpoint.of_process(own))).is_ok());
    server.join().unwrap();
}

#[test]
fn a_request_arrives_whole() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let server = serve(&path, 1, |_, mut stream| {
        // One read sees all of it: it was one write.
        let mut buf = vec![0; 65536];
        let n = stream.read(&mut buf).unwrap();
        stream.write_all(&ok(&[0; 4])).unwrap();
        n
    });
    let value = "v".repeat(30_000);
    block_on(set_environment_variable(&Endpoint::new(&path), "N", Some(&value))).unwrap();
    assert_eq!(server.join().unwrap(), [20 + 8 + 4 + 60_002]);
}

#[test]
fn an_environment_that_lies_about_its_size() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let server = serve(&path, 3, |n, mut stream| {
        request(&mut stream);
        let vars = [&2u32.to_le_bytes()[..], &string("A=1"), &string("B=2")].concat();
        let len = if n == 1 { u32::MAX } else { u32::try_from(vars.len()).unwrap() };
        stream.write_all(&ok(&[&len.to_le_bytes()[..], &[0, 0]].concat())).unwrap();
        let sent = if n == 2 { vars.len() - 1 } else { vars.len() };
        let _ = stream.write_all(&vars[..sent]);
    });
    let endpoint = Endpoint::new(&path);
    assert_eq!(block_on(process_environment(&endpoint)).unwrap(), ["A=1", "B=2"]);
    assert_eq!(block_on(process_environment(&endpoint)).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(block_on(process_environment(&endpoint)).unwrap_err().kind(), Kind::Corrupt);
    server.join().unwrap();
}

#[test]
fn dumps_fall_back_and_report_failures() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let server = serve(&path, 6, |n, mut stream| {
        let (_, id, _) = request(&mut stream);
        let answer = match n {
            0 | 1 | 4 => refusal(0x8013_1385),
            2 => ok(&0u32.to_le_bytes()),
            3 => message(0xff, 0xff, &[&0x8000_4005u32.to_le_bytes()[..], &string("no space\n")].concat()),
            _ => ok(&0x8000_4005u32.to_le_bytes()),
        };
        stream.write_all(&answer).unwrap();
        id
    });
    let endpoint = Endpoint::new(&path);
    let dump = DumpRequest { path: "/x".into(), dump_type: DumpType::Heap, flags: DumpFlags::default() };
    block_on(async {
        generate_core_dump(&endpoint, &dump).await.unwrap();
        let told = generate_core_dump(&endpoint, &dump).await.unwrap_err();
        assert!(told.to_string().ends_with("E_FAIL (0x80004005), no space"), "{told}");
        let silent = generate_core_dump(&endpoint, &dump).await.unwrap_err();
        assert!(matches!(silent, Error::Refused { code: HResult::FAIL, message: None, .. }));
    });
    assert_eq!(server.join().unwrap(), [3, 2, 1, 3, 3, 2]);
}

/// A runtime that connects to `path` and says who it is.
fn report(path: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    let mut message = b"ADVR_V1\0".to_vec();
    message.extend([7; 16]);
    message.extend(4711u64.to_le_bytes());
    message.extend([0; 2]);
    stream.write_all(&message).unwrap();
    stream
}

#[test]
fn a_runtime_that_gives_its_connection_up_and_comes_back() {
    let dir = Dir::new();
    let path = dir.0.join("port");
    block_on(async {
        let mut port = ReversePort::bind(&path).unwrap();
        let runtime = thread::spawn({
            let path = path.clone();
            move || {
                // Given up while it is idle, and during a request, twice.
                drop(report(&path));
                for _ in 0..2 {
                    let mut stream = report(&path);
                    request(&mut stream);
                }
                let mut stream = report(&path);
                request(&mut stream);
                stream.write_all(&ok(&[])).unwrap();
            }
        });
        let reported = port.next().await.unwrap();
        assert_eq!((reported.inner_pid, reported.pid), (4711, Some(std::process::id())));
        resume_runtime(&reported.endpoint).await.unwrap();
        runtime.join().unwrap();
    });
}

#[test]
fn a_runtime_that_does_not_come_back() {
    let dir = Dir::new();
    let path = dir.0.join("port");
    // Nothing but the clock goes on once the runtime is gone.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let mut port = ReversePort::bind(&path).unwrap();
        let stream = report(&path);
        stream.set_nonblocking(true).unwrap();
        let mut stream = tokio::net::UnixStream::from_std(stream).unwrap();
        let reported = port.next().await.unwrap();
        tokio::spawn(async move { stream.read_exact(&mut [0; 20]).await });
        let error = process_info(&reported.endpoint, LONG).await.unwrap_err();
        assert!(matches!(error, Error::Closed { command: "ProcessInfo3" }), "{error}");
    });
}

#[test]
fn what_can_not_be_encoded_is_not_sent() {
    let dir = Dir::new();
    let path = dir.0.join("s");
    let server = serve(&path, 1, |_, mut stream| stream.read(&mut [0]).unwrap());
    block_on(async {
        let connection = Connection::connect(&Endpoint::new(&path)).await.unwrap();
        let bad = Request::CollectTracing2(SessionRequest { providers: Vec::new(), ..session() });
        assert!(matches!(connection.call(&bad, Some(LONG)).await, Err(Error::Encode(_))));
    });
    assert_eq!(server.join().unwrap(), [0]);
}
