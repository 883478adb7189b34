//! Certificates from an ACME server (RFC 8555): accounts, orders, challenges and renewal information (RFC 9773).
//!
//! ```text
//!  Server -- account() --> Account -- obtain(names) --> Issued { chain, key }
//!     |                                  |   ^
//!     |                              Challenges: shown by `tls` (TLS-ALPN-01) or `Http01` (HTTP-01)
//!     +-- renewal(id) --> when the server wants it replaced
//! ```
//!
//! The protocol is instant-acme's; the requests are our client's ([`http`]). This decides nothing about time and keeps nothing:
//! when to ask again and where the files lie is the business of `pipeline::certificate`. A [`Failure`] says in a sentence what went
//! wrong and what to do; its [`Reason`] is a closed set, the label of `stockgate_acme_failures_total`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use instant_acme::{AccountCredentials, ChallengeType, Error, NewAccount};
use serde::{Deserialize, Serialize};

pub mod challenge;
mod http;
mod order;
mod reason;

use self::http::Http;
pub use self::order::{Issued, Order};
pub use self::reason::{Failure, Reason};
use crate::net::client::ClientError;
use crate::net::trust::Trust;
use crate::time::Timestamp;

/// How the server is shown that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proof {
    /// By the public listener.
    #[default]
    TlsAlpn01,
    /// By a plain listener on port 80.
    Http01,
}

impl Proof {
    /// The words of the configuration.
    pub const WORDS: &'static [(&'static str, Self)] = &[("tls-alpn-01", Self::TlsAlpn01), ("http-01", Self::Http01)];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }

    fn kind(self) -> ChallengeType {
        match self {
            Self::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Self::Http01 => ChallengeType::Http01,
        }
    }
}

/// An ACME server that has shown its directory.
pub struct Server {
    http: Http,
    url: String,
    directory: Directory,
}

/// What we read of a directory ourselves (RFC 8555, section 7.1.1; RFC 9773, section 4.1).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    #[serde(rename = "newNonce")]
    _new_nonce: String,
    #[serde(rename = "newAccount")]
    _new_account: String,
    #[serde(rename = "newOrder")]
    _new_order: String,
    renewal_info: Option<String>,
}

/// When the server wants a certificate replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// From here ..
    pub start: Timestamp,
    /// .. to here, at a moment that each client chooses by chance.
    pub end: Timestamp,
    /// When to ask again, as the server says.
    pub ask_again: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RenewalInfo {
    suggested_window: SuggestedWindow,
}

#[derive(Deserialize)]
struct SuggestedWindow {
    start: String,
    end: String,
}

/// An account as it is kept: with the contacts that the server knows. Holds the account's private key.
#[derive(Serialize, Deserialize)]
struct Kept {
    contact: Vec<String>,
    credentials: AccountCredentials,
}

/// An account at a server.
pub struct Account<'s> {
    inner: instant_acme::Account,
    http: &'s Http,
    renewal_info: bool,
}

impl Server {
    /// Look at the directory at `url`.
    pub async fn look(url: &str, trust: Trust) -> Result<Self, Failure> {
        let http = Http::new(trust).map_err(|error| Failure::new(Reason::Unreachable, error.to_string()))?;
        let request = ::http::Request::get(url).body(Bytes::new());
        let request = request.map_err(|_| Failure::new(Reason::Directory, format!("{url} is no URL")))?;
        let answer = http.send(request).await.map_err(|error| Failure::of_client(&error, url))?;
        if !answer.status.is_success() {
            let reason = Reason::of_status(answer.status).unwrap_or(Reason::Directory);
            let message = format!("{url} answers {}: see that it is the server's ACME directory", answer.status);
            return Err(Failure { retry_after: http.last().and_then(|l| l.retry_after), ..Failure::new(reason, message) });
        }
        let directory = serde_json::from_slice(&answer.body)
            .map_err(|_| Failure::new(Reason::Directory, format!("{url} is no ACME directory: see tls.acme.directory")))?;
        Ok(Self { http, url: url.to_owned(), directory })
    }

    /// The account that `kept` holds, or a new one. What comes back besides must be kept before anything is ordered.
    /// `contact` are `mailto:` URLs; to call this is to agree to the server's terms of service.
    pub async fn account(&self, kept: Option<&[u8]>, contact: &[String]) -> Result<(Account<'_>, Option<Vec<u8>>), Failure> {
        let refused = |error: Error| Failure::of(&error, &self.http, Reason::Account, "the account");
        let urls: Vec<&str> = contact.iter().map(String::as_str).collect();
        let known = kept.and_then(|bytes| serde_json::from_slice::<Kept>(bytes).ok());
        let builder = || instant_acme::Account::builder_with_http(Box::new(self.http.clone()));
        let (account, credentials) = if let Some(known) = known {
            if known.contact == contact {
                let account = builder().from_credentials(known.credentials).await.map_err(refused)?;
                return Ok((self.with(account), None));
            }
            let copy = serde_json::to_vec(&known.credentials).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let copy: AccountCredentials = copy.expect("credentials that were read can be written and read again");
            let account = builder().from_credentials(copy).await.map_err(refused)?;
            account.update_contacts(&urls).await.map_err(refused)?;
            (account, known.credentials)
        } else {
            let new = NewAccount { contact: &urls, terms_of_service_agreed: true, only_return_existing: false };
            builder().create(&new, self.url.clone(), None).await.map_err(refused)?
        };
        let keep = serde_json::to_vec(&Kept { contact: contact.to_vec(), credentials });
        let keep = keep.map_err(|error| Failure::new(Reason::Account, format!("the account cannot be kept: {error}")))?;
        Ok((self.with(account), Some(keep)))
    }

    fn with(&self, account: instant_acme::Account) -> Account<'_> {
        Account { inner: account, http: &self.http, renewal_info: self.directory.renewal_info.is_some() }
    }

    /// When the server wants the certificate replaced that [`crate::net::tls::Identity::renewal_id`] names; `None`: it does not say.
    pub async fn renewal(&self, id: &(String, String)) -> Result<Option<Renewal>, Failure> {
        let Some(url) = &self.directory.renewal_info else { return Ok(None) };
        let url = format!("{}/{}.{}", url.trim_end_matches('/'), id.0, id.1);
        let odd = |what: &str| Failure::new(Reason::Server, format!("the renewal information {what}"));
        let request = ::http::Request::get(&url).body(Bytes::new()).map_err(|_| odd("has no good address"))?;
        let answer = self.http.send(request).await.map_err(|error| Failure::of_client(&error, &self.url))?;
        if !answer.status.is_success() {
            return Err(odd(&format!("is answered with {}", answer.status)));
        }
        let info: RenewalInfo = serde_json::from_slice(&answer.body).map_err(|_| odd("cannot be read"))?;
        let window = info.suggested_window;
        let moment = |text: &str| Timestamp::parse_rfc3339(text).ok_or_else(|| odd("holds no time"));
        let (start, end) = (moment(&window.start)?, moment(&window.end)?);
        if end <= start {
            return Err(odd("ends before it starts"));
        }
        Ok(Some(Renewal { start, end, ask_again: http::retry_after(&answer.headers) }))
    }
}

/// How it stands with ACME: shown by the API and by doctor, kept over restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The server's directory.
    pub directory: String,
    /// The names asked for.
    pub names: Vec<String>,
    /// When a certificate was last brought from this directory for these names.
    pub last_success: Option<Timestamp>,
    /// When the next one is asked for.
    pub next_attempt: Option<Timestamp>,
    /// Attempts that failed since the last success.
    pub failures: u32,
    /// The last of them.
    pub last_failure: Option<LastFailure>,
    /// The server asked for no attempt before this.
    pub held_until: Option<Timestamp>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    /// When.
    pub at: Timestamp,
    /// [`Reason::as_str`].
    pub reason: String,
    /// What went wrong, in a sentence.
    pub message: String,
}

/// The report of a running gateway; `None`: ACME is not configured.
#[derive(Debug, Default)]
pub struct Standing(Mutex<Option<Report>>);

impl Standing {
    /// Show a new report.
    pub fn set(&self, report: Option<Report>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }

    /// The report as it is now.
    pub fn get(&self) -> Option<Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Failure {
    /// A request that got no answer.
    fn of_client(error: &ClientError, url: &str) -> Self {
        let reason = if matches!(error, ClientError::Request(_)) { Reason::Directory } else { Reason::Unreachable };
        Self::new(reason, format!("{url}: {error}"))
    }
}
