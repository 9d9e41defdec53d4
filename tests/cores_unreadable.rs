//! What `dump info` says of files that are no cores, of cores without .NET, and of runtimes that have no table.

use std::fs;
use std::process::Command;

use dnd_testkit::{CoreSpec, Dnd, must, one_per_major, skip};
use serde_json::{Value, json};

use super::DND;
use super::cores::rewrite::{Segments, carried_away_in_place, renamed};
use super::cores::{analyze, leak, limited};

#[test]
fn a_dump_without_anything_to_say() {
    let (_scratch, folder) = Dnd::scratch();
    let path = folder.join("core");
    let dnd = must(fs::read(DND), "the binary");
    for (bytes, code, words) in [
        (&b""[..], 6, "is empty"),
        (b"hello, this is no core\n", 5, "not an ELF file"),
        (&dnd, 5, "not a core dump"),
        (b"MDMP and more", 5, "a Windows minidump"),
    ] {
        must(fs::write(&path, bytes), "can't write");
        let error = Dnd::new(DND).args(["dump", "info", "--json"]).arg(&path).run().fails(code);
        assert!(error.contains(words), "{error}");
    }
    let error = Dnd::new(DND).args(["dump", "info", "/nonexistent/core"]).run().fails(3);
    assert!(error.contains("/nonexistent/core"), "{error}");
    // Of a process that has nothing to do with .NET.
    let mut sleeper = must(Command::new("sleep").arg("600").spawn(), "can't run sleep");
    let written =
        Command::new("gcore").arg("-o").arg(folder.join("sleep")).arg(sleeper.id().to_string()).output();
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    if !written.is_ok_and(|output| output.status.success()) {
        return skip("a core without .NET: gcore does not work on this machine");
    }
    let path = folder.join(format!("sleep.{}", sleeper.id()));
    let output = Dnd::new(DND).args(["dump", "info", "--json"]).arg(&path).run();
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    let info: Value = must(serde_json::from_str(&output.stdout), "info");
    assert_eq!((&info["runtime"], &info["dump"]["kind"]), (&Value::Null, &json!("unknown")), "{info}");
    assert_eq!(info["process"]["arguments"], json!(["sleep", "600"]), "{info}");
    assert!(info["problem"]["text"].to_string().contains("no .NET runtime"), "{info}");
    assert!(limited(&info, "dumpheap", "unavailable"), "{info}");
}

#[test]
fn a_runtime_that_nobody_knows() {
    for runtime in one_per_major().into_iter().filter(|runtime| runtime.major() >= 8) {
        let core = leak(&runtime, CoreSpec::default());
        let mut segments = Segments::of(&core.path());
        let place = {
            use dnd_memory::{Core, ElfImage, Memory, Target};
            let core = must(Core::open(&core.path()), "the core");
            let mapping = core.mappings().iter().find(|m| m.offset == 0 && m.file_name() == "libcoreclr.so");
            let base = mapping.map_or(0, |mapping| mapping.start);
            let image = must(ElfImage::at(&core, base), "the image");
            let table =
                must(image.symbol(&core, "g_dacTable"), "its symbols").map_or(0, |table| table.address);
            let value = table - image.bias();
            let entry = image.range().step_by(8).find(|&at| core.u64(at) == Ok(value)).unwrap_or_default();
            segments.offset(entry + 8).unwrap_or_default() as usize
        };
        segments.bytes[place..place + 8].copy_from_slice(&4000u64.to_le_bytes());
        let (_scratch, folder) = Dnd::scratch();
        let path = folder.join("core");
        must(fs::write(&path, &segments.bytes), "can't write");
        // Without the runtime's file there is no descriptor, either.
        carried_away_in_place(&path);
        let output = Dnd::new(DND).args(["dump", "info", "--json"]).arg(&path).run();
        assert_eq!(output.code, Some(5), "{}: {}", runtime.version, output.stderr);
        let info: Value = must(serde_json::from_str(&output.stdout), "info");
        let problem = info["problem"]["text"].as_str().unwrap_or_default();
        assert!(problem.contains("4000 bytes") && problem.contains(&runtime.version), "{info}");
        assert_eq!(info["process"]["pid"], core.pid, "{info}");
        let error = analyze(&path, &["dumpheap -stat"]).run().fails(5);
        assert!(error.contains("4000 bytes") && error.contains("docs/new-runtime.md"), "{error}");
    }
}

/// .NET 7 by its folder: its table is not taken for another version's, and what can be done is said.
#[test]
fn a_version_without_a_table() {
    let Some(runtime) = one_per_major().into_iter().find(|runtime| runtime.major() == 8) else { return };
    let core = leak(&runtime, CoreSpec::default());
    let (_scratch, folder) = Dnd::scratch();
    let path = folder.join("core");
    renamed(&core.path(), &path, "Microsoft.NETCore.App/8.", "Microsoft.NETCore.App/7.");
    let output = Dnd::new(DND).args(["dump", "info", "--json"]).arg(&path).run();
    assert_eq!(output.code, Some(5), "{}", output.stderr);
    let info: Value = must(serde_json::from_str(&output.stdout), "info");
    let version = runtime.version.replacen('8', "7", 1);
    assert!(info["problem"]["text"].as_str().unwrap_or_default().contains(&version), "{info}");
    assert_eq!(info["process"]["pid"], core.pid, "{info}");
    let error = analyze(&path, &["dumpheap -stat"]).run().fails(5);
    assert!(error.contains(".NET 7 there is no table") && error.contains("libmscordaccore.so"), "{error}");
}
