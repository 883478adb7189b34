//! The PROXY protocol, versions 1 and 2: who really connected, in the words of a proxy in front.
//!
//! The header comes before everything else on a connection, TLS included; <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>
//! describes it. Here:
//! - Only peers that the configuration lists are asked for it, and they must send it: a header that anybody may send is a way past
//!   every address list. From others it is never looked for, so their "header" is a broken TLS record.
//! - What follows the header stays in the socket: bytes are looked at first (`MSG_PEEK`) and taken when they belong to it.
//! - A header has a bound in bytes and in time (`limits`). What follows the addresses (TLVs) is passed over.
//! - `LOCAL`, `UNKNOWN` and `UNSPEC` say nothing about a client: then the connection is the proxy's own.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::limits::PROXY_HEADER_MAX_BYTES;

/// Says whether a peer is a proxy that begins each connection with a PROXY header.
pub type Proxies = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

const V1_SIGNATURE: &[u8] = b"PROXY ";
/// Longest header of version 1 with its line end: two IPv6 addresses in full.
const V1_MAX_BYTES: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// Why a connection from a listed proxy cannot be served.
#[derive(Debug)]
pub(super) enum ProxyError {
    /// What it sent is no header.
    Bad(&'static str),
    /// No whole header in time.
    TimedOut,
    /// It closed before a whole header.
    Broken(io::Error),
}

impl ProxyError {
    /// The `reason` in the metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Bad(_) => "proxy-header",
            Self::TimedOut => "proxy-timeout",
            Self::Broken(_) => "proxy-closed",
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(why) => write!(f, "no PROXY header: {why}"),
            Self::TimedOut => f.write_str("no whole PROXY header in time"),
            Self::Broken(error) => write!(f, "closed before a whole PROXY header: {error}"),
        }
    }
}

/// Take the header off a connection: the client's address, or `None` when the connection is the proxy's own. Nothing behind the header
/// is taken.
pub(super) async fn take(socket: &mut TcpStream, timeout: Duration) -> Result<Option<IpAddr>, ProxyError> {
    tokio::time::timeout(timeout, read(socket)).await.unwrap_or(Err(ProxyError::TimedOut))
}

async fn read(socket: &mut TcpStream) -> Result<Option<IpAddr>, ProxyError> {
    let mut held = Vec::new();
    loop {
        let taken = held.len();
        // always room for one byte more: `parse` ends a longer header
        held.resize(PROXY_HEADER_MAX_BYTES + 1, 0);
        let seen = socket.peek(held.get_mut(taken..).unwrap_or_default()).await.map_err(ProxyError::Broken)?;
        if seen == 0 {
            return Err(ProxyError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        held.truncate(taken + seen);
        let parsed = parse(&held);
        if let Parsed::Header { length, .. } = parsed {
            held.truncate(length);
        }
        if let Parsed::Bad(why) = parsed {
            return Err(ProxyError::Bad(why));
        }
        // the same bytes again, this time out of the socket
        socket.read_exact(held.get_mut(taken..).unwrap_or_default()).await.map_err(ProxyError::Broken)?;
        if let Parsed::Header { client, .. } = parsed {
            return Ok(client);
        }
    }
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parsed {
    /// The beginning of a header: every one of these bytes belongs to it.
    More,
    /// A header of so many bytes.
    Header { length: usize, client: Option<IpAddr> },
    /// Not a header, whatever follows.
    Bad(&'static str),
}

fn parse(bytes: &[u8]) -> Parsed {
    if begins(bytes, V2_SIGNATURE) {
        v2(bytes)
    } else if begins(bytes, V1_SIGNATURE) {
        v1(bytes)
    } else {
        Parsed::Bad("the connection begins with something else")
    }
}

/// One of the two begins with the other.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

fn v1(bytes: &[u8]) -> Parsed {
    let within = bytes.get(..V1_MAX_BYTES).unwrap_or(bytes);
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if within.len() < V1_MAX_BYTES { Parsed::More } else { Parsed::Bad("the line is too long") };
    };
    let line = within.get(V1_SIGNATURE.len()..end).and_then(|line| std::str::from_utf8(line).ok());
    match line.and_then(v1_line) {
        Some(Named::Client(client)) => Parsed::Header { length: end + 2, client: Some(client) },
        Some(Named::Nobody) => Parsed::Header { length: end + 2, client: None },
        None => Parsed::Bad("the line cannot be read"),
    }
}

/// Whom a line names.
enum Named {
    Client(IpAddr),
    Nobody,
}

/// What follows `PROXY `: `TCP4 192.0.2.1 198.51.100.1 56324 443`.
fn v1_line(line: &str) -> Option<Named> {
    let mut parts = line.split(' ');
    let family = parts.next()?;
    if family == "UNKNOWN" {
        // a receiver must ignore what follows
        return Some(Named::Nobody);
    }
    let (from, to, from_port, to_port) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok();
    if parts.next().is_some() || !port(from_port) || !port(to_port) {
        return None;
    }
    let (from, to): (IpAddr, IpAddr) = match family {
        "TCP4" => (from.parse::<Ipv4Addr>().ok()?.into(), to.parse::<Ipv4Addr>().ok()?.into()),
        "TCP6" => (from.parse::<Ipv6Addr>().ok()?.into(), to.parse::<Ipv6Addr>().ok()?.into()),
        _ => return None,
    };
    debug_assert_eq!(from.is_ipv4(), to.is_ipv4(), "both are of the family that was named");
    Some(Named::Client(from.to_canonical()))
}

fn v2(bytes: &[u8]) -> Parsed {
    let Some((&[command, family, high, low], rest)) =
        bytes.get(V2_SIGNATURE.len()..).and_then(|rest| rest.split_first_chunk::<4>())
    else {
        return Parsed::More;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if V2_FIXED_BYTES + length > PROXY_HEADER_MAX_BYTES {
        return Parsed::Bad("the header is too long");
    }
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Parsed::Bad("an unknown version or command"),
    };
    let addresses = match family {
        _ if local => 0,
        // unspecified, or a Unix socket
        0x00 | 0x31 => 0,
        0x11 => 12,
        0x21 => 36,
        _ => return Parsed::Bad("an unknown address family or protocol"),
    };
    if length < addresses {
        return Parsed::Bad("the header is too short for its addresses");
    }
    if rest.len() < length {
        return Parsed::More;
    }
    let client = match addresses {
        12 => rest.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        36 => rest.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    };
    Parsed::Header { length: V2_FIXED_BYTES + length, client: client.map(|client| client.to_canonical()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2_header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn client(bytes: &[u8]) -> Result<Option<IpAddr>, &'static str> {
        match parse(bytes) {
            Parsed::Header { client, length } => {
                assert_eq!(length, bytes.len(), "all of it");
                Ok(client)
            }
            Parsed::Bad(why) => Err(why),
            Parsed::More => panic!("not whole: {bytes:?}"),
        }
    }

    fn ip(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn lines_of_version_1() {
        assert_eq!(client(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"), Ok(ip("192.0.2.1")));
        assert_eq!(client(b"PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n"), Ok(ip("2001:db8::7")));
        assert_eq!(
            client(b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 1 2\r\n"),
            Ok(ip("192.0.2.1")),
            "mapped is IPv4"
        );
        assert_eq!(client(b"PROXY UNKNOWN\r\n"), Ok(None));
        assert_eq!(client(b"PROXY UNKNOWN ffff::1 rubbish\r\n"), Ok(None));
        for bad in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 1 443\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
            "PROXY TCP4 shop.example 198.51.100.1 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY tcp4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n\r\n",
        ] {
            assert!(client(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_of_version_2() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
        assert_eq!(client(&v2_header(0x21, 0x11, &four)), Ok(ip("192.0.2.1")));
        let tlvs = [&four[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        assert_eq!(client(&v2_header(0x21, 0x11, &tlvs)), Ok(ip("192.0.2.1")), "what follows the addresses is passed over");
        let six = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0; 20]].concat();
        assert_eq!(client(&v2_header(0x21, 0x21, &six)), Ok(ip("2001:db8::7")));
        let mapped = [&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1][..], &[0; 20]].concat();
        assert_eq!(client(&v2_header(0x21, 0x21, &mapped)), Ok(ip("192.0.2.1")), "mapped is IPv4");
        assert_eq!(client(&v2_header(0x20, 0x11, &four)), Ok(None), "LOCAL: its addresses mean nothing");
        assert_eq!(client(&v2_header(0x20, 0xff, &[])), Ok(None));
        assert_eq!(client(&v2_header(0x21, 0x00, &[])), Ok(None), "UNSPEC");
        assert_eq!(client(&v2_header(0x21, 0x31, &[0; 216])), Ok(None), "a Unix socket");
        for (command, family, length) in
            [(0x11, 0x11, 12), (0x22, 0x11, 12), (0x21, 0x12, 12), (0x21, 0x41, 12), (0x21, 0x11, 11), (0x21, 0x21, 35)]
        {
            assert!(client(&v2_header(command, family, &vec![0; length])).is_err(), "{command:x} {family:x} {length}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_has_come() {
        let length = u16::try_from(PROXY_HEADER_MAX_BYTES - V2_FIXED_BYTES + 1).unwrap().to_be_bytes();
        let header = [V2_SIGNATURE, &[0x21, 0x11], &length].concat();
        assert!(matches!(parse(&header), Parsed::Bad(_)));
        let line = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(parse(&line[..V1_MAX_BYTES - 1]), Parsed::More);
        assert!(matches!(parse(&line[..V1_MAX_BYTES]), Parsed::Bad(_)));
        // the line end comes too late
        let late = [&line[..V1_MAX_BYTES - 1], b"\r\n"].concat();
        assert!(matches!(parse(&late), Parsed::Bad(_)));
    }

    #[test]
    fn what_is_no_header_is_refused_at_its_first_byte() {
        for other in [&b"\x16\x03\x01"[..], b"GET / HTTP/1.1", b"PROXZ", b"\r\n\r\nX", b"Q"] {
            assert!(matches!(parse(other), Parsed::Bad(_)), "{other:?}");
        }
        assert_eq!(parse(b""), Parsed::More);
    }

    /// Bytes that look like a header for a while.
    fn nearly() -> impl Strategy<Value = Vec<u8>> {
        let signature = prop_oneof![Just(&b""[..]), Just(V1_SIGNATURE), Just(&b"PROXY TCP4 "[..]), Just(V2_SIGNATURE)];
        let body = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            "[0-9a-f:. ]{0,110}(\r\n)?".prop_map(String::into_bytes),
            (
                0x1f_u8..0x23,
                prop_oneof![Just(0x11_u8), Just(0x21), Just(0), any::<u8>()],
                proptest::collection::vec(any::<u8>(), 0..60)
            )
                .prop_map(|(command, family, rest)| v2_header(command, family, &rest)[12..].to_vec()),
        ];
        (signature, body).prop_map(|(signature, body)| [signature, &body].concat())
    }

    proptest! {
        #[test]
        fn a_header_is_whole_at_its_last_byte_and_never_before(bytes in nearly()) {
            let whole = parse(&bytes);
            if let Parsed::Header { length, .. } = whole {
                prop_assert!(length <= bytes.len() && length <= PROXY_HEADER_MAX_BYTES);
                prop_assert_eq!(parse(&bytes[..length]), whole, "what follows does not matter");
                for before in 0..length {
                    prop_assert_eq!(parse(&bytes[..before]), Parsed::More, "{} of {}", before, length);
                }
            }
            // once refused, more bytes change nothing
            let refused = (0..=bytes.len()).find(|end| matches!(parse(&bytes[..*end]), Parsed::Bad(_)));
            if let Some(refused) = refused {
                for end in refused..=bytes.len() {
                    prop_assert!(matches!(parse(&bytes[..end]), Parsed::Bad(_)));
                }
            }
        }

        #[test]
        fn every_address_comes_back(v4: u32, v6: u128, ports: (u16, u16)) {
            let (four, six) = (Ipv4Addr::from(v4), Ipv6Addr::from(v6));
            let line = format!("PROXY TCP4 {four} {four} {} {}\r\n", ports.0, ports.1);
            prop_assert_eq!(client(line.as_bytes()), Ok(Some(IpAddr::from(four))));
            let line = format!("PROXY TCP6 {six} {six} {} {}\r\n", ports.0, ports.1);
            prop_assert_eq!(client(line.as_bytes()), Ok(Some(IpAddr::from(six).to_canonical())));
            let block = [&six.octets()[..], &six.octets(), &[0; 4]].concat();
            prop_assert_eq!(client(&v2_header(0x21, 0x21, &block)), Ok(Some(IpAddr::from(six).to_canonical())));
            let block = [&four.octets()[..], &four.octets(), &[0; 4]].concat();
            prop_assert_eq!(client(&v2_header(0x21, 0x11, &block)), Ok(Some(IpAddr::from(four))));
        }
    }
}
