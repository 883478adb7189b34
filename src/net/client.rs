//! Requests to platforms, channels and a gateway of our own: HTTPS with strict verification, HTTP/1.1 or HTTP/2.
//!
//! A [`Client`] keeps unused connections and opens new ones; a [`Connection`] is one connection under the caller's control. Redirects are
//! answers like any other. An answer has a bound, before and after decompression, and a request has a deadline.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Body as _;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::stream::{Wire, wire};
use super::tasks::Tasks;
pub use super::trust::{Trust, TrustError, parse_fingerprint};
pub use super::url::{BaseUrl, UrlError};
use crate::limits;

/// Which HTTP to offer by ALPN. Over plain `http` it is always HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; a server without it is an error.
    Http2,
    /// HTTP/2 where the server has it.
    Both,
}

/// The bounds of one client's requests.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Resolving, connecting, TLS and HTTP handshake.
    pub connect: Duration,
    /// The whole request, connecting included.
    pub total: Duration,
    /// Largest body of an answer in bytes, on the wire and after decompression.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: limits::API_CONNECT_TIMEOUT, total: limits::API_TIMEOUT, body_bytes: limits::API_BODY_MAX_BYTES }
    }
}

/// An answer, whole and decompressed.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Header fields, without `content-encoding` and `content-length` when the body was decompressed.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer. Shows no target, header or body: those can hold secrets.
#[derive(Debug)]
pub enum ClientError {
    /// The request itself cannot be sent.
    Request(&'static str),
    /// The host cannot be resolved or reached.
    Unreachable(io::Error),
    /// TLS failed: above all a certificate that is not trusted.
    Tls(io::Error),
    /// The server does not speak the HTTP that was asked for.
    Protocol,
    /// Not connected in time; nothing was sent.
    ConnectTimedOut,
    /// No whole answer in time; the server may have acted on the request.
    TimedOut,
    /// The connection ended before the request was sent.
    NotSent(hyper::Error),
    /// The connection ended before the whole answer came; the server may have acted on the request.
    BrokenOff(hyper::Error),
    /// The answer is larger than allowed, as sent or decompressed.
    TooLarge,
    /// The answer's content coding is unknown or damaged.
    Encoding,
}

impl ClientError {
    /// True when the server cannot have seen the request.
    pub fn never_sent(&self) -> bool {
        match self {
            Self::Request(_)
            | Self::Unreachable(_)
            | Self::Tls(_)
            | Self::Protocol
            | Self::ConnectTimedOut
            | Self::NotSent(_) => true,
            Self::TimedOut | Self::BrokenOff(_) | Self::TooLarge | Self::Encoding => false,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(why) => write!(f, "the request cannot be sent: {why}"),
            Self::Unreachable(e) => write!(f, "the host cannot be reached: {e}"),
            Self::Tls(e) => write!(f, "no secure connection: {e}"),
            Self::Protocol => f.write_str("the server does not speak HTTP/2"),
            Self::ConnectTimedOut => f.write_str("not connected in time"),
            Self::TimedOut => f.write_str("no whole answer in time"),
            Self::NotSent(e) => write!(f, "the connection ended before the request was sent: {e}"),
            Self::BrokenOff(e) => write!(f, "the connection ended before the answer: {e}"),
            Self::TooLarge => f.write_str("the answer is larger than allowed"),
            Self::Encoding => f.write_str("the answer's content encoding is unknown or damaged"),
        }
    }
}

impl std::error::Error for ClientError {}

/// What every connection of a client is made with.
struct Settings {
    tls: Arc<ClientConfig>,
    alpn: Alpn,
    limits: Limits,
    gzip: bool,
}

/// Sends requests; keeps unused connections for a while.
pub struct Client {
    settings: Arc<Settings>,
    unused: Mutex<HashMap<Host, Vec<Connection>>>,
}

/// What a connection can be used for again.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Host {
    https: bool,
    name: String,
    port: u16,
}

impl Host {
    fn of(base: &BaseUrl) -> Self {
        Self { https: base.is_https(), name: base.host().to_owned(), port: base.port() }
    }
}

impl Client {
    /// A client that trusts `trust`, with the usual limits.
    pub fn new(trust: Trust, alpn: Alpn) -> Result<Self, TrustError> {
        Self::with(trust, alpn, Limits::default(), false)
    }

    /// A client with its own limits; with `gzip` it asks for compressed answers (and decompresses them).
    pub fn with(trust: Trust, alpn: Alpn, limits: Limits, gzip: bool) -> Result<Self, TrustError> {
        let mut tls = trust.config()?;
        tls.alpn_protocols = match alpn {
            Alpn::Http1 => vec![b"http/1.1".to_vec()],
            Alpn::Http2 => vec![b"h2".to_vec()],
            Alpn::Both => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        let settings = Arc::new(Settings { tls: Arc::new(tls), alpn, limits, gzip });
        Ok(Self { settings, unused: Mutex::default() })
    }

    /// The TLS settings, for tests that speak through them otherwise.
    #[cfg(test)]
    pub(super) fn tls_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.settings.tls)
    }

    /// Send a request and read the whole answer. Only path and query of the request's URI are used, behind the base's path.
    ///
    /// A kept connection that turns out to be closed is replaced, but only when the request was not sent on it: no request is
    /// ever sent twice.
    pub async fn send(&self, base: &BaseUrl, request: Request<Bytes>) -> Result<Answer, ClientError> {
        let request = dress(base, request, self.settings.gzip)?;
        match tokio::time::timeout(self.settings.limits.total, self.send_dressed(base, request)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ClientError::TimedOut),
        }
    }

    async fn send_dressed(&self, base: &BaseUrl, mut request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let host = Host::of(base);
        while let Some(mut kept) = self.take(&host) {
            match kept.exchange(request).await {
                Ok(answer) => {
                    self.keep(host, kept);
                    return Ok(answer);
                }
                Err(Failed { unsent: Some(unsent), .. }) => request = *unsent,
                Err(Failed { error, unsent: None }) => return Err(error),
            }
        }
        let mut connection = self.connect(base).await?;
        let answer = connection.exchange(request).await.map_err(|failed| failed.error)?;
        self.keep(host, connection);
        Ok(answer)
    }

    /// Open a connection of one's own, to be used for one request after the other.
    pub async fn connect(&self, base: &BaseUrl) -> Result<Connection, ClientError> {
        // Boxed: the handshake's state is large, and most requests find a connection.
        match tokio::time::timeout(self.settings.limits.connect, Box::pin(open(&self.settings, base))).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ClientError::ConnectTimedOut),
        }
    }

    fn take(&self, host: &Host) -> Option<Connection> {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = unused.get_mut(host)?;
        while let Some(connection) = kept.pop() {
            if !connection.is_fresh() {
                continue;
            }
            if let Some(another) = connection.share() {
                kept.push(connection);
                return Some(another);
            }
            return Some(connection);
        }
        None
    }

    fn keep(&self, host: Host, mut connection: Connection) {
        connection.used = Instant::now();
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        unused.retain(|_, kept| {
            kept.retain(Connection::is_fresh);
            !kept.is_empty()
        });
        let kept = unused.entry(host).or_default();
        // One HTTP/2 connection serves all: its other handles replace one another.
        kept.retain(|other| !connection.same_as(other));
        if connection.is_fresh() && kept.len() < limits::API_IDLE_PER_HOST {
            kept.push(connection);
        }
    }
}

/// One connection. Requests go one after the other; dropping it closes it.
pub struct Connection {
    sender: Sender,
    tasks: Arc<Tasks>,
    settings: Arc<Settings>,
    base: BaseUrl,
    used: Instant,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An exchange without an answer; with the request when it was not sent.
struct Failed {
    error: ClientError,
    unsent: Option<Box<Request<Full<Bytes>>>>,
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Self { error, unsent: None }
    }
}

impl Connection {
    /// Send a request and read the whole answer, like [`Client::send`]. After an error the connection may be of no more use.
    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Answer, ClientError> {
        let request = dress(&self.base, request, self.settings.gzip)?;
        match tokio::time::timeout(self.settings.limits.total, self.exchange(request)).await {
            Ok(result) => result.map_err(|failed| failed.error),
            Err(_elapsed) => Err(ClientError::TimedOut),
        }
    }

    /// True when the other side has closed it.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// True when HTTP/2 was chosen.
    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    fn is_fresh(&self) -> bool {
        !self.is_closed() && self.used.elapsed() < limits::API_IDLE_TIMEOUT
    }

    fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tasks, &other.tasks)
    }

    /// Another handle on the same connection: HTTP/2 only.
    fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Self {
                sender: Sender::Http2(sender.clone()),
                tasks: Arc::clone(&self.tasks),
                settings: Arc::clone(&self.settings),
                base: self.base.clone(),
                used: self.used,
            }),
        }
    }

    async fn exchange(&mut self, mut request: Request<Full<Bytes>>) -> Result<Answer, Failed> {
        let sent = match &mut self.sender {
            Sender::Http1(sender) => {
                if let Err(error) = sender.ready().await {
                    return Err(Failed { error: ClientError::NotSent(error), unsent: Some(Box::new(request)) });
                }
                sender.try_send_request(request).await
            }
            Sender::Http2(sender) => {
                if let Err(error) = sender.ready().await {
                    return Err(Failed { error: ClientError::NotSent(error), unsent: Some(Box::new(request)) });
                }
                // The first connection may have been HTTP/1: what HTTP/2 has in its pseudo-fields goes there.
                if let Some(host) = request.headers_mut().remove(HOST) {
                    *request.uri_mut() = absolute(&self.base, &host, request.uri())?;
                }
                sender.try_send_request(request).await
            }
        };
        let response = sent.map_err(failed)?;
        let (parts, body) = response.into_parts();
        let read = read_body(&parts.headers, body, self.settings.limits.body_bytes).await?;
        let mut headers = parts.headers;
        if read.decoded {
            headers.remove(CONTENT_ENCODING);
            headers.remove(CONTENT_LENGTH);
        }
        Ok(Answer { status: parts.status, headers, body: read.bytes })
    }
}

fn failed(mut error: TrySendError<Request<Full<Bytes>>>) -> Failed {
    match error.take_message() {
        Some(unsent) => Failed { error: ClientError::NotSent(error.into_error()), unsent: Some(Box::new(restored(unsent))) },
        None => ClientError::BrokenOff(error.into_error()).into(),
    }
}

/// Undo what was done for HTTP/2, so that the request fits any connection again.
fn restored(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
        && let Some(target) = request.uri().path_and_query().cloned()
    {
        *request.uri_mut() = Uri::from(target);
        request.headers_mut().insert(HOST, host);
    }
    request
}

fn absolute(base: &BaseUrl, host: &HeaderValue, target: &Uri) -> Result<Uri, ClientError> {
    let mut parts = target.clone().into_parts();
    parts.scheme = Some(if base.is_https() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP });
    parts.authority = http::uri::Authority::try_from(host.as_bytes()).ok();
    Uri::from_parts(parts).map_err(|_| ClientError::Request("its host is not a host"))
}

/// Make a request complete, in the form that HTTP/1 wants.
fn dress(base: &BaseUrl, request: Request<Bytes>, gzip: bool) -> Result<Request<Full<Bytes>>, ClientError> {
    let (mut parts, body) = request.into_parts();
    let target = base.join(&parts.uri).map_err(|_| ClientError::Request("its target is not a path"))?;
    parts.uri = Uri::from(target);
    parts.version = http::Version::HTTP_11;
    let host = HeaderValue::try_from(base.authority()).map_err(|_| ClientError::Request("its host is not a host"))?;
    parts.headers.insert(HOST, host);
    parts.headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!("stockgate/", env!("CARGO_PKG_VERSION"))));
    if gzip {
        parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(Request::from_parts(parts, Full::new(body)))
}

async fn open(settings: &Arc<Settings>, base: &BaseUrl) -> Result<Connection, ClientError> {
    let tcp = reach(base, settings.limits.connect).await?;
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let tasks = Arc::new(Tasks::default());
    let sender = if base.is_https() {
        let name =
            ServerName::try_from(base.host().to_owned()).map_err(|_| ClientError::Request("its host is not a host"))?;
        let tls = TlsConnector::from(Arc::clone(&settings.tls)).connect(name, tcp).await.map_err(ClientError::Tls)?;
        let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        if settings.alpn == Alpn::Http2 && !h2 {
            return Err(ClientError::Protocol);
        }
        speak(wire(tls), h2, &tasks).await?
    } else {
        speak(wire(tcp), false, &tasks).await?
    };
    Ok(Connection { sender, tasks, settings: Arc::clone(settings), base: base.clone(), used: Instant::now() })
}

/// Connect to the first address that answers. Each gets its part of the time, so that a dead IPv6 route leaves some for IPv4.
async fn reach(base: &BaseUrl, within: Duration) -> Result<TcpStream, ClientError> {
    let addresses: Vec<_> =
        tokio::net::lookup_host((base.host(), base.port())).await.map_err(ClientError::Unreachable)?.collect();
    let share = within / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(ClientError::Unreachable(last))
}

async fn speak(stream: TokioIo<Box<dyn Wire>>, h2: bool, tasks: &Tasks) -> Result<Sender, ClientError> {
    if h2 {
        let (sender, connection) = http2::Builder::new(tasks.spawner())
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(limits::HTTP_BUFFER_BYTES).unwrap_or(u32::MAX))
            .handshake(stream)
            .await
            .map_err(ClientError::NotSent)?;
        tasks.spawner().execute(driven(connection));
        Ok(Sender::Http2(sender))
    } else {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(limits::HTTP_BUFFER_BYTES)
            .handshake(stream)
            .await
            .map_err(ClientError::NotSent)?;
        tasks.spawner().execute(driven(connection));
        Ok(Sender::Http1(sender))
    }
}

/// A connection's own work; its error reaches the caller through the request.
async fn driven(connection: impl Future<Output = hyper::Result<()>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an outgoing connection ended");
    }
}

struct Read {
    bytes: Bytes,
    decoded: bool,
}

/// Read an answer's body whole, decompressing as it comes, so that neither form is ever larger than `max`.
async fn read_body(headers: &HeaderMap, mut body: hyper::body::Incoming, max: usize) -> Result<Read, ClientError> {
    let gzip = match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None => false,
        Some(name) if name.eq_ignore_ascii_case(b"identity") => false,
        Some(name) if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => true,
        Some(_) => return Err(ClientError::Encoding),
    };
    if body.size_hint().lower() > max as u64 {
        return Err(ClientError::TooLarge);
    }
    let mut received = 0_usize;
    let mut plain = BytesMut::new();
    let mut decoder = gzip.then(|| MultiGzDecoder::new(Capped { bytes: Vec::new(), max }));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ClientError::BrokenOff)?.into_data() else { continue };
        received = received.saturating_add(data.len());
        if received > max {
            return Err(ClientError::TooLarge);
        }
        match &mut decoder {
            Some(decoder) => decoder.write_all(&data).map_err(|e| decoding_error(&e))?,
            None => plain.extend_from_slice(&data),
        }
    }
    match decoder {
        // No body at all (204, 304, HEAD) is not a damaged one.
        Some(_) if received == 0 => Ok(Read { bytes: Bytes::new(), decoded: false }),
        Some(decoder) => {
            let whole = decoder.finish().map_err(|e| decoding_error(&e))?;
            Ok(Read { bytes: Bytes::from(whole.bytes), decoded: true })
        }
        None => Ok(Read { bytes: plain.freeze(), decoded: false }),
    }
}

fn decoding_error(error: &io::Error) -> ClientError {
    if error.kind() == io::ErrorKind::FileTooLarge { ClientError::TooLarge } else { ClientError::Encoding }
}

/// A vector that refuses to grow past `max`.
struct Capped {
    bytes: Vec<u8>,
    max: usize,
}

impl Write for Capped {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(data.len()) > self.max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
