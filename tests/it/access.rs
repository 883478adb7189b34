//! Who may deliver and who may ask, with the real binary: client certificates, a proxy in front, tokens.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use stockgate::net::client::{Alpn, Answer, BaseUrl, Client, Trust};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::gateway::{ABSOLUTE, Gateway, SECRET, Site};
use crate::process::{Finished, PATIENCE, run, stockgate};
use crate::raw::{head, tag_of};

// ---- tokens -----------------------------------------------------------------------------------------------------------

/// `stockgate token ..` on a site's data.
fn token(site: &Site, args: &[&str]) -> Finished {
    run(stockgate().arg("token").args(args).arg("--data").arg(site.data()), "")
}

/// Make a token; its text is kept in a file of the same name.
fn made(site: &Site, name: &str, role: &str) -> String {
    let text = token(site, &["new", "--role", role, "--name", name]).ok();
    site.write(name, &text);
    text.trim().to_owned()
}

fn guarded(site: &Site) -> Command {
    let mut command = site.serve();
    command.env("STOCKGATE__ADMIN__TLS", "true").env("STOCKGATE__ADMIN__TOKENS", "required");
    command
}

async fn ask(gateway: &Gateway, site: &Site, target: &str, token: Option<&str>) -> Answer {
    let fingerprint = Gateway::fingerprint(&site.data().join("tls-cert.pem"));
    let client = Client::new(Trust::Fingerprint(fingerprint), Alpn::Both).expect("a client");
    let base = BaseUrl::parse(&format!("https://{}", gateway.admin)).expect("a base");
    let mut request = Request::get(target);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    client.send(&base, request.body(Bytes::new()).expect("a request")).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_their_roles_over_tls() {
    let site = Site::new(ABSOLUTE);
    let refused = run(&mut guarded(&site), "").failed(78);
    assert!(refused.contains("stockgate token new --role operator"), "{refused}");

    let (read, operator) = (made(&site, "prometheus", "read"), made(&site, "ops", "operator"));
    let kept = site.data().join("admin-tokens.json");
    assert_eq!(fs::metadata(&kept).expect("it is there").permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&kept).expect("reads");
    assert!(!text.contains(&read) && !text.contains(&operator), "only hashes are kept");
    assert!(token(&site, &["new", "--role", "read", "--name", "ops"]).failed(1).contains("token revoke ops"));
    token(&site, &["new", "--role", "read", "--name", "Ops"]).failed(2);
    token(&site, &["new", "--role", "admin", "--name", "x"]).failed(2);
    token(&site, &["new", "--role", "read", "--name", "x", "--expires", "soon"]).failed(2);

    let gateway = Gateway::start(&mut guarded(&site));
    let status = async |target: &str, token: Option<&str>| ask(&gateway, &site, target, token).await.status.as_u16();
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(status(path, None).await, 200, "{path}");
    }
    let without = ask(&gateway, &site, "/metrics", None).await;
    assert_eq!(without.status, StatusCode::UNAUTHORIZED);
    assert_eq!(without.headers["www-authenticate"], "Bearer realm=\"stockgate\"");
    assert_eq!(without.headers["content-type"], "application/problem+json");
    assert_eq!(status("/metrics", Some(&read)).await, 200);
    assert_eq!(status("/api/v1/status", Some(&format!("{read}x"))).await, 401);
    assert_eq!(status("/api/v1/backup/log/journal", Some(&read)).await, 403);
    assert_eq!(status("/api/v1/backup/log/journal", Some(&operator)).await, 200);

    // the command line
    let url = format!("https://{}", gateway.admin);
    let certificate = site.data().join("tls-cert.pem").display().to_string();
    let command = |args: &[&str], token: Option<&str>| {
        let mut command = stockgate();
        command.args(args).args(["--admin", &url, "--ca-file", &certificate]).current_dir(site.path());
        command.args(token.iter().flat_map(|file| ["--token-file", file]));
        run(&mut command, "")
    };
    assert!(command(&["sources"], None).failed(1).contains("--token-file"));
    assert!(command(&["sources"], Some("prometheus")).ok().contains("gen"));
    assert!(command(&["reload"], Some("prometheus")).failed(1).contains("operator"));
    assert!(command(&["reload"], Some("ops")).ok().contains("1 sources in force"));
    assert!(command(&["backup", "copy"], Some("ops")).ok().contains("backed up"));
    assert!(command(&["sources"], Some("gen.secret")).failed(1).contains("unknown"));
    let untrusted = run(stockgate().args(["sources", "--admin", &url, "--token-file", "ops"]).current_dir(site.path()), "");
    assert_ne!(untrusted.code, Some(0), "a certificate that nobody vouches for gets no token");
    // by the configuration and the environment alone
    let mut local = stockgate();
    local.args(["sources", "--config"]).arg(site.config()).current_dir(site.path());
    local.env("STOCKGATE__ADMIN__ADDRESS", gateway.admin.to_string()).env("STOCKGATE__ADMIN__TLS", "true");
    local.env("STOCKGATE__DATA__DIRECTORY", site.data()).env("STOCKGATE_TOKEN_FILE", site.path().join("prometheus"));
    assert!(run(&mut local, "").ok().contains("gen"));

    // at once, without a reload
    let late = made(&site, "late", "read");
    assert_eq!(status("/api/v1/status", Some(&late)).await, 200);
    let listed = token(&site, &["list"]).ok();
    assert!(listed.lines().any(|l| l.starts_with("prometheus  read")) && !listed.contains(&late), "{listed}");
    token(&site, &["revoke", "late"]).ok();
    assert_eq!(status("/api/v1/status", Some(&late)).await, 401);
    assert!(token(&site, &["revoke", "late"]).failed(1).contains("there are prometheus, ops"));
    let names = token(&site, &["list", "--json"]).json();
    assert_eq!(names["tokens"].as_array().expect("a list").len(), 2);

    let (code, log) = gateway.stop();
    assert_eq!(code, Some(0));
    assert!(log.contains("is refused for its token") && log.contains("token=\"ops\""), "{log}");
    for secret in [&read, &operator, &late] {
        assert!(!log.contains(secret.as_str()), "a token is in the log");
    }
}

// ---- certificates of clients ------------------------------------------------------------------------------------------

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a warehouse's own authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Issuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

fn revoking(issuer: &Issuer, serials: &[u64]) -> String {
    let row = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2025, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2090, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(row).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).expect("a list").pem().expect("PEM")
}

type Pair = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// A client's certificate with serial number 7.
fn client_of(issuer: &Issuer) -> Pair {
    let mut params = CertificateParams::new(vec!["wms.example".to_owned()]).expect("a name");
    params.serial_number = Some(SerialNumber::from(7));
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a certificate").der().clone();
    (certificate, PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
}

/// Connect, with what a proxy sends before TLS and with a certificate, if any.
async fn connect(
    gateway: &Gateway,
    site: &Site,
    before: &str,
    pair: Option<&Pair>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let pem = fs::read(site.data().join("tls-cert.pem")).expect("the certificate");
    for certificate in stockgate::net::tls::certificates(&pem).expect("a certificate") {
        roots.add(certificate).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .with_root_certificates(roots);
    let config = match pair {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            config.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).expect("it is its key")
        }
    };
    let mut socket = TcpStream::connect(gateway.public).await.expect("it listens");
    socket.write_all(before.as_bytes()).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    tokio::time::timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, socket)).await.expect("in time")
}

/// Deliver on an open connection; the answer's first line and what follows its head.
async fn deliver(stream: &mut TlsStream<TcpStream>, id: &str) -> (String, String) {
    let body = r#"{"sku":"A-1","quantity":5}"#;
    let lines =
        format!("content-length: {}\r\nx-delivery-id: {id}\r\nx-signature: {}\r\n", body.len(), tag_of(SECRET, body));
    stream.write_all(format!("{}{body}", head("/in/gen", &lines)).as_bytes()).await.expect("written");
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("in time").expect("a whole head");
        all.push(byte);
    }
    let text = String::from_utf8(all).expect("text").to_ascii_lowercase();
    let first = text.lines().next().unwrap_or_default().to_owned();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
    (first, length.unwrap_or_default())
}

async fn status_of(stream: &mut TlsStream<TcpStream>, id: &str) -> String {
    deliver(stream, id).await.0.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_takes_only_clients_of_its_authority_and_a_reload_revokes_one() {
    let site = Site::new(&format!("{ABSOLUTE}\nclient_ca_file = \"ca.pem\"\nclient_crl_file = \"ca.crl\"\n"));
    let (ours, theirs) = (authority(), authority());
    site.write("ca.pem", &ours.pem());
    site.write("ca.crl", &revoking(&ours, &[]));
    let (good, stranger) = (client_of(&ours), client_of(&theirs));
    let gateway = site.start();

    let mut welcome = connect(&gateway, &site, "", Some(&good)).await.expect("a handshake");
    assert_eq!(status_of(&mut welcome, "d-1").await, "200");
    let mut refused = connect(&gateway, &site, "", Some(&stranger)).await.expect("a handshake");
    let (first, length) = deliver(&mut refused, "d-2").await;
    assert_eq!((first.as_str(), length.as_str()), ("http/1.1 403 forbidden", "0"), "and not a word why");
    let mut without = connect(&gateway, &site, "", None).await.expect("a handshake");
    assert_eq!(status_of(&mut without, "d-3").await, "403");

    let reload = || run(&mut gateway.command(&["reload"]), "");
    site.write("ca.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    let said = reload().failed(78);
    assert!(said.contains("source.gen.client_crl_file") && said.contains("CRL"), "{said}");
    let checked = run(stockgate().args(["check", "--config"]).arg(site.config()), "").failed(78);
    assert!(checked.contains("source.gen.client_crl_file"), "{checked}");
    assert_eq!(status_of(&mut welcome, "d-4").await, "200", "the list before stays in force");
    site.write("ca.crl", &revoking(&ours, &[7]));
    reload().ok();
    assert_eq!(status_of(&mut welcome, "d-5").await, "403", "revoked, on a connection that was welcome");

    for (reason, count) in [("missing", "1"), ("unusable", "1"), ("revoked", "1"), ("expired", "0")] {
        let name = format!(r#"stockgate_client_certificates_refused_total{{source="gen",reason="{reason}"}}"#);
        assert_eq!(gateway.metric(&name).await, count, "{reason}");
    }
    assert_eq!(gateway.metric(r#"stockgate_deliveries_total{source="gen",result="bad-certificate"}"#).await, "3");
    assert_eq!(gateway.metric(r#"stockgate_client_crl_expiry_timestamp_seconds{source="gen"}"#).await, "3786912000");
    // a list that is not asked any more is not seen to expire
    site.configure(ABSOLUTE);
    reload().ok();
    assert_eq!(gateway.metric(r#"stockgate_client_crl_expiry_timestamp_seconds{source="gen"}"#).await, "inf");
    assert_eq!(status_of(&mut without, "d-6").await, "200", "and nobody needs a certificate");
    site.configure(&format!("{ABSOLUTE}\nclient_ca_file = \"ca.pem\"\nclient_crl_file = \"ca.crl\"\n"));
    let (_, log) = gateway.stop();
    assert!(log.contains("the client's certificate does not do") && log.contains("wms.example"), "{log}");
    assert_eq!(site.deliveries().iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["d-1", "d-4", "d-6"]);

    site.write("ca.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    assert!(site.refused().failed(78).contains("source.gen.client_crl_file"));
}

// ---- a proxy in front -------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_proxy_the_address_list_is_about_the_client() {
    let site = Site::new(&format!("{ABSOLUTE}\nallow = [\"203.0.113.0/24\"]\n"));
    let gateway = Gateway::start(site.serve().env("STOCKGATE__LISTEN__PROXY_PROTOCOL_FROM", "127.0.0.1"));
    let from = async |client: &str, id: &str| {
        let header = format!("PROXY TCP4 {client} 127.0.0.1 1234 443\r\n");
        let mut stream = connect(&gateway, &site, &header, None).await.expect("a handshake");
        status_of(&mut stream, id).await
    };
    assert_eq!(from("203.0.113.9", "d-1").await, "200");
    assert_eq!(from("198.51.100.1", "d-2").await, "404");
    assert!(connect(&gateway, &site, "", None).await.is_err(), "without a header there is no connection");
    let name = r#"stockgate_connections_refused_total{listener="public",reason="proxy-header"}"#;
    assert_eq!(gateway.metric(name).await, "1");
    let (_, log) = gateway.stop();
    assert!(log.contains("peer=198.51.100.1"), "log lines name the client: {log}");
    assert!(log.contains("proxy=127.0.0.1"), "and a proxy that says nothing is named: {log}");
    assert_eq!(site.deliveries().len(), 1);
}
