//! One position: what every source said of one SKU in one warehouse, and which number counts.
//!
//! Rules (DESIGN, section 4):
//! - per source the newest report stands: version, then source time, then arrival;
//! - an older one is ignored and the reason is kept; two with an equal stamp and different numbers are settled by the later
//!   arrival here, and the caller is told to ask the platform;
//! - a delta applies on top of the newest absolute report that is older than it, in whatever order the two arrive;
//! - the effective number is the one of the first source on the warehouse's authority list that has reported, else the
//!   newest report of any source. A report of another source is kept, as evidence of drift, and changes nothing.

use crate::limits::DELTAS_PENDING;
use crate::time::Timestamp;
use crate::types::{Change, Quantity, Stamp, Standing};

/// A number as a shop understands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value {
    /// So many.
    Tracked(Quantity),
    /// Not counted here. Not zero.
    Untracked,
    /// The item is gone here.
    Deleted,
}

impl Value {
    /// The number, when there is one.
    pub const fn quantity(self) -> Option<Quantity> {
        match self {
            Self::Tracked(q) => Some(q),
            Self::Untracked | Self::Deleted => None,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tracked(q) => q.fmt(f),
            Self::Untracked => f.pad("untracked"),
            Self::Deleted => f.pad("deleted"),
        }
    }
}

/// The last accepted report of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The source's number (`store` gives each source name one, for ever).
    pub source: u16,
    /// Stamp and number of the newest absolute report; `None` while there were only deltas.
    pub base: Option<(Stamp, Value)>,
    /// Deltas newer than the base, oldest first.
    pub deltas: Vec<(Stamp, Quantity)>,
    /// First bytes of the digest of the last body that reported here: recognises a repeat that has no id.
    pub digest: [u8; 8],
    /// When the source was last heard about this place, by our clock.
    pub heard: Timestamp,
}

/// One SKU in one warehouse.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// By source number, ascending.
    pub reports: Vec<Report>,
    /// The number that counts and the source it comes from; `None` before the first.
    pub effective: Option<(u16, Value)>,
    /// Ledger number of its newest audit entry, 0 before the first.
    pub last_change: u64,
    /// Number of its newest ignored report, 0 before the first.
    pub last_ignored: u64,
}

/// Why a report's number was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The source's first report of this place.
    First,
    /// A higher version of the platform.
    NewerVersion,
    /// A later source time.
    NewerTime,
    /// The source gives no order: it arrived later.
    LaterArrival,
    /// Equal stamp with another number: it arrived later (and the platform is asked, where it can be).
    EqualStamp,
    /// A movement on top of the newest absolute number.
    Delta,
    /// The warehouse's authority list changed.
    Authority,
}

impl Rule {
    /// All, with the byte each is stored as.
    pub const ALL: &'static [(u8, Self, &'static str)] = &[
        (1, Self::First, "first-report"),
        (2, Self::NewerVersion, "newer-version"),
        (3, Self::NewerTime, "newer-time"),
        (4, Self::LaterArrival, "later-arrival"),
        (5, Self::EqualStamp, "equal-stamp"),
        (6, Self::Delta, "delta"),
        (7, Self::Authority, "authority-changed"),
    ];

    /// The word people see.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, rule, _)| *rule == self).map_or("?", |(_, _, word)| word)
    }
}

/// Why a report changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// The same delivery again (known id, or the very body that reported last).
    Duplicate,
    /// A known delivery id with another body.
    Conflict,
    /// Older than what the source already said.
    Stale,
    /// From a source without authority here: evidence of drift.
    NotAuthority,
    /// A delta to something that is not counted.
    NotTracked,
}

impl Ignored {
    /// All, with the byte each is stored as.
    pub const ALL: &'static [(u8, Self, &'static str)] = &[
        (1, Self::Duplicate, "duplicate"),
        (2, Self::Conflict, "conflict"),
        (3, Self::Stale, "stale"),
        (4, Self::NotAuthority, "not-authority"),
        (5, Self::NotTracked, "not-tracked"),
    ];

    /// The word people see.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, reason, _)| *reason == self).map_or("?", |(_, _, word)| word)
    }
}

/// What a report did to its source's own number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Taken, by this rule.
    Taken(Rule),
    /// Not taken.
    Ignored(Ignored),
}

/// The sum left the range of a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange;

impl Report {
    /// The number this source stands for.
    pub fn value(&self) -> Result<Value, OutOfRange> {
        let base = match self.base {
            None => Quantity::ZERO,
            Some((_, Value::Tracked(q))) => q,
            Some((_, other)) => return Ok(other),
        };
        let sum = self.deltas.iter().try_fold(base, |sum, (_, delta)| sum.checked_add(*delta));
        sum.map(Value::Tracked).ok_or(OutOfRange)
    }

    /// The newest stamp among base and deltas.
    fn newest(&self) -> Option<Stamp> {
        self.deltas.last().map(|(stamp, _)| *stamp).or(self.base.map(|(stamp, _)| stamp))
    }

    fn take(&mut self, change: Change, stamp: Stamp) -> Result<Accepted, OutOfRange> {
        match change {
            Change::Absolute(q) => Ok(self.take_absolute(Value::Tracked(q), stamp)),
            Change::Untracked => Ok(self.take_absolute(Value::Untracked, stamp)),
            Change::Deleted => Ok(self.take_absolute(Value::Deleted, stamp)),
            Change::Delta(q) => self.take_delta(q, stamp),
        }
    }

    fn take_absolute(&mut self, value: Value, stamp: Stamp) -> Accepted {
        let rule = match self.base {
            None => Rule::First,
            Some((base, said)) => match stamp.standing(&base) {
                Standing::NewerVersion => Rule::NewerVersion,
                Standing::NewerTime => Rule::NewerTime,
                Standing::LaterArrival => Rule::LaterArrival,
                Standing::EqualLater if said == value => return Accepted::Ignored(Ignored::Duplicate),
                Standing::EqualLater => Rule::EqualStamp,
                Standing::Older => return Accepted::Ignored(Ignored::Stale),
            },
        };
        self.base = Some((stamp, value));
        self.deltas.retain(|(delta, _)| delta.standing(&stamp) != Standing::Older);
        Accepted::Taken(rule)
    }

    fn take_delta(&mut self, quantity: Quantity, stamp: Stamp) -> Result<Accepted, OutOfRange> {
        if let Some((base, value)) = self.base {
            if stamp.standing(&base) == Standing::Older {
                return Ok(Accepted::Ignored(Ignored::Stale));
            }
            if value.quantity().is_none() {
                return Ok(Accepted::Ignored(Ignored::NotTracked));
            }
        }
        let at =
            self.deltas.iter().rposition(|(d, _)| stamp.standing(d) != Standing::Older).map_or(0, |i| i.saturating_add(1));
        self.deltas.insert(at, (stamp, quantity));
        if self.deltas.len() > DELTAS_PENDING {
            let (oldest, moved) = self.deltas.remove(0);
            let base = self.base.and_then(|(_, v)| v.quantity()).unwrap_or(Quantity::ZERO);
            self.base = Some((oldest, Value::Tracked(base.checked_add(moved).ok_or(OutOfRange)?)));
        }
        self.value().map(|_| Accepted::Taken(Rule::Delta))
    }
}

/// A fact on its way to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming {
    /// The source's number.
    pub source: u16,
    /// What it said.
    pub change: Change,
    /// Its order.
    pub stamp: Stamp,
    /// Digest of the body that carried it.
    pub digest: [u8; 8],
    /// The body has no id of its own: the digest alone tells a repeat.
    pub by_content: bool,
    /// When it arrived.
    pub heard: Timestamp,
}

/// What a fact did to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The effective number changed (or was set for the first time).
    Changed {
        /// The number before, `None` for the first.
        before: Option<Value>,
        /// The number now.
        after: Value,
        /// The source it comes from.
        by: u16,
        /// Why.
        rule: Rule,
    },
    /// Taken, and the number stays as it was: the source confirms it.
    Confirmed,
    /// Not taken, or taken as evidence only.
    Ignored(Ignored),
}

impl Position {
    /// Let a fact act. On `Err` the position is unchanged and the fact belongs into a dead letter.
    ///
    /// The second value says that the source gave this fact the same stamp as the one before, with another number: where the
    /// platform can be asked, it should be.
    pub fn apply(&mut self, fact: &Incoming, authority: &[u16]) -> Result<(Outcome, bool), OutOfRange> {
        let index = match self.reports.binary_search_by_key(&fact.source, |r| r.source) {
            Ok(index) => index,
            Err(index) => {
                let new = Report { source: fact.source, base: None, deltas: Vec::new(), digest: [0; 8], heard: fact.heard };
                let mut report = new;
                let accepted = report.take(fact.change, fact.stamp)?;
                report.digest = fact.digest;
                self.reports.insert(index, report);
                return Ok((self.settle(fact.source, accepted, authority), false));
            }
        };
        let Some(report) = self.reports.get_mut(index) else { return Ok((Outcome::Confirmed, false)) };
        if fact.by_content && report.digest == fact.digest && !matches!(fact.change, Change::Delta(_)) {
            report.heard = fact.heard;
            return Ok((Outcome::Ignored(Ignored::Duplicate), false));
        }
        let mut next = report.clone();
        let accepted = next.take(fact.change, fact.stamp)?;
        if let Accepted::Taken(_) = accepted {
            next.digest = fact.digest;
        }
        next.heard = fact.heard;
        *report = next;
        let equal = accepted == Accepted::Taken(Rule::EqualStamp);
        Ok((self.settle(fact.source, accepted, authority), equal))
    }

    /// The authority list changed: does the effective number?
    pub fn reconsider(&mut self, authority: &[u16]) -> Option<Outcome> {
        match self.choose(Rule::Authority, authority) {
            changed @ Outcome::Changed { .. } => Some(changed),
            Outcome::Confirmed | Outcome::Ignored(_) => None,
        }
    }

    fn settle(&mut self, source: u16, accepted: Accepted, authority: &[u16]) -> Outcome {
        let rule = match accepted {
            Accepted::Ignored(reason) => return Outcome::Ignored(reason),
            Accepted::Taken(rule) => rule,
        };
        match self.choose(rule, authority) {
            Outcome::Confirmed if self.effective.is_some_and(|(by, _)| by != source) => {
                Outcome::Ignored(Ignored::NotAuthority)
            }
            outcome @ (Outcome::Changed { .. } | Outcome::Confirmed | Outcome::Ignored(_)) => outcome,
        }
    }

    /// Make the number of the source that counts the effective one.
    fn choose(&mut self, rule: Rule, authority: &[u16]) -> Outcome {
        let before = self.effective;
        let chosen = authority
            .iter()
            .find_map(|source| self.reports.iter().find(|r| r.source == *source))
            .or_else(|| self.reports.iter().max_by_key(|r| newest_key(r)));
        let Some((source, Ok(value))) = chosen.map(|r| (r.source, r.value())) else { return Outcome::Confirmed };
        self.effective = Some((source, value));
        match before {
            Some((_, old)) if old == value => Outcome::Confirmed,
            _ => Outcome::Changed { before: before.map(|(_, old)| old), after: value, by: source, rule },
        }
    }
}

/// Order of reports of different sources: by source time, or by arrival time for a source that says none.
fn newest_key(report: &Report) -> (Timestamp, u64, u32) {
    match report.newest() {
        Some(stamp) => (stamp.at.unwrap_or(report.heard), stamp.seq, stamp.part),
        None => (report.heard, 0, 0),
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers in tests")]
mod tests;
