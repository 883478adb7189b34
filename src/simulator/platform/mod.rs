//! The platforms, faked faithfully: one file each, with what it sends, how it behaves as a sender, and its API.
//!
//! Written from the vendors' contracts and not from the adapters in `sources`, so that the two can disagree.

use std::time::Duration;

use bytes::Bytes;

use super::api::{Call, Reply};
use super::random::Random;
use super::truth::{Account, Change, Good, Mapping, Numbers, Site};
use crate::time::Timestamp;
use crate::types::{Quantity, Secret};

mod bsale;
mod jetti;
mod kladana;
mod shippingbo;
mod shopify;
mod standard_webhooks;
mod woocommerce;

/// Every simulated platform.
pub const PLATFORMS: &[&dyn Platform] = &[
    &bsale::Bsale,
    &jetti::Jetti,
    &kladana::Kladana,
    &shippingbo::Shippingbo,
    &shopify::Shopify,
    &standard_webhooks::StandardWebhooks,
    &woocommerce::WooCommerce,
];

/// The warehouse that two platforms report, and who has authority over it, most first.
pub const SHARED: (&str, &[&str]) = ("hub", &["shopify-eu", "svix-wms"]);
/// Items stocked in the shared warehouse, at scale 1: the SKUs are Shopify's.
pub(super) const SHARED_GOODS: usize = 250;

/// What an account is made from.
#[derive(Debug, Clone, Copy)]
pub struct Ground {
    /// The seed of everything.
    pub seed: u64,
    /// How many times the usual number of items.
    pub scale: usize,
    /// When the platforms' clocks start.
    pub start: Timestamp,
}

/// What a platform's clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Whole seconds; so many changes of one lane fall into one second.
    Seconds {
        /// Changes a second.
        changes: u64,
    },
    /// Fine enough that no two changes share a stamp.
    Micros,
    /// Its messages say no time of the stock.
    Silent,
}

/// What a platform does with a delivery that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Again later with the payload as it was, this many times.
    Later(u32),
    /// Again at once, this many times; without an answer in time: never.
    AtOnce(u32),
    /// Nothing: the next change of the item carries the news.
    Never,
}

/// How a platform connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.1, a connection kept per lane.
    KeepAlive,
    /// HTTP/2, all lanes on one connection.
    Http2,
    /// A new connection for each delivery, closed after it.
    Close,
}

/// How a platform behaves as a sender.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Waits this long for an answer.
    pub deadline: Duration,
    /// What it takes for success.
    pub success: fn(u16) -> bool,
    /// What it does otherwise.
    pub retry: Retry,
    /// How it connects.
    pub wire: Wire,
    /// Deliveries under way at once.
    pub lanes: usize,
    /// At least this long between two deliveries of one lane.
    pub pace: Duration,
    /// Its deliveries carry an id that a repeat keeps.
    pub named: bool,
    /// The payload is built when it is sent, so it carries the newest state.
    pub fresh: bool,
    /// Its clock.
    pub clock: Clock,
    /// Changes that one message is about.
    pub batch: u64,
    /// It has an API that the gateway can ask.
    pub api: bool,
    /// Its numbers.
    pub numbers: Numbers,
}

/// A message, not yet signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// `POST` for every delivery; some platforms greet with `GET`.
    pub method: http::Method,
    /// What the platform calls this delivery; empty when it has no name for it.
    pub id: String,
    /// Header fields besides signature, id and envelope.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

impl Hook {
    pub(super) fn json(id: String, body: String) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { method: http::Method::POST, id, headers, body: Bytes::from(body) }
    }

    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// When a message is made.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Now, by our clock.
    pub now: Timestamp,
    /// When the platform's previous message was made.
    pub since: Timestamp,
}

/// One platform.
pub trait Platform: Send + Sync {
    /// The kind of source it is delivered to.
    fn kind(&self) -> &'static str;

    /// How it behaves as a sender.
    fn manners(&self) -> &'static Manners;

    /// The simulated account.
    fn account(&self, ground: Ground) -> Account;

    /// The adapter's settings that go with the account, as TOML lines.
    fn settings(&self) -> &'static str {
        ""
    }

    /// The message about a change.
    fn message(&self, account: &Account, change: &Change, moment: Moment, random: &mut Random) -> Hook;

    /// A message about several cells at once: the message and the cells that are to change before it is sent. `number` is new
    /// for each of a lane's messages.
    fn document(&self, account: &Account, lane: usize, number: u64) -> Option<(Hook, Vec<usize>)> {
        let _ = (account, lane, number);
        None
    }

    /// What it sends before the first delivery, unsigned.
    fn greeting(&self) -> Option<Hook> {
        None
    }

    /// Header fields that belong to the attempt and not to the message.
    fn attempt_headers(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let _ = now;
        Vec::new()
    }

    /// Answer a call of its API.
    fn api(&self, account: &Account, call: &Call<'_>) -> Reply {
        let _ = (account, call);
        Reply::error(404, "{}")
    }

    /// "Too many requests", in its own form.
    fn busy(&self) -> Reply {
        Reply::error(429, "{}").with("retry-after", "1")
    }
}

/// A platform by the kind of source it is delivered to.
pub fn of_kind(kind: &str) -> Option<&'static dyn Platform> {
    PLATFORMS.iter().copied().find(|platform| platform.kind() == kind)
}

/// A number as JSON writes it; `null` when the platform does not count.
pub(super) fn json_stock(stock: Option<Quantity>) -> String {
    stock.map_or_else(|| "null".to_owned(), |quantity| quantity.to_string())
}

/// `2024-03-15T10:00:00` at `offset_hours` east of UTC, without an offset.
pub(super) fn naive(at: Timestamp, offset_hours: i64) -> String {
    at.format_naive(offset_hours).replace(' ', "T")
}

/// Goods numbered from `first_id`, with SKUs `<prefix>-00001`; every eighth is left to the catalogue when there is one.
fn numbered(count: usize, first_id: u64, prefix: &str, mapping: Mapping) -> Vec<Good> {
    (0..count)
        .map(|n| Good {
            id: (first_id + n as u64).to_string(),
            sku: format!("{prefix}-{:05}", n + 1),
            mapping: eighth(n, mapping),
        })
        .collect()
}

fn eighth(n: usize, mapping: Mapping) -> Mapping {
    if mapping == Mapping::Configured && n % 8 == 7 { Mapping::Catalogue } else { mapping }
}

fn site(id: &str, warehouse: &'static str) -> Site {
    Site { id: id.to_owned(), warehouse }
}

/// The account's own stream of random numbers.
fn stream(ground: Ground, name: &str) -> Random {
    let number = name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    Random::new(ground.seed, number)
}

/// A secret of this many hexadecimal digits.
fn secret(random: &mut Random, digits: usize) -> Secret {
    Secret::new(random.hex(digits))
}

const fn whole(negative: bool, untracked: bool) -> Numbers {
    Numbers { negative, grain: 1_000_000, untracked }
}

fn is_2xx(status: u16) -> bool {
    (200..300).contains(&status)
}
