//! `[tls.acme]`: certificates from an ACME server.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{Context, Findings, address, secret, sections};
use crate::limits;
use crate::types::Settings;

/// Where certificates come from when nobody says: Let's Encrypt.
pub const ACME_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Where HTTP-01 is answered when nobody says: servers ask at port 80 only.
const HTTP_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80);

/// How an ACME server is shown that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// By the public listener, which the server reaches at port 443.
    TlsAlpn01,
    /// By a plain listener of its own, which the server reaches at port 80.
    Http01 {
        /// Where it listens.
        address: SocketAddr,
    },
}

impl AcmeChallenge {
    /// The word of the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 { .. } => "http-01",
        }
    }
}

/// Certificates from an ACME server (RFC 8555), whose terms of service the operator has agreed to.
#[derive(Clone, PartialEq, Eq)]
pub struct AcmeConfig {
    /// URL of the server's directory: `https`, or `http` to this machine.
    pub directory: String,
    /// `mailto:` URLs for the account.
    pub contact: Vec<String>,
    /// The host names that the certificate is for.
    pub names: Vec<String>,
    /// How they are proven.
    pub challenge: AcmeChallenge,
    /// A private authority's certificates (PEM) to trust at `directory` instead of the system's.
    pub ca_pem: Option<Arc<[u8]>>,
}

impl fmt::Debug for AcmeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcmeConfig")
            .field("directory", &self.directory)
            .field("contact", &self.contact)
            .field("names", &self.names)
            .field("challenge", &self.challenge)
            .field("ca", &self.ca_pem.is_some())
            .finish()
    }
}

/// Read the table. `names` are those of `[tls]`.
pub(super) fn read(table: &mut Settings, names: &[String], context: &Context<'_>, found: &mut Findings) -> AcmeConfig {
    if table.flag("terms_agreed") != Some(true) {
        let why = "must be true: read the terms of service that the server's directory names (Let's Encrypt: \
                   https://letsencrypt.org/repository/) and agree to them, or remove [tls.acme]";
        table.problem("terms_agreed", why);
    }
    let directory = directory(table);
    let contact = table.list("contact").unwrap_or_default();
    let contact = contact.iter().enumerate().filter_map(|(i, text)| mailbox(text, i, table)).collect();
    let challenge = challenge(table);
    let ca_file = table.text("ca_file").map(|file| secret::locate(&file, context));
    let ca_pem = ca_file.and_then(|path| sections::pem(&path, "-----BEGIN CERTIFICATE-----", "ca_file", table));
    AcmeConfig { directory, contact, names: public_names(names, found), challenge, ca_pem: ca_pem.map(Arc::from) }
}

fn directory(table: &mut Settings) -> String {
    let text = table.text_or("directory", ACME_DIRECTORY);
    // with its path as it stands: a directory is not a base of other URLs
    match address::base_url(&text) {
        Ok(_) => text,
        Err(why) => {
            table.problem("directory", why);
            ACME_DIRECTORY.to_owned()
        }
    }
}

/// `admin@example.com` or `mailto:admin@example.com` as a URL.
fn mailbox(text: &str, i: usize, table: &mut Settings) -> Option<String> {
    let mailbox = text.strip_prefix("mailto:").unwrap_or(text);
    let odd = |c: char| c.is_whitespace() || c.is_control() || ",;?<>\"".contains(c) || !c.is_ascii();
    let good = mailbox.split_once('@').is_some_and(|(who, host)| {
        !who.is_empty() && !who.contains(odd) && host.contains('.') && address::is_dns_name(host)
    });
    if !good {
        let message = format!("\"{}\" is not a mail address such as \"admin@example.com\"", text.escape_debug());
        table.problem(&format!("contact[{i}]"), message);
    }
    good.then(|| format!("mailto:{mailbox}"))
}

fn challenge(table: &mut Settings) -> AcmeChallenge {
    let by_http = table.choice("challenge", &[("tls-alpn-01", false), ("http-01", true)]).unwrap_or(false);
    let address = table.text("http_address");
    if !by_http {
        if address.is_some() {
            table.problem("http_address", "has no effect without challenge = \"http-01\": remove it, or set that");
        }
        return AcmeChallenge::TlsAlpn01;
    }
    let address = address.map_or(Some(HTTP_ADDRESS), |text| {
        let address = text.parse().ok();
        if address.is_none() {
            let message = format!("\"{}\" is not an address and port such as \"0.0.0.0:80\"", text.escape_debug());
            table.problem("http_address", message);
        }
        address
    });
    AcmeChallenge::Http01 { address: address.unwrap_or(HTTP_ADDRESS) }
}

/// What of `tls.names` a certificate can be ordered for: the host names. Addresses and `localhost` stay with the self-made one.
fn public_names(names: &[String], found: &mut Findings) -> Vec<String> {
    if let Some(i) = names.iter().position(|name| name.starts_with("*.")) {
        let why = "a wildcard is proven through DNS only, which this version does not do: name each host";
        found.problem(&format!("tls.names[{i}]"), why);
    }
    let local = |name: &str| name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok();
    let mut public: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).filter(|name| !local(name)).collect();
    public.sort_unstable();
    public.dedup();
    if public.is_empty() {
        let why = "[tls.acme] needs the host name under which platforms reach this machine, such as \"gate.example.com\": no \
                   public certificate is for localhost or for an address";
        found.problem("tls.names", why);
    }
    if public.len() > limits::ACME_NAMES_MAX {
        found.problem(
            "tls.names",
            format!("{} are more than the {} of one certificate", public.len(), limits::ACME_NAMES_MAX),
        );
    }
    public
}
