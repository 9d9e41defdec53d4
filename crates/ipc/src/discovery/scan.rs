//! Walking `/proc` and pairing processes with sockets.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::host::{Hidden, Host, host};
use super::sockets::{Socket, list};
use crate::endpoint::Endpoint;
use crate::procfs::{Environment, ProcFs, Stat, View};

/// A .NET process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Process id, here.
    pub pid: u32,
    /// Process id in its own pid namespace; another number, often 1, for a process of a container seen from outside.
    pub ns_pid: u32,
    /// Start time in clock ticks since boot.
    pub start_time: u64,
    /// Effective user id.
    pub uid: u32,
    /// Where its runtime comes from; `None` when it has a socket but may not be looked into.
    pub host: Option<Host>,
    /// Whether it sees another file system than this program does (a container, a private `/tmp`, a chroot); `None`
    /// when that may not be known.
    pub other_root: Option<bool>,
    /// Its socket, or why there is none to talk to.
    pub endpoint: Result<Endpoint, Unreachable>,
}

/// Why a .NET process can't be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unreachable {
    /// It belongs to another user, and this program is not run by root.
    OtherUser,
    /// Its environment switches the diagnostics off (`DOTNET_EnableDiagnostics=0` and the like).
    Disabled,
    /// NativeAOT without `EventSourceSupport`, which leaves the diagnostics out.
    NotBuiltIn,
    /// The socket is not where it should be: removed, or it could not be made (no `TMPDIR`, path too long).
    SocketGone,
    /// There is a socket, and nobody listens (the process is starting or ending).
    NotListening,
    /// It is stopped by a signal (SIGSTOP, Ctrl-Z): it can't answer before it is continued.
    Stopped,
    /// It is connected to and does not answer: in a debugger, or busy with another command.
    NoAnswer,
    /// What it answers is not the protocol.
    BadAnswer,
}

impl Unreachable {
    /// The reason in a word or three, for a table.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::OtherUser => "other user",
            Self::Disabled => "diagnostics disabled",
            Self::NotBuiltIn => "diagnostics not built in",
            Self::SocketGone => "socket gone",
            Self::NotListening => "not listening",
            Self::Stopped => "stopped",
            Self::NoAnswer => "no answer",
            Self::BadAnswer => "bad answer",
        }
    }
}

/// Why a pid is not that of a .NET process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDotnet {
    /// There is no such process.
    Gone,
    /// No runtime is mapped and there is no socket.
    NoRuntime,
    /// It may not be looked into, and there is no socket.
    Hidden,
}

/// The view of one moment on the machine's processes.
#[derive(Debug)]
pub struct Discovery {
    proc: ProcFs,
    /// Directory of this program's own temporary files, and the sockets therein.
    tmp: PathBuf,
    own: Vec<Socket>,
    view: Option<View>,
    euid: u32,
    /// Directories of other processes, read once however many processes share them.
    others: HashMap<(View, PathBuf), Vec<Socket>>,
}

impl Discovery {
    /// Looks at `/proc`; `tmp` is this program's own temporary directory.
    pub fn new(tmp: impl Into<PathBuf>) -> Self {
        Self::of(ProcFs::default(), tmp)
    }

    /// Looks at another proc file system.
    pub fn of(proc: ProcFs, tmp: impl Into<PathBuf>) -> Self {
        let tmp = tmp.into();
        let own = list(&tmp);
        let view = proc.own_view();
        Self { proc, tmp, own, view, euid: nix::unistd::geteuid().as_raw(), others: HashMap::new() }
    }

    /// Whether this program is run by root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.euid == 0
    }

    /// All .NET processes, by pid.
    pub fn scan(&mut self) -> Vec<Process> {
        let mut pids = self.proc.pids();
        pids.sort_unstable();
        pids.into_iter().filter_map(|pid| self.inspect(pid).ok()).collect()
    }

    /// One process.
    ///
    /// # Errors
    /// When it is not there, or not known to be .NET.
    pub fn inspect(&mut self, pid: u32) -> Result<Process, NotDotnet> {
        let stat = self.proc.stat(pid).ok_or(NotDotnet::Gone)?;
        if matches!(stat.state, 'Z' | 'X') {
            return Err(NotDotnet::Gone);
        }
        // No runtime has one thread only. Most processes do, and need no further look; so does the child that a runtime
        // has forked (to run createdump or another program), which for a moment looks just like it.
        if stat.kernel || stat.threads < 2 {
            return Err(NotDotnet::NoRuntime);
        }
        let status = self.proc.status(pid).ok_or(NotDotnet::Gone)?;
        let ns_pid = status.ns_pids.last().copied().unwrap_or(pid);
        let view = self.proc.view(pid);
        let other_root = match (&view, &self.view) {
            (Some(theirs), Some(ours)) => Some(theirs != ours),
            _ => None,
        };

        let environment = self.proc.environment(pid);
        let socket = self.socket(pid, ns_pid, &stat, view, environment.as_ref());
        let host = match (host(&self.proc, pid), &socket) {
            (Ok(Some(host)), _) => Some(host),
            // Its socket says that it is .NET; a host we know nothing of.
            (_, Some(_)) => None,
            (Ok(None), None) => return Err(NotDotnet::NoRuntime),
            (Err(Hidden), None) => {
                return Err(if self.proc.exists(pid) { NotDotnet::Hidden } else { NotDotnet::Gone });
            }
        };
        let endpoint = match socket {
            Some(_) if self.euid != 0 && status.uid != self.euid => Err(Unreachable::OtherUser),
            Some(endpoint) => Ok(endpoint.of_process(pid)),
            None => Err(no_socket(host.as_ref(), environment.as_ref())),
        };
        let start_time = stat.start_time;
        Ok(Process { pid, ns_pid, start_time, uid: status.uid, host, other_root, endpoint })
    }

    /// The newest socket of a process: in our own temporary directory, else in its own.
    fn socket(
        &mut self,
        pid: u32,
        ns_pid: u32,
        stat: &Stat,
        view: Option<View>,
        environment: Option<&Environment>,
    ) -> Option<Endpoint> {
        let newest = |sockets: &[Socket]| {
            let matching = sockets.iter().filter(|s| s.pid == ns_pid && s.key == stat.start_time);
            matching.max_by_key(|s| s.modified).map(|s| (s.modified, s.name.clone()))
        };
        let ours = newest(&self.own).map(|(at, name)| (at, Endpoint::new(self.tmp.join(name))));
        let theirs = environment.zip(view).and_then(|(environment, view)| {
            let dir = self.temporary_directory(pid, environment);
            if self.view.as_ref() == Some(&view) && dir == self.tmp {
                return None;
            }
            let root = self.proc.root(pid);
            let sockets = self
                .others
                .entry((view, dir.clone()))
                .or_insert_with(|| root.open_dir(&dir).map(|fd| list(&readable(&fd))).unwrap_or_default());
            newest(sockets).map(|(at, name)| (at, Endpoint::in_root(root, dir.join(name))))
        });
        [ours, theirs].into_iter().flatten().max_by_key(|(at, _)| *at).map(|(_, endpoint)| endpoint)
    }

    /// The target's `TMPDIR`, absolute; `/tmp` when unset or empty (`GetTempPathA` of the PAL).
    fn temporary_directory(&self, pid: u32, environment: &Environment) -> PathBuf {
        match environment.get("TMPDIR").map(PathBuf::from) {
            Some(dir) if dir.is_absolute() => dir,
            Some(dir) if !dir.as_os_str().is_empty() => {
                let cwd = std::fs::read_link(self.proc.path(pid, "cwd"));
                cwd.map_or_else(|_| Path::new("/").join(&dir), |cwd| cwd.join(&dir))
            }
            _ => PathBuf::from("/tmp"),
        }
    }
}

/// A directory that is held open, as a path.
fn readable(dir: &OwnedFd) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string())
}

/// Why there is no socket.
fn no_socket(host: Option<&Host>, environment: Option<&Environment>) -> Unreachable {
    const SWITCHES: [&str; 4] = [
        "DOTNET_EnableDiagnostics",
        "COMPlus_EnableDiagnostics",
        "DOTNET_EnableDiagnostics_IPC",
        "COMPlus_EnableDiagnostics_IPC",
    ];
    let off = |name: &str| {
        // The runtime reads these as hexadecimal numbers.
        let value = environment.and_then(|e| e.get(name)).and_then(|v| v.into_string().ok());
        value.is_some_and(|v| u64::from_str_radix(v.trim().trim_start_matches("0x"), 16) == Ok(0))
    };
    // .NET Core 3 knows only the second.
    if SWITCHES.into_iter().any(off) {
        Unreachable::Disabled
    } else if host == Some(&Host::NativeAot) {
        Unreachable::NotBuiltIn
    } else {
        Unreachable::SocketGone
    }
}
