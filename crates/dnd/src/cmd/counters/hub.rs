//! The loop behind every way to watch counters: sessions with any number of processes on one side, a sink on the other,
//! and between them everything that can end it, so that no session is ever left running.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use dnd_contract::{Explain, Kind};
use dnd_counters::os::Probe;
use dnd_counters::session::{self, End, Message};
use dnd_counters::{Board, Request, Update};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::alerts::{Alerts, Told, lines};
use super::schedule;
use super::signals::Signals;
use super::sink::{Input, Inputs, Sink, State, Target};
use super::targets::{Arrival, Arrivals, Subject};
use super::writer::{self, say};
use crate::error::CliError;

/// How long an orderly end may take before a second Ctrl-C cuts it short: doing so can hang a process that is in its
/// first collection of values.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many processes that have ended are kept, with their last values: where new ones start all the time, there is no
/// end to them.
const ENDED: usize = 20;

/// Watches all that arrives, until something ends it. Gives the targets as they were at the end.
///
/// With a single target, what goes wrong with it is the error; with several, it is its state.
pub(super) async fn watch(
    arrivals: Arrivals,
    request: Request,
    duration: Option<Duration>,
    mut inputs: Option<Inputs>,
    alerts: Option<Alerts>,
    sink: &mut dyn Sink,
) -> Result<Vec<Target>, CliError> {
    let mut signals = Signals::new()?;
    let (sender, mut messages) = mpsc::unbounded_channel();
    let Arrivals { first, mut more, single } = arrivals;
    let mut hub = Hub {
        request,
        targets: Vec::new(),
        sessions: JoinSet::new(),
        stop: watch::channel(false).0,
        sender,
        ended: VecDeque::new(),
        error: None,
        alerts,
        charts: sink.charts(),
    };
    for subject in first {
        hub.add(subject);
    }
    let mut ticks = tokio::time::interval(schedule::tick(hub.request.interval));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut probes = tokio::time::interval(hub.request.interval);
    probes.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let deadline = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(deadline);
    let mut stopping = false;
    let mut asked = None;
    let mut written = Ok(());
    while !hub.sessions.is_empty() || (more.is_some() && !stopping) {
        let go_on = tokio::select! {
            biased;
            again = signals.recv() => {
                if again && asked.is_some_and(|asked: Instant| asked.elapsed() > PATIENCE) {
                    // Asked again: leave at once. Closing the connections ends the sessions, too.
                    sink.close();
                    if let Some(alerts) = &hub.alerts {
                        alerts.leave();
                    }
                    return Err(CliError::Quiet(Kind::Failed));
                }
                asked = asked.or(Some(Instant::now()));
                Ok(false)
            }
            Some((index, message)) = messages.recv() => hub.message(index, message, sink),
            told = ended(&mut hub.alerts, &hub.targets) => sink.alert(&hub.targets, &told).map(|()| true),
            input = next(&mut inputs), if !stopping => match input {
                // The terminal is gone: nobody is watching.
                Some(Input::Terminal(Err(_))) | None => Ok(false),
                Some(input) => sink.input(&hub.targets, input),
            },
            () = &mut deadline, if !stopping => Ok(false),
            arrival = next(&mut more), if !stopping => {
                match arrival {
                    Some(Arrival::Found(subject)) => {
                        if let Some(index) = hub.add(*subject) {
                            sink.replaced(index);
                        }
                    }
                    // The sessions of what has ended come to their own end.
                    Some(Arrival::Over) => more = None,
                    Some(Arrival::Failed(error)) => {
                        hub.error.get_or_insert(error);
                        // Of several, others may still come.
                        stopping = single && hub.stop();
                    }
                    None => more = None,
                }
                sink.tick(&hub.targets).map(|()| true)
            }
            _ = probes.tick(), if !stopping => hub.probe(sink),
            _ = ticks.tick(), if !stopping => {
                for target in &mut hub.targets {
                    target.board.prune(Instant::now());
                }
                writer::check()
                    .and_then(|()| hub.look(sink))
                    .and_then(|()| sink.tick(&hub.targets))
                    .map(|()| true)
            }
            Some(ended) = hub.sessions.join_next() => {
                while let Ok((index, message)) = messages.try_recv() {
                    if written.is_ok() {
                        written = hub.message(index, message, sink).map(drop);
                    }
                }
                hub.ended(ended);
                if written.is_ok() { sink.tick(&hub.targets).map(|()| true) } else { Ok(true) }
            }
        };
        if !matches!(go_on, Ok(true)) && !stopping {
            stopping = hub.stop();
        }
        if let Err(error) = go_on
            && written.is_ok()
        {
            written = Err(error);
        }
    }
    sink.close();
    if let Some(alerts) = &mut hub.alerts {
        let targets = &hub.targets;
        let tell = |told: &Told| {
            if written.is_ok() {
                written = sink.alert(targets, told);
            } else {
                say(&lines(told));
            }
        };
        alerts.settle(&mut signals, |index| name(targets, index), tell).await?;
    }
    let ended = written.and_then(|()| sink.end(&hub.targets));
    ended.and_then(|()| writer::finish()).map_err(|error| sink.failed(error))?;
    // Of several, those that could be watched are what was asked for.
    if (single || hub.targets.iter().all(|target| matches!(target.state, State::Failed(_))))
        && let Some(error) = hub.error
    {
        return Err(error);
    }
    Ok(hub.targets)
}

/// Waits for the end of something that an alert ran.
async fn ended(alerts: &mut Option<Alerts>, targets: &[Target]) -> Told {
    match alerts {
        Some(alerts) => alerts.ended(|index| name(targets, index)).await,
        None => std::future::pending().await,
    }
}

fn name(targets: &[Target], index: usize) -> String {
    targets.get(index).map(|target| target.subject.name.clone()).unwrap_or_default()
}

async fn next<T>(receiver: &mut Option<mpsc::UnboundedReceiver<T>>) -> Option<T> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// The targets and their sessions.
struct Hub {
    request: Request,
    targets: Vec<Target>,
    sessions: JoinSet<(usize, Result<End, dnd_counters::Error>)>,
    stop: watch::Sender<bool>,
    sender: mpsc::UnboundedSender<(usize, Message)>,
    /// The places of targets that have ended, the first to end first.
    ended: VecDeque<usize>,
    /// What went wrong first.
    error: Option<CliError>,
    alerts: Option<Alerts>,
    /// Whether boards keep the recent past.
    charts: bool,
}

impl Hub {
    /// Asks all sessions to end.
    fn stop(&mut self) -> bool {
        self.stop.send_replace(true);
        if let Some(alerts) = &mut self.alerts {
            alerts.close();
        }
        true
    }

    /// Tells what conditions can't come true.
    fn look(&mut self, sink: &mut dyn Sink) -> io::Result<()> {
        let Some(alerts) = &mut self.alerts else { return Ok(()) };
        let told = alerts.tick(|index| self.targets.get(index).map(|target| &target.subject));
        told.iter().try_for_each(|told| sink.alert(&self.targets, told))
    }

    /// Watches another process. If it takes the place of one that has ended, gives that.
    fn add(&mut self, subject: Subject) -> Option<usize> {
        let replaced = self.room();
        let index = replaced.unwrap_or(self.targets.len());
        let now = Instant::now();
        let (mut request, stopped, sender) =
            (self.request.clone(), self.stop.subscribe(), self.sender.clone());
        request.client = format!("{}-{index}", request.client);
        let (endpoint, resume, pid) = (subject.endpoint.clone(), subject.resume, subject.pid);
        let probe =
            if subject.local { Probe::new(pid, &request.selection, request.interval, now) } else { None };
        let mut board = Board::new(request.interval, now);
        if self.charts {
            board = board.with_history();
        }
        if request.sessions().is_empty() {
            board = board.without_runtime();
        }
        let target = Target { probe, board, state: State::Starting, since: super::unix_nanos_now(), subject };
        match replaced.and_then(|index| self.targets.get_mut(index)) {
            Some(place) => *place = target,
            None => self.targets.push(target),
        }
        if let Some(alerts) = &mut self.alerts {
            alerts.watch(index);
        }
        self.sessions.spawn(async move {
            let send = |message| {
                // A receiver that is gone means that the program is ending.
                let _ = sender.send((index, message));
            };
            (index, session::run(&endpoint, pid, request, resume, stopped, send).await)
        });
        replaced
    }

    /// The place of a target that nobody needs any more, if many have ended.
    fn room(&mut self) -> Option<usize> {
        if self.ended.len() < ENDED {
            return None;
        }
        let acting = |index: usize| self.alerts.as_ref().is_some_and(|alerts| alerts.acts_for(index));
        let oldest = self.ended.iter().position(|&index| !acting(index))?;
        self.ended.remove(oldest)
    }

    fn message(&mut self, index: usize, message: Message, sink: &mut dyn Sink) -> io::Result<bool> {
        let Some(target) = self.targets.get_mut(index) else { return Ok(true) };
        match message {
            Message::Started => {
                if !target.state.over() {
                    target.state = State::Watched;
                }
                sink.tick(&self.targets)?;
            }
            Message::Updates(updates) => self.apply(index, &updates, sink)?,
        }
        Ok(true)
    }

    fn apply(&mut self, index: usize, updates: &[Update], sink: &mut dyn Sink) -> io::Result<()> {
        let Some(target) = self.targets.get_mut(index) else { return Ok(()) };
        let now = Instant::now();
        for update in updates {
            target.board.apply(update, now);
        }
        sink.updates(&self.targets, index, updates)?;
        let (Some(alerts), Some(target)) = (&mut self.alerts, self.targets.get(index)) else { return Ok(()) };
        let told = alerts.updates(index, &target.subject, updates);
        told.iter().try_for_each(|told| sink.alert(&self.targets, told))
    }

    /// Asks the operating system about all targets.
    fn probe(&mut self, sink: &mut dyn Sink) -> io::Result<bool> {
        let mut updates = Vec::new();
        for index in 0..self.targets.len() {
            let Some(target) = self.targets.get_mut(index).filter(|target| !target.state.over()) else {
                continue;
            };
            let Some(probe) = &mut target.probe else { continue };
            probe.read(Instant::now(), super::unix_nanos_now(), &mut updates);
            self.apply(index, &updates, sink)?;
            updates.clear();
        }
        Ok(true)
    }

    fn ended(&mut self, ended: Result<(usize, Result<End, dnd_counters::Error>), tokio::task::JoinError>) {
        match ended {
            Ok((index, end)) => {
                let Some(target) = self.targets.get_mut(index) else { return };
                if let Some(alerts) = &mut self.alerts {
                    alerts.forget(index);
                }
                self.ended.push_back(index);
                target.probe = None;
                target.state = match end {
                    Ok(end) => State::Ended(end),
                    Err(error) => {
                        let text = error.to_string();
                        let (kind, hints) = (error.kind(), error.hints());
                        self.error.get_or_insert(CliError::Explained { kind, error: Box::new(error), hints });
                        State::Failed(text)
                    }
                };
            }
            Err(error) => {
                self.error.get_or_insert(CliError::new(Kind::Internal, error.to_string()));
            }
        }
    }
}
