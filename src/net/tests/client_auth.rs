//! Certificates of clients, over real handshakes: who is asked, who is believed, and until when.

use std::sync::{Mutex, RwLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::net::client_auth::{Authorities, ClientRefusal, ClientTrust, authorities};
use crate::net::tls::{PROVIDER, TlsError};

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// A private authority with a name of its own.
fn authority(name: &str) -> Issuer {
    Issuer::self_signed(authority_params(name), KeyPair::generate().unwrap()).unwrap()
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A client's certificate in the making: serial number 7, for `wms.example`.
fn client_params() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["wms.example".to_owned()]).unwrap();
    params.serial_number = Some(SerialNumber::from(7));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// What a client shows: its chain and its key.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

fn issued(issuer: &Issuer, params: &CertificateParams) -> Shown {
    let key = KeyPair::generate().unwrap();
    Shown { chain: vec![params.signed_by(&key, issuer).unwrap().der().clone()], key }
}

/// A list of an authority that revokes these serial numbers, valid to the beginning of a year.
fn list(issuer: &Issuer, revoked: &[u64], year: i32) -> String {
    let row = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2025, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(year, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(row).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().pem().unwrap()
}

fn trust(issuer: &Issuer, list: Option<&str>, names: &[&str]) -> ClientTrust {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    ClientTrust::from_pem(issuer.pem().as_bytes(), list.map(str::as_bytes), names).unwrap()
}

/// Shows this chain whatever is asked for, with a key that need not belong to it; counts how often it was asked.
#[derive(Debug)]
struct Shows {
    certified: Option<Arc<CertifiedKey>>,
    asked: Mutex<u32>,
}

impl ResolvesClientCert for Shows {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.asked.lock().unwrap() += 1;
        self.certified.clone()
    }

    fn has_certs(&self) -> bool {
        self.certified.is_some()
    }
}

/// A client that remembers its sessions.
struct Caller {
    config: Arc<ClientConfig>,
    shows: Arc<Shows>,
}

impl Caller {
    fn new(server: &Identity, shown: Option<&Shown>, version: &'static SupportedProtocolVersion) -> Self {
        let certified = shown.map(|shown| {
            let key = PrivateKeyDer::try_from(shown.key.serialize_der()).unwrap();
            Arc::new(CertifiedKey::new(shown.chain.clone(), PROVIDER.key_provider.load_private_key(key).unwrap()))
        });
        let shows = Arc::new(Shows { certified, asked: Mutex::new(0) });
        let mut roots = RootCertStore::empty();
        roots.add(server.leaf()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::clone(&shows) as Arc<dyn ResolvesClientCert>);
        config.resumption = Resumption::in_memory_sessions(8);
        Self { config: Arc::new(config), shows }
    }

    async fn connect(&self, running: &Running) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        soon(TlsConnector::from(Arc::clone(&self.config)).connect(name, running.raw().await)).await
    }

    /// What a new connection is told, and whether it resumed a session. `None`: TLS itself failed.
    async fn ask(&self, running: &Running) -> Option<(String, HandshakeKind)> {
        let mut stream = self.connect(running).await.ok()?;
        let said = ask(&mut stream).await?;
        let kind = stream.get_ref().1.handshake_kind().expect("it is over");
        stream.shutdown().await.ok()?;
        Some((said, kind))
    }

    async fn said(&self, running: &Running) -> Option<String> {
        self.ask(running).await.map(|(said, _)| said)
    }

    fn asked(&self) -> u32 {
        *self.shows.asked.lock().unwrap()
    }
}

/// One request on an open connection; the answer's body.
async fn ask(stream: &mut TlsStream<TcpStream>) -> Option<String> {
    stream.write_all(b"GET /in/x HTTP/1.1\r\nhost: localhost\r\n\r\n").await.ok()?;
    let mut all = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let read = soon(stream.read(&mut buffer)).await.ok().filter(|n| *n > 0)?;
        all.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&all);
        if let Some((_, body)) = text.split_once("\r\n\r\n").filter(|(_, body)| body.ends_with(';')) {
            return Some(body.to_owned());
        }
    }
}

/// A server whose one source trusts what stands here; `None`: it wants no certificate.
struct Door {
    running: Running,
    identity: Arc<Identity>,
    trust: Arc<RwLock<Option<ClientTrust>>>,
}

impl Door {
    async fn open(first: Option<ClientTrust>) -> Self {
        let identity = identity();
        let trust = Arc::new(RwLock::new(None));
        let wanted = Arc::clone(&trust);
        let handler = move |request: Incoming| {
            let wanted = wanted.read().unwrap();
            let verdict = wanted.as_ref().map_or(Ok(()), |trust: &ClientTrust| trust.verify(request.certificate.as_deref()));
            let said = verdict.map_or_else(ClientRefusal::as_str, |()| "welcome");
            std::future::ready(outgoing(StatusCode::OK, format!("{said};")))
        };
        let server = Server::bind("public", "127.0.0.1:0".parse().unwrap(), Some(Arc::clone(&identity)), Limits::default());
        let server = server.await.unwrap().asking();
        let address = server.local_addr();
        let (stop, stopping) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(server.run(Arc::new(handler), stopping));
        let door = Self { running: Running { address, stop, task }, identity, trust };
        door.reload(first);
        door
    }

    /// As a reload does.
    fn reload(&self, new: Option<ClientTrust>) {
        self.identity.ask_clients(authorities(new.iter())).unwrap();
        *self.trust.write().unwrap() = new;
    }

    async fn says_to(&self, shown: Option<&Shown>) -> Option<String> {
        let mut all = Vec::new();
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            all.push(Caller::new(&self.identity, shown, version).said(&self.running).await);
        }
        assert_eq!(all[0], all[1], "both versions of TLS say the same");
        all.remove(0)
    }
}

#[tokio::test]
async fn a_certificate_of_the_authority_is_welcome_and_each_other_is_refused_with_its_reason() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let door = Door::open(Some(trust(&ours, Some(&list(&ours, &[9], 2090)), &[]))).await;

    assert_eq!(door.says_to(Some(&issued(&ours, &client_params()))).await.as_deref(), Some("welcome;"));
    assert_eq!(door.says_to(None).await.as_deref(), Some("missing;"));
    assert_eq!(door.says_to(Some(&issued(&theirs, &client_params()))).await.as_deref(), Some("unknown-issuer;"));
    // of the same name, with another key
    assert_eq!(door.says_to(Some(&issued(&authority("ours"), &client_params()))).await.as_deref(), Some("unusable;"));
    let mut params = client_params();
    params.serial_number = Some(SerialNumber::from(9));
    assert_eq!(door.says_to(Some(&issued(&ours, &params))).await.as_deref(), Some("revoked;"));
    let mut params = client_params();
    params.not_after = date_time_ymd(2021, 1, 1);
    assert_eq!(door.says_to(Some(&issued(&ours, &params))).await.as_deref(), Some("expired;"));
    let mut params = client_params();
    params.not_before = date_time_ymd(2089, 1, 1);
    assert_eq!(door.says_to(Some(&issued(&ours, &params))).await.as_deref(), Some("not-yet-valid;"));
    let mut params = client_params();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(
        door.says_to(Some(&issued(&ours, &params))).await.as_deref(),
        Some("unusable;"),
        "a server's is not for clients"
    );
    door.running.stopped().await;
}

#[tokio::test]
async fn who_shows_a_certificate_without_its_key_gets_no_connection() {
    let ours = authority("ours");
    let door = Door::open(Some(trust(&ours, None, &[]))).await;
    let good = issued(&ours, &client_params());
    let stolen = Shown { chain: good.chain.clone(), key: KeyPair::generate().unwrap() };
    assert_eq!(door.says_to(Some(&good)).await.as_deref(), Some("welcome;"));
    assert_eq!(door.says_to(Some(&stolen)).await, None);
    door.running.stopped().await;
}

#[tokio::test]
async fn nobody_is_asked_where_nobody_wants_a_certificate_and_others_go_on_where_somebody_does() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let unrelated = issued(&theirs, &client_params());
    let door = Door::open(None).await;
    let caller = Caller::new(&door.identity, Some(&unrelated), &rustls::version::TLS13);
    assert_eq!(caller.said(&door.running).await.as_deref(), Some("welcome;"));
    assert_eq!(caller.asked(), 0);

    // another source of the same listener wants one now
    door.identity.ask_clients(authorities([trust(&ours, None, &[])].iter())).unwrap();
    assert_eq!(door.says_to(None).await.as_deref(), Some("welcome;"));
    assert_eq!(door.says_to(Some(&unrelated)).await.as_deref(), Some("welcome;"));
    assert_eq!(caller.said(&door.running).await.as_deref(), Some("welcome;"));
    assert_eq!(caller.asked(), 1, "a session from before the question is not resumed");
    door.running.stopped().await;
}

#[tokio::test]
async fn a_name_must_be_one_of_those_that_are_taken() {
    let ours = authority("ours");
    let good = issued(&ours, &client_params());
    let mut common = CertificateParams::default();
    common.distinguished_name.push(DnType::CommonName, "wms-7");
    common.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let common = issued(&ours, &common);
    let door = Door::open(Some(trust(&ours, None, &["other.example", "WMS.example"]))).await;
    assert_eq!(door.says_to(Some(&good)).await.as_deref(), Some("welcome;"));
    assert_eq!(door.says_to(Some(&common)).await.as_deref(), Some("name;"));
    door.reload(Some(trust(&ours, None, &["wms-7"])));
    assert_eq!(
        door.says_to(Some(&good)).await.as_deref(),
        Some("name;"),
        "its common name does not count beside an alternative one"
    );
    assert_eq!(door.says_to(Some(&common)).await.as_deref(), Some("welcome;"));
    door.running.stopped().await;
}

#[tokio::test]
async fn a_list_that_has_expired_or_is_missing_refuses_everybody() {
    let ours = authority("ours");
    let good = issued(&ours, &client_params());
    let expired = trust(&ours, Some(&list(&ours, &[], 2021)), &[]);
    assert_eq!(expired.list_expires(), crate::time::Timestamp::parse_rfc3339("2021-01-01T00:00:00Z"));
    let door = Door::open(Some(expired)).await;
    assert_eq!(door.says_to(Some(&good)).await.as_deref(), Some("crl-expired;"));
    // the list of somebody else says nothing about ours
    let other = authority("other");
    door.reload(Some(trust(&ours, Some(&list(&other, &[], 2090)), &[])));
    assert_eq!(door.says_to(Some(&good)).await.as_deref(), Some("crl-missing;"));
    // one that is not signed by the authority whose name it bears
    door.reload(Some(trust(&ours, Some(&list(&authority("ours"), &[], 2090)), &[])));
    assert_ne!(door.says_to(Some(&good)).await.as_deref(), Some("welcome;"));
    door.reload(Some(trust(&ours, Some(&list(&ours, &[], 2090)), &[])));
    assert_eq!(door.says_to(Some(&good)).await.as_deref(), Some("welcome;"));
    door.running.stopped().await;
}

#[tokio::test]
async fn an_intermediate_authority_is_followed_and_needs_a_list_of_its_own() {
    let root = authority("root");
    let middle = Issuer::signed_by(authority_params("middle"), KeyPair::generate().unwrap(), &root).unwrap();
    let mut good = issued(&middle, &client_params());
    let alone = Shown { chain: good.chain.clone(), key: KeyPair::try_from(good.key.serialize_der()).unwrap() };
    good.chain.push(middle.der().clone());
    let door = Door::open(Some(trust(&root, None, &[]))).await;
    assert_eq!(door.says_to(Some(&good)).await.as_deref(), Some("welcome;"));
    assert_eq!(door.says_to(Some(&alone)).await.as_deref(), Some("unknown-issuer;"), "the chain is the client's to show");
    door.reload(Some(trust(&root, Some(&list(&root, &[], 2090)), &[])));
    assert_eq!(door.says_to(Some(&good)).await.as_deref(), Some("crl-missing;"));
    let both = [list(&root, &[], 2090), list(&middle, &[7], 2090)].concat();
    door.reload(Some(trust(&root, Some(&both), &[])));
    assert_eq!(door.says_to(Some(&good)).await.as_deref(), Some("revoked;"));
    door.running.stopped().await;
}

#[tokio::test]
async fn a_reload_counts_on_open_connections_and_resumed_sessions() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let ours = authority("ours");
        let door = Door::open(Some(trust(&ours, Some(&list(&ours, &[], 2090)), &[]))).await;
        let caller = Caller::new(&door.identity, Some(&issued(&ours, &client_params())), version);
        assert_eq!(caller.ask(&door.running).await, Some(("welcome;".to_owned(), HandshakeKind::Full)));
        let resumed = Some(("welcome;".to_owned(), HandshakeKind::Resumed));
        assert_eq!(caller.ask(&door.running).await, resumed, "a session keeps its certificate");
        let mut open = caller.connect(&door.running).await.unwrap();
        assert_eq!(ask(&mut open).await.as_deref(), Some("welcome;"));

        door.reload(Some(trust(&ours, Some(&list(&ours, &[7], 2090)), &[])));
        assert_eq!(ask(&mut open).await.as_deref(), Some("revoked;"), "on the open connection");
        let resumed = Some(("revoked;".to_owned(), HandshakeKind::Resumed));
        assert_eq!(caller.ask(&door.running).await, resumed, "a new list alone leaves sessions as they are");

        // another authority of the same name: its client must be able to show its new certificate
        let next = authority("ours");
        door.reload(Some(trust(&next, None, &[])));
        let (_, kind) = caller.ask(&door.running).await.expect("an answer");
        assert_eq!(kind, HandshakeKind::Full, "{version:?}");
        door.running.stopped().await;
    }
}

#[tokio::test]
async fn a_chain_that_is_too_long_ends_the_handshake() {
    let ours = authority("ours");
    let door = Door::open(Some(trust(&ours, None, &[]))).await;
    let mut shown = issued(&ours, &client_params());
    shown.chain.extend(std::iter::repeat_n(ours.der().clone(), crate::limits::CLIENT_CHAIN_MAX - 1));
    assert_eq!(door.says_to(Some(&shown)).await.as_deref(), Some("welcome;"));
    shown.chain.push(ours.der().clone());
    assert_eq!(door.says_to(Some(&shown)).await, None);
    let mut large = client_params();
    large.distinguished_name.push(DnType::OrganizationName, "x".repeat(crate::limits::CLIENT_CHAIN_MAX_BYTES));
    assert_eq!(door.says_to(Some(&issued(&ours, &large))).await, None);
    door.running.stopped().await;
}

#[test]
fn what_is_no_authority_or_no_list_is_told() {
    let ours = authority("ours");
    let pem = ours.pem();
    let refused = |authority: &str, list: Option<&str>| {
        ClientTrust::from_pem(authority.as_bytes(), list.map(str::as_bytes), Vec::new()).expect_err("refused")
    };
    assert_eq!(refused("", None), TlsError::NoCertificate);
    assert!(matches!(refused(&pem, Some("")), TlsError::BadList(_)));
    assert!(matches!(refused(&pem, Some(&pem)), TlsError::BadList(_)));
    let broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    assert!(matches!(refused(&pem, Some(broken)), TlsError::BadList(_)));
    assert!(authorities([].iter()) == Authorities::default());
}
