//! Pending challenges: what an ACME server that comes to look is shown.
//!
//! - **TLS-ALPN-01** (RFC 8737): a handshake that offers `acme-tls/1` alone, answered with a self-signed certificate for the name
//!   that holds the hash of the key authorization. On the public listener.
//! - **HTTP-01** (RFC 8555, section 8.3): `GET /.well-known/acme-challenge/<token>` over plain HTTP, answered with the key
//!   authorization. On a listener of its own, where everything else is a bare 404.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;

use crate::net::serve::{Handler, Incoming, Outgoing};
use crate::net::tls::{PROVIDER, TlsError};

/// The protocol of TLS-ALPN-01.
pub(in crate::net) const ALPN: &[u8] = b"acme-tls/1";
/// Where HTTP-01 looks.
const PATH: &str = "/.well-known/acme-challenge/";

/// The handshake is that of an ACME server that checks a challenge.
pub(in crate::net) fn is_validation(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(ALPN) && offered.next().is_none())
}

/// Every challenge that is pending now. As many as an order has names, one order at a time.
#[derive(Default)]
pub struct Challenges {
    certificates: RwLock<HashMap<String, Arc<CertifiedKey>>>,
    tokens: RwLock<HashMap<String, String>>,
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenges").finish_non_exhaustive()
    }
}

impl Challenges {
    /// Be ready for TLS-ALPN-01: `digest` is SHA-256 of the key authorization.
    pub(in crate::net) fn await_handshake(&self, name: &str, digest: &[u8]) -> Result<(), TlsError> {
        let refused = |e: rcgen::Error| TlsError::Names(e.to_string());
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(refused)?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate().map_err(refused)?;
        let made = params.self_signed(&key).map_err(refused)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|why| TlsError::BadKey(why.to_owned()))?;
        // not compared with its key: webpki does not read a certificate with this extension, which must be critical
        let key = PROVIDER.key_provider.load_private_key(key).map_err(|e| TlsError::BadKey(e.to_string()))?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(made)], key);
        let mut waiting = self.certificates.write().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(name.to_ascii_lowercase(), Arc::new(certified));
        Ok(())
    }

    /// Be ready for HTTP-01.
    pub(in crate::net) fn await_request(&self, token: &str, authorization: &str) {
        let mut waiting = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(token.to_owned(), authorization.to_owned());
    }

    /// No challenge is pending any more.
    pub(in crate::net) fn clear(&self) {
        self.certificates.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.tokens.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The certificate for a handshake that checks `name`.
    pub(in crate::net) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let waiting = self.certificates.read().unwrap_or_else(PoisonError::into_inner);
        waiting.get(&name.to_ascii_lowercase()).cloned()
    }

    /// The answer to a request that checks a token.
    fn authorization(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(PATH)?;
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }
}

/// Answers HTTP-01.
pub struct Http01(pub Arc<Challenges>);

impl Handler for Http01 {
    async fn handle(&self, request: Incoming) -> Outgoing {
        let reads = request.method == Method::GET || request.method == Method::HEAD;
        let found = reads.then(|| self.0.authorization(&request.path)).flatten();
        let mut answer = Response::new(Full::new(Bytes::new()));
        match found {
            Some(authorization) => {
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                *answer.body_mut() = Full::new(Bytes::from(authorization));
            }
            None => *answer.status_mut() = StatusCode::NOT_FOUND,
        }
        answer
    }
}
