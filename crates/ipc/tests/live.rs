//! The commands against real runtimes, old and new: what they answer, and that they live on.

use std::num::NonZeroU32;
use std::time::Duration;

use dnd_ipc::discovery::{Discovery, Host};
use dnd_ipc::{
    Endpoint, Error, EventFilter, EventLevel, HResult, Provider, Rundown, SessionRequest,
    process_environment, process_info, resume_runtime, set_environment_variable, start_session, stop,
};
use dnd_testkit::{DEADLINE, Target, must, one_per_major, runtimes};
use tokio::io::AsyncReadExt;

fn endpoint(target: &Target) -> Endpoint {
    let found = Discovery::new(std::env::temp_dir()).inspect(target.pid()).expect("a .NET process");
    assert!(matches!(found.host, Some(Host::CoreClr { .. })));
    found.endpoint.expect("a socket")
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    must(tokio::runtime::Builder::new_current_thread().enable_all().build(), "tokio").block_on(work)
}

fn counters() -> SessionRequest {
    SessionRequest {
        buffer_mb: NonZeroU32::MIN,
        providers: vec![
            Provider::new("System.Runtime", 0, EventLevel::Informational).arg("EventCounterIntervalSec", "1"),
        ],
        rundown: Rundown::None,
        stacks: true,
    }
}

#[test]
fn a_session_from_start_to_end() {
    for runtime in runtimes() {
        let mut target = Target::spawn(&runtime, "Leak", &["1", "1"]);
        block_on(async {
            let endpoint = endpoint(&target);
            // With the rundown of all methods: more than a socket's buffer holds.
            let request = SessionRequest { rundown: Rundown::Default, ..counters() };
            let mut session = must(start_session(&endpoint, request).await, "start");
            assert_eq!(session.version(), 2);
            let mut stream = vec![0; 8];
            must(session.read_exact(&mut stream).await, "read");
            assert_eq!(stream, b"Nettrace");
            must(session.stop(DEADLINE, |bytes| stream.extend_from_slice(bytes)).await, "stop");
            // The tag that ends a whole stream.
            assert!(stream.len() > 100_000 && stream.ends_with(&[1]), "{} {}", runtime.version, stream.len());
        });
        assert_eq!(target.ask("more", "leaked "), "2 2");
        assert!(target.stop().success());
    }
}

#[test]
fn each_runtime_takes_the_newest_form_it_knows() {
    for runtime in one_per_major() {
        let mut target = Target::spawn(&runtime, "Leak", &["1", "1"]);
        let version = block_on(async {
            let mut request = SessionRequest { rundown: Rundown::Keywords(8), stacks: false, ..counters() };
            request.providers[0].filter = EventFilter::Only(vec![u32::MAX, 0]);
            let mut session = must(start_session(&endpoint(&target), request).await, "start");
            let version = session.version();
            let mut magic = [0; 8];
            must(session.read_exact(&mut magic).await, "read");
            must(session.stop(DEADLINE, |_| {}).await, "stop");
            version
        });
        let expected = match runtime.major() {
            ..9 => 2,
            9 => 4,
            _ => 5,
        };
        assert_eq!(version, expected, "{}", runtime.version);
        assert!(target.alive());
    }
}

#[test]
fn sessions_that_are_dropped_are_over() {
    for runtime in one_per_major() {
        let mut target = Target::spawn(&runtime, "Leak", &["1", "1"]);
        block_on(async {
            let endpoint = endpoint(&target);
            let mut held = Vec::new();
            for _ in 0..64 {
                held.push(must(start_session(&endpoint, counters()).await, "start"));
            }
            let error = start_session(&endpoint, counters()).await.expect_err("64 is the limit");
            assert!(matches!(error, Error::Refused { code: HResult::FAIL, .. }), "{error}");
            assert!(dnd_contract::Explain::hints(&error)[0].contains("64 sessions"));
            drop(held);
            // The runtime notices at its next write, which the counters make once a second.
            let again = async {
                loop {
                    if let Ok(session) = start_session(&endpoint, counters()).await {
                        return session;
                    }
                    tokio::task::yield_now().await;
                }
            };
            let session = must(tokio::time::timeout(DEADLINE, again).await, "no session is over");
            // Stopping one that is gone is no error.
            let id = session.id();
            must(session.stop(DEADLINE, |_| {}).await, "stop");
            must(stop(&endpoint, id, DEADLINE).await, "stop again");
        });
        assert!(target.alive());
        assert!(target.stop().success());
    }
}

#[test]
fn a_target_that_ends_while_it_is_watched() {
    for runtime in one_per_major() {
        let target = Target::spawn(&runtime, "Leak", &["1", "1"]);
        block_on(async {
            let session = must(start_session(&endpoint(&target), counters()).await, "start");
            target.signal(nix::sys::signal::Signal::SIGKILL);
            // Either it can't be asked any more, or the stream just ends.
            let mut stream = Vec::new();
            let end = session.stop(Duration::from_secs(30), |bytes| stream.extend_from_slice(bytes)).await;
            assert!(end.is_ok(), "{end:?}");
        });
    }
}

#[test]
fn environment_and_resume() {
    for runtime in runtimes() {
        let mut target =
            Target::builder(&runtime, "Leak").args(&["1", "1"]).env("DND_TEST", "before").spawn();
        block_on(async {
            let endpoint = endpoint(&target);
            let info = must(process_info(&endpoint, DEADLINE).await, "info");
            if runtime.major() < 5 {
                assert!(info.is_none());
                assert!(process_environment(&endpoint).await.expect_err("too old").is_unknown_command());
                assert!(resume_runtime(&endpoint).await.expect_err("too old").is_unknown_command());
                return;
            }
            let info = info.expect("who it is");
            assert_eq!(
                (info.pid, info.runtime_version.as_deref()),
                (u64::from(target.pid()), Some(&*runtime.version))
            );
            must(resume_runtime(&endpoint).await, "resume");
            let has = async |value: &str| {
                let all = must(process_environment(&endpoint).await, "environment");
                all.iter().any(|v| v == value)
            };
            assert!(has("DND_TEST=before").await);
            must(set_environment_variable(&endpoint, "DND_TEST", Some("äfter")).await, "set");
            assert!(has("DND_TEST=äfter").await && !has("DND_TEST=before").await);
            must(set_environment_variable(&endpoint, "DND_TEST", None).await, "remove");
            assert!(!has("DND_TEST=äfter").await);
        });
        assert!(target.alive());
    }
}
