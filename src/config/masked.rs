//! The resolved configuration as TOML, with every secret as `***`: what `check` shows.

use std::fmt::{self, Display, Write};

use serde_json::Value;

use super::{AcmeChallenge, AcmeConfig, AdminTls, ApiConfig, Checked, SourceConfig, TlsChoice, WarehouseConfig, units};
use crate::types::WarehouseId;

/// Items shown of a mapping; a longer one is shown by its length.
const ITEMS_SHOWN: usize = 20;

/// The whole configuration, defaults included, secrets masked.
pub fn masked(checked: &Checked) -> String {
    let mut out = String::new();
    write_all(&mut out, checked).expect("writing into a String does not fail");
    out
}

fn write_all(out: &mut String, checked: &Checked) -> fmt::Result {
    fixed(out, checked)?;
    for (id, warehouse) in &checked.warehouses {
        warehouse_table(out, id, warehouse)?;
    }
    for source in &checked.sources {
        source_table(out, source)?;
    }
    Ok(())
}

fn fixed(out: &mut String, checked: &Checked) -> fmt::Result {
    let Checked { listen, proxies, admin, admin_access, data_dir, tls, limits, retention, store, log, .. } = checked;
    writeln!(out, "[listen]\naddress = {}", quoted(listen))?;
    if !proxies.is_empty() {
        writeln!(out, "proxy_protocol_from = {}", array(proxies))?;
    }
    writeln!(out, "\n[admin]\naddress = {}", quoted(admin))?;
    writeln!(out, "tls = {}", admin_access.tls != AdminTls::Off)?;
    if let AdminTls::Own(TlsChoice::Files { certificate, key, .. }) = &admin_access.tls {
        writeln!(out, "certificate = {}\nkey = {}", quoted(certificate.display()), quoted(key.display()))?;
    }
    writeln!(out, "tokens = {}", quoted(if admin_access.tokens_required { "required" } else { "optional" }))?;
    writeln!(out, "\n[data]\ndirectory = {}", quoted(data_dir.display()))?;
    writeln!(out, "\n[tls]")?;
    match tls {
        TlsChoice::SelfMade { names } => writeln!(out, "names = {}", array(names))?,
        TlsChoice::Acme { names, acme } => {
            writeln!(out, "names = {}", array(names))?;
            acme_table(out, acme)?;
        }
        TlsChoice::Files { certificate, key, .. } => {
            writeln!(out, "certificate = {}\nkey = {}", quoted(certificate.display()), quoted(key.display()))?;
        }
    }
    writeln!(out, "\n[limits]\nbody = {}", bytes(limits.body_bytes))?;
    writeln!(out, "bodies = {}", bytes(limits.bodies_buffered_bytes))?;
    writeln!(out, "connections = {}", limits.connections)?;
    writeln!(out, "connections_per_address = {}", limits.connections_per_address)?;
    writeln!(out, "header_timeout = {}", quoted(units::time_text(limits.header_timeout)))?;
    writeln!(out, "body_timeout = {}", quoted(units::time_text(limits.body_timeout)))?;
    writeln!(out, "handshake_timeout = {}", quoted(units::time_text(limits.handshake_timeout)))?;
    writeln!(out, "idle_timeout = {}", quoted(units::time_text(limits.idle_timeout)))?;
    writeln!(out, "queue = {}", limits.queue_records)?;
    writeln!(out, "\n[retention]\nage = {}", quoted(units::time_text(retention.age)))?;
    writeln!(out, "bytes = {}", quoted(units::size_text(retention.bytes)))?;
    writeln!(out, "\n[store]\ncache = {}", bytes(store.cache_bytes))?;
    writeln!(out, "checkpoint = {}", quoted(units::time_text(store.checkpoint)))?;
    writeln!(out, "reserve = {}", quoted(units::size_text(store.reserve_bytes)))?;
    writeln!(out, "\n[log]\nlevel = {}\nformat = {}", quoted(log.level.as_str()), quoted(log.format.as_str()))
}

fn acme_table(out: &mut String, acme: &AcmeConfig) -> fmt::Result {
    writeln!(out, "\n[tls.acme]\nterms_agreed = true\ndirectory = {}", quoted(&acme.directory))?;
    writeln!(out, "contact = {}\nchallenge = {}", array(&acme.contact), quoted(acme.challenge.as_str()))?;
    if let AcmeChallenge::Http01 { address } = acme.challenge {
        writeln!(out, "http_address = {}", quoted(address))?;
    }
    match &acme.ca_pem {
        Some(_) => writeln!(out, "# trusts the authority of ca_file only"),
        None => Ok(()),
    }
}

fn warehouse_table(out: &mut String, id: &WarehouseId, warehouse: &WarehouseConfig) -> fmt::Result {
    writeln!(out, "\n[warehouse.{id}]\nname = {}", quoted(&warehouse.name))?;
    writeln!(out, "authority = {}", array(&warehouse.authority))?;
    match warehouse.low {
        Some(low) => writeln!(out, "low = {}", quoted(low)),
        None => Ok(()),
    }
}

fn source_table(out: &mut String, source: &SourceConfig) -> fmt::Result {
    writeln!(out, "\n[source.{}]\nkind = {}", source.id, quoted(source.kind.name))?;
    if let Some(warehouse) = &source.warehouse {
        writeln!(out, "warehouse = {}", quoted(warehouse))?;
    }
    if !source.locations.is_empty() {
        writeln!(out, "locations = {}", inline(&source.locations))?;
    }
    match source.items.len() {
        0 => {}
        n if n <= ITEMS_SHOWN => writeln!(out, "items = {}", inline(source.items.iter()))?,
        n => writeln!(out, "# {n} items are mapped")?,
    }
    if !source.secrets.is_empty() {
        let from = source.secrets_from.join(", ").escape_debug().to_string();
        writeln!(out, "secret = {} # from {from}", array(&source.secrets))?;
    }
    if let Some(token) = &source.token {
        writeln!(out, "token = {}", quoted(token))?;
    }
    if !source.allow.is_empty() {
        writeln!(out, "allow = {}", array(&source.allow))?;
    }
    if let Some(clients) = &source.clients {
        writeln!(out, "client_ca_file = {}", quoted(clients.ca.display()))?;
        if let Some((path, _)) = &clients.crl {
            writeln!(out, "client_crl_file = {}", quoted(path.display()))?;
        }
        if !clients.names.is_empty() {
            writeln!(out, "client_names = {}", array(&clients.names))?;
        }
    }
    for (key, value) in &source.settings {
        writeln!(out, "{} = {}", bare_or_quoted(key), toml_value(value))?;
    }
    source.api.as_ref().map_or(Ok(()), |api| api_table(out, source, api))
}

fn api_table(out: &mut String, source: &SourceConfig, api: &ApiConfig) -> fmt::Result {
    writeln!(out, "\n[source.{}.api]\nbase_url = {}", source.id, quoted(&api.base_url))?;
    for (name, secret) in &api.credentials.0 {
        writeln!(out, "{name} = {}", quoted(secret))?;
    }
    writeln!(out, "requests = {}\nper = {}", api.requests, quoted(units::time_text(api.per)))?;
    writeln!(out, "gather = {}", quoted(units::time_text(api.gather)))?;
    match &api.ca_pem {
        Some(_) => writeln!(out, "# trusts the authority of ca_file only"),
        None => Ok(()),
    }
}

fn bytes(bytes: usize) -> String {
    quoted(units::size_text(u64::try_from(bytes).unwrap_or(u64::MAX)))
}

/// A TOML basic string.
fn quoted(value: impl Display) -> String {
    let mut out = String::from("\"");
    for c in value.to_string().chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.extend(format!("\\u{:04X}", u32::from(c)).chars()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn bare_or_quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { key.to_owned() } else { quoted(key) }
}

fn array<T: Display>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(quoted).collect();
    format!("[{}]", values.join(", "))
}

fn inline<K: AsRef<str>, V: Display>(pairs: impl IntoIterator<Item = (K, V)>) -> String {
    let shown = |(key, value): (K, V)| format!("{} = {}", bare_or_quoted(key.as_ref()), quoted(value));
    let pairs: Vec<String> = pairs.into_iter().map(shown).collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn toml_value(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Array(values) => format!("[{}]", values.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{} = {}", bare_or_quoted(key), toml_value(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        // A configuration holds no null: TOML has none.
        Value::Null => "\"\"".to_owned(),
    }
}
