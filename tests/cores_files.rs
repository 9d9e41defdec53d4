//! Cores and the files that they need besides: modules on other machines, of other builds, programs that are their own
//! runtime.

use std::path::Path;
use std::process::Command;

use dnd_testkit::{
    By, CoreSpec, Dnd, Kind, Output, Runtime, SingleFile, must, one_per_major, runtimes, single_file_core,
    single_files, skip,
};
use serde_json::{Value, json};

use super::DND;
use super::cores::rewrite::carried_away;
use super::cores::{COMMANDS, analyze, info, keeps_its_word, leak, orders};

#[test]
fn module_files_elsewhere() {
    for runtime in one_per_major() {
        let core = leak(&runtime, CoreSpec { by: By::Gcore, kind: Kind::Full, ..CoreSpec::default() });
        let here = info(&core.path());
        let app = here["process"]["arguments"][1].as_str().unwrap_or_default().to_owned();
        let app = Path::new(&app).parent().unwrap_or(Path::new("/"));
        let (_scratch, folder) = Dnd::scratch();
        let moved = folder.join("core");
        carried_away(&core.path(), &moved);
        let what = &runtime.version;
        if runtime.major() > 3 {
            let alone = info(&moved);
            let missing = alone["modules"]["without_metadata"].as_array().map_or(0, Vec::len);
            assert!(missing > 3, "{what}: {alone}");
            assert!(alone["limits"].to_string().contains("metadata"), "{what}: {alone}");
            assert!(alone["files"].to_string().contains("not_found"), "{what}: {alone}");
            let text = Dnd::new(DND).args(["dump", "info"]).arg(&moved).run().success();
            assert!(
                text.contains("--modules FOLDER") && text.contains("incomplete: dumpheap"),
                "{what}: {text}"
            );
            assert_eq!(orders(&moved), 0, "{what}: names without metadata");
        }
        let found = Dnd::new(DND).args(["dump", "info", "--json"]).arg(&moved);
        let found = found.arg("--modules").arg(runtime.framework()).arg("--sysroot").arg(app).run().json();
        assert_eq!(found["modules"]["without_metadata"], json!([]), "{what}: {found}");
        let stat = Dnd::new(DND).args(["dump", "analyze", "-c", "dumpheap -stat"]).arg(&moved);
        let stat = stat.arg("--modules").arg(runtime.framework()).arg("--modules").arg(app).run().success();
        let line = stat.lines().find(|line| line.ends_with(" Shop.Order")).unwrap_or_default();
        assert!(line.contains(" 1,000 "), "{what}: {stat}");
        let wrong = Dnd::new(DND).args(["dump", "info", "--modules", "/nonexistent"]).arg(&moved).run();
        assert!(wrong.fails(3).contains("/nonexistent is not a folder"));
    }
}

#[test]
fn modules_of_another_build_are_refused() {
    let mut all = runtimes();
    all.retain(|runtime| runtime.major() == 8);
    let [older, .., newer] = all.as_slice() else {
        return skip("modules of another build: one runtime of 8 only");
    };
    let core = leak(newer, CoreSpec { by: By::Gcore, kind: Kind::Full, ..CoreSpec::default() });
    let (_scratch, folder) = Dnd::scratch();
    let moved = folder.join("core");
    carried_away(&core.path(), &moved);
    let answer = Dnd::new(DND).args(["dump", "info", "--json"]).arg(&moved);
    let answer = answer.arg("--modules").arg(older.framework()).run().json();
    // By its build-id, or by the number of its types: never used for names.
    let files = answer["files"].as_array().cloned().unwrap_or_default();
    let verdict = |name: &str| {
        let file = files.iter().find(|f| f["target_path"].as_str().is_some_and(|path| path.ends_with(name)));
        file.map(|file| file["verdict"].clone()).unwrap_or_default()
    };
    assert_eq!(verdict("/libcoreclr.so"), "refused", "{answer}");
    let without = answer["modules"]["without_metadata"].to_string();
    assert!(without.contains("System.Private.CoreLib.dll"), "{answer}");
}

/// Heap dumps of 3.1 have the names of the framework's types only in its files, which must be the same ones.
#[test]
fn names_of_old_heap_dumps_come_from_the_same_files_only() {
    let mut all = runtimes();
    all.retain(|runtime| runtime.major() == 3);
    let [older, .., newer] = all.as_slice() else {
        return skip("modules of another build: one runtime of 3.1 only");
    };
    let core = leak(newer, CoreSpec::default());
    let (_scratch, folder) = Dnd::scratch();
    let moved = folder.join("core");
    carried_away(&core.path(), &moved);
    let with = |command: &[&str], runtime: &Runtime| {
        let dnd = Dnd::new(DND).args(["dump"]).args(command).arg(&moved).arg("--modules");
        dnd.arg(runtime.framework()).run().success()
    };
    let info: Value = must(serde_json::from_str(&with(&["info", "--json"], older)), "info");
    let refused = |file: &Value| {
        let core_library = file["target_path"].as_str().is_some_and(|path| path.ends_with(".CoreLib.dll"));
        core_library && file["verdict"] == "refused" && file["detail"].to_string().contains("time stamp")
    };
    assert!(info["files"].as_array().is_some_and(|files| files.iter().any(refused)), "{info}");
    let stat = ["analyze", "-c", "dumpheap -stat"];
    let (strange, own) = (with(&stat, older), with(&stat, newer));
    assert!(strange.contains("<no metadata, ") && !strange.contains(" System.String\n"), "{strange}");
    assert!(own.contains(" System.String\n") && !own.contains("<no metadata, "), "{own}");
}

#[test]
fn programs_that_bring_their_runtime() {
    for program in single_files().into_iter().filter(|program| !program.native_aot()) {
        for by in [By::Createdump, By::Gcore] {
            let Some(core) = program.core(by) else { continue };
            let facts = info(&core.path());
            let what = format!("{} {by:?}: {facts}", program.name);
            let version = program.name.rsplit('-').next().unwrap_or_default();
            assert_eq!(facts["runtime"]["single_file"], true, "{what}");
            assert_eq!(facts["runtime"]["version"], version, "{what}");
            assert_eq!(facts["modules"]["without_metadata"], json!([]), "{what}");
            assert_eq!(facts["problem"], Value::Null, "{what}");
            keeps_its_word(&facts, &core.path(), &what);
            let stat = analyze(&core.path(), &["dumpheap -stat"]).run().success();
            for (count, name) in [("777", "Service.Widget"), ("33", "Service.Gadget<System.Int32>")] {
                let found = stat
                    .lines()
                    .any(|line| line.ends_with(&format!(" {name}")) && line.contains(&format!(" {count} ")));
                assert!(found, "{what}: {count} {name}\n{stat}");
            }
            // Without the program's file.
            let (_scratch, folder) = Dnd::scratch();
            let moved = folder.join("core");
            carried_away(&core.path(), &moved);
            if by == By::Createdump {
                // All memory is in it.
                assert_eq!(info(&moved)["limits"], json!([]), "{what}");
            } else {
                let output = Dnd::new(DND).args(["dump", "info"]).arg(&moved).run();
                let said = format!("{}{}", output.stdout, output.stderr);
                match output.code {
                    // Its symbols are on a page that was written to.
                    Some(0) => assert!(said.contains("without metadata"), "{what}: {said}"),
                    Some(3) => assert!(said.contains("/Service are not in it"), "{what}: {said}"),
                    code => panic!("{what}: {code:?} {said}"),
                }
            }
            for command in COMMANDS {
                let Output { code, stderr, .. } = analyze(&moved, &[command]).run();
                assert!(code.is_some_and(|code| [0, 3, 5, 6].contains(&code)), "{what}: {command}: {stderr}");
            }
        }
    }
}

/// .NET 10.0.11, which no library of Microsoft's could be had for, in an app of one file.
#[test]
fn an_app_in_one_file_on_a_runtime_without_a_library() {
    for by in [By::Createdump, By::Gcore] {
        let core = single_file_core("Leak", &["700", "50"], by);
        let facts = info(&core.path());
        let what = format!("{by:?}: {facts}");
        assert_eq!(facts["runtime"]["single_file"], true, "{what}");
        assert_eq!(facts["runtime"]["version"], "10.0.11", "{what}");
        assert_eq!(facts["modules"]["without_metadata"], json!([]), "{what}");
        assert_eq!(orders(&core.path()), 700, "{what}");
        keeps_its_word(&facts, &core.path(), &what);
    }
}

/// createdump's small dumps need the runtime's own library to tell what belongs in them, which such programs lack: much of
/// the runtime's data is missing. That is said, with what to do.
#[test]
fn small_dumps_of_programs_that_bring_their_runtime_say_what_is_missing() {
    for program in single_files().into_iter().filter(|program| !program.native_aot()) {
        let Some(core) = program.core_of(Kind::Heap, By::Createdump) else { continue };
        let Output { code, stdout: what, .. } = Dnd::new(DND).args(["dump", "info"]).arg(core.path()).run();
        if code == Some(0) {
            let facts = info(&core.path());
            assert_eq!(facts["heap"], Value::Null, "{what}");
            keeps_its_word(&facts, &core.path(), &what);
        } else {
            assert!(code == Some(6) && what.contains("no answer: all commands"), "{what}");
        }
        let output = analyze(&core.path(), &["dumpheap -stat"]).run();
        assert!(output.code == Some(6) && output.stderr.contains("--type Full"), "{what}: {}", output.stderr);
        // On another machine.
        let (_scratch, folder) = Dnd::scratch();
        let moved = folder.join("core");
        carried_away(&core.path(), &moved);
        let error = analyze(&moved, &["clrthreads"]).run().fails(3);
        assert!(error.contains("/Service are not in it") && error.contains("--modules FOLDER"), "{error}");
        let there =
            analyze(&moved, &["eeversion"]).arg("--modules").arg(program.path.parent().unwrap_or(&moved));
        assert_eq!(there.run().code, code, "{what}: with the program's file, as where it was written");
    }
}

#[test]
fn native_programs_are_named() {
    for program in single_files().into_iter().filter(SingleFile::native_aot) {
        let target = program.builder(1).spawn();
        let (_scratch, folder) = Dnd::scratch();
        let written =
            Command::new("gcore").arg("-o").arg(folder.join("core")).arg(target.pid().to_string()).output();
        if !written.is_ok_and(|output| output.status.success()) {
            return skip("cores of NativeAOT programs: gcore does not work on this machine");
        }
        let path = folder.join(format!("core.{}", target.pid()));
        let error = analyze(&path, &["eeversion"]).run().fails(3);
        assert!(error.contains("NativeAOT"), "{}: {error}", program.name);
    }
}
