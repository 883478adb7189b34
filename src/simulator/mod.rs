//! Faithful fakes of the platforms: what they send, how they misbehave, and the APIs that the gateway asks.
//!
//! Used by `stockgate demo`, by the tests and for load. A [`World`] is seven accounts on seven platforms with their own truth
//! ([`truth`]); lanes turn its changes into deliveries with the faults of the real world ([`traffic`]); senders deliver them
//! over TLS ([`sender`]); the APIs answer from the same truth ([`api`]). At the end [`World::truth`] says what the gateway
//! must show, position by position.
//!
//! Everything is a function of the seed, but for what depends on the gateway's answers and on the time of day.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::net::client::TrustError;
use crate::net::serve;
use crate::net::tasks::start;
use crate::time::{self, Timestamp};
use crate::types::Quantity;

pub mod api;
pub mod meter;
pub mod platform;
pub mod random;
pub mod sender;
pub mod sign;
pub mod traffic;
pub mod truth;

use meter::{Meter, Tally};
use platform::{Ground, PLATFORMS, Platform, SHARED};
use sender::{Outbox, Pacer, Target, Witness, drive};
use traffic::{HEAD_START, Lane};
use truth::{Account, Mapping};

/// How long after the traffic the senders try to deliver what was not taken.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often progress is reported.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// Name of a warehouse and SKU.
pub type Position = (String, String);

/// Simulated accounts on every platform.
pub struct World {
    seed: u64,
    start: Timestamp,
    accounts: Vec<Simulated>,
}

/// One account, with its platform and its counters.
pub struct Simulated {
    /// How it behaves.
    pub platform: &'static dyn Platform,
    /// What it knows.
    pub account: Arc<Account>,
    /// What its senders saw.
    pub meter: Arc<Meter>,
}

/// Running APIs.
pub struct Apis {
    /// The port of each, by source name.
    pub ports: BTreeMap<String, u16>,
    stop: watch::Sender<bool>,
    servers: JoinSet<()>,
}

impl Apis {
    /// Stop them.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.servers.join_next().await.is_some() {}
    }
}

/// What to send, and for how long.
#[derive(Debug, Clone)]
pub struct Run {
    /// The gateway.
    pub target: Target,
    /// Traffic lasts this long; what is owed then is delivered after it.
    pub duration: Duration,
    /// Deliveries a second over all platforms; `None`: as fast as the gateway answers.
    pub rate: Option<u32>,
}

/// What a run left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// All accounts together.
    pub tally: Tally,
    /// Positions whose newest number the gateway never took.
    pub undelivered: usize,
}

impl World {
    /// A world of this seed, `scale` times the usual size (1: some 4,000 positions).
    pub fn new(seed: u64, scale: usize) -> Self {
        let start = Timestamp(time::now().0.saturating_sub(i64::try_from(HEAD_START.as_micros()).unwrap_or(0)));
        Self::starting_at(seed, scale, start)
    }

    /// The same with platform clocks that start at this moment: two such worlds are alike to the last byte.
    pub fn starting_at(seed: u64, scale: usize, start: Timestamp) -> Self {
        let ground = Ground { seed, scale: scale.max(1), start };
        let simulated = |platform: &&'static dyn Platform| Simulated {
            platform: *platform,
            account: Arc::new(platform.account(ground)),
            meter: Arc::default(),
        };
        Self { seed, start, accounts: PLATFORMS.iter().map(simulated).collect() }
    }

    /// Its accounts.
    pub fn accounts(&self) -> &[Simulated] {
        &self.accounts
    }

    /// The senders of an account.
    pub fn lanes(&self, of: &Simulated) -> Vec<Lane> {
        let lane = |number| Lane::new(Arc::clone(&of.account), of.platform, number, self.seed, self.start);
        (0..of.platform.manners().lanes).map(lane).collect()
    }

    /// Every warehouse that some account reports.
    pub fn warehouses(&self) -> Vec<&'static str> {
        let mut names: Vec<&str> =
            self.accounts.iter().flat_map(|s| s.account.sites.iter().map(|site| site.warehouse)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Positions that can be reported.
    pub fn positions(&self) -> usize {
        let mut all: Vec<(&str, &str)> = Vec::new();
        for simulated in &self.accounts {
            let named = (0..simulated.account.keys.len()).map(|cell| simulated.account.names(cell));
            all.extend(
                named.filter(|(good, _)| !good.sku.is_empty()).map(|(good, site)| (site.warehouse, good.sku.as_str())),
            );
        }
        all.sort_unstable();
        all.dedup();
        all.len()
    }

    /// What the gateway must show: every position that was told, `None` where it is not counted. Where two platforms report
    /// one warehouse, the one with authority counts.
    pub fn truth(&self) -> BTreeMap<Position, Option<Quantity>> {
        let mut truth = BTreeMap::new();
        let alone = self.accounts.iter().filter(|s| !SHARED.1.contains(&s.account.name));
        let named = |name: &&str| self.accounts.iter().find(|s| s.account.name == *name);
        for simulated in alone.chain(SHARED.1.iter().filter_map(named)) {
            let account = &simulated.account;
            for (index, cell) in account.snapshot().into_iter().enumerate() {
                let (good, site) = account.names(index);
                if cell.told && good.mapping != Mapping::Unknown {
                    let position = (site.warehouse.to_owned(), good.sku.clone());
                    truth.entry(position).or_insert(cell.stock);
                }
            }
        }
        truth
    }

    /// Start an API for each platform that has one, on ports of the system's choice.
    pub async fn start_apis(&self) -> io::Result<Apis> {
        let (stop, stopping) = watch::channel(false);
        let mut apis = Apis { ports: BTreeMap::new(), stop, servers: JoinSet::new() };
        for simulated in self.accounts.iter().filter(|s| s.platform.manners().api) {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let server = serve::Server::bind("simulated", address, None, serve::Limits::default()).await?;
            apis.ports.insert(simulated.account.name.to_owned(), server.local_addr().port());
            let handler = api::Server { platform: simulated.platform, account: Arc::clone(&simulated.account) };
            start(&mut apis.servers, server.run(Arc::new(handler), stopping.clone()));
        }
        Ok(apis)
    }

    /// Write the files that the configuration names: secrets, tokens, credentials and item lists.
    pub fn write_files(&self, directory: &Path) -> io::Result<()> {
        for Simulated { account, .. } in &self.accounts {
            let name = account.name;
            if let Some(secret) = &account.secret {
                write_private(&directory.join(format!("{name}.secret")), secret.expose())?;
            }
            if let Some(token) = &account.token {
                write_private(&directory.join(format!("{name}.path")), token.as_bytes())?;
            }
            for (credential, value) in &account.credentials {
                write_private(&directory.join(format!("{name}.{credential}")), value.as_bytes())?;
            }
            if let Some(items) = items_of(account) {
                write_private(&directory.join(format!("{name}.csv")), items.as_bytes())?;
            }
        }
        Ok(())
    }

    /// A complete configuration for a gateway that takes this world in. Listens on ports of the system's choice; secrets are in
    /// the files of [`World::write_files`], in the directory that the configuration is read from.
    pub fn config_toml(&self, ports: &BTreeMap<String, u16>, data: &Path) -> String {
        let mut toml = format!(
            "[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n[data]\ndirectory = {}\n\n",
            quoted(&data.display().to_string())
        );
        let authority: Vec<String> = SHARED.1.iter().map(|name| quoted(name)).collect();
        write!(toml, "[warehouse.{}]\nauthority = [{}]\n\n", SHARED.0, authority.join(", ")).expect("a string takes all");
        for simulated in &self.accounts {
            toml.push_str(&source_toml(simulated, ports.get(simulated.account.name).copied()));
        }
        toml
    }

    /// Send for a while, then deliver what is owed. `progress` is called a few times a second.
    pub async fn run(&self, run: &Run, progress: impl FnMut(&Self)) -> Result<Ran, TrustError> {
        self.run_until(&run.target, run.rate, None, tokio::time::sleep(run.duration), progress).await
    }

    /// Send until told to stop, then deliver what is owed. Goes on while the gateway is away. The witness is told of every
    /// genuine attempt.
    pub async fn run_until(
        &self,
        target: &Target,
        rate: Option<u32>,
        witness: Option<Arc<dyn Witness>>,
        end: impl Future<Output = ()>,
        mut progress: impl FnMut(&Self),
    ) -> Result<Ran, TrustError> {
        let (stop, stopping) = watch::channel(false);
        let pacer = Arc::new(Pacer::new(rate));
        let mut lanes = JoinSet::new();
        for simulated in &self.accounts {
            let (account, meter) = (Arc::clone(&simulated.account), Arc::clone(&simulated.meter));
            let outbox = Arc::new(Outbox::new(simulated.platform, account, meter, target, witness.clone())?);
            outbox.greet().await;
            for lane in self.lanes(simulated) {
                start(&mut lanes, drive(lane, Arc::clone(&outbox), Arc::clone(&pacer), stopping.clone(), PATIENCE));
            }
        }
        let mut tick = tokio::time::interval(PROGRESS_EVERY);
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                _ = tick.tick() => progress(self),
            }
        }
        for simulated in &self.accounts {
            simulated.account.calm_down();
        }
        stop.send_replace(true);
        let mut undelivered = 0;
        loop {
            tokio::select! {
                ended = lanes.join_next() => match ended {
                    Some(Ok(owed)) => undelivered += owed,
                    Some(Err(error)) => {
                        tracing::error!(%error, "a sender ended early");
                        undelivered += 1;
                    }
                    None => break,
                },
                _ = tick.tick() => progress(self),
            }
        }
        Ok(Ran { tally: self.tally(), undelivered })
    }

    /// All accounts together, so far.
    pub fn tally(&self) -> Tally {
        self.accounts.iter().fold(Tally::default(), |sum, s| sum.plus(s.meter.tally()))
    }
}

/// `item,sku` of what the configuration is to know: for a platform whose messages carry no SKU.
fn items_of(account: &Account) -> Option<String> {
    let known: Vec<String> = account
        .goods
        .iter()
        .filter(|good| good.mapping == Mapping::Configured)
        .map(|good| format!("{},{}\n", good.id, good.sku))
        .collect();
    (!known.is_empty()).then(|| format!("item,sku\n{}", known.concat()))
}

fn source_toml(simulated: &Simulated, port: Option<u16>) -> String {
    let Simulated { platform, account, .. } = simulated;
    let name = account.name;
    let mut toml = format!("[source.{name}]\nkind = \"{}\"\n", platform.kind());
    match account.sites.as_slice() {
        [only] if only.id.is_empty() => toml.push_str(&format!("warehouse = \"{}\"\n", only.warehouse)),
        sites => {
            let pairs: Vec<String> = sites.iter().map(|s| format!("{} = \"{}\"", quoted(&s.id), s.warehouse)).collect();
            toml.push_str(&format!("locations = {{ {} }}\n", pairs.join(", ")));
        }
    }
    if account.secret.is_some() {
        toml.push_str(&format!("secret_file = \"{name}.secret\"\n"));
    }
    if account.token.is_some() {
        toml.push_str(&format!("token_file = \"{name}.path\"\n"));
    }
    if items_of(account).is_some() {
        toml.push_str(&format!("items_file = \"{name}.csv\"\n"));
    }
    toml.push_str(platform.settings());
    if let Some(port) = port {
        // A platform on this machine has no limits worth keeping, and nobody wants to wait for a demonstration.
        toml.push_str(&format!(
            "[source.{name}.api]\nbase_url = \"http://127.0.0.1:{port}\"\nrequests = 1000\nper = \"1s\"\ngather = \"100ms\"\n"
        ));
        for (credential, _) in &account.credentials {
            toml.push_str(&format!("{credential}_file = \"{name}.{credential}\"\n"));
        }
    }
    toml.push('\n');
    toml
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string serialises")
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, bytes)
}

#[cfg(test)]
mod tests;
