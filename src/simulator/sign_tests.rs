use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::sources;
use crate::types::{HeaderList, Message, Settings};

const NOW: Timestamp = Timestamp::from_seconds(1_763_000_000);

fn settings(kind: &str, table: Value) -> SenderSettings {
    let Value::Object(map) = table else { panic!("an object") };
    SenderSettings::new(kind, &map).expect("a known kind")
}

fn signed(kind: &str, table: Value, secret: &str, body: &[u8], now: Timestamp, id: &str) -> Signed {
    sign(&settings(kind, table), &Secret::new(secret), body, now, id).expect("it can be signed")
}

fn header(signed: &Signed, name: &str) -> String {
    signed.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
}

/// The adapter's verdict on a signed body.
fn accepted(kind: &str, table: &Value, secret: &str, body: &[u8], signed: &Signed) -> bool {
    let Value::Object(map) = table.clone() else { panic!("an object") };
    let mut read = Settings::new("source.x", map);
    let adapter = (sources::kind(kind).expect("a kind").build)(&mut read);
    assert_eq!(read.finish(), []);
    let headers = HeaderList(signed.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect());
    let message = Message { query: &signed.query, headers: &headers, body, received_at: NOW };
    adapter.authenticate(&message, &[Secret::new(secret)]).is_ok()
}

#[test]
fn published_signatures() {
    let body = br#"{"email":"test@example.com","username":"test_user"}"#;
    let secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let at = Timestamp::from_seconds(1_649_367_553);
    let made = signed("standard-webhooks", json!({}), secret, body, at, "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk");
    assert_eq!(header(&made, "webhook-signature"), "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    assert_eq!(header(&made, "webhook-timestamp"), "1649367553");

    let woo = br#"{"id":794,"sku":"woo-vneck-tee-red","manage_stock":true,"stock_quantity":9,"stock_status":"instock","date_modified_gmt":"2024-03-15T10:00:00"}"#;
    let made = signed("woocommerce", json!({}), "a&b<c>\"d'", woo, NOW, "x");
    assert_eq!(header(&made, "x-wc-webhook-signature"), "kpDw5C23Y5D/vtyu003xxlqkQKARV0TgAuZwLnSSA2o=");

    let square = br#"{"data":{"type":"webhooks","id":">id<"}}"#;
    let table = json!({"signature": {"header": "x-square-hmacsha256-signature", "encoding": "base64", "signed": "{url}{body}", "url": "https://webhook.site/webhooks"}});
    let made = signed("generic", table, "signature-key", square, NOW, "x");
    assert_eq!(header(&made, "x-square-hmacsha256-signature"), "Cxt7+aTi4rKgcA0bC4g9EHdVtLSDWdqccmL5MvihU4U=");
}

#[test]
fn every_form_of_a_described_signature_is_what_the_adapter_expects() {
    let hex = "00112233445566778899aabbccddeeff";
    for (signature, secret) in [
        (json!({}), "s"),
        (json!({"header": "X-Hub-Signature-256", "prefix": "sha256="}), "s"),
        (json!({"algorithm": "hmac-sha512", "encoding": "base64"}), "s"),
        (json!({"algorithm": "hmac-sha1", "key": "hex"}), hex),
        (json!({"key": "base64"}), "c2VjcmV0"),
        (json!({"algorithm": "token", "header": "authorization", "prefix": "Bearer "}), "s"),
        (json!({"header": "stripe-signature", "field": "v1", "timestamp_field": "t", "signed": "{timestamp}.{body}"}), "s"),
        (json!({"signed": "{id}:{timestamp}:{body}", "id_header": "x-id", "timestamp_header": "x-at"}), "s"),
        (json!({"signed": "{{{body}}}"}), "s"),
    ] {
        let table = json!({"signature": signature, "identity": {"header": "x-delivery"}});
        let body = br#"{"sku":"A-1","quantity":5}"#;
        let made = signed("generic", table.clone(), secret, body, NOW, "d-1");
        assert_eq!(header(&made, "x-delivery"), "d-1");
        assert!(accepted("generic", &table, secret, body, &made), "{table}: {made:?}");
        assert!(!accepted("generic", &table, "another", body, &made), "{table}");
    }
}

#[test]
fn the_three_ways_of_shippingbo() {
    for table in [json!({}), json!({"trust": "headers", "header": "X-Mine"}), json!({"trust": "token"})] {
        let made = signed("shippingbo", table.clone(), "hush", b"{}", NOW, "");
        assert!(accepted("shippingbo", &table, "hush", b"{}", &made), "{table}");
        assert!(!accepted("shippingbo", &table, "other", b"{}", &made), "{table}");
    }
}

#[test]
fn a_named_delivery_keeps_its_name_in_a_query() {
    assert_eq!(signed("kladana", json!({}), "", b"{}", NOW, "a b").query, "requestId=a%20b");
    let table = json!({"signature": "none", "identity": {"query": ["id"]}});
    assert_eq!(signed("generic", table, "", b"{}", NOW, "1").query, "id=1");
}

#[test]
fn what_only_the_platform_can_sign_is_refused_in_a_sentence() {
    let public = settings("standard-webhooks", json!({}));
    let refused = sign(&public, &Secret::new("whpk_AAAA"), b"{}", NOW, "x").expect_err("a public key signs nothing");
    assert_eq!(refused.0, "the secret is the sender's public key: only the platform itself can sign");
    let ed25519 = settings("generic", json!({"signature": {"algorithm": "ed25519", "key": "hex"}}));
    assert!(sign(&ed25519, &Secret::new("00"), b"{}", NOW, "x").is_err());
    let header = settings("generic", json!({"signature": {"signed": "{header:x-a}{body}"}}));
    let refused = sign(&header, &Secret::new("s"), b"{}", NOW, "x").expect_err("the value is not known");
    assert_eq!(refused.0, "{header:x-a} is signed too, and its value is not known here");
    assert!(SenderSettings::new("fax", &Map::new()).is_err());
}

proptest! {
    #[test]
    fn whatever_the_body_the_adapter_takes_what_was_signed(body: Vec<u8>, id in "[a-z0-9-]{1,40}") {
        for (kind, secret) in [
            ("shopify", "shpss_x"),
            ("woocommerce", "plain"),
            ("shippingbo", "x"),
            ("standard-webhooks", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ] {
            let made = signed(kind, json!({}), secret, &body, NOW, &id);
            prop_assert!(accepted(kind, &json!({}), secret, &body, &made), "{kind}");
        }
    }
}
