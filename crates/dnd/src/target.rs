//! Which process a command is about: `-p` and `-n`, the same for all commands.

use dnd_ipc::discovery::Discovery;
use dnd_ipc::procfs::ProcFs;
use dnd_ps::{Chosen, Need};

use crate::error::CliError;

/// Options that choose a process.
#[derive(Debug, clap::Args)]
pub(crate) struct TargetArgs {
    /// Id of the process, as `dnd ps` shows it
    #[arg(short, long, value_name = "PID", value_parser = pid, conflicts_with = "name")]
    process_id: Option<u32>,

    /// Name of the process as `dnd ps` shows it, or of its entry assembly
    #[arg(short, long, value_name = "NAME")]
    name: Option<String>,
}

/// Reads a process id.
pub(crate) fn pid(text: &str) -> Result<u32, String> {
    let pid = text.parse().ok().filter(|&pid| pid > 0);
    pid.ok_or_else(|| "not the id of a process, as `dnd ps` shows them".to_owned())
}

impl TargetArgs {
    /// The process; it has answered, or is too old to tell about itself.
    pub(crate) async fn resolve(&self) -> Result<Chosen, CliError> {
        let mut discovery = discovery();
        let proc = ProcFs::default();
        let chosen = match (self.process_id, &self.name) {
            (Some(pid), _) => dnd_ps::by_pid(&mut discovery, &proc, pid, Need::Answer).await,
            (None, Some(name)) => dnd_ps::by_name(&mut discovery, &proc, name, Need::Answer).await,
            (None, None) => Err(dnd_ps::none_given(&mut discovery, &proc).await),
        };
        Ok(chosen?)
    }
}

/// A look at this machine's processes with the temporary directory of this program.
pub(crate) fn discovery() -> Discovery {
    Discovery::new(std::env::temp_dir())
}

/// Runs what needs the network or timers, on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(e) => Err(CliError::new(
            dnd_contract::Kind::Failed,
            format!("cannot watch for events of the system: {e}"),
        )),
    }
}
