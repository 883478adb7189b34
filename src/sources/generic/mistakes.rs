//! Tests: what an operator is told when a setting is wrong.

use serde_json::{Value, json};

use super::super::Refusal;
use super::tests::{Request, read};

#[test]
fn mistakes_in_the_signature_are_explained() {
    let problems = |signature: Value| read(json!({ "signature": signature })).1;
    for (signature, expected) in [
        (json!({"signed": "{timestamp}.{body}"}), "signed: {timestamp} needs the setting `timestamp_header`"),
        (json!({"signed": "{timestamp}.{body}", "field": "v1"}), "signed: {timestamp} needs the setting `timestamp_field`"),
        (json!({"signed": "{id}{body}"}), "signed: {id} needs the setting `id_header`"),
        (json!({"signed": "{url}{body}"}), "signed: {url} needs the setting `url`"),
        (json!({"url": "https://a.example"}), "url: {url} does not occur in `signed`: what is not signed proves nothing"),
        (
            json!({"timestamp_header": "x-time"}),
            "timestamp_header: {timestamp} does not occur in `signed`: what is not signed proves nothing",
        ),
        (
            json!({"tolerance": "5m"}),
            "tolerance: there is no timestamp to compare: set `timestamp_header` or `timestamp_field`",
        ),
        (json!({"signed": "{url}", "url": "x"}), "signed: must contain {body}: anybody could change what is not signed"),
        (
            json!({"signed": "{bdy}"}),
            "signed: unknown placeholder {bdy}: there are {body}, {timestamp}, {id}, {url}, {header:NAME}, {query:NAME}",
        ),
        (
            json!({"signed": "{header: }{body}"}),
            "signed: unknown placeholder {header: }: there are {body}, {timestamp}, {id}, {url}, {header:NAME}, {query:NAME}",
        ),
        (json!({"signed": "{body"}), "signed: \"{\" without \"}\"; write \"{{\" for a brace"),
        (json!({"signed": "body}"}), "signed: \"}\" without \"{\"; write \"}}\" for a brace"),
        (json!({"header": "x signature"}), "header: \"x signature\" cannot be the name of a header field"),
        (json!({"algorithm": "ed25519"}), "key: say how the public key is written: \"base64\" or \"hex\""),
        (json!({"algorithm": "token", "signed": "{body}"}), "signed: unknown key `signed`"),
        (
            json!({"algorithm": "hmac-sha265"}),
            "algorithm: \"hmac-sha265\" is not one of hmac-sha256, hmac-sha512, hmac-sha1, ed25519, token; did you mean \"hmac-sha256\"?",
        ),
    ] {
        let found = problems(signature.clone());
        assert_eq!(found, [format!("source.shop.signature.{expected}")], "{signature}");
    }
    let expected = "source.shop.signature: expected a table such as { header = \"x-signature\" }, or \"none\"";
    assert_eq!(problems(json!("hmac")), [expected]);
    assert_eq!(problems(json!(true)), [expected]);
}

#[test]
fn a_mistake_never_opens_the_door() {
    for broken in [json!("off"), json!({"signed": ""}), json!({"algorithm": "none"}), json!(null)] {
        let (source, problems) = read(json!({ "signature": broken }));
        assert!(source.signed() && !problems.is_empty(), "{broken}");
        assert_eq!(Request::new(&[], "{}").check(&*source, &["k"]), Err(Refusal::Unsigned));
    }
}

#[test]
fn mistakes_elsewhere_are_explained() {
    assert_eq!(
        read(json!({
            "identity": {"header": "x id", "pointers": ["id"], "boddy": true},
            "challenge": {"method": "PUT"}, "horizon": "0h", "form_feild": "payload"
        }))
        .1,
        [
            "source.shop.identity.header: \"x id\" cannot be the name of a header field",
            "source.shop.identity.pointers: \"id\" is not a JSON pointer: it must start with \"/\", as in \"/id\"",
            "source.shop.identity.boddy: unknown key `boddy`; did you mean `body`?",
            "source.shop.horizon: must be longer than nothing: repeats within it are recognised by their id",
            "source.shop.challenge.method: \"PUT\" is not one of GET, POST",
            "source.shop.challenge.query: missing: the query parameter to echo, such as \"challenge\"",
            "source.shop.form_feild: unknown key `form_feild`; did you mean `form_field`?",
        ]
    );
}
