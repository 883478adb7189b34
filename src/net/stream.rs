//! One connection's bytes: plain or TLS, with a write timeout and a lingering close.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::body::Discard;

/// What a connection's requests tell the connection.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// A request body was not read to its end: the client may still be sending.
    pub(super) unread: AtomicBool,
    /// Reading a body failed: no further request can follow on an HTTP/1 connection.
    pub(super) broken: AtomicBool,
    /// A handler is at work.
    pub(super) answering: AtomicBool,
    /// HTTP/2 only: what to do with the rest of a body that nobody reads.
    pub(super) discard: OnceLock<Discard>,
}

/// A byte stream that HTTP is spoken over.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

/// It as hyper wants it: one type for servers and clients, plain and TLS, because all of HTTP is compiled once a type.
pub(super) fn wire(stream: impl Wire + 'static) -> TokioIo<Box<dyn Wire>> {
    TokioIo::new(Box::new(stream))
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A server connection. HTTP sees a byte stream whose writes fail after `write_timeout` without progress, and whose shutdown
/// keeps reading for up to `linger` when the client is still sending (RFC 9112 section 9.6 describes why).
pub(super) struct Stream {
    socket: Socket,
    marks: Arc<Marks>,
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    linger: Duration,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(super) fn plain(socket: TcpStream, marks: Arc<Marks>, write_timeout: Duration, linger: Duration) -> Self {
        Self { socket: Socket::Plain(socket), marks, write_timeout, stalled: None, linger, lingering: None }
    }

    pub(super) fn tls(socket: TlsStream<TcpStream>, marks: Arc<Marks>, write_timeout: Duration, linger: Duration) -> Self {
        Self { socket: Socket::Tls(Box::new(socket)), marks, write_timeout, stalled: None, linger, lingering: None }
    }

    /// Did ALPN choose HTTP/2?
    pub(super) fn is_h2(&self) -> bool {
        match &self.socket {
            Socket::Plain(_) => false,
            Socket::Tls(tls) => tls.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// The certificates that the client has presented, its own first.
    pub(super) fn client_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match &self.socket {
            Socket::Plain(_) => None,
            Socket::Tls(tls) => tls.get_ref().1.peer_certificates(),
        }
    }

    /// Run a write step: progress disarms the timer, no progress arms it.
    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(&mut Socket, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = step(&mut self.socket, cx) {
            self.stalled = None;
            return Poll::Ready(done);
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no bytes")))
    }

    /// Discard what the client still sends, below TLS. Ready when there is nothing left to wait for.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0_u8; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            let socket = match &mut self.socket {
                Socket::Plain(tcp) => Pin::new(tcp),
                Socket::Tls(tls) => Pin::new(tls.get_mut().0),
            };
            let read = socket.poll_read(cx, &mut buffer);
            match read {
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Ok(())) => self.marks.unread.store(true, Ordering::Relaxed),
                Poll::Pending if !self.marks.unread.load(Ordering::Relaxed) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            let linger = self.linger;
            let deadline = self.lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(linger)));
            if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if read.is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Socket::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.watched(cx, |socket, cx| match socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Socket::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watched(cx, |socket, cx| match socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Socket::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
        })
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Plain(tcp) => tcp.is_write_vectored(),
            Socket::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched(cx, |socket, cx| match socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Socket::Tls(tls) => Pin::new(tls).poll_flush(cx),
        })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(self.watched(cx, |socket, cx| match socket {
                Socket::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
                Socket::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            }))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}
