//! What can be known before the target is asked.

use dnd_ipc::DumpType;
use dnd_ipc::discovery::Host;
use dnd_ipc::procfs::Status;
use dnd_ps::Chosen;

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
