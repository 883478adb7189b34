//! Why there is no certificate: a closed set for metrics, a sentence for people.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use instant_acme::{Error, Problem};

use super::http::Http;
use crate::limits;
use crate::net::client::ClientError;

/// What kind of failure it was: the `reason` label of `stockgate_acme_failures_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The server cannot be reached, or its own certificate is not trusted.
    Unreachable,
    /// What answers at the directory's address is no ACME server.
    Directory,
    /// The server asks for patience.
    RateLimited,
    /// The account is not taken.
    Account,
    /// A name could not be proven.
    Challenge,
    /// The order was refused, expired or was not done in time.
    Order,
    /// The server has a fault.
    Server,
    /// The certificate that came cannot be used.
    Certificate,
    /// What came cannot be kept on the disk.
    Storage,
}

impl Reason {
    /// All of them, so that every series exists from the start.
    pub const ALL: &'static [Self] = &[
        Self::Unreachable,
        Self::Directory,
        Self::RateLimited,
        Self::Account,
        Self::Challenge,
        Self::Order,
        Self::Server,
        Self::Certificate,
        Self::Storage,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Directory => "directory",
            Self::RateLimited => "rate-limited",
            Self::Account => "account",
            Self::Challenge => "challenge",
            Self::Order => "order",
            Self::Server => "server",
            Self::Certificate => "certificate",
            Self::Storage => "storage",
        }
    }

    /// What an operator can do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "see that this machine reaches the server: name resolution, firewall, clock; [tls.acme].ca_file for a private one"
            }
            Self::Directory => "see [tls.acme].directory: it must be the URL of the server's directory",
            Self::RateLimited => "wait: the server says how long. Let's Encrypt has a directory for trials",
            Self::Account => "see [tls.acme].contact and what the server asks of accounts",
            Self::Challenge => {
                "see that every name of tls.names leads to this machine, at port 443 to listen.address (tls-alpn-01) or at \
                 port 80 to [tls.acme].http_address (http-01)"
            }
            Self::Order => "see that the server takes orders for these names",
            Self::Server => "the server has a fault: it is asked again",
            Self::Certificate => "see the names in tls.names and the clock of this machine",
            Self::Storage => "the gateway must be able to write to its data directory",
        }
    }

    /// By its word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
    }

    /// The server has not seen enough of the attempt to count it.
    pub const fn is_harmless(self) -> bool {
        matches!(self, Self::Unreachable | Self::Directory | Self::Server)
    }

    pub(super) fn of_status(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Some(Self::RateLimited),
            status if status.is_server_error() => Some(Self::Server),
            _ => None,
        }
    }

    /// By the error types of RFC 8555, section 6.7; `otherwise` for what depends on the step.
    fn of_problem(problem: &Problem, otherwise: Self) -> Self {
        match problem.r#type.as_deref().and_then(|t| t.strip_prefix("urn:ietf:params:acme:error:")) {
            Some("rateLimited") => Self::RateLimited,
            Some("serverInternal") => Self::Server,
            Some(
                "accountDoesNotExist"
                | "externalAccountRequired"
                | "invalidContact"
                | "unsupportedContact"
                | "userActionRequired"
                | "badPublicKey",
            ) => Self::Account,
            Some("caa" | "connection" | "dns" | "incorrectResponse" | "tls") => Self::Challenge,
            Some("rejectedIdentifier" | "unsupportedIdentifier" | "orderNotReady" | "badCSR") => Self::Order,
            _ => otherwise,
        }
    }
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind.
    pub reason: Reason,
    /// What went wrong, in a sentence. May hold the server's words, shortened; never a secret.
    pub message: String,
    /// The wait that the server asked for.
    pub retry_after: Option<Duration>,
    /// The server does not know the account: a new one may help.
    pub account_gone: bool,
}

impl Failure {
    /// A failure of our own finding.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: shortened(&message.into()), retry_after: None, account_gone: false }
    }

    /// A failure at a step: `otherwise` is what it is when the error does not say more, `what` was being done.
    pub(super) fn of(error: &Error, http: &Http, otherwise: Reason, what: &str) -> Self {
        let last = http.last();
        let by_status = last.and_then(|last| Reason::of_status(last.status));
        let retry_after = last.filter(|last| !last.status.is_success()).and_then(|last| last.retry_after);
        let known = |reason, message: String| Self { retry_after, ..Self::new(reason, message) };
        match error {
            Error::Api(problem) => {
                let reason = Reason::of_problem(problem, by_status.unwrap_or(otherwise));
                let gone = problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist");
                Self { account_gone: gone, ..known(reason, format!("{what}: {}", words(problem))) }
            }
            Error::Other(inner) => match inner.downcast_ref::<ClientError>() {
                Some(client) => Self::new(Reason::Unreachable, format!("{what}: {client}")),
                None => known(otherwise, format!("{what}: {inner}")),
            },
            Error::Timeout(_) => known(Reason::Order, format!("{what}: the server did not finish in time")),
            // an answer that is no ACME, such as a proxy's page
            Error::Json(_) => {
                let status = last.map(|last| format!(" ({})", last.status)).unwrap_or_default();
                known(by_status.unwrap_or(Reason::Server), format!("{what}: the answer{status} is not of the protocol"))
            }
            other => known(by_status.unwrap_or(otherwise), format!("{what}: {other}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.reason.as_str())
    }
}

/// A server's words about a problem, with those about single names.
pub(super) fn words(problem: &Problem) -> String {
    let mut text = match (&problem.detail, &problem.r#type) {
        (Some(detail), _) => detail.clone(),
        (None, Some(kind)) => kind.clone(),
        (None, None) => "refused without a word".to_owned(),
    };
    for one in &problem.subproblems {
        text.push_str("; ");
        text.push_str(one.detail.as_deref().unwrap_or_default());
    }
    text
}

/// One line, of bounded length: some of it is a stranger's.
fn shortened(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.len() <= limits::ACME_MESSAGE_MAX_BYTES {
        return clean;
    }
    let end = (0..=limits::ACME_MESSAGE_MAX_BYTES).rev().find(|i| clean.is_char_boundary(*i)).unwrap_or(0);
    format!("{}..", clean.get(..end).unwrap_or_default())
}
