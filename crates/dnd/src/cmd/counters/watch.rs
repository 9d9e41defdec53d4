//! The loop behind every way to watch counters: sessions on one side, a sink on the other, and between them everything
//! that can end it, so that no session is ever left running.

use std::io;
use std::time::{Duration, Instant};

use crossterm::event::Event as TerminalEvent;
use dnd_counters::session::{self, End, Message};
use dnd_counters::{Board, Request, Update};
use dnd_ps::Chosen;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::error::{CliError, stdout_failed};

/// How often a sink may look at the clock: for late samples.
const TICK: Duration = Duration::from_millis(250);

/// A process being watched.
pub(super) struct Target {
    /// Its id, as seen from here.
    pub(super) pid: u32,
    /// Its name.
    pub(super) name: String,
    /// Its values.
    pub(super) board: Board,
    /// How its session ended, once it did.
    pub(super) end: Option<End>,
}

/// Where values go.
pub(super) trait Sink {
    /// New values; the board has them already.
    fn updates(&mut self, target: &Target, updates: &[Update]) -> io::Result<()>;

    /// Time has passed.
    fn tick(&mut self, target: &Target) -> io::Result<()>;

    /// A key was pressed, or the terminal changed its size. Whether to go on.
    fn terminal(&mut self, _target: &Target, _event: &TerminalEvent) -> io::Result<bool> {
        Ok(true)
    }

    /// The session has ended; nothing more will come.
    fn end(&mut self, target: &Target) -> io::Result<()>;
}

/// Watches `chosen` until something ends it, and says how it ended.
pub(super) async fn watch(
    chosen: Chosen,
    request: Request,
    duration: Option<Duration>,
    mut terminal: Option<mpsc::UnboundedReceiver<io::Result<TerminalEvent>>>,
    sink: &mut dyn Sink,
) -> Result<End, CliError> {
    let mut target = Target {
        pid: chosen.facts.pid,
        name: chosen.facts.name.clone(),
        board: Board::new(request.interval, Instant::now()),
        end: None,
    };
    let mut signals = Signals::new()?;
    let (stop, stopped) = watch::channel(false);
    let (sender, mut messages) = mpsc::unbounded_channel();
    let mut session = tokio::spawn(async move {
        session::run(&chosen.endpoint, request, stopped, |message| {
            // A receiver that is gone means that the program is ending.
            let _ = sender.send(message);
        })
        .await
    });
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let deadline = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(deadline);
    let mut stopping = false;
    let mut written = Ok(());
    let ended = loop {
        let go_on = tokio::select! {
            biased;
            again = signals.recv() => {
                if stopping && again {
                    // Asked twice: leave at once. Closing the connection ends the session, too.
                    session.abort();
                    return Err(CliError::Quiet(dnd_contract::Kind::Failed));
                }
                Ok(false)
            }
            Some(message) = messages.recv() => take(&mut target, message, sink),
            event = next(&mut terminal), if !stopping => match event {
                Some(Ok(event)) => sink.terminal(&target, &event),
                // The terminal is gone: nobody is watching.
                Some(Err(_)) | None => Ok(false),
            },
            () = &mut deadline, if !stopping => Ok(false),
            _ = ticks.tick(), if !stopping => {
                target.board.prune(Instant::now());
                sink.tick(&target).map(|()| true)
            }
            ended = &mut session => break ended,
        };
        if !matches!(go_on, Ok(true)) && !stopping {
            stopping = true;
            stop.send_replace(true);
        }
        if let Err(error) = go_on
            && written.is_ok()
        {
            written = Err(error);
        }
    };
    while let Ok(message) = messages.try_recv() {
        if written.is_ok() {
            written = take(&mut target, message, sink).map(drop);
        }
    }
    let end = match ended {
        Ok(end) => end?,
        Err(error) => return Err(CliError::new(dnd_contract::Kind::Internal, error.to_string())),
    };
    target.end = Some(end);
    written.and_then(|()| sink.end(&target)).map_err(stdout_failed)?;
    Ok(end)
}

fn take(target: &mut Target, message: Message, sink: &mut dyn Sink) -> io::Result<bool> {
    if let Message::Updates(updates) = message {
        let now = Instant::now();
        for update in &updates {
            target.board.apply(update, now);
        }
        sink.updates(target, &updates)?;
    }
    Ok(true)
}

async fn next<T>(receiver: &mut Option<mpsc::UnboundedReceiver<T>>) -> Option<T> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// What asks a program to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                CliError::new(dnd_contract::Kind::Failed, format!("cannot listen for signals: {error}"))
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for one. Whether it is one that a user sends again in impatience.
    async fn recv(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            _ = self.hang_up.recv() => false,
        }
    }
}
