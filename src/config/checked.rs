//! The configuration as the rest of the program takes it, and the order in which it is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::acme::AcmeConfig;
use super::{Context, Findings, policy, sections, source, units, warehouse};
use crate::limits;
use crate::sources::{Credentials, Kind, Source};
use crate::stock::policy::Policy;
use crate::types::{ItemMap, Network, Quantity, Secret, Settings, SourceId, WarehouseId};

/// A configuration without a mistake: what it names exists, what it leaves out has its default.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The public listener (TLS).
    pub listen: SocketAddr,
    /// The proxies in front of it that begin each connection with a PROXY header; empty: none.
    pub proxies: Vec<Network>,
    /// The admin listener.
    pub admin: SocketAddr,
    /// Who gets to it. Anything but this machine has TLS and tokens.
    pub admin_access: AdminAccess,
    /// Where the journal, the state and a self-made certificate live. Relative to the working directory.
    pub data_dir: PathBuf,
    /// The public listener's certificate.
    pub tls: TlsChoice,
    /// What clients may send, and how long they may take.
    pub limits: Limits,
    /// How much of the raw deliveries is kept.
    pub retention: Retention,
    /// The databases.
    pub store: StoreConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Every source, by name.
    pub sources: Vec<SourceConfig>,
    /// Every warehouse that is declared or named by a source.
    pub warehouses: BTreeMap<WarehouseId, WarehouseConfig>,
    /// What deliveries mean: the part that goes into the journal.
    pub policy: Policy,
}

/// Who gets to the admin listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminAccess {
    /// What it speaks.
    pub tls: AdminTls,
    /// Nothing but its health is told without a token.
    pub tokens_required: bool,
}

/// What the admin listener speaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AdminTls {
    /// Plain HTTP, on this machine only.
    #[default]
    Off,
    /// HTTPS with the public listener's certificate.
    Public,
    /// HTTPS with a certificate of its own; always [`TlsChoice::Files`].
    Own(TlsChoice),
}

/// Whose certificate a client of a source must have.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// Path of the authority's certificates.
    pub ca: PathBuf,
    /// What `ca` held.
    pub ca_pem: Arc<[u8]>,
    /// Path of the lists of revoked certificates, and what it held.
    pub crl: Option<(PathBuf, Arc<[u8]>)>,
    /// The names that a certificate may be for; empty: any.
    pub names: Vec<String>,
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let crl = self.crl.as_ref().map(|(path, _)| path);
        f.debug_struct("ClientAuth")
            .field("ca", &self.ca)
            .field("crl", &crl)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// The public listener's certificate.
#[derive(Clone, PartialEq, Eq)]
pub enum TlsChoice {
    /// Made by the gateway itself and kept in the data directory.
    SelfMade {
        /// Host names and addresses to put into it.
        names: Vec<String>,
    },
    /// The operator's own, read and seen to be PEM.
    Files {
        /// Path of the chain, the server's certificate first.
        certificate: PathBuf,
        /// Path of its key.
        key: PathBuf,
        /// What `certificate` held.
        certificate_pem: Arc<[u8]>,
        /// What `key` held.
        key_pem: Secret,
    },
    /// Ordered from an ACME server; until the first one comes, the self-made one serves.
    Acme {
        /// Host names and addresses to put into the self-made one.
        names: Vec<String>,
        /// What is ordered, and where.
        acme: Box<AcmeConfig>,
    },
}

impl fmt::Debug for TlsChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SelfMade { names } => f.debug_struct("SelfMade").field("names", names).finish(),
            Self::Acme { names, acme } => f.debug_struct("Acme").field("names", names).field("acme", acme).finish(),
            Self::Files { certificate, key, .. } => {
                f.debug_struct("Files").field("certificate", certificate).field("key", key).finish_non_exhaustive()
            }
        }
    }
}

impl Default for TlsChoice {
    fn default() -> Self {
        Self::SelfMade { names: SELF_MADE_NAMES.map(str::to_owned).to_vec() }
    }
}

/// What clients may send, and how long they may take. The reasons stand in [`limits`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// One request body, in bytes.
    pub body_bytes: usize,
    /// All request bodies held at one moment, in bytes.
    pub bodies_buffered_bytes: usize,
    /// Open connections of the public listener.
    pub connections: usize,
    /// Open connections from one address.
    pub connections_per_address: usize,
    /// A request's head.
    pub header_timeout: Duration,
    /// A request's body.
    pub body_timeout: Duration,
    /// The TLS handshake.
    pub handshake_timeout: Duration,
    /// A connection without a request.
    pub idle_timeout: Duration,
    /// Deliveries waiting for the journal.
    pub queue_records: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: limits::BODY_MAX_BYTES,
            bodies_buffered_bytes: limits::BODIES_BUFFERED_MAX_BYTES,
            connections: limits::CONNECTIONS_MAX,
            connections_per_address: limits::CONNECTIONS_PER_ADDRESS_MAX,
            header_timeout: limits::HEADER_TIMEOUT,
            body_timeout: limits::BODY_TIMEOUT,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            idle_timeout: limits::IDLE_TIMEOUT,
            queue_records: limits::JOURNAL_QUEUE_RECORDS,
        }
    }
}

/// How much of the raw deliveries is kept: what is older **or** past the size goes, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// By age.
    pub age: Duration,
    /// By size.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: limits::RETENTION_AGE, bytes: limits::RETENTION_BYTES }
    }
}

/// The databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Page cache of the state, in bytes.
    pub cache_bytes: usize,
    /// A checkpoint of the state at least this often when anything changed.
    pub checkpoint: Duration,
    /// Least room kept back on the disk, in bytes.
    pub reserve_bytes: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            cache_bytes: limits::STATE_CACHE_BYTES,
            checkpoint: limits::CHECKPOINT_PERIOD,
            reserve_bytes: limits::RESERVE_BYTES,
        }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The least level that is logged.
    pub level: LogLevel,
    /// The form of a line.
    pub format: LogFormat,
}

/// The least level that is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what needs a person.
    Error,
    /// And what may need one.
    Warn,
    /// And what happens seldom.
    #[default]
    Info,
    /// And every request.
    Debug,
    /// And what happens inside.
    Trace,
}

impl LogLevel {
    /// The words of the configuration; also those of a log filter.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        word(Self::WORDS, self)
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `Text` on a terminal, `Journald` under systemd, `Json` elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
    /// With systemd's priorities and without a time.
    Journald,
}

impl LogFormat {
    /// The words of the configuration.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json), ("journald", Self::Journald)];

    /// The word.
    pub fn as_str(self) -> &'static str {
        word(Self::WORDS, self)
    }
}

fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, v)| *v == value).map_or("", |(word, _)| word)
}

/// One configured account on one platform.
#[derive(Clone)]
pub struct SourceConfig {
    /// Its name: the path segment after `/in/`, the label of its metrics.
    pub id: SourceId,
    /// Its platform.
    pub kind: &'static Kind,
    /// The platform's adapter, built with `settings`.
    pub adapter: Arc<dyn Source>,
    /// The adapter's own table: what `kind.build` takes. Never a secret.
    pub settings: Map<String, Value>,
    /// The warehouse of facts that name no location.
    pub warehouse: Option<WarehouseId>,
    /// The platform's location ids; `*` for those not listed.
    pub locations: BTreeMap<String, WarehouseId>,
    /// The platform's item ids that are mapped here, from `items` and `items_file`.
    pub items: Arc<ItemMap>,
    /// The signing secrets; any of them may have signed. Not empty when the adapter is signed.
    pub secrets: Vec<Secret>,
    /// Where each of `secrets` was read.
    pub secrets_from: Vec<String>,
    /// The secret last segment of the source's path. An unsigned source has a token or an address list.
    pub token: Option<Secret>,
    /// The senders' addresses; empty: any.
    pub allow: Vec<Network>,
    /// Whose certificate a client must have; `None`: nobody's. An unsigned source may have this instead of a token.
    pub clients: Option<ClientAuth>,
    /// How its API is reached; `None`: it is not asked.
    pub api: Option<ApiConfig>,
}

impl fmt::Debug for SourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceConfig")
            .field("id", &self.id)
            .field("kind", &self.kind.name)
            .field("settings", &self.settings)
            .field("warehouse", &self.warehouse)
            .field("locations", &self.locations)
            .field("items", &self.items.len())
            .field("secrets", &self.secrets)
            .field("token", &self.token)
            .field("allow", &self.allow)
            .field("clients", &self.clients)
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

/// How a source's API is reached: the adapter's profile with what the configuration changes.
#[derive(Clone)]
pub struct ApiConfig {
    /// Scheme, host, port and path prefix, without a slash at the end; `https`, or `http` to this machine.
    pub base_url: String,
    /// Every credential that the adapter names, as it was when the configuration was read.
    pub credentials: Credentials,
    /// The files that credentials were read from, by name: a token of two hours is renewed there ([`super::read_secret`]).
    pub credential_files: Vec<(String, PathBuf)>,
    /// Requests allowed in `per`.
    pub requests: u32,
    /// The window of `requests`.
    pub per: Duration,
    /// How long to gather notifications of one resource before asking once.
    pub gather: Duration,
    /// A private authority's certificates (PEM) to trust instead of the system's.
    pub ca_pem: Option<Arc<[u8]>>,
}

impl fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiConfig")
            .field("base_url", &self.base_url)
            .field("credentials", &self.credentials)
            .field("requests", &self.requests)
            .field("per", &self.per)
            .field("gather", &self.gather)
            .field("ca", &self.ca_pem.is_some())
            .finish_non_exhaustive()
    }
}

/// One warehouse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarehouseConfig {
    /// What people are shown.
    pub name: String,
    /// Sources by falling authority; empty: the newest stamp decides.
    pub authority: Vec<SourceId>,
    /// A level at or below counts as low.
    pub low: Option<Quantity>,
}

impl WarehouseConfig {
    /// A warehouse that only a source names.
    pub(super) fn undeclared(id: &WarehouseId) -> Self {
        Self { name: id.as_str().to_owned(), authority: Vec::new(), low: None }
    }
}

/// What a self-made certificate is for when nobody says.
pub(super) const SELF_MADE_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Where the public listener stands when nobody says.
pub(super) const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8443);
/// Where the admin listener stands when nobody says.
pub(super) const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9780);
/// The data directory when nobody says.
pub(super) const DATA_DIRECTORY: &str = "stockgate-data";

impl Default for Checked {
    /// Every default, and no source.
    fn default() -> Self {
        Self {
            listen: LISTEN,
            proxies: Vec::new(),
            admin: ADMIN,
            admin_access: AdminAccess::default(),
            data_dir: PathBuf::from(DATA_DIRECTORY),
            tls: TlsChoice::default(),
            limits: Limits::default(),
            retention: Retention::default(),
            store: StoreConfig::default(),
            log: LogConfig::default(),
            sources: Vec::new(),
            warehouses: BTreeMap::new(),
            policy: Policy::default(),
        }
    }
}

/// Check the whole tree. What comes back is good only when nothing was reported into `found`.
pub(super) fn check(tree: Map<String, Value>, context: &Context<'_>, found: &mut Findings) -> Checked {
    let mut root = Settings::new("", tree);
    let mut checked = sections::read(&mut root, context, found);
    let tables = source::tables(&mut root);
    let declared: BTreeSet<String> = tables.iter().map(|(id, _)| id.clone()).collect();
    checked.sources = tables.into_iter().filter_map(|(id, table)| source::read(&id, table, context, found)).collect();
    checked.warehouses = warehouse::read(&mut root, &declared, &checked.sources, found);
    found.absorb(root.finish());
    contradictions(&checked, &declared, found);
    checked.policy = policy::of(&checked);
    checked
}

/// What no single table can see.
fn contradictions(checked: &Checked, declared: &BTreeSet<String>, found: &mut Findings) {
    if declared.len() > limits::SOURCES_MAX {
        let message = format!("{} sources are more than the {} that one gateway takes", declared.len(), limits::SOURCES_MAX);
        found.problem("source", message);
    }
    if checked.warehouses.len() > limits::WAREHOUSES_MAX {
        let number = checked.warehouses.len();
        let message = format!("{number} warehouses are more than the {} that one gateway takes", limits::WAREHOUSES_MAX);
        found.problem("warehouse", message);
    }
    let longest = checked.sources.iter().max_by_key(|s| s.adapter.horizon());
    if let Some((source, horizon)) = longest.map(|s| (s, s.adapter.horizon())).filter(|(_, h)| *h > checked.retention.age) {
        let message = format!(
            "{} is shorter than the {} in which the platform of `{}` may repeat a delivery: the first one may be gone by then",
            units::time_text(checked.retention.age),
            units::time_text(horizon),
            source.id
        );
        found.warning("retention.age", message);
    }
}
