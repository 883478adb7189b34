//! `generic`: a platform described in the configuration alone, so that an unknown one needs no code.
//!
//! ```toml
//! [source.shop]
//! kind = "generic"
//! signature = { header = "x-hub-signature-256", prefix = "sha256=" }   # or "none": then only the secret path protects it
//! identity = { header = "x-delivery", pointers = ["/type"] }
//! map = { sku = "/sku", location = "/place", quantity = "/left", time = "/at", only_if = { "/type" = "stock.updated" } }
//! ```
//!
//! | key | meaning |
//! |---|---|
//! | `signature` | `"none"`, or a table; without it the table's defaults hold |
//! | `.algorithm` | `"hmac-sha256"` (default), `"hmac-sha512"`, `"hmac-sha1"`, `"ed25519"` (the secret is the public key), `"token"` (the header holds the secret itself) |
//! | `.encoding` | of the tag: `"hex"` (default) or `"base64"` |
//! | `.header`, `.field`, `.prefix` | where the tag is: `x-signature`; the field `v1` of `t=1,v1=2`, each one that occurs; what stands before it (`sha256=`, `Bearer `) |
//! | `.signed` | what is signed: literal text with `{body}` (needed), `{timestamp}`, `{id}`, `{url}`, `{header:NAME}`, `{query:NAME}`; `{{` is a brace. Default `{body}` |
//! | `.timestamp_header`, `.timestamp_field` | where `{timestamp}` is; Unix time or RFC 3339 |
//! | `.tolerance` | how far that may be from now, `"5m"` by default. Where a retry repeats the first timestamp: the sender's retry horizon |
//! | `.id_header`, `.url` | where `{id}` is; the registered URL, byte for byte, for `{url}` |
//! | `.key` | how the secret becomes the key: `"text"` (its bytes, default), `"base64"`, `"hex"` |
//! | `identity` | table of `header`, `query`, `pointers` (each one or a list) and `body = true`: together they name a delivery |
//! | `map` | see [`super::mapping`]; without it `/item`, `/sku`, `/location`, `/quantity`, `/time` |
//! | `measure` | `"available"` (default) or `"on-hand"` |
//! | `form_field` | the body is a form and this field of it holds the JSON |
//! | `success` | the status that means "received": 200 (default), 201, 202, 204 |
//! | `horizon` | how long the sender repeats a delivery, `"48h"` by default |
//! | `challenge` | `{ query = "challenge", method = "GET" }`: a handshake whose value is echoed as text |
//!
//! **Identity.** All parts that are configured must be present, else (and without the table) a body is told from its repeat
//! by its content alone. `body = true` adds the body's SHA-256 to other parts; alone it is the same as no table, because a
//! body that comes back later (5, 3, 5) is news, not a repeat. A header that is not part of `signed` can be changed by
//! whoever replays a message: where the body holds an id as well, `pointers` are the better name.

use std::borrow::Cow;
use std::time::Duration;

use super::mapping::{Defaults, Mapping};
use super::pointer::{self, Pointer};
use super::{Greeting, Kind, Refusal, Source};
use crate::types::{Identity, Message, Observation, Secret, Settings, Unreadable, query_value};

mod scheme;

use scheme::Scheme;

/// This platform's line in the list.
pub const KIND: Kind = Kind {
    name: "generic",
    about: "any platform, described in the configuration: signature scheme, identity and JSON pointers",
    build,
};

/// Where a body that needs no `map` has its values.
const DEFAULTS: Defaults =
    Defaults { item: "/item", sku: "/sku", location: "/location", quantity: "/quantity", time: "/time" };
/// Longest retry horizon of the known platforms that document one (BigCommerce, Lightspeed).
const HORIZON: Duration = Duration::from_secs(48 * 3600);
/// Longest challenge that is echoed, in bytes.
const CHALLENGE_MAX_BYTES: usize = 200;

struct Generic {
    scheme: Scheme,
    naming: Naming,
    mapping: Mapping,
    form_field: Option<String>,
    success: u16,
    horizon: Duration,
    challenge: Option<Challenge>,
}

fn build(settings: &mut Settings) -> Box<dyn Source> {
    Box::new(Generic {
        scheme: Scheme::read(settings),
        naming: Naming::read(settings),
        mapping: Mapping::read(settings, &DEFAULTS),
        form_field: settings.text("form_field"),
        success: read_success(settings),
        horizon: read_horizon(settings),
        challenge: Challenge::read(settings),
    })
}

fn read_success(settings: &mut Settings) -> u16 {
    match settings.whole("success", 200, 204) {
        Some(203) => {
            settings.problem("success", "203 is not one of 200, 201, 202, 204");
            200
        }
        Some(status) => u16::try_from(status).unwrap_or(200),
        None => 200,
    }
}

fn read_horizon(settings: &mut Settings) -> Duration {
    let horizon = settings.duration("horizon").unwrap_or(HORIZON);
    if horizon.is_zero() {
        settings.problem("horizon", "must be longer than nothing: repeats within it are recognised by their id");
    }
    horizon
}

/// A header name of the settings, in lower case.
fn header_name(settings: &mut Settings, key: &str) -> Option<String> {
    let text = settings.text(key)?;
    checked_header(settings, key, &text)
}

fn checked_header(settings: &mut Settings, key: &str, text: &str) -> Option<String> {
    let name = http::HeaderName::try_from(text).ok().map(|name| name.as_str().to_owned());
    if name.is_none() {
        settings.problem(key, format!("\"{}\" cannot be the name of a header field", text.escape_debug()));
    }
    name
}

/// What names a delivery.
#[derive(Default)]
struct Naming {
    headers: Vec<String>,
    queries: Vec<String>,
    pointers: Vec<Pointer>,
    body: bool,
}

impl Naming {
    fn read(settings: &mut Settings) -> Self {
        let Some(mut table) = settings.table("identity") else { return Self::default() };
        let headers = table.list("header").unwrap_or_default();
        let pointers = table.list("pointers").unwrap_or_default();
        let naming = Self {
            headers: headers.iter().filter_map(|name| checked_header(&mut table, "header", name)).collect(),
            queries: table.list("query").unwrap_or_default(),
            pointers: pointers
                .iter()
                .filter_map(|text| Pointer::parse(text).map_err(|bad| table.problem("pointers", bad.to_string())).ok())
                .collect(),
            body: table.flag("body").unwrap_or(false),
        };
        settings.absorb(table.finish());
        naming
    }

    /// The parts in the order header, query, pointers, body; `None` when one is missing or the body alone would count.
    fn parts<'m>(&self, message: &Message<'_>, document: impl FnOnce() -> Option<Cow<'m, [u8]>>) -> Option<Vec<Vec<u8>>> {
        let mut parts = Vec::new();
        for name in &self.headers {
            parts.push(message.header(name)?.as_bytes().to_vec());
        }
        for name in &self.queries {
            parts.push(message.query_value(name)?.into_bytes());
        }
        if !self.pointers.is_empty() {
            let body = document()?;
            let document = pointer::document(&body).ok()?;
            for pointer in &self.pointers {
                parts.push(pointer::scalar(pointer.find(document)?).name()?.into_string().into_bytes());
            }
        }
        if parts.is_empty() {
            return None;
        }
        if self.body {
            parts.push(ring::digest::digest(&ring::digest::SHA256, message.body).as_ref().to_vec());
        }
        Some(parts)
    }
}

/// A handshake: the value of a query parameter is sent back.
struct Challenge {
    method: &'static str,
    query: String,
}

impl Challenge {
    fn read(settings: &mut Settings) -> Option<Self> {
        let mut table = settings.table("challenge")?;
        let method = table.choice("method", &[("GET", "GET"), ("POST", "POST")]).unwrap_or("GET");
        let query = table.required_text("query", "the query parameter to echo, such as \"challenge\"");
        settings.absorb(table.finish());
        Some(Self { method, query })
    }

    /// Only a short printable text is echoed, and only where no delivery could be meant.
    fn answer(&self, method: &str, message: &Message<'_>) -> Option<Greeting> {
        if method != self.method || !message.body.is_empty() {
            return None;
        }
        let body = message.query_value(&self.query)?;
        let plain = body.len() <= CHALLENGE_MAX_BYTES && body.bytes().all(|b| (b' '..=b'~').contains(&b));
        plain.then_some(Greeting { status: 200, body })
    }
}

impl Generic {
    /// The JSON of a message: its body, or a field of the form that the body is.
    fn json<'m>(&self, body: &'m [u8]) -> Result<Cow<'m, [u8]>, Unreadable> {
        let Some(field) = &self.form_field else { return Ok(Cow::Borrowed(body)) };
        let form =
            std::str::from_utf8(body).map_err(|_| Unreadable("the body is not a form: it is not UTF-8".to_owned()))?;
        let value =
            query_value(form.trim(), field).ok_or_else(|| Unreadable(format!("the form has no field \"{field}\"")))?;
        Ok(Cow::Owned(value.into_bytes()))
    }
}

impl Source for Generic {
    fn signed(&self) -> bool {
        self.scheme != Scheme::Unsigned
    }

    fn success_status(&self) -> u16 {
        self.success
    }

    fn horizon(&self) -> Duration {
        self.horizon
    }

    fn kept_headers(&self) -> Vec<String> {
        self.naming.headers.clone()
    }

    fn greet(&self, method: &str, message: &Message<'_>) -> Option<Greeting> {
        self.challenge.as_ref()?.answer(method, message)
    }

    fn authenticate(&self, message: &Message<'_>, secrets: &[Secret]) -> Result<usize, Refusal> {
        self.scheme.authenticate(message, secrets)
    }

    fn secret_problem(&self, secret: &Secret) -> Option<&'static str> {
        self.scheme.secret_problem(secret)
    }

    fn identify(&self, message: &Message<'_>) -> Identity {
        let document = || self.json(message.body).ok();
        self.naming.parts(message, document).map_or(Identity::Content, Identity::Named)
    }

    fn parse(&self, message: &Message<'_>) -> Result<Vec<Observation>, Unreadable> {
        self.mapping.observe(&self.json(message.body)?)
    }
}

#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod tests;
