//! Every metric: its name, its closed set of labels, its help text. Nothing else in the program names one.
//!
//! Labels come from closed sets only: a source or warehouse from the configuration, a result from an enum. Never a SKU, a
//! delivery id or an address. Units are base units (seconds, bytes). Call sites hold handles ([`SourceMeters`]) where a
//! lookup for each event would cost. Every counter of a closed set begins at zero, so that its first increase is seen;
//! no histogram has a label, because each is twenty series.
//!
//! What happens is recorded here; what is, is written at the scrape ([`page`]).

#![expect(clippy::disallowed_macros, reason = "this is the one module that names metrics")]

use std::sync::OnceLock;

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

mod page;

pub use page::{FlowCounters, HourFlow, clock_text, process_text, sources_text, warehouses_text};

/// Buckets of the acknowledgement and commit times, in seconds: 100 us to 10 s.
const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0];
/// Buckets of the records in one commit.
const RECORDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// What became of a delivery: the `result` label of `stockgate_deliveries_total`. The sum over it is what arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryResult {
    /// Journaled, acknowledged, and new.
    Accepted,
    /// Journaled, acknowledged, and known already.
    Duplicate,
    /// Journaled, acknowledged: a known id with another body.
    Conflict,
    /// No signature, or not of the platform's form.
    Unsigned,
    /// A signature under none of the secrets.
    BadSignature,
    /// Signed too long ago, or in the future.
    StaleSignature,
    /// The path token is wrong or missing.
    BadToken,
    /// The sender's address is not on the source's list.
    BadAddress,
    /// The client has no certificate that the source trusts.
    BadCertificate,
    /// The body is larger than the limit.
    TooLarge,
    /// The body did not arrive whole or in time.
    Incomplete,
    /// Not taken: the queue or the body budget is full.
    Overloaded,
    /// Not taken: the journal cannot commit.
    Unavailable,
}

impl DeliveryResult {
    /// All of them, so that every series exists from the start.
    pub const ALL: &'static [Self] = &[
        Self::Accepted,
        Self::Duplicate,
        Self::Conflict,
        Self::Unsigned,
        Self::BadSignature,
        Self::StaleSignature,
        Self::BadToken,
        Self::BadAddress,
        Self::BadCertificate,
        Self::TooLarge,
        Self::Incomplete,
        Self::Overloaded,
        Self::Unavailable,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Unsigned => "unsigned",
            Self::BadSignature => "bad-signature",
            Self::StaleSignature => "stale-signature",
            Self::BadToken => "bad-token",
            Self::BadAddress => "bad-address",
            Self::BadCertificate => "bad-certificate",
            Self::TooLarge => "too-large",
            Self::Incomplete => "incomplete",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What became of a fact: the `outcome` label of `stockgate_facts_total`.
pub const FACT_OUTCOMES: &[&str] = &[
    "changed",
    "confirmed",
    "duplicate",
    "conflict",
    "stale",
    "not-authority",
    "not-tracked",
    "dead-letter",
    "fetch",
    "irrelevant",
];

/// The process's recorder: installed, with every metric described, at the first call.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
                .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_records".to_owned()), RECORDS))
                .expect("neither list of buckets is empty")
                .build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_ok() {
                describe();
            }
            handle
        })
        .clone()
}

fn describe() {
    describe_counter!("stockgate_deliveries_total", "Webhook deliveries by source and result.");
    describe_counter!("stockgate_unknown_path_requests_total", "Requests to the public listener that name no source.");
    describe_histogram!(
        "stockgate_ack_duration_seconds",
        Unit::Seconds,
        "Time from the last byte of an acknowledged delivery's body to its answer, durable commit included."
    );
    describe_counter!(
        "stockgate_secret_matches_total",
        "Deliveries by the index of the secret that verified them (rotation)."
    );
    describe_counter!(
        "stockgate_client_certificates_refused_total",
        "Deliveries refused for the client's certificate, by source and reason."
    );
    describe_gauge!(
        "stockgate_client_crl_expiry_timestamp_seconds",
        "When the source's list of revoked client certificates expires; from then on it takes nothing."
    );
    describe_counter!(
        "stockgate_admin_auth_failures_total",
        "Requests to the admin listener refused for their token, by reason: missing, unknown, expired, role."
    );
    for reason in ADMIN_AUTH_FAILURES {
        counter!("stockgate_admin_auth_failures_total", "reason" => *reason).increment(0);
    }
    describe_histogram!("stockgate_journal_commit_duration_seconds", Unit::Seconds, "Time of one durable journal commit.");
    describe_histogram!("stockgate_journal_commit_records", "Records in one journal commit.");
    describe_gauge!("stockgate_journal_queue_records", "Records waiting for the next journal commit.");
    describe_gauge!(
        "stockgate_journal_queue_capacity_records",
        "Records that may wait for a journal commit; past it deliveries are answered 503."
    );
    describe_counter!(
        "stockgate_journal_commit_failures_total",
        "Journal commits that failed; acknowledgement stops at each."
    );
    describe_counter!(
        "stockgate_journal_repairs_total",
        "Damaged journal segments that were set aside and replaced by what could be read of them."
    );
    describe_gauge!(
        "stockgate_journal_lost_records",
        "Records that damage has taken from the journal that is kept; /api/v1/status says which."
    );
    describe_counter!(
        "stockgate_fold_skipped_records_total",
        "Journal records that were gone before they were folded: levels lack what they said."
    );
    describe_counter!(
        "stockgate_state_rebuilds_total",
        "States that were damaged, set aside and begun again from the snapshot or the journal."
    );
    describe_gauge!("stockgate_journal_head", "Sequence number of the newest journal record.");
    describe_gauge!("stockgate_fold_lag_records", "Journal records not yet folded into the stock.");
    describe_gauge!("stockgate_fold_lag_seconds", Unit::Seconds, "Age of the oldest record not yet folded; 0 when none.");
    describe_counter!("stockgate_facts_total", "Facts folded, by source and outcome.");
    describe_counter!(
        "stockgate_equal_stamps_total",
        "Facts whose stamp equals the last one's with another value, by source."
    );
    describe_gauge!("stockgate_dead_letters", "Dead letters waiting for a decision, by cause.");
    describe_counter!("stockgate_fetches_total", "Calls of platforms' APIs, by source and result.");
    describe_gauge!("stockgate_ledger_sequence", "Last ledger sequence number: changes of effective levels so far.");
    describe_counter!("stockgate_checkpoints_total", "Checkpoints of the state, by result.");
    describe_histogram!("stockgate_checkpoint_duration_seconds", Unit::Seconds, "Time of one checkpoint.");
    describe_gauge!("stockgate_store_bytes", Unit::Bytes, "Size of a database file.");
    describe_gauge!(
        "stockgate_disk_free_bytes",
        Unit::Bytes,
        "Free space on the disk of the data directory, beside the reserve."
    );
    describe_gauge!(
        "stockgate_disk_reserve_bytes",
        Unit::Bytes,
        "Room kept back for checkpoints and retention; 0 while it is in use because the disk is full."
    );
    describe_gauge!("stockgate_dedup_keys", "Delivery ids remembered, to recognise a repeat.");
    describe_counter!("stockgate_tls_handshakes_total", "TLS handshakes by result.");
    describe_gauge!("stockgate_connections", "Open connections by listener.");
    describe_counter!("stockgate_connections_refused_total", "Connections refused, by listener and reason.");
    describe_counter!("stockgate_http_requests_total", "HTTP requests by listener and status code.");
    describe_gauge!("stockgate_tls_certificate_not_after_timestamp_seconds", "When the certificate in use expires.");
    describe_gauge!(
        "stockgate_tls_certificate_lifetime_remaining_ratio",
        "Share of the lifetime of the certificate in use that is left: 1 when new, 0 when expired."
    );
    describe_gauge!("stockgate_tls_certificate_self_made", "1 when the certificate was made by the gateway itself.");
    describe_gauge!(
        "stockgate_tls_certificate_refused",
        "1 while the certificate's files hold a pair that cannot be used and the one before stays in use."
    );
    describe_counter!("stockgate_tls_certificate_reloads_total", "Certificates offered to a running listener, by outcome.");
    describe_gauge!("stockgate_acme_last_success_timestamp_seconds", "When ACME last brought a certificate.");
    describe_gauge!("stockgate_acme_next_attempt_timestamp_seconds", "When ACME is next asked for a certificate.");
    describe_counter!("stockgate_acme_failures_total", "Attempts to get a certificate by ACME that failed, by reason.");
    describe_gauge!("stockgate_config_last_reload_successful", "1 when the last reload was taken, 0 when it was refused.");
    describe_gauge!("stockgate_config_last_reload_success_timestamp_seconds", "When a configuration was last taken.");
    describe_gauge!("stockgate_ready", "1 when /readyz says ready.");
    describe_gauge!("stockgate_build_info", "Always 1; the labels say what is running.");
    begin_at_zero();
}

/// Counters without a source: an increase from nothing to one is not seen by `increase()`.
fn begin_at_zero() {
    let mut counters = vec![
        counter!("stockgate_journal_commit_failures_total"),
        counter!("stockgate_journal_repairs_total"),
        counter!("stockgate_fold_skipped_records_total"),
        counter!("stockgate_state_rebuilds_total"),
        counter!("stockgate_unknown_path_requests_total"),
    ];
    counters.extend(["ok", "failed"].map(|result| counter!("stockgate_checkpoints_total", "result" => result)));
    counters
        .extend(["ok", "failed", "timeout"].map(|result| counter!("stockgate_tls_handshakes_total", "result" => result)));
    for listener in ["public", "admin"] {
        let refused = |reason| counter!("stockgate_connections_refused_total", "listener" => listener, "reason" => reason);
        counters.extend(["total", "per-address"].map(refused));
        counters.push(counter!("stockgate_http_requests_total", "listener" => listener, "code" => "200"));
    }
    for counter in counters {
        counter.increment(0);
    }
}

/// The handles of one source, made when it is configured.
#[derive(Clone)]
pub struct SourceMeters {
    results: Vec<Counter>,
    ack: Histogram,
    secrets: Vec<Counter>,
}

impl SourceMeters {
    /// Handles for a source with so many secrets; every series starts at zero.
    pub fn new(source: &str, secrets: usize) -> Self {
        let results = DeliveryResult::ALL
            .iter()
            .map(|r| counter!("stockgate_deliveries_total", "source" => source.to_owned(), "result" => r.as_str()))
            .inspect(|c| c.increment(0))
            .collect();
        let secrets = (0..secrets)
            .map(|i| counter!("stockgate_secret_matches_total", "source" => source.to_owned(), "secret" => i.to_string()))
            .inspect(|c| c.increment(0))
            .collect();
        for outcome in FACT_OUTCOMES {
            facts(source, outcome, 0);
        }
        equal_stamp(source, 0);
        Self { results, ack: histogram!("stockgate_ack_duration_seconds"), secrets }
    }

    /// Count a delivery.
    pub fn delivery(&self, result: DeliveryResult) {
        if let Some(counter) = DeliveryResult::ALL.iter().position(|r| *r == result).and_then(|i| self.results.get(i)) {
            counter.increment(1);
        }
    }

    /// Record the time from last body byte to answer.
    pub fn ack(&self, took: std::time::Duration) {
        self.ack.record(took.as_secs_f64());
    }

    /// Which secret verified a delivery.
    pub fn secret(&self, index: usize) {
        if let Some(counter) = self.secrets.get(index) {
            counter.increment(1);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are f64; a time in microseconds fits 53 bits until 2255")]
#[expect(clippy::float_arithmetic, reason = "gauges are f64")]
fn seconds(at: crate::time::Timestamp) -> f64 {
    at.0 as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "gauges are f64; shown, never computed with")]
fn float(value: u64) -> f64 {
    value as f64
}

/// Requests to the public listener that name no source.
pub fn unknown_path() {
    counter!("stockgate_unknown_path_requests_total").increment(1);
}

/// A source refused a client's certificate so many times for a reason (`ClientRefusal::as_str`).
pub fn client_refused(source: &str, reason: &'static str, count: u64) {
    counter!("stockgate_client_certificates_refused_total", "source" => source.to_owned(), "reason" => reason)
        .increment(count);
}

/// When a source's list of revoked client certificates expires; `None`: it has none, which shows as never.
pub fn client_list_expires(source: &str, at: Option<crate::time::Timestamp>) {
    gauge!("stockgate_client_crl_expiry_timestamp_seconds", "source" => source.to_owned())
        .set(at.map_or(f64::INFINITY, seconds));
}

/// Why the admin listener refuses a token: the `reason` of `stockgate_admin_auth_failures_total`.
pub const ADMIN_AUTH_FAILURES: &[&str] = &["missing", "unknown", "expired", "role"];

/// A request to the admin listener was refused for its token; one of [`ADMIN_AUTH_FAILURES`].
pub fn admin_auth_failed(reason: &'static str) {
    counter!("stockgate_admin_auth_failures_total", "reason" => reason).increment(1);
}

/// One journal commit.
pub fn journal_commit(took: std::time::Duration, records: u64, head: u64) {
    histogram!("stockgate_journal_commit_duration_seconds").record(took.as_secs_f64());
    histogram!("stockgate_journal_commit_records").record(float(records));
    gauge!("stockgate_journal_head").set(float(head));
}

/// The newest journal record; also before the first commit of this process.
pub fn journal_head(head: u64) {
    gauge!("stockgate_journal_head").set(float(head));
}

/// A journal commit that failed.
pub fn journal_commit_failed() {
    counter!("stockgate_journal_commit_failures_total").increment(1);
}

/// A damaged journal segment was mended.
pub fn journal_repaired() {
    counter!("stockgate_journal_repairs_total").increment(1);
}

/// Records that the journal has lost to damage.
pub fn journal_lost(records: u64) {
    gauge!("stockgate_journal_lost_records").set(float(records));
}

/// Records that the fold could not read any more.
pub fn fold_skipped(records: u64) {
    counter!("stockgate_fold_skipped_records_total").increment(records);
}

/// A damaged state was set aside.
pub fn state_rebuilt() {
    counter!("stockgate_state_rebuilds_total").increment(1);
}

/// Records waiting for the next commit, and how many may.
pub fn journal_queue(waiting: u64, capacity: u64) {
    gauge!("stockgate_journal_queue_records").set(float(waiting));
    gauge!("stockgate_journal_queue_capacity_records").set(float(capacity));
}

/// How far the fold is behind.
pub fn fold_lag(records: u64, age: std::time::Duration) {
    gauge!("stockgate_fold_lag_records").set(float(records));
    gauge!("stockgate_fold_lag_seconds").set(age.as_secs_f64());
}

/// Facts folded with one outcome.
pub fn facts(source: &str, outcome: &'static str, count: u64) {
    counter!("stockgate_facts_total", "source" => source.to_owned(), "outcome" => outcome).increment(count);
}

/// Facts with an equal stamp and another value.
pub fn equal_stamp(source: &str, count: u64) {
    counter!("stockgate_equal_stamps_total", "source" => source.to_owned()).increment(count);
}

/// Dead letters of one cause.
pub fn dead_letters(cause: &'static str, count: u64) {
    gauge!("stockgate_dead_letters", "cause" => cause).set(float(count));
}

/// A source has an API: its calls are counted from zero.
pub fn fetches_begin(source: &str) {
    for result in ["done", "retry", "failed", "unreachable"] {
        counter!("stockgate_fetches_total", "source" => source.to_owned(), "result" => result).increment(0);
    }
}

/// One API call: `done`, `retry`, `failed`, `unreachable`.
pub fn fetch(source: &str, result: &'static str) {
    counter!("stockgate_fetches_total", "source" => source.to_owned(), "result" => result).increment(1);
}

/// The ledger's last number.
pub fn ledger(seq: u64) {
    gauge!("stockgate_ledger_sequence").set(float(seq));
}

/// What a warehouse looks like: quantities in whole and fractional units.
#[derive(Debug, Clone, Copy, Default)]
pub struct WarehouseFigures {
    /// Units on hand, in millionths.
    pub units_micros: i128,
    /// SKUs above zero.
    pub in_stock: u64,
    /// SKUs at zero.
    pub out: u64,
    /// SKUs below zero.
    pub negative: u64,
    /// SKUs that are not counted here.
    pub untracked: u64,
    /// SKUs at or below their low mark.
    pub low: u64,
    /// Units in since the gateway started, in millionths.
    pub inflow_micros: i128,
    /// Units out since the gateway started, in millionths.
    pub outflow_micros: i128,
    /// Last change.
    pub last_event: crate::time::Timestamp,
}

#[expect(clippy::cast_precision_loss, reason = "gauges are f64; shown, never computed with")]
#[expect(clippy::float_arithmetic, reason = "gauges are f64")]
fn units(micros: i128) -> f64 {
    micros as f64 / 1e6
}

/// What a source looks like.
#[derive(Debug, Clone, Default)]
pub struct SourceFigures {
    /// Its name.
    pub name: String,
    /// When it last delivered anything genuine.
    pub last_delivery: crate::time::Timestamp,
    /// Fetch tasks waiting or under way.
    pub fetch_tasks: u64,
    /// Positions where its number is not the one in force; `None` before all have been looked at.
    pub drift: Option<u64>,
}

/// One checkpoint of the state.
pub fn checkpoint(took: std::time::Duration, ok: bool) {
    counter!("stockgate_checkpoints_total", "result" => if ok { "ok" } else { "failed" }).increment(1);
    histogram!("stockgate_checkpoint_duration_seconds").record(took.as_secs_f64());
}

/// Delivery ids remembered.
pub fn dedup_keys(count: u64) {
    gauge!("stockgate_dedup_keys").set(float(count));
}

/// Size of a database file: `journal` or `state`.
pub fn store_bytes(file: &'static str, bytes: u64) {
    gauge!("stockgate_store_bytes", "file" => file).set(float(bytes));
}

/// Free space of the data directory's disk, and what is kept back there.
pub fn disk(free: u64, reserve: u64) {
    gauge!("stockgate_disk_free_bytes").set(float(free));
    gauge!("stockgate_disk_reserve_bytes").set(float(reserve));
}

/// A TLS handshake: `ok`, `acme` (an ACME server checked a challenge), `failed` or `timeout`.
pub fn tls_handshake(result: &'static str) {
    counter!("stockgate_tls_handshakes_total", "result" => result).increment(1);
}

/// Open connections of a listener: `public` or `admin`.
pub fn connections(listener: &'static str, open: u64) {
    gauge!("stockgate_connections", "listener" => listener).set(float(open));
}

/// A refused connection: `total`, `per-address`; from a listed proxy also `proxy-header`, `proxy-timeout`, `proxy-closed`.
pub fn connection_refused(listener: &'static str, reason: &'static str) {
    counter!("stockgate_connections_refused_total", "listener" => listener, "reason" => reason).increment(1);
}

/// An answered request.
pub fn http_request(listener: &'static str, code: u16) {
    counter!("stockgate_http_requests_total", "listener" => listener, "code" => code.to_string()).increment(1);
}

/// The same with the usual answers at hand.
#[derive(Clone)]
pub struct HttpMeters {
    listener: &'static str,
    usual: OnceLock<Counter>,
}

impl HttpMeters {
    /// Of a listener.
    pub fn new(listener: &'static str) -> Self {
        Self { listener, usual: OnceLock::new() }
    }

    /// A request was answered.
    pub fn answered(&self, code: u16) {
        if code == 200 {
            let make = || counter!("stockgate_http_requests_total", "listener" => self.listener, "code" => "200");
            self.usual.get_or_init(make).increment(1);
        } else {
            http_request(self.listener, code);
        }
    }
}

/// The certificate that a listener (`public`, `admin`) uses: `ratio` is the share of its lifetime that is left.
pub fn certificate(listener: &'static str, not_after: crate::time::Timestamp, ratio: f64, self_made: bool) {
    gauge!("stockgate_tls_certificate_not_after_timestamp_seconds", "listener" => listener).set(seconds(not_after));
    gauge!("stockgate_tls_certificate_lifetime_remaining_ratio", "listener" => listener).set(ratio);
    gauge!("stockgate_tls_certificate_self_made", "listener" => listener).set(if self_made { 1.0 } else { 0.0 });
}

/// Certificates offered to a running listener with one outcome: `ok`, `mismatch`, `expired`, `unreadable`, `unusable`.
pub fn certificate_reloads(listener: &'static str, outcome: &'static str, count: u64) {
    counter!("stockgate_tls_certificate_reloads_total", "listener" => listener, "outcome" => outcome).increment(count);
}

/// The certificate's files hold what cannot be used.
pub fn certificate_refused(listener: &'static str, is: bool) {
    gauge!("stockgate_tls_certificate_refused", "listener" => listener).set(if is { 1.0 } else { 0.0 });
}

/// ACME: the last success and the next attempt (`None`: neither is known).
pub fn acme(last_success: Option<crate::time::Timestamp>, next_attempt: Option<crate::time::Timestamp>) {
    if let Some(at) = last_success {
        gauge!("stockgate_acme_last_success_timestamp_seconds").set(seconds(at));
    }
    if let Some(at) = next_attempt {
        gauge!("stockgate_acme_next_attempt_timestamp_seconds").set(seconds(at));
    }
}

/// Attempts of ACME that failed for one reason.
pub fn acme_failures(reason: &'static str, count: u64) {
    counter!("stockgate_acme_failures_total", "reason" => reason).increment(count);
}

/// A reload, taken or refused.
pub fn reload(ok: bool, at: crate::time::Timestamp) {
    gauge!("stockgate_config_last_reload_successful").set(if ok { 1.0 } else { 0.0 });
    if ok {
        gauge!("stockgate_config_last_reload_success_timestamp_seconds").set(seconds(at));
    }
}

/// What `/readyz` says.
pub fn ready(is: bool) {
    gauge!("stockgate_ready").set(if is { 1.0 } else { 0.0 });
}

/// What is running.
pub fn build_info(revision: &'static str, target: &'static str) {
    gauge!("stockgate_build_info", "version" => env!("CARGO_PKG_VERSION"), "revision" => revision, "target" => target)
        .set(1.0);
}

/// Deliveries folded with one result: accepted, duplicate or conflict.
pub fn folded(source: &str, result: DeliveryResult, count: u64) {
    counter!("stockgate_deliveries_total", "source" => source.to_owned(), "result" => result.as_str()).increment(count);
}

/// Figures of our own process; `None` where the system does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessFigures {
    /// User and system CPU time, in hundredths of a second.
    pub cpu_centis: Option<u64>,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Virtual memory.
    pub virtual_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Limit of open file descriptors.
    pub max_fds: Option<u64>,
    /// When the process started.
    pub started: crate::time::Timestamp,
}
