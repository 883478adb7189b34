//! Where a platform's API or a channel lives: scheme, host, port and a path prefix, all from the configuration.

use std::fmt;
use std::net::IpAddr;

use http::uri::{PathAndQuery, Uri};

/// A base URL that was checked. Its path is not shown by `Debug`: some platforms put a token there.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    https: bool,
    host: String,
    port: u16,
    prefix: String,
}

/// What is wrong with a base URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlError {
    /// Not a URL.
    Unreadable,
    /// Neither `https` nor `http`.
    Scheme,
    /// `http` to a host that is not this machine: the request's credentials would be readable on the way.
    Cleartext,
    /// It carries a user name or password.
    Userinfo,
    /// It has a query or a fragment.
    NotABase,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "not a URL; expected https://host[:port][/path]",
            Self::Scheme => "the scheme must be https (or http for this machine)",
            Self::Cleartext => "http is only allowed to this machine (127.0.0.0/8, ::1, localhost)",
            Self::Userinfo => "a user name or password does not belong in a URL; use the credential files",
            Self::NotABase => "a base URL has no query and no fragment",
        })
    }
}

impl std::error::Error for UrlError {}

impl BaseUrl {
    /// Parse; `http` is allowed to loopback hosts only.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let url = Self::parse_allowing_http(text)?;
        if url.https || url.is_loopback() { Ok(url) } else { Err(UrlError::Cleartext) }
    }

    /// Parse, with `http` to any host: for an operator who said so.
    pub fn parse_allowing_http(text: &str) -> Result<Self, UrlError> {
        if text.contains(['#', '?']) {
            return Err(UrlError::NotABase);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Unreadable)?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(UrlError::Scheme),
            None => return Err(UrlError::Unreadable),
        };
        let authority = uri.authority().ok_or(UrlError::Unreadable)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::Userinfo);
        }
        let host = authority.host();
        // Not `authority.port()`, which takes a number past 65535 for no port at all.
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => Self::usual_port(https),
            Some(port) => {
                let number = port.strip_prefix(':').and_then(|digits| digits.parse().ok());
                number.filter(|number| *number != 0).ok_or(UrlError::Unreadable)?
            }
            None => return Err(UrlError::Unreadable),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if rustls::pki_types::ServerName::try_from(host.as_str()).is_err() {
            return Err(UrlError::Unreadable);
        }
        Ok(Self { https, host, port, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    const fn usual_port(https: bool) -> u16 {
        if https { 443 } else { 80 }
    }

    /// True for `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Host name or address; IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path in front of every target, without a slash at its end; empty when there is none.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// True when the host is this machine.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }

    /// `host` or `host:port`, as the `Host` field has it.
    pub fn authority(&self) -> String {
        let brackets = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        let host = format!("{}{}{}", brackets.0, self.host, brackets.1);
        if self.port == Self::usual_port(self.https) { host } else { format!("{host}:{}", self.port) }
    }

    /// `https://host:port`: safe to log.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }

    /// The path and query of a request to `target`. A scheme and host in `target` are ignored, on purpose: what a payload says
    /// about hosts is not followed.
    pub(super) fn join(&self, target: &Uri) -> Result<PathAndQuery, UrlError> {
        let target = target.path_and_query().map_or("/", PathAndQuery::as_str);
        if !target.starts_with('/') {
            return Err(UrlError::Unreadable);
        }
        format!("{}{target}", self.prefix).parse().map_err(|_| UrlError::Unreadable)
    }
}

/// The whole URL, path included.
impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.prefix)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BaseUrl({})", self.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_read_and_usual_ports_are_left_out() {
        let url = BaseUrl::parse("https://Shop.Example:8443/rest/v1/").unwrap();
        assert_eq!((url.host(), url.port(), url.prefix(), url.is_https()), ("shop.example", 8443, "/rest/v1", true));
        assert_eq!(url.to_string(), "https://shop.example:8443/rest/v1");
        assert_eq!(BaseUrl::parse("https://a.example:443").unwrap().authority(), "a.example");
        assert_eq!(BaseUrl::parse("http://[::1]:80/").unwrap().authority(), "[::1]");
        assert_eq!(BaseUrl::parse("http://[::1]:81").unwrap().origin(), "http://[::1]:81");
    }

    #[test]
    fn what_could_leak_or_mislead_is_refused() {
        for (text, why) in [
            ("https://user:pass@a.example", UrlError::Userinfo),
            ("https://a.example@b.example", UrlError::Userinfo),
            ("https://a.example/?x=1", UrlError::NotABase),
            ("https://a.example/#x", UrlError::NotABase),
            ("ftp://a.example", UrlError::Scheme),
            ("http://a.example", UrlError::Cleartext),
            ("http://127.0.0.1.evil.example", UrlError::Cleartext),
            ("a.example", UrlError::Unreadable),
            ("/path", UrlError::Unreadable),
            ("", UrlError::Unreadable),
            ("https://", UrlError::Unreadable),
            ("https://a.example:99999", UrlError::Unreadable),
            ("https://a.example:", UrlError::Unreadable),
            ("https://a.example:0", UrlError::Unreadable),
            ("https://:443", UrlError::Unreadable),
            ("https://[::1", UrlError::Unreadable),
            ("https://a b.example", UrlError::Unreadable),
        ] {
            assert_eq!(BaseUrl::parse(text).err(), Some(why), "{text}");
        }
    }

    #[test]
    fn cleartext_is_allowed_to_this_machine_or_when_said_so() {
        for text in ["http://127.0.0.1:9", "http://127.8.9.1", "http://[::1]", "http://localhost:8080"] {
            assert!(BaseUrl::parse(text).is_ok(), "{text}");
        }
        assert!(BaseUrl::parse_allowing_http("http://a.example").is_ok());
    }

    #[test]
    fn a_target_stays_on_the_configured_host() {
        let url = BaseUrl::parse("https://a.example/rest").unwrap();
        let join = |target: &str| url.join(&target.parse().unwrap()).unwrap().to_string();
        assert_eq!(join("/x?y=1"), "/rest/x?y=1");
        assert_eq!(join("https://evil.example/x?y=1"), "/rest/x?y=1");
        assert!(url.join(&"*".parse().unwrap()).is_err());
    }

    #[test]
    fn a_token_in_the_path_is_not_debugged() {
        let url = BaseUrl::parse("https://a.example/rest/1/s3cr3t").unwrap();
        assert!(!format!("{url:?}").contains("s3cr3t"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_what_is_parsed_parses_again(text in "(https?://)?[a-z0-9:@/\\[\\].?#-]{0,40}") {
            if let Ok(url) = BaseUrl::parse(&text) {
                prop_assert_eq!(BaseUrl::parse(&url.to_string()), Ok(url));
            }
        }
    }
}
