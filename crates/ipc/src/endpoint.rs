//! Where a runtime listens.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::procfs::Root;
use crate::reverse::Idle;

/// Longest path that `sun_path` holds, without the NUL.
const SUN_PATH: usize = 107;

/// A diagnostics socket.
#[derive(Debug, Clone)]
pub struct Endpoint {
    path: PathBuf,
    root: Option<Root>,
    pid: Option<u32>,
    /// For a runtime that connects to us: its idle connection.
    reverse: Option<Arc<Idle>>,
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.reverse, &other.reverse) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same && (&self.path, &self.root, self.pid) == (&other.path, &other.root, other.pid)
    }
}

impl Eq for Endpoint {}

impl Endpoint {
    /// The socket at `path`, whoever listens there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), root: None, pid: None, reverse: None }
    }

    /// The socket at `path` (absolute), as the process whose root is `root` sees it.
    #[must_use]
    pub fn in_root(root: Root, path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), root: Some(root), pid: None, reverse: None }
    }

    /// A runtime that connects to the socket at `path`, where we listen.
    pub(crate) fn reverse(path: PathBuf, idle: Arc<Idle>) -> Self {
        Self { path, root: None, pid: None, reverse: Some(idle) }
    }

    /// The idle connection of a runtime that connects to us.
    pub(crate) fn idle(&self) -> Option<&Idle> {
        self.reverse.as_deref()
    }

    /// The same, connected to only if it is process `pid` (as numbered here) that listens.
    #[must_use]
    pub fn of_process(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }

    /// The socket's path, to be shown; behind `/proc/PID/root` when the target has another root.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match &self.root {
            Some(root) => root.display(&self.path),
            None => self.path.clone(),
        }
    }

    /// The socket's path as it was given: for one in another root, as that process sees it.
    #[must_use]
    pub fn inner_path(&self) -> &Path {
        &self.path
    }

    /// The process that must be listening, if that is known.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// A path to connect to that is short enough, and what must be kept open meanwhile.
    pub(crate) fn address(&self) -> io::Result<(PathBuf, Option<OwnedFd>)> {
        let in_root = self.root.is_some();
        if !in_root && self.path.as_os_str().len() <= SUN_PATH {
            return Ok((self.path.clone(), None));
        }
        let (Some(dir), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        // The detour keeps long paths within `sun_path`; and a directory of another root is resolved there, not here.
        let dir = match &self.root {
            Some(root) => root.open_dir(dir)?,
            None => open_path(dir)?,
        };
        let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
        Ok((path, Some(dir)))
    }
}

fn open_path(dir: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY;
    File::options().read(true).custom_flags(flags.bits()).open(dir).map(Into::into)
}
