//! One request and its reply over one connection.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::codec::{self, DecodeError, HEADER_LEN, Header, Request};
use crate::endpoint::Endpoint;
use crate::error::Error;

/// Time for an answer that takes a runtime no work.
pub(crate) const QUICK: Duration = Duration::from_secs(5);

/// A process that has just started binds its socket a moment before it listens.
const CONNECT_RETRIES: u32 = 3;
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// On how many connections a runtime that connects to us is asked the same.
const REVERSE_ATTEMPTS: u32 = 5;

/// A connection on which nothing was sent yet. A runtime takes one request per connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
}

/// A success.
#[derive(Debug)]
pub struct Reply {
    /// The payload.
    pub payload: Vec<u8>,
    /// What the runtime sends behind the reply.
    pub stream: UnixStream,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::Connect`], and [`Error::Impostor`] when another process than the endpoint's listens.
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, Error> {
        let failed = |source| Error::Connect { path: endpoint.path(), source };
        if let Some(idle) = endpoint.idle() {
            return Ok(Self { stream: idle.take().await.map_err(failed)? });
        }
        let (address, keep) = endpoint.address().map_err(failed)?;
        let mut retries = CONNECT_RETRIES;
        let stream = loop {
            match UnixStream::connect(&address).await {
                Ok(stream) => break stream,
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && retries > 0 => {
                    retries -= 1;
                    sleep(RETRY_AFTER).await;
                }
                Err(e) => return Err(failed(e)),
            }
        };
        drop(keep);
        if let Some(expected) = endpoint.pid() {
            // The kernel noted who listens. It says 0 for a process that this pid namespace can't see.
            let found = stream.peer_cred().map_err(failed)?.pid().and_then(|pid| u32::try_from(pid).ok());
            if let Some(found) = found.filter(|&pid| pid != 0 && pid != expected) {
                return Err(Error::Impostor { path: endpoint.path(), expected, found });
            }
        }
        Ok(Self { stream })
    }

    /// Sends `request` and reads its reply, for at most `within`; without it, for as long as the target lives. On any
    /// error the connection is closed.
    ///
    /// # Errors
    /// [`Error::Refused`] when the runtime answers with an error; every other one when it doesn't answer properly.
    pub async fn call(mut self, request: &Request, within: Option<Duration>) -> Result<Reply, Error> {
        let command = request.name();
        let message = request.encode()?;
        let exchange = exchange(&mut self.stream, command, &message);
        let (header, payload) = match within {
            None => exchange.await?,
            Some(after) => timeout_at(Instant::now() + after, exchange)
                .await
                .unwrap_or(Err(Error::NoAnswer { command, after }))?,
        };
        match codec::reply(header, &payload) {
            Ok(Ok(_)) => Ok(Reply { payload, stream: self.stream }),
            Ok(Err(refusal)) => Err(Error::Refused { command, code: refusal.code, message: refusal.message }),
            Err(source) => Err(Error::Decode { command, source }),
        }
    }
}

async fn exchange(
    stream: &mut UnixStream,
    command: &'static str,
    message: &[u8],
) -> Result<(Header, Vec<u8>), Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            Error::Closed { command }
        }
        _ => Error::Io { command, source },
    };
    // A message has at most 64 KB and the socket's buffer is larger and empty: this is one write.
    stream.write_all(message).await.map_err(failed)?;
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).await.map_err(failed)?;
    let header = Header::parse(&head).map_err(|source| Error::Decode { command, source })?;
    let mut payload = vec![0; header.payload_len()];
    stream.read_exact(&mut payload).await.map_err(failed)?;
    Ok((header, payload))
}

/// Connects, sends `request`, reads the reply.
///
/// A runtime that connects to us may give a connection up and connect anew at any time, also while our request is on its
/// way: what it did not answer it did not do, and is asked again on the next connection.
pub(crate) async fn call(
    endpoint: &Endpoint,
    request: &Request,
    within: Option<Duration>,
) -> Result<Reply, Error> {
    let mut unanswered = None;
    for _ in 0..REVERSE_ATTEMPTS {
        let connection = match Connection::connect(endpoint).await {
            Ok(connection) => connection,
            // It does not come back: that it did not answer is what there is to say.
            Err(error) => return Err(unanswered.unwrap_or(error)),
        };
        match connection.call(request, within).await {
            Err(error @ Error::Closed { .. }) if endpoint.idle().is_some() && request.may_be_repeated() => {
                unanswered = Some(error);
            }
            answer => return answer,
        }
    }
    Err(unanswered.unwrap_or(Error::Closed { command: request.name() }))
}

/// Gives a decoding error its command.
pub(crate) fn decoded<T>(request: &Request, result: Result<T, DecodeError>) -> Result<T, Error> {
    result.map_err(|source| Error::Decode { command: request.name(), source })
}
