//! Sends what the lanes plan: over TLS, on kept connections, within the platform's deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, HeaderValue};
use http::{Request, Uri};
use serde_json::Map;
use tokio::sync::watch;

use super::meter::{Ending, Meter};
use super::platform::{Hook, Platform, Wire};
use super::sign::{SenderSettings, Signed, sign};
use super::traffic::{Lane, Outcome, Shot, Then};
use super::truth::Account;
use crate::net::client::{Alpn, BaseUrl, Client, ClientError, Connection, Limits, Trust, TrustError};
use crate::time::{self, Timestamp};
use crate::types::Secret;

/// A gateway to deliver to.
#[derive(Debug, Clone)]
pub struct Target {
    /// `https://127.0.0.1:8443`.
    pub base: BaseUrl,
    /// SHA-256 of its certificate.
    pub fingerprint: [u8; 32],
}

/// Largest answer that is read: a gateway answers with a few bytes.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// Longest wait for a connection, whatever the platform's deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A path token and a secret that are nobody's.
const NOT_THE_SECRET: &str = "00000000000000000000000000000000";
/// How long a lane waits when there was no answer, and at the end before it tries again what was not taken.
const BACK_OFF: Duration = Duration::from_millis(200);

/// One attempt to deliver something genuine, as its sender would tell it from others.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// The configured source.
    pub source: &'a str,
    /// The platform's id of the delivery, which a repeat keeps; empty where its deliveries have none.
    pub id: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// Keeps books about a run: what was sent, and what was acknowledged. Called by many lanes at once.
pub trait Witness: Send + Sync {
    /// Before the first byte leaves.
    fn sending(&self, sent: Sent<'_>);
    /// The gateway has said that it is taken.
    fn taken(&self, sent: Sent<'_>);
}

/// What the lanes of one account share.
pub(super) struct Outbox {
    platform: &'static dyn Platform,
    account: Arc<Account>,
    settings: SenderSettings,
    meter: Arc<Meter>,
    client: Client,
    base: BaseUrl,
    witness: Option<Arc<dyn Witness>>,
}

impl Outbox {
    pub(super) fn new(
        platform: &'static dyn Platform,
        account: Arc<Account>,
        meter: Arc<Meter>,
        target: &Target,
        witness: Option<Arc<dyn Witness>>,
    ) -> Result<Self, TrustError> {
        let manners = platform.manners();
        let limits =
            Limits { connect: manners.deadline.min(CONNECT_TIMEOUT), total: manners.deadline, body_bytes: ANSWER_MAX_BYTES };
        let alpn = if manners.wire == Wire::Http2 { Alpn::Http2 } else { Alpn::Http1 };
        let client = Client::with(Trust::Fingerprint(target.fingerprint), alpn, limits, false)?;
        let settings = SenderSettings::new(platform.kind(), &Map::new()).expect("every simulated platform signs somehow");
        Ok(Self { platform, account, settings, meter, client, base: target.base.clone(), witness })
    }

    /// Tell the witness, if there is one; what is forged is nobody's delivery.
    fn tell(&self, shot: &Shot, tell: impl FnOnce(&dyn Witness, Sent<'_>)) {
        if let Some(witness) = self.witness.as_deref().filter(|_| !shot.forged) {
            let id = if self.platform.manners().named { shot.hook.id.as_str() } else { "" };
            tell(witness, Sent { source: self.account.name, id, body: &shot.hook.body });
        }
    }

    /// The request of an attempt.
    fn request(&self, shot: &Shot, now: Timestamp) -> Request<Bytes> {
        attempt(self.platform, &self.account, &self.settings, shot, now).into_request(&shot.hook)
    }

    /// Send the platform's ping, if it has one.
    pub(super) async fn greet(&self) {
        let Some(hook) = self.platform.greeting() else { return };
        let path = path(&self.account, false);
        let bare =
            Attempt { target: path, headers: hook.headers.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect() };
        match self.client.send(&self.base, bare.into_request(&hook)).await {
            Ok(answer) if answer.status == http::StatusCode::OK => self.meter.greet(),
            Ok(answer) => tracing::warn!(source = self.account.name, status = answer.status.as_u16(), "ping refused"),
            Err(error) => tracing::warn!(source = self.account.name, %error, "ping not answered"),
        }
    }
}

/// Target and header fields of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
}

fn path(account: &Account, forged: bool) -> String {
    match &account.token {
        Some(_) if forged => format!("/in/{}/{NOT_THE_SECRET}", account.name),
        Some(token) => format!("/in/{}/{token}", account.name),
        None => format!("/in/{}", account.name),
    }
}

/// Sign and dress a shot.
pub(super) fn attempt(
    platform: &dyn Platform,
    account: &Account,
    settings: &SenderSettings,
    shot: &Shot,
    now: Timestamp,
) -> Attempt {
    let nobodys = Secret::new(NOT_THE_SECRET);
    let secret = if shot.forged { Some(&nobodys) } else { account.secret.as_ref() };
    let signed = sign(settings, secret.unwrap_or(&nobodys), &shot.hook.body, now, &shot.hook.id);
    let Signed { mut headers, query } = signed.expect("simulated accounts have secrets of their platform's form");
    headers.retain(|(_, value)| !value.is_empty());
    headers.extend(settings.envelope().iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    headers.extend(shot.hook.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    headers.extend(platform.attempt_headers(now).into_iter().map(|(name, value)| (name.to_owned(), value)));
    let path = path(account, shot.forged);
    Attempt { target: if query.is_empty() { path } else { format!("{path}?{query}") }, headers }
}

impl Attempt {
    fn into_request(self, hook: &Hook) -> Request<Bytes> {
        let mut request = Request::new(hook.body.clone());
        *request.method_mut() = hook.method.clone();
        *request.uri_mut() = Uri::try_from(self.target).expect("paths and queries are made of URL characters");
        for (name, value) in self.headers {
            let name = HeaderName::try_from(name).expect("platforms send header fields");
            request.headers_mut().append(name, HeaderValue::try_from(value).expect("platforms send printable values"));
        }
        request
    }
}

/// Gives out moments to send at, so that all lanes together keep a rate.
pub(super) struct Pacer {
    interval_us: u64,
    next_us: AtomicU64,
    start: std::time::Instant,
}

impl Pacer {
    /// `rate` deliveries a second; `None`: as fast as they are answered.
    pub(super) fn new(rate: Option<u32>) -> Self {
        let interval_us = rate.map_or(0, |rate| 1_000_000 / u64::from(rate.max(1)));
        Self { interval_us, next_us: AtomicU64::new(0), start: time::instant() }
    }

    async fn wait(&self) {
        if self.interval_us == 0 {
            return;
        }
        let slot = Duration::from_micros(self.next_us.fetch_add(self.interval_us, Ordering::Relaxed));
        let passed = time::instant().duration_since(self.start);
        if let Some(wait) = slot.checked_sub(passed) {
            tokio::time::sleep(wait).await;
        }
    }
}

/// One lane at work: plans, sends, and at the end delivers what is owed. Returns how many cells it could not settle.
pub(super) async fn drive(
    mut lane: Lane,
    outbox: Arc<Outbox>,
    pacer: Arc<Pacer>,
    mut stop: watch::Receiver<bool>,
    patience: Duration,
) -> usize {
    let mut line = Line { outbox: Arc::clone(&outbox), connection: None };
    let pace = outbox.platform.manners().pace;
    while !*stop.borrow() {
        for shot in lane.step(time::now()) {
            pacer.wait().await;
            line.deliver(&mut lane, shot).await;
        }
        if !pace.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(pace) => {}
                _ = stop.changed() => {}
            }
        }
    }
    let end = time::instant() + patience;
    while time::instant() < end {
        let shots = lane.finish(time::now());
        if shots.is_empty() {
            return 0;
        }
        let owed = lane.owed();
        for shot in shots {
            line.deliver(&mut lane, shot).await;
        }
        if lane.owed() >= owed && owed > 0 {
            tokio::time::sleep(BACK_OFF).await;
        }
    }
    lane.owed()
}

/// One lane's way to the gateway.
struct Line {
    outbox: Arc<Outbox>,
    connection: Option<Connection>,
}

impl Line {
    /// Deliver one message, with the resends that its platform makes at once.
    async fn deliver(&mut self, lane: &mut Lane, mut shot: Shot) {
        loop {
            let request = self.outbox.request(&shot, time::now());
            self.outbox.tell(&shot, |witness, sent| witness.sending(sent));
            let began = time::instant();
            let answer = self.send(request).await;
            let took = time::instant().duration_since(began);
            let (ending, outcome) = match answer {
                Ok(status) if (self.outbox.platform.manners().success)(status) => (Ending::Ok, Outcome::Taken),
                Ok(401 | 403 | 404) => (Ending::Rejected, Outcome::Refused),
                Ok(_) => (Ending::Other, Outcome::Refused),
                Err(error) => {
                    tracing::debug!(source = self.outbox.account.name, ?took, %error, "a delivery was not answered");
                    (Ending::Lost, Outcome::Silence)
                }
            };
            if ending == Ending::Ok {
                self.outbox.tell(&shot, |witness, sent| witness.taken(sent));
            }
            self.outbox.meter.count(shot.forged, ending, took);
            if ending == Ending::Lost {
                // a gateway that is down is not asked in a tight loop
                tokio::time::sleep(BACK_OFF).await;
            }
            if lane.answered(&mut shot, outcome) == Then::Go {
                return;
            }
        }
    }

    async fn send(&mut self, mut request: Request<Bytes>) -> Result<u16, ClientError> {
        match self.outbox.platform.manners().wire {
            Wire::Http2 => self.outbox.client.send(&self.outbox.base, request).await.map(|a| a.status.as_u16()),
            Wire::Close => {
                request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                let mut connection = self.outbox.client.connect(&self.outbox.base).await?;
                connection.send(request).await.map(|a| a.status.as_u16())
            }
            Wire::KeepAlive => self.send_kept(request).await,
        }
    }

    /// On the lane's own connection; a new one when the gateway has closed it.
    async fn send_kept(&mut self, request: Request<Bytes>) -> Result<u16, ClientError> {
        if let Some(mut kept) = self.connection.take()
            && !kept.is_closed()
        {
            match kept.send(request.clone()).await {
                Ok(answer) => {
                    self.connection = Some(kept);
                    return Ok(answer.status.as_u16());
                }
                Err(error) if error.never_sent() => {}
                Err(error) => return Err(error),
            }
        }
        let mut connection = self.outbox.client.connect(&self.outbox.base).await?;
        let answer = connection.send(request).await?;
        self.connection = Some(connection);
        Ok(answer.status.as_u16())
    }
}
