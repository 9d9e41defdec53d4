//! Which processes to watch: chosen by id or name, several of them, or all, also those that are yet to start.

use std::collections::HashSet;
use std::ffi::OsString;
use std::time::Duration;

use dnd_contract::escape;
use dnd_ipc::Endpoint;
use dnd_ipc::discovery::{Process, Unreachable};
use dnd_ipc::procfs::ProcFs;
use dnd_ps::{Chosen, Need, ProcessFacts};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::port::{PortSpec, Started};
use super::writer::say;
use crate::error::CliError;
use crate::target::{discovery, pid};

/// How often new processes are looked for.
const LOOK: Duration = Duration::from_secs(2);

/// Options that choose processes. Exactly one way of choosing is to be given.
#[derive(Debug, clap::Args)]
#[group(id = "target", multiple = false)]
pub(super) struct TargetsArgs {
    /// Ids of the processes, as `dnd ps` shows them
    #[arg(short, long, value_name = "PID,...", value_delimiter = ',', value_parser = pid)]
    process_id: Vec<u32>,

    /// Name of the process as `dnd ps` shows it, or of its entry assembly; with `*` all that match, also later ones
    #[arg(short, long, value_name = "NAME")]
    name: Option<String>,

    /// All .NET processes, also those that start later
    #[arg(long)]
    all: bool,

    /// Socket on which runtimes report (DOTNET_DiagnosticPorts), or with `,connect` one on which a runtime listens
    #[arg(long, alias = "dport", value_name = "PATH[,listen|connect]")]
    diagnostic_port: Option<PortSpec>,

    /// Program to start and to watch from its first moment; its exit code becomes that of this command
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Options for processes that report here.
#[derive(Debug, clap::Args)]
pub(super) struct PortOptions {
    /// Whether to let a runtime run that waits at its start, once it is watched
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    resume_runtime: bool,

    /// Let the program that is started use this terminal
    #[arg(long, requires = "command")]
    pub(super) show_child_io: bool,
}

/// A process to watch.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// Its id, as seen from here; if it can't be seen from here, its id in its own pid namespace.
    pub(super) pid: u32,
    /// Whether it can be seen from here.
    pub(super) local: bool,
    /// Its name.
    pub(super) name: String,
    /// Its entry assembly, where known.
    pub(super) assembly: Option<String>,
    /// Version of its runtime, where known.
    pub(super) runtime: Option<String>,
    /// Where to reach it.
    pub(super) endpoint: Endpoint,
    /// Whether it waits to be let run once the sessions are started.
    pub(super) resume: bool,
}

impl Subject {
    /// `4711 dotnet (Shop), .NET 8.0.33`.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{} {}", self.pid, self.name);
        if let Some(assembly) = self.assembly.as_ref().filter(|assembly| **assembly != self.name) {
            text.push_str(&format!(" ({assembly})"));
        }
        if let Some(version) = &self.runtime {
            text.push_str(&format!(", .NET {version}"));
        }
        text
    }
}

impl From<Chosen> for Subject {
    fn from(chosen: Chosen) -> Self {
        Self {
            pid: chosen.facts.pid,
            local: true,
            name: chosen.facts.name,
            assembly: chosen.facts.entry_assembly,
            runtime: chosen.facts.runtime_version,
            endpoint: chosen.endpoint,
            resume: false,
        }
    }
}

/// What comes while others are watched.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Another process.
    Found(Box<Subject>),
    /// No more can come.
    Over,
    /// No more can come, because of this.
    Failed(CliError),
}

/// The processes to watch.
pub(super) struct Arrivals {
    /// Those that are there.
    pub(super) first: Vec<Subject>,
    /// Those that come later.
    pub(super) more: Option<mpsc::UnboundedReceiver<Arrival>>,
    /// Whether it was one process that was asked for.
    pub(super) single: bool,
}

impl TargetsArgs {
    /// Finds the processes; what they have answered is known. A program that is started for
    /// it ends with what is returned beside them.
    pub(super) async fn resolve(
        &self,
        options: &PortOptions,
    ) -> Result<(Arrivals, Option<Started>), CliError> {
        if !self.command.is_empty() {
            let (started, arrivals) = Started::start(&self.command, options.show_child_io)?;
            return Ok((arrivals, Some(started)));
        }
        let arrivals = match &self.diagnostic_port {
            Some(port) => port.resolve(options.resume_runtime).await?,
            None => self.choose().await?,
        };
        Ok((arrivals, None))
    }

    async fn choose(&self) -> Result<Arrivals, CliError> {
        let mut discovery = discovery();
        let proc = ProcFs::default();
        let pattern = match &self.name {
            _ if self.all => Some("*"),
            Some(name) if name.contains('*') => Some(name.as_str()),
            _ => None,
        };
        if let Some(pattern) = pattern {
            // There may be none yet: whoever waits should know what for.
            let which = if self.all { String::new() } else { format!(" named {}", escape(pattern)) };
            say(&format!("watching all .NET processes{which}, also those that start later; Ctrl-C ends it"));
            let closed = closed(pattern, &proc, &discovery.scan()).await;
            if closed > 0 {
                let are = if closed == 1 { "process is" } else { "processes are" };
                say(&format!("note: {closed} .NET {are} left out that can't be reached; `dnd ps` says why"));
            }
            return Ok(Arrivals { first: Vec::new(), more: Some(follow(pattern.to_owned())), single: false });
        }
        let mut first = Vec::new();
        match (self.process_id.as_slice(), &self.name) {
            ([], Some(name)) => {
                first.push(watched(dnd_ps::by_name(&mut discovery, &proc, name, Need::Socket).await?));
            }
            ([], None) => return Err(dnd_ps::none_given(&mut discovery, &proc).await.into()),
            (pids, _) => {
                for &pid in pids {
                    let known = first.iter().any(|subject: &Subject| subject.pid == pid);
                    if !known {
                        first.push(watched(dnd_ps::by_pid(&mut discovery, &proc, pid, Need::Socket).await?));
                    }
                }
            }
        }
        let single = first.len() == 1;
        Ok(Arrivals { first, more: None, single })
    }
}

/// How many processes whose names match can't be reached now, nor later.
async fn closed(pattern: &str, proc: &ProcFs, processes: &[Process]) -> usize {
    let mut count = 0;
    for process in processes {
        let reason = process.endpoint.as_ref().err();
        if reason.is_some_and(|reason| *reason != Unreachable::NotListening)
            && let Some(facts) = dnd_ps::facts(proc, process).await
        {
            count += usize::from(is_named(pattern, &facts));
        }
    }
    count
}

fn is_named(pattern: &str, facts: &ProcessFacts) -> bool {
    let mut names = std::iter::once(&facts.name).chain(&facts.entry_assembly);
    names.any(|name| matches(pattern, name))
}

/// A process that was chosen; says so if it is silent.
fn watched(chosen: Chosen) -> Subject {
    let reason = match chosen.facts.reason {
        Some(Unreachable::Stopped) => "is stopped",
        Some(_) => "doesn't answer: it is busy, or in a debugger",
        None => return chosen.into(),
    };
    let (pid, name) = (chosen.facts.pid, escape(&chosen.facts.name));
    say(&format!(
        "note: process {pid} ({name}) {reason}; until it goes on, only the operating system tells of it"
    ));
    chosen.into()
}

/// Looks for processes whose name matches, again and again.
fn follow(pattern: String) -> mpsc::UnboundedReceiver<Arrival> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(look_for(pattern, ProcFs::default(), || discovery().scan(), sender));
    receiver
}

/// Gives the processes of each `scan` whose name matches, once each.
async fn look_for(
    pattern: String,
    proc: ProcFs,
    scan: impl Fn() -> Vec<Process>,
    sender: mpsc::UnboundedSender<Arrival>,
) {
    let id = |process: &Process| (process.pid, process.start_time);
    // Those that are being asked for their names, and those that have answered.
    let mut known = HashSet::new();
    // Those that did not answer.
    let mut silent = HashSet::new();
    let mut asked = JoinSet::new();
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = sender.closed() => return,
            _ = ticks.tick() => {
                let processes = scan();
                known.retain(|known| processes.iter().any(|process| id(process) == *known));
                silent.retain(|silent| processes.iter().any(|process| id(process) == *silent));
                for process in processes {
                    let Ok(endpoint) = process.endpoint.clone() else { continue };
                    if known.insert(id(&process)) {
                        let proc = proc.clone();
                        // Each by itself: one that doesn't answer keeps no others from being found.
                        asked.spawn(async move {
                            let facts = dnd_ps::facts(&proc, &process).await;
                            (process, endpoint, facts)
                        });
                    }
                }
            }
            Some(Ok((process, endpoint, facts))) = asked.join_next() => {
                let Some(facts) = facts else {
                    known.remove(&id(&process));
                    continue;
                };
                let wanted = is_named(&pattern, &facts);
                match facts.reason {
                    None => {}
                    // Silent twice, so it isn't just starting: the operating system can tell of it already.
                    Some(Unreachable::Stopped | Unreachable::NoAnswer)
                        if wanted && !silent.insert(id(&process)) => {}
                    // Not reachable now; maybe later.
                    Some(_) => {
                        known.remove(&id(&process));
                        continue;
                    }
                }
                if wanted {
                    let subject = Subject::from(Chosen { process, endpoint, facts });
                    // Nobody may be left to hear of it.
                    let _ = sender.send(Arrival::Found(Box::new(subject)));
                }
            }
        }
    }
}

/// Whether a name matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use dnd_testkit::Dnd;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// What a runtime of .NET Core 3 says when it is asked about itself: it doesn't know the command.
    const UNKNOWN: &[u8] = b"DOTNET_IPC_V1\0\x18\0\xff\xff\0\0\x85\x13\x13\x80";

    #[test]
    fn who_does_not_answer_keeps_no_others_from_being_found() {
        let (_scratch, dir) = Dnd::scratch();
        let process = |pid: u32| {
            let folder = dir.join(pid.to_string());
            std::fs::create_dir(&folder).expect("a folder");
            let stat = format!("{pid} (api-{pid}) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100 0 0 0 0 0\n");
            std::fs::write(folder.join("stat"), stat).expect("a file");
            let endpoint = Ok(Endpoint::new(dir.join(format!("socket-{pid}"))));
            let (ns_pid, uid) = (pid, nix::unistd::geteuid().as_raw());
            Process { pid, ns_pid, start_time: 100, uid, host: None, other_root: None, endpoint }
        };
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        tokio.block_on(async {
            let listen = |pid: u32| UnixListener::bind(dir.join(format!("socket-{pid}"))).expect("a socket");
            let (silent, speaks, later) = (listen(7), listen(8), listen(9));
            let answer = |listener: UnixListener| async move {
                loop {
                    let (mut stream, _) = listener.accept().await.expect("a connection");
                    // Who asked may have lost patience.
                    let _ = stream.read_exact(&mut [0; 20]).await;
                    let _ = stream.write_all(UNKNOWN).await;
                }
            };
            tokio::spawn(answer(speaks));
            tokio::spawn(answer(later));
            let processes = Arc::new(Mutex::new(vec![process(7), process(8)]));
            let scanned = Arc::clone(&processes);
            let scan = move || scanned.lock().expect("a lock").clone();
            let (sender, mut arrivals) = mpsc::unbounded_channel();
            tokio::spawn(look_for("api*".to_owned(), ProcFs::at(&dir), scan, sender));
            let mut found = async || match arrivals.recv().await {
                Some(Arrival::Found(subject)) => subject.pid,
                other => panic!("{other:?}"),
            };
            assert_eq!(found().await, 8);
            processes.lock().expect("a lock").push(process(9));
            assert_eq!(found().await, 9);
            // One that goes on listening without an answer is found, too; and nothing twice.
            assert_eq!(found().await, 7);
            drop(silent);
        });
    }

    #[test]
    fn patterns() {
        for (pattern, name) in
            [("*", ""), ("*", "x"), ("api*", "api"), ("api*", "api-1"), ("*-*", "a-b"), ("a*b*c", "aXbbc")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("api*", "xapi"), ("*api", "apix"), ("a*b*c", "acb"), ("a*a", "a"), ("api", "api2")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
