//! Where the bench is, which runtimes it has, and what to do without them.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use xtask::bench::Bench;
use xtask::run;
use xtask::runtimes::{REGISTRY, Runtime};

/// The bench directory (see `cargo xtask runtimes`).
pub fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| must(Bench::locate(), "no test bench"))
}

/// The compiled debuggee of this name (a source of tests/apps): its dll.
#[track_caller]
pub fn app(name: &str) -> PathBuf {
    must(xtask::apps::ensure(bench(), name), format_args!("no debuggee {name}"))
}

/// A folder with these packages of PyPI (`name==version`) for PYTHONPATH, installed once. `None`, with a visible skip,
/// where they can't be had.
pub fn python_packages(packages: &[&str]) -> Option<PathBuf> {
    let dir = bench().path("python").join(packages.join("+").replace('=', "-"));
    let install = |to: &Path| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
            .arg(to)
            .args(packages);
        run::quietly(&mut pip)
    };
    match bench().install(&dir, install) {
        Ok(_) => Some(dir),
        Err(error) => {
            skip(format_args!("python packages {packages:?}: {}", error.to_string().trim_end()));
            None
        }
    }
}

/// The value, or a panic that says what failed and why.
#[track_caller]
pub fn must<T, E: Display>(result: Result<T, E>, what: impl Display) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Says on stderr, and to `cargo xtask test` (the file named by `DND_BENCH_SKIPS`), what is not tested here and why.
pub fn skip(reason: impl Display) {
    eprintln!("skipped: {reason}");
    let Some(path) = std::env::var_os("DND_BENCH_SKIPS") else { return };
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let file = File::options().create(true).append(true).open(path);
    // One write, so that lines of tests running at once don't mix.
    let _ = file.and_then(|mut file| file.write_all(format!("{reason}\t{test}\n").as_bytes()));
}

/// Whether the registries' runtimes must be there (`DND_BENCH_REQUIRED=1`, set by `cargo xtask test`).
fn required() -> bool {
    std::env::var_os("DND_BENCH_REQUIRED").is_some_and(|v| v == "1")
}

/// All runtimes of the bench, oldest first. None, with a visible skip, where the bench was never made.
#[track_caller]
pub fn runtimes() -> Vec<Runtime> {
    let all = Runtime::all(bench());
    let missing: Vec<_> = REGISTRY.iter().filter(|v| !all.iter().any(|r| r.version == **v)).collect();
    if !missing.is_empty() {
        absent(format!("runtimes {missing:?} are not in the bench; `cargo xtask runtimes` fetches them"));
    }
    all
}

/// The runtime of this version; `None`, with a visible skip, when the bench doesn't have it.
#[track_caller]
pub fn runtime(version: &str) -> Option<Runtime> {
    let found = Runtime::find(bench(), version);
    if found.is_none() {
        let text = format!("runtime {version} is not in the bench");
        if REGISTRY.contains(&version) { absent(text) } else { skip(text) }
    }
    found
}

/// The newest runtime of every major version, for tests for which servicing releases make no difference.
#[track_caller]
pub fn one_per_major() -> Vec<Runtime> {
    let mut all = runtimes();
    all.reverse();
    all.dedup_by_key(|runtime| runtime.major());
    all.reverse();
    all
}

#[track_caller]
fn absent(text: String) {
    assert!(!required(), "{text}");
    skip(text);
}
