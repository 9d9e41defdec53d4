//! What `dump analyze` opens, and what it says of files that are no cores, or not whole ones.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use dnd_testkit::{CoreSpec, Dnd, Output, must, one_per_major};
use nix::sys::stat::Mode;

use super::DND;
use super::analyze::leak;

/// An answer to a file that is no core.
fn refused(name: &str, content: &[u8], code: i32, words: &[&str]) {
    let (_scratch, folder) = Dnd::scratch();
    let path = folder.join(name);
    must(fs::write(&path, content), "can't write");
    let error =
        Dnd::new(DND).args(["dump", "analyze"]).arg(&path).args(["-c", "dumpheap -stat"]).run().fails(code);
    for word in words {
        assert!(error.contains(word), "{name}: {error}");
    }
}

#[test]
fn files_that_are_no_cores() {
    refused("core_empty", b"", 6, &["core_empty", "empty"]);
    refused("core_text", b"hello, this is no core\n", 5, &["core_text", "not an ELF file"]);
    let dnd = must(fs::read(DND), "the binary");
    refused("core_program", &dnd, 5, &["core_program", "not a core dump"]);
    refused("core_cut", dnd.get(..40).expect("a head"), 5, &["core_cut"]);
    let missing =
        Dnd::new(DND).args(["dump", "analyze", "/nonexistent/core", "-c", "eeversion"]).run().fails(3);
    assert!(missing.contains("/nonexistent/core"), "{missing}");
    // A folder of the name is a file.
    let missing = Dnd::new(DND).args(["dump", "info"]).arg(Path::new(DND).join("core")).run().fails(3);
    assert!(missing.contains("Not a directory"), "{missing}");
    // A pipe that nobody writes to is not waited for.
    let (_scratch, folder) = Dnd::scratch();
    let pipe = folder.join("core");
    must(nix::unistd::mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR), "mkfifo");
    let error = Dnd::new(DND).args(["dump", "info"]).arg(&pipe).run().fails(2);
    assert!(error.contains("not a regular file"), "{error}");
}

#[test]
fn a_core_cut_off_anywhere_ends_in_a_sentence() {
    let Some(runtime) = one_per_major().pop() else { return };
    let core = leak(&runtime, CoreSpec::default());
    let whole = must(fs::read(core.path()), "the core");
    let (_scratch, folder) = Dnd::scratch();
    let path = folder.join("core");
    let shares = [0.9, 0.5, 0.2, 0.05, 0.01];
    let lengths =
        shares.iter().map(|share| (whole.len() as f64 * share) as usize).chain([5000, 1000, 65, 64, 63, 17]);
    for length in lengths {
        must(fs::write(&path, whole.get(..length).expect("shorter")), "can't write");
        let commands = [
            "-c",
            "dumpheap -stat",
            "-c",
            "gchandles -stat",
            "-c",
            "clrthreads",
            "-c",
            "finalizequeue -stat",
        ];
        let Output { code, stderr, .. } =
            Dnd::new(DND).args(["dump", "analyze"]).arg(&path).args(commands).run();
        assert!(code == Some(0) || stderr.contains("error:"), "{length}: {code:?} {stderr}");
        assert!(code != Some(101) && code.is_some(), "{length}: {code:?} {stderr}");
    }
}

#[test]
fn a_process_without_dotnet() {
    let Some(runtime) = one_per_major().pop() else { return };
    let core = leak(&runtime, CoreSpec::default());
    // A core of a process without the runtime's files: the names of all mapped files are changed.
    let mut bytes = must(fs::read(core.path()), "the core");
    for at in 0..bytes.len().saturating_sub(13).min(1 << 20) {
        if bytes.get(at..at + 13) == Some(b"libcoreclr.so") {
            bytes.splice(at..at + 13, *b"libnothing.so");
        }
    }
    let (_scratch, folder) = Dnd::scratch();
    let path = folder.join("core");
    must(fs::write(&path, bytes), "can't write");
    let output = Dnd::new(DND).args(["dump", "analyze"]).arg(&path).args(["-c", "eeversion"]).run();
    // The runtime may still be found by its symbols, as that of a single-file program.
    assert!(
        output.code == Some(3) && output.stderr.contains("no .NET runtime") || output.code == Some(0),
        "{}",
        output.stderr
    );
}

#[test]
fn the_newest_core_here_is_opened() {
    let Some(runtime) = one_per_major().pop() else { return };
    let core = leak(&runtime, CoreSpec::default());
    let (_scratch, folder) = Dnd::scratch();
    let none = Dnd::new(DND).args(["dump", "analyze", "-c", "eeversion"]).dir(&folder).run().fails(3);
    assert!(none.contains("core_*") && none.contains("hint:"), "{none}");
    must(fs::write(folder.join("core_20200101_000000"), b""), "can't write");
    let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let old = must(fs::File::options().append(true).open(folder.join("core_20200101_000000")), "can't open");
    must(old.set_modified(past), "can't set the time");
    must(fs::write(folder.join("core_29990101_000000.crashreport.json"), b"{}"), "can't write");
    must(symlink(core.path(), folder.join("core_20261122_173000")), "can't link");
    let output = Dnd::new(DND).args(["dump", "analyze", "-c", "eeversion"]).dir(&folder).run();
    assert!(output.stderr.contains("opening core_20261122_173000"), "{}", output.stderr);
    assert!(output.success().contains("Workstation mode"));
}
