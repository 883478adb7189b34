//! The platforms that send stock: one folder a platform, one line in [`KINDS`].
//!
//! An adapter is pure: bytes and values in, values out. It opens no socket, reads no clock and no file, and knows no other
//! adapter. The pipeline owns deadlines, budgets, retries, metrics and the journal. What an adapter decides:
//!
//! 1. **greet**: an answer to the pings that come before any signature exists.
//! 2. **authenticate**: is this message genuine? Over the raw bytes, in constant time.
//! 3. **identify**: which delivery is it?
//! 4. **parse**: what does it say? Runs in the fold, from the journal, so it must be deterministic.
//! 5. **request, judge, read**: the next API request, what its answer means, and what it says.
//!
//! # Adding a platform
//! Make `sources/<platform>/mod.rs` (with `tests.rs` and `fixtures/` beside it), implement [`Source`], and add its [`Kind`]
//! to [`KINDS`]. Nothing else names it.

use std::time::Duration;

use crate::time::Timestamp;
use crate::types::{Identity, Message, Need, Observation, Secret, Settings, Unreadable};

pub mod bsale;
pub mod generic;
pub mod jetti;
pub mod json;
pub mod kladana;
pub mod mapping;
pub mod moment;
pub mod pointer;
pub mod shippingbo;
pub mod shopify;
pub mod signature;
pub mod standard_webhooks;
pub mod woocommerce;

/// One platform: how it is called in the configuration, and how an account on it is built.
#[derive(Clone, Copy)]
pub struct Kind {
    /// `kind = "..."` in the configuration.
    pub name: &'static str,
    /// One line for people: what it is and how it proves who it is.
    pub about: &'static str,
    /// Build an adapter from the source's own settings. Mistakes are reported into the settings; an adapter comes back
    /// all the same (its settings then being defaults), so that every mistake of a file is found in one go.
    pub build: fn(&mut Settings) -> Box<dyn Source>,
}

/// Every platform we know.
pub const KINDS: &[Kind] = &[
    bsale::KIND,
    generic::KIND,
    jetti::KIND,
    kladana::KIND,
    shippingbo::KIND,
    shopify::KIND,
    standard_webhooks::KIND,
    woocommerce::KIND,
];

/// Look a kind up by its name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.name == name)
}

/// One configured account on one platform.
pub trait Source: Send + Sync {
    /// True when the platform signs what it sends; false when only the secret path (and address list) can be trusted.
    fn signed(&self) -> bool;

    /// The status that the platform takes for "received": 200 or 204.
    fn success_status(&self) -> u16 {
        200
    }

    /// How long the platform may repeat a delivery: the dedup window of [`Identity::Named`] is at least this.
    fn horizon(&self) -> Duration;

    /// Header fields (lower case) that [`Source::parse`] and [`Source::identify`] read; they are kept in the journal.
    fn kept_headers(&self) -> Vec<String>;

    /// The answer to a ping or handshake that comes before any signature exists, or `None` when this is a delivery.
    /// `method` is upper case. Must not reveal anything about the account.
    fn greet(&self, method: &str, message: &Message<'_>) -> Option<Greeting> {
        let _ = (method, message);
        None
    }

    /// Is the message genuine? Returns the index of the secret that matched. Called before anything else is done with the
    /// body, with every current secret of the source; an unsigned platform returns `Ok(0)` (its path token was checked).
    fn authenticate(&self, message: &Message<'_>, secrets: &[Secret]) -> Result<usize, Refusal>;

    /// What is wrong with a configured secret, to follow "the secret from FILE": a key that is not of the platform's form
    /// verifies nothing, and every delivery would be refused.
    fn secret_problem(&self, secret: &Secret) -> Option<&'static str> {
        let _ = secret;
        None
    }

    /// Which delivery is it? Never fails: without trustworthy parts it is [`Identity::Content`].
    fn identify(&self, message: &Message<'_>) -> Identity;

    /// What a genuine message says. Deterministic: called in the fold, again at every replay.
    fn parse(&self, message: &Message<'_>) -> Result<Vec<Observation>, Unreadable>;

    /// How the platform's API is spoken to; `None` when this adapter never asks.
    fn api(&self) -> Option<ApiProfile> {
        None
    }

    /// What to fetch so that the platform itself settles two facts with equal stamps, or to refresh one item at one place;
    /// `location` is the platform's id, `None` for a platform without locations.
    fn settle(&self, item: &str, location: Option<&str>) -> Option<Need> {
        let _ = (item, location);
        None
    }

    /// What to fetch to learn the SKU of an item.
    fn catalogue(&self, item: &str) -> Option<Need> {
        let _ = item;
        None
    }

    /// The request for a need: its first page, or the page that [`Verdict::Next`] named. `None`: the key is not ours.
    fn request(&self, need: &Need, page: Option<&str>, credentials: &Credentials) -> Option<ApiRequest> {
        let _ = (need, page, credentials);
        None
    }

    /// What an answer means for the task. `now` serves a `Retry-After` that is a date.
    fn judge(&self, need: &Need, answer: &ApiAnswer<'_>, now: Timestamp) -> Verdict {
        let _ = (need, now);
        judge_plainly(answer)
    }

    /// What an answer says. Deterministic, like [`Source::parse`]; `sent_at` is when its request was sent.
    fn read(&self, need: &Need, sent_at: Timestamp, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
        let _ = (sent_at, body);
        Err(Unreadable(format!("no answer was expected for {}", need.key)))
    }
}

/// An answer to a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// HTTP status.
    pub status: u16,
    /// Plain text body; may echo a challenge that the sender put into its query.
    pub body: String,
}

/// Why a message is not taken for genuine. The client is told only "401"; the log and the metrics name this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No signature, or one that is not of the platform's form.
    Unsigned,
    /// The signature matches none of the secrets.
    BadSignature,
    /// Signed, but its timestamp is too far from now: a replay, or a wrong clock.
    Stale,
}

impl Refusal {
    /// The word in logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::BadSignature => "bad-signature",
            Self::Stale => "stale-signature",
        }
    }
}

/// How an API is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiProfile {
    /// Used when the configuration names no base URL; `None` when the operator must (a shop's own host).
    pub base_url: Option<&'static str>,
    /// Requests allowed per `per`: the pipeline never exceeds it.
    pub requests: u32,
    /// The window of `requests`.
    pub per: Duration,
    /// How long to gather notifications of one resource before asking once.
    pub gather: Duration,
    /// Names of the credentials that must be configured (`api.<name>_file`): `["token"]`.
    pub credentials: &'static [&'static str],
}

/// The secrets of an API account by name, as configured under `api.<name>_file`.
#[derive(Debug, Clone, Default)]
pub struct Credentials(pub Vec<(String, Secret)>);

impl Credentials {
    /// A credential as text; empty when it is not configured (which `check` reports beforehand).
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).and_then(|(_, s)| s.expose_str()).unwrap_or("").trim()
    }
}

/// A GET on the configured host. The pipeline adds host, user agent and `Accept-Encoding: gzip`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiRequest {
    /// Path and query, percent-encoded, starting with `/`; joined to the path of the base URL.
    pub target: String,
    /// Header fields, lower case; values may hold credentials and are never logged.
    pub headers: Vec<(&'static str, String)>,
}

impl std::fmt::Debug for ApiRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(n, _)| *n).collect();
        f.debug_struct("ApiRequest").field("target", &self.target).field("headers", &names).finish()
    }
}

/// An API's answer, decompressed.
#[derive(Clone, Copy)]
pub struct ApiAnswer<'a> {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: &'a dyn crate::types::Headers,
    /// The whole body.
    pub body: &'a [u8],
}

/// What an answer means for the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Good, and the last page.
    Done,
    /// Good, and this page follows.
    Next(String),
    /// Not now; wait at least this long (`None`: the pipeline's own back-off).
    Retry(Option<Duration>),
    /// Never; the reason is for people.
    GiveUp(String),
}

/// The usual reading of a status: 2xx done, 429 and 5xx later (with `Retry-After` in seconds), 401 and 403 later too (an
/// operator will mend the credentials and nothing is lost by waiting), anything else never.
pub fn judge_plainly(answer: &ApiAnswer<'_>) -> Verdict {
    match answer.status {
        200..=299 => Verdict::Done,
        429 | 500..=599 => {
            Verdict::Retry(answer.headers.get("retry-after").and_then(|v| v.trim().parse().ok()).map(Duration::from_secs))
        }
        401 | 403 | 408 => Verdict::Retry(None),
        other => Verdict::GiveUp(format!("the platform's API answered {other}")),
    }
}

#[cfg(test)]
mod tests;
