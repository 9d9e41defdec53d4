//! Ctrl-C ends the running command, not the program.

use std::io;

use dnd_clr::Progress;
use tokio::signal::unix::{SignalKind, signal};

/// From here on SIGINT no longer ends the program but cancels what `progress` stands for.
///
/// # Errors
/// When the system refuses a thread or a signal handler.
pub(crate) fn cancel_on_ctrl_c(progress: &'static Progress) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = {
        let _context = runtime.enter();
        signal(SignalKind::interrupt())?
    };
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        runtime.block_on(async {
            while signals.recv().await.is_some() {
                progress.cancel();
            }
        });
    })?;
    Ok(())
}
