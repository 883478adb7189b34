//! Dead letters: what was genuine and could not be used, and what a person decides about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use http::StatusCode;
use serde::Serialize;

use super::params::{bad_cursor, cursor_text, number};
use super::problem::{Answer, Problem, json};
use super::stock::when;
use super::{Call, Shared, admin};
use crate::limits::DEAD_BODY_SHOWN_MAX_BYTES;
use crate::store::codec::decode_record;
use crate::store::rows::{Cause, DeadLetter, ParkedFact, Remains};
use crate::store::state::State;
use crate::types::{Change, Decision, Delivery, DeliveryKey, Fact, Need, Place, Record, RecordBody, closest, map_of};

#[derive(Serialize)]
struct Letter {
    id: u64,
    at: String,
    source: String,
    cause: &'static str,
    detail: String,
    /// The journal record it came from.
    record: u64,
    /// Position of the fact in its record; `null` when the whole record is meant.
    part: Option<u32>,
    /// What the fact says, when one fact is meant: `item 42 at 7: 5`.
    fact: Option<String>,
    /// Older numbers of the same item and place that this one stands for.
    replaces: u64,
    /// The platform's id of the item or location that has no mapping yet.
    waits_for: Option<String>,
}

impl Letter {
    fn of(state: &State, id: u64, letter: &DeadLetter) -> Self {
        Self {
            id,
            at: letter.at.to_string(),
            source: state.meta.sources.name(letter.source).to_owned(),
            cause: letter.cause.as_str(),
            detail: letter.detail.clone(),
            record: letter.record,
            part: parked(letter).map(|p| p.part),
            fact: parked(letter).map(|p| fact_words(&p.fact)),
            replaces: letter.replaces,
            waits_for: Some(letter.waits_for.clone()).filter(|text| !text.is_empty()),
        }
    }
}

fn parked(letter: &DeadLetter) -> Option<&ParkedFact> {
    match &letter.remains {
        Remains::Fact(parked) => Some(parked),
        Remains::Record(_) => None,
    }
}

/// A fact in a line.
fn fact_words(fact: &Fact) -> String {
    let place = match &fact.place {
        Place::Default => String::new(),
        Place::At(location) => format!(" at {location}"),
        Place::Everywhere => " everywhere".to_owned(),
    };
    let number = match fact.change {
        Change::Absolute(q) => q.to_string(),
        Change::Delta(q) if q.is_negative() => format!("moved by {q}"),
        Change::Delta(q) => format!("moved by +{q}"),
        Change::Untracked => "untracked".to_owned(),
        Change::Deleted => "deleted".to_owned(),
    };
    format!("item {}{place}: {number}", fact.item.id)
}

#[derive(Serialize)]
struct Page {
    dead_letters: Vec<Letter>,
    /// Give this as `after` for the next page; `null` on the last.
    next: Option<String>,
}

fn read_cause(text: &str) -> Result<Cause, Problem> {
    let known = Cause::ALL.iter().find(|(_, _, word)| *word == text).map(|(_, cause, _)| *cause);
    known.ok_or_else(|| {
        let words = || Cause::ALL.iter().map(|(_, _, word)| *word);
        let hint = match closest(text, words()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", words().collect::<Vec<_>>().join(", ")),
        };
        Problem::bad_request(format!("no cause `{text}`; {hint}"))
    })
}

/// `GET /api/v1/dead-letters`.
pub(super) async fn list(shared: &Arc<Shared>, call: &Call) -> Answer {
    let rows = call.params.limit()?;
    let cause = call.params.text("cause").map(read_cause).transpose()?;
    let after = match call.params.cursor()? {
        None => 0,
        Some(bytes) => {
            let id = bytes.try_into().map(u64::from_be_bytes).map_err(|_| bad_cursor())?;
            if id == u64::MAX {
                return Err(bad_cursor());
            }
            id
        }
    };
    let page = shared
        .read(move |state, _| {
            let mut found = state.dead_letters(after, cause, rows + 1)?;
            let more = found.len() > rows;
            found.truncate(rows);
            let next = found.last().filter(|_| more).map(|(id, _)| cursor_text(&id.to_be_bytes()));
            let dead_letters = found.iter().map(|(id, letter)| Letter::of(state, *id, letter)).collect();
            Ok(Page { dead_letters, next })
        })
        .await?;
    Ok(json(&page))
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    letter: Letter,
    /// The journal record, decoded; `null` with `record_problem` when it cannot be.
    decoded: Option<Decoded>,
    record_problem: Option<String>,
}

/// Bytes for people: as text where they are text.
#[derive(Serialize)]
struct Body {
    encoding: &'static str,
    text: String,
    /// How many there are.
    bytes: usize,
    /// True when only the first of them are shown.
    truncated: bool,
}

impl Body {
    fn of(bytes: &[u8]) -> Self {
        let truncated = bytes.len() > DEAD_BODY_SHOWN_MAX_BYTES;
        let (encoding, text) = if let Ok(text) = std::str::from_utf8(bytes) {
            let shown = if truncated { cut(text, DEAD_BODY_SHOWN_MAX_BYTES) } else { text };
            ("utf-8", shown.to_owned())
        } else {
            let shown = bytes.get(..bytes.len().min(DEAD_BODY_SHOWN_MAX_BYTES)).unwrap_or_default();
            ("base64", BASE64.encode(shown))
        };
        Self { encoding, text, bytes: bytes.len(), truncated }
    }
}

/// The longest start of a text that has at most so many bytes.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or(text)
}

/// A journal record for people.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Decoded {
    Delivery {
        received: String,
        source: String,
        /// The delivery's id as the platform says it, or as we derive it.
        delivery: String,
        /// The dedup key; `null` when the platform names no delivery that can be trusted.
        key: Option<String>,
        query: String,
        headers: BTreeMap<String, String>,
        body: Body,
    },
    Fetched {
        received: String,
        source: String,
        need: String,
        from: Option<String>,
        sent: Option<String>,
        page: u32,
        body: Body,
    },
    FetchFailed {
        received: String,
        source: String,
        need: String,
        from: Option<String>,
        why: String,
    },
    Policy {
        received: String,
        body: Body,
    },
    /// Part of an item mapping.
    Items {
        received: String,
        body: Body,
    },
    Decision {
        received: String,
        decision: String,
    },
}

impl Decoded {
    fn of(record: &Record<'_>) -> Self {
        let received = record.at.to_string();
        let from = |need: &Need| need.from.map(|at| at.to_string());
        match &record.body {
            RecordBody::Delivery(d) => Self::delivery(received, d),
            RecordBody::Fetched(f) => Self::Fetched {
                received,
                source: f.source.to_owned(),
                need: f.need.key.to_string(),
                from: from(&f.need),
                sent: when(f.sent_at),
                page: f.page,
                body: Body::of(f.body),
            },
            RecordBody::FetchFailed(f) => Self::FetchFailed {
                received,
                source: f.source.to_owned(),
                need: f.need.key.to_string(),
                from: from(&f.need),
                why: f.cause.to_owned(),
            },
            RecordBody::Items(items) => Self::Items { received, body: Body::of(items.lines.as_bytes()) },
            RecordBody::Policy(text) => Self::Policy { received, body: Body::of(text.as_bytes()) },
            RecordBody::Decision(decision) => Self::Decision { received, decision: decision_words(decision) },
        }
    }

    fn delivery(received: String, d: &Delivery<'_>) -> Self {
        let headers = d.headers.0.iter().map(|(name, value)| ((*name).to_owned(), header_value(name, value)));
        Self::Delivery {
            received,
            source: d.source.to_owned(),
            delivery: d.label.to_owned(),
            key: match d.key {
                DeliveryKey::Named(key) => Some(HEXLOWER.encode(&key)),
                DeliveryKey::Content => None,
            },
            query: d.query.to_owned(),
            headers: map_of(headers),
            body: Body::of(d.body),
        }
    }
}

/// A header's value, unless its name says that it is a credential.
fn header_value(name: &str, value: &str) -> String {
    let secret = ["authorization", "cookie", "token", "secret", "api-key", "apikey", "password"];
    if secret.iter().any(|word| name.contains(word)) { "***".to_owned() } else { value.to_owned() }
}

fn decision_words(decision: &Decision<'_>) -> String {
    match decision {
        Decision::RetryDead(id) => format!("retry dead letter {id}"),
        Decision::DropDead(id) => format!("drop dead letter {id}"),
        Decision::MapItem { source, item, sku } => format!("item {item} of {source} is {sku}"),
        Decision::MapLocation { source, location, warehouse } => format!("location {location} of {source} is {warehouse}"),
    }
}

fn missing(id: u64) -> Problem {
    Problem::not_found(format!("no dead letter {id}: it was retried, dropped or applied by itself, or never was"))
}

/// `GET /api/v1/dead-letters/{id}`.
pub(super) async fn show(shared: &Arc<Shared>, call: &Call) -> Answer {
    let id = number(call.segment(0), "the id of a dead letter")?;
    let shown = shared
        .read(move |state, context| {
            let letter = state.dead_letter(id)?.ok_or_else(|| missing(id))?;
            let bytes = match &letter.remains {
                Remains::Record(bytes) => Some(bytes.clone()),
                Remains::Fact(_) => context.journal.get(letter.record)?,
            };
            let (decoded, record_problem) = match bytes.as_deref().map(decode_record) {
                Some(Ok(record)) => (Some(Decoded::of(&record)), None),
                Some(Err(error)) => (None, Some(error.to_string())),
                None => (None, Some("the raw delivery has aged out of the journal; its fact is kept".to_owned())),
            };
            Ok(Shown { letter: Letter::of(state, id, &letter), decoded, record_problem })
        })
        .await?;
    Ok(json(&shown))
}

/// What a person wants done with a dead letter.
#[derive(Clone, Copy)]
pub(super) enum Verb {
    Retry,
    Drop,
}

/// `POST /api/v1/dead-letters/{id}/retry` and `DELETE /api/v1/dead-letters/{id}`.
pub(super) async fn decide(shared: &Arc<Shared>, call: &Call, verb: Verb) -> Answer {
    let id = number(call.segment(0), "the id of a dead letter")?;
    shared
        .read(move |state, _| match state.dead_letter(id)? {
            Some(_) => Ok(()),
            None => Err(missing(id)),
        })
        .await?;
    let (decision, words) = match verb {
        Verb::Retry => (Decision::RetryDead(id), format!("dead letter {id} will be folded again")),
        Verb::Drop => (Decision::DropDead(id), format!("dead letter {id} will be dropped")),
    };
    admin::decided(shared, &decision, words, StatusCode::ACCEPTED).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_body_is_cut_between_characters_and_says_so() {
        let long = "é".repeat(DEAD_BODY_SHOWN_MAX_BYTES);
        let body = Body::of(long.as_bytes());
        assert!(body.truncated && body.text.len() <= DEAD_BODY_SHOWN_MAX_BYTES);
        assert_eq!((body.encoding, body.bytes), ("utf-8", long.len()));
        assert!(long.starts_with(&body.text) && body.text.len() > DEAD_BODY_SHOWN_MAX_BYTES - 2);
        let whole = Body::of("kurz".as_bytes());
        assert_eq!((whole.text.as_str(), whole.truncated), ("kurz", false));
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_base64() {
        let body = Body::of(&[0xff, 0x00]);
        assert_eq!((body.encoding, body.text.as_str(), body.bytes), ("base64", "/wA=", 2));
    }

    #[test]
    fn credentials_in_headers_are_masked() {
        assert_eq!(header_value("x-access-token", "abc"), "***");
        assert_eq!(header_value("authorization", "Bearer abc"), "***");
        assert_eq!(header_value("x-wc-webhook-id", "7"), "7");
    }
}
