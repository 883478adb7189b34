//! The gateway at a glance.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::Serialize;

use super::problem::{Answer, json};
use super::{Context, Shared, health};
use crate::net::acme::{LastFailure, Report, Standing};
use crate::net::tls::Identity;
use crate::store::codec::decode_record;
use crate::store::journal::{Journal, Lost};
use crate::store::state::State;
use crate::time::{self, Timestamp};
use crate::types::Seq;

#[derive(Serialize)]
pub(super) struct JournalFigures {
    /// The newest durable record.
    pub(super) head: Seq,
    /// The oldest record still kept.
    oldest: Seq,
    file_bytes: u64,
    healthy: bool,
    /// Records waiting for the next commit.
    queued: u64,
    queue_capacity: usize,
    /// Damaged files that were set aside and are still kept.
    repairs: u64,
    /// What they have lost.
    lost: Vec<LostRange>,
}

/// Journal records that damage has taken.
#[derive(Serialize)]
struct LostRange {
    from: Seq,
    to: Seq,
    /// They were received after this moment and before the next; unknown at a segment's edges.
    after: Option<String>,
    before: Option<String>,
    /// `false`: numbers that are left out, in case there were such records.
    certain: bool,
}

/// Ranges that are listed; who has more needs no list.
const LOST_LISTED: usize = 100;

impl From<Lost> for LostRange {
    fn from(lost: Lost) -> Self {
        let Lost { from, to, after, before, certain } = lost;
        Self { from, to, after: after.map(|at| at.to_string()), before: before.map(|at| at.to_string()), certain }
    }
}

#[derive(Serialize)]
pub(super) struct FoldFigures {
    /// Every record up to here is folded.
    pub(super) cursor: Seq,
    pub(super) lag_records: u64,
    /// Time of the newest folded record.
    folded_at: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Ledger {
    /// The last ledger number.
    pub(super) sequence: u64,
    /// The link of its entry: who keeps a copy can tell later whether the ledger is still the same.
    link: String,
}

/// The public listener's certificate.
#[derive(Serialize)]
pub(super) struct Certificate {
    /// SHA-256 of the leaf, as openssl prints it.
    fingerprint: String,
    self_made: bool,
    not_before: String,
    pub(super) not_after: String,
    /// Share of its lifetime that is left.
    remaining_ratio: f64,
    /// Why the pair in the certificate's files is not in use.
    pub(super) refused: Option<String>,
    /// `None`: ACME is not configured.
    pub(super) acme: Option<Acme>,
}

/// How it stands with ACME.
#[derive(Serialize)]
pub(super) struct Acme {
    directory: String,
    names: Vec<String>,
    last_success: Option<String>,
    next_attempt: Option<String>,
    /// Attempts that failed since the last success.
    failures: u32,
    pub(super) last_failure: Option<AcmeFailure>,
}

#[derive(Serialize)]
pub(super) struct AcmeFailure {
    at: String,
    reason: String,
    pub(super) message: String,
}

impl Certificate {
    fn of(identity: &Identity, acme: &Standing) -> Self {
        Self {
            fingerprint: identity.fingerprint(),
            self_made: identity.self_made(),
            not_before: identity.not_before().to_string(),
            not_after: identity.not_after().to_string(),
            remaining_ratio: identity.remaining(time::now()),
            refused: identity.refused(),
            acme: acme.get().map(Acme::from),
        }
    }
}

impl From<Report> for Acme {
    fn from(report: Report) -> Self {
        let failure = |LastFailure { at, reason, message }| AcmeFailure { at: at.to_string(), reason, message };
        Self {
            directory: report.directory,
            names: report.names,
            last_success: report.last_success.map(|at| at.to_string()),
            next_attempt: report.next_attempt.map(|at| at.to_string()),
            failures: report.failures,
            last_failure: report.last_failure.map(failure),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Status {
    pub(super) version: &'static str,
    started: String,
    pub(super) uptime_seconds: u64,
    pub(super) ready: bool,
    pub(super) journal: JournalFigures,
    pub(super) fold: FoldFigures,
    pub(super) ledger: Ledger,
    state_file_bytes: u64,
    pub(super) levels: u64,
    warehouses: usize,
    sources: usize,
    pub(super) dead_letters: u64,
    pub(super) fetch_tasks: usize,
    deliveries_remembered: u64,
    pub(super) certificate: Certificate,
}

/// How far the fold is behind: records, and the age of the oldest of them.
pub(super) fn lag(cursor: Seq, journal: &Journal, now: Timestamp) -> (u64, Duration) {
    let records = journal.head().saturating_sub(cursor);
    if records == 0 {
        return (0, Duration::ZERO);
    }
    let age = match journal.get(cursor.saturating_add(1)) {
        Ok(Some(bytes)) => decode_record(&bytes).map(|record| now.since(record.at)).unwrap_or_default(),
        Ok(None) => Duration::ZERO,
        Err(error) => {
            tracing::debug!(%error, "the oldest record that is not folded cannot be read");
            Duration::ZERO
        }
    };
    (records, age)
}

impl Status {
    /// Gather everything; `since` is when the process started and how long ago.
    pub(super) fn of(state: &State, context: &Context, since: (Timestamp, Duration), configured: usize) -> Self {
        let journal = &context.journal;
        let meta = &state.meta;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            started: since.0.to_string(),
            uptime_seconds: since.1.as_secs(),
            ready: health::is_ready(context),
            journal: JournalFigures {
                head: journal.head(),
                oldest: journal.oldest(),
                file_bytes: journal.file_bytes(),
                healthy: journal.healthy(),
                queued: context.appender.queued(),
                queue_capacity: context.appender.capacity(),
                repairs: journal.repairs(),
                lost: journal.lost().into_iter().take(LOST_LISTED).map(LostRange::from).collect(),
            },
            fold: FoldFigures {
                cursor: meta.cursor,
                lag_records: journal.head().saturating_sub(meta.cursor),
                folded_at: super::stock::when(meta.folded_at),
            },
            ledger: Ledger { sequence: meta.ledger, link: HEXLOWER.encode(&meta.link) },
            state_file_bytes: state.file_bytes(),
            levels: state.warehouses().map(|(_, totals)| totals.levels).sum(),
            warehouses: state.warehouses().count(),
            sources: configured,
            dead_letters: state.dead_counts().values().sum(),
            fetch_tasks: state.tasks().len(),
            deliveries_remembered: state.deliveries_remembered(),
            certificate: Certificate::of(&context.identity, &context.acme),
        }
    }
}

impl Shared {
    /// When the process started and how long ago.
    pub(super) fn since(&self) -> (Timestamp, Duration) {
        (self.started, time::instant().saturating_duration_since(self.began))
    }
}

/// `GET /api/v1/status`.
pub(super) async fn status(shared: &Arc<Shared>) -> Answer {
    let (since, configured) = (shared.since(), shared.configured().len());
    let status = shared.read(move |state, context| Ok(Status::of(state, context, since, configured))).await?;
    Ok(json(&status))
}
