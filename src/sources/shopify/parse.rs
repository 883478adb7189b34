//! What Shopify's bodies say: webhooks and answers of the API.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::json;
use super::{RESOURCE_ID, TOPIC, TRIGGERED_AT, field};
use crate::time::Timestamp;
use crate::types::{Change, Fact, Item, Measure, Message, Need, Observation, Place, Said, Unreadable, query_value};

/// What a need's key says: `stock/<item>`, `stock/<item>/<location>` or `catalogue/<item>`; ids are digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NeedKey<'k> {
    /// The levels of an item, at one location or at all.
    Stock {
        /// `inventory_item_id`.
        item: &'k str,
        /// `location_id`.
        location: Option<&'k str>,
    },
    /// The inventory item itself.
    Catalogue {
        /// `inventory_item_id`.
        item: &'k str,
    },
}

impl<'k> NeedKey<'k> {
    pub(super) fn parse(key: &'k str) -> Option<Self> {
        let (what, rest) = key.split_once('/')?;
        let key = match (what, rest.split_once('/')) {
            ("catalogue", None) => Self::Catalogue { item: rest },
            ("stock", None) => Self::Stock { item: rest, location: None },
            ("stock", Some((item, location))) => Self::Stock { item, location: Some(location) },
            _ => return None,
        };
        key.is_plain().then_some(key)
    }

    /// `None` when an id is not one of Shopify's numbers: it could not stand in a request.
    pub(super) fn need(self) -> Option<Need> {
        let key = match self {
            Self::Stock { item, location: None } => format!("stock/{item}"),
            Self::Stock { item, location: Some(location) } => format!("stock/{item}/{location}"),
            Self::Catalogue { item } => format!("catalogue/{item}"),
        };
        self.is_plain().then(|| Need { key: key.into(), from: None })
    }

    fn is_plain(&self) -> bool {
        match self {
            Self::Stock { item, location } => json::is_number_id(item) && location.is_none_or(json::is_number_id),
            Self::Catalogue { item } => json::is_number_id(item),
        }
    }
}

/// The fields that we know, of every body that concerns us.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    inventory_item_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    location_id: Option<&'a RawValue>,
    /// `None` when absent; a `null` that stands there is a value.
    #[serde(borrow, default, deserialize_with = "json::present")]
    available: Option<&'a RawValue>,
    #[serde(borrow, default)]
    updated_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sku: Option<&'a RawValue>,
    #[serde(borrow, default)]
    admin_graphql_api_id: Option<&'a RawValue>,
}

/// Read a webhook.
pub(super) fn message(message: &Message<'_>) -> Result<Vec<Observation>, Unreadable> {
    match field(message, TOPIC) {
        Some("inventory_levels/update" | "inventory_levels/connect") => {
            let body: Body<'_> = json::object(message.body)?;
            Ok(vec![level(&body)?])
        }
        Some("inventory_levels/disconnect") => {
            let body: Body<'_> = json::object(message.body)?;
            Ok(vec![disconnected(&body, triggered_at(message))?])
        }
        Some("inventory_items/create" | "inventory_items/update") => {
            let body: Body<'_> = json::object(message.body)?;
            Ok(vec![catalogue(&body)?])
        }
        Some("inventory_items/delete") => {
            let body: Body<'_> = json::object(message.body)?;
            Ok(vec![deleted(json::id("id", body.id)?, Place::Everywhere, triggered_at(message))])
        }
        Some("InventoryLevel") => Ok(vec![event(message.header(RESOURCE_ID))]),
        Some(topic) => {
            let topic: String = topic.chars().take(60).collect();
            Ok(vec![Observation::Irrelevant(format!("topic {topic} says nothing about a stock level"))])
        }
        None => by_shape(message.body, triggered_at(message)),
    }
}

/// When the delivery was triggered, in whole seconds like `updated_at`, so that the two compare. The header is not signed: a
/// time that has not come yet is not believed.
fn triggered_at(message: &Message<'_>) -> Option<Timestamp> {
    let at = Timestamp::parse_rfc3339(field(message, TRIGGERED_AT)?)?;
    (at <= message.received_at).then(|| Timestamp::from_seconds(at.seconds()))
}

/// Without a topic only what the body proves about itself counts.
fn by_shape(bytes: &[u8], triggered_at: Option<Timestamp>) -> Result<Vec<Observation>, Unreadable> {
    let body: Body<'_> = json::object(bytes)?;
    if body.inventory_item_id.is_some() && body.location_id.is_some() {
        let is_level = body.available.is_some() || body.updated_at.is_some();
        return Ok(vec![if is_level { level(&body)? } else { disconnected(&body, triggered_at)? }]);
    }
    let gid = json::text(body.admin_graphql_api_id);
    if gid.as_deref().is_some_and(|gid| gid.starts_with("gid://shopify/InventoryItem/")) {
        return Ok(vec![catalogue(&body)?]);
    }
    if body.id.is_some() && gid.is_none() {
        return Err(Unreadable("no topic header, and a body with only an id does not say what was deleted".to_owned()));
    }
    Ok(vec![Observation::Irrelevant("no topic header, and the body is not about a stock level".to_owned())])
}

/// An inventory level. A `connect` may leave the number out: then the shop is asked.
fn level(body: &Body<'_>) -> Result<Observation, Unreadable> {
    let item = json::id("inventory_item_id", body.inventory_item_id)?;
    let location = json::id("location_id", body.location_id)?;
    if body.available.is_none() {
        let need = NeedKey::Stock { item: &item, location: Some(&location) }.need();
        return need.map(Observation::Fetch).ok_or_else(|| Unreadable("`available` is missing".to_owned()));
    }
    let change = json::quantity("available", body.available)?.map_or(Change::Untracked, Change::Absolute);
    let at = json::time("updated_at", body.updated_at, Timestamp::parse_rfc3339)?;
    Ok(Observation::Fact(Fact {
        item: Item { id: item, sku: None },
        place: Place::At(location),
        measure: Measure::Available,
        change,
        said: Said { version: None, at },
    }))
}

/// The end of a level. The signed body outranks the unsigned topic: one that still counts something is no disconnect.
fn disconnected(body: &Body<'_>, triggered_at: Option<Timestamp>) -> Result<Observation, Unreadable> {
    let item = json::id("inventory_item_id", body.inventory_item_id)?;
    let location = json::id("location_id", body.location_id)?;
    if body.available.is_some_and(|raw| raw.get() != "null") {
        return Err(Unreadable("the topic says disconnect, but the body says how much is available".to_owned()));
    }
    let at = json::time("updated_at", body.updated_at, Timestamp::parse_rfc3339)?;
    Ok(deleted(item, Place::At(location), at.or(triggered_at)))
}

fn deleted(item: Box<str>, place: Place, at: Option<Timestamp>) -> Observation {
    Observation::Fact(Fact {
        item: Item { id: item, sku: None },
        place,
        measure: Measure::Available,
        change: Change::Deleted,
        said: Said { version: None, at },
    })
}

fn catalogue(body: &Body<'_>) -> Result<Observation, Unreadable> {
    let item = json::id("id", body.id)?;
    Ok(match json::text(body.sku) {
        Some(sku) => Observation::Catalogue { item, sku },
        None => Observation::Irrelevant(format!("inventory item {item} has no SKU")),
    })
}

/// An Event names its resource in a header: `gid://shopify/InventoryLevel/878?inventory_item_id=271`. Only the item's number is
/// taken from it, and it is asked for at all locations (the level's own number is not a location's).
fn event(resource: Option<&str>) -> Observation {
    let item = resource
        .and_then(|gid| gid.strip_prefix("gid://shopify/InventoryLevel/"))
        .and_then(|rest| rest.split_once('?'))
        .and_then(|(_, query)| query_value(query, "inventory_item_id"));
    match item.and_then(|item| NeedKey::Stock { item: &item, location: None }.need()) {
        Some(need) => Observation::Fetch(need),
        None => Observation::Irrelevant("an Event whose resource id names no inventory item".to_owned()),
    }
}

/// Read `inventory_levels.json`.
pub(super) fn levels(
    item: &str,
    location: Option<&str>,
    sent_at: Timestamp,
    bytes: &[u8],
) -> Result<Vec<Observation>, Unreadable> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        inventory_levels: Vec<Body<'a>>,
    }
    let answer: Answer<'_> = json::object(bytes)?;
    let mut found = Vec::with_capacity(answer.inventory_levels.len());
    for row in &answer.inventory_levels {
        if row.available.is_none() {
            return Err(Unreadable("`available` is missing in a row of inventory_levels".to_owned()));
        }
        let Observation::Fact(mut fact) = level(row)? else { continue };
        let here = location.is_none_or(|wanted| fact.place == Place::At(wanted.into()));
        if here && *fact.item.id == *item {
            fact.said.at = fact.said.at.or(Some(sent_at));
            found.push(Observation::Fact(fact));
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    if !answer.inventory_levels.is_empty() {
        return Err(Unreadable(format!("asked for the levels of inventory item {item}, told about others")));
    }
    // A page after the first may be empty, and `read` cannot see which one this is: only a question about one place, which
    // has one page, proves that there is no level.
    Ok(vec![match location {
        Some(location) => deleted(item.into(), Place::At(location.into()), Some(sent_at)),
        None => Observation::Irrelevant(format!("no location on this page stocks inventory item {item}")),
    }])
}

/// Read `inventory_items/{id}.json`.
pub(super) fn inventory_item(item: &str, bytes: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        inventory_item: Body<'a>,
    }
    let answer: Answer<'_> = json::object(bytes)?;
    let told = json::id("id", answer.inventory_item.id)?;
    if *told != *item {
        return Err(Unreadable(format!("asked for inventory item {item}, told about {told}")));
    }
    Ok(vec![catalogue(&answer.inventory_item)?])
}
