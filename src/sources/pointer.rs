//! JSON pointers (RFC 6901) over the text of a document, so that every digit of a number stays as it was written.
//!
//! A document is checked once ([`document`]) and then walked as raw text: nothing is turned into a floating point number
//! or a tree. The walk is iterative, so a deeply nested body costs time in proportion to its length and no stack.
//! Duplicate keys: the last one counts, as in most JSON readers. Deliberately absent: writing, and the `-` index.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use crate::limits::{NAME_MAX_BYTES, POINTER_TOKENS_MAX};
use crate::types::Unreadable;

/// Check a whole body and take it as raw text.
pub fn document(body: &[u8]) -> Result<&RawValue, Unreadable> {
    serde_json::from_slice(body).map_err(|e| Unreadable(format!("the body is not JSON: {e}")))
}

/// A parsed pointer: `""` is the whole document, `/a/0/b~1c` walks keys and array positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: Box<str>,
    tokens: Vec<Box<str>>,
}

/// Why a text is not a JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPointer(String);

impl fmt::Display for BadPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadPointer {}

impl Pointer {
    /// Parse a pointer.
    pub fn parse(text: &str) -> Result<Self, BadPointer> {
        let bad = |why: String| Err(BadPointer(format!("\"{}\" is not a JSON pointer: {why}", text.escape_debug())));
        let mut tokens = Vec::new();
        if !text.is_empty() {
            let Some(rest) = text.strip_prefix('/') else {
                return bad(format!("it must start with \"/\", as in \"/{}\"", text.replace('.', "/").escape_debug()));
            };
            for token in rest.split('/') {
                let Some(token) = unescape(token) else {
                    return bad("\"~\" must be written \"~0\", and \"/\" within a key \"~1\"".to_owned());
                };
                tokens.push(token.into_boxed_str());
            }
        }
        if tokens.len() > POINTER_TOKENS_MAX {
            return bad(format!("more than {POINTER_TOKENS_MAX} steps"));
        }
        Ok(Self { text: text.into(), tokens })
    }

    /// The pointer as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The value that the pointer names, `None` when there is none. `null` is a value.
    pub fn find<'a>(&self, document: &'a RawValue) -> Option<&'a RawValue> {
        self.tokens.iter().try_fold(document, |value, token| step(value, token))
    }
}

/// `~1` is `/` and `~0` is `~`; any other `~` is a mistake.
fn unescape(token: &str) -> Option<String> {
    let mut pieces = token.split('~');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let mut rest = piece.chars();
        out.push(match rest.next() {
            Some('0') => '~',
            Some('1') => '/',
            _ => return None,
        });
        out.push_str(rest.as_str());
    }
    Some(out)
}

/// One step into an object or an array.
fn step<'a>(value: &'a RawValue, token: &str) -> Option<&'a RawValue> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{') => Deserializer::from_str(text).deserialize_map(Member(token)).ok().flatten(),
        Some(b'[') => Deserializer::from_str(text).deserialize_seq(Element(array_index(token)?)).ok().flatten(),
        _ => None,
    }
}

/// RFC 6901 section 4: digits without a leading zero.
fn array_index(token: &str) -> Option<usize> {
    let plain = token == "0" || (token.bytes().all(|b| b.is_ascii_digit()) && !token.starts_with('0'));
    if plain { token.parse().ok() } else { None }
}

/// The last member of an object with this key.
struct Member<'t>(&'t str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(wanted) = map.next_key_seed(KeyIs(self.0))? {
            if wanted {
                found = Some(map.next_value::<&'de RawValue>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Is the next key this one? Compared as bytes: a foreign key that is not Unicode (a lone surrogate) harms nothing.
struct KeyIs<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<bool, E> {
        Ok(key == self.0.as_bytes())
    }
}

/// The element of an array at this position.
struct Element(usize);

impl<'de> Visitor<'de> for Element {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        for _ in 0..self.0 {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = seq.next_element::<&'de RawValue>()?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

/// The elements of an array, `None` when the value is not one.
pub fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    if value.get().starts_with('[') { serde_json::from_str(value.get()).ok() } else { None }
}

/// A value at the end of a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, by its text.
    Number(&'a str),
    /// A string, unescaped.
    Text(String),
    /// An object, an array, or a string that is not Unicode.
    Other,
}

impl Scalar<'_> {
    /// An id or a word: a non-empty string, or a number with the very digits it was written with. At most 255 bytes.
    pub fn name(self) -> Option<Box<str>> {
        match self {
            Self::Text(text) if !text.trim().is_empty() && text.len() <= NAME_MAX_BYTES => Some(text.into_boxed_str()),
            Self::Number(text) if text.len() <= NAME_MAX_BYTES => Some(text.into()),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::Other => None,
        }
    }
}

/// What a raw value is.
pub fn scalar(value: &RawValue) -> Scalar<'_> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'n') => Scalar::Null,
        Some(b't') => Scalar::Bool(true),
        Some(b'f') => Scalar::Bool(false),
        Some(b'"') => serde_json::from_str(text).map_or(Scalar::Other, Scalar::Text),
        Some(b'-' | b'0'..=b'9') => Scalar::Number(text),
        _ => Scalar::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(document: &str, pointer: &str) -> Option<String> {
        let document = super::document(document.as_bytes()).expect("a JSON document");
        Pointer::parse(pointer).expect("a pointer").find(document).map(|v| v.get().to_owned())
    }

    /// The examples of RFC 6901, section 5.
    #[test]
    fn the_examples_of_the_rfc() {
        let document = r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
        for (pointer, value) in [
            ("", document),
            ("/foo", r#"["bar","baz"]"#),
            ("/foo/0", r#""bar""#),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert_eq!(find(document, pointer).as_deref(), Some(value), "{pointer}");
        }
    }

    #[test]
    fn escapes_are_undone_in_the_right_order() {
        assert_eq!(find(r#"{"~1":1,"/":2}"#, "/~01").as_deref(), Some("1"));
        assert_eq!(find(r#"{"~1":1,"/":2}"#, "/~1").as_deref(), Some("2"));
        assert_eq!(find(r#"{"qty":1,"\u0071\u0074y2":2}"#, "/qty2").as_deref(), Some("2"));
        assert_eq!(find(r#"{"caf\u00e9":1}"#, "/café").as_deref(), Some("1"));
    }

    #[test]
    fn digits_stay_as_they_are_written() {
        let document = r#"{"id":271878346596884015999,"qty":497.0000,"small":1e-5}"#;
        assert_eq!(find(document, "/id").as_deref(), Some("271878346596884015999"));
        assert_eq!(find(document, "/qty").as_deref(), Some("497.0000"));
        assert_eq!(find(document, "/small").as_deref(), Some("1e-5"));
    }

    #[test]
    fn of_duplicate_keys_the_last_one_counts() {
        assert_eq!(find(r#"{"q":1,"x":{"q":9},"q":2}"#, "/q").as_deref(), Some("2"));
        assert_eq!(find(r#"{"q":{"a":1},"q":{"b":2}}"#, "/q/a"), None);
    }

    #[test]
    fn what_is_not_there_is_not_there() {
        for pointer in ["/b", "/a/x", "/l/2", "/l/-", "/l/00", "/l/01", "/l/+1", "/l/99999999999999999999", "/l/", "/s/0"] {
            assert_eq!(find(r#"{"a":null,"l":[10,20],"s":"text"}"#, pointer), None, "{pointer}");
        }
        assert_eq!(find(r#"{"a":null}"#, "/a").as_deref(), Some("null"));
        assert_eq!(find("[[1,2],[3,4]]", "/1/0").as_deref(), Some("3"));
    }

    #[test]
    fn a_foreign_key_that_is_not_unicode_harms_nothing() {
        assert_eq!(find(r#"{"\ud800":1,"q":2}"#, "/q").as_deref(), Some("2"));
        assert_eq!(scalar(document(br#""\ud800""#).expect("JSON")), Scalar::Other);
    }

    #[test]
    fn mistakes_are_explained() {
        let message = |text: &str| Pointer::parse(text).expect_err("not a pointer").to_string();
        assert_eq!(message("data.sku"), "\"data.sku\" is not a JSON pointer: it must start with \"/\", as in \"/data/sku\"");
        assert_eq!(
            message("/a~2"),
            "\"/a~2\" is not a JSON pointer: \"~\" must be written \"~0\", and \"/\" within a key \"~1\""
        );
        assert!(Pointer::parse("/a~").is_err());
        assert!(Pointer::parse(&"/x".repeat(POINTER_TOKENS_MAX)).is_ok());
        assert!(Pointer::parse(&"/x".repeat(POINTER_TOKENS_MAX + 1)).is_err());
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{{\"d\":{}{},\"q\":5}}", "[".repeat(300_000), "]".repeat(300_000));
        assert_eq!(find(&deep, "/q").as_deref(), Some("5"));
        assert_eq!(find(&deep, "/d/0/0").map(|v| v.len()), Some(2 * 300_000 - 4));
        assert!(document("[".repeat(300_000).as_bytes()).is_err());
    }

    #[test]
    fn a_body_is_one_document() {
        for bad in ["", "{", "{} {}", "{\"a\":01}", "nul", "{'a':1}", "\u{feff}{}"] {
            assert!(document(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(document(b"{\"a\":\"\xff\"}").is_err());
        assert_eq!(document(b" \n{} ").expect("JSON").get(), "{}");
    }

    #[test]
    fn names_are_texts_and_numbers() {
        let name = |text: &str| scalar(document(text.as_bytes()).expect("JSON")).name();
        assert_eq!(name("18446744073709551617").as_deref(), Some("18446744073709551617"));
        assert_eq!(name(r#""a\/b""#).as_deref(), Some("a/b"));
        for none in ["null", "true", "{}", "[1]", r#""""#, r#""  ""#, &format!("\"{}\"", "x".repeat(256))] {
            assert_eq!(name(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_body_and_no_pointer_panics(body in proptest::collection::vec(any::<u8>(), 0..200), pointer in "(/[a-z0-9~]{0,3}){0,5}") {
            if let (Ok(document), Ok(pointer)) = (document(&body), Pointer::parse(&pointer)) {
                drop(pointer.find(document).map(scalar));
            }
        }

        /// A pointer built from any key finds the value under that key.
        #[test]
        fn every_key_can_be_pointed_at(key in "\\PC*", other in "[a-z]{1,4}") {
            let body = serde_json::json!({ other: 1, key.as_str(): {"x": [0, "here"]} }).to_string();
            let pointer = format!("/{}/x/1", key.replace('~', "~0").replace('/', "~1"));
            prop_assert_eq!(find(&body, &pointer), Some("\"here\"".to_owned()));
        }
    }
}
