//! How an unknown platform proves who it is: the `signature` table.

use std::borrow::Cow;
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde_json::Value;

use super::super::Refusal;
use super::super::moment::{Offset, TimeFormat};
use super::super::signature::{Algorithm, Encoding, same_secret, sign, verify_ed25519};
use super::header_name;
use crate::limits::SIGNATURES_PER_MESSAGE_MAX;
use crate::types::{Message, Secret, Settings};

/// How far a signed timestamp may be from now when the settings do not say.
const TOLERANCE: Duration = Duration::from_secs(300);

/// How a message is proven genuine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Not at all: the secret path is all there is.
    Unsigned,
    /// A header holds the secret itself.
    Token(Carrier),
    /// A header holds a tag over parts of the message.
    Signed(Signed),
}

/// Where tags travel: a header, perhaps a field of it, perhaps behind a fixed prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Carrier {
    header: String,
    field: Option<String>,
    prefix: String,
}

/// A tag over parts of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    method: Method,
    encoding: Encoding,
    carrier: Carrier,
    template: Vec<Part>,
    timestamp: Option<Place>,
    id_header: Option<String>,
    url: String,
    tolerance: Duration,
    key: KeyForm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Token,
    Hmac(Algorithm),
    Ed25519,
}

/// A header, or one field of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    header: String,
    field: Option<String>,
}

/// How the configured secret becomes the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyForm {
    Text,
    Base64,
    Hex,
}

/// A piece of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Body,
    Timestamp,
    Id,
    Url,
    Header(String),
    Query(String),
}

// ---- reading the configuration ----------------------------------------------------------------------------------

impl Scheme {
    /// Read the `signature` setting: a table, `"none"`, or nothing (then the defaults of the table).
    pub(super) fn read(settings: &mut Settings) -> Self {
        match settings.value("signature") {
            Some(Value::String(word)) if word == "none" => Self::Unsigned,
            Some(Value::Object(_)) => {
                let Some(mut table) = settings.table("signature") else { return Self::fallback() };
                let scheme = Self::from_table(&mut table);
                settings.absorb(table.finish());
                scheme
            }
            Some(_) => {
                settings.problem("signature", "expected a table such as { header = \"x-signature\" }, or \"none\"");
                Self::fallback()
            }
            None => Self::fallback(),
        }
    }

    /// The table with nothing in it.
    fn fallback() -> Self {
        Self::from_table(&mut Settings::new("", serde_json::Map::new()))
    }

    fn from_table(table: &mut Settings) -> Self {
        let methods = [
            ("hmac-sha256", Method::Hmac(Algorithm::HmacSha256)),
            ("hmac-sha512", Method::Hmac(Algorithm::HmacSha512)),
            ("hmac-sha1", Method::Hmac(Algorithm::HmacSha1)),
            ("ed25519", Method::Ed25519),
            ("token", Method::Token),
        ];
        let method = table.choice("algorithm", &methods).unwrap_or(Method::Hmac(Algorithm::HmacSha256));
        let carrier = Carrier {
            header: header_name(table, "header").unwrap_or_else(|| "x-signature".to_owned()),
            field: table.text("field"),
            prefix: table.text_or("prefix", ""),
        };
        if method == Method::Token { Self::Token(carrier) } else { Self::Signed(Signed::from_table(table, method, carrier)) }
    }
}

impl Signed {
    fn from_table(table: &mut Settings, method: Method, carrier: Carrier) -> Self {
        let timestamp = timestamp_place(table, &carrier);
        let id_header = header_name(table, "id_header");
        let url = table.text("url");
        let template = read_template(table);
        if let Some(template) = &template {
            let of_field = carrier.field.is_some() && table.value("timestamp_header").is_none();
            let key = if of_field { "timestamp_field" } else { "timestamp_header" };
            needs(table, template.contains(&Part::Timestamp), "{timestamp}", timestamp.is_some(), key);
            needs(table, template.contains(&Part::Id), "{id}", id_header.is_some(), "id_header");
            needs(table, template.contains(&Part::Url), "{url}", url.is_some(), "url");
        }
        let tolerance = table.duration("tolerance");
        if tolerance.is_some() && timestamp.is_none() {
            table.problem("tolerance", "there is no timestamp to compare: set `timestamp_header` or `timestamp_field`");
        }
        Self {
            method,
            encoding: table.choice("encoding", Encoding::WORDS).unwrap_or(Encoding::Hex),
            carrier,
            template: template.unwrap_or_else(|| vec![Part::Body]),
            timestamp,
            id_header,
            url: url.unwrap_or_default(),
            tolerance: tolerance.unwrap_or(TOLERANCE),
            key: read_key_form(table, method),
        }
    }
}

fn read_key_form(table: &mut Settings, method: Method) -> KeyForm {
    let forms = [("text", KeyForm::Text), ("base64", KeyForm::Base64), ("hex", KeyForm::Hex)];
    let form = table.choice("key", &forms);
    if method == Method::Ed25519 && matches!(form, None | Some(KeyForm::Text)) {
        table.problem("key", "say how the public key is written: \"base64\" or \"hex\"");
    }
    form.unwrap_or(KeyForm::Text)
}

/// `timestamp_header`, and `timestamp_field` within it (without a header of its own: within the signature's).
fn timestamp_place(table: &mut Settings, carrier: &Carrier) -> Option<Place> {
    let header = header_name(table, "timestamp_header");
    let field = table.text("timestamp_field");
    if header.is_none() && field.is_none() {
        return None;
    }
    Some(Place { header: header.unwrap_or_else(|| carrier.header.clone()), field })
}

/// A placeholder needs its setting, and a setting is there to be signed.
fn needs(table: &mut Settings, used: bool, placeholder: &str, set: bool, key: &str) {
    if used && !set {
        table.problem("signed", format!("{placeholder} needs the setting `{key}`"));
    } else if set && !used {
        table.problem(key, format!("{placeholder} does not occur in `signed`: what is not signed proves nothing"));
    }
}

/// `None` when there is a problem with it, which has been reported.
fn read_template(table: &mut Settings) -> Option<Vec<Part>> {
    let text = table.text_or("signed", "{body}");
    match parse_template(&text) {
        Ok(parts) if parts.contains(&Part::Body) => return Some(parts),
        Ok(_) => table.problem("signed", "must contain {body}: anybody could change what is not signed"),
        Err(why) => table.problem("signed", why),
    }
    None
}

/// Literal text with `{placeholders}`; `{{` and `}}` are braces.
fn parse_template(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, rest.clone().next()) {
            ('{', Some('{')) | ('}', Some('}')) => {
                literal.push(c);
                rest.next();
            }
            ('{', _) => {
                let (name, after) = rest.as_str().split_once('}').ok_or("\"{\" without \"}\"; write \"{{\" for a brace")?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(placeholder(name)?);
                rest = after.chars();
            }
            ('}', _) => return Err("\"}\" without \"{\"; write \"}}\" for a brace".to_owned()),
            _ => literal.push(c),
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

fn placeholder(name: &str) -> Result<Part, String> {
    let part = match (name, name.split_once(':')) {
        ("body", _) => Some(Part::Body),
        ("timestamp", _) => Some(Part::Timestamp),
        ("id", _) => Some(Part::Id),
        ("url", _) => Some(Part::Url),
        (_, Some(("header", header))) => {
            http::HeaderName::try_from(header).ok().map(|h| Part::Header(h.as_str().to_owned()))
        }
        (_, Some(("query", query))) if !query.is_empty() => Some(Part::Query(query.to_owned())),
        _ => None,
    };
    part.ok_or_else(|| {
        let known = "{body}, {timestamp}, {id}, {url}, {header:NAME}, {query:NAME}";
        format!("unknown placeholder {{{}}}: there are {known}", name.escape_debug())
    })
}

// ---- judging a message ------------------------------------------------------------------------------------------

impl Scheme {
    /// Is the message genuine? The index of the secret that matched.
    pub(super) fn authenticate(&self, message: &Message<'_>, secrets: &[Secret]) -> Result<usize, Refusal> {
        match self {
            Self::Unsigned => Ok(0),
            Self::Token(carrier) => {
                let found = carrier.candidates(message);
                if found.is_empty() {
                    return Err(Refusal::Unsigned);
                }
                let matches = |s: &Secret| !s.is_empty() && found.iter().any(|f| same_secret(s.expose(), f.as_bytes()));
                secrets.iter().position(matches).ok_or(Refusal::BadSignature)
            }
            Self::Signed(signed) => signed.authenticate(message, secrets),
        }
    }

    /// What is wrong with a secret, when it is not of the form that `signature.key` says.
    pub(super) fn secret_problem(&self, secret: &Secret) -> Option<&'static str> {
        let Self::Signed(signed) = self else { return None };
        let wrong = match signed.key {
            KeyForm::Text => "is empty",
            KeyForm::Base64 => "is not base64, as signature.key says",
            KeyForm::Hex => "is not hexadecimal, as signature.key says",
        };
        signed.key_of(secret).is_none().then_some(wrong)
    }
}

impl Carrier {
    /// What may be a tag, without its prefix; empty when there is none.
    fn candidates<'m>(&self, message: &'m Message<'_>) -> Vec<&'m str> {
        let value = message.header(&self.header).unwrap_or_default();
        values(value, self.field.as_deref())
            .filter_map(|v| v.strip_prefix(self.prefix.as_str()))
            .map(str::trim)
            .filter(|v| !v.is_empty())
            .take(SIGNATURES_PER_MESSAGE_MAX)
            .collect()
    }
}

/// The whole value, or the values of one field of `a=1, b=2` (quotes around a value are dropped).
fn values<'v>(value: &'v str, field: Option<&str>) -> impl Iterator<Item = &'v str> {
    let whole = field.is_none().then_some(value);
    let fields = value.split(',').filter_map(move |part| {
        let (name, value) = part.split_once('=')?;
        (Some(name.trim()) == field).then(|| value.trim().trim_matches('"'))
    });
    whole.into_iter().chain(fields)
}

impl Signed {
    fn authenticate(&self, message: &Message<'_>, secrets: &[Secret]) -> Result<usize, Refusal> {
        let tags: Vec<Vec<u8>> = self
            .carrier
            .candidates(message)
            .into_iter()
            .filter_map(|t| self.encoding.decode(t))
            .filter(|t| !t.is_empty())
            .collect();
        if tags.is_empty() {
            return Err(Refusal::Unsigned);
        }
        let timestamp = match &self.timestamp {
            Some(place) => Some(place.value(message).ok_or(Refusal::Unsigned)?),
            None => None,
        };
        let parts: Vec<Cow<'_, [u8]>> = self
            .template
            .iter()
            .map(|p| self.part(p, message, timestamp))
            .collect::<Option<_>>()
            .ok_or(Refusal::Unsigned)?;
        let parts: Vec<&[u8]> = parts.iter().map(AsRef::as_ref).collect();
        let matches = |secret: &Secret| self.key_of(secret).is_some_and(|key| self.genuine(&key, &parts, &tags));
        let index = secrets.iter().position(matches).ok_or(Refusal::BadSignature)?;
        match timestamp {
            Some(text) if !self.fresh(text, message) => Err(Refusal::Stale),
            Some(_) | None => Ok(index),
        }
    }

    /// One tag is computed a key, however many the header carries: a forged header costs no more than an honest one.
    fn genuine(&self, key: &[u8], parts: &[&[u8]], tags: &[Vec<u8>]) -> bool {
        match self.method {
            Method::Hmac(algorithm) => {
                let expected = sign(algorithm, key, parts);
                tags.iter().any(|tag| same_secret(&expected, tag))
            }
            Method::Ed25519 => tags.iter().any(|tag| verify_ed25519(key, parts, tag)),
            Method::Token => false,
        }
    }

    /// `None` when the secret is not of the configured form, or empty: an empty key is everybody's key.
    fn key_of(&self, secret: &Secret) -> Option<Vec<u8>> {
        let decoded = match self.key {
            KeyForm::Text => Some(secret.expose().to_vec()),
            KeyForm::Base64 => secret.expose_str().and_then(|s| Encoding::Base64.decode(s)),
            KeyForm::Hex => secret.expose_str().and_then(|s| HEXLOWER_PERMISSIVE.decode(s.trim().as_bytes()).ok()),
        };
        decoded.filter(|key| !key.is_empty())
    }

    fn part<'p>(&'p self, part: &'p Part, message: &'p Message<'_>, timestamp: Option<&'p str>) -> Option<Cow<'p, [u8]>> {
        let borrowed = |text: &'p str| Cow::Borrowed(text.as_bytes());
        match part {
            Part::Literal(text) => Some(borrowed(text)),
            Part::Body => Some(Cow::Borrowed(message.body)),
            Part::Timestamp => timestamp.map(borrowed),
            Part::Id => message.header(self.id_header.as_deref()?).map(borrowed),
            Part::Url => Some(borrowed(&self.url)),
            Part::Header(name) => message.header(name).map(borrowed),
            Part::Query(name) => message.query_value(name).map(|v| Cow::Owned(v.into_bytes())),
        }
    }

    fn fresh(&self, timestamp: &str, message: &Message<'_>) -> bool {
        let Some(at) = TimeFormat::Auto.read(timestamp, Offset::default()) else { return false };
        at.since(message.received_at).max(message.received_at.since(at)) <= self.tolerance
    }
}

impl Place {
    fn value<'m>(&self, message: &'m Message<'_>) -> Option<&'m str> {
        values(message.header(&self.header)?, self.field.as_deref()).find(|v| !v.is_empty())
    }
}
