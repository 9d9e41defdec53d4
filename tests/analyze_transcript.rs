//! `dump analyze` against what dotnet-dump answered to the same commands on the same process.
//!
//! Compared are whole answers, line by line, blanks and leading zeros of addresses aside. Where the two differ on
//! purpose (docs/differences.md) the rule stands here, and only that is let through.

use std::collections::{BTreeMap, BTreeSet};

use dnd_testkit::Dnd;

use super::DND;
use super::dotnet_dump::{all_same, modern, pairs, plain, same};

#[test]
fn where_addresses_are() {
    all_same(&["gcwhere 7"], 60, |_, theirs, ours| (theirs, ours));
}

#[test]
fn what_objects_keep_alive() {
    all_same(&["objsize 7"], 60, |_, theirs, ours| (theirs, ours));
}

#[test]
fn objects_of_a_type() {
    // Of `dumpheap -mt 10`, which is no type, dotnet-dump says nothing at all.
    all_same(&["dumpheap -mt 7", "dumpheap -type", "dumpheap -stat -min"], 62, |_, theirs, ours| {
        (theirs, ours)
    });
}

#[test]
fn the_whole_heap() {
    // dotnet-dump writes the type of an array with one dimension that does not start at 0 as if it were generic.
    // It cuts long texts to 64 characters, but not all of them.
    let arrays = |line: &String| match line.strip_prefix("1 422 ") {
        Some(text) => format!("1 422 {}", text.chars().take(61).collect::<String>()),
        None => line.replace("System.String<*>", "System.String[*]"),
    };
    all_same(&["dumpheap -stat", "dumpheap -strings"], 3, |_, theirs, ours| {
        (theirs.iter().map(arrays).collect(), ours)
    });
}

#[test]
fn handles() {
    all_same(&["gchandles"], 3, |_, theirs, ours| (theirs, ours));
}

#[test]
fn threads_modules_and_heap_memory() {
    all_same(
        &[
            "clrthreads",
            "clrmodules",
            "eeheap -gc",
            "syncblk",
            "dumpexceptions",
            "threadstate 2",
            "setthread 0",
        ],
        7,
        |_, theirs, ours| {
            // dotnet-dump says that there is a DATAS mode, and not which.
            (theirs.into_iter().filter(|line| line != "DATAS =").collect(), ours)
        },
    );
}

/// dotnet-dump has another address for the LoaderAllocator than Microsoft's library: that of the domain around it. It calls the
/// heap of static fields unknown, and does not show what can be unloaded.
#[test]
fn loader_heaps() {
    all_same(&["eeheap -loader"], 1, |_, theirs, mut ours| {
        let end =
            ours.iter().position(|line| line == "Module LoaderAllocators:").expect("a collectible assembly");
        assert!(ours.len() > end + 4, "{ours:#?}");
        ours.truncate(end);
        let known = |line: &String| !line.starts_with("LoaderAllocator: ");
        let named = |line: String| line.replace("Unknown:", "StaticsHeap:");
        (theirs.into_iter().filter(known).map(named).collect(), ours.into_iter().filter(known).collect())
    });
}

#[test]
fn method_tables() {
    all_same(&["dumpmt 7"], 60, |_, theirs, ours| (theirs, ours));
}

/// A row of a table of fields.
#[derive(Debug, PartialEq, Eq)]
struct FieldRow {
    mt: String,
    token: String,
    offset: String,
    type_name: String,
    rest: Vec<String>,
}

fn field_row(line: &str) -> Option<FieldRow> {
    let words: Vec<&str> = line.split(' ').collect();
    let at = words.iter().position(|w| ["instance", "static", "TLstatic"].contains(w))?;
    let [mt, token, offset, middle @ ..] = words.get(..at)? else { return None };
    let (vt, type_name) = middle.split_last()?;
    let rest = std::iter::once(vt).chain(&words[at..]).map(|w| (*w).to_owned()).collect();
    let owned = |text: &str| text.to_owned();
    Some(FieldRow {
        mt: owned(mt),
        token: owned(token),
        offset: owned(offset),
        type_name: type_name.join(" "),
        rest,
    })
}

#[test]
fn objects_arrays_and_values() {
    let commands = ["dumpobj 7", "dumpobj -nofields 7", "dumpvc 7", "dumparray 7", "dumparray -details 7"];
    let (mut rows, mut exact, mut shared) = (0, 0, Vec::new());
    let Some(core) = modern() else { return };
    let pairs = pairs(&core, &commands);
    assert!(pairs.len() >= 60 + 16 + 16 + 15 + 15, "{}", pairs.len());
    for pair in pairs {
        let (theirs, ours) = (plain(&pair.theirs), plain(&pair.ours));
        let cut = theirs.iter().position(|line| line.starts_with("[... "));
        let (head, tail) = match cut {
            None => (theirs.len(), 0),
            Some(cut) => (cut, theirs.len() - cut - 1),
        };
        assert!(cut.is_some() || theirs.len() == ours.len(), "{}: {} lines", pair.command, ours.len());
        let ends = ours[..head].iter().chain(&ours[ours.len() - tail..]);
        let theirs = theirs[..head].iter().chain(&theirs[theirs.len() - tail..]);
        for (theirs, ours) in theirs.zip(ends) {
            let (Some(a), Some(b)) = (field_row(theirs), field_row(ours)) else {
                assert_eq!(ours, theirs, "{}", pair.command);
                continue;
            };
            rows += 1;
            assert_eq!(
                (&b.token, &b.offset, &b.rest),
                (&a.token, &a.offset, &a.rest),
                "{}: {ours}",
                pair.command
            );
            // Type names that dotnet-dump leaves out, replaces by a placeholder, or cuts to the name of an assembly.
            let vague = ["", "SZARRAY", "System.__Canon", "System.Void"].contains(&a.type_name.as_str());
            if vague || a.type_name.contains("]]") {
                assert!(
                    !b.type_name.is_empty() && b.type_name != "System.__Canon",
                    "{}: {ours}",
                    pair.command
                );
            } else {
                assert_eq!(b.type_name, a.type_name, "{}: {ours}", pair.command);
            }
            // Where dotnet-dump has a placeholder, or the type whose code is shared, ours is another; that of a type that is
            // not loaded is 0, where dotnet-dump has that of `void`.
            if !vague && !a.type_name.contains("]]") {
                assert_eq!(b.mt, a.mt, "{}: {ours}", pair.command);
                exact += 1;
            } else if b.mt == a.mt {
                exact += 1;
            } else if b.mt == "0" {
                assert_eq!(a.type_name, "System.Void", "{}: {ours}", pair.command);
            } else if a.mt != "0" && a.type_name != "System.__Canon" {
                shared.push((b.mt.clone(), a.mt.clone()));
            }
        }
    }
    assert!(rows > 1000 && exact > 800, "{rows} rows of fields were compared, {exact} types are the same");
    // Each of the others shares its code with theirs, which has a placeholder for its arguments.
    assert!(!shared.is_empty());
    for (ours, theirs) in shared {
        let name = |mt: &str| {
            let dnd = Dnd::new(DND).args(["dump", "analyze", "--json"]).arg(&core.path);
            let table = dnd.args(["-c", &format!("dumpmt {mt}")]).run().json();
            table["type"].as_str().expect("a type").to_owned()
        };
        let (our_name, their_name) = (name(&ours), name(&theirs));
        let definition = |name: &str| name.split('[').next().expect("a name").to_owned();
        assert_eq!(definition(&our_name), definition(&their_name), "{ours} and {theirs}");
        let placeholder = "System.__Canon";
        assert!(
            their_name.contains(placeholder) && !our_name.contains(placeholder),
            "{our_name}, {their_name}"
        );
    }
}

#[test]
fn the_finalizer_queue() {
    let Some(core) = modern() else { return };
    for pair in pairs(&core, &["finalizequeue", "finalizequeue -stat"]) {
        let (mut theirs, mut ours) = (plain(&pair.theirs), plain(&pair.ours));
        // dotnet-dump begins with sync blocks and COM wrappers, which Linux does not have.
        let heap = theirs.iter().position(|line| line == "Heap 0").expect("their heap");
        theirs.drain(..heap);
        // It counts no object in any generation, and lists 63.
        let all: Vec<String> = theirs.extract_if(.., |line| line.starts_with("generation ")).collect();
        assert!(all.iter().all(|line| line.contains(" has 0 objects ")), "{all:?}");
        let counted: Vec<String> = ours.extract_if(.., |line| line.starts_with("generation ")).collect();
        assert_eq!(counted[0], "generation 0 has 63 objects (5623c890d040->5623c890d238)");
        if pair.command == "finalizequeue -allReady" {
            // Roots found on stacks by looks may keep more alive, never less.
            let theirs: BTreeSet<_> = theirs.into_iter().filter(|line| line.starts_with("7f14")).collect();
            let ours: BTreeSet<_> = ours.into_iter().filter(|line| line.starts_with("7f14")).collect();
            assert!(ours.is_subset(&theirs) && ours.len() + 1 >= theirs.len(), "{ours:#?}\n{theirs:#?}");
        } else {
            same(&pair.command, &theirs, &ours);
        }
    }
}

/// Count by type of a statistics table.
fn counts(lines: &[String]) -> BTreeMap<String, u64> {
    let count = |line: &String| {
        let mut words = line.split(' ');
        let (mt, count) = (words.next()?, words.next()?);
        Some((mt.to_owned(), count.replace(',', "").parse().ok()?)).filter(|_| mt.starts_with('7'))
    };
    lines.iter().filter_map(count).collect()
}

#[test]
fn live_objects() {
    let Some(core) = modern() else { return };
    for pair in pairs(&core, &["dumpheap -live -stat"]) {
        let (theirs, ours) = (counts(&plain(&pair.theirs)), counts(&plain(&pair.ours)));
        assert!(theirs.len() > 200, "their table was read");
        for (mt, count) in &theirs {
            assert!(ours.get(mt).is_some_and(|n| n >= count), "{mt}: {count} are live");
        }
        // Not much more: what only thread statics hold, which dotnet-dump does not know.
        let sum = |all: &BTreeMap<String, u64>| all.values().sum::<u64>();
        assert!(sum(&ours) < sum(&theirs) + 100, "{} and {}", sum(&ours), sum(&theirs));
    }
}

/// Roots of a `gcroot` answer: handles, and (thread with frame, place) on stacks.
fn roots(lines: &[String]) -> (BTreeSet<String>, BTreeSet<(String, String)>) {
    let (mut handles, mut stacks) = (BTreeSet::new(), BTreeSet::new());
    let (mut thread, mut frame) = (String::new(), String::new());
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["Thread", id] => thread = id.trim_end_matches(':').to_owned(),
            [address, rest @ ..] if rest.last() == Some(&"handle)") => {
                handles.insert(format!("{address} {}", rest.join(" ")));
            }
            // dotnet-dump does not say which are interior.
            [slot, rest @ ..] if slot.ends_with(':') && *slot != "HandleTable:" => {
                let place =
                    rest.iter().filter(|word| **word != "(interior)").copied().collect::<Vec<_>>().join(" ");
                stacks.insert((format!("{thread} {frame}"), format!("{slot} {place}")));
            }
            [sp, ip, ..]
                if [sp, ip].iter().all(|w| w.len() > 8 && w.bytes().all(|b| b.is_ascii_hexdigit())) =>
            {
                // In front of a P/Invoke dotnet-dump names the runtime's frame instead of the method that makes it.
                frame = (*sp).to_owned();
            }
            _ => {}
        }
    }
    (handles, stacks)
}

#[test]
fn roots_of_objects() {
    let Some(core) = modern() else { return };
    let mut on_stacks = 0;
    for pair in pairs(&core, &["gcroot 7"]) {
        let ((handles, stacks), (our_handles, our_stacks)) = (roots(&pair.theirs), roots(&pair.ours));
        assert_eq!(our_handles, handles, "{}", pair.command);
        // dotnet-dump leaves out some roots from which a path leads through objects that it has already met.
        assert!(our_stacks.is_superset(&stacks), "{}: {stacks:?} and only {our_stacks:?}", pair.command);
        on_stacks += stacks.len();
        let last = pair.ours.last().expect("an answer");
        // Thread statics are roots of their own since .NET 9; dotnet-dump does not know them.
        let thread_statics = pair.ours.iter().filter(|line| line.ends_with(" (thread static)")).count();
        let all = our_handles.len() + our_stacks.len() + thread_statics;
        assert_eq!(*last, format!("Found {all} unique roots."), "{}", pair.command);
    }
    assert!(on_stacks > 400, "{on_stacks}");
}

#[test]
fn static_fields_have_their_own_names() {
    // dotnet-dump takes this list for `System.Threading.ManualResetEventSlim.Park`, see Modern.cs.
    let Some(core) = modern() else { return };
    let answer =
        Dnd::new(DND).args(["dump", "analyze"]).arg(&core.path).args(["-c", "gcroot -nostacks 7f1411810dd8"]);
    let answer = answer.run().success();
    assert!(answer.contains("List<System.Object> (static variable: Modern.Program.keep)"), "{answer}");
    let path: Vec<&str> = answer.lines().filter(|line| line.contains("->")).collect();
    assert_eq!(path.len(), 4, "{answer}");
}

#[test]
fn methods() {
    let source = |line: &String| !line.starts_with("Source file:");
    all_same(&["dumpmd 7", "ip2md 7"], 30, |_, theirs, ours| {
        (theirs.into_iter().filter(source).collect(), ours)
    });
}

#[test]
fn methods_of_types() {
    all_same(&["dumpmt -md 7"], 16, |_, theirs, ours| (theirs, ours));
}

#[test]
fn the_heap_in_numbers() {
    // dotnet-dump leaves the column of frozen objects empty.
    let without_frozen = |line: String| {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            [head, numbers @ ..] if head.starts_with("Heap0") || *head == "Total" => {
                let (numbers, rest) = numbers.split_at(6.min(numbers.len()));
                let five = numbers.iter().take(5);
                std::iter::once(head).chain(five).chain(rest).copied().collect::<Vec<_>>().join(" ")
            }
            _ => line,
        }
    };
    all_same(
        &["gcheapstat", "sizestats", "verifyheap", "dumpgen gen0", "listnearobj 7"],
        20,
        |pair, theirs, ours| {
            let ours: Vec<String> = match pair.command.starts_with("gcheapstat") {
                true => ours.into_iter().map(without_frozen).collect(),
                false => ours,
            };
            let arrays = |line: String| line.replace("System.String<*>", "System.String[*]");
            let mut theirs: Vec<String> = theirs.into_iter().map(arrays).collect();
            if pair.command == "gcheapstat -iu" {
                // What only thread statics hold is no garbage: dotnet-dump counts 27,682 bytes.
                let at = theirs.iter().position(|line| line == "Unrooted objects:").expect("the part");
                for line in [at + 2, at + 3] {
                    let (theirs, ours) = (&mut theirs[line], &ours[line]);
                    assert!(theirs.contains(" 27682 ") && ours.contains(" 22386 "), "{ours}");
                    ours.clone_into(theirs);
                }
            }
            (theirs, ours)
        },
    );
}

#[test]
fn async_stacks_queues_and_timers() {
    all_same(&["dumpasync", "threadpoolqueue", "timerinfo", "dumphttp"], 4, |pair, theirs, ours| {
        if pair.command == "dumpasync -stats" {
            // An error there.
            assert!(theirs[0].contains("Unrecognized") && ours[0] == "MT Count Type", "{ours:?}");
            return (ours.clone(), ours);
        }
        (theirs, ours)
    });
}

#[test]
fn delegates() {
    all_same(&["dumpdelegate 7"], 1, |_, theirs, ours| (theirs, ours));
}

#[test]
fn merged_stacks() {
    all_same(&["pstacks", "parallelstacks -a"], 2, |_, theirs, ours| (theirs, ours));
}

#[test]
fn words_of_the_stack() {
    let Some(core) = modern() else { return };
    let answer = Dnd::new(DND).args(["dump", "analyze"]).arg(&core.path).args(["-c", "dso -conservative"]);
    let ours: Vec<String> = answer.run().success().lines().map(str::to_owned).collect();
    for pair in pairs(&core, &["dso", "dumpstackobjects"]) {
        let theirs: Vec<String> =
            pair.theirs.iter().map(|line| line.replace("String<*>", "String[*]")).collect();
        same(&pair.command, &plain(&theirs), &plain(&ours));
        // Less is live than lies about.
        let live: BTreeSet<String> = plain(&pair.ours).into_iter().collect();
        let live = live.iter().filter(|line| !line.contains("(interior)")).count();
        assert!(live > 50 && live < ours.len(), "{live} of {}", ours.len());
    }
}

/// What `clrstack` can be held to: dotnet-dump's lines without source lines, and without the instruction pointer beside a
/// frame of the runtime behind the last managed one, which dotnet-dump unwinds native code further for.
fn stack_lines(lines: &[String]) -> Vec<String> {
    let line = |line: &String| {
        let line = line.split(" [/").next().expect("a first part");
        match line.split_once("[DebuggerU2MCatchHandlerFrame") {
            Some((_, rest)) => format!("[DebuggerU2MCatchHandlerFrame{rest}"),
            None => line.to_owned(),
        }
    };
    lines.iter().map(line).collect()
}

#[test]
fn registers() {
    let Some(core) = modern() else { return };
    for pair in pairs(&core, &["registers"]) {
        let value = |lines: &[String], name: &str| {
            let line =
                lines.iter().find(|line| line.starts_with(&format!("{name} = "))).expect("the register");
            line.split_once(" = 0x").map(|(_, value)| value.to_owned()).expect("a value")
        };
        // dotnet-dump has r8 and r9 the wrong way round, and no flags: in a futex wait, which this thread is in, r9
        // is the mask of all bits.
        for name in
            ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r10", "r11", "r12", "r15", "rip"]
        {
            assert_eq!(value(&pair.ours, name), value(&pair.theirs, name), "{name}");
        }
        assert_eq!(value(&pair.ours, "r8"), value(&pair.theirs, "r9"));
        assert_eq!(value(&pair.ours, "r9"), value(&pair.theirs, "r8"));
    }
}

#[test]
fn stacks() {
    let mut frames = 0;
    let Some(core) = modern() else { return };
    for pair in pairs(&core, &["clrstack -all", "clrstack -f", "threads"]) {
        let (theirs, ours) = (stack_lines(&plain(&pair.theirs)), stack_lines(&plain(&pair.ours)));
        same(&pair.command, &theirs, &ours);
        frames += ours.len();
    }
    assert!(frames > 140, "{frames}");
}

/// Of structs, dotnet-dump writes the first eight bytes and we the type; the PDB of the program is not at hand.
#[test]
fn parameters_and_locals() {
    let Some(core) = modern() else { return };
    for pair in
        pairs(&core, &["setthread 0", "clrstack -a"]).into_iter().filter(|pair| pair.command == "clrstack -a")
    {
        let (theirs, ours) = (stack_lines(&plain(&pair.theirs)), stack_lines(&plain(&pair.ours)));
        let mut structs = 0;
        let line = |(theirs, ours): (&String, &String)| match ours.split_once(" = <") {
            Some((place, value)) if !value.starts_with("no data") => {
                structs += 1;
                format!("{place} = {}", theirs.split_once(" = ").map_or("", |(_, value)| value))
            }
            _ => ours.clone(),
        };
        assert_eq!(theirs.len(), ours.len());
        let ours: Vec<String> = theirs.iter().zip(&ours).map(line).collect();
        same(&pair.command, &theirs, &ours);
        assert_eq!(structs, 5);
    }
}
