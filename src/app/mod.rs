//! The whole program: build (nothing is bound yet), run, drain in reverse.
//!
//! Order of a start: data directory, state, journal (all of it on a thread of its own), fold, policy into the journal, certificate,
//! listeners, workers. Order of a stop: not ready, listeners (requests under way finish), workers, journal (what is queued is
//! committed), fold (to the journal's end, or as far as it comes in a few seconds, then a last checkpoint). The service manager is
//! told of each.

mod build;
mod manager;
mod reload;
mod status;
mod watchdog;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::build::{make_data_directory, unusable};
pub use self::manager::{Manager, Surroundings};

use self::build::{
    acme, admin_identity, api_sources, asked_authorities, certificate_files, http_01, http_01_limits, identity, infos, keep,
    proxies, routes, server_limits, share_items,
};
use self::reload::{Core, FetchSources, Reloader, append_policy};
use self::status::Teller;
use crate::api::{Access, Api, Context, Health, Reloaded};
use crate::config::{Checked, Loaded, Report, StoreConfig};
use crate::limits::{DISK_LOOK_PERIOD, FOLD_STOP_TIMEOUT, JOURNAL_CACHE_BYTES, STOP_TIMEOUT};
use crate::net::acme::Standing;
use crate::net::acme::challenge::Http01;
use crate::net::serve::{Limits as ServerLimits, Server};
use crate::net::tasks::start;
use crate::net::tls::TlsError;
use crate::pipeline::apply::{Fold, FoldHandle};
use crate::pipeline::certificate;
use crate::pipeline::fetch::Fetcher;
use crate::pipeline::ingest::Ingest;
use crate::pipeline::retain;
use crate::store::journal::{Journal, Refused};
use crate::store::state::{SharedState, State};
use crate::store::{Reserve, StoreError, open_state, release};
use crate::time;
use crate::types::ItemMaps;

/// How often histograms are folded up (without it their samples pile up between scrapes) and abandoned backups end.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

/// How often readiness follows the fold.
const WATCH_PERIOD: Duration = Duration::from_millis(500);

/// Why the gateway does not start.
#[derive(Debug)]
pub enum StartError {
    /// The data directory cannot be made or read.
    DataDirectory(String),
    /// The store does not open.
    Store(StoreError),
    /// The certificate cannot be used.
    Tls(TlsError),
    /// A listener cannot be bound.
    Bind {
        /// `listen`, `admin` or `tls.acme`.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A source's API settings cannot be used.
    Api(String),
    /// A source's authority or list of revoked certificates cannot be used.
    Clients(String),
    /// The journal does not take its first record.
    Journal(Refused),
    /// No thread could be started.
    Thread(io::Error),
}

impl StartError {
    /// It is the configuration's fault (exit code 78), or needs a newer program; trying again changes nothing.
    pub fn is_configuration(&self) -> bool {
        let store = |error: &StoreError| matches!(error, StoreError::Newer { .. } | StoreError::Older { .. });
        match self {
            Self::Tls(_) | Self::Api(_) | Self::Clients(_) => true,
            Self::Store(error) => store(error),
            _ => false,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "the certificate cannot be used: {error}"),
            Self::Bind { what, address, error } => {
                let key = if *what == "tls.acme" { "http_address" } else { "address" };
                write!(f, "cannot listen on {address} ([{what}].{key}): {error}")
            }
            Self::DataDirectory(why) | Self::Api(why) | Self::Clients(why) => f.write_str(why),
            Self::Journal(_) => f.write_str("the journal cannot be written: is the disk full?"),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

/// Reads the configuration again, for a reload.
pub type Reread = Box<dyn Fn() -> Result<Loaded, Report> + Send + Sync>;

/// A running gateway.
pub struct Gateway {
    public: SocketAddr,
    admin: SocketAddr,
    admin_https: bool,
    core: Arc<Core>,
    fold: FoldHandle,
    stop: watch::Sender<bool>,
    servers: JoinSet<()>,
    workers: JoinSet<()>,
    journal_thread: JoinHandle<()>,
    fold_thread: JoinHandle<()>,
}

impl Gateway {
    /// Start with a configuration that is never read again.
    pub async fn start(config: Checked) -> Result<Self, StartError> {
        let fixed = config.clone();
        Self::start_with(config, Box::new(move || Ok((fixed.clone(), Vec::new()))), Surroundings::default()).await
    }

    /// Start; `reread` is asked at every reload. May be dropped at any time, as a process may end: nothing is lost by it.
    pub async fn start_with(mut config: Checked, reread: Reread, around: Surroundings) -> Result<Self, StartError> {
        let Surroundings { manager, passed } = around;
        let items = ItemMaps::default();
        share_items(&mut config, &items);
        let prometheus = crate::metrics::install();
        let (what, data, store) = (config.data_dir.display().to_string(), config.data_dir.clone(), config.store.clone());
        let opened = manager.while_opening(&what, move || open_store(&data, &store)).await?;
        let (reserve, state, journal) = opened;
        let found = journal.head();
        // what the fold has not reached yet may hold another policy
        let folded = state.meta.cursor == journal.head();
        let policy_in_force = if folded { state.meta.policy.clone() } else { String::new() };
        let state: SharedState = Arc::new(RwLock::new(state));

        let fold = Fold::new(&state, items.clone());
        let handle = fold.handle();
        let offer = fold.handle();
        let (appender, journal_thread) =
            journal.start(config.limits.queue_records, move |batch| offer.offer(batch)).map_err(StartError::Thread)?;
        let fold_thread =
            fold.start(Arc::clone(&state), journal.clone(), config.store.checkpoint).map_err(StartError::Thread)?;

        let policy = config.policy.to_canonical();
        if policy != policy_in_force {
            let appended = append_policy(&appender, &config, &policy_in_force).await;
            if let Err(refused) = appended
                && (reserve.has_room() || !comes_to(&policy, &handle, &journal, &state).await)
            {
                return Err(StartError::Journal(refused));
            }
        }
        let identity = Arc::new(identity(&config)?);
        let sources = api_sources(&config)?;
        let routes = routes(&config)?;
        identity.ask_clients(asked_authorities(&routes))?;
        let admin_identity = admin_identity(&config, &identity)?;
        let ordered = acme(&config)?;
        let answers_http_01 = http_01(&config);
        let challenged = match answers_http_01 {
            Some(address) => {
                let bound = Server::bind("acme", address, None, http_01_limits()).await;
                Some(bound.map_err(|error| StartError::Bind { what: "tls.acme", address, error })?)
            }
            None => None,
        };
        let (tls, bounds) = (Some(Arc::clone(&identity)), server_limits(&config));
        let public = match passed.public {
            Some(socket) => Server::from_listener("public", socket, tls, bounds),
            None => Server::bind("public", config.listen, tls, bounds).await,
        };
        let public = public.map_err(|error| StartError::Bind { what: "listen", address: config.listen, error })?;
        let public = match proxies(&config) {
            Some(proxies) => public.asking().behind(proxies),
            None => public.asking(),
        };
        let (tls, bounds) = (admin_identity.clone(), ServerLimits::default());
        let admin = match passed.admin {
            Some(socket) => Server::from_listener("admin", socket, tls, bounds),
            None => Server::bind("admin", config.admin, tls, bounds).await,
        };
        let admin = admin.map_err(|error| StartError::Bind { what: "admin", address: config.admin, error })?;

        let access = Access::new(&config.data_dir, config.admin_access.tokens_required);
        let admin_https = admin_identity.is_some();
        let admin_own = admin_identity.filter(|own| !Arc::ptr_eq(own, &identity));
        let health = Arc::new(Health::default());
        health.certificate_loaded(true);
        health.fold_alive(true);
        let (keep, keep_changes) = watch::channel(keep(&config));
        let (fetch, fetch_changes) = watch::channel(Arc::new(Mutex::new(sources)));
        let (files, files_changes) = watch::channel(certificate_files(&config));
        let (acme, acme_changes) = watch::channel(ordered);
        let standing = Arc::new(Standing::default());
        let core = Arc::new(Core {
            ingest: Arc::new(Ingest::new(routes, appender.clone())),
            infos: Arc::new(RwLock::new(infos(&config))),
            running: Mutex::new((config, policy)),
            items,
            reloading: tokio::sync::Mutex::new(()),
            identity,
            admin_own,
            appender: appender.clone(),
            state: Arc::clone(&state),
            journal: journal.clone(),
            health: Arc::clone(&health),
            keep,
            fetch,
            files,
            acme,
            answers_http_01,
            reread,
            manager: Arc::clone(&manager),
            refused: AtomicBool::new(false),
            reloads: Mutex::new(Some(JoinSet::new())),
        });
        let api = Arc::new(Api::new(Context {
            state: Arc::clone(&state),
            journal: journal.clone(),
            appender: appender.clone(),
            prometheus: prometheus.clone(),
            health,
            sources: Arc::clone(&core.infos),
            actions: Arc::new(Reloader(Arc::clone(&core))),
            names: Vec::new(),
            access,
            identity: Arc::clone(&core.identity),
            acme: Arc::clone(&standing),
        }));

        let (stop, stopping) = watch::channel(false);
        let (public_address, admin_address) = (public.local_addr(), admin.local_addr());
        let mut servers = JoinSet::new();
        start(&mut servers, public.run(Arc::clone(&core.ingest), stopping.clone()));
        start(&mut servers, admin.run(Arc::clone(&api), stopping.clone()));
        if let Some(challenged) = challenged {
            start(&mut servers, challenged.run(Arc::new(Http01(core.identity.challenges())), stopping.clone()));
        }
        let mut workers = JoinSet::new();
        start(&mut workers, certificate::watch::run(Arc::clone(&core.identity), files_changes));
        start(&mut workers, certificate::renew::run(Arc::clone(&core.identity), acme_changes, standing));
        let (durable, snapshots) = (handle.clone(), handle.clone());
        let folded = move || durable.durable_cursor();
        let snapshot = move || {
            let fold = snapshots.clone();
            async move { fold.snapshot().await }
        };
        let (tight, tight_changes) = watch::channel(false);
        start(&mut workers, retain::run(appender.clone(), keep_changes, folded, snapshot, tight_changes, stopping.clone()));
        start(&mut workers, watch_disk(reserve, tight));
        start(&mut workers, fetch_workers(fetch_changes, Arc::clone(&core), handle.clone(), stopping.clone()));
        start(&mut workers, async move {
            loop {
                tokio::time::sleep(UPKEEP_PERIOD).await;
                prometheus.run_upkeep();
                api.upkeep();
            }
        });
        start(&mut workers, watch_fold(handle.clone(), Arc::clone(&core)));
        start(&mut workers, watchdog::run(Arc::clone(&manager), journal, appender, handle.clone()));
        let mut teller = Teller::new(&core, &handle, found);
        let status = teller.line();
        start(&mut workers, teller.run(Arc::clone(&manager)));
        crate::metrics::reload(true, time::now());
        crate::metrics::build_info(option_env!("STOCKGATE_REVISION").unwrap_or("unknown"), std::env::consts::ARCH);
        tracing::info!(listen = %public_address, admin = %admin_address, "ready");
        manager.ready(&status);
        Ok(Self {
            public: public_address,
            admin: admin_address,
            admin_https,
            core,
            fold: handle,
            stop,
            servers,
            workers,
            journal_thread,
            fold_thread,
        })
    }

    /// Where deliveries go.
    pub fn public_addr(&self) -> SocketAddr {
        self.public
    }

    /// Where the admin API is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// The admin API speaks HTTPS.
    pub fn admin_https(&self) -> bool {
        self.admin_https
    }

    /// SHA-256 of the server certificate, as `openssl x509 -fingerprint -sha256` prints it.
    pub fn fingerprint(&self) -> String {
        self.core.identity.fingerprint()
    }

    /// The certificate was made by the gateway itself.
    pub fn self_made_certificate(&self) -> bool {
        self.core.identity.self_made()
    }

    /// The fold.
    pub fn state(&self) -> &SharedState {
        &self.core.state
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.core.journal
    }

    /// Read the configuration again and take it into use. It goes on by itself; what is returned waits for its outcome.
    pub fn reload(&self) -> impl Future<Output = Reloaded> + Send + use<> {
        reload::reload(&self.core)
    }

    /// Returns when the gateway can no longer do its work and must end.
    pub async fn failed(&self) {
        self.fold.ended().await;
        self.core.health.fold_alive(false);
    }

    /// Stop: finish what was taken, make it durable, close. What is not done in time is left as a crash would leave it: nothing
    /// that was acknowledged is lost, and the service manager need not kill.
    pub async fn stop(self) {
        self.core.health.drain();
        self.core.end_reloads().await;
        self.core.manager.stopping("stopping: requests under way are answered, what was taken is made durable");
        if tokio::time::timeout(STOP_TIMEOUT, self.finish()).await.is_err() {
            tracing::error!("not all was finished in time: the next start reads the rest from the journal");
        }
    }

    async fn finish(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.servers.join_next().await {
            log_panic(ended);
        }
        self.workers.shutdown().await;
        self.core.appender.close().await;
        let (fold, journal) = (self.fold.clone(), self.core.journal.clone());
        let joined = tokio::task::spawn_blocking(move || {
            let written = self.journal_thread.join();
            fold.stop(time::instant() + FOLD_STOP_TIMEOUT);
            let folded = self.fold_thread.join();
            // last, because the fold reads what it had no room for
            journal.close();
            written.and(folded)
        });
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("a thread of the store panicked");
        }
        tracing::info!("stopped");
    }
}

/// Open what is in a data directory, or begin it. All of it may take long: it reads, repairs and waits for the disk.
fn open_store(data: &Path, config: &StoreConfig) -> Result<(Arc<Reserve>, State, Journal), StartError> {
    make_data_directory(data)?;
    release::check(data)?;
    // first, so that recovery on a full disk has room
    let reserve = Arc::new(Reserve::open(data, config.reserve_bytes));
    let state = open_state(data, config.cache_bytes)?;
    let journal = Journal::open(data, JOURNAL_CACHE_BYTES, state.meta.cursor)?;
    journal.keep_room(Arc::clone(&reserve));
    release::claim(data);
    Ok((reserve, state, journal))
}

/// The runtime of a gateway. The journal and the fold have threads of their own, so one core is left to them: a worker too many
/// only takes turns with them, and workers pass each other tasks for which there is no idle core.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = cores.saturating_sub(1).max(1);
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).max_blocking_threads(16).enable_all().build()
}

/// Does the fold come to this policy by itself, at the end of what is in the journal? A start on a full disk needs to know:
/// it cannot append the policy, and it must go on if it can, because retention is what gets it out of there.
async fn comes_to(policy: &str, fold: &FoldHandle, journal: &Journal, state: &SharedState) -> bool {
    let (head, mut folded) = (journal.head(), fold.folded());
    while *folded.borrow_and_update() < head {
        tokio::select! {
            changed = folded.changed() => if changed.is_err() { return false },
            () = tokio::time::sleep(WATCH_PERIOD) => if fold.stuck() { return false },
        }
    }
    state.read().unwrap_or_else(PoisonError::into_inner).meta.policy == policy
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task panicked");
    }
}

/// Not ready while levels stand still.
async fn watch_fold(fold: FoldHandle, core: Arc<Core>) {
    while fold.alive() {
        core.health.fold_alive(!fold.stuck());
        tokio::time::sleep(WATCH_PERIOD).await;
    }
    core.health.fold_alive(false);
}

/// Looks at the disk, and tells retention when it has become full.
async fn watch_disk(reserve: Arc<Reserve>, tight: watch::Sender<bool>) {
    while !tight.is_closed() {
        let looking = Arc::clone(&reserve);
        // to allocate a file can take a while
        log_panic(tokio::task::spawn_blocking(move || looking.look()).await);
        let is = !reserve.has_room();
        tight.send_if_modified(|was| std::mem::replace(was, is) != is);
        tokio::time::sleep(DISK_LOOK_PERIOD).await;
    }
}

/// Runs a worker for each source that can be asked; starts them anew when the configuration changes.
async fn fetch_workers(
    mut sources: watch::Receiver<FetchSources>,
    core: Arc<Core>,
    fold: FoldHandle,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let now = std::mem::take(&mut *sources.borrow_and_update().lock().unwrap_or_else(PoisonError::into_inner));
        let mut workers = JoinSet::new();
        for source in now {
            let fetcher = Fetcher::new(source, Arc::clone(&core.state), core.journal.clone(), core.appender.clone());
            start(&mut workers, fetcher.run(fold.folded(), stop.clone()));
        }
        loop {
            tokio::select! {
                changed = sources.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // an answer that was on its way is asked for again
                    workers.shutdown().await;
                    break;
                }
                Some(ended) = workers.join_next() => log_panic(ended),
                () = stopped(&mut stop) => {
                    workers.shutdown().await;
                    return;
                }
            }
        }
    }
}

/// Returns when a stop was asked for, or nobody is left to ask for one.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

#[cfg(test)]
mod tests;
