//! Programs that bring their runtime along, and cores of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::bench::names_in;
use xtask::runtimes::DEBUGGEES;

use crate::cores::{RECIPE, kept, living, write_core};
use crate::{By, Core, Kind, Target, TargetBuilder, bench, must, runtime, runtimes, skip};

/// A program that brings its runtime along, of ../shared/dotnet (source: its Service.cs).
#[derive(Debug, Clone)]
pub struct SingleFile {
    /// `singlefile-8.0.33`, `nativeaot-10.0.12`, ...
    pub name: String,
    /// The program.
    pub path: PathBuf,
}

impl SingleFile {
    /// No CoreCLR inside: nothing of its heap can be read, but it answers on the diagnostics socket.
    pub fn native_aot(&self) -> bool {
        self.name.starts_with("nativeaot-")
    }

    /// Version of its runtime.
    pub fn version(&self) -> &str {
        self.name.rsplit('-').next().unwrap_or_default()
    }

    /// A target of it; `leak_rate` objects a second are leaked. [`Target::truth`] is a string: its version.
    pub fn builder(&self, leak_rate: u32) -> TargetBuilder {
        let mut command = Command::new(&self.path);
        command.arg(leak_rate.to_string()).env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1");
        TargetBuilder::new(command)
    }

    /// A core of it with all memory; see [`Self::core_of`].
    #[track_caller]
    pub fn core(&self, by: By) -> Option<Core> {
        self.core_of(Kind::Full, by)
    }

    /// A core of it. Its own runtime has no createdump, so one of the same major is borrowed. `None`, with a visible skip,
    /// when the bench has none.
    #[track_caller]
    pub fn core_of(&self, kind: Kind, by: By) -> Option<Core> {
        let major = self.version().split('.').next().unwrap_or_default();
        let lender = runtimes().into_iter().rev().find(|runtime| runtime.major().to_string() == major);
        let Some(lender) = lender else {
            skip(format_args!(
                "a core of {}: the bench has no runtime {major} to lend its createdump",
                self.name
            ));
            return None;
        };
        let small = if kind == Kind::Full { String::new() } else { format!("-{kind:?}") };
        let key = format!("{}-{by:?}{small}-r{RECIPE}", self.name).to_lowercase();
        let write = |target: &mut Target, to: &Path| write_core(&lender.createdump(), kind, by, target, to);
        let made = kept(&key, None, |to| living(self.builder(10), to, write));
        Some(must(made, format_args!("no core of {}", self.name)))
    }
}

/// The single-file and NativeAOT programs; none, with a visible skip, where ../shared/dotnet is absent.
pub fn single_files() -> Vec<SingleFile> {
    let dir = bench().path(DEBUGGEES);
    let program = |name: String| {
        let path = dir.join(&name).join("Service");
        path.is_file().then_some(SingleFile { name, path })
    };
    let all: Vec<_> = names_in(&dir).into_iter().filter_map(program).collect();
    if all.is_empty() {
        skip("single-file and NativeAOT programs: they come from ../shared/dotnet, which is absent");
    }
    all
}

/// Cores of the single-file programs with all memory. Each comes with what names it in a failure, and with the library
/// (for [`oracle_for`](crate::oracle_for)) of a framework of the same build, which knows programs that bring that runtime,
/// trimmed, in their own file.
#[track_caller]
pub fn single_file_cores() -> Vec<(String, Core, PathBuf)> {
    let mut all = Vec::new();
    for program in single_files().into_iter().filter(|program| !program.native_aot()) {
        let Some(framework) = runtime(program.version()) else { continue };
        for by in [By::Createdump, By::Gcore] {
            let Some(core) = program.core(by) else { continue };
            all.push((
                format!("{} {by:?}", program.name),
                core,
                framework.framework().join("libmscordaccore.so"),
            ));
        }
    }
    all
}
