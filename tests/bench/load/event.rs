//! The events of the load: number `k` always gives the same delivery, so nothing is stored and any range can be made.
//!
//! Each is a Shopify `inventory_levels/update` about one of 100,000 items at one of 8 locations, chosen evenly (the worst case
//! for every cache: real shops sell few things often), with an id of its own. One in [`DUPLICATE_EVERY`] is an earlier one
//! again, as a retry is: same id, same body. Every request has the same length, so that a file of them needs no index.

use data_encoding::{BASE64, HEXLOWER};
use ring::hmac;

/// Items, as many as an `items_file` may hold.
pub(crate) const ITEMS: u64 = 100_000;
/// Locations, each mapped to a warehouse of its own.
pub(crate) const LOCATIONS: u64 = 8;
/// One event in so many repeats an earlier one: 2 %.
pub(crate) const DUPLICATE_EVERY: u64 = 50;
/// Requests in a file are taken in so many interleaved parts at most; fewer than [`DUPLICATE_EVERY`].
pub(crate) const PARTS_MAX: u64 = 16;

/// Ids beyond 2^53 with 18 digits, as the platform's are.
const FIRST_ITEM: u64 = 271_878_346_596_884_016;
const FIRST_LOCATION: u64 = 53_716_844_710;
/// A repeat comes so many events of its own part later, at least and at most: about one second and a half at 20,000 a second.
const REPEAT_AFTER: std::ops::Range<u64> = 1_000..16_000;
/// `updated_at` moves on by a second each so many events, so that a later event about a place is a newer one.
const EVENTS_A_SECOND: u64 = 1_000;
/// Days from `updated_at`'s first date; enough for 2.4 billion events.
const DAYS_MAX: u64 = 28;

/// A well mixed number for each number (Steele, Lea and Flood 2014, "SplitMix64").
fn mix(k: u64) -> u64 {
    let z = k.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The platform's id of an item.
pub(crate) fn item(index: u64) -> u64 {
    FIRST_ITEM + index
}

/// The platform's id of a location.
pub(crate) fn location(index: u64) -> u64 {
    FIRST_LOCATION + index
}

/// Signs and writes requests; `parts` streams send them side by side, each every `parts`th.
pub(crate) struct Events {
    key: hmac::Key,
    host: String,
    first: u64,
    parts: u64,
}

impl Events {
    /// Events from number `first` on. A repeat never reaches back before it, nor into another part.
    pub(crate) fn new(secret: &[u8], host: &str, first: u64, parts: u64) -> Self {
        assert!((1..=PARTS_MAX).contains(&parts), "at most {PARTS_MAX} parts");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), host: host.to_owned(), first, parts }
    }

    /// The number of the event that number `k` sends: itself, or one that its part has sent before.
    fn original(&self, k: u64) -> u64 {
        if k % DUPLICATE_EVERY != DUPLICATE_EVERY - 1 {
            return k;
        }
        let steps = REPEAT_AFTER.start + mix(!k) % (REPEAT_AFTER.end - REPEAT_AFTER.start);
        let back = steps * self.parts;
        // what is repeated is no repeat itself
        let back = if back.is_multiple_of(DUPLICATE_EVERY) { back + self.parts } else { back };
        match k.checked_sub(back) {
            Some(original) if original >= self.first => original,
            _ => k,
        }
    }

    /// Write request `k` into `out`, which is emptied first.
    pub(crate) fn write(&self, k: u64, out: &mut Vec<u8>) {
        let k = self.original(k);
        let body = body(k);
        let tag = BASE64.encode(hmac::sign(&self.key, body.as_bytes()).as_ref());
        let (id, event) = (uuid(k, 0), uuid(k, 2));
        out.clear();
        let (host, length, at) = (&self.host, body.len(), moment(k));
        let request = format!(
            "POST /in/shop HTTP/1.1\r\n\
             Host: {host}\r\n\
             User-Agent: Shopify-Captain-Hook\r\n\
             Content-Length: {length}\r\n\
             Accept: */*\r\n\
             Accept-Encoding: gzip;q=1.0,deflate;q=0.6,identity;q=0.3\r\n\
             Content-Type: application/json\r\n\
             X-Shopify-Api-Version: 2026-07\r\n\
             X-Shopify-Event-Id: {event}\r\n\
             X-Shopify-Hmac-Sha256: {tag}\r\n\
             X-Shopify-Shop-Domain: bench-store.myshopify.com\r\n\
             X-Shopify-Topic: inventory_levels/update\r\n\
             X-Shopify-Triggered-At: {at}.384192837Z\r\n\
             X-Shopify-Webhook-Id: {id}\r\n\
             \r\n\
             {body}"
        );
        out.extend_from_slice(request.as_bytes());
    }
}

/// The body that Shopify sends; 230 bytes, whatever `k`.
fn body(k: u64) -> String {
    let cell = mix(k) % (ITEMS * LOCATIONS);
    let (item, location) = (item(cell / LOCATIONS), location(cell % LOCATIONS));
    let (available, at) = (1_000 + mix(k ^ 0x5555) % 9_000, moment(k));
    format!(
        "{{\"inventory_item_id\":{item},\"location_id\":{location},\"available\":{available},\"updated_at\":\"{at}+00:00\",\
         \"admin_graphql_api_id\":\"gid:\\/\\/shopify\\/InventoryLevel\\/8789239415?inventory_item_id={item}\"}}"
    )
}

/// `2026-01-..T..` without a zone.
fn moment(k: u64) -> String {
    let seconds = k / EVENTS_A_SECOND;
    let day = 1 + (seconds / 86_400) % DAYS_MAX;
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("2026-01-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// A version 4 UUID for each number and stream of numbers.
fn uuid(k: u64, stream: u64) -> String {
    let high = mix(k ^ (stream << 56));
    let low = mix(k ^ ((stream + 1) << 56));
    let high = (high & 0xFFFF_FFFF_FFFF_0FFF) | 0x4000;
    let low = (low & 0x3FFF_FFFF_FFFF_FFFF) | 0x8000_0000_0000_0000;
    let hex = HEXLOWER.encode(&((u128::from(high) << 64) | u128::from(low)).to_be_bytes());
    let part = |range| hex.get(range).expect("32 digits");
    format!("{}-{}-{}-{}-{}", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn request(events: &Events, k: u64) -> String {
        let mut out = Vec::new();
        events.write(k, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn field<'r>(request: &'r str, name: &str) -> &'r str {
        request.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim()
    }

    #[test]
    fn every_request_has_the_same_length() {
        let events = Events::new(b"secret", "localhost:8443", 0, 2);
        let lengths: HashSet<usize> = (0..5_000).chain(9_999_000..10_001_000).map(|k| request(&events, k).len()).collect();
        assert_eq!(lengths.len(), 1, "{lengths:?}");
        assert_eq!(body(7).len(), 230);
    }

    #[test]
    fn ids_differ_but_for_the_repeats_which_are_whole() {
        let events = Events::new(b"secret", "localhost", 0, 2);
        let (mut seen, mut repeats) = (HashSet::new(), 0);
        for k in 0..200_000_u64 {
            let request = request(&events, k);
            if !seen.insert(field(&request, "X-Shopify-Webhook-Id:").to_owned()) {
                repeats += 1;
                let original = events.original(k);
                assert!(original < k && (k - original).is_multiple_of(2));
                let mut first = Vec::new();
                events.write(original, &mut first);
                assert_eq!(request.as_bytes(), first);
            }
        }
        // 2 %, less those too near the beginning
        assert!((3_600..=4_000).contains(&repeats), "{repeats}");
    }

    #[test]
    fn a_range_never_repeats_what_came_before_it() {
        let events = Events::new(b"secret", "localhost", 1_000_000, 2);
        assert!((1_000_000..1_200_000).all(|k| events.original(k) >= 1_000_000));
    }

    #[test]
    fn the_signature_is_shopifys() {
        let request = request(&Events::new(b"secret", "localhost", 0, 1), 3);
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        let tag = BASE64.decode(field(&request, "X-Shopify-Hmac-Sha256:").as_bytes()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        assert!(hmac::verify(&key, body.as_bytes(), &tag).is_ok());
        assert_eq!(field(&request, "Content-Length:"), body.len().to_string());
    }

    #[test]
    fn time_moves_on_with_the_events() {
        assert!(moment(0) < moment(1_000) && moment(86_399_999) < moment(86_400_000));
        assert_eq!(moment(0), "2026-01-01T00:00:00");
    }
}
