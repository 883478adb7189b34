//! Parameters of a request: query, path segments, cursors. What is not understood is refused, never ignored.

use data_encoding::BASE64URL_NOPAD;

use super::problem::Problem;
use crate::limits::{PAGE_ROWS, PAGE_ROWS_MAX};
use crate::types::decode_component;

/// The query parameters, decoded.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Split a query string. Repeated names are refused.
    pub(super) fn parse(query: &str) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode_component(name), decode_component(value));
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Problem::bad_request(format!("the parameter `{name}` is given twice")));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// Refuse every parameter that is not one of these: a mistyped filter must not list everything.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) if known.is_empty() => {
                Err(Problem::bad_request(format!("unknown parameter `{name}`: this resource takes none")))
            }
            Some((name, _)) => {
                Err(Problem::bad_request(format!("unknown parameter `{name}`: this resource takes {}", known.join(", "))))
            }
        }
    }

    /// A parameter's value; an empty one counts as absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// True when the parameter is there, with or without a value (`?verbose`).
    pub(super) fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    /// `limit`: rows of a page.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let Some(text) = self.text("limit") else { return Ok(PAGE_ROWS) };
        let limit = text.parse().ok().filter(|n| (1..=PAGE_ROWS_MAX).contains(n));
        limit.ok_or_else(|| Problem::bad_request(format!("limit must be a number from 1 to {PAGE_ROWS_MAX}")))
    }

    /// `after`: the bytes of a cursor that an earlier page gave as `next`.
    pub(super) fn cursor(&self) -> Result<Option<Vec<u8>>, Problem> {
        self.text("after").map(|text| BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| bad_cursor())).transpose()
    }
}

/// What a cursor's bytes look like to a client.
pub(super) fn cursor_text(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

/// The problem of a cursor that is not one of ours.
pub(super) fn bad_cursor() -> Problem {
    Problem::bad_request("after must be the `next` of an earlier page of this very listing")
}

/// Undo the percent-encoding of one path segment. Unlike in a query, `+` is a plus here.
pub(super) fn decode_segment(segment: &str) -> String {
    decode_component(&segment.replace('+', "%2B"))
}

/// A number in a path.
pub(super) fn number(text: &str, what: &str) -> Result<u64, Problem> {
    // the largest number is not taken: listings continue after an id by adding one
    let number = text.parse().ok().filter(|n: &u64| *n < u64::MAX);
    number.ok_or_else(|| Problem::bad_request(format!("`{text}` is not {what}: it is a number")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plus_is_a_blank_in_a_query_and_a_plus_in_a_path() {
        assert_eq!(Params::parse("sku=A+1%2B").expect("reads").text("sku"), Some("A 1+"));
        assert_eq!(decode_segment("A+1%2F%C3%A9"), "A+1/é");
    }

    #[test]
    fn a_mistyped_filter_is_refused_with_what_there_is() {
        let params = Params::parse("warehous=main").expect("reads");
        let expected = Problem::bad_request("unknown parameter `warehous`: this resource takes warehouse, sku");
        assert_eq!(params.only(&["warehouse", "sku"]), Err(expected));
        assert!(Params::parse("a=1&a=2").is_err());
    }

    #[test]
    fn a_limit_stays_within_a_page() {
        let limit = |query| Params::parse(query).and_then(|p| p.limit()).ok();
        assert_eq!(limit(""), Some(PAGE_ROWS));
        assert_eq!(limit("limit=1000"), Some(1000));
        for bad in ["limit=0", "limit=1001", "limit=-1", "limit=ten"] {
            assert_eq!(limit(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_cursor_comes_back(bytes in proptest::collection::vec(any::<u8>(), 1..80)) {
            let params = Params::parse(&format!("after={}", cursor_text(&bytes))).expect("reads");
            prop_assert_eq!(params.cursor(), Ok(Some(bytes)));
        }

        #[test]
        fn no_query_panics(query in "\\PC*") {
            drop(Params::parse(&query).and_then(|p| p.cursor()));
        }
    }
}
