//! Watching a process again and again leaves nothing behind in it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dnd_testkit::{DEADLINE, Dnd, Target, one_per_major};
use nix::sys::signal::Signal;

use super::DND;

/// How often the process is watched, and by how many at a time.
const CYCLES: u32 = 200;
const AT_A_TIME: u32 = 4;
/// Before it is measured what is to be the same after: what a process makes once for all that ever watch it.
const FIRST: u32 = 20;

/// A thread of .NET 8 opens a pipe when it walks a stack for the first time, and keeps it (libunwind's check of addresses);
/// those of sessions close it when they end. Which of the threads that stay come to that, and when, is left to chance.
fn same_fds(before: &Holds, now: &Holds) -> bool {
    let pipes = |holds: &Holds| holds.fds.get("pipe").copied().unwrap_or(0);
    let others = |holds: &Holds| -> Vec<(String, usize)> {
        holds.fds.clone().into_iter().filter(|(kind, _)| kind != "pipe").collect()
    };
    let threads: usize = now.threads.values().sum();
    others(now) == others(before) && pipes(now) <= pipes(before) + 2 * threads
}

/// By how much anonymous memory may grow: 20 KB a cycle. It is no leak that is allowed for (that of the garbage collector's
/// smallest budget is cleaned up all the time) but what the runtime's allocators keep.
const MEMORY: u64 = 4_000_000;

/// What a process holds.
#[derive(Debug, PartialEq, Eq)]
struct Holds {
    /// What its file descriptors are, and how many of each kind.
    fds: BTreeMap<String, usize>,
    threads: BTreeMap<String, usize>,
}

fn holds(pid: u32) -> Holds {
    let names = |folder: &str, name: &dyn Fn(&std::path::Path) -> Option<String>| {
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/{folder}")).into_iter().flatten().flatten() {
            // What is gone by now isn't held.
            if let Some(name) = name(&entry.path()) {
                *all.entry(name).or_insert(0) += 1;
            }
        }
        all
    };
    let kind = |path: &std::path::Path| {
        let target = std::fs::read_link(path).ok()?.to_string_lossy().into_owned();
        // `socket:[4711]`
        Some(target.split_once(":[").map_or(target.clone(), |(kind, _)| kind.to_owned()))
    };
    let name = |path: &std::path::Path| {
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        Some(name.trim_end().to_owned())
    };
    Holds { fds: names("fd", &kind), threads: names("task", &name) }
}

fn anonymous_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map_or(0, |kilobytes| kilobytes * 1024)
}

/// Watches until there are values, and ends it; one in nine times with a kill.
fn cycle(target: u32, counters: &str, number: u32) {
    let pid = target.to_string();
    let arguments = ["counters", "monitor", "-p", &pid, "--refresh-interval", "0.1", "--counters", counters];
    let running = Dnd::new(DND).args(arguments).spawn();
    running.wait_stdout(|text| text.contains("\tgc-heap-size\t").then_some(()));
    let signal = match number % 9 {
        0 => Signal::SIGKILL,
        1..5 => Signal::SIGTERM,
        _ => Signal::SIGINT,
    };
    running.signal(signal);
    let output = running.wait();
    if signal != Signal::SIGKILL {
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
    }
}

fn cycles(target: u32, count: u32) {
    std::thread::scope(|scope| {
        for worker in 0..AT_A_TIME {
            scope.spawn(move || {
                // Half of them share a session for Meters.
                let counters =
                    if worker % 2 == 0 { "System.Runtime,OS" } else { r"EventCounters\System.Runtime" };
                for number in 0..count / AT_A_TIME {
                    cycle(target, counters, number * AT_A_TIME + worker + 1);
                }
            });
        }
    });
}

/// Two hundred times; file descriptors and threads are exactly as before once it has settled.
fn soak(major: u32) {
    let Some(runtime) = one_per_major().into_iter().find(|runtime| runtime.major() == major) else { return };
    let mut target = Target::builder(&runtime, "Counters");
    for prefix in ["DOTNET", "COMPlus"] {
        // Threads that compile in the background, and garbage that waits for its collector, tell nothing here.
        target = target.env(&format!("{prefix}_TieredCompilation"), "0");
        target = target.env(&format!("{prefix}_GCgen0size"), "0x80000");
    }
    let mut target = target.spawn();
    let pid = target.pid();
    // The first one by itself: see docs/counters.md about the first collection of a process.
    cycle(pid, "System.Runtime", 5);
    cycles(pid, FIRST);
    // The pool of threads of .NET Core 3 comes and goes with its work; nothing else does.
    let (before, memory) = (holds(pid), anonymous_memory(pid));
    cycles(pid, CYCLES);
    let as_before = || {
        let now = holds(pid);
        let threads = |holds: &Holds| holds.threads.values().sum::<usize>();
        same_fds(&before, &now)
            && (now.threads == before.threads || (major < 5 && threads(&now) <= threads(&before)))
    };
    let deadline = Instant::now() + DEADLINE;
    while !as_before() {
        assert!(Instant::now() < deadline, ".NET {major}: {:?} became {:?}", before, holds(pid));
        std::thread::sleep(Duration::from_millis(50));
    }
    let grown = anonymous_memory(pid).saturating_sub(memory);
    assert!(grown < MEMORY, ".NET {major}: {grown} bytes more than {memory}");
    target.ask("step", "stepped ");
    assert!(target.stop().success());
}

#[test]
fn dotnet_core_3() {
    soak(3);
}

#[test]
fn dotnet_8() {
    soak(8);
}

#[test]
fn dotnet_9() {
    soak(9);
}

#[test]
fn dotnet_10() {
    soak(10);
}
