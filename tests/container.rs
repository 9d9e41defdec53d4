//! A target as PID 1 of a container: `dnd` beside it in the container, and `dnd` on the host.

use dnd_testkit::{Dnd, Runtime, Target, must, runtimes, skip};
use serde_json::{Value, json};

use super::DND;

/// The service of the usual walk: ASP.NET Core, on .NET Core 3.1 and the others that the bench has it for.
fn services() -> impl Iterator<Item = (Target, String)> {
    let all: Vec<_> = runtimes().into_iter().filter(Runtime::aspnet).collect();
    if all.is_empty() {
        skip("ASP.NET Core in a container: no runtime with it");
    }
    all.into_iter().filter_map(|runtime| {
        let target = Target::builder(&runtime, "LeakWeb").in_container()?.spawn();
        Some((target, runtime.version))
    })
}

fn only_entry(document: &Value, pid: u32) -> Value {
    let all = document["processes"].as_array().expect("a list");
    all.iter().find(|p| p["pid"] == pid).cloned().unwrap_or_default()
}

#[test]
fn from_inside() {
    for (target, version) in services() {
        let document = Dnd::beside(DND, &target).args(["ps", "--json"]).run().json();
        // `dnd` and the service are all there is.
        assert_eq!(document["processes"].as_array().map(Vec::len), Some(1), "{document}");
        let found = only_entry(&document, 1);
        assert_eq!((&found["ns_pid"], &found["other_root"]), (&json!(1), &json!(false)));
        assert_eq!((&found["runtime_version"], &found["unreachable"]), (&json!(version), &Value::Null));
        assert!(found["socket"].as_str().expect("a socket").starts_with("/tmp/dotnet-diagnostic-1-"));

        let collect =
            Dnd::beside(DND, &target).args(["dump", "collect", "-p", "1", "--type", "Heap", "--json"]);
        let facts = collect.args(["-o", "/tmp/core_inside"]).run().json();
        assert_eq!(
            (&facts["path"], &facts["path_in_target"]),
            (&json!("/tmp/core_inside"), &json!("/tmp/core_inside"))
        );
        let core = target.tmp().join("core_inside");
        assert_eq!(json!(must(std::fs::metadata(core), "the dump").len()), facts["size"]);
    }
}

#[test]
fn from_the_host() {
    for (target, version) in services() {
        let pid = target.pid();
        let document = Dnd::new(DND).args(["ps", "--json"]).run().json();
        let found = only_entry(&document, pid);
        assert_eq!((&found["ns_pid"], &found["other_root"]), (&json!(1), &json!(true)));
        assert_eq!((&found["runtime_version"], &found["unreachable"]), (&json!(version), &Value::Null));
        let socket = found["socket"].as_str().expect("a socket");
        assert!(socket.starts_with(&format!("/proc/{pid}/root/tmp/dotnet-diagnostic-1-")), "{socket}");
        let text = Dnd::new(DND).arg("ps").run().success();
        let row = text.lines().find(|line| line.contains(&format!(" {pid}  "))).expect("a row");
        assert!(row.ends_with("[pid 1 in its container]"), "{row}");

        // Without -o: where the process can write, and found from here behind its root.
        let pid = pid.to_string();
        let collect = |more: &[&str]| Dnd::new(DND).args(["dump", "collect", "-p", &pid]).args(more).run();
        let facts = collect(&["--type", "Heap", "--json"]).json();
        let inside = facts["path_in_target"].as_str().expect("a path");
        assert!(inside.starts_with("/tmp/core_"), "{inside}");
        assert_eq!(facts["path"], json!(format!("/proc/{pid}/root{inside}")));
        let core = must(std::fs::metadata(facts["path"].as_str().expect("a path")), "the dump");
        assert_eq!(json!(core.len()), facts["size"]);

        let text = collect(&["--type", "Mini", "-o", "/tmp/core_mini"]).success();
        assert!(text.starts_with("Writing dump to /tmp/core_mini\nComplete: "), "{text}");
        assert!(text.ends_with(&format!("from here the file is /proc/{pid}/root/tmp/core_mini\n")), "{text}");

        // A folder that only the host has, and a path that means something else there.
        let (_scratch, dir) = Dnd::scratch();
        let hidden = std::env::temp_dir().join(dir.file_name().expect("a name"));
        must(std::fs::create_dir(&hidden), "a folder");
        let error = collect(&["-o", &hidden.join("core").display().to_string()]);
        must(std::fs::remove_dir(&hidden), "an empty folder");
        let error = error.fails(3);
        assert!(error.contains("another mount namespace") && error.contains("/proc/"), "{error}");
        let error = collect(&["-o", "core"]).fails(2);
        assert!(error.contains("relative path") && error.contains("-o /tmp/"), "{error}");
    }
}

#[test]
fn the_id_inside_the_container_is_understood() {
    let Some((target, _)) = services().next() else { return };
    // An id that is taken in the container and not here, if there is one: the container's has few processes, and its
    // service is 1, which here is another program.
    let error = Dnd::new(DND).args(["dump", "collect", "-p", "1"]).run();
    let expected = format!("process {} has this id in its container: -p {}", target.pid(), target.pid());
    assert!(matches!(error.code, Some(3 | 4)), "{}", error.stderr);
    assert!(error.stderr.contains(&expected), "{}", error.stderr);
}
