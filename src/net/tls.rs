//! The server's side of TLS: one certificate, swappable while connections are accepted.
//!
//! TLS 1.2 and 1.3 with ring's suites, in the order that suits this CPU (`ciphers`). ALPN offers `h2`, `http/1.1` and `http/1.0`: a client that asks for the last alone
//! (WordPress speaks HTTP/1.0, and newer libcurl then says so in ALPN) would otherwise be refused in the handshake. Sessions are
//! resumed from tickets that a swap makes void. No 0-RTT. Clients are asked for a certificate only where somebody wants one
//! ([`client_auth`](super::client_auth)).
//!
//! A handshake that offers `acme-tls/1` alone is an ACME server's (RFC 8737): it gets the certificate of a pending challenge, or none.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::acme::challenge::{ALPN, Challenges, is_validation};
pub(super) use super::ciphers::PROVIDER;
use super::client_auth::{Authorities, Recorder};
pub use super::self_made::{SelfMade, keep, load_or_make, make_self_made, sync_directory};
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
    /// A list of revoked certificates cannot be read.
    BadList(String),
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
            Self::BadList(why) => write!(f, "the list of revoked certificates (CRL) cannot be read: {why}"),
            Self::File { path, reason } => write!(f, "{}: {reason}", path.display()),
        }
    }
}

impl std::error::Error for TlsError {}

impl TlsError {
    /// What `stockgate_tls_certificate_reloads_total` can say.
    const OUTCOMES: [&'static str; 5] = ["ok", "mismatch", "expired", "unreadable", "unusable"];

    /// The word for it there.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Mismatch => "mismatch",
            Self::Expired(_) => "expired",
            Self::File { .. } => "unreadable",
            Self::NoCertificate
            | Self::NoKey
            | Self::BadCertificate(_)
            | Self::BadKey(_)
            | Self::Names(_)
            | Self::BadList(_) => "unusable",
        }
    }
}

/// One certificate, in DER.
pub type Certificate = CertificateDer<'static>;

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
    challenges: Arc<Challenges>,
    /// Why the pair that was offered last was not taken; `None`: it was.
    refused: Mutex<Option<String>>,
    /// The listeners that use it, for the metrics.
    listeners: Mutex<BTreeSet<&'static str>>,
}

struct Current {
    /// SHA-256 of what it was made of.
    digest: [u8; 32],
    /// For handshakes that ask the client for nothing.
    config: Arc<ServerConfig>,
    /// For those that ask for a certificate of these authorities; the same as `config` when there are none.
    asking: Arc<ServerConfig>,
    authorities: Authorities,
    resolver: Arc<dyn ResolvesServerCert>,
    leaf: CertificateDer<'static>,
    not_before: Timestamp,
    not_after: Timestamp,
    self_made: bool,
}

impl Identity {
    /// From a PEM chain (leaf first) and its PEM key. An expired certificate is taken with a warning: at a start, serving with it
    /// (and saying so) beats not serving. See [`Identity::not_after`].
    pub fn from_pem(cert: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let challenges = Arc::default();
        let current = Current::from_pem(cert, key, &challenges, Authorities::default())?;
        if current.not_after <= time::now() {
            tracing::warn!(not_after = %current.not_after, "the server certificate has expired");
        }
        let current = RwLock::new(Arc::new(current));
        Ok(Self { current, challenges, refused: Mutex::default(), listeners: Mutex::default() })
    }

    /// Replace certificate and key for the connections to come. On any error, an expired certificate included, the old pair stays.
    /// The pair that is in use already is taken without a change, so that sessions can still be resumed.
    pub fn swap(&self, cert: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let unchanged = self.uses(cert, key);
        let result = if unchanged { Ok(()) } else { self.replace(cert, key) };
        let why = result.as_ref().err().map(ToString::to_string);
        if !unchanged {
            let outcome = result.as_ref().err().map_or("ok", TlsError::outcome);
            self.each_listener(|listener| metrics::certificate_reloads(listener, outcome, 1));
        }
        self.refuse(why);
        self.publish();
        result
    }

    fn replace(&self, cert: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let new = Current::from_pem(cert, key, &self.challenges, self.now().authorities.clone())?;
        if new.not_after <= time::now() {
            return Err(TlsError::Expired(new.not_after));
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }

    /// From now on ask clients of the public listener for a certificate of these authorities; of none: do not ask. A change makes
    /// session tickets void: a session that was begun without the question could never be asked.
    pub fn ask_clients(&self, authorities: Authorities) -> Result<(), TlsError> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.authorities != authorities {
            *current = Arc::new(current.asking(authorities)?);
        }
        Ok(())
    }

    /// This very pair is in use.
    pub fn uses(&self, cert: &[u8], key: &[u8]) -> bool {
        self.now().digest == digest_of(cert, key)
    }

    /// Remember that a new pair could not even be read.
    pub fn unreadable(&self, error: &TlsError) {
        self.each_listener(|listener| metrics::certificate_reloads(listener, error.outcome(), 1));
        self.refuse(Some(error.to_string()));
        self.publish();
    }

    fn refuse(&self, why: Option<String>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why the pair that was offered last was not taken.
    pub fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where pending ACME challenges are put.
    pub fn challenges(&self) -> Arc<Challenges> {
        Arc::clone(&self.challenges)
    }

    /// How RFC 9773, section 4.1 names the leaf: key identifier of its issuer and serial number, each in base64url; `None` when
    /// the leaf does not name its issuer's key.
    pub fn renewal_id(&self) -> Option<(String, String)> {
        let current = self.now();
        let fields = x509::read(&current.leaf)?;
        let text = |bytes| data_encoding::BASE64URL_NOPAD.encode(bytes);
        Some((text(fields.authority?), text(fields.serial)))
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

    /// What the next handshake uses; `ask` for a client's certificate when there are authorities to ask for.
    pub(super) fn config(&self, ask: bool) -> Arc<ServerConfig> {
        let current = self.now();
        Arc::clone(if ask { &current.asking } else { &current.config })
    }

    /// A listener uses it: show it in the metrics as that listener's.
    pub(super) fn used_by(&self, listener: &'static str) {
        if self.listeners.lock().unwrap_or_else(PoisonError::into_inner).insert(listener) {
            for outcome in TlsError::OUTCOMES {
                metrics::certificate_reloads(listener, outcome, 0);
            }
        }
        self.publish();
    }

    /// Share of the leaf's lifetime that is left at a moment: 1 when it is new, 0 when it has expired.
    pub fn remaining(&self, now: Timestamp) -> f64 {
        let current = self.now();
        let whole = current.not_after.since(current.not_before);
        let left = current.not_after.since(now).min(whole);
        if whole.is_zero() { 0.0 } else { left.div_duration_f64(whole) }
    }

    /// Show this certificate in the metrics: its share of lifetime left falls by itself.
    pub fn publish(&self) {
        let (current, ratio, refused) = (self.now(), self.remaining(time::now()), self.refused().is_some());
        self.each_listener(|listener| {
            metrics::certificate(listener, current.not_after, ratio, current.self_made);
            metrics::certificate_refused(listener, refused);
        });
    }

    fn each_listener(&self, show: impl Fn(&'static str)) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|listener| show(listener));
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
    fn from_pem(cert: &[u8], key: &[u8], challenges: &Arc<Challenges>, authorities: Authorities) -> Result<Self, TlsError> {
        let digest = digest_of(cert, key);
        let chain = certificates(cert)?;
        let leaf = chain.first().cloned().ok_or(TlsError::NoCertificate)?;
        let fields = x509::read(&leaf).ok_or_else(|| TlsError::BadCertificate("not an X.509 certificate".to_owned()))?;
        let (not_before, not_after) = (fields.not_before, fields.not_after);
        let self_made = fields.issuer == fields.subject && contains(fields.subject, self_made::COMMON_NAME.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
        let usual = Arc::new(certify(chain, key)?);
        let resolver: Arc<dyn ResolvesServerCert> = Arc::new(Resolver { usual, challenges: Arc::clone(challenges) });
        let (config, asking) = configs(&resolver, &authorities)?;
        Ok(Self { digest, config, asking, authorities, resolver, leaf, not_before, not_after, self_made })
    }

    /// The same certificate with another question.
    fn asking(&self, authorities: Authorities) -> Result<Self, TlsError> {
        let (config, asking) = configs(&self.resolver, &authorities)?;
        let (resolver, leaf) = (Arc::clone(&self.resolver), self.leaf.clone());
        let Self { digest, not_before, not_after, self_made, .. } = *self;
        Ok(Self { digest, config, asking, authorities, resolver, leaf, not_before, not_after, self_made })
    }
}

/// For handshakes that ask for nothing, and for those that ask for a client's certificate.
fn configs(
    resolver: &Arc<dyn ResolvesServerCert>,
    authorities: &Authorities,
) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), TlsError> {
    let plain = Arc::new(server_config(Arc::clone(resolver), None)?);
    let asking = match authorities.recorder() {
        None => Arc::clone(&plain),
        Some(recorder) => Arc::new(server_config(Arc::clone(resolver), Some(recorder))?),
    };
    Ok((plain, asking))
}

/// SHA-256 of a pair; what lies between them is in no PEM text.
pub fn digest_of(cert: &[u8], key: &[u8]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in [cert, b"\0", key] {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The certificate for a handshake: that of a pending challenge for an ACME server, the usual one for everybody else.
#[derive(Debug)]
struct Resolver {
    usual: Arc<CertifiedKey>,
    challenges: Arc<Challenges>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if is_validation(&hello) { self.challenges.certificate(hello.server_name()?) } else { Some(Arc::clone(&self.usual)) }
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

fn server_config(resolver: Arc<dyn ResolvesServerCert>, recorder: Option<Recorder>) -> Result<ServerConfig, TlsError> {
    let unusable = |e: rustls::Error| TlsError::BadKey(e.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable)?;
    let builder = match recorder {
        None => builder.with_no_client_auth(),
        Some(recorder) => builder.with_client_cert_verifier(Arc::new(recorder)),
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec(), ALPN.to_vec()];
    config.ignore_client_order = true; // see `ciphers`
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(unusable)?;
    // A client that keeps connections open resumes seldom: one ticket saves the second one's bytes.
    config.send_tls13_tickets = 1;
    Ok(config)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
