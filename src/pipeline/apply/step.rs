//! One record folded into the state. Deterministic: it reads the record, the state and the rules, and nothing else.

use std::collections::BTreeMap;

use super::facts::{Origin, answered_part, bounded, note_ignored};
use super::rules::{Rules, find_maps};
use crate::limits::{CAUSE_MAX_BYTES, PAGE_ROWS_MAX};
use crate::metrics::DeliveryResult;
use crate::stock::level::{Ignored, Outcome};
use crate::stock::policy::Policy;
use crate::store::codec::decode_record;
use crate::store::dedup::Known;
use crate::store::rows::{Cause, DeadLetter, Remains};
use crate::store::state::{NewEntry, State};
use crate::store::{StoreError, heart};
use crate::time::Timestamp;
use crate::types::{
    Decision, Delivery, DeliveryKey, FetchFailed, Fetched, ItemMaps, Message, Observation, Quantity, RecordBody, Seq, Sku,
};

/// What a step did, for metrics and the log; never read by the fold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// (number of the source, result) of deliveries.
    pub deliveries: BTreeMap<(u16, &'static str), (DeliveryResult, u64)>,
    /// (number of the source, outcome) of facts.
    pub facts: BTreeMap<(u16, &'static str), u64>,
    /// Facts with an equal stamp and another number, by number of the source.
    pub equal_stamps: BTreeMap<u16, u64>,
    /// Conflicts to alert: (source, delivery, first record).
    pub conflicts: Vec<(String, String, Seq)>,
    /// Dead letters made: (source, cause, detail).
    pub dead: Vec<(String, Cause, String)>,
    /// Policies that name items which are not in the journal: the one before stays in force.
    pub unusable_policies: Vec<Seq>,
}

impl Tally {
    pub(super) fn delivery(&mut self, source: u16, result: DeliveryResult) {
        self.deliveries.entry((source, result.as_str())).or_insert((result, 0)).1 += 1;
    }

    pub(super) fn fact(&mut self, source: u16, outcome: &'static str) {
        *self.facts.entry((source, outcome)).or_default() += 1;
    }
}

/// The fold of one journal: the rules in force and the state they act on.
pub struct Folder {
    pub(super) rules: Rules,
    items: ItemMaps,
}

impl Folder {
    /// Go on where the state stands. `items`: the mappings that somebody else holds already. Fails when the state's policy is
    /// of a form that this program does not know: folding without it would change numbers silently.
    pub fn new(state: &mut State, items: ItemMaps) -> Result<Self, StoreError> {
        let mut policy = Policy::default();
        if !state.meta.policy.is_empty() {
            let bad = |error| StoreError::Row(format!("the state's policy: {error}"));
            policy = Policy::from_json(&state.meta.policy).map_err(bad)?;
        }
        let maps = find_maps(&policy, false, state, &items)?;
        let maps = maps.ok_or_else(|| StoreError::Row("the state does not hold the items of its policy".to_owned()))?;
        Ok(Self { rules: Rules::compile(&policy, &maps, state), items })
    }

    /// Fold the next record.
    pub fn fold(&mut self, state: &mut State, seq: Seq, bytes: &[u8], tally: &mut Tally) -> Result<(), StoreError> {
        let record = decode_record(bytes)?;
        let at = record.at;
        match &record.body {
            RecordBody::Delivery(delivery) => self.delivery(state, seq, at, delivery, bytes, tally)?,
            RecordBody::Fetched(fetched) => self.fetched(state, seq, at, fetched, bytes, tally)?,
            RecordBody::FetchFailed(failed) => Self::fetch_failed(state, seq, at, failed, bytes, tally),
            RecordBody::Policy(json) => self.policy(state, seq, at, json, tally)?,
            RecordBody::Items(items) => state.put_items(items),
            RecordBody::Decision(decision) => self.decision(state, seq, at, decision, tally)?,
        }
        state.expire_deliveries(at, self.rules.window);
        state.advance(seq, at);
        Ok(())
    }

    fn delivery(
        &mut self,
        state: &mut State,
        seq: Seq,
        at: Timestamp,
        delivery: &Delivery<'_>,
        bytes: &[u8],
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let number = state.source_number(delivery.source);
        state.source_row(number).last_delivery = at;
        let Some(source) = self.rules.sources.get(delivery.source) else {
            state.source_row(number).accepted += 1;
            tally.delivery(number, DeliveryResult::Accepted);
            let detail = format!("source `{}` is not configured any more", delivery.source);
            bury_record(state, number, seq, at, Cause::UnknownSource, detail, bytes, delivery.source, tally);
            return Ok(());
        };
        let message = Message { query: delivery.query, headers: &delivery.headers, body: delivery.body, received_at: at };
        let origin = Origin {
            source,
            record: seq,
            at,
            arrival: seq,
            label: delivery.label,
            digest: delivery.body_digest,
            by_content: delivery.key == DeliveryKey::Content,
            first_part: 0,
            fetched: false,
        };
        if let DeliveryKey::Named(key) = delivery.key {
            if let Some(known) = state.known_delivery(&key)? {
                let same = known.digest == delivery.body_digest;
                let (result, reason) = if same {
                    (DeliveryResult::Duplicate, Ignored::Duplicate)
                } else {
                    (DeliveryResult::Conflict, Ignored::Conflict)
                };
                tally.delivery(number, result);
                let row = state.source_row(number);
                *(if same { &mut row.duplicates } else { &mut row.conflicts }) += 1;
                // its rivals can be shown beside what it did not change
                for observation in source.adapter.parse(&message).unwrap_or_default() {
                    if let Observation::Fact(fact) = observation {
                        note_ignored(state, &origin, &fact, reason)?;
                        tally.fact(number, reason.as_str());
                    }
                }
                if !same {
                    let detail = format!(
                        "delivery `{}` came again with another body; the first is record {}",
                        delivery.label, known.record
                    );
                    tally.conflicts.push((delivery.source.to_owned(), delivery.label.to_owned(), known.record));
                    bury_record(state, number, seq, at, Cause::Conflict, detail, bytes, delivery.source, tally);
                }
                return Ok(());
            }
            state.remember_delivery(key, Known { digest: delivery.body_digest, record: seq }, at);
        }
        match source.adapter.parse(&message).and_then(bounded) {
            Err(unreadable) => {
                state.source_row(number).accepted += 1;
                tally.delivery(number, DeliveryResult::Accepted);
                bury_record(state, number, seq, at, Cause::Unreadable, unreadable.0, bytes, delivery.source, tally);
            }
            Ok(observations) => {
                let repeated = self.observe(state, &origin, observations, tally)?;
                let row = state.source_row(number);
                *(if repeated { &mut row.duplicates } else { &mut row.accepted }) += 1;
                tally.delivery(number, if repeated { DeliveryResult::Duplicate } else { DeliveryResult::Accepted });
            }
        }
        Ok(())
    }

    fn fetched(
        &mut self,
        state: &mut State,
        seq: Seq,
        at: Timestamp,
        fetched: &Fetched<'_>,
        bytes: &[u8],
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let number = state.source_number(fetched.source);
        state.source_row(number).fetched += 1;
        if fetched.last {
            state.answered(number, &fetched.need.key, fetched.answers);
        }
        let Some(source) = self.rules.sources.get(fetched.source) else { return Ok(()) };
        match source.adapter.read(&fetched.need, fetched.sent_at, fetched.body).and_then(bounded) {
            Err(unreadable) => {
                bury_record(state, number, seq, at, Cause::Unreadable, unreadable.0, bytes, fetched.source, tally);
            }
            Ok(mut observations) => {
                // an answer without a time of its own is a fact of the moment its request was sent, and its place in the
                // journal says that better than a clock that may be set
                for observation in &mut observations {
                    if let Observation::Fact(fact) = observation {
                        fact.said.at = fact.said.at.filter(|at| *at != fetched.sent_at);
                    }
                }
                let label = format!("fetch {}", fetched.need.key);
                let origin = Origin {
                    source,
                    record: seq,
                    at,
                    arrival: fetched.answers,
                    label: &label,
                    digest: seq.to_be_bytes(),
                    by_content: false,
                    first_part: answered_part(fetched.page),
                    fetched: true,
                };
                self.observe(state, &origin, observations, tally)?;
            }
        }
        Ok(())
    }

    fn fetch_failed(state: &mut State, seq: Seq, at: Timestamp, failed: &FetchFailed<'_>, bytes: &[u8], tally: &mut Tally) {
        let number = state.source_number(failed.source);
        state.answered(number, &failed.need.key, failed.answers);
        let detail = format!("{} could not be fetched: {}", failed.need.key, failed.cause);
        bury_record(state, number, seq, at, Cause::FetchFailed, detail, bytes, failed.source, tally);
    }

    fn decision(
        &mut self,
        state: &mut State,
        seq: Seq,
        at: Timestamp,
        decision: &Decision<'_>,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        match decision {
            Decision::DropDead(id) => drop(state.unbury(*id)?),
            Decision::RetryDead(id) => {
                let Some(letter) = state.dead_letter(*id)? else { return Ok(()) };
                let name = state.meta.sources.name(letter.source).to_owned();
                if let Some(source) = self.rules.sources.get(&name) {
                    self.exhume(state, source, seq, at, *id, tally)?;
                }
            }
            Decision::MapItem { source, item, sku } => {
                let number = state.source_number(source);
                if let Ok(sku) = Sku::new(sku) {
                    state.learn_item(number, item, &sku)?;
                }
                if let Some(rules) = self.rules.sources.get(*source) {
                    self.release(state, rules, seq, at, item, tally)?;
                }
            }
            Decision::MapLocation { source, location, warehouse } => {
                let number = state.source_number(source);
                state.learn_location(number, location, warehouse);
                if let Some(rules) = self.rules.sources.get(*source) {
                    self.release(state, rules, seq, at, location, tally)?;
                }
            }
        }
        Ok(())
    }

    fn policy(
        &mut self,
        state: &mut State,
        seq: Seq,
        at: Timestamp,
        json: &str,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        if json == state.meta.policy {
            return Ok(());
        }
        // a policy of a form that this program does not know must not be folded by guessing: an older program stops here
        let policy = Policy::from_json(json).map_err(|error| StoreError::Row(format!("policy in record {seq}: {error}")))?;
        let Some(maps) = find_maps(&policy, true, state, &self.items)? else {
            // its items stood before the oldest record that is left: the next start writes all of it again
            tally.unusable_policies.push(seq);
            return Ok(());
        };
        json.clone_into(&mut state.meta.policy);
        state.keep_item_maps(&maps.keys().copied().collect())?;
        let old = std::mem::replace(&mut self.rules, Rules::compile(&policy, &maps, state));
        let numbers: Vec<u16> = state.meta.warehouses.iter().map(|(number, _)| number).collect();
        for warehouse in numbers {
            let (before, after) = (old.warehouse(warehouse), self.rules.warehouse(warehouse));
            if before != after {
                let (old_low, authority_changed) = (before.low, before.authority != after.authority);
                self.reconsider(state, warehouse, seq, at, old_low, authority_changed)?;
            }
        }
        for (number, waits_for) in state.all_parked() {
            let name = state.meta.sources.name(number).to_owned();
            if let Some(source) = self.rules.sources.get(&name) {
                self.release(state, source, seq, at, &waits_for, tally)?;
            }
        }
        Ok(())
    }

    /// The authority list or the low mark of a warehouse changed: go through its positions.
    fn reconsider(
        &self,
        state: &mut State,
        warehouse: u16,
        seq: Seq,
        at: Timestamp,
        old_low: Option<Quantity>,
        authority_changed: bool,
    ) -> Result<(), StoreError> {
        let rules = self.rules.warehouse(warehouse);
        let mut after = None;
        loop {
            let page = state.stock(Some(warehouse), after.as_ref(), PAGE_ROWS_MAX)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            // one record may make it go through all positions
            heart::beat();
            for (key, mut position) in page {
                let value = position.effective.map(|(_, v)| v);
                state.totals_mut(warehouse).remark(value, old_low, rules.low);
                if !authority_changed {
                    continue;
                }
                let previous = position.last_change;
                let by_before = position.effective.map(|(by, _)| by);
                let changed = position.reconsider(&rules.authority);
                if let Some(Outcome::Changed { before, after, by, rule }) = changed {
                    position.last_change = state.append_audit(&NewEntry {
                        at,
                        warehouse,
                        sku: &key.sku,
                        before,
                        after,
                        rule,
                        source: by,
                        record: seq,
                        delivery: "configuration",
                        previous,
                    });
                    state.totals_mut(warehouse).change(before, Some(after), rules.low, at);
                }
                if changed.is_some() || position.effective.map(|(by, _)| by) != by_before {
                    state.put_position(&key, &position);
                }
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "a dead letter has so many parts; called from five places")]
fn bury_record(
    state: &mut State,
    source: u16,
    record: Seq,
    at: Timestamp,
    cause: Cause,
    detail: String,
    bytes: &[u8],
    name: &str,
    tally: &mut Tally,
) {
    state.source_row(source).dead += 1;
    tally.fact(source, "dead-letter");
    tally.dead.push((name.to_owned(), cause, detail.clone()));
    let remains = Remains::Record(bytes.to_vec());
    state.bury(DeadLetter {
        at,
        source,
        cause,
        detail: clip(detail),
        record,
        waits_for: String::new(),
        replaces: 0,
        remains,
    });
}

/// A cause of bounded length, cut at a character.
pub(super) fn clip(mut text: String) -> String {
    if text.len() > CAUSE_MAX_BYTES {
        let cut = (0..=CAUSE_MAX_BYTES).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(cut);
    }
    text
}
