//! A private directory beside the destination, and the one step from there to the destination's name.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use dnd_ipc::procfs::Root;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, open, openat, renameat, renameat2};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, linkat, unlinkat};

/// Names tried for the private directory, and rounds of emptying it.
const ATTEMPTS: u32 = 100;

/// A directory in which a file is to appear, held open.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
}

impl Directory {
    /// The directory `path`, as the process with `root` sees it, or as this program does.
    pub(crate) fn open(root: Option<&Root>, path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = match root {
            Some(root) => root.open(path, flags)?,
            None => open(path, flags, Mode::empty())?,
        };
        Ok(Self { fd })
    }

    /// Whether the name is taken, be it by a link to nothing; says by what.
    pub(crate) fn holds(&self, name: &str) -> io::Result<Option<&'static str>> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
                SFlag::S_IFLNK => "a symbolic link",
                SFlag::S_IFDIR => "a directory",
                SFlag::S_IFREG => "a file",
                _ => "no ordinary file",
            })),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes the private directory, for the user `uid` to write into.
    pub(crate) fn stage(self, uid: u32) -> io::Result<Staging> {
        let mut attempt = 0;
        let name = loop {
            let name = format!(".dnd-dump-{}-{attempt}", std::process::id());
            match mkdirat(&self.fd, name.as_str(), Mode::S_IRWXU) {
                Ok(()) => break name,
                Err(Errno::EEXIST) if attempt < ATTEMPTS => attempt += 1,
                Err(e) => return Err(e.into()),
            }
        };
        // From here on it is removed, whatever fails.
        let mut staging = Staging { parent: self.fd, name, dir: None };
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = openat(&staging.parent, staging.name.as_str(), flags, Mode::empty())?;
        // In a directory that others may write to, it could have been exchanged.
        let own = geteuid();
        let stat = fstat(&dir)?;
        if stat.st_uid != own.as_raw() {
            return Err(io::Error::other("the directory just made there belongs to somebody else"));
        }
        if uid != own.as_raw() {
            fchown(&dir, Some(Uid::from_raw(uid)), None::<Gid>)?;
        }
        staging.dir = Some(dir);
        Ok(staging)
    }
}

/// The private directory. Removed with all that is in it when dropped.
#[derive(Debug)]
pub(crate) struct Staging {
    parent: OwnedFd,
    name: String,
    dir: Option<OwnedFd>,
}

impl Staging {
    /// The directory's name in its parent.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Size of a file in it, so far.
    pub(crate) fn size(&self, file: &str) -> Option<u64> {
        let stat = fstatat(self.dir.as_ref()?, file, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        u64::try_from(stat.st_size).ok()
    }

    /// Bytes that can still be written here.
    pub(crate) fn available(&self) -> Option<u64> {
        let stat = fstatvfs(&self.parent).ok()?;
        stat.blocks_available().checked_mul(stat.fragment_size())
    }

    /// Opens a file that the target wrote, and takes it away from everybody but its owner. `None` when it isn't there.
    pub(crate) fn take(&self, file: &str) -> io::Result<Option<File>> {
        let Some(dir) = &self.dir else { return Ok(None) };
        // Not a link to elsewhere, and not a pipe that blocks.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = match openat(dir, file, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let meta = opened.metadata()?;
        if !meta.is_file() || meta.nlink() != 1 {
            return Err(io::Error::other("what was written is not an ordinary file"));
        }
        opened.set_permissions(PermissionsExt::from_mode(0o600))?;
        Ok(Some(opened))
    }

    /// Gives `opened`, which is `file` of this directory, the name `name` in the parent; never in place of another file.
    pub(crate) fn publish(&self, file: &str, opened: &File, name: &str) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Err(io::Error::from(io::ErrorKind::NotFound)) };
        // Exactly the file that was checked, and an error when the name exists.
        let link =
            linkat(nix::fcntl::AT_FDCWD, &held_open(opened), &self.parent, name, AtFlags::AT_SYMLINK_FOLLOW);
        match link {
            Ok(()) => return Ok(()),
            Err(Errno::EEXIST) => return Err(Errno::EEXIST.into()),
            // File systems without hard links.
            Err(_) => {}
        }
        match renameat2(dir, file, &self.parent, name, RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EINVAL | Errno::ENOSYS) => {}
            other => return Ok(other?),
        }
        // File systems without that either: the name is made, and then replaced.
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        renameat(dir, file, &self.parent, name).map_err(|e| {
            let _ = unlinkat(&self.parent, name, UnlinkatFlags::NoRemoveDir);
            e.into()
        })
    }

    /// Removes a name from the parent again.
    pub(crate) fn unpublish(&self, name: &str) {
        let _ = unlinkat(&self.parent, name, UnlinkatFlags::NoRemoveDir);
    }

    /// Removes all files, then the directory. The target may be making files meanwhile; once the directory is gone it
    /// no longer can.
    fn remove(&self) -> nix::Result<()> {
        let mut last = Errno::ENOTEMPTY;
        for _ in 0..ATTEMPTS {
            if let Some(dir) = &self.dir {
                let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
                let files = std::fs::read_dir(path).into_iter().flatten().flatten();
                for file in files {
                    let _ = unlinkat(dir, file.file_name().as_os_str(), UnlinkatFlags::NoRemoveDir);
                }
            }
            match unlinkat(&self.parent, self.name.as_str(), UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => return Ok(()),
                Err(e @ (Errno::ENOTEMPTY | Errno::EEXIST)) => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // There is nobody to tell; what is left is private and named after this program.
        let _ = self.remove();
    }
}

/// A path to a file that is open here.
pub(crate) fn held_open(file: &impl AsFd) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_fd().as_raw_fd().to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("dnd-staging-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(&self.0)
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }

        fn stage(&self) -> Staging {
            Directory::open(None, &self.0).unwrap().stage(geteuid().as_raw()).unwrap()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn published_whole_and_private() {
        let dir = Dir::new("publish");
        let staging = dir.stage();
        let inside = dir.0.join(staging.name());
        assert_eq!(fs::metadata(&inside).unwrap().mode() & 0o7777, 0o700);
        assert!(staging.take("core").unwrap().is_none());
        fs::write(inside.join("core"), "abc").unwrap();
        fs::set_permissions(inside.join("core"), PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(staging.size("core"), Some(3));
        let file = staging.take("core").unwrap().unwrap();
        staging.publish("core", &file, "dump").unwrap();
        drop(staging);
        assert_eq!(dir.names(), ["dump"]);
        let meta = fs::metadata(dir.0.join("dump")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.nlink(), meta.len()), (0o600, 1, 3));
    }

    #[test]
    fn never_over_another_file() {
        let dir = Dir::new("exists");
        let staging = dir.stage();
        fs::write(dir.0.join(staging.name()).join("core"), "new").unwrap();
        let file = staging.take("core").unwrap().unwrap();
        fs::write(dir.0.join("dump"), "old").unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.0.join("link")).unwrap();
        for name in ["dump", "link"] {
            let error = staging.publish("core", &file, name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        drop(staging);
        assert_eq!(dir.names(), ["dump", "link"]);
        assert_eq!(fs::read_to_string(dir.0.join("dump")).unwrap(), "old");
    }

    #[test]
    fn links_and_pipes_are_no_dumps() {
        let dir = Dir::new("links");
        fs::write(dir.0.join("secret"), "x").unwrap();
        let staging = dir.stage();
        let inside = dir.0.join(staging.name());
        std::os::unix::fs::symlink("../secret", inside.join("link")).unwrap();
        fs::hard_link(dir.0.join("secret"), inside.join("hard")).unwrap();
        nix::unistd::mkfifo(&inside.join("pipe"), Mode::S_IRWXU).unwrap();
        for name in ["link", "hard", "pipe"] {
            assert!(staging.take(name).is_err(), "{name}");
        }
        drop(staging);
        assert_eq!(dir.names(), ["secret"]);
    }

    #[test]
    fn what_a_name_is() {
        let dir = Dir::new("holds");
        fs::write(dir.0.join("f"), "").unwrap();
        fs::create_dir(dir.0.join("d")).unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.0.join("l")).unwrap();
        let open = Directory::open(None, &dir.0).unwrap();
        let what = |name| open.holds(name).unwrap();
        assert_eq!(
            (what("f"), what("d"), what("l"), what("x")),
            (Some("a file"), Some("a directory"), Some("a symbolic link"), None)
        );
        assert!(open.stage(geteuid().as_raw()).unwrap().available().unwrap() > 0);
    }
}
