#![expect(clippy::needless_pass_by_value, reason = "a test hands its settings over as a literal")]

use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::types::{Change, Fact, HeaderList, Item, Measure, Place, Quantity, Said};

const VECTORS: &str = include_str!("fixtures/vectors.json");
const STOCK_CHANGED: &str = include_str!("fixtures/bigcommerce_stock_changed.json");

fn read(settings: Value) -> (Box<dyn Source>, Vec<String>) {
    let mut settings = Settings::new("source.hook", settings.as_object().cloned().expect("a table"));
    let source = build(&mut settings);
    (source, settings.finish().into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect())
}

fn source(settings: Value) -> Box<dyn Source> {
    let (source, problems) = read(settings);
    assert_eq!(problems, Vec::<String>::new());
    source
}

/// A request: header fields, body, and when it arrived.
struct Request {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    received_at: Timestamp,
}

impl Request {
    fn new(id: &str, ts: i64, signature: &str, body: &str) -> Self {
        let headers = vec![
            ("webhook-id".to_owned(), id.to_owned()),
            ("webhook-timestamp".to_owned(), ts.to_string()),
            ("webhook-signature".to_owned(), signature.to_owned()),
        ];
        Self { headers, body: body.into(), received_at: Timestamp::from_seconds(ts) }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| n != name);
        self
    }

    fn later(mut self, seconds: i64) -> Self {
        self.received_at = Timestamp(self.received_at.0 + seconds * 1_000_000);
        self
    }

    fn ask<T>(&self, question: impl FnOnce(&Message<'_>) -> T) -> T {
        let headers = HeaderList(self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect());
        question(&Message { query: "", headers: &headers, body: &self.body, received_at: self.received_at })
    }

    fn check(&self, source: &dyn Source, secrets: &[&str]) -> Result<usize, Refusal> {
        let secrets: Vec<Secret> = secrets.iter().map(|s| Secret::new(*s)).collect();
        self.ask(|m| source.authenticate(m, &secrets))
    }
}

// The second published vector, taken apart.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TS: i64 = 1_614_265_330;
const BODY: &str = "{\"test\": 2432232314}";
const GOOD: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

fn request(signature: &str) -> Request {
    Request::new(ID, TS, signature, BODY)
}

#[test]
fn every_vector_passes_and_its_forgeries_do_not() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).expect("fixture");
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let text = |key: &str| vector[key].as_str().expect("a text").to_owned();
        let (key, signature, body) = (text("key"), text("value"), text("body"));
        let format = if vector["scheme"] == "bigcommerce" { "raw" } else { "auto" };
        let source = source(json!({ "secret_format": format }));
        let ts = vector["ts"].as_i64().expect("seconds");
        let genuine = Request::new(&text("id"), ts, &signature, &body);
        assert_eq!(genuine.check(&*source, &["whsec_b3RoZXI=", &key]), Ok(1), "{key}");
        for forged in [
            Request::new(&text("id"), ts, &signature, &body.replacen(':', ": ", 1)),
            Request::new(&text("id"), ts, &signature, body.strip_suffix('}').expect("an object")),
            Request::new(&text("id"), ts + 1, &signature, &body),
            Request::new("msg_other", ts, &signature, &body),
        ] {
            assert_eq!(forged.check(&*source, &[&key]), Err(Refusal::BadSignature), "{key}");
        }
        assert_eq!(genuine.check(&*source, &["whsec_b3RoZXI="]), Err(Refusal::BadSignature));
        assert_eq!(genuine.check(&*source, &[]), Err(Refusal::BadSignature));
    }
}

#[test]
fn the_list_of_what_must_fail() {
    let source = source(json!({}));
    let outcome = |request: Request| request.check(&*source, &[SECRET]);
    assert_eq!(outcome(request(GOOD)), Ok(0));
    for unsigned in ["v1,", "v2,", "v1", "", "v1,***", &GOOD.replace("v1,", "v2,"), &GOOD.replace("v1,", "v1a,")] {
        assert_eq!(outcome(request(unsigned)), Err(Refusal::Unsigned), "{unsigned}");
    }
    assert_eq!(outcome(request("v1,g0hM9SsE")), Err(Refusal::BadSignature));
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        assert_eq!(outcome(request(GOOD).without(name)), Err(Refusal::Unsigned), "{name}");
        assert_eq!(outcome(request(GOOD).with(name, " ")), Err(Refusal::Unsigned), "{name}");
    }
    for seconds in [-301, 301] {
        assert_eq!(outcome(request(GOOD).later(seconds)), Err(Refusal::Stale), "{seconds}");
    }
    for wrong in ["soon", "1614265330.0", "2021-02-25T15:02:10Z", "99999999999999999999"] {
        assert_eq!(outcome(request(GOOD).with("webhook-timestamp", wrong)), Err(Refusal::Unsigned), "{wrong}");
    }
}

#[test]
fn the_list_of_what_must_pass() {
    let source = source(json!({}));
    let other = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=";
    for several in [format!("{other} {GOOD}"), format!("{GOOD} {other}"), format!("v2,abc v1a,AAAA  {other} {GOOD}")] {
        assert_eq!(request(&several).check(&*source, &[SECRET]), Ok(0), "{several}");
    }
    for seconds in [-300, 0, 300] {
        assert_eq!(request(GOOD).later(seconds).check(&*source, &[SECRET]), Ok(0), "{seconds}");
    }
    let unpadded = GOOD.trim_end_matches('=');
    assert_eq!(request(unpadded).check(&*source, &[SECRET]), Ok(0));
}

#[test]
fn the_tolerance_is_configurable() {
    let hour = source(json!({"tolerance": "1h"}));
    assert_eq!(request(GOOD).later(3600).check(&*hour, &[SECRET]), Ok(0));
    assert_eq!(request(GOOD).later(3601).check(&*hour, &[SECRET]), Err(Refusal::Stale));
    // An old message with a wrong signature is a wrong signature: only what is genuine can be late.
    assert_eq!(request("v1,AAAA").later(9999).check(&*hour, &[SECRET]), Err(Refusal::BadSignature));
}

#[test]
fn a_header_full_of_signatures_is_looked_at_in_part() {
    let source = source(json!({}));
    let padding = "v1,AAAA ".repeat(SIGNATURES_PER_MESSAGE_MAX);
    assert_eq!(request(&format!("{padding}{GOOD}")).check(&*source, &[SECRET]), Err(Refusal::BadSignature));
    let one_less = padding.strip_suffix("v1,AAAA ").expect("repeated");
    assert_eq!(request(&format!("{one_less}{GOOD}")).check(&*source, &[SECRET]), Ok(0));
}

#[test]
fn secrets_may_lack_prefix_and_padding_but_never_content() {
    let source = source(json!({}));
    assert_eq!(request(GOOD).check(&*source, &["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]), Ok(0));
    let key = b"twenty-five bytes of key!";
    let parts: [&[u8]; 5] = [ID.as_bytes(), b".", b"1614265330", b".", BODY.as_bytes()];
    let signed = request(&format!("v1,{}", Encoding::Base64.encode(&sign(Algorithm::HmacSha256, key, &parts))));
    let padded = Encoding::Base64.encode(key);
    assert!(padded.ends_with("=="));
    for secret in [format!("whsec_{padded}"), padded.clone(), format!("whsec_{}", padded.trim_end_matches('='))] {
        assert_eq!(signed.check(&*source, &[&secret]), Ok(0), "{secret}");
    }
    // Whoever knows nothing can compute the HMAC under an empty key.
    let empty = request(&format!("v1,{}", Encoding::Base64.encode(&sign(Algorithm::HmacSha256, b"", &parts))));
    for secret in ["whsec_", "", "  ", "whsec_not base64", "whpk_", "whsk_AAAA"] {
        assert_eq!(empty.check(&*source, &[secret]), Err(Refusal::BadSignature), "{secret}");
    }
}

#[test]
fn raw_takes_the_bytes_as_they_are() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).expect("fixture");
    let vector = vectors.iter().find(|v| v["scheme"] == "bigcommerce").expect("fixture");
    let text = |key: &str| vector[key].as_str().expect("a text");
    assert_eq!(text("body"), STOCK_CHANGED);
    let request = Request::new(text("id"), vector["ts"].as_i64().expect("seconds"), text("value"), STOCK_CHANGED);
    assert_eq!(request.check(&*source(json!({"secret_format": "raw"})), &["client_secret_value"]), Ok(0));
    // The library that the sender uses is given base64 of the client secret; in that form `auto` takes it too.
    let encoded = Encoding::Base64.encode(b"client_secret_value");
    assert_eq!(request.check(&*source(json!({})), &[&encoded]), Ok(0));
    assert_eq!(request.check(&*source(json!({})), &["client_secret_value"]), Err(Refusal::BadSignature));
}

fn asymmetric() -> (Ed25519KeyPair, String) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes");
    let public = format!("whpk_{}", Encoding::Base64.encode(pair.public_key().as_ref()));
    (pair, public)
}

fn v1a(pair: &Ed25519KeyPair, body: &str) -> String {
    let signature = pair.sign(format!("{ID}.{TS}.{body}").as_bytes());
    format!("v1a,{}", Encoding::Base64.encode(signature.as_ref()))
}

#[test]
fn asymmetric_signatures_are_verified_with_the_public_key() {
    let source = source(json!({}));
    let (pair, public) = asymmetric();
    let signature = v1a(&pair, BODY);
    assert_eq!(request(&signature).check(&*source, &[SECRET, &public]), Ok(1));
    assert_eq!(request(&format!("v1,AAAA {signature}")).check(&*source, &[&public]), Ok(0));
    assert_eq!(request(&v1a(&pair, "{}")).check(&*source, &[&public]), Err(Refusal::BadSignature));
    assert_eq!(request(&signature).later(301).check(&*source, &[&public]), Err(Refusal::Stale));
    // A public key is public: it must never serve as an HMAC key, whatever version the header claims.
    let bytes = pair.public_key().as_ref();
    let parts: [&[u8]; 5] = [ID.as_bytes(), b".", b"1614265330", b".", BODY.as_bytes()];
    let confused = format!("v1,{}", Encoding::Base64.encode(&sign(Algorithm::HmacSha256, bytes, &parts)));
    assert_eq!(request(&confused).check(&*source, &[&public]), Err(Refusal::BadSignature));
}

#[test]
fn both_versions_during_a_migration() {
    let source = source(json!({}));
    let (pair, public) = asymmetric();
    let both = request(&format!("{GOOD} {}", v1a(&pair, BODY)));
    assert_eq!(both.check(&*source, &[SECRET]), Ok(0));
    assert_eq!(both.check(&*source, &[&public]), Ok(0));
}

#[test]
fn the_older_header_names_are_taken_too() {
    let source = source(json!({}));
    let older = Request {
        headers: request(GOOD).headers.into_iter().map(|(n, v)| (n.replace("webhook-", "svix-"), v)).collect(),
        ..request(GOOD)
    };
    assert_eq!(older.check(&*source, &[SECRET]), Ok(0));
    assert_eq!(older.ask(|m| source.identify(m)), Identity::Named(vec![ID.as_bytes().to_vec()]));
    // An unsigned second id cannot rename a delivery that was signed under the first: it is then not genuine at all.
    let renamed = older.with("webhook-id", "msg_new");
    assert_eq!(renamed.check(&*source, &[SECRET]), Err(Refusal::Unsigned));
}

#[test]
fn the_id_alone_names_a_delivery_because_a_retry_has_another_timestamp() {
    let source = source(json!({}));
    let sign_at = |ts: i64| {
        let parts: [&[u8]; 5] = [ID.as_bytes(), b".", &ts.to_string().into_bytes(), b".", BODY.as_bytes()];
        let key = Encoding::Base64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        Request::new(ID, ts, &format!("v1,{}", Encoding::Base64.encode(&sign(Algorithm::HmacSha256, &key, &parts))), BODY)
    };
    let (first, retry) = (sign_at(TS), sign_at(TS + 3600));
    assert_eq!((first.check(&*source, &[SECRET]), retry.check(&*source, &[SECRET])), (Ok(0), Ok(0)));
    assert_eq!(first.ask(|m| source.identify(m)), retry.ask(|m| source.identify(m)));
    let naive = |r: &Request| r.headers.iter().map(|(_, v)| v.clone()).collect::<Vec<_>>();
    assert_ne!(naive(&first), naive(&retry), "a key over all three fields would see two deliveries");
    assert_eq!(request(GOOD).without("webhook-id").ask(|m| source.identify(m)), Identity::Content);
}

#[test]
fn what_identify_reads_is_kept() {
    let source = source(json!({}));
    assert_eq!(source.kept_headers(), ["webhook-id", "svix-id"]);
    let kept = request(GOOD).without("webhook-timestamp").without("webhook-signature");
    assert_eq!(kept.ask(|m| source.identify(m)), request(GOOD).ask(|m| source.identify(m)));
}

#[test]
fn the_suggested_payload_is_read_without_a_map() {
    let source = source(json!({"types": ["stock.updated"]}));
    let body = r#"{"type":"stock.updated","timestamp":"2022-11-03T20:26:10.344522Z","data":{"sku":"A-1","location":"north","quantity":-2}}"#;
    let expected = Fact {
        item: Item { id: "A-1".into(), sku: Some("A-1".into()) },
        place: Place::At("north".into()),
        measure: Measure::Available,
        change: Change::Absolute(Quantity::from_units(-2).expect("in range")),
        said: Said { version: None, at: Some(Timestamp(1_667_507_170_344_522)) },
    };
    assert_eq!(Request::new(ID, TS, GOOD, body).ask(|m| source.parse(m)), Ok(vec![Observation::Fact(expected)]));
    let other = r#"{"type":"order.created","timestamp":"2022-11-03T20:26:10Z","data":{"id":1}}"#;
    assert_eq!(
        Request::new(ID, TS, GOOD, other).ask(|m| source.parse(m)),
        Ok(vec![Observation::Irrelevant("`/type` is \"order.created\"".to_owned())])
    );
    let empty = Request::new(ID, TS, GOOD, r#"{"type":"stock.updated","data":{"sku":"A"}}"#).ask(|m| source.parse(m));
    assert_eq!(empty, Err(Unreadable("no quantity at /data/quantity".to_owned())));
}

/// BigCommerce's legacy hook carries a number that is not the stock; its topic can be told apart and left alone.
#[test]
fn a_map_of_ones_own() {
    let source = source(json!({
        "secret_format": "raw",
        "map": {"item": "/data/id", "quantity": "/data/qty", "time": "/created_at", "only_if": {"/data/type": "stock"}}
    }));
    let legacy = Request::new(ID, TS, GOOD, include_str!("fixtures/bigcommerce_sku_updated.json"));
    let reason = Observation::Irrelevant("`/data/type` is \"sku\"".to_owned());
    assert_eq!(legacy.ask(|m| source.parse(m)), Ok(vec![reason]));
}

#[test]
fn mistakes_are_reported() {
    let (source, problems) = read(json!({"tolerance": "soon", "secret_format": "hex", "horizon": "0s", "tolerence": "5m"}));
    assert_eq!(
        problems,
        [
            "source.hook.horizon: must be longer than nothing: repeats within it are recognised by their id",
            "source.hook.tolerance: expected a length of time such as \"30s\", \"10m\", \"48h\" or \"14d\", found \"soon\"",
            "source.hook.secret_format: \"hex\" is not one of auto, raw",
            "source.hook.tolerence: unknown key `tolerence`; did you mean `tolerance`?",
        ]
    );
    assert!(source.signed());
    assert_eq!(source.success_status(), 200);
}

proptest! {
    #[test]
    fn nothing_panics_and_nothing_passes(
        id in "\\PC{0,20}",
        ts in "[0-9-]{0,22}",
        signature in "(v1a?,[A-Za-z0-9+/=]{0,90} ?){0,4}",
        body in proptest::collection::vec(any::<u8>(), 0..100),
        secret in "(whsec_|whpk_)?[A-Za-z0-9+/]{0,44}",
    ) {
        let source = source(json!({}));
        let request = Request { body, ..request(&signature).with("webhook-id", &id).with("webhook-timestamp", &ts) };
        prop_assert!(request.check(&*source, &[&secret]).is_err());
        request.ask(|m| drop((source.identify(m), source.parse(m))));
    }
}

#[test]
fn a_secret_that_can_verify_nothing_is_told_before_the_first_delivery() {
    let build = |settings: serde_json::Value| {
        let map = settings.as_object().cloned().expect("an object");
        (KIND.build)(&mut Settings::new("", map))
    };
    let auto = build(serde_json::json!({}));
    let problem = |text: &str| auto.secret_problem(&Secret::new(text));
    assert_eq!(problem("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), None);
    assert!(problem("whsec_not base64!").is_some_and(|why| why.starts_with("is neither whsec_ and base64")));
    assert!(problem("whsk_AAAA").is_some_and(|why| why.contains("private key")));
    assert!(problem("whpk_AAAA").is_some(), "too short for a key");
    let raw = build(serde_json::json!({"secret_format": "raw"}));
    assert_eq!(raw.secret_problem(&Secret::new("plain text!")), None);
}
