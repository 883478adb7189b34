//! `net` over real loopback sockets. Timeouts are made tiny where a test wants them to pass; every wait of a test ends by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::body::BodyError;
use super::client::{Alpn, BaseUrl, Client, Trust, parse_fingerprint};
use super::serve::{Handler, Incoming, Limits, Outgoing, Server};
use super::tls::{self, Identity};
use crate::time;

mod acme;
mod certificates;
mod client;
mod limits;
mod serve;

/// Longer than anything here takes; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// A deadline that a test waits for.
const SHORT: Duration = Duration::from_millis(150);

/// Await something that must happen.
async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("it happens in time")
}

/// A running server and the way to stop it.
struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinSet<()>,
}

impl Running {
    async fn start<H: Handler>(tls: Option<Arc<Identity>>, limits: Limits, handler: H) -> Self {
        let server = Server::bind("public", "127.0.0.1:0".parse().unwrap(), tls, limits).await.unwrap();
        let address = server.local_addr();
        let (stop, stopping) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(server.run(Arc::new(handler), stopping));
        Self { address, stop, task }
    }

    fn url(&self, scheme: &str) -> BaseUrl {
        BaseUrl::parse(&format!("{scheme}://{}", self.address)).unwrap()
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Ends when the server has drained.
    async fn stopped(mut self) {
        self.stop.send_replace(true);
        soon(self.task.join_next()).await.unwrap().unwrap();
    }
}

/// A certificate for this machine.
fn identity() -> Arc<Identity> {
    let made = tls::make_self_made(&["localhost".to_owned(), "127.0.0.1".to_owned()], time::now()).unwrap();
    Arc::new(Identity::from_pem(made.cert_pem.as_bytes(), made.key_pem.as_bytes()).unwrap())
}

fn pinned(identity: &Identity, alpn: Alpn) -> Client {
    Client::new(Trust::Fingerprint(parse_fingerprint(&identity.fingerprint()).unwrap()), alpn).unwrap()
}

fn get(target: &str) -> Request<Bytes> {
    Request::get(target).body(Bytes::new()).unwrap()
}

fn post(target: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::post(target).body(body.into()).unwrap()
}

fn outgoing(status: StatusCode, body: impl Into<Bytes>) -> Outgoing {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

/// Answers with what it was asked; body errors become the statuses they stand for.
async fn echo(request: Incoming) -> Outgoing {
    assert_ne!(request.path, "/panic", "a bug in a handler");
    let host = request.headers.get("host").map_or("-", |v| v.to_str().unwrap()).to_owned();
    match request.body.read().await {
        Ok(body) => {
            let text = format!("{} {} {} {} {}", request.method, request.path, request.query, host, body.len());
            outgoing(StatusCode::OK, text)
        }
        Err(BodyError::TooLarge) => outgoing(StatusCode::PAYLOAD_TOO_LARGE, ""),
        Err(BodyError::TimedOut) => outgoing(StatusCode::REQUEST_TIMEOUT, ""),
        Err(BodyError::Budget) => outgoing(StatusCode::SERVICE_UNAVAILABLE, ""),
        Err(BodyError::Broken) => outgoing(StatusCode::BAD_REQUEST, ""),
    }
}

/// Everything until the other side closes; an abortive close ends it too.
async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match soon(stream.read(&mut buffer)).await {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&all).into_owned(),
            Ok(n) => all.extend_from_slice(&buffer[..n]),
        }
    }
}

/// One head (to the empty line), byte by byte so that nothing after it is lost.
async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        all.push(soon(stream.read_u8()).await.expect("a whole head"));
    }
    String::from_utf8(all).unwrap()
}

/// Send raw bytes and read until the server closes.
async fn talk(running: &Running, bytes: &[u8]) -> String {
    let mut stream = running.raw().await;
    stream.write_all(bytes).await.unwrap();
    rest(&mut stream).await
}
