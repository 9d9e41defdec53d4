//! Asking processes who they are.

use std::path::Path;
use std::time::Duration;

use dnd_contract::{Explain, Kind};
use dnd_ipc::discovery::{Host, Process, Unreachable};
use dnd_ipc::procfs::ProcFs;
use dnd_ipc::{Error as IpcError, ProcessInfo, process_info};
use tokio::task::JoinSet;

use crate::facts::{Hosting, ProcessFacts, Processes, VersionSource};

/// How long a listing waits for a process. The answer is a matter of 0.2 ms; a stopped process never gives it.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The facts of all of `processes`, asked at once.
pub async fn list(proc: &ProcFs, processes: Vec<Process>) -> Processes {
    let mut asked = JoinSet::new();
    let mut out = Vec::with_capacity(processes.len());
    for process in processes {
        if process.endpoint.is_ok() {
            let proc = proc.clone();
            asked.spawn(async move { facts(&proc, process).await });
        } else {
            out.extend(facts(proc, process).await);
        }
    }
    while let Some(done) = asked.join_next().await {
        // A task can only fail by a panic, which was reported.
        out.extend(done.ok().flatten());
    }
    out.sort_by(|a, b| (&a.name, a.pid).cmp(&(&b.name, b.pid)));
    Processes { processes: out }
}

/// The facts of one process; `None` when it ended meanwhile.
pub async fn facts(proc: &ProcFs, process: Process) -> Option<ProcessFacts> {
    let (socket, answer) = match &process.endpoint {
        Ok(endpoint) => {
            let answer = process_info(endpoint, ANSWER_WITHIN).await.map_err(|e| unreachable(&e));
            (Some(endpoint.path().to_string_lossy().into_owned()), answer)
        }
        Err(reason) => (None, Err(*reason)),
    };
    let pid = process.pid;
    // Read after the answer, and only while it is still the same process: all facts belong together.
    let stat =
        proc.stat(pid).filter(|s| s.start_time == process.start_time && !matches!(s.state, 'Z' | 'X'))?;
    let executable = proc.executable(pid);
    let (info, reason) = match answer {
        Ok(info) => (info, None),
        Err(reason) => (None, Some(reason)),
    };
    let from_path = || match &process.host {
        Some(Host::CoreClr { library }) => version_of(library),
        _ => None,
    };
    let (runtime_version, runtime_version_from) = match info.as_ref().and_then(|i| i.runtime_version.clone())
    {
        Some(version) => (Some(version), Some(VersionSource::Runtime)),
        None => {
            let version = from_path();
            let from = version.is_some().then_some(VersionSource::Path);
            (version, from)
        }
    };
    let told = |of: fn(&ProcessInfo) -> Option<String>| info.as_ref().and_then(of).filter(|t| !t.is_empty());
    Some(ProcessFacts {
        pid,
        ns_pid: process.ns_pid,
        name: name(&stat.name, executable.as_deref()),
        executable: executable.map(|path| path.to_string_lossy().into_owned()),
        arguments: proc.arguments(pid),
        uid: process.uid,
        hosting: process.host.as_ref().map(Hosting::from),
        runtime_version,
        runtime_version_from,
        rid: told(|i| i.rid.clone()),
        arch: told(|i| Some(i.arch.clone())),
        os: told(|i| Some(i.os.clone())),
        entry_assembly: told(|i| i.entry_assembly.clone()),
        command_line: told(|i| Some(i.command_line.clone())),
        socket,
        other_root: process.other_root,
        unreachable: reason.map(Unreachable::word),
        reason,
    })
}

/// The kernel keeps 15 bytes of a name; the executable has the rest, unless the process calls itself otherwise.
fn name(short: &str, executable: Option<&Path>) -> String {
    // A character cut in two was replaced when the name was read.
    let whole = short.trim_end_matches('\u{fffd}');
    let file = executable.and_then(Path::file_name).map(|f| f.to_string_lossy());
    match file {
        Some(file) if !whole.is_empty() && file.starts_with(whole) => file.into_owned(),
        _ => short.to_owned(),
    }
}

/// `…/shared/Microsoft.NETCore.App/3.1.23/libcoreclr.so` says 3.1.23.
fn version_of(library: &Path) -> Option<String> {
    let dir = library.parent()?;
    let version = dir.file_name()?.to_str()?;
    let framework = dir.parent()?.file_name()?.to_str()?;
    let plausible = version.starts_with(|c: char| c.is_ascii_digit()) && version.contains('.');
    (framework == "Microsoft.NETCore.App" && plausible).then(|| version.to_owned())
}

/// What an error means for somebody who looks at a list.
pub(crate) fn unreachable(error: &IpcError) -> Unreachable {
    match error {
        IpcError::NoAnswer { .. } => Unreachable::NoAnswer,
        IpcError::Connect { source, .. } if source.kind() == std::io::ErrorKind::WouldBlock => {
            Unreachable::NoAnswer
        }
        IpcError::Connect { .. } if error.kind() == Kind::Permission => Unreachable::OtherUser,
        IpcError::Connect { .. } => Unreachable::NotListening,
        IpcError::Impostor { .. } => Unreachable::SocketGone,
        _ => Unreachable::BadAnswer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let exe = |path: &'static str| Some(Path::new(path));
        assert_eq!(name("Very.Long.Servi", exe("/app/Very.Long.Service")), "Very.Long.Service");
        assert_eq!(name("renamed", exe("/app/Service")), "renamed");
        assert_eq!(name("Über-Größen-Ü\u{fffd}", exe("/app/Über-Größen-Übersicht")), "Über-Größen-Übersicht");
        assert_eq!(name("x", None), "x");
        assert_eq!(name("", exe("/app/Service")), "");
    }

    #[test]
    fn versions_from_paths() {
        let version = |path: &str| version_of(Path::new(path));
        assert_eq!(
            version("/d/shared/Microsoft.NETCore.App/3.1.23/libcoreclr.so").as_deref(),
            Some("3.1.23")
        );
        assert_eq!(version("/app/libcoreclr.so"), None);
        assert_eq!(version("/Microsoft.NETCore.App/app/libcoreclr.so"), None);
        assert_eq!(version("libcoreclr.so"), None);
    }
}
