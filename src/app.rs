//! The whole program: build (nothing is bound yet), run, drain in reverse.
//!
//! Order of a start: data directory, state, journal, fold, policy into the journal, certificate, listeners, workers. Order of a
//! stop: not ready, listeners (requests under way finish), workers, journal (what is queued is committed), fold (to the
//! journal's end, then a last checkpoint).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::{Actions, Api, Context, Health, Reloaded, SourceInfo};
use crate::config::{self, Checked, Loaded, Report, SourceConfig, TlsChoice};
use crate::limits::JOURNAL_CACHE_BYTES;
use crate::net::client::{Alpn, BaseUrl, Client, Limits as ClientLimits};
use crate::net::serve::{Limits as ServerLimits, Server};
use crate::net::tls::{Identity, TlsError, certificates, load_or_make};
use crate::net::trust::Trust;
use crate::pipeline::apply::{Fold, FoldHandle};
use crate::pipeline::fetch::{FetchSource, Fetcher};
use crate::pipeline::ingest::{Ingest, Route};
use crate::pipeline::retain::{self, Keep};
use crate::sources::Credentials;
use crate::store::codec::encode_record;
use crate::store::journal::{Appender, Journal, Refused};
use crate::store::state::{SharedState, State};
use crate::store::{StoreError, copy_file, snapshot_path, state_path};
use crate::time;
use crate::types::{Record, RecordBody, Secret};

/// How often histograms are folded up; without it their samples pile up between scrapes.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

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
        /// `listen` or `admin`.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A source's API settings cannot be used.
    Api(String),
    /// The journal does not take its first record.
    Journal(Refused),
    /// No thread could be started.
    Thread(io::Error),
}

impl StartError {
    /// It is the configuration's fault (exit code 78), or needs a newer program; trying again changes nothing.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::Api(_) | Self::Store(StoreError::Newer { .. }))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "the certificate cannot be used: {error}"),
            Self::Bind { what, address, error } => {
                write!(f, "cannot listen on {address} ([{what}].address): {error}")
            }
            Self::DataDirectory(why) | Self::Api(why) => f.write_str(why),
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
        Self::start_with(config, Box::new(move || Ok((fixed.clone(), Vec::new())))).await
    }

    /// Start; `reread` is asked at every reload.
    pub async fn start_with(config: Checked, reread: Reread) -> Result<Self, StartError> {
        let prometheus = crate::metrics::install();
        make_data_directory(&config.data_dir)?;
        let state = open_state(&config.data_dir, config.store.cache_bytes)?;
        let policy_in_force = state.meta.policy.clone();
        let journal = Journal::open(&config.data_dir, JOURNAL_CACHE_BYTES, state.meta.cursor)?;
        let state: SharedState = Arc::new(RwLock::new(state));

        let fold = Fold::new(&state);
        let handle = fold.handle();
        let offer = fold.handle();
        let (appender, journal_thread) =
            journal.start(config.limits.queue_records, move |batch| offer.offer(batch)).map_err(StartError::Thread)?;
        let fold_thread =
            fold.start(Arc::clone(&state), journal.clone(), config.store.checkpoint).map_err(StartError::Thread)?;

        let policy = config.policy.to_canonical();
        if policy != policy_in_force {
            append_policy(&appender, &policy).await.map_err(StartError::Journal)?;
        }
        let identity = Arc::new(identity(&config)?);
        let sources = api_sources(&config)?;
        let public = Server::bind("public", config.listen, Some(Arc::clone(&identity)), server_limits(&config));
        let public = public.await.map_err(|error| StartError::Bind { what: "listen", address: config.listen, error })?;
        let admin = Server::bind("admin", config.admin, None, ServerLimits::default()).await;
        let admin = admin.map_err(|error| StartError::Bind { what: "admin", address: config.admin, error })?;

        let health = Arc::new(Health::default());
        health.certificate_loaded(true);
        health.fold_alive(true);
        let (keep, keep_changes) = watch::channel(keep(&config));
        let (fetch, fetch_changes) = watch::channel(Arc::new(Mutex::new(sources)));
        let core = Arc::new(Core {
            ingest: Arc::new(Ingest::new(routes(&config), appender.clone())),
            infos: Arc::new(RwLock::new(infos(&config))),
            running: Mutex::new((config, policy)),
            reloading: tokio::sync::Mutex::new(()),
            identity,
            appender: appender.clone(),
            state: Arc::clone(&state),
            journal: journal.clone(),
            health: Arc::clone(&health),
            keep,
            fetch,
            reread,
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
        }));

        let (stop, stopping) = watch::channel(false);
        let (public_address, admin_address) = (public.local_addr(), admin.local_addr());
        let mut servers = JoinSet::new();
        servers.spawn(public.run(Arc::clone(&core.ingest), stopping.clone()));
        servers.spawn(admin.run(api, stopping.clone()));
        let mut workers = JoinSet::new();
        let (durable, snapshots) = (handle.clone(), handle.clone());
        let folded = move || durable.durable_cursor();
        let snapshot = move || {
            let fold = snapshots.clone();
            async move { fold.snapshot().await }
        };
        workers.spawn(retain::run(appender.clone(), keep_changes, folded, snapshot, stopping.clone()));
        workers.spawn(fetch_workers(fetch_changes, Arc::clone(&core), handle.clone(), stopping.clone()));
        workers.spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_PERIOD).await;
                prometheus.run_upkeep();
            }
        });
        crate::metrics::reload(true, time::now());
        crate::metrics::build_info(option_env!("STOCKGATE_REVISION").unwrap_or("unknown"), std::env::consts::ARCH);
        tracing::info!(listen = %public_address, admin = %admin_address, "ready");
        Ok(Self {
            public: public_address,
            admin: admin_address,
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

    /// Read the configuration again and take it into use.
    pub async fn reload(&self) -> Reloaded {
        self.core.reload().await
    }

    /// Returns when the gateway can no longer do its work and must end.
    pub async fn failed(&self) {
        let mut folded = self.fold.folded();
        while folded.changed().await.is_ok() {}
        self.core.health.fold_alive(false);
    }

    /// Stop: finish what was taken, make it durable, close.
    pub async fn stop(mut self) {
        self.core.health.drain();
        self.stop.send_replace(true);
        while let Some(ended) = self.servers.join_next().await {
            log_panic(ended);
        }
        self.workers.shutdown().await;
        self.core.appender.close().await;
        let fold = self.fold.clone();
        let joined = tokio::task::spawn_blocking(move || {
            let journal = self.journal_thread.join();
            fold.stop();
            journal.and(self.fold_thread.join())
        });
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("a thread of the store panicked");
        }
        tracing::info!("stopped");
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task panicked");
    }
}

/// What a reload changes.
struct Core {
    ingest: Arc<Ingest>,
    infos: Arc<RwLock<Vec<SourceInfo>>>,
    /// The configuration in force and its policy as it stands in the journal.
    running: Mutex<(Checked, String)>,
    reloading: tokio::sync::Mutex<()>,
    identity: Arc<Identity>,
    appender: Appender,
    state: SharedState,
    journal: Journal,
    health: Arc<Health>,
    keep: watch::Sender<Keep>,
    fetch: watch::Sender<Arc<Mutex<Vec<FetchSource>>>>,
    reread: Reread,
}

struct Reloader(Arc<Core>);

impl Actions for Reloader {
    fn reload(&self) -> Pin<Box<dyn Future<Output = Reloaded> + Send + '_>> {
        Box::pin(self.0.reload())
    }
}

impl Core {
    async fn reload(&self) -> Reloaded {
        let _one_at_a_time = self.reloading.lock().await;
        let result = self.try_reload().await;
        crate::metrics::reload(result.is_ok(), time::now());
        match &result {
            Ok(said) => tracing::info!(said, "configuration reloaded"),
            Err(problems) => tracing::error!(problems = problems.join("; "), "reload refused: the old configuration stays"),
        }
        result
    }

    /// Check everything first; nothing is changed until all of it is known to be good.
    async fn try_reload(&self) -> Reloaded {
        let (config, warnings) =
            (self.reread)().map_err(|report| report.problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let sources = api_sources(&config).map_err(|error| vec![error.to_string()])?;
        let policy = config.policy.to_canonical();
        let (old, old_policy) = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let TlsChoice::Files { certificate_pem, key_pem, .. } = &config.tls {
            self.identity.swap(certificate_pem, key_pem.expose()).map_err(|error| vec![format!("[tls]: {error}")])?;
        }
        if policy != old_policy {
            let appended = append_policy(&self.appender, &policy).await;
            appended.map_err(|_| vec!["the journal cannot take the new configuration now; try again".to_owned()])?;
        }
        self.ingest.replace(routes(&config));
        *self.infos.write().unwrap_or_else(PoisonError::into_inner) = infos(&config);
        self.keep.send_replace(keep(&config));
        self.fetch.send_replace(Arc::new(Mutex::new(sources)));
        let later = needs_restart(&old, &config);
        let mut said = format!("{} sources in force", config.sources.len());
        if !later.is_empty() {
            said = format!("{said}; {} take effect at the next start", later.join(", "));
        }
        for warning in warnings {
            said = format!("{said}; warning: {warning}");
        }
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = (config, policy);
        Ok(said)
    }
}

/// Settings that a running gateway cannot change.
fn needs_restart(old: &Checked, new: &Checked) -> Vec<&'static str> {
    let mut later = Vec::new();
    let mut compare = |name, changed: bool| {
        if changed {
            later.push(name);
        }
    };
    compare("[listen]", old.listen != new.listen);
    compare("[admin]", old.admin != new.admin);
    compare("[data]", old.data_dir != new.data_dir);
    compare("[limits]", old.limits != new.limits);
    compare("[store]", old.store != new.store);
    compare("[log]", old.log != new.log);
    let own = |tls: &TlsChoice| matches!(tls, TlsChoice::Files { .. });
    compare("[tls]", own(&old.tls) && !own(&new.tls));
    later
}

async fn append_policy(appender: &Appender, policy: &str) -> Result<(), Refused> {
    let record = encode_record(&Record { at: time::now(), body: RecordBody::Policy(policy) });
    appender.append(record)?.durable().await.map(|_| ())
}

/// Make the data directory, for its owner only, unless it is there.
pub fn make_data_directory(path: &Path) -> Result<(), StartError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| StartError::DataDirectory(format!("the data directory {} cannot be made: {error}", path.display())))
}

/// Open the state. One that is beyond repair is set aside; one that is not there is begun from the last snapshot, when there is
/// one, else from nothing. The fold brings it up to the journal's end.
pub fn open_state(data: &Path, cache: usize) -> Result<State, StoreError> {
    let (path, snapshot) = (state_path(data), snapshot_path(data));
    let begun = !path.exists() && snapshot.exists();
    if begun {
        tracing::warn!("there is no state: it is begun from the last snapshot");
        copy_file(&snapshot, &path)?;
    }
    match State::open(data, cache) {
        Err(error @ (StoreError::Damaged { .. } | StoreError::Row(_))) => {
            let damaged = if begun { &snapshot } else { &path };
            let aside = damaged.with_extension(format!("damaged-{}", time::now().seconds()));
            tracing::error!(%error, aside = %aside.display(), "set aside: the state is rebuilt from the snapshot or the journal");
            let io = |e: io::Error| StoreError::Io(format!("{}: {e}", damaged.display()));
            std::fs::rename(damaged, &aside).map_err(io)?;
            if begun {
                std::fs::remove_file(&path).map_err(io)?;
            }
            open_state(data, cache)
        }
        other => other,
    }
}

fn identity(config: &Checked) -> Result<Identity, TlsError> {
    match &config.tls {
        TlsChoice::SelfMade { names } => load_or_make(&config.data_dir, names, time::now()),
        TlsChoice::Files { certificate_pem, key_pem, .. } => Identity::from_pem(certificate_pem, key_pem.expose()),
    }
}

fn server_limits(config: &Checked) -> ServerLimits {
    ServerLimits {
        connections: config.limits.connections,
        connections_per_address: config.limits.connections_per_address,
        body_bytes: config.limits.body_bytes,
        bodies_buffered: config.limits.bodies_buffered_bytes,
        handshake: config.limits.handshake_timeout,
        header: config.limits.header_timeout,
        body: config.limits.body_timeout,
        idle: config.limits.idle_timeout,
        ..ServerLimits::default()
    }
}

fn keep(config: &Checked) -> Keep {
    Keep { age: config.retention.age, bytes: config.retention.bytes }
}

fn routes(config: &Checked) -> Vec<Route> {
    let route = |s: &SourceConfig| {
        Route::new(s.id.clone(), Arc::clone(&s.adapter), s.secrets.clone(), s.token.clone(), s.allow.clone())
    };
    config.sources.iter().map(route).collect()
}

fn infos(config: &Checked) -> Vec<SourceInfo> {
    let info = |s: &SourceConfig| SourceInfo {
        name: s.id.to_string(),
        kind: s.kind.name.to_owned(),
        path: format!("/in/{}{}", s.id, if s.token.is_some() { "/***" } else { "" }),
        signed: s.adapter.signed(),
        warehouse: s.warehouse.as_ref().map(ToString::to_string),
        authority: config
            .warehouses
            .iter()
            .filter(|(_, w)| w.authority.contains(&s.id))
            .map(|(id, _)| id.to_string())
            .collect(),
    };
    config.sources.iter().map(info).collect()
}

/// The sources that can be asked, with their clients.
fn api_sources(config: &Checked) -> Result<Vec<FetchSource>, StartError> {
    let mut found = Vec::new();
    for source in &config.sources {
        let Some(api) = &source.api else { continue };
        let bad = |why: String| StartError::Api(format!("source.{}.api: {why}", source.id));
        let base = BaseUrl::parse(&api.base_url).map_err(|error| bad(error.to_string()))?;
        let trust = match &api.ca_pem {
            Some(pem) => Trust::Roots(certificates(pem).map_err(|error| bad(format!("ca_file: {error}")))?),
            // plain HTTP to this machine trusts nobody: no root certificates are needed
            None if !base.is_https() => Trust::Fingerprint([0; 32]),
            None => Trust::SystemRoots,
        };
        let client = Client::with(trust, Alpn::Http1, ClientLimits::default(), true).map_err(|e| bad(e.to_string()))?;
        let (credentials, files) = (api.credentials.clone(), api.credential_files.clone());
        found.push(FetchSource {
            name: source.id.to_string(),
            adapter: Arc::clone(&source.adapter),
            base,
            client,
            credentials: Box::new(move || current_credentials(&credentials, &files)),
            requests: api.requests,
            per: api.per,
            gather: api.gather,
        });
    }
    Ok(found)
}

/// Credentials as their files hold them now: access tokens of some platforms live two hours and are renewed in place.
fn current_credentials(as_read: &Credentials, files: &[(String, std::path::PathBuf)]) -> Credentials {
    let renewed = |name: &str| -> Option<Secret> {
        let (_, path) = files.iter().find(|(n, _)| n == name)?;
        config::read_secret(path).ok().filter(|secret| !secret.is_empty())
    };
    Credentials(
        as_read.0.iter().map(|(name, secret)| (name.clone(), renewed(name).unwrap_or_else(|| secret.clone()))).collect(),
    )
}

/// Runs a worker for each source that can be asked; starts them anew when the configuration changes.
async fn fetch_workers(
    mut sources: watch::Receiver<Arc<Mutex<Vec<FetchSource>>>>,
    core: Arc<Core>,
    fold: FoldHandle,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let now = std::mem::take(&mut *sources.borrow_and_update().lock().unwrap_or_else(PoisonError::into_inner));
        let mut workers = JoinSet::new();
        for source in now {
            let fetcher = Fetcher::new(source, Arc::clone(&core.state), core.journal.clone(), core.appender.clone());
            workers.spawn(fetcher.run(fold.folded(), stop.clone()));
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
mod tests {
    use super::*;
    use crate::pipeline::apply::refold;

    const CACHE: usize = 4 * 1024 * 1024;

    /// A data directory whose state has folded one policy record, and that state's digest.
    fn folded() -> (tempfile::TempDir, [u8; 32]) {
        let directory = tempfile::TempDir::new().expect("a directory");
        let data = directory.path();
        let journal = Journal::open(data, CACHE, 0).expect("opens");
        let (appender, thread) = journal.start(16, |_| {}).expect("starts");
        let policy = r#"{"v":1,"sources":{},"warehouses":{"main":{"authority":["a"],"low":"1"}}}"#;
        let record = encode_record(&Record { at: time::now(), body: RecordBody::Policy(policy) });
        appender.append(record).expect("room").durable_blocking().expect("durable");
        drop(appender);
        thread.join().expect("ends");
        drop(journal);
        let digest = again(data);
        (directory, digest)
    }

    /// Open whatever is there, fold the journal to its end, and tell what came out.
    fn again(data: &Path) -> [u8; 32] {
        let mut state = open_state(data, CACHE).expect("opens");
        let journal = Journal::open(data, CACHE, 0).expect("opens");
        refold(&journal, &mut state, u64::MAX).expect("folds");
        state.digest().expect("reads")
    }

    fn names(data: &Path) -> String {
        let mut names: Vec<String> = std::fs::read_dir(data)
            .expect("reads")
            .map(|e| e.expect("an entry").file_name().display().to_string())
            .collect();
        names.sort();
        names.join(" ")
    }

    #[test]
    fn a_state_that_was_deleted_is_rebuilt_from_the_journal() {
        let (directory, digest) = folded();
        std::fs::remove_file(state_path(directory.path())).expect("removes");
        assert_eq!(again(directory.path()), digest);
    }

    #[test]
    fn a_state_beyond_repair_is_set_aside_and_rebuilt() {
        let (directory, digest) = folded();
        std::fs::write(state_path(directory.path()), "rubbish".repeat(1000)).expect("writes");
        assert_eq!(again(directory.path()), digest);
        assert!(names(directory.path()).contains("state.damaged-"), "{}", names(directory.path()));
    }

    #[test]
    fn a_deleted_state_begins_at_the_snapshot_when_the_journal_has_aged() {
        let (directory, digest) = folded();
        let data = directory.path();
        State::open(data, CACHE).expect("opens").snapshot().expect("copies");
        std::fs::remove_file(state_path(data)).expect("removes");
        std::fs::remove_dir_all(crate::store::journal_path(data)).expect("removes");
        assert_eq!(again(data), digest, "the snapshot alone holds what the journal has lost");
    }

    #[test]
    fn a_damaged_snapshot_is_no_reason_not_to_start() {
        let (directory, digest) = folded();
        let data = directory.path();
        std::fs::remove_file(state_path(data)).expect("removes");
        std::fs::write(snapshot_path(data), "rubbish".repeat(1000)).expect("writes");
        assert_eq!(again(data), digest);
        assert!(names(data).contains("snapshot.damaged-"), "{}", names(data));
    }
}
