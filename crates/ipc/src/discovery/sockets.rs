//! Directories with diagnostics sockets.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::SystemTime;

/// A socket by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Socket {
    /// The pid in the name: of the target's own pid namespace.
    pub(super) pid: u32,
    /// The start time in the name.
    pub(super) key: u64,
    /// The file's name.
    pub(super) name: String,
    /// When the socket was made.
    pub(super) modified: SystemTime,
}

/// The sockets in a directory, to be read as `dir`.
pub(super) fn list(dir: &Path) -> Vec<Socket> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let (pid, key) = parse(&name)?;
            // Not followed: a link to a socket is none that a runtime made.
            let meta = entry.metadata().ok()?;
            meta.file_type().is_socket().then(|| Socket {
                pid,
                key,
                name,
                modified: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            })
        })
        .collect()
}

/// Pid and key of `dotnet-diagnostic-{pid}-{key}-socket`. (`dotnet-diagnostic-dsrouter-…` is a router to a device.)
fn parse(name: &str) -> Option<(u32, u64)> {
    let (pid, key) = name.strip_prefix("dotnet-diagnostic-")?.strip_suffix("-socket")?.split_once('-')?;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(pid) || !digits(key) {
        return None;
    }
    Some((pid.parse().ok()?, key.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(parse("dotnet-diagnostic-1-234-socket"), Some((1, 234)));
        for name in [
            "dotnet-diagnostic-1-234-socket2",
            "dotnet-diagnostic--234-socket",
            "dotnet-diagnostic-1-socket",
            "dotnet-diagnostic-+1-2-socket",
            "dotnet-diagnostic-1-2-3-socket",
            "dotnet-diagnostic-dsrouter-1-2-socket",
            "dotnet-diagnostic-99999999999-2-socket",
            "clr-debug-pipe-1-2-in",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn only_sockets_count() {
        let dir = std::env::temp_dir().join(format!("dnd-sockets-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let socket = dir.join("dotnet-diagnostic-7-8-socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        fs::write(dir.join("dotnet-diagnostic-1-2-socket"), "").unwrap();
        std::os::unix::fs::symlink(&socket, dir.join("dotnet-diagnostic-3-4-socket")).unwrap();
        let found: Vec<_> = list(&dir).into_iter().map(|s| (s.pid, s.key)).collect();
        assert_eq!(found, [(7, 8)]);
        fs::remove_dir_all(dir).unwrap();
    }
}
