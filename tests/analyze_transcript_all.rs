//! Every command of the transcript, one after the other: what dnd answers to it, and why it is something else.
//!
//! `analyze_transcript` holds the answers line by line, with the differences of each command; here no command is left out.

use dnd_testkit::Dnd;

use super::DND;
use super::dotnet_dump::{all_same, is_same, modern, pairs, plain};

/// What dnd makes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The same lines, blanks and leading zeros aside.
    Equal,
    /// The same, or not, for this reason; what differs is compared in `analyze_transcript`.
    Differs(&'static str),
    /// An error in both, or in dotnet-dump nothing that could be an answer; ours has this in it.
    Refused(&'static str),
    /// dnd has no such command, for this reason.
    Unsupported(&'static str),
}

use Rule::{Differs, Equal, Refused, Unsupported};

const NEVER: &str = "no command of dotnet-dump on Linux either";
const WINDBG: &str = "works with WinDbg only";

/// Begins of commands; the first that fits counts. A command with `$` behind it is meant without arguments.
const RULES: &[(&str, Rule)] = &[
    // Where dotnet-dump has no answer either.
    ("nosuchcommand", Refused("no command")),
    ("exit-dummy", Refused("no command")),
    ("clru", Unsupported(NEVER)),
    ("dumpccw", Unsupported(NEVER)),
    ("dumprcw", Unsupported(NEVER)),
    ("dumpdictionary", Refused("no command")),
    ("dumpdynamicmethod", Refused("no command")),
    ("extensions", Refused("no command")),
    ("heapstat", Refused("no command")),
    ("rcw", Refused("no command")),
    ("savemodule", Refused("no command")),
    ("strings", Refused("no command")),
    ("tcpstats", Refused("no command")),
    ("treehandles", Refused("no command")),
    ("u 0", Unsupported(NEVER)),
    ("gchandleleaks", Unsupported(WINDBG)),
    ("gctonative", Unsupported(WINDBG)),
    ("maddress", Unsupported(WINDBG)),
    ("dcd", Refused("Concurrent")),
    ("dumpconcurrentdictionary", Refused("Concurrent")),
    ("dumpconcurrentqueue$", Refused("ConcurrentQueue")),
    ("dumpconcurrentqueue 7f1411815320", Refused("is not a ConcurrentQueue but an instance of")),
    ("dumpconcurrentqueue 7f141181af68", Refused("is not a ConcurrentQueue but an instance of")),
    ("dumpconcurrentqueue 7f1411819ff0", Refused("is not a ConcurrentQueue but an instance of")),
    ("dumpconcurrentqueue 7f141181ae68", Refused("is not a ConcurrentQueue but an instance of")),
    ("dumpconcurrentqueue 7f1411819f08", Refused("is not a ConcurrentQueue but an instance of")),
    ("dumpconcurrentqueue 7f141181b4c0", Refused("is not a ConcurrentQueue but an instance of")),
    ("dumpdelegate$", Refused("needs the address of a delegate")),
    ("dumparray 0", Refused("0 is not the address of an object")),
    ("dumpheap -segment 0", Refused("is no segment")),
    ("dumpmt 10", Refused("is not a method table")),
    ("dumpobj 0", Refused("is not the address of an object")),
    ("dumpobj 1234", Refused("is not the address of an object")),
    ("gcroot 1234", Refused("is not the address of an object")),
    ("ip2md 0", Refused("0 is not in managed code")),
    ("listnearobj 0", Refused("is not in the managed heap")),
    ("objsize$", Refused("needs the address of an object")),
    ("pathto", Refused("needs the address")),
    ("pe", Refused("there is no current managed exception")),
    ("crashinfo", Refused("there is no crash in this dump")),
    ("taskstate", Refused("needs the address of a task")),
    ("tks", Refused("needs the address of a task")),
    // Questions about dotnet-dump itself.
    ("help", Differs("dnd's own help")),
    ("sosstatus", Unsupported("dnd needs no debugger's state: `dump info` tells of the dump")),
    ("sosflush", Unsupported("dnd keeps no state that could be stale")),
    ("loadsymbols", Unsupported("dnd downloads nothing")),
    ("setclrpath", Unsupported("dnd needs no DAC")),
    ("runtimes", Unsupported("`eeversion` and `dump info` tell of the runtime; there is one")),
    ("logopen", Unsupported("a shell's redirection does it")),
    // Not built.
    ("dumpgcdata", Unsupported("not built")),
    ("dumpil", Unsupported("not built")),
    ("dumplog", Unsupported("not built")),
    ("dumprequests", Unsupported("not built")),
    ("dumpruntimetypes", Unsupported("not built")),
    ("dumpsig", Unsupported("not built")),
    ("ehinfo", Unsupported("not built")),
    ("ephrefs", Unsupported("not built")),
    ("ephtoloh", Unsupported("not built")),
    ("findappdomain", Unsupported("there is one application domain since .NET Core")),
    ("gcinfo", Unsupported("not built")),
    ("histinit", Unsupported("not built")),
    ("notreachableinrange", Unsupported("a helper of finalizequeue -allReady")),
    ("traverseheap", Unsupported("a format of a tool that is gone; dumpheap --json")),
    // Answers.
    ("clrstack -a$", Differs("compared with the other stacks")),
    ("clrstack", Differs("source lines; frames of the runtime beside native ones")),
    ("dso", Differs("exact; dso -conservative is the same")),
    ("dumpstackobjects", Differs("exact; dso -conservative is the same")),
    ("dumparray -details", Differs("types of fields")),
    ("dumpasync -stats", Differs("accepted")),
    ("dumpgen loh -stat", Differs("accepted")),
    ("dumpgen", Differs("arrays with a lower bound")),
    ("dumpheap -gen gen2 -stat", Differs("an empty answer is written out")),
    ("dumpheap -mt 10", Differs("an empty answer is written out")),
    ("dumpheap -live", Differs("thread statics are roots")),
    ("dumpheap -stat$", Differs("arrays with a lower bound")),
    ("dumpheap -strings", Differs("long texts are cut alike")),
    ("dumpobj", Differs("types of fields")),
    ("dumpvc", Differs("types of fields")),
    ("dumpdomain", Differs("no addresses of loader heaps")),
    ("eeheap -gc", Differs("DATAS")),
    ("eeheap -loader", Differs("static fields; what can be unloaded")),
    ("eeversion", Differs("versions of the tools")),
    ("finalizequeue", Differs("no COM; numbers by generation")),
    ("gcheapstat", Differs("frozen objects; thread statics are roots")),
    ("gcroot", Differs("names of statics; all roots; interior ones marked")),
    ("ip2md", Differs("source lines only with a PDB")),
    ("modules", Differs("exact sizes; the dynamic linker")),
    ("name2ee", Differs("just the name")),
    ("registers", Differs("r8 and r9; no segment registers")),
    ("threadpool$", Differs("says that there is none")),
    ("", Equal),
];

/// The place of a command's rule.
fn rule(command: &str) -> usize {
    let fits = |begin: &str| match begin.strip_suffix('$') {
        Some(whole) => command == whole,
        None => command.starts_with(begin),
    };
    RULES.iter().position(|(begin, _)| fits(begin)).expect("the last one fits all")
}

#[test]
fn every_command_of_the_transcript() {
    let Some(core) = modern() else { return };
    let (mut equal, mut differs, mut refused, mut unsupported) = (0, 0, 0, 0);
    let mut wrong = Vec::new();
    let mut used = vec![false; RULES.len()];
    for pair in pairs(&core, &[""]) {
        let same = is_same(&plain(&pair.theirs), &plain(&pair.ours));
        let place = rule(&pair.command);
        // A difference that no command shows any more is a rule too many.
        used[place] |= !same || !matches!(RULES[place].1, Differs(_));
        let rule = RULES[place].1;
        let error = || {
            let dnd = Dnd::new(DND).args(["dump", "analyze"]).arg(&core.path).args(["-c", &pair.command]);
            let output = dnd.run();
            (output.code, output.stderr)
        };
        let kept = match rule {
            Equal => {
                equal += 1;
                same
            }
            Differs(_) if same => {
                equal += 1;
                true
            }
            Differs(_) => {
                differs += 1;
                !plain(&pair.ours).is_empty()
            }
            Refused(words) => {
                refused += 1;
                let (code, text) = error();
                code != Some(0) && text.contains(words)
            }
            Unsupported(_) => {
                unsupported += 1;
                let (code, text) = error();
                code == Some(5)
                    && text.contains("is a command of dotnet-dump that this version does not have")
            }
        };
        if !kept {
            wrong.push(format!("{}: {rule:?}, same: {same}", pair.command));
        }
    }
    assert!(wrong.is_empty(), "{} of the commands:\n{}", wrong.len(), wrong.join("\n"));
    let unused: Vec<&str> =
        RULES.iter().zip(&used).filter(|(_, used)| !**used).map(|(rule, _)| rule.0).collect();
    assert!(unused.is_empty(), "no command fits {unused:?}");
    // To be changed with the table.
    assert_eq!((equal, differs, refused, unsupported), (394, 146, 71, 73));
}

#[test]
fn what_is_loaded() {
    let without = |lines: Vec<String>, marks: &[&str]| -> Vec<String> {
        lines.into_iter().filter(|line| !marks.iter().any(|mark| line.contains(mark))).collect()
    };
    let heaps = ["LowFrequencyHeap:", "HighFrequencyHeap:", "StubHeap:", "Stage:", "Name: None"];
    all_same(&["dumpdomain"], 1, |_, theirs, ours| (without(theirs, &heaps), ours));
    // Here dotnet-dump takes the end of a page for the end of a library, and leaves one out.
    let pages = |lines: Vec<String>| {
        let library = |line: String| match line.split(' ').collect::<Vec<_>>()[..] {
            [base, size, path] if path.contains(".so") || path.ends_with("/dotnet") => {
                let size = u64::from_str_radix(size, 16).expect("a size").next_multiple_of(0x1000);
                format!("{base} {size:x} {path}")
            }
            _ => line,
        };
        without(lines, &["ld-linux", "Total image size"]).into_iter().map(library).collect()
    };
    all_same(&["modules"], 1, |_, theirs, ours| (pages(theirs), pages(ours)));
    // What only begins with the name.
    all_same(&["name2ee"], 1, |_, theirs, ours| {
        let (rest, end) = (ours.len() - 2, theirs.len() - 2);
        assert!(theirs[rest..end].iter().any(|line| line == "Name: System.StringComparer"), "{theirs:?}");
        ([&theirs[..rest], &theirs[end..]].concat(), ours)
    });
}
