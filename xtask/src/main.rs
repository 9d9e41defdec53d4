//! `cargo xtask`: the project's own tasks. `cargo xtask help` lists them.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "tasks talk to the one who runs them")]

use std::process::ExitCode;

use xtask::bench::Bench;
use xtask::runtimes::Runtime;
use xtask::{Result, apps, runtimes};

type Task = fn(&[String]) -> Result<()>;

const TASKS: &[(&str, Task, &str)] = &[
    (
        "runtimes",
        fetch_runtimes,
        "fetch real .NET runtimes into the cache ($DND_BENCH_DIR or ~/.cache/dnd-bench)",
    ),
    ("apps", compile_apps, "compile the debuggees of tests/apps"),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "help".into());
    let args: Vec<_> = args.collect();
    let Some((_, task, _)) = TASKS.iter().find(|(task, ..)| *task == name) else {
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

fn fetch_runtimes(_: &[String]) -> Result<()> {
    let bench = Bench::locate()?;
    let skipped = runtimes::ensure(&bench, &|text| eprintln!("{text}"))?;
    for runtime in Runtime::all(&bench) {
        let web = if runtime.aspnet() { " with ASP.NET Core" } else { "" };
        println!("{:8} {}{web}", runtime.version, runtime.root.display());
    }
    for what in skipped {
        println!("skipped: {what}");
    }
    Ok(())
}

fn compile_apps(_: &[String]) -> Result<()> {
    let bench = Bench::locate()?;
    for name in apps::names() {
        println!("{}", apps::ensure(&bench, &name)?.display());
    }
    Ok(())
}
