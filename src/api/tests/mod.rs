//! The router asked in process, over a real state and a real journal in a scratch directory.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue};
use http_body_util::BodyExt;
use serde_json::Value as Json;

use super::*;
use crate::stock::level::{Incoming as Report, Outcome, Position, Value};
use crate::store::codec::{decode_record, encode_record};
use crate::store::rows::{Cause, DeadLetter, IgnoredRow, PositionKey, Remains};
use crate::store::state::NewEntry;
use crate::types::{Change, Decision, Delivery, DeliveryKey, HeaderList, Quantity, Record, RecordBody, Seq, Stamp};

mod access;
mod backing_up;
mod decisions;
mod description;
mod health_and_metrics;
mod reading;
mod verifying;

/// A gateway's admin API without the gateway.
struct World {
    api: Api,
    state: Arc<RwLock<State>>,
    journal: Journal,
    health: Arc<Health>,
    reloads_work: Arc<AtomicBool>,
    writer: std::thread::JoinHandle<()>,
    dir: tempfile::TempDir,
}

struct Reloads(Arc<AtomicBool>);

impl Actions for Reloads {
    fn reload(&self) -> Pin<Box<dyn Future<Output = Reloaded> + Send + '_>> {
        let works = self.0.load(Ordering::Relaxed);
        Box::pin(async move {
            if works {
                Ok("2 sources".to_owned())
            } else {
                Err(vec!["stockgate.toml:3: no".to_owned(), "and more".to_owned()])
            }
        })
    }
}

/// A self-made certificate.
fn identity() -> Identity {
    let made = crate::net::tls::make_self_made(&["localhost".to_owned()], time::now()).expect("names");
    Identity::from_pem(made.cert_pem.as_bytes(), made.key_pem.as_bytes()).expect("our own")
}

/// An answer, read whole.
struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answered {
    fn json(&self) -> Json {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().expect("ASCII"))
    }

    fn detail(&self) -> String {
        assert_eq!(self.header(CONTENT_TYPE), "application/problem+json");
        self.json()["detail"].as_str().expect("a detail").to_owned()
    }
}

impl World {
    fn new() -> Self {
        Self::with_tokens(false)
    }

    /// One whose admin listener requires tokens, or does not.
    fn with_tokens(required: bool) -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let state = Arc::new(RwLock::new(State::open(dir.path(), 1 << 20).expect("opens")));
        let journal = Journal::open(dir.path(), 1 << 20, 0).expect("opens");
        let (appender, writer) = journal.start(8, |_| {}).expect("starts");
        let health = Arc::new(Health::default());
        health.certificate_loaded(true);
        health.fold_alive(true);
        let reloads_work = Arc::new(AtomicBool::new(true));
        let source = |name: &str, path: &str| SourceInfo {
            name: name.to_owned(),
            kind: "generic".to_owned(),
            path: path.to_owned(),
            signed: true,
            warehouse: Some("main".to_owned()),
            authority: vec!["main".to_owned()],
        };
        let api = Api::new(Context {
            state: Arc::clone(&state),
            journal: journal.clone(),
            appender,
            prometheus: crate::metrics::install(),
            health: Arc::clone(&health),
            sources: Arc::new(RwLock::new(vec![source("shop", "/in/shop"), source("wms", "/in/wms/***")])),
            actions: Arc::new(Reloads(Arc::clone(&reloads_work))),
            names: Vec::new(),
            access: Access::new(dir.path(), required),
            identity: Arc::new(identity()),
            acme: Arc::default(),
        });
        Self { api, state, journal, health, reloads_work, writer, dir }
    }

    /// Let a source say a number, as the fold would: position, audit entry or ignored report, totals.
    fn say(&self, source: &str, warehouse: &str, sku: &str, change: Change, seq: Seq) {
        self.say_under(source, warehouse, sku, change, seq, &[]);
    }

    fn say_under(&self, source: &str, warehouse: &str, sku: &str, change: Change, seq: Seq, authority: &[&str]) {
        let mut state = self.state.write().expect("not poisoned");
        let at = Timestamp::from_seconds(1_700_000_000 + i64::try_from(seq).expect("small"));
        let number = state.source_number(source);
        let authority: Vec<u16> = authority.iter().map(|name| state.source_number(name)).collect();
        let key = PositionKey { warehouse: state.warehouse_number(warehouse), sku: sku.into() };
        let mut position = state.position(&key).expect("reads").unwrap_or_default();
        let stamp = Stamp { version: None, at: Some(at), seq, part: 0 };
        let report = Report { source: number, change, stamp, digest: [0; 8], by_content: false, heard: at };
        let (outcome, _) = position.apply(&report, &authority).expect("in range");
        let delivery = format!("d-{seq}");
        match outcome {
            Outcome::Changed { before, after, by, rule } => {
                state.totals_mut(key.warehouse).change(before, Some(after), None, at);
                position.last_change = state.append_audit(&NewEntry {
                    at,
                    warehouse: key.warehouse,
                    sku,
                    before,
                    after,
                    rule,
                    source: by,
                    record: seq,
                    delivery: &delivery,
                    previous: position.last_change,
                });
            }
            Outcome::Confirmed => {}
            Outcome::Ignored(reason) => {
                let said = match change {
                    Change::Absolute(q) => Some(Value::Tracked(q)),
                    _ => None,
                };
                let previous = position.last_ignored;
                let row = IgnoredRow { at, source: number, said, reason, record: seq, delivery, previous };
                position.last_ignored = state.append_ignored(&row);
            }
        }
        state.put_position(&key, &position);
        let row = state.source_row(number);
        row.accepted += 1;
        row.last_delivery = at;
        state.advance(seq, at);
    }

    fn bury(&self, source: &str, cause: Cause, body: &[u8]) -> u64 {
        let mut state = self.state.write().expect("not poisoned");
        let at = Timestamp::from_seconds(1_700_000_000);
        let delivery = Delivery {
            source,
            key: DeliveryKey::Content,
            body_digest: [0; 8],
            label: "d-9",
            query: "a=b",
            headers: HeaderList(vec![("x-topic", "stock"), ("x-access-token", "hush")]),
            body,
        };
        let bytes = encode_record(&Record { at, body: RecordBody::Delivery(delivery) });
        let number = state.source_number(source);
        let waits_for = if cause.parked() { "item-7" } else { "" }.to_owned();
        let detail = format!("it is {}", cause.as_str());
        let remains = Remains::Record(bytes);
        state.bury(DeadLetter { at, source: number, cause, detail, record: 3, waits_for, replaces: 0, remains })
    }

    async fn ask(&self, method: Method, target: &str, fields: &[(&'static str, &str)], body: &str) -> Answered {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("127.0.0.1:9780"))]);
        for (name, value) in fields {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
        }
        let incoming = Incoming {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            peer: [127, 0, 0, 1].into(),
            certificate: None,
            body: Body::from(Bytes::copy_from_slice(body.as_bytes())),
        };
        let (parts, mut body) = self.api.handle(incoming).await.into_parts();
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            read.extend(frame.expect("a body in memory does not fail").into_data().expect("data"));
        }
        Answered { status: parts.status.as_u16(), headers: parts.headers, body: read.into() }
    }

    async fn get(&self, target: &str) -> Answered {
        self.ask(Method::GET, target, &[], "").await
    }

    async fn post(&self, target: &str, body: &str) -> Answered {
        self.ask(Method::POST, target, &[("content-type", "application/json")], body).await
    }

    /// The decision in a journal record.
    fn with_decision(&self, seq: Seq, check: impl FnOnce(&Decision<'_>)) {
        let bytes = self.journal.get(seq).expect("reads").expect("is there");
        match decode_record(&bytes).expect("decodes").body {
            RecordBody::Decision(decision) => check(&decision),
            other => panic!("not a decision: {other:?}"),
        }
    }
}

fn count(text: &str) -> Change {
    Change::Absolute(text.parse::<Quantity>().expect("a quantity"))
}
