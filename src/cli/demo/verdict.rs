//! What the demonstration proves: every delivery is accounted for, and every level is what its platform says.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use serde::Serialize;

use crate::simulator::meter::Tally;
use crate::simulator::{Position, World};
use crate::stock::level::Value;
use crate::store::StoreError;
use crate::store::rows::{PositionKey, SourceRow};
use crate::store::state::HistoryItem;
use crate::store::state::SharedState;
use crate::store::state::State;
use crate::types::{Quantity, map_of};

/// Mismatches that are explained.
const EXPLAINED: usize = 5;
/// Lines of history shown of each.
const HISTORY: usize = 4;

/// The figures, in the words and the order of the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    /// What the simulated platforms sent and got a yes or no for: `accepted + duplicates + rejected`.
    pub(super) deliveries: u64,
    /// New to the gateway (by its own count).
    pub(super) accepted: u64,
    /// Known to the gateway (by its own count).
    pub(super) duplicates: u64,
    /// Answered 401, or 404 for a wrong secret path.
    pub(super) rejected: u64,
    /// What waits for a person at the end.
    pub(super) dead_letters: u64,
    /// Reports that set or confirmed a level.
    pub(super) applied: u64,
    /// Positions compared.
    pub(super) positions: u64,
    /// Warehouses with a level.
    pub(super) warehouses: u64,
    /// The newest ledger number.
    pub(super) ledger_seq: u64,
    /// Levels pushed to sales channels.
    pub(super) pushes: u64,
    /// Positions whose level is not what the platform says.
    pub(super) mismatches: u64,
    /// Answers of the platforms' APIs.
    pub(super) fetched: u64,
    /// Deliveries without an answer in time.
    pub(super) lost: u64,
    /// Deliveries that were put off (503) and came again.
    pub(super) put_off: u64,
    /// What is wrong, in sentences; empty when all is well.
    pub(super) problems: Vec<String>,
    /// By source.
    pub(super) sources: Vec<SourceLine>,
    /// The seed that makes this run again.
    pub(super) seed: u64,
    /// From the first delivery to the last level.
    pub(super) elapsed_seconds: Quantity,
    /// Deliveries a second while traffic lasted.
    pub(super) deliveries_per_second: u64,
    /// Half of the answers came within this time, as the senders saw it.
    pub(super) ack_p50_ms: Quantity,
    /// 99 of 100 did.
    pub(super) ack_p99_ms: Quantity,
    /// The slowest one.
    pub(super) ack_max_ms: Quantity,
}

/// One source's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct SourceLine {
    pub(super) source: String,
    pub(super) platform: String,
    pub(super) deliveries: u64,
    pub(super) accepted: u64,
    pub(super) duplicates: u64,
    pub(super) rejected: u64,
    pub(super) lost: u64,
    pub(super) fetched: u64,
    pub(super) changed: u64,
    pub(super) confirmed: u64,
    pub(super) ignored: u64,
    pub(super) equal_stamps: u64,
    pub(super) slowest_ms: Quantity,
}

/// Milliseconds with the microseconds behind the point.
pub(super) fn millis(duration: std::time::Duration) -> Quantity {
    Quantity::from_micros(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX).saturating_mul(1000))
}

/// What both sides say of one source, and whether it fits together.
pub(super) fn source_line(source: &str, platform: &str, tally: Tally, row: SourceRow) -> (SourceLine, Vec<String>) {
    let accepted = row.accepted + row.conflicts;
    let recorded = accepted + row.duplicates;
    let mut problems = Vec::new();
    // A delivery whose answer got lost may be in the journal or not: the sender cannot know.
    if recorded < tally.ok || recorded > tally.ok + tally.lost + tally.other {
        problems.push(format!(
            "{source}: {} deliveries were acknowledged and {} got no answer, but the gateway knows {recorded}",
            tally.ok,
            tally.lost + tally.other
        ));
    }
    if tally.slipped > 0 {
        problems.push(format!("{source}: {} forged deliveries were acknowledged", tally.slipped));
    }
    if tally.snubbed > 0 {
        problems.push(format!("{source}: {} genuine deliveries were refused as forged", tally.snubbed));
    }
    let line = SourceLine {
        source: source.to_owned(),
        platform: platform.to_owned(),
        deliveries: recorded + tally.rejected,
        accepted,
        duplicates: row.duplicates,
        rejected: tally.rejected,
        lost: tally.lost,
        fetched: row.fetched,
        changed: row.changed,
        confirmed: row.confirmed,
        ignored: row.ignored,
        equal_stamps: row.equal_stamps,
        slowest_ms: millis(tally.slowest),
    };
    (line, problems)
}

/// Every source's line, and what does not fit together.
pub(super) fn account(world: &World, state: &SharedState) -> (Vec<SourceLine>, Vec<String>) {
    let rows = {
        let state = state.read().unwrap_or_else(PoisonError::into_inner);
        map_of(state.sources().map(|(name, row)| (name.to_owned(), row)))
    };
    let mut lines = Vec::new();
    let mut problems = Vec::new();
    for simulated in world.accounts() {
        let name = simulated.account.name;
        let row = rows.get(name).copied().unwrap_or_default();
        let (line, found) = source_line(name, simulated.platform.kind(), simulated.meter.tally(), row);
        lines.push(line);
        problems.extend(found);
    }
    (lines, problems)
}

/// A position whose level is not the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) position: Position,
    /// `None`: the platform has never said anything about it.
    pub(super) truth: Option<Value>,
    /// `None`: the gateway has no level.
    pub(super) level: Option<Value>,
}

/// A platform's number as a level.
fn as_level(stock: Option<Quantity>) -> Value {
    stock.map_or(Value::Untracked, Value::Tracked)
}

/// Compare every position, both ways. Returns how many there are and those that differ.
pub(super) fn compare(
    truth: &BTreeMap<Position, Option<Quantity>>,
    levels: &BTreeMap<Position, Value>,
) -> (u64, Vec<Mismatch>) {
    let invented = levels.keys().filter(|position| !truth.contains_key(*position));
    let mut positions = 0;
    let mut mismatches = Vec::new();
    for position in truth.keys().chain(invented) {
        positions += 1;
        let (truth, level) = (truth.get(position).copied().map(as_level), levels.get(position).copied());
        if truth != level {
            mismatches.push(Mismatch { position: position.clone(), truth, level });
        }
    }
    (positions, mismatches)
}

/// Every level of the gateway.
pub(super) fn levels(state: &State) -> Result<BTreeMap<Position, Value>, StoreError> {
    let mut levels = BTreeMap::new();
    let mut after: Option<PositionKey> = None;
    loop {
        let page = state.stock(None, after.as_ref(), crate::limits::PAGE_ROWS_MAX)?;
        let Some((last, _)) = page.last() else { return Ok(levels) };
        after = Some(last.clone());
        for (key, position) in page {
            if let Some((_, value)) = position.effective {
                let warehouse = state.meta.warehouses.name(key.warehouse).to_owned();
                levels.insert((warehouse, key.sku.to_string()), value);
            }
        }
    }
}

/// The first mismatches in words, each with the newest lines of its history.
pub(super) fn explain(state: &State, mismatches: &[Mismatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for Mismatch { position: (warehouse, sku), truth, level } in mismatches.iter().take(EXPLAINED) {
        let said = |value: &Option<Value>| value.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
        let (level, truth) = (said(level), said(truth));
        lines.push(format!("{sku}@{warehouse}: the level is {level}, the platform says {truth}"));
        let key = state.find_warehouse(warehouse).map(|number| PositionKey { warehouse: number, sku: sku.as_str().into() });
        let position = key.and_then(|key| state.position(&key).ok().flatten());
        let history = position.and_then(|position| state.history(&position, HISTORY).ok()).unwrap_or_default();
        lines.extend(history.iter().take(HISTORY).map(|item| format!("  {}", in_words(state, item))));
    }
    if mismatches.len() > EXPLAINED {
        lines.push(format!("... and {} more", mismatches.len() - EXPLAINED));
    }
    lines
}

fn in_words(state: &State, item: &HistoryItem) -> String {
    match item {
        HistoryItem::Changed(entry) => {
            let before = entry.before.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
            format!(
                "{}  record {}  {}  {}  {before} -> {}  {}",
                entry.at,
                entry.record,
                entry.source,
                entry.delivery,
                entry.after,
                entry.rule.as_str()
            )
        }
        HistoryItem::Ignored(row) => {
            let said = row.said.map_or_else(|| "a number".to_owned(), |value| value.to_string());
            format!(
                "{}  record {}  {}  {}  said {said}, ignored: {}",
                row.at,
                row.record,
                state.meta.sources.name(row.source),
                row.delivery,
                row.reason.as_str()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tally() -> Tally {
        Tally { deliveries: 12, ok: 10, rejected: 2, ..Tally::default() }
    }

    fn row(accepted: u64, duplicates: u64) -> SourceRow {
        SourceRow { accepted, duplicates, ..SourceRow::default() }
    }

    #[test]
    fn the_books_balance_or_say_where_they_do_not() {
        let (line, problems) = source_line("shop", "shopify", tally(), row(7, 3));
        assert_eq!(problems, [""; 0]);
        assert_eq!((line.deliveries, line.accepted, line.duplicates, line.rejected), (12, 7, 3, 2));
        let (_, problems) = source_line("shop", "shopify", tally(), row(7, 2));
        assert_eq!(
            problems,
            ["shop: 10 deliveries were acknowledged and 0 got no answer, but the gateway knows 9"],
            "one is missing"
        );
        assert_eq!(source_line("shop", "shopify", tally(), row(8, 3)).1.len(), 1, "one is invented");
    }

    #[test]
    fn a_delivery_without_an_answer_may_be_known_or_not() {
        let tally = Tally { lost: 2, ..tally() };
        for known in 10..=12 {
            let (line, problems) = source_line("shop", "shopify", tally, row(known, 0));
            assert_eq!(problems, [""; 0]);
            assert_eq!(line.deliveries, line.accepted + line.duplicates + line.rejected);
        }
        assert_eq!(source_line("shop", "shopify", tally, row(13, 0)).1.len(), 1);
    }

    #[test]
    fn a_forgery_that_slips_through_is_a_problem_whatever_the_sums_say() {
        let slipped = Tally { slipped: 1, ..tally() };
        assert_eq!(source_line("shop", "s", slipped, row(10, 0)).1, ["shop: 1 forged deliveries were acknowledged"]);
        let snubbed = Tally { snubbed: 1, ..tally() };
        assert_eq!(source_line("shop", "s", snubbed, row(10, 0)).1, ["shop: 1 genuine deliveries were refused as forged"]);
    }

    #[test]
    fn every_position_is_compared_both_ways() {
        let at = |sku: &str| ("main".to_owned(), sku.to_owned());
        let five = Quantity::from_units(5);
        let tracked = |units| Value::Tracked(Quantity::from_units(units).unwrap());
        let truth =
            [(at("same"), five), (at("other"), five), (at("uncounted"), None), (at("missing"), five), (at("gone"), None)];
        let levels = [
            (at("same"), tracked(5)),
            (at("other"), tracked(6)),
            (at("uncounted"), Value::Untracked),
            (at("gone"), Value::Deleted),
            (at("invented"), tracked(1)),
        ];
        let (positions, mismatches) = compare(&truth.into(), &levels.into());
        assert_eq!(positions, 6);
        let wrong: Vec<&str> = mismatches.iter().map(|m| m.position.1.as_str()).collect();
        assert_eq!(wrong, ["gone", "missing", "other", "invented"]);
    }

    #[test]
    fn milliseconds_are_exact() {
        assert_eq!(millis(Duration::from_micros(1234)).to_string(), "1.234");
        assert_eq!(millis(Duration::from_secs(2)).to_string(), "2000");
    }
}
