//! `cargo xtask test` and `cargo xtask ci`.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use xtask::{Result, apps, run, tools, workspace};

use super::bench::fetched;
use super::say;

/// Everything that the tests need, then all tests, then what was not tested.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let (bench, mut skipped) = fetched()?;
    tools::ensure(&[tools::GCORE], &say)?;
    if xtask::runtimes::shared_folder().join("cores").is_dir() {
        tools::ensure(&[tools::ZSTD], &say)?;
    }
    for name in apps::names() {
        apps::ensure(&bench, &name)?;
    }

    let scratch = bench.scratch("test")?;
    let skips = scratch.path().join("skips");
    let with_bench = |mut command: Command| {
        command
            .env("DND_BENCH_REQUIRED", "1")
            .env("DND_BENCH_SKIPS", &skips)
            .env("DND_BENCH_DIR", bench.path(""));
        say(&format!("$ {}", run::shown(&command)));
        run::loudly(&mut command)
    };
    let nextest = run::exists("cargo-nextest");
    let mut tests = cargo();
    tests.args(if nextest { &["nextest", "run"][..] } else { &["test"] });
    tests.args(["--workspace", "--no-fail-fast"]).args(args);
    let outcome = with_bench(tests);
    // nextest runs no examples of the documentation; `cargo test` has done it already.
    let examples = if nextest && args.is_empty() {
        let mut doc = cargo();
        doc.args(["test", "--workspace", "--doc", "--quiet"]);
        with_bench(doc)
    } else {
        Ok(())
    };

    let mut reasons = BTreeMap::<String, usize>::new();
    for line in fs::read_to_string(&skips).unwrap_or_default().lines() {
        let (reason, _test) = line.split_once('\t').unwrap_or((line, ""));
        *reasons.entry(reason.to_owned()).or_default() += 1;
    }
    skipped.extend(reasons.into_iter().map(|(reason, times)| format!("{reason} [in {times} places]")));
    println!();
    match skipped.as_slice() {
        [] => println!("Nothing was skipped."),
        skipped => println!("Skipped on this machine:\n  {}", skipped.join("\n  ")),
    }
    outcome.and(examples)?;
    println!("All tests passed.");
    Ok(())
}

/// Formatting, lints, links of the documentation, tests, fuzzing.
pub(crate) fn ci(_: &[String]) -> Result<()> {
    for words in [
        &["fmt", "--all", "--check"][..],
        &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"],
        &["doc", "--workspace", "--no-deps", "--quiet"],
    ] {
        let mut command = cargo();
        command.args(words).env("RUSTDOCFLAGS", "-D warnings");
        say(&format!("$ {}", run::shown(&command)));
        run::loudly(&mut command)?;
    }
    run(&[])?;
    super::fuzz::ci()
}

/// The cargo that runs this, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}
