//! An event session: started, read, and always ended.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use crate::codec::{Request, SessionId, SessionRequest};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::transport::{call, decoded};

/// How long the stream is still read when the stop could not be delivered (the target is ending, as a rule).
const AFTER_FAILED_STOP: Duration = Duration::from_secs(1);

/// A running session. Read it without long breaks: a runtime drops events, and at its end blocks, while nobody reads.
///
/// Every way out ends the session in the target: [`Session::stop`] with the runtime's full ending (rundown, end of
/// stream); dropping it (an error, Ctrl-C, a panic, even the death of this process) by closing the connection, which
/// the runtime takes as an end without rundown.
#[derive(Debug)]
pub struct Session {
    endpoint: Endpoint,
    id: SessionId,
    version: u8,
    stream: UnixStream,
}

/// Starts a session.
///
/// Newer forms of the command are used when the request needs them; where the runtime lacks them, older ones, which
/// cannot express all of it ([`Session::version`] tells).
///
/// There is no limit to how long a runtime may take: it answers once the providers are switched on, which can mean a whole
/// garbage collection, and not before it goes on if it is stopped. Who has waited enough drops the future, which closes
/// the connection.
///
/// # Errors
/// When the target can't be reached, or refuses.
pub async fn start_session(endpoint: &Endpoint, session: SessionRequest) -> Result<Session, Error> {
    let mut refused = None;
    for version in (2..=session.version()).rev() {
        let request = match version {
            5.. => Request::CollectTracing5(session.clone()),
            4 => Request::CollectTracing4(session.clone()),
            3 => Request::CollectTracing3(session.clone()),
            _ => Request::CollectTracing2(session.clone()),
        };
        match call(endpoint, &request, None).await {
            Ok(reply) => {
                let id = decoded(&request, SessionId::decode(&reply.payload))?;
                return Ok(Session { endpoint: endpoint.clone(), id, version, stream: reply.stream });
            }
            Err(e) if e.is_unknown_command() => refused = Some(e),
            Err(e) => return Err(e),
        }
    }
    // The loop ran at least once, with version 2.
    Err(refused.unwrap_or(Error::Closed { command: "CollectTracing2" }))
}

/// Asks a runtime to end a session. It answers only after the session's whole stream was read: whoever owns the stream
/// must go on reading meanwhile, which is what [`Session::stop`] does.
///
/// # Errors
/// When the target can't be reached or doesn't answer within `within`. A session that is gone is no error.
pub async fn stop(endpoint: &Endpoint, id: SessionId, within: Duration) -> Result<(), Error> {
    call(endpoint, &Request::StopTracing(id), Some(within)).await.map(drop)
}

impl Session {
    /// The session's id in the target.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The version of `CollectTracing` that was understood; lower than [`SessionRequest::version`] when the runtime is
    /// too old for all that was asked.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Stops the session and reads its stream to the end, at most for `within`; `sink` gets what still comes. However
    /// this ends, the session is over in the target.
    ///
    /// # Errors
    /// When the stream did not end in time, or the connection failed.
    pub async fn stop(self, within: Duration, mut sink: impl FnMut(&[u8])) -> Result<(), Error> {
        let Self { endpoint, id, mut stream, .. } = self;
        let mut deadline = Instant::now() + within;
        let mut stopping = pin!(stop(&endpoint, id, within));
        let mut asked = false;
        let mut failed = None;
        let mut buf = vec![0; 64 * 1024];
        loop {
            tokio::select! {
                answer = &mut stopping, if !asked => {
                    asked = true;
                    if let Err(e) = answer {
                        failed = Some(e);
                        deadline = deadline.min(Instant::now() + AFTER_FAILED_STOP);
                    }
                }
                read = timeout_at(deadline, stream.read(&mut buf)) => match read {
                    // The end: also when the target ended by itself and could not be asked to stop.
                    Ok(Ok(0)) => return Ok(()),
                    Ok(Ok(n)) => sink(buf.get(..n).unwrap_or_default()),
                    Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                    Ok(Err(source)) => return Err(Error::Io { command: "StopTracing", source }),
                    Err(_) => return Err(failed.unwrap_or(Error::NotFinished { after: within })),
                },
            }
        }
    }
}

impl AsyncRead for Session {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}
