//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, all at once on all processors.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use xtask::bench::{Bench, names_in};
use xtask::{Result, run, workspace};

use super::say;
use super::test::cargo;

/// For each target in CI; the longest time for one input; memory in MB.
const CI_SECONDS: u32 = 60;
const INPUT_SECONDS: u32 = 20;
const MEMORY: u32 = 2048;

/// Runs the fuzz targets: `[--seconds N] [TARGET ...]`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let (mut seconds, mut wanted) = (CI_SECONDS, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--seconds" {
            seconds = args.next().and_then(|n| n.parse().ok()).ok_or("--seconds needs a number")?;
        } else {
            wanted.push(arg.clone());
        }
    }
    let tool = cargo_fuzz()?;
    fuzz(&tool, seconds, &wanted)
}

/// As [`run`] for a minute each; where the tool can't be had, that is said and no failure.
pub(crate) fn ci() -> Result<()> {
    match cargo_fuzz() {
        Ok(tool) => fuzz(&tool, CI_SECONDS, &[]),
        Err(error) => {
            println!("Skipped on this machine:\n  fuzzing: {error}");
            Ok(())
        }
    }
}

fn folder() -> PathBuf {
    workspace().join("fuzz")
}

/// cargo-fuzz, installed below `target` where the machine lacks it.
fn cargo_fuzz() -> Result<PathBuf> {
    if !run::exists("c++") {
        return Err("libFuzzer needs a C++ compiler (on Debian: apt-get install g++)".into());
    }
    if run::exists("cargo-fuzz") {
        return Ok("cargo-fuzz".into());
    }
    let root = workspace().join("target/tools");
    let tool = root.join("bin/cargo-fuzz");
    if !tool.is_file() {
        let mut install = cargo();
        install.args(["install", "--locked", "--quiet", "cargo-fuzz", "--root"]).arg(&root);
        say(&format!("$ {}", run::shown(&install)));
        run::quietly(&mut install)?;
    }
    Ok(tool)
}

fn fuzz(tool: &Path, seconds: u32, wanted: &[String]) -> Result<()> {
    let fuzz = folder();
    let mut targets = names_in(&fuzz.join("fuzz_targets"));
    targets.retain(|file| file.ends_with(".rs"));
    for target in &mut targets {
        target.truncate(target.len() - ".rs".len());
    }
    if let Some(unknown) = wanted.iter().find(|name| !targets.contains(name)) {
        return Err(format!("no fuzz target is called {unknown}: {}", targets.join(", ")).into());
    }
    if !wanted.is_empty() {
        targets.retain(|target| wanted.contains(target));
    }
    // Without a sanitizer any compiler will do, and all code but that of crates/memory is safe.
    let mut build = Command::new(tool);
    build.args(["fuzz", "build", "--sanitizer", "none"]).current_dir(&fuzz);
    // Where its programs are looked for below, whatever this workspace is built into.
    build.env("CARGO_TARGET_DIR", fuzz.join("target"));
    say(&format!("$ {}", run::shown(&build)));
    run::loudly(&mut build)?;

    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{} fuzz targets, {seconds} s each, {workers} at once", targets.len());
    let queue = Mutex::new(VecDeque::from(targets));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = next() {
                    match one(&target, seconds) {
                        Ok(said) => println!("  {target}: {said}"),
                        Err(error) => {
                            println!("  {target}: FAILED\n{error}");
                            failures.lock().unwrap_or_else(PoisonError::into_inner).push(target);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failures.is_empty() { Ok(()) } else { Err(format!("fuzzing failed: {}", failures.join(", ")).into()) }
}

/// Runs one target; what it tried, in its own words.
fn one(target: &str, seconds: u32) -> Result<String> {
    let fuzz = folder();
    let corpus = fuzz.join("corpus").join(target);
    let artifacts = fuzz.join("artifacts").join(target);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    plant(target, &corpus)?;
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let log = artifacts.join("log");
    let file = File::create(&log)?;
    let mut command = Command::new(fuzz.join("target").join(triple).join("release").join(target));
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&corpus)
        .stdout(file.try_clone()?)
        .stderr(file);
    let seeds = fuzz.join("seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    let ended = run::loudly(&mut command);
    let said = fs::read_to_string(&log).unwrap_or_default();
    match ended {
        Ok(()) => Ok(said.lines().rev().find(|line| line.starts_with("Done")).unwrap_or("done").to_owned()),
        Err(error) => {
            // What it panicked with stands in front of what libFuzzer says of it.
            let lines: Vec<&str> = said.lines().collect();
            let from = lines.iter().position(|line| line.contains("panicked") || line.starts_with("=="));
            let tail = lines.get(from.unwrap_or(0)..).unwrap_or_default();
            let end = tail.iter().take(40).map(|line| format!("    {line}\n")).collect::<String>();
            Err(format!("{end}    {error}").into())
        }
    }
}

/// First inputs from the bench: the debuggees are small assemblies with symbols.
fn plant(target: &str, corpus: &Path) -> Result<()> {
    let ending = match target {
        "metadata" => ".dll",
        "pdb" => ".pdb",
        _ => return Ok(()),
    };
    let apps = Bench::locate()?.path("apps");
    for app in names_in(&apps) {
        for file in names_in(&apps.join(&app)).into_iter().filter(|file| file.ends_with(ending)) {
            fs::copy(apps.join(&app).join(&file), corpus.join(&file))?;
        }
    }
    Ok(())
}
