//! WooCommerce: one shop is one place; the whole product in every delivery, signed over the body.
//!
//! # Contract (woocommerce/woocommerce, the sender's code; woocommerce/woocommerce-rest-api-docs)
//! - **Trust**: `X-WC-Webhook-Signature` is base64 of HMAC-SHA-256 over the *trimmed* JSON body, so a body to which a proxy
//!   added a line end is checked trimmed too. WordPress stores a secret with `&`, `<`, `>` or quotes escaped and decodes it
//!   to sign: a secret is tried as configured and, when it holds such escapes, decoded. It may be pasted either way.
//! - **Ping**: a new webhook first sends `webhook_id=NN` as a form, unsigned, and wants exactly 200.
//! - **Identity**: the content. `X-WC-Webhook-Delivery-ID` must not be a key: it is a hash of the webhook's id and the
//!   *second*, so two products saved in one second share it and the second one would be dropped. A digest of the body kept
//!   for long would drop the last of A, B, A, when a stock returns to an earlier number. Since every delivery is attempted
//!   once, nothing is lost by treating a body as a repeat only while nothing else was said in between.
//! - **Deadline**: 60 s, one attempt, no redirects; after the seventh failure in a row the webhook is switched off.
//! - **Order**: none is promised. The payload is built when it is sent (a job may wait for the shop's next visitor) and holds
//!   the newest state. `date_modified_gmt` is UTC without an offset, in whole seconds.
//! - **Stock**: `stock_quantity` where `manage_stock` is true, possibly a fraction, possibly negative; `null`, and
//!   `manage_stock: false`, mean uncounted. A variation with `manage_stock: "parent"` has its parent's stock and says
//!   nothing of its own. A deletion is `{"id":123}`, without SKU: so every product that has a SKU also tells the catalogue.
//! - **SKU**: optional. A variation without one is reported with its parent's: give variations their own.
//! - **Action topics** (`action.woocommerce_*`) carry `{"action", "arg"}`. Those that hand over a product's id become a fetch.
//! - **API**: `/wp-json/wc/v3/products/{id}`, a variation's id included, with a consumer key and secret. There is no limit in
//!   the core, but small hosts answer 429: two in a second.
//!
//! # Settings
//! None. API credentials: `consumer_key`, `consumer_secret` (read permission). The base URL is the shop's own address.

mod entities;
mod parse;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::parse::NeedKey;
use super::signature::{Algorithm, Encoding, verify};
use super::{ApiAnswer, ApiProfile, ApiRequest, Credentials, Greeting, Kind, Refusal, Source, Verdict, judge_plainly};
use crate::time::Timestamp;
use crate::types::{Identity, Message, Need, Observation, Secret, Settings, Unreadable};

/// The line of this platform in the list.
pub const KIND: Kind = Kind {
    name: "woocommerce",
    about: "WooCommerce: base64 HMAC-SHA256 of the trimmed body under the webhook's secret",
    build,
};

const SIGNATURE: &str = "x-wc-webhook-signature";
/// A delivery is attempted once; an hour covers what a proxy in between may repeat.
const HORIZON: Duration = Duration::from_secs(3600);
/// Longest body of a ping: `webhook_id=` and a number.
const PING_MAX_BYTES: usize = 40;

fn build(_: &mut Settings) -> Box<dyn Source> {
    Box::new(WooCommerce)
}

struct WooCommerce;

impl Source for WooCommerce {
    fn signed(&self) -> bool {
        true
    }

    fn horizon(&self) -> Duration {
        HORIZON
    }

    fn kept_headers(&self) -> Vec<String> {
        [parse::TOPIC, parse::RESOURCE, parse::EVENT].map(str::to_owned).into()
    }

    fn greet(&self, method: &str, message: &Message<'_>) -> Option<Greeting> {
        let unsigned = message.headers.get(SIGNATURE).is_none();
        (method == "POST" && unsigned && is_ping(message.body)).then(|| Greeting { status: 200, body: String::new() })
    }

    fn authenticate(&self, message: &Message<'_>, secrets: &[Secret]) -> Result<usize, Refusal> {
        let tag = message.header(SIGNATURE).and_then(|h| Encoding::Base64.decode(h)).ok_or(Refusal::Unsigned)?;
        let trimmed = trim(message.body);
        let is_signed = |key: &[u8]| {
            verify(Algorithm::HmacSha256, key, &[message.body], &tag)
                || (trimmed.len() < message.body.len() && verify(Algorithm::HmacSha256, key, &[trimmed], &tag))
        };
        let matches = |secret: &Secret| {
            is_signed(secret.expose()) || entities::decode(secret.expose()).is_some_and(|decoded| is_signed(&decoded))
        };
        secrets.iter().position(matches).ok_or(Refusal::BadSignature)
    }

    fn identify(&self, _: &Message<'_>) -> Identity {
        Identity::Content
    }

    fn parse(&self, message: &Message<'_>) -> Result<Vec<Observation>, Unreadable> {
        parse::message(message)
    }

    fn api(&self) -> Option<ApiProfile> {
        Some(ApiProfile {
            base_url: None,
            requests: 2,
            per: Duration::from_secs(1),
            gather: Duration::from_secs(2),
            credentials: &["consumer_key", "consumer_secret"],
        })
    }

    fn settle(&self, item: &str, _: Option<&str>) -> Option<Need> {
        NeedKey::Stock(item).need()
    }

    fn catalogue(&self, item: &str) -> Option<Need> {
        NeedKey::Catalogue(item).need()
    }

    fn request(&self, need: &Need, _: Option<&str>, credentials: &Credentials) -> Option<ApiRequest> {
        let (NeedKey::Stock(item) | NeedKey::Catalogue(item)) = NeedKey::parse(&need.key)?;
        let pair = format!("{}:{}", credentials.text("consumer_key"), credentials.text("consumer_secret"));
        Some(ApiRequest {
            target: format!("/wp-json/wc/v3/products/{item}"),
            headers: vec![("authorization", format!("Basic {}", Encoding::Base64.encode(pair.as_bytes())))],
        })
    }

    fn judge(&self, need: &Need, answer: &ApiAnswer<'_>, now: Timestamp) -> Verdict {
        match (answer.status, NeedKey::parse(&need.key)) {
            // The shop itself says that the product is gone; a wrong address or a missing plugin answers otherwise.
            (404, Some(NeedKey::Stock(_))) if parse::is_gone(answer.body) => Verdict::Done,
            (404, _) => Verdict::GiveUp(format!("the shop knows nothing at {} (HTTP 404)", need.key)),
            (429 | 500..=599, _) => {
                Verdict::Retry(answer.headers.get("retry-after").and_then(|v| retry_after(v.trim(), now)))
            }
            _ => judge_plainly(answer),
        }
    }

    fn read(&self, need: &Need, sent_at: Timestamp, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
        match NeedKey::parse(&need.key) {
            Some(NeedKey::Stock(item)) => parse::stock(item, sent_at, body),
            Some(NeedKey::Catalogue(item)) => parse::catalogue(item, body),
            None => Err(Unreadable(format!("no answer was expected for {}", need.key))),
        }
    }
}

/// Seconds or an HTTP date: whichever the shop's host, or the proxy before it, prefers.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Timestamp::parse_http_date(text).map(|at| at.since(now)),
    }
}

fn is_ping(body: &[u8]) -> bool {
    let number = body.trim_ascii().strip_prefix(b"webhook_id=");
    body.len() <= PING_MAX_BYTES && number.is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit))
}

/// What the sender's `trim` takes away: space, tab, line ends, NUL and vertical tab.
fn trim(body: &[u8]) -> &[u8] {
    let is_blank = |b: &u8| b" \t\n\r\0\x0b".contains(b);
    let Some(start) = body.iter().position(|b| !is_blank(b)) else { return &[] };
    let end = body.iter().rposition(|b| !is_blank(b)).map_or(start, |last| last + 1);
    body.get(start..end).unwrap_or_default()
}
