//! instant-acme's requests through our own client: its bounds, its deadlines, its roots.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::limits;
use crate::net::client::{Alpn, Answer, BaseUrl, Client, ClientError, Limits};
use crate::net::trust::{Trust, TrustError};
use crate::time;

/// A client for one ACME server; a clone is the same client.
#[derive(Clone)]
pub(super) struct Http {
    client: Arc<Client>,
    last: Arc<Mutex<Option<Last>>>,
}

/// What the last answer said besides its body: instant-acme's errors do not tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
}

impl Http {
    pub(super) fn new(trust: Trust) -> Result<Self, TrustError> {
        let bounds = Limits { body_bytes: limits::ACME_BODY_MAX_BYTES, ..Limits::default() };
        let client = Client::with(trust, Alpn::Both, bounds, false)?;
        Ok(Self { client: Arc::new(client), last: Arc::default() })
    }

    /// The last answer, if there was one.
    pub(super) fn last(&self) -> Option<Last> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Send a request to wherever its URI says: the directory names the server's other addresses. `https`, or `http` to this machine.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Answer, ClientError> {
        let base = base_of(request.uri())?;
        let answer = self.client.send(&base, request).await?;
        let last = Last { status: answer.status, retry_after: retry_after(&answer.headers) };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        Ok(answer)
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let http = self.clone();
        Box::pin(async move {
            let (parts, mut body) = request.into_parts();
            let mut whole = BytesMut::new();
            // our own request: instant-acme has it in memory already
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(data) = frame.into_data() {
                    whole.extend_from_slice(&data);
                }
            }
            let sent = http.send(Request::from_parts(parts, whole.freeze())).await;
            let answer = sent.map_err(|error| Error::Other(Box::new(error)))?;
            let mut response = http::Response::new(Full::new(answer.body));
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            Ok(BytesResponse::from(response))
        })
    }
}

fn base_of(uri: &Uri) -> Result<BaseUrl, ClientError> {
    let bad = ClientError::Request("its address is no https URL");
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(bad) };
    BaseUrl::parse(&format!("{scheme}://{authority}")).map_err(|_| bad)
}

/// `Retry-After` as a length of time: seconds or a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => time::Timestamp::parse_http_date(text).map(|at| at.since(time::now())),
    }
}
