use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::sources::signature::sign;
use crate::types::{Change, Fact, HeaderList, Item, Measure, Place, Said};

/// The platform's test notification, byte for byte.
const LEVEL: &[u8] = include_bytes!("fixtures/level_null.json");
const ITEM: &[u8] = include_bytes!("fixtures/inventory_item.json");
const LEVELS: &[u8] = include_bytes!("fixtures/levels_answer.json");
/// 2020-09-03T08:44:10-04:00.
const UPDATED_AT: Timestamp = Timestamp::from_seconds(1_599_137_050);
const RECEIVED_AT: Timestamp = Timestamp::from_seconds(1_599_137_060);
const ITEM_ID: &str = "271878346596884015";

fn source() -> Box<dyn Source> {
    configured(json!({})).0
}

fn configured(value: serde_json::Value) -> (Box<dyn Source>, Vec<String>) {
    let serde_json::Value::Object(map) = value else { panic!("an object") };
    let mut settings = Settings::new("source.shop", map);
    let source = build(&mut settings);
    (source, settings.finish().into_iter().map(|p| p.message).collect())
}

fn with<T>(headers: &[(&str, &str)], body: &[u8], look: impl FnOnce(&Message<'_>) -> T) -> T {
    let headers = HeaderList(headers.to_vec());
    look(&Message { query: "", headers: &headers, body, received_at: RECEIVED_AT })
}

fn authenticate(headers: &[(&str, &str)], body: &[u8], secrets: &[&str]) -> Result<usize, Refusal> {
    let secrets: Vec<Secret> = secrets.iter().map(|s| Secret::new(*s)).collect();
    with(headers, body, |m| source().authenticate(m, &secrets))
}

fn parse(headers: &[(&str, &str)], body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    with(headers, body, |m| source().parse(m))
}

fn topic(topic: &str, body: &str) -> Result<Vec<Observation>, Unreadable> {
    parse(&[("x-shopify-topic", topic)], body.as_bytes())
}

fn fact(item: &str, place: Place, change: Change, at: Option<Timestamp>) -> Observation {
    Observation::Fact(Fact {
        item: Item { id: item.into(), sku: None },
        place,
        measure: Measure::Available,
        change,
        said: Said { version: None, at },
    })
}

fn at(location: &str) -> Place {
    Place::At(location.into())
}

fn units(n: i64) -> Change {
    Change::Absolute(Quantity::from_units(n).expect("small"))
}

fn fetch(key: &str) -> Observation {
    Observation::Fetch(Need { key: key.into(), from: None })
}

fn is_irrelevant(read: &Result<Vec<Observation>, Unreadable>) -> bool {
    matches!(read.as_deref(), Ok([Observation::Irrelevant(_)]))
}

const TAG: &str = "4PZhrpQwbMy7BYcbZvviLXMJXuF0OlfUcVc9a38A7ho=";

#[test]
fn the_vector_verifies_under_either_header_name() {
    assert_eq!(authenticate(&[("x-shopify-hmac-sha256", TAG)], LEVEL, &["shpss_test_secret"]), Ok(0));
    assert_eq!(authenticate(&[("shopify-hmac-sha256", TAG)], LEVEL, &["next", "shpss_test_secret"]), Ok(1));
}

#[test]
fn forgeries_do_not_pass() {
    let check = |tag, body, secret| authenticate(&[("x-shopify-hmac-sha256", tag)], body, &[secret]);
    let good = "shpss_test_secret";
    assert_eq!(check(TAG, LEVEL, "shpss_other"), Err(Refusal::BadSignature));
    assert_eq!(check(TAG, &LEVEL[..LEVEL.len() - 1], good), Err(Refusal::BadSignature));
    assert_eq!(check("4PZhrpQwbMy7BYcbZvvi", LEVEL, good), Err(Refusal::BadSignature));
    assert_eq!(check("", LEVEL, good), Err(Refusal::Unsigned));
    assert_eq!(authenticate(&[], LEVEL, &[good]), Err(Refusal::Unsigned));
    // The escaped slashes are part of what is signed: the same JSON written otherwise is another body.
    let rewritten = String::from_utf8(LEVEL.to_vec()).expect("text").replace("\\/", "/");
    assert_eq!(check(TAG, rewritten.as_bytes(), good), Err(Refusal::BadSignature));
}

#[test]
fn the_test_notification_is_untracked_and_keeps_every_digit() {
    let want = vec![fact(ITEM_ID, at("53716844710"), Change::Untracked, Some(UPDATED_AT))];
    let body = std::str::from_utf8(LEVEL).expect("text");
    assert_eq!(topic("inventory_levels/update", body), Ok(want.clone()));
    // The same without a topic: the shape of the body says it.
    assert_eq!(parse(&[], LEVEL), Ok(want));
}

#[test]
fn levels_carry_signed_exact_numbers() {
    let read = |available: &str| {
        let body = format!(
            r#"{{"inventory_item_id":18446744073709551615,"location_id":2,"available":{available},"updated_at":"2020-09-03T12:44:10Z"}}"#
        );
        topic("inventory_levels/connect", &body)
    };
    let want = |change| Ok(vec![fact("18446744073709551615", at("2"), change, Some(UPDATED_AT))]);
    assert_eq!(read("-3"), want(units(-3)));
    assert_eq!(read("0"), want(units(0)));
    assert_eq!(read("2.5"), want(Change::Absolute(Quantity::from_micros(2_500_000))));
    assert_eq!(
        read("1e400"),
        Err(Unreadable("`available` is 1e400: out of range (at most 9223372036854.775807)".to_owned()))
    );
    assert_eq!(read("\"many\""), Err(Unreadable("`available` is \"many\": not a decimal number".to_owned())));
}

#[test]
fn a_connect_without_a_number_asks_for_it() {
    let read =
        topic("inventory_levels/connect", r#"{"inventory_item_id":1,"location_id":2,"updated_at":"2020-09-03T12:44:10Z"}"#);
    assert_eq!(read, Ok(vec![fetch("stock/1/2")]));
}

#[test]
fn a_disconnect_ends_the_level_at_the_time_it_was_triggered() {
    let body = r#"{"inventory_item_id":1,"location_id":2}"#;
    let read = |at: &str| {
        parse(&[("x-shopify-topic", "inventory_levels/disconnect"), ("x-shopify-triggered-at", at)], body.as_bytes())
    };
    let gone = |time| Ok(vec![fact("1", at("2"), Change::Deleted, time)]);
    // A retry hours later still says when it happened, in whole seconds like `updated_at`.
    assert_eq!(read("2020-09-03T12:44:10.877041743Z"), gone(Some(UPDATED_AT)));
    // The header is not signed: what lies in the future, or is no time, is not believed.
    assert_eq!(read("2999-01-01T00:00:00Z"), gone(None));
    assert_eq!(read("soon"), gone(None));
    assert_eq!(parse(&[], body.as_bytes()), gone(None));
}

#[test]
fn an_unsigned_topic_cannot_turn_a_number_into_a_deletion() {
    let body = r#"{"inventory_item_id":1,"location_id":2,"available":5,"updated_at":"2020-09-03T12:44:10Z"}"#;
    assert!(topic("inventory_levels/disconnect", body).is_err());
}

#[test]
fn items_tell_their_sku_or_their_end() {
    let sku = Observation::Catalogue { item: ITEM_ID.into(), sku: "shirt-red-m".into() };
    let body = std::str::from_utf8(ITEM).expect("text");
    assert_eq!(topic("inventory_items/create", body), Ok(vec![sku.clone()]));
    assert_eq!(topic("inventory_items/update", body), Ok(vec![sku.clone()]));
    assert_eq!(parse(&[], ITEM), Ok(vec![sku]));
    for empty in [r#"{"id":1,"sku":""}"#, r#"{"id":1,"sku":null}"#, r#"{"id":1}"#] {
        assert!(is_irrelevant(&topic("inventory_items/update", empty)), "{empty}");
    }
    assert_eq!(
        topic("inventory_items/delete", r#"{"id":77}"#),
        Ok(vec![fact("77", Place::Everywhere, Change::Deleted, None)])
    );
}

#[test]
fn other_topics_are_irrelevant_whatever_they_carry() {
    for name in ["orders/create", "products/update", "locations/delete", "Product", "INVENTORY_LEVELS_UPDATE"] {
        assert!(is_irrelevant(&topic(name, "not even JSON")), "{name}");
    }
}

#[test]
fn without_a_topic_only_what_the_body_proves_counts() {
    // A variant has an id and a SKU too, but is no inventory item.
    let variant = br#"{"id":5,"sku":"A","admin_graphql_api_id":"gid://shopify/ProductVariant/5"}"#;
    assert!(is_irrelevant(&parse(&[], variant)));
    let read = parse(&[], br#"{"id":5}"#);
    assert!(matches!(&read, Err(Unreadable(why)) if why.contains("does not say what was deleted")), "{read:?}");
}

#[test]
fn an_event_about_a_level_is_fetched_by_the_items_number_alone() {
    let read = |gid: &str| parse(&[("shopify-topic", "InventoryLevel"), ("shopify-resource-id", gid)], b"{}");
    assert_eq!(read("gid://shopify/InventoryLevel/878?inventory_item_id=271"), Ok(vec![fetch("stock/271")]));
    for gid in [
        "gid://shopify/InventoryLevel/878",
        "gid://shopify/Product/1?inventory_item_id=271",
        "gid://shopify/InventoryLevel/8?inventory_item_id=1%26limit%3D1",
        "gid://shopify/InventoryLevel/8?inventory_item_id=../../x",
    ] {
        assert!(is_irrelevant(&read(gid)), "{gid}");
    }
}

#[test]
fn unreadable_bodies_say_why() {
    for (body, why) in [
        ("", "the body is not a JSON object"),
        ("[1,2,3]", "the body is not a JSON object"),
        (r#"{"location_id":1,"available":1}"#, "`inventory_item_id` is missing"),
        (r#"{"inventory_item_id":1.5,"location_id":1,"available":1}"#, "`inventory_item_id` is 1.5, not an id"),
        (r#"{"inventory_item_id":1,"location_id":null,"available":1}"#, "`location_id` is missing"),
        (
            r#"{"inventory_item_id":1,"location_id":2,"available":1,"updated_at":"now"}"#,
            "`updated_at` is \"now\", not a time",
        ),
    ] {
        assert_eq!(topic("inventory_levels/update", body), Err(Unreadable(why.to_owned())), "{body}");
    }
    let deep =
        format!(r#"{{"inventory_item_id":1,"location_id":2,"available":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(topic("inventory_levels/update", &deep).is_err());
    assert!(parse(&[("x-shopify-topic", "inventory_levels/update")], b"{\"inventory_item_id\":\"\xff\"}").is_err());
}

fn identify(headers: &[(&str, &str)]) -> Identity {
    with(headers, LEVEL, |m| source().identify(m))
}

fn named(parts: &[&str]) -> Identity {
    Identity::Named(parts.iter().map(|p| p.as_bytes().to_vec()).collect())
}

#[test]
fn the_event_id_would_drop_the_second_subscription() {
    // One event, two subscriptions: the platform gives both the same event id and each its own webhook id.
    let first = [("x-shopify-event-id", "E"), ("x-shopify-webhook-id", "A"), ("x-shopify-topic", "inventory_levels/update")];
    let second = [("x-shopify-event-id", "E"), ("x-shopify-webhook-id", "B"), ("x-shopify-topic", "products/update")];
    assert_eq!(first[0], second[0], "the naive key is the same for both");
    assert_eq!(identify(&first), named(&["A", "inventory_levels/update"]));
    assert_ne!(identify(&first), identify(&second));
    // A retry repeats the webhook id; the time of the attempt does not enter.
    let retry = [first[1], first[2], ("x-shopify-triggered-at", "2020-09-03T12:44:10Z")];
    assert_eq!(identify(&retry), identify(&first));
}

#[test]
fn an_event_is_known_by_its_own_webhook_id() {
    // Events put the event's id into the classic field.
    let event = [("x-shopify-webhook-id", "the event"), ("shopify-webhook-id", "W"), ("shopify-topic", "Product")];
    assert_eq!(identify(&event), named(&["W", "Product"]));
}

#[test]
fn a_missing_webhook_id_is_never_an_empty_part() {
    assert_eq!(identify(&[]), Identity::Content);
    assert_eq!(
        identify(&[("x-shopify-webhook-id", "  "), ("x-shopify-topic", "inventory_levels/update")]),
        Identity::Content
    );
    assert_eq!(identify(&[("x-shopify-webhook-id", "A")]), named(&["A"]));
}

#[test]
fn parse_and_identify_read_kept_headers_only() {
    let all = [
        ("x-shopify-topic", "inventory_levels/disconnect"),
        ("x-shopify-webhook-id", "A"),
        ("x-shopify-triggered-at", "2020-09-03T12:44:10Z"),
        ("x-shopify-hmac-sha256", TAG),
        ("x-shopify-shop-domain", "a.myshopify.com"),
    ];
    let kept_names = source().kept_headers();
    let kept: Vec<(&str, &str)> = all.iter().copied().filter(|(n, _)| kept_names.iter().any(|k| k == n)).collect();
    let body = br#"{"inventory_item_id":1,"location_id":2}"#;
    assert_eq!(parse(&kept, body), parse(&all, body));
    assert_eq!(identify(&kept), identify(&all));
    assert!(kept.iter().all(|(_, value)| *value != TAG), "a signature need not be kept");
}

fn request(source: &dyn Source, need: &Need, page: Option<&str>) -> ApiRequest {
    let credentials = Credentials(vec![("token".to_owned(), Secret::new("shpat_x\n"))]);
    source.request(need, page, &credentials).expect("our own need")
}

#[test]
fn requests_name_the_item_and_the_place() {
    let shop = source();
    let need = shop.settle("271", Some("537")).expect("numbers");
    let asked = request(shop.as_ref(), &need, None);
    assert_eq!(asked.target, "/admin/api/2026-07/inventory_levels.json?limit=250&inventory_item_ids=271&location_ids=537");
    assert_eq!(asked.headers, vec![("x-shopify-access-token", "shpat_x".to_owned())]);
    let everywhere = shop.settle("271", None).expect("a number");
    let target = |need, page| request(shop.as_ref(), need, page).target;
    assert_eq!(target(&everywhere, None), "/admin/api/2026-07/inventory_levels.json?limit=250&inventory_item_ids=271");
    assert_eq!(target(&everywhere, Some("abc=")), "/admin/api/2026-07/inventory_levels.json?limit=250&page_info=abc=");
    let catalogue = shop.catalogue("271").expect("a number");
    assert_eq!(*catalogue.key, *"catalogue/271");
    assert_eq!(target(&catalogue, None), "/admin/api/2026-07/inventory_items/271.json");
}

#[test]
fn what_is_no_number_never_enters_a_request() {
    let shop = source();
    for bad in ["", "1/2", "../x", "1?x=1", "a", "1 ", "-1", "１"] {
        assert_eq!(shop.settle(bad, None), None, "{bad}");
        assert_eq!(shop.settle("1", Some(bad)), None, "{bad}");
        assert_eq!(shop.catalogue(bad), None, "{bad}");
    }
    for key in ["stock/", "stock/1/2/3", "catalogue/1/2", "orders/1", "stock", ""] {
        let need = Need { key: key.into(), from: None };
        assert_eq!(shop.request(&need, None, &Credentials::default()), None, "{key}");
        assert!(shop.read(&need, RECEIVED_AT, LEVELS).is_err(), "{key}");
    }
}

#[test]
fn an_unknown_version_is_refused_and_a_known_one_used() {
    let (shop, problems) = configured(json!({"api_version": "2026-10"}));
    assert_eq!(problems, Vec::<String>::new());
    let need = shop.catalogue("1").expect("a number");
    assert_eq!(request(shop.as_ref(), &need, None).target, "/admin/api/2026-10/inventory_items/1.json");
    for bad in ["latest", "2026-7", "../x", ""] {
        let (_, problems) = configured(json!({"api_version": bad}));
        assert_eq!(problems, ["expected a version such as \"2026-07\", or \"unstable\""], "{bad}");
    }
}

fn judge(status: u16, headers: &[(&str, &str)]) -> Verdict {
    let headers = HeaderList(headers.to_vec());
    let need = Need { key: "stock/271".into(), from: None };
    source().judge(&need, &ApiAnswer { status, headers: &headers, body: b"" }, RECEIVED_AT)
}

#[test]
fn answers_are_judged_in_the_platforms_own_form() {
    assert_eq!(judge(200, &[]), Verdict::Done);
    assert_eq!(judge(429, &[("retry-after", "2.0")]), Verdict::Retry(Some(Duration::from_secs(2))));
    assert_eq!(judge(429, &[("retry-after", "0.5")]), Verdict::Retry(Some(Duration::from_millis(500))));
    assert_eq!(judge(503, &[("retry-after", "-1")]), Verdict::Retry(None));
    assert_eq!(judge(423, &[]), Verdict::Retry(None));
    assert_eq!(judge(401, &[]), Verdict::Retry(None));
    assert!(matches!(judge(404, &[]), Verdict::GiveUp(_)));
    assert!(matches!(judge(301, &[]), Verdict::GiveUp(_)));
}

#[test]
fn only_the_cursor_of_the_next_page_is_taken() {
    let link = "<https://a.myshopify.com/admin/api/2026-07/inventory_levels.json?limit=250&page_info=prev>; rel=\"previous\", \
                <https://evil.example/x?page_info=eyJkIjoi%3D&limit=9>; rel=\"next\"";
    assert_eq!(judge(200, &[("link", link)]), Verdict::Next("eyJkIjoi%3D".to_owned()));
    assert_eq!(judge(200, &[("link", "<https://a/x?page_info=p>; rel=\"previous\"")]), Verdict::Done);
    for bad in
        ["<https://a/x>; rel=\"next\"", "<https://a/x?page_info=>; rel=next", "<https://a/x?page_info=a#b c>; rel=\"next\""]
    {
        assert!(matches!(judge(200, &[("link", bad)]), Verdict::GiveUp(_)), "{bad}");
    }
}

fn read(key: &str, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    source().read(&Need { key: key.into(), from: None }, RECEIVED_AT, body)
}

#[test]
fn an_answer_settles_the_place_that_was_asked_for() {
    let first = fact(ITEM_ID, at("53716844710"), units(7), Some(Timestamp::from_seconds(1_599_137_051)));
    let second = fact(ITEM_ID, at("53716844711"), Change::Untracked, Some(Timestamp::from_seconds(1_599_134_400)));
    assert_eq!(read(&format!("stock/{ITEM_ID}/53716844710"), LEVELS), Ok(vec![first.clone()]));
    assert_eq!(read(&format!("stock/{ITEM_ID}"), LEVELS), Ok(vec![first, second]));
}

#[test]
fn no_level_at_the_place_means_that_it_ended() {
    let empty = br#"{"inventory_levels":[]}"#;
    assert_eq!(read("stock/1/2", empty), Ok(vec![fact("1", at("2"), Change::Deleted, Some(RECEIVED_AT))]));
    // Rows about something else prove nothing: the filter was not obeyed.
    assert!(read("stock/1/2", LEVELS).is_err());
    assert!(read("stock/1", LEVELS).is_err());
    assert!(read("stock/1/53716844710", LEVELS).is_err());
    // An empty page may be the second of two: it must not delete what the first one said.
    assert!(is_irrelevant(&read("stock/1", empty)));
    // A row without a time is a fact of the moment when it was asked for.
    let row = br#"{"inventory_levels":[{"inventory_item_id":1,"location_id":2,"available":3}]}"#;
    assert_eq!(read("stock/1/2", row), Ok(vec![fact("1", at("2"), units(3), Some(RECEIVED_AT))]));
    for bad in [&b"{}"[..], b"<html>", br#"{"inventory_levels":[{"inventory_item_id":1,"location_id":2}]}"#] {
        assert!(read("stock/1/2", bad).is_err());
    }
}

#[test]
fn the_catalogue_answer_must_be_about_the_item() {
    let answer = [&br#"{"inventory_item":"#[..], ITEM, b"}"].concat();
    let sku = Observation::Catalogue { item: ITEM_ID.into(), sku: "shirt-red-m".into() };
    assert_eq!(read(&format!("catalogue/{ITEM_ID}"), &answer), Ok(vec![sku]));
    assert!(read("catalogue/1", &answer).is_err());
    assert!(is_irrelevant(&read("catalogue/1", br#"{"inventory_item":{"id":1,"sku":""}}"#)));
}

/// Values that a field might hold.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        Just("{}".to_owned()),
        Just("[[[]]]".to_owned()),
        Just("-0.0e-99999999999".to_owned()),
        "-?[1-9][0-9]{0,40}(\\.[0-9]{1,9})?",
        "[ -!#-\\[\\]-~]{0,12}".prop_map(|s| format!("\"{s}\"")),
    ]
}

proptest! {
    #[test]
    fn nothing_panics(name in "(x-)?shopify-(topic|webhook-id|triggered-at|hmac-sha256|resource-id)", text in "\\PC{0,40}",
                      body in prop::collection::vec(any::<u8>(), 0..200), status in 100u16..600) {
        let source = source();
        let secrets = [Secret::new("s")];
        with(&[(&name, &text)], &body, |m| {
            prop_assert!(source.authenticate(m, &secrets).is_err());
            drop((source.identify(m), source.parse(m), source.greet("POST", m)));
            Ok(())
        })?;
        let headers = HeaderList(vec![("link", text.as_str()), ("retry-after", text.as_str())]);
        for key in ["stock/1/2", "stock/1", "catalogue/1", text.as_str()] {
            let need = Need { key: key.into(), from: None };
            drop(source.judge(&need, &ApiAnswer { status, headers: &headers, body: &body }, RECEIVED_AT));
            drop(source.read(&need, RECEIVED_AT, &body));
        }
    }

    #[test]
    fn odd_fields_never_panic_and_never_become_zero(a in value(), b in value(), c in value(), d in value(),
                                                   with_topic: bool) {
        let body = format!(r#"{{"inventory_item_id":{a},"location_id":{b},"available":{c},"updated_at":{d},"id":{a},"sku":{b}}}"#);
        let headers: &[(&str, &str)] = if with_topic { &[("x-shopify-topic", "inventory_levels/update")] } else { &[] };
        for observation in parse(headers, body.as_bytes()).unwrap_or_default() {
            if let Observation::Fact(Fact { change: Change::Absolute(q), .. }) = observation {
                prop_assert_eq!(c.trim_matches('"').parse::<Quantity>(), Ok(q));
            }
        }
        drop(read("stock/1/2", format!(r#"{{"inventory_levels":[{body}]}}"#).as_bytes()));
        drop(read("catalogue/1", format!(r#"{{"inventory_item":{body}}}"#).as_bytes()));
    }

    #[test]
    fn what_is_signed_passes_and_any_other_byte_does_not(body in prop::collection::vec(any::<u8>(), 1..100), flip: prop::sample::Index) {
        let tag = Encoding::Base64.encode(&sign(Algorithm::HmacSha256, b"k", &[&body]));
        let headers = [("x-shopify-hmac-sha256", tag.as_str())];
        prop_assert_eq!(authenticate(&headers, &body, &["k"]), Ok(0));
        let mut other = body.clone();
        let i = flip.index(other.len());
        other[i] ^= 1;
        prop_assert_eq!(authenticate(&headers, &other, &["k"]), Err(Refusal::BadSignature));
    }
}
