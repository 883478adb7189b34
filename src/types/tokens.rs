//! The tokens of the admin API as they are kept: who may do what, each under the hash of a secret that is nowhere kept.
//!
//! A token is `sgt_` and 256 random bits in base64url; what is kept is its SHA-256. A slow hash (Argon2, bcrypt) makes guessing words
//! expensive; there are no words to guess here, and half of 2^256 tries is out of reach whatever a try costs. It would only let
//! strangers keep a small box busy with wrong tokens.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::digest::{SHA256, digest};
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::limits::{ID_MAX_BYTES, TOKEN_BYTES, TOKENS_MAX};
use crate::time::Timestamp;

/// The file of tokens in the data directory; written by `stockgate token`, read by the gateway. JSON, mode 0600.
pub const TOKENS_FILE: &str = "admin-tokens.json";

/// What every token begins with, so that scanners for leaked secrets can know it.
const PREFIX: &str = "sgt_";
/// Version of the file.
const VERSION: u32 = 1;

/// What a token allows. An operator may all that a reader may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// To look: metrics, status, levels, dead letters.
    Read,
    /// To decide, too: dead letters, mappings, reload, backup.
    Operator,
}

impl Role {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What people call it; unique. Lower-case letters, digits, `-` and `_`.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is worth nothing; `None`: never.
    pub expires: Option<Timestamp>,
    sha256: [u8; 32],
}

impl Token {
    /// A new token over random bytes, and its text: to be shown once and kept nowhere.
    pub fn new(
        name: &str,
        role: Role,
        created: Timestamp,
        expires: Option<Timestamp>,
        random: &[u8; TOKEN_BYTES],
    ) -> Result<(Self, String), String> {
        if name.is_empty() || name.len() > ID_MAX_BYTES || !name.bytes().all(is_name_byte) {
            return Err(format!(
                "`{}` cannot be a token's name: use lower-case letters, digits, `-` and `_`, at most {ID_MAX_BYTES}",
                name.escape_debug()
            ));
        }
        let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(random));
        Ok((Self { name: name.to_owned(), role, created, expires, sha256: hash(&text) }, text))
    }

    /// Its time is over.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_'
}

fn hash(text: &str) -> [u8; 32] {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    sha256
}

/// All tokens of a gateway, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    tokens: Vec<KeptToken>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptToken {
    name: String,
    role: Role,
    created: String,
    expires: Option<String>,
    sha256: String,
}

impl Tokens {
    /// Read the file's bytes, or say in words what is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let kept: Kept = serde_json::from_slice(bytes).map_err(|error| format!("is not a file of tokens: {error}"))?;
        if kept.version != VERSION {
            return Err(format!("has version {}; this program knows {VERSION}", kept.version));
        }
        if kept.tokens.len() > TOKENS_MAX {
            return Err(format!("holds {} tokens, more than {TOKENS_MAX}", kept.tokens.len()));
        }
        let moment =
            |text: &str| Timestamp::parse_rfc3339(text).ok_or_else(|| format!("`{}` is no time", text.escape_debug()));
        let token = |kept: KeptToken| {
            let sha256 = HEXLOWER.decode(kept.sha256.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
            Ok(Token {
                sha256: sha256.ok_or_else(|| format!("the hash of `{}` is none", kept.name.escape_debug()))?,
                created: moment(&kept.created)?,
                expires: kept.expires.as_deref().map(moment).transpose()?,
                name: kept.name,
                role: kept.role,
            })
        };
        kept.tokens.into_iter().map(token).collect::<Result<_, String>>().map(Self)
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        let kept = |token: &Token| KeptToken {
            name: token.name.clone(),
            role: token.role,
            created: token.created.to_string(),
            expires: token.expires.map(|end| end.to_string()),
            sha256: HEXLOWER.encode(&token.sha256),
        };
        let file = Kept { version: VERSION, tokens: self.0.iter().map(kept).collect() };
        let mut text = serde_json::to_string_pretty(&file).expect("texts and numbers are JSON");
        text.push('\n');
        text
    }

    /// Every token, in the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.0.iter()
    }

    /// Add one, or say why not.
    pub fn add(&mut self, token: Token) -> Result<(), String> {
        if self.0.iter().any(|known| known.name == token.name) {
            return Err(format!(
                "there is a token `{0}` already: `stockgate token revoke {0}`, or choose another name",
                token.name
            ));
        }
        if self.0.len() >= TOKENS_MAX {
            return Err(format!("there are {TOKENS_MAX} tokens already: revoke one first"));
        }
        self.0.push(token);
        Ok(())
    }

    /// Take one out; false when there is none of this name.
    pub fn revoke(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|token| token.name != name);
        self.0.len() < before
    }

    /// The token that a text is, expired or not. Takes the same time whatever is presented: every token is compared, and a comparison
    /// is one of two codes under a key (as `sources::signature` compares).
    pub fn find(&self, presented: &str) -> Option<&Token> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"stockgate token comparison");
        let presented = hash(presented);
        let same = |token: &Token| hmac::verify(&key, &presented, hmac::sign(&key, &token.sha256).as_ref()).is_ok();
        self.0.iter().fold(None, |found, token| if same(token) { Some(token) } else { found })
    }

    /// True when one of them can be used at `now`.
    pub fn any_usable(&self, now: Timestamp) -> bool {
        self.0.iter().any(|token| !token.is_expired(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moment(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).expect("a time")
    }

    fn made(name: &str, role: Role, expires: Option<&str>, byte: u8) -> (Token, String) {
        let created = moment("2026-11-21T03:00:00.000Z");
        Token::new(name, role, created, expires.map(moment), &[byte; TOKEN_BYTES]).expect("a good name")
    }

    #[test]
    fn what_is_kept_reads_back_and_holds_no_secret() {
        let mut tokens = Tokens::default();
        let (scrape, scrape_text) = made("prometheus", Role::Read, Some("2027-02-19T03:00:00.000Z"), 1);
        let (ops, ops_text) = made("ops", Role::Operator, None, 2);
        tokens.add(scrape.clone()).expect("room");
        tokens.add(ops.clone()).expect("room");
        let kept = tokens.to_json();
        let [secret, other] = [&scrape_text, &ops_text].map(|text| text.strip_prefix(PREFIX).expect("the prefix"));
        assert!(!kept.contains(secret) && !kept.contains(other), "{kept}");
        assert!(!format!("{tokens:?}").contains(other));
        let again = Tokens::parse(kept.as_bytes()).expect("reads");
        assert_eq!(again, tokens);
        assert_eq!(again.find(&scrape_text), Some(&scrape));
        assert_eq!(again.find(&ops_text), Some(&ops));
        assert_eq!(again.find(&format!("{ops_text}A")), None);
        assert_eq!(again.find(""), None);
    }

    #[test]
    fn a_token_ends_at_its_time_and_not_before() {
        let (token, _) = made("a", Role::Read, Some("2027-02-19T03:00:00Z"), 1);
        assert!(!token.is_expired(moment("2027-02-19T02:59:59.999Z")));
        assert!(token.is_expired(moment("2027-02-19T03:00:00Z")));
        let mut tokens = Tokens::default();
        tokens.add(token).expect("room");
        assert!(!tokens.any_usable(moment("2027-03-01T00:00:00Z")));
        assert!(tokens.any_usable(moment("2027-01-01T00:00:00Z")));
    }

    #[test]
    fn names_are_unique_and_there_is_an_end_to_them() {
        let mut tokens = Tokens::default();
        for n in 0..TOKENS_MAX {
            tokens.add(made(&format!("t-{n}"), Role::Read, None, u8::try_from(n).expect("small")).0).expect("room");
        }
        assert!(
            tokens.add(made("t-3", Role::Read, None, 200).0).is_err_and(|why| why.contains("stockgate token revoke t-3"))
        );
        assert!(tokens.add(made("more", Role::Read, None, 201).0).is_err_and(|why| why.contains("revoke one first")));
        assert!(tokens.revoke("t-3") && !tokens.revoke("t-3"));
        assert!(tokens.add(made("more", Role::Read, None, 201).0).is_ok());
        for bad in ["", "Ops", "a b", "a\n", &"x".repeat(49)] {
            assert!(Token::new(bad, Role::Read, Timestamp(0), None, &[0; 32]).is_err(), "{bad}");
        }
    }

    #[test]
    fn another_file_is_told_what_it_is() {
        for (text, why) in [
            ("", "is not a file of tokens"),
            ("{\"version\":2,\"tokens\":[]}", "has version 2; this program knows 1"),
            (
                "{\"version\":1,\"tokens\":[{\"name\":\"a\",\"role\":\"root\",\"created\":\"\",\"expires\":null,\"sha256\":\"\"}]}",
                "root",
            ),
            (
                "{\"version\":1,\"tokens\":[{\"name\":\"a\",\"role\":\"read\",\"created\":\"\",\"expires\":null,\"sha256\":\"\"}]}",
                "the hash of `a`",
            ),
        ] {
            assert!(Tokens::parse(text.as_bytes()).is_err_and(|error| error.contains(why)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Tokens::parse(&bytes));
        }
    }
}
