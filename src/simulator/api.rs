//! The simulated platforms' APIs: an HTTP handler over a pure answer.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::platform::Platform;
use super::truth::Account;
use crate::net::serve::{Handler, Incoming, Outgoing};
use crate::time;
use crate::time::Timestamp;
use crate::types::{Headers, query_value};

/// One in so many calls finds the platform busy (a prime, so that it meets every kind of call).
const BUSY_EVERY: u64 = 61;

/// A request to a platform's API.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// Path, without the query.
    pub path: &'a str,
    /// Query, without `?`.
    pub query: &'a str,
    /// Header fields.
    pub headers: &'a dyn Headers,
    /// When it came.
    pub now: Timestamp,
}

impl Call<'_> {
    /// A header field; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or("")
    }

    /// A query parameter, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        query_value(self.query, name)
    }
}

/// An API's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header fields besides the content type.
    pub headers: Vec<(&'static str, String)>,
    /// The body, not compressed.
    pub body: String,
    /// Compress it.
    pub gzip: bool,
}

impl Reply {
    /// 200 with a JSON body.
    pub fn json(body: String) -> Self {
        Self { status: 200, headers: Vec::new(), body, gzip: false }
    }

    /// Anything else.
    pub fn error(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.to_owned(), gzip: false }
    }

    /// With a header field more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Answer a call: now and then "too many requests", in the platform's own form.
pub fn answer(platform: &dyn Platform, account: &Account, call: &Call<'_>) -> Reply {
    let number = account.count_call();
    if number % BUSY_EVERY == BUSY_EVERY - 1 && !account.is_calm() {
        return platform.busy();
    }
    platform.api(account, call)
}

/// Serves one account's API.
pub(super) struct Server {
    pub(super) platform: &'static dyn Platform,
    pub(super) account: Arc<Account>,
}

impl Handler for Server {
    async fn handle(&self, request: Incoming) -> Outgoing {
        if request.method != http::Method::GET {
            return outgoing(&Reply::error(405, "{}"));
        }
        let call = Call { path: &request.path, query: &request.query, headers: &request.headers, now: time::now() };
        outgoing(&answer(self.platform, &self.account, &call))
    }
}

fn outgoing(reply: &Reply) -> Outgoing {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = response.headers_mut();
    fields.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    for (name, value) in &reply.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.insert(HeaderName::from_static(name), value);
        }
    }
    let plain = Bytes::copy_from_slice(reply.body.as_bytes());
    let body = match reply.gzip.then(|| compressed(&plain)).flatten() {
        Some(small) => {
            fields.insert(http::header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            small
        }
        None => plain,
    };
    *response.body_mut() = Full::new(body);
    response
}

fn compressed(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).ok()?;
    encoder.finish().ok().map(Bytes::from)
}
