//! The notification: what has moved.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::id_text;
use super::ask::Ask;
use crate::types::{Need, Observation, Unreadable, query_value};

/// Ids come as texts in some topics and as numbers in others.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notice<'a> {
    #[serde(borrow)]
    cpn_id: Option<&'a RawValue>,
    #[serde(borrow)]
    resource_id: Option<&'a RawValue>,
    #[serde(borrow)]
    office_id: Option<&'a RawValue>,
    resource: Option<String>,
    topic: Option<String>,
}

/// Topics that the vendor (or its users) have named, and that move no stock.
const OTHER_TOPICS: [&str; 6] = ["product", "variant", "price", "payment", "client", "courierOrder"];

/// What to do about a notification.
pub(super) fn read(body: &[u8], account: Option<&str>) -> Result<Observation, Unreadable> {
    let notice: Notice<'_> = serde_json::from_slice(body).map_err(|e| {
        // where, and nothing of what stands there: one topic carries a credential
        unreadable(format!("not a notice: JSON trouble at line {}, column {}", e.line(), e.column()))
    })?;
    check_account(account, notice.cpn_id)?;
    match notice.topic.as_deref() {
        Some("stock") => stock(&notice),
        Some("document") => document(&notice),
        Some(topic) => Ok(Observation::Irrelevant(match OTHER_TOPICS.iter().find(|t| **t == topic) {
            Some(topic) => format!("topic {topic}"),
            None => "a topic that is not known".to_owned(),
        })),
        None => Err(unreadable("not a notice: it has no topic")),
    }
}

fn check_account(ours: Option<&str>, theirs: Option<&RawValue>) -> Result<(), Unreadable> {
    let Some(ours) = ours else { return Ok(()) };
    match theirs.and_then(id_text) {
        Some(theirs) if theirs == ours => Ok(()),
        Some(theirs) => Err(unreadable(format!("a notice of company {theirs}; this source is company {ours}"))),
        None => Err(unreadable("cpnId is missing, so the company cannot be checked")),
    }
}

fn stock(notice: &Notice<'_>) -> Result<Observation, Unreadable> {
    let variant = id(notice.resource_id, "resourceId")?.or_else(|| notice.queried("variant"));
    let variant = variant.ok_or_else(|| unreadable("a stock notice without resourceId or a variant in its resource"))?;
    let office = id(notice.office_id, "officeId")?.or_else(|| notice.queried("office"));
    fetch(&Ask::Stock { variant: &variant, office: office.as_deref() })
}

fn document(notice: &Notice<'_>) -> Result<Observation, Unreadable> {
    let document = id(notice.resource_id, "resourceId")?.or_else(|| notice.last_segment());
    let document =
        document.ok_or_else(|| unreadable("a document notice without resourceId or a document in its resource"))?;
    fetch(&Ask::Document { document: &document })
}

fn fetch(ask: &Ask<'_>) -> Result<Observation, Unreadable> {
    let need: Option<Need> = ask.need();
    need.map(Observation::Fetch).ok_or_else(|| unreadable("an id of the notice's resource is not a whole number"))
}

/// An id that may be absent, but not be something else.
fn id(raw: Option<&RawValue>, name: &str) -> Result<Option<String>, Unreadable> {
    raw.map(|raw| id_text(raw).ok_or_else(|| unreadable(format!("{name} is not a whole number")))).transpose()
}

impl Notice<'_> {
    fn queried(&self, name: &str) -> Option<String> {
        query_value(self.resource.as_deref()?.split_once('?')?.1, name)
    }

    /// `14417` of `/documents/14417.json`.
    fn last_segment(&self) -> Option<String> {
        let path = self.resource.as_deref()?.split('?').next()?;
        path.rsplit('/').next()?.strip_suffix(".json").map(str::to_owned)
    }
}

fn unreadable(cause: impl Into<String>) -> Unreadable {
    Unreadable(cause.into())
}
