#![expect(clippy::needless_pass_by_value, reason = "a test hands its settings over as a literal")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::signature::{Algorithm, Encoding, sign};
use super::*;
use crate::limits::SIGNATURES_PER_MESSAGE_MAX;
use crate::time::Timestamp;
use crate::types::{Change, Fact, HeaderList, Item, Measure, Place, Quantity, Said};

const NOW: i64 = 1_710_496_800; // 2024-03-15T10:00:00Z

pub(super) fn read(settings: Value) -> (Box<dyn Source>, Vec<String>) {
    let mut settings = Settings::new("source.shop", settings.as_object().cloned().expect("a table"));
    let source = build(&mut settings);
    (source, settings.finish().into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect())
}

fn source(settings: Value) -> Box<dyn Source> {
    let (source, problems) = read(settings);
    assert_eq!(problems, Vec::<String>::new());
    source
}

/// A source as its section of the configuration file stands there.
fn from_toml(text: &str) -> Box<dyn Source> {
    source(serde_json::to_value(toml::from_str::<toml::Table>(text).expect("TOML")).expect("JSON"))
}

/// A request to a source.
pub(super) struct Request<'a> {
    headers: Vec<(&'a str, &'a str)>,
    query: &'a str,
    body: &'a [u8],
    at: i64,
}

impl<'a> Request<'a> {
    pub(super) fn new(headers: &[(&'a str, &'a str)], body: &'a str) -> Self {
        Self { headers: headers.to_vec(), query: "", body: body.as_bytes(), at: NOW }
    }

    fn ask<T>(&self, question: impl FnOnce(&Message<'_>) -> T) -> T {
        let headers = HeaderList(self.headers.clone());
        let received_at = Timestamp::from_seconds(self.at);
        question(&Message { query: self.query, headers: &headers, body: self.body, received_at })
    }

    pub(super) fn check(&self, source: &dyn Source, secrets: &[&str]) -> Result<usize, Refusal> {
        let secrets: Vec<Secret> = secrets.iter().map(|s| Secret::new(*s)).collect();
        self.ask(|m| source.authenticate(m, &secrets))
    }

    fn identity(&self, source: &dyn Source) -> Identity {
        self.ask(|m| source.identify(m))
    }

    fn says(&self, source: &dyn Source) -> Result<Vec<Observation>, Unreadable> {
        self.ask(|m| source.parse(m))
    }
}

fn named(parts: &[&str]) -> Identity {
    Identity::Named(parts.iter().map(|p| p.as_bytes().to_vec()).collect())
}

fn units(n: i64) -> Quantity {
    Quantity::from_units(n).expect("in range")
}

fn absolute(id: &str, sku: Option<&str>, place: &str, quantity: i64) -> Fact {
    let place = if place.is_empty() { Place::Default } else { Place::At(place.into()) };
    let item = Item { id: id.into(), sku: sku.map(Into::into) };
    Fact { item, place, measure: Measure::Available, change: Change::Absolute(units(quantity)), said: Said::default() }
}

fn vectors(scheme: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_json::from_str(include_str!("fixtures/vectors.json")).expect("fixture");
    let of_scheme: Vec<Value> = all.into_iter().filter(|v| v["scheme"] == scheme).collect();
    assert!(!of_scheme.is_empty(), "no vector of {scheme}");
    of_scheme
}

fn text<'v>(vector: &'v Value, key: &str) -> &'v str {
    vector[key].as_str().expect("a text")
}

fn hmac(algorithm: Algorithm, encoding: Encoding, key: &str, signed: &str) -> String {
    encoding.encode(&sign(algorithm, key.as_bytes(), &[signed.as_bytes()]))
}

fn sha256_hex(key: &str, signed: &str) -> String {
    hmac(Algorithm::HmacSha256, Encoding::Hex, key, signed)
}

/// Square as a platform nobody wrote code for.
const SQUARE: &str = r#"
success = 200
horizon = "72h"
signature = { encoding = "base64", header = "x-square-hmacsha256-signature", signed = "{url}{body}", url = "URL" }
identity = { pointers = ["/event_id", "/type"] }

[map]
rows = "/data/object/inventory_counts"
item = "/catalog_object_id"
location = "/location_id"
quantity = "/quantity"
time = "/calculated_at"
only_if = { "^/type" = "inventory.count.updated", "/state" = "IN_STOCK" }
"#;

#[test]
fn square_signs_the_registered_url_and_the_body() {
    for vector in vectors("square") {
        let source = from_toml(&SQUARE.replace("URL", text(&vector, "url")));
        let headers = [(text(&vector, "header"), text(&vector, "value"))];
        let genuine = Request::new(&headers, text(&vector, "body"));
        assert_eq!(genuine.check(&*source, &["old", text(&vector, "key")]), Ok(1));
        assert_eq!(genuine.check(&*source, &["old"]), Err(Refusal::BadSignature));
        let other_url = from_toml(&SQUARE.replace("URL", &format!("{}/", text(&vector, "url"))));
        assert_eq!(genuine.check(&*other_url, &[text(&vector, "key")]), Err(Refusal::BadSignature));
        let changed = text(&vector, "body").replacen(':', ": ", 1);
        assert_eq!(Request::new(&headers, &changed).check(&*source, &[text(&vector, "key")]), Err(Refusal::BadSignature));
    }
}

#[test]
fn square_counts_become_facts() {
    let source = from_toml(SQUARE);
    let body = include_str!("fixtures/square_inventory_count.json");
    let fact = Fact {
        said: Said { version: None, at: Some(Timestamp(1_572_374_325_102_960)) },
        ..absolute("FGQ5JJWT2PYTHF35CKZ2DSKP", None, "YYQR03DGCTXA4", 10)
    };
    let request = Request::new(&[], body);
    assert_eq!(request.says(&*source), Ok(vec![Observation::Fact(fact)]));
    assert_eq!(request.identity(&*source), named(&["df5f3813-a913-45a1-94e9-fdc3f7d5e3b6", "inventory.count.updated"]));
    assert_eq!(source.horizon(), Duration::from_secs(72 * 3600));
    let sold = body.replace("IN_STOCK", "SOLD");
    assert_eq!(
        Request::new(&[], &sold).says(&*source),
        Ok(vec![Observation::Irrelevant("`/state` is \"SOLD\"".to_owned())])
    );
    let test = &vectors("square")[0];
    assert_eq!(
        Request::new(&[], text(test, "body")).says(&*source),
        Ok(vec![Observation::Irrelevant("`^/type` is \"webhooks.test_notification\"".to_owned())])
    );
}

#[test]
fn base64_of_the_body_alone_is_shopify_shippingbo_and_woocommerce() {
    for scheme in ["shopify", "shippingbo", "woocommerce"] {
        let vector = &vectors(scheme)[0];
        let source = source(json!({"signature": {"encoding": "base64", "header": vector["header"]}}));
        let header = text(vector, "header").to_ascii_lowercase();
        let genuine = Request::new(&[(&header, text(vector, "value"))], text(vector, "body"));
        assert_eq!(genuine.check(&*source, &[text(vector, "key")]), Ok(0), "{scheme}");
        assert_eq!(genuine.check(&*source, &["another secret"]), Err(Refusal::BadSignature), "{scheme}");
    }
}

#[test]
fn id_timestamp_and_body_are_bigcommerce_and_standard_webhooks() {
    let signature = |key: &str| {
        json!({"signature": {
            "encoding": "base64", "header": "webhook-signature", "prefix": "v1,", "signed": "{id}.{timestamp}.{body}",
            "id_header": "webhook-id", "timestamp_header": "webhook-timestamp", "key": key
        }, "identity": {"header": "webhook-id"}})
    };
    for (scheme, key_form) in [("bigcommerce", "text"), ("standard-webhooks", "base64")] {
        let source = source(signature(key_form));
        assert_eq!(source.kept_headers(), ["webhook-id"]);
        for vector in vectors(scheme) {
            let ts = vector["ts"].to_string();
            let headers = [
                ("webhook-id", text(&vector, "id")),
                ("webhook-timestamp", ts.as_str()),
                ("webhook-signature", text(&vector, "value")),
            ];
            let at = vector["ts"].as_i64().expect("seconds");
            let request = |at, headers: &[(&'static str, _)]| Request { at, ..Request::new(headers, text(&vector, "body")) };
            let key = text(&vector, "key").trim_start_matches("whsec_");
            assert_eq!(request(at + 300, &headers).check(&*source, &[key]), Ok(0));
            assert_eq!(request(at - 300, &headers).check(&*source, &[key]), Ok(0));
            assert_eq!(request(at + 301, &headers).check(&*source, &[key]), Err(Refusal::Stale));
            assert_eq!(request(at - 301, &headers).check(&*source, &[key]), Err(Refusal::Stale));
            assert_eq!(request(at, &headers[1..]).check(&*source, &[key]), Err(Refusal::Unsigned));
            assert_eq!(request(at, &headers[..2]).check(&*source, &[key]), Err(Refusal::Unsigned));
            assert_eq!(request(at, &headers).identity(&*source), named(&[text(&vector, "id")]));
        }
    }
}

#[test]
fn stripe_like_fields_with_a_rotation() {
    let source = from_toml(
        r#"signature = { header = "Stripe-Signature", field = "v1", timestamp_field = "t", signed = "{timestamp}.{body}", tolerance = "10m" }"#,
    );
    let body = r#"{"sku":"A","quantity":1}"#;
    let (old, new) = (sha256_hex("old", &format!("{NOW}.{body}")), sha256_hex("new", &format!("{NOW}.{body}")));
    let header = format!("t={NOW},v1={old}, v1={new} ,v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39");
    let headers = [("stripe-signature", header.as_str())];
    let request = Request::new(&headers, body);
    assert_eq!(request.check(&*source, &["new"]), Ok(0));
    assert_eq!(request.check(&*source, &["other", "old"]), Ok(1));
    assert_eq!(request.check(&*source, &["other"]), Err(Refusal::BadSignature));
    assert_eq!(Request { at: NOW + 600, ..Request::new(&headers, body) }.check(&*source, &["new"]), Ok(0));
    assert_eq!(Request { at: NOW + 601, ..Request::new(&headers, body) }.check(&*source, &["new"]), Err(Refusal::Stale));
    for broken in
        [format!("v1={new}"), format!("t={NOW},v0={new}"), format!("t=,v1={new}"), format!("t={NOW},v1="), new.clone()]
    {
        let request = Request::new(&[("stripe-signature", broken.as_str())], body);
        assert_eq!(request.check(&*source, &["new"]), Err(Refusal::Unsigned), "{broken}");
    }
    let moved = header.replace(&NOW.to_string(), &(NOW + 1).to_string());
    assert_eq!(Request::new(&[("stripe-signature", &moved)], body).check(&*source, &["new"]), Err(Refusal::BadSignature));
}

#[test]
fn github_like_prefix() {
    let source = from_toml(
        r#"
        signature = { header = "x-hub-signature-256", prefix = "sha256=" }
        identity = { header = "x-github-delivery" }
        "#,
    );
    // The example of GitHub's own documentation.
    let (key, body) = ("It's a Secret to Everybody", "Hello, World!");
    let tag = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(Request::new(&[("x-hub-signature-256", tag)], body).check(&*source, &[key]), Ok(0));
    let upper = tag.to_ascii_uppercase().replace("SHA256", "sha256");
    assert_eq!(Request::new(&[("x-hub-signature-256", &upper)], body).check(&*source, &[key]), Ok(0));
    let truncated = tag.strip_suffix("17").expect("its last byte");
    assert_eq!(
        Request::new(&[("x-hub-signature-256", truncated)], body).check(&*source, &[key]),
        Err(Refusal::BadSignature)
    );
    for unsigned in [tag.trim_start_matches("sha256="), "sha256=", "sha256=zz", "sha1=757107ea"] {
        let request = Request::new(&[("x-hub-signature-256", unsigned)], body);
        assert_eq!(request.check(&*source, &[key]), Err(Refusal::Unsigned), "{unsigned}");
    }
    assert_eq!(Request::new(&[], body).check(&*source, &[key]), Err(Refusal::Unsigned));
}

#[test]
fn lightspeed_x_signs_a_form_and_carries_json_in_a_field() {
    let source = from_toml(
        r#"
        form_field = "payload"
        signature = { header = "X-Signature", field = "signature" }
        identity = { pointers = ["/id", "/version"] }
        map = { item = "/product_id", location = "/outlet_id", quantity = "/count", version = "/version" }
        measure = "on-hand"
        "#,
    );
    let body = "environment=prod&payload=%7B%22id%22%3A%22i-1%22%2C%22product_id%22%3A%22p-1%22%2C%22outlet_id%22%3A%22o+%C3%A9%22%2C%22count%22%3A%2213.00000%22%2C%22version%22%3A9007199254740993%7D";
    let header = format!("signature={}, algorithm=HMAC-SHA256", sha256_hex("client secret", body));
    let headers = [("x-signature", header.as_str())];
    let request = Request::new(&headers, body);
    assert_eq!(request.check(&*source, &["client secret"]), Ok(0));
    assert_eq!(request.identity(&*source), named(&["i-1", "9007199254740993"]));
    let fact = Fact {
        measure: Measure::OnHand,
        said: Said { version: Some(9_007_199_254_740_993), at: None },
        ..absolute("p-1", None, "o é", 13)
    };
    assert_eq!(request.says(&*source), Ok(vec![Observation::Fact(fact)]));
    let cause = |body: &str| Request::new(&[], body).says(&*source).expect_err("unreadable").0;
    assert_eq!(cause("environment=prod"), "the form has no field \"payload\"");
    assert!(cause("payload=%7B").starts_with("the body is not JSON: "));
    let binary = Request { body: b"payload=\xff", ..Request::new(&[], "") };
    assert_eq!(binary.says(&*source), Err(Unreadable("the body is not a form: it is not UTF-8".to_owned())));
}

#[test]
fn cin7_rows_of_one_location_are_added_up() {
    let toml = r#"
        signature = { algorithm = "token", header = "Authorization", prefix = "Bearer " }
        measure = "available"
        [map]
        rows = ""
        item = "/ID"
        sku = "/SKU"
        location = "/Location"
        quantity = "/Available"
        combine = "sum"
        "#;
    let body = include_str!("fixtures/cin7_available_stock.json");
    let request = Request::new(&[("authorization", "Bearer correct horse")], body);
    let source = from_toml(toml);
    assert_eq!(request.check(&*source, &["wrong", "correct horse"]), Ok(1));
    let id = "3bfdf57a-bbc7-4f09-ba28-9768a09e0a60";
    let bread = |n| Ok(vec![Observation::Fact(absolute(id, Some("Bread"), "Main Warehouse", n))]);
    assert_eq!(request.says(&*source), bread(488 + 8));
    let naive = from_toml(&toml.replace("combine = \"sum\"", ""));
    assert_eq!(request.says(&*naive), bread(8), "without the sum the last bin would stand for the whole location");
    assert_eq!(request.identity(&*source), Identity::Content, "the platform names no delivery");
}

#[test]
fn a_token_in_a_header() {
    let source = source(json!({"signature": {"algorithm": "token", "header": "x-api-key"}}));
    assert!(source.signed());
    let check = |token: &str, secrets: &[&str]| Request::new(&[("x-api-key", token)], "{}").check(&*source, secrets);
    assert_eq!(check("correct horse", &["correct horse"]), Ok(0));
    assert_eq!(check("correct hors", &["correct horse"]), Err(Refusal::BadSignature));
    assert_eq!(check("correct horse!", &["correct horse"]), Err(Refusal::BadSignature));
    assert_eq!(check("", &[""]), Err(Refusal::Unsigned));
    assert_eq!(check("x", &[""]), Err(Refusal::BadSignature));
}

#[test]
fn every_algorithm_encoding_and_form_of_key() {
    let body = r#"{"a":1}"#;
    for (algorithm, of) in
        [("hmac-sha256", Algorithm::HmacSha256), ("hmac-sha512", Algorithm::HmacSha512), ("hmac-sha1", Algorithm::HmacSha1)]
    {
        for (encoding, written) in [("hex", Encoding::Hex), ("base64", Encoding::Base64)] {
            let tag = hmac(of, written, "key \u{1}\u{2}", body);
            for (form, secret) in
                [("text", "key \u{1}\u{2}"), ("hex", "6b65792001 02"), ("hex", "6B6579200102"), ("base64", "a2V5IAEC")]
            {
                let source = source(json!({"signature": {"algorithm": algorithm, "encoding": encoding, "key": form}}));
                let outcome = Request::new(&[("x-signature", &tag)], body).check(&*source, &[secret]);
                let expected = if secret.contains("01 02") { Err(Refusal::BadSignature) } else { Ok(0) };
                assert_eq!(outcome, expected, "{algorithm} {encoding} {form} {secret}");
            }
        }
    }
}

#[test]
fn ed25519_with_a_public_key() {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("32 bytes");
    let public = Encoding::Hex.encode(pair.public_key().as_ref());
    let source = source(json!({"signature": {
        "algorithm": "ed25519", "key": "hex", "header": "x-signature-ed25519", "signed": "{timestamp}{body}",
        "timestamp_header": "x-signature-timestamp"
    }}));
    let now = NOW.to_string();
    let tag = Encoding::Hex.encode(pair.sign(format!("{now}{{}}").as_bytes()).as_ref());
    let headers = [("x-signature-ed25519", tag.as_str()), ("x-signature-timestamp", now.as_str())];
    assert_eq!(Request::new(&headers, "{}").check(&*source, &[&public]), Ok(0));
    assert_eq!(Request::new(&headers, "{ }").check(&*source, &[&public]), Err(Refusal::BadSignature));
    assert_eq!(Request::new(&headers, "{}").check(&*source, &["00"]), Err(Refusal::BadSignature));
}

#[test]
fn an_empty_key_is_nobodys_key() {
    let source = source(json!({"signature": {"key": "base64"}}));
    let tag = sha256_hex("", "{}");
    for secret in ["", " ", "=", "not base64"] {
        let outcome = Request::new(&[("x-signature", &tag)], "{}").check(&*source, &[secret]);
        assert_eq!(outcome, Err(Refusal::BadSignature), "{secret:?}");
    }
}

#[test]
fn templates_take_headers_query_and_braces() {
    let source = source(json!({"signature": {
        "signed": "{{{header:X-Shop}}}|{query:hook id}|{body}|{{", "header": "x-sig"
    }}));
    let tag = sha256_hex("k", "{north}|a b|{}|{");
    let headers = [("x-sig", tag.as_str()), ("x-shop", "north")];
    let request = |query| Request { query, ..Request::new(&headers, "{}") };
    assert_eq!(request("hook+id=a%20b").check(&*source, &["k"]), Ok(0));
    assert_eq!(request("hook+id=a%20c").check(&*source, &["k"]), Err(Refusal::BadSignature));
    assert_eq!(request("").check(&*source, &["k"]), Err(Refusal::Unsigned));
}

#[test]
fn timestamps_may_be_milliseconds_or_rfc_3339() {
    let source = source(json!({"signature": {
        "signed": "{timestamp}{body}", "timestamp_header": "x-time", "tolerance": "1m"
    }}));
    for (stamp, outcome) in [
        ("1710496860", Ok(0)),
        ("1710496740000", Ok(0)),
        ("2024-03-15T11:00:00+01:00", Ok(0)),
        ("1710496861", Err(Refusal::Stale)),
        ("1710496739999", Err(Refusal::Stale)),
        ("2024-03-15T11:00:00Z", Err(Refusal::Stale)),
        ("whenever", Err(Refusal::Stale)),
    ] {
        let tag = sha256_hex("k", &format!("{stamp}{{}}"));
        let headers = [("x-signature", tag.as_str()), ("x-time", stamp)];
        assert_eq!(Request::new(&headers, "{}").check(&*source, &["k"]), outcome, "{stamp}");
    }
}

#[test]
fn a_header_full_of_signatures_is_looked_at_in_part() {
    let source = source(json!({"signature": {"field": "v1"}}));
    let good = format!("v1={}", sha256_hex("k", "{}"));
    let check = |before: usize| {
        let header = format!("{}{good}", "v1=00,".repeat(before));
        Request::new(&[("x-signature", &header)], "{}").check(&*source, &["k"])
    };
    assert_eq!(check(SIGNATURES_PER_MESSAGE_MAX - 1), Ok(0));
    assert_eq!(check(SIGNATURES_PER_MESSAGE_MAX), Err(Refusal::BadSignature));
}

#[test]
fn without_a_signature_only_the_path_is_secret() {
    let source = source(json!({"signature": "none"}));
    assert!(!source.signed());
    assert_eq!(Request::new(&[], "{}").check(&*source, &[]), Ok(0));
}

#[test]
fn without_any_setting_it_is_signed_and_reads_the_plain_body() {
    let source = source(json!({}));
    assert!(source.signed());
    assert_eq!((source.success_status(), source.horizon()), (200, Duration::from_secs(48 * 3600)));
    let body = r#"{"sku":"A-1","quantity":5}"#;
    let tag = sha256_hex("k", body);
    let headers = [("x-signature", tag.as_str())];
    let request = Request::new(&headers, body);
    assert_eq!(request.check(&*source, &["k"]), Ok(0));
    assert_eq!(request.identity(&*source), Identity::Content);
    assert_eq!(request.says(&*source), Ok(vec![Observation::Fact(absolute("A-1", Some("A-1"), "", 5))]));
}

#[test]
fn all_parts_of_an_identity_or_none() {
    let source = source(json!({"identity": {"header": ["X-Id", "x-topic"], "query": "requestId", "pointers": "/n"}}));
    assert_eq!(source.kept_headers(), ["x-id", "x-topic"]);
    let full = Request { query: "requestId=q%31", ..Request::new(&[("x-id", "i"), ("x-topic", "t")], r#"{"n":1.0}"#) };
    assert_eq!(full.identity(&*source), named(&["i", "t", "q1", "1.0"]));
    let lacking = [
        Request { headers: vec![("x-id", "i")], ..Request::new(&[], r#"{"n":1}"#) },
        Request { headers: vec![("x-id", "i"), ("x-topic", " ")], ..Request::new(&[], r#"{"n":1}"#) },
        Request { query: "requestId=", ..Request::new(&[("x-id", "i"), ("x-topic", "t")], r#"{"n":1}"#) },
        Request { query: "requestId=q", ..Request::new(&[("x-id", "i"), ("x-topic", "t")], r#"{"n":null}"#) },
        Request { query: "requestId=q", ..Request::new(&[("x-id", "i"), ("x-topic", "t")], r#"{"n":{}}"#) },
        Request { query: "requestId=q", ..Request::new(&[("x-id", "i"), ("x-topic", "t")], "not JSON") },
    ];
    for request in lacking {
        assert_eq!(request.identity(&*source), Identity::Content);
    }
}

#[test]
fn the_body_distinguishes_what_an_id_alone_would_merge() {
    // A delivery id that is made of the second collides: two products changed in one second carry the same one.
    let (first, second) = (r#"{"sku":"A","quantity":1}"#, r#"{"sku":"B","quantity":2}"#);
    let with_body = source(json!({"identity": {"header": "x-delivery", "body": true}}));
    let naive = source(json!({"identity": {"header": "x-delivery"}}));
    let request = |body| Request::new(&[("x-delivery", "d-1710496800")], body);
    assert_eq!(request(first).identity(&*naive), request(second).identity(&*naive));
    assert_ne!(request(first).identity(&*with_body), request(second).identity(&*with_body));
    assert_eq!(request(first).identity(&*with_body), request(first).identity(&*with_body));
    assert_eq!(Request::new(&[], first).identity(&*with_body), Identity::Content, "without its id the body is no name");
    // Alone, the body names nothing: stock goes 5, 3 and back to 5.
    let body_only = source(json!({"identity": {"body": true}}));
    assert_eq!(request(first).identity(&*body_only), Identity::Content);
}

#[test]
fn a_challenge_is_echoed_when_it_is_short_and_plain() {
    let source = source(json!({"challenge": {"query": "challenge"}}));
    let greet = |method: &str, query: &str, body: &str| {
        Request { query, ..Request::new(&[], body) }.ask(|m| source.greet(method, m))
    };
    let greeting = |body: &str| Some(Greeting { status: 200, body: body.to_owned() });
    assert_eq!(
        greet("GET", "challenge=8ec8d794-e0ab-42df-9017-e3dada8e84f7", ""),
        greeting("8ec8d794-e0ab-42df-9017-e3dada8e84f7")
    );
    assert_eq!(greet("GET", "a=1&challenge=x%20y", ""), greeting("x y"));
    assert_eq!(greet("GET", &format!("challenge={}", "x".repeat(200)), ""), greeting(&"x".repeat(200)));
    for (method, query, body) in [
        ("POST", "challenge=x", ""),
        ("GET", "", ""),
        ("GET", "challenge=", ""),
        ("GET", "challenge=a%0d%0aset-cookie:b", ""),
        ("GET", "challenge=%C3%A9", ""),
        ("GET", "challenge=%ff", ""),
        ("GET", &format!("challenge={}", "x".repeat(201)), ""),
        ("GET", "challenge=x", "{}"),
    ] {
        assert_eq!(greet(method, query, body), None, "{method} {query}");
    }
}

#[test]
fn a_posted_challenge_never_swallows_a_delivery() {
    let source = source(json!({"challenge": {"query": "token", "method": "POST"}}));
    let greet = |body| Request { query: "token=abc", ..Request::new(&[], body) }.ask(|m| source.greet("POST", m));
    assert_eq!(greet("").map(|g| g.body).as_deref(), Some("abc"));
    assert_eq!(greet(r#"{"sku":"A","quantity":1}"#), None);
}

/// eBay sends no quantity, so there is no adapter; this keeps its handshake's rule on record.
#[test]
fn the_challenge_of_ebay_is_a_hash_and_so_not_an_echo() {
    let vector = &vectors("ebay-challenge")[0];
    let hashed = [text(vector, "body"), text(vector, "key"), text(vector, "url")].concat();
    let digest = ring::digest::digest(&ring::digest::SHA256, hashed.as_bytes());
    assert_eq!(Encoding::Hex.encode(digest.as_ref()), text(vector, "value"));
}

#[test]
fn the_success_status_is_the_platforms() {
    for status in [200, 201, 202, 204] {
        assert_eq!(source(json!({"success": status})).success_status(), status);
    }
    for status in [203, 205, 302, 199] {
        let (source, problems) = read(json!({"success": status}));
        assert_eq!((source.success_status(), problems.len()), (200, 1), "{status}");
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_nothing_passes(
        header in "\\PC{0,60}|(t|v1)=[0-9a-f]{0,70}(,(t|v1)=\"?[0-9a-f]{0,70}){0,3}",
        query in "[ -~]{0,60}",
        body in proptest::collection::vec(any::<u8>(), 0..200),
        payload in "\\PC{0,40}",
    ) {
        let source = from_toml(r#"
            form_field = "payload"
            challenge = { query = "c" }
            identity = { header = "x-signature", query = "q", pointers = ["/a/0"], body = true }
            signature = { field = "v1", timestamp_field = "t", signed = "{timestamp}{query:q}{body}" }
        "#);
        let form = format!("payload={payload}");
        for body in [body.as_slice(), form.as_bytes()] {
            let request = Request { query: &query, body, ..Request::new(&[("x-signature", &header)], "") };
            prop_assert!(request.check(&*source, &["k"]).is_err());
            drop((request.identity(&*source), request.says(&*source), request.ask(|m| source.greet("GET", m))));
        }
    }

    #[test]
    fn no_template_panics(template in "[{}a-z:]{0,20}") {
        let (source, _) = read(json!({"signature": {"signed": template}}));
        prop_assert!(source.signed());
    }
}
