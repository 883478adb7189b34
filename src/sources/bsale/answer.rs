//! What the API answers: pages of stock, a variant.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ask::{Ask, is_id};
use crate::time::Timestamp;
use crate::types::{Change, Fact, Item, Measure, Observation, Place, Quantity, Said, Unreadable, query_value};

/// Which number of a row is the stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Available,
    Physical,
}

impl Count {
    pub(super) const WORDS: &'static [(&'static str, Self)] =
        &[("quantityAvailable", Self::Available), ("quantity", Self::Physical)];

    const fn measure(self) -> Measure {
        match self {
            Self::Available => Measure::Available,
            Self::Physical => Measure::OnHand,
        }
    }

    const fn field(self) -> &'static str {
        match self {
            Self::Available => "quantityAvailable",
            Self::Physical => "quantity",
        }
    }
}

/// A page. `data` is what other answers of the second API version call their rows.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow, alias = "data")]
    items: Vec<Row<'a>>,
    count: Option<u64>,
    offset: Option<u64>,
    next: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    #[serde(borrow)]
    variant: Option<Variant<'a>>,
    #[serde(borrow)]
    office: Option<Office<'a>>,
    // Each is `None` when absent; a `null` is kept, since it means something else.
    #[serde(borrow, default, deserialize_with = "crate::sources::json::present")]
    quantity: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "crate::sources::json::present")]
    quantity_available: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Variant<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    href: Option<String>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow)]
    unlimited_stock: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Office<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    href: Option<String>,
}

/// A whole number's digits, bare or in quotes.
pub(super) fn id_text(raw: &RawValue) -> Option<String> {
    let text = raw.get();
    let text = if text.starts_with('"') { serde_json::from_str(text).ok()? } else { text.to_owned() };
    is_id(&text).then_some(text)
}

/// The id of a linked resource; its `href` (`.../v1/variants/351.json`) has it too.
fn linked(id: Option<&RawValue>, href: Option<&str>) -> Option<String> {
    let last = || href?.rsplit('/').next()?.strip_suffix(".json").filter(|t| is_id(t)).map(str::to_owned);
    id.and_then(id_text).or_else(last)
}

impl Variant<'_> {
    fn id(&self) -> Option<String> {
        linked(self.id, self.href.as_deref())
    }

    fn sku(&self) -> Option<Box<str>> {
        let code = self.code?.get();
        let code = if code.starts_with('"') { serde_json::from_str(code).ok()? } else { code.to_owned() };
        Some(code).filter(|c| !c.trim().is_empty()).map(Into::into)
    }

    /// Unlimited stock is not counted, whatever number stands there.
    fn unlimited(&self) -> bool {
        self.unlimited_stock.is_some_and(|flag| matches!(flag.get(), "1" | "true" | "\"1\""))
    }
}

impl Row<'_> {
    fn variant_id(&self) -> Result<String, Unreadable> {
        self.variant
            .as_ref()
            .and_then(Variant::id)
            .ok_or_else(|| Unreadable("a stock row without the id of its variant".into()))
    }

    fn office_id(&self) -> Option<String> {
        self.office.as_ref().and_then(|o| linked(o.id, o.href.as_deref()))
    }

    fn number(&self, count: Count) -> Option<&str> {
        match count {
            Count::Available => self.quantity_available,
            Count::Physical => self.quantity,
        }
        .map(RawValue::get)
    }

    fn change(&self, variant: &str, count: Count) -> Result<Change, Unreadable> {
        if self.variant.as_ref().is_some_and(Variant::unlimited) {
            return Ok(Change::Untracked);
        }
        let trouble = |what: &str| Unreadable(format!("the stock of variant {variant}: {} {what}", count.field()));
        match self.number(count) {
            None => Err(trouble("is missing")),
            Some("null") => Ok(Change::Untracked),
            Some(number) => number.parse::<Quantity>().map(Change::Absolute).map_err(|e| trouble(&format!("is {e}"))),
        }
    }
}

fn fact(item: Item, office: String, count: Count, change: Change, sent_at: Timestamp) -> Observation {
    let said = Said { version: None, at: Some(sent_at) };
    Observation::Fact(Fact { item, place: Place::At(office.into()), measure: count.measure(), change, said })
}

/// Read a page of `/v1/stocks.json` that was asked for one variant, at one office or at all.
pub(super) fn read_stocks(
    variant: &str,
    office: Option<&str>,
    count: Count,
    sent_at: Timestamp,
    body: &[u8],
) -> Result<Vec<Observation>, Unreadable> {
    let page: Page<'_> = serde_json::from_slice(body).map_err(|e| not_the_form("a page of stock", &e))?;
    if page.items.is_empty() {
        // Only the first page of an empty collection says that there is no record; a later page may have run dry.
        let nothing_at_all = page.count.unwrap_or(0) == 0 && page.offset.unwrap_or(0) == 0;
        return Ok(vec![match office {
            Some(office) if nothing_at_all => {
                let item = Item { id: variant.into(), sku: None };
                fact(item, office.to_owned(), count, Change::Absolute(Quantity::ZERO), sent_at)
            }
            _ => Observation::Irrelevant("a page of stock without rows".into()),
        }]);
    }
    page.items.iter().map(|row| read_row(row, count, sent_at)).collect()
}

fn read_row(row: &Row<'_>, count: Count, sent_at: Timestamp) -> Result<Observation, Unreadable> {
    let id = row.variant_id()?;
    let office = row.office_id().ok_or_else(|| Unreadable(format!("the stock of variant {id}: its office has no id")))?;
    let change = row.change(&id, count)?;
    let item = Item { sku: row.variant.as_ref().and_then(Variant::sku), id: id.into() };
    Ok(fact(item, office, count, change, sent_at))
}

/// Read the stock of a document's variants. Where a row does not say the number or the office, the variant is asked about.
pub(super) fn read_document(count: Count, sent_at: Timestamp, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    let page: Page<'_> = serde_json::from_slice(body).map_err(|e| not_the_form("a document's stock", &e))?;
    if page.items.is_empty() {
        return Ok(vec![Observation::Irrelevant("a document without variants".into())]);
    }
    page.items
        .iter()
        .map(|row| {
            let office = row.office_id();
            if office.is_some() && row.number(count).is_some() {
                return read_row(row, count, sent_at);
            }
            let variant = row.variant_id()?;
            let need = Ask::Stock { variant: &variant, office: office.as_deref() }.need();
            need.map(Observation::Fetch).ok_or_else(|| Unreadable("a stock row's ids are not whole numbers".into()))
        })
        .collect()
}

/// Read the SKU of a variant.
pub(super) fn read_variant(item: &str, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    let variant: Variant<'_> = serde_json::from_slice(body).map_err(|e| not_the_form("a variant", &e))?;
    if variant.id().as_deref() != Some(item) {
        return Err(Unreadable(format!("the answer for variant {item} is about another one")));
    }
    Ok(vec![match variant.sku() {
        Some(sku) => Observation::Catalogue { item: item.into(), sku },
        None => Observation::Irrelevant("the variant has no code".into()),
    }])
}

/// Where the next page starts; `None` after the last one, or when the answer does not say where it stands.
pub(super) fn next_offset(body: &[u8]) -> Option<u64> {
    let page: Page<'_> = serde_json::from_slice(body).ok()?;
    let rows = u64::try_from(page.items.len()).ok().filter(|rows| *rows > 0)?;
    match (page.count, page.offset) {
        (Some(count), Some(offset)) => offset.checked_add(rows).filter(|next| *next < count),
        // `next` is a whole URL: of it only the offset is taken, and only when it leads on
        (_, offset) => {
            let next = query_value(page.next.as_deref()?.split_once('?')?.1, "offset")?.parse().ok()?;
            (next > offset.unwrap_or(0)).then_some(next)
        }
    }
}

/// Says where, and nothing of what stands there.
fn not_the_form(what: &str, error: &serde_json::Error) -> Unreadable {
    Unreadable(format!("not {what}: JSON trouble at line {}, column {}", error.line(), error.column()))
}
