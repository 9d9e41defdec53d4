//! Every kind of core: what `dump info` says of it, and whether that is true of the commands.

pub(crate) mod rewrite;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use dnd_testkit::{
    By, Core, CoreSpec, Dnd, Kind, Output, Runtime, core, kernel_cores, must, one_per_major, runtimes,
    shared_cores, single_files, skip,
};
use serde_json::{Value, json};

use self::rewrite::{Segments, u64_at, with};
use super::DND;

/// Commands of each part of a dump; none needs an address.
pub(crate) const COMMANDS: [&str; 6] =
    ["dumpheap -stat", "eeheap -gc", "gchandles -stat", "finalizequeue -stat", "clrthreads", "clrmodules"];

pub(crate) fn leak(runtime: &Runtime, spec: CoreSpec) -> Core {
    core(runtime, "Leak", &CoreSpec { args: vec!["1000".to_owned(), "100".to_owned()], ..spec })
}

fn newest() -> Option<Runtime> {
    one_per_major().pop()
}

pub(crate) fn info(core: &Path) -> Value {
    let answer = Dnd::new(DND).args(["dump", "info", "--json"]).arg(core).run().json();
    assert_eq!((&answer["schema"], &answer["version"]), (&json!("dnd.dump.info"), &json!(1)));
    answer
}

pub(crate) fn analyze(core: &Path, commands: &[&str]) -> Dnd {
    let dnd = Dnd::new(DND).args(["dump", "analyze"]).arg(core);
    commands.iter().fold(dnd, |dnd, command| dnd.args(["-c", command]))
}

/// Whether `dump info` says that a command suffers so much.
pub(crate) fn limited(info: &Value, command: &str, severity: &str) -> bool {
    let name = command.split(' ').next().unwrap_or(command);
    info["limits"].as_array().is_some_and(|limits| {
        limits.iter().any(|limit| {
            let commands = limit["commands"].as_array().map(Vec::as_slice).unwrap_or_default();
            limit["severity"] == severity && (commands.is_empty() || commands.iter().any(|c| c == name))
        })
    })
}

/// What `dump info` says of the commands is what they do.
pub(crate) fn keeps_its_word(info: &Value, core: &Path, what: &str) {
    for command in COMMANDS {
        let Output { code, stderr, .. } = analyze(core, &[command]).run();
        let says = |severity| limited(info, command, severity);
        if says("unavailable") {
            assert!(code == Some(6) && stderr.contains("error:"), "{what}: {command}: {code:?} {stderr}");
        } else {
            let partial = says("partial") && code == Some(6);
            assert!(code == Some(0) || partial, "{what}: {command}: {code:?} {stderr}");
        }
    }
}

/// The same of every command that can be asked without an address.
#[test]
fn what_every_command_can_say() {
    let mut cores = Vec::new();
    for runtime in one_per_major() {
        for kind in [Kind::Mini, Kind::Triage, Kind::Heap, Kind::Full] {
            cores.push(leak(&runtime, CoreSpec { kind, ..CoreSpec::default() }).path());
        }
        cores
            .push(leak(&runtime, CoreSpec { by: By::Gcore, kind: Kind::Full, ..CoreSpec::default() }).path());
    }
    for program in single_files().iter().filter(|program| !program.native_aot()) {
        cores.extend(program.core_of(Kind::Heap, By::Createdump).map(|core| core.path()));
    }
    cores.extend(shared_cores().into_iter().map(|core| core.path));
    let Some(first) = cores.first() else { return };
    let help = analyze(first, &["help"]).args(["--json"]).run().json();
    let commands = help["commands"].as_array().cloned().unwrap_or_default();
    assert!(commands.len() > 50, "{help}");
    for core in cores {
        let info = Dnd::new(DND).args(["dump", "info", "--json"]).arg(&core).run();
        let info: Value = must(serde_json::from_str(&info.stdout), &info.stderr);
        for command in &commands {
            let name = command["names"][0].as_str().unwrap_or_default();
            let usage = command["usage"].as_str().unwrap_or_default();
            let Output { code, stderr, .. } = analyze(&core, &[name]).run();
            let says = |severity| limited(&info, name, severity);
            let fits = match code {
                Some(0) => !says("unavailable"),
                Some(6) => says("unavailable") || says("partial"),
                // Nothing to tell of, and an operand that is not given.
                Some(3) => ["printexception", "crashinfo"].contains(&name),
                Some(2) => usage.contains(" <"),
                _ => false,
            };
            assert!(fits, "{}: {name} ends with {code:?}: {stderr}\n{}", core.display(), info["limits"]);
        }
    }
}

pub(crate) fn orders(core: &Path) -> u64 {
    let answer = analyze(core, &["dumpheap -stat"]).args(["--json"]).run().json();
    let types = answer["statistics"]["types"].as_array().cloned().unwrap_or_default();
    types.iter().filter(|t| t["type"] == "Shop.Order").filter_map(|t| t["count"].as_u64()).sum()
}

#[test]
fn every_type_of_createdump_is_recognised() {
    for runtime in runtimes() {
        for (kind, name) in
            [(Kind::Mini, "mini"), (Kind::Triage, "triage"), (Kind::Heap, "heap"), (Kind::Full, "full")]
        {
            let core = leak(&runtime, CoreSpec { kind, ..CoreSpec::default() });
            let info = info(&core.path());
            let what = format!("{} {name}: {info}", runtime.version);
            let name = match name {
                "mini" | "triage" if runtime.major() == 3 => "mini-or-triage",
                name => name,
            };
            assert_eq!(info["dump"]["written_by"], "createdump", "{what}");
            assert_eq!(info["dump"]["kind"], name, "{what}");
            assert_eq!(info["complete"], true, "{what}");
            assert_eq!(info["process"]["pid"], core.pid, "{what}");
            assert_eq!(info["process"]["arguments_from"], "stack", "{what}");
            let arguments = info["process"]["arguments"].as_array().cloned().unwrap_or_default();
            assert!(arguments.ends_with(&[json!("1000"), json!("100")]), "{what}");
            assert_eq!(info["signal"], Value::Null, "{what}");
            assert_eq!(info["runtime"]["rid"], "linux-x64", "{what}");
            assert_eq!(info["runtime"]["libc"], "glibc", "{what}");
            assert_eq!(info["runtime"]["version"], runtime.version, "{what}");
            assert_eq!(info["problem"], Value::Null, "{what}");
            assert_eq!(info["modules"]["without_metadata"], json!([]), "{what}");
            if matches!(kind, Kind::Heap | Kind::Full) {
                assert_eq!(info["limits"], json!([]), "{what}");
                assert_eq!(info["heap"]["present"], info["heap"]["bytes"], "{what}");
            }
            keeps_its_word(&info, &core.path(), &what);
        }
    }
}

/// Where there are exceptions and locks, a Mini dump has some pages of the heap.
#[test]
fn a_mini_dump_with_scraps_of_the_heap_is_one() {
    for runtime in runtimes().into_iter().filter(|runtime| runtime.major() >= 8) {
        let core = core(&runtime, "Shapes", &CoreSpec { kind: Kind::Mini, ..CoreSpec::default() });
        let info = info(&core.path());
        let number = |name: &str| info["heap"][name].as_u64().expect("a number");
        assert!(number("present") > 0 && number("present") < number("bytes") / 10, "{info}");
        assert_eq!(info["dump"]["kind"], "mini", "{}: {info}", runtime.version);
        assert!(limited(&info, "dumpheap", "partial"), "{}: {info}", runtime.version);
    }
}

#[test]
fn cores_of_gdb_and_of_the_kernel() {
    let kernel = kernel_cores();
    for runtime in one_per_major() {
        for (by, kind) in [(By::Gcore, Kind::Full), (By::Kernel, Kind::Heap), (By::Kernel, Kind::Full)] {
            if by == By::Kernel && !kernel {
                continue;
            }
            let core = leak(&runtime, CoreSpec { by, kind, ..CoreSpec::default() });
            let info = info(&core.path());
            let what = format!("{} {by:?} {kind:?}: {info}", runtime.version);
            assert_eq!(info["dump"]["written_by"], format!("{by:?}").to_lowercase(), "{what}");
            if by == By::Kernel {
                assert_eq!(
                    (&info["signal"]["number"], &info["signal"]["name"]),
                    (&json!(31), &json!("SIGSYS")),
                    "{what}"
                );
                // Which of its threads takes a signal sent to the process is the kernel's choice.
                let tasks = analyze(&core.path(), &["threads"]).args(["--json"]).run().json();
                let threads = tasks["threads"].as_array().cloned().unwrap_or_default();
                let taker = threads.iter().find(|thread| thread["os_id"] == info["signal"]["thread"]);
                assert!(taker.is_some(), "{what}: {tasks}");
                // The filter decides whether pages that files have, too, are in it.
                let (pages, name) = if kind == Kind::Full { ("all", "full") } else { ("none", "heap") };
                assert_eq!(
                    (&info["dump"]["file_pages"], &info["dump"]["kind"]),
                    (&json!(pages), &json!(name)),
                    "{what}"
                );
            } else {
                assert_eq!(info["signal"], Value::Null, "{what}");
            }
            assert_eq!(info["modules"]["without_metadata"], json!([]), "{what}");
            assert_eq!(orders(&core.path()), 1000, "{what}");
            keeps_its_word(&info, &core.path(), &what);
        }
    }
}

#[test]
fn more_segments_than_the_header_can_count() {
    let Some(runtime) = newest() else { return };
    let core = leak(&runtime, CoreSpec::default());
    let segments = Segments::of(&core.path());
    const PIECE: u64 = 512;
    let mut headers = Vec::new();
    for (header, offset, size) in &segments.headers {
        if header[0] != 1 {
            headers.push(*header);
            continue;
        }
        let start = u64_at(header, 16);
        for at in (0..*size).step_by(PIECE as usize) {
            let size = PIECE.min(size - at);
            headers.push(with(header, &[(8, offset + at), (16, start + at), (32, size), (40, size)]));
        }
    }
    assert!(headers.len() > 0xffff, "{} segments", headers.len());
    let (_scratch, folder) = Dnd::scratch();
    let path = folder.join("core");
    segments.write(&path, &headers, 0);
    let (whole, split) = (info(&core.path()), info(&path));
    assert_eq!((&split["heap"], &split["limits"]), (&whole["heap"], &json!([])), "{split}");
    assert_eq!(orders(&path), 1000);
}

#[test]
fn more_than_four_gigabytes() {
    let Some(runtime) = newest() else { return };
    let core = leak(&runtime, CoreSpec::default());
    let segments = Segments::of(&core.path());
    // Everything lies behind a hole.
    const HOLE: u64 = 9 << 30;
    let headers: Vec<_> =
        segments.headers.iter().map(|(header, offset, _)| with(header, &[(8, offset + HOLE)])).collect();
    let (_scratch, folder) = Dnd::scratch();
    let path = folder.join("core");
    segments.write(&path, &headers, HOLE);
    let (whole, far) = (info(&core.path()), info(&path));
    assert!(far["file"]["bytes"].as_u64() > Some(HOLE));
    assert_eq!((&far["heap"], &far["limits"]), (&whole["heap"], &json!([])), "{far}");
    assert_eq!(orders(&path), 1000);
}

#[test]
fn packed_cores_are_opened_as_they_are() {
    let Some(runtime) = newest() else { return };
    let core = leak(&runtime, CoreSpec::default());
    let plain = analyze(&core.path(), &COMMANDS).run().success();
    for (program, end, name) in
        [("zstd", "zst", "zstd"), ("gzip", "gz", "gzip"), ("lz4", "lz4", "LZ4"), ("xz", "xz", "xz")]
    {
        let (_scratch, folder) = Dnd::scratch();
        let boot = "0123456789abcdef0123456789abcdef";
        let path = folder.join(format!("core.dotnet.0.{boot}.{}.1763835000000000.{end}", core.pid));
        let packed = must(File::create(&path), "can't create");
        let status = Command::new(program).args(["-q", "-c", "-1"]).arg(core.path()).stdout(packed).status();
        if !status.is_ok_and(|status| status.success()) {
            skip(format_args!("cores packed by {program}: it is not on this machine"));
            continue;
        }
        let temporary = folder.join("tmp");
        must(fs::create_dir(&temporary), "can't make a folder");
        let output = analyze(&path, &COMMANDS).env("TMPDIR", &temporary).run();
        for words in [name, "unpacking", &temporary.to_string_lossy()] {
            assert!(output.stderr.contains(words), "{name}: {}", output.stderr);
        }
        assert_eq!(output.success(), plain, "{name}");
        assert_eq!(must(fs::read_dir(&temporary), "the folder").count(), 0, "{name}: files are left");
        let info = info(&path);
        assert_eq!(
            info["file"]["packed"],
            json!({ "packing": name.to_lowercase(), "damage": null }),
            "{info}"
        );
        assert_eq!(info["taken"], json!({ "at": "2025-11-22T18:10:00Z", "from": "file-name" }), "{info}");

        // Half of it: what came out is used, and it is said.
        let bytes = must(fs::read(&path), "the packed core");
        must(fs::write(&path, bytes.get(..bytes.len() / 2).unwrap_or_default()), "can't write");
        let output = Dnd::new(DND).args(["dump", "info"]).arg(&path).run();
        assert!(output.stderr.contains("warning:"), "{name}: {}", output.stderr);
        assert!(output.stdout.contains("Complete:   no"), "{name}: {}", output.stdout);
        // Next to nothing of it.
        must(fs::write(&path, bytes.get(..40).unwrap_or_default()), "can't write");
        let error = Dnd::new(DND).args(["dump", "info"]).arg(&path).run().fails(6);
        assert!(error.contains("can't be unpacked") || error.contains("damaged"), "{name}: {error}");

        let full =
            Dnd::new(DND).args(["dump", "info"]).arg(&path).env("TMPDIR", "/nonexistent").run().fails(3);
        assert!(full.contains("/nonexistent") && full.contains("TMPDIR"), "{name}: {full}");
    }
}

fn notes_cut(info: &Value) -> bool {
    info["truncation"]["notes"] == true
}

#[test]
fn cut_off_at_many_places() {
    for runtime in one_per_major() {
        let core = leak(&runtime, CoreSpec::default());
        let segments = Segments::of(&core.path());
        let len = segments.bytes.len() as u64;
        // Inside the header, the table, the notes; at the start, in the middle and at the end of segments; by shares.
        let table = u64_at(&segments.bytes, 32);
        let mut cuts = vec![1, 15, 63, 64, table + 1, table + 56 * 2 + 20];
        let many = segments.headers.len() / 6 + 1;
        for (header, offset, size) in segments.headers.iter().step_by(many) {
            cuts.extend([*offset, offset + size / 2, offset + size.saturating_sub(1)]);
            assert!(header[0] <= 4);
        }
        cuts.extend((1..6).map(|share| len * share / 6));
        let (_scratch, folder) = Dnd::scratch();
        let path = folder.join("core");
        must(fs::copy(core.path(), &path), "can't copy");
        let file = must(File::options().write(true).open(&path), "can't open");
        cuts.sort_unstable();
        for cut in cuts.into_iter().rev().filter(|&cut| cut < len) {
            must(file.set_len(cut), "can't cut");
            let what = format!("{} cut at {cut} of {len}", runtime.version);
            let output = Dnd::new(DND).args(["dump", "info", "--json"]).arg(&path).run();
            let Some(code) = output.code else { panic!("{what}: {output:?}") };
            if output.stdout.is_empty() {
                assert!(code == 6 || code == 5, "{what}: {code} {}", output.stderr);
                assert!(output.stderr.starts_with("error: "), "{what}: {}", output.stderr);
                continue;
            }
            let info: Value = must(serde_json::from_str(&output.stdout), &what);
            assert_eq!(info["complete"], false, "{what}: {info}");
            assert_eq!(info["truncation"]["actual"], cut, "{what}: {info}");
            let opened = info["problem"].is_null();
            assert!(if opened { code == 0 } else { [3, 5, 6].contains(&code) }, "{what}: {code} {info}");
            for command in COMMANDS {
                let Output { code, stderr, stdout, .. } = analyze(&path, &[command]).run();
                let ended = code == Some(0) || code.is_some_and(|code| [3, 5, 6].contains(&code));
                assert!(ended, "{what}: {command}: {code:?} {stderr}");
                assert!(stderr.contains("cut off"), "{what}: {command}: {stderr}");
                assert!(code == Some(0) || stderr.contains("error: "), "{what}: {command}: {stderr}{stdout}");
                if limited(&info, command, "unavailable") {
                    assert_ne!(code, Some(0), "{what}: {command}: {info}");
                }
                // The notes say that there was a runtime.
                assert!(
                    !stderr.contains("no .NET runtime was found") || notes_cut(&info),
                    "{what}: {stderr}"
                );
            }
        }
    }
}

#[test]
fn cores_of_other_machines() {
    for shared in shared_cores() {
        let info = info(&shared.path);
        let what = format!("{}: {info}", shared.name);
        let machine = shared.name.split('/').next().unwrap_or_default();
        let (rid, version) = machine.rsplit_once('-').unwrap_or_default();
        assert_eq!(info["runtime"]["rid"], rid, "{what}");
        assert_eq!(info["runtime"]["libc"], if rid.contains("musl") { "musl" } else { "glibc" }, "{what}");
        // Small dumps don't always hold the version; then it isn't invented.
        let found = &info["runtime"]["version"];
        assert!(found.is_null() || found == version, "{what}");
        let by = if shared.name.contains("gcore") { "gcore" } else { "createdump" };
        assert_eq!(info["dump"]["written_by"], by, "{what}");
        if let Some(facts) = &shared.facts {
            assert_eq!(info["process"]["pid"], facts["pid"], "{what}");
            assert_eq!(info["runtime"]["build_id"], facts["runtime_build_id"], "{what}");
            assert_eq!(info["threads"]["native"], facts["os_threads_in_core"], "{what}");
        }
        keeps_its_word(&info, &shared.path, &what);
    }
}

#[test]
fn a_dump_during_a_gc_warns_once() {
    for shared in shared_cores().into_iter().filter(|shared| shared.name.contains("mid-gc")) {
        let info = info(&shared.path);
        assert_eq!(info["heap"]["gc_in_progress"], true, "{info}");
        assert!(info["limits"].to_string().contains("during a GC"), "{info}");
        let output = analyze(&shared.path, &["clrthreads"]).run();
        let warnings = output.stderr.lines().filter(|line| line.starts_with("warning: ")).count();
        assert_eq!(warnings, 1, "{}", output.stderr);
        output.success();
    }
}
