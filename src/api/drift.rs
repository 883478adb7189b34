//! Drift: positions where a source's number is not the one in force.
//!
//! A lesser source may speak before the one that counts, or after it; in between the two differ, and nothing is wrong. What
//! counts as drift has stood: neither was heard about the place for [`DRIFT_SETTLED`]. No report says when that moment has
//! come, so somebody must look. For the metric a walk goes through all positions, a piece at every scrape, and begins again at the
//! end: its cost is bounded however many there are, and a gateway that nobody watches does not pay it. For a person the list is
//! read anew, in pages.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use serde::Serialize;

use super::params::{bad_cursor, cursor_text};
use super::problem::{Answer, Problem, json};
use super::stock::Said;
use super::{Call, Shared};
use crate::limits::{DRIFT_POSITIONS_PER_PAGE, DRIFT_POSITIONS_PER_SCRAPE, DRIFT_SETTLED, PAGE_ROWS_MAX};
use crate::stock::level::{Position, Report};
use crate::store::rows::PositionKey;
use crate::store::state::State;
use crate::time::{self, Timestamp};

/// Where the walk stands.
#[derive(Debug, Default)]
pub(super) struct Walk {
    after: Option<PositionKey>,
    counting: BTreeMap<u16, u64>,
    /// What the last whole walk has found.
    found: Option<BTreeMap<u16, u64>>,
}

/// What the last whole walk has found, by number of the source.
pub(super) struct Drift(Option<BTreeMap<u16, u64>>);

impl Drift {
    /// Positions where this source differs; `None` before everything was looked at once. A source without a number has never
    /// said anything.
    pub(super) fn of(&self, source: Option<u16>) -> Option<u64> {
        self.0.as_ref().map(|found| source.and_then(|number| found.get(&number)).copied().unwrap_or(0))
    }
}

impl Walk {
    /// Take in the next positions; fewer than were asked for are the last ones.
    fn take(&mut self, page: Vec<(PositionKey, Position)>, asked: usize, now: Timestamp) {
        let last = page.len() < asked;
        for (_, position) in &page {
            for report in differing(position, now) {
                *self.counting.entry(report.source).or_default() += 1;
            }
        }
        self.after = page.into_iter().next_back().map(|(key, _)| key).filter(|_| !last);
        if last {
            self.found = Some(std::mem::take(&mut self.counting));
        }
    }
}

/// The reports that differ from the number in force, when both have stood.
fn differing(position: &Position, now: Timestamp) -> impl Iterator<Item = &Report> {
    let settled = move |report: &Report| now.since(report.heard) >= DRIFT_SETTLED;
    let counts = position.effective.and_then(|(source, value)| {
        let report = position.reports.iter().find(|report| report.source == source)?;
        settled(report).then_some((source, value))
    });
    let differs = move |report: &&Report| {
        counts.is_some_and(|(source, value)| {
            report.source != source && settled(report) && report.value().is_ok_and(|own| own != value)
        })
    };
    position.reports.iter().filter(differs)
}

/// Look at the next positions, and say what is known.
pub(super) async fn look(shared: &Arc<Shared>) -> Result<Drift, Problem> {
    let now = time::now();
    for _ in 0..DRIFT_POSITIONS_PER_SCRAPE.div_ceil(PAGE_ROWS_MAX) {
        let walk = Arc::clone(shared);
        let ended = shared
            .read(move |state, _| {
                let mut walk = walk.drift.lock().unwrap_or_else(PoisonError::into_inner);
                let page = state.stock(None, walk.after.as_ref(), PAGE_ROWS_MAX)?;
                walk.take(page, PAGE_ROWS_MAX, now);
                Ok(walk.after.is_none())
            })
            .await?;
        if ended {
            break;
        }
    }
    Ok(Drift(shared.drift.lock().unwrap_or_else(PoisonError::into_inner).found.clone()))
}

/// A position with more than one number.
#[derive(Serialize)]
struct Differing {
    warehouse: String,
    sku: String,
    /// The number in force.
    counts: Said,
    /// The numbers that differ from it.
    others: Vec<Said>,
}

impl Differing {
    fn of(state: &State, key: &PositionKey, position: &Position, now: Timestamp) -> Option<Self> {
        let others: Vec<Said> = differing(position, now).map(|report| Said::of(state, report, position)).collect();
        let (source, _) = position.effective.filter(|_| !others.is_empty())?;
        let counts = position.reports.iter().find(|report| report.source == source)?;
        Some(Self {
            warehouse: state.meta.warehouses.name(key.warehouse).to_owned(),
            sku: key.sku.to_string(),
            counts: Said::of(state, counts, position),
            others,
        })
    }
}

#[derive(Serialize)]
struct Page {
    drift: Vec<Differing>,
    /// Give this as `after` for the next page, which may be there although this one is empty; `null` on the last.
    next: Option<String>,
}

/// `GET /api/v1/drift`.
pub(super) async fn list(shared: &Arc<Shared>, call: &Call) -> Answer {
    let (rows, now) = (call.params.limit()?, time::now());
    let cursor = call.params.cursor()?;
    let mut after = cursor.map(|bytes| PositionKey::decode(&bytes).map_err(|_| bad_cursor())).transpose()?;
    let mut drift = Vec::new();
    // the lock is taken anew for each piece
    for _ in 0..DRIFT_POSITIONS_PER_PAGE.div_ceil(PAGE_ROWS_MAX) {
        let (from, wanted) = (after.take(), rows.saturating_sub(drift.len()));
        let (found, reached) = shared
            .read(move |state, _| {
                let (mut found, mut last) = (Vec::new(), None);
                let page = state.stock(None, from.as_ref(), PAGE_ROWS_MAX)?;
                let more = page.len() == PAGE_ROWS_MAX;
                let left = page.len();
                for (seen, (key, position)) in page.into_iter().enumerate() {
                    found.extend(Differing::of(state, &key, &position, now));
                    last = Some(key);
                    if found.len() == wanted {
                        return Ok((found, last.filter(|_| more || seen.saturating_add(1) < left)));
                    }
                }
                Ok((found, last.filter(|_| more)))
            })
            .await?;
        drift.extend(found);
        after = reached;
        if after.is_none() || drift.len() >= rows {
            break;
        }
    }
    Ok(json(&Page { drift, next: after.map(|key| cursor_text(&key.encode())) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock::level::Value;
    use crate::types::{Quantity, Stamp};

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    /// What a source says, and how many minutes ago it was heard.
    fn report(source: u16, units: i64, minutes: i64) -> Report {
        let heard = Timestamp::from_seconds(1_000_000 - minutes * 60);
        let stamp = Stamp { version: None, at: None, seq: 1, part: 0 };
        let value = Quantity::from_units(units).map(Value::Tracked).expect("a quantity");
        Report { source, base: Some((stamp, value)), deltas: Vec::new(), digest: [0; 8], heard }
    }

    /// A position whose first report counts.
    fn position(reports: Vec<Report>) -> Position {
        let effective = reports.first().map(|r| (r.source, r.value().expect("a value")));
        Position { reports, effective, ..Position::default() }
    }

    fn who(position: &Position) -> Vec<u16> {
        differing(position, NOW).map(|report| report.source).collect()
    }

    #[test]
    fn drift_is_what_differs_and_has_stood() {
        assert_eq!(who(&position(vec![report(1, 5, 60), report(2, 6, 60), report(3, 5, 60)])), [2]);
        assert!(who(&position(vec![report(1, 5, 60), report(2, 5, 60)])).is_empty(), "they agree");
        assert!(who(&position(vec![report(1, 5, 60), report(2, 6, 14)])).is_empty(), "the lesser one has just spoken");
        assert!(who(&position(vec![report(1, 5, 14), report(2, 6, 60)])).is_empty(), "the lesser one may follow");
        assert_eq!(who(&position(vec![report(1, 5, 15), report(2, 6, 15)])), [2]);
        assert!(who(&Position::default()).is_empty());
    }

    #[test]
    fn the_walk_says_nothing_until_it_has_seen_all_and_begins_again() {
        let page = |skus: &[&str]| {
            let key = |sku: &&str| PositionKey { warehouse: 1, sku: (*sku).into() };
            skus.iter().map(|sku| (key(sku), position(vec![report(1, 5, 60), report(2, 6, 60)]))).collect::<Vec<_>>()
        };
        let mut walk = Walk::default();
        walk.take(page(&["A", "B"]), 2, NOW);
        assert_eq!((walk.after.as_ref().map(|key| key.sku.to_string()), walk.found.clone()), (Some("B".to_owned()), None));
        walk.take(page(&["C"]), 2, NOW);
        assert_eq!((walk.after.clone(), walk.found.clone()), (None, Some(BTreeMap::from([(2, 3)]))));
        walk.take(page(&["A", "B"]), 2, NOW);
        assert_eq!(walk.found, Some(BTreeMap::from([(2, 3)])), "the last whole walk counts until the next is whole");
        walk.take(Vec::new(), 2, NOW);
        assert_eq!(walk.found, Some(BTreeMap::from([(2, 2)])));
        let drift = Drift(walk.found);
        assert_eq!((drift.of(Some(2)), drift.of(Some(1)), drift.of(None)), (Some(2), Some(0), Some(0)));
        assert_eq!(Drift(None).of(Some(2)), None);
    }
}
