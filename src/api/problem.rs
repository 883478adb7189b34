//! Answers: JSON, text and problem documents (RFC 9457).

use std::io;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::limits::RETRY_AFTER_SECONDS;
use crate::net::body::BodyError;
use crate::net::serve::Outgoing;
use crate::store::StoreError;
use crate::store::journal::Refused;

/// What every operation returns.
pub(super) type Answer = Result<Outgoing, Problem>;

/// Why a request got no answer: a status and a sentence that says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    /// Several sentences, where there are several problems.
    problems: Vec<String>,
    /// The methods that the resource has (405).
    allow: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    problems: &'a [String],
}

impl Problem {
    /// A problem with this status.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), problems: Vec::new(), allow: None }
    }

    /// 400: the request itself is wrong.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401: who asks is not known. The answer names the scheme (RFC 9110, section 15.5.2).
    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// 404: there is no such thing.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 405, with the methods that there are.
    pub(super) fn method_not_allowed(path: &str, allow: String) -> Self {
        let detail = format!("{path} takes {allow}");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, detail) }
    }

    /// The same with a list of what is wrong.
    pub(super) fn with_problems(self, problems: Vec<String>) -> Self {
        Self { problems, ..self }
    }

    /// The status.
    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The document as an answer.
    pub(super) fn into_answer(self) -> Outgoing {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            problems: &self.problems,
        };
        let mut answer = answer(self.status, "application/problem+json", to_json(&document));
        if let Some(allow) = self.allow.and_then(|a| HeaderValue::try_from(a).ok()) {
            answer.headers_mut().insert(ALLOW, allow);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"stockgate\""));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        answer
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the admin api cannot read the store");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the store cannot be read: {error}"))
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        tracing::error!(%error, "the admin api cannot make an answer");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be made; the log says more")
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = match refused {
            Refused::Full => "the journal's queue is full: nothing was written, try again in a moment",
            Refused::Unavailable => {
                "the journal cannot be written (disk full or failed, or the gateway is stopping): nothing is decided"
            }
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TimedOut => StatusCode::REQUEST_TIMEOUT,
            BodyError::Budget => StatusCode::SERVICE_UNAVAILABLE,
            BodyError::Broken => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("answers have text keys and finite numbers");
    bytes.push(b'\n');
    bytes
}

/// An answer with a body. Nothing of the admin API may be kept by a cache or guessed to be another type.
pub(super) fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Outgoing {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// 200 with JSON.
pub(super) fn json(value: &impl Serialize) -> Outgoing {
    json_with(StatusCode::OK, value)
}

/// JSON with a status.
pub(super) fn json_with(status: StatusCode, value: &impl Serialize) -> Outgoing {
    answer(status, "application/json", to_json(value))
}

/// Plain text.
pub(super) fn text(status: StatusCode, body: String) -> Outgoing {
    answer(status, "text/plain; charset=utf-8", body)
}
