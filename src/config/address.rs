//! Base URLs and host names as the configuration may write them.

use std::net::{IpAddr, Ipv6Addr};

/// Check a base URL and bring it to one form: lower-case scheme and host, no slash at the end. `http` only to this very
/// machine, and nothing but scheme, host, port and a path: a user or a query would be a secret in the wrong place.
///
/// The error does not repeat the URL, which may hold a password.
pub(super) fn base_url(text: &str) -> Result<String, String> {
    let (scheme, rest) = text.split_once("://").ok_or("not a URL such as \"https://shop.example.com\"")?;
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "https" && scheme != "http" {
        return Err("must start with https://".to_owned());
    }
    if rest.bytes().any(|b| !b.is_ascii_graphic()) {
        return Err(
            "holds a blank or a character that is not ASCII: write the host in its xn-- form, a path %-encoded".to_owned()
        );
    }
    if rest.contains(['?', '#']) {
        return Err("holds a query or a fragment: name only the host and a path".to_owned());
    }
    if rest.contains('\\') {
        return Err("holds a backslash".to_owned());
    }
    let (authority, path) = rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err("holds a user or a password: credentials have keys of their own".to_owned());
    }
    let (host, port) = host_and_port(authority)?;
    if scheme == "http" && !is_loopback(&host) {
        return Err("must start with https:// (http is allowed to this machine only)".to_owned());
    }
    let port = port.map(|p| format!(":{p}")).unwrap_or_default();
    let url = format!("{scheme}://{host}{port}{}", path.trim_end_matches('/'));
    // What the client is going to parse must be parsable: its rules for a path are stricter than ours.
    if url.parse::<http::Uri>().is_err() {
        return Err("holds a character that must be %-encoded".to_owned());
    }
    Ok(url)
}

fn host_and_port(authority: &str) -> Result<(String, Option<u16>), String> {
    if let Some((v6, after)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let v6: Ipv6Addr = v6.parse().map_err(|_| "the part in brackets is not an IPv6 address")?;
        let port =
            if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or("has no port after its brackets")?) };
        return Ok((format!("[{v6}]"), port.map(port_number).transpose()?));
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    if host.parse::<IpAddr>().is_err() && !is_dns_name(host) {
        return Err("has no valid host name".to_owned());
    }
    Ok((host.to_ascii_lowercase(), port.map(port_number).transpose()?))
}

fn port_number(digits: &str) -> Result<u16, String> {
    let number = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None };
    number.filter(|port| *port != 0).ok_or_else(|| "its port is not a number from 1 to 65535".to_owned())
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|a| a.is_loopback())
}

/// A host name of letters, digits and `-` in labels of 1 to 63 bytes, at most 253 in all (RFC 1123).
pub(super) fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // Names such as "127.1" or "1" read as addresses to some resolvers; a top label of digits alone is none.
    let top_is_digits = text.rsplit('.').next().is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && !top_is_digits
}

/// What a certificate may be made for: an address, a host name, or `*.` before a host name.
pub(super) fn is_certificate_name(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || is_dns_name(text.strip_prefix("*.").unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_form_for_every_spelling() {
        for (text, form) in [
            ("https://shop.example.com", "https://shop.example.com"),
            ("HTTPS://Shop.Example.COM/", "https://shop.example.com"),
            ("https://shop.example.com:8443/api/v1/", "https://shop.example.com:8443/api/v1"),
            ("https://[2001:DB8::0:1]:444", "https://[2001:db8::1]:444"),
            ("https://10.0.0.7", "https://10.0.0.7"),
            ("http://localhost:9000", "http://localhost:9000"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("http://[::1]:9000/x", "http://[::1]:9000/x"),
        ] {
            assert_eq!(base_url(text).as_deref(), Ok(form), "{text}");
        }
    }

    #[test]
    fn what_could_leak_or_mislead_is_refused() {
        for (text, why) in [
            ("shop.example.com", "not a URL such as \"https://shop.example.com\""),
            ("ftp://shop.example.com", "must start with https://"),
            ("http://shop.example.com", "must start with https:// (http is allowed to this machine only)"),
            ("http://localhost.example.com", "must start with https:// (http is allowed to this machine only)"),
            ("https://user:hunter2@shop.example.com", "holds a user or a password: credentials have keys of their own"),
            ("https://shop.example.com?key=hunter2", "holds a query or a fragment: name only the host and a path"),
            ("https://shop.example.com/#x", "holds a query or a fragment: name only the host and a path"),
            ("https://good.example\\@evil.example", "holds a backslash"),
            ("https://", "has no valid host name"),
            ("https://127.1", "has no valid host name"),
            ("https://a..b", "has no valid host name"),
            ("https://shop.example.com:0", "its port is not a number from 1 to 65535"),
            ("https://shop.example.com:", "its port is not a number from 1 to 65535"),
            ("https://shop.example.com/a`b", "holds a character that must be %-encoded"),
            ("https://[::1]9", "has no port after its brackets"),
        ] {
            assert_eq!(base_url(text), Err(why.to_owned()), "{text}");
        }
        assert!(base_url("https://shöp.example").is_err_and(|why| why.contains("xn--")));
        assert!(base_url("https://shop.example.com/a\r\nhost: evil").is_err());
    }

    proptest! {
        #[test]
        fn a_form_is_its_own_form(text in "https?://[a-z0-9.:\\[\\]/%@-]{0,30}") {
            if let Ok(form) = base_url(&text) {
                prop_assert_eq!(base_url(&form), Ok(form));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            drop(base_url(&text));
        }
    }
}
