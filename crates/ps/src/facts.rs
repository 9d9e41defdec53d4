//! What is known of a process.

use dnd_ipc::discovery::{Host, Unreachable};
use serde::Serialize;

/// The facts of `dnd ps`; `docs/json/ps.md`.
#[derive(Debug, Clone, Serialize)]
pub struct Processes {
    /// By name, then by pid.
    pub processes: Vec<ProcessFacts>,
}

/// A .NET process.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessFacts {
    /// Process id, as seen from here.
    pub pid: u32,
    /// Process id in its own pid namespace: another one in a container seen from outside.
    pub ns_pid: u32,
    /// Name of the executable, or what the process calls itself.
    pub name: String,
    /// The file it runs, as the process sees it; like all paths here with replacements where it is no UTF-8.
    pub executable: Option<String>,
    /// Its arguments as they were given, the program's name first.
    pub arguments: Option<Vec<String>>,
    /// Effective user id.
    pub uid: u32,
    /// Where its runtime comes from.
    pub hosting: Option<Hosting>,
    /// Version of the runtime, SemVer.
    pub runtime_version: Option<String>,
    /// How the version is known.
    pub runtime_version_from: Option<VersionSource>,
    /// Portable runtime identifier, such as `linux-x64` (.NET 8 and later).
    pub rid: Option<String>,
    /// `x64`, `arm64`, ...: .NET 5 and later.
    pub arch: Option<String>,
    /// `Linux`: .NET 5 and later.
    pub os: Option<String>,
    /// Simple name of the assembly with `Main`.
    pub entry_assembly: Option<String>,
    /// How it is known.
    pub entry_assembly_from: Option<AssemblySource>,
    /// Executable, managed entry point and arguments as the runtime tells them, without quoting (.NET 5 and later).
    pub command_line: Option<String>,
    /// Its diagnostics socket, as seen from here.
    pub socket: Option<String>,
    /// Whether it sees another file system than this program does.
    pub other_root: Option<bool>,
    /// Why it can't be reached; absent when it can.
    pub unreachable: Option<&'static str>,
    /// The same for programs.
    #[serde(skip)]
    pub reason: Option<Unreachable>,
}

/// Where a runtime comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hosting {
    /// CoreCLR as a library beside the application or of a shared installation.
    Coreclr,
    /// CoreCLR inside the executable.
    SingleFile,
    /// Compiled ahead of time, without a CLR.
    Nativeaot,
}

impl From<&Host> for Hosting {
    fn from(host: &Host) -> Self {
        match host {
            Host::CoreClr { .. } => Self::Coreclr,
            Host::SingleFile => Self::SingleFile,
            Host::NativeAot => Self::Nativeaot,
        }
    }
}

/// How an entry assembly is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssemblySource {
    /// The runtime said so (.NET 6 and later).
    Runtime,
    /// From the arguments: `dotnet Shop.dll`.
    Arguments,
}

/// How a version is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionSource {
    /// The runtime said so.
    Runtime,
    /// From the folder that the runtime was loaded from; .NET Core 3 can't be asked.
    Path,
}
