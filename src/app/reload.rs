//! A new configuration for a running gateway: all of it, or none of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::Reread;
use super::build::{acme, api_sources, asked_authorities, certificate_files, http_01, infos, keep, routes, share_items};
use super::manager::Manager;
use crate::api::{Actions, Health, Reloaded, SourceInfo};
use crate::config::{AdminTls, Checked, TlsChoice};
use crate::limits::ITEM_PARTS_IN_FLIGHT;
use crate::net::tasks::start;
use crate::net::tls::Identity;
use crate::pipeline::certificate::renew::Setting;
use crate::pipeline::certificate::watch::Files;
use crate::pipeline::fetch::FetchSource;
use crate::pipeline::ingest::Ingest;
use crate::pipeline::retain::Keep;
use crate::stock::policy::Policy;
use crate::store::codec::encode_record;
use crate::store::journal::{Appender, Journal, Refused};
use crate::store::state::SharedState;
use crate::time;
use crate::types::{ItemMap, ItemMaps, ItemsPart, Record, RecordBody};

/// The sources that can be asked, handed to their supervisor.
pub(super) type FetchSources = Arc<Mutex<Vec<FetchSource>>>;

/// What a reload changes.
pub(super) struct Core {
    pub(super) ingest: Arc<Ingest>,
    pub(super) infos: Arc<RwLock<Vec<SourceInfo>>>,
    /// The configuration in force and its policy as it stands in the journal.
    pub(super) running: Mutex<(Checked, String)>,
    /// The item mappings in use.
    pub(super) items: ItemMaps,
    pub(super) reloading: tokio::sync::Mutex<()>,
    pub(super) identity: Arc<Identity>,
    /// The admin listener's certificate, when it has one of its own.
    pub(super) admin_own: Option<Arc<Identity>>,
    pub(super) appender: Appender,
    pub(super) state: SharedState,
    pub(super) journal: Journal,
    pub(super) health: Arc<Health>,
    pub(super) keep: watch::Sender<Keep>,
    pub(super) fetch: watch::Sender<FetchSources>,
    /// The certificate's files that are watched.
    pub(super) files: watch::Sender<Option<Files>>,
    /// What is asked of an ACME server.
    pub(super) acme: watch::Sender<Option<Arc<Setting>>>,
    /// Where HTTP-01 is answered since the start.
    pub(super) answers_http_01: Option<SocketAddr>,
    pub(super) reread: Reread,
    pub(super) manager: Arc<Manager>,
    /// The last reload was refused.
    pub(super) refused: AtomicBool,
    /// Reloads under way: they go on when whoever asked has gone away, because half of one is worse than either.
    /// `None` once the gateway stops.
    pub(super) reloads: Mutex<Option<JoinSet<()>>>,
}

/// The admin API's way to a reload.
pub(super) struct Reloader(pub(super) Arc<Core>);

impl Actions for Reloader {
    fn reload(&self) -> Pin<Box<dyn Future<Output = Reloaded> + Send + '_>> {
        Box::pin(reload(&self.0))
    }
}

/// Begin a reload, which goes on by itself; its outcome.
pub(super) fn reload(core: &Arc<Core>) -> impl Future<Output = Reloaded> + Send + use<> {
    let (done, outcome) = oneshot::channel();
    let working = Arc::clone(core);
    if let Some(reloads) = &mut *core.reloads.lock().unwrap_or_else(PoisonError::into_inner) {
        while let Some(ended) = reloads.try_join_next() {
            super::log_panic(ended);
        }
        start(reloads, async move {
            if done.send(working.reload().await).is_err() {
                tracing::debug!("nobody waits for the outcome of the reload");
            }
        });
    }
    async move { outcome.await.unwrap_or_else(|_| Err(vec!["the gateway is stopping".to_owned()])) }
}

impl Core {
    async fn reload(&self) -> Reloaded {
        let _one_at_a_time = self.reloading.lock().await;
        let mut reloading = self.manager.reloading();
        let result = self.try_reload().await;
        crate::metrics::reload(result.is_ok(), time::now());
        self.refused.store(result.is_err(), Ordering::Release);
        match &result {
            Ok(said) => {
                tracing::info!(said, "configuration reloaded");
                reloading.status.clone_from(said);
            }
            Err(problems) => {
                tracing::error!(problems = problems.join("; "), "reload refused: the old configuration stays");
                "the reload was refused: the old configuration stays in force".clone_into(&mut reloading.status);
            }
        }
        result
    }

    /// No reload ends after this.
    pub(super) async fn end_reloads(&self) {
        let reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut reloads) = reloads {
            reloads.shutdown().await;
        }
    }

    /// Check everything first; nothing is changed until all of it is known to be good.
    async fn try_reload(&self) -> Reloaded {
        let (mut config, warnings) =
            (self.reread)().map_err(|report| report.problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        share_items(&mut config, &self.items);
        let sources = api_sources(&config).map_err(|error| vec![error.to_string()])?;
        let routes = routes(&config).map_err(|error| vec![error.to_string()])?;
        let ordered = acme(&config).map_err(|error| vec![error.to_string()])?;
        let policy = config.policy.to_canonical();
        let (old, old_policy) = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let TlsChoice::Files { certificate_pem, key_pem, .. } = &config.tls {
            self.identity.swap(certificate_pem, key_pem.expose()).map_err(|error| vec![format!("[tls]: {error}")])?;
        }
        if let (Some(own), AdminTls::Own(TlsChoice::Files { certificate_pem, key_pem, .. })) =
            (&self.admin_own, &config.admin_access.tls)
        {
            own.swap(certificate_pem, key_pem.expose()).map_err(|error| vec![format!("[admin]: {error}")])?;
        }
        if policy != old_policy {
            let appended = append_policy(&self.appender, &config, &old_policy).await;
            appended.map_err(|_| vec!["the journal cannot take the new configuration now; try again".to_owned()])?;
        }
        self.identity.ask_clients(asked_authorities(&routes)).map_err(|error| vec![format!("[tls]: {error}")])?;
        self.ingest.replace(routes);
        *self.infos.write().unwrap_or_else(PoisonError::into_inner) = infos(&config);
        self.keep.send_replace(keep(&config));
        self.fetch.send_replace(Arc::new(Mutex::new(sources)));
        self.files.send_replace(certificate_files(&config));
        // a challenge that no listener answers would only fail
        let answered = http_01(&config).is_none_or(|address| self.answers_http_01 == Some(address));
        if answered {
            self.acme.send_replace(ordered);
        }
        let mut later = needs_restart(&old, &config);
        if !answered {
            later.push("[tls.acme]");
        }
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
    compare("[listen]", (old.listen, &old.proxies) != (new.listen, &new.proxies));
    let form = |config: &Checked| (std::mem::discriminant(&config.admin_access.tls), config.admin_access.tokens_required);
    compare("[admin]", old.admin != new.admin || form(old) != form(new));
    compare("[data]", old.data_dir != new.data_dir);
    compare("[limits]", old.limits != new.limits);
    compare("[store]", old.store != new.store);
    compare("[log]", old.log != new.log);
    let made = |tls: &TlsChoice| matches!(tls, TlsChoice::SelfMade { .. });
    compare("[tls]", !made(&old.tls) && made(&new.tls));
    later
}

/// Write a configuration's policy into the journal, and before it the item mappings that the policy in force (empty: it is
/// not known) does not name. Fails half-way when the journal does: the policy comes last, and nothing follows from parts alone.
pub(super) async fn append_policy(appender: &Appender, config: &Checked, in_force: &str) -> Result<(), Refused> {
    let before = Policy::from_json(in_force).unwrap_or_default();
    let known = before.item_maps();
    let mut written = BTreeSet::new();
    for source in config.sources.iter().filter(|source| !source.items.is_empty()) {
        let map = source.items.name().sha256;
        if !known.contains_key(&map) && written.insert(map) {
            append_items(appender, &source.items).await?;
        }
    }
    let policy = config.policy.to_canonical();
    let record = encode_record(&Record { at: time::now(), body: RecordBody::Policy(&policy) });
    appender.append(record)?.durable().await.map(|_| ())
}

async fn append_items(appender: &Appender, items: &ItemMap) -> Result<(), Refused> {
    let mut parts = (0..).zip(items.parts()).peekable();
    while parts.peek().is_some() {
        let mut waiting = Vec::with_capacity(ITEM_PARTS_IN_FLIGHT);
        for (part, lines) in parts.by_ref().take(ITEM_PARTS_IN_FLIGHT) {
            let items = ItemsPart { map: items.name().sha256, part, lines: &lines };
            waiting.push(appender.append(encode_record(&Record { at: time::now(), body: RecordBody::Items(items) }))?);
        }
        for part in waiting {
            part.durable().await?;
        }
    }
    Ok(())
}
