//! The server's certificate: made, kept, swapped; and whom a client believes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::tls::{TlsError, load_or_make, make_self_made};
use super::*;
use crate::net::client::ClientError;
use crate::time::Timestamp;

struct Pair {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// A certificate that is not self-made, with an end of validity of our choice.
fn foreign(year: i32) -> Pair {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 2);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    Pair { cert: cert.pem().into_bytes(), key: key.serialize_pem().into_bytes() }
}

fn names() -> Vec<String> {
    vec!["box.example".to_owned(), "192.0.2.7".to_owned(), "::1".to_owned()]
}

#[tokio::test]
async fn a_swap_is_seen_by_the_next_handshake_and_a_bad_one_changes_nothing() {
    let identity = identity();
    let running = Running::start(Some(Arc::clone(&identity)), Limits::default(), echo).await;
    let url = running.url("https");
    let old = pinned(&identity, Alpn::Both);
    let mut open = old.connect(&url).await.unwrap();

    let new = foreign(2090);
    identity.swap(&new.cert, &new.key).unwrap();
    let current = pinned(&identity, Alpn::Both);
    assert_eq!(current.send(&url, get("/")).await.unwrap().status, StatusCode::OK);
    assert!(matches!(old.connect(&url).await, Err(ClientError::Tls(_))), "the old pin is refused");
    assert_eq!(open.send(get("/")).await.unwrap().status, StatusCode::OK, "open connections stay");

    let before = identity.fingerprint();
    let expired = foreign(2021);
    let other = foreign(2090);
    for (cert, key, why) in [
        (&new.cert, &other.key, TlsError::Mismatch),
        (&expired.cert, &expired.key, TlsError::Expired(Timestamp::parse_rfc3339("2021-01-02T00:00:00Z").unwrap())),
        (&new.key, &new.key, TlsError::NoCertificate),
        (&new.cert, &new.cert, TlsError::NoKey),
        (&Vec::new(), &Vec::new(), TlsError::NoCertificate),
    ] {
        assert_eq!(identity.swap(cert, key).err(), Some(why));
    }
    assert_eq!(identity.fingerprint(), before);
    assert_eq!(current.connect(&url).await.unwrap().send(get("/")).await.unwrap().status, StatusCode::OK);
    running.stopped().await;
}

#[tokio::test]
async fn only_the_pinned_or_trusted_certificate_is_believed() {
    let identity = identity();
    let running = Running::start(Some(Arc::clone(&identity)), Limits::default(), echo).await;
    let url = running.url("https");
    let trusting = |trust| Client::new(trust, Alpn::Both).unwrap();
    let stranger = tls::certificates(&foreign(2090).cert).unwrap();

    let named = trusting(Trust::Roots(vec![identity.leaf()]));
    assert_eq!(named.send(&url, get("/")).await.unwrap().status, StatusCode::OK);
    for refused in [Trust::Fingerprint([7; 32]), Trust::Roots(stranger)] {
        let error = trusting(refused).send(&url, get("/")).await.unwrap_err();
        assert!(matches!(error, ClientError::Tls(_)) && error.never_sent(), "{error}");
    }
    running.stopped().await;
}

#[tokio::test]
async fn a_trusted_certificate_for_another_name_or_time_is_refused() {
    for (pair, host) in [(foreign(2090), "127.0.0.1"), (foreign(2021), "localhost")] {
        let identity = Arc::new(Identity::from_pem(&pair.cert, &pair.key).unwrap());
        let running = Running::start(Some(Arc::clone(&identity)), Limits::default(), echo).await;
        let url = BaseUrl::parse(&format!("https://{host}:{}", running.address.port())).unwrap();
        let client = Client::new(Trust::Roots(vec![identity.leaf()]), Alpn::Both).unwrap();
        assert!(matches!(client.send(&url, get("/")).await, Err(ClientError::Tls(_))), "{host}");
        running.stopped().await;
    }
}

#[test]
fn without_a_root_there_is_no_client() {
    assert!(Client::new(Trust::Roots(Vec::new()), Alpn::Both).is_err());
}

#[test]
fn a_fingerprint_reads_back_in_every_usual_form() {
    let identity = identity();
    let text = identity.fingerprint();
    assert_eq!(text.len(), 95);
    let expected = parse_fingerprint(&text);
    assert!(expected.is_some());
    assert_eq!(parse_fingerprint(&text.to_lowercase()), expected);
    assert_eq!(parse_fingerprint(&text.replace(':', "")), expected);
    for wrong in ["", "AB:CD", &text.replace(':', "-"), &format!("{text}:00")] {
        assert_eq!(parse_fingerprint(wrong), None, "{wrong}");
    }
}

#[test]
fn validity_starts_a_day_before_and_lasts_ten_years() {
    let now = Timestamp::parse_rfc3339("2026-11-21T03:00:00Z").unwrap();
    let made = make_self_made(&names(), now).unwrap();
    let identity = Identity::from_pem(made.cert_pem.as_bytes(), made.key_pem.as_bytes()).unwrap();
    assert!(identity.self_made());
    let leaf = identity.leaf();
    let fields = super::super::x509::read(&leaf).unwrap();
    assert_eq!(fields.not_before, Timestamp::parse_rfc3339("2026-11-20T03:00:00Z").unwrap());
    assert_eq!(identity.not_after(), Timestamp::parse_rfc3339("2036-11-21T03:00:00Z").unwrap());
}

#[test]
fn a_box_without_a_clock_makes_a_certificate_that_outlives_the_mistake() {
    for wrong in [Timestamp(0), Timestamp(i64::MIN), Timestamp::from_seconds(86_400 * 30)] {
        let made = make_self_made(&names(), wrong).unwrap();
        let leaf = tls::certificates(made.cert_pem.as_bytes()).unwrap().remove(0);
        let fields = super::super::x509::read(&leaf).unwrap();
        assert!(fields.not_before <= Timestamp::from_seconds(86_400 * 30), "valid by its own clock");
        assert!(fields.not_after > Timestamp::parse_rfc3339("2035-12-01T00:00:00Z").unwrap());
    }
    assert!(make_self_made(&names(), Timestamp(i64::MAX)).is_ok());
}

#[test]
fn names_that_are_no_names_are_an_error() {
    assert!(matches!(make_self_made(&["b\u{f6}x".to_owned()], time::now()), Err(TlsError::Names(_))));
}

#[test]
fn an_operators_certificate_is_not_called_self_made() {
    let pair = foreign(2090);
    assert!(!Identity::from_pem(&pair.cert, &pair.key).unwrap().self_made());
}

#[test]
fn a_chain_may_follow_the_leaf() {
    let (leaf, other) = (foreign(2090), foreign(2080));
    let chain = [leaf.cert.clone(), other.cert].concat();
    let identity = Identity::from_pem(&chain, &leaf.key).unwrap();
    assert_eq!(identity.not_after(), Timestamp::parse_rfc3339("2090-01-02T00:00:00Z").unwrap());
}

#[test]
fn keys_are_not_shown() {
    let made = make_self_made(&names(), time::now()).unwrap();
    assert!(!format!("{made:?}").contains("PRIVATE"));
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_certificate_of_the_first_start_is_kept_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let now = time::now();
    let first = load_or_make(dir.path(), &names(), now).unwrap();
    assert_eq!(mode(&dir.path().join("tls-key.pem")), 0o600);
    let second = load_or_make(dir.path(), &["other.example".to_owned()], now).unwrap();
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left behind");
}

#[test]
fn half_a_pair_is_made_anew_and_a_damaged_pair_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let now = time::now();
    let first = load_or_make(dir.path(), &names(), now).unwrap().fingerprint();
    // As after a power cut between the two files, with an unfinished third.
    std::fs::remove_file(dir.path().join("tls-cert.pem")).unwrap();
    std::fs::write(dir.path().join("tls-cert.pem.new"), "-----BEGIN").unwrap();
    let second = load_or_make(dir.path(), &names(), now).unwrap().fingerprint();
    assert_ne!(first, second);
    assert_eq!(load_or_make(dir.path(), &names(), now).unwrap().fingerprint(), second);

    let pair = foreign(2090);
    std::fs::write(dir.path().join("tls-cert.pem"), &pair.cert).unwrap();
    assert_eq!(load_or_make(dir.path(), &names(), now).err(), Some(TlsError::Mismatch));
    assert_eq!(std::fs::read(dir.path().join("tls-cert.pem")).unwrap(), pair.cert, "and nothing was overwritten");
}

#[test]
fn an_expired_self_made_certificate_is_replaced_and_an_operators_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let now = time::now();
    let first = load_or_make(dir.path(), &names(), now).unwrap();
    let later = first.not_after().plus(Duration::from_secs(1));
    let second = load_or_make(dir.path(), &names(), later).unwrap();
    assert_ne!(first.fingerprint(), second.fingerprint());
    assert!(second.not_after() > later);

    let pair = foreign(2021);
    std::fs::write(dir.path().join("tls-cert.pem"), &pair.cert).unwrap();
    std::fs::write(dir.path().join("tls-key.pem"), &pair.key).unwrap();
    let kept = load_or_make(dir.path(), &names(), now).unwrap();
    assert!(kept.not_after() < now);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let error = load_or_make(Path::new("/proc/nowhere"), &names(), time::now()).unwrap_err();
    assert!(error.to_string().contains("/proc/nowhere"), "{error}");
}
