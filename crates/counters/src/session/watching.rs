//! The sessions with one process: started, read, and ended.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use dnd_ipc::{Endpoint, HResult, Session, SessionRequest, start_session};
use dnd_nettrace::{Order, Parser};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{End, Message, Pause, stopped};
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

/// How long the sessions of a process may go on that starts no more of them because it is ending: with little CPU it
/// takes seconds from the end of its diagnostics to the end of its sessions.
const ENDING: Duration = Duration::from_secs(10);

/// How long a runtime that was just let run may take to switch its Metrics provider on. .NET 8 and earlier do so when
/// the program makes its first Meter, if ever.
const START: Duration = Duration::from_secs(1);

/// A session for Meters is not ended this shortly before its first collection is due: a target that gets little CPU
/// would get to it in the midst of the collection.
const BEFORE_COLLECTION: Duration = Duration::from_secs(3);

/// How long a first collection may be overdue: a target that is stopped does not come to it.
const COLLECTION: Duration = Duration::from_secs(3);

/// How much of what a session tells at its end is understood: a runtime keeps 16 MB for a reader, see [`Request`].
pub(super) const REST: usize = 32 << 20;

/// How much is read at a time. An interval's values of usual programs are less.
const READ: usize = 32 * 1024;

/// How many events are understood at a time. An interval's values of usual programs are less.
const TURN: usize = 4096;

/// A session and the reader of its stream.
pub(super) struct Live {
    session: Session,
    parser: Parser,
    /// Whether anything was read: a runtime begins to tell at once, unless it waits at its start to be let run.
    begun: bool,
    meters: bool,
    /// When the target confirmed its start.
    started: Instant,
}

impl Live {
    /// Ends the session and gives what still came.
    async fn stop(self) -> (Result<(), dnd_ipc::Error>, Parser) {
        let Self { session, mut parser, .. } = self;
        let mut room = REST;
        let mut push = |bytes: &[u8]| {
            parser.push(bytes.get(..room).unwrap_or(bytes));
            room = room.saturating_sub(bytes.len());
        };
        let ended = session.stop(STOP, &mut push).await;
        parser.finish();
        (ended, parser)
    }
}

/// The sessions with one process.
pub(super) struct Watching {
    pub(super) live: Vec<Live>,
    pub(super) model: Model,
    updates: Vec<Update>,
    /// Whether all streams that ended by themselves did so with their end mark; `None` while none has.
    complete: Option<bool>,
    /// Time between two collections.
    interval: Duration,
    /// What other sharers of the session have agreed about, if it isn't what we asked for.
    settings: Option<SharedSettings>,
}

impl Watching {
    pub(super) fn new(request: &Request) -> Self {
        Self {
            live: Vec::new(),
            model: Model::new(request),
            updates: Vec::new(),
            complete: None,
            interval: request.interval,
            settings: None,
        }
    }

    pub(super) fn add(&mut self, session: Session, meters: bool) {
        let parser = Parser::new(Order::AsWritten);
        self.live.push(Live { session, parser, begun: false, meters, started: Instant::now() });
    }

    /// Starts a session, and reads those that are there meanwhile: a runtime may take its time.
    ///
    /// Who is asked to stop meanwhile waits for the start, too, to end the session in order: closing its connection would
    /// end it at any moment, also in the midst of the first collection (see [`Self::let_collect`]).
    pub(super) async fn start(
        &mut self,
        endpoint: &Endpoint,
        session: SessionRequest,
        stop: &mut watch::Receiver<bool>,
        sink: &mut impl FnMut(Message),
    ) -> Result<Session, Pause> {
        if *stop.borrow() {
            return Err(Pause::Stop);
        }
        let mut starting = pin!(start(endpoint, session));
        let mut until = None;
        loop {
            let (index, read) = tokio::select! {
                biased;
                () = stopped(stop), if until.is_none() => {
                    until = Some(Instant::now() + STOP);
                    continue;
                }
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    return Err(Pause::Stop);
                }
                started = &mut starting => return match started {
                    Ok(session) => Ok(session),
                    // A process that is ending starts no more sessions, but those it has come to their end.
                    Err(error) => Err(match self.let_end(sink).await {
                        Some(end) => Pause::End(end),
                        None => Pause::Failed(error.into()),
                    }),
                },
                read = any(&mut self.live) => read,
            };
            self.took(index, read, sink).await.map_err(Pause::Failed)?;
            if let Some(end) = self.over() {
                return Err(Pause::End(end));
            }
        }
    }

    pub(super) async fn read(
        &mut self,
        take_over: bool,
        stop: &mut watch::Receiver<bool>,
        sink: &mut impl FnMut(Message),
    ) -> Pause {
        while !self.live.is_empty() {
            if let Some(settings) = self.settings.take().filter(|_| take_over) {
                return Pause::Settings(settings);
            }
            // What is left when it is to stop is read at the end.
            let read = tokio::select! {
                biased;
                () = stopped(stop) => return Pause::Stop,
                read = self.read_some(sink) => read,
            };
            if let Err(error) = read {
                return Pause::Failed(error);
            }
        }
        Pause::End(self.over().unwrap_or(End::TargetDied))
    }

    /// Reads from the first stream that has something. Can be given up at any time: nothing is lost then.
    async fn read_some(&mut self, sink: &mut impl FnMut(Message)) -> Result<(), Error> {
        let (index, read) = any(&mut self.live).await;
        self.took(index, read, sink).await
    }

    /// Takes in what was read from a stream (the parser has it); one that has ended is left out from here on.
    async fn took(
        &mut self,
        index: usize,
        read: io::Result<usize>,
        sink: &mut impl FnMut(Message),
    ) -> Result<(), Error> {
        if index >= self.live.len() {
            return Ok(());
        }
        // To the end of the queue: one that never stops telling must not keep the other from being read.
        let live = self.live.remove(index);
        self.live.push(live);
        let Some(live) = self.live.last_mut() else { return Ok(()) };
        let over = match read {
            Ok(count) => count == 0,
            // A target that dies with unread bytes in its socket resets the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => true,
            Err(error) => return Err(Error::Read(error)),
        };
        if over {
            live.parser.finish();
        }
        let drained = loop {
            let Some(live) = self.live.last_mut() else { return Ok(()) };
            let drained = drain(&mut live.parser, &mut self.model, &mut self.updates);
            let settings = self.updates.iter().find_map(|update| match update {
                Update::Notice(Notice::SharedSettings(settings)) => Some(*settings),
                _ => None,
            });
            self.settings = self.settings.or(settings);
            self.flush(sink);
            match drained {
                Ok(Drained::Part) => yield_now().await,
                Ok(Drained::All) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if over && let Some(live) = self.live.pop() {
            self.complete = Some(self.complete.unwrap_or(true) && live.parser.is_complete());
        }
        Ok(drained?)
    }

    /// Reads what the sessions still tell, if they come to their end now because the process does.
    async fn let_end(&mut self, sink: &mut impl FnMut(Message)) -> Option<End> {
        let until = Instant::now() + ENDING;
        while !self.live.is_empty() {
            timeout_at(until, self.read_some(sink)).await.ok()?.ok()?;
        }
        self.over()
    }

    /// How the process ended, if all sessions that were started have ended by themselves.
    pub(super) fn over(&self) -> Option<End> {
        match self.complete {
            Some(complete) if self.live.is_empty() => {
                Some(if complete { End::TargetEnded } else { End::TargetDied })
            }
            _ => None,
        }
    }

    /// Gives a runtime that was just let run the time to switch its Metrics provider on, before EventCounters may fall
    /// due: see [`Request::sessions`]. Here it is the start of the program itself that would hang.
    pub(super) async fn let_start(
        &mut self,
        stop: &mut watch::Receiver<bool>,
        sink: &mut impl FnMut(Message),
    ) {
        let until = Instant::now() + START;
        while !self.model.has_meters() && !self.live.is_empty() {
            let read = tokio::select! {
                biased;
                () = stopped(stop) => return,
                read = timeout_at(until, self.read_some(sink)) => read,
            };
            if !matches!(read, Ok(Ok(()))) {
                return;
            }
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
        while !self.live.is_empty() {
            let until = if self.model.first_collection_pending() {
                due + COLLECTION
            } else if self.model.has_meters() {
                return;
            } else {
                // Nothing was heard of Meters yet; that does not mean that there are none.
                due + START
            };
            if !matches!(timeout_at(until, self.read_some(sink)).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Lets go of the sessions that have not begun, and says whether there are any.
    ///
    /// A runtime that waits at its start to be let run keeps a list of sessions to begin then. One that it is asked to
    /// stop meanwhile stays in that list, by its address, and the next session gets the same one: it is begun twice, and
    /// the process crashes. Seen on .NET 8, 9 and 10. A session whose connection was closed does no harm there.
    async fn let_go(&mut self, sink: &mut impl FnMut(Message)) -> bool {
        let until = Instant::now() + START;
        while self.live.iter().any(|live| !live.begun) {
            if !matches!(timeout_at(until, self.read_some(sink)).await, Ok(Ok(()))) {
                break;
            }
        }
        let all = self.live.len();
        self.live.retain(|live| live.begun);
        self.live.len() < all
    }

    /// Ends all sessions, all at once: what a target that doesn't answer costs is waited for once.
    pub(super) async fn stop(&mut self, sink: &mut impl FnMut(Message)) -> Result<End, Error> {
        let waits = self.let_go(sink).await;
        self.let_collect(sink).await;
        let mut live = std::mem::take(&mut self.live).into_iter();
        let (first, second) = tokio::join!(stop_one(live.next()), stop_one(live.next()));
        let mut end = Ok(if waits { End::Abandoned } else { End::Stopped });
        for (ended, mut parser) in [first, second].into_iter().flatten() {
            // What can't be read of the last bytes is of no use to anybody.
            let until = Instant::now() + STOP;
            while let Ok(Drained::Part) = drain(&mut parser, &mut self.model, &mut self.updates) {
                self.flush(sink);
                yield_now().await;
                if Instant::now() > until {
                    break;
                }
            }
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
    pub(super) async fn stop_meters(&mut self) {
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

/// Reads from the first stream that has something, and gives it to the stream's parser.
async fn any(live: &mut [Live]) -> (usize, io::Result<usize>) {
    // A turn for each read: what was read is taken care of before more of it comes, however much a target has to tell.
    yield_now().await;
    poll_fn(|context| {
        // On the stack: many processes are watched, and none of them has anything to tell most of the time.
        let mut bytes = [const { MaybeUninit::uninit() }; READ];
        for (index, live) in live.iter_mut().enumerate() {
            let mut buffer = ReadBuf::uninit(&mut bytes);
            if let Poll::Ready(read) = Pin::new(&mut live.session).poll_read(context, &mut buffer) {
                live.parser.push(buffer.filled());
                let count = buffer.filled().len();
                live.begun |= count > 0;
                return Poll::Ready((index, read.map(|()| count)));
            }
        }
        Poll::Pending
    })
    .await
}

/// How much of what a parser holds was taken out.
enum Drained {
    All,
    /// So much that others should have a turn: a block that is no runtime's can hold millions of events.
    Part,
}

fn drain(
    parser: &mut Parser,
    model: &mut Model,
    updates: &mut Vec<Update>,
) -> Result<Drained, dnd_nettrace::Error> {
    for _ in 0..TURN {
        let Some(item) = parser.read()? else { return Ok(Drained::All) };
        model.item(&item, updates);
    }
    Ok(Drained::Part)
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
