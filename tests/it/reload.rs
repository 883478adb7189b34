//! A reload changes what it can, keeps the old when the new is bad, and costs no connection.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use stockgate::net::client::{Alpn, Client, Connection, Trust};
use stockgate::net::tls::make_self_made;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::gateway::{ABSOLUTE, Gateway, SECRET, Site, delivery, signed_with};
use crate::process::{PATIENCE, run, signal};

const TLS: &str = "[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n";
/// Reloads by signal under load.
const SIGNALS: usize = 10;

/// Give the site a new certificate; a client that trusts just this one.
fn certify(site: &Site) -> [u8; 32] {
    let made =
        make_self_made(&["localhost".to_owned(), "127.0.0.1".to_owned()], stockgate::time::now()).expect("a certificate");
    site.write("cert.pem", &made.cert_pem);
    site.write("key.pem", &made.key_pem);
    Gateway::fingerprint(&site.path().join("cert.pem"))
}

async fn connect(gateway: &Gateway, fingerprint: [u8; 32], alpn: Alpn) -> Option<Connection> {
    let client = Client::new(Trust::Fingerprint(fingerprint), alpn).expect("a client");
    client.connect(&gateway.base()).await.ok()
}

/// Senders that each keep one connection, and count what is acknowledged on it.
struct Load {
    senders: JoinSet<()>,
    stop: watch::Sender<bool>,
    taken: Arc<AtomicU64>,
}

impl Load {
    async fn start(gateway: &Gateway, fingerprint: [u8; 32]) -> Self {
        let (stop, stopping) = watch::channel(false);
        let mut load = Self { senders: JoinSet::new(), stop, taken: Arc::default() };
        for (i, alpn) in [Alpn::Http1, Alpn::Http1, Alpn::Http1, Alpn::Http2].into_iter().enumerate() {
            let mut connection = connect(gateway, fingerprint, alpn).await.expect("a connection");
            let (stopping, taken) = (stopping.clone(), Arc::clone(&load.taken));
            load.senders.spawn(async move {
                for n in 0_u64.. {
                    if *stopping.borrow() {
                        return;
                    }
                    let body = format!(r#"{{"sku":"S-{i}","quantity":{n}}}"#);
                    let answer = connection.send(delivery(&format!("{i}-{n}"), &body)).await;
                    let status = answer.unwrap_or_else(|error| panic!("connection {i} at delivery {n}: {error}")).status;
                    assert_eq!(status, StatusCode::OK, "connection {i}, delivery {n}");
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        load
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Wait until deliveries have gone through since `before`.
    async fn goes_on(&mut self, before: u64) {
        let began = std::time::Instant::now();
        while self.taken() < before + 4 {
            if let Some(ended) = self.senders.try_join_next() {
                ended.expect("a sender goes on");
            }
            assert!(began.elapsed() < PATIENCE, "nothing is taken any more");
            tokio::task::yield_now().await;
        }
    }

    async fn end(mut self) -> u64 {
        self.stop.send_replace(true);
        while let Some(ended) = self.senders.join_next().await {
            ended.expect("every connection lived to the end");
        }
        self.taken()
    }
}

/// Lines of the log that say so.
fn times(text: &str, what: &str) -> usize {
    text.lines().filter(|line| line.contains(what)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_drop_no_connection() {
    let site = Site::new(&format!("{ABSOLUTE}\n{TLS}"));
    let fingerprint = certify(&site);
    let gateway = site.start();
    let mut load = Load::start(&gateway, fingerprint).await;
    for round in 1..=SIGNALS {
        let before = load.taken();
        signal(gateway.pid(), "HUP");
        gateway.log.wait_for(|log| (times(log, "configuration reloaded") >= round).then_some(())).expect("it goes on");
        load.goes_on(before).await;
    }
    assert!(load.end().await > 0);
    assert_eq!(gateway.metric("stockgate_config_last_reload_successful").await, "1");
    assert_eq!(gateway.stop().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_configuration_changes_nothing() {
    let site = Site::new(&format!("{ABSOLUTE}\n{TLS}"));
    let fingerprint = certify(&site);
    let gateway = site.start();
    let mut load = Load::start(&gateway, fingerprint).await;
    let good = fs::read_to_string(site.config()).expect("the configuration");

    let bad: [(&str, String); 4] = [
        ("an unknown key", format!("{good}\n[limits]\nbodi = \"2MiB\"\n")),
        ("no TOML", format!("{good}\n[limits\n")),
        ("a certificate that is not there", good.replace("cert.pem", "other.pem")),
        ("a key of another certificate", good.replace("key.pem", "other-key.pem")),
    ];
    let other = make_self_made(&["localhost".to_owned()], stockgate::time::now()).expect("a key");
    site.write("other-key.pem", &other.key_pem);
    for (what, text) in bad {
        site.write("stockgate.toml", &text);
        let before = load.taken();
        let finished = run(&mut gateway.command(&["reload"]), "");
        assert_eq!(finished.code, Some(78), "{what}: {finished:?}");
        assert!(!finished.stderr.is_empty(), "{what}");
        if what == "an unknown key" {
            let line = text.lines().position(|line| line.starts_with("bodi")).expect("it is there") + 1;
            assert!(finished.stderr.contains(&format!("stockgate.toml:{line}:")), "{}", finished.stderr);
        }
        load.goes_on(before).await;
        assert_eq!(gateway.metric("stockgate_config_last_reload_successful").await, "0", "{what}");
        assert_eq!(gateway.admin("/readyz").await.status, StatusCode::OK, "{what}");
    }
    let refusals = times(&gateway.log.text(), "reload refused");
    signal(gateway.pid(), "HUP");
    gateway.log.wait_for(|log| (times(log, "reload refused") > refusals).then_some(())).expect("it goes on");

    site.write("stockgate.toml", &good);
    run(&mut gateway.command(&["reload"]), "").ok();
    assert_eq!(gateway.metric("stockgate_config_last_reload_successful").await, "1");
    assert!(load.end().await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_and_certificates_are_rotated_without_a_stop() {
    let site = Site::new(&format!("{ABSOLUTE}\n{TLS}"));
    let old = certify(&site);
    let gateway = site.start();
    let load = Load::start(&gateway, old).await;
    let mut client = connect(&gateway, old, Alpn::Http1).await.expect("a connection");
    let status = async |client: &mut Connection, secret: &str, id: &str| {
        let body = br#"{"sku":"ROTATED","quantity":1}"#;
        client.send(signed_with(secret, id, body)).await.expect("an answer").status
    };
    assert_eq!(status(&mut client, "the-next-secret", "d-1").await, StatusCode::UNAUTHORIZED);

    let good = fs::read_to_string(site.config()).expect("the configuration");
    site.write("gen.next", "the-next-secret");
    site.write(
        "stockgate.toml",
        &good.replace("secret_file = \"gen.secret\"", "secret_files = [\"gen.next\", \"gen.secret\"]"),
    );
    let new = certify(&site);
    run(&mut gateway.command(&["reload"]), "").ok();

    // the connection from before goes on, under both secrets
    assert_eq!(status(&mut client, "the-next-secret", "d-2").await, StatusCode::OK);
    assert_eq!(status(&mut client, SECRET, "d-3").await, StatusCode::OK);
    assert!(connect(&gateway, new, Alpn::Both).await.is_some(), "new connections get the new certificate");
    assert!(connect(&gateway, old, Alpn::Both).await.is_none(), "and not the old one");
    assert!(load.end().await > 0);

    // the end of the rotation
    site.write("stockgate.toml", &good.replace("gen.secret", "gen.next"));
    run(&mut gateway.command(&["reload"]), "").ok();
    assert_eq!(status(&mut client, SECRET, "d-4").await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&mut client, "the-next-secret", "d-5").await, StatusCode::OK);
}
