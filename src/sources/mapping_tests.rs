#![expect(clippy::needless_pass_by_value, reason = "a test hands its settings over as a literal")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::time::Timestamp;

const DEFAULTS: Defaults =
    Defaults { item: "/data/item", sku: "/data/sku", location: "/data/location", quantity: "/data/quantity", time: "/at" };

/// A mapping from the settings of a source, and the problems found in them as "path: message".
fn read(settings: Value) -> (Mapping, Vec<String>) {
    let map = settings.as_object().cloned().expect("a table");
    let mut settings = Settings::new("source.shop", map);
    let mapping = Mapping::read(&mut settings, &DEFAULTS);
    (mapping, settings.finish().into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect())
}

fn mapping(map: Value) -> Mapping {
    let (mapping, problems) = read(json!({ "map": map }));
    assert_eq!(problems, Vec::<String>::new());
    mapping
}

fn units(n: i64) -> Quantity {
    Quantity::from_units(n).expect("in range")
}

fn fact(id: &str, sku: Option<&str>, place: Place, change: Change) -> Fact {
    let item = Item { id: id.into(), sku: sku.map(Into::into) };
    Fact { item, place, measure: Measure::Available, change, said: Said::default() }
}

fn at(place: &str) -> Place {
    Place::At(place.into())
}

fn facts(mapping: &Mapping, body: &str) -> Vec<Fact> {
    let observed = mapping.observe(body.as_bytes()).expect("readable");
    observed
        .into_iter()
        .map(|o| match o {
            Observation::Fact(fact) => fact,
            other => panic!("expected a fact, found {other:?}"),
        })
        .collect()
}

fn unreadable(mapping: &Mapping, body: &str) -> String {
    mapping.observe(body.as_bytes()).expect_err("unreadable").0
}

fn irrelevant(mapping: &Mapping, body: &str) -> String {
    match mapping.observe(body.as_bytes()).expect("readable").as_slice() {
        [Observation::Irrelevant(reason)] => reason.clone(),
        other => panic!("expected one reason, found {other:?}"),
    }
}

#[test]
fn the_defaults_hold_without_a_table() {
    let (mapping, problems) = read(json!({"measure": "on-hand"}));
    assert_eq!(problems, Vec::<String>::new());
    let body = r#"{"at":"2024-03-15T10:00:00Z","data":{"item":42,"sku":"A-1","location":"north","quantity":46.50}}"#;
    let expected = Fact {
        measure: Measure::OnHand,
        said: Said { version: None, at: Some(Timestamp::from_seconds(1_710_496_800)) },
        ..fact("42", Some("A-1"), at("north"), Change::Absolute(Quantity::from_micros(46_500_000)))
    };
    assert_eq!(facts(&mapping, body), [expected]);
    let short = r#"{"data":{"sku":"A-1","quantity":3}}"#;
    let expected = Fact { measure: Measure::OnHand, ..fact("A-1", Some("A-1"), Place::Default, Change::Absolute(units(3))) };
    assert_eq!(facts(&mapping, short), [expected]);
}

#[test]
fn a_table_replaces_every_default() {
    let mapping = mapping(json!({"sku": "/s", "quantity": "/q"}));
    let body = r#"{"s":"A","q":1,"at":"2024-03-15T10:00:00Z","data":{"location":"north","item":9}}"#;
    assert_eq!(facts(&mapping, body), [fact("A", Some("A"), Place::Default, Change::Absolute(units(1)))]);
}

#[test]
fn quantities_are_exact_and_null_is_not_zero() {
    let mapping = mapping(json!({"item": "/i", "quantity": "/q"}));
    for (text, change) in [
        ("0", Change::Absolute(Quantity::ZERO)),
        ("-6", Change::Absolute(units(-6))),
        ("497.0000", Change::Absolute(units(497))),
        ("\"200.00000\"", Change::Absolute(units(200))),
        ("0.000001", Change::Absolute(Quantity::from_micros(1))),
        ("1e2", Change::Absolute(units(100))),
        ("null", Change::Untracked),
    ] {
        let body = format!(r#"{{"i":"X","q":{text}}}"#);
        assert_eq!(facts(&mapping, &body), [fact("X", None, Place::Default, change)], "{text}");
    }
    for (body, cause) in [
        (r#"{"i":"X"}"#, "no quantity at /q"),
        (r#"{"i":"X","q":true}"#, "the quantity at /q is not a number"),
        (r#"{"i":"X","q":{}}"#, "the quantity at /q is not a number"),
        (r#"{"i":"X","q":""}"#, "the quantity at /q is \"\": not a decimal number"),
        (r#"{"i":"X","q":"1,5"}"#, "the quantity at /q is \"1,5\": not a decimal number"),
        (r#"{"i":"X","q":1e40}"#, "the quantity at /q is \"1e40\": out of range (at most 9223372036854.775807)"),
        (r#"{"i":"X","q":0.0000001}"#, "the quantity at /q is \"0.0000001\": more than six decimal places"),
        (r#"{"q":1}"#, "no item at /i"),
        (r#"{"i":null,"q":1}"#, "no item at /i"),
        (r#"{"i":" ","q":1}"#, "no item at /i"),
        (r#"{"i":[1],"q":1}"#, "the item at /i is not a number or a text of at most 255 bytes"),
    ] {
        assert_eq!(unreadable(&mapping, body), cause);
    }
    assert!(unreadable(&mapping, "{\"i\":").starts_with("the body is not JSON: "));
}

#[test]
fn ids_keep_every_digit() {
    let mapping = mapping(json!({"item": "/i", "quantity": "/q", "location": "/l"}));
    let body = r#"{"i":9007199254740993,"q":1,"l":"0042"}"#;
    assert_eq!(facts(&mapping, body), [fact("9007199254740993", None, at("0042"), Change::Absolute(units(1)))]);
}

#[test]
fn a_delta_moves_and_a_null_delta_says_nothing() {
    let mapping = mapping(json!({"sku": "/s", "quantity": "/by", "mode": "delta"}));
    assert_eq!(facts(&mapping, r#"{"s":"A","by":-2}"#), [fact("A", Some("A"), Place::Default, Change::Delta(units(-2)))]);
    assert_eq!(unreadable(&mapping, r#"{"s":"A","by":null}"#), "the quantity at /by is null, which is no change");
}

#[test]
fn deleted_wants_something_true_and_no_quantity() {
    let mapping = mapping(json!({"sku": "/s", "quantity": "/q", "location": "/l", "deleted": "/gone"}));
    for yes in ["true", "1", "\"2024-03-15\"", "\"yes\""] {
        let body = format!(r#"{{"s":"A","gone":{yes}}}"#);
        assert_eq!(facts(&mapping, &body), [fact("A", Some("A"), Place::Everywhere, Change::Deleted)], "{yes}");
    }
    for no in ["false", "0", "0.0", "null", "\"\"", "\"False\"", "\"0\""] {
        let body = format!(r#"{{"s":"A","gone":{no},"q":4}}"#);
        assert_eq!(facts(&mapping, &body), [fact("A", Some("A"), Place::Default, Change::Absolute(units(4)))], "{no}");
    }
    let here = r#"{"s":"A","gone":true,"l":7}"#;
    assert_eq!(facts(&mapping, here), [fact("A", Some("A"), at("7"), Change::Deleted)]);
}

#[test]
fn time_and_version_are_the_platforms_own() {
    let mapping = mapping(
        json!({"sku": "/s", "quantity": "/q", "time": "/t", "time_format": "naive", "utc_offset_hours": 3, "version": "/v"}),
    );
    let said = |body: &str| facts(&mapping, body)[0].said;
    let noon = Timestamp::from_seconds(1_710_496_800);
    assert_eq!(
        said(r#"{"s":"A","q":1,"t":"2024-03-15 13:00:00","v":18446744073709551615}"#),
        Said { version: Some(u64::MAX), at: Some(noon) }
    );
    assert_eq!(said(r#"{"s":"A","q":1,"t":null,"v":"7"}"#), Said { version: Some(7), at: None });
    assert_eq!(said(r#"{"s":"A","q":1}"#), Said::default());
    assert_eq!(unreadable(&mapping, r#"{"s":"A","q":1,"t":"soon"}"#), "the time \"soon\" cannot be read");
    assert_eq!(unreadable(&mapping, r#"{"s":"A","q":1,"t":true}"#), "the time at /t is not a number or a text");
    assert_eq!(unreadable(&mapping, r#"{"s":"A","q":1,"v":1.5}"#), "the version \"1.5\" is not a whole number");
    assert_eq!(unreadable(&mapping, r#"{"s":"A","q":1,"v":-1}"#), "the version \"-1\" is not a whole number");
}

#[test]
fn rows_and_values_from_around_them() {
    let mapping =
        mapping(json!({"rows": "/items", "sku": "/sku", "quantity": "/qty", "location": "^/shop/id", "time": "^/sent"}));
    let body = r#"{"shop":{"id":5},"sent":1710496800,"items":[{"sku":"A","qty":1},{"sku":"B","qty":"2.5"}]}"#;
    let said = Said { version: None, at: Some(Timestamp::from_seconds(1_710_496_800)) };
    let expected = [
        Fact { said, ..fact("A", Some("A"), at("5"), Change::Absolute(units(1))) },
        Fact { said, ..fact("B", Some("B"), at("5"), Change::Absolute(Quantity::from_micros(2_500_000))) },
    ];
    assert_eq!(facts(&mapping, body), expected);
    let second_bad = r#"{"items":[{"sku":"A","qty":1},{"sku":"B"}]}"#;
    assert_eq!(unreadable(&mapping, second_bad), "row 2: no quantity at /qty");
    assert_eq!(unreadable(&mapping, r#"{"item":[]}"#), "no rows at \"/items\"");
    assert_eq!(unreadable(&mapping, r#"{"items":{"0":{}}}"#), "\"/items\" is not an array");
    assert_eq!(irrelevant(&mapping, r#"{"items":[]}"#), "the message carries no rows");
    assert_eq!(irrelevant(&mapping, r#"{"items":null}"#), "the message carries no rows");
}

#[test]
fn rows_about_one_place_become_one_fact() {
    let rows = r#"[{"s":"A","l":"x","q":497,"v":2},{"s":"A","l":"y","q":1,"v":2},{"s":"A","l":"x","q":10,"v":3},{"s":"A","l":"x","q":7,"v":1}]"#;
    let of = |combine: &str, mode: &str| {
        let mut map = json!({"rows": "", "sku": "/s", "location": "/l", "quantity": "/q", "version": "/v", "mode": mode});
        if !combine.is_empty() {
            map["combine"] = combine.into();
        }
        facts(&mapping(map), rows).into_iter().map(|f| (f.place, f.change, f.said.version)).collect::<Vec<_>>()
    };
    let absolute = |n| Change::Absolute(units(n));
    // A row that says of itself that it is older does not win by standing later.
    assert_eq!(of("", "absolute"), [(at("x"), absolute(10), Some(3)), (at("y"), absolute(1), Some(2))]);
    assert_eq!(of("sum", "absolute"), [(at("x"), absolute(514), Some(3)), (at("y"), absolute(1), Some(2))]);
    assert_eq!(
        of("", "delta"),
        [(at("x"), Change::Delta(units(514)), Some(3)), (at("y"), Change::Delta(units(1)), Some(2))]
    );
}

#[test]
fn a_row_without_a_number_gives_way_in_a_sum() {
    let mapping = mapping(json!({"rows": "", "sku": "/s", "quantity": "/q", "combine": "sum"}));
    let expected = [fact("A", Some("A"), Place::Default, Change::Absolute(units(5)))];
    assert_eq!(facts(&mapping, r#"[{"s":"A","q":null},{"s":"A","q":2},{"s":"A","q":null},{"s":"A","q":3}]"#), expected);
    assert_eq!(
        facts(&mapping, r#"[{"s":"A","q":null},{"s":"A","q":null}]"#),
        [fact("A", Some("A"), Place::Default, Change::Untracked)]
    );
    let big = r#"[{"s":"A","q":9000000000000},{"s":"A","q":9000000000000}]"#;
    assert_eq!(unreadable(&mapping, big), "row 2: the sum of the rows is out of range");
}

#[test]
fn other_topics_are_irrelevant_even_without_their_rows() {
    let mapping = mapping(json!({
        "rows": "/items", "sku": "/sku", "quantity": "/qty",
        "only_if": {"^/type": ["stock.updated", "stock.counted"], "/active": true}
    }));
    assert_eq!(irrelevant(&mapping, r#"{"type":"order.created"}"#), "`^/type` is \"order.created\"");
    assert_eq!(irrelevant(&mapping, "{}"), "`^/type` is \"\"");
    let body = r#"{"type":"stock.counted","items":[{"sku":"A","qty":1,"active":true},{"sku":"B","active":false}]}"#;
    assert_eq!(
        mapping.observe(body.as_bytes()).expect("readable"),
        [
            Observation::Fact(fact("A", Some("A"), Place::Default, Change::Absolute(units(1)))),
            Observation::Irrelevant("`/active` is \"false\"".to_owned()),
        ]
    );
}

#[test]
fn many_rows_are_read_with_a_value_from_around_them() {
    let mapping = mapping(json!({"rows": "/r", "item": "/i", "quantity": "/q", "location": "^/l"}));
    let rows: Vec<String> = (0..20_000).map(|i| format!(r#"{{"i":{i},"q":{i}}}"#)).collect();
    let body = format!(r#"{{"r":[{}],"l":"x"}}"#, rows.join(","));
    let found = facts(&mapping, &body);
    assert_eq!(found.len(), 20_000);
    assert_eq!(found[19_999], fact("19999", None, at("x"), Change::Absolute(units(19_999))));
}

#[test]
fn mistakes_are_reported_with_their_path() {
    let problems = |settings| read(settings).1;
    assert_eq!(
        problems(json!({"map": {}})),
        [
            "source.shop.map.quantity: missing: a JSON pointer such as \"/quantity\"",
            "source.shop.map.item: missing: a JSON pointer such as \"/item\" or `sku`",
        ]
    );
    assert_eq!(
        problems(json!({"map": {"sku": "sku", "quantity": "/q", "mode": "delta", "combine": "last", "quantty": "/q"}})),
        [
            "source.shop.map.combine: changes of one item are always summed: leave this out, or set \"sum\"",
            "source.shop.map.sku: \"sku\" is not a JSON pointer: it must start with \"/\", as in \"/sku\"",
            "source.shop.map.quantty: unknown key `quantty`; did you mean `quantity`?",
        ]
    );
    assert_eq!(
        problems(json!({"measure": "physical", "map": {"sku": "/s", "quantity": "/q", "only_if": {"/t": null, "u": "x"}}})),
        [
            "source.shop.measure: \"physical\" is not one of available, on-hand",
            "source.shop.map.only_if: \"u\" is not a JSON pointer: it must start with \"/\", as in \"/u\"",
            "source.shop.map.only_if./t: expected a text, a number, true or false, or a list of them",
        ]
    );
}

proptest! {
    #[test]
    fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,60}", rows: bool) {
        let mut map = json!({"sku": "/s", "quantity": "/q", "time": "/t", "deleted": "/d", "version": "/v", "only_if": {"/o": "1"}});
        if rows {
            map["rows"] = "/r".into();
        }
        let mapping = mapping(map);
        drop(mapping.observe(&body));
        drop(mapping.observe(json!({"s": text, "q": text, "t": text, "v": text, "o": "1"}).to_string().as_bytes()));
        drop(mapping.observe(json!({"r": [{"s": 1, "q": text, "t": 5, "o": 1}, text]}).to_string().as_bytes()));
    }

    /// What a body says does not depend on how it is laid out.
    #[test]
    fn any_quantity_and_any_id_come_through(micros: i64, id in 0..u64::MAX, location in "[ -~]{0,20}[!-~]") {
        let mapping = mapping(json!({"item": "/i", "quantity": "/q", "location": "/l"}));
        let quantity = Quantity::from_micros(micros);
        let body = format!("{{ \"q\" : {quantity},\n\"l\":{},\"i\":{id}}}", Value::from(location.as_str()));
        let expected = fact(&id.to_string(), None, at(&location), Change::Absolute(quantity));
        prop_assert_eq!(facts(&mapping, &body), vec![expected]);
    }
}
