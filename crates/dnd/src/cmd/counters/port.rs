//! Runtimes that report on a socket of ours: those that a user points at it, and a program that is started here.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dnd_contract::Kind;
use dnd_ipc::procfs::ProcFs;
use dnd_ipc::{Endpoint, Reported, ReversePort, process_info};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc;

use super::targets::{Arrival, Arrivals, Subject};
use super::writer::say;
use crate::error::CliError;
use crate::target::discovery;

/// How long a runtime may take to say who it is.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a program that was started may take to become a .NET process.
const START: Duration = Duration::from_secs(10);
/// How often it is looked whether it has, where it can't report (.NET Core 3), and whether it has ended.
const LOOK: Duration = Duration::from_millis(50);
/// How long a program may take to end when it is asked to.
const TERMINATE: Duration = Duration::from_secs(5);

/// The longest path of a socket (`sun_path` of unix(7), with a 0 at its end).
const LONGEST: usize = 107;

/// `PATH`, `PATH,listen` or `PATH,connect`.
#[derive(Debug, Clone)]
pub(super) struct PortSpec {
    path: PathBuf,
    connect: bool,
}

impl FromStr for PortSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, mode) = text.rsplit_once(',').unwrap_or((text, "listen"));
        let path = path.strip_prefix("uds:").unwrap_or(path);
        let connect = mode.eq_ignore_ascii_case("connect");
        // Runtimes take a comma for the end of the path, too: none can be told to connect to a path with one.
        let listen = mode.eq_ignore_ascii_case("listen") && !path.contains(',');
        if path.is_empty() || !(connect || listen) {
            return Err("expected PATH, PATH,listen or PATH,connect".to_owned());
        }
        if path.len() > LONGEST {
            return Err(format!("the path of a socket has at most {LONGEST} bytes, this has {}", path.len()));
        }
        Ok(Self { path: PathBuf::from(path), connect })
    }
}

impl PortSpec {
    /// The processes behind the port.
    pub(super) async fn resolve(&self, resume: bool) -> Result<Arrivals, CliError> {
        if self.connect {
            let endpoint = Endpoint::new(&self.path);
            let subject = subject(endpoint, None, None, resume).await?;
            return Ok(Arrivals { first: vec![subject], more: None, single: true });
        }
        let mut port = bind(&self.path)?;
        let path = self.path.display();
        say(&format!("waiting for runtimes on {path}: start them with DOTNET_DiagnosticPorts={path}"));
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let reported = tokio::select! {
                    () = sender.closed() => return,
                    reported = port.next() => reported,
                };
                let Ok(reported) = reported else { return };
                let sender = sender.clone();
                // Each by itself: one that doesn't answer, or has ended already, keeps no others waiting at their start.
                tokio::spawn(async move { sender.send(found(reported, resume).await) });
            }
        });
        Ok(Arrivals { first: Vec::new(), more: Some(receiver), single: false })
    }
}

fn bind(path: &Path) -> Result<ReversePort, CliError> {
    ReversePort::bind(path).map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => Kind::Permission,
            io::ErrorKind::AddrInUse => Kind::Usage,
            io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::Failed,
        };
        let failed = CliError::new(kind, format!("cannot listen on {}: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::AddrInUse => failed.hint("if no other tool listens there, remove the file"),
            _ => failed,
        }
    })
}

/// A runtime that reported, as something to watch.
async fn found(reported: Reported, resume: bool) -> Arrival {
    let Reported { pid, inner_pid, endpoint, .. } = reported;
    match subject(endpoint, pid, Some(inner_pid), resume).await {
        Ok(subject) => Arrival::Found(Box::new(subject)),
        Err(error) => Arrival::Failed(error),
    }
}

/// Asks a runtime who it is. `pid` is its id as seen from here, `inner_pid` that of its own pid namespace.
async fn subject(
    endpoint: Endpoint,
    pid: Option<u32>,
    inner_pid: Option<u32>,
    resume: bool,
) -> Result<Subject, CliError> {
    let info = process_info(&endpoint, ANSWER).await?;
    let said = info.as_ref().and_then(|info| u32::try_from(info.pid).ok());
    let shown = pid.or(inner_pid).or(said).unwrap_or(0);
    let name = pid.and_then(|pid| Some(ProcFs::default().stat(pid)?.name));
    let assembly = info.as_ref().and_then(|info| info.entry_assembly.clone());
    Ok(Subject {
        pid: shown,
        local: pid.is_some(),
        name: name.or_else(|| assembly.clone()).unwrap_or_else(|| "process".to_owned()),
        assembly,
        runtime: info.and_then(|info| info.runtime_version),
        endpoint,
        resume,
    })
}

/// A program started here. Dropping it ends it.
pub(super) struct Started {
    child: Arc<Mutex<Child>>,
    folder: PathBuf,
}

impl Started {
    /// Starts `command` so that its runtime waits for its sessions before anything managed runs.
    pub(super) fn start(command: &[OsString], show_io: bool) -> Result<(Self, Arrivals), CliError> {
        let [program, arguments @ ..] = command else {
            return Err(CliError::new(Kind::Usage, "no command behind `--`"));
        };
        let folder = private_folder()?;
        let path = folder.join("port");
        let mut port = bind(&path)?;
        let mut child = Command::new(program);
        child.args(arguments).env("DOTNET_DiagnosticPorts", format!("{},suspend,connect", path.display()));
        if !show_io {
            child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            // Ctrl-C is for this program, which then ends the other one.
            child.process_group(0);
        }
        let shown = program.to_string_lossy().into_owned();
        let child = match child.spawn() {
            Ok(child) => child,
            Err(error) => {
                drop(port);
                let _ = std::fs::remove_dir(&folder);
                let kind = match error.kind() {
                    io::ErrorKind::NotFound => Kind::NotFound,
                    io::ErrorKind::PermissionDenied => Kind::Permission,
                    _ => Kind::Failed,
                };
                return Err(CliError::new(kind, format!("cannot run `{shown}`: {error}")));
            }
        };
        let pid = child.id();
        let child = Arc::new(Mutex::new(child));
        let started = Self { child: Arc::clone(&child), folder };
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let deadline = Instant::now() + START;
            let mut came = false;
            let mut looks = tokio::time::interval(LOOK);
            while !sender.is_closed() {
                let arrival = tokio::select! {
                    reported = port.next() => match reported {
                        Ok(reported) => found(reported, true).await,
                        Err(error) => Arrival::Failed(CliError::new(Kind::Failed, error.to_string())),
                    },
                    _ = looks.tick() => {
                        if let Some(status) = ended(&child) {
                            if came {
                                Arrival::Over
                            } else {
                                let text = format!("`{shown}` ended ({status}) before a .NET runtime reported");
                                Arrival::Failed(CliError::new(Kind::Failed, text))
                            }
                        } else if came {
                            continue;
                        } else if let Some(old) = cannot_report(pid).await {
                            Arrival::Found(Box::new(old))
                        } else if Instant::now() > deadline {
                            let text = format!("`{shown}` did not become a .NET process within {} s", START.as_secs());
                            Arrival::Failed(CliError::new(Kind::Failed, text))
                        } else {
                            continue;
                        }
                    }
                };
                came = true;
                let over = matches!(arrival, Arrival::Over | Arrival::Failed(_));
                if sender.send(arrival).is_err() || over {
                    break;
                }
            }
        });
        Ok((started, Arrivals { first: Vec::new(), more: Some(receiver), single: true }))
    }

    /// How the program has ended, if it is process `pid`.
    pub(super) fn status(&self, pid: u32) -> Option<ExitStatus> {
        let id = self.child.lock().unwrap_or_else(PoisonError::into_inner).id();
        if id == pid { ended(&self.child) } else { None }
    }

    /// The exit code that becomes ours, if the program has ended by itself: 128 and the signal's number for a signal.
    pub(super) fn code(&self) -> Option<u8> {
        let status = ended(&self.child)?;
        let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
        Some(u8::try_from(code & 0xff).unwrap_or(1))
    }
}

fn ended(child: &Mutex<Child>) -> Option<ExitStatus> {
    child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().ok().flatten()
}

/// .NET Core 3 knows no ports: it runs, and is found like any other process.
async fn cannot_report(pid: u32) -> Option<Subject> {
    let process = discovery().inspect(pid).ok()?;
    let endpoint = process.endpoint.clone().ok()?;
    let facts = dnd_ps::facts(&ProcFs::default(), &process).await?;
    let old = facts.runtime_version.as_deref().is_some_and(|version| version.starts_with("3."));
    if !old || facts.reason.is_some() {
        return None;
    }
    Some(dnd_ps::Chosen { process, endpoint, facts }.into())
}

impl Drop for Started {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(None), Ok(pid)) = (child.try_wait(), i32::try_from(child.id())) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let deadline = Instant::now() + TERMINATE;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(LOOK);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(self.folder.join("port"));
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// A folder that only this user may enter.
fn private_folder() -> Result<PathBuf, CliError> {
    let time = jiff::Timestamp::now().as_nanosecond();
    let path = std::env::temp_dir().join(format!("dnd-{}-{time}", std::process::id()));
    match std::fs::DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => Ok(path),
        Err(error) => Err(CliError::new(Kind::Failed, format!("cannot create {}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let spec = |text: &str| text.parse::<PortSpec>().map(|spec| (spec.path, spec.connect));
        assert_eq!(spec("/tmp/p"), Ok(("/tmp/p".into(), false)));
        assert_eq!(spec("/tmp/p,listen"), Ok(("/tmp/p".into(), false)));
        assert_eq!(spec("uds:/tmp/p,connect"), Ok(("/tmp/p".into(), true)));
        assert_eq!(spec("/tmp/a,b,Connect"), Ok(("/tmp/a,b".into(), true)));
        for bad in ["", ",connect", "/tmp/a,b", "/tmp/a,b,listen"] {
            assert!(spec(bad).is_err(), "{bad}");
        }
    }
}
