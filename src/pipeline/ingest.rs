//! The public listener: `POST /in/<source>[/<token>]`, authenticated, identified, appended to the journal, answered.
//!
//! Order matters and is the same for every platform: route, address list, path token, client certificate, greeting (pings that come before any
//! signature), body (capped and timed), authentication over the raw bytes, identity, journal, answer. A 2xx leaves only after
//! the commit that holds the delivery. After authentication nothing is refused for its content; before it, nothing of the
//! body is looked at. Anything that names no source is a bare 404, and so is a wrong path token: nobody learns which
//! sources exist.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use ring::digest::{Context, SHA256, digest};

use crate::limits::{NAME_MAX_BYTES, RETRY_AFTER_SECONDS, WARN_PERIOD_SECONDS};
use crate::metrics::{self, DeliveryResult, SourceMeters};
use crate::net::body::BodyError;
use crate::net::client_auth::{ClientRefusal, ClientTrust};
use crate::net::serve::{Handler, Incoming, Outgoing};
use crate::sources::{Refusal, Source, signature};
use crate::store::codec::encode_record;
use crate::store::journal::{Appender, Pending, Refused};
use crate::time;
use crate::types::{
    Delivery, DeliveryKey, Fields, HeaderList, Identity, Message, Network, Record, RecordBody, Secret, SourceId,
};

/// What ingest needs to know of one source.
pub struct Route {
    id: SourceId,
    adapter: Arc<dyn Source>,
    secrets: Vec<Secret>,
    token: Option<Secret>,
    allow: Vec<Network>,
    /// Whose certificate a client must have; `None`: nobody's.
    clients: Option<ClientTrust>,
    kept_headers: Vec<String>,
    meters: SourceMeters,
    /// When the last refusal was logged, in seconds.
    warned_at: AtomicI64,
}

impl Route {
    /// A source as configured.
    pub fn new(
        id: SourceId,
        adapter: Arc<dyn Source>,
        secrets: Vec<Secret>,
        token: Option<Secret>,
        allow: Vec<Network>,
    ) -> Self {
        let kept_headers = adapter.kept_headers();
        let meters = SourceMeters::new(id.as_str(), secrets.len());
        let warned_at = AtomicI64::new(i64::MIN);
        Self { id, adapter, secrets, token, allow, clients: None, kept_headers, meters, warned_at }
    }

    /// Take deliveries only from clients with a certificate that this trusts.
    #[must_use]
    pub fn from_clients(self, trust: ClientTrust) -> Self {
        metrics::client_list_expires(self.id.as_str(), trust.list_expires());
        for refusal in ClientRefusal::ALL {
            metrics::client_refused(self.id.as_str(), refusal.as_str(), 0);
        }
        Self { clients: Some(trust), ..self }
    }

    /// Whom it trusts to deliver, when it asks for a certificate.
    pub fn clients(&self) -> Option<&ClientTrust> {
        self.clients.as_ref()
    }

    /// True once a minute: for what anybody can make us say.
    fn may_warn(&self) -> bool {
        let (now, last) = (time::now().seconds(), self.warned_at.load(Ordering::Relaxed));
        let may = now.saturating_sub(last) >= WARN_PERIOD_SECONDS;
        if may {
            self.warned_at.store(now, Ordering::Relaxed);
        }
        may
    }

    /// Say that a delivery was refused.
    fn warn(&self, peer: IpAddr, refusal: Refusal) {
        if self.may_warn() {
            tracing::warn!(source = %self.id, %peer, reason = refusal.as_str(), "delivery refused: check the source's secret");
        }
    }

    /// Does the client's certificate do? Why not is for us alone.
    fn certified(&self, request: &Incoming) -> bool {
        let Some(trust) = &self.clients else { return true };
        let Err(refusal) = trust.verify(request.certificate.as_deref()) else { return true };
        self.meters.delivery(DeliveryResult::BadCertificate);
        metrics::client_refused(self.id.as_str(), refusal.as_str(), 1);
        let (reason, peer) = (refusal.as_str(), request.peer);
        let client = request.certificate.as_ref().map(|presented| presented.name()).unwrap_or_default();
        if self.may_warn() {
            tracing::warn!(source = %self.id, %peer, client, reason, "delivery refused: the client's certificate does not do");
        } else {
            tracing::debug!(source = %self.id, %peer, client, reason, "refused");
        }
        false
    }
}

/// All routes, swapped whole at a reload.
type Routes = HashMap<String, Arc<Route>>;

/// The handler of the public listener.
pub struct Ingest {
    routes: RwLock<Arc<Routes>>,
    journal: Appender,
}

impl Ingest {
    /// Over a journal.
    pub fn new(routes: Vec<Route>, journal: Appender) -> Self {
        Self { routes: RwLock::new(Arc::new(by_name(routes))), journal }
    }

    /// Take a new configuration into use; requests under way finish under the old one.
    pub fn replace(&self, routes: Vec<Route>) {
        let new = Arc::new(by_name(routes));
        let old = std::mem::replace(&mut *self.routes.write().unwrap_or_else(PoisonError::into_inner), Arc::clone(&new));
        // a list that is in use no more must not be seen to expire
        let ended = |name: &&String| new.get(*name).is_none_or(|route| route.clients.is_none());
        for name in old.iter().filter(|(_, route)| route.clients.is_some()).map(|(name, _)| name).filter(ended) {
            metrics::client_list_expires(name, None);
        }
    }

    fn route<'a>(&self, path: &'a str) -> Option<(Arc<Route>, Option<&'a str>)> {
        let rest = path.strip_prefix("/in/")?;
        let (name, token) = match rest.split_once('/') {
            Some((name, token)) => (name, Some(token)),
            None => (rest, None),
        };
        let routes = Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner));
        Some((Arc::clone(routes.get(name)?), token))
    }
}

fn by_name(routes: Vec<Route>) -> Routes {
    routes.into_iter().map(|route| (route.id.as_str().to_owned(), Arc::new(route))).collect()
}

impl Handler for Ingest {
    #[expect(clippy::manual_async_fn, reason = "it would keep a second place for its argument in the future: see the test")]
    fn handle(&self, request: Incoming) -> impl Future<Output = Outgoing> + Send {
        async move {
            let route = match self.admit(&request) {
                Ok(route) => route,
                Err(answer) => return *answer,
            };
            // platforms greet with GET, HEAD, OPTIONS or an unsigned POST; only the last has a body worth reading
            if request.method != Method::POST {
                let message =
                    Message { query: &request.query, headers: &request.headers, body: b"", received_at: time::now() };
                return match route.adapter.greet(request.method.as_str(), &message) {
                    Some(greeting) => plain(greeting.status, greeting.body),
                    None => status(StatusCode::NOT_FOUND),
                };
            }
            let held = match request.body.read().await {
                Ok(held) => held,
                Err(error) => return unread(&route, error),
            };
            let arrived = time::instant();
            let pending = match self.take(&route, request.peer, &request.query, &request.headers, &held) {
                Ok(pending) => pending,
                Err(answer) => return *answer,
            };
            let durable = pending.durable().await;
            // only now the share of the body budget goes back: it bounds what waits in the queue, too
            drop(held);
            match durable {
                Ok(_) => {
                    route.meters.ack(arrived.elapsed());
                    let mut answer = status(StatusCode::from_u16(route.adapter.success_status()).unwrap_or(StatusCode::OK));
                    *answer.headers_mut() = emptied(request.headers);
                    answer
                }
                Err(refused) => busy(&route, refused),
            }
        }
    }
}

/// The same map without a field. An answer takes its place, empty, to the connection, which reads the next request into it.
fn emptied(mut headers: http::HeaderMap) -> http::HeaderMap {
    headers.clear();
    headers
}

/// Address list and path token, before anything else is looked at.
fn allowed(route: &Route, peer: IpAddr, token: Option<&str>) -> Result<(), DeliveryResult> {
    if !route.allow.is_empty() && !route.allow.iter().any(|network| network.contains(peer)) {
        return Err(DeliveryResult::BadAddress);
    }
    match (&route.token, token) {
        (None, None) => Ok(()),
        (Some(expected), Some(given)) if signature::same_secret(expected.expose(), given.as_bytes()) => Ok(()),
        _ => Err(DeliveryResult::BadToken),
    }
}

impl Ingest {
    /// Everything that comes before the body is looked at: the source that a request is for, or the answer that ends it here.
    fn admit(&self, request: &Incoming) -> Result<Arc<Route>, Box<Outgoing>> {
        let Some((route, token)) = self.route(&request.path) else {
            metrics::unknown_path();
            return Err(Box::new(status(StatusCode::NOT_FOUND)));
        };
        if let Err(refused) = allowed(&route, request.peer, token) {
            route.meters.delivery(refused);
            tracing::debug!(source = %route.id, peer = %request.peer, reason = refused.as_str(), "refused");
            return Err(Box::new(status(StatusCode::NOT_FOUND)));
        }
        if !route.certified(request) {
            return Err(Box::new(status(StatusCode::FORBIDDEN)));
        }
        Ok(route)
    }

    /// Greet, authenticate, identify and queue a message; or the answer that ends it here.
    fn take(
        &self,
        route: &Route,
        peer: IpAddr,
        query: &str,
        headers: &http::HeaderMap,
        body: &[u8],
    ) -> Result<Pending, Box<Outgoing>> {
        let message = Message { query, headers: &Fields::from(headers), body, received_at: time::now() };
        if let Some(greeting) = route.adapter.greet("POST", &message) {
            return Err(Box::new(plain(greeting.status, greeting.body)));
        }
        match route.adapter.authenticate(&message, &route.secrets) {
            Ok(index) => route.meters.secret(index),
            Err(refusal) => {
                route.meters.delivery(match refusal {
                    Refusal::Unsigned => DeliveryResult::Unsigned,
                    Refusal::BadSignature => DeliveryResult::BadSignature,
                    Refusal::Stale => DeliveryResult::StaleSignature,
                });
                route.warn(peer, refusal);
                let mut answer = status(StatusCode::UNAUTHORIZED);
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Signature"));
                return Err(Box::new(answer));
            }
        }
        self.journal.append(record(route, &message)).map_err(|refused| Box::new(busy(route, refused)))
    }
}

/// The journal record of a genuine message.
fn record(route: &Route, message: &Message<'_>) -> Vec<u8> {
    let body_hash = digest(&SHA256, message.body);
    let (mut body_digest, mut key_bytes) = ([0; 8], [0; 16]);
    body_digest.copy_from_slice(body_hash.as_ref().split_at(8).0);
    let (key, label) = match route.adapter.identify(message) {
        Identity::Named(parts) if parts.first().is_some_and(|p| !p.is_empty()) => {
            let mut context = Context::new(&SHA256);
            for part in std::iter::once(route.id.as_str().as_bytes()).chain(parts.iter().map(Vec::as_slice)) {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
            key_bytes.copy_from_slice(context.finish().as_ref().split_at(16).0);
            let first = parts.first().map(Vec::as_slice).unwrap_or_default();
            (DeliveryKey::Named(key_bytes), readable(first))
        }
        Identity::Named(_) | Identity::Content => {
            (DeliveryKey::Content, format!("sha256:{}", data_encoding::HEXLOWER.encode(&body_digest)))
        }
    };
    let headers = route.kept_headers.iter().filter_map(|name| Some((name.as_str(), message.headers.get(name)?))).collect();
    encode_record(&Record {
        at: message.received_at,
        body: RecordBody::Delivery(Delivery {
            source: route.id.as_str(),
            key,
            body_digest,
            label: &label,
            query: message.query,
            headers: HeaderList(headers),
            body: message.body,
        }),
    })
}

/// A delivery id for people: bounded, without control characters.
fn readable(id: &[u8]) -> String {
    String::from_utf8_lossy(id).chars().filter(|c| !c.is_control()).take(NAME_MAX_BYTES / 4).collect()
}

fn unread(route: &Route, error: BodyError) -> Outgoing {
    match error {
        BodyError::TooLarge => {
            route.meters.delivery(DeliveryResult::TooLarge);
            status(StatusCode::PAYLOAD_TOO_LARGE)
        }
        BodyError::TimedOut | BodyError::Broken => {
            route.meters.delivery(DeliveryResult::Incomplete);
            status(StatusCode::REQUEST_TIMEOUT)
        }
        BodyError::Budget => {
            route.meters.delivery(DeliveryResult::Overloaded);
            retry_later()
        }
    }
}

fn busy(route: &Route, refused: Refused) -> Outgoing {
    route.meters.delivery(match refused {
        Refused::Full => DeliveryResult::Overloaded,
        Refused::Unavailable => DeliveryResult::Unavailable,
    });
    retry_later()
}

fn retry_later() -> Outgoing {
    let mut answer = status(StatusCode::SERVICE_UNAVAILABLE);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    answer
}

fn status(code: StatusCode) -> Outgoing {
    let mut answer = Outgoing::new(http_body_util::Full::new(Bytes::new()));
    *answer.status_mut() = code;
    answer
}

fn plain(code: u16, body: String) -> Outgoing {
    let mut answer = status(StatusCode::from_u16(code).unwrap_or(StatusCode::OK));
    if !body.is_empty() {
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        *answer.body_mut() = http_body_util::Full::new(Bytes::from(body));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::{Handler, Incoming, Ingest, Outgoing};

    /// What the allocator gives without a detour (mimalloc's small objects).
    const SMALL_BYTES: usize = 1024;

    fn bytes_of<F: Future<Output = Outgoing>>(_: impl Fn(&'static Ingest, Incoming) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_delivery_under_way_takes_little_memory() {
        let bytes = bytes_of(|ingest: &'static Ingest, request| ingest.handle(request));
        assert!(bytes <= SMALL_BYTES, "{bytes} bytes");
    }
}
