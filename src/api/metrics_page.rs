//! `/metrics`: gauges that follow from the state are brought up to date, then everything is rendered.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::problem::{Answer, Problem, answer};
use super::sources::tasks_by_source;
use super::{Call, Context, Shared, SourceInfo, health, process, status};
use crate::metrics::{self, WarehouseFigures};
use crate::stock::totals::Totals;
use crate::store::journal::Lost;
use crate::store::rows::Cause;
use crate::store::state::State;
use crate::time::{self, Timestamp};
use crate::types::Seq;

/// The text format's content type, as Prometheus asks for it.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics`.
pub(super) async fn page(shared: &Arc<Shared>, call: &Call) -> Answer {
    let gzip = takes_gzip(&call.headers);
    let (configured, (started, uptime), now) = (shared.configured(), shared.since(), time::now());
    // the state's lock is held for copying figures only; rendering and packing come after
    let cursor = shared
        .read(move |state, _| {
            refresh_state(state, &configured, uptime, now);
            Ok(state.meta.cursor)
        })
        .await?;
    let rendering = Arc::clone(shared);
    let body = shared.blocking(move || render(&rendering.context, cursor, started, now, gzip)).await?;
    let mut page = answer(StatusCode::OK, CONTENT_TYPE, body);
    page.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    if gzip {
        page.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(page)
}

fn render(context: &Context, cursor: Seq, started: Timestamp, now: Timestamp, gzip: bool) -> Result<Vec<u8>, Problem> {
    refresh_rest(context, cursor, now);
    context.prometheus.run_upkeep();
    let mut text = context.prometheus.render();
    text.push_str(&metrics::process_text(&process::read(started)));
    if !gzip {
        return Ok(text.into_bytes());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    Ok(encoder.finish()?)
}

/// Gauges that follow from the fold.
fn refresh_state(state: &State, configured: &[SourceInfo], uptime: Duration, now: Timestamp) {
    for (name, totals) in state.warehouses() {
        metrics::warehouse(name, &figures(totals, now));
    }
    for (_, cause, word) in Cause::ALL {
        metrics::dead_letters(word, state.dead_counts().get(cause).copied().unwrap_or(0));
    }
    let tasks = tasks_by_source(state);
    for source in configured {
        let number = state.find_source(&source.name);
        metrics::fetch_tasks(&source.name, number.and_then(|n| tasks.get(&n)).copied().unwrap_or(0));
    }
    for source in configured {
        let row = state.sources().find(|(name, _)| *name == source.name).map(|(_, row)| row).unwrap_or_default();
        // one that never delivered has been silent for at least as long as we listen
        let never = row.last_delivery == Timestamp::default();
        metrics::source_silence(&source.name, if never { uptime } else { now.since(row.last_delivery) });
        metrics::source_last_delivery(&source.name, row.last_delivery);
    }
    metrics::ledger(state.meta.ledger);
    metrics::dedup_keys(state.deliveries_remembered());
    metrics::store_bytes("state", state.file_bytes());
}

fn figures(totals: &Totals, now: Timestamp) -> WarehouseFigures {
    let hour = totals.this_hour(now);
    WarehouseFigures {
        levels: totals.levels,
        units_micros: totals.units,
        in_stock: totals.in_stock,
        out: totals.out,
        negative: totals.negative,
        low: totals.low,
        inflow_micros: hour.inflow,
        outflow_micros: hour.outflow,
        last_event: totals.last_event,
    }
}

/// Gauges that follow from the journal and the process.
fn refresh_rest(context: &Context, cursor: Seq, now: Timestamp) {
    let journal = &context.journal;
    let (records, age) = status::lag(cursor, journal, now);
    metrics::fold_lag(records, age);
    metrics::journal_head(journal.head());
    metrics::journal_lost(journal.lost().iter().filter(|lost| lost.certain).map(Lost::count).sum());
    metrics::journal_queue(context.appender.queued());
    metrics::store_bytes("journal", journal.file_bytes());
    if let Some(reserve) = journal.reserve() {
        metrics::disk(reserve.free(), reserve.held());
    }
    metrics::ready(health::is_ready(context));
}

/// True when the client accepts gzip (RFC 9110, 12.5.3): named, or covered by `*`, and not with a weight of zero.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut any = false;
    let fields = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for coding in fields.flat_map(|value| value.split(',')) {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.filter_map(|p| p.strip_prefix("q=")).any(|q| q.bytes().all(|b| b == b'0' || b == b'.'));
        if name.eq_ignore_ascii_case("gzip") {
            return !refused;
        }
        any |= name == "*" && !refused;
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        let takes =
            |value: &'static str| takes_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]));
        for yes in ["gzip", "gzip;q=1.0,*;q=0.1", "deflate, GZIP ; q=0.5", "*", "gzip;q=0.001"] {
            assert!(takes(yes), "{yes}");
        }
        for no in ["identity", "gzip;q=0", "*;q=0", "gzip;q=0.000, *", "x-gzips", ""] {
            assert!(!takes(no), "{no}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
