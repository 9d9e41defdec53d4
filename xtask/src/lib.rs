//! The test bench: real .NET runtimes from public package registries and debuggees compiled with them, in a cache
//! outside the repository.
//!
//! A library, so that `cargo xtask` (which fills the bench) and `dnd-testkit` (which uses it) agree on one layout and
//! one way to build it. Only `std`: `cargo xtask` is the first thing a newcomer compiles.
//!
//! What the bench directory holds (every entry is complete or absent, made in `tmp` and renamed):
//!
//! ```text
//! runtimes/8.0.4/        one DOTNET_ROOT per runtime: `dotnet`, host/fxr, shared/Microsoft.NETCore.App/8.0.4
//! sdk-3.1.102/           Roslyn and reference assemblies of the 3.1 SDK
//! apps/Leak-<hash>/      a debuggee, named by the hash of its source and of the way it is compiled
//! packages/npm-azure-mcp-3.0.0-beta.46/app/azmcp    .NET 10.0.11, as an app that is a single file
//! debuggees/             single-file and NativeAOT programs (only with ../shared)
//! cores/                 core dumps, made by the testkit when a test asks for one
//! locks/ tmp/
//! ```

use std::path::{Path, PathBuf};

pub mod apps;
pub mod bench;
pub mod bundle;
pub mod run;
pub mod runtimes;
pub mod target;
pub mod tools;

/// Why a task could not be done, as a sentence.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// What tasks return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The checkout: that of the package which cargo runs or tests, else the one this was compiled from. (Checkouts that
/// share a target directory share what was compiled as well, so the latter may be another one.)
pub fn workspace() -> PathBuf {
    let run = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let checkout =
        |dir: &Path| dir.ancestors().find(|dir| dir.join("xtask/Cargo.toml").is_file()).map(Into::into);
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR"));
    run.and_then(|dir| checkout(&dir)).or_else(|| checkout(compiled)).unwrap_or_default()
}
