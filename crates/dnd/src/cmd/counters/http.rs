//! HTTP: answering scrapers, and pushing to a collector. Plain HTTP only; a collector is near.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use dnd_counters::export::prometheus::Format;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::export::Scrape;
use super::sink::Input;
use super::writer::say;

/// How many scrapers are served at a time; others wait.
const CONNECTIONS: usize = 32;
/// How long a scraper may keep a connection, and how long it may take for the answer that is under way then.
const CONNECTION: Duration = Duration::from_secs(60);
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// How long a push may take.
const PUSH: Duration = Duration::from_secs(10);
/// How much of a collector's answer is read.
const ANSWER: usize = 64 * 1024;

/// Serves `/metrics`.
pub(super) async fn serve(listener: TcpListener, inputs: mpsc::UnboundedSender<Input>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, as a rule: not for ever.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let inputs = inputs.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, inputs.clone()));
            let mut connection = pin!(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service)
            );
            // What goes wrong on a connection is the scraper's business.
            if timeout(CONNECTION, connection.as_mut()).await.is_err() {
                connection.as_mut().graceful_shutdown();
                let _ = timeout(LAST_ANSWER, connection).await;
            }
            drop(permit);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    inputs: mpsc::UnboundedSender<Input>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    match request.uri().path() {
        "/metrics" => {}
        "/" => {
            *response.body_mut() = Full::from("dnd counters export: see /metrics\n");
            return Ok(response);
        }
        _ => {
            *response.status_mut() = StatusCode::NOT_FOUND;
            *response.body_mut() = Full::from("there is only /metrics here\n");
            return Ok(response);
        }
    }
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    let (sender, receiver) = oneshot::channel();
    let asked = inputs.send(Input::Scrape(Scrape { format, answer: sender }));
    match receiver.await {
        Ok(text) if asked.is_ok() => {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
            *response.body_mut() = Full::from(text);
        }
        _ => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
    }
    Ok(response)
}

/// `http://HOST:PORT/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Collector {
    authority: String,
    address: SocketAddr,
    path: String,
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("https:") {
            return Err(
                "https is not supported; a collector on this machine or in this pod needs none".to_owned()
            );
        }
        let uri: hyper::Uri = text.parse().map_err(|_| "expected http://HOST:PORT".to_owned())?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("expected http://HOST:PORT".to_owned());
        };
        let ip = resolve(authority.host().trim_start_matches('[').trim_end_matches(']'))?;
        let path = match uri.path() {
            "" | "/" => "/v1/metrics",
            path => path,
        };
        let address = SocketAddr::new(ip, authority.port_u16().unwrap_or(4318));
        Ok(Self { authority: authority.to_string(), address, path: path.to_owned() })
    }
}

/// An address, `localhost`, or a name in /etc/hosts: a static program has no resolver of names.
fn resolve(host: &str) -> Result<IpAddr, String> {
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    if host == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let found = hosts.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(ip)
    });
    found.ok_or_else(|| format!("`{host}` is not in /etc/hosts; give its address (`getent hosts {host}`)"))
}

/// Pushes what comes, one after the other. Totals are pushed, so that what fails is made up for by the next.
pub(super) async fn push(collector: Collector, mut messages: mpsc::Receiver<Vec<u8>>) {
    let mut failing = false;
    while let Some(message) = messages.recv().await {
        let pushed = match timeout(PUSH, post(&collector, message)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", PUSH.as_secs())),
        };
        // Said when it begins and when it ends: nobody reads a line every ten seconds.
        let said = match &pushed {
            Err(error) if !failing => Some(format!("warning: pushing to {collector} fails: {error}")),
            Ok(()) if failing => Some(format!("note: pushing to {collector} works again")),
            _ => None,
        };
        failing = pushed.is_err();
        if let Some(said) = said {
            say(&dnd_contract::escape(&said));
        }
    }
}

async fn post(collector: &Collector, message: Vec<u8>) -> Result<(), String> {
    let text = |error: &dyn fmt::Display| error.to_string();
    let stream = TcpStream::connect(collector.address).await.map_err(|e| text(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let connection = tokio::spawn(connection);
    let request = Request::post(&collector.path)
        .header(HOST, &collector.authority)
        .header(CONTENT_TYPE, "application/x-protobuf")
        .body(Full::new(Bytes::from(message)))
        .map_err(|e| text(&e))?;
    let response = sender.send_request(request).await.map_err(|e| text(&e))?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), ANSWER).collect().await.map(http_body_util::Collected::to_bytes);
    connection.abort();
    if status.is_success() {
        return Ok(());
    }
    let words = body.map(|body| String::from_utf8_lossy(&body).trim().to_owned()).unwrap_or_default();
    Err(if words.is_empty() {
        format!("it answers {status}")
    } else {
        format!("it answers {status}: {words}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors() {
        let shown = |text: &str| text.parse::<Collector>().map(|c| (c.to_string(), c.address.to_string()));
        assert_eq!(
            shown("http://127.0.0.1:4318"),
            Ok(("http://127.0.0.1:4318/v1/metrics".into(), "127.0.0.1:4318".into()))
        );
        assert_eq!(shown("http://localhost/x"), Ok(("http://localhost/x".into(), "127.0.0.1:4318".into())));
        assert_eq!(shown("http://[::1]:1/"), Ok(("http://[::1]:1/v1/metrics".into(), "[::1]:1".into())));
        for bad in ["", "x", "https://127.0.0.1", "ftp://127.0.0.1", "http://no.such.host.invalid"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}
