//! Who may connect: `[listen]`, `[admin]`, and the keys of a source about addresses and client certificates.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::checked::{ADMIN, AdminAccess, AdminTls, ClientAuth, LISTEN};
use super::{Context, Findings, secret, sections};
use crate::limits;
use crate::time;
use crate::types::{Network, Settings, TOKENS_FILE, Tokens};

/// Both listeners.
pub(super) struct Listeners {
    pub(super) listen: SocketAddr,
    pub(super) proxies: Vec<Network>,
    pub(super) admin: SocketAddr,
    pub(super) admin_access: AdminAccess,
}

/// Read `[listen]` and `[admin]`.
pub(super) fn read(root: &mut Settings, data: &Path, context: &Context<'_>, found: &mut Findings) -> Listeners {
    let (listen, proxies) = sections::in_section(root, "listen", found, |listen| {
        (socket(listen, "0.0.0.0:8443").unwrap_or(LISTEN), networks(listen, "proxy_protocol_from", NO_PROXIES))
    });
    let mut table = root.table("admin").unwrap_or_else(|| Settings::new("admin", serde_json::Map::new()));
    let admin = socket(&mut table, "127.0.0.1:9780").unwrap_or(ADMIN);
    let admin_access = admin_access(&mut table, admin, data, context, found);
    found.absorb(table.finish());
    let overlap = listen.ip() == admin.ip() || listen.ip().is_unspecified() || admin.ip().is_unspecified();
    if overlap && listen.port() == admin.port() && admin.port() != 0 {
        found.problem("admin.address", format!("{admin} is taken by listen.address ({listen}): use another port"));
    }
    Listeners { listen, proxies, admin, admin_access }
}

const NO_PROXIES: &str = "is an empty list: leave the key out when no proxy stands in front";
const NOBODY: &str = "is an empty list: nobody could deliver; leave the key out to allow every address";

fn socket(settings: &mut Settings, example: &str) -> Option<SocketAddr> {
    let text = settings.text("address")?;
    let address = text.parse().ok();
    if address.is_none() {
        settings.problem("address", format!("\"{}\" is not an address and port such as \"{example}\"", text.escape_debug()));
    }
    address
}

/// TLS and tokens of the admin listener. Both are a must where other machines reach it.
fn admin_access(
    table: &mut Settings,
    address: SocketAddr,
    data: &Path,
    context: &Context<'_>,
    found: &mut Findings,
) -> AdminAccess {
    let reachable = !address.ip().to_canonical().is_loopback();
    let on = table.flag("tls").unwrap_or(false);
    let tls = match (table.text("certificate"), table.text("key")) {
        (None, None) if on => AdminTls::Public,
        (None, None) => AdminTls::Off,
        (Some(certificate), Some(key)) => {
            let own = sections::files(&certificate, &key, table, context, found);
            if !on {
                found.warning(&table.path_of("certificate"), "has no effect without admin.tls = true");
            }
            if on { AdminTls::Own(own) } else { AdminTls::Off }
        }
        (Some(_), None) => {
            table.problem("key", "missing: admin.certificate needs its private key");
            AdminTls::Off
        }
        (None, Some(_)) => {
            table.problem("certificate", "missing: admin.key needs its certificate");
            AdminTls::Off
        }
    };
    let chosen = table.choice("tokens", &[("optional", false), ("required", true)]);
    if reachable && !on {
        let message = format!(
            "{address} can be reached from other machines, so a token would pass in the clear: set admin.tls = true, or use \
             127.0.0.1 and a tunnel or a proxy in front"
        );
        table.problem("address", message);
    }
    if reachable && chosen == Some(false) {
        table.problem("tokens", format!("must be \"required\" (or left out): {address} can be reached from other machines"));
    }
    let tokens_required = chosen.unwrap_or(reachable);
    if tokens_required && (on || !reachable) {
        let key = if chosen == Some(true) { "tokens" } else { "address" };
        if let Some(problem) = no_tokens(&data.join(TOKENS_FILE)) {
            table.problem(key, problem);
        }
    }
    AdminAccess { tls, tokens_required }
}

/// Why nobody could get in; `None` when somebody can, or when this user may not know.
fn no_tokens(file: &Path) -> Option<String> {
    const MAKE: &str =
        "make one with `stockgate token new --role operator --name NAME`, with the --config or --data of this gateway";
    let shown = file.display();
    match super::read_capped_or(file, limits::TOKENS_FILE_MAX_BYTES) {
        Err((ErrorKind::PermissionDenied, _)) => None,
        Err((ErrorKind::NotFound, _)) => Some(format!("needs tokens, and there are none ({shown}): {MAKE}")),
        Err((_, why)) => Some(format!("needs tokens, and {shown} cannot be read: {why}")),
        Ok(bytes) => match Tokens::parse(&bytes) {
            Err(why) => Some(format!("needs tokens, and {shown} {why}")),
            Ok(tokens) if tokens.any_usable(time::now()) => None,
            Ok(_) => Some(format!("needs tokens, and none of {shown} can be used any more: {MAKE}")),
        },
    }
}

/// The address list of a source.
pub(super) fn allowed(settings: &mut Settings) -> Vec<Network> {
    networks(settings, "allow", NOBODY)
}

fn networks(settings: &mut Settings, key: &str, when_empty: &str) -> Vec<Network> {
    let Some(texts) = settings.list(key) else { return Vec::new() };
    if texts.is_empty() {
        settings.problem(key, when_empty);
    }
    if texts.len() > limits::NETWORKS_MAX {
        settings.problem(key, format!("{} networks are more than {}", texts.len(), limits::NETWORKS_MAX));
    }
    let mut networks = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(network) => networks.push(network),
            Err(why) => settings.problem(&format!("{key}[{i}]"), format!("\"{}\": {why}", text.escape_debug())),
        }
    }
    networks
}

/// The keys about client certificates.
pub(super) const CLIENT_KEYS: [&str; 3] = ["client_ca_file", "client_crl_file", "client_names"];

/// Whose certificate a client of a source must have.
pub(super) fn clients(settings: &mut Settings, context: &Context<'_>) -> Option<ClientAuth> {
    let [ca_key, crl_key, names_key] = CLIENT_KEYS;
    let ca = settings.text(ca_key).map(|file| secret::locate(&file, context));
    let crl = settings.text(crl_key).map(|file| secret::locate(&file, context));
    let names = settings.list(names_key);
    let Some(ca) = ca else {
        for (key, given) in [(crl_key, crl.is_some()), (names_key, names.is_some())] {
            if given {
                settings.problem(
                    key,
                    format!("has no effect without {ca_key}: name the authority whose certificates it is about"),
                );
            }
        }
        return None;
    };
    if names.as_ref().is_some_and(Vec::is_empty) {
        settings.problem(names_key, "is an empty list: leave the key out to take every certificate of the authority");
    }
    if names.as_ref().is_some_and(|names| names.len() > limits::NETWORKS_MAX) {
        settings.problem(names_key, format!("more names than {}", limits::NETWORKS_MAX));
    }
    let ca_pem = sections::pem(&ca, "-----BEGIN CERTIFICATE-----", ca_key, settings).map(Arc::from);
    let crl = crl.map(|path| {
        let pem = sections::pem(&path, "-----BEGIN X509 CRL-----", crl_key, settings);
        (path, Arc::from(pem.unwrap_or_default()))
    });
    // without its PEM the configuration is refused: what comes back then is not used
    Some(ClientAuth { ca, ca_pem: ca_pem.unwrap_or_default(), crl, names: names.unwrap_or_default() })
}
