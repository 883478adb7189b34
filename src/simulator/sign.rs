//! How each platform signs what it sends: the other side of `sources`, written on its own so that the two can disagree.
//!
//! Used by the simulated platforms and by `stockgate send`.

use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde_json::{Map, Value};

use crate::sources::signature::{Algorithm, sign as tag_of};
use crate::time::Timestamp;
use crate::types::Secret;

/// What is added to a message so that the gateway takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signed {
    /// Header fields, lower case.
    pub headers: Vec<(String, String)>,
    /// Query without `?`; empty when there is none.
    pub query: String,
}

impl Signed {
    fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// Why a message cannot be signed here, in a sentence. Shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CannotSign(pub String);

impl std::fmt::Display for CannotSign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotSign {}

/// How one account sends: the platform, and what of the source's settings concerns the sender.
#[derive(Debug, Clone)]
pub struct SenderSettings(Scheme);

#[derive(Debug, Clone)]
enum Scheme {
    Shopify,
    WooCommerce,
    Shippingbo(Shippingbo),
    /// Jetti and Bsale: nothing is signed, nothing is named.
    Bare,
    Kladana,
    StandardWebhooks {
        raw: bool,
    },
    Generic(Box<Generic>),
}

#[derive(Debug, Clone)]
enum Shippingbo {
    Hmac,
    Header(String),
    Token,
}

#[derive(Debug, Clone)]
struct Generic {
    scheme: Option<GenericScheme>,
    id_headers: Vec<String>,
    id_queries: Vec<String>,
}

#[derive(Debug, Clone)]
struct GenericScheme {
    algorithm: String,
    base64: bool,
    key: String,
    header: String,
    field: Option<String>,
    prefix: String,
    signed: String,
    timestamp_header: Option<String>,
    timestamp_field: Option<String>,
    id_header: Option<String>,
    url: String,
}

impl SenderSettings {
    /// For a source of this kind with these settings (the platform's own table, as configured and checked).
    pub fn new(kind: &str, settings: &Map<String, Value>) -> Result<Self, CannotSign> {
        let text = |key: &str| settings.get(key).and_then(Value::as_str);
        let scheme = match kind {
            "shopify" => Scheme::Shopify,
            "woocommerce" => Scheme::WooCommerce,
            "shippingbo" => Scheme::Shippingbo(match text("trust") {
                Some("headers") => Shippingbo::Header(text("header").unwrap_or_default().to_ascii_lowercase()),
                Some("token") => Shippingbo::Token,
                _ => Shippingbo::Hmac,
            }),
            "jetti" | "bsale" => Scheme::Bare,
            "kladana" => Scheme::Kladana,
            "standard-webhooks" => Scheme::StandardWebhooks { raw: text("secret_format") == Some("raw") },
            "generic" => Scheme::Generic(Box::new(Generic::read(settings))),
            other => return Err(CannotSign(format!("it is not known how `{other}` signs"))),
        };
        Ok(Self(scheme))
    }

    /// What goes with a stock message of this platform besides its signature and its id: who sends it, and about what.
    pub fn envelope(&self) -> &'static [(&'static str, &'static str)] {
        match &self.0 {
            Scheme::Shopify => &[("x-shopify-topic", "inventory_levels/update"), ("user-agent", "Shopify-Captain-Hook")],
            Scheme::WooCommerce => &[
                ("x-wc-webhook-topic", "product.updated"),
                ("x-wc-webhook-resource", "product"),
                ("x-wc-webhook-event", "updated"),
                ("user-agent", "WooCommerce/9.8.5 Hookshot (WordPress/6.8)"),
            ],
            Scheme::Kladana => &[("user-agent", "MoySklad webhook touch agent 2.0 (https://dev.moysklad.ru)")],
            Scheme::Shippingbo(_) | Scheme::Bare | Scheme::StandardWebhooks { .. } | Scheme::Generic(_) => &[],
        }
    }

    /// True when a path token alone proves the sender.
    pub fn is_unsigned(&self) -> bool {
        match &self.0 {
            Scheme::Bare | Scheme::Kladana => true,
            Scheme::Generic(generic) => generic.scheme.is_none(),
            Scheme::Shopify | Scheme::WooCommerce | Scheme::Shippingbo(_) | Scheme::StandardWebhooks { .. } => false,
        }
    }
}

/// Sign one attempt to deliver `body`: `now` is the attempt's time, `delivery_id` stays the same over retries.
pub fn sign(
    settings: &SenderSettings,
    secret: &Secret,
    body: &[u8],
    now: Timestamp,
    delivery_id: &str,
) -> Result<Signed, CannotSign> {
    let hmac = |body: &[u8]| BASE64.encode(&tag_of(Algorithm::HmacSha256, secret.expose(), &[body]));
    Ok(match &settings.0 {
        Scheme::Bare => Signed::default(),
        Scheme::Kladana => Signed { query: format!("requestId={}", encode(delivery_id)), ..Signed::default() },
        Scheme::Shopify => {
            Signed::default().header("x-shopify-hmac-sha256", hmac(body)).header("x-shopify-webhook-id", delivery_id)
        }
        Scheme::WooCommerce => Signed::default()
            .header("x-wc-webhook-signature", hmac(trimmed(body)))
            .header("x-wc-webhook-delivery-id", delivery_id),
        Scheme::Shippingbo(Shippingbo::Hmac) => Signed::default().header("x-shippingbo-hmac-sha256", hmac(body)),
        Scheme::Shippingbo(Shippingbo::Header(name)) => Signed::default().header(name, in_a_header(secret)?),
        Scheme::Shippingbo(Shippingbo::Token) => {
            Signed::default().header("authorization", format!("Basic {}", in_a_header(secret)?))
        }
        Scheme::StandardWebhooks { raw } => standard_webhooks(*raw, secret, body, now, delivery_id)?,
        Scheme::Generic(generic) => generic.sign(secret, body, now, delivery_id)?,
    })
}

/// What PHP's `trim` leaves: without spaces, tabs, line ends, NUL and vertical tabs at either end.
fn trimmed(body: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| b" \t\n\r\0\x0b".contains(byte);
    let start = body.iter().take_while(|b| is_blank(b)).count();
    let rest = body.get(start..).unwrap_or_default();
    let end = rest.len() - rest.iter().rev().take_while(|b| is_blank(b)).count();
    rest.get(..end).unwrap_or_default()
}

fn in_a_header(secret: &Secret) -> Result<&str, CannotSign> {
    secret.expose_str().ok_or_else(|| CannotSign("the secret is not text, so it cannot stand in a header".to_owned()))
}

fn standard_webhooks(raw: bool, secret: &Secret, body: &[u8], now: Timestamp, id: &str) -> Result<Signed, CannotSign> {
    let key = if raw { secret.expose().to_vec() } else { symmetric_key(secret)? };
    let timestamp = now.seconds().to_string();
    let parts: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    let tag = BASE64.encode(&tag_of(Algorithm::HmacSha256, &key, &parts));
    Ok(Signed::default()
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", format!("v1,{tag}")))
}

fn symmetric_key(secret: &Secret) -> Result<Vec<u8>, CannotSign> {
    let text = secret.expose_str().map(str::trim).unwrap_or_default();
    if text.starts_with("whpk_") {
        return Err(CannotSign("the secret is the sender's public key: only the platform itself can sign".to_owned()));
    }
    let encoded = text.strip_prefix("whsec_").unwrap_or(text).as_bytes();
    let key = BASE64.decode(encoded).or_else(|_| BASE64_NOPAD.decode(encoded));
    key.map_err(|_| CannotSign("the secret is not `whsec_` and base64".to_owned()))
}

impl Generic {
    fn read(settings: &Map<String, Value>) -> Self {
        let identity = settings.get("identity").and_then(Value::as_object);
        let names = |key| identity.and_then(|table| table.get(key)).map(list).unwrap_or_default();
        let table = settings.get("signature");
        let scheme = (table.and_then(Value::as_str) != Some("none"))
            .then(|| GenericScheme::read(&table.and_then(Value::as_object).cloned().unwrap_or_default()));
        Self { scheme, id_headers: names("header"), id_queries: names("query") }
    }

    fn sign(&self, secret: &Secret, body: &[u8], now: Timestamp, id: &str) -> Result<Signed, CannotSign> {
        let mut signed = Signed::default();
        for name in &self.id_headers {
            signed = signed.header(&name.to_ascii_lowercase(), id);
        }
        signed.query =
            self.id_queries.iter().map(|name| format!("{}={}", encode(name), encode(id))).collect::<Vec<_>>().join("&");
        match &self.scheme {
            Some(scheme) => scheme.sign(signed, secret, body, now, id),
            None => Ok(signed),
        }
    }
}

impl GenericScheme {
    fn read(table: &Map<String, Value>) -> Self {
        let text = |key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
        let name = |key: &str| text(key).map(|n| n.to_ascii_lowercase());
        Self {
            algorithm: text("algorithm").unwrap_or_else(|| "hmac-sha256".to_owned()),
            base64: text("encoding").as_deref() == Some("base64"),
            key: text("key").unwrap_or_else(|| "text".to_owned()),
            header: name("header").unwrap_or_else(|| "x-signature".to_owned()),
            field: text("field"),
            prefix: text("prefix").unwrap_or_default(),
            signed: text("signed").unwrap_or_else(|| "{body}".to_owned()),
            timestamp_header: name("timestamp_header"),
            timestamp_field: text("timestamp_field"),
            id_header: name("id_header"),
            url: text("url").unwrap_or_default(),
        }
    }

    fn sign(
        &self,
        mut signed: Signed,
        secret: &Secret,
        body: &[u8],
        now: Timestamp,
        id: &str,
    ) -> Result<Signed, CannotSign> {
        if self.algorithm == "token" {
            let value = self.in_field(&format!("{}{}", self.prefix, in_a_header(secret)?));
            return Ok(signed.header(&self.header, value));
        }
        let Some((_, algorithm)) = Algorithm::WORDS.iter().find(|(word, _)| *word == self.algorithm) else {
            let message = format!("{} needs the sender's private key, which a gateway does not have", self.algorithm);
            return Err(CannotSign(message));
        };
        let timestamp = now.seconds().to_string();
        let content = self.content(body, &timestamp, id)?;
        let tag = tag_of(*algorithm, &self.key_of(secret)?, &[&content]);
        let tag = if self.base64 { BASE64.encode(&tag) } else { HEXLOWER.encode(&tag) };
        let mut value = self.in_field(&format!("{}{tag}", self.prefix));
        match (&self.timestamp_header, &self.timestamp_field) {
            (Some(name), Some(field)) if *name != self.header => {
                signed = signed.header(name, format!("{field}={timestamp}"));
            }
            (Some(name), None) => signed = signed.header(name, timestamp),
            (_, Some(field)) => value = format!("{field}={timestamp},{value}"),
            (None, None) => {}
        }
        if let Some(name) = &self.id_header
            && !signed.headers.iter().any(|(n, _)| n == name)
        {
            signed = signed.header(name, id);
        }
        Ok(signed.header(&self.header, value))
    }

    fn in_field(&self, value: &str) -> String {
        self.field.as_ref().map_or_else(|| value.to_owned(), |field| format!("{field}={value}"))
    }

    fn key_of(&self, secret: &Secret) -> Result<Vec<u8>, CannotSign> {
        let text = || secret.expose_str().map(str::trim).unwrap_or_default().as_bytes();
        let decoded = match self.key.as_str() {
            "base64" => BASE64.decode(text()).or_else(|_| BASE64_NOPAD.decode(text())).ok(),
            "hex" => HEXLOWER_PERMISSIVE.decode(text()).ok(),
            _ => Some(secret.expose().to_vec()),
        };
        decoded.ok_or_else(|| CannotSign(format!("the secret is not {}, as `key` says", self.key)))
    }

    /// What is signed: the template with its placeholders filled in.
    fn content(&self, body: &[u8], timestamp: &str, id: &str) -> Result<Vec<u8>, CannotSign> {
        let mut out = Vec::with_capacity(body.len() + 64);
        let mut rest = self.signed.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            let (literal, marked) = rest.split_at_checked(at).unwrap_or((rest, ""));
            out.extend(literal.as_bytes());
            if let Some(after) = marked.strip_prefix("{{").or_else(|| marked.strip_prefix("}}")) {
                out.extend(marked.as_bytes().first());
                rest = after;
                continue;
            }
            let (name, after) = marked.strip_prefix('{').and_then(|m| m.split_once('}')).unwrap_or((marked, ""));
            match name {
                "body" => out.extend(body),
                "timestamp" => out.extend(timestamp.as_bytes()),
                "id" => out.extend(id.as_bytes()),
                "url" => out.extend(self.url.as_bytes()),
                other => return Err(CannotSign(format!("{{{other}}} is signed too, and its value is not known here"))),
            }
            rest = after;
        }
        out.extend(rest.as_bytes());
        Ok(out)
    }
}

fn list(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

/// Percent-encode everything but RFC 3986's unreserved characters.
pub(crate) fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;
