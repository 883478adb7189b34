//! Signatures as the platforms make them, on ring: HMAC over parts, Ed25519, and the encodings they travel in.
//!
//! Every comparison of a secret or of a tag is constant time. Nothing here allocates per candidate secret but the key.

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use ring::hmac;

use super::Refusal;
use crate::types::Secret;

/// The keyed hash of a scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA-256: nearly everyone.
    HmacSha256,
    /// HMAC-SHA-512.
    HmacSha512,
    /// HMAC-SHA-1: old platforms; as a MAC still unbroken.
    HmacSha1,
}

impl Algorithm {
    /// The words of the configuration.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("hmac-sha256", Self::HmacSha256), ("hmac-sha512", Self::HmacSha512), ("hmac-sha1", Self::HmacSha1)];

    fn ring(self) -> hmac::Algorithm {
        match self {
            Self::HmacSha256 => hmac::HMAC_SHA256,
            Self::HmacSha512 => hmac::HMAC_SHA512,
            Self::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        }
    }
}

/// How a tag is written in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 4648 base64, padded or not, either alphabet.
    Base64,
    /// Hexadecimal, either case.
    Hex,
}

impl Encoding {
    /// The words of the configuration.
    pub const WORDS: &'static [(&'static str, Self)] = &[("base64", Self::Base64), ("hex", Self::Hex)];

    /// Read a tag; `None` when it is not of this encoding.
    pub fn decode(self, text: &str) -> Option<Vec<u8>> {
        let text = text.trim().as_bytes();
        match self {
            Self::Hex => HEXLOWER_PERMISSIVE.decode(text).ok(),
            Self::Base64 => [BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD].iter().find_map(|e| e.decode(text).ok()),
        }
    }

    /// Write a tag.
    pub fn encode(self, tag: &[u8]) -> String {
        match self {
            Self::Hex => HEXLOWER_PERMISSIVE.encode(tag),
            Self::Base64 => BASE64.encode(tag),
        }
    }
}

/// The tag over the parts, one after another.
pub fn sign(algorithm: Algorithm, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm.ring(), key));
    for part in parts {
        context.update(part);
    }
    context.sign().as_ref().to_vec()
}

/// Is this the tag over the parts? Constant time.
pub fn verify(algorithm: Algorithm, key: &[u8], parts: &[&[u8]], tag: &[u8]) -> bool {
    match parts {
        [one] => hmac::verify(&hmac::Key::new(algorithm.ring(), key), one, tag).is_ok(),
        _ => same_secret(&sign(algorithm, key, parts), tag),
    }
}

/// The index of the secret under which `header` is the tag over the parts. Several secrets are valid during a rotation.
pub fn verify_any(
    algorithm: Algorithm,
    encoding: Encoding,
    secrets: &[Secret],
    parts: &[&[u8]],
    header: Option<&str>,
) -> Result<usize, Refusal> {
    let tag = header.and_then(|h| encoding.decode(h)).ok_or(Refusal::Unsigned)?;
    secrets.iter().position(|s| verify(algorithm, s.expose(), parts, &tag)).ok_or(Refusal::BadSignature)
}

/// Is this the Ed25519 signature of the parts under a 32-byte public key?
pub fn verify_ed25519(public_key: &[u8], parts: &[&[u8]], signature: &[u8]) -> bool {
    ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public_key).verify(&parts.concat(), signature).is_ok()
}

/// Are two secrets the same? Constant time whatever their contents and lengths: both are hashed under one key first.
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"stockgate secret comparison");
    hmac::verify(&key, b, hmac::sign(&key, a).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_4231_case_2() {
        let tag = sign(Algorithm::HmacSha256, b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(Encoding::Hex.encode(&tag), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert!(verify(Algorithm::HmacSha256, b"Jefe", &[b"what do ya want for nothing?"], &tag));
        assert!(verify(Algorithm::HmacSha256, b"Jefe", &[b"what do ya want for", b" nothing?"], &tag));
        assert!(!verify(Algorithm::HmacSha256, b"jefe", &[b"what do ya want for nothing?"], &tag));
    }

    #[test]
    fn a_truncated_or_padded_tag_does_not_pass() {
        let tag = sign(Algorithm::HmacSha256, b"k", &[b"body"]);
        assert!(!verify(Algorithm::HmacSha256, b"k", &[b"body"], &tag[..8]));
        assert!(!verify(Algorithm::HmacSha256, b"k", &[b"body"], b""));
        assert!(!verify(Algorithm::HmacSha256, b"k", &[b"body"], &[tag.clone(), vec![0]].concat()));
    }

    #[test]
    fn during_a_rotation_the_matching_secret_is_named() {
        let secrets = [Secret::new("new"), Secret::new("old")];
        let header = Encoding::Base64.encode(&sign(Algorithm::HmacSha256, b"old", &[b"body"]));
        let check = |header| verify_any(Algorithm::HmacSha256, Encoding::Base64, &secrets, &[b"body"], header);
        assert_eq!(check(Some(&header)), Ok(1));
        assert_eq!(check(Some("AAAA")), Err(Refusal::BadSignature));
        assert_eq!(check(Some("not base64!")), Err(Refusal::Unsigned));
        assert_eq!(check(None), Err(Refusal::Unsigned));
    }
}
