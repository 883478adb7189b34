//! What a source said.

use std::cmp::Ordering;
use std::fmt;

use crate::time::Timestamp;

use super::{Quantity, Seq};

/// Which number of an item a fact is about. One source reports one measure; it is configured and shown, never guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// What may be sold: on hand less what is promised.
    #[default]
    Available,
    /// What is physically there.
    OnHand,
}

/// How a quantity is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The number is now this.
    Absolute(Quantity),
    /// The number moved by this.
    Delta(Quantity),
    /// The platform does not count this item here (Shopify's `available: null`). Not zero.
    Untracked,
    /// The item or its stock record is gone.
    Deleted,
}

/// Where a fact applies, in the platform's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The platform has no locations, or this message names none: the source's own warehouse.
    Default,
    /// The platform's id of a location, verbatim.
    At(Box<str>),
    /// Every place that this source has reported this item at (a deleted product).
    Everywhere,
}

/// An item in the platform's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// The platform's id, verbatim (an integer beyond 2^53 keeps every digit).
    pub id: Box<str>,
    /// The SKU, when the message carries a non-empty one.
    pub sku: Option<Box<str>>,
}

/// When the source says a fact became true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said {
    /// A true version counter of the platform (only a few have one); larger is newer.
    pub version: Option<u64>,
    /// The source's own time of the fact. `None`: the platform says none, arrival counts.
    pub at: Option<Timestamp>,
}

/// What a source said about one item at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Which item.
    pub item: Item,
    /// Where.
    pub place: Place,
    /// Which of its numbers.
    pub measure: Measure,
    /// The number.
    pub change: Change,
    /// When, by the source.
    pub said: Said,
}

/// The order of facts about one place from one source: version, then source time, then arrival (`seq`, then `part`).
///
/// Arrival is a position in the journal, not a time, so a clock that is set back changes nothing. For a fetched answer it is
/// the journal's head when the request was *sent*: the answer loses to everything that arrived later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The platform's version counter.
    pub version: Option<u64>,
    /// The source's own time.
    pub at: Option<Timestamp>,
    /// The journal record that counts as its arrival.
    pub seq: Seq,
    /// Position of the fact within its record.
    pub part: u32,
}

/// How one stamp stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// By the platform's version counter.
    NewerVersion,
    /// By the source's own time.
    NewerTime,
    /// The source gives no order; it arrived later.
    LaterArrival,
    /// The source gives both the same version or time (one-second clocks); it arrived later.
    EqualLater,
    /// Not newer.
    Older,
}

impl Stamp {
    /// How `self` stands to `other`.
    pub fn standing(&self, other: &Self) -> Standing {
        let mut said_equal = false;
        if let (Some(mine), Some(theirs)) = (self.version, other.version) {
            match mine.cmp(&theirs) {
                Ordering::Greater => return Standing::NewerVersion,
                Ordering::Less => return Standing::Older,
                Ordering::Equal => said_equal = true,
            }
        }
        if let (Some(mine), Some(theirs)) = (self.at, other.at) {
            match mine.cmp(&theirs) {
                Ordering::Greater => return Standing::NewerTime,
                Ordering::Less => return Standing::Older,
                Ordering::Equal => said_equal = true,
            }
        }
        match (self.seq, self.part).cmp(&(other.seq, other.part)) {
            Ordering::Greater if said_equal => Standing::EqualLater,
            Ordering::Greater => Standing::LaterArrival,
            Ordering::Less | Ordering::Equal => Standing::Older,
        }
    }
}

/// Something that must be fetched from the platform's API. Tasks with one key are one task, with the earliest `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The adapter's own name for the resource, stable over notifications: `stock/7079/1`, `catalogue/42`.
    pub key: Box<str>,
    /// Start of the window to ask for, when the resource has one (Kladana's `changedSince`).
    pub from: Option<Timestamp>,
}

/// What an adapter reads out of a message or of an API answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// A number.
    Fact(Fact),
    /// A thin notification: ask the platform.
    Fetch(Need),
    /// The platform's catalogue: this item id is this SKU.
    Catalogue {
        /// The platform's item id.
        item: Box<str>,
        /// Its SKU.
        sku: Box<str>,
    },
    /// Genuine, understood, and nothing to do with stock (an order's topic, a price). Counted, with the reason.
    Irrelevant(String),
}

/// A genuine message that cannot be understood: becomes a dead letter with this cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}
