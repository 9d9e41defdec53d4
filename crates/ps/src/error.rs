//! Why there is no process to talk to.

use dnd_contract::{Explain, Kind};
use dnd_ipc::discovery::Unreachable;
use thiserror::Error;

/// Why the process that the user means can't be found or reached.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// No such process.
    #[error("there is no process {pid}")]
    Gone {
        /// The pid asked for.
        pid: u32,
        /// .NET processes that have this pid in their container, as numbered here.
        inside: Vec<u32>,
    },
    /// A process without a runtime.
    #[error("process {pid} ({name}) is not a .NET process: no .NET runtime is loaded in it")]
    NotDotnet {
        /// The pid asked for.
        pid: u32,
        /// Its name.
        name: String,
        /// .NET processes that have this pid in their container, as numbered here.
        inside: Vec<u32>,
    },
    /// A process that may not be looked into.
    #[error("process {pid} ({name}) may not be looked into, and no diagnostics socket of it is in sight")]
    Hidden {
        /// The pid asked for.
        pid: u32,
        /// Its name.
        name: String,
        /// The user it runs as.
        uid: u32,
        /// Whether this program is run by root.
        root: bool,
        /// .NET processes that have this pid in their container, as numbered here.
        inside: Vec<u32>,
    },
    /// A .NET process that can't be talked to.
    #[error("process {pid} ({name}) can't be reached: {}", sentence(*reason, *uid))]
    Unreachable {
        /// The pid.
        pid: u32,
        /// Its name.
        name: String,
        /// The user it runs as.
        uid: u32,
        /// Why.
        reason: Unreachable,
    },
    /// Nothing by that name.
    #[error("no .NET process is named `{name}`")]
    NoSuchName {
        /// The name asked for.
        name: String,
        /// The .NET processes there are.
        running: Vec<String>,
    },
    /// Several by that name.
    #[error("{} .NET processes are named `{name}`", found.len())]
    Ambiguous {
        /// The name asked for.
        name: String,
        /// Those processes.
        found: Vec<String>,
    },
    /// Neither pid nor name given.
    #[error("which process? give its id with -p or its name with -n")]
    NoneGiven {
        /// The .NET processes there are.
        running: Vec<String>,
    },
}

fn sentence(reason: Unreachable, uid: u32) -> String {
    match reason {
        Unreachable::OtherUser => format!("it runs as user {uid}"),
        Unreachable::Disabled => "its environment switches the diagnostics off".to_owned(),
        Unreachable::NotBuiltIn => "it was compiled (NativeAOT) without diagnostics".to_owned(),
        Unreachable::SocketGone => "its diagnostics socket is not there".to_owned(),
        Unreachable::NotListening => "nobody listens on its diagnostics socket".to_owned(),
        Unreachable::Stopped => "it is stopped".to_owned(),
        Unreachable::NoAnswer => format!("it does not answer within {:?}", crate::ANSWER_WITHIN),
        Unreachable::BadAnswer => "what answers on its socket is not a .NET runtime".to_owned(),
    }
}

impl Explain for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Gone { .. } | Self::NotDotnet { .. } | Self::NoSuchName { .. } => Kind::NotFound,
            Self::Hidden { .. } => Kind::Permission,
            Self::Unreachable { reason, .. } => match reason {
                Unreachable::OtherUser => Kind::Permission,
                Unreachable::Disabled | Unreachable::NotBuiltIn => Kind::Unsupported,
                Unreachable::SocketGone | Unreachable::NotListening => Kind::NotFound,
                Unreachable::Stopped | Unreachable::NoAnswer => Kind::Failed,
                Unreachable::BadAnswer => Kind::Corrupt,
            },
            Self::Ambiguous { .. } | Self::NoneGiven { .. } => Kind::Usage,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Gone { inside, .. } | Self::NotDotnet { inside, .. } | Self::Hidden { inside, .. }
                if !inside.is_empty() =>
            {
                inside.iter().map(|pid| format!("process {pid} has this id in its container: -p {pid}")).collect()
            }
            Self::Gone { .. } => vec!["`dnd ps` lists the .NET processes".to_owned()],
            Self::NotDotnet { .. } => vec![
                "`dnd ps` lists the .NET processes; a launcher such as `dotnet run` or a shell starts the application \
                 as a process of its own"
                    .to_owned(),
            ],
            Self::Hidden { root: true, .. } => vec![
                "root needs the capability SYS_PTRACE to look into the processes of others: docker run \
                 --cap-add=SYS_PTRACE"
                    .to_owned(),
            ],
            Self::Hidden { uid, .. } => vec![as_user(*uid)],
            Self::Unreachable { pid, uid, reason, .. } => hints(*reason, *pid, *uid),
            Self::NoSuchName { running, .. } | Self::NoneGiven { running } if running.is_empty() => {
                vec!["no .NET process is running here; if one is, it may belong to another user: try sudo".to_owned()]
            }
            Self::NoSuchName { running, .. } | Self::NoneGiven { running } => running.clone(),
            Self::Ambiguous { found, .. } => found.clone(),
        }
    }
}

fn as_user(uid: u32) -> String {
    if uid == 0 {
        return "run dnd with sudo (in a container: docker exec -u 0 …)".to_owned();
    }
    format!("run dnd as user {uid} or with sudo (in a container: docker exec -u {uid} …)")
}

fn hints(reason: Unreachable, pid: u32, uid: u32) -> Vec<String> {
    let hint = match reason {
        Unreachable::OtherUser => as_user(uid),
        Unreachable::Disabled => {
            "DOTNET_EnableDiagnostics=0 (or DOTNET_EnableDiagnostics_IPC, COMPlus_EnableDiagnostics) is set; it is read \
             only at start, so restart the process without it"
                .to_owned()
        }
        Unreachable::NotBuiltIn => {
            "publish it with <EventSourceSupport>true</EventSourceSupport>".to_owned()
        }
        Unreachable::SocketGone => format!(
            "it makes dotnet-diagnostic-{pid}-*-socket in its TMPDIR (/tmp if unset) at start: something removed it \
             (a cleaner of /tmp), or the folder is not writable or its path too long; a restart makes a new one"
        ),
        Unreachable::NotListening => "the process is just starting or ending; try again".to_owned(),
        Unreachable::Stopped => {
            format!("something (Ctrl-Z, `kill -STOP`) stopped it; `kill -CONT {pid}` lets it go on")
        }
        Unreachable::NoAnswer => {
            "it may be in a debugger, or busy with another diagnostics command such as a dump".to_owned()
        }
        Unreachable::BadAnswer => return Vec::new(),
    };
    vec![hint]
}
