//! Challenges as an ACME server sees them.

use super::*;
use crate::net::acme::challenge::{ALPN, Http01};

/// A handshake that offers these protocols for a name: the leaf that it was shown, and the protocol that was chosen.
async fn handshake(address: SocketAddr, name: &str, offered: Vec<&[u8]>) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&tls::PROVIDER))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|p| p.to_vec()).collect();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = soon(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.ok()?;
    let seen = {
        let connection = stream.get_ref().1;
        let leaf = connection.peer_certificates().unwrap()[0].to_vec();
        (leaf, connection.alpn_protocol().map(<[u8]>::to_vec))
    };
    if seen.1.as_deref() == Some(ALPN) {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.ok();
        assert_eq!(rest(&mut stream).await, "", "after such a handshake nothing is served");
    }
    Some(seen)
}

/// Looks at no certificate: what it is shown is what is tested.
#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        tls::PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn a_validation_is_shown_the_challenge_and_everybody_else_the_certificate() {
    let identity = identity();
    let running = Running::start(Some(Arc::clone(&identity)), Limits::default(), echo).await;
    let usual = identity.leaf().to_vec();
    let show = |name: &'static str, offered: Vec<&'static [u8]>| handshake(running.address, name, offered);
    assert_eq!(show("gate.example.com", vec![ALPN]).await, None, "no challenge is pending");

    let digest = [7; 32];
    identity.challenges().await_handshake("Gate.example.com", &digest).unwrap();
    let (leaf, protocol) = show("gate.example.com", vec![ALPN]).await.unwrap();
    assert_eq!(protocol.as_deref(), Some(ALPN));
    // RFC 8737, section 3: id-pe-acmeIdentifier, critical, an OCTET STRING of the digest in the extension's OCTET STRING
    let extension = [&[0x06, 8, 0x2b, 6, 1, 5, 5, 7, 1, 0x1f, 1, 1, 0xff, 4, 34, 4, 32][..], &digest].concat();
    assert!(leaf.windows(extension.len()).any(|w| w == extension), "{leaf:02x?}");
    assert!(leaf.windows(16).any(|w| w.eq_ignore_ascii_case(b"gate.example.com")));

    assert_eq!(show("other.example.com", vec![ALPN]).await, None, "another name is not ours to prove");
    for offered in [vec![b"http/1.1".as_slice()], vec![b"h2", ALPN], vec![ALPN, b"http/1.1"], vec![]] {
        let (leaf, protocol) = show("gate.example.com", offered.clone()).await.unwrap();
        assert_eq!(leaf, usual, "{offered:?}");
        assert_ne!(protocol.as_deref(), Some(ALPN), "{offered:?}");
    }
    identity.challenges().clear();
    assert_eq!(show("gate.example.com", vec![ALPN]).await, None, "and none when the attempt is over");
    running.stopped().await;
}

#[tokio::test]
async fn the_plain_listener_answers_its_tokens_and_nothing_else() {
    let identity = identity();
    identity.challenges().await_request("token-1", "token-1.thumbprint");
    let limits = Limits { body_bytes: 0, bodies_buffered: 0, ..Limits::default() };
    let server = Running::start(None, limits, Http01(identity.challenges())).await;
    let running = &server;
    let ask = |request: &'static str| async move {
        let said = talk(running, format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await;
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
    };
    let is = |status: &str, body: &str| (status.to_owned(), body.to_owned());
    assert_eq!(ask("GET /.well-known/acme-challenge/token-1").await, is("200", "token-1.thumbprint"));
    assert_eq!(ask("HEAD /.well-known/acme-challenge/token-1").await, is("200", ""));
    for other in [
        "GET /.well-known/acme-challenge/token-2",
        "GET /.well-known/acme-challenge/",
        "GET /.well-known/acme-challenge/../acme-challenge/token-1",
        "POST /.well-known/acme-challenge/token-1",
        "GET /",
        "GET /in/shop",
    ] {
        assert_eq!(ask(other).await, is("404", ""), "{other}");
    }
    identity.challenges().clear();
    assert_eq!(ask("GET /.well-known/acme-challenge/token-1").await, is("404", ""));
    server.stopped().await;
}
