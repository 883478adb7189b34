//! Certificates that are watched, kept and renewed. Files are real, looks are driven, and the ACME server of the one answer that
//! Debian's pebble does not give (renewal information) is played over loopback; orders are tested against pebble itself
//! (`tests/system/acme.sh`).

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tokio::sync::watch as channel;
use tokio::task::JoinSet;

use super::kept::Kept;
use super::renew::{Setting, Worker};
use super::watch::{Files, Watch};
use crate::net::acme::{Failure, Issued, LastFailure, Proof, Reason, Report, Standing};
use crate::net::serve::{Incoming, Limits, Outgoing, Server};
use crate::net::tls::{Identity, TlsError, make_self_made};
use crate::net::trust::Trust;
use crate::time::{self, Timestamp};

struct Pair {
    cert: String,
    key: String,
}

/// A certificate as an authority gives it: valid from a day ago for so many days, for these names.
fn pair_for(names: &[&str], days: u64) -> Pair {
    let mut params = rcgen::CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    let day = |n: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(n).unwrap());
    let start = time::now().seconds() - 86_400;
    params.not_before = day(start);
    params.not_after = day(start + i64::try_from(days).unwrap() * 86_400);
    params.use_authority_key_identifier_extension = true;
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap().pem();
    Pair { cert, key: key.serialize_pem() }
}

fn pair() -> Pair {
    pair_for(&["gate.example.com"], 90)
}

fn identity_of(pair: &Pair) -> Arc<Identity> {
    Arc::new(Identity::from_pem(pair.cert.as_bytes(), pair.key.as_bytes()).unwrap())
}

fn fingerprint(pair: &Pair) -> String {
    identity_of(pair).fingerprint()
}

/// Files in a directory, an identity that serves what they held first, and the watch over them.
struct Site {
    directory: tempfile::TempDir,
    files: Files,
    identity: Arc<Identity>,
    watch: Watch,
}

impl Site {
    fn new(first: &Pair) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = Files { certificate: directory.path().join("tls.crt"), key: directory.path().join("tls.key") };
        let identity = identity_of(first);
        let site = Self { watch: Watch::new(Arc::clone(&identity)), directory, files, identity };
        site.write(first);
        site
    }

    fn write(&self, pair: &Pair) {
        std::fs::write(&self.files.certificate, &pair.cert).unwrap();
        std::fs::write(&self.files.key, &pair.key).unwrap();
    }

    fn look(&mut self) -> String {
        self.watch.look(&self.files);
        self.identity.fingerprint()
    }
}

#[test]
fn a_new_pair_is_taken_when_it_is_whole() {
    let (old, new) = (pair(), pair());
    let mut site = Site::new(&old);
    assert_eq!(site.look(), fingerprint(&old));
    assert_eq!(site.identity.refused(), None);

    std::fs::write(&site.files.certificate, &new.cert).unwrap();
    assert_eq!(site.look(), fingerprint(&old), "the middle of a replacement is not taken");
    assert_eq!(site.identity.refused(), Some(TlsError::Mismatch.to_string()));
    assert_eq!(site.look(), fingerprint(&old));

    std::fs::write(&site.files.key, &new.key).unwrap();
    assert_eq!(site.look(), fingerprint(&new));
    assert_eq!(site.identity.refused(), None, "and nothing is wrong any more");
}

#[test]
fn a_replacement_that_is_taken_back_is_no_trouble() {
    let old = pair();
    let mut site = Site::new(&old);
    std::fs::write(&site.files.certificate, pair().cert).unwrap();
    site.look();
    assert!(site.identity.refused().is_some());
    site.write(&old);
    assert_eq!(site.look(), fingerprint(&old));
    assert_eq!(site.identity.refused(), None);
}

#[test]
fn a_pair_with_the_same_size_and_time_is_seen() {
    let (old, new) = (pair(), pair());
    let mut site = Site::new(&old);
    site.look();
    let before = std::fs::metadata(&site.files.certificate).unwrap().modified().unwrap();
    site.write(&new);
    for path in [&site.files.certificate, &site.files.key] {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
    }
    assert_eq!(site.look(), fingerprint(&new), "what the files hold counts, not when they were written");
}

/// As certbot (links in `live/` that move) and Kubernetes (`..data` is a link to a directory, and is replaced) do.
#[test]
fn links_that_move_are_followed() {
    let (old, new) = (pair(), pair());
    let mut site = Site::new(&old);
    let root = site.directory.path().to_owned();
    for (name, pair) in [("one", &old), ("two", &new)] {
        std::fs::create_dir(root.join(name)).unwrap();
        std::fs::write(root.join(name).join("tls.crt"), &pair.cert).unwrap();
        std::fs::write(root.join(name).join("tls.key"), &pair.key).unwrap();
    }
    symlink("one", root.join("..data")).unwrap();
    site.files = Files { certificate: root.join("..data/tls.crt"), key: root.join("..data/tls.key") };
    assert_eq!(site.look(), fingerprint(&old));
    symlink("two", root.join("..data_tmp")).unwrap();
    std::fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    assert_eq!(site.look(), fingerprint(&new));
}

#[test]
fn what_cannot_be_used_changes_nothing_and_is_named() {
    let old = pair();
    let mut site = Site::new(&old);
    let made = make_self_made(&["x".to_owned()], Timestamp::from_seconds(0)).unwrap();
    let expired = pair_for(&["gate.example.com"], 0);
    let other = Pair { cert: "no certificate".to_owned(), key: pair().key };
    let encrypted = Pair { cert: made.cert_pem, key: "-----BEGIN ENCRYPTED PRIVATE KEY-----\n".to_owned() };
    for (bad, why) in
        [(&expired, "expired at"), (&other, "no certificate found"), (&encrypted, "no unencrypted private key")]
    {
        site.write(bad);
        assert_eq!(site.look(), fingerprint(&old));
        let refused = site.identity.refused().unwrap();
        assert!(refused.contains(why), "{refused}");
    }
    std::fs::remove_file(&site.files.key).unwrap();
    site.look();
    assert!(site.identity.refused().unwrap().contains("tls.key"), "the file that is gone is named");
    assert_eq!(site.look(), fingerprint(&old));
}

/// A pipe in the place of a file would block for ever, a device would not end.
#[test]
fn only_regular_files_are_read() {
    let old = pair();
    let mut site = Site::new(&old);
    site.files.key = "/dev/zero".into();
    assert_eq!(site.look(), fingerprint(&old));
    assert!(site.identity.refused().unwrap().contains("not a regular file"));
}

#[tokio::test]
async fn the_watch_begins_with_a_look_and_follows_a_reload() {
    let (old, new, third) = (pair(), pair(), pair());
    let (site, other) = (Site::new(&old), Site::new(&third));
    site.write(&new);
    let (files, changes) = channel::channel(Some(site.files.clone()));
    let mut task = JoinSet::new();
    task.spawn(super::watch::run(Arc::clone(&site.identity), changes));
    let until = |wanted: String| {
        let identity = Arc::clone(&site.identity);
        async move {
            while identity.fingerprint() != wanted {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), until(fingerprint(&new))).await.expect("taken");
    files.send_replace(Some(other.files.clone()));
    tokio::time::timeout(Duration::from_secs(20), until(fingerprint(&third))).await.expect("taken");
    drop(files);
    task.join_next().await.unwrap().unwrap();
}

// ---- what ACME leaves on the disk -----------------------------------------------------------------------------------

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_acme_brought_is_kept_for_its_owner_alone() {
    let data = tempfile::tempdir().unwrap();
    let kept = Kept::in_data(data.path());
    assert!(kept.identity().unwrap().is_none() && kept.report().is_none() && kept.account("https://a").is_none());
    let new = pair();
    kept.keep_certificate(&Issued { chain_pem: new.cert.clone(), key_pem: new.key.clone() }).unwrap();
    kept.keep_account("https://a", b"one").unwrap();
    kept.keep_account("https://b", b"two").unwrap();
    kept.keep_report(&Report { failures: 3, ..Report::default() }).unwrap();

    assert_eq!(kept.identity().unwrap().unwrap().fingerprint(), fingerprint(&new));
    assert_eq!((kept.account("https://a").unwrap(), kept.account("https://b").unwrap()), (b"one".to_vec(), b"two".to_vec()));
    assert_eq!(kept.report().unwrap().failures, 3);
    assert_eq!(mode(&data.path().join("acme")), 0o700);
    let files: Vec<_> = std::fs::read_dir(data.path().join("acme")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 4, "nothing else is left behind: {files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
    kept.forget_account("https://a");
    kept.forget_account("https://a");
    assert!(kept.account("https://a").is_none() && kept.account("https://b").is_some());
}

// ---- when a certificate is asked for --------------------------------------------------------------------------------

fn setting(data: &Path, directory: &str) -> Setting {
    Setting {
        directory: directory.to_owned(),
        trust: Trust::Fingerprint([0; 32]),
        names: vec!["gate.example.com".to_owned()],
        contact: Vec::new(),
        proof: Proof::TlsAlpn01,
        data: data.to_owned(),
    }
}

const DIRECTORY: &str = "https://acme.example/dir";

/// A data directory with a certificate that came yesterday.
fn issued(pair: &Pair) -> (tempfile::TempDir, Kept) {
    let data = tempfile::tempdir().unwrap();
    let kept = Kept::in_data(data.path());
    kept.keep_certificate(&Issued { chain_pem: pair.cert.clone(), key_pem: pair.key.clone() }).unwrap();
    let yesterday = Timestamp::from_seconds(time::now().seconds() - 86_400);
    let names = vec!["gate.example.com".to_owned()];
    let report = Report { directory: DIRECTORY.to_owned(), names, last_success: Some(yesterday), ..Report::default() };
    kept.keep_report(&report).unwrap();
    (data, kept)
}

fn worker(setting: Setting) -> (Worker, Arc<Identity>) {
    let identity = identity_of(&pair_for(&["made.example"], 3650));
    (Worker::new(Arc::new(setting), Arc::clone(&identity), Arc::default()), identity)
}

#[test]
fn a_start_takes_the_kept_certificate_and_waits_for_its_renewal() {
    let kept = pair();
    let (data, _) = issued(&kept);
    let (worker, identity) = worker(setting(data.path(), DIRECTORY));
    assert_eq!(identity.fingerprint(), fingerprint(&kept));
    let days = worker.due().since(time::now()).as_secs() / 86_400;
    assert!((54..60).contains(&days), "two thirds of ninety days, of which one is gone: {days}");
}

#[test]
fn other_names_or_another_directory_are_ordered_at_once() {
    let kept = pair();
    let (data, _) = issued(&kept);
    let elsewhere = setting(data.path(), "https://other.example/dir");
    let more = vec!["gate.example.com".to_owned(), "two.example.com".to_owned()];
    let more = Setting { names: more, ..setting(data.path(), DIRECTORY) };
    for changed in [elsewhere, more] {
        let (worker, identity) = worker(changed);
        assert_eq!(worker.due(), Timestamp(0));
        assert_eq!(identity.fingerprint(), fingerprint(&kept), "better than the self-made one until then");
    }
    let (data, kept) = issued(&pair_for(&["gate.example.com"], 1));
    assert!(kept.identity().unwrap().unwrap().not_after() <= time::now());
    let (worker, _) = worker(setting(data.path(), DIRECTORY));
    assert_eq!(worker.due(), Timestamp(0), "an expired one is replaced at once");
}

#[test]
fn a_failure_waits_over_a_restart_and_a_patient_server_over_a_reload() {
    let data = tempfile::tempdir().unwrap();
    let (mut first, _) = worker(setting(data.path(), DIRECTORY));
    let now = time::now();
    let failure = Failure::new(Reason::Challenge, "gate.example.com is not proven: no address");
    first.failed(&failure, now);
    let wait = first.due().since(now);
    assert!((300..=600).contains(&wait.as_secs()), "{wait:?}");
    first.failed(&failure, now);
    assert!(first.due().since(now).as_secs() >= 600, "and longer after the second");

    Kept::in_data(data.path()).keep_report(first.report()).unwrap();
    let (mut again, _) = worker(setting(data.path(), DIRECTORY));
    assert_eq!(again.due(), first.due(), "a restart does not ask sooner");
    again.hurry();
    assert_eq!(again.due(), Timestamp(0), "a reload does");

    let patience = Duration::from_secs(7200);
    again.failed(&Failure { retry_after: Some(patience), ..Failure::new(Reason::RateLimited, "too many") }, now);
    let due = again.due();
    assert!(due >= now.plus(patience));
    again.hurry();
    assert_eq!(again.due(), due, "but not when the server asked for patience");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_told_and_kept() {
    let data = tempfile::tempdir().unwrap();
    // the port was free a moment ago
    let server = Server::bind("public", "127.0.0.1:0".parse().unwrap(), None, Limits::default()).await.unwrap();
    let directory = format!("http://{}/dir", server.local_addr());
    drop(server);
    let standing = Arc::new(Standing::default());
    let setting = Arc::new(setting(data.path(), &directory));
    let mut worker = Worker::new(setting, identity_of(&pair()), Arc::clone(&standing));
    worker.attempt().await;
    let shown = standing.get().unwrap();
    assert_eq!(Kept::in_data(data.path()).report().as_ref(), Some(&shown), "doctor reads the same");
    let LastFailure { reason, message, .. } = shown.last_failure.unwrap();
    assert_eq!(reason, "unreachable");
    assert!(message.contains(&directory), "{message}");
    assert!(shown.failures == 1 && shown.next_attempt > Some(time::now()) && shown.last_success.is_none());
}

/// Plays what pebble does not have.
async fn played(answer: impl Fn(&str, &Incoming) -> (StatusCode, String) + Send + Sync + 'static) -> (String, JoinSet<()>) {
    let server = Server::bind("public", "127.0.0.1:0".parse().unwrap(), None, Limits::default()).await.unwrap();
    let base = format!("http://{}", server.local_addr());
    let here = base.clone();
    let handler = move |request: Incoming| {
        let (status, body) = answer(&here, &request);
        let mut response: Outgoing = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert("retry-after", http::HeaderValue::from_static("7200"));
        async move { response }
    };
    let mut task = JoinSet::new();
    task.spawn(async move {
        // lives as long as the task
        let (_stop, stopping) = channel::channel(false);
        server.run(Arc::new(handler), stopping).await;
    });
    (base, task)
}

fn directory_at(base: &str) -> String {
    let url = |name: &str| format!("{base}/{name}");
    let [nonce, account, order, info] = ["nonce", "account", "order", "info"].map(url);
    format!(r#"{{"newNonce":"{nonce}","newAccount":"{account}","newOrder":"{order}","renewalInfo":"{info}"}}"#)
}

#[tokio::test]
async fn the_servers_renewal_information_decides_when() {
    let start = time::now().plus(Duration::from_secs(10 * 86_400));
    let end = start.plus(Duration::from_secs(86_400));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let asking = Arc::clone(&asked);
    let (base, _server) = played(move |base, request| {
        if request.path == "/dir" {
            return (StatusCode::OK, directory_at(base));
        }
        asking.lock().unwrap().push(request.path.clone());
        (StatusCode::OK, format!(r#"{{"suggestedWindow":{{"start":"{start}","end":"{end}"}}}}"#))
    })
    .await;
    let kept = pair();
    let (data, files) = issued(&kept);
    let directory = format!("{base}/dir");
    files.keep_report(&Report { directory: directory.clone(), ..files.report().unwrap() }).unwrap();
    let (mut worker, identity) = worker(setting(data.path(), &directory));
    assert!(worker.due() > end, "without it, a share of the lifetime");
    worker.ask().await;
    let due = worker.due();
    assert!(due.millis() >= start.millis() && due <= end, "{due}");
    let (authority, serial) = identity.renewal_id().unwrap();
    assert_eq!(*asked.lock().unwrap(), [format!("/info/{authority}.{serial}")]);
}

#[tokio::test]
async fn renewal_information_that_makes_no_sense_is_left_alone() {
    for answer in [
        (StatusCode::INTERNAL_SERVER_ERROR, "{}"),
        (StatusCode::OK, "<html>"),
        (StatusCode::OK, r#"{"suggestedWindow":{"start":"2026-01-02T00:00:00Z","end":"2026-01-01T00:00:00Z"}}"#),
        (StatusCode::OK, r#"{"suggestedWindow":{"start":"soon","end":"later"}}"#),
    ] {
        let (base, _server) = played(move |base, request| {
            if request.path == "/dir" { (StatusCode::OK, directory_at(base)) } else { (answer.0, answer.1.to_owned()) }
        })
        .await;
        let (data, files) = issued(&pair());
        let directory = format!("{base}/dir");
        files.keep_report(&Report { directory: directory.clone(), ..files.report().unwrap() }).unwrap();
        let (mut worker, _) = worker(setting(data.path(), &directory));
        let before = worker.due();
        worker.ask().await;
        assert_eq!(worker.due(), before, "{answer:?}");
    }
}

#[tokio::test]
async fn what_answers_at_the_directory_is_judged() {
    for (status, body, reason) in [
        (StatusCode::OK, "<html>welcome</html>", "directory"),
        (StatusCode::NOT_FOUND, "", "directory"),
        (StatusCode::TOO_MANY_REQUESTS, "", "rate-limited"),
        (StatusCode::BAD_GATEWAY, "", "server"),
    ] {
        let (base, _server) = played(move |_, _| (status, body.to_owned())).await;
        let data = tempfile::tempdir().unwrap();
        let (mut worker, _) = worker(setting(data.path(), &format!("{base}/dir")));
        let now = time::now();
        worker.attempt().await;
        let report = Kept::in_data(data.path()).report().unwrap();
        assert_eq!(report.last_failure.unwrap().reason, reason);
        let patient = report.next_attempt.unwrap() >= now.plus(Duration::from_secs(7200));
        assert_eq!(patient, status != StatusCode::OK, "{reason}: Retry-After is kept to");
    }
}
