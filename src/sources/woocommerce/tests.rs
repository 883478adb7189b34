use proptest::prelude::*;

use super::*;
use crate::sources::signature::sign;
use crate::types::{Change, Fact, HeaderList, Item, Measure, Place, Quantity, Said};

/// The body of the published rule's vector, byte for byte.
const PRODUCT: &[u8] = include_bytes!("fixtures/product.json");
const VARIATION: &[u8] = include_bytes!("fixtures/variation.json");
/// The vector's secret as the operator typed it, and as WordPress stores it.
const TYPED: &str = "a&b<c>\"d'";
const STORED: &str = "a&amp;b&lt;c&gt;&quot;d&#039;";
const TAG: &str = "kpDw5C23Y5D/vtyu003xxlqkQKARV0TgAuZwLnSSA2o=";
/// What a sender that forgot to decode the stored secret would send.
const TAG_UNDER_STORED: &str = "bBzLQ1MrEQAfkCMufqJ/PKu+YUh6JM2JbdZkLGgVgmQ=";
/// 2024-03-15T10:00:00 UTC.
const MODIFIED: Timestamp = Timestamp::from_seconds(1_710_496_800);
const SENT_AT: Timestamp = Timestamp::from_seconds(1_710_500_000);

fn source() -> Box<dyn Source> {
    build(&mut Settings::new("source.woo", serde_json::Map::new()))
}

fn with<T>(headers: &[(&str, &str)], body: &[u8], look: impl FnOnce(&Message<'_>) -> T) -> T {
    let headers = HeaderList(headers.to_vec());
    look(&Message { query: "", headers: &headers, body, received_at: SENT_AT })
}

fn authenticate(tag: &str, body: &[u8], secrets: &[&str]) -> Result<usize, Refusal> {
    let secrets: Vec<Secret> = secrets.iter().map(|s| Secret::new(*s)).collect();
    with(&[(SIGNATURE, tag)], body, |m| source().authenticate(m, &secrets))
}

fn parse(headers: &[(&str, &str)], body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    with(headers, body, |m| source().parse(m))
}

fn topic(topic: &str, body: &str) -> Result<Vec<Observation>, Unreadable> {
    parse(&[("x-wc-webhook-topic", topic)], body.as_bytes())
}

fn fact(item: &str, sku: Option<&str>, change: Change, at: Option<Timestamp>) -> Observation {
    Observation::Fact(Fact {
        item: Item { id: item.into(), sku: sku.map(Into::into) },
        place: Place::Default,
        measure: Measure::Available,
        change,
        said: Said { version: None, at },
    })
}

fn gone(item: &str, at: Option<Timestamp>) -> Observation {
    Observation::Fact(Fact {
        item: Item { id: item.into(), sku: None },
        place: Place::Everywhere,
        measure: Measure::Available,
        change: Change::Deleted,
        said: Said { version: None, at },
    })
}

fn sku(item: &str, sku: &str) -> Observation {
    Observation::Catalogue { item: item.into(), sku: sku.into() }
}

fn units(n: i64) -> Change {
    Change::Absolute(Quantity::from_units(n).expect("small"))
}

fn is_irrelevant(read: &Result<Vec<Observation>, Unreadable>) -> bool {
    matches!(read.as_deref(), Ok([Observation::Irrelevant(_)]))
}

#[test]
fn the_vector_verifies_however_the_secret_was_pasted() {
    assert_eq!(authenticate(TAG, PRODUCT, &[TYPED]), Ok(0));
    assert_eq!(authenticate(TAG, PRODUCT, &[STORED]), Ok(0));
    assert_eq!(authenticate(TAG, PRODUCT, &["next", STORED]), Ok(1));
    // The other vector is under the escaped text itself: it passes for who pasted that, not for who pasted the typed one.
    assert_eq!(authenticate(TAG_UNDER_STORED, PRODUCT, &[STORED]), Ok(0));
    assert_eq!(authenticate(TAG_UNDER_STORED, PRODUCT, &[TYPED]), Err(Refusal::BadSignature));
}

#[test]
fn forgeries_do_not_pass() {
    assert_eq!(authenticate(TAG, PRODUCT, &["other"]), Err(Refusal::BadSignature));
    assert_eq!(authenticate(TAG, &PRODUCT[1..], &[TYPED]), Err(Refusal::BadSignature));
    assert_eq!(authenticate("kpDw5C23Y5D/vtyu003x", PRODUCT, &[TYPED]), Err(Refusal::BadSignature));
    assert_eq!(authenticate("no base64!", PRODUCT, &[TYPED]), Err(Refusal::Unsigned));
    assert_eq!(authenticate("", PRODUCT, &[TYPED]), Err(Refusal::Unsigned));
    assert_eq!(with(&[], PRODUCT, |m| source().authenticate(m, &[Secret::new(TYPED)])), Err(Refusal::Unsigned));
}

#[test]
fn the_sender_signs_the_trimmed_body() {
    let padded = [b"\r\n ", PRODUCT, b"\n\0\x0b"].concat();
    assert_eq!(authenticate(TAG, &padded, &[TYPED]), Ok(0));
    // What was signed as it stands still passes as it stands.
    let whole = Encoding::Base64.encode(&sign(Algorithm::HmacSha256, b"k", &[&padded]));
    assert_eq!(authenticate(&whole, &padded, &["k"]), Ok(0));
    // Trimming is for the ends only, and a form feed is none of what PHP trims.
    assert_eq!(authenticate(TAG, &[PRODUCT, b"\x0c"].concat(), &[TYPED]), Err(Refusal::BadSignature));
    assert_eq!(trim(b" \t\n"), b"");
    assert_eq!(trim(b" a b "), b"a b");
}

#[test]
fn escapes_are_decoded_once_as_wordpress_does() {
    for (stored, typed) in [
        (STORED, Some(TYPED)),
        ("&amp;lt;", Some("&lt;")),
        ("&#39;&#0039;&#x27;&#X0027;", Some("''''")),
        ("&#34;&#034;&#x22;&quot;", Some("\"\"\"\"")),
        ("&#38;&#x26;&#60;&#62;", Some("&&<>")),
        ("x&amp", None),
        ("a&b;c", None),
        ("&#x3c;&#65;&nbsp;&#;&;&", None),
        ("plain", None),
        ("&&amp;", Some("&&")),
        ("&\u{e9};&lt;", Some("&\u{e9};<")),
    ] {
        assert_eq!(entities::decode(stored.as_bytes()).as_deref(), typed.map(str::as_bytes), "{stored}");
    }
}

#[test]
fn the_creation_ping_is_greeted_and_nothing_else_is() {
    let greet = |method, headers: &[(&str, &str)], body: &[u8]| with(headers, body, |m| source().greet(method, m));
    assert_eq!(greet("POST", &[], b"webhook_id=15"), Some(Greeting { status: 200, body: String::new() }));
    for body in [&b"webhook_id="[..], b"webhook_id=1&x=2", b"webhook_id=-1", b"", PRODUCT, &[b'1'; 100]] {
        assert_eq!(greet("POST", &[], body), None);
    }
    assert_eq!(greet("GET", &[], b"webhook_id=15"), None);
    assert_eq!(greet("POST", &[(SIGNATURE, TAG)], b"webhook_id=15"), None, "what is signed is a delivery");
}

#[test]
fn the_delivery_id_would_drop_one_of_two_products_of_a_second() {
    // The platform makes it of the webhook's id and the second: both deliveries carry the same one.
    let headers =
        [("x-wc-webhook-delivery-id", "5fb2e3"), ("x-wc-webhook-id", "7"), ("x-wc-webhook-topic", "product.updated")];
    let one = with(&headers, PRODUCT, |m| source().identify(m));
    let two = with(&headers, VARIATION, |m| source().identify(m));
    assert_eq!((one, two), (Identity::Content, Identity::Content), "bodies are compared, the shared id never is");
    assert!(!source().kept_headers().iter().any(|h| h == "x-wc-webhook-delivery-id"));
}

#[test]
fn a_product_tells_its_sku_and_its_stock() {
    let want = vec![sku("794", "woo-vneck-tee-red"), fact("794", Some("woo-vneck-tee-red"), units(9), Some(MODIFIED))];
    let body = std::str::from_utf8(PRODUCT).expect("text");
    for name in ["product.created", "product.updated", "product.restored", "product.published"] {
        assert_eq!(topic(name, body), Ok(want.clone()), "{name}");
    }
    // The same from the two fields beside the topic, and by the body's shape alone.
    let parts = [("x-wc-webhook-resource", "product"), ("x-wc-webhook-event", "updated")];
    assert_eq!(parse(&parts, PRODUCT), Ok(want.clone()));
    assert_eq!(parse(&[], PRODUCT), Ok(want));
}

#[test]
fn stock_is_exact_and_uncounted_is_not_zero() {
    let read = |manage: &str, quantity: &str| {
        let body =
            format!(r#"{{"id":1,"sku":"","manage_stock":{manage},"stock_quantity":{quantity},"date_modified_gmt":null}}"#);
        topic("product.updated", &body)
    };
    let want = |change| Ok(vec![fact("1", None, change, None)]);
    assert_eq!(read("true", "0"), want(units(0)));
    assert_eq!(read("true", "-2"), want(units(-2)));
    assert_eq!(read("true", "46.5"), want(Change::Absolute(Quantity::from_micros(46_500_000))));
    assert_eq!(read("true", "null"), want(Change::Untracked));
    assert_eq!(read("false", "null"), want(Change::Untracked));
    assert_eq!(read("false", "12"), want(Change::Untracked));
    assert_eq!(read("true", "\"x\""), Err(Unreadable("`stock_quantity` is \"x\": not a decimal number".to_owned())));
    assert_eq!(
        read("\"yes\"", "1"),
        Err(Unreadable("`manage_stock` of product 1 is not true, false or \"parent\"".to_owned()))
    );
}

#[test]
fn a_variation_on_its_parents_stock_says_nothing_of_its_own() {
    let read = parse(&[("x-wc-webhook-topic", "product.updated")], VARIATION).expect("readable");
    assert_eq!(read[0], sku("732", "woo-vneck-tee-blue-l"));
    assert!(matches!(&read[1..], [Observation::Irrelevant(why)] if why.contains("parent")), "{read:?}");
}

#[test]
fn a_deletion_ends_the_product_everywhere() {
    assert_eq!(topic("product.deleted", r#"{"id":123}"#), Ok(vec![gone("123", None)]));
    // Without a topic it might be an order's: nothing is deleted on a guess.
    let read = parse(&[], br#"{"id":123}"#);
    assert!(matches!(&read, Err(Unreadable(why)) if why.contains("does not say what was deleted")), "{read:?}");
    assert!(is_irrelevant(&parse(&[("x-wc-webhook-topic", "order.deleted")], br#"{"id":123}"#)));
}

#[test]
fn other_topics_are_irrelevant_whatever_they_carry() {
    for name in ["order.updated", "customer.created", "coupon.deleted", "nonsense", "products.updated"] {
        assert!(is_irrelevant(&topic(name, "not even JSON")), "{name}");
    }
    assert!(is_irrelevant(&parse(&[], br#"{"id":9,"status":"processing","date_modified_gmt":"2024-03-15T10:00:00"}"#)));
}

#[test]
fn an_action_that_names_a_product_is_fetched() {
    let read = |body: &str| topic("action.woocommerce_product_set_stock", body);
    let fetch = Observation::Fetch(Need { key: "stock/123".into(), from: None });
    assert_eq!(read(r#"{"action":"woocommerce_product_set_stock","arg":123}"#), Ok(vec![fetch.clone()]));
    assert_eq!(read(r#"{"action":"woocommerce_updated_product_stock","arg":"123"}"#), Ok(vec![fetch]));
    for body in [
        r#"{"action":"woocommerce_product_set_stock","arg":{}}"#,
        r#"{"action":"woocommerce_product_set_stock","arg":"1/../orders"}"#,
        r#"{"action":"woocommerce_product_set_stock"}"#,
        r#"{"action":"woocommerce_payment_complete","arg":123}"#,
    ] {
        assert!(is_irrelevant(&read(body)), "{body}");
    }
    assert!(read("{}").is_err());
}

#[test]
fn unreadable_bodies_say_why() {
    for (body, why) in [
        ("webhook_id=15", "the body is not a JSON object"),
        (r#"{"sku":"a","manage_stock":true,"stock_quantity":1}"#, "`id` is missing"),
        (r#"{"id":1}"#, "`manage_stock` of product 1 is missing"),
        (r#"{"id":1,"manage_stock":true}"#, "`stock_quantity` is missing"),
        (
            r#"{"id":1,"manage_stock":true,"stock_quantity":1,"date_modified_gmt":"yesterday"}"#,
            "`date_modified_gmt` is \"yesterday\", not a time",
        ),
        (
            r#"{"code":"woocommerce_rest_cannot_view","message":"Sorry","data":{"status":401}}"#,
            "the shop sent an error in place of a product: woocommerce_rest_cannot_view (may the webhook's user read products?)",
        ),
    ] {
        assert_eq!(topic("product.updated", body), Err(Unreadable(why.to_owned())), "{body}");
    }
    let deep = format!(r#"{{"id":1,"manage_stock":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(topic("product.updated", &deep).is_err());
    assert!(parse(&[("x-wc-webhook-topic", "product.updated")], b"{\"id\":\"\xff\"}").is_err());
}

#[test]
fn requests_carry_the_consumer_key_and_nothing_that_is_no_number() {
    let shop = source();
    let credentials = Credentials(vec![
        ("consumer_key".to_owned(), Secret::new("ck_1\n")),
        ("consumer_secret".to_owned(), Secret::new("cs_2")),
    ]);
    for need in [shop.settle("794", None), shop.settle("794", Some("x")), shop.catalogue("794")] {
        let request = shop.request(&need.expect("a number"), None, &credentials).expect("our own need");
        assert_eq!(request.target, "/wp-json/wc/v3/products/794");
        assert_eq!(request.headers, vec![("authorization", "Basic Y2tfMTpjc18y".to_owned())]);
    }
    for bad in ["", "1/2", "../x", "1?x=1", "a", "1 ", "-1", "１"] {
        assert_eq!(shop.settle(bad, None), None, "{bad}");
        assert_eq!(shop.catalogue(bad), None, "{bad}");
        let need = Need { key: format!("stock/{bad}").into(), from: None };
        assert_eq!(shop.request(&need, None, &credentials), None, "{bad}");
        assert!(shop.read(&need, SENT_AT, PRODUCT).is_err(), "{bad}");
    }
}

const NO_PRODUCT: &[u8] = br#"{"code":"woocommerce_rest_product_invalid_id","message":"Invalid ID.","data":{"status":404}}"#;
const NO_ROUTE: &[u8] = br#"{"code":"rest_no_route","message":"No route was found.","data":{"status":404}}"#;

fn judge(key: &str, status: u16, body: &[u8]) -> Verdict {
    let headers = HeaderList(vec![("retry-after", "30")]);
    source().judge(&Need { key: key.into(), from: None }, &ApiAnswer { status, headers: &headers, body }, SENT_AT)
}

fn read(key: &str, body: &[u8]) -> Result<Vec<Observation>, Unreadable> {
    source().read(&Need { key: key.into(), from: None }, SENT_AT, body)
}

#[test]
fn a_product_that_the_shop_itself_calls_gone_is_deleted() {
    assert_eq!(judge("stock/123", 404, NO_PRODUCT), Verdict::Done);
    assert_eq!(read("stock/123", NO_PRODUCT), Ok(vec![gone("123", Some(SENT_AT))]));
    // A wrong address or a page of HTML proves nothing about the product.
    assert!(matches!(judge("stock/123", 404, NO_ROUTE), Verdict::GiveUp(_)));
    assert!(matches!(judge("stock/123", 404, b"<html>"), Verdict::GiveUp(_)));
    assert!(matches!(judge("catalogue/123", 404, NO_PRODUCT), Verdict::GiveUp(_)));
    assert!(read("stock/123", NO_ROUTE).is_err());
    assert_eq!(judge("stock/123", 200, PRODUCT), Verdict::Done);
    assert_eq!(judge("stock/123", 429, b"slow down"), Verdict::Retry(Some(Duration::from_secs(30))));
}

#[test]
fn a_host_may_say_when_as_seconds_or_as_a_date() {
    let judge = |text: &str| {
        let headers = HeaderList(vec![("retry-after", text)]);
        let need = Need { key: "stock/1".into(), from: None };
        let now = Timestamp::from_seconds(784_111_700);
        source().judge(&need, &ApiAnswer { status: 503, headers: &headers, body: b"" }, now)
    };
    assert_eq!(judge(" 120 "), Verdict::Retry(Some(Duration::from_secs(120))));
    assert_eq!(judge("Sun, 06 Nov 1994 08:49:37 GMT"), Verdict::Retry(Some(Duration::from_secs(77))));
    assert_eq!(judge("Sun, 06 Nov 1994 08:00:00 GMT"), Verdict::Retry(Some(Duration::ZERO)));
    assert_eq!(judge("later"), Verdict::Retry(None));
}

#[test]
fn answers_are_read_for_what_was_asked() {
    let name = "woo-vneck-tee-red";
    assert_eq!(read("stock/794", PRODUCT), Ok(vec![sku("794", name), fact("794", Some(name), units(9), Some(MODIFIED))]));
    assert_eq!(read("catalogue/794", PRODUCT), Ok(vec![sku("794", name)]));
    assert!(read("stock/795", PRODUCT).is_err(), "the answer is about another product");
    assert!(read("catalogue/795", PRODUCT).is_err());
    assert!(is_irrelevant(&read("catalogue/1", br#"{"id":1,"sku":""}"#)));
    let timeless = br#"{"id":1,"manage_stock":true,"stock_quantity":3}"#;
    assert_eq!(read("stock/1", timeless), Ok(vec![fact("1", None, units(3), Some(SENT_AT))]));
    assert!(read("stock/1", b"<html>maintenance</html>").is_err());
}

/// Values that a field might hold.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("[{}]".to_owned()),
        Just("1e-99999999999".to_owned()),
        "-?[1-9][0-9]{0,40}(\\.[0-9]{1,9})?",
        "[ -!#-\\[\\]-~]{0,12}".prop_map(|s| format!("\"{s}\"")),
    ]
}

proptest! {
    #[test]
    fn nothing_panics(name in "x-wc-webhook-(topic|resource|event|signature)", text in "\\PC{0,40}",
                      body in prop::collection::vec(any::<u8>(), 0..200), status in 100u16..600) {
        let source = source();
        let secrets = [Secret::new("s"), Secret::new(text.as_bytes())];
        with(&[(&name, &text)], &body, |m| {
            prop_assert!(source.authenticate(m, &secrets).is_err());
            drop((source.identify(m), source.parse(m), source.greet("POST", m)));
            Ok(())
        })?;
        let headers = HeaderList(vec![("retry-after", text.as_str())]);
        for key in ["stock/1", "catalogue/1", text.as_str()] {
            let need = Need { key: key.into(), from: None };
            drop(source.judge(&need, &ApiAnswer { status, headers: &headers, body: &body }, SENT_AT));
            drop(source.read(&need, SENT_AT, &body));
        }
    }

    #[test]
    fn odd_fields_never_panic_and_never_become_zero(a in value(), b in value(), c in value(), d in value(), e in value(),
                                                   with_topic: bool) {
        let body = format!(r#"{{"id":{a},"sku":{b},"manage_stock":{e},"stock_quantity":{c},"date_modified_gmt":{d},"code":{b}}}"#);
        let headers: &[(&str, &str)] = if with_topic { &[("x-wc-webhook-topic", "product.updated")] } else { &[] };
        for observation in parse(headers, body.as_bytes()).unwrap_or_default() {
            if let Observation::Fact(Fact { change: Change::Absolute(q), .. }) = observation {
                prop_assert_eq!(c.trim_matches('"').parse::<Quantity>(), Ok(q));
            }
        }
        drop((read("stock/1", body.as_bytes()), read("catalogue/1", body.as_bytes())));
        drop(topic("action.x", &format!(r#"{{"action":{b},"arg":{a}}}"#)));
    }

    #[test]
    fn an_escaped_secret_signs_like_the_typed_one(typed in "[a-z&<>\"';#0-9]{1,20}", body in prop::collection::vec(any::<u8>(), 1..60)) {
        let stored = typed.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#039;");
        let tag = Encoding::Base64.encode(&sign(Algorithm::HmacSha256, typed.as_bytes(), &[trim(&body)]));
        prop_assert_eq!(authenticate(&tag, &body, &[&typed]), Ok(0));
        prop_assert_eq!(authenticate(&tag, &body, &[&stored]), Ok(0));
        prop_assert_eq!(authenticate(&tag, &[&body[..], b"x"].concat(), &[&stored]), Err(Refusal::BadSignature));
    }
}
