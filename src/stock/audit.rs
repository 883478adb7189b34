//! The ledger's audit entries and the chain over them.
//!
//! Every change of an effective level gets the next ledger number and one entry. The entry's link is
//! SHA-256(previous link || canonical bytes), so an entry cannot be altered, dropped or moved without every later link
//! changing. The canonical bytes are spelt out in [`Entry::canonical`]; a verifier in another language needs nothing else.

use ring::digest::{SHA256, digest};

use crate::time::Timestamp;
use crate::types::Seq;

use super::level::{Rule, Value};

/// A link of the chain.
pub type Link = [u8; 32];

/// The link before the first entry.
pub const GENESIS: Link = [0; 32];

/// One change of one effective level. Its texts are borrowed where it is made and owned where it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<S = String> {
    /// Ledger number: 1, 2, 3, ... without a gap.
    pub ledger: u64,
    /// When the delivery arrived, by our clock.
    pub at: Timestamp,
    /// The warehouse.
    pub warehouse: S,
    /// The SKU.
    pub sku: S,
    /// The number before; `None` for the first.
    pub before: Option<Value>,
    /// The number now.
    pub after: Value,
    /// Why it was taken.
    pub rule: Rule,
    /// The source whose number counts now.
    pub source: S,
    /// The journal record that carried it.
    pub record: Seq,
    /// The delivery's id as people see it.
    pub delivery: S,
    /// Ledger number of the previous entry of the same position, 0 for the first.
    pub previous: u64,
}

impl<S: AsRef<str>> Entry<S> {
    /// The bytes that are chained: every field in the order of the struct; numbers as 8 bytes big-endian, texts as a 4-byte
    /// big-endian length and UTF-8, a value as one byte (0 none, 1 tracked, 2 untracked, 3 deleted) and, when tracked, its
    /// millionths as 8 bytes big-endian.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(192);
        self.put_canonical(&mut out);
        out
    }

    fn put_canonical(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.ledger.to_be_bytes());
        out.extend_from_slice(&self.at.0.to_be_bytes());
        text(out, self.warehouse.as_ref());
        text(out, self.sku.as_ref());
        value(out, self.before);
        value(out, Some(self.after));
        text(out, self.rule.as_str());
        text(out, self.source.as_ref());
        out.extend_from_slice(&self.record.to_be_bytes());
        text(out, self.delivery.as_ref());
        out.extend_from_slice(&self.previous.to_be_bytes());
    }

    /// This entry's link.
    pub fn link(&self, previous: &Link) -> Link {
        let mut bytes = Vec::with_capacity(224);
        bytes.extend_from_slice(previous);
        self.put_canonical(&mut bytes);
        digest(&SHA256, &bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn value(out: &mut Vec<u8>, value: Option<Value>) {
    match value {
        None => out.push(0),
        Some(Value::Tracked(q)) => {
            out.push(1);
            out.extend_from_slice(&q.micros().to_be_bytes());
        }
        Some(Value::Untracked) => out.push(2),
        Some(Value::Deleted) => out.push(3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Quantity;

    fn entry() -> Entry {
        Entry {
            ledger: 1,
            at: Timestamp::from_seconds(1),
            warehouse: "main".into(),
            sku: "A-1".into(),
            before: None,
            after: Value::Tracked(Quantity::ZERO),
            rule: Rule::First,
            source: "shop".into(),
            record: 7,
            delivery: "d-1".into(),
            previous: 0,
        }
    }

    #[test]
    fn every_field_moves_the_link() {
        let base = entry().link(&GENESIS);
        let changed: [fn(&mut Entry); 11] = [
            |e| e.ledger = 2,
            |e| e.at = Timestamp::from_seconds(2),
            |e| e.warehouse = "other".into(),
            |e| e.sku = "A-2".into(),
            |e| e.before = Some(Value::Untracked),
            |e| e.after = Value::Deleted,
            |e| e.rule = Rule::Delta,
            |e| e.source = "shoq".into(),
            |e| e.record = 8,
            |e| e.delivery = "d-2".into(),
            |e| e.previous = 1,
        ];
        for change in changed {
            let mut other = entry();
            change(&mut other);
            assert_ne!(other.link(&GENESIS), base);
        }
        assert_ne!(entry().link(&base), base);
    }

    #[test]
    fn texts_cannot_slide_into_each_other() {
        let mut a = entry();
        let mut b = entry();
        (a.warehouse, a.sku) = ("ab".into(), "c".into());
        (b.warehouse, b.sku) = ("a".into(), "bc".into());
        assert_ne!(a.link(&GENESIS), b.link(&GENESIS));
    }
}
