//! The rows of the state and their bytes. Numbers of sources and warehouses stand for their names (see `Names`).

mod position;

pub use position::{PositionKey, decode_position, encode_position};

use crate::stock::audit::Entry;
use crate::stock::level::{Ignored, Rule, Value};
use crate::stock::totals::{Flow, Totals};
use crate::time::Timestamp;
use crate::types::{Change, Fact, Item, Measure, Need, Place, Said, Seq};

use super::StoreError;
use super::codec::{Reader, Writer, need, read_need};

/// Key of a row that belongs to a source: its number and a name of the platform's.
pub fn source_key(source: u16, name: &str) -> Vec<u8> {
    [&source.to_be_bytes()[..], name.as_bytes()].concat()
}

/// The byte that a word of a closed set is stored as.
fn byte_of<T: Copy + PartialEq>(all: &[(u8, T, &str)], value: T) -> u8 {
    all.iter().find(|(_, known, _)| *known == value).map_or(0, |(byte, _, _)| *byte)
}

/// The word that a byte stands for.
fn of_byte<T: Copy>(all: &[(u8, T, &str)], byte: u8, what: &str) -> Result<T, StoreError> {
    let found = all.iter().find(|(known, _, _)| *known == byte).map(|(_, value, _)| *value);
    found.ok_or_else(|| StoreError::Row(format!("{what} {byte} is not known")))
}

fn value(w: &mut Writer, value: Value) {
    match value {
        Value::Tracked(q) => w.u8(1).signed(q.micros()),
        Value::Untracked => w.u8(2),
        Value::Deleted => w.u8(3),
    };
}

fn read_value(r: &mut Reader<'_>) -> Result<Value, StoreError> {
    match r.u8("value")? {
        1 => r.quantity("value").map(Value::Tracked),
        2 => Ok(Value::Untracked),
        3 => Ok(Value::Deleted),
        other => Err(StoreError::Row(format!("value kind {other} is not known"))),
    }
}

/// The first bytes of an entry's link, which stand in its row: they say where a chain breaks. That it is whole is said by the
/// newest link, which is kept at its full length.
pub type LinkMark = [u8; 8];

/// Bytes of an audit entry. Its ledger number is the row's key; numbers stand for the names of source and warehouse.
pub fn encode_audit(e: &Entry<&str>, warehouse: u16, source: u16, mark: LinkMark) -> Vec<u8> {
    let mut w = Writer::with_capacity(96);
    w.raw(&mark).time(e.at).count(u64::from(warehouse)).text(e.sku);
    w.option(e.before, value);
    value(&mut w, e.after);
    let rule = byte_of(Rule::ALL, e.rule);
    w.u8(rule).count(u64::from(source)).count(e.record).label(e.delivery).count(e.previous);
    w.finish()
}

/// Read an audit entry and the first bytes of its link.
pub fn decode_audit(
    bytes: &[u8],
    ledger: u64,
    warehouses: &Names,
    sources: &Names,
) -> Result<(Entry, LinkMark), StoreError> {
    let mut r = Reader::new(bytes);
    let mark = r.array("link")?;
    let at = r.time("time")?;
    let warehouse = warehouses.name(r.small("warehouse")?).to_owned();
    let sku = r.text("sku")?.to_owned();
    let before = r.option("before", read_value)?;
    let after = read_value(&mut r)?;
    let byte = r.u8("rule")?;
    let rule = of_byte(Rule::ALL, byte, "rule")?;
    let source = sources.name(r.small("source")?).to_owned();
    let record = r.count("record")?;
    let (delivery, previous) = (r.label("delivery")?, r.count("previous")?);
    r.end("audit entry")?;
    Ok((Entry { ledger, at, warehouse, sku, before, after, rule, source, record, delivery, previous }, mark))
}

/// A report that changed nothing, kept with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredRow {
    /// When it arrived.
    pub at: Timestamp,
    /// Number of its source.
    pub source: u16,
    /// What it said, when it said a number (`None`: a delta or a duplicate that was not read).
    pub said: Option<Value>,
    /// Why it was not taken.
    pub reason: Ignored,
    /// The journal record that carried it.
    pub record: Seq,
    /// The delivery's id as people see it.
    pub delivery: String,
    /// Number of the previous ignored report of the same position, 0 for the first.
    pub previous: u64,
}

/// Bytes of an ignored report.
pub fn encode_ignored(row: &IgnoredRow) -> Vec<u8> {
    let mut w = Writer::with_capacity(64);
    let reason = byte_of(Ignored::ALL, row.reason);
    w.time(row.at).count(u64::from(row.source)).option(row.said, value);
    w.u8(reason).count(row.record).label(&row.delivery).count(row.previous);
    w.finish()
}

/// Read an ignored report.
pub fn decode_ignored(bytes: &[u8]) -> Result<IgnoredRow, StoreError> {
    let mut r = Reader::new(bytes);
    let (at, source) = (r.time("time")?, r.small("source")?);
    let said = r.option("said", read_value)?;
    let byte = r.u8("reason")?;
    let reason = of_byte(Ignored::ALL, byte, "reason")?;
    let (record, delivery, previous) = (r.count("record")?, r.label("delivery")?, r.count("previous")?);
    r.end("ignored report")?;
    Ok(IgnoredRow { at, source, said, reason, record, delivery, previous })
}

/// Why a delivery, or a fact of it, could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The body is not what the platform promises.
    Unreadable,
    /// The item has no SKU yet: applied by itself once it has one.
    UnmappedItem,
    /// The location has no warehouse yet: applied by itself once it has one.
    UnmappedLocation,
    /// The number leaves the range of a quantity.
    OutOfRange,
    /// The SKU cannot be one (empty, too long, control characters).
    BadSku,
    /// A known delivery id with another body: kept for a person to judge.
    Conflict,
    /// The platform's API did not answer in the end.
    FetchFailed,
    /// The source is not configured any more.
    UnknownSource,
}

impl Cause {
    /// All, with the byte each is stored as and the word people see.
    pub const ALL: &'static [(u8, Self, &'static str)] = &[
        (1, Self::Unreadable, "unreadable"),
        (2, Self::UnmappedItem, "unmapped-item"),
        (3, Self::UnmappedLocation, "unmapped-location"),
        (4, Self::OutOfRange, "out-of-range"),
        (5, Self::BadSku, "bad-sku"),
        (6, Self::Conflict, "conflict"),
        (7, Self::FetchFailed, "fetch-failed"),
        (8, Self::UnknownSource, "unknown-source"),
    ];

    /// The word people see.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, cause, _)| *cause == self).map_or("?", |(_, _, word)| word)
    }

    /// Waits for a mapping and is applied by itself.
    pub fn parked(self) -> bool {
        matches!(self, Self::UnmappedItem | Self::UnmappedLocation)
    }
}

/// A fact on its own, with what its record said about it: enough to apply it later, whatever became of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedFact {
    /// The fact.
    pub fact: Fact,
    /// Its position in its record.
    pub part: u32,
    /// The journal position that counts as its arrival.
    pub arrival: Seq,
    /// The delivery's id as people see it.
    pub label: String,
    /// Digest of the body.
    pub digest: [u8; 8],
    /// The body had no id of its own.
    pub by_content: bool,
}

/// What a dead letter holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remains {
    /// One fact.
    Fact(ParkedFact),
    /// A whole journal record.
    Record(Vec<u8>),
}

/// Something genuine that could not be used, with all that is needed to use it later: raw deliveries age out of the
/// journal, dead letters do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// When it became one.
    pub at: Timestamp,
    /// Number of its source.
    pub source: u16,
    /// Why.
    pub cause: Cause,
    /// Why, in a sentence for people.
    pub detail: String,
    /// The journal record it came from.
    pub record: Seq,
    /// The item that waits for a SKU, or the location that waits for a warehouse (the platform's id); else empty.
    pub waits_for: String,
    /// Older letters that this one replaced: absolute numbers of the same item and place, of which the newest is enough.
    pub replaces: u64,
    /// What is kept.
    pub remains: Remains,
}

/// Bytes of a dead letter.
pub fn encode_dead(d: &DeadLetter) -> Vec<u8> {
    let mut w = Writer::with_capacity(256);
    let cause = byte_of(Cause::ALL, d.cause);
    w.time(d.at).count(u64::from(d.source)).u8(cause).text(&d.detail).count(d.record).text(&d.waits_for).count(d.replaces);
    match &d.remains {
        Remains::Record(bytes) => {
            w.u8(1).bytes(bytes);
        }
        Remains::Fact(parked) => {
            w.u8(2);
            encode_parked(&mut w, parked);
        }
    }
    w.finish()
}

/// Read a dead letter.
pub fn decode_dead(bytes: &[u8]) -> Result<DeadLetter, StoreError> {
    let mut r = Reader::new(bytes);
    let (at, source, byte) = (r.time("time")?, r.small("source")?, r.u8("cause")?);
    let cause = of_byte(Cause::ALL, byte, "cause")?;
    let (detail, record) = (r.text("detail")?.to_owned(), r.count("record")?);
    let (waits_for, replaces) = (r.text("waits for")?.to_owned(), r.count("replaces")?);
    let remains = match r.u8("remains")? {
        1 => Remains::Record(r.bytes("record bytes")?.to_vec()),
        2 => Remains::Fact(decode_parked(&mut r)?),
        other => return Err(StoreError::Row(format!("remains {other} are not known"))),
    };
    r.end("dead letter")?;
    Ok(DeadLetter { at, source, cause, detail, record, waits_for, replaces, remains })
}

fn encode_parked(w: &mut Writer, p: &ParkedFact) {
    w.text(&p.fact.item.id).option(p.fact.item.sku.as_deref(), |w, sku| {
        w.text(sku);
    });
    match &p.fact.place {
        Place::Default => w.u8(0),
        Place::At(location) => w.u8(1).text(location),
        Place::Everywhere => w.u8(2),
    };
    w.u8(match p.fact.measure {
        Measure::Available => 0,
        Measure::OnHand => 1,
    });
    match p.fact.change {
        Change::Absolute(q) => w.u8(0).signed(q.micros()),
        Change::Delta(q) => w.u8(1).signed(q.micros()),
        Change::Untracked => w.u8(2),
        Change::Deleted => w.u8(3),
    };
    w.option(p.fact.said.version, |w, v| {
        w.count(v);
    });
    w.option(p.fact.said.at, |w, at| {
        w.time(at);
    });
    w.count(u64::from(p.part)).count(p.arrival).text(&p.label).raw(&p.digest).u8(u8::from(p.by_content));
}

fn decode_parked(r: &mut Reader<'_>) -> Result<ParkedFact, StoreError> {
    let unknown = |what: &str, byte: u8| Err(StoreError::Row(format!("{what} {byte} is not known")));
    let item = Item { id: r.text("item")?.into(), sku: r.option("sku", |r| r.text("sku").map(Into::into))? };
    let place = match r.u8("place")? {
        0 => Place::Default,
        1 => Place::At(r.text("location")?.into()),
        2 => Place::Everywhere,
        other => return unknown("place", other),
    };
    let measure = match r.u8("measure")? {
        0 => Measure::Available,
        1 => Measure::OnHand,
        other => return unknown("measure", other),
    };
    let change = match r.u8("change")? {
        0 => Change::Absolute(r.quantity("quantity")?),
        1 => Change::Delta(r.quantity("quantity")?),
        2 => Change::Untracked,
        3 => Change::Deleted,
        other => return unknown("change", other),
    };
    let said =
        Said { version: r.option("version", |r| r.count("version"))?, at: r.option("said at", |r| r.time("said at"))? };
    Ok(ParkedFact {
        fact: Fact { item, place, measure, change, said },
        part: r.small("part")?,
        arrival: r.count("arrival")?,
        label: r.text("label")?.to_owned(),
        digest: r.array("digest")?,
        by_content: r.u8("by content")? == 1,
    })
}

/// Something that must be fetched from a platform. One row per source and resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTask {
    /// What to fetch.
    pub need: Need,
    /// The first notification that asked for it.
    pub first: Seq,
    /// The newest notification: an answer whose request was sent before it does not end the task.
    pub last: Seq,
    /// When the first notification arrived.
    pub since: Timestamp,
}

/// Bytes of a fetch task.
pub fn encode_task(t: &FetchTask) -> Vec<u8> {
    let mut w = Writer::with_capacity(64);
    need(&mut w, &t.need);
    w.count(t.first).count(t.last).time(t.since);
    w.finish()
}

/// Read a fetch task.
pub fn decode_task(bytes: &[u8]) -> Result<FetchTask, StoreError> {
    let mut r = Reader::new(bytes);
    let task =
        FetchTask { need: read_need(&mut r)?, first: r.count("first")?, last: r.count("last")?, since: r.time("since")? };
    r.end("fetch task")?;
    Ok(task)
}

/// What a source has done so far. Counts are of journal records, so they are the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceRow {
    /// Deliveries that were new.
    pub accepted: u64,
    /// Deliveries that were known.
    pub duplicates: u64,
    /// Deliveries with a known id and another body.
    pub conflicts: u64,
    /// Answers of its API.
    pub fetched: u64,
    /// Facts that changed a level.
    pub changed: u64,
    /// Facts that confirmed a level.
    pub confirmed: u64,
    /// Facts that were ignored (stale, no authority, ...).
    pub ignored: u64,
    /// Dead letters made.
    pub dead: u64,
    /// Facts whose stamp equalled the last one's with another number.
    pub equal_stamps: u64,
    /// When it last delivered.
    pub last_delivery: Timestamp,
}

/// Bytes of a source's row.
pub fn encode_source(s: &SourceRow) -> Vec<u8> {
    let mut w = Writer::with_capacity(64);
    for count in
        [s.accepted, s.duplicates, s.conflicts, s.fetched, s.changed, s.confirmed, s.ignored, s.dead, s.equal_stamps]
    {
        w.count(count);
    }
    w.time(s.last_delivery);
    w.finish()
}

/// Read a source's row.
pub fn decode_source(bytes: &[u8]) -> Result<SourceRow, StoreError> {
    let mut r = Reader::new(bytes);
    let row = SourceRow {
        accepted: r.count("accepted")?,
        duplicates: r.count("duplicates")?,
        conflicts: r.count("conflicts")?,
        fetched: r.count("fetched")?,
        changed: r.count("changed")?,
        confirmed: r.count("confirmed")?,
        ignored: r.count("ignored")?,
        dead: r.count("dead")?,
        equal_stamps: r.count("equal stamps")?,
        last_delivery: r.time("last delivery")?,
    };
    r.end("source row")?;
    Ok(row)
}

/// Bytes of a warehouse's totals.
pub fn encode_totals(t: &Totals) -> Vec<u8> {
    let mut w = Writer::with_capacity(512);
    w.count(t.levels).i128(t.units).count(t.in_stock).count(t.out).count(t.negative).count(t.low).count(t.untracked);
    w.time(t.last_event);
    for flows in [&t.hours, &t.days] {
        w.count(flows.len() as u64);
        for flow in flows {
            w.signed(flow.slot).i128(flow.inflow).i128(flow.outflow);
        }
    }
    w.finish()
}

/// Read a warehouse's totals.
pub fn decode_totals(bytes: &[u8]) -> Result<Totals, StoreError> {
    let mut r = Reader::new(bytes);
    let mut totals = Totals {
        levels: r.count("levels")?,
        units: r.i128("units")?,
        in_stock: r.count("in stock")?,
        out: r.count("out")?,
        negative: r.count("negative")?,
        low: r.count("low")?,
        untracked: r.count("untracked")?,
        last_event: r.time("last event")?,
        ..Totals::default()
    };
    for flows in [&mut totals.hours, &mut totals.days] {
        let count: usize = r.small("flows")?;
        for _ in 0..count {
            flows.push(Flow { slot: r.signed("slot")?, inflow: r.i128("inflow")?, outflow: r.i128("outflow")? });
        }
    }
    r.end("totals")?;
    Ok(totals)
}

/// Numbers for names, given in the order in which names first appear in the journal and never reused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names(Vec<Box<str>>);

impl Names {
    /// The number of a name, if it has one.
    pub fn find(&self, name: &str) -> Option<u16> {
        self.0.iter().position(|n| &**n == name).and_then(|i| u16::try_from(i).ok())
    }

    /// The number of a name; a new name gets the next one. `None` when 65,536 names are taken.
    pub fn number(&mut self, name: &str) -> Option<u16> {
        if let Some(known) = self.find(name) {
            return Some(known);
        }
        let next = u16::try_from(self.0.len()).ok()?;
        self.0.push(name.into());
        Some(next)
    }

    /// The name of a number.
    pub fn name(&self, number: u16) -> &str {
        self.0.get(usize::from(number)).map_or("?", |n| n)
    }

    /// All names with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &str)> {
        self.0.iter().enumerate().filter_map(|(i, n)| Some((u16::try_from(i).ok()?, &**n)))
    }

    /// Stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.count(self.0.len() as u64);
        for name in &self.0 {
            w.text(name);
        }
        w.finish()
    }

    /// From the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut r = Reader::new(bytes);
        let count: usize = r.small("names")?;
        let names = (0..count).map(|_| r.text("name").map(Box::from)).collect::<Result<_, _>>()?;
        Ok(Self(names))
    }
}
