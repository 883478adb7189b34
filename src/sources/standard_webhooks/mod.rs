//! `standard-webhooks`: any sender that follows Standard Webhooks 1.0.0 (Svix and many others).
//!
//! | key | meaning |
//! |---|---|
//! | `tolerance` | how far `webhook-timestamp` may be from now; `"5m"` by default, as in the reference libraries |
//! | `secret_format` | `"auto"` (default): `whsec_` + base64 (prefix and padding may be missing) or `whpk_` + base64, the public key of an asymmetric sender. `"raw"`: the bytes of the secret are the key (BigCommerce) |
//! | `types` | list of `/type` values that are about stock; without it every message must be |
//! | `map` | see [`super::mapping`]; without it `/data/item`, `/data/sku`, `/data/location`, `/data/quantity`, `/timestamp` |
//! | `measure` | `"available"` (default) or `"on-hand"` |
//! | `horizon` | how long the sender repeats a delivery; `"5d"` by default |
//!
//! Signed is `{webhook-id}.{webhook-timestamp}.{raw body}`. `webhook-signature` holds several signatures, separated by
//! spaces: `v1,` + base64 of HMAC-SHA-256, `v1a,` + base64 of Ed25519; any good one passes, other versions are ignored. The
//! timestamp is that of the *attempt*, so the id alone names a delivery. Svix's older `svix-` names are taken when there is
//! no `webhook-id`; which of the two is decided by the id alone, so that an unsigned second id cannot rename a delivery.

use std::time::Duration;

use super::mapping::{Defaults, Mapping};
use super::signature::{Algorithm, Encoding, same_secret, sign, verify_ed25519};
use super::{Kind, Refusal, Source};
use crate::limits::SIGNATURES_PER_MESSAGE_MAX;
use crate::time::Timestamp;
use crate::types::{Identity, Message, Observation, Secret, Settings, Unreadable};

/// This platform's line in the list.
pub const KIND: Kind = Kind {
    name: "standard-webhooks",
    about: "senders that follow Standard Webhooks (Svix, BigCommerce): HMAC-SHA-256 or Ed25519, id and timestamp signed",
    build,
};

/// Where the suggested payload (`type`, `timestamp`, `data`) has its values.
const DEFAULTS: Defaults = Defaults {
    item: "/data/item",
    sku: "/data/sku",
    location: "/data/location",
    quantity: "/data/quantity",
    time: "/timestamp",
};
/// What the reference libraries accept either way.
const TOLERANCE: Duration = Duration::from_secs(300);
/// The specification advises retries over several days.
const HORIZON: Duration = Duration::from_secs(5 * 24 * 3600);
/// Bytes of an Ed25519 public key and of a signature.
const ED25519_KEY_BYTES: usize = 32;
const ED25519_SIGNATURE_BYTES: usize = 64;

/// The three header fields of a message, in either spelling.
struct Names {
    id: &'static str,
    timestamp: &'static str,
    signature: &'static str,
}

const SPELLINGS: [Names; 2] = [
    Names { id: "webhook-id", timestamp: "webhook-timestamp", signature: "webhook-signature" },
    Names { id: "svix-id", timestamp: "svix-timestamp", signature: "svix-signature" },
];

/// How the configured secret is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SecretFormat {
    Auto,
    Raw,
}

/// What verifies a signature.
enum Key {
    Hmac(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl SecretFormat {
    /// `None` when the secret is not of this form, or empty: such a secret verifies nothing.
    fn key(self, secret: &Secret) -> Option<Key> {
        if self == Self::Raw {
            return Some(secret.expose().to_vec()).filter(|key| !key.is_empty()).map(Key::Hmac);
        }
        let text = secret.expose_str()?.trim();
        if let Some(public) = text.strip_prefix("whpk_") {
            return Encoding::Base64.decode(public).filter(|key| key.len() == ED25519_KEY_BYTES).map(Key::Ed25519);
        }
        if text.starts_with("whsk_") {
            return None; // the sender's private key: its presence here is a mistake, and it verifies nothing
        }
        let encoded = text.strip_prefix("whsec_").unwrap_or(text);
        Encoding::Base64.decode(encoded).filter(|key| !key.is_empty()).map(Key::Hmac)
    }
}

/// The signatures of the versions that we know, decoded.
#[derive(Default)]
struct Signatures {
    v1: Vec<Vec<u8>>,
    v1a: Vec<Vec<u8>>,
}

impl Signatures {
    fn read(header: &str) -> Self {
        let mut signatures = Self::default();
        let known = header.split_ascii_whitespace().filter_map(|part| part.split_once(','));
        for (version, text) in known.take(SIGNATURES_PER_MESSAGE_MAX) {
            let Some(bytes) = Encoding::Base64.decode(text).filter(|b| !b.is_empty()) else { continue };
            match version {
                "v1" => signatures.v1.push(bytes),
                "v1a" if bytes.len() == ED25519_SIGNATURE_BYTES => signatures.v1a.push(bytes),
                _ => {}
            }
        }
        signatures
    }

    /// The HMAC is computed once a key, however many signatures there are.
    fn prove(&self, key: &Key, parts: &[&[u8]]) -> bool {
        match key {
            Key::Hmac(_) if self.v1.is_empty() => false,
            Key::Hmac(key) => {
                let expected = sign(Algorithm::HmacSha256, key, parts);
                self.v1.iter().any(|s| same_secret(&expected, s))
            }
            Key::Ed25519(key) => self.v1a.iter().any(|s| verify_ed25519(key, parts, s)),
        }
    }
}

struct StandardWebhooks {
    tolerance: Duration,
    secret_format: SecretFormat,
    mapping: Mapping,
    horizon: Duration,
}

fn build(settings: &mut Settings) -> Box<dyn Source> {
    let formats = [("auto", SecretFormat::Auto), ("raw", SecretFormat::Raw)];
    let mapping = Mapping::read(settings, &DEFAULTS);
    let horizon = settings.duration("horizon").unwrap_or(HORIZON);
    if horizon.is_zero() {
        settings.problem("horizon", "must be longer than nothing: repeats within it are recognised by their id");
    }
    Box::new(StandardWebhooks {
        tolerance: settings.duration("tolerance").unwrap_or(TOLERANCE),
        secret_format: settings.choice("secret_format", &formats).unwrap_or(SecretFormat::Auto),
        mapping: match settings.list("types") {
            Some(types) => mapping.only_words("/type", types),
            None => mapping,
        },
        horizon,
    })
}

/// The spelling that this message uses, and its id.
fn spelling<'m>(message: &'m Message<'_>) -> Option<(&'static Names, &'m str)> {
    SPELLINGS.iter().find_map(|names| message.header(names.id).map(|id| (names, id)))
}

impl Source for StandardWebhooks {
    fn signed(&self) -> bool {
        true
    }

    fn horizon(&self) -> Duration {
        self.horizon
    }

    fn kept_headers(&self) -> Vec<String> {
        SPELLINGS.iter().map(|names| names.id.to_owned()).collect()
    }

    fn authenticate(&self, message: &Message<'_>, secrets: &[Secret]) -> Result<usize, Refusal> {
        let (names, id) = spelling(message).ok_or(Refusal::Unsigned)?;
        let timestamp = message.header(names.timestamp).ok_or(Refusal::Unsigned)?;
        let seconds: i64 = timestamp.parse().map_err(|_| Refusal::Unsigned)?;
        let signatures = Signatures::read(message.header(names.signature).ok_or(Refusal::Unsigned)?);
        if signatures.v1.is_empty() && signatures.v1a.is_empty() {
            return Err(Refusal::Unsigned);
        }
        let parts: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", message.body];
        let proves = |s: &Secret| self.secret_format.key(s).is_some_and(|key| signatures.prove(&key, &parts));
        let index = secrets.iter().position(proves).ok_or(Refusal::BadSignature)?;
        let attempt = Timestamp::from_seconds(seconds);
        let apart = attempt.since(message.received_at).max(message.received_at.since(attempt));
        if apart <= self.tolerance { Ok(index) } else { Err(Refusal::Stale) }
    }

    fn secret_problem(&self, secret: &Secret) -> Option<&'static str> {
        if self.secret_format == SecretFormat::Auto
            && secret.expose_str().is_some_and(|text| text.trim().starts_with("whsk_"))
        {
            return Some("is the sender's private key: configure the public one, whpk_...");
        }
        let wrong = "is neither whsec_ and base64 nor whpk_ and the base64 of a 32-byte key; for a plain text key set secret_format = \"raw\"";
        self.secret_format.key(secret).is_none().then_some(wrong)
    }

    fn identify(&self, message: &Message<'_>) -> Identity {
        spelling(message).map_or(Identity::Content, |(_, id)| Identity::Named(vec![id.as_bytes().to_vec()]))
    }

    fn parse(&self, message: &Message<'_>) -> Result<Vec<Observation>, Unreadable> {
        self.mapping.observe(message.body)
    }
}

#[cfg(test)]
mod tests;
