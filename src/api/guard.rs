//! Who may ask: not a web page.
//!
//! The admin listener is usually on loopback and asks for no token, so a browser on the same machine is the way in for a stranger.
//! Two rules close it, and neither gets in the way of curl, Prometheus or the command line:
//!
//! 1. **`Host` must be an IP address, `localhost` or a configured name.** A page that has its own name resolved to 127.0.0.1 (DNS
//!    rebinding) still sends its own name. Applies to every request, unless tokens are required: a page knows none, and the machine may
//!    then be called by any name. A request without `Host` (HTTP/1.0) is no browser's.
//! 2. **What changes something must not come from another site.** Browsers put `Origin` on every cross-site POST and DELETE, so
//!    an `Origin` that is not this very host is refused, and so is a `Sec-Fetch-Site` other than `same-origin` and `none`.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, StatusCode};

use super::problem::Problem;

/// Let a request pass, or say why not. `names` are further host names of the admin listener; with `tokens` it requires them.
pub(super) fn check(method: &Method, headers: &HeaderMap, names: &[String], tokens: bool) -> Result<(), Problem> {
    let host = text(headers, HOST.as_str());
    if !tokens && headers.contains_key(HOST) && !host.is_some_and(|host| ours(host, names)) {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "the admin listener answers to an IP address or localhost, not to this host name",
        ));
    }
    if method.is_safe() {
        return Ok(());
    }
    let same_origin = match headers.get(ORIGIN) {
        None => true,
        Some(_) => text(headers, ORIGIN.as_str())
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(_, authority)| host.is_some_and(|host| host.eq_ignore_ascii_case(authority))),
    };
    let same_site =
        !headers.contains_key("sec-fetch-site") || matches!(text(headers, "sec-fetch-site"), Some("same-origin" | "none"));
    if same_origin && same_site {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "a web page of another site may not change anything here"))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// True when a `Host` field names this listener.
fn ours(host: &str, names: &[String]) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name.parse::<Ipv4Addr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || names.iter().any(|known| known.eq_ignore_ascii_case(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn asked(method: &Method, fields: &[(&'static str, &'static str)]) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        check(method, &headers, &["box.example".to_owned()], false).err().map(|p| p.status().as_u16())
    }

    #[test]
    fn a_name_that_was_rebound_to_this_machine_is_refused() {
        for good in
            ["127.0.0.1:9780", "[::1]:9780", "localhost", "LOCALHOST:9780", "x.localhost.", "BOX.example:1", "192.0.2.7"]
        {
            assert_eq!(asked(&Method::GET, &[("host", good)]), None, "{good}");
        }
        for bad in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "", "evillocalhost"] {
            assert_eq!(asked(&Method::GET, &[("host", bad)]), Some(421), "{bad}");
        }
        assert_eq!(asked(&Method::GET, &[]), None, "HTTP/1.0 has no host");
    }

    #[test]
    fn where_tokens_are_required_the_machine_may_have_any_name_and_pages_still_change_nothing() {
        let by_name = HeaderMap::from_iter([(HOST, HeaderValue::from_static("box.lan:9780"))]);
        assert_eq!(check(&Method::GET, &by_name, &[], true), Ok(()));
        assert!(check(&Method::GET, &by_name, &[], false).is_err());
        let mut from_page = by_name;
        from_page.insert(ORIGIN, HeaderValue::from_static("https://evil.example"));
        assert!(check(&Method::POST, &from_page, &[], true).is_err());
    }

    #[test]
    fn a_page_of_another_site_can_change_nothing() {
        let host = ("host", "127.0.0.1:9780");
        assert_eq!(asked(&Method::POST, &[host]), None);
        assert_eq!(asked(&Method::POST, &[host, ("origin", "http://127.0.0.1:9780")]), None);
        for origin in ["http://evil.example", "null", "http://127.0.0.1:8000", "127.0.0.1:9780"] {
            assert_eq!(asked(&Method::DELETE, &[host, ("origin", origin)]), Some(403), "{origin}");
        }
        assert_eq!(asked(&Method::POST, &[host, ("sec-fetch-site", "cross-site")]), Some(403));
        assert_eq!(asked(&Method::POST, &[host, ("sec-fetch-site", "same-origin")]), None);
        assert_eq!(
            asked(&Method::GET, &[host, ("origin", "http://evil.example")]),
            None,
            "reads are kept from it by the browser"
        );
    }
}
