//! Senders that keep books: what was sent how often, and what was acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use http::StatusCode;
use stockgate::net::client::{Alpn, Connection};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::gateway::{Gateway, Site, delivery};
use crate::process::PATIENCE;

/// SKUs that the deliveries move.
pub(crate) const SKUS: u64 = 7;

/// The SKU of delivery number `n`.
pub(crate) fn sku(n: u64) -> String {
    format!("S-{}", n % SKUS)
}

/// The id of delivery number `n`.
pub(crate) fn id(n: u64) -> String {
    format!("d-{n}")
}

#[derive(Default)]
struct Ledger {
    next: u64,
    /// Sent and not acknowledged: a platform sends these again.
    again: VecDeque<u64>,
    attempts: BTreeMap<u64, u64>,
    acknowledged: BTreeSet<u64>,
    /// Answers that were neither 200 nor 503.
    odd: Vec<StatusCode>,
}

/// The books of all senders, over all lives of the gateway.
#[derive(Clone)]
pub(crate) struct Books {
    ledger: Arc<Mutex<Ledger>>,
    acknowledged: Arc<watch::Sender<u64>>,
    closed: Arc<watch::Sender<bool>>,
}

impl Books {
    pub(crate) fn new() -> Self {
        Self {
            ledger: Arc::default(),
            acknowledged: Arc::new(watch::Sender::new(0)),
            closed: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Start so many senders over HTTP/1.1 and one over HTTP/2.
    pub(crate) async fn open(&self, gateway: &Gateway, site: &Site, http1: usize) -> JoinSet<()> {
        self.closed.send_replace(false);
        let mut senders = JoinSet::new();
        for alpn in std::iter::repeat_n(Alpn::Http1, http1).chain([Alpn::Http2]) {
            let connection = gateway.connect(site, alpn).await;
            assert_eq!(connection.is_http2(), alpn == Alpn::Http2);
            senders.spawn(self.clone().send(connection));
        }
        senders
    }

    /// Send until the books are closed or the connection ends.
    async fn send(self, mut connection: Connection) {
        while !*self.closed.borrow() {
            let n = self.take();
            let body = format!(r#"{{"sku":"{}","by":1}}"#, sku(n));
            let answer = connection.send(delivery(&id(n), &body)).await;
            match &answer {
                Ok(answer) if answer.status == StatusCode::OK => {
                    self.ledger.lock().unwrap().acknowledged.insert(n);
                    self.acknowledged.send_modify(|count| *count += 1);
                    continue;
                }
                Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {}
                Ok(answer) => self.ledger.lock().unwrap().odd.push(answer.status),
                Err(_) => {}
            }
            self.ledger.lock().unwrap().again.push_back(n);
            if answer.is_err() {
                return;
            }
        }
    }

    /// The next delivery: one that was not acknowledged, or a new one.
    fn take(&self) -> u64 {
        let mut ledger = self.ledger.lock().unwrap();
        let n = ledger.again.pop_front().unwrap_or_else(|| {
            ledger.next += 1;
            ledger.next
        });
        *ledger.attempts.entry(n).or_default() += 1;
        n
    }

    /// Wait until so many more deliveries are acknowledged.
    pub(crate) async fn acknowledged_more(&self, more: u64) {
        let mut count = self.acknowledged.subscribe();
        let goal = *count.borrow() + more;
        let reached = tokio::time::timeout(PATIENCE, count.wait_for(|count| *count >= goal)).await;
        reached.expect("deliveries are acknowledged").expect("the books are there");
    }

    /// No sender takes another delivery; wait until they have their answers.
    pub(crate) async fn close(&self, mut senders: JoinSet<()>) {
        self.closed.send_replace(true);
        while let Some(ended) = senders.join_next().await {
            ended.expect("a sender does not panic");
        }
        let odd = self.ledger.lock().unwrap().odd.clone();
        assert!(odd.is_empty(), "answers that are neither 200 nor 503: {odd:?}");
    }

    /// Send what was never acknowledged, as a platform's retries do in the end.
    pub(crate) async fn send_the_rest(&self, gateway: &Gateway, site: &Site) {
        let mut connection = gateway.connect(site, Alpn::Http1).await;
        loop {
            let Some(n) = self.ledger.lock().unwrap().again.pop_front() else { return };
            *self.ledger.lock().unwrap().attempts.entry(n).or_default() += 1;
            let body = format!(r#"{{"sku":"{}","by":1}}"#, sku(n));
            let answer = connection.send(delivery(&id(n), &body)).await.expect("an answer");
            assert_eq!(answer.status, StatusCode::OK);
            self.ledger.lock().unwrap().acknowledged.insert(n);
        }
    }

    /// Numbers of the acknowledged deliveries.
    pub(crate) fn acknowledged(&self) -> BTreeSet<u64> {
        self.ledger.lock().unwrap().acknowledged.clone()
    }

    /// How often each delivery was sent.
    pub(crate) fn attempts(&self) -> BTreeMap<u64, u64> {
        self.ledger.lock().unwrap().attempts.clone()
    }
}
