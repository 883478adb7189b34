//! What the journal holds: everything that ever changed, or may change, the stock.

use crate::time::Timestamp;

use super::{HeaderList, ItemMapDigest, Need, Seq};

/// One entry of the journal, borrowed from its bytes. `store::codec` writes and reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was taken in, by our clock. The fold knows no other time.
    pub at: Timestamp,
    /// What it is.
    pub body: RecordBody<'a>,
}

/// The kinds of journal records: one door for platforms, fetched answers, configuration and people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordBody<'a> {
    /// A webhook that passed authentication.
    Delivery(Delivery<'a>),
    /// An answer of a platform's API.
    Fetched(Fetched<'a>),
    /// A fetch that was given up.
    FetchFailed(FetchFailed<'a>),
    /// The part of the configuration that decides what deliveries mean (canonical JSON, without secrets). It names its item
    /// mappings; their parts come before it.
    Policy(&'a str),
    /// Items of a mapping that a policy is about to name.
    Items(ItemsPart<'a>),
    /// What a person decided.
    Decision(Decision<'a>),
}

/// The identity of a delivery as stored (see [`super::Identity`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryKey {
    /// First 16 bytes of SHA-256 over (source, parts), each length-prefixed.
    Named([u8; 16]),
    /// No id that could be trusted.
    Content,
}

/// A webhook that passed authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The configured source.
    pub source: &'a str,
    /// Its identity.
    pub key: DeliveryKey,
    /// First 8 bytes of SHA-256 over the raw body: tells the same body from another one.
    pub body_digest: [u8; 8],
    /// What people are shown as the delivery's id.
    pub label: &'a str,
    /// The query string, still encoded.
    pub query: &'a str,
    /// The header fields that the adapter asked to keep.
    pub headers: HeaderList<'a>,
    /// The raw body.
    pub body: &'a [u8],
}

/// One page of an API's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched<'a> {
    /// The configured source.
    pub source: &'a str,
    /// What was asked for.
    pub need: Need,
    /// The journal's head when the request was sent: the answer covers every notification up to it, and its facts that
    /// carry no time of their own rank as if they had arrived there.
    pub answers: Seq,
    /// When the request was sent: the answer is a fact of that moment.
    pub sent_at: Timestamp,
    /// 0, 1, 2, ...
    pub page: u32,
    /// No page follows: the task is done.
    pub last: bool,
    /// The answer's body, decompressed.
    pub body: &'a [u8],
}

/// A fetch that was given up: the task becomes a dead letter with this cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchFailed<'a> {
    /// The configured source.
    pub source: &'a str,
    /// What was asked for.
    pub need: Need,
    /// As in [`Fetched::answers`].
    pub answers: Seq,
    /// Why, in a sentence.
    pub cause: &'a str,
}

/// One part of an item mapping: a mapping of 100,000 items in one record would be held several times at once by whoever writes
/// it and whoever reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemsPart<'a> {
    /// Which mapping.
    pub map: ItemMapDigest,
    /// 0, 1, 2, ...
    pub part: u32,
    /// Its lines, as [`super::ItemMap::parts`] gives them.
    pub lines: &'a str,
}

/// What a person decided through the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Fold a dead letter again, with today's mappings.
    RetryDead(u64),
    /// Give a dead letter up.
    DropDead(u64),
    /// An item of a source is this SKU.
    MapItem {
        /// The configured source.
        source: &'a str,
        /// The platform's item id.
        item: &'a str,
        /// Our SKU.
        sku: &'a str,
    },
    /// A location of a source is this warehouse.
    MapLocation {
        /// The configured source.
        source: &'a str,
        /// The platform's location id.
        location: &'a str,
        /// Our warehouse.
        warehouse: &'a str,
    },
}
