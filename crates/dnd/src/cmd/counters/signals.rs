//! What asks a program to end: Ctrl-C, SIGTERM, SIGHUP.

use dnd_contract::Kind;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CliError;

/// What asks a program to end.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, CliError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| CliError::new(Kind::Failed, format!("cannot listen for signals: {error}")))
        };
        // A limit of a file's size is an error like that of a full disk, and must not kill us.
        let _ = listen(SignalKind::from_raw(nix::libc::SIGXFSZ))?;
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for one. Whether it is one that a user sends again in impatience.
    pub(super) async fn recv(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            _ = self.hang_up.recv() => false,
        }
    }
}
