//! `/metrics`: gauges that follow from the state are brought up to date, then everything is rendered.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::drift::{self, Drift};
use super::problem::{Answer, Problem, answer};
use super::sources::tasks_by_source;
use super::{Call, Context, Shared, SourceInfo, health, process, status};
use crate::metrics::{self, FlowCounters, HourFlow, SourceFigures, WarehouseFigures};
use crate::stock::totals::Totals;
use crate::store::journal::Lost;
use crate::store::rows::Cause;
use crate::store::state::State;
use crate::time::{self, Timestamp};
use crate::types::{Seq, map_of};

/// The text format's content type, as Prometheus asks for it.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics`.
pub(super) async fn page(shared: &Arc<Shared>, call: &Call) -> Answer {
    let gzip = takes_gzip(&call.headers);
    let (configured, (started, _), now) = (shared.configured(), shared.since(), time::now());
    let drift = drift::look(shared).await?;
    // the state's lock is held for copying figures only; rendering and packing come after
    let flows = Arc::clone(shared);
    let figures = shared.read(move |state, _| Ok(Figures::of(state, &configured, &drift, &flows.flows))).await?;
    let rendering = Arc::clone(shared);
    let body = shared.blocking(move || render(&rendering.context, &figures, started, now, gzip)).await?;
    let mut page = answer(StatusCode::OK, CONTENT_TYPE, body);
    page.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    if gzip {
        page.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(page)
}

fn render(context: &Context, figures: &Figures, started: Timestamp, now: Timestamp, gzip: bool) -> Result<Vec<u8>, Problem> {
    refresh(context, figures.cursor, now);
    context.prometheus.run_upkeep();
    let mut text = context.prometheus.render();
    text.push_str(&metrics::sources_text(&figures.sources));
    text.push_str(&metrics::warehouses_text(&figures.warehouses));
    text.push_str(&metrics::clock_text(time::now()));
    text.push_str(&metrics::process_text(&process::read(started)));
    if !gzip {
        return Ok(text.into_bytes());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    Ok(encoder.finish()?)
}

/// What the page says of the state.
struct Figures {
    cursor: Seq,
    sources: Vec<SourceFigures>,
    warehouses: Vec<(String, WarehouseFigures)>,
}

impl Figures {
    fn of(state: &State, configured: &[SourceInfo], drift: &Drift, flows: &Mutex<FlowCounters>) -> Self {
        for (_, cause, word) in Cause::ALL {
            metrics::dead_letters(word, state.dead_counts().get(cause).copied().unwrap_or(0));
        }
        metrics::ledger(state.meta.ledger);
        metrics::dedup_keys(state.deliveries_remembered());
        metrics::store_bytes("state", state.file_bytes());
        let tasks = tasks_by_source(state);
        let known = map_of(state.sources());
        let source = |info: &SourceInfo| {
            let number = state.find_source(&info.name);
            SourceFigures {
                name: info.name.clone(),
                last_delivery: known.get(info.name.as_str()).map(|row| row.last_delivery).unwrap_or_default(),
                fetch_tasks: number.and_then(|n| tasks.get(&n)).copied().unwrap_or(0),
                drift: drift.of(number),
            }
        };
        let mut flows = flows.lock().unwrap_or_else(PoisonError::into_inner);
        let warehouses = state.warehouses().map(|(name, totals)| (name.to_owned(), warehouse(name, totals, &mut flows)));
        Self {
            cursor: state.meta.cursor,
            sources: configured.iter().map(source).collect(),
            warehouses: warehouses.collect(),
        }
    }
}

fn warehouse(name: &str, totals: &Totals, flows: &mut FlowCounters) -> WarehouseFigures {
    let (inflow_micros, outflow_micros) = flows.count(name, &hours(totals));
    WarehouseFigures {
        units_micros: totals.units,
        in_stock: totals.in_stock,
        out: totals.out,
        negative: totals.negative,
        untracked: totals.untracked,
        low: totals.low,
        inflow_micros,
        outflow_micros,
        last_event: totals.last_event,
    }
}

fn hours(totals: &Totals) -> Vec<HourFlow> {
    totals.hours.iter().map(|f| HourFlow { hour: f.slot, inflow: f.inflow, outflow: f.outflow }).collect()
}

/// Counters of what flows from now on.
pub(super) fn flows_from_now(state: &State) -> FlowCounters {
    let mut flows = FlowCounters::default();
    for (name, totals) in state.warehouses() {
        flows.skip(name, &hours(totals));
    }
    flows
}

/// Gauges that follow from the journal and the process.
fn refresh(context: &Context, cursor: Seq, now: Timestamp) {
    let journal = &context.journal;
    let (records, age) = status::lag(cursor, journal, now);
    metrics::fold_lag(records, age);
    metrics::journal_head(journal.head());
    metrics::journal_lost(journal.lost().iter().filter(|lost| lost.certain).map(Lost::count).sum());
    metrics::journal_queue(context.appender.queued(), context.appender.capacity() as u64);
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
