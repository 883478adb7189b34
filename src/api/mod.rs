//! The admin API: health, metrics, and everything that a person or a script may ask or decide.
//!
//! One [`Api`] answers the admin listener. A request passes the [`guard`], finds its row in [`ROUTES`], and runs that row's
//! operation. Three rules hold for all of them:
//!
//! - **Reading never stops the gateway.** The state is read on the blocking pool, under its read lock, in pages
//!   (`limits::PAGE_ROWS_MAX`); a walk over everything (`verify`) takes the lock anew for every page.
//! - **Deciding goes through the journal.** A retried or dropped dead letter and a mapping are records like any delivery; the
//!   answer (202 with the record's number) comes when the record is on disk, and the fold acts on it next.
//! - **Numbers are exact.** Quantities are JSON numbers with all their digits; `null` with `state` says that there is none. Times
//!   are RFC 3339 in UTC. Errors are problem documents (RFC 9457) whose `detail` says what to do.
//!
//! On loopback it speaks plain HTTP and asks for no token unless it is told to; where other machines reach it, it has TLS and tokens
//! ([`access`]). What keeps web pages out is in [`guard`].

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use http::{HeaderMap, Method, StatusCode};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::oneshot;

mod access;
mod admin;
mod backup;
mod dead;
mod drift;
mod explain;
mod guard;
mod health;
mod home;
mod metrics_page;
mod params;
mod problem;
mod process;
mod sources;
mod status;
mod stock;
mod verify;

#[cfg(test)]
mod tests;

pub use access::Access;
pub use health::Health;

use access::Need;

use crate::metrics::FlowCounters;
use crate::net::acme::Standing;
use crate::net::body::Body;
use crate::net::serve::{Handler, Incoming, Outgoing};
use crate::net::tls::Identity;
use crate::store::journal::{Appender, Journal};
use crate::store::state::State;
use crate::time::{self, Timestamp};
use params::{Params, decode_segment};
use problem::{Answer, Problem};

/// What the API speaks for.
pub struct Context {
    /// The fold.
    pub state: Arc<RwLock<State>>,
    /// The journal.
    pub journal: Journal,
    /// The way into it, for decisions.
    pub appender: Appender,
    /// The metrics recorder.
    pub prometheus: PrometheusHandle,
    /// What the rest of the program reports about itself.
    pub health: Arc<Health>,
    /// The configured sources; replaced at a reload.
    pub sources: Arc<RwLock<Vec<SourceInfo>>>,
    /// What only the whole program can do.
    pub actions: Arc<dyn Actions>,
    /// Host names of the admin listener, besides IP addresses and `localhost` (see [`guard`]).
    pub names: Vec<String>,
    /// The tokens.
    pub access: Access,
    /// The public listener's certificate.
    pub identity: Arc<Identity>,
    /// How it stands with ACME.
    pub acme: Arc<Standing>,
}

/// A configured source, as it is shown. No secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceInfo {
    /// Its name.
    pub name: String,
    /// Its platform.
    pub kind: String,
    /// Its path on the public listener, a token masked: `/in/shop/***`.
    pub path: String,
    /// The platform signs what it sends.
    pub signed: bool,
    /// The warehouse of what names no location.
    pub warehouse: Option<String>,
    /// The warehouses whose authority list names it.
    pub authority: Vec<String>,
}

/// What a reload says: a sentence, or every problem of the new configuration.
pub type Reloaded = Result<String, Vec<String>>;

/// What only the whole program can do.
pub trait Actions: Send + Sync {
    /// Read the configuration again and take it into use, or say why not; then the running one stays.
    fn reload(&self) -> Pin<Box<dyn Future<Output = Reloaded> + Send + '_>>;
}

/// An operation of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Home,
    Live,
    Ready,
    Metrics,
    OpenApi,
    Status,
    Stock,
    Level,
    Explain,
    Warehouses,
    Drift,
    Sources,
    DeadLetters,
    DeadLetter,
    RetryDead,
    DropDead,
    MapItem,
    MapLocation,
    Reload,
    Verify,
    BeginBackup,
    BackupTables,
    BackupLog,
}

/// One row of the table of routes.
struct Route {
    method: Method,
    /// Path; a segment in braces takes anything.
    path: &'static str,
    /// The query parameters that it takes.
    params: &'static [&'static str],
    need: Need,
    operation: Operation,
}

const fn route(
    method: Method,
    path: &'static str,
    params: &'static [&'static str],
    need: Need,
    operation: Operation,
) -> Route {
    Route { method, path, params, need, operation }
}

/// Every resource. `openapi.json` describes each of them; a test holds the two together.
const ROUTES: &[Route] = &[
    route(Method::GET, "/", &[], Need::Read, Operation::Home),
    route(Method::GET, "/livez", &[], Need::Nothing, Operation::Live),
    route(Method::GET, "/readyz", &["verbose"], Need::Nothing, Operation::Ready),
    route(Method::GET, "/healthz", &["verbose"], Need::Nothing, Operation::Ready),
    route(Method::GET, "/metrics", &[], Need::Read, Operation::Metrics),
    route(Method::GET, "/api/v1/openapi.json", &[], Need::Read, Operation::OpenApi),
    route(Method::GET, "/api/v1/status", &[], Need::Read, Operation::Status),
    route(Method::GET, "/api/v1/stock", &["warehouse", "sku", "prefix", "limit", "after"], Need::Read, Operation::Stock),
    route(Method::GET, "/api/v1/stock/{warehouse}/{sku}", &[], Need::Read, Operation::Level),
    route(Method::GET, "/api/v1/explain/{warehouse}/{sku}", &["limit"], Need::Read, Operation::Explain),
    route(Method::GET, "/api/v1/warehouses", &[], Need::Read, Operation::Warehouses),
    route(Method::GET, "/api/v1/drift", &["limit", "after"], Need::Read, Operation::Drift),
    route(Method::GET, "/api/v1/sources", &[], Need::Read, Operation::Sources),
    route(Method::GET, "/api/v1/dead-letters", &["cause", "limit", "after"], Need::Read, Operation::DeadLetters),
    route(Method::GET, "/api/v1/dead-letters/{id}", &[], Need::Read, Operation::DeadLetter),
    route(Method::DELETE, "/api/v1/dead-letters/{id}", &[], Need::Operator, Operation::DropDead),
    route(Method::POST, "/api/v1/dead-letters/{id}/retry", &[], Need::Operator, Operation::RetryDead),
    route(Method::POST, "/api/v1/map/item", &[], Need::Operator, Operation::MapItem),
    route(Method::POST, "/api/v1/map/location", &[], Need::Operator, Operation::MapLocation),
    route(Method::POST, "/api/v1/reload", &[], Need::Operator, Operation::Reload),
    route(Method::GET, "/api/v1/verify", &[], Need::Read, Operation::Verify),
    route(Method::POST, "/api/v1/backup", &[], Need::Deliveries, Operation::BeginBackup),
    route(Method::GET, "/api/v1/backup/tables", &["backup", "after"], Need::Deliveries, Operation::BackupTables),
    route(Method::GET, "/api/v1/backup/log/{log}", &["from"], Need::Deliveries, Operation::BackupLog),
];

/// A request that found its route.
struct Call {
    params: Params,
    /// What stood in the path's braces, decoded, in order.
    segments: Vec<String>,
    headers: HeaderMap,
    body: Body,
}

impl Call {
    fn segment(&self, index: usize) -> &str {
        self.segments.get(index).map_or("", String::as_str)
    }
}

/// What the operations share.
struct Shared {
    context: Context,
    started: Timestamp,
    began: Instant,
    /// A walk of `verify` is under way.
    verifying: AtomicBool,
    /// The backup that reads tables.
    backup: backup::Slot,
    /// The walk that looks for drift.
    drift: Mutex<drift::Walk>,
    /// What has flowed since the start.
    flows: Mutex<FlowCounters>,
}

impl Shared {
    /// Read the state, on the blocking pool: the fold may hold the lock for a step, and pages may come from the disk.
    async fn read<T, F>(self: &Arc<Self>, read: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&State, &Context) -> Result<T, Problem> + Send + 'static,
    {
        let shared = Arc::clone(self);
        self.blocking(move || {
            let state = shared.context.state.read().unwrap_or_else(PoisonError::into_inner);
            read(&state, &shared.context)
        })
        .await
    }

    /// Run something on the blocking pool, in a box: a type of task for each operation is 3 KB of tokio's code.
    async fn blocking<T, F>(&self, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, Problem> + Send + 'static,
    {
        let (done, mut result) = oneshot::channel();
        let work: Box<dyn FnOnce() + Send> = Box::new(move || drop(done.send(work())));
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%error, "an operation of the admin api ended early");
        }
        result.try_recv().unwrap_or_else(|_| {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the operation ended early; the log says more"))
        })
    }

    /// The configured sources as they are now.
    fn configured(&self) -> Vec<SourceInfo> {
        self.context.sources.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Take the right to walk over everything; `None` while somebody has it.
    fn begin_walk(self: &Arc<Self>) -> Option<Walk> {
        (!self.verifying.swap(true, Ordering::AcqRel)).then(|| Walk(Arc::clone(self)))
    }
}

/// The right to walk over everything; given back on drop.
struct Walk(Arc<Shared>);

impl Drop for Walk {
    fn drop(&mut self) {
        self.0.verifying.store(false, Ordering::Release);
    }
}

/// The admin listener's handler.
pub struct Api {
    shared: Arc<Shared>,
}

impl Api {
    /// An API over a running gateway. The process counts as started now.
    pub fn new(context: Context) -> Self {
        let (started, began) = (time::now(), time::instant());
        let (verifying, backup) = (AtomicBool::new(false), backup::Slot::default());
        let flows = metrics_page::flows_from_now(&context.state.read().unwrap_or_else(PoisonError::into_inner)).into();
        let drift = Mutex::default();
        Self { shared: Arc::new(Shared { context, started, began, verifying, backup, drift, flows }) }
    }

    /// Let go of what clients have left behind; to be called every few seconds.
    pub fn upkeep(&self) {
        self.shared.backup.expire(time::instant());
    }

    async fn answer(&self, request: Incoming) -> Answer {
        let context = &self.shared.context;
        guard::check(&request.method, &request.headers, &context.names, context.access.is_required())?;
        let (route, segments) = find(&request.method, &request.path)?;
        context.access.check(&request, route.need)?;
        let params = Params::parse(&request.query)?;
        if route.path.starts_with("/api/") {
            params.only(route.params)?;
        }
        let call = Call { params, segments, headers: request.headers, body: request.body };
        let shared = &self.shared;
        match route.operation {
            Operation::Home => home::page(shared).await,
            Operation::Live => Ok(health::live()),
            Operation::Ready => Ok(health::ready(&shared.context, &call.params)),
            Operation::Metrics => metrics_page::page(shared, &call).await,
            Operation::OpenApi => Ok(problem::answer(StatusCode::OK, "application/json", OPENAPI)),
            Operation::Status => status::status(shared).await,
            Operation::Stock => stock::list(shared, &call).await,
            Operation::Level => stock::one(shared, &call).await,
            Operation::Explain => explain::explain(shared, &call).await,
            Operation::Warehouses => stock::warehouses(shared).await,
            Operation::Drift => drift::list(shared, &call).await,
            Operation::Sources => sources::list(shared).await,
            Operation::DeadLetters => dead::list(shared, &call).await,
            Operation::DeadLetter => dead::show(shared, &call).await,
            Operation::RetryDead => dead::decide(shared, &call, dead::Verb::Retry).await,
            Operation::DropDead => dead::decide(shared, &call, dead::Verb::Drop).await,
            Operation::MapItem => admin::map_item(shared, call).await,
            Operation::MapLocation => admin::map_location(shared, call).await,
            Operation::Reload => admin::reload(shared).await,
            Operation::Verify => verify::verify(shared).await,
            Operation::BeginBackup => backup::begin(shared).await,
            Operation::BackupTables => backup::tables(shared, &call).await,
            Operation::BackupLog => backup::log(shared, &call).await,
        }
    }
}

impl Handler for Api {
    async fn handle(&self, request: Incoming) -> Outgoing {
        match self.answer(request).await {
            Ok(answer) => answer,
            Err(problem) => problem.into_answer(),
        }
    }
}

/// The API's description (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("openapi.json");

/// The row of the table that a request means. `HEAD` is a `GET` whose body stays here.
fn find(method: &Method, path: &str) -> Result<(&'static Route, Vec<String>), Problem> {
    let wanted = if method == Method::HEAD { &Method::GET } else { method };
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(segments) = segments(route.path, path) else { continue };
        if route.method == *wanted {
            return Ok((route, segments));
        }
        allowed.push(route.method.as_str());
        if route.method == Method::GET {
            allowed.push(Method::HEAD.as_str());
        }
    }
    if allowed.is_empty() {
        let detail = format!("there is nothing at {path}; /api/v1/openapi.json says what there is");
        return Err(Problem::not_found(detail));
    }
    Err(Problem::method_not_allowed(path, allowed.join(", ")))
}

/// What stands in the braces of a template, when a path fits it.
fn segments(template: &str, path: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(found),
            (Some(name), Some(value)) if name.starts_with('{') && !value.is_empty() => found.push(decode_segment(value)),
            (Some(name), Some(value)) if name == value => {}
            _ => return None,
        }
    }
}
