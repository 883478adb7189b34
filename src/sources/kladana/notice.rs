//! The notification: whose it is, and since when something changed.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ask::MOSCOW;
use crate::time::Timestamp;
use crate::types::{Unreadable, query_value};

/// How far back the API is asked, at most: its bound is 24 hours, less what lies between an arrival and its request.
pub(super) const WINDOW_MAX: Duration = Duration::from_secs(23 * 3600 + 50 * 60);
/// How much earlier than its start a window is asked for: starts are rounded to seconds, and rows settle with a delay.
const OVERLAP: Duration = Duration::from_secs(5 * 60);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notice {
    account_id: Option<String>,
    stock_type: Option<String>,
    report_type: Option<String>,
    report_url: Option<String>,
    events: Option<IgnoredAny>,
}

/// The parts of a notification that tell one subscription from another: account and report.
pub(super) fn subscription(body: &[u8]) -> Option<[String; 2]> {
    let notice: Notice = serde_json::from_slice(body).ok()?;
    Some([notice.account_id.filter(|t| !t.is_empty())?, notice.report_type.filter(|t| !t.is_empty())?])
}

/// Since when to ask; `None` when the message is about documents.
pub(super) fn read(body: &[u8], account: Option<&str>, received_at: Timestamp) -> Result<Option<Timestamp>, Unreadable> {
    let notice: Notice = serde_json::from_slice(body).map_err(|e| {
        // where, and nothing of what stands there
        Unreadable(format!("not a stock notification: JSON trouble at line {}, column {}", e.line(), e.column()))
    })?;
    if notice.events.is_some() {
        return Ok(None);
    }
    if notice.stock_type.is_none() && notice.report_type.is_none() && notice.report_url.is_none() {
        return Err(Unreadable("not a stock notification: no stockType, reportType or reportUrl".into()));
    }
    check_account(account, notice.account_id.as_deref())?;
    let earliest = before(received_at, WINDOW_MAX);
    Ok(Some(match notice.report_url.as_deref().and_then(window_start) {
        Some(start) => before(start.min(received_at), OVERLAP).max(earliest),
        None => earliest,
    }))
}

fn check_account(ours: Option<&str>, theirs: Option<&str>) -> Result<(), Unreadable> {
    match (ours, theirs) {
        (None, _) => Ok(()),
        (Some(ours), Some(theirs)) if theirs.eq_ignore_ascii_case(ours) => Ok(()),
        (Some(ours), Some(theirs)) => {
            let theirs: String = theirs.chars().take(60).collect();
            Err(Unreadable(format!("a notification of account {}; this source is account {ours}", theirs.escape_debug())))
        }
        (Some(_), None) => Err(Unreadable("accountId is missing, so the account cannot be checked".into())),
    }
}

/// The start of the window that a `reportUrl` names. Its space comes raw, as `%20` or as `+`.
fn window_start(url: &str) -> Option<Timestamp> {
    let (_, query) = url.split_once('?')?;
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    let text = query_value(query, "changedSince").or_else(|| query_value(query, "fromDate"))?;
    Timestamp::parse_naive(text.trim(), MOSCOW)
}

fn before(moment: Timestamp, duration: Duration) -> Timestamp {
    Timestamp(moment.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
}
