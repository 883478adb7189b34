//! A lean HTTP/1.1 client over TLS that keeps its connections: it reads a status and skips the rest.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Largest answer: a gateway answers a delivery with a few bytes; the admin API's status fits, too.
const ANSWER_MAX_BYTES: usize = 256 * 1024;
/// Longest wait for anything; past it the server counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer at the front of the bytes received.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// Where the body begins.
    pub(crate) head: usize,
    /// Length of head and body.
    pub(crate) length: usize,
}

/// Read the first answer; `None` when more bytes are needed.
pub(crate) fn answer(bytes: &[u8]) -> io::Result<Option<Answer>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default()).map_err(|_| bad("a head that is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse::<u16>().ok());
    let status = status.ok_or_else(|| bad("no status"))?;
    let mut content = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            content = value.trim().parse::<usize>().map_err(|_| bad("no length"))?;
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(bad("a chunked answer, which this client does not read"));
        }
    }
    let length = end + 4 + content;
    if length > ANSWER_MAX_BYTES {
        return Err(bad("it is too long"));
    }
    Ok((bytes.len() >= length).then_some(Answer { status, head: end + 4, length }))
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer cannot be read: {why}"))
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}

/// Trusts one certificate; HTTP/1.1.
pub(crate) fn tls(certificate: &Path) -> io::Result<Arc<ClientConfig>> {
    let pem = CertificateDer::from_pem_file(certificate).map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    roots.add(pem).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

/// A connection for a thread of its own.
pub(crate) struct Blocking {
    stream: StreamOwned<ClientConnection, TcpStream>,
    received: Vec<u8>,
}

impl Blocking {
    pub(crate) fn open(address: SocketAddr, tls: &Arc<ClientConfig>) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let connection = ClientConnection::new(Arc::clone(tls), name()).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        // the handshake now, not with the first request
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream, received: Vec::with_capacity(4096) })
    }

    /// Send a request, return the answer's status.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request)?;
        self.stream.flush()?;
        let mut chunk = [0; 4096];
        loop {
            if let Some(answer) = answer(&self.received)? {
                self.received.drain(..answer.length);
                return Ok(answer.status);
            }
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                return Err(closed());
            }
            self.received.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
    }
}

/// A connection for a task.
pub(crate) struct Tasked {
    stream: TlsStream<tokio::net::TcpStream>,
    received: Vec<u8>,
}

impl Tasked {
    pub(crate) async fn open(address: SocketAddr, tls: &Arc<ClientConfig>) -> io::Result<Self> {
        let socket = tokio::net::TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name(), socket).await?;
        Ok(Self { stream, received: Vec::with_capacity(4096) })
    }

    /// Send a request, return the answer's status.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        loop {
            if let Some(answer) = answer(&self.received)? {
                self.received.drain(..answer.length);
                return Ok(answer.status);
            }
            let count = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received));
            if count.await.map_err(io::Error::other)?? == 0 {
                return Err(closed());
            }
        }
    }
}

/// Ask a plain HTTP server (the admin listener); status and body.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut received = Vec::new();
    loop {
        if let Some(answer) = answer(&received)? {
            return Ok((answer.status, received.get(answer.head..answer.length).unwrap_or_default().to_vec()));
        }
        let mut chunk = [0; 16 * 1024];
        let count = socket.read(&mut chunk)?;
        if count == 0 {
            return Err(closed());
        }
        received.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_waited_for() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1";
        for end in 0..40 {
            assert_eq!(answer(&bytes[..end]).unwrap(), None);
        }
        assert_eq!(answer(bytes).unwrap(), Some(Answer { status: 200, head: 38, length: 40 }));
        let bare = b"HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(answer(bare).unwrap(), Some(Answer { status: 204, head: 27, length: 27 }));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for bytes in ["nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"] {
            assert!(answer(bytes.as_bytes()).is_err(), "{bytes}");
        }
        assert!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n").is_err());
    }
}
