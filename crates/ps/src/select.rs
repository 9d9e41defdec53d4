//! The one process that the user means.

use dnd_ipc::Endpoint;
use dnd_ipc::discovery::{Discovery, NotDotnet, Process, Unreachable};
use dnd_ipc::procfs::ProcFs;

use crate::error::Error;
use crate::facts::ProcessFacts;
use crate::query::{facts, list};

/// A process that was chosen. It has answered, or is too old to tell about itself, or need not answer.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// How it was found.
    pub process: Process,
    /// Where to reach it.
    pub endpoint: Endpoint,
    /// What it said.
    pub facts: ProcessFacts,
}

impl Chosen {
    /// Major version of its runtime, where that is known.
    #[must_use]
    pub fn runtime_major(&self) -> Option<u32> {
        self.facts.runtime_version.as_deref()?.split('.').next()?.parse().ok()
    }
}

/// What a process must do to be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Answer.
    Answer,
    /// Listen: one that is stopped or doesn't answer now may do so later, and the operating system knows it already.
    Socket,
}

/// The process with this pid.
///
/// # Errors
/// When it is not there, not .NET, or can't be reached.
pub async fn by_pid(discovery: &mut Discovery, proc: &ProcFs, pid: u32, need: Need) -> Result<Chosen, Error> {
    let process = match discovery.inspect(pid) {
        Ok(process) => process,
        Err(why) => {
            let name = proc.stat(pid).map(|s| s.name).unwrap_or_default();
            return Err(match why {
                NotDotnet::Gone => Error::Gone { pid, inside: inside(discovery, pid) },
                NotDotnet::NoRuntime => Error::NotDotnet { pid, name, inside: inside(discovery, pid) },
                NotDotnet::Hidden => {
                    let uid = proc.status(pid).map_or(0, |s| s.uid);
                    Error::Hidden {
                        pid,
                        name,
                        uid,
                        root: discovery.is_root(),
                        inside: inside(discovery, pid),
                    }
                }
            });
        }
    };
    chosen(proc, process, need).await
}

/// The .NET process that is called `name`: the name that `dnd ps` shows, or that of its entry assembly.
///
/// # Errors
/// When there is none or are several, or it can't be reached.
pub async fn by_name(
    discovery: &mut Discovery,
    proc: &ProcFs,
    name: &str,
    need: Need,
) -> Result<Chosen, Error> {
    let processes = discovery.scan();
    let listed = list(proc, processes.clone()).await.processes;
    let is = |p: &&ProcessFacts| p.name == name || p.entry_assembly.as_deref() == Some(name);
    let found: Vec<&ProcessFacts> = listed.iter().filter(is).collect();
    match found.as_slice() {
        [] => Err(Error::NoSuchName { name: name.to_owned(), running: listed.iter().map(line).collect() }),
        [one] => match processes.into_iter().find(|p| p.pid == one.pid) {
            // Asked again, by itself: the list waits less long for an answer.
            Some(process) => chosen(proc, process, need).await,
            None => Err(Error::Gone { pid: one.pid, inside: Vec::new() }),
        },
        several => {
            Err(Error::Ambiguous { name: name.to_owned(), found: several.iter().map(|p| line(p)).collect() })
        }
    }
}

/// The error for a command line that names no process.
pub async fn none_given(discovery: &mut Discovery, proc: &ProcFs) -> Error {
    let listed = list(proc, discovery.scan()).await.processes;
    Error::NoneGiven { running: listed.iter().map(line).collect() }
}

async fn chosen(proc: &ProcFs, process: Process, need: Need) -> Result<Chosen, Error> {
    let pid = process.pid;
    match facts(proc, &process).await {
        Some(facts) => reachable(process, facts, need),
        None => Err(Error::Gone { pid, inside: Vec::new() }),
    }
}

fn reachable(process: Process, facts: ProcessFacts, need: Need) -> Result<Chosen, Error> {
    let reason = match (&process.endpoint, facts.reason) {
        (Ok(endpoint), None) => return Ok(Chosen { endpoint: endpoint.clone(), process, facts }),
        (Ok(endpoint), Some(Unreachable::Stopped | Unreachable::NoAnswer)) if need == Need::Socket => {
            return Ok(Chosen { endpoint: endpoint.clone(), process, facts });
        }
        (Err(reason), _) => *reason,
        (_, Some(reason)) => reason,
    };
    Err(Error::Unreachable { pid: process.pid, name: facts.name, uid: process.uid, reason })
}

/// The .NET processes that are numbered `pid` in another pid namespace.
fn inside(discovery: &mut Discovery, pid: u32) -> Vec<u32> {
    let all = discovery.scan();
    all.into_iter().filter(|p| p.ns_pid == pid && p.pid != pid).map(|p| p.pid).collect()
}

/// A process in a line of a hint.
fn line(p: &ProcessFacts) -> String {
    let mut out = format!("-p {}  {}", p.pid, p.name);
    if let Some(assembly) = p.entry_assembly.as_deref().filter(|a| *a != p.name) {
        out.push_str(&format!(" ({assembly})"));
    }
    if let Some(reason) = p.unreachable {
        out.push_str(&format!(" [{reason}]"));
    }
    out
}
