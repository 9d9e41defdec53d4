//! `dnd dump collect`: a complete private file under a new name, or none and the reason.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use dnd_testkit::{Dnd, Target, bench, must, one_per_major, runtime, runtimes, single_files, skip};
use serde_json::{Value, json};

use super::DND;
use super::ps::for_everybody;

fn collect(pid: u32) -> Dnd {
    Dnd::new(DND).args(["dump", "collect", "-p", &pid.to_string()])
}

/// All names in a folder.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<_> = must(fs::read_dir(dir), "a folder")
        .map(|entry| must(entry, "an entry").file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    all
}

/// Type of an ELF file, from its header.
fn elf_type(path: &Path) -> u16 {
    let bytes = must(fs::read(path), "the dump");
    assert_eq!(&bytes[..4], b"\x7fELF");
    u16::from_le_bytes([bytes[16], bytes[17]])
}

const ET_CORE: u16 = 4;

#[test]
fn every_type_on_every_runtime() {
    for runtime in runtimes() {
        let mut target = Target::spawn(&runtime, "Leak", &["10", "1"]);
        let (_scratch, dir) = Dnd::scratch();
        let mut sizes = Vec::new();
        for name in ["Full", "Heap", "Mini", "Triage"] {
            let path = dir.join(name);
            let facts = collect(target.pid()).args(["--json", "--type", name, "-o"]).arg(&path).run().json();
            let meta = must(fs::metadata(&path), "the dump");
            assert_eq!(elf_type(&path), ET_CORE);
            // .NET Core 3.1 makes them readable for everybody.
            assert_eq!((meta.mode() & 0o7777, meta.nlink()), (0o600, 1), "{} {name}", runtime.version);
            let expected = json!({
                "schema": "dnd.dump.collect",
                "version": 1,
                "pid": target.pid(),
                "name": "dotnet",
                "runtime_version": runtime.version,
                "dump_type": name.to_lowercase(),
                "path": path,
                "path_in_target": path,
                "size": meta.len(),
                "elapsed_ms": facts["elapsed_ms"],
                "crash_report": null,
                "warnings": [],
            });
            assert_eq!(facts, expected);
            sizes.push(meta.len());
        }
        assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
        assert_eq!(names(&dir), ["Full", "Heap", "Mini", "Triage"]);
        // The target goes on as if nothing had happened.
        assert_eq!(target.ask("more", "leaked "), "20 2");
        assert!(target.stop().success());
    }
}

#[test]
fn the_default_name_here() {
    let Some(runtime) = one_per_major().pop() else { return };
    let target = Target::spawn(&runtime, "Leak", &["1", "1"]);
    let (_scratch, dir) = Dnd::scratch();
    let text = collect(target.pid()).args(["--type", "mini"]).dir(&dir).run().success();
    let found = names(&dir);
    let [name] = found.as_slice() else { panic!("{found:?}") };
    let shape: String = name.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "core_00000000_000000");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("Writing dump to {}", dir.join(name).display()));
    assert!(lines.len() == 2 && lines[1].starts_with("Complete: ") && lines[1].ends_with(" s"), "{text}");
    // Several within the second don't get into each other's way.
    let more: Vec<_> =
        (0..3).map(|_| collect(target.pid()).args(["--type", "mini"]).dir(&dir).spawn()).collect();
    for running in more {
        running.wait().success();
    }
    assert_eq!(names(&dir).len(), 4);
}

#[test]
fn never_over_another_file() {
    let Some(runtime) = one_per_major().pop() else { return };
    let target = Target::spawn(&runtime, "Leak", &["1", "1"]);
    let (_scratch, dir) = Dnd::scratch();
    must(fs::write(dir.join("file"), "old"), "a file");
    must(fs::create_dir(dir.join("folder")), "a folder");
    must(fs::write(dir.join("aim"), "old"), "a file");
    must(symlink(dir.join("aim"), dir.join("link")), "a link");
    must(symlink(dir.join("nothing"), dir.join("dangling")), "a link");
    must(fs::write(dir.join("report.crashreport.json"), "old"), "a file");
    let before = names(&dir);
    for (name, what) in [
        ("file", "a file"),
        ("folder", "a directory"),
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
    ] {
        let error = collect(target.pid()).arg("-o").arg(name).dir(&dir).run().fails(2);
        assert!(error.contains(&format!("{}/{name} exists already: it is {what}", dir.display())), "{error}");
        assert!(error.contains("-o"), "{error}");
    }
    let error = collect(target.pid()).args(["--crashreport", "-o", "report"]).dir(&dir).run().fails(2);
    assert!(error.contains("report.crashreport.json exists already"), "{error}");
    assert_eq!(names(&dir), before);
    for name in ["file", "aim", "report.crashreport.json"] {
        assert_eq!(must(fs::read_to_string(dir.join(name)), name), "old");
    }
}

#[test]
fn a_crash_report_beside_it() {
    for runtime in one_per_major() {
        let target = Target::spawn(&runtime, "Leak", &["1", "1"]);
        let (_scratch, dir) = Dnd::scratch();
        let run = collect(target.pid())
            .args(["--json", "--crashreport", "--type", "Mini", "-o", "core"])
            .dir(&dir)
            .run();
        if runtime.major() < 6 {
            let error = run.fails(2);
            assert!(error.contains("too old to write a crash report"), "{error}");
            assert!(!error.contains("--diag"), "{error}");
            assert_eq!(names(&dir), [""; 0]);
            continue;
        }
        let facts = run.json();
        let report = dir.join("core.crashreport.json");
        assert_eq!(facts["crash_report"], json!(report));
        assert_eq!(must(fs::metadata(&report), "the report").mode() & 0o7777, 0o600);
        let text = must(fs::read_to_string(&report), "the report");
        let parsed: Value = must(serde_json::from_str(&text), "the report");
        assert!(parsed["payload"]["threads"].as_array().is_some_and(|threads| !threads.is_empty()), "{text}");
        assert_eq!(names(&dir), ["core", "core.crashreport.json"]);
    }
}

#[test]
fn the_runtimes_log_goes_to_the_targets_console() {
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 8) {
        let target = Target::spawn(&runtime, "Leak", &["1", "1"]);
        let (_scratch, dir) = Dnd::scratch();
        collect(target.pid()).args(["--diag", "--type", "Mini", "-o", "core"]).dir(&dir).run().success();
        let said = target.stdout() + &target.stderr();
        assert!(said.contains("[createdump]"), "{}: {said}", runtime.version);
    }
}

#[test]
fn names_that_createdump_would_change() {
    for runtime in one_per_major() {
        let target = Target::spawn(&runtime, "Leak", &["1", "1"]);
        let (_scratch, dir) = Dnd::scratch();
        let dir = dir.join("100%d %s%p äöü");
        must(fs::create_dir(&dir), "a folder");
        collect(target.pid()).args(["--type", "Mini", "-o", "%p %e%%.core"]).dir(&dir).run().success();
        assert_eq!(names(&dir), ["%p %e%%.core"], "{}", runtime.version);
    }
}

#[test]
fn folders_that_can_not_be_written_to() {
    let Some(runtime) = one_per_major().pop() else { return };
    let mut target = Target::spawn(&runtime, "Leak", &["1", "1"]);
    let (_scratch, dir) = Dnd::scratch();
    must(fs::write(dir.join("file"), ""), "a file");
    let run = |path: &str| collect(target.pid()).arg("-o").arg(path).dir(&dir).run();
    let error = run("missing/core").fails(3);
    assert!(
        error.contains(&format!("{}/missing", dir.display())) && error.contains("No such file"),
        "{error}"
    );
    assert!(run("file/core").fails(3).contains("Not a directory"));
    assert!(run("folder/").fails(2).contains("not a file name"));
    assert!(run("..").fails(2).contains("not a file name"));
    // A file system that nobody can write to.
    let error = run("/proc/core");
    assert!(error.code != Some(0) && error.stderr.contains("directory /proc"), "{}", error.stderr);
    assert_eq!(names(&dir), ["file"]);
    assert!(target.alive());
}

#[test]
fn a_target_that_may_not_enter_the_folder() {
    if !nix::unistd::geteuid().is_root() {
        return skip("targets of other users: only root can start them");
    }
    let Some(app) = single_files().into_iter().find(|app| app.name.starts_with("singlefile-10")) else {
        return;
    };
    let open = std::env::temp_dir().join(format!("dnd-collect-{}", std::process::id()));
    must(fs::create_dir(&open), "a folder");
    must(fs::copy(&app.path, open.join("Service")), "copy");
    let app = dnd_testkit::SingleFile { path: open.join("Service"), ..app };
    let target = app.builder(1).as_user(65534).spawn();
    let private = open.join("private");
    must(fs::create_dir(&private), "a folder");
    must(fs::set_permissions(&private, PermissionsExt::from_mode(0o700)), "chmod");
    let refused = collect(target.pid()).args(["-o", "core"]).dir(&private).run();
    let left = names(&private);
    // In a folder that is not the target's, but that it may enter, it may write into its own private one.
    let written = collect(target.pid()).args(["--json", "-o", "core"]).dir(&open).run();
    let owner = fs::metadata(open.join("core")).map(|meta| (meta.uid(), meta.mode() & 0o7777));
    must(fs::remove_dir_all(&open), "rm");
    let error = refused.fails(7);
    assert!(
        error.contains(&format!("runs as user 65534, who may not enter {}", private.display())),
        "{error}"
    );
    assert_eq!(left, [""; 0]);
    written.json();
    assert_eq!(must(owner, "the dump"), (65534, 0o600));
}

#[test]
fn the_same_user_needs_no_root() {
    let Some((dir, exe)) = for_everybody() else { return };
    for app in single_files().into_iter().filter(|app| !app.native_aot()) {
        let path = dir.0.join(&app.name);
        must(fs::copy(&app.path, &path), "copy");
        let app = dnd_testkit::SingleFile { path, ..app };
        let target = app.builder(1).as_user(65534).spawn();
        let core = dir.0.join(format!("{}.core", app.name));
        let facts = Dnd::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&exe)
            .args(["dump", "collect", "--json", "--force", "-p", &target.pid().to_string(), "-o"])
            .arg(&core)
            .run()
            .json();
        let meta = must(fs::metadata(&core), "the dump");
        assert_eq!(
            (meta.uid(), meta.mode() & 0o7777, json!(meta.len())),
            (65534, 0o600, facts["size"].clone())
        );
        assert_eq!(elf_type(&core), ET_CORE);
    }
}

#[test]
fn full_and_read_only_disks() {
    for runtime in one_per_major() {
        let Some(target) = Target::builder(&runtime, "Leak").args(&["1", "1"]).in_container() else { return };
        let target = target.spawn();
        let script = "mkdir /tmp/full /tmp/ro && mount -t tmpfs -o size=1m tmpfs /tmp/full && \
                      mount -t tmpfs -o ro tmpfs /tmp/ro";
        let mounted = target.beside(Path::new("sh")).args(["-c", script]).status();
        assert!(must(mounted, "mount").success());
        let full = target.tmp().join("full");
        let run =
            |args: &[&str]| Dnd::beside(DND, &target).args(["dump", "collect", "-p", "1"]).args(args).run();

        // What surely won't fit is not tried.
        let error = run(&["-o", "/tmp/full/core"]).fails(7);
        assert!(
            error.contains("a full dump needs at least") && error.contains("1.05 MB are free"),
            "{error}"
        );
        assert!(error.contains("--type Heap"), "{error}");
        // What is tried fails, tells why, and leaves nothing.
        for args in [&["-o", "/tmp/full/core", "--force"][..], &["-o", "/tmp/full/core", "--type", "Heap"]] {
            let error = run(args).fails(7);
            assert!(error.contains("the disk is full"), "{}: {error}", runtime.version);
            assert_eq!(names(&full), [""; 0]);
        }
        let error = run(&["-o", "/tmp/ro/core"]).fails(4);
        assert!(error.contains("Read-only file system") && error.contains("mounted volume"), "{error}");
        // The same seen from outside.
        let outside = collect(target.pid()).args(["-o", "/tmp/ro/core"]).run().fails(4);
        assert!(outside.contains(&format!("/proc/{}/root/tmp/ro", target.pid())), "{outside}");
    }
}

#[test]
fn single_files_are_refused_unless_forced() {
    for app in single_files() {
        let mut target = app.builder(1).spawn();
        let (_scratch, dir) = Dnd::scratch();
        let run = |args: &[&str]| collect(target.pid()).args(args).args(["-o", "core"]).dir(&dir).run();
        let version = app.name.rsplit('-').next().expect("a version");
        if app.native_aot() {
            for args in [&[][..], &["--force"]] {
                let error = run(args).fails(5);
                assert!(error.contains("NativeAOT") && error.contains("gcore"), "{error}");
            }
        } else if version.starts_with("10.") {
            let text = run(&[]).success();
            assert!(text.contains("Complete"), "{text}");
        } else {
            let error = run(&[]).fails(5);
            assert!(error.contains(&format!("single-file application on .NET {version}")), "{error}");
            assert!(
                error.contains("crashes in a later event session") && error.contains("--force"),
                "{error}"
            );
            assert!(run(&["--type", "Heap"]).fails(5).contains("for a heap dump, writes nothing"));
            assert_eq!(names(&dir), [""; 0]);
            // The runtime says "done".
            let error = run(&["--type", "Heap", "--force"]).fails(7);
            assert!(
                error.contains("warning: ") && error.contains("reports success, but wrote nothing"),
                "{error}"
            );
            assert!(error.contains("--type Full"), "{error}");
            assert_eq!(names(&dir), [""; 0]);
            let forced = run(&["--force", "--json"]);
            assert!(forced.stderr.contains("can crash it until it is restarted"), "{}", forced.stderr);
            let facts = forced.json();
            assert_eq!(facts["warnings"].as_array().map(Vec::len), Some(1));
            assert_eq!(elf_type(&dir.join("core")), ET_CORE);
        }
        assert!(target.alive(), "{}", app.name);
    }
}

#[test]
fn a_target_in_a_debugger() {
    let Some(runtime) = one_per_major().pop() else { return };
    let target = Target::spawn(&runtime, "Leak", &["1", "1"]);
    let strace = std::process::Command::new("strace")
        .args([
            "-f",
            "-e",
            "trace=none",
            "-e",
            "signal=none",
            "-o",
            "/dev/null",
            "-p",
            &target.pid().to_string(),
        ])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let Ok(mut strace) = strace else { return skip("targets in a debugger: there is no strace") };
    // It says so when it is attached.
    let mut line = String::new();
    let mut stderr = std::io::BufReader::new(strace.stderr.take().expect("a pipe"));
    must(std::io::BufRead::read_line(&mut stderr, &mut line), "strace");
    let (_scratch, dir) = Dnd::scratch();
    let run = collect(target.pid()).args(["--type", "Mini", "-o", "core"]).dir(&dir).run();
    must(strace.kill(), "kill");
    must(strace.wait(), "wait");
    assert!(line.contains("attached"), "{line}");
    let error = run.fails(7);
    assert!(error.contains("is being traced by process"), "{error}");
    assert_eq!(names(&dir), [""; 0]);
}

#[test]
fn a_progress_line_on_a_terminal_only() {
    let Some(runtime) = one_per_major().pop() else { return };
    let target = Target::spawn(&runtime, "Leak", &["1", "1"]);
    let (_scratch, dir) = Dnd::scratch();
    let piped = collect(target.pid()).args(["-o", "piped"]).dir(&dir).run();
    assert_eq!(piped.stderr, "");
    piped.success();
    let mut screen = collect(target.pid()).args(["-o", "shown"]).dir(&dir).pty(24, 100);
    assert!(screen.wait_end().success());
    assert!(screen.raw().contains("the process stands still"), "{}", screen.raw());
    // At its end the line is gone.
    assert!(!screen.text().contains("stands still"), "{}", screen.text());
}

#[test]
fn a_runtime_without_createdump() {
    let Some(runtime) = runtime("3.1.23").or_else(|| one_per_major().pop()) else { return };
    // A copy of the runtime, by links, without the program.
    let scratch = must(bench().scratch("bare"), "no scratch directory");
    let bare = scratch.path().join("dotnet");
    copy_links(runtime.host().parent().expect("a folder"), &bare);
    let original = runtime.createdump();
    let createdump =
        bare.join(must(original.strip_prefix(runtime.host().parent().expect("a folder")), "a path inside"));
    let dotnet = dnd_testkit::Runtime { root: bare, ..runtime };
    // The host insists on it; the runtime looks for it only when it is needed.
    let target = Target::spawn(&dotnet, "Leak", &["1", "1"]);
    let (_out, dir) = Dnd::scratch();
    let run = || collect(target.pid()).args(["-o", "core"]).dir(&dir).run().fails(5);
    must(fs::remove_file(&createdump), "rm");
    let error = run();
    assert!(error.contains(&format!("{} is missing", createdump.display())), "{error}");
    must(fs::write(&createdump, "#!/bin/sh\n"), "write");
    must(fs::set_permissions(&createdump, PermissionsExt::from_mode(0o644)), "chmod");
    let error = run();
    assert!(error.contains(&format!("{} is not executable", createdump.display())), "{error}");
    assert_eq!(names(&dir), [""; 0]);
    // The runtime was not asked: it would have forked a child that hangs.
    let forked = format!("/proc/{0}/task", target.pid());
    for task in names(Path::new(&forked)) {
        assert_eq!(must(fs::read_to_string(format!("{forked}/{task}/children")), "children"), "");
    }
    // Put back as the hint says.
    must(fs::remove_file(&createdump), "rm");
    must(fs::copy(&original, &createdump), "copy");
    collect(target.pid()).args(["--type", "Mini", "-o", "core"]).dir(&dir).run().success();
}

/// The same tree, with hard links for files.
fn copy_links(from: &Path, to: &Path) {
    must(fs::create_dir(to), "a folder");
    for entry in must(fs::read_dir(from), "a folder") {
        let entry = must(entry, "an entry");
        let dest = to.join(entry.file_name());
        if must(entry.file_type(), "its type").is_dir() {
            copy_links(&entry.path(), &dest);
        } else {
            let real = must(fs::canonicalize(entry.path()), "a file");
            must(fs::hard_link(real, dest), "a link");
        }
    }
}
