//! Hostile memory: whatever the bytes of the runtime's structures are, every command ends, with an answer, a part of one,
//! or an error; after a bounded number of reads, with a bounded output, and never with a panic.
//!
//! `DND_HOSTILE_CASES=5000 cargo test -p dnd-analyze --test hostile` tries more, `DND_HOSTILE_SEED=N` one case again.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

#[path = "../../clr/tests/support/mod.rs"]
mod support;

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use dnd_analyze::{COMMANDS, Format, Session};
use dnd_clr::{Progress, Runtime};
use dnd_memory::{Core, FileOptions, Target, WithFiles};
use dnd_testkit::{CoreSpec, core, one_per_major, shared_cores};
use support::Patched;
use support::damage::{Numbers, Watched, damage, number};
use support::watchdog::Watchdog;

/// No answer of a small core is longer.
const MAX_OUTPUT: usize = 256 << 20;
/// Commands of each case.
const COMMANDS_OF_A_CASE: usize = 12;

/// Counts what is written, and refuses too much of it.
struct Sink(usize);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        assert!(self.0 < MAX_OUTPUT, "an answer without an end");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All commands, alone and with addresses of each kind: an object, a method table, a method, an instruction pointer.
fn lines(addresses: &[u64]) -> Vec<String> {
    let mut lines = Vec::new();
    for command in COMMANDS.iter().filter(|command| command.name() != "quit") {
        let name = command.name();
        lines.push(name.to_owned());
        let flags = command.options.iter().filter(|option| option.value == dnd_analyze::Value::None);
        let flags: Vec<String> = flags.map(|option| format!("-{}", option.names[0])).collect();
        lines.extend(flags.iter().map(|flag| format!("{name} {flag}")));
        if command.max_operands > 0 {
            for address in addresses {
                lines.push(format!("{name} {address:x}"));
                lines.extend(flags.iter().map(|flag| format!("{name} {flag} {address:x}")));
            }
        }
    }
    lines
}

/// An object, its method table, the method table of a generic type, a method and a place in its code.
fn addresses(target: &dyn Target) -> Vec<u64> {
    let runtime = Runtime::open(target).unwrap();
    let mut found = Vec::new();
    for thread in &runtime.threads().unwrap().threads {
        let stack = runtime.stack(thread);
        let Some((frame, code)) = stack.managed().last() else { continue };
        found.extend([code.method, frame.ip]);
        let references = runtime.stack_references(thread).references;
        let objects = references.iter().filter_map(|one| runtime.object(one.value).ok()).take(3);
        found.extend(objects.flat_map(|object| [object.address, object.table]));
        break;
    }
    assert!(found.len() >= 4, "a thread with frames and objects");
    found
}

fn run(target: &dyn Target, lines: &[&str], format: Format) -> bool {
    let Ok(runtime) = Runtime::open(target) else { return false };
    let progress = Progress::new();
    let session = Session::new(&runtime, &progress);
    for line in lines {
        let _ = session.run(line, &mut Sink(0), format);
    }
    true
}

fn cores() -> Vec<PathBuf> {
    let spec = CoreSpec::with_args(&["100", "10"]);
    let mut all: Vec<PathBuf> =
        one_per_major().iter().map(|runtime| core(runtime, "Leak", &spec).path()).collect();
    let shared = shared_cores();
    all.extend(shared.iter().filter(|shared| shared.name.contains("busy")).map(|shared| shared.path.clone()));
    all
}

#[test]
fn any_damage_ends_in_an_answer_or_an_error() {
    let cores = cores();
    let watchdog = Watchdog::new();
    let cases = number("DND_HOSTILE_CASES").unwrap_or(400);
    let only = number("DND_HOSTILE_SEED");
    let mut failures = Vec::new();
    let mut opened = 0;
    for (which, path) in cores.iter().enumerate() {
        let core = Core::open(path).unwrap();
        let target = WithFiles::new(core, FileOptions::default());
        let lines = lines(&addresses(&target));
        // What each command reads is what may be damaged for it.
        let all: Vec<&str> = lines.iter().map(String::as_str).collect();
        let noting = Watched::noting(&target);
        watchdog.begin(which as u64);
        run(&noting, &all, Format::Text);
        let places = noting.places();
        let words: u64 = target.ranges().iter().map(|range| (range.end - range.start) / 8).sum();
        let limit = COMMANDS_OF_A_CASE as u64 * (12 * words + 1_000_000);
        for case in 0..cases / cores.len() as u64 {
            let seed = which as u64 * 1_000_000 + case;
            if only.is_some_and(|only| only != seed) {
                continue;
            }
            watchdog.begin(seed);
            let mut numbers = Numbers(seed);
            let mine: Vec<&str> = (0..COMMANDS_OF_A_CASE).map(|_| numbers.of(&all)).collect();
            // Most of what is read belongs to the heap; a case is about what its own commands read.
            let noting = Watched::noting(&target);
            run(&noting, &mine, Format::Text);
            let own = noting.places();
            let mut damaged = Patched::new(&target);
            for _ in 0..1 + numbers.below(4) {
                let places = if numbers.below(4) > 0 { &own } else { &places };
                damage(&mut damaged, &mut numbers, places);
            }
            let watched = Watched::new(&damaged, limit);
            let format = if numbers.below(2) == 0 { Format::Text } else { Format::Json };
            let ended = catch_unwind(AssertUnwindSafe(|| run(&watched, &mine, format)));
            opened += u64::from(ended.as_ref().is_ok_and(|&opened| opened));
            if ended.is_err() {
                failures.push(format!("{seed}: panic ({}): {mine:?}", path.display()));
            }
            if watched.asked() >= limit {
                failures.push(format!("{seed}: too many reads ({}): {mine:?}", path.display()));
            }
        }
    }
    watchdog.end();
    assert!(failures.is_empty(), "{} of {cases} cases failed:\n{}", failures.len(), failures.join("\n"));
    // Damage that always prevents the opening would test little.
    assert!(only.is_some() || opened > cases / 3, "only {opened} of {cases} damaged runtimes were opened");
    assert!(!cores.is_empty());
}
