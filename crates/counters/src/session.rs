//! Running sessions against a process. Whatever happens, they end in the target: they are stopped and their streams are
//! read to the end, or, if the target doesn't play along, the connections are closed, which ends them too.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use dnd_ipc::{Endpoint, HResult, Session, SessionRequest, resume_runtime, start_session};
use dnd_nettrace::{Order, Parser};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::model::Model;
use crate::request::Request;
use crate::sample::{Notice, SharedSettings, Update};

/// How long the target may take to end the session when it was asked to. It needs some 20 ms; one that is stopped
/// (SIGSTOP) never does.
const STOP: Duration = Duration::from_secs(3);

/// How often a runtime that refuses to start a session is asked again, and after what time.
const ATTEMPTS: u32 = 10;
const AGAIN: Duration = Duration::from_millis(100);

/// How long the sessions of a process may go on that starts no more of them because it is ending.
const ENDING: Duration = Duration::from_secs(2);

/// How long a runtime that was just let run may take to switch its Metrics provider on. .NET 8 and earlier do so when
/// the program makes its first Meter, if ever.
const START: Duration = Duration::from_secs(1);

/// A session for Meters is not ended this shortly before its first collection is due: a target that gets little CPU
/// would get to it in the midst of the collection.
const BEFORE_COLLECTION: Duration = Duration::from_secs(3);

/// How long a first collection may be overdue: a target that is stopped does not come to it.
const COLLECTION: Duration = Duration::from_secs(3);

/// How often it is looked whether a process without sessions is still there.
const LOOK: Duration = Duration::from_millis(500);

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

/// What reading came to.
enum Pause {
    Stop,
    Settings(SharedSettings),
    End(End),
    Failed(Error),
}

/// Watches process `pid` until `stop` becomes true or the process ends. `sink` gets all messages. With `resume` the
/// process waits at its start and is let run once the sessions are started, so that nothing is missed.
///
/// # Errors
///
/// A session can't be started, or its stream can't be read any further; all are ended then, too.
pub async fn run(
    endpoint: &Endpoint,
    pid: u32,
    request: Request,
    mut resume: bool,
    stop: watch::Receiver<bool>,
    sink: impl FnMut(Message),
) -> Result<End, Error> {
    request.check()?;
    let end = watch_process(endpoint, pid, request, &mut resume, stop, sink).await;
    if resume {
        // Whatever went wrong, the process must not wait for ever.
        let _ = resume_runtime(endpoint).await;
    }
    end
}

async fn watch_process(
    endpoint: &Endpoint,
    pid: u32,
    mut request: Request,
    resume: &mut bool,
    mut stop: watch::Receiver<bool>,
    mut sink: impl FnMut(Message),
) -> Result<End, Error> {
    let client = request.client.clone();
    let mut watching = Watching::new(&request);
    let mut restarts = 0;
    loop {
        // A new name for each session: the runtime counts a name once when it joins a shared session, but once for
        // each session when it leaves, and ends everybody's session at zero.
        request.client = format!("{client}-{restarts}");
        watching.model.joins_as(&request.client);
        let missing: Vec<_> =
            if restarts == 0 { request.sessions() } else { request.meters_session().into_iter().collect() };
        for session in missing {
            let meters = request.meters_session().as_ref() == Some(&session);
            if !watching.live.is_empty() && std::mem::take(resume) {
                resume_runtime(endpoint).await?;
                watching.let_start(&mut stop, &mut sink).await;
                if let Some(end) = watching.over() {
                    return Ok(end);
                }
            }
            let session = tokio::select! {
                biased;
                () = stopped(&mut stop) => return watching.stop(&mut sink).await,
                session = start(endpoint, session) => session,
            };
            match session {
                Ok(session) => watching.add(session, meters),
                Err(error) => {
                    // A process that is ending starts no more sessions, but those it has come to their end.
                    if let Some(end) = watching.let_end(&mut sink).await {
                        return Ok(end);
                    }
                    // What started already is ended properly; why it did not go on is what counts.
                    let _ = watching.stop(&mut sink).await;
                    return Err(error.into());
                }
            }
        }
        if std::mem::take(resume) {
            resume_runtime(endpoint).await?;
        }
        sink(Message::Started);
        if watching.live.is_empty() {
            return Ok(without_sessions(pid, &mut stop).await);
        }
        match watching.read(restarts < RESTARTS, &mut stop, &mut sink).await {
            Pause::End(end) => return Ok(end),
            Pause::Stop => return watching.stop(&mut sink).await,
            Pause::Failed(error) => {
                let _ = watching.stop(&mut sink).await;
                return Err(error);
            }
            Pause::Settings(settings) => {
                restarts += 1;
                watching.stop_meters().await;
                request.interval = Duration::try_from_secs_f64(settings.interval).unwrap_or(request.interval);
                request.max_histograms = settings.max_histograms;
                request.max_time_series = settings.max_time_series;
            }
        }
    }
}

/// Starts a session. A runtime that is starting refuses for a moment.
async fn start(endpoint: &Endpoint, session: SessionRequest) -> Result<Session, dnd_ipc::Error> {
    let mut attempts = 0;
    loop {
        match start_session(endpoint, session.clone()).await {
            Err(dnd_ipc::Error::Refused { code: HResult::FAIL, .. }) if attempts < ATTEMPTS => attempts += 1,
            done => return done,
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Only the operating system is asked: nothing but `/proc` tells that the process has ended.
async fn without_sessions(pid: u32, stop: &mut watch::Receiver<bool>) -> End {
    let path = format!("/proc/{pid}");
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            biased;
            () = stopped(stop) => return End::Stopped,
            _ = ticks.tick() => {}
        }
        if !std::path::Path::new(&path).exists() {
            return End::TargetEnded;
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without anybody left who could ask us to stop, we go on.
    if stop.wait_for(|&stop| stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A session and the reader of its stream.
struct Live {
    session: Session,
    parser: Parser,
    buffer: Vec<u8>,
    meters: bool,
    /// When the target confirmed its start.
    started: Instant,
}

impl Live {
    /// Ends the session and gives what still came.
    async fn stop(self) -> (Result<(), dnd_ipc::Error>, Parser) {
        let Self { session, mut parser, .. } = self;
        let ended = session.stop(STOP, |bytes| parser.push(bytes)).await;
        parser.finish();
        (ended, parser)
    }
}

/// The sessions with one process.
struct Watching {
    live: Vec<Live>,
    model: Model,
    updates: Vec<Update>,
    /// Whether all streams that ended by themselves did so with their end mark; `None` while none has.
    complete: Option<bool>,
    /// Time between two collections.
    interval: Duration,
}

impl Watching {
    fn new(request: &Request) -> Self {
        Self {
            live: Vec::new(),
            model: Model::new(request),
            updates: Vec::new(),
            complete: None,
            interval: request.interval,
        }
    }

    fn add(&mut self, session: Session, meters: bool) {
        let (parser, buffer) = (Parser::new(Order::AsWritten), vec![0; 64 * 1024]);
        self.live.push(Live { session, parser, buffer, meters, started: Instant::now() });
    }

    async fn read(
        &mut self,
        take_over: bool,
        stop: &mut watch::Receiver<bool>,
        sink: &mut impl FnMut(Message),
    ) -> Pause {
        while !self.live.is_empty() {
            let (index, read) = tokio::select! {
                biased;
                () = stopped(stop) => return Pause::Stop,
                read = any(&mut self.live) => read,
            };
            let took = self.took(index, read);
            let settings = self.updates.iter().find_map(|update| match update {
                Update::Notice(Notice::SharedSettings(settings)) => Some(*settings),
                _ => None,
            });
            self.flush(sink);
            if let Err(error) = took {
                return Pause::Failed(error);
            }
            if let Some(settings) = settings.filter(|_| take_over) {
                return Pause::Settings(settings);
            }
        }
        Pause::End(self.over().unwrap_or(End::TargetDied))
    }

    /// Takes in what was read from a stream; one that has ended is left out from here on.
    fn took(&mut self, index: usize, read: io::Result<usize>) -> Result<(), Error> {
        let Some(live) = self.live.get_mut(index) else { return Ok(()) };
        let over = match read {
            Ok(count) => {
                live.parser.push(live.buffer.get(..count).unwrap_or_default());
                count == 0
            }
            // A target that dies with unread bytes in its socket resets the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => true,
            Err(error) => return Err(Error::Read(error)),
        };
        if over {
            live.parser.finish();
        }
        let drained = drain(&mut live.parser, &mut self.model, &mut self.updates);
        if over {
            self.complete = Some(self.complete.unwrap_or(true) && live.parser.is_complete());
            self.live.remove(index);
        }
        Ok(drained?)
    }

    /// Reads what the sessions still tell, if they come to their end now because the process does.
    async fn let_end(&mut self, sink: &mut impl FnMut(Message)) -> Option<End> {
        let until = Instant::now() + ENDING;
        while !self.live.is_empty() {
            let (index, read) = timeout_at(until, any(&mut self.live)).await.ok()?;
            self.took(index, read).ok()?;
            self.flush(sink);
        }
        self.over()
    }

    /// How the process ended, if all sessions that were started have ended by themselves.
    fn over(&self) -> Option<End> {
        match self.complete {
            Some(complete) if self.live.is_empty() => {
                Some(if complete { End::TargetEnded } else { End::TargetDied })
            }
            _ => None,
        }
    }

    /// Gives a runtime that was just let run the time to switch its Metrics provider on, before EventCounters may fall
    /// due: see [`Request::sessions`]. Here it is the start of the program itself that would hang.
    async fn let_start(&mut self, stop: &mut watch::Receiver<bool>, sink: &mut impl FnMut(Message)) {
        let until = Instant::now() + START;
        while !self.model.has_meters() && !self.live.is_empty() {
            let read = tokio::select! {
                biased;
                () = stopped(stop) => return,
                read = timeout_at(until, any(&mut self.live)) => read,
            };
            let Ok((index, read)) = read else { return };
            if self.took(index, read).is_err() {
                return;
            }
            self.flush(sink);
        }
    }

    /// Waits until it is safe to end the session for Meters.
    ///
    /// A runtime that ends it waits for the thread that collects values, and holds the lock of all EventSources
    /// meanwhile. In the first collection of a process that thread may need that lock: it uses an EventSource for the
    /// first time (`TplEventSource`). Then both wait for ever, and with them all diagnostics of the process. So the
    /// first collection is never disturbed, nor is it raced against.
    async fn let_collect(&mut self, sink: &mut impl FnMut(Message)) {
        let Some(started) = self.live.iter().find(|live| live.meters).map(|live| live.started) else {
            return;
        };
        let due = started + self.interval;
        if Instant::now() + BEFORE_COLLECTION < due {
            return;
        }
        let until = due + COLLECTION;
        while self.model.first_collection_pending() && !self.live.is_empty() {
            let Ok((index, read)) = timeout_at(until, any(&mut self.live)).await else { return };
            if self.took(index, read).is_err() {
                return;
            }
            self.flush(sink);
        }
    }

    /// Ends all sessions, all at once: what a target that doesn't answer costs is waited for once.
    async fn stop(&mut self, sink: &mut impl FnMut(Message)) -> Result<End, Error> {
        self.let_collect(sink).await;
        let mut live = std::mem::take(&mut self.live).into_iter();
        let (first, second) = tokio::join!(stop_one(live.next()), stop_one(live.next()));
        let mut end = Ok(End::Stopped);
        for (ended, mut parser) in [first, second].into_iter().flatten() {
            // What can't be read of the last bytes is of no use to anybody.
            let _ = drain(&mut parser, &mut self.model, &mut self.updates);
            match ended {
                Ok(()) => {}
                Err(dnd_ipc::Error::NotFinished { .. } | dnd_ipc::Error::NoAnswer { .. }) => {
                    end = end.map(|_| End::Abandoned);
                }
                Err(error) => end = Err(error.into()),
            }
        }
        self.flush(sink);
        end
    }

    /// Ends the session for Meters, to start another one. Its last values are lost with it: the new one repeats them.
    async fn stop_meters(&mut self) {
        if let Some(index) = self.live.iter().position(|live| live.meters) {
            let _ = self.live.remove(index).stop().await;
        }
    }

    fn flush(&mut self, sink: &mut impl FnMut(Message)) {
        if !self.updates.is_empty() {
            sink(Message::Updates(std::mem::take(&mut self.updates)));
        }
    }
}

async fn stop_one(live: Option<Live>) -> Option<(Result<(), dnd_ipc::Error>, Parser)> {
    match live {
        Some(live) => Some(live.stop().await),
        None => None,
    }
}

/// Reads from whichever stream has something.
async fn any(live: &mut [Live]) -> (usize, io::Result<usize>) {
    poll_fn(|context| {
        for (index, live) in live.iter_mut().enumerate() {
            let mut buffer = ReadBuf::new(&mut live.buffer);
            if let Poll::Ready(read) = Pin::new(&mut live.session).poll_read(context, &mut buffer) {
                let count = buffer.filled().len();
                return Poll::Ready((index, read.map(|()| count)));
            }
        }
        Poll::Pending
    })
    .await
}

fn drain(
    parser: &mut Parser,
    model: &mut Model,
    updates: &mut Vec<Update>,
) -> Result<(), dnd_nettrace::Error> {
    while let Some(item) = parser.read()? {
        model.item(&item, updates);
    }
    Ok(())
}
