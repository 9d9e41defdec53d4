//! The few facts of `/proc` that reaching a process needs. Processes end at any moment, so whatever can't be read is
//! `None`; whatever a process can choose itself (its name, arguments, environment) is bytes and may be anything.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// A kernel thread (`PF_KTHREAD`, linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Most that is read of one file of `/proc` other than the maps: arguments and environment have no small limit.
const MAX_FILE: u64 = 16 << 20;

/// A mounted proc file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcFs {
    root: PathBuf,
}

impl Default for ProcFs {
    fn default() -> Self {
        Self { root: PathBuf::from("/proc") }
    }
}

/// From `/proc/PID/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Name of the main thread, at most 15 bytes.
    pub name: String,
    /// `R`, `S`, `D`, `T` (stopped), `t` (traced), `Z` (ended), ...
    pub state: char,
    /// Whether it is a thread of the kernel.
    pub kernel: bool,
    /// Number of threads.
    pub threads: u64,
    /// When the process started, in clock ticks since boot. With the pid it identifies the process for ever.
    pub start_time: u64,
}

/// From `/proc/PID/status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The process's pid in each pid namespace, from this one inwards.
    pub ns_pids: Vec<u32>,
    /// Effective user id.
    pub uid: u32,
    /// Pid of the process that traces it, or 0.
    pub tracer: u32,
    /// Bytes of memory that are resident and not of a file; unknown before Linux 4.5.
    pub anonymous: Option<u64>,
}

impl ProcFs {
    /// The proc file system mounted at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The path of `file` of a process.
    #[must_use]
    pub fn path(&self, pid: u32, file: &str) -> PathBuf {
        let mut path = self.root.join(pid.to_string());
        path.push(file);
        path
    }

    /// All pids.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let Ok(dir) = fs::read_dir(&self.root) else { return Vec::new() };
        dir.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    }

    /// Whether there is such a process.
    #[must_use]
    pub fn exists(&self, pid: u32) -> bool {
        self.path(pid, "stat").exists()
    }

    fn read(&self, pid: u32, file: &str) -> Option<Vec<u8>> {
        // Most of these files fit, so that one read fetches them and another sees the end.
        let mut out = Vec::with_capacity(8192);
        File::open(self.path(pid, file)).ok()?.take(MAX_FILE).read_to_end(&mut out).ok()?;
        Some(out)
    }

    /// Name, state, start time.
    #[must_use]
    pub fn stat(&self, pid: u32) -> Option<Stat> {
        parse_stat(&self.read(pid, "stat")?)
    }

    /// Namespaces and user.
    #[must_use]
    pub fn status(&self, pid: u32) -> Option<Status> {
        parse_status(&self.read(pid, "status")?)
    }

    /// The arguments, the program's name first; `None` when not readable, empty when the process has none (any more).
    #[must_use]
    pub fn arguments(&self, pid: u32) -> Option<Vec<String>> {
        let bytes = self.read(pid, "cmdline")?;
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
        if bytes.is_empty() {
            return Some(Vec::new());
        }
        Some(bytes.split(|&b| b == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect())
    }

    /// The environment the process was started with.
    #[must_use]
    pub fn environment(&self, pid: u32) -> Option<Environment> {
        self.read(pid, "environ").map(Environment)
    }

    /// The file the process runs, as the kernel names it.
    #[must_use]
    pub fn executable(&self, pid: u32) -> Option<PathBuf> {
        fs::read_link(self.path(pid, "exe")).ok().map(without_deleted)
    }

    /// What identifies the view of the file system that a process has: its mount namespace and its root therein.
    /// `None` when that may not be known.
    #[must_use]
    pub fn view(&self, pid: u32) -> Option<View> {
        Some(View {
            mounts: fs::read_link(self.path(pid, "ns/mnt")).ok()?,
            root: fs::read_link(self.path(pid, "root")).ok()?,
        })
    }

    /// The view this program has.
    #[must_use]
    pub fn own_view(&self) -> Option<View> {
        Some(View {
            mounts: fs::read_link(self.root.join("self/ns/mnt")).ok()?,
            root: fs::read_link(self.root.join("self/root")).ok()?,
        })
    }

    /// The root directory of a process.
    #[must_use]
    pub fn root(&self, pid: u32) -> Root {
        Root { link: self.path(pid, "root") }
    }
}

/// See [`ProcFs::view`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct View {
    mounts: PathBuf,
    root: PathBuf,
}

/// An environment block.
#[derive(Debug, Clone)]
pub struct Environment(Vec<u8>);

impl Environment {
    /// The value of a variable; the first one counts, as in `getenv`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<OsString> {
        let value = |entry: &[u8]| Some(entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.to_vec());
        self.0.split(|&b| b == 0).find_map(value).map(OsString::from_vec)
    }
}

/// The root directory of another process, in which paths are resolved as that process would: neither `..` nor a
/// symbolic link leads out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    link: PathBuf,
}

impl Root {
    /// How `path` of that process is written here.
    #[must_use]
    pub fn display(&self, path: &Path) -> PathBuf {
        self.link.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Opens a directory, for use as a starting point only.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open_dir(&self, dir: &Path) -> io::Result<OwnedFd> {
        self.open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    /// Opens `path` with `flags`, without creating anything.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let flags = flags | OFlag::O_CLOEXEC;
        let root = open(&self.link, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let relative = match path.strip_prefix("/").unwrap_or(path) {
            p if p.as_os_str().is_empty() => Path::new("."),
            p => p,
        };
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        match openat2(root.as_fd(), relative, how) {
            // Kernels before 5.6, and sandboxes that don't know the call. What could lead out is refused then.
            Err(Errno::ENOSYS | Errno::EPERM) => {
                if relative.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
                    return Err(io::Error::from(io::ErrorKind::InvalidInput));
                }
                Ok(nix::fcntl::openat(root.as_fd(), relative, flags, Mode::empty())?)
            }
            other => Ok(other?),
        }
    }
}

/// `/proc` marks files that were removed since.
pub(crate) fn without_deleted(path: PathBuf) -> PathBuf {
    let mut bytes = path.into_os_string().into_vec();
    if bytes.ends_with(b" (deleted)") {
        bytes.truncate(bytes.len() - b" (deleted)".len());
    }
    OsString::from_vec(bytes).into()
}

fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    // `PID (NAME) STATE ...`; the name may hold anything, also blanks and parentheses.
    let open = bytes.iter().position(|&b| b == b'(')?;
    let close = bytes.iter().rposition(|&b| b == b')')?;
    let name = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    // Field 3 is the first one behind the name.
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    let threads = fields.nth(10)?.parse().ok()?;
    let start_time = fields.nth(1)?.parse().ok()?;
    Some(Stat { name, state, kernel: flags & KERNEL_THREAD != 0, threads, start_time })
}

fn parse_status(bytes: &[u8]) -> Option<Status> {
    let text = String::from_utf8_lossy(bytes);
    // The name comes first and can't hold a newline: the kernel writes it as `\n`.
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let numbers = |name: &str| -> Option<Vec<u32>> {
        field(name)?.split_ascii_whitespace().map(|n| n.parse().ok()).collect()
    };
    let uid = *numbers("Uid:")?.get(1)?;
    let own = numbers("Pid:")?;
    let tracer = numbers("TracerPid:").and_then(|t| t.first().copied()).unwrap_or(0);
    // Kernels before 4.1 have no NSpid.
    let ns_pids = numbers("NSpid:").filter(|pids| !pids.is_empty()).unwrap_or(own);
    let anonymous = field("RssAnon:")
        .and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .and_then(|kb| kb.checked_mul(1024));
    Some(Status { ns_pids, uid, tracer, anonymous })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_hostile_name() {
        let line = b"42 (a) R 1 (b\n) S 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 17 0 123456 789 1 2\n";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                name: "a) R 1 (b\n".into(),
                state: 'S',
                kernel: false,
                threads: 17,
                start_time: 123_456
            })
        );
        for cut in 0..line.len() - 14 {
            assert_eq!(parse_stat(&line[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn the_own_process_agrees_with_the_kernel() {
        let proc = ProcFs::default();
        let pid = std::process::id();
        let status = proc.status(pid).unwrap();
        assert_eq!(status.ns_pids.first(), Some(&pid));
        assert_eq!(status.uid, nix::unistd::geteuid().as_raw());
        let stat = proc.stat(pid).unwrap();
        assert!(!stat.kernel && stat.start_time > 0);
        assert_eq!(proc.executable(pid), Some(std::env::current_exe().unwrap()));
        assert_eq!(proc.arguments(pid).unwrap(), std::env::args().collect::<Vec<_>>());
        assert!(proc.pids().contains(&pid));
        assert_eq!(proc.view(pid), proc.own_view());
    }

    #[test]
    fn namespaces() {
        let text = b"Name:\tx\nPid:\t900\nTracerPid:\t0\nUid:\t1\t2\t3\t4\nNSpid:\t900\t30\t1\nRssAnon:\t    2048 kB\n";
        assert_eq!(
            parse_status(text),
            Some(Status { ns_pids: vec![900, 30, 1], uid: 2, tracer: 0, anonymous: Some(2 << 20) })
        );
        let old = b"Name:\tx\nPid:\t900\nTracerPid:\t7\nUid:\t1\t2\t3\t4\n";
        assert_eq!(
            parse_status(old),
            Some(Status { ns_pids: vec![900], uid: 2, tracer: 7, anonymous: None })
        );
    }

    #[test]
    fn environment_takes_the_first() {
        let env = Environment(b"A=1\0TMPDIR=/x y\0TMPDIR=/z\0AB=2\0".to_vec());
        assert_eq!(env.get("TMPDIR").unwrap(), "/x y");
        assert_eq!(env.get("A").unwrap(), "1");
        assert_eq!(env.get("TMP"), None);
    }

    #[test]
    fn a_root_can_not_be_left() {
        let dir = std::env::temp_dir().join(format!("dnd-root-{}", std::process::id()));
        fs::create_dir_all(dir.join("root/tmp")).unwrap();
        fs::write(dir.join("root/secret"), "inside").unwrap();
        fs::write(dir.join("secret"), "outside").unwrap();
        std::os::unix::fs::symlink("/", dir.join("root/tmp/up")).unwrap();
        let root = Root { link: dir.join("root") };
        for path in ["/secret", "/../secret", "/tmp/../../../secret", "/tmp/up/secret"] {
            let file = root.open(Path::new(path), OFlag::O_RDONLY).unwrap();
            let mut text = String::new();
            File::from(file).read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside", "{path}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
