use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::sources::signature::sign;
use crate::types::{Change, Fact, HeaderList, Item, Measure, Place, Quantity, Said};

/// The body of the documented rule's vector, byte for byte.
const PRODUCT: &[u8] = include_bytes!("fixtures/product.json");
const SLOT: &[u8] = include_bytes!("fixtures/slot_content.json");
const VARIATION: &[u8] = include_bytes!("fixtures/stock_variation.json");
const TAG: &str = "Hv7rOxFk33uz28UJjF/PCzKDXUHRConnhRPCucf6Ctg=";
/// 2022-06-30T14:53:00+00:00.
const UPDATED_AT: Timestamp = Timestamp::from_seconds(1_656_600_780);
/// 2022-09-14T09:36:09+00:00.
const SLOT_AT: Timestamp = Timestamp::from_seconds(1_663_148_169);
const SENT_AT: Timestamp = Timestamp::from_seconds(1_700_000_000);

fn configured(value: serde_json::Value) -> (Box<dyn Source>, Vec<String>) {
    let serde_json::Value::Object(map) = value else { panic!("an object") };
    let mut settings = Settings::new("source.wms", map);
    let source = build(&mut settings);
    (source, settings.finish().into_iter().map(|p| p.message).collect())
}

fn source(value: serde_json::Value) -> Box<dyn Source> {
    let (source, problems) = configured(value);
    assert_eq!(problems, Vec::<String>::new());
    source
}

fn with<T>(headers: &[(&str, &str)], body: &[u8], look: impl FnOnce(&Message<'_>) -> T) -> T {
    let headers = HeaderList(headers.to_vec());
    look(&Message { query: "", headers: &headers, body, received_at: SENT_AT })
}

fn authenticate(
    settings: serde_json::Value,
    headers: &[(&str, &str)],
    body: &[u8],
    secrets: &[&str],
) -> Result<usize, Refusal> {
    let secrets: Vec<Secret> = secrets.iter().map(|s| Secret::new(*s)).collect();
    with(headers, body, |m| source(settings).authenticate(m, &secrets))
}

fn parse(settings: serde_json::Value, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    with(&[], body, |m| source(settings).parse(m))
}

fn identify(settings: serde_json::Value, body: &[u8]) -> Identity {
    with(&[], body, |m| source(settings).identify(m))
}

fn units(n: i64) -> Quantity {
    Quantity::from_units(n).expect("small")
}

fn fact(item: (&str, Option<&str>), place: Place, measure: Measure, change: Change, at: Option<Timestamp>) -> Observation {
    let item = Item { id: item.0.into(), sku: item.1.map(Into::into) };
    Observation::Fact(Fact { item, place, measure, change, said: Said { version: None, at } })
}

const SAMPLE: (&str, Option<&str>) = ("922957134", Some("sku-test-50"));

fn sample(measure: Measure, change: Change) -> Observation {
    fact(SAMPLE, Place::Default, measure, change, Some(UPDATED_AT))
}

fn sku(item: &str, sku: &str) -> Observation {
    Observation::Catalogue { item: item.into(), sku: sku.into() }
}

fn is_irrelevant(read: &Result<Vec<Observation>, Unreadable>) -> bool {
    matches!(read.as_deref(), Ok([Observation::Irrelevant(_)]))
}

#[test]
fn hmac_is_the_default_and_the_vector_verifies() {
    let check = |tag, body, secrets: &[&str]| authenticate(json!({}), &[("x-shippingbo-hmac-sha256", tag)], body, secrets);
    assert_eq!(check(TAG, PRODUCT, &["my_client_secret"]), Ok(0));
    assert_eq!(check(TAG, PRODUCT, &["next", "my_client_secret"]), Ok(1));
    assert_eq!(check(TAG, PRODUCT, &["other"]), Err(Refusal::BadSignature));
    assert_eq!(check(TAG, &PRODUCT[..PRODUCT.len() - 1], &["my_client_secret"]), Err(Refusal::BadSignature));
    assert_eq!(check("Hv7rOxFk33uz28UJjF/PCzKD", PRODUCT, &["my_client_secret"]), Err(Refusal::BadSignature));
    assert_eq!(check("?", PRODUCT, &["my_client_secret"]), Err(Refusal::Unsigned));
    // Under one mode the proof of another is none.
    let token = [("authorization", "Basic my_client_secret")];
    assert_eq!(authenticate(json!({}), &token, PRODUCT, &["my_client_secret"]), Err(Refusal::Unsigned));
}

#[test]
fn a_free_header_carries_the_secret() {
    let settings = || json!({"trust": "headers", "header": "X-Stock-Secret"});
    let check = |headers: &[(&str, &str)], secrets: &[&str]| authenticate(settings(), headers, PRODUCT, secrets);
    assert_eq!(check(&[("x-stock-secret", "hush")], &["next", "hush"]), Ok(1));
    assert_eq!(check(&[("x-stock-secret", "hus")], &["hush"]), Err(Refusal::BadSignature));
    assert_eq!(check(&[("x-stock-secret", "hush!")], &["hush"]), Err(Refusal::BadSignature));
    assert_eq!(check(&[("x-stock-secret", "")], &["hush", ""]), Err(Refusal::Unsigned));
    assert_eq!(check(&[("x-other", "hush")], &["hush"]), Err(Refusal::Unsigned));
    assert_eq!(check(&[("x-shippingbo-hmac-sha256", TAG)], &["my_client_secret"]), Err(Refusal::Unsigned));
}

#[test]
fn a_token_is_compared_as_it_stands() {
    let check =
        |value, secrets: &[&str]| authenticate(json!({"trust": "token"}), &[("authorization", value)], PRODUCT, secrets);
    assert_eq!(check("Basic my_freshly_renewed_token", &["my_freshly_renewed_token"]), Ok(0));
    assert_eq!(check("basic  t", &["old", "t"]), Ok(1));
    assert_eq!(check("Basic t", &["u"]), Err(Refusal::BadSignature));
    for unsigned in ["Bearer t", "t", "Basic", "Basic ", ""] {
        assert_eq!(check(unsigned, &["t", ""]), Err(Refusal::Unsigned), "{unsigned}");
    }
    assert_eq!(authenticate(json!({"trust": "token"}), &[("x-api-key", "t")], PRODUCT, &["t"]), Err(Refusal::Unsigned));
}

#[test]
fn mistaken_settings_are_named() {
    let problems = |value| configured(value).1;
    assert_eq!(
        problems(json!({"trust": "headers"})),
        ["missing: with trust = \"headers\", name the header that carries the secret, such as \"x-stock-secret\""]
    );
    assert_eq!(problems(json!({"trust": "headers", "header": "a b"})), ["\"a b\" cannot be the name of a header"]);
    assert_eq!(problems(json!({"header": "x-a"})), ["is only used with trust = \"headers\": set that, or remove this key"]);
    assert_eq!(
        problems(json!({"slots": true, "variations": true})),
        ["slots and variations describe the same units: count one of them"]
    );
    assert_eq!(
        problems(json!({"slots": true, "count": "stock"})),
        ["is about Product, which slots = true does not count: remove one of them"]
    );
    assert_eq!(problems(json!({"trust": "hash"})).len(), 1);
    assert_eq!(problems(json!({"count": "physical"})).len(), 1);
    assert_eq!(
        problems(json!({"trust": "token", "count": "stock", "slots": false, "variations": true})),
        Vec::<String>::new()
    );
}

#[test]
fn a_probe_is_answered_and_a_delivery_is_not() {
    let greet = |method| with(&[], PRODUCT, |m| source(json!({})).greet(method, m));
    assert_eq!(greet("GET"), Some(Greeting { status: 200, body: "Pong".to_owned() }));
    assert_eq!(greet("POST"), None);
}

#[test]
fn the_objects_stock_counts_and_the_additional_data_do_not() {
    // The sample says -6 in the object and 5 in `additional_data.to`; the object is documented as the new value.
    assert_eq!(parse(json!({}), PRODUCT), Ok(vec![sample(Measure::Available, Change::Absolute(units(-6)))]));
    let on_hand = vec![sample(Measure::OnHand, Change::Absolute(units(0)))];
    assert_eq!(parse(json!({"count": "total_physical_stock"}), PRODUCT), Ok(on_hand));
}

fn product(fields: &str) -> Vec<u8> {
    format!(r#"{{"object_class":"Product","object":{{{fields}}},"additional_data":{{}},"hook_info":{{}}}}"#).into_bytes()
}

#[test]
fn a_product_may_lack_what_is_not_its_stock() {
    let read = |fields| parse(json!({}), &product(fields));
    let want = |change| Ok(vec![fact(("7", None), Place::Default, Measure::Available, change, None)]);
    assert_eq!(read(r#""id":7,"stock":2.5"#), want(Change::Absolute(Quantity::from_micros(2_500_000))));
    assert_eq!(read(r#""id":7,"stock":null,"user_ref":"  ","updated_at":null"#), want(Change::Untracked));
    for (fields, why) in [
        (r#""stock":1"#, "`id` is missing"),
        (r#""id":7"#, "`stock` is missing"),
        (r#""id":7,"stock":[1]"#, "`stock` is [1]: not a decimal number"),
        (r#""id":7,"stock":1,"updated_at":"today""#, "`updated_at` is \"today\", not a time"),
    ] {
        assert_eq!(read(fields), Err(Unreadable(why.to_owned())), "{fields}");
    }
}

#[test]
fn a_deleted_product_ends_everywhere_when_it_arrives() {
    let body = String::from_utf8(PRODUCT.to_vec())
        .expect("text")
        .replace(r#""field":"stock","from":10,"to":5"#, r#""deleted":true"#);
    let gone = fact(SAMPLE, Place::Everywhere, Measure::Available, Change::Deleted, None);
    assert_eq!(parse(json!({}), body.as_bytes()), Ok(vec![gone]));
    // The one measure of a source does not change with the sort of message.
    let gone = fact(SAMPLE, Place::Everywhere, Measure::OnHand, Change::Deleted, None);
    assert_eq!(parse(json!({"slots": true}), body.as_bytes()), Ok(vec![gone]));
    let kept = body.replace(r#""deleted":true"#, r#""deleted":false"#);
    assert_eq!(parse(json!({}), kept.as_bytes()), Ok(vec![sample(Measure::Available, Change::Absolute(units(-6)))]));
}

#[test]
fn a_slot_is_a_place_only_when_asked_for() {
    assert!(is_irrelevant(&parse(json!({}), SLOT)));
    let slot = |change| {
        let place = Place::At("1254028".into());
        Ok(vec![fact(("15901611", Some("SKU004012")), place, Measure::OnHand, change, Some(SLOT_AT))])
    };
    assert_eq!(parse(json!({"slots": true}), SLOT), slot(Change::Absolute(units(252))));
    let body = String::from_utf8(SLOT.to_vec()).expect("text").replace(r#""field":"stock""#, r#""deleted":true"#);
    assert_eq!(parse(json!({"slots": true}), body.as_bytes()), slot(Change::Deleted));
}

#[test]
fn with_slots_the_accounts_number_is_not_counted_again() {
    let read = parse(json!({"slots": true}), PRODUCT).expect("readable");
    assert_eq!(read[0], sku("922957134", "sku-test-50"));
    assert!(matches!(&read[1..], [Observation::Irrelevant(why)] if why.contains("by slot")), "{read:?}");
    assert_eq!(source(json!({"slots": true})).settle("922957134", Some("1254028")), None);
}

#[test]
fn a_movement_is_counted_only_when_asked_for() {
    assert!(is_irrelevant(&parse(json!({}), VARIATION)));
    let moved = |measure| Ok(vec![fact(("922957134", None), Place::Default, measure, Change::Delta(units(-2)), None)]);
    assert_eq!(parse(json!({"variations": true}), VARIATION), moved(Measure::Available));
    assert_eq!(parse(json!({"variations": true, "count": "total_physical_stock"}), VARIATION), moved(Measure::OnHand));
    // The movement has no SKU: the product must have told it.
    let read = parse(json!({"variations": true}), PRODUCT).expect("readable");
    assert_eq!(read[0], sku("922957134", "sku-test-50"));
    // What a deleted record does to the stock is not known: ask.
    let body = String::from_utf8(VARIATION.to_vec())
        .expect("text")
        .replace(r#""additional_data":{}"#, r#""additional_data":{"deleted":true}"#);
    let fetch = Observation::Fetch(Need { key: "stock/922957134".into(), from: None });
    assert_eq!(parse(json!({"variations": true}), body.as_bytes()), Ok(vec![fetch]));
    assert_eq!(identify(json!({"variations": true}), body.as_bytes()), Identity::Content);
}

#[test]
fn a_key_of_the_objects_fields_would_drop_a_movement() {
    // Two movements of one product within a second that end at other numbers: class, id and `updated_at` are the same.
    let second = String::from_utf8(PRODUCT.to_vec()).expect("text").replace(r#""stock":-6"#, r#""stock":-7"#);
    let naive = |body: &[u8]| -> Vec<String> {
        let hook: serde_json::Value = serde_json::from_slice(body).expect("JSON");
        ["/object_class", "/object/id", "/object/updated_at"].map(|p| hook.pointer(p).expect("there").to_string()).into()
    };
    assert_eq!(naive(PRODUCT), naive(second.as_bytes()), "the naive key is the same for both");
    assert_eq!(identify(json!({}), PRODUCT), Identity::Content);
    assert_eq!(identify(json!({}), second.as_bytes()), Identity::Content);
}

#[test]
fn a_counted_movement_never_counts_twice() {
    // By content alone a movement repeated after another one would be taken for a new one.
    let named = Identity::Named(vec![b"55501".to_vec(), b"ProductStockVariation".to_vec()]);
    assert_eq!(identify(json!({"variations": true}), VARIATION), named);
    assert_eq!(identify(json!({"variations": true}), PRODUCT), Identity::Content);
    assert_eq!(identify(json!({}), VARIATION), Identity::Content);
    let nameless = String::from_utf8(VARIATION.to_vec()).expect("text").replace(r#""id":55501,"#, "");
    assert_eq!(identify(json!({"variations": true}), nameless.as_bytes()), Identity::Content);
}

#[test]
fn other_classes_are_irrelevant_and_broken_hooks_say_why() {
    for class in ["Order", "Shipment", "SlotStockVariation", "ProductBarcode", "Novelty"] {
        assert!(
            is_irrelevant(&parse(json!({}), format!(r#"{{"object_class":"{class}","object":{{}}}}"#).as_bytes())),
            "{class}"
        );
    }
    for (body, why) in [
        ("", "the body is not a JSON object"),
        ("[]", "the body is not a JSON object"),
        ("{}", "`object_class` is missing"),
        (r#"{"object_class":null}"#, "`object_class` is missing"),
        (r#"{"object_class":"Product"}"#, "`object` is missing"),
        (r#"{"object_class":"Product","object":[7,1]}"#, "`object` is [7,1], not an object"),
    ] {
        assert_eq!(parse(json!({}), body.as_bytes()), Err(Unreadable(why.to_owned())), "{body}");
    }
    // The vendor's own page shows pseudo-JSON; what really arrives must be JSON.
    assert!(parse(json!({}), b"{ object_class: \"Product\" }").is_err());
    let deep = product(&format!(r#""id":7,"stock":{}{}"#, "[".repeat(100_000), "]".repeat(100_000)));
    assert!(parse(json!({}), &deep).is_err());
    assert!(parse(json!({}), &product("\"id\":7,\"stock\":1,\"user_ref\":\"x").as_slice()[..60]).is_err());
}

#[test]
fn the_request_is_one_products_number() {
    let wms = source(json!({}));
    let need = wms.settle("922957134", None).expect("a number");
    let credentials = Credentials(vec![("token".to_owned(), Secret::new("t\n")), ("app_id".to_owned(), Secret::new("12"))]);
    let request = wms.request(&need, None, &credentials).expect("our own need");
    assert_eq!(request.target, "/products/922957134");
    assert_eq!(
        request.headers,
        vec![("authorization", "Bearer t".to_owned()), ("x-api-app-id", "12".to_owned()), ("x-api-version", "1".to_owned())]
    );
    for bad in ["", "1/2", "../x", "1?x=1", "a", "1 ", "-1", "１"] {
        assert_eq!(wms.settle(bad, None), None, "{bad}");
        let need = Need { key: format!("stock/{bad}").into(), from: None };
        assert_eq!(wms.request(&need, None, &credentials), None, "{bad}");
        assert!(wms.read(&need, SENT_AT, PRODUCT).is_err(), "{bad}");
    }
    assert_eq!(wms.catalogue("1"), None);
}

#[test]
fn the_answer_is_read_bare_or_wrapped() {
    let read =
        |key: &str, body: &str| source(json!({})).read(&Need { key: key.into(), from: None }, SENT_AT, body.as_bytes());
    let bare = r#"{"id":7,"user_ref":"A","stock":3,"total_physical_stock":4,"updated_at":"2022-06-30T14:53:00+00:00"}"#;
    let want =
        |at| Ok(vec![fact(("7", Some("A")), Place::Default, Measure::Available, Change::Absolute(units(3)), Some(at))]);
    assert_eq!(read("stock/7", bare), want(UPDATED_AT));
    assert_eq!(read("stock/7", &format!(r#"{{"product":{bare}}}"#)), want(UPDATED_AT));
    assert_eq!(read("stock/7", r#"{"id":7,"user_ref":"A","stock":3}"#), want(SENT_AT));
    assert!(read("stock/8", bare).is_err(), "the answer is about another product");
    assert!(read("stock/7", "Retry Later").is_err());
    assert!(read("stock/7", r#"{"product":null}"#).is_err());
}

#[test]
fn a_full_budget_or_the_firewall_means_later() {
    let judge = |status| {
        let headers = HeaderList::default();
        let need = Need { key: "stock/7".into(), from: None };
        source(json!({})).judge(&need, &ApiAnswer { status, headers: &headers, body: b"Retry Later" }, SENT_AT)
    };
    assert_eq!(judge(200), Verdict::Done);
    for later in [429, 403, 401, 503] {
        assert_eq!(judge(later), Verdict::Retry(None), "{later}");
    }
    assert_eq!(judge(404), Verdict::GiveUp("Shippingbo knows nothing at stock/7 (HTTP 404)".to_owned()));
}

/// Values that a field might hold.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("[{}]".to_owned()),
        Just("{\"deleted\":true}".to_owned()),
        Just("1e99999999999".to_owned()),
        "-?[1-9][0-9]{0,40}(\\.[0-9]{1,9})?",
        "[ -!#-\\[\\]-~]{0,12}".prop_map(|s| format!("\"{s}\"")),
    ]
}

/// Every way of reading.
fn every_setting() -> Vec<serde_json::Value> {
    vec![
        json!({}),
        json!({"trust": "token", "count": "total_physical_stock"}),
        json!({"trust": "headers", "header": "x-free", "slots": true}),
        json!({"variations": true}),
    ]
}

proptest! {
    #[test]
    fn nothing_panics(name in "x-shippingbo-hmac-sha256|authorization|x-free", text in "\\PC{0,40}", scheme: bool,
                      body in prop::collection::vec(any::<u8>(), 0..200), status in 100u16..600) {
        let text = if scheme { format!("Basic {text}") } else { text };
        for settings in every_setting() {
            let source = source(settings);
            let secrets = [Secret::new("a secret longer than the text can be, so that it never matches")];
            with(&[(&name, &text)], &body, |m| {
                prop_assert!(source.authenticate(m, &secrets).is_err());
                drop((source.identify(m), source.parse(m), source.greet("POST", m)));
                Ok(())
            })?;
            let headers = HeaderList(vec![("retry-after", text.as_str())]);
            for key in ["stock/1", text.as_str()] {
                let need = Need { key: key.into(), from: None };
                drop(source.judge(&need, &ApiAnswer { status, headers: &headers, body: &body }, SENT_AT));
                drop(source.read(&need, SENT_AT, &body));
            }
        }
    }

    #[test]
    fn odd_fields_never_panic_and_never_become_zero(class in "Product|SlotContent|ProductStockVariation", a in value(), b in value(),
                                                   c in value(), d in value(), e in value()) {
        let object = format!(
            r#"{{"id":{a},"product_id":{a},"warehouse_slot_id":{b},"user_ref":{b},"product_user_ref":{d},"stock":{c},"total_physical_stock":{c},"quantity":{c},"created_at":{d},"updated_at":{e}}}"#
        );
        let body = format!(r#"{{"object_class":"{class}","object":{object},"additional_data":{e}}}"#);
        for settings in every_setting() {
            drop(identify(settings.clone(), body.as_bytes()));
            for observation in parse(settings.clone(), body.as_bytes()).unwrap_or_default() {
                if let Observation::Fact(Fact { change: Change::Absolute(q) | Change::Delta(q), .. }) = observation {
                    prop_assert_eq!(c.trim_matches('"').parse::<Quantity>(), Ok(q));
                }
            }
            let need = Need { key: "stock/1".into(), from: None };
            drop(source(settings).read(&need, SENT_AT, object.as_bytes()));
        }
    }

    #[test]
    fn what_is_signed_passes_and_any_other_byte_does_not(body in prop::collection::vec(any::<u8>(), 1..100), flip: prop::sample::Index) {
        let tag = Encoding::Base64.encode(&sign(Algorithm::HmacSha256, b"k", &[&body]));
        let headers = [("x-shippingbo-hmac-sha256", tag.as_str())];
        prop_assert_eq!(authenticate(json!({}), &headers, &body, &["k"]), Ok(0));
        let mut other = body.clone();
        let i = flip.index(other.len());
        other[i] ^= 1;
        prop_assert_eq!(authenticate(json!({}), &headers, &other, &["k"]), Err(Refusal::BadSignature));
    }
}
