//! Shippingbo: one number an account, negative when oversold, one-second stamps, no ids.

use std::time::Duration;

use super::super::api::{Call, Reply};
use super::super::random::Random;
use super::super::truth::{Account, Change, Good, Mapping};
use super::{
    Clock, Ground, Hook, Manners, Moment, Platform, Retry, Wire, json_stock, naive, numbered, secret, site, stream, whole,
};
use crate::time::Timestamp;
use crate::types::Quantity;

pub(super) struct Shippingbo;

const MANNERS: Manners = Manners {
    deadline: Duration::from_secs(10),
    success: |status| status == 200,
    retry: Retry::Never,
    wire: Wire::KeepAlive,
    lanes: 8,
    pace: Duration::ZERO,
    named: false,
    fresh: false,
    clock: Clock::Seconds { changes: 6 },
    batch: 1,
    api: true,
    numbers: whole(true, false),
};

/// Promised to customers and still on the shelf.
const RESERVED: Quantity = Quantity::from_micros(3_000_000);

fn product(good: &Good, stock: Option<Quantity>, at: Timestamp) -> String {
    let physical = stock.and_then(|q| q.checked_add(RESERVED));
    format!(
        "{{\"id\":{},\"created_at\":\"2022-01-03T09:00:00+00:00\",\"updated_at\":\"{}+00:00\",\"user_ref\":\"{}\",\
         \"ean13\":null,\"stock\":{},\"total_physical_stock\":{}}}",
        good.id,
        naive(at, 0),
        good.sku,
        json_stock(stock),
        json_stock(physical)
    )
}

impl Platform for Shippingbo {
    fn kind(&self) -> &'static str {
        "shippingbo"
    }

    fn manners(&self) -> &'static Manners {
        &MANNERS
    }

    fn account(&self, ground: Ground) -> Account {
        let mut random = stream(ground, self.kind());
        let goods = numbered(600 * ground.scale, 922_957_134, "SBO", Mapping::InMessage);
        let sites = vec![site("", "parcels")];
        let mut account = Account::new("shippingbo", sites, goods, |_, _| true, MANNERS.numbers, ground.start, &mut random);
        account.secret = Some(secret(&mut random, 40));
        account.credentials = vec![("token", random.hex(40)), ("app_id", "321".to_owned())];
        account
    }

    fn message(&self, account: &Account, change: &Change, _moment: Moment, _random: &mut Random) -> Hook {
        let (good, _) = account.names(change.cell);
        // In the vendor's sample, too, `to` is not the new stock.
        let shelf = change.after.and_then(|q| q.checked_add(RESERVED));
        let body = format!(
            "{{\"object_class\":\"Product\",\"object\":{},\"additional_data\":{{\"field\":\"stock\",\"from\":{},\"to\":{}}},\
             \"hook_info\":{{}}}}",
            product(good, change.after, change.at),
            json_stock(change.before),
            json_stock(shelf)
        );
        Hook::json(String::new(), body)
    }

    fn greeting(&self) -> Option<Hook> {
        Some(Hook { method: http::Method::GET, id: String::new(), headers: Vec::new(), body: bytes::Bytes::new() })
    }

    fn api(&self, account: &Account, call: &Call<'_>) -> Reply {
        let expected = format!("Bearer {}", account.credential("token"));
        let known = call.header("authorization") == expected && call.header("x-api-app-id") == account.credential("app_id");
        if !known || call.header("x-api-version") != "1" {
            return Reply::error(401, r#"{"error":"unauthorized"}"#);
        }
        let id = call.path.strip_prefix("/products/").unwrap_or_default();
        match account.cells_of(id) {
            [cell, ..] => {
                let now = account.cell(*cell);
                Reply::json(format!("{{\"product\":{}}}", product(account.names(*cell).0, now.stock, now.at)))
            }
            [] => Reply::error(404, r#"{"error":"not found"}"#),
        }
    }

    /// No `Retry-After`, and not JSON.
    fn busy(&self) -> Reply {
        Reply::error(429, "Retry Later\n")
    }
}
