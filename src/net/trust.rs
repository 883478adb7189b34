//! Whom a client trusts: the system's roots, given roots, or exactly one certificate.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::tls::{self, PROVIDER};

/// Where systems keep their root certificates as one PEM file: Debian and Alpine, Fedora (old and new path), openSUSE, BSD.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom to trust.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The system's root certificates, read once from the first bundle found.
    SystemRoots,
    /// These roots only.
    Roots(Vec<CertificateDer<'static>>),
    /// The server whose certificate has this SHA-256: no name, issuer or validity is looked at, the key is still proven.
    Fingerprint([u8; 32]),
}

/// Why there is nobody to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustError {
    /// No bundle of root certificates at any of the usual places.
    NoSystemRoots,
    /// None of the given roots can be used.
    NoUsableRoots,
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSystemRoots => "no root certificates found; install ca-certificates or configure a CA file",
            Self::NoUsableRoots => "none of the root certificates can be used",
        })
    }
}

impl std::error::Error for TrustError {}

/// Read a SHA-256 fingerprint: 64 hex digits, with or without colons, any case.
pub fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.trim().chars().filter(|c| *c != ':').collect();
    data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?.try_into().ok()
}

impl Trust {
    /// The TLS settings that follow from it, without ALPN.
    pub(super) fn config(self) -> Result<ClientConfig, TrustError> {
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::Fingerprint(sha256) => Arc::new(Pinned { sha256 }),
            Self::SystemRoots => verify_with(system_roots()?)?,
            Self::Roots(roots) => verify_with(roots)?,
        };
        Ok(ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("ring's provider has suites for TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth())
    }
}

fn verify_with(roots: Vec<CertificateDer<'static>>) -> Result<Arc<WebPkiServerVerifier>, TrustError> {
    let mut store = RootCertStore::empty();
    let (taken, ignored) = store.add_parsable_certificates(roots);
    if ignored > 0 {
        tracing::debug!(taken, ignored, "some root certificates cannot be used");
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&PROVIDER))
        .build()
        .map_err(|_| TrustError::NoUsableRoots)
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, TrustError> {
    SYSTEM_BUNDLES
        .iter()
        .filter_map(|path| std::fs::read(Path::new(path)).ok())
        .find_map(|pem| tls::certificates(&pem).ok())
        .ok_or(TrustError::NoSystemRoots)
}

/// Accepts one certificate, by its hash. That the server owns its key is verified like anywhere else.
#[derive(Debug)]
struct Pinned {
    sha256: [u8; 32],
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if ring::digest::digest(&ring::digest::SHA256, end_entity).as_ref() == self.sha256 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
