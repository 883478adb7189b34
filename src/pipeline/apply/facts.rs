//! Facts on their way to positions: which SKU, which warehouse, what changes, and what waits until a mapping exists.

use std::borrow::Cow;

use super::rules::SourceRules;
use super::step::{Folder, Tally, clip};
use crate::limits::FACTS_PER_RECORD;
use crate::stock::level::{Ignored, Incoming, Outcome, Value};
use crate::store::codec::decode_record;
use crate::store::rows::{Cause, DeadLetter, IgnoredRow, ParkedFact, PositionKey, Remains};
use crate::store::state::{NewEntry, State};
use crate::store::{StoreError, heart};
use crate::time::Timestamp;
use crate::types::{Change, Fact, Message, Observation, Place, RecordBody, Seq, Sku, Stamp, Standing, Unreadable};

/// Where a fact came from.
pub(super) struct Origin<'a> {
    pub(super) source: &'a SourceRules,
    pub(super) record: Seq,
    pub(super) at: Timestamp,
    /// Its journal position as an arrival (for a fetched answer: the head when the request was sent).
    pub(super) arrival: Seq,
    pub(super) label: &'a str,
    pub(super) digest: [u8; 8],
    pub(super) by_content: bool,
    /// Added to the position of each fact in its record (see [`answered_part`]).
    pub(super) first_part: u32,
    /// It is the platform's own answer: never ask again because of it.
    pub(super) fetched: bool,
}

/// A record with more than can be numbered is kept whole, as one dead letter, rather than cut.
pub(super) fn bounded(observations: Vec<Observation>) -> Result<Vec<Observation>, Unreadable> {
    if observations.len() > FACTS_PER_RECORD {
        return Err(Unreadable(format!("{} facts in one message: at most {FACTS_PER_RECORD} are read", observations.len())));
    }
    Ok(observations)
}

/// Where the facts of an answer rank within the record that was the journal's head when they were asked for: after that
/// record's own facts, which the answer covers, and page after page.
pub(super) fn answered_part(page: u32) -> u32 {
    const ANSWERED: u32 = 1 << 31;
    const FACTS_BITS: u32 = 18;
    const { assert!(FACTS_PER_RECORD < 1 << FACTS_BITS) };
    ANSWERED | page.min((1 << (31 - FACTS_BITS)) - 1) << FACTS_BITS
}

impl Folder {
    /// Take in what an adapter read. True when there were facts and every one was a repeat of the body before it.
    pub(super) fn observe(
        &self,
        state: &mut State,
        origin: &Origin<'_>,
        observations: Vec<Observation>,
        tally: &mut Tally,
    ) -> Result<bool, StoreError> {
        let (mut facts, mut repeats) = (0, 0);
        for (part, observation) in (0_u32..).zip(observations) {
            // one record may hold very many
            heart::beat();
            match observation {
                Observation::Fact(fact) => {
                    facts += 1;
                    let parked = ParkedFact {
                        fact,
                        part: origin.first_part.saturating_add(part),
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
                    tally.fact(origin.source.number, "fetch");
                }
                Observation::Catalogue { item, sku } => {
                    if let Ok(sku) = Sku::new(&sku)
                        && state.learn_item(origin.source.number, &item, &sku)?
                    {
                        self.release(state, origin.source, origin.record, origin.at, &item, tally)?;
                    }
                }
                Observation::Irrelevant(_) => tally.fact(origin.source.number, "irrelevant"),
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
        let sku = match Self::sku(state, origin.source, fact)? {
            Ok(sku) => sku,
            Err(None) => {
                if let Some(need) = origin.source.adapter.catalogue(&fact.item.id).filter(|_| origin.source.api) {
                    state.want(origin.source.number, need, origin.record, origin.at);
                }
                let detail = format!("item `{}` has no SKU yet", fact.item.id);
                let letter = letter(origin, Cause::UnmappedItem, detail, &fact.item.id, Remains::Fact(parked.clone()));
                Self::park(state, origin, letter, replaces, tally)?;
                return Ok(false);
            }
            Err(Some(why)) => {
                let letter = letter(origin, Cause::BadSku, why, "", Remains::Fact(parked.clone()));
                Self::bury(state, origin, letter, tally);
                return Ok(false);
            }
        };
        let warehouses = match Self::warehouses(state, origin.source, fact, &sku)? {
            Ok(warehouses) => warehouses,
            Err(location) => {
                let detail = format!("location `{location}` has no warehouse yet");
                let letter = letter(origin, Cause::UnmappedLocation, detail, &location, Remains::Fact(parked.clone()));
                Self::park(state, origin, letter, replaces, tally)?;
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
        sku: &str,
        warehouse: u16,
        tally: &mut Tally,
    ) -> Result<bool, StoreError> {
        let fact = &parked.fact;
        let stamp = Stamp { version: fact.said.version, at: fact.said.at, seq: parked.arrival, part: parked.part };
        let incoming = Incoming {
            source: origin.source.number,
            change: fact.change,
            stamp,
            // a delivery with an id of its own is recognised by that
            digest: if parked.by_content { parked.digest } else { [0; 8] },
            by_content: parked.by_content,
            heard: origin.at,
        };
        let key = PositionKey { warehouse, sku: sku.into() };
        let rules = self.rules.warehouse(warehouse);
        let mut position = state.position(&key)?.unwrap_or_default();
        let Ok((outcome, equal)) = position.apply(&incoming, &rules.authority) else {
            let detail = format!("the number for {sku} leaves the range of a quantity");
            let letter = letter(origin, Cause::OutOfRange, detail, "", Remains::Fact(parked.clone()));
            Self::bury(state, origin, letter, tally);
            return Ok(false);
        };
        match outcome {
            Outcome::Changed { before, after, by, rule } => {
                position.last_change = state.append_audit(&NewEntry {
                    at: origin.at,
                    warehouse,
                    sku,
                    before,
                    after,
                    rule,
                    source: by,
                    record: origin.record,
                    delivery: &parked.label,
                    previous: position.last_change,
                });
                state.totals_mut(warehouse).change(before, Some(after), rules.low, origin.at);
                state.source_row(origin.source.number).changed += 1;
                tally.fact(origin.source.number, "changed");
            }
            Outcome::Confirmed => {
                state.source_row(origin.source.number).confirmed += 1;
                tally.fact(origin.source.number, "confirmed");
            }
            Outcome::Ignored(reason) => {
                let row = ignored_row(origin, &parked.label, fact.change, reason, position.last_ignored);
                position.last_ignored = state.append_ignored(&row);
                state.source_row(origin.source.number).ignored += 1;
                tally.fact(origin.source.number, reason.as_str());
            }
        }
        state.put_position(&key, &position);
        if equal {
            state.source_row(origin.source.number).equal_stamps += 1;
            *tally.equal_stamps.entry(origin.source.number).or_default() += 1;
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
    fn sku<'a>(
        state: &mut State,
        source: &'a SourceRules,
        fact: &'a Fact,
    ) -> Result<Result<Cow<'a, str>, Option<String>>, StoreError> {
        if let Some(sku) = source.items.get(&fact.item.id) {
            return Ok(Ok(Cow::Borrowed(sku)));
        }
        if let Some(text) = &fact.item.sku {
            return Ok(Sku::check(text).map(Cow::Borrowed).map_err(|bad| Some(bad.to_string())));
        }
        Ok(state.item(source.number, &fact.item.id)?.map(|sku| Cow::Owned(sku.as_str().to_owned())).ok_or(None))
    }

    /// The warehouses a fact is about, or the location that has none.
    fn warehouses(
        state: &mut State,
        source: &SourceRules,
        fact: &Fact,
        sku: &str,
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
                    let position = state.position(&PositionKey { warehouse, sku: sku.into() })?;
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
        Self::bury(state, origin, letter, tally);
        Ok(())
    }

    fn bury(state: &mut State, origin: &Origin<'_>, letter: DeadLetter, tally: &mut Tally) {
        state.source_row(origin.source.number).dead += 1;
        tally.fact(origin.source.number, "dead-letter");
        tally.dead.push((origin.source.name.clone(), letter.cause, letter.detail.clone()));
        state.bury(letter);
    }

    /// A mapping exists now: apply what waited for it, oldest first.
    pub(super) fn release(
        &self,
        state: &mut State,
        source: &SourceRules,
        record: Seq,
        at: Timestamp,
        waits_for: &str,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        for id in state.parked_for(source.number, waits_for) {
            // very many may have waited
            heart::beat();
            self.exhume(state, source, record, at, id, tally)?;
        }
        Ok(())
    }

    /// Fold a dead letter again. What still cannot be used is buried again.
    pub(super) fn exhume(
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
                    first_part: 0,
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
        let (observations, label, arrival, first_part) = match &decoded.body {
            RecordBody::Delivery(d) => {
                let message = Message { query: d.query, headers: &d.headers, body: d.body, received_at: decoded.at };
                (source.adapter.parse(&message), d.label.to_owned(), letter.record, 0)
            }
            RecordBody::Fetched(f) => {
                let read = source.adapter.read(&f.need, f.sent_at, f.body);
                (read, format!("fetch {}", f.need.key), f.answers, answered_part(f.page))
            }
            RecordBody::FetchFailed(f) => {
                (Ok(vec![Observation::Fetch(f.need.clone())]), format!("fetch {}", f.need.key), record, 0)
            }
            RecordBody::Policy(_) | RecordBody::Items(_) | RecordBody::Decision(_) => return Ok(()),
        };
        let origin =
            Origin { source, record, at, arrival, label: &label, digest, by_content: false, first_part, fetched: true };
        match observations.and_then(bounded) {
            Ok(observations) => drop(self.observe(state, &origin, observations, tally)?),
            Err(unreadable) => {
                let again = DeadLetter { detail: clip(unreadable.0), cause: Cause::Unreadable, ..letter.clone() };
                Self::bury(state, &origin, again, tally);
            }
        }
        Ok(())
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
pub(super) fn note_ignored(state: &mut State, origin: &Origin<'_>, fact: &Fact, reason: Ignored) -> Result<(), StoreError> {
    let source = origin.source;
    let sku = Folder::sku(state, source, fact)?.ok();
    let warehouse = match &fact.place {
        Place::Default => source.warehouse,
        Place::At(location) => source.locations.get(&**location).or_else(|| source.locations.get("*")).copied(),
        Place::Everywhere => None,
    };
    let (Some(sku), Some(warehouse)) = (sku, warehouse) else { return Ok(()) };
    let key = PositionKey { warehouse, sku: (*sku).into() };
    let Some(mut position) = state.position(&key)? else { return Ok(()) };
    let row = ignored_row(origin, origin.label, fact.change, reason, position.last_ignored);
    position.last_ignored = state.append_ignored(&row);
    state.put_position(&key, &position);
    state.source_row(source.number).ignored += 1;
    Ok(())
}
