//! Source lines of frames, by construction: the debuggee stands at lines that its source marks.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use dnd_testkit::{
    By, Core, CoreSpec, Dnd, Runtime, app, bench, core, one_per_major, runtimes, single_file_core,
};
use serde_json::Value;

use super::DND;
use super::asking::list;

pub(crate) fn app_source(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/apps/{name}.cs"));
    fs::read_to_string(path).expect("the debuggee's source")
}

/// Number of the line that ends with a mark.
pub(crate) fn line_of(source: &str, mark: &str) -> u64 {
    let end = format!("// @{mark}");
    let index = source.lines().position(|line| line.ends_with(&end));
    index.unwrap_or_else(|| panic!("no line is marked {mark}")) as u64 + 1
}

pub(crate) fn waiting(runtime: &Runtime) -> Core {
    core(runtime, "Lines", &CoreSpec::default())
}

/// The stacks of all threads, by their ids.
pub(crate) fn stacks(core: &Core, command: &str) -> BTreeMap<u64, Value> {
    let output = Dnd::new(DND).args(["dump", "analyze", "--json"]).arg(core.path()).args(["-c", command]);
    let answer: Value = serde_json::from_str(&output.run().success()).expect("JSON");
    let threads = list(&answer["threads"]).iter();
    threads.map(|thread| (thread["os_id"].as_u64().expect("an id"), thread.clone())).collect()
}

/// Marks of the lines that a thread stands at, innermost first; ends at frames of the debuggee.
const STACKS: [(&str, &[&str]); 10] = [
    ("loop", &["block", "loop", "lambda"]),
    ("expression", &["block", "depth", "recursion", "recursion", "expression"]),
    // The frames that an exception left are there as long as its handler runs.
    ("catch", &["block", "catch", "throw", "try"]),
    // The processor's exception: the line that it happened at, not the one before.
    ("fault", &["block", "handler", "fault"]),
    ("iterator", &["block", "iterator", "foreach"]),
    ("pool", &["block", "async"]),
    ("generic", &["block", "generic"]),
    ("elsewhere", &["block"]),
    ("values", &["block", "values"]),
    ("instance", &["block", "instance"]),
];

#[test]
fn frames_stand_at_the_lines_that_the_source_marks() {
    let source = app_source("Lines");
    let mut files = 0;
    for runtime in runtimes() {
        let core = waiting(&runtime);
        let stacks = stacks(&core, "clrstack -all");
        for (name, marks) in STACKS {
            let id = core.truth["threads"][name].as_u64().expect("a thread");
            let frames = list(&stacks[&id]["frames"]);
            let mut lines = Vec::new();
            let mut method = Vec::new();
            for frame in frames.iter().filter(|frame| !frame["line"].is_null()) {
                let file = frame["file"].as_str().expect("a file");
                let line = frame["line"].as_u64().expect("a line");
                if file.ends_with("tests/apps/Lines.cs") {
                    lines.push(line);
                    method.push(frame["name"].as_str().expect("a name"));
                } else {
                    assert_eq!((file, line), ("/other/Elsewhere.txt", 4711), "{}", runtime.version);
                    assert_eq!(name, "elsewhere");
                    files += 1;
                }
            }
            let expected: Vec<u64> = marks.iter().map(|mark| line_of(&source, mark)).collect();
            // What follows are lambdas of Main, which only start something.
            let calls: Vec<u64> = lines.iter().copied().take(expected.len()).collect();
            assert_eq!(calls, expected, "thread {name} of {}: {method:?}", runtime.version);
        }
        let main = stacks.values().flat_map(|thread| list(&thread["frames"]));
        let main: Vec<&Value> =
            main.filter(|frame| frame["name"] == "Lines.Program.Main(System.String[])").collect();
        assert_eq!(main.len(), 1);
        assert_eq!(main[0]["line"], line_of(&source, "main"), "{}", runtime.version);
        assert!(main[0]["il_offset"].as_u64().is_some_and(|offset| offset > 0));
    }
    assert_eq!(files, runtimes().len());
}

#[test]
fn lines_are_written_behind_the_method_as_dotnet_dump_writes_them() {
    let mark = line_of(&app_source("Lines"), "loop");
    for runtime in one_per_major() {
        let core = waiting(&runtime);
        let id = core.truth["threads"]["loop"].as_u64().expect("a thread");
        let ask = |command: &str| {
            let dnd = Dnd::new(DND).args(["dump", "analyze"]).arg(core.path());
            dnd.args(["-c", &format!("setthread -t {id}"), "-c", command]).run().success()
        };
        let with_lines = ask("clrstack");
        let call = with_lines
            .lines()
            .find(|line| line.contains("Lines.Program.Statements(Int32) ["))
            .expect("a line");
        assert!(call.ends_with(&format!("/tests/apps/Lines.cs @ {mark}]")), "{call}");
        let full = ask("clrstack -f");
        let call = full
            .lines()
            .find(|line| line.contains("Lines.dll!Lines.Program.Statements(Int32) + "))
            .expect("a line");
        assert!(call.ends_with(&format!("/tests/apps/Lines.cs @ {mark}]")), "{call}");
        assert!(!ask("clrstack -n").contains("Lines.cs"));
    }
}

/// The PDB of another build, or something else of that name, tells nothing.
#[test]
fn only_the_pdb_that_belongs_to_the_assembly_counts() {
    let runtime = one_per_major().pop().expect("a runtime");
    let core = core(
        &runtime,
        "Stacks",
        &CoreSpec { env: vec![("MALLOC_ARENA_MAX".to_owned(), "1".to_owned())], ..CoreSpec::default() },
    );
    let lines = |folder: Option<&std::path::Path>| {
        let mut dnd = Dnd::new(DND).args(["dump", "analyze"]).arg(core.path());
        if let Some(folder) = folder {
            dnd = dnd.args(["--modules"]).arg(folder);
        }
        let text = dnd.args(["-c", "clrstack -all"]).run().success();
        text.lines().filter(|line| line.contains("Stacks.cs @ ")).count()
    };
    // Beside the DLL that the dump names.
    let beside = lines(None);
    assert!(beside > 50, "{beside}");
    // What lies in the folder is looked at first, and then the right one is found all the same.
    let folder = bench().scratch("pdb").expect("a folder");
    let other = fs::read(app("Leak").with_extension("pdb")).expect("the PDB of another program");
    for content in [&other[..], b"", b"BSJB", b"no PDB at all"] {
        fs::write(folder.path().join("Stacks.pdb"), content).expect("written");
        assert_eq!(lines(Some(folder.path())), beside);
    }
}

#[test]
fn stack_traces_of_exceptions_have_lines() {
    let source = app_source("Lines");
    for runtime in runtimes() {
        let core = waiting(&runtime);
        for (thread, marks) in [("catch", &["throw", "try"][..]), ("fault", &["fault"])] {
            let id = core.truth["threads"][thread].as_u64().expect("a thread");
            let dnd = Dnd::new(DND).args(["dump", "analyze"]).arg(core.path());
            let text = dnd.args(["-c", &format!("setthread -t {id}"), "-c", "pe -lines"]).run().success();
            let lines: Vec<&str> =
                text.lines().filter_map(|line| line.split_once("Lines.cs @ ")).map(|(_, n)| n).collect();
            let expected: Vec<String> =
                marks.iter().map(|mark| format!("{}]", line_of(&source, mark))).collect();
            assert_eq!(lines, expected, "{thread} of {}: {text}", runtime.version);
        }
    }
}

/// The assembly is inside the program, its PDB beside it.
#[test]
fn a_program_in_a_single_file_has_lines() {
    let core = single_file_core("Leak", &["7", "5"], By::Createdump);
    let text =
        Dnd::new(DND).args(["dump", "analyze"]).arg(core.path()).args(["-c", "clrstack"]).run().success();
    let source = app_source("Leak");
    let line =
        source.lines().position(|line| line.contains("Console.ReadLine()")).expect("where it waits") + 1;
    let main =
        text.lines().find(|line| line.contains(" Shop.Program.Main(System.String[]) [")).expect("a line");
    assert!(main.ends_with(&format!("/tests/apps/Leak.cs @ {line}]")), "{main}");
}
