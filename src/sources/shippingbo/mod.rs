//! Shippingbo: a product's stock over a whole account, absolute, one call for every movement.
//!
//! # Contract (Facilecomm/shippingbo-api-doc)
//! - **Trust**, one of three, chosen in the vendor's webhook page (setting `trust`):
//!   `hmac`: hooks made by the app API carry `X-Shippingbo-Hmac-SHA256`, base64 of HMAC-SHA-256 of the raw body under the
//!   app's client secret. `headers`: a "free header" of your choice (setting `header`) whose value is a configured secret.
//!   `token`: "by authentication"; the vendor first asks a URL of yours for a token and then sends it as `Authorization:
//!   Basic <token>`, compared here with the configured secrets as it stands (its `x-api-key` is not looked at). That URL is
//!   not served here: it would have to hand the secret to whoever asks.
//! - **Probe**: a GET is answered with 200 and `Pong`.
//! - **Identity**: the content. Nothing names a delivery, and `updated_at` has whole seconds, so any key made of the object's
//!   fields would drop the second of two movements in a second. A counted stock variation (see `variations`) is the
//!   exception: its own id names the movement, and a movement must never count twice.
//! - **Deadline**: not documented; a server that does not answer 200 can have its webhook switched off.
//! - **Product**: `object.stock` is the new value (what may be sold; it may be negative), `total_physical_stock` what is on
//!   the shelf. `additional_data.from` and `to` contradict it in the vendor's own sample and are never read.
//!   `user_ref` is the SKU. There is no location: the source has one warehouse.
//! - **SlotContent**: what lies in one slot of a warehouse. **ProductStockVariation**: a movement, of which no time is
//!   documented. Both describe the same units as Product, so they are left alone unless the settings say otherwise.
//! - **Deletions** (only with `trigger_on_destroy`): `additional_data.deleted` is true. A product's last `updated_at` is not
//!   the time of its deletion, so arrival counts; a slot's content may be refilled under a new record, so there
//!   `updated_at` counts.
//! - **API**: `GET /products/{id}` with an OAuth bearer token, which lives about two hours (let whatever renews it write the
//!   credential's file), 200 in a minute; 429 is the plain text `Retry Later`, without a time.
//!
//! # Settings
//! | key | meaning | default |
//! |---|---|---|
//! | `trust` | `hmac`, `headers` or `token` | `hmac` |
//! | `header` | name of the free header; with `trust = "headers"` only | |
//! | `count` | `stock` (available) or `total_physical_stock` (on hand) | `stock` |
//! | `slots` | count SlotContent, each slot being a location (`warehouse_slot_id`); Product then only tells SKUs | `false` |
//! | `variations` | count ProductStockVariation as movements; limit the Product hook to creations (`field: "id"`) then, or a movement is in both | `false` |
//!
//! API credentials: `token`, `app_id`.

mod parse;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::parse::{Count, Rules};
use super::signature::{Algorithm, Encoding, same_secret, verify_any};
use super::{ApiAnswer, ApiProfile, ApiRequest, Credentials, Greeting, Kind, Refusal, Source, Verdict, judge_plainly};
use crate::time::Timestamp;
use crate::types::{Identity, Message, Need, Observation, Secret, Settings, Unreadable};

/// The line of this platform in the list.
pub const KIND: Kind = Kind {
    name: "shippingbo",
    about: "Shippingbo: base64 HMAC-SHA256 of the body under the app's client secret, a static header, or a token",
    build,
};

/// Not documented; two days is what the most patient platforms take.
const HORIZON: Duration = Duration::from_secs(48 * 3600);
const SIGNATURE: &str = "x-shippingbo-hmac-sha256";

/// How a delivery proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trust {
    /// The body's HMAC.
    Hmac,
    /// This header's value is a secret.
    Header(String),
    /// `Authorization: Basic <secret>`.
    Token,
}

struct Shippingbo {
    trust: Trust,
    rules: Rules,
}

fn build(settings: &mut Settings) -> Box<dyn Source> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mode {
        Hmac,
        Headers,
        Token,
    }
    let modes = [("hmac", Mode::Hmac), ("headers", Mode::Headers), ("token", Mode::Token)];
    let mode = settings.choice("trust", &modes).unwrap_or(Mode::Hmac);
    let trust = match mode {
        Mode::Headers => Trust::Header(free_header(settings)),
        Mode::Hmac | Mode::Token => {
            if settings.value("header").is_some() {
                settings.problem("header", "is only used with trust = \"headers\": set that, or remove this key");
            }
            if mode == Mode::Hmac { Trust::Hmac } else { Trust::Token }
        }
    };
    let counts = [("stock", Count::Stock), ("total_physical_stock", Count::TotalPhysicalStock)];
    let count = settings.choice("count", &counts).unwrap_or(Count::Stock);
    let slots = settings.flag("slots").unwrap_or(false);
    if slots && settings.value("count").is_some() {
        settings.problem("count", "is about Product, which slots = true does not count: remove one of them");
    }
    let variations = settings.flag("variations").unwrap_or(false);
    if slots && variations {
        settings.problem("variations", "slots and variations describe the same units: count one of them");
    }
    Box::new(Shippingbo { trust, rules: Rules { count, slots, variations: variations && !slots } })
}

/// The name of the free header, checked, in lower case.
fn free_header(settings: &mut Settings) -> String {
    let why = "with trust = \"headers\", name the header that carries the secret, such as \"x-stock-secret\"";
    let name = settings.required_text("header", why).to_ascii_lowercase();
    if !name.is_empty() && http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        settings.problem("header", format!("\"{}\" cannot be the name of a header", name.escape_debug()));
    }
    name
}

impl Source for Shippingbo {
    fn signed(&self) -> bool {
        true
    }

    fn horizon(&self) -> Duration {
        HORIZON
    }

    fn kept_headers(&self) -> Vec<String> {
        Vec::new()
    }

    fn greet(&self, method: &str, _: &Message<'_>) -> Option<Greeting> {
        matches!(method, "GET" | "HEAD").then(|| Greeting { status: 200, body: "Pong".to_owned() })
    }

    fn authenticate(&self, message: &Message<'_>, secrets: &[Secret]) -> Result<usize, Refusal> {
        let given = match &self.trust {
            Trust::Hmac => {
                let header = message.header(SIGNATURE);
                return verify_any(Algorithm::HmacSha256, Encoding::Base64, secrets, &[message.body], header);
            }
            Trust::Header(name) => message.header(name),
            Trust::Token => message.header("authorization").and_then(basic_token),
        };
        let given = given.ok_or(Refusal::Unsigned)?.as_bytes();
        secrets.iter().position(|s| same_secret(s.expose(), given)).ok_or(Refusal::BadSignature)
    }

    fn identify(&self, message: &Message<'_>) -> Identity {
        parse::identity(self.rules, message.body)
    }

    fn parse(&self, message: &Message<'_>) -> Result<Vec<Observation>, Unreadable> {
        parse::message(self.rules, message.body)
    }

    fn api(&self) -> Option<ApiProfile> {
        Some(ApiProfile {
            base_url: Some("https://app.shippingbo.com"),
            requests: 2,
            per: Duration::from_secs(1),
            gather: Duration::from_secs(2),
            credentials: &["token", "app_id"],
        })
    }

    /// A product has one number for the account; the content of a slot has no documented way to be asked for.
    fn settle(&self, item: &str, _: Option<&str>) -> Option<Need> {
        if self.rules.slots { None } else { parse::need(item) }
    }

    fn request(&self, need: &Need, _: Option<&str>, credentials: &Credentials) -> Option<ApiRequest> {
        let item = parse::need_item(&need.key)?;
        Some(ApiRequest {
            target: format!("/products/{item}"),
            headers: vec![
                ("authorization", format!("Bearer {}", credentials.text("token"))),
                ("x-api-app-id", credentials.text("app_id").to_owned()),
                ("x-api-version", "1".to_owned()),
            ],
        })
    }

    fn judge(&self, need: &Need, answer: &ApiAnswer<'_>, _now: Timestamp) -> Verdict {
        match answer.status {
            404 => Verdict::GiveUp(format!("Shippingbo knows nothing at {} (HTTP 404)", need.key)),
            _ => judge_plainly(answer),
        }
    }

    fn read(&self, need: &Need, sent_at: Timestamp, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
        match parse::need_item(&need.key) {
            Some(item) => parse::product_answer(self.rules, item, sent_at, body),
            None => Err(Unreadable(format!("no answer was expected for {}", need.key))),
        }
    }
}

/// The credentials of `Basic <token>`, as they stand: here they are a token, not a name and a password.
fn basic_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("basic") && !token.is_empty()).then_some(token)
}
