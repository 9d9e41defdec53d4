//! The debuggees of tests/apps, compiled with the Roslyn of the 3.1 SDK running on .NET 8.
//!
//! They are compiled for .NET Core 3.1 (C# 8) and roll forward to whatever runtime they are started on. A source with
//! a line `// references: 8.0.4` is compiled against that runtime's own assemblies instead, for API that 3.1 lacks; one
//! with a line `// debug: embedded` has its PDB inside, the others beside them; one with `// optimize: no` is a debug build.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::bench::{Bench, names_in};
use crate::runtimes::{Runtime, SDK, SINGLE_FILE};
use crate::{Result, bundle, run};

/// Changes whenever compiled apps come out differently for the same source.
const RECIPE: &str = "1";

/// The same for apps in a single file.
const SINGLE_FILE_RECIPE: &str = "1";

/// Where the sources are.
pub fn sources() -> PathBuf {
    crate::workspace().join("tests/apps")
}

/// The names of all debuggees.
pub fn names() -> Vec<String> {
    names_in(&sources()).iter().filter_map(|file| file.strip_suffix(".cs")).map(Into::into).collect()
}

/// The compiled app of this name: `.../apps/NAME-HASH/NAME.dll`; compiled now, if its source is new.
///
/// # Errors
/// No such source, the bench has no compiler (`cargo xtask runtimes`), or the source does not compile.
pub fn ensure(bench: &Bench, name: &str) -> Result<PathBuf> {
    let source = sources().join(format!("{name}.cs"));
    let text = fs::read_to_string(&source).map_err(|e| format!("can't read {}: {e}", source.display()))?;
    let dir = bench.path("apps").join(format!("{name}-{:016x}", hash(&text)));
    bench.install(&dir, |to| compile(bench, name, &source, &text, to))?;
    Ok(dir.join(format!("{name}.dll")))
}

/// FNV-1a: all that a key of a cache needs.
fn hash(source: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    source.bytes().chain(RECIPE.bytes()).fold(0xcbf2_9ce4_8422_2325, step)
}

fn compile(bench: &Bench, name: &str, source: &Path, text: &str, to: &Path) -> Result<()> {
    let own = text.lines().find_map(|line| line.strip_prefix("// references: "));
    csc(bench, source, text, &references(bench, own)?, &to.join(format!("{name}.dll")))?;
    let (tfm, version) = if own.is_some() { ("net8.0", "8.0.0") } else { ("netcoreapp3.1", "3.1.0") };
    let framework = if text.contains("Microsoft.AspNetCore") { "AspNetCore" } else { "NETCore" };
    let config = format!(
        "{{\"runtimeOptions\":{{\"tfm\":\"{tfm}\",\"rollForward\":\"LatestMajor\",\"framework\":\
         {{\"name\":\"Microsoft.{framework}.App\",\"version\":\"{version}\"}},\
         \"configProperties\":{{\"System.Globalization.Invariant\":true}}}}}}\n"
    );
    Ok(fs::write(to.join(format!("{name}.runtimeconfig.json")), config)?)
}

fn csc(bench: &Bench, source: &Path, text: &str, references: &[PathBuf], assembly: &Path) -> Result<()> {
    let runtime = Runtime::find(bench, "8.0.4").filter(|_| bench.path(SDK).is_dir());
    let runtime = runtime.ok_or("the bench has no compiler: run `cargo xtask runtimes`")?;
    let mut command = runtime.dotnet();
    command.args(["exec", "--fx-version", &runtime.version]);
    command.arg(bench.path(SDK).join("Roslyn/bincore/csc.dll"));
    command.args(["-nologo", "-noconfig", "-nostdlib", "-deterministic", "-unsafe"]);
    let set = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    command.arg(if set("// optimize: ") == Some("no") { "-optimize-" } else { "-optimize+" });
    let debug = set("// debug: ").unwrap_or("portable");
    command.arg(format!("-debug:{debug}")).args(["-langversion:8", "-warnaserror+"]);
    // In a response file: hundreds of them would drown the compiler's message in that of the failed command.
    let scratch = bench.scratch("references")?;
    let list = scratch.path().join("references.rsp");
    let lines: String = references.iter().map(|dll| format!("-r:\"{}\"\n", dll.display())).collect();
    fs::write(&list, lines)?;
    command.arg(format!("@{}", list.display()));
    run::quietly(command.arg(format!("-out:{}", assembly.display())).arg(source))
}

/// The app of this name on .NET 10.0.11 as a program in a single file: `.../apps/NAME-single-file-HASH/NAME`, and its PDB.
///
/// Its framework is trimmed to what another app needs, and so are the assemblies it is compiled against: only a simple
/// debuggee compiles.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_single_file(bench: &Bench, name: &str) -> Result<PathBuf> {
    let source = sources().join(format!("{name}.cs"));
    let text = fs::read_to_string(&source).map_err(|e| format!("can't read {}: {e}", source.display()))?;
    let recipe = format!("{text}{SINGLE_FILE_RECIPE}");
    let dir = bench.path("apps").join(format!("{name}-single-file-{:016x}", hash(&recipe)));
    bench.install(&dir, |to| {
        let host = bench.path(SINGLE_FILE);
        let program = fs::read(&host).map_err(|e| format!("can't read {}: {e}", host.display()))?;
        let entries = bundle::entries(&program)?;
        let scratch = bench.scratch("bundle")?;
        let mut references = Vec::new();
        for entry in entries.iter().filter(|entry| entry.assembly && entry.path.starts_with("System.")) {
            let path = scratch.path().join(&entry.path);
            fs::write(&path, bundle::content(&program, entry)?)?;
            references.push(path);
        }
        // The host looks for the assembly it was made for, and an assembly must have its file's name.
        const OWN: &str = "azmcp.dll";
        let own = entries.iter().find(|entry| entry.path == OWN);
        let own = own.ok_or_else(|| format!("the bundle has no {OWN}"))?;
        let assembly = scratch.path().join(OWN);
        csc(bench, &source, &text, &references, &assembly)?;
        let single_file = to.join(name);
        fs::write(&single_file, bundle::replaced(&program, own, &fs::read(&assembly)?))?;
        let symbols = assembly.with_extension("pdb");
        if let Some(file) = symbols.file_name() {
            fs::copy(&symbols, to.join(file))?;
        }
        Ok(fs::set_permissions(single_file, Permissions::from_mode(0o755))?)
    })?;
    Ok(dir.join(name))
}

/// The assemblies to compile against: reference packs of 3.1, or the runtime `own`.
fn references(bench: &Bench, own: Option<&str>) -> Result<Vec<PathBuf>> {
    let dirs = match own {
        Some(version) => {
            let runtime = Runtime::find(bench, version.trim());
            vec![runtime.ok_or_else(|| format!("the bench has no runtime {version}"))?.framework()]
        }
        None => {
            let packs = bench.path(SDK).join("packs");
            ["Microsoft.NETCore.App.Ref/3.1.0", "Microsoft.AspNetCore.App.Ref/3.1.2"]
                .map(|pack| packs.join(pack).join("ref/netcoreapp3.1"))
                .to_vec()
        }
    };
    let dlls = |dir: &PathBuf| {
        let names = names_in(dir).into_iter().filter(|name| name.ends_with(".dll"));
        names.map(|name| dir.join(name)).collect::<Vec<_>>()
    };
    Ok(dirs.iter().flat_map(dlls).collect())
}
