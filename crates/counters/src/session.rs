//! Running a session against a process. Whatever happens, the session ends in the target: it is stopped and its stream
//! is read to the end, or, if the target doesn't play along, the connection is closed, which ends it too.

use std::time::Duration;

use dnd_ipc::{Endpoint, Session, start_session};
use dnd_nettrace::{Order, Parser};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use crate::error::Error;
use crate::model::Model;
use crate::request::Request;
use crate::sample::{Notice, SharedSettings, Update};

/// How long the target may take to end the session when it was asked to. It needs some 20 ms; one that is stopped
/// (SIGSTOP) never does.
const STOP: Duration = Duration::from_secs(3);

/// Settings of other tools are taken over at most this often: two that change theirs in turn must not keep us busy.
const RESTARTS: u32 = 3;

/// What a session tells while it runs.
#[derive(Debug)]
pub enum Message {
    /// The session was started; samples follow after an interval.
    Started,
    /// Changes, in the order in which they were read.
    Updates(Vec<Update>),
}

/// How a session came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// We stopped it, and the target confirmed.
    Stopped,
    /// We stopped it, but the target did not confirm in time; the connection was closed instead.
    Abandoned,
    /// The target ended, after telling all it had to tell.
    TargetEnded,
    /// The target ended abruptly: it was killed, or it crashed.
    TargetDied,
}

/// What reading the stream came to.
enum Pause {
    Stop,
    Settings(SharedSettings),
    End(End),
    Failed(Error),
}

/// Runs a session until `stop` becomes true or the target ends. `sink` gets all messages.
///
/// # Errors
///
/// The session can't be started, or its stream can't be read any further; it is ended then, too.
pub async fn run(
    endpoint: &Endpoint,
    mut request: Request,
    mut stop: watch::Receiver<bool>,
    mut sink: impl FnMut(Message),
) -> Result<End, Error> {
    request.check()?;
    let mut restarts = 0;
    loop {
        let mut session = tokio::select! {
            biased;
            () = stopped(&mut stop) => return Ok(End::Stopped),
            session = start_session(endpoint, request.session()) => session?,
        };
        sink(Message::Started);
        let mut stream = Stream::new(&request, restarts < RESTARTS);
        let pause = stream.read(&mut session, &mut stop, &mut sink).await;
        if let Pause::End(end) = pause {
            return Ok(end);
        }
        let ended = session.stop(STOP, |bytes| stream.last(bytes)).await;
        stream.flush(&mut sink);
        match pause {
            Pause::Settings(settings) => {
                restarts += 1;
                request.interval = Duration::try_from_secs_f64(settings.interval).unwrap_or(request.interval);
                request.max_histograms = settings.max_histograms;
                request.max_time_series = settings.max_time_series;
            }
            Pause::Failed(error) => return Err(error),
            Pause::Stop | Pause::End(_) => {
                return match ended {
                    Ok(()) => Ok(End::Stopped),
                    Err(dnd_ipc::Error::NotFinished { .. } | dnd_ipc::Error::NoAnswer { .. }) => {
                        Ok(End::Abandoned)
                    }
                    Err(error) => Err(error.into()),
                };
            }
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without anybody left who could ask us to stop, we go on.
    if stop.wait_for(|&stop| stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One session's stream.
struct Stream {
    parser: Parser,
    model: Model,
    updates: Vec<Update>,
    take_over: bool,
}

impl Stream {
    fn new(request: &Request, take_over: bool) -> Self {
        let (parser, model) = (Parser::new(Order::AsWritten), Model::new(request));
        Self { parser, model, updates: Vec::new(), take_over }
    }

    async fn read(
        &mut self,
        session: &mut Session,
        stop: &mut watch::Receiver<bool>,
        sink: &mut impl FnMut(Message),
    ) -> Pause {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = tokio::select! {
                biased;
                () = stopped(stop) => return Pause::Stop,
                read = session.read(&mut buffer) => read,
            };
            match read {
                Ok(0) => {
                    self.parser.finish();
                    let drained = self.drain();
                    self.flush(sink);
                    return match drained {
                        Ok(()) if self.parser.is_complete() => Pause::End(End::TargetEnded),
                        Ok(()) => Pause::End(End::TargetDied),
                        Err(error) => Pause::Failed(error.into()),
                    };
                }
                Ok(count) => self.parser.push(buffer.get(..count).unwrap_or_default()),
                // A target that dies with unread bytes in its socket looks like this.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Pause::End(End::TargetDied);
                }
                Err(error) => return Pause::Failed(Error::Read(error)),
            }
            let drained = self.drain();
            let settings = self.updates.iter().find_map(|update| match update {
                Update::Notice(Notice::SharedSettings(settings)) => Some(*settings),
                _ => None,
            });
            self.flush(sink);
            if let Err(error) = drained {
                return Pause::Failed(error.into());
            }
            if let Some(settings) = settings.filter(|_| self.take_over) {
                return Pause::Settings(settings);
            }
        }
    }

    fn drain(&mut self) -> Result<(), dnd_nettrace::Error> {
        while let Some(item) = self.parser.read()? {
            self.model.item(&item, &mut self.updates);
        }
        Ok(())
    }

    /// Bytes that came while the session was being stopped. What can't be read of them is of no use to anybody.
    fn last(&mut self, bytes: &[u8]) {
        self.parser.push(bytes);
        let _ = self.drain();
    }

    fn flush(&mut self, sink: &mut impl FnMut(Message)) {
        if !self.updates.is_empty() {
            sink(Message::Updates(std::mem::take(&mut self.updates)));
        }
    }
}
