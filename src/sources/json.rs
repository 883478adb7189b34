//! Fields of a platform's JSON, read from their text: no digit of an id or a quantity is lost on the way.
//!
//! Adapters take the fields they know as `Option<&RawValue>` and read them here. Every complaint names its field and shows
//! what stood there, so that a dead letter explains itself.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::limits::NAME_MAX_BYTES;
use crate::time::Timestamp;
use crate::types::{Quantity, Unreadable};

/// Characters of a value that a complaint shows.
const SHOWN_CHARS: usize = 40;

/// Read a body that must be one JSON object.
pub fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Unreadable> {
    // A derived struct would also take an array, field by field.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Unreadable("the body is not a JSON object".to_owned()));
    }
    serde_json::from_slice(body).map_err(|e| Unreadable(format!("the body is not the JSON we expect: {e}")))
}

/// Read a nested value that must be one JSON object; `name` is for the complaint.
pub fn member<'a, T: Deserialize<'a>>(name: &str, value: Option<&'a RawValue>) -> Result<T, Unreadable> {
    let text = value.ok_or_else(|| missing(name))?.get();
    if !text.starts_with('{') {
        return Err(Unreadable(format!("`{name}` is {}, not an object", shown(text))));
    }
    serde_json::from_str(text).map_err(|e| Unreadable(format!("`{name}` is not the JSON we expect: {e}")))
}

/// For `#[serde(deserialize_with)]`: keeps a `null` that stands there apart from a field that is absent (`default`).
pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A non-empty text, trimmed; a whole number counts as its digits. `None` for everything else.
pub fn text(value: Option<&RawValue>) -> Option<Box<str>> {
    let raw = value?.get();
    if raw.starts_with('"') {
        let text = serde_json::from_str::<String>(raw).ok()?;
        let trimmed = text.trim();
        return (!trimmed.is_empty()).then(|| trimmed.into());
    }
    is_whole(raw).then(|| raw.into())
}

/// An id that must be there: a whole number (every digit kept) or a non-empty text.
pub fn id(name: &str, value: Option<&RawValue>) -> Result<Box<str>, Unreadable> {
    let raw = value.ok_or_else(|| missing(name))?;
    match text(Some(raw)) {
        Some(id) if id.len() <= NAME_MAX_BYTES && !id.chars().any(char::is_control) => Ok(id),
        _ => Err(Unreadable(format!("`{name}` is {}, not an id", shown(raw.get())))),
    }
}

/// A quantity that must be there: `None` for `null`, exact otherwise. A number in quotes is read too.
pub fn quantity(name: &str, value: Option<&RawValue>) -> Result<Option<Quantity>, Unreadable> {
    let raw = value.ok_or_else(|| missing(name))?.get();
    if raw == "null" {
        return Ok(None);
    }
    let quoted = if raw.starts_with('"') { serde_json::from_str::<String>(raw).ok() } else { None };
    match quoted.as_deref().unwrap_or(raw).parse() {
        Ok(quantity) => Ok(Some(quantity)),
        Err(why) => Err(Unreadable(format!("`{name}` is {}: {why}", shown(raw)))),
    }
}

/// A time that may be absent, `null` or empty; anything else must be one that `read` understands.
pub fn time(
    name: &str,
    value: Option<&RawValue>,
    read: impl FnOnce(&str) -> Option<Timestamp>,
) -> Result<Option<Timestamp>, Unreadable> {
    let Some(raw) = value.map(RawValue::get) else { return Ok(None) };
    match serde_json::from_str::<Option<String>>(raw).as_ref().map(Option::as_deref) {
        Ok(None | Some("")) => Ok(None),
        Ok(Some(text)) => match read(text.trim()) {
            Some(at) => Ok(Some(at)),
            None => Err(Unreadable(format!("`{name}` is {}, not a time", shown(raw)))),
        },
        Err(_) => Err(Unreadable(format!("`{name}` is {}, not a time", shown(raw)))),
    }
}

/// True for an id of digits only: the sort that may stand in an API's path as it is.
pub fn is_number_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= NAME_MAX_BYTES && id.bytes().all(|b| b.is_ascii_digit())
}

fn is_whole(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn missing(name: &str) -> Unreadable {
    Unreadable(format!("`{name}` is missing"))
}

fn shown(raw: &str) -> String {
    let mut out: String = raw.chars().take(SHOWN_CHARS).collect();
    if out.len() < raw.len() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("a JSON value")
    }

    #[test]
    fn ids_keep_every_digit_and_lose_their_quotes() {
        for (json, id_text) in [
            ("271878346596884015", "271878346596884015"),
            ("99999999999999999999", "99999999999999999999"),
            (r#""7079""#, "7079"),
            (r#""gid:\/\/shopify\/A\/1""#, "gid://shopify/A/1"),
        ] {
            assert_eq!(id("id", Some(&raw(json))).as_deref(), Ok(id_text));
        }
        for json in ["null", "true", "1.0", "1e5", "{}", r#""""#, r#""  ""#, r#""a\u0000b""#] {
            assert!(id("id", Some(&raw(json))).is_err(), "{json}");
        }
        assert_eq!(id("id", None), Err(Unreadable("`id` is missing".to_owned())));
        assert_eq!(id("id", Some(&raw("1.5"))), Err(Unreadable("`id` is 1.5, not an id".to_owned())));
        assert!(id("id", Some(&raw(&"9".repeat(256)))).is_err());
    }

    #[test]
    fn null_is_not_zero_and_absent_is_neither() {
        assert_eq!(quantity("q", Some(&raw("null"))), Ok(None));
        assert_eq!(quantity("q", Some(&raw("0"))), Ok(Some(Quantity::ZERO)));
        assert_eq!(quantity("q", Some(&raw("-2.5"))), Ok(Some(Quantity::from_micros(-2_500_000))));
        assert_eq!(quantity("q", Some(&raw(r#""10""#))), Ok(Quantity::from_units(10)));
        assert_eq!(quantity("q", None), Err(Unreadable("`q` is missing".to_owned())));
        assert_eq!(quantity("q", Some(&raw("true"))), Err(Unreadable("`q` is true: not a decimal number".to_owned())));
    }

    #[test]
    fn a_time_may_be_absent_but_not_wrong() {
        let read = |value: &str| time("t", Some(&raw(value)), Timestamp::parse_rfc3339);
        assert_eq!(read(r#""1970-01-01T00:00:01Z""#), Ok(Some(Timestamp::from_seconds(1))));
        assert_eq!(read("null"), Ok(None));
        assert_eq!(read(r#""""#), Ok(None));
        assert_eq!(read(r#""soon""#), Err(Unreadable("`t` is \"soon\", not a time".to_owned())));
        assert!(read("17").is_err());
        assert_eq!(time("t", None, Timestamp::parse_rfc3339), Ok(None));
    }

    #[test]
    fn an_array_is_not_taken_for_an_object() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct One<'a> {
            #[serde(borrow, default)]
            a: Option<&'a str>,
        }
        assert_eq!(object::<One<'_>>(br#" {"a":"x"}"#), Ok(One { a: Some("x") }));
        assert_eq!(object::<One<'_>>(br#"["x"]"#), Err(Unreadable("the body is not a JSON object".to_owned())));
        assert!(object::<One<'_>>(b"").is_err());
        assert!(member::<One<'_>>("m", Some(&raw(r#"["x"]"#))).is_err());
    }

    #[test]
    fn a_long_value_is_cut_in_a_complaint() {
        let complaint = id("id", Some(&raw(&format!("[{}1]", "1,".repeat(500))))).expect_err("a list is no id");
        assert!(complaint.0.len() < 80, "{complaint}");
    }
}
