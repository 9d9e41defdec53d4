//! `cargo xtask`: the project's own tasks. `cargo xtask help` lists them.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "tasks talk to the one who runs them")]

mod tasks;

use std::process::ExitCode;

use xtask::Result;

type Task = fn(&[String]) -> Result<()>;

const TASKS: &[(&str, Task, &str)] = &[
    ("demo", tasks::demo::run, "hunt a leak in a real .NET service: [--runtime 3.1|8]"),
    (
        "test",
        tasks::test::run,
        "fetch runtimes, compile debuggees, run all tests: [arguments of the test runner]",
    ),
    (
        "ci",
        tasks::test::ci,
        "what a change must pass: formatting, lints, documentation, all tests, a minute of each fuzz target",
    ),
    ("fuzz", tasks::fuzz::run, "fuzz the readers of foreign bytes: [--seconds N] [targets]"),
    (
        "runtimes",
        tasks::bench::runtimes,
        "fetch real .NET runtimes into $DND_BENCH_DIR or ~/.cache/dnd-bench",
    ),
    ("apps", tasks::bench::apps, "compile the debuggees of tests/apps"),
    ("dist", tasks::dist::run, "build the static binary that is shipped, and check it"),
    (
        "bench",
        tasks::measure::run,
        "measure speed and memory on a heap of 30 million objects: [part of a name]; or: counters",
    ),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "help".into());
    let args: Vec<_> = args.collect();
    let Some((_, task, _)) = TASKS.iter().find(|(task, ..)| *task == name) else {
        if name != "help" {
            eprintln!("error: there is no task `{name}`");
        }
        for (name, _, help) in TASKS {
            println!("cargo xtask {name:10} {help}");
        }
        return if name == "help" { ExitCode::SUCCESS } else { ExitCode::from(2) };
    };
    match task(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
