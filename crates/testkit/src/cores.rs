//! Core dumps of real processes, made once and kept in the bench, and the ones that come with ../shared.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use serde_json::Value;
use xtask::bench::names_in;
use xtask::runtimes::{Runtime, shared_folder};
use xtask::{Result, apps, run, workspace};

use crate::target::single_file;
use crate::{Target, TargetBuilder, bench, must, runtimes, skip};

/// Changes whenever cores come out differently for the same app and [`CoreSpec`].
pub(crate) const RECIPE: u32 = 1;
/// The cores kept in the bench may take this much; the longest unused go first.
const KEEP_BYTES: u64 = 12 << 30;
/// A core used this lately is never removed: a test may be about to open it.
const IN_USE: Duration = Duration::from_secs(3600);

/// The type of a dump, in the words of `dnd dump collect --type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Stacks, modules, no heap.
    Mini,
    /// The GC heap and what is needed to read it.
    #[default]
    Heap,
    /// As Mini, without what may be private.
    Triage,
    /// All memory of the process.
    Full,
}

/// Who writes the core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum By {
    /// The runtime's own `createdump`.
    #[default]
    Createdump,
    /// gdb's gcore (all memory, whatever the [`Kind`]): stands for a core of the kernel.
    Gcore,
    /// The kernel, which a signal has write it: with coredump_filter 0xff for [`Kind::Full`], else with its default.
    /// Only where [`kernel_cores`] says that this is possible.
    Kernel,
}

/// Which core of an app.
#[derive(Debug, Clone, Default)]
pub struct CoreSpec {
    /// What is in it.
    pub kind: Kind,
    /// Who writes it.
    pub by: By,
    /// Server GC with two heaps instead of workstation GC.
    pub server_gc: bool,
    /// Segments instead of regions: `DOTNET_GCName=libclrgc.so` (8 and later; 3.1 always has segments).
    pub segments: bool,
    /// Arguments of the app.
    pub args: Vec<String>,
    /// Further environment variables of the app.
    pub env: Vec<(String, String)>,
}

/// A core of a known process.
#[derive(Debug, Clone)]
pub struct Core {
    dir: PathBuf,
    /// The runtime whose core it is.
    pub runtime: Option<Runtime>,
    /// What the app said of itself just before.
    pub truth: Value,
    /// The process's id when it was alive.
    pub pid: u32,
}

impl Core {
    /// The file.
    pub fn path(&self) -> PathBuf {
        self.dir.join("core")
    }
}

/// Whether the kernel of this machine leaves cores where a test finds them; says visibly when not.
#[track_caller]
pub fn kernel_cores() -> bool {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let usable = pattern.trim_end() == "core";
    if !usable {
        skip(format_args!(
            "cores of the kernel: /proc/sys/kernel/core_pattern is `{}`, not `core`",
            pattern.trim_end()
        ));
    }
    usable
}

/// The core that `spec` describes, of the app (a source of tests/apps) on the runtime: made now, or earlier.
///
/// It is written when the app has said `ready` and waits, by programs that share nothing with `dnd`.
#[track_caller]
pub fn core(runtime: &Runtime, app: &str, spec: &CoreSpec) -> Core {
    let dll = must(apps::ensure(bench(), app), format_args!("no debuggee {app}"));
    let hash = dll.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let key = format!("{hash}-{}-{}", runtime.version, spec.key());
    let target = || {
        let args: Vec<&str> = spec.args.iter().map(String::as_str).collect();
        let mut builder = Target::builder(runtime, app).args(&args);
        if spec.server_gc {
            builder = builder.server_gc();
        }
        if spec.segments {
            builder = builder.env("DOTNET_GCName", "libclrgc.so");
        }
        for (name, value) in &spec.env {
            builder = builder.env(name, value);
        }
        builder
    };
    let write =
        |target: &mut Target, to: &Path| write_core(&runtime.createdump(), spec.kind, spec.by, target, to);
    let made = kept(&key, Some(runtime), |to| living(target(), to, write));
    must(made, format_args!("no core of {app} on {}", runtime.version))
}

/// The core (of [`Kind::Heap`]) that the runtime itself writes when the app dies: when it is sent a line after it was
/// ready.
#[track_caller]
pub fn crash_core(runtime: &Runtime, app: &str, arg: &str) -> Core {
    let dll = must(apps::ensure(bench(), app), format_args!("no debuggee {app}"));
    let hash = dll.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let key = format!("{hash}-{}-crash_{arg}-r{RECIPE}", runtime.version);
    let die = |to: &Path| {
        let mut builder = Target::builder(runtime, app).args(&[arg]);
        // The prefix of 3.1 is an older one.
        for prefix in ["DOTNET", "COMPlus"] {
            builder = builder
                .env(&format!("{prefix}_DbgEnableMiniDump"), "1")
                .env(&format!("{prefix}_DbgMiniDumpType"), "2")
                .env(&format!("{prefix}_DbgMiniDumpName"), to);
        }
        let mut target = builder.spawn();
        let known = (target.pid(), target.truth().clone());
        target.say("go");
        target.wait();
        check_written(to)?;
        Ok(known)
    };
    must(kept(&key, Some(runtime), die), format_args!("no core of {app} {arg} on {}", runtime.version))
}

impl CoreSpec {
    /// A heap dump by createdump with these arguments of the app.
    pub fn with_args(args: &[&str]) -> Self {
        Self { args: args.iter().map(|&arg| arg.to_owned()).collect(), ..Self::default() }
    }

    fn key(&self) -> String {
        let gc = match (self.server_gc, self.segments) {
            (false, false) => "wks",
            (true, false) => "svr",
            (false, true) => "wks-segments",
            (true, true) => "svr-segments",
        };
        let words: String = self.args.iter().map(|arg| format!("_{arg}")).collect();
        let env: String = self.env.iter().map(|(name, value)| format!("_{name}={value}")).collect();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_=.".contains(c) { c } else { '+' };
        format!("{:?}-{:?}-{gc}{words}{env}-r{RECIPE}", self.kind, self.by)
            .to_lowercase()
            .replace(|c| plain(c) != c, "+")
    }
}

/// A core with all memory of the app on .NET 10.0.11 in a single file (see [`Target::single_file`]).
#[track_caller]
pub fn single_file_core(app: &str, args: &[&str], by: By) -> Core {
    let program = single_file(app);
    let hash = Path::new(program.get_program()).parent().and_then(Path::file_name).unwrap_or_default();
    let key = format!(
        "{}-{}",
        hash.to_string_lossy(),
        CoreSpec { kind: Kind::Full, by, ..CoreSpec::with_args(args) }.key()
    );
    // It has no createdump; that of a framework writes any process.
    let lender = runtimes().into_iter().rev().find(|runtime| runtime.major() >= 9);
    let lender = must(lender.ok_or("it is missing"), "the bench needs a runtime of .NET 9 or later");
    let write = |target: &mut Target, to: &Path| write_core(&lender.createdump(), Kind::Full, by, target, to);
    let made = kept(&key, None, |to| living(Target::single_file(app).args(args), to, write));
    must(made, format_args!("no core of {app}"))
}

/// A core that `write` makes of a process that is ready and waits: its id, and what it said of itself.
pub(crate) fn living(
    target: TargetBuilder,
    to: &Path,
    write: impl FnOnce(&mut Target, &Path) -> Result<()>,
) -> Result<(u32, Value)> {
    // The kernel writes into the folder where the process is.
    let mut target = target.dir(to.parent().unwrap_or(Path::new("/"))).spawn();
    write(&mut target, to)?;
    Ok((target.pid(), target.truth().clone()))
}

/// Makes or finds the directory `cores/key` with `core` and `truth.json`.
pub(crate) fn kept(
    key: &str,
    runtime: Option<&Runtime>,
    make: impl FnOnce(&Path) -> Result<(u32, Value)>,
) -> Result<Core> {
    let dir = bench().path("cores").join(key);
    let made = bench().install(&dir, |to| {
        let core = to.join("core");
        let (pid, truth) = make(&core)?;
        // Most of it is zeros of memory never touched: holes need no disk. (Where this fails, it takes some.)
        let _ = run::quietly(Command::new("fallocate").arg("--dig-holes").arg(&core));
        let known = serde_json::json!({ "pid": pid, "truth": truth });
        Ok(fs::write(to.join("truth.json"), known.to_string())?)
    })?;
    // The time of this file is when the core was last used.
    File::create(dir.join("used"))?;
    if made {
        remove_oldest(&bench().path("cores"), KEEP_BYTES)?;
    }
    let known: Value = serde_json::from_str(&fs::read_to_string(dir.join("truth.json"))?)?;
    let pid = known["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
    Ok(Core { dir, runtime: runtime.cloned(), truth: known["truth"].clone(), pid })
}

/// Has a core of a process written by a program that is not ours.
pub(crate) fn write_core(
    createdump: &Path,
    kind: Kind,
    by: By,
    target: &mut Target,
    to: &Path,
) -> Result<()> {
    let pid = target.pid().to_string();
    match by {
        By::Createdump => {
            let flag = match kind {
                Kind::Mini => "--normal",
                Kind::Heap => "--withheap",
                Kind::Triage => "--triage",
                Kind::Full => "--full",
            };
            // It crashes at times, in one of three runs on threads of 9 and 10 that throw without a pause; it is not what
            // is tested.
            for left in (0..20).rev() {
                match run::quietly(Command::new(createdump).arg(flag).arg("--name").arg(to).arg(&pid)) {
                    Err(error) if left == 0 || !target.alive() => return Err(error),
                    Err(_) if to.exists() => fs::remove_file(to)?,
                    Err(_) => {}
                    Ok(()) => break,
                }
            }
        }
        By::Gcore => {
            // Without `-a`, which would write the hundreds of gigabytes that the GC only reserves.
            let prefix = to.with_file_name("gcore");
            run::quietly(Command::new("gcore").arg("-o").arg(&prefix).arg(&pid))?;
            fs::rename(to.with_file_name(format!("gcore.{pid}")), to)?;
        }
        By::Kernel => {
            let filter = if kind == Kind::Full { "0xff" } else { "0x33" };
            fs::write(format!("/proc/{pid}/coredump_filter"), filter)?;
            run::quietly(Command::new("prlimit").args(["--core=unlimited:unlimited", "--pid", &pid]))?;
            // .NET has a handler for most of the others.
            target.signal(Signal::SIGSYS);
            let status = target.wait();
            if !status.core_dumped() {
                return Err(format!("the kernel wrote no core: {status}").into());
            }
            let numbered = to.with_file_name(format!("core.{pid}"));
            if numbered.exists() {
                fs::rename(numbered, to)?;
            }
        }
    }
    check_written(to)
}

fn check_written(to: &Path) -> Result<()> {
    if !fs::metadata(to).is_ok_and(|meta| meta.len() > 0) {
        return Err(format!("no core was written to {}", to.display()).into());
    }
    Ok(())
}

/// Removes cores until those left fit, the longest unused first.
fn remove_oldest(dir: &Path, keep: u64) -> Result<()> {
    let _lock = bench().lock("remove-cores")?;
    let mut cores = Vec::new();
    for name in names_in(dir) {
        let path = dir.join(name);
        // On the disk: some cores are mostly holes.
        let on_disk = |file: &String| fs::metadata(path.join(file)).ok().map(|meta| 512 * meta.blocks());
        let size: u64 = names_in(&path).iter().filter_map(on_disk).sum();
        let used = fs::metadata(path.join("used")).and_then(|meta| meta.modified());
        cores.push((used.unwrap_or_else(|_| SystemTime::now()), size, path));
    }
    cores.sort();
    let mut total: u64 = cores.iter().map(|(_, size, _)| size).sum();
    for (used, size, path) in cores {
        if total <= keep || used.elapsed().unwrap_or_default() < IN_USE {
            break;
        }
        fs::remove_dir_all(&path)?;
        total -= size;
    }
    Ok(())
}

/// A core that can't be made here, with what is known about it: one of ../shared/cores, or of those that come with the
/// tests.
#[derive(Debug, Clone)]
pub struct SharedCore {
    /// For example `linux-arm64-10.0.12/busy.withheap`.
    pub name: String,
    /// The core, unpacked.
    pub path: PathBuf,
    /// How it was made and what must be found.
    pub facts: Option<Value>,
    /// What ClrMD said of it on the target.
    pub oracle: Option<PathBuf>,
    /// What dotnet-dump said of it.
    pub dotnet_dump: Option<PathBuf>,
    /// What the oracle said of it on the target's own processor: an x64 process can't load the library of arm64.
    pub dac: Option<Value>,
}

/// Those that come with the tests, and those of ../shared/cores, without which the rest is skipped visibly.
#[track_caller]
pub fn shared_cores() -> Vec<SharedCore> {
    let mut all = cores_in(&workspace().join("tests/other-machines"));
    let shared = cores_in(&shared_folder().join("cores"));
    if shared.is_empty() {
        skip("most cores of other machines: there is no ../shared/cores beside this checkout");
    }
    all.extend(shared);
    all
}

fn cores_in(folder: &Path) -> Vec<SharedCore> {
    let mut all = Vec::new();
    for machine in names_in(folder) {
        let folder = folder.join(&machine);
        // Beside the folders of machines are files that say where they come from.
        for file in if folder.is_dir() { names_in(&folder) } else { Vec::new() } {
            if let Some(stem) = file.strip_suffix(".core.zst") {
                all.push(must(unpacked(&folder, &machine, stem), &file));
            }
        }
    }
    all
}

/// The one of ../shared/cores with this name; `None`, with a visible skip, where it is absent.
#[track_caller]
pub fn shared_core(name: &str) -> Option<SharedCore> {
    let (machine, stem) = name.split_once('/').unwrap_or(("", name));
    let folder = shared_folder().join("cores").join(machine);
    if !folder.join(format!("{stem}.core.zst")).is_file() {
        skip(format_args!("core {name}: it comes from ../shared/cores, which is absent"));
        return None;
    }
    Some(must(unpacked(&folder, machine, stem), name))
}

fn unpacked(folder: &Path, machine: &str, stem: &str) -> Result<SharedCore> {
    let dir = bench().path("shared-cores").join(format!("{machine}-{stem}"));
    bench().install(&dir, |to| {
        let packed = folder.join(format!("{stem}.core.zst"));
        run::quietly(
            Command::new("zstd").args(["-q", "-d", "--long=27"]).arg(packed).arg("-o").arg(to.join("core")),
        )
    })?;
    let json = |kind: &str| match fs::read_to_string(folder.join(format!("{stem}.{kind}.json"))) {
        Ok(text) => serde_json::from_str(&text).map(Some),
        Err(_) => Ok(None),
    };
    let (facts, dac) = (json("core")?, json("dac")?);
    let present = |path: PathBuf| path.is_file().then_some(path);
    let first = stem.split('.').next().unwrap_or(stem);
    Ok(SharedCore {
        name: format!("{machine}/{stem}"),
        path: dir.join("core"),
        facts,
        oracle: present(folder.join(format!("{stem}.oracle.txt"))),
        dotnet_dump: present(folder.join(format!("{first}.dotnet-dump.txt"))),
        dac,
    })
}
