//! A client that writes bytes: for what no proper client would send.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use stockgate::sources::signature::{Algorithm, Encoding, sign};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::gateway::{Gateway, Site};
use crate::process::PATIENCE;

/// A TLS connection.
pub(crate) struct Raw(TlsStream<TcpStream>);

impl Raw {
    /// Connect as an HTTP/1.1 client does.
    pub(crate) async fn open(gateway: &Gateway, site: &Site) -> Self {
        Self::with(gateway, site, &rustls::version::TLS13, &[b"http/1.1"]).await
    }

    /// Connect with one version of TLS and these protocols on offer.
    pub(crate) async fn with(
        gateway: &Gateway,
        site: &Site,
        version: &'static SupportedProtocolVersion,
        protocols: &[&[u8]],
    ) -> Self {
        let pem = std::fs::read(site.data().join("tls-cert.pem")).expect("the certificate");
        let mut roots = RootCertStore::empty();
        for certificate in stockgate::net::tls::certificates(&pem).expect("a certificate") {
            roots.add(certificate).expect("a root");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        let socket = TcpStream::connect(gateway.public).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        Self(TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("a handshake"))
    }

    /// What ALPN chose.
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.0.get_ref().1.alpn_protocol()
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("it can be written");
        self.0.flush().await.expect("it can be written");
    }

    /// Write, and read until the other side closes or an answer's head and announced body are there.
    pub(crate) async fn exchange(&mut self, bytes: &[u8]) -> String {
        // an answer may come, and the connection close, before all is written
        drop(self.0.write_all(bytes).await);
        drop(self.0.flush().await);
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&seen).into_owned();
            if is_whole(&text) {
                return text;
            }
            let read = tokio::time::timeout(PATIENCE, self.0.read(&mut buffer)).await.expect("an answer in time");
            match read {
                Ok(0) | Err(_) => return text,
                Ok(n) => seen.extend_from_slice(&buffer[..n]),
            }
        }
    }
}

/// One HTTP/2 frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;

    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self { kind, flags, stream, payload: payload.to_vec() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a short frame").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

impl Raw {
    /// Read one HTTP/2 frame.
    pub(crate) async fn frame(&mut self) -> Frame {
        let mut head = [0; 9];
        let read = tokio::time::timeout(PATIENCE, self.0.read_exact(&mut head)).await;
        read.expect("a frame in time").expect("a frame");
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.expect("a whole frame");
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Frame { kind: head[3], flags: head[4], stream, payload }
    }
}

/// An answer with its head and the body that its length announces.
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0_usize)
}

/// The head of a POST with these header lines, each ended by CRLF.
pub(crate) fn head(path: &str, lines: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n")
}

/// The signature of a body as `gen` wants it.
pub(crate) fn tag_of(secret: &str, body: &str) -> String {
    Encoding::Hex.encode(&sign(Algorithm::HmacSha256, secret.as_bytes(), &[body.as_bytes()]))
}
