//! WooCommerce: one shop, one place; the whole product, one attempt, a delivery id that collides within a second.

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};

use super::super::api::{Call, Reply};
use super::super::random::Random;
use super::super::truth::{Account, Cell, Change, Good, Mapping};
use super::{
    Clock, Ground, Hook, Manners, Moment, Platform, Retry, Wire, json_stock, naive, numbered, secret, site, stream, whole,
};
use crate::time::Timestamp;
use crate::types::Quantity;

pub(super) struct WooCommerce;

const MANNERS: Manners = Manners {
    deadline: Duration::from_secs(60),
    // 301 and 302 too: this sender does not follow redirects and takes them for success
    success: |status| (200..=302).contains(&status),
    retry: Retry::Never,
    wire: Wire::Close,
    lanes: 2,
    pace: Duration::from_millis(15),
    named: false,
    fresh: true,
    clock: Clock::Seconds { changes: 12 },
    batch: 1,
    api: true,
    numbers: whole(true, true),
};

const WEBHOOK_ID: u32 = 17;

/// The product, cut down to what it says about stock and to a few of the fields around that.
fn product(good: &Good, stock: Option<Quantity>, at: Timestamp) -> String {
    let status = if stock.is_none_or(|q| q > Quantity::ZERO) { "instock" } else { "onbackorder" };
    format!(
        "{{\"id\":{id},\"name\":\"Product {id}\",\"permalink\":\"https:\\/\\/woo.example\\/product\\/{id}\\/\",\
         \"date_modified\":\"{local}\",\"date_modified_gmt\":\"{gmt}\",\"type\":\"simple\",\"status\":\"publish\",\
         \"sku\":\"{sku}\",\"price\":\"19.90\",\"manage_stock\":{manage},\"stock_quantity\":{quantity},\
         \"backorders\":\"notify\",\"stock_status\":\"{status}\",\"parent_id\":0}}",
        id = good.id,
        sku = good.sku,
        local = naive(at, 1),
        gmt = naive(at, 0),
        manage = stock.is_some(),
        quantity = json_stock(stock),
    )
}

impl Platform for WooCommerce {
    fn kind(&self) -> &'static str {
        "woocommerce"
    }

    fn manners(&self) -> &'static Manners {
        &MANNERS
    }

    fn account(&self, ground: Ground) -> Account {
        let mut random = stream(ground, self.kind());
        let goods = numbered(300 * ground.scale, 700, "WOO", Mapping::InMessage);
        let sites = vec![site("", "webshop")];
        let mut account = Account::new("woo-shop", sites, goods, |_, _| true, MANNERS.numbers, ground.start, &mut random);
        account.secret = Some(secret(&mut random, 50));
        account.credentials =
            vec![("consumer_key", format!("ck_{}", random.hex(40))), ("consumer_secret", format!("cs_{}", random.hex(40)))];
        account
    }

    fn message(&self, account: &Account, change: &Change, _moment: Moment, _random: &mut Random) -> Hook {
        let (good, _) = account.names(change.cell);
        Hook::json(String::new(), product(good, change.after, change.at))
            .with("x-wc-webhook-source", "https://woo.example/")
            .with("x-wc-webhook-id", WEBHOOK_ID.to_string())
    }

    fn greeting(&self) -> Option<Hook> {
        Some(Hook {
            method: http::Method::POST,
            id: String::new(),
            headers: vec![("content-type", "application/x-www-form-urlencoded".to_owned())],
            body: format!("webhook_id={WEBHOOK_ID}").into(),
        })
    }

    /// A hash of the webhook and the second: every delivery of one second has the same.
    fn attempt_headers(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let seed = format!("{WEBHOOK_ID}{}", now.seconds());
        let digest = ring::digest::digest(&ring::digest::SHA256, seed.as_bytes());
        let id: String = HEXLOWER.encode(digest.as_ref()).chars().take(32).collect();
        vec![("x-wc-webhook-delivery-id", id)]
    }

    fn api(&self, account: &Account, call: &Call<'_>) -> Reply {
        let pair = format!("{}:{}", account.credential("consumer_key"), account.credential("consumer_secret"));
        if call.header("authorization") != format!("Basic {}", BASE64.encode(pair.as_bytes())) {
            return Reply::error(
                401,
                r#"{"code":"woocommerce_rest_cannot_view","message":"Sorry, you cannot view this resource.","data":{"status":401}}"#,
            );
        }
        let id = call.path.strip_prefix("/wp-json/wc/v3/products/").unwrap_or_default();
        match account.cells_of(id) {
            [cell, ..] => {
                let Cell { stock, at, .. } = account.cell(*cell);
                Reply::json(product(account.names(*cell).0, stock, at))
            }
            [] => Reply::error(
                404,
                r#"{"code":"woocommerce_rest_product_invalid_id","message":"Invalid ID.","data":{"status":404}}"#,
            ),
        }
    }

    fn busy(&self) -> Reply {
        // what a host in front of the shop answers
        Reply::error(429, "<html><body>429 Too Many Requests</body></html>").with("retry-after", "1")
    }
}
