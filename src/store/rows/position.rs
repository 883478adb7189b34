//! Positions: one row for each SKU in each warehouse.

use super::{read_value, value};
use crate::stock::level::{Position, Report, Value};
use crate::store::StoreError;
use crate::store::codec::{Reader, Writer};
use crate::time::Timestamp;
use crate::types::Stamp;

/// Key of a position: warehouse number and SKU, so that one warehouse's rows stand together in SKU order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PositionKey {
    /// The warehouse's number.
    pub warehouse: u16,
    /// The SKU.
    pub sku: Box<str>,
}

impl PositionKey {
    /// Stored form; sorts like the struct.
    pub fn encode(&self) -> Vec<u8> {
        [&self.warehouse.to_be_bytes()[..], self.sku.as_bytes()].concat()
    }

    /// From the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut r = Reader::new(bytes);
        let warehouse = u16::from_be_bytes(r.array("warehouse")?);
        let sku =
            std::str::from_utf8(r.raw(bytes.len() - 2, "sku")?).map_err(|_| StoreError::Row("sku is not UTF-8".into()))?;
        Ok(Self { warehouse, sku: sku.into() })
    }
}

/// What a report has, in its row's first byte.
const HAS_BASE: u8 = 1;
const HAS_VERSION: u8 = 2;
const HAS_TIME: u8 = 4;
const HAS_DIGEST: u8 = 8;
const HAS_DELTAS: u8 = 16;

/// Bytes of a position. There may be a million of them, so nothing is written twice: the number that counts is nearly always
/// its source's, and a source is nearly always heard soon after the time that it says.
pub fn encode_position(p: &Position) -> Vec<u8> {
    let mut w = Writer::with_capacity(64);
    match p.effective {
        None => w.u8(0),
        Some((by, v)) if said_by(p, by) == Some(v) => w.u8(1).count(u64::from(by)),
        Some((by, v)) => {
            w.u8(2).count(u64::from(by));
            value(&mut w, v);
            &mut w
        }
    };
    w.count(p.last_change).count(p.last_ignored).count(p.reports.len() as u64);
    for report in &p.reports {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let stamp = report.base.map(|(stamp, _)| stamp);
        w.u8(flag(report.base.is_some(), HAS_BASE)
            | flag(stamp.is_some_and(|s| s.version.is_some()), HAS_VERSION)
            | flag(stamp.is_some_and(|s| s.at.is_some()), HAS_TIME)
            | flag(report.digest != [0; 8], HAS_DIGEST)
            | flag(!report.deltas.is_empty(), HAS_DELTAS));
        w.count(u64::from(report.source));
        let mut said_at = 0;
        if let Some((stamp, v)) = report.base {
            if let Some(version) = stamp.version {
                w.count(version);
            }
            if let Some(at) = stamp.at {
                said_at = at.0;
                w.signed(said_at);
            }
            w.count(stamp.seq).count(u64::from(stamp.part));
            value(&mut w, v);
        }
        w.signed(report.heard.0.wrapping_sub(said_at));
        if report.digest != [0; 8] {
            w.raw(&report.digest);
        }
        if !report.deltas.is_empty() {
            w.count(report.deltas.len() as u64);
            for (stamp, quantity) in &report.deltas {
                w.stamp(stamp).signed(quantity.micros());
            }
        }
    }
    w.finish()
}

/// The number of one source's report.
fn said_by(p: &Position, source: u16) -> Option<Value> {
    p.reports.iter().find(|r| r.source == source)?.value().ok()
}

/// Read a position.
pub fn decode_position(bytes: &[u8]) -> Result<Position, StoreError> {
    let mut r = Reader::new(bytes);
    let effective = match r.u8("effective")? {
        0 => None,
        1 => Some((r.small("by")?, None)),
        2 => Some((r.small("by")?, Some(read_value(&mut r)?))),
        other => return Err(StoreError::Row(format!("effective has the mark {other}"))),
    };
    let (last_change, last_ignored) = (r.count("last change")?, r.count("last ignored")?);
    let reports: usize = r.small("reports")?;
    let mut position = Position { reports: Vec::with_capacity(reports.min(16)), effective: None, last_change, last_ignored };
    for _ in 0..reports {
        position.reports.push(decode_report(&mut r)?);
    }
    r.end("position")?;
    position.effective = match effective {
        None => None,
        Some((by, Some(v))) => Some((by, v)),
        Some((by, None)) => {
            let said = said_by(&position, by).ok_or_else(|| StoreError::Row("effective has no report".into()))?;
            Some((by, said))
        }
    };
    Ok(position)
}

fn decode_report(r: &mut Reader<'_>) -> Result<Report, StoreError> {
    let has = r.u8("report")?;
    let source = r.small("source")?;
    let (mut base, mut said_at) = (None, 0);
    if has & HAS_BASE != 0 {
        let version = (has & HAS_VERSION != 0).then(|| r.count("version")).transpose()?;
        let at = (has & HAS_TIME != 0).then(|| r.signed("said at")).transpose()?;
        said_at = at.unwrap_or(0);
        let stamp = Stamp { version, at: at.map(Timestamp), seq: r.count("arrival")?, part: r.small("part")? };
        base = Some((stamp, read_value(r)?));
    }
    let heard = Timestamp(r.signed("heard")?.wrapping_add(said_at));
    let digest = if has & HAS_DIGEST == 0 { [0; 8] } else { r.array("digest")? };
    let mut deltas = Vec::new();
    if has & HAS_DELTAS != 0 {
        let count: usize = r.small("deltas")?;
        deltas.reserve(count.min(64));
        for _ in 0..count {
            deltas.push((r.stamp("delta")?, r.quantity("delta")?));
        }
    }
    Ok(Report { source, base, deltas, digest, heard })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Quantity;

    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i64>().prop_map(|n| Value::Tracked(Quantity::from_micros(n))),
            Just(Value::Untracked),
            Just(Value::Deleted)
        ]
    }

    fn stamps() -> impl Strategy<Value = Stamp> {
        (any::<Option<u64>>(), any::<Option<i64>>(), any::<u64>(), any::<u32>()).prop_map(|(version, at, seq, part)| Stamp {
            version,
            at: at.map(Timestamp),
            seq,
            part,
        })
    }

    fn reports() -> impl Strategy<Value = Report> {
        let deltas = proptest::collection::vec((stamps(), any::<i64>().prop_map(Quantity::from_micros)), 0..3);
        let base = proptest::option::of((stamps(), values()));
        (any::<u16>(), base, deltas, any::<Option<[u8; 8]>>(), any::<i64>()).prop_map(
            |(source, base, deltas, digest, heard)| Report {
                source,
                base,
                deltas,
                digest: digest.unwrap_or_default(),
                heard: Timestamp(heard),
            },
        )
    }

    proptest! {
        #[test]
        fn a_position_reads_back(
            reports in proptest::collection::vec(reports(), 0..4),
            effective in proptest::option::of((any::<u16>(), values())),
            said in any::<bool>(),
            (last_change, last_ignored) in any::<(u64, u64)>(),
        ) {
            let mut position = Position { reports, effective, last_change, last_ignored };
            if said && let Some(report) = position.reports.last() {
                position.effective = said_by(&position, report.source).map(|v| (report.source, v));
            }
            let row = encode_position(&position);
            prop_assert_eq!(decode_position(&row).expect("reads"), position);
            for cut in 0..row.len() {
                prop_assert!(decode_position(&row[..cut]).is_err());
            }
        }
    }

    #[test]
    fn the_usual_position_is_small() {
        let at = Timestamp(1_790_000_000_000_000);
        let stamp = Stamp { version: None, at: Some(at), seq: 1_000_000, part: 0 };
        let value = Value::Tracked(Quantity::from_units(4711).expect("in range"));
        let heard = Timestamp(at.0 + 1_500_000);
        let report = Report { source: 3, base: Some((stamp, value)), deltas: vec![], digest: [0; 8], heard };
        let position =
            Position { reports: vec![report], effective: Some((3, value)), last_change: 1_000_000, last_ignored: 0 };
        assert!(encode_position(&position).len() <= 32, "{}", encode_position(&position).len());
    }
}
