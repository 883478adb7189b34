//! Kladana and MoySklad (one product, two markets): the `webhookstock` notification and the brief stock report.
//!
//! Facts from the vendor's JSON API 1.2 pages (`webhookstock`, brief stock report, limits, assortment), the Russian ones
//! being newer than the translated ones:
//!
//! - **Trust.** Nothing is signed. The secret path (and an address list) is all there is.
//! - **What it says.** Only that stock changed since a moment: a `reportUrl` to fetch. Of that URL nothing is used but the
//!   start of its window; host, path and report are ours, so a forged notification can only make us ask once more.
//! - **Identity.** The query's `requestId` stays the same when a notification is sent again.
//! - **Deadline.** 1.5 seconds. A wrong answer brings 3 more attempts at once, a late one loses the notification.
//! - **The window.** `changedSince` (the translated pages say `fromDate`) is Moscow time, UTC+3, without an offset, on both
//!   markets. The API answers at most 24 hours back and never for the future. We ask from 5 minutes earlier (the vendor's
//!   own advice is to overlap) and never for more than 23 h 50 min before the arrival.
//! - **The report.** The stock of now, not of the window's start; one answer, no pages, no order, no SKU. A row without a
//!   store is a promise tied to none: skipped. `null` is a number under recalculation: never zero; such a report is asked
//!   for once more, and what is still `null` then waits for the next notification.
//! - **Budget.** 45 units in 3 seconds, where one request of a user's token costs up to 4 units: 11 requests. Half is ours.
//!   Waiting times are in **milliseconds** (`X-Lognex-Retry-After`).
//!
//! # Settings
//! | key | default | meaning |
//! |---|---|---|
//! | `account` | any | the `accountId` (a UUID): a notification of another account becomes a dead letter |
//! | `report` | `"bystore"` | `"bystore"`: a number per store; `"all"`: one number an item, at the source's own warehouse |
//! | `count` | `"stock"` | `"stock"` is what is there; `"freeStock"` less reserves, `"quantity"` less reserves plus what is on its way: both count as available. Notifications follow `stock` only, so the other two can move without one |
//! | `sku` | `"code"` | which field of the assortment is our SKU: `"code"`, `"article"` or `"externalCode"` |
//!
//! API: `api.base_url` is the host (`https://api.moysklad.ru` or `https://api.kladana.com`; there is no default, since a token
//! must not go to the other one), credential `token` (Bearer).

use std::time::Duration;

use super::{ApiAnswer, ApiProfile, ApiRequest, Credentials, Kind, Refusal, Source, Verdict};
use crate::limits::NAME_MAX_BYTES;
use crate::time::Timestamp;
use crate::types::{Identity, Message, Need, Observation, Secret, Settings, Unreadable};

mod ask;
mod notice;
mod report;

use ask::{Ask, Count, Scope};
use notice::WINDOW_MAX;
use report::SkuField;

/// Kladana (and MoySklad) as a platform.
pub const KIND: Kind = Kind {
    name: "kladana",
    about: "Kladana / MoySklad stock notifications: unsigned, thin; the stock report is fetched with a token",
    build,
};

fn build(settings: &mut Settings) -> Box<dyn Source> {
    Box::new(Kladana {
        account: settings.text("account").filter(|a| !a.is_empty()),
        scope: settings.choice("report", Scope::WORDS).unwrap_or(Scope::ByStore),
        count: settings.choice("count", Count::WORDS).unwrap_or(Count::Stock),
        sku: settings.choice("sku", SkuField::WORDS).unwrap_or(SkuField::Code),
    })
}

struct Kladana {
    account: Option<String>,
    scope: Scope,
    count: Count,
    sku: SkuField,
}

impl Source for Kladana {
    fn signed(&self) -> bool {
        false
    }

    fn success_status(&self) -> u16 {
        204
    }

    fn horizon(&self) -> Duration {
        Duration::from_secs(48 * 3600) // repeats come within seconds; this also covers one replayed by hand
    }

    fn kept_headers(&self) -> Vec<String> {
        Vec::new()
    }

    fn authenticate(&self, _message: &Message<'_>, _secrets: &[Secret]) -> Result<usize, Refusal> {
        Ok(0)
    }

    fn identify(&self, message: &Message<'_>) -> Identity {
        let id = message.query_value("requestId").filter(|id| id.len() <= NAME_MAX_BYTES && !id.trim().is_empty());
        let Some(id) = id else { return Identity::Content };
        let mut parts = vec![id.into_bytes()];
        // A repeat carries the same body, so these can only tell two subscriptions on one address apart.
        parts.extend(notice::subscription(message.body).into_iter().flatten().map(String::into_bytes));
        Identity::Named(parts)
    }

    fn parse(&self, message: &Message<'_>) -> Result<Vec<Observation>, Unreadable> {
        let Some(from) = notice::read(message.body, self.account.as_deref(), message.received_at)? else {
            return Ok(vec![Observation::Irrelevant("a document's event, not a change of stock".into())]);
        };
        let ask = Ask::Report { scope: self.scope, count: self.count, again: false };
        Ok(vec![Observation::Fetch(Need { key: ask.key(), from: Some(from) })])
    }

    fn api(&self) -> Option<ApiProfile> {
        Some(ApiProfile {
            base_url: None,
            requests: 5,
            per: Duration::from_secs(3),
            gather: Duration::from_secs(2),
            credentials: &["token"],
        })
    }

    fn settle(&self, item: &str, location: Option<&str>) -> Option<Need> {
        let store = match self.scope {
            Scope::ByStore => location,
            Scope::All => None,
        };
        Ask::Item { scope: self.scope, count: self.count, item, store }.need()
    }

    fn catalogue(&self, item: &str) -> Option<Need> {
        Ask::Catalogue { item }.need()
    }

    fn request(&self, need: &Need, page: Option<&str>, credentials: &Credentials) -> Option<ApiRequest> {
        if page.is_some() {
            return None; // no answer has a second page
        }
        Some(ApiRequest {
            target: Ask::of(&need.key)?.target(need.from),
            headers: vec![
                ("authorization", format!("Bearer {}", credentials.text("token"))),
                ("accept", "application/json;charset=utf-8".to_owned()),
            ],
        })
    }

    fn judge(&self, need: &Need, answer: &ApiAnswer<'_>, now: Timestamp) -> Verdict {
        judge(need, answer, now)
    }

    fn read(&self, need: &Need, sent_at: Timestamp, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
        match Ask::of(&need.key) {
            Some(Ask::Report { scope, count, again }) => report::read(scope, count, sent_at, body).map(|mut read| {
                if read.recalculating && !again {
                    let key = Ask::Report { scope, count, again: true }.key();
                    read.observations.push(Observation::Fetch(Need { key, from: need.from }));
                }
                read.observations
            }),
            Some(Ask::Item { scope, count, .. }) => report::read(scope, count, sent_at, body).map(|r| r.observations),
            Some(Ask::Catalogue { item }) => report::read_assortment(item, self.sku, body),
            None => Err(Unreadable(format!("{} is not a resource of this platform", need.key.escape_debug()))),
        }
    }
}

/// Too many requests at once, or in a while: both pass by themselves.
const BUSY: [u64; 2] = [1049, 1073];

fn judge(need: &Need, answer: &ApiAnswer<'_>, now: Timestamp) -> Verdict {
    if (200..300).contains(&answer.status) {
        return Verdict::Done;
    }
    let code = report::error_code(answer.body);
    if answer.status == 429 || code.is_some_and(|c| BUSY.contains(&c)) {
        return Verdict::Retry(wait(answer));
    }
    match super::judge_plainly(answer) {
        Verdict::GiveUp(_) if too_old(need, now) => Verdict::GiveUp(format!(
            "the API answered {}: it reports at most 24 hours back, and this window is older; reconcile instead",
            answer.status
        )),
        Verdict::GiveUp(reason) => Verdict::GiveUp(match code {
            Some(code) => format!("{reason}, error {code}"),
            None => reason,
        }),
        verdict => verdict,
    }
}

fn too_old(need: &Need, now: Timestamp) -> bool {
    need.from.is_some_and(|from| now.since(from) > WINDOW_MAX)
}

/// The first wait the answer names. The vendor's own fields are in milliseconds.
fn wait(answer: &ApiAnswer<'_>) -> Option<Duration> {
    let number = |name| answer.headers.get(name)?.trim().parse::<u64>().ok().filter(|n| *n > 0);
    ["x-lognex-retry-after", "x-lognex-reset", "x-lognex-retry-timeinterval"]
        .into_iter()
        .find_map(number)
        .map(Duration::from_millis)
        .or_else(|| number("retry-after").map(Duration::from_secs))
}

#[cfg(test)]
mod tests;
