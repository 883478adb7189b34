//! The few fields of a certificate that we show or check: names as raw bytes, and validity (RFC 5280, section 4.1).
//!
//! This decides nothing about trust (webpki does); it reads our own server certificate.

use crate::time::Timestamp;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const EXPLICIT_VERSION: u8 = 0xa0;

const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const EXPLICIT_EXTENSIONS: u8 = 0xa3;
/// `keyIdentifier [0]` of an AuthorityKeyIdentifier.
const KEY_IDENTIFIER: u8 = 0x80;
/// id-ce-authorityKeyIdentifier, 2.5.29.35 (RFC 5280, section 4.2.1.1).
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];

/// What a certificate says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields<'a> {
    /// Serial number, as DER without its header.
    pub(super) serial: &'a [u8],
    /// Identifier of the issuer's key, where the certificate names it.
    pub(super) authority: Option<&'a [u8]>,
    /// Issuer, as DER without its header.
    pub(super) issuer: &'a [u8],
    /// Subject, likewise.
    pub(super) subject: &'a [u8],
    /// Start of validity.
    pub(super) not_before: Timestamp,
    /// End of validity.
    pub(super) not_after: Timestamp,
}

/// Read a DER certificate; `None` when it is not one.
pub(super) fn read(certificate: &[u8]) -> Option<Fields<'_>> {
    let mut outer = Der(certificate);
    let mut signed = Der(outer.take(SEQUENCE)?);
    let mut body = Der(signed.take(SEQUENCE)?);
    if body.0.first() == Some(&EXPLICIT_VERSION) {
        body.take(EXPLICIT_VERSION)?;
    }
    let serial = body.take(INTEGER)?;
    body.take(SEQUENCE)?; // signature algorithm
    let issuer = body.take(SEQUENCE)?;
    let mut validity = Der(body.take(SEQUENCE)?);
    let not_before = validity.time()?;
    let not_after = validity.time()?;
    let subject = body.take(SEQUENCE)?;
    Some(Fields { serial, authority: authority(&mut body), issuer, subject, not_before, not_after })
}

/// The key identifier of the AuthorityKeyIdentifier, in what follows the subject.
fn authority<'a>(body: &mut Der<'a>) -> Option<&'a [u8]> {
    let mut extensions = loop {
        let (tag, content) = body.next()?;
        if tag == EXPLICIT_EXTENSIONS {
            break Der(Der(content).take(SEQUENCE)?);
        }
    };
    loop {
        let mut extension = Der(extensions.take(SEQUENCE)?);
        if extension.take(OBJECT_IDENTIFIER)? != AUTHORITY_KEY_IDENTIFIER {
            continue;
        }
        let value = loop {
            // a BOOLEAN says before it whether the extension is critical
            let (tag, content) = extension.next()?;
            if tag == OCTET_STRING {
                break content;
            }
        };
        return Der(Der(value).take(SEQUENCE)?).take(KEY_IDENTIFIER);
    }
}

/// What is left of a run of DER values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value, of any tag: (tag, content).
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // One to four length bytes: more than a certificate ever needs.
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
                let length = digits.iter().try_fold(0_usize, |sum, d| sum.checked_mul(256)?.checked_add(usize::from(*d)))?;
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn take(&mut self, expected: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == expected).map(|(_, content)| content)
    }

    fn time(&mut self) -> Option<Timestamp> {
        let (tag, content) = self.next()?;
        let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let (year, rest) = match tag {
            // RFC 5280, section 4.1.2.5.1: two-digit years from 50 are in the last century.
            UTC_TIME if text.len() == 12 => {
                let (year, rest) = text.split_at_checked(2)?;
                (if year < "50" { format!("20{year}") } else { format!("19{year}") }, rest)
            }
            GENERALIZED_TIME if text.len() == 14 => {
                let (year, rest) = text.split_at_checked(4)?;
                (year.to_owned(), rest)
            }
            _ => return None,
        };
        // "No well-defined end" (section 4.1.2.5) is past the last moment that the calendar library knows.
        if year == "9999" && rest.starts_with("1231") {
            return Timestamp::parse_rfc3339("9999-12-30T00:00:00Z");
        }
        let mut pairs = (0..5).map(|i| rest.get(i * 2..i * 2 + 2).unwrap_or_default());
        let mut pair = || pairs.next().unwrap_or_default();
        Timestamp::parse_rfc3339(&format!("{year}-{}-{}T{}:{}:{}Z", pair(), pair(), pair(), pair(), pair()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(tag: u8, text: &str) -> Option<Timestamp> {
        let mut der = vec![tag, u8::try_from(text.len()).unwrap()];
        der.extend_from_slice(text.as_bytes());
        Der(&der).time()
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let expected = Timestamp::parse_rfc3339("2031-07-09T01:02:03Z");
        assert_eq!(time(UTC_TIME, "310709010203Z"), expected);
        assert_eq!(time(GENERALIZED_TIME, "20310709010203Z"), expected);
        assert_eq!(time(UTC_TIME, "500101000000Z"), Timestamp::parse_rfc3339("1950-01-01T00:00:00Z"));
        assert_eq!(time(UTC_TIME, "491231235959Z"), Timestamp::parse_rfc3339("2049-12-31T23:59:59Z"));
    }

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()][..], content].concat()
    }

    /// The numbers of RFC 9773, section 4.1, in the extensions of a certificate that has others before it.
    #[test]
    fn the_issuers_key_is_found_among_the_extensions() {
        let key = [
            0x69, 0x88, 0x5b, 0x6b, 0x87, 0x46, 0x40, 0x41, 0xe1, 0xb3, 0x7b, 0x84, 0x7b, 0xa0, 0xae, 0x2c, 0xde, 0x01,
            0xc8, 0xd4,
        ];
        let extension = |oid: &[u8], critical: &[u8], value: &[u8]| {
            der(SEQUENCE, &[der(OBJECT_IDENTIFIER, oid), critical.to_vec(), der(OCTET_STRING, value)].concat())
        };
        let usage = extension(&[0x55, 0x1d, 0x0f], &[0x01, 0x01, 0xff], &[0x03, 0x02, 0x07, 0x80]);
        let authority_key = extension(AUTHORITY_KEY_IDENTIFIER, &[], &der(SEQUENCE, &der(KEY_IDENTIFIER, &key)));
        let with = |extensions: &[u8]| {
            let key_info = der(SEQUENCE, &[]);
            [key_info, der(EXPLICIT_EXTENSIONS, &der(SEQUENCE, extensions))].concat()
        };
        assert_eq!(authority(&mut Der(&with(&[usage.clone(), authority_key].concat()))), Some(&key[..]));
        assert_eq!(authority(&mut Der(&with(&usage))), None);
        assert_eq!(authority(&mut Der(&der(SEQUENCE, &[]))), None, "no extensions at all");
    }

    #[test]
    fn a_certificate_without_an_end_ends_in_the_last_year() {
        assert!(time(GENERALIZED_TIME, "99991231235959Z") > Timestamp::parse_rfc3339("9999-01-01T00:00:00Z"));
    }

    #[test]
    fn odd_times_are_refused() {
        for text in ["310709010203", "3107090102Z", "311309010203Z", "31070901020xZ", ""] {
            assert_eq!(time(UTC_TIME, text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(fields) = read(&bytes) {
                prop_assert!(fields.subject.len() < bytes.len());
            }
        }

        #[test]
        fn a_damaged_certificate_is_read_or_refused(at in 0_usize..200, to in any::<u8>()) {
            let made = crate::net::tls::make_self_made(&["box".to_owned()], Timestamp::from_seconds(1_800_000_000)).unwrap();
            let mut der = crate::net::tls::certificates(made.cert_pem.as_bytes()).unwrap().remove(0).to_vec();
            der[at] = to;
            if let Some(fields) = read(&der) {
                prop_assert!(fields.issuer.len() < der.len());
            }
        }
    }
}
