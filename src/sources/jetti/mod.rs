//! Jetti (now Onport): the inventory webhook of a custom channel.
//!
//! Facts from the vendor's pages "Custom channels - Inventory webhook" and its composable custom channel reference:
//!
//! - **Trust.** Nothing is signed. The secret path (and an address list) is all there is.
//! - **What it says.** `inventory.available` is the new number (absolute, what may be sold), about `variant`, as published to
//!   the channel of `channelVariant`.
//! - **Identity and order.** No delivery id, no time, no version; updates are sent concurrently. `channelVariant.updatedAt`
//!   is the time of the mapping row, not of the stock: taking it for a version would let every update after the first look
//!   equally old. So the identity is the content, and arrival is the order.
//! - **Deadline.** 5 seconds, better 1. Retries are not documented.
//! - **Place.** `channelVariant.channel.warehouseId`; a channel without one is the source's own warehouse.
//! - **Not tracked.** An `inventoryPolicy` other than `track`, or `available: null`, says that the number is not counted.
//!   A message without a policy is taken at its number.
//!
//! The vendor publishes no contract for reading a channel's stock back (what is known comes from other people's code), so
//! this adapter never asks an API: two arrivals in the wrong order are healed by the next update or by a stocktake.
//!
//! # Settings
//! | key | default | meaning |
//! |---|---|---|
//! | `sku` | `"externalId"` | which field of `channelVariant` is our SKU: `"externalId"` or `"externalSku"` |
//! | `channel` | any | the channel's id: a message of another channel is kept as a dead letter, not counted |

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::json;
use super::{Kind, Refusal, Source};
use crate::types::{
    Change, Fact, Identity, Item, Measure, Message, Observation, Place, Quantity, Said, Secret, Settings, Unreadable,
};

/// Jetti as a platform.
pub const KIND: Kind = Kind {
    name: "jetti",
    about: "Jetti (Onport) custom channel: absolute stock, unsigned, trusted by its secret path",
    build,
};

fn build(settings: &mut Settings) -> Box<dyn Source> {
    Box::new(Jetti {
        sku: settings.choice("sku", SKU_WORDS).unwrap_or(SkuField::ExternalId),
        channel: id_setting(settings, "channel"),
    })
}

#[derive(Debug, Clone, Copy)]
enum SkuField {
    ExternalId,
    ExternalSku,
}

const SKU_WORDS: &[(&str, SkuField)] = &[("externalId", SkuField::ExternalId), ("externalSku", SkuField::ExternalSku)];

/// An id of the platform: its digits bare, or in quotes.
fn id_setting(settings: &mut Settings, key: &str) -> Option<String> {
    match settings.value(key)? {
        Value::String(text) if !text.is_empty() => return Some(text),
        Value::Number(number) if number.is_u64() => return Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {}
    }
    settings.problem(key, "expected an id: a whole number, or a text in quotes");
    None
}

struct Jetti {
    sku: SkuField,
    channel: Option<String>,
}

impl Source for Jetti {
    fn signed(&self) -> bool {
        false
    }

    fn horizon(&self) -> Duration {
        Duration::from_secs(48 * 3600) // not documented; nothing is named, so it decides nothing
    }

    fn kept_headers(&self) -> Vec<String> {
        Vec::new()
    }

    fn authenticate(&self, _message: &Message<'_>, _secrets: &[Secret]) -> Result<usize, Refusal> {
        Ok(0)
    }

    fn identify(&self, _message: &Message<'_>) -> Identity {
        Identity::Content
    }

    fn parse(&self, message: &Message<'_>) -> Result<Vec<Observation>, Unreadable> {
        let body: Body<'_> = serde_json::from_slice(message.body).map_err(|e| not_the_form(&e))?;
        self.check_channel(&body)?;
        let fact = Fact {
            item: self.item(&body)?,
            place: place(&body)?,
            measure: Measure::Available,
            change: change(&body)?,
            said: Said::default(),
        };
        Ok(vec![Observation::Fact(fact)])
    }
}

impl Jetti {
    fn check_channel(&self, body: &Body<'_>) -> Result<(), Unreadable> {
        let Some(ours) = &self.channel else { return Ok(()) };
        let mapping = body.channel_variant.as_ref();
        let theirs = mapping.and_then(|m| m.channel_id.or(m.channel.as_ref().and_then(|c| c.id)));
        match json::text(theirs) {
            Some(theirs) if *theirs == **ours => Ok(()),
            Some(theirs) => Err(unreadable(format!("the message is of channel {theirs}; this source is channel {ours}"))),
            None => Err(unreadable("channelVariant.channelId is missing, so the channel cannot be checked")),
        }
    }

    fn item(&self, body: &Body<'_>) -> Result<Item, Unreadable> {
        let mapping = body.channel_variant.as_ref();
        let id = mapping.and_then(|m| m.variant_id).or(body.variant.as_ref().and_then(|v| v.id));
        let id = id.ok_or_else(|| unreadable("neither channelVariant.variantId nor variant.id is there"))?;
        let id = json::text(Some(id)).ok_or_else(|| unreadable("the variant's id is not an id"))?;
        let sku = mapping.and_then(|m| match self.sku {
            SkuField::ExternalId => m.external_id,
            SkuField::ExternalSku => m.external_sku,
        });
        Ok(Item { id, sku: json::text(sku) })
    }
}

fn place(body: &Body<'_>) -> Result<Place, Unreadable> {
    let channel = body.channel_variant.as_ref().and_then(|m| m.channel.as_ref());
    match channel.and_then(|c| c.warehouse_id) {
        None => Ok(Place::Default),
        Some(id) => {
            json::text(Some(id)).map(Place::At).ok_or_else(|| unreadable("channelVariant.channel.warehouseId is not an id"))
        }
    }
}

fn change(body: &Body<'_>) -> Result<Change, Unreadable> {
    let policy = body.variant.as_ref().and_then(|v| v.inventory_policy.as_deref());
    if policy.is_some_and(|p| p != "track") {
        return Ok(Change::Untracked);
    }
    let number = body.inventory.as_ref().and_then(|i| i.available);
    let number = number.ok_or_else(|| unreadable("inventory.available is missing"))?.get();
    if number == "null" {
        return Ok(Change::Untracked);
    }
    number.parse::<Quantity>().map(Change::Absolute).map_err(|e| unreadable(format!("inventory.available: {e}")))
}

// ---- the body's form ----------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    variant: Option<Variant<'a>>,
    #[serde(borrow, rename = "channelVariant")]
    channel_variant: Option<ChannelVariant<'a>>,
    #[serde(borrow)]
    inventory: Option<Inventory<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Variant<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    inventory_policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChannelVariant<'a> {
    #[serde(borrow)]
    variant_id: Option<&'a RawValue>,
    #[serde(borrow)]
    channel_id: Option<&'a RawValue>,
    #[serde(borrow)]
    external_id: Option<&'a RawValue>,
    #[serde(borrow)]
    external_sku: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<Channel<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Channel<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    warehouse_id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Inventory<'a> {
    /// `None` when absent; a `null` is kept, since it means something else.
    #[serde(borrow, default, deserialize_with = "json::present")]
    available: Option<&'a RawValue>,
}

/// Says where, and nothing of what stands there.
fn not_the_form(error: &serde_json::Error) -> Unreadable {
    unreadable(format!("not an inventory message: JSON trouble at line {}, column {}", error.line(), error.column()))
}

fn unreadable(cause: impl Into<String>) -> Unreadable {
    Unreadable(cause.into())
}

#[cfg(test)]
mod tests;
