//! Address lists: which senders a source takes deliveries from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses (`203.0.113.0/24`, `2001:db8::/32`) or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

/// Why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadNetwork {
    /// Not an IP address (host names are not looked up: an answer of DNS must not decide who may deliver).
    NotAnAddress,
    /// The part after `/` is not a number of bits that the address family has.
    BadPrefix,
    /// Bits are set past the prefix; the network that was probably meant is given.
    HostBits(Network),
}

impl fmt::Display for BadNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnAddress => f.write_str("not an IP address or network such as \"203.0.113.0/24\" or \"2001:db8::7\""),
            Self::BadPrefix => f.write_str("the number after `/` must be 0 to 32 for IPv4 and 0 to 128 for IPv6"),
            Self::HostBits(meant) => write!(f, "has bits set past its prefix; did you mean \"{meant}\"?"),
        }
    }
}

impl std::error::Error for BadNetwork {}

impl Network {
    /// Is this address in the network? An IPv4 address that arrives as IPv6 (`::ffff:203.0.113.7`, a dual-stack listener)
    /// counts as the IPv4 address it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.bits) == Some(self.base)
            && address.to_canonical().is_ipv4() == self.base.is_ipv4()
    }
}

/// The address with every bit past the prefix cleared; `None` when the family has not so many bits.
fn masked(address: IpAddr, bits: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let host = 32_u32.checked_sub(u32::from(bits))?;
            let mask = u32::MAX.checked_shl(host).unwrap_or(0);
            Some(IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask)))
        }
        IpAddr::V6(v6) => {
            let host = 128_u32.checked_sub(u32::from(bits))?;
            let mask = u128::MAX.checked_shl(host).unwrap_or(0);
            Some(IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask)))
        }
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (address, prefix) = match text.trim().split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text.trim(), None),
        };
        let given: IpAddr = address.parse().map_err(|_| BadNetwork::NotAnAddress)?;
        let bits = match prefix {
            None if given.is_ipv4() => 32,
            None => 128,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| BadNetwork::BadPrefix)?
            }
            Some(_) => return Err(BadNetwork::BadPrefix),
        };
        let base = masked(given, bits).ok_or(BadNetwork::BadPrefix)?;
        // `::ffff:203.0.113.0/120` is the IPv4 network `203.0.113.0/24`: senders are compared in that form.
        let network = match (base.to_canonical(), bits.checked_sub(96)) {
            (v4 @ IpAddr::V4(_), Some(v4_bits)) if base.is_ipv6() => Self { base: v4, bits: v4_bits },
            _ => Self { base, bits },
        };
        if base == given { Ok(network) } else { Err(BadNetwork::HostBits(network)) }
    }
}

/// `203.0.113.0/24`; a single address without the prefix.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.base.is_ipv4() { 32 } else { 128 };
        if self.bits == whole { self.base.fmt(f) } else { write!(f, "{}/{}", self.base, self.bits) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holds(network: &str, address: &str) -> bool {
        let network: Network = network.parse().expect("a network");
        network.contains(address.parse().expect("an address"))
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        assert!(holds("203.0.113.0/24", "203.0.113.255"));
        assert!(!holds("203.0.113.0/24", "203.0.114.0"));
        assert!(holds("198.51.100.7", "198.51.100.7"));
        assert!(!holds("198.51.100.7", "198.51.100.8"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("0.0.0.0/0", "192.0.2.1"));
        assert!(holds("::/0", "2001:db8::1"));
    }

    #[test]
    fn ipv4_is_ipv4_whatever_socket_it_came_through() {
        assert!(holds("203.0.113.0/24", "::ffff:203.0.113.9"));
        assert!(holds("::ffff:203.0.113.0/120", "203.0.113.9"));
        assert!(!holds("::/0", "192.0.2.1"), "an IPv6 list says nothing about IPv4 senders");
        assert!(!holds("::/0", "::ffff:192.0.2.1"));
    }

    #[test]
    fn a_mistake_is_named() {
        let refused = |text: &str| text.parse::<Network>().expect_err("refused").to_string();
        assert_eq!(refused("203.0.113.9/24"), "has bits set past its prefix; did you mean \"203.0.113.0/24\"?");
        let prefix = "the number after `/` must be 0 to 32 for IPv4 and 0 to 128 for IPv6";
        for text in ["203.0.113.0/33", "::/129", "203.0.113.0/", "203.0.113.0/+8", "203.0.113.0/256"] {
            assert_eq!(refused(text), prefix, "{text}");
        }
        let address = "not an IP address or network such as \"203.0.113.0/24\" or \"2001:db8::7\"";
        for text in ["shop.example.com", "", "203.0.113", "[::1]"] {
            assert_eq!(refused(text), address, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_network_reads_back_from_its_text(address: u32, wide: u128, bits in 0_u8..=32) {
            for given in [IpAddr::V4(address.into()), IpAddr::V6(wide.into())] {
                let network = Network { base: masked(given, bits).expect("in range"), bits };
                prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
                prop_assert!(network.contains(given) || given.to_canonical().is_ipv4() != given.is_ipv4());
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            drop(text.parse::<Network>());
        }
    }
}
