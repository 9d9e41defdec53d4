//! `dnd dump collect` from runtimes that lie, fail or end: programs of the test that speak the protocol.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use dnd_testkit::{Dnd, Output, core, must, one_per_major};
use nix::sys::signal::Signal;

use super::collect::names;
use super::fake_runtime::{self, Asked};

/// A fake runtime too old to be asked who it is, and what it does with the dump's path.
fn fake(dir: &Path, dump: impl Fn(Asked) + Send + Sync + 'static) {
    fake_runtime::serve(dir, move |asked| match (asked.set, asked.id) {
        (1, 3) => dump(asked),
        _ => asked.answer(&fake_runtime::unknown_command()),
    });
}

fn collect_fake(dir: &Path) -> Dnd {
    let pid = std::process::id().to_string();
    fake_runtime::dnd(dir).args(["dump", "collect", "--force", "-p", &pid, "-o", "out/core"]).dir(dir)
}

/// Answers success after `write` has done something at the path.
fn fake_writes(write: impl Fn(&Path) + Send + Sync + 'static) -> (Output, Vec<String>) {
    let (_scratch, dir) = Dnd::scratch();
    must(fs::create_dir(dir.join("out")), "a folder");
    fake(&dir, move |asked| {
        write(&asked.path());
        asked.answer(&fake_runtime::ok(&[0; 4]));
    });
    let output = collect_fake(&dir).run();
    (output, names(&dir.join("out")))
}

#[test]
fn success_is_not_believed() {
    type Write = Box<dyn Fn(&Path) + Send + Sync>;
    let Some(whole) =
        one_per_major().pop().map(|runtime| core(&runtime, "Leak", &dnd_testkit::CoreSpec::default()).path())
    else {
        return;
    };
    let cut = whole.clone();
    let secret = PathBuf::from("/etc/passwd");
    let cases: Vec<(&str, i32, Write)> = vec![
        ("wrote nothing", 7, Box::new(|_| {})),
        ("wrote nothing", 7, Box::new(|path| must(fs::write(path, ""), "write"))),
        ("not a core dump", 7, Box::new(|path| must(fs::write(path, "dump dump dump"), "write"))),
        (
            "not a core dump",
            7,
            Box::new(|path| {
                must(fs::copy("/proc/self/exe", path), "copy");
            }),
        ),
        (
            "the dump is cut off",
            7,
            Box::new(move |path| {
                must(fs::copy(&cut, path), "copy");
                let file = must(fs::File::options().write(true).open(path), "open");
                must(file.set_len(must(file.metadata(), "stat").len() / 2), "truncate");
            }),
        ),
        ("can't be put at", 7, Box::new(move |path| must(symlink(&secret, path), "link"))),
    ];
    for (words, code, write) in cases {
        let (output, left) = fake_writes(write);
        let error = output.fails(code);
        assert!(error.contains(words), "{words}: {error}");
        assert_eq!(left, [""; 0], "{words}");
    }
    let (output, left) = fake_writes(move |path| {
        must(fs::copy(&whole, path), "copy");
        // A file of the name appears meanwhile.
        let wanted = path.parent().and_then(Path::parent).expect("a folder").join("core");
        must(fs::write(wanted, "mine"), "write");
    });
    assert!(output.fails(2).contains("can't be put at"));
    assert_eq!(left, ["core"]);
}

#[test]
fn the_runtimes_own_words() {
    let (_scratch, dir) = Dnd::scratch();
    must(fs::create_dir(dir.join("out")), "a folder");
    fake(&dir, |asked| {
        must(fs::write(asked.path(), "half"), "write");
        asked.answer(&fake_runtime::failure(
            "[createdump] ptrace(ATTACH, 7) FAILED Operation not permitted\n\x1b[31m",
        ));
    });
    let error = collect_fake(&dir).run().fails(7);
    assert!(error.contains("E_FAIL (0x80004005), [createdump] ptrace(ATTACH, 7) FAILED"), "{error}");
    assert!(error.contains("SYS_PTRACE") && !error.contains('\x1b'), "{error}");
    assert_eq!(names(&dir.join("out")), [""; 0]);
}

#[test]
fn a_target_that_ends_meanwhile() {
    let (_scratch, dir) = Dnd::scratch();
    must(fs::create_dir(dir.join("out")), "a folder");
    fake(&dir, |asked| {
        must(fs::write(asked.path(), "half"), "write");
        drop(asked);
    });
    let error = collect_fake(&dir).run().fails(7);
    assert!(error.contains("closed the connection without answering"), "{error}");
    assert_eq!(names(&dir.join("out")), [""; 0]);
}

#[test]
fn interrupted() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let (_scratch, dir) = Dnd::scratch();
        let out = dir.join("out");
        must(fs::create_dir(&out), "a folder");
        let (writes, written) = channel();
        let (leaves, left) = channel();
        let (tries, tried) = channel();
        let left = std::sync::Mutex::new(left);
        fake(&dir, move |asked| {
            let path = asked.path();
            must(fs::write(&path, "half"), "write");
            must(writes.send(()), "send");
            asked.wait_closed();
            // A runtime goes on all the same.
            must(must(left.lock(), "lock").recv(), "receive");
            must(tries.send(fs::write(&path, "more").is_ok()), "send");
        });
        let running = collect_fake(&dir).spawn();
        must(written.recv_timeout(dnd_testkit::DEADLINE), "the dump was never begun");
        assert_eq!(names(&out).len(), 1);
        running.signal(signal);
        let error = running.wait().fails(7);
        assert!(error.contains("cancelled: no dump was written") && error.contains("stand still"), "{error}");
        assert_eq!(names(&out), [""; 0]);
        // There is no folder left that it could write into.
        must(leaves.send(()), "send");
        assert!(!must(tried.recv_timeout(dnd_testkit::DEADLINE), "the connection was never closed"));
        assert_eq!(names(&out), [""; 0]);
    }
}

#[test]
fn a_host_that_can_not_be_seen() {
    let (_scratch, dir) = Dnd::scratch();
    fake_runtime::serve(&dir, |asked| asked.answer(&fake_runtime::process_info("8.0.4")));
    let pid = std::process::id().to_string();
    let error = fake_runtime::dnd(&dir).args(["dump", "collect", "-p", &pid]).dir(&dir).run().fails(4);
    assert!(
        error.contains("may not be looked into; if it is a single-file application of .NET 8.0.4"),
        "{error}"
    );
    assert!(error.contains("--force"), "{error}");
}
