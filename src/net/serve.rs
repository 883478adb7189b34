//! Serving HTTP/1.0, HTTP/1.1 and HTTP/2 to a [`Handler`].
//!
//! One task a connection; a connection's protocol is what ALPN chose (plain TCP: HTTP/1). `net` itself answers three things:
//! 414 for a long target, 500 for a handler that panicked, and what hyper answers to a head that it cannot parse (400, 431).

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::acme::challenge;
use super::activity::{Activity, Busy};
use super::body::{Body, Budget, Discard, Rules};
use super::client_auth::Presented;
use super::listen::{Gate, Listener, Slot};
pub use super::proxy::Proxies;
use super::proxy::{self, ProxyError};
use super::stream::{Marks, Stream, wire};
use super::tasks::{Spawner, Tasks, start};
use super::tls::Identity;
use crate::{limits, metrics, time};

/// A request as a handler gets it.
#[derive(Debug)]
pub struct Incoming {
    /// Method.
    pub method: http::Method,
    /// Path as it was sent, still percent-encoded.
    pub path: String,
    /// Query without `?`, still percent-encoded; empty when there is none.
    pub query: String,
    /// Header fields. `host` is there on HTTP/2 too, taken from `:authority`.
    pub headers: http::HeaderMap,
    /// Who connected; the client behind it when that is a listed proxy.
    pub peer: IpAddr,
    /// The certificate that the client has presented and holds the key of. Nobody has said yet that it is trusted.
    pub certificate: Option<Arc<Presented>>,
    /// The body, still to be read.
    pub body: Body,
}

/// An answer.
pub type Outgoing = Response<Full<Bytes>>;

/// Answers requests. A future may be dropped at any await: the client went away.
pub trait Handler: Send + Sync + 'static {
    /// Answer one request.
    fn handle(&self, request: Incoming) -> impl Future<Output = Outgoing> + Send;
}

/// A [`Handler`] whose type is forgotten: what stands between a socket and a handler is compiled once for all of them, for a box a
/// request.
trait Answers: Send + Sync {
    fn answer(&self, request: Incoming) -> Pin<Box<dyn Future<Output = Outgoing> + Send + '_>>;
}

impl<H: Handler> Answers for H {
    fn answer(&self, request: Incoming) -> Pin<Box<dyn Future<Output = Outgoing> + Send + '_>> {
        Box::pin(self.handle(request))
    }
}

impl<F, A> Handler for F
where
    F: Fn(Incoming) -> A + Send + Sync + 'static,
    A: Future<Output = Outgoing> + Send,
{
    fn handle(&self, request: Incoming) -> impl Future<Output = Outgoing> + Send {
        self(request)
    }
}

/// The bounds of one listener. The defaults are those of [`crate::limits`], where each says its reason.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections in all.
    pub connections: usize,
    /// Open connections from one address.
    pub connections_per_address: usize,
    /// Largest body in bytes.
    pub body_bytes: usize,
    /// All bodies together, in bytes.
    pub bodies_buffered: usize,
    /// The PROXY header of a listed proxy.
    pub proxy: Duration,
    /// TLS handshake.
    pub handshake: Duration,
    /// Request head; also an idle HTTP/1 connection.
    pub header: Duration,
    /// Request body.
    pub body: Duration,
    /// An idle HTTP/2 connection.
    pub idle: Duration,
    /// A response that the client does not take.
    pub write: Duration,
    /// Reading on after an answer that left a body unread.
    pub linger: Duration,
    /// Requests under way at a stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: limits::CONNECTIONS_MAX,
            connections_per_address: limits::CONNECTIONS_PER_ADDRESS_MAX,
            body_bytes: limits::BODY_MAX_BYTES,
            bodies_buffered: limits::BODIES_BUFFERED_MAX_BYTES,
            proxy: limits::PROXY_HEADER_TIMEOUT,
            handshake: limits::HANDSHAKE_TIMEOUT,
            header: limits::HEADER_TIMEOUT,
            body: limits::BODY_TIMEOUT,
            idle: limits::IDLE_TIMEOUT,
            write: limits::WRITE_TIMEOUT,
            linger: limits::LINGER_TIMEOUT,
            drain: limits::DRAIN_TIMEOUT,
        }
    }
}

/// A bound listener that does not accept yet.
pub struct Server {
    name: &'static str,
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Identity>>,
    limits: Limits,
    ask: bool,
    proxies: Option<Proxies>,
}

impl Server {
    /// Bind. `name` is the metrics' label (`public`, `admin`); without `tls` it speaks plain HTTP/1.
    pub async fn bind(
        name: &'static str,
        address: SocketAddr,
        tls: Option<Arc<Identity>>,
        limits: Limits,
    ) -> io::Result<Self> {
        Self::new(name, TcpListener::bind(address).await?, tls, limits)
    }

    /// Take over a socket that is bound already, as systemd passes it.
    pub fn from_listener(
        name: &'static str,
        listener: std::net::TcpListener,
        tls: Option<Arc<Identity>>,
        limits: Limits,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::new(name, TcpListener::from_std(listener)?, tls, limits)
    }

    fn new(name: &'static str, socket: TcpListener, tls: Option<Arc<Identity>>, limits: Limits) -> io::Result<Self> {
        let address = socket.local_addr()?;
        if let Some(identity) = &tls {
            identity.used_by(name);
        }
        Ok(Self { name, socket, address, tls, limits, ask: false, proxies: None })
    }

    /// Ask clients for a certificate when the identity has authorities to ask for ([`Identity::ask_clients`]).
    #[must_use]
    pub fn asking(self) -> Self {
        Self { ask: true, ..self }
    }

    /// Expect a PROXY header from these peers, and from no other.
    #[must_use]
    pub fn behind(self, proxies: Proxies) -> Self {
        Self { proxies: Some(proxies), ..self }
    }

    /// Where it listens; the port that the system chose when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accept and serve until `stop` is true (or its sender is gone). Then: no more connections, idle ones are closed, those that
    /// have just been accepted get [`limits::NEWCOMER_GRACE`] to ask, requests under way get `limits.drain` to finish, and what is
    /// left is cut off.
    pub fn run<H: Handler>(self, handler: Arc<H>, stop: watch::Receiver<bool>) -> impl Future<Output = ()> + Send {
        self.serve(handler, stop)
    }

    async fn serve(self, handler: Arc<dyn Answers>, mut stop: watch::Receiver<bool>) {
        let gate = Gate::new(self.name, self.limits.connections, self.limits.connections_per_address);
        let drain = self.limits.drain;
        let proxies = self.proxies;
        let shared = Arc::new(Shared::new(self.name, handler, self.tls, self.limits, self.ask));
        let mut listener = Listener::new(self.socket);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(ended) = connections.join_next() => note(self.name, ended),
                (socket, peer) = listener.accept() => {
                    let proxied = proxies.as_ref().is_some_and(|listed| listed(peer.ip()));
                    match if proxied { gate.enter_unnamed() } else { gate.enter(peer.ip()) } {
                        Ok(slot) => {
                            let come = Come { socket, peer: peer.ip(), proxied, slot };
                            start(&mut connections, connection(Arc::clone(&shared), come, stop.clone()));
                        }
                        Err(reason) => refused(self.name, reason),
                    }
                }
            }
        }
        drop(listener);
        let drained = tokio::time::timeout(drain, async {
            while let Some(ended) = connections.join_next().await {
                note(self.name, ended);
            }
        });
        if drained.await.is_err() {
            tracing::warn!(listener = self.name, connections = connections.len(), "cutting off what did not finish in time");
            connections.shutdown().await;
        }
    }
}

fn refused(listener: &'static str, reason: &'static str) {
    metrics::connection_refused(listener, reason);
    tracing::debug!(listener, reason, "connection refused");
}

/// Resolves when it is time to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it who could ever say stop.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Resolves so long after it was time to stop.
async fn stopped_for(stop: &mut watch::Receiver<bool>, grace: Duration) {
    stopped(stop).await;
    tokio::time::sleep(grace).await;
}

fn note(listener: &'static str, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(listener, "a connection's task panicked");
    }
}

/// What the connections of a listener share.
struct Shared {
    name: &'static str,
    handler: Arc<dyn Answers>,
    tls: Option<Arc<Identity>>,
    limits: Limits,
    ask: bool,
    rules: Arc<Rules>,
    meters: metrics::HttpMeters,
    http1: http1::Builder,
    /// When a listed proxy that sends no header was last logged, in seconds.
    warned_at: AtomicI64,
}

impl Shared {
    fn new(name: &'static str, handler: Arc<dyn Answers>, tls: Option<Arc<Identity>>, limits: Limits, ask: bool) -> Self {
        let rules =
            Arc::new(Rules { max: limits.body_bytes, timeout: limits.body, budget: Budget::new(limits.bodies_buffered) });
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header)
            // a client that closes its side early gets its answer all the same; and looking for that costs every request
            .half_close(true)
            .max_headers(limits::HEADERS_MAX_COUNT)
            .max_header_size(limits::HEADERS_MAX_BYTES)
            .max_buf_size(limits::HTTP_BUFFER_BYTES);
        let (meters, warned_at) = (metrics::HttpMeters::new(name), AtomicI64::new(i64::MIN));
        Self { name, handler, tls, limits, ask, rules, meters, http1, warned_at }
    }

    /// The client behind a listed proxy; `None` when the connection is not to be served.
    async fn client_behind(&self, come: &mut Come) -> Option<IpAddr> {
        let client = match proxy::take(&mut come.socket, self.limits.proxy).await {
            // nobody is behind it: a health check of its own
            Ok(client) => client.unwrap_or(come.peer),
            Err(error) => {
                self.proxy_failed(come.peer, &error);
                return None;
            }
        };
        match come.slot.count_for(client) {
            Ok(()) => Some(client),
            Err(reason) => {
                refused(self.name, reason);
                None
            }
        }
    }

    /// A proxy that we are told of and that sends no header takes every delivery with it: said, once a minute.
    fn proxy_failed(&self, proxy: IpAddr, error: &ProxyError) {
        refused(self.name, error.reason());
        let (now, last) = (time::now().seconds(), self.warned_at.load(Ordering::Relaxed));
        if now.saturating_sub(last) >= limits::WARN_PERIOD_SECONDS {
            self.warned_at.store(now, Ordering::Relaxed);
            tracing::warn!(
                listener = self.name, %proxy, %error,
                "a proxy of [listen].proxy_protocol_from: connection closed; let it send the PROXY protocol, or take it off the list"
            );
        }
    }
}

fn http2(spawner: Spawner) -> http2::Builder<Spawner> {
    let mut builder = http2::Builder::new(spawner);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::H2_STREAMS_MAX)
        .initial_stream_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(limits::HEADERS_MAX_BYTES).unwrap_or(u32::MAX))
        .max_send_buf_size(limits::HTTP_BUFFER_BYTES)
        .keep_alive_interval(limits::H2_PING_PERIOD)
        .keep_alive_timeout(limits::H2_PING_TIMEOUT);
    builder
}

/// A connection that was just accepted.
struct Come {
    socket: TcpStream,
    peer: IpAddr,
    /// It comes from a listed proxy.
    proxied: bool,
    slot: Slot,
}

/// Who is at the other end of a connection.
#[derive(Clone)]
struct Client {
    peer: IpAddr,
    certificate: Option<Arc<Presented>>,
}

/// One connection from accept to close.
async fn connection(shared: Arc<Shared>, mut come: Come, mut stop: watch::Receiver<bool>) {
    if let Err(error) = come.socket.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let peer = if come.proxied {
        let named = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            named = shared.client_behind(&mut come) => named,
        };
        let Some(client) = named else { return };
        client
    } else {
        come.peer
    };
    let Come { socket, slot, .. } = come;
    let marks = Arc::new(Marks::default());
    let (write, linger) = (shared.limits.write, shared.limits.linger);
    let stream = match &shared.tls {
        None => Stream::plain(socket, Arc::clone(&marks), write, linger),
        Some(identity) => {
            let handshake = TlsAcceptor::from(identity.config(shared.ask)).accept(socket);
            let result = tokio::select! {
                biased;
                () = stopped_for(&mut stop, limits::NEWCOMER_GRACE) => return,
                result = tokio::time::timeout(shared.limits.handshake, handshake) => result,
            };
            match result {
                // RFC 8737, section 3: the handshake was all that there is to it
                Ok(Ok(tls)) if tls.get_ref().1.alpn_protocol() == Some(challenge::ALPN) => {
                    metrics::tls_handshake("acme");
                    return;
                }
                Ok(Ok(tls)) => {
                    metrics::tls_handshake("ok");
                    Stream::tls(tls, Arc::clone(&marks), write, linger)
                }
                Ok(Err(error)) => {
                    metrics::tls_handshake("failed");
                    tracing::debug!(listener = shared.name, %peer, %error, "TLS handshake failed");
                    return;
                }
                Err(_elapsed) => {
                    metrics::tls_handshake("timeout");
                    tracing::debug!(listener = shared.name, %peer, "TLS handshake timed out");
                    return;
                }
            }
        }
    };
    let name = shared.name;
    let client = Client { peer, certificate: Presented::new(stream.client_certificates()) };
    let served = if stream.is_h2() {
        serve_h2(shared, stream, client, marks, stop).await
    } else {
        serve_h1(shared, stream, client, marks, stop).await
    };
    if let Err(error) = served {
        tracing::debug!(listener = name, %peer, %error, "connection ended");
    }
    drop(slot);
}

async fn serve_h1(
    shared: Arc<Shared>,
    stream: Stream,
    client: Client,
    marks: Arc<Marks>,
    mut stop: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let builder = shared.http1.clone();
    let idle = Arc::clone(&marks);
    let asked = Arc::new(Notify::new());
    let asks = Arc::clone(&asked);
    let service = service_fn(move |request| {
        asks.notify_one();
        answer(Arc::clone(&shared), client.clone(), Arc::clone(&marks), request)
    });
    let mut connection = pin!(builder.serve_connection(wire(stream), service));
    tokio::select! {
        result = connection.as_mut() => return result,
        () = stopped(&mut stop) => {}
    }
    // the first request may be on its way; whoever has asked before is told here already
    tokio::select! {
        result = connection.as_mut() => return result,
        () = asked.notified() => {}
        () = tokio::time::sleep(limits::NEWCOMER_GRACE) => {}
    }
    if !idle.answering.load(Ordering::Relaxed) {
        // Idle, so what an earlier request left unread has been read since: a stop need not linger for it.
        idle.unread.store(false, Ordering::Relaxed);
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// Like [`serve_h1`], and closes the connection when it is idle: hyper's HTTP/2 server has no such limit.
async fn serve_h2(
    shared: Arc<Shared>,
    stream: Stream,
    client: Client,
    marks: Arc<Marks>,
    mut stop: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let tasks = Tasks::default();
    let activity = Arc::new(Activity::new());
    marks.discard.get_or_init(|| Discard::new(tasks.spawner(), shared.limits.linger));
    let (idle, grace) = (shared.limits.idle, shared.limits.header);
    let seen = Arc::clone(&activity);
    let service = service_fn(move |request| {
        let busy = Busy::new(&seen);
        let answered = answer(Arc::clone(&shared), client.clone(), Arc::clone(&marks), request);
        async move {
            let result = answered.await;
            drop(busy);
            result
        }
    });
    let mut connection = pin!(http2(tasks.spawner()).serve_connection(wire(stream), service));
    let mut stopping = false;
    let mut closing = false;
    let mut look = pin!(tokio::time::sleep(idle));
    loop {
        tokio::select! {
            result = connection.as_mut() => return result,
            () = stopped(&mut stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = look.as_mut() => match activity.idle_at() {
                // Told to go, and still here: it never finished its preface, or does not take its answers.
                Some(_) if closing => return Ok(()),
                Some(since) if since + idle <= Instant::now() => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                    look.as_mut().reset(Instant::now() + grace);
                }
                Some(since) => look.as_mut().reset(since + idle),
                None => look.as_mut().reset(Instant::now() + idle),
            },
        }
    }
}

/// One request: hand it to the handler, whatever happens there.
async fn answer(
    shared: Arc<Shared>,
    client: Client,
    marks: Arc<Marks>,
    request: Request<hyper::body::Incoming>,
) -> Result<Outgoing, Infallible> {
    let (parts, body) = request.into_parts();
    marks.unread.store(false, Ordering::Relaxed);
    marks.answering.store(true, Ordering::Relaxed);
    let body = Body::wire(body, &shared.rules, &marks);
    let mut response = if target_length(&parts.uri) > limits::TARGET_MAX_BYTES {
        drop(body);
        plain(StatusCode::URI_TOO_LONG)
    } else {
        let mut headers = parts.headers;
        if let Some(authority) = parts.uri.authority()
            && !headers.contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            headers.insert(HOST, host);
        }
        let incoming = Incoming {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers,
            peer: client.peer,
            certificate: client.certificate,
            body,
        };
        let answered = caught(async { shared.handler.answer(incoming).await }).await;
        answered.unwrap_or_else(|| {
            tracing::error!(listener = shared.name, "a request's handler panicked");
            plain(StatusCode::INTERNAL_SERVER_ERROR)
        })
    };
    marks.answering.store(false, Ordering::Relaxed);
    if parts.version <= Version::HTTP_11 && marks.broken.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    shared.meters.answered(response.status().as_u16());
    Ok(response)
}

fn target_length(uri: &http::Uri) -> usize {
    uri.path_and_query().map_or(0, |target| target.as_str().len())
}

/// Run a future; `None` when it panicked.
async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Some),
        Err(_panic) => std::task::Poll::Ready(None),
    })
    .await
}

/// A problem document (RFC 9457) that says no more than the status does.
fn plain(status: StatusCode) -> Outgoing {
    let title = status.canonical_reason().unwrap_or_default();
    let body = format!("{{\"title\":\"{title}\",\"status\":{}}}", status.as_u16());
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}
