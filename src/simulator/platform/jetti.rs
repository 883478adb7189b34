//! Jetti: absolute numbers without id, time or signature; what arrives last is what counts.

use std::time::Duration;

use super::super::random::Random;
use super::super::truth::{Account, Change, Mapping};
use super::{
    Clock, Ground, Hook, Manners, Moment, Platform, Retry, Wire, is_2xx, json_stock, numbered, site, stream, whole,
};

pub(super) struct Jetti;

const MANNERS: Manners = Manners {
    deadline: Duration::from_secs(5),
    success: is_2xx,
    retry: Retry::Never,
    wire: Wire::KeepAlive,
    lanes: 8,
    pace: Duration::ZERO,
    named: false,
    fresh: false,
    clock: Clock::Silent,
    batch: 1,
    api: false,
    numbers: whole(false, false),
};

impl Platform for Jetti {
    fn kind(&self) -> &'static str {
        "jetti"
    }

    fn manners(&self) -> &'static Manners {
        &MANNERS
    }

    fn account(&self, ground: Ground) -> Account {
        let mut random = stream(ground, self.kind());
        let goods = numbered(600 * ground.scale, 10, "JET", Mapping::InMessage);
        let sites = vec![site("11", "channel")];
        let mut account = Account::new("jetti", sites, goods, |_, _| true, MANNERS.numbers, ground.start, &mut random);
        account.token = Some(random.hex(32));
        account
    }

    fn message(&self, account: &Account, change: &Change, _moment: Moment, _random: &mut Random) -> Hook {
        let (good, place) = account.names(change.cell);
        // The mapping row's times never move: they are not the stock's.
        let body = format!(
            "{{\"variant\":{{\"id\":{id},\"inventoryPolicy\":\"track\"}},\"channelVariant\":{{\"id\":9{id},\"companyId\":11,\
             \"variantId\":{id},\"channelId\":21,\"externalId\":\"{sku}\",\"externalGroupId\":null,\"externalSku\":null,\
             \"source\":\"shopify\",\"hash\":null,\"status\":\"synced\",\"createdAt\":\"2019-12-16T21:45:12.828Z\",\
             \"updatedAt\":\"2019-12-16T21:45:12.828Z\",\"channel\":{{\"id\":21,\"includeBackorderQuantity\":true,\
             \"inventorySync\":\"all\",\"parentChannel\":\"custom\",\"unpublishNoInventory\":false,\"warehouseId\":{place},\
             \"warehouseSync\":\"default\"}}}},\"inventory\":{{\"available\":{stock}}}}}",
            id = good.id,
            sku = good.sku,
            place = place.id,
            stock = json_stock(change.after),
        );
        Hook::json(String::new(), body)
    }
}
