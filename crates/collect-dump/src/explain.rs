//! What on this machine may have kept a runtime from writing a dump.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::facts::size;
use dnd_ipc::DumpType;
use dnd_ipc::discovery::Host;
use dnd_ipc::procfs::{ProcFs, Root};
use dnd_ps::Chosen;

/// Less than this is as good as full.
const FULL: u64 = 1 << 20;

/// Where the dump was to be written.
pub(crate) struct Place<'a> {
    /// The directory, as the target sees it.
    pub(crate) dir: &'a Path,
    /// The target's root, when it is another one than this program's.
    pub(crate) root: Option<&'a Root>,
    /// What was to be written.
    pub(crate) dump_type: DumpType,
    /// Free bytes there, before what was written was removed.
    pub(crate) available: Option<u64>,
}

/// Looks for causes, `said` being the runtime's own words, if any.
pub(crate) fn causes(proc: &ProcFs, target: &Chosen, place: &Place<'_>, said: Option<&str>) -> Vec<String> {
    let pid = target.process.pid;
    let mut hints = Vec::new();
    let Some(status) = proc.status(pid) else {
        return vec![format!("process {pid} has ended")];
    };
    let said = said.unwrap_or_default();
    if place.available.is_some_and(|free| free < FULL) || said.contains("No space left") {
        let free = place.available.map(|free| format!(" ({} were left)", size(free))).unwrap_or_default();
        hints.push(format!(
            "the disk is full{free}: choose another directory with -o, or --type Heap or Mini"
        ));
    }
    if status.tracer != 0 {
        hints.push(format!(
            "process {pid} is being traced by process {} (a debugger, strace), and only one can do so at a time",
            status.tracer
        ));
    }
    match std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok().as_deref().map(str::trim) {
        Some(scope @ ("2" | "3")) => hints.push(format!(
            "kernel.yama.ptrace_scope is {scope}, which keeps processes from reading each other's memory, as createdump must"
        )),
        _ if said.contains("ptrace") || said.contains("Operation not permitted") => hints.push(
            "the runtime's createdump may not read the process's memory: in a container, add --cap-add=SYS_PTRACE"
                .to_owned(),
        ),
        _ => {}
    }
    if let Some(barrier) = barrier(place, status.uid) {
        hints.push(format!(
            "the process runs as user {}, who may not enter {}: choose another directory with -o, such as /tmp",
            status.uid,
            barrier.display()
        ));
    }
    if target.process.other_root.is_none() {
        hints.push(
            "it can't be seen whether the process has another file system; if it is in a container, run dnd there"
                .to_owned(),
        );
    }
    if target.process.host == Some(Host::SingleFile) && place.dump_type != DumpType::Full {
        hints.push(
            "single-file applications lack the library that all but full dumps need: --type Full".to_owned(),
        );
    } else if said.is_empty() {
        hints.push(
            "this runtime tells the cause only on the process's own standard error; --diag makes it say more there"
                .to_owned(),
        );
    }
    hints
}

/// The first directory on the way to the dump that user `uid` may not enter, by owner and others; groups and access
/// lists are given the benefit of the doubt.
fn barrier(place: &Place<'_>, uid: u32) -> Option<PathBuf> {
    if uid == 0 {
        return None;
    }
    let mut ancestors: Vec<&Path> = place.dir.ancestors().collect();
    ancestors.reverse();
    ancestors.into_iter().find_map(|dir| {
        let here = place.root.map_or_else(|| dir.to_owned(), |root| root.display(dir));
        let meta = std::fs::metadata(here).ok()?;
        let mode = meta.mode();
        let may = if meta.uid() == uid { mode & 0o100 != 0 } else { mode & 0o011 != 0 };
        (!may).then(|| dir.to_owned())
    })
}
