use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::time::Timestamp;
use crate::types::{HeaderList, Problem};

const SAMPLE: &str = include_str!("fixtures/inventory.json");

fn built(settings: Value) -> (Box<dyn Source>, Vec<Problem>) {
    let Value::Object(map) = settings else { panic!("an object") };
    let mut settings = Settings::new("source.jetti", map);
    let source = (KIND.build)(&mut settings);
    (source, settings.finish())
}

fn plain() -> Box<dyn Source> {
    built(json!({})).0
}

fn with_message<T>(body: &[u8], use_it: impl FnOnce(&Message<'_>) -> T) -> T {
    let headers = HeaderList::default();
    use_it(&Message { query: "", headers: &headers, body, received_at: Timestamp::from_seconds(1_700_000_000) })
}

fn parse(source: &dyn Source, body: &str) -> Result<Vec<Observation>, Unreadable> {
    with_message(body.as_bytes(), |m| source.parse(m))
}

fn fact(source: &dyn Source, body: &str) -> Fact {
    match parse(source, body).expect("readable").as_slice() {
        [Observation::Fact(fact)] => fact.clone(),
        other => panic!("one fact, not {other:?}"),
    }
}

fn changed(path: &str, value: Value) -> String {
    let mut body: Value = serde_json::from_str(SAMPLE).expect("the sample is JSON");
    *body.pointer_mut(path).expect("the path is in the sample") = value;
    body.to_string()
}

#[test]
fn the_vendors_sample_is_one_absolute_number_at_the_channels_warehouse() {
    assert_eq!(
        fact(&*plain(), SAMPLE),
        Fact {
            item: Item { id: "10".into(), sku: Some("123".into()) },
            place: Place::At("11".into()),
            measure: Measure::Available,
            change: Change::Absolute(Quantity::from_units(5).expect("in range")),
            said: Said::default(),
        }
    );
}

#[test]
fn the_mapping_rows_time_is_not_a_version_of_the_stock() {
    // A naive reader stamps the fact with channelVariant.updatedAt: then both messages would have been said at the same
    // moment of 2019, although the stock moved.
    let later = changed("/inventory/available", json!(4));
    assert!(later.contains("2019-12-16T21:45:12.828Z") && SAMPLE.contains("2019-12-16T21:45:12.828Z"));
    assert_eq!(fact(&*plain(), SAMPLE).said, Said { version: None, at: None });
    assert_eq!(fact(&*plain(), &later).said, Said { version: None, at: None });
}

#[test]
fn nothing_names_a_delivery_so_going_back_to_an_old_number_is_not_a_repeat() {
    // 5, 4, 5: the first and the last body are the same bytes, so a key made of the mapping row's id and time (or of the
    // body) would drop the way back.
    let source = plain();
    for body in [SAMPLE.to_owned(), changed("/inventory/available", json!(4)), SAMPLE.to_owned()] {
        assert_eq!(with_message(body.as_bytes(), |m| source.identify(m)), Identity::Content);
    }
}

#[test]
fn not_tracked_and_null_are_not_zero() {
    let source = plain();
    let change = |body: &str| fact(&*source, body).change;
    assert_eq!(change(&changed("/variant/inventoryPolicy", json!("ignore"))), Change::Untracked);
    assert_eq!(change(&changed("/inventory/available", Value::Null)), Change::Untracked);
    assert_eq!(change(&changed("/inventory/available", json!(0))), Change::Absolute(Quantity::ZERO));
    assert_eq!(change(&changed("/variant/inventoryPolicy", Value::Null)), change(SAMPLE));
}

#[test]
fn quantities_are_exact_and_may_be_negative() {
    let body = SAMPLE.replace(r#""available":5"#, r#""available":-2.50001"#);
    assert_eq!(fact(&*plain(), &body).change, Change::Absolute(Quantity::from_micros(-2_500_010)));
    let body = SAMPLE.replace(r#""available":5"#, r#""available":0.0000001"#);
    assert_eq!(parse(&*plain(), &body), Err(Unreadable("inventory.available: more than six decimal places".into())));
}

#[test]
fn ids_keep_every_digit() {
    let body = SAMPLE.replace(r#""variantId":10"#, r#""variantId":9007199254740993"#);
    assert_eq!(&*fact(&*plain(), &body).item.id, "9007199254740993");
    let body = SAMPLE.replace(r#""externalId":"123""#, r#""externalId":18446744073709551615"#);
    assert_eq!(fact(&*plain(), &body).item.sku.as_deref(), Some("18446744073709551615"));
}

#[test]
fn the_sku_field_is_chosen_and_an_empty_one_is_none() {
    let (source, problems) = built(json!({"sku": "externalSku"}));
    assert_eq!(problems, []);
    assert_eq!(fact(&*source, SAMPLE).item.sku, None);
    assert_eq!(fact(&*source, &changed("/channelVariant/externalSku", json!(""))).item.sku, None);
    let named = changed("/channelVariant/externalSku", json!("KET-1"));
    assert_eq!(fact(&*source, &named).item.sku.as_deref(), Some("KET-1"));
}

#[test]
fn the_item_and_the_place_have_fall_backs() {
    let body = changed("/channelVariant", Value::Null);
    let fact = fact(&*plain(), &body);
    assert_eq!(fact.item, Item { id: "10".into(), sku: None });
    assert_eq!(fact.place, Place::Default);
}

#[test]
fn another_channels_message_is_not_counted_here() {
    let (ours, problems) = built(json!({"channel": 21}));
    assert_eq!(problems, []);
    assert!(parse(&*ours, SAMPLE).is_ok());
    let (other, _) = built(json!({"channel": "22"}));
    let refused = parse(&*other, SAMPLE).expect_err("of another channel");
    assert_eq!(refused.0, "the message is of channel 21; this source is channel 22");
}

#[test]
fn what_cannot_be_read_says_what_and_where_without_quoting_it() {
    let cause = |body: &str| parse(&*plain(), body).expect_err("unreadable").0;
    assert_eq!(cause("{"), "not an inventory message: JSON trouble at line 1, column 1");
    assert!(!cause(r#""a secret""#).contains("secret"));
    assert_eq!(cause(r#"{"inventory":{"available":5}}"#), "neither channelVariant.variantId nor variant.id is there");
    assert_eq!(cause(r#"{"variant":{"id":1}}"#), "inventory.available is missing");
    assert_eq!(cause(&changed("/inventory/available", json!("many"))), "inventory.available: not a decimal number");
    assert_eq!(cause(&changed("/channelVariant/variantId", json!({}))), "the variant's id is not an id");
    assert_eq!(
        cause(&changed("/channelVariant/channel/warehouseId", json!(1.5))),
        "channelVariant.channel.warehouseId is not an id"
    );
    assert!(with_message(b"{\"variant\":{\"id\":\"\xff\"}}", |m| plain().parse(m)).is_err());
    assert!(parse(&*plain(), &"[".repeat(100_000)).is_err());
}

#[test]
fn settings_are_checked() {
    let (_, problems) = built(json!({"sku": "externalID", "channel": [1], "chanel": 1}));
    let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(paths, ["source.jetti.sku", "source.jetti.channel", "source.jetti.chanel"]);
}

#[test]
fn it_is_unsigned_and_never_asks() {
    let source = plain();
    assert!(!source.signed());
    assert_eq!(with_message(SAMPLE.as_bytes(), |m| source.authenticate(m, &[])), Ok(0));
    assert_eq!(source.api(), None);
    assert_eq!(source.settle("10", Some("11")), None);
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        with_message(&body, |m| {
            prop_assert_eq!(plain().identify(m), Identity::Content);
            drop(plain().parse(m));
            Ok(())
        })?;
    }

    #[test]
    fn no_damage_to_a_real_message_panics(at in 0..SAMPLE.len(), byte: u8, cut in 0..SAMPLE.len()) {
        let mut body = SAMPLE.as_bytes().to_vec();
        body[at] = byte;
        with_message(&body, |m| drop(plain().parse(m)));
        prop_assert!(with_message(&SAMPLE.as_bytes()[..cut], |m| plain().parse(m)).is_err(), "a truncated message is not read");
    }
}
