//! Why a number is what it is: the deliveries that made it so, and those that were not taken.

use std::sync::Arc;

use serde::Serialize;

use super::problem::{Answer, json};
use super::stock::{Level, Number, Said, find_position};
use super::{Call, Shared};
use crate::stock::audit::Entry;
use crate::stock::level::{Ignored, Rule};
use crate::stock::policy::Policy;
use crate::store::rows::IgnoredRow;
use crate::store::state::{HistoryItem, State};

#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    level: Level,
    /// Newest first.
    history: Vec<Line>,
    /// True when there is more than `limit` lines of it.
    more: bool,
    reports: Vec<Said>,
}

/// One delivery's part in the story.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Line {
    Changed {
        at: String,
        source: String,
        delivery: String,
        record: u64,
        ledger: u64,
        before: Option<Number>,
        after: Number,
        rule: &'static str,
        why: &'static str,
    },
    Ignored {
        at: String,
        source: String,
        delivery: String,
        record: u64,
        said: Option<Number>,
        reason: &'static str,
        why: String,
    },
}

/// The rule in words.
fn rule_words(rule: Rule) -> &'static str {
    match rule {
        Rule::First => "first report",
        Rule::NewerVersion => "newer version",
        Rule::NewerTime => "newer source time",
        Rule::LaterArrival => "arrived later",
        Rule::EqualStamp => "same source time, arrived later",
        Rule::Delta => "movement",
        Rule::Authority => "the authority list changed",
    }
}

/// Why a report was not taken, in words.
fn ignored_words(reason: Ignored, source: &str, listed: bool) -> String {
    match reason {
        Ignored::Duplicate => "the same delivery again".to_owned(),
        Ignored::Conflict => "known delivery id with another body, kept as a dead letter".to_owned(),
        Ignored::Stale => format!("older than what {source} had said already"),
        Ignored::NotAuthority if listed => format!("{source} has no authority here"),
        Ignored::NotAuthority => "another source says something newer".to_owned(),
        Ignored::NotTracked => "a movement of something that is not counted here".to_owned(),
    }
}

/// True when the policy in force lists whose word counts in a warehouse.
fn has_authority_list(state: &State, warehouse: &str) -> bool {
    Policy::from_json(&state.meta.policy)
        .ok()
        .and_then(|policy| policy.warehouses.get(warehouse).map(|w| !w.authority.is_empty()))
        .unwrap_or(false)
}

impl Line {
    fn changed(entry: Entry) -> Self {
        Self::Changed {
            at: entry.at.to_string(),
            source: entry.source,
            delivery: entry.delivery,
            record: entry.record,
            ledger: entry.ledger,
            before: entry.before.map(Number::from),
            after: entry.after.into(),
            rule: entry.rule.as_str(),
            why: rule_words(entry.rule),
        }
    }

    fn ignored(state: &State, row: IgnoredRow, listed: bool) -> Self {
        let source = state.meta.sources.name(row.source);
        Self::Ignored {
            at: row.at.to_string(),
            source: source.to_owned(),
            why: ignored_words(row.reason, source, listed),
            delivery: row.delivery,
            record: row.record,
            said: row.said.map(Number::from),
            reason: row.reason.as_str(),
        }
    }
}

/// `GET /api/v1/explain/{warehouse}/{sku}`.
pub(super) async fn explain(shared: &Arc<Shared>, call: &Call) -> Answer {
    let (warehouse, sku) = (call.segment(0).to_owned(), call.segment(1).to_owned());
    let rows = call.params.limit()?;
    let explained = shared
        .read(move |state, _| {
            let (key, position) = find_position(state, &warehouse, &sku)?;
            let listed = has_authority_list(state, &warehouse);
            // so many of each sort: the newest `rows` of both together are among them
            let mut history = state.history(&position, rows + 1)?;
            let more = history.len() > rows;
            history.truncate(rows);
            let history = history
                .into_iter()
                .map(|item| match item {
                    HistoryItem::Changed(entry) => Line::changed(entry),
                    HistoryItem::Ignored(row) => Line::ignored(state, row, listed),
                })
                .collect();
            let level = Level::of(state, &key, &position)?;
            Ok(Explained { level, history, more, reports: Said::all(state, &position) })
        })
        .await?;
    Ok(json(&explained))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_and_reason_has_words_of_its_own() {
        let mut words: Vec<String> = Rule::ALL.iter().map(|(_, rule, _)| rule_words(*rule).to_owned()).collect();
        words.extend(Ignored::ALL.iter().map(|(_, reason, _)| ignored_words(*reason, "shop", true)));
        words.push(ignored_words(Ignored::NotAuthority, "shop", false));
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
    }
}
