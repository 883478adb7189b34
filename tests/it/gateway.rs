//! A gateway in a process of its own, its directory, and clients of it.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::Value;
use stockgate::net::client::{Alpn, Answer, BaseUrl, Client, Connection, Trust, parse_fingerprint};
use stockgate::sources::signature::{Algorithm, Encoding, sign};
use stockgate::store::codec::decode_record;
use stockgate::store::journal::Journal;
use stockgate::store::state::State;
use stockgate::types::RecordBody;
use tempfile::TempDir;

use crate::process::{Finished, PATIENCE, Transcript, run, signal, stockgate, wait};

/// The secret of the source `gen`.
pub(crate) const SECRET: &str = "the-shared-secret-of-gen";

/// Ports of its own, and one generic source `gen` that signs the body. Settings of a test are appended.
const BASE: &str = r#"
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[log]
format = "text"
level = "debug"
[source.gen]
kind = "generic"
warehouse = "main"
secret_file = "gen.secret"
identity = { header = "x-delivery-id" }
signature = { algorithm = "hmac-sha256", encoding = "hex", header = "x-signature", signed = "{body}" }
"#;

/// How the bodies of `gen` are read: absolute numbers.
pub(crate) const ABSOLUTE: &str = r#"map = { sku = "/sku", quantity = "/quantity", time = "/time" }"#;
/// The same with movements instead.
pub(crate) const DELTA: &str = r#"map = { sku = "/sku", quantity = "/by", mode = "delta" }"#;

/// A directory with a configuration, its secrets, and data.
pub(crate) struct Site {
    dir: TempDir,
}

impl Site {
    /// With the usual configuration and these lines after it; the first belong to `[source.gen]`.
    pub(crate) fn new(more: &str) -> Self {
        let site = Self { dir: TempDir::new().expect("a scratch directory") };
        site.write("gen.secret", &format!("{SECRET}\n"));
        site.configure(more);
        site
    }

    /// Replace the configuration.
    pub(crate) fn configure(&self, more: &str) {
        self.write("stockgate.toml", &format!("{BASE}{more}"));
    }

    /// A file that only we can read, as secrets should be.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::write(&path, text).expect("it can be written");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("stockgate.toml")
    }

    /// `stockgate serve`, not yet started.
    pub(crate) fn serve(&self) -> Command {
        let mut command = stockgate();
        command.arg("serve").arg("--config").arg(self.config()).arg("--data").arg(self.data()).current_dir(self.path());
        command
    }

    /// Start a gateway and wait until it listens.
    #[track_caller]
    pub(crate) fn start(&self) -> Gateway {
        Gateway::start(&mut self.serve())
    }

    /// A start that must fail.
    pub(crate) fn refused(&self) -> Finished {
        run(&mut self.serve(), "")
    }

    /// The deliveries in the journal, as (id, body), in order. The gateway must be stopped.
    pub(crate) fn deliveries(&self) -> Vec<(String, String)> {
        let journal = Journal::open(&self.data(), 1 << 20, 0).expect("the journal opens");
        let mut found = Vec::new();
        let mut next = journal.oldest();
        loop {
            let records = journal.read(next, 1000, 1 << 20).expect("the journal reads");
            let Some((last, _)) = records.last() else { return found };
            next = last + 1;
            for (_, bytes) in &records {
                if let RecordBody::Delivery(delivery) = decode_record(bytes).expect("a record").body {
                    found.push((delivery.label.to_owned(), String::from_utf8_lossy(delivery.body).into_owned()));
                }
            }
        }
    }

    /// The journal's head and the state. The gateway must be stopped.
    pub(crate) fn opened(&self) -> (u64, State) {
        let journal = Journal::open(&self.data(), 1 << 20, 0).expect("the journal opens");
        (journal.head(), State::open(&self.data(), 1 << 20).expect("the state opens"))
    }
}

/// A running gateway; killed when it is dropped.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) out: Transcript,
    pub(crate) log: Transcript,
}

impl Gateway {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let out = Transcript::follow(child.stdout.take().expect("piped"));
        let log = Transcript::follow(child.stderr.take().expect("piped"));
        let addresses = out.wait_for(|text| {
            let after = |label: &str| text.lines().find_map(|l| l.strip_prefix(label)?.parse::<SocketAddr>().ok());
            // the line after these tells that both are whole
            let whole = text.lines().count() >= 2 && text.ends_with('\n');
            let admin = || after("admin on http://").or_else(|| after("admin on https://"));
            whole.then(|| Some((after("listening on https://")?, admin()?))).flatten()
        });
        let Some((public, admin)) = addresses else {
            let status = wait(&mut child);
            panic!("it does not start ({status}): {}", log.whole());
        };
        Self { child, public, admin, out, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kill it on the spot, as a power failure would (but for the disk's own cache).
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        wait(&mut self.child);
    }

    /// Ask it to stop and wait until it has; its exit code and its log.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        signal(self.pid(), "TERM");
        let status = wait(&mut self.child);
        (status.code(), self.log.whole())
    }

    /// SHA-256 of the certificate in a file.
    pub(crate) fn fingerprint(certificate: &Path) -> [u8; 32] {
        let pem = fs::read(certificate).expect("the certificate is there");
        let chain = stockgate::net::tls::certificates(&pem).expect("a certificate");
        parse_fingerprint(&stockgate::net::tls::fingerprint_of(&chain[0])).expect("a fingerprint")
    }

    /// A client that trusts the site's self-made certificate and nothing else.
    pub(crate) fn client(site: &Site, alpn: Alpn) -> Client {
        Client::new(Trust::Fingerprint(Self::fingerprint(&site.data().join("tls-cert.pem"))), alpn).expect("a client")
    }

    pub(crate) fn base(&self) -> BaseUrl {
        BaseUrl::parse(&format!("https://{}", self.public)).expect("a base")
    }

    pub(crate) async fn connect(&self, site: &Site, alpn: Alpn) -> Connection {
        Self::client(site, alpn).connect(&self.base()).await.expect("a connection")
    }

    /// GET from the admin listener.
    pub(crate) async fn admin(&self, target: &str) -> Answer {
        let base = BaseUrl::parse(&format!("http://{}", self.admin)).expect("a base");
        let client = Client::new(Trust::Fingerprint([0; 32]), Alpn::Http1).expect("a client");
        client.send(&base, Request::get(target).body(Bytes::new()).expect("a request")).await.expect("an answer")
    }

    /// JSON from the admin listener.
    pub(crate) async fn api(&self, target: &str) -> Value {
        let answer = self.admin(target).await;
        assert_eq!(answer.status, StatusCode::OK, "{target}: {:?}", answer.body);
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// Wait until everything in the journal is folded.
    pub(crate) async fn folded(&self) {
        self.until("the fold is at the journal's head", async || {
            self.api("/api/v1/status").await["fold"]["lag_records"] == 0
        })
        .await;
    }

    /// Ask until the answer is yes.
    pub(crate) async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !is_so().await {
            assert!(began.elapsed() < PATIENCE, "never: {what}\n{}", self.log.text());
        }
    }

    /// A counter or gauge as `/metrics` writes it; empty when it is not there.
    pub(crate) async fn metric(&self, name_and_labels: &str) -> String {
        let answer = self.admin("/metrics").await;
        let text = String::from_utf8(answer.body.to_vec()).expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' ').map(str::to_owned));
        value.unwrap_or_default()
    }

    /// The command line, asking this gateway.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = stockgate();
        command.args(args).arg("--admin").arg(format!("http://{}", self.admin));
        command
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A delivery of `gen`, signed.
pub(crate) fn delivery(id: &str, body: &str) -> Request<Bytes> {
    signed_with(SECRET, id, body.as_bytes())
}

/// The same under another secret or with another kind of body.
pub(crate) fn signed_with(secret: &str, id: &str, body: &[u8]) -> Request<Bytes> {
    let tag = Encoding::Hex.encode(&sign(Algorithm::HmacSha256, secret.as_bytes(), &[body]));
    Request::post("/in/gen")
        .header("content-type", "application/json")
        .header("x-delivery-id", id)
        .header("x-signature", tag)
        .body(Bytes::copy_from_slice(body))
        .expect("a request")
}
