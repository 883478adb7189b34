//! The few settings of a configuration that reach a gateway, read without checking the rest of it: who may ask the gateway need not be
//! allowed to read its secrets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::client::Failure;
use super::{code, environment};
use crate::config;
use crate::net::client::Trust;
use crate::net::tls::certificates;

/// A configuration as far as it is read here.
pub(super) struct Known {
    /// What problems name.
    file: PathBuf,
    tables: Vec<toml::Table>,
}

impl Known {
    /// Read a file and its drop-ins, which win over it.
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let drop_ins = config::drop_ins(file).map_err(|why| Failure::new(code::CONFIGURATION, why))?;
        let mut tables = Vec::new();
        for one in std::iter::once(file).chain(drop_ins.iter().map(PathBuf::as_path)) {
            let bad = |why: String| Failure::new(code::CONFIGURATION, format!("{}: {why}", one.display()));
            let text = std::fs::read_to_string(one).map_err(|error| bad(format!("cannot be read: {error}")))?;
            tables.push(parsed(&text).map_err(bad)?);
        }
        Ok(Self { file: file.to_owned(), tables })
    }

    /// From a text.
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Result<Self, String> {
        Ok(Self { file: PathBuf::from("stockgate.toml"), tables: vec![parsed(text)?] })
    }

    /// A setting; the environment wins, as it does in the gateway.
    fn value(&self, key: &str) -> Option<toml::Value> {
        if let Some(value) = environment(&config::variable(key)).filter(|value| !value.is_empty()) {
            return Some(value.parse().map_or(toml::Value::String(value), toml::Value::Boolean));
        }
        let (section, key) = key.split_once('.')?;
        self.tables.iter().rev().find_map(|table| table.get(section)?.get(key).cloned())
    }

    fn text(&self, key: &str) -> Result<Option<String>, Failure> {
        match self.value(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text)),
            Some(_) => {
                let message = format!("{}: {key} is not text; `stockgate check --config` says more", self.file.display());
                Err(Failure::new(code::CONFIGURATION, message))
            }
        }
    }

    /// Where the admin API is, when it says so: `127.0.0.1:9780`, `https://127.0.0.1:9780`.
    pub(super) fn admin(&self) -> Result<Option<String>, Failure> {
        let address = self.text("admin.address")?;
        if !self.is_https() {
            return Ok(address);
        }
        let address = address.as_deref().unwrap_or("127.0.0.1:9780");
        Ok(Some(format!("https://{}", address.parse().map_or(address.to_owned(), |address| reachable(address).to_string()))))
    }

    fn is_https(&self) -> bool {
        self.value("admin.tls").and_then(|tls| tls.as_bool()).unwrap_or(false)
    }

    /// Where its data is.
    pub(super) fn data_directory(&self) -> Result<PathBuf, Failure> {
        Ok(self.text("data.directory")?.unwrap_or_else(|| "stockgate-data".to_owned()).into())
    }

    /// Whom to trust when nothing else is said: the certificate that the gateway made itself, when it uses that one and we may read it.
    pub(super) fn trust(&self) -> Option<Trust> {
        let given = |key| self.value(key).is_some();
        if !self.is_https() || given("admin.certificate") || given("tls.certificate") || given("tls.acme") {
            return None;
        }
        self_made(&self.data_directory().ok()?)
    }
}

/// Trust in the certificate that a gateway has made itself.
pub(super) fn self_made(data: &Path) -> Option<Trust> {
    let pem = std::fs::read(data.join("tls-cert.pem")).ok()?;
    certificates(&pem).ok().map(Trust::Roots)
}

fn parsed(text: &str) -> Result<toml::Table, String> {
    text.parse().map_err(|_| "is not TOML; `stockgate check --config` says where".to_owned())
}

/// An address to connect to: a listener on every address is on this machine's own, too.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}
