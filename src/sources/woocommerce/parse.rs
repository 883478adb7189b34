//! What WooCommerce's bodies say: webhooks and answers of the API.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::json;
use crate::time::Timestamp;
use crate::types::{Change, Fact, Item, Measure, Message, Need, Observation, Place, Said, Unreadable};

pub(super) const TOPIC: &str = "x-wc-webhook-topic";
pub(super) const RESOURCE: &str = "x-wc-webhook-resource";
pub(super) const EVENT: &str = "x-wc-webhook-event";

/// The API's code for a product that does not exist (any more).
const GONE: &str = "woocommerce_rest_product_invalid_id";

/// Hooks whose first argument is, or can be, the id of a product whose stock has moved.
const STOCK_ACTIONS: &[&str] = &[
    "woocommerce_new_product",
    "woocommerce_new_product_variation",
    "woocommerce_product_set_stock",
    "woocommerce_product_set_stock_status",
    "woocommerce_update_product",
    "woocommerce_update_product_variation",
    "woocommerce_updated_product_stock",
    "woocommerce_variation_set_stock",
    "woocommerce_variation_set_stock_status",
];

/// What a need's key says: `stock/<id>` or `catalogue/<id>`; ids are digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NeedKey<'k> {
    /// The product with its stock.
    Stock(&'k str),
    /// The product's SKU.
    Catalogue(&'k str),
}

impl<'k> NeedKey<'k> {
    pub(super) fn parse(key: &'k str) -> Option<Self> {
        let (what, item) = key.split_once('/')?;
        match what {
            _ if !json::is_number_id(item) => None,
            "stock" => Some(Self::Stock(item)),
            "catalogue" => Some(Self::Catalogue(item)),
            _ => None,
        }
    }

    /// `None` when the id is not a number: it could not stand in a request.
    pub(super) fn need(self) -> Option<Need> {
        let (what, item) = match self {
            Self::Stock(item) => ("stock", item),
            Self::Catalogue(item) => ("catalogue", item),
        };
        json::is_number_id(item).then(|| Need { key: format!("{what}/{item}").into(), from: None })
    }
}

/// The fields of a product that we know, and the code of an error that comes in its place.
#[derive(Deserialize)]
struct Product<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sku: Option<&'a RawValue>,
    #[serde(borrow, default)]
    manage_stock: Option<&'a RawValue>,
    /// `None` when absent; a `null` that stands there is a value.
    #[serde(borrow, default, deserialize_with = "json::present")]
    stock_quantity: Option<&'a RawValue>,
    #[serde(borrow, default)]
    date_modified_gmt: Option<&'a RawValue>,
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
}

/// Read a webhook.
pub(super) fn message(message: &Message<'_>) -> Result<Vec<Observation>, Unreadable> {
    let Some(topic) = topic(message) else { return by_shape(message.body) };
    match topic.split_once('.') {
        Some(("product", "deleted")) => {
            let product: Product<'_> = json::object(message.body)?;
            Ok(vec![deleted(id(&product)?, None)])
        }
        Some(("product", _)) => observe(&json::object(message.body)?, None),
        Some(("action", _)) => Ok(vec![action(message.body)?]),
        _ => {
            let topic: String = topic.chars().take(60).collect();
            Ok(vec![Observation::Irrelevant(format!("topic {topic} says nothing about stock"))])
        }
    }
}

/// `product.updated`, from its own field or put together from the two that say the same.
fn topic(message: &Message<'_>) -> Option<String> {
    if let Some(topic) = message.header(TOPIC) {
        return Some(topic.to_owned());
    }
    Some(format!("{}.{}", message.header(RESOURCE)?, message.header(EVENT)?))
}

/// Without a topic only what the body proves about itself counts: a bare id may be that of a deleted order.
fn by_shape(bytes: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    let product: Product<'_> = json::object(bytes)?;
    if product.manage_stock.is_some() {
        return observe(&product, None);
    }
    if product.id.is_some() && product.date_modified_gmt.is_none() {
        return Err(Unreadable("no topic header, and a body with only an id does not say what was deleted".to_owned()));
    }
    Ok(vec![Observation::Irrelevant("no topic header, and the body is not a product".to_owned())])
}

/// A product's SKU and stock. `sent_at` stands in for a time that the product does not tell (answers of the API only).
fn observe(product: &Product<'_>, sent_at: Option<Timestamp>) -> Result<Vec<Observation>, Unreadable> {
    let item = id(product)?;
    let sku = json::text(product.sku);
    let mut found = Vec::with_capacity(2);
    if let Some(sku) = &sku {
        found.push(Observation::Catalogue { item: item.clone(), sku: sku.clone() });
    }
    let change = match product.manage_stock.map(RawValue::get) {
        Some("true") => {
            json::quantity("stock_quantity", product.stock_quantity)?.map_or(Change::Untracked, Change::Absolute)
        }
        Some("false") => Change::Untracked,
        Some("\"parent\"") => {
            found.push(Observation::Irrelevant(format!("variation {item} has the stock of its parent")));
            return Ok(found);
        }
        Some(_) => return Err(Unreadable(format!("`manage_stock` of product {item} is not true, false or \"parent\""))),
        None => return Err(Unreadable(format!("`manage_stock` of product {item} is missing"))),
    };
    let at = json::time("date_modified_gmt", product.date_modified_gmt, utc)?;
    found.push(Observation::Fact(Fact {
        item: Item { id: item, sku },
        place: Place::Default,
        measure: Measure::Available,
        change,
        said: Said { version: None, at: at.or(sent_at) },
    }));
    Ok(found)
}

/// UTC without an offset; with one, should a shop's plugin add it.
fn utc(text: &str) -> Option<Timestamp> {
    Timestamp::parse_naive(text, 0).or_else(|| Timestamp::parse_rfc3339(text))
}

/// The product's id. A webhook whose owner may not read products delivers the API's error in the product's place.
fn id(product: &Product<'_>) -> Result<Box<str>, Unreadable> {
    match (product.id, json::text(product.code)) {
        (None, Some(code)) => {
            let code: String = code.chars().take(60).collect();
            Err(Unreadable(format!(
                "the shop sent an error in place of a product: {code} (may the webhook's user read products?)"
            )))
        }
        (id, _) => json::id("id", id),
    }
}

fn deleted(item: Box<str>, at: Option<Timestamp>) -> Observation {
    Observation::Fact(Fact {
        item: Item { id: item, sku: None },
        place: Place::Everywhere,
        measure: Measure::Available,
        change: Change::Deleted,
        said: Said { version: None, at },
    })
}

fn action(bytes: &[u8]) -> Result<Observation, Unreadable> {
    #[derive(Deserialize)]
    struct Action<'a> {
        #[serde(borrow, default)]
        action: Option<&'a RawValue>,
        #[serde(borrow, default)]
        arg: Option<&'a RawValue>,
    }
    let body: Action<'_> = json::object(bytes)?;
    let hook = json::id("action", body.action)?;
    if !STOCK_ACTIONS.contains(&hook.as_ref()) {
        return Ok(Observation::Irrelevant(format!("action {hook} does not name a product whose stock moved")));
    }
    Ok(match json::text(body.arg).and_then(|item| NeedKey::Stock(&item).need()) {
        Some(need) => Observation::Fetch(need),
        None => Observation::Irrelevant(format!("action {hook} came without a product's id")),
    })
}

/// True for the API's "no such product".
pub(super) fn is_gone(bytes: &[u8]) -> bool {
    json::object::<Product<'_>>(bytes).is_ok_and(|p| p.id.is_none() && json::text(p.code).as_deref() == Some(GONE))
}

/// Read the answer to `stock/<id>`.
pub(super) fn stock(item: &str, sent_at: Timestamp, bytes: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    if is_gone(bytes) {
        return Ok(vec![deleted(item.into(), Some(sent_at))]);
    }
    observe(&asked_for(item, bytes)?, Some(sent_at))
}

/// Read the answer to `catalogue/<id>`.
pub(super) fn catalogue(item: &str, bytes: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    let product = asked_for(item, bytes)?;
    Ok(vec![match json::text(product.sku) {
        Some(sku) => Observation::Catalogue { item: item.into(), sku },
        None => Observation::Irrelevant(format!("product {item} has no SKU")),
    }])
}

fn asked_for<'a>(item: &str, bytes: &'a [u8]) -> Result<Product<'a>, Unreadable> {
    let product: Product<'a> = json::object(bytes)?;
    let told = id(&product)?;
    if *told != *item {
        return Err(Unreadable(format!("asked for product {item}, told about {told}")));
    }
    Ok(product)
}
