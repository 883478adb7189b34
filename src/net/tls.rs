//! The server's side of TLS: one certificate, swappable while connections are accepted.
//!
//! TLS 1.2 and 1.3 with ring's suites, in the order that suits this CPU (`ciphers`). ALPN offers `h2`, `http/1.1` and `http/1.0`: a client that asks for the last alone
//! (WordPress speaks HTTP/1.0, and newer libcurl then says so in ALPN) would otherwise be refused in the handshake. Sessions are
//! resumed from tickets that a swap makes void. No 0-RTT, no client certificates.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

pub(super) use super::ciphers::PROVIDER;
pub use super::self_made::{SelfMade, load_or_make, make_self_made};
use super::{self_made, x509};
use crate::metrics;
use crate::time::{self, Timestamp};

/// Why a certificate cannot be used. Never holds key material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsError {
    /// The PEM text holds no certificate.
    NoCertificate,
    /// The PEM text holds no private key, or an encrypted one.
    NoKey,
    /// A certificate cannot be read.
    BadCertificate(String),
    /// The private key cannot be read, or is of a kind we cannot sign with.
    BadKey(String),
    /// Certificate and key do not belong together.
    Mismatch,
    /// The new certificate has expired already.
    Expired(Timestamp),
    /// A name that no certificate can be made for.
    Names(String),
    /// A file could not be read or written.
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("no certificate found (PEM, `BEGIN CERTIFICATE`)"),
            Self::NoKey => f.write_str("no unencrypted private key found (PEM, `BEGIN PRIVATE KEY`)"),
            Self::BadCertificate(why) => write!(f, "the certificate cannot be read: {why}"),
            Self::BadKey(why) => write!(f, "the private key cannot be used: {why}"),
            Self::Mismatch => f.write_str("the private key does not belong to the certificate"),
            Self::Expired(at) => write!(f, "the certificate expired at {at}"),
            Self::Names(why) => write!(f, "no certificate can be made for these names: {why}"),
            Self::File { path, reason } => write!(f, "{}: {reason}", path.display()),
        }
    }
}

impl std::error::Error for TlsError {}

/// All certificates of a PEM text, in order; an error when there is none.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TlsError::BadCertificate(e.to_string()))?;
    if found.is_empty() { Err(TlsError::NoCertificate) } else { Ok(found) }
}

/// SHA-256 of a certificate as `openssl x509 -fingerprint -sha256` prints it: `AB:CD:...`.
pub fn fingerprint_of(certificate: &CertificateDer<'_>) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let pairs: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

/// The server's certificate and key, as it is now.
pub struct Identity {
    current: RwLock<Arc<Current>>,
}

struct Current {
    config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
    not_before: Timestamp,
    not_after: Timestamp,
    self_made: bool,
}

impl Identity {
    /// From a PEM chain (leaf first) and its PEM key. An expired certificate is taken with a warning: at a start, serving with it
    /// (and saying so) beats not serving. See [`Identity::not_after`].
    pub fn from_pem(cert: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let current = Current::from_pem(cert, key)?;
        if current.not_after <= time::now() {
            tracing::warn!(not_after = %current.not_after, "the server certificate has expired");
        }
        Ok(Self { current: RwLock::new(Arc::new(current)) })
    }

    /// Replace certificate and key for the connections to come. On any error, an expired certificate included, the old pair stays.
    pub fn swap(&self, cert: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let new = Current::from_pem(cert, key)?;
        if new.not_after <= time::now() {
            return Err(TlsError::Expired(new.not_after));
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        self.publish();
        Ok(())
    }

    /// SHA-256 of the leaf: what a client pins.
    pub fn fingerprint(&self) -> String {
        fingerprint_of(&self.now().leaf)
    }

    /// From when on the leaf is valid.
    pub fn not_before(&self) -> Timestamp {
        self.now().not_before
    }

    /// The leaf is for this host name or IP address.
    pub fn is_for(&self, name: &str) -> bool {
        let current = self.now();
        let Ok(name) = ServerName::try_from(name) else { return false };
        let parsed = ParsedCertificate::try_from(&current.leaf);
        parsed.is_ok_and(|leaf| rustls::client::verify_server_name(&leaf, &name).is_ok())
    }

    /// When the leaf expires.
    pub fn not_after(&self) -> Timestamp {
        self.now().not_after
    }

    /// True when the gateway made the certificate itself.
    pub fn self_made(&self) -> bool {
        self.now().self_made
    }

    /// The leaf, for clients in this process that pin it.
    pub fn leaf(&self) -> CertificateDer<'static> {
        self.now().leaf.clone()
    }

    /// What the next handshake uses.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.now().config)
    }

    /// Show this certificate in the metrics.
    pub(super) fn publish(&self) {
        let current = self.now();
        metrics::certificate(current.not_after, current.self_made);
    }

    fn now(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Current {
    fn from_pem(cert: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(cert)?;
        let leaf = chain.first().cloned().ok_or(TlsError::NoCertificate)?;
        let fields = x509::read(&leaf).ok_or_else(|| TlsError::BadCertificate("not an X.509 certificate".to_owned()))?;
        let (not_before, not_after) = (fields.not_before, fields.not_after);
        let self_made = fields.issuer == fields.subject && contains(fields.subject, self_made::COMMON_NAME.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
        let certified = certify(chain, key)?;
        Ok(Self { config: Arc::new(server_config(certified)?), leaf, not_before, not_after, self_made })
    }
}

fn certify(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey, TlsError> {
    let key = PROVIDER.key_provider.load_private_key(key).map_err(|e| TlsError::BadKey(e.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch),
        Err(other) => Err(TlsError::BadCertificate(other.to_string())),
    }
}

fn server_config(certified: CertifiedKey) -> Result<ServerConfig, TlsError> {
    let unusable = |e: rustls::Error| TlsError::BadKey(e.to_string());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    config.ignore_client_order = true; // see `ciphers`
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(unusable)?;
    // A client that keeps connections open resumes seldom: one ticket saves the second one's bytes.
    config.send_tls13_tickets = 1;
    Ok(config)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
