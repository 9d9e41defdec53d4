//! How far a long command is, on standard error, once it has taken a second.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use dnd_clr::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work shorter than this shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two looks at the progress.
const TICK: Duration = Duration::from_millis(100);

/// A bar for one command; gone without a trace when dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Bar {
    /// Watches `progress`; shows nothing when standard error is no terminal.
    pub(crate) fn watch(progress: &'static Progress) -> Self {
        let start = || {
            let (end, ended) = channel::<()>();
            let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
                if ended.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                // A constant of this program can't be a wrong template; the default would do as well.
                let style =
                    ProgressStyle::with_template("reading the heap {wide_bar} {percent}% (Ctrl-C stops)");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                loop {
                    let (done, total) = progress.bytes();
                    bar.set_length(total.max(1));
                    bar.set_position(done.min(total));
                    bar.tick();
                    if ended.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
                        bar.finish_and_clear();
                        return;
                    }
                }
            });
            thread.ok().map(|thread| (end, thread))
        };
        Bar { running: io::stderr().is_terminal().then(start).flatten() }
    }

    /// Takes the bar away before anything else is written to the terminal.
    pub(crate) fn end(&mut self) {
        if let Some((end, thread)) = self.running.take() {
            drop(end);
            // A panic there would have cost a bar, not an answer.
            let _ = thread.join();
        }
    }

    /// Output is about to appear on standard output: if that is the same terminal, the bar must go.
    pub(crate) fn output_begins(&mut self) {
        if io::stdout().is_terminal() {
            self.end();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}
