//! What the API answers: report rows, an entry of the assortment, an error.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ask::{Count, Scope, is_id};
use crate::limits::FACTS_PER_RECORD;
use crate::time::Timestamp;
use crate::types::{Change, Fact, Item, Observation, Place, Quantity, Said, Unreadable};

/// A report, read.
pub(super) struct Read {
    pub(super) observations: Vec<Observation>,
    /// Some row was `null`: its number is being recalculated.
    pub(super) recalculating: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    assortment_id: Box<str>,
    store_id: Option<Box<str>>,
    // Each is `None` when absent; a `null` is kept, since it means something else.
    #[serde(borrow, default, deserialize_with = "crate::sources::json::present")]
    stock: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "crate::sources::json::present")]
    free_stock: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "crate::sources::json::present")]
    quantity: Option<&'a RawValue>,
}

impl Row<'_> {
    /// The number asked for. The vendor's sample of a window's answer calls the default number `quantity`.
    fn number(&self, count: Count) -> Option<&str> {
        match count {
            Count::Stock => self.stock.or(self.quantity),
            Count::FreeStock => self.free_stock,
            Count::Quantity => self.quantity,
        }
        .map(RawValue::get)
    }

    fn place(&self, scope: Scope) -> Result<Option<Place>, Unreadable> {
        match (scope, &self.store_id) {
            (Scope::All, _) => Ok(Some(Place::Default)),
            (Scope::ByStore, None) => Ok(None),
            (Scope::ByStore, Some(store)) if is_id(store) => Ok(Some(Place::At(store.clone()))),
            (Scope::ByStore, Some(_)) => {
                Err(Unreadable(format!("the report's row of {}: storeId is not an id", self.item())))
            }
        }
    }

    fn item(&self) -> String {
        self.assortment_id.chars().take(64).flat_map(char::escape_debug).collect()
    }
}

/// Read a brief report, of whatever items it holds.
pub(super) fn read(scope: Scope, count: Count, sent_at: Timestamp, body: &[u8]) -> Result<Read, Unreadable> {
    let rows: Vec<Row<'_>> = serde_json::from_slice(body).map_err(|e| not_the_form("a stock report", &e))?;
    if rows.len() > FACTS_PER_RECORD {
        return Err(Unreadable(format!("the report has {} rows; {FACTS_PER_RECORD} can be taken at once", rows.len())));
    }
    let mut observations = Vec::with_capacity(rows.len());
    let (mut storeless, mut recalculating) = (false, false);
    for row in &rows {
        if !is_id(&row.assortment_id) {
            return Err(Unreadable(format!("the report's row of {}: assortmentId is not an id", row.item())));
        }
        let Some(place) = row.place(scope)? else {
            storeless = true;
            continue;
        };
        let number = row.number(count);
        let number =
            number.ok_or_else(|| Unreadable(format!("the report's row of {}: the number is missing", row.item())))?;
        if number == "null" {
            recalculating = true;
            continue;
        }
        let quantity: Quantity =
            number.parse().map_err(|e| Unreadable(format!("the report's row of {}: the number is {e}", row.item())))?;
        observations.push(Observation::Fact(Fact {
            item: Item { id: row.assortment_id.clone(), sku: None },
            place,
            measure: count.measure(),
            change: Change::Absolute(quantity),
            said: Said { version: None, at: Some(sent_at) },
        }));
    }
    for (skipped, why) in [
        (storeless, "a report row tied to no store"),
        (recalculating, "a report row under recalculation"),
        (rows.is_empty(), "a report without rows"),
    ] {
        if skipped {
            observations.push(Observation::Irrelevant(why.into()));
        }
    }
    Ok(Read { observations, recalculating })
}

/// Which field of the assortment is our SKU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SkuField {
    Code,
    Article,
    ExternalCode,
}

impl SkuField {
    pub(super) const WORDS: &'static [(&'static str, Self)] =
        &[("code", Self::Code), ("article", Self::Article), ("externalCode", Self::ExternalCode)];
}

#[derive(Deserialize)]
struct Assortment {
    rows: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    id: Box<str>,
    code: Option<Box<str>>,
    article: Option<Box<str>>,
    external_code: Option<Box<str>>,
}

/// Read the SKU of one item out of the assortment.
pub(super) fn read_assortment(item: &str, field: SkuField, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    let answer: Assortment = serde_json::from_slice(body).map_err(|e| not_the_form("an assortment", &e))?;
    let Some(entry) = answer.rows.into_iter().find(|e| e.id.eq_ignore_ascii_case(item)) else {
        return Ok(vec![Observation::Irrelevant("the assortment has no such item (archived or deleted)".into())]);
    };
    let sku = match field {
        SkuField::Code => entry.code,
        SkuField::Article => entry.article,
        SkuField::ExternalCode => entry.external_code,
    };
    Ok(vec![match sku.filter(|s| !s.trim().is_empty()) {
        Some(sku) => Observation::Catalogue { item: item.into(), sku },
        None => Observation::Irrelevant("the assortment's entry has no SKU in the chosen field".into()),
    }])
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    code: u64,
}

/// The first error code of an answer that has one.
pub(super) fn error_code(body: &[u8]) -> Option<u64> {
    let answer: Errors = serde_json::from_slice(body).ok()?;
    answer.errors.first().map(|e| e.code)
}

/// Says where, and nothing of what stands there.
fn not_the_form(what: &str, error: &serde_json::Error) -> Unreadable {
    Unreadable(format!("not {what}: JSON trouble at line {}, column {}", error.line(), error.column()))
}
