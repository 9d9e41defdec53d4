//! The testkit itself, on the real runtimes of this machine.
use std::io::Read;
use std::path::Path;

use dnd_testkit::{
    By, CoreSpec, Dnd, Key, Kind, Target, core, one_per_major, oracle, runtimes, shared_cores,
    single_file_core, single_files,
};

#[test]
fn every_runtime_runs_a_target_that_tells_the_truth_and_ends_with_its_stdin() {
    for runtime in runtimes() {
        let mut target = Target::builder(&runtime, "Leak").args(&["12", "3"]).own_tmp().spawn();
        assert_eq!(target.truth()["orders"], 12, "{}", runtime.version);
        assert_eq!(target.truth()["version"].as_str(), Some(runtime.version.as_str()));
        let socket = format!("dotnet-diagnostic-{}-", target.pid());
        let names: Vec<_> =
            std::fs::read_dir(target.tmp()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(names.iter().any(|n| n.to_string_lossy().starts_with(&socket)), "{names:?}");
        assert_eq!(target.ask("more", "leaked "), "24 6");
        assert!(target.alive());
        assert!(target.stop().success());
    }
}

#[test]
fn a_dropped_target_is_gone_and_leaves_no_socket() {
    let Some(runtime) = one_per_major().pop() else { return };
    let target = Target::spawn(&runtime, "Leak", &["1", "1"]);
    let (pid, tmp) = (target.pid(), target.tmp().to_path_buf());
    drop(target);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    let left =
        std::fs::read_dir(tmp).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    assert_eq!(left.filter(|name| name.contains(&format!("-{pid}-"))).count(), 0);
}

#[test]
fn a_target_in_a_container_is_process_one() {
    let Some(runtime) = one_per_major().pop() else { return };
    let Some(builder) = Target::builder(&runtime, "Leak").in_container() else { return };
    let target = builder.spawn();
    assert_eq!(target.inner_pid(), 1);
    let inside =
        Dnd::beside("/bin/sh", &target).args(["-c", "echo $$; ls /tmp; tr '\\0' ' ' </proc/1/cmdline"]);
    let said = inside.run().success();
    assert!(said.contains("dotnet-diagnostic-1-") && said.contains("Leak.dll"), "{said}");
    assert!(target.stop().success());
}

#[test]
fn cores_of_every_runtime_are_what_the_oracle_says() {
    for runtime in runtimes() {
        let core = core(&runtime, "Leak", &CoreSpec::with_args(&["100", "10"]));
        assert_eq!(core.truth["orders"], 100);
        let Some(said) = oracle(&core, &["stat"]) else { continue };
        let orders =
            said["stat"]["types"].as_array().unwrap().iter().find(|t| t["name"] == "Shop.Order").unwrap();
        assert_eq!(orders["count"], 100, "{}", runtime.version);
    }
}

#[test]
fn gcore_writes_a_core_too() {
    let Some(runtime) = one_per_major().pop() else { return };
    let spec = CoreSpec { by: By::Gcore, kind: Kind::Full, ..CoreSpec::with_args(&["1", "1"]) };
    let core = core(&runtime, "Leak", &spec);
    let mut magic = [0; 4];
    std::fs::File::open(core.path()).unwrap().read_exact(&mut magic).unwrap();
    assert_eq!(&magic, b"\x7fELF");
}

#[test]
fn what_comes_with_shared_is_usable_where_it_is() {
    for core in shared_cores() {
        assert!(core.path.metadata().unwrap().len() > 1 << 20, "{}", core.name);
    }
    for program in single_files() {
        let target = program.builder(0).spawn();
        let version = program.name.rsplit('-').next().unwrap();
        assert_eq!(target.truth().as_str(), Some(version), "{}", program.name);
    }
}

#[test]
fn ten_is_on_every_machine_as_a_single_file() {
    let target = Target::single_file("Leak").args(&["7", "5"]).spawn();
    assert_eq!((&target.truth()["orders"], &target.truth()["version"]), (&7.into(), &"10.0.11".into()));
    assert!(target.stop().success());
    let core = single_file_core("Leak", &["7", "5"], By::Createdump);
    assert_eq!(core.truth["listeners"], 5);
    assert!(core.path().metadata().unwrap().len() > 1 << 20);
}

#[test]
fn a_command_is_fed_heard_and_judged() {
    let cat = Dnd::new("/bin/cat").stdin("a\nb\n").run();
    assert_eq!((cat.code, cat.stdout.as_str()), (Some(0), "a\nb\n"));
    let said = Dnd::new("/bin/sh").args(["-c", "echo no >&2; exit 3"]).run().fails(3);
    assert_eq!(said, "no\n");
    let mut running = Dnd::new("/bin/cat").spawn();
    running.say("hello");
    assert_eq!(running.wait_stdout(|text| text.find("hello")), 0);
    assert_eq!(running.wait().stdout, "hello\n");
}

#[test]
fn a_command_that_hangs_fails_its_test() {
    let hangs = || Dnd::new("/bin/sleep").arg("1000").timeout(std::time::Duration::from_millis(50)).run();
    let panic = std::panic::catch_unwind(hangs).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("did not end"));
}

#[test]
fn a_screen_shows_what_is_typed_resizes_and_interrupts() {
    let script = "trap 'echo interrupted; stty size; exit 5' INT; stty size; printf '\\033[31mred\\033[0m\\n'; \
                  while read line; do echo \"<$line>\"; done; echo end";
    let mut screen = Dnd::new("/bin/sh").args(["-c", script]).pty(24, 80);
    screen.wait_for("24 80");
    screen.keys("word");
    screen.press(Key::Enter);
    let text = screen.wait_for("<word>");
    assert!(text.contains("red") && !text.contains('\x1b'), "{text}");
    assert!(screen.raw().contains("\x1b[31mred"));
    screen.resize(30, 100);
    screen.press(Key::CtrlC);
    screen.wait_for("interrupted");
    screen.wait_for("30 100");
    assert_eq!(screen.wait_end().code(), Some(5));
}

/// The truth that `Shapes` tells is what Microsoft's own library finds in its cores: the tests of `dnd` may rely on it.
#[test]
fn what_shapes_says_of_itself_is_what_the_oracle_finds() {
    for runtime in runtimes() {
        for server_gc in [false, true] {
            let core = core(&runtime, "Shapes", &CoreSpec { server_gc, ..CoreSpec::default() });
            let whats = ["stat", "objects", "handles", "finalizer", "syncblocks", "threads"];
            let Some(said) = oracle(&core, &whats) else { return };
            let which = format!("{} server {server_gc}", runtime.version);
            let truth = &core.truth;

            // Generic types have other names in the oracle: those of `dnd` are compared in its own tests.
            let types = said["stat"]["types"].as_array().unwrap();
            let count = |name: &str| -> u64 {
                // The oracle escapes what reflection's grammar of names needs; metadata doesn't.
                let named =
                    |t: &&serde_json::Value| t["name"].as_str().is_some_and(|n| n.replace('\\', "") == name);
                types.iter().filter(named).map(|t| t["count"].as_u64().unwrap()).sum()
            };
            for (name, n) in truth["types"].as_object().unwrap() {
                if !name.contains(['<', '*']) {
                    assert_eq!(Some(count(name)), n.as_u64(), "{which}: {name}");
                }
            }

            let address = |hex: &serde_json::Value| {
                u64::from_str_radix(hex.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
            };
            let type_of: std::collections::HashMap<_, _> =
                types.iter().map(|t| (address(&t["mt"]), t["name"].as_str().unwrap_or(""))).collect();
            let objects: std::collections::HashMap<_, _> = said["objects"]["objects"]
                .as_array()
                .or_else(|| said["objects"].as_array())
                .unwrap()
                .iter()
                .map(|o| (address(&o[0]), address(&o[1])))
                .collect();
            for (name, object) in truth["objects"].as_object().unwrap() {
                let mt = objects.get(&address(&object["address"]));
                let found = mt.and_then(|mt| type_of.get(mt)).unwrap_or_else(|| panic!("{which}: no {name}"));
                let expected = object["type"].as_str().unwrap();
                assert!(*found == expected || expected.contains(['<', '*']), "{which}: {name} is {found}");
            }

            let handles =
                said["handles"]["handles"].as_array().or_else(|| said["handles"].as_array()).unwrap();
            for (kind, expected) in truth["handles"].as_object().unwrap() {
                let found = handles
                    .iter()
                    .filter(|h| h["type_name"] == *kind && h["object_type"] == expected["type"]);
                assert_eq!(Some(found.count() as u64), expected["count"].as_u64(), "{which}: {kind} handles");
            }
        }
    }
}
