//! Running sessions against a process. Whatever happens, they end in the target: they are stopped and their streams are
//! read to the end, or, if the target doesn't play along, the connections are closed, which ends them too.

mod watching;

use std::time::Duration;

use dnd_ipc::procfs::ProcFs;
use dnd_ipc::{Endpoint, resume_runtime};
use tokio::sync::watch;

use self::watching::Watching;
use crate::error::Error;
use crate::request::Request;
use crate::sample::{SharedSettings, Update};

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
            match watching.start(endpoint, session, &mut stop, &mut sink).await {
                Ok(session) => watching.add(session, meters),
                Err(Pause::End(end)) => return Ok(end),
                Err(Pause::Failed(error)) => {
                    // What started already is ended properly; why it did not go on is what counts.
                    let _ = watching.stop(&mut sink).await;
                    return Err(error);
                }
                Err(_) => return watching.stop(&mut sink).await,
            }
        }
        if std::mem::take(resume) {
            resume_runtime(endpoint).await?;
        }
        sink(Message::Started);
        if watching.live.is_empty() {
            return Ok(without_sessions(&ProcFs::default(), pid, &mut stop).await);
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

/// Only the operating system is asked: nothing but `/proc` tells that the process has ended.
async fn without_sessions(proc: &ProcFs, pid: u32, stop: &mut watch::Receiver<bool>) -> End {
    let started = proc.stat(pid).map(|stat| stat.start_time);
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            biased;
            () = stopped(stop) => return End::Stopped,
            _ = ticks.tick() => {}
        }
        // Another process may have got its id; and one that nobody waits for is there when it has ended, too.
        let there = proc.stat(pid).filter(|stat| !matches!(stat.state, 'Z' | 'X'));
        if there.is_none_or(|stat| Some(stat.start_time) != started) {
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

#[cfg(test)]
mod tests;
