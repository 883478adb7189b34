//! A request as an adapter sees it, and what makes two of them the same.

use crate::time::Timestamp;

/// Header fields by lower-case name. A value that is not UTF-8 counts as absent.
pub trait Headers {
    /// First value of the field, or `None`.
    fn get(&self, name: &str) -> Option<&str>;
}

impl Headers for http::HeaderMap {
    fn get(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(Self::get(self, name)?.as_bytes()).ok()
    }
}

/// Header fields as they came, where every delivery passes. A list: an adapter asks for a dozen of them, and a dozen names are compared faster than one is
/// hashed, and in a list faster than in the map.
pub struct Fields<'a>(Vec<(&'a str, &'a [u8])>);

impl<'a> From<&'a http::HeaderMap> for Fields<'a> {
    fn from(map: &'a http::HeaderMap) -> Self {
        Self(map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect())
    }
}

impl Headers for Fields<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| *known == name)?;
        std::str::from_utf8(value).ok()
    }
}

/// Header fields as kept in the journal: (lower-case name, value).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderList<'a>(pub Vec<(&'a str, &'a str)>);

impl Headers for HeaderList<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }
}

/// One request to `/in/<source>`, without its sockets. The body is the raw bytes as received: signatures are over them.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// The query string without `?`, still percent-encoded.
    pub query: &'a str,
    /// The header fields (all of them at the door; those of `Source::kept_headers` when read from the journal).
    pub headers: &'a dyn Headers,
    /// The raw body.
    pub body: &'a [u8],
    /// When the last byte arrived, by our clock.
    pub received_at: Timestamp,
}

impl Message<'_> {
    /// First value of a header field, trimmed; `None` when absent or empty.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(str::trim).filter(|v| !v.is_empty())
    }

    /// First value of a query parameter, decoded; `None` when absent or empty.
    pub fn query_value(&self, name: &str) -> Option<String> {
        query_value(self.query, name)
    }
}

/// First non-empty value of `name` in a query string, percent-decoded.
pub fn query_value(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, value)| !value.is_empty() && decode_component(key) == name)
        .map(|(_, value)| decode_component(value))
}

/// Undo percent-encoding and `+`; bytes that are not UTF-8 become U+FFFD, a broken escape stays as it is.
pub fn decode_component(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut ahead = bytes.clone();
                let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
                match (hex(ahead.next()), hex(ahead.next())) {
                    (Some(high), Some(low)) => {
                        out.push(high << 4 | low);
                        bytes = ahead;
                    }
                    _ => out.push(b'%'),
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// What makes two messages of one source the same message.
///
/// The gateway hashes the parts length-prefixed and with the source's name in front, so ("1","23") and ("12","3") differ and
/// two sources never share a key. **A missing part never becomes an empty one**: an adapter that lacks a part of its key
/// returns [`Identity::Content`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The sender names its deliveries: the same parts within the source's window are the same delivery. The first part
    /// is what people are shown as the delivery's id. The same parts with another body are kept as a conflict.
    Named(Vec<Vec<u8>>),
    /// The sender names nothing that can be trusted. A body is a repeat only when the last report of the same source about
    /// the same place had this very body: A, A is one delivery and its repeat; A, B, A are three deliveries.
    Content,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_decoded_and_empty_ones_are_absent() {
        let query = "a=1&b=x%20y+z&c=&b=2&bad=%zz&d%5B%5D=q";
        assert_eq!(query_value(query, "a").as_deref(), Some("1"));
        assert_eq!(query_value(query, "b").as_deref(), Some("x y z"));
        assert_eq!(query_value(query, "c"), None);
        assert_eq!(query_value(query, "bad").as_deref(), Some("%zz"));
        assert_eq!(query_value(query, "d[]").as_deref(), Some("q"));
        assert_eq!(query_value("", "a"), None);
    }
}
