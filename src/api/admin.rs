//! What a person decides: mappings and a reload.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::problem::{Answer, Problem, json, json_with};
use super::{Call, Shared};
use crate::limits::NAME_MAX_BYTES;
use crate::store::codec::encode_record;
use crate::time;
use crate::types::{Decision, Record, RecordBody, Sku, SourceId, WarehouseId, closest};

#[derive(Serialize)]
struct Decided {
    /// Number of the journal record that holds the decision.
    journal: u64,
    detail: String,
}

/// Write a decision to the journal and answer when it is on disk.
pub(super) async fn decided(shared: &Arc<Shared>, decision: &Decision<'_>, detail: String, status: StatusCode) -> Answer {
    let record = Record { at: time::now(), body: RecordBody::Decision(decision.clone()) };
    let pending = shared.context.appender.append(encode_record(&record))?;
    let journal = pending.durable().await?;
    tracing::info!(journal, %detail, "decided through the admin api");
    Ok(json_with(status, &Decided { journal, detail }))
}

/// Read a JSON body. The content type is demanded: a form on a web page cannot send it.
async fn body<T: DeserializeOwned>(call: Call) -> Result<T, Problem> {
    if !is_json(&call.headers) {
        let detail = "send JSON with content-type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let held = call.body.read().await?;
    serde_json::from_slice(&held)
        .map_err(|error| Problem::bad_request(format!("the body is not what this resource takes: {error}")))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// A mapping for a source that nobody has heard of would wait for ever.
fn known_source(shared: &Shared, source: &SourceId) -> Result<(), Problem> {
    let configured = shared.configured();
    if configured.iter().any(|known| known.name == source.as_str()) {
        return Ok(());
    }
    let names = || configured.iter().map(|known| known.name.as_str());
    let hint = match closest(source.as_str(), names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("configured are: {}", names().collect::<Vec<_>>().join(", ")),
    };
    Err(Problem::bad_request(format!("no source `{source}` is configured; {hint}")))
}

/// A platform's id, verbatim.
fn checked_id(text: &str, what: &str) -> Result<(), Problem> {
    if text.is_empty() || text.len() > NAME_MAX_BYTES {
        return Err(Problem::bad_request(format!("{what} must have 1 to {NAME_MAX_BYTES} bytes")));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapItem {
    source: SourceId,
    item: String,
    sku: Sku,
}

/// `POST /api/v1/map/item`.
pub(super) async fn map_item(shared: &Arc<Shared>, call: Call) -> Answer {
    let MapItem { source, item, sku } = body(call).await?;
    known_source(shared, &source)?;
    checked_id(&item, "item")?;
    let detail = format!("item {item} of {source} is {sku}; what waits for it is applied next");
    let decision = Decision::MapItem { source: source.as_str(), item: &item, sku: sku.as_str() };
    decided(shared, &decision, detail, StatusCode::ACCEPTED).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapLocation {
    source: SourceId,
    location: String,
    warehouse: WarehouseId,
}

/// `POST /api/v1/map/location`.
pub(super) async fn map_location(shared: &Arc<Shared>, call: Call) -> Answer {
    let MapLocation { source, location, warehouse } = body(call).await?;
    known_source(shared, &source)?;
    checked_id(&location, "location")?;
    let detail = format!("location {location} of {source} is {warehouse}; what waits for it is applied next");
    let decision = Decision::MapLocation { source: source.as_str(), location: &location, warehouse: warehouse.as_str() };
    decided(shared, &decision, detail, StatusCode::ACCEPTED).await
}

#[derive(Serialize)]
struct Done {
    detail: String,
}

/// `POST /api/v1/reload`.
pub(super) async fn reload(shared: &Arc<Shared>) -> Answer {
    match shared.context.actions.reload().await {
        Ok(detail) => Ok(json(&Done { detail })),
        Err(problems) => {
            let detail = "the new configuration was refused; the running one stays in force";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with_problems(problems))
        }
    }
}
