//! Shopify: absolute numbers per location, one-second stamps, retries with the original payload, the REST API.

use std::time::Duration;

use super::super::api::{Call, Reply};
use super::super::random::Random;
use super::super::truth::{Account, Change, Good, Mapping};
use super::{
    Clock, Ground, Hook, Manners, Moment, Platform, Retry, SHARED, SHARED_GOODS, Wire, is_2xx, json_stock, naive, numbered,
    site, stream, whole,
};
use crate::time::Timestamp;
use crate::types::{Quantity, Secret};

pub(super) struct Shopify;

const MANNERS: Manners = Manners {
    deadline: Duration::from_secs(5),
    success: is_2xx,
    retry: Retry::Later(8),
    wire: Wire::KeepAlive,
    lanes: 12,
    pace: Duration::ZERO,
    named: true,
    fresh: false,
    clock: Clock::Seconds { changes: 6 },
    batch: 1,
    api: true,
    numbers: whole(true, true),
};

/// Ids beyond 2^53, as the platform's are.
const FIRST_ITEM: u64 = 271_878_346_596_884_016;
/// An item without SKU: nobody can say what it is.
pub(super) const NAMELESS_ITEM: &str = "271878346596884015";

/// The shop's clock: this many hours east of UTC.
const OFFSET_HOURS: i64 = -4;

fn updated_at(at: Timestamp) -> String {
    format!("{}-04:00", naive(at, OFFSET_HOURS))
}

/// One inventory level, as webhooks and the API write it.
fn level(item: &str, location: &str, available: Option<Quantity>, at: Timestamp) -> String {
    format!(
        "{{\"inventory_item_id\":{item},\"location_id\":{location},\"available\":{},\"updated_at\":\"{}\",\
         \"admin_graphql_api_id\":\"gid:\\/\\/shopify\\/InventoryLevel\\/87892394150?inventory_item_id={item}\"}}",
        json_stock(available),
        updated_at(at)
    )
}

impl Platform for Shopify {
    fn kind(&self) -> &'static str {
        "shopify"
    }

    fn manners(&self) -> &'static Manners {
        &MANNERS
    }

    fn account(&self, ground: Ground) -> Account {
        let mut random = stream(ground, self.kind());
        let shared = SHARED_GOODS * ground.scale;
        let mut goods = numbered(300 * ground.scale, FIRST_ITEM, "SHP", Mapping::Configured);
        let nameless = goods.len();
        goods.push(Good { id: NAMELESS_ITEM.to_owned(), sku: String::new(), mapping: Mapping::Unknown });
        let sites =
            vec![site("53716844710", "shop-north"), site("53716844711", "shop-south"), site("53716844712", SHARED.0)];
        let stocked = |place: usize, good: usize| if good == nameless { place == 0 } else { place < 2 || good < shared };
        let mut account = Account::new("shopify-eu", sites, goods, stocked, MANNERS.numbers, ground.start, &mut random);
        account.secret = Some(Secret::new(format!("shpss_{}", random.hex(32))));
        account.credentials = vec![("token", format!("shpat_{}", random.hex(32)))];
        account
    }

    fn message(&self, account: &Account, change: &Change, moment: Moment, random: &mut Random) -> Hook {
        let (good, place) = account.names(change.cell);
        Hook::json(random.uuid(), level(&good.id, &place.id, change.after, change.at))
            .with("x-shopify-shop-domain", "demo-eu.myshopify.com")
            .with("x-shopify-api-version", "2026-07")
            .with("x-shopify-event-id", random.uuid())
            .with("x-shopify-triggered-at", moment.now.to_string())
    }

    fn api(&self, account: &Account, call: &Call<'_>) -> Reply {
        if call.header("x-shopify-access-token") != account.credential("token") {
            return Reply::error(401, r#"{"errors":"[API] Invalid API key or access token"}"#);
        }
        let Some(rest) = call.path.strip_prefix("/admin/api/2026-07/") else { return not_found() };
        if rest == "inventory_levels.json" {
            return levels(account, call);
        }
        let item = rest.strip_prefix("inventory_items/").and_then(|r| r.strip_suffix(".json"));
        match item.and_then(|id| account.good(id)) {
            Some(good) => Reply::json(inventory_item(good)),
            None => not_found(),
        }
    }

    fn busy(&self) -> Reply {
        Reply::error(429, r#"{"errors":"Exceeded 2 calls per second for api client."}"#)
            .with("retry-after", "0.5")
            .with("x-shopify-shop-api-call-limit", "40/40")
    }
}

fn not_found() -> Reply {
    Reply::error(404, r#"{"errors":"Not Found"}"#)
}

fn levels(account: &Account, call: &Call<'_>) -> Reply {
    let asked = |name| call.parameter(name).map(|ids| ids.split(',').map(str::to_owned).collect::<Vec<_>>());
    let Some(items) = asked("inventory_item_ids") else {
        return Reply::error(422, r#"{"errors":"inventory_item_ids or location_ids is required"}"#);
    };
    let locations = asked("location_ids");
    let rows: Vec<String> = items
        .iter()
        .flat_map(|item| account.cells_of(item))
        .filter(|cell| locations.as_ref().is_none_or(|ids| ids.contains(&account.names(**cell).1.id)))
        .map(|cell| {
            let ((good, place), now) = (account.names(*cell), account.cell(*cell));
            level(&good.id, &place.id, now.stock, now.at)
        })
        .collect();
    Reply::json(format!("{{\"inventory_levels\":[{}]}}", rows.join(","))).with("x-shopify-shop-api-call-limit", "1/40")
}

fn inventory_item(good: &Good) -> String {
    let sku = if good.sku.is_empty() { "null".to_owned() } else { format!("\"{}\"", good.sku) };
    format!(
        "{{\"inventory_item\":{{\"id\":{0},\"sku\":{sku},\"created_at\":\"2024-01-02T03:04:05-05:00\",\
         \"requires_shipping\":true,\"cost\":null,\"tracked\":true,\
         \"admin_graphql_api_id\":\"gid:\\/\\/shopify\\/InventoryItem\\/{0}\"}}}}",
        good.id
    )
}
