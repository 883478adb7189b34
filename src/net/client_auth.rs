//! Certificates of clients: asked for in the handshake, judged for each source.
//!
//! ```text
//!  handshake   Recorder     asks when some source wants it; proves that the client has the key; trusts nobody
//!  connection  Presented    the chain, kept with the connection (a resumed session brings the chain of its first handshake)
//!  request     ClientTrust  one source's authority, list of revoked certificates and names: this chain, now?
//! ```
//!
//! So a client without a certificate, or with one for something else, is none the worse at sources that want none; and a reload with
//! a new authority or list counts at once, on open connections and resumed sessions too, because nothing about trust is decided once.
//!
//! What is refused, and why:
//! - **A list of revoked certificates that has expired refuses everybody** ([`ClientRefusal::ListExpired`]): whoever can keep a new list
//!   from reaching us could otherwise keep a stolen key in use for ever. The expiry is a metric, so that it can be seen coming.
//! - With a list, every certificate below the authority needs one from its issuer ([`ClientRefusal::ListMissing`] otherwise).
//! - A client certificate that is not X.509 v3, or a chain past the bounds in `limits`, ends the handshake.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use tokio::time::Instant;

use super::tls::{self, PROVIDER, TlsError};
use super::x509;
use crate::limits;
use crate::time::{self, Timestamp};

/// Why a client's certificate does not do for a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientRefusal {
    /// It has presented none.
    Missing,
    /// Not of the source's authority.
    UnknownIssuer,
    /// Past its validity.
    Expired,
    /// Before its validity.
    NotYetValid,
    /// On the list of revoked certificates.
    Revoked,
    /// The list of revoked certificates has expired.
    ListExpired,
    /// No list of revoked certificates from the issuer of one of the certificates.
    ListMissing,
    /// For none of the names that the source takes.
    Name,
    /// Anything else: a signature that does not fit, a use that is not allowed.
    Unusable,
}

impl ClientRefusal {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Missing,
        Self::UnknownIssuer,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::ListExpired,
        Self::ListMissing,
        Self::Name,
        Self::Unusable,
    ];

    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::UnknownIssuer => "unknown-issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Revoked => "revoked",
            Self::ListExpired => "crl-expired",
            Self::ListMissing => "crl-missing",
            Self::Name => "name",
            Self::Unusable => "unusable",
        }
    }

    fn of(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(error) = error else { return Self::Unusable };
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
                Self::ListExpired
            }
            CertificateError::UnknownRevocationStatus => Self::ListMissing,
            _ => Self::Unusable,
        }
    }
}

/// Whom a source takes deliveries from.
pub struct ClientTrust {
    /// Tells the verdicts of this trust from those of every other.
    id: u64,
    verifier: Arc<dyn ClientCertVerifier>,
    /// Its certificates and their subjects, for the handshake's question.
    authorities: Vec<(CertificateDer<'static>, Vec<u8>)>,
    /// Empty: any.
    names: Vec<String>,
    list_expires: Option<Timestamp>,
}

impl ClientTrust {
    /// From the PEM texts of an authority (one or several certificates) and its lists of revoked certificates. `names` are those that a
    /// certificate may be for, empty for any.
    pub fn from_pem(authority: &[u8], lists: Option<&[u8]>, names: Vec<String>) -> Result<Self, TlsError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut roots = RootCertStore::empty();
        let certificates = tls::certificates(authority)?;
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| TlsError::BadCertificate(error.to_string()))?;
        }
        let subjects = roots.subjects().into_iter().map(|subject| subject.as_ref().to_vec());
        let authorities = certificates.into_iter().zip(subjects).collect();
        let lists = lists.map(revocation_lists).transpose()?.unwrap_or_default();
        let list_expires = lists.iter().filter_map(|list| x509::list_expires(list)).min();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER))
            .with_crls(lists)
            .enforce_revocation_expiration()
            .build()
            .map_err(|error| TlsError::BadList(error.to_string()))?;
        Ok(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), verifier, authorities, names, list_expires })
    }

    /// When the first of the lists of revoked certificates expires.
    pub fn list_expires(&self) -> Option<Timestamp> {
        self.list_expires
    }

    /// Does what a connection has presented do, now?
    pub fn verify(&self, presented: Option<&Presented>) -> Result<(), ClientRefusal> {
        let presented = presented.ok_or(ClientRefusal::Missing)?;
        let now = Instant::now();
        let mut verdicts = presented.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.retain(|verdict| verdict.until > now);
        if let Some(known) = verdicts.iter().find(|verdict| verdict.trust == self.id) {
            return known.result;
        }
        let result = self.judge(&presented.chain, time::now());
        if verdicts.len() >= limits::CLIENT_VERDICTS_MAX {
            verdicts.remove(0);
        }
        verdicts.push(Verdict { trust: self.id, until: now + limits::CLIENT_VERDICT_AGE, result });
        result
    }

    fn judge(&self, chain: &[CertificateDer<'static>], now: Timestamp) -> Result<(), ClientRefusal> {
        let (leaf, intermediates) = chain.split_first().ok_or(ClientRefusal::Missing)?;
        let seconds = u64::try_from(now.seconds()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.verifier.verify_client_cert(leaf, intermediates, at).map_err(|error| ClientRefusal::of(&error))?;
        let named = || x509::names(leaf).iter().any(|name| self.names.iter().any(|ours| ours.eq_ignore_ascii_case(name)));
        if self.names.is_empty() || named() { Ok(()) } else { Err(ClientRefusal::Name) }
    }
}

fn revocation_lists(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists = CertificateRevocationListDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::BadList(error.to_string()))?;
    if lists.is_empty() { Err(TlsError::BadList("no PEM with `BEGIN X509 CRL`".to_owned())) } else { Ok(lists) }
}

impl fmt::Debug for ClientTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authorities, names, list_expires, .. } = self;
        f.debug_struct("ClientTrust")
            .field("authorities", &authorities.len())
            .field("names", names)
            .field("list_expires", list_expires)
            .finish_non_exhaustive()
    }
}

/// The authorities of some sources, each once.
pub fn authorities<'a>(trusts: impl Iterator<Item = &'a ClientTrust>) -> Authorities {
    let mut all: Vec<_> = trusts.flat_map(|trust| trust.authorities.iter().cloned()).collect();
    all.sort_unstable_by(|(a, _), (b, _)| a.as_ref().cmp(b.as_ref()));
    all.dedup();
    Authorities(all)
}

/// Authorities whose certificates clients are asked for: the handshake names them, and a client with several certificates chooses by
/// them. None means that clients are not asked. Two with the same name and other keys are not the same.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Authorities(Vec<(CertificateDer<'static>, Vec<u8>)>);

impl Authorities {
    /// What asks for them; `None` when there is nothing to ask for.
    pub(super) fn recorder(&self) -> Option<Recorder> {
        let mut subjects: Vec<&[u8]> = self.0.iter().map(|(_, subject)| subject.as_slice()).collect();
        subjects.sort_unstable();
        subjects.dedup();
        let authorities: Vec<_> = subjects.into_iter().map(|subject| DistinguishedName::from(subject.to_vec())).collect();
        (!authorities.is_empty()).then_some(Recorder { authorities })
    }
}

/// What a client has presented, as long as its connection. That it holds the key was proven in the handshake.
pub struct Presented {
    chain: Vec<CertificateDer<'static>>,
    verdicts: Mutex<Vec<Verdict>>,
}

struct Verdict {
    trust: u64,
    until: Instant,
    result: Result<(), ClientRefusal>,
}

impl Presented {
    /// A chain, the client's own certificate first; `None` when there is none.
    pub(super) fn new(chain: Option<&[CertificateDer<'_>]>) -> Option<Arc<Self>> {
        let chain: Vec<_> = chain?.iter().map(|one| one.clone().into_owned()).collect();
        (!chain.is_empty()).then(|| Arc::new(Self { chain, verdicts: Mutex::default() }))
    }

    /// What the client's own certificate is for, for the log: the first of its names, without control characters.
    pub fn name(&self) -> String {
        let name = self.chain.first().and_then(|leaf| x509::names(leaf).into_iter().next()).unwrap_or_default();
        name.chars().filter(|c| !c.is_control()).take(limits::ID_MAX_BYTES).collect()
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Asks for a certificate, takes any, and has the client prove that it holds the key.
#[derive(Debug)]
pub(super) struct Recorder {
    authorities: Vec<DistinguishedName>,
}

impl ClientCertVerifier for Recorder {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.authorities
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let bytes = intermediates.iter().fold(end_entity.len(), |sum, one| sum.saturating_add(one.len()));
        if intermediates.len() >= limits::CLIENT_CHAIN_MAX || bytes > limits::CLIENT_CHAIN_MAX_BYTES {
            return Err(rustls::Error::General("the client's certificate chain is too long".to_owned()));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
