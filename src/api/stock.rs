//! Levels and warehouses.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::params::{bad_cursor, cursor_text};
use super::problem::{Answer, Problem, json};
use super::{Call, Shared};
use crate::stock::level::{Position, Report, Value};
use crate::stock::totals::{Flow, Totals};
use crate::store::StoreError;
use crate::store::rows::PositionKey;
use crate::store::state::State;
use crate::time::{self, Timestamp};
use crate::types::{Quantity, Sku, closest};

/// SKUs looked at for a suggestion.
const NEIGHBOURS: usize = 200;

/// The word for a value: `tracked` with a number, `untracked` and `deleted` without.
pub(super) fn state_word(value: Value) -> &'static str {
    match value {
        Value::Tracked(_) => "tracked",
        Value::Untracked => "untracked",
        Value::Deleted => "deleted",
    }
}

/// A moment for people and machines; `None` when it never was.
pub(super) fn when(at: Timestamp) -> Option<String> {
    (at != Timestamp::default()).then(|| at.to_string())
}

/// A value on its own.
#[derive(Serialize)]
pub(super) struct Number {
    state: &'static str,
    quantity: Option<Quantity>,
}

impl From<Value> for Number {
    fn from(value: Value) -> Self {
        Self { state: state_word(value), quantity: value.quantity() }
    }
}

/// The level of one SKU in one warehouse.
#[derive(Serialize)]
pub(super) struct Level {
    warehouse: String,
    sku: String,
    /// `unknown` only for a position that never had a level.
    state: &'static str,
    quantity: Option<Quantity>,
    /// The source that counts.
    source: Option<String>,
    /// When it became so.
    since: Option<String>,
    /// The ledger number of that change.
    ledger: Option<u64>,
}

impl Level {
    pub(super) fn of(state: &State, key: &PositionKey, position: &Position) -> Result<Self, StoreError> {
        let changed = match position.last_change {
            0 => None,
            ledger => state.audit_entry(ledger)?.map(|(entry, _)| entry.at),
        };
        let effective = position.effective;
        Ok(Self {
            warehouse: state.meta.warehouses.name(key.warehouse).to_owned(),
            sku: key.sku.to_string(),
            state: effective.map_or("unknown", |(_, value)| state_word(value)),
            quantity: effective.and_then(|(_, value)| value.quantity()),
            source: effective.map(|(source, _)| state.meta.sources.name(source).to_owned()),
            since: changed.map(|at| at.to_string()),
            ledger: (position.last_change != 0).then_some(position.last_change),
        })
    }
}

/// What one source says of a position.
#[derive(Serialize)]
pub(super) struct Said {
    source: String,
    state: &'static str,
    quantity: Option<Quantity>,
    /// True for the source whose number is the level.
    counts: bool,
    /// The source's own time of its newest count.
    source_time: Option<String>,
    /// The platform's version of its newest count.
    version: Option<u64>,
    /// Movements on top of that count.
    deltas: usize,
    /// When it was last heard about this place.
    heard: Option<String>,
}

impl Said {
    pub(super) fn of(state: &State, report: &Report, position: &Position) -> Self {
        let value = report.value().ok();
        Self {
            source: state.meta.sources.name(report.source).to_owned(),
            state: value.map_or("unknown", state_word),
            quantity: value.and_then(Value::quantity),
            counts: position.effective.is_some_and(|(source, _)| source == report.source),
            source_time: report.base.and_then(|(stamp, _)| stamp.at).map(|at| at.to_string()),
            version: report.base.and_then(|(stamp, _)| stamp.version),
            deltas: report.deltas.len(),
            heard: when(report.heard),
        }
    }

    /// What every source says, the one that counts first.
    pub(super) fn all(state: &State, position: &Position) -> Vec<Self> {
        let mut said: Vec<Self> = position.reports.iter().map(|report| Self::of(state, report, position)).collect();
        if let Some(counts) = said.iter().position(|s| s.counts) {
            let first = said.remove(counts);
            said.insert(0, first);
        }
        said
    }
}

#[derive(Serialize)]
struct Page {
    stock: Vec<Level>,
    /// Give this as `after` for the next page; `null` on the last.
    next: Option<String>,
}

/// Which positions are wanted.
struct Wanted {
    warehouses: Vec<u16>,
    sku: Option<String>,
    prefix: String,
}

/// `GET /api/v1/stock`.
pub(super) async fn list(shared: &Arc<Shared>, call: &Call) -> Answer {
    let rows = call.params.limit()?;
    let cursor = call.params.cursor()?;
    let after = cursor.map(|bytes| PositionKey::decode(&bytes).map_err(|_| bad_cursor())).transpose()?;
    let warehouse = call.params.text("warehouse").map(str::to_owned);
    let sku = call.params.text("sku").map(read_sku).transpose()?;
    let prefix = call.params.text("prefix").map(str::to_owned);
    if sku.is_some() && prefix.is_some() {
        return Err(Problem::bad_request("sku is one SKU and prefix is many: give one of them"));
    }
    let page = shared
        .read(move |state, _| {
            let warehouses = match &warehouse {
                Some(name) => vec![find_warehouse(state, name)?],
                None => state.meta.warehouses.iter().map(|(number, _)| number).collect(),
            };
            if after.as_ref().is_some_and(|after| !warehouses.contains(&after.warehouse)) {
                return Err(bad_cursor());
            }
            let wanted = Wanted { warehouses, sku, prefix: prefix.unwrap_or_default() };
            let mut found = positions(state, &wanted, after.as_ref(), rows + 1)?;
            let more = found.len() > rows;
            found.truncate(rows);
            let next = found.last().filter(|_| more).map(|(key, _)| cursor_text(&key.encode()));
            let stock = found.iter().map(|(key, p)| Level::of(state, key, p)).collect::<Result<_, _>>()?;
            Ok(Page { stock, next })
        })
        .await?;
    Ok(json(&page))
}

fn read_sku(text: &str) -> Result<String, Problem> {
    Sku::new(text).map(|sku| sku.as_str().to_owned()).map_err(|error| Problem::bad_request(error.to_string()))
}

/// The wanted positions behind `after`, in order of warehouse number and SKU.
fn positions(
    state: &State,
    wanted: &Wanted,
    after: Option<&PositionKey>,
    rows: usize,
) -> Result<Vec<(PositionKey, Position)>, StoreError> {
    let mut found = Vec::new();
    for &warehouse in wanted.warehouses.iter().filter(|w| after.is_none_or(|a| **w >= a.warehouse)) {
        let after = after.filter(|a| a.warehouse == warehouse);
        let left = rows.saturating_sub(found.len());
        if left == 0 {
            break;
        }
        let exact = |sku: &str| -> Result<Option<(PositionKey, Position)>, StoreError> {
            let key = PositionKey { warehouse, sku: sku.into() };
            Ok(state.position(&key)?.map(|position| (key, position)))
        };
        if let Some(sku) = &wanted.sku {
            found.extend(exact(sku)?.filter(|(key, _)| after.is_none_or(|a| key > a)));
            continue;
        }
        if wanted.prefix.is_empty() {
            found.extend(state.stock(Some(warehouse), after, left)?);
            continue;
        }
        // the SKU that is the prefix itself stands in front of all that begin with it
        let first = PositionKey { warehouse, sku: wanted.prefix.as_str().into() };
        if after.is_none_or(|a| *a < first) {
            found.extend(exact(&wanted.prefix)?);
        }
        let from = after.filter(|a| **a > first).cloned().unwrap_or(first);
        let left = rows.saturating_sub(found.len());
        let page = state.stock(Some(warehouse), Some(&from), left)?;
        found.extend(page.into_iter().take_while(|(key, _)| key.sku.starts_with(&wanted.prefix)));
    }
    Ok(found)
}

/// The number of a warehouse, or a 404 that helps.
pub(super) fn find_warehouse(state: &State, name: &str) -> Result<u16, Problem> {
    state.find_warehouse(name).ok_or_else(|| {
        let names: Vec<&str> = state.warehouses().map(|(name, _)| name).collect();
        let detail = match (closest(name, names.iter().copied()), names.is_empty()) {
            (_, true) => format!("no warehouse `{name}`: nothing has been delivered to any warehouse yet"),
            (Some(near), _) => format!("no warehouse `{name}`; did you mean `{near}`?"),
            (None, _) => format!("no warehouse `{name}`; /api/v1/warehouses lists those that have stock"),
        };
        Problem::not_found(detail)
    })
}

/// The position that a path names, or a 404 that helps.
pub(super) fn find_position(state: &State, warehouse: &str, sku: &str) -> Result<(PositionKey, Position), Problem> {
    let number = find_warehouse(state, warehouse)?;
    let key = PositionKey { warehouse: number, sku: sku.trim().into() };
    if let Some(position) = state.position(&key)? {
        return Ok((key, position));
    }
    let mut elsewhere = Vec::new();
    for (other, name) in state.meta.warehouses.iter().filter(|(other, _)| *other != number) {
        if state.position(&PositionKey { warehouse: other, sku: key.sku.clone() })?.is_some() {
            elsewhere.push(name.to_owned());
        }
    }
    if !elsewhere.is_empty() {
        let there = elsewhere.join(", ");
        return Err(Problem::not_found(format!("no level of `{sku}` in `{warehouse}` is known; there is one in {there}")));
    }
    let near = neighbour(state, &key)?.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Err(Problem::not_found(format!("no level of `{sku}` in `{warehouse}` is known{near}")))
}

/// A SKU of the same warehouse that looks like the one that is not there.
fn neighbour(state: &State, key: &PositionKey) -> Result<Option<String>, StoreError> {
    let stem: String = key.sku.chars().take(1).collect();
    for prefix in [stem.to_uppercase(), stem.to_lowercase()] {
        let from = PositionKey { warehouse: key.warehouse, sku: prefix.into() };
        let near = state.stock(Some(key.warehouse), Some(&from), NEIGHBOURS)?;
        let same_but_for_case = near.iter().find(|(k, _)| k.sku.to_lowercase() == key.sku.to_lowercase());
        let found = same_but_for_case
            .map(|(k, _)| k.sku.to_string())
            .or_else(|| closest(&key.sku, near.iter().map(|(k, _)| &*k.sku)).map(str::to_owned));
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

#[derive(Serialize)]
struct One {
    #[serde(flatten)]
    level: Level,
    reports: Vec<Said>,
}

/// `GET /api/v1/stock/{warehouse}/{sku}`.
pub(super) async fn one(shared: &Arc<Shared>, call: &Call) -> Answer {
    let (warehouse, sku) = (call.segment(0).to_owned(), call.segment(1).to_owned());
    let one = shared
        .read(move |state, _| {
            let (key, position) = find_position(state, &warehouse, &sku)?;
            Ok(One { level: Level::of(state, &key, &position)?, reports: Said::all(state, &position) })
        })
        .await?;
    Ok(json(&one))
}

/// A sum in millionths as an exact JSON number.
struct Sum(i128);

impl Serialize for Sum {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = RawValue::from_string(sum_text(self.0)).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// A sum in millionths, shortest exact form.
pub(super) fn sum_text(micros: i128) -> String {
    let magnitude = micros.unsigned_abs();
    let sign = if micros < 0 { "-" } else { "" };
    let text = format!("{sign}{}.{:06}", magnitude / 1_000_000, magnitude % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[derive(Serialize)]
struct Moved {
    inflow: Sum,
    outflow: Sum,
}

impl From<Flow> for Moved {
    fn from(flow: Flow) -> Self {
        Self { inflow: Sum(flow.inflow), outflow: Sum(flow.outflow) }
    }
}

#[derive(Serialize)]
struct Warehouse {
    #[serde(rename = "warehouse")]
    name: String,
    levels: u64,
    units: Sum,
    in_stock: u64,
    out: u64,
    negative: u64,
    low: u64,
    untracked: u64,
    this_hour: Moved,
    today: Moved,
    last_event: Option<String>,
}

impl Warehouse {
    fn of(name: &str, totals: &Totals, now: Timestamp) -> Self {
        Self {
            name: name.to_owned(),
            levels: totals.levels,
            units: Sum(totals.units),
            in_stock: totals.in_stock,
            out: totals.out,
            negative: totals.negative,
            low: totals.low,
            untracked: totals.untracked,
            this_hour: totals.this_hour(now).into(),
            today: totals.this_day(now).into(),
            last_event: when(totals.last_event),
        }
    }
}

#[derive(Serialize)]
struct Warehouses {
    warehouses: Vec<Warehouse>,
}

/// `GET /api/v1/warehouses`: all of them, the configuration bounds how many there are.
pub(super) async fn warehouses(shared: &Arc<Shared>) -> Answer {
    let now = time::now();
    let warehouses = shared
        .read(move |state, _| Ok(state.warehouses().map(|(name, totals)| Warehouse::of(name, totals, now)).collect()))
        .await?;
    Ok(json(&Warehouses { warehouses }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sum_has_the_digits_of_a_quantity(micros: i64) {
            prop_assert_eq!(sum_text(i128::from(micros)), Quantity::from_micros(micros).to_string());
        }
    }

    #[test]
    fn a_sum_may_be_larger_than_any_quantity() {
        assert_eq!(sum_text(i128::from(i64::MAX) * 10), "92233720368547.75807");
    }
}
