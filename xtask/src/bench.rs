//! The cache directory: where it is, and how things come into it complete or not at all.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Result;

/// The bench directory.
#[derive(Debug, Clone)]
pub struct Bench {
    root: PathBuf,
}

impl Bench {
    /// `$DND_BENCH_DIR`, else `dnd-bench` in `$XDG_CACHE_HOME` or `~/.cache`. Nothing is created yet.
    ///
    /// # Errors
    /// None of these variables is set.
    pub fn locate() -> Result<Self> {
        let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let root = var("DND_BENCH_DIR")
            .or_else(|| Some(var("XDG_CACHE_HOME")?.join("dnd-bench")))
            .or_else(|| Some(var("HOME")?.join(".cache/dnd-bench")))
            .ok_or(
                "none of DND_BENCH_DIR, XDG_CACHE_HOME and HOME is set: where should the test bench be?",
            )?;
        Ok(Self { root: std::path::absolute(root)? })
    }

    /// A path in the bench.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Waits until no other process holds the lock of this name, and holds it until the value is dropped.
    ///
    /// # Errors
    /// The lock file can't be made.
    pub fn lock(&self, name: &str) -> Result<Lock> {
        let path = self.path("locks").join(name);
        create_dirs(path.parent().unwrap_or(&self.root))?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| format!("can't make the lock file {}: {e}", path.display()))?;
        file.lock().map_err(|e| format!("can't lock {}: {e}", path.display()))?;
        Ok(Lock { _file: file })
    }

    /// Makes `dest` (a path in the bench) by `build`, which fills the empty directory it is given, unless `dest` is
    /// there already. Whoever comes second waits and finds it done; a failed or killed build leaves nothing at `dest`.
    /// Returns whether it was built now.
    ///
    /// # Errors
    /// Those of `build`, and of the file system.
    pub fn install(&self, dest: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<bool> {
        if dest.exists() {
            return Ok(false);
        }
        let name = dest.file_name().and_then(OsStr::to_str).ok_or("a path in the bench needs a name")?;
        let _lock = self.lock(&format!("install-{name}"))?;
        if dest.exists() {
            return Ok(false);
        }
        let scratch = self.scratch(name)?;
        build(scratch.path())?;
        create_dirs(dest.parent().unwrap_or(&self.root))?;
        fs::rename(scratch.path(), dest)
            .map_err(|e| format!("can't rename {} to {}: {e}", scratch.path().display(), dest.display()))?;
        Ok(true)
    }

    /// An empty directory on the bench's file system, removed when dropped.
    ///
    /// # Errors
    /// The directory can't be made.
    pub fn scratch(&self, name: &str) -> Result<Scratch> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self.path("tmp").join(format!("{name}.{}.{n}", std::process::id()));
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        create_dirs(&path)?;
        Ok(Scratch { path })
    }
}

/// A held lock of the bench.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// A temporary directory in the bench.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// `mkdir -p`, with the path in the error.
///
/// # Errors
/// The directory can't be made.
pub fn create_dirs(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| format!("can't create {}: {e}", path.display()).into())
}

/// Hard links of all files below `from`, at `to`.
///
/// # Errors
/// Something can't be read, made or linked.
pub fn link_tree(from: &Path, to: &Path) -> Result<()> {
    create_dirs(to)?;
    for entry in fs::read_dir(from).map_err(|e| format!("can't read {}: {e}", from.display()))? {
        let entry = entry?;
        let (source, dest) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            link_tree(&source, &dest)?;
        } else {
            fs::hard_link(&source, &dest)
                .map_err(|e| format!("can't link {} to {}: {e}", source.display(), dest.display()))?;
        }
    }
    Ok(())
}

/// The names in a directory, sorted; none if it isn't there.
pub fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(name: &str) -> Bench {
        let root = std::env::temp_dir().join(format!("dnd-bench-test-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        Bench { root }
    }

    #[test]
    fn what_is_installed_is_complete_or_absent() {
        let bench = bench("install");
        let dest = bench.path("things/a");
        let failed = bench.install(&dest, |dir| {
            fs::write(dir.join("half"), "x")?;
            Err("no network".into())
        });
        assert_eq!(failed.unwrap_err().to_string(), "no network");
        assert!(!dest.exists());
        assert!(names_in(&bench.path("tmp")).is_empty(), "the half-made directory is removed");

        let built = bench.install(&dest, |dir| Ok(fs::write(dir.join("whole"), "x")?)).unwrap();
        assert!(built && dest.join("whole").exists());
        let again = bench.install(&dest, |_| Err("must not be built twice".into())).unwrap();
        assert!(!again);
        fs::remove_dir_all(bench.path("")).unwrap();
    }

    #[test]
    fn of_many_at_once_one_builds() {
        let bench = bench("race");
        let dest = bench.path("things/b");
        let built = std::thread::scope(|scope| {
            let one = || scope.spawn(|| bench.install(&dest, |d| Ok(fs::write(d.join("x"), "x")?)).unwrap());
            let threads: Vec<_> = (0..8).map(|_| one()).collect();
            threads.into_iter().map(|t| t.join().unwrap()).filter(|built| *built).count()
        });
        assert_eq!(built, 1);
        fs::remove_dir_all(bench.path("")).unwrap();
    }
}
