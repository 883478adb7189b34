//! What Shippingbo's bodies say: webhooks and answers of the API.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::json;
use crate::time::Timestamp;
use crate::types::{Change, Fact, Identity, Item, Measure, Need, Observation, Place, Said, Unreadable};

const PRODUCT: &str = "Product";
const SLOT_CONTENT: &str = "SlotContent";
const VARIATION: &str = "ProductStockVariation";

/// Which number of a product is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// `stock`: what may be sold.
    Stock,
    /// `total_physical_stock`: what is on the shelf.
    TotalPhysicalStock,
}

impl Count {
    fn field(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::TotalPhysicalStock => "total_physical_stock",
        }
    }
}

/// What the settings decide about reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// Which number of a product.
    pub(super) count: Count,
    /// SlotContent counts, Product does not.
    pub(super) slots: bool,
    /// ProductStockVariation counts; never together with `slots`.
    pub(super) variations: bool,
}

impl Rules {
    /// The one measure that the source reports: slots hold what is there, promised or not.
    fn measure(self) -> Measure {
        match self.count {
            Count::Stock if !self.slots => Measure::Available,
            Count::Stock | Count::TotalPhysicalStock => Measure::OnHand,
        }
    }
}

/// The envelope of every hook.
#[derive(Deserialize)]
struct Hook<'a> {
    #[serde(borrow, default)]
    object_class: Option<&'a RawValue>,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    additional_data: Option<&'a RawValue>,
}

impl Hook<'_> {
    fn class(&self) -> Result<Box<str>, Unreadable> {
        json::id("object_class", self.object_class)
    }

    /// `additional_data.deleted` is true. Other shapes of `additional_data` are not documented and delete nothing.
    fn is_deletion(&self) -> bool {
        #[derive(Deserialize)]
        struct Data<'a> {
            #[serde(borrow, default)]
            deleted: Option<&'a RawValue>,
        }
        let data = json::member::<Data<'_>>("additional_data", self.additional_data);
        data.is_ok_and(|d| d.deleted.is_some_and(|raw| raw.get() == "true"))
    }
}

/// The fields that we know, of every object that concerns us.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    user_ref: Option<&'a RawValue>,
    #[serde(borrow, default)]
    product_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    product_user_ref: Option<&'a RawValue>,
    #[serde(borrow, default)]
    warehouse_slot_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    stock: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    total_physical_stock: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    quantity: Option<&'a RawValue>,
    #[serde(borrow, default)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    updated_at: Option<&'a RawValue>,
}

impl Object<'_> {
    fn updated_at(&self) -> Result<Said, Unreadable> {
        said("updated_at", self.updated_at)
    }
}

fn said(name: &str, value: Option<&RawValue>) -> Result<Said, Unreadable> {
    Ok(Said { version: None, at: json::time(name, value, Timestamp::parse_rfc3339)? })
}

/// Which delivery a body is. Only a counted movement names itself.
pub(super) fn identity(rules: Rules, body: &[u8]) -> Identity {
    if rules.variations { movement(body).unwrap_or(Identity::Content) } else { Identity::Content }
}

/// The id of a new movement, first because people are shown it, and its class. `None` for every other body.
fn movement(body: &[u8]) -> Option<Identity> {
    let hook: Hook<'_> = json::object(body).ok()?;
    if *hook.class().ok()? != *VARIATION || hook.is_deletion() {
        return None;
    }
    let object: Object<'_> = json::member("object", hook.object).ok()?;
    let id = json::id("id", object.id).ok()?;
    Some(Identity::Named(vec![id.as_bytes().to_vec(), VARIATION.as_bytes().to_vec()]))
}

/// Read a webhook.
pub(super) fn message(rules: Rules, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    let hook: Hook<'_> = json::object(body)?;
    let class = hook.class()?;
    let deletion = hook.is_deletion();
    let irrelevant = |why: &str| Ok(vec![Observation::Irrelevant(why.to_owned())]);
    match class.as_ref() {
        PRODUCT => product(rules, &json::member("object", hook.object)?, deletion),
        SLOT_CONTENT if rules.slots => slot(rules, &json::member("object", hook.object)?, deletion),
        SLOT_CONTENT => irrelevant("a slot is not a warehouse (the setting `slots` would count it)"),
        VARIATION if rules.variations => variation(rules, &json::member("object", hook.object)?, deletion),
        VARIATION => irrelevant("a movement that the product's own number contains (see the setting `variations`)"),
        other => {
            let other: String = other.chars().take(60).collect();
            irrelevant(&format!("class {other} says nothing about stock"))
        }
    }
}

/// The account's number of a product.
fn product(rules: Rules, object: &Object<'_>, deletion: bool) -> Result<Vec<Observation>, Unreadable> {
    let item = Item { id: json::id("id", object.id)?, sku: json::text(object.user_ref) };
    let measure = rules.measure();
    if deletion {
        let fact = Fact { item, place: Place::Everywhere, measure, change: Change::Deleted, said: Said::default() };
        return Ok(vec![Observation::Fact(fact)]);
    }
    let mut found = Vec::with_capacity(2);
    // Movements name the product by its id only.
    if let (true, Some(sku)) = (rules.variations || rules.slots, &item.sku) {
        found.push(Observation::Catalogue { item: item.id.clone(), sku: sku.clone() });
    }
    if rules.slots {
        found.push(Observation::Irrelevant("the account's number contains what is counted by slot".to_owned()));
        return Ok(found);
    }
    let value = match rules.count {
        Count::Stock => object.stock,
        Count::TotalPhysicalStock => object.total_physical_stock,
    };
    let change = json::quantity(rules.count.field(), value)?.map_or(Change::Untracked, Change::Absolute);
    found.push(Observation::Fact(Fact { item, place: Place::Default, measure, change, said: object.updated_at()? }));
    Ok(found)
}

/// What lies in one slot.
fn slot(rules: Rules, object: &Object<'_>, deletion: bool) -> Result<Vec<Observation>, Unreadable> {
    let item = Item { id: json::id("product_id", object.product_id)?, sku: json::text(object.product_user_ref) };
    let place = Place::At(json::id("warehouse_slot_id", object.warehouse_slot_id)?);
    let change = if deletion {
        Change::Deleted
    } else {
        json::quantity("stock", object.stock)?.map_or(Change::Untracked, Change::Absolute)
    };
    let (measure, said) = (rules.measure(), object.updated_at()?);
    Ok(vec![Observation::Fact(Fact { item, place, measure, change, said })])
}

/// One movement. What the deletion of its record does to the stock is not documented: the product is asked for.
fn variation(rules: Rules, object: &Object<'_>, deletion: bool) -> Result<Vec<Observation>, Unreadable> {
    let id = json::id("product_id", object.product_id)?;
    if deletion {
        let need = need(&id).ok_or_else(|| Unreadable(format!("`product_id` is {id}, not a number")))?;
        return Ok(vec![Observation::Fetch(need)]);
    }
    let moved = json::quantity("quantity", object.quantity)?.ok_or_else(|| Unreadable("`quantity` is null".to_owned()))?;
    Ok(vec![Observation::Fact(Fact {
        item: Item { id, sku: json::text(object.product_user_ref) },
        place: Place::Default,
        measure: rules.measure(),
        change: Change::Delta(moved),
        said: said("created_at", object.created_at)?,
    })])
}

/// The need `stock/<id>`; `None` when the id is not a number: it could not stand in a request.
pub(super) fn need(item: &str) -> Option<Need> {
    json::is_number_id(item).then(|| Need { key: format!("stock/{item}").into(), from: None })
}

/// The id in `stock/<id>`.
pub(super) fn need_item(key: &str) -> Option<&str> {
    key.strip_prefix("stock/").filter(|item| json::is_number_id(item))
}

/// Read `/products/{id}`: bare or, as other routes have it, wrapped in `product`.
pub(super) fn product_answer(
    rules: Rules,
    item: &str,
    sent_at: Timestamp,
    bytes: &[u8],
) -> Result<Vec<Observation>, Unreadable> {
    #[derive(Deserialize)]
    struct Wrapped<'a> {
        #[serde(borrow, default)]
        product: Option<&'a RawValue>,
    }
    let wrapped: Wrapped<'_> = json::object(bytes)?;
    let object: Object<'_> = match wrapped.product {
        Some(product) => json::member("product", Some(product))?,
        None => json::object(bytes)?,
    };
    let told = json::id("id", object.id)?;
    if *told != *item {
        return Err(Unreadable(format!("asked for product {item}, told about {told}")));
    }
    let mut found = product(rules, &object, false)?;
    for observation in &mut found {
        if let Observation::Fact(fact) = observation {
            fact.said.at = fact.said.at.or(Some(sent_at));
        }
    }
    Ok(found)
}
