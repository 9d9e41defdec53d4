//! What can be known before the target is asked.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use dnd_ipc::DumpType;
use dnd_ipc::discovery::Host;
use dnd_ipc::procfs::{ProcFs, Status};
use dnd_ps::Chosen;
use nix::fcntl::OFlag;

use crate::error::Error;

/// First runtime whose single-file applications survive their own dumper (10.0.12 was seen to).
const SINGLE_FILE_SAFE: u32 = 10;

/// Refuses what can't work or would harm the target; `force` lets pass what is only dangerous or unlikely.
///
/// Single-file applications of .NET 8 and 9 lack the library that all but full dumps need: the runtime then answers
/// "done" and writes nothing. And once asked for any dump, a later event session that samples or lists methods crashes
/// them (seen 13 times of 13; never without a dump before).
pub(crate) fn check(target: &Chosen, dump_type: DumpType, force: bool) -> Result<Vec<String>, Error> {
    let pid = target.process.pid;
    let version = target.facts.runtime_version.clone();
    let old = target.runtime_major().is_none_or(|major| major < SINGLE_FILE_SAFE);
    match &target.process.host {
        Some(Host::NativeAot) => Err(Error::NativeAot { pid }),
        Some(Host::SingleFile) if old && !force => Err(Error::SingleFile { pid, version, dump_type }),
        Some(Host::SingleFile) if old => Ok(vec![format!(
            "process {pid} is a single-file application on .NET {}: after this dump, event sessions (traces, stacks, \
             counters of several providers) can crash it until it is restarted",
            version.as_deref().unwrap_or("of unknown version")
        )]),
        // A runtime of .NET Core 3 is always a library.
        None if old && version.is_some() && !force => {
            Err(Error::UnknownHost { pid, uid: target.process.uid, version })
        }
        _ => Ok(Vec::new()),
    }
}

/// Refuses when the program that writes dumps did not come along with the runtime. A runtime finds that out only in a
/// child that it has forked, which then hangs for ever (seen on 3.1.23): a process more with each attempt.
pub(crate) fn check_createdump(proc: &ProcFs, target: &Chosen) -> Result<(), Error> {
    let pid = target.process.pid;
    let Some(Host::CoreClr { library }) = &target.process.host else { return Ok(()) };
    let Some(path) = library.parent().map(|dir| dir.join("createdump")) else { return Ok(()) };
    let problem = match proc.root(pid).open(&path, OFlag::O_PATH).map(File::from).and_then(|f| f.metadata()) {
        Ok(meta) if meta.mode() & 0o111 == 0 => "is not executable",
        Err(e) if e.kind() == io::ErrorKind::NotFound => "is missing",
        // Executable, or not to be seen from here.
        _ => return Ok(()),
    };
    Err(Error::Createdump { pid, path: path.display().to_string(), problem })
}

/// Refuses a full dump that can't fit: it holds at least the target's own resident memory.
pub(crate) fn check_space(
    status: Option<&Status>,
    available: Option<u64>,
    dump_type: DumpType,
    force: bool,
) -> Result<(), Error> {
    let needed = status.and_then(|s| s.anonymous);
    match (needed, available) {
        (Some(needed), Some(available)) if dump_type == DumpType::Full && !force && available < needed => {
            Err(Error::NoSpace { needed, available })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space() {
        let status = |bytes| Status { ns_pids: vec![1], uid: 0, tracer: 0, anonymous: Some(bytes) };
        let full = DumpType::Full;
        assert!(check_space(Some(&status(100)), Some(100), full, false).is_ok());
        assert!(check_space(Some(&status(100)), Some(99), full, true).is_ok());
        assert!(check_space(Some(&status(100)), Some(99), DumpType::Heap, false).is_ok());
        assert!(check_space(None, Some(0), full, false).is_ok());
        assert_eq!(
            check_space(Some(&status(100)), Some(99), full, false).unwrap_err().to_string(),
            "a full dump needs at least 100 B and only 99 B are free"
        );
    }
}
