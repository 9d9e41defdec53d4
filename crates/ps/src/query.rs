//! Asking processes who they are.

use std::path::Path;
use std::time::Duration;

use dnd_contract::{Explain, Kind};
use dnd_ipc::discovery::{Host, Process, Unreachable};
use dnd_ipc::procfs::ProcFs;
use dnd_ipc::{Endpoint, Error as IpcError, ProcessInfo, process_info};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::facts::{AssemblySource, Hosting, ProcessFacts, Processes, VersionSource};

/// How long a process is waited for. The answer is a matter of 0.2 ms.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How long a listing waits on when another process has just answered: so this machine is not too busy for answers.
const AFTER_AN_ANSWER: Duration = Duration::from_millis(300);

/// What a process says of itself: nothing in .NET Core 3.
type Answer = Result<Option<ProcessInfo>, Unreachable>;

/// The facts of all of `processes`, asked at once.
pub async fn list(proc: &ProcFs, processes: Vec<Process>) -> Processes {
    let mut asked = JoinSet::new();
    let mut answers = Vec::with_capacity(processes.len());
    for (n, process) in processes.iter().enumerate() {
        answers.push(match may_answer(proc, process) {
            Ok(endpoint) => {
                let endpoint = endpoint.clone();
                asked.spawn(async move { (n, ask(&endpoint).await) });
                Err(Unreachable::NoAnswer)
            }
            Err(reason) => Err(reason),
        });
    }
    gather(asked, &mut answers).await;
    let described = processes.into_iter().zip(answers);
    let mut out: Vec<_> =
        described.filter_map(|(process, answer)| describe(proc, &process, answer)).collect();
    out.sort_by(|a, b| (&a.name, a.pid).cmp(&(&b.name, b.pid)));
    Processes { processes: out }
}

/// The facts of one process; `None` when it ended meanwhile.
pub async fn facts(proc: &ProcFs, process: &Process) -> Option<ProcessFacts> {
    let answer = match may_answer(proc, process) {
        Ok(endpoint) => ask(endpoint).await,
        Err(reason) => Err(reason),
    };
    describe(proc, process, answer)
}

/// Where to ask a process, unless it is known that nothing would come.
fn may_answer<'a>(proc: &ProcFs, process: &'a Process) -> Result<&'a Endpoint, Unreachable> {
    let endpoint = process.endpoint.as_ref().map_err(|reason| *reason)?;
    if stopped(proc, process.pid) { Err(Unreachable::Stopped) } else { Ok(endpoint) }
}

/// Whether a signal stopped it. (`t`, in the hands of a tracer, may be over in a moment.)
fn stopped(proc: &ProcFs, pid: u32) -> bool {
    proc.stat(pid).is_some_and(|stat| stat.state == 'T')
}

async fn ask(endpoint: &Endpoint) -> Answer {
    process_info(endpoint, ANSWER_WITHIN).await.map_err(|e| unreachable(&e))
}

/// Puts the answers that come in time in their places. Those that don't are given up: their connections are closed.
async fn gather(mut asked: JoinSet<(usize, Answer)>, answers: &mut [Answer]) {
    let last = Instant::now() + ANSWER_WITHIN;
    let mut until = last;
    while let Ok(Some(done)) = timeout_at(until, asked.join_next()).await {
        // A task can only fail by a panic, which was reported.
        let Ok((n, answer)) = done else { continue };
        if answer.is_ok() {
            until = last.min(Instant::now() + AFTER_AN_ANSWER);
        }
        if let Some(place) = answers.get_mut(n) {
            *place = answer;
        }
    }
}

/// The facts of a process that gave this answer; `None` when it ended meanwhile.
fn describe(proc: &ProcFs, process: &Process, answer: Answer) -> Option<ProcessFacts> {
    let socket = process.endpoint.as_ref().ok().map(|e| e.path().to_string_lossy().into_owned());
    let pid = process.pid;
    // Read after the answer, and only while it is still the same process: all facts belong together.
    let stat =
        proc.stat(pid).filter(|s| s.start_time == process.start_time && !matches!(s.state, 'Z' | 'X'))?;
    let executable = proc.executable(pid);
    let (info, reason) = match answer {
        Ok(info) => (info, None),
        // Stopped while it was asked.
        Err(Unreachable::NoAnswer) if stat.state == 'T' => (None, Some(Unreachable::Stopped)),
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
    let arguments = proc.arguments(pid);
    let (entry_assembly, entry_assembly_from) = match told(|i| i.entry_assembly.clone()) {
        Some(assembly) => (Some(assembly), Some(AssemblySource::Runtime)),
        None => {
            let assembly = started_by_host(executable.as_deref(), arguments.as_deref().unwrap_or_default());
            let from = assembly.is_some().then_some(AssemblySource::Arguments);
            (assembly, from)
        }
    };
    Some(ProcessFacts {
        pid,
        ns_pid: process.ns_pid,
        name: name(&stat.name, executable.as_deref()),
        executable: executable.map(|path| path.to_string_lossy().into_owned()),
        arguments,
        uid: process.uid,
        hosting: process.host.as_ref().map(Hosting::from),
        runtime_version,
        runtime_version_from,
        rid: told(|i| i.rid.clone()),
        arch: told(|i| Some(i.arch.clone())),
        os: told(|i| Some(i.os.clone())),
        entry_assembly,
        entry_assembly_from,
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

/// `Shop` of `dotnet [exec] [options] Shop.dll ...`: the host's options take no other DLL.
fn started_by_host(executable: Option<&Path>, arguments: &[String]) -> Option<String> {
    if executable?.file_name()? != "dotnet" {
        return None;
    }
    let dll = arguments.iter().skip(1).find_map(|argument| argument.strip_suffix(".dll"))?;
    let name = dll.rsplit('/').next().unwrap_or(dll);
    (!name.is_empty()).then(|| name.to_owned())
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
    fn the_dll_that_the_host_was_given_is_the_entry_assembly() {
        let started = |executable: &str, arguments: &str| {
            let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
            started_by_host(Some(Path::new(executable)), &arguments)
        };
        assert_eq!(
            started("/usr/bin/dotnet", "dotnet /app/My.Shop.dll --urls x.dll").as_deref(),
            Some("My.Shop")
        );
        assert_eq!(started("/d/dotnet", "dotnet exec --depsfile a.json Shop.dll").as_deref(), Some("Shop"));
        assert_eq!(started("/d/dotnet", "dotnet .dll"), None);
        assert_eq!(started("/d/dotnet", "dotnet"), None);
        assert_eq!(started("/app/Shop", "Shop x.dll"), None);
        assert_eq!(started_by_host(None, &["dotnet".into(), "x.dll".into()]), None);
    }

    /// What comes of processes that answer after so many milliseconds or never, and how long that takes. The clock is
    /// tokio's, which here goes forward only when all wait.
    fn gathered(after: &[Option<u64>]) -> (Vec<bool>, u128) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let mut asked = JoinSet::new();
            for (n, after) in after.iter().copied().enumerate() {
                asked.spawn(async move {
                    match after {
                        Some(after) => tokio::time::sleep(Duration::from_millis(after)).await,
                        None => std::future::pending().await,
                    }
                    (n, Ok(None))
                });
            }
            let mut answers: Vec<Answer> = after.iter().map(|_| Err(Unreachable::NoAnswer)).collect();
            let start = Instant::now();
            gather(asked, &mut answers).await;
            (answers.iter().map(Result::is_ok).collect(), start.elapsed().as_millis())
        })
    }

    #[test]
    fn silent_processes_are_waited_for_shortly() {
        assert_eq!(gathered(&[]), (vec![], 0));
        assert_eq!(gathered(&[Some(2), Some(1)]), (vec![true, true], 2));
        assert_eq!(gathered(&[None]), (vec![false], 1000));
        assert_eq!(gathered(&[Some(900), None]), (vec![true, false], 1000));
        assert_eq!(gathered(&[None, Some(1), None]), (vec![false, true, false], 301));
        assert_eq!(gathered(&[Some(1), Some(200), None]), (vec![true, true, false], 500));
        assert_eq!(gathered(&[Some(1), Some(302)]), (vec![true, false], 301));
    }

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
