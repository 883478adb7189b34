//! Shopify: stock per location, absolute, signed over the raw body.
//!
//! # Contract (shopify.dev; Shopify/shopify-app-js, Shopify/shopify-api-ruby)
//! - **Trust**: `X-Shopify-Hmac-Sha256` is base64 of HMAC-SHA-256 under the app's client secret (a custom app: its API secret
//!   key). Only the body is signed, so no header may decide more than the body allows. Events (the newer kind of
//!   subscription) sign alike and send `shopify-*` names beside the `X-Shopify-*` ones; both are read.
//! - **Identity**: the webhook id, the same on a retry, with the topic. *Not* the event id: it is the same for all
//!   subscriptions that one event fires, so as a key it would drop the second topic. Events put the event id into
//!   `X-Shopify-Webhook-Id`, so their own `shopify-webhook-id` is preferred.
//! - **Retries**: 8 in 4 hours with the *original* payload (48 hours before 2024-09-10; our window keeps that). So a body
//!   that says no time of its own (a disconnect, a deletion) is stamped with `X-Shopify-Triggered-At`, in whole seconds as
//!   `updated_at` is, unless that lies in the future.
//! - **Topics**: `inventory_levels/update` and `connect` carry a number, `disconnect` ends it, `inventory_items/create` and
//!   `update` tell the SKU, `inventory_items/delete` ends the item everywhere. An Event about an `InventoryLevel` has a
//!   payload of the app's own making, so it is fetched. Everything else is irrelevant. Without a topic header the shape of
//!   the body decides.
//! - `available: null` means untracked or not stocked. It is not zero.
//! - **API** (REST, legacy but current in 2026-07): `inventory_levels.json` and `inventory_items/{id}.json` with the access
//!   token. The bucket holds 40 requests and leaks 2 in a second; we stay below that. `Retry-After` is a decimal ("2.0").
//!
//! # Settings
//! | key | meaning | default |
//! |---|---|---|
//! | `api_version` | the version in the API's path: `YYYY-MM` or `unstable` | `2026-07` |
//!
//! API credential: `token` (an Admin API access token with `read_inventory`). The base URL is the shop's own host,
//! `https://<shop>.myshopify.com`.

mod parse;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::parse::NeedKey;
use super::signature::{Algorithm, Encoding, verify_any};
use super::{ApiAnswer, ApiProfile, ApiRequest, Credentials, Kind, Refusal, Source, Verdict, judge_plainly};
use crate::time::Timestamp;
use crate::types::{Identity, Message, Need, Observation, Quantity, Secret, Settings, Unreadable};

/// The line of this platform in the list.
pub const KIND: Kind =
    Kind { name: "shopify", about: "Shopify: base64 HMAC-SHA256 of the body under the app's client secret", build };

const API_VERSION: &str = "2026-07";
/// Retries end after 4 hours today; documentation of before 2024-09 says 48.
const HORIZON: Duration = Duration::from_secs(48 * 3600);
/// Rows in a page of the API, its maximum.
const PAGE_ROWS: u32 = 250;
/// Longest cursor that is followed.
const CURSOR_MAX_BYTES: usize = 1024;

/// A header field in the form of Events and in that of classic webhooks, in order of preference.
type Field = [&'static str; 2];
const SIGNATURE: Field = ["shopify-hmac-sha256", "x-shopify-hmac-sha256"];
const WEBHOOK_ID: Field = ["shopify-webhook-id", "x-shopify-webhook-id"];
const TOPIC: Field = ["shopify-topic", "x-shopify-topic"];
const TRIGGERED_AT: Field = ["shopify-triggered-at", "x-shopify-triggered-at"];
/// Only Events have this one.
const RESOURCE_ID: &str = "shopify-resource-id";

fn field<'m>(message: &'m Message<'_>, names: Field) -> Option<&'m str> {
    names.into_iter().find_map(|name| message.header(name))
}

fn build(settings: &mut Settings) -> Box<dyn Source> {
    let mut api_version = settings.text_or("api_version", API_VERSION);
    if !is_api_version(&api_version) {
        settings.problem("api_version", "expected a version such as \"2026-07\", or \"unstable\"");
        API_VERSION.clone_into(&mut api_version);
    }
    Box::new(Shopify { api_version })
}

fn is_api_version(text: &str) -> bool {
    let digits = |part: &str, count: usize| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
    text == "unstable" || text.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2))
}

struct Shopify {
    api_version: String,
}

impl Source for Shopify {
    fn signed(&self) -> bool {
        true
    }

    fn horizon(&self) -> Duration {
        HORIZON
    }

    fn kept_headers(&self) -> Vec<String> {
        let mut names: Vec<String> = [WEBHOOK_ID, TOPIC, TRIGGERED_AT].concat().into_iter().map(str::to_owned).collect();
        names.push(RESOURCE_ID.to_owned());
        names
    }

    fn authenticate(&self, message: &Message<'_>, secrets: &[Secret]) -> Result<usize, Refusal> {
        verify_any(Algorithm::HmacSha256, Encoding::Base64, secrets, &[message.body], field(message, SIGNATURE))
    }

    fn identify(&self, message: &Message<'_>) -> Identity {
        let Some(id) = field(message, WEBHOOK_ID) else { return Identity::Content };
        let mut parts = vec![id.as_bytes().to_vec()];
        parts.extend(field(message, TOPIC).map(|topic| topic.as_bytes().to_vec()));
        Identity::Named(parts)
    }

    fn parse(&self, message: &Message<'_>) -> Result<Vec<Observation>, Unreadable> {
        parse::message(message)
    }

    fn api(&self) -> Option<ApiProfile> {
        Some(ApiProfile {
            base_url: None,
            requests: 3,
            per: Duration::from_secs(2),
            gather: Duration::from_secs(1),
            credentials: &["token"],
        })
    }

    fn settle(&self, item: &str, location: Option<&str>) -> Option<Need> {
        NeedKey::Stock { item, location }.need()
    }

    fn catalogue(&self, item: &str) -> Option<Need> {
        NeedKey::Catalogue { item }.need()
    }

    fn request(&self, need: &Need, page: Option<&str>, credentials: &Credentials) -> Option<ApiRequest> {
        let version = &self.api_version;
        let target = match (NeedKey::parse(&need.key)?, page) {
            (NeedKey::Catalogue { item }, _) => format!("/admin/api/{version}/inventory_items/{item}.json"),
            // A cursor carries the query it belongs to; the API refuses other filters beside it.
            (NeedKey::Stock { .. }, Some(cursor)) => {
                format!("/admin/api/{version}/inventory_levels.json?limit={PAGE_ROWS}&page_info={cursor}")
            }
            (NeedKey::Stock { item, location }, None) => {
                let at = location.map(|l| format!("&location_ids={l}")).unwrap_or_default();
                format!("/admin/api/{version}/inventory_levels.json?limit={PAGE_ROWS}&inventory_item_ids={item}{at}")
            }
        };
        Some(ApiRequest { target, headers: vec![("x-shopify-access-token", credentials.text("token").to_owned())] })
    }

    fn judge(&self, need: &Need, answer: &ApiAnswer<'_>, _now: Timestamp) -> Verdict {
        match answer.status {
            200..=299 => match answer.headers.get("link").and_then(next_link) {
                None => Verdict::Done,
                Some(link) => match cursor(link) {
                    Some(cursor) => Verdict::Next(cursor.to_owned()),
                    None => Verdict::GiveUp("the link to the next page has no readable page_info".to_owned()),
                },
            },
            // 402: the shop is frozen; 423: locked; 430: taken for an attack. All of them pass.
            402 | 423 | 430 => Verdict::Retry(None),
            429 | 500..=599 => Verdict::Retry(answer.headers.get("retry-after").and_then(decimal_seconds)),
            404 => Verdict::GiveUp(format!("the shop knows nothing at {} (HTTP 404)", need.key)),
            _ => judge_plainly(answer),
        }
    }

    fn read(&self, need: &Need, sent_at: Timestamp, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
        match NeedKey::parse(&need.key) {
            Some(NeedKey::Stock { item, location }) => parse::levels(item, location, sent_at, body),
            Some(NeedKey::Catalogue { item }) => parse::inventory_item(item, body),
            None => Err(Unreadable(format!("no answer was expected for {}", need.key))),
        }
    }
}

/// The URL of `rel="next"` in a `Link` field.
fn next_link(link: &str) -> Option<&str> {
    link.split(',').find_map(|part| {
        let (url, parameters) = part.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = |p: &str| p.trim().strip_prefix("rel=").is_some_and(|rel| rel.trim_matches('"') == "next");
        parameters.split(';').any(is_next).then_some(url)
    })
}

/// The cursor in a link, still percent-encoded. Nothing else of the link is used.
fn cursor(url: &str) -> Option<&str> {
    let (_, query) = url.split_once('?')?;
    let cursor = query.split('&').find_map(|pair| pair.strip_prefix("page_info="))?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~=%".contains(&b);
    (!cursor.is_empty() && cursor.len() <= CURSOR_MAX_BYTES && cursor.bytes().all(plain)).then_some(cursor)
}

/// `2.0`: seconds with a fraction, as this platform writes them.
fn decimal_seconds(text: &str) -> Option<Duration> {
    let micros = text.trim().parse::<Quantity>().ok()?.micros();
    u64::try_from(micros).ok().map(Duration::from_micros)
}
