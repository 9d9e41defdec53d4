//! `cargo xtask runtimes` and `cargo xtask apps`.

use xtask::bench::Bench;
use xtask::runtimes::{Runtime, SINGLE_FILE, SINGLE_FILE_VERSION, ensure};
use xtask::{Result, apps, tools};

use super::say;

/// Fetches runtimes and lists what there is.
pub(crate) fn runtimes(_: &[String]) -> Result<()> {
    let (bench, skipped) = fetched()?;
    for runtime in Runtime::all(&bench) {
        let web = if runtime.aspnet() { " with ASP.NET Core" } else { "" };
        println!("{:8} {}{web}", runtime.version, runtime.root.display());
    }
    println!("{SINGLE_FILE_VERSION:8} {} (an app in a single file)", bench.path(SINGLE_FILE).display());
    for what in skipped {
        println!("skipped: {what}");
    }
    Ok(())
}

/// Fetches what the debuggees need, compiles them and lists them.
pub(crate) fn apps(_: &[String]) -> Result<()> {
    let (bench, _) = fetched()?;
    for name in apps::names() {
        println!("{}", apps::ensure(&bench, &name)?.display());
    }
    Ok(())
}

/// The bench with all runtimes that this machine can have, and what it can't have.
pub(crate) fn fetched() -> Result<(Bench, Vec<String>)> {
    let bench = Bench::locate()?;
    if !xtask::runtimes::complete(&bench) {
        tools::ensure(&tools::BENCH, &say)?;
        if xtask::runtimes::shared_folder().join("dotnet").is_dir() {
            tools::ensure(&[tools::XZ], &say)?;
        }
    }
    let skipped = ensure(&bench, &say)?;
    Ok((bench, skipped))
}
