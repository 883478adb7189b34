//! A warehouse system that speaks Standard Webhooks: signed id and timestamp, exact fractions, fine stamps, HTTP/2.

use std::time::Duration;

use data_encoding::BASE64;

use super::super::random::Random;
use super::super::truth::{Account, Change, Good, Mapping, Numbers};
use super::{
    Clock, Ground, Hook, Manners, Moment, Platform, Retry, SHARED, SHARED_GOODS, Wire, is_2xx, json_stock, site, stream,
};
use crate::time::Timestamp;
use crate::types::Secret;

pub(super) struct StandardWebhooks;

const MANNERS: Manners = Manners {
    deadline: Duration::from_secs(15),
    success: is_2xx,
    retry: Retry::Later(8),
    wire: Wire::Http2,
    lanes: 12,
    pace: Duration::ZERO,
    named: true,
    fresh: false,
    clock: Clock::Micros,
    batch: 1,
    api: false,
    numbers: Numbers { negative: true, grain: 10, untracked: true },
};

impl Platform for StandardWebhooks {
    fn kind(&self) -> &'static str {
        "standard-webhooks"
    }

    fn manners(&self) -> &'static Manners {
        &MANNERS
    }

    fn account(&self, ground: Ground) -> Account {
        let mut random = stream(ground, self.kind());
        let shared = SHARED_GOODS * ground.scale;
        // The shared warehouse holds Shopify's SKUs; this system's own goods come after them.
        let goods = (0..shared + 500 * ground.scale)
            .map(|n| Good {
                id: format!("prod_{n:06}"),
                sku: if n < shared { format!("SHP-{:05}", n + 1) } else { format!("SVX-{:05}", n + 1 - shared) },
                mapping: Mapping::InMessage,
            })
            .collect();
        let sites = vec![site("wh_main", "wms"), site("wh_hub", SHARED.0)];
        let stocked = |place: usize, good: usize| (place == 1) == (good < shared);
        let mut account = Account::new("svix-wms", sites, goods, stocked, MANNERS.numbers, ground.start, &mut random);
        let key: Vec<u8> = (0..4).flat_map(|_| random.draw().to_be_bytes()).collect();
        account.secret = Some(Secret::new(format!("whsec_{}", BASE64.encode(&key))));
        account
    }

    fn message(&self, account: &Account, change: &Change, _moment: Moment, random: &mut Random) -> Hook {
        let (good, place) = account.names(change.cell);
        let body = format!(
            "{{\"type\":\"stock.updated\",\"timestamp\":\"{}\",\"data\":{{\"item\":\"{}\",\"sku\":\"{}\",\"location\":\"{}\",\
             \"quantity\":{}}}}}",
            micros(change.at),
            good.id,
            good.sku,
            place.id,
            json_stock(change.after)
        );
        Hook::json(format!("msg_{}", random.hex(27)), body)
    }
}

/// RFC 3339 with microseconds.
fn micros(at: Timestamp) -> String {
    format!("{}.{:06}Z", naive_utc(at), at.0.rem_euclid(1_000_000))
}

fn naive_utc(at: Timestamp) -> String {
    super::naive(at, 0)
}
