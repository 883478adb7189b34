//! Sources: what is configured and what each has done.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::problem::{Answer, json};
use super::stock::when;
use super::{Shared, SourceInfo};
use crate::store::rows::SourceRow;
use crate::store::state::State;
use crate::time::{self, Timestamp};
use crate::types::map_of;

/// A source with its configuration, its figures, or both.
#[derive(Serialize)]
pub(super) struct Listed {
    pub(super) source: String,
    /// False for a source that delivered once and is not configured any more; then there is no kind and no path.
    configured: bool,
    pub(super) kind: Option<String>,
    path: Option<String>,
    signed: Option<bool>,
    warehouse: Option<String>,
    authority: Vec<String>,
    pub(super) accepted: u64,
    duplicates: u64,
    conflicts: u64,
    fetched: u64,
    changed: u64,
    confirmed: u64,
    ignored: u64,
    /// Dead letters made so far, those that were resolved included.
    dead_letters_made: u64,
    equal_stamps: u64,
    /// Fetches waiting or under way.
    fetch_tasks: u64,
    pub(super) last_delivery: Option<String>,
    silence_seconds: Option<u64>,
}

#[derive(Serialize)]
struct List {
    sources: Vec<Listed>,
}

/// Fetch tasks by source number.
pub(super) fn tasks_by_source(state: &State) -> BTreeMap<u16, u64> {
    let mut counts = BTreeMap::new();
    for (source, _) in state.tasks().keys() {
        *counts.entry(*source).or_default() += 1;
    }
    counts
}

/// Every configured source in the order of the configuration, then those that only the journal knows.
pub(super) fn all(state: &State, configured: Vec<SourceInfo>, now: Timestamp) -> Vec<Listed> {
    let tasks = tasks_by_source(state);
    let mut rows = map_of(state.sources().map(|(name, row)| (name.to_owned(), row)));
    let mut listed = Vec::with_capacity(configured.len());
    for info in configured {
        let row = rows.remove(&info.name).unwrap_or_default();
        listed.push((info, true, row));
    }
    for (name, row) in rows {
        listed.push((SourceInfo { name, ..SourceInfo::default() }, false, row));
    }
    let fetches = |name: &str| state.find_source(name).and_then(|n| tasks.get(&n)).copied().unwrap_or(0);
    listed.into_iter().map(|(info, configured, row)| one(fetches(&info.name), info, configured, &row, now)).collect()
}

fn one(fetch_tasks: u64, info: SourceInfo, configured: bool, row: &SourceRow, now: Timestamp) -> Listed {
    let last_delivery = when(row.last_delivery);
    Listed {
        source: info.name,
        configured,
        kind: configured.then_some(info.kind),
        path: configured.then_some(info.path),
        signed: configured.then_some(info.signed),
        warehouse: info.warehouse,
        authority: info.authority,
        accepted: row.accepted,
        duplicates: row.duplicates,
        conflicts: row.conflicts,
        fetched: row.fetched,
        changed: row.changed,
        confirmed: row.confirmed,
        ignored: row.ignored,
        dead_letters_made: row.dead,
        equal_stamps: row.equal_stamps,
        fetch_tasks,
        silence_seconds: last_delivery.is_some().then(|| now.since(row.last_delivery).as_secs()),
        last_delivery,
    }
}

/// `GET /api/v1/sources`.
pub(super) async fn list(shared: &Arc<Shared>) -> Answer {
    let (configured, now) = (shared.configured(), time::now());
    let sources = shared.read(move |state, _| Ok(all(state, configured, now))).await?;
    Ok(json(&List { sources }))
}
