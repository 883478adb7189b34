//! Bsale (Chile, Peru, Mexico): thin notifications, and the stock that is fetched for them.
//!
//! Facts from the vendor's pages "Webhooks" and "Stocks", and, where those are silent, from public integrations:
//!
//! - **Trust.** Nothing is signed. The secret path (and an address list) is all there is. A notification's `resource` is a
//!   path: only its ids are used, so a forged one can only make us ask once more.
//! - **What it says.** `topic: stock` (receptions, stock-takes, consumptions, dispatches) names a variant and an office;
//!   `topic: document` (sales) names a document. Both topics must be subscribed to. Every other topic is irrelevant.
//! - **Identity.** None is sent. A key made of company, topic, variant, office and `send` (in seconds) would drop the second
//!   of two movements within one second, so the identity is the content, and a repeated notice merely asks once more.
//! - **Order.** `send` is the time of the notice, not of the stock: facts come from answers alone, as of the moment their
//!   request was sent.
//! - **The answer.** Exact decimals; ids as numbers or as texts; `code` is the SKU when the variant is expanded (else it is
//!   looked up). A variant with unlimited stock is not counted. No stock record for a variant at an office is zero there.
//!   The form of a document's answer is not published: a row that names a variant but no office or no number becomes
//!   a question about that variant.
//! - **Limits.** Pages of 25 (`expand` cuts larger ones off). Rates are not published: we ask twice a second, and wait what
//!   `Retry-After` says, in seconds.
//!
//! # Settings
//! | key | default | meaning |
//! |---|---|---|
//! | `account` | any | the company's `cpnId`: a notice of another company becomes a dead letter |
//! | `count` | `"quantityAvailable"` | `"quantityAvailable"` is what may be sold, `"quantity"` what is physically there |
//!
//! API: `api.base_url` defaults to `https://api.bsale.io` (Mexico: `https://api.bsale.com.mx`), credential `token`
//! (`access_token`).

use std::time::Duration;

use serde_json::Value;

use super::{ApiAnswer, ApiProfile, ApiRequest, Credentials, Kind, Refusal, Source, Verdict, judge_plainly};
use crate::time::Timestamp;
use crate::types::{Identity, Message, Need, Observation, Secret, Settings, Unreadable};

mod answer;
mod ask;
mod notice;

use answer::Count;
use ask::Ask;

/// Bsale as a platform.
pub const KIND: Kind =
    Kind { name: "bsale", about: "Bsale notices: unsigned, thin; the stock is fetched with an access token", build };

fn build(settings: &mut Settings) -> Box<dyn Source> {
    Box::new(Bsale { account: company(settings), count: settings.choice("count", Count::WORDS).unwrap_or(Count::Available) })
}

/// `account`: the digits of a `cpnId`, bare or in quotes.
fn company(settings: &mut Settings) -> Option<String> {
    match settings.value("account")? {
        Value::String(text) if ask::is_id(&text) => return Some(text),
        Value::Number(number) if number.is_u64() => return Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {}
    }
    settings.problem("account", "expected the company's cpnId: a whole number");
    None
}

struct Bsale {
    account: Option<String>,
    count: Count,
}

impl Source for Bsale {
    fn signed(&self) -> bool {
        false
    }

    fn horizon(&self) -> Duration {
        Duration::from_secs(48 * 3600) // not documented; nothing is named, so it decides nothing
    }

    fn kept_headers(&self) -> Vec<String> {
        Vec::new()
    }

    fn authenticate(&self, _message: &Message<'_>, _secrets: &[Secret]) -> Result<usize, Refusal> {
        Ok(0)
    }

    fn identify(&self, _message: &Message<'_>) -> Identity {
        Identity::Content
    }

    fn parse(&self, message: &Message<'_>) -> Result<Vec<Observation>, Unreadable> {
        notice::read(message.body, self.account.as_deref()).map(|observation| vec![observation])
    }

    fn api(&self) -> Option<ApiProfile> {
        Some(ApiProfile {
            base_url: Some("https://api.bsale.io"),
            requests: 2,
            per: Duration::from_secs(1),
            gather: Duration::from_secs(1),
            credentials: &["token"],
        })
    }

    fn settle(&self, item: &str, location: Option<&str>) -> Option<Need> {
        Ask::Stock { variant: item, office: location }.need()
    }

    fn catalogue(&self, item: &str) -> Option<Need> {
        Ask::Variant { variant: item }.need()
    }

    fn request(&self, need: &Need, page: Option<&str>, credentials: &Credentials) -> Option<ApiRequest> {
        Some(ApiRequest {
            target: Ask::of(&need.key)?.target(page)?,
            headers: vec![("access_token", credentials.text("token").to_owned()), ("accept", "application/json".to_owned())],
        })
    }

    fn judge(&self, need: &Need, answer: &ApiAnswer<'_>, _now: Timestamp) -> Verdict {
        match (judge_plainly(answer), Ask::of(&need.key)) {
            (Verdict::Done, Some(Ask::Stock { .. } | Ask::Document { .. })) => {
                answer::next_offset(answer.body).map_or(Verdict::Done, |offset| Verdict::Next(offset.to_string()))
            }
            (verdict, _) => verdict,
        }
    }

    fn read(&self, need: &Need, sent_at: Timestamp, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
        match Ask::of(&need.key) {
            Some(Ask::Stock { variant, office }) => answer::read_stocks(variant, office, self.count, sent_at, body),
            Some(Ask::Document { .. }) => answer::read_document(self.count, sent_at, body),
            Some(Ask::Variant { variant }) => answer::read_variant(variant, body),
            None => Err(Unreadable(format!("{} is not a resource of this platform", need.key.escape_debug()))),
        }
    }
}

#[cfg(test)]
mod tests;
