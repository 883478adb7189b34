//! One record folded into the state. Deterministic: it reads the record, the state and the rules, and nothing else.

use std::collections::BTreeMap;

use super::rules::{Rules, SourceRules};
use crate::limits::{CAUSE_MAX_BYTES, FACTS_PER_RECORD, PAGE_ROWS_MAX};
use crate::metrics::DeliveryResult;
use crate::stock::audit::Entry;
use crate::stock::level::{Ignored, Incoming, Outcome, Position, Value};
use crate::stock::policy::Policy;
use crate::store::StoreError;
use crate::store::codec::decode_record;
use crate::store::dedup::Known;
use crate::store::rows::{Cause, DeadLetter, IgnoredRow, ParkedFact, PositionKey, Remains};
use crate::store::state::State;
use crate::time::Timestamp;
use crate::types::{
    Change, Decision, Delivery, DeliveryKey, Fact, FetchFailed, Fetched, Message, Observation, Place, RecordBody, Seq, Sku,
    Stamp, Standing,
};

/// What a step did, for metrics and the log; never read by the fold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// (source, result) of deliveries.
    pub deliveries: BTreeMap<(String, &'static str), (DeliveryResult, u64)>,
    /// (source, outcome) of facts.
    pub facts: BTreeMap<(String, &'static str), u64>,
    /// Facts with an equal stamp and another number, by source.
    pub equal_stamps: BTreeMap<String, u64>,
    /// Conflicts to alert: (source, delivery, first record).
    pub conflicts: Vec<(String, String, Seq)>,
    /// Dead letters made: (source, cause, detail).
    pub dead: Vec<(String, Cause, String)>,
}

impl Tally {
    fn delivery(&mut self, source: &str, result: DeliveryResult) {
        self.deliveries.entry((source.to_owned(), result.as_str())).or_insert((result, 0)).1 += 1;
    }

    fn fact(&mut self, source: &str, outcome: &'static str) {
        *self.facts.entry((source.to_owned(), outcome)).or_default() += 1;
    }
}

/// Where a fact came from.
struct Origin<'a> {
    source: &'a SourceRules,
    record: Seq,
    at: Timestamp,
    /// Its journal position as an arrival (for a fetched answer: the head when the request was sent).
    arrival: Seq,
    label: &'a str,
    digest: [u8; 8],
    by_content: bool,
    /// It is the platform's own answer: never ask again because of it.
    fetched: bool,
}

/// The fold of one journal: the rules in force and the state they act on.
pub struct Folder {
    rules: Rules,
}

impl Folder {
    /// Go on where the state stands.
    pub fn new(state: &mut State) -> Self {
        let policy = Policy::from_json(&state.meta.policy).unwrap_or_default();
        Self { rules: Rules::compile(&policy, state) }
    }

    /// Fold the next record.
    pub fn fold(&mut self, state: &mut State, seq: Seq, bytes: &[u8], tally: &mut Tally) -> Result<(), StoreError> {
        let record = decode_record(bytes)?;
        let at = record.at;
        match &record.body {
            RecordBody::Delivery(delivery) => self.delivery(state, seq, at, delivery, bytes, tally)?,
            RecordBody::Fetched(fetched) => self.fetched(state, seq, at, fetched, bytes, tally)?,
            RecordBody::FetchFailed(failed) => self.fetch_failed(state, seq, at, failed, bytes, tally),
            RecordBody::Policy(json) => self.policy(state, seq, at, json, tally)?,
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
            tally.delivery(delivery.source, DeliveryResult::Accepted);
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
                tally.delivery(delivery.source, result);
                let row = state.source_row(number);
                if same {
                    row.duplicates += 1
                } else {
                    row.conflicts += 1
                }
                // its rivals can be shown beside what it did not change
                for observation in source.adapter.parse(&message).unwrap_or_default() {
                    if let Observation::Fact(fact) = observation {
                        note_ignored(state, &origin, &fact, reason)?;
                        tally.fact(&source.name, reason.as_str());
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
        match source.adapter.parse(&message) {
            Err(unreadable) => {
                state.source_row(number).accepted += 1;
                tally.delivery(delivery.source, DeliveryResult::Accepted);
                bury_record(state, number, seq, at, Cause::Unreadable, unreadable.0, bytes, delivery.source, tally);
            }
            Ok(observations) => {
                let repeated = self.observe(state, &origin, observations, tally)?;
                let row = state.source_row(number);
                if repeated {
                    row.duplicates += 1
                } else {
                    row.accepted += 1
                }
                tally.delivery(delivery.source, if repeated { DeliveryResult::Duplicate } else { DeliveryResult::Accepted });
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
        match source.adapter.read(&fetched.need, fetched.sent_at, fetched.body) {
            Err(unreadable) => {
                bury_record(state, number, seq, at, Cause::Unreadable, unreadable.0, bytes, fetched.source, tally);
            }
            Ok(observations) => {
                let label = format!("fetch {}", fetched.need.key);
                let origin = Origin {
                    source,
                    record: seq,
                    at,
                    arrival: fetched.answers,
                    label: &label,
                    digest: seq.to_be_bytes(),
                    by_content: false,
                    fetched: true,
                };
                self.observe(state, &origin, observations, tally)?;
            }
        }
        Ok(())
    }

    fn fetch_failed(
        &mut self,
        state: &mut State,
        seq: Seq,
        at: Timestamp,
        failed: &FetchFailed<'_>,
        bytes: &[u8],
        tally: &mut Tally,
    ) {
        let number = state.source_number(failed.source);
        state.answered(number, &failed.need.key, failed.answers);
        let detail = format!("{} could not be fetched: {}", failed.need.key, failed.cause);
        bury_record(state, number, seq, at, Cause::FetchFailed, detail, bytes, failed.source, tally);
    }

    /// Take in what an adapter read. True when there were facts and every one was a repeat of the body before it.
    fn observe(
        &self,
        state: &mut State,
        origin: &Origin<'_>,
        observations: Vec<Observation>,
        tally: &mut Tally,
    ) -> Result<bool, StoreError> {
        let (mut facts, mut repeats) = (0, 0);
        if observations.len() > FACTS_PER_RECORD {
            let detail = format!("{} facts in one message; at most {FACTS_PER_RECORD} are taken", observations.len());
            tally.dead.push((origin.source.name.clone(), Cause::OutOfRange, detail));
        }
        for (part, observation) in (0_u32..).zip(observations.into_iter().take(FACTS_PER_RECORD)) {
            match observation {
                Observation::Fact(fact) => {
                    facts += 1;
                    let parked = ParkedFact {
                        fact,
                        part,
                        arrival: origin.arrival,
                        label: origin.label.to_owned(),
                        digest: origin.digest,
                        by_content: origin.by_content,
                    };
                    repeats += u32::from(self.fact(state, origin, &parked, 0, tally)?);
                }
                Observation::Fetch(need) => {
                    // without an API the task waits until there is one: it is visible, bounded by resource, and not lost
                    state.want(origin.source.number, need, origin.record, origin.at);
                    tally.fact(&origin.source.name, "fetch");
                }
                Observation::Catalogue { item, sku } => {
                    if let Ok(sku) = Sku::new(&sku)
                        && state.learn_item(origin.source.number, &item, &sku)?
                    {
                        self.release(state, origin.source, origin.record, origin.at, &item, tally)?;
                    }
                }
                Observation::Irrelevant(_) => tally.fact(&origin.source.name, "irrelevant"),
            }
        }
        Ok(facts > 0 && repeats == facts)
    }

    /// Let one fact act. True when it was the repeat of the body before it. `replaces`: letters this fact stands for.
    fn fact(
        &self,
        state: &mut State,
        origin: &Origin<'_>,
        parked: &ParkedFact,
        replaces: u64,
        tally: &mut Tally,
    ) -> Result<bool, StoreError> {
        let fact = &parked.fact;
        let sku = match self.sku(state, origin.source, fact)? {
            Ok(sku) => sku,
            Err(None) => {
                if let Some(need) = origin.source.adapter.catalogue(&fact.item.id).filter(|_| origin.source.api) {
                    state.want(origin.source.number, need, origin.record, origin.at);
                }
                let detail = format!("item `{}` has no SKU yet", fact.item.id);
                let letter = letter(origin, Cause::UnmappedItem, detail, &fact.item.id, Remains::Fact(parked.clone()));
                self.park(state, origin, letter, replaces, tally)?;
                return Ok(false);
            }
            Err(Some(why)) => {
                let letter = letter(origin, Cause::BadSku, why, "", Remains::Fact(parked.clone()));
                self.bury(state, origin, letter, tally);
                return Ok(false);
            }
        };
        let warehouses = match self.warehouses(state, origin.source, fact, &sku)? {
            Ok(warehouses) => warehouses,
            Err(location) => {
                let detail = format!("location `{location}` has no warehouse yet");
                let letter = letter(origin, Cause::UnmappedLocation, detail, &location, Remains::Fact(parked.clone()));
                self.park(state, origin, letter, replaces, tally)?;
                return Ok(false);
            }
        };
        let mut repeat = !warehouses.is_empty();
        for warehouse in warehouses {
            repeat &= self.place(state, origin, parked, &sku, warehouse, tally)?;
        }
        Ok(repeat)
    }

    /// One fact at one position. True when it was the repeat of the body before it.
    fn place(
        &self,
        state: &mut State,
        origin: &Origin<'_>,
        parked: &ParkedFact,
        sku: &Sku,
        warehouse: u16,
        tally: &mut Tally,
    ) -> Result<bool, StoreError> {
        let fact = &parked.fact;
        let stamp = Stamp { version: fact.said.version, at: fact.said.at, seq: parked.arrival, part: parked.part };
        let incoming = Incoming {
            source: origin.source.number,
            change: fact.change,
            stamp,
            digest: parked.digest,
            by_content: parked.by_content,
            heard: origin.at,
        };
        let key = PositionKey { warehouse, sku: sku.as_str().into() };
        let rules = self.rules.warehouse(warehouse);
        if state.position_mut(&key)?.is_none() {
            state.put_position(key.clone(), Position::default());
        }
        let position = state.position_mut(&key)?.expect("it was just put");
        let (before_change, last_ignored) = (position.last_change, position.last_ignored);
        let Ok((outcome, equal)) = position.apply(&incoming, &rules.authority) else {
            let detail = format!("the number for {sku} leaves the range of a quantity");
            let letter = letter(origin, Cause::OutOfRange, detail, "", Remains::Fact(parked.clone()));
            self.bury(state, origin, letter, tally);
            return Ok(false);
        };
        let name = &origin.source.name;
        match outcome {
            Outcome::Changed { before, after, by, rule } => {
                let entry = Entry {
                    ledger: 0,
                    at: origin.at,
                    warehouse: state.meta.warehouses.name(warehouse).to_owned(),
                    sku: sku.as_str().to_owned(),
                    before,
                    after,
                    rule,
                    source: state.meta.sources.name(by).to_owned(),
                    record: origin.record,
                    delivery: parked.label.clone(),
                    previous: before_change,
                };
                let ledger = state.append_audit(entry);
                state.position_mut(&key)?.expect("it is there").last_change = ledger;
                state.totals_mut(warehouse).change(before, Some(after), rules.low, origin.at);
                state.source_row(origin.source.number).changed += 1;
                tally.fact(name, "changed");
            }
            Outcome::Confirmed => {
                state.source_row(origin.source.number).confirmed += 1;
                tally.fact(name, "confirmed");
            }
            Outcome::Ignored(reason) => {
                let row = ignored_row(origin, &parked.label, fact.change, reason, last_ignored);
                let number = state.append_ignored(row);
                state.position_mut(&key)?.expect("it is there").last_ignored = number;
                state.source_row(origin.source.number).ignored += 1;
                tally.fact(name, reason.as_str());
            }
        }
        if equal {
            state.source_row(origin.source.number).equal_stamps += 1;
            *tally.equal_stamps.entry(name.clone()).or_default() += 1;
            let location = match &fact.place {
                Place::At(location) => Some(&**location),
                Place::Default | Place::Everywhere => None,
            };
            if !origin.fetched
                && origin.source.api
                && let Some(need) = origin.source.adapter.settle(&fact.item.id, location)
            {
                state.want(origin.source.number, need, origin.record, origin.at);
            }
        }
        Ok(outcome == Outcome::Ignored(Ignored::Duplicate))
    }

    /// The SKU of a fact's item: `Err(None)` not known yet, `Err(Some)` what it has cannot be one.
    fn sku(&self, state: &mut State, source: &SourceRules, fact: &Fact) -> Result<Result<Sku, Option<String>>, StoreError> {
        if let Some(sku) = source.items.get(&*fact.item.id) {
            return Ok(Ok(sku.clone()));
        }
        if let Some(text) = &fact.item.sku {
            return Ok(Sku::new(text).map_err(|bad| Some(bad.to_string())));
        }
        Ok(state.item(source.number, &fact.item.id)?.ok_or(None))
    }

    /// The warehouses a fact is about, or the location that has none.
    fn warehouses(
        &self,
        state: &mut State,
        source: &SourceRules,
        fact: &Fact,
        sku: &Sku,
    ) -> Result<Result<Vec<u16>, String>, StoreError> {
        match &fact.place {
            Place::Default => Ok(source.warehouse.map(|w| vec![w]).ok_or_else(|| "(none named)".to_owned())),
            Place::At(location) => {
                if let Some(warehouse) = source.locations.get(&**location) {
                    return Ok(Ok(vec![*warehouse]));
                }
                if let Some(name) = state.location(source.number, location)? {
                    return Ok(Ok(vec![state.warehouse_number(&name)]));
                }
                Ok(source.locations.get("*").map(|w| vec![*w]).ok_or_else(|| location.to_string()))
            }
            Place::Everywhere => {
                let mut reported = Vec::new();
                for warehouse in source.all_warehouses() {
                    let position = state.position(&PositionKey { warehouse, sku: sku.as_str().into() })?;
                    if position.is_some_and(|p| p.reports.iter().any(|r| r.source == source.number)) {
                        reported.push(warehouse);
                    }
                }
                Ok(Ok(reported))
            }
        }
    }

    /// Park a fact until its mapping exists. Of several absolute numbers of one item at one place the newest is enough.
    fn park(
        &self,
        state: &mut State,
        origin: &Origin<'_>,
        mut letter: DeadLetter,
        replaces: u64,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        letter.replaces = replaces;
        let Remains::Fact(new) = &letter.remains else { return Ok(()) };
        for id in state.parked_for(origin.source.number, &letter.waits_for) {
            let Some(old) = state.dead_letter(id)? else { continue };
            let Remains::Fact(there) = &old.remains else { continue };
            let same =
                there.fact.item.id == new.fact.item.id && there.fact.place == new.fact.place && old.cause == letter.cause;
            let numbers = !matches!(there.fact.change, Change::Delta(_)) && !matches!(new.fact.change, Change::Delta(_));
            if !same || !numbers {
                continue;
            }
            let stamp =
                |p: &ParkedFact| Stamp { version: p.fact.said.version, at: p.fact.said.at, seq: p.arrival, part: p.part };
            if stamp(new).standing(&stamp(there)) == Standing::Older {
                return Ok(());
            }
            letter.replaces = letter.replaces.saturating_add(old.replaces).saturating_add(1);
            state.unbury(id)?;
            break;
        }
        self.bury(state, origin, letter, tally);
        Ok(())
    }

    fn bury(&self, state: &mut State, origin: &Origin<'_>, letter: DeadLetter, tally: &mut Tally) {
        state.source_row(origin.source.number).dead += 1;
        tally.fact(&origin.source.name, "dead-letter");
        tally.dead.push((origin.source.name.clone(), letter.cause, letter.detail.clone()));
        state.bury(letter);
    }

    /// A mapping exists now: apply what waited for it, oldest first.
    fn release(
        &self,
        state: &mut State,
        source: &SourceRules,
        record: Seq,
        at: Timestamp,
        waits_for: &str,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        for id in state.parked_for(source.number, waits_for) {
            self.exhume(state, source, record, at, id, tally)?;
        }
        Ok(())
    }

    /// Fold a dead letter again. What still cannot be used is buried again.
    fn exhume(
        &self,
        state: &mut State,
        source: &SourceRules,
        record: Seq,
        at: Timestamp,
        id: u64,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let Some(letter) = state.unbury(id)? else { return Ok(()) };
        match &letter.remains {
            Remains::Fact(parked) => {
                let origin = Origin {
                    source,
                    record: letter.record,
                    at,
                    arrival: parked.arrival,
                    label: &parked.label,
                    digest: parked.digest,
                    by_content: parked.by_content,
                    fetched: true,
                };
                self.fact(state, &origin, parked, letter.replaces, tally)?;
            }
            Remains::Record(bytes) if bytes.is_empty() => {}
            Remains::Record(bytes) => self.exhume_record(state, source, record, at, &letter, bytes, tally)?,
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one step of a retry, called once")]
    fn exhume_record(
        &self,
        state: &mut State,
        source: &SourceRules,
        record: Seq,
        at: Timestamp,
        letter: &DeadLetter,
        bytes: &[u8],
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let decoded = decode_record(bytes)?;
        let digest = letter.record.to_be_bytes();
        let (observations, label, arrival) = match &decoded.body {
            RecordBody::Delivery(d) => {
                let message = Message { query: d.query, headers: &d.headers, body: d.body, received_at: decoded.at };
                (source.adapter.parse(&message), d.label.to_owned(), letter.record)
            }
            RecordBody::Fetched(f) => {
                (source.adapter.read(&f.need, f.sent_at, f.body), format!("fetch {}", f.need.key), f.answers)
            }
            RecordBody::FetchFailed(f) => {
                (Ok(vec![Observation::Fetch(f.need.clone())]), format!("fetch {}", f.need.key), record)
            }
            RecordBody::Policy(_) | RecordBody::Decision(_) => return Ok(()),
        };
        let origin = Origin { source, record, at, arrival, label: &label, digest, by_content: false, fetched: true };
        match observations {
            Ok(observations) => drop(self.observe(state, &origin, observations, tally)?),
            Err(unreadable) => {
                let again = DeadLetter { detail: clip(unreadable.0), cause: Cause::Unreadable, ..letter.clone() };
                self.bury(state, &origin, again, tally);
            }
        }
        Ok(())
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
        let Ok(policy) = Policy::from_json(json) else { return Ok(()) };
        json.clone_into(&mut state.meta.policy);
        let old = std::mem::replace(&mut self.rules, Rules::compile(&policy, state));
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
        old_low: Option<crate::types::Quantity>,
        authority_changed: bool,
    ) -> Result<(), StoreError> {
        let rules = self.rules.warehouse(warehouse);
        let mut after = None;
        loop {
            let page = state.stock(Some(warehouse), after.as_ref(), PAGE_ROWS_MAX)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
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
                    let entry = Entry {
                        ledger: 0,
                        at,
                        warehouse: state.meta.warehouses.name(warehouse).to_owned(),
                        sku: key.sku.to_string(),
                        before,
                        after,
                        rule,
                        source: state.meta.sources.name(by).to_owned(),
                        record: seq,
                        delivery: "configuration".to_owned(),
                        previous,
                    };
                    position.last_change = state.append_audit(entry);
                    state.totals_mut(warehouse).change(before, Some(after), rules.low, at);
                }
                if changed.is_some() || position.effective.map(|(by, _)| by) != by_before {
                    state.put_position(key, position);
                }
            }
        }
    }
}

fn letter(origin: &Origin<'_>, cause: Cause, detail: String, waits_for: &str, remains: Remains) -> DeadLetter {
    DeadLetter {
        at: origin.at,
        source: origin.source.number,
        cause,
        detail: clip(detail),
        record: origin.record,
        waits_for: waits_for.to_owned(),
        replaces: 0,
        remains,
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
    tally.fact(name, "dead-letter");
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
fn clip(mut text: String) -> String {
    if text.len() > CAUSE_MAX_BYTES {
        let cut = (0..=CAUSE_MAX_BYTES).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(cut);
    }
    text
}

fn ignored_row(origin: &Origin<'_>, label: &str, change: Change, reason: Ignored, previous: u64) -> IgnoredRow {
    let said = match change {
        Change::Absolute(q) => Some(Value::Tracked(q)),
        Change::Untracked => Some(Value::Untracked),
        Change::Deleted => Some(Value::Deleted),
        Change::Delta(_) => None,
    };
    IgnoredRow {
        at: origin.at,
        source: origin.source.number,
        said,
        reason,
        record: origin.record,
        delivery: label.to_owned(),
        previous,
    }
}

/// Note beside a position that a delivery about it was a repeat; what has no position yet is not noted.
fn note_ignored(state: &mut State, origin: &Origin<'_>, fact: &Fact, reason: Ignored) -> Result<(), StoreError> {
    let source = origin.source;
    let sku = match (source.items.get(&*fact.item.id), &fact.item.sku) {
        (Some(sku), _) => Some(sku.clone()),
        (None, Some(text)) => Sku::new(text).ok(),
        (None, None) => state.item(source.number, &fact.item.id)?,
    };
    let warehouse = match &fact.place {
        Place::Default => source.warehouse,
        Place::At(location) => source.locations.get(&**location).or_else(|| source.locations.get("*")).copied(),
        Place::Everywhere => None,
    };
    let (Some(sku), Some(warehouse)) = (sku, warehouse) else { return Ok(()) };
    let key = PositionKey { warehouse, sku: sku.as_str().into() };
    let Some(previous) = state.position(&key)?.map(|p| p.last_ignored) else { return Ok(()) };
    let number = state.append_ignored(ignored_row(origin, origin.label, fact.change, reason, previous));
    if let Some(position) = state.position_mut(&key)? {
        position.last_ignored = number;
    }
    state.source_row(source.number).ignored += 1;
    Ok(())
}
