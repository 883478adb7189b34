//! The fixed sections: data, TLS, limits, retention, store, log. The listeners stand in [`access`].

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;

use super::checked::{
    DATA_DIRECTORY, Limits, LogConfig, LogFormat, LogLevel, Retention, SELF_MADE_NAMES, StoreConfig, TlsChoice,
};
use super::{Checked, Context, Findings, access, acme, address, read_capped, secret, units};
use crate::limits;
use crate::types::{Secret, Settings};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// What a client may be given to finish something.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

/// Read every fixed section; sources and warehouses are still empty.
pub(super) fn read(root: &mut Settings, context: &Context<'_>, found: &mut Findings) -> Checked {
    let data_dir = in_section(root, "data", found, |data| match data.text("directory") {
        Some(text) if text.is_empty() => {
            data.problem("directory", "is empty: name a directory");
            PathBuf::new()
        }
        Some(text) => PathBuf::from(text),
        None => PathBuf::from(DATA_DIRECTORY),
    });
    let listeners = access::read(root, &data_dir, context, found);
    Checked {
        listen: listeners.listen,
        proxies: listeners.proxies,
        admin: listeners.admin,
        admin_access: listeners.admin_access,
        data_dir,
        tls: tls(root, context, found),
        limits: in_section(root, "limits", found, client_limits),
        retention: in_section(root, "retention", found, |retention| Retention {
            age: units::time(retention, "age", hours(1)..=hours(10 * 365 * 24), limits::RETENTION_AGE),
            bytes: units::size(retention, "bytes", 64 * MIB..=1024 * GIB, limits::RETENTION_BYTES),
        }),
        store: in_section(root, "store", found, |store| StoreConfig {
            cache_bytes: memory(store, "cache", MIB..=GIB, limits::STATE_CACHE_BYTES),
            checkpoint: units::time(store, "checkpoint", Duration::from_millis(100)..=hours(1), limits::CHECKPOINT_PERIOD),
            reserve_bytes: units::size(store, "reserve", MIB..=64 * GIB, limits::RESERVE_BYTES),
        }),
        log: in_section(root, "log", found, |log| LogConfig {
            level: log.choice("level", LogLevel::WORDS).unwrap_or_default(),
            format: log.choice("format", LogFormat::WORDS).unwrap_or_default(),
        }),
        ..Checked::default()
    }
}

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

/// Read a table of the file, or an empty one in its place, and report what is wrong in it.
pub(super) fn in_section<T>(
    root: &mut Settings,
    name: &str,
    found: &mut Findings,
    read: impl FnOnce(&mut Settings) -> T,
) -> T {
    let mut section = root.table(name).unwrap_or_else(|| Settings::new(name, Map::new()));
    let value = read(&mut section);
    found.absorb(section.finish());
    value
}

/// A size of memory: what fits an address space of 32 bits too.
fn memory(settings: &mut Settings, key: &str, bounds: RangeInclusive<u64>, default: usize) -> usize {
    let default_bytes = u64::try_from(default).unwrap_or(u64::MAX);
    usize::try_from(units::size(settings, key, bounds, default_bytes)).unwrap_or(default)
}

fn client_limits(table: &mut Settings) -> Limits {
    let default = Limits::default();
    let connections = units::count(table, "connections", 1..=65_535, default.connections);
    // Nobody set it: a smaller total bounds it too. Somebody did: then the two must agree.
    let per_address_default = default.connections_per_address.min(connections);
    let limits = Limits {
        body_bytes: memory(table, "body", KIB..=64 * MIB, default.body_bytes),
        bodies_buffered_bytes: memory(table, "bodies", 64 * KIB..=GIB, default.bodies_buffered_bytes),
        connections,
        connections_per_address: units::count(table, "connections_per_address", 1..=65_535, per_address_default),
        header_timeout: units::time(table, "header_timeout", TIMEOUTS, default.header_timeout),
        body_timeout: units::time(table, "body_timeout", TIMEOUTS, default.body_timeout),
        handshake_timeout: units::time(table, "handshake_timeout", TIMEOUTS, default.handshake_timeout),
        idle_timeout: units::time(table, "idle_timeout", TIMEOUTS, default.idle_timeout),
        queue_records: units::count(table, "queue", 1..=1_000_000, default.queue_records),
    };
    if limits.body_bytes > limits.bodies_buffered_bytes {
        let show = |bytes| units::size_text(u64::try_from(bytes).unwrap_or(u64::MAX));
        let message = format!(
            "one body of {} does not fit in the {} of limits.bodies: raise that too",
            show(limits.body_bytes),
            show(limits.bodies_buffered_bytes)
        );
        table.problem("body", message);
    }
    if limits.connections_per_address > limits.connections {
        let message = format!("{} is more than limits.connections ({})", limits.connections_per_address, limits.connections);
        table.problem("connections_per_address", message);
    }
    limits
}

fn tls(root: &mut Settings, context: &Context<'_>, found: &mut Findings) -> TlsChoice {
    let mut table = root.table("tls").unwrap_or_else(|| Settings::new("tls", Map::new()));
    let names = table.list("names");
    let certificate = table.text("certificate");
    let key = table.text("key");
    let ordered = table.table("acme");
    if ordered.is_some() && (certificate.is_some() || key.is_some()) {
        table.problem("acme", "stands beside tls.certificate: either order the certificate, or bring your own");
    }
    let choice = match (certificate, key) {
        (None, None) if ordered.is_some() => {
            let names = self_made(names, &mut table);
            let mut ordered = ordered.unwrap_or_else(|| Settings::new("tls.acme", Map::new()));
            let acme = Box::new(acme::read(&mut ordered, &names, context, found));
            table.absorb(ordered.finish());
            TlsChoice::Acme { names, acme }
        }
        (Some(certificate), Some(key)) => {
            if names.is_some() {
                found.warning("tls.names", "has no effect beside tls.certificate: it names what a self-made one is for");
            }
            files(&certificate, &key, &mut table, context, found)
        }
        (Some(_), None) => {
            table.problem("key", "missing: tls.certificate needs its private key");
            TlsChoice::default()
        }
        (None, Some(_)) => {
            table.problem("certificate", "missing: tls.key needs its certificate");
            TlsChoice::default()
        }
        (None, None) => TlsChoice::SelfMade { names: self_made(names, &mut table) },
    };
    found.absorb(table.finish());
    choice
}

/// The names of a self-made certificate: those given, or this machine's.
fn self_made(names: Option<Vec<String>>, table: &mut Settings) -> Vec<String> {
    let Some(names) = names else { return SELF_MADE_NAMES.map(str::to_owned).to_vec() };
    if names.is_empty() {
        table.problem("names", "is an empty list: name at least one host or address");
    }
    for (i, name) in names.iter().enumerate().filter(|(_, name)| !address::is_certificate_name(name)) {
        let message = format!("\"{}\" is neither a host name nor an IP address", name.escape_debug());
        table.problem(&format!("names[{i}]"), message);
    }
    names
}

/// A certificate and its key, read and seen to be PEM.
pub(super) fn files(
    certificate: &str,
    key: &str,
    table: &mut Settings,
    context: &Context<'_>,
    found: &mut Findings,
) -> TlsChoice {
    let certificate = secret::locate(certificate, context);
    let key = secret::locate(key, context);
    let certificate_pem = pem(&certificate, "-----BEGIN CERTIFICATE-----", "certificate", table).unwrap_or_default();
    let key_pem = pem(&key, "PRIVATE KEY-----", "key", table).unwrap_or_default();
    if contains(&key_pem, b"ENCRYPTED") {
        table.problem(
            "key",
            format!("{} is encrypted: a gateway that starts by itself cannot ask for its password", key.display()),
        );
    }
    if !key_pem.is_empty() {
        secret::warn_if_open(&key, &table.path_of("key"), found);
    }
    TlsChoice::Files { certificate, key, certificate_pem: Arc::from(certificate_pem), key_pem: Secret::new(key_pem) }
}

/// A PEM file that holds the marker; that it parses and fits is seen where it is used.
pub(super) fn pem(path: &Path, marker: &str, key: &str, table: &mut Settings) -> Option<Vec<u8>> {
    let shown = path.display();
    match read_capped(path, limits::PEM_FILE_MAX_BYTES) {
        Ok(bytes) if contains(&bytes, marker.as_bytes()) => return Some(bytes),
        Ok(_) => table.problem(key, format!("{shown} holds no PEM with `{marker}`")),
        Err(why) => table.problem(key, format!("{shown} cannot be read: {why}")),
    }
    None
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
