//! Names and numbers that identify things.

use std::fmt;
use std::sync::Arc;

use crate::limits::{ID_MAX_BYTES, NAME_MAX_BYTES};

/// Position of a record in the journal: 1, 2, 3, ... without a gap.
pub type Seq = u64;

/// Why a text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadName {
    what: &'static str,
    text: String,
    why: &'static str,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` cannot be a {}: {}", self.text.escape_debug(), self.what, self.why)
    }
}

impl std::error::Error for BadName {}

fn checked_id(what: &'static str, text: &str) -> Result<Arc<str>, BadName> {
    let bad = |why| Err(BadName { what, text: text.chars().take(60).collect(), why });
    if text.is_empty() {
        return bad("it is empty");
    }
    if text.len() > ID_MAX_BYTES {
        return bad("it is longer than 48 bytes");
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_') {
        return bad("use lower-case letters, digits, `-` and `_`");
    }
    Ok(Arc::from(text))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Check and take a name.
            pub fn new(text: &str) -> Result<Self, BadName> {
                $check($what, text).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// One configured account on one platform: `shopify-eu`. Lower-case ASCII, digits, `-`, `_`; at most 48 bytes.
    SourceId, "source name", checked_id
);
id!(
    /// Our own id of a warehouse. Lower-case ASCII, digits, `-`, `_`; at most 48 bytes.
    WarehouseId, "warehouse name", checked_id
);
id!(
    /// Our own id of a stock-keeping unit: any text without control characters, trimmed, at most 255 bytes.
    Sku, "SKU", checked_sku
);

impl Sku {
    /// Check a text and trim it: what [`Sku::new`] takes, without a copy.
    pub fn check(text: &str) -> Result<&str, BadName> {
        let trimmed = text.trim();
        let bad = |why| Err(BadName { what: "SKU", text: trimmed.chars().take(60).collect(), why });
        if trimmed.is_empty() {
            return bad("it is empty");
        }
        if trimmed.len() > NAME_MAX_BYTES {
            return bad("it is longer than 255 bytes");
        }
        if trimmed.chars().any(char::is_control) {
            return bad("it holds a control character");
        }
        Ok(trimmed)
    }
}

fn checked_sku(_what: &'static str, text: &str) -> Result<Arc<str>, BadName> {
    Sku::check(text).map(Arc::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_label_and_a_path_segment() {
        assert!(SourceId::new("shopify-eu_2").is_ok());
        for bad in ["", "Shopify", "a/b", "a b", "é", &"x".repeat(49)] {
            assert!(SourceId::new(bad).is_err(), "{bad}");
        }
        let error = WarehouseId::new("Main Hall").expect_err("has a space").to_string();
        assert_eq!(error, "`Main Hall` cannot be a warehouse name: use lower-case letters, digits, `-` and `_`");
    }

    #[test]
    fn a_sku_is_trimmed_and_never_empty() {
        assert_eq!(Sku::new("  A-1 \n").map(|s| s.as_str().to_owned()), Ok("A-1".to_owned()));
        assert!(Sku::new("   ").is_err());
        assert!(Sku::new("a\u{7}b").is_err());
    }
}
