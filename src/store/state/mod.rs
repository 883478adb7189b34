//! `state.redb`: the fold of the journal.
//!
//! One thread folds (`pipeline::apply`); it alone changes the [`State`]. What it changes stays in memory until the next
//! checkpoint writes all of it, together with the journal cursor, in one durable transaction: the file is always the fold of
//! a prefix of the journal, and a crash costs only the folding since the last checkpoint. The fold goes on while one is written
//! (see [`State::freeze`]). Readers share the state behind a
//! read-write lock: memory first, then the file.
//!
//! What is in memory always: totals, source rows, fetch tasks, the open dedup generation and the filters of the sealed ones.
//! What is in memory for a while, encoded: positions (bounded, see `limits`), audit entries and ignored reports not yet written; and

mod checkpoint;
mod file;
mod frozen;
mod hot;
mod image;
mod item_maps;
mod log;
mod query;
mod runs;
mod snapshot;
mod verify;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

pub use checkpoint::Difference;
use frozen::Frozen;
pub use frozen::Unwritten;
use hot::Hot;
pub use image::{Builder, Image};
use item_maps::UnwrittenParts;
use log::Log;
pub use query::HistoryItem;
use runs::{POSITION_BLOCKS, POSITION_MERGED, POSITION_RUNS, POSITIONS, Positions};
pub use snapshot::{Made, Snapshot};
pub use verify::{Verified, Verifier};

use super::StoreError;
use super::codec::{Reader, Writer};
use super::dedup::{Dedup, Key, Known};
use super::disk::{self, Disk};
use super::rows::{
    Cause, DeadLetter, FetchTask, IgnoredRow, LinkMark, Names, PositionKey, Remains, SourceRow, decode_dead,
    decode_position, decode_source, decode_task, decode_totals, encode_audit, encode_ignored, encode_position, source_key,
};
use crate::limits::DEDUP_GENERATION_KEYS;
use crate::stock::audit::{Entry, GENESIS, Link};
use crate::stock::level::{Position, Rule, Value};
use crate::stock::totals::Totals;
use crate::time::Timestamp;
use crate::types::{Need, Seq, Sku};

/// The state as everyone shares it: the fold writes, the stages and the API read.
pub type SharedState = Arc<RwLock<State>>;

type Bytes = &'static [u8];
type ByBytes = TableDefinition<'static, Bytes, Bytes>;
type ByNumber = TableDefinition<'static, u64, Bytes>;

const META: TableDefinition<'static, &'static str, Bytes> = TableDefinition::new("meta");
const AUDIT: ByNumber = ByNumber::new("audit");
const IGNORED: ByNumber = ByNumber::new("ignored");
const DEAD: ByNumber = ByNumber::new("dead-letters");
const TASKS: ByBytes = ByBytes::new("fetch-tasks");
const ITEMS: ByBytes = ByBytes::new("items");
const LOCATIONS: ByBytes = ByBytes::new("locations");
const ITEM_MAPS: ByBytes = ByBytes::new("item-maps");
const SOURCES: ByNumber = ByNumber::new("sources");
const TOTALS: ByNumber = ByNumber::new("totals");
const DEDUP_LOG: ByNumber = ByNumber::new("dedup-log");
const DEDUP_KEYS: ByNumber = ByNumber::new("dedup-keys");
const DEDUP_GENERATIONS: ByNumber = ByNumber::new("dedup-generations");

const TABLES_BY_BYTES: &[ByBytes] = &[POSITIONS, POSITION_BLOCKS, POSITION_MERGED, TASKS, ITEMS, LOCATIONS, ITEM_MAPS];
const TABLES_BY_NUMBER: &[ByNumber] =
    &[POSITION_RUNS, AUDIT, IGNORED, DEAD, SOURCES, TOTALS, DEDUP_LOG, DEDUP_KEYS, DEDUP_GENERATIONS];

/// About what a dead letter takes in memory beside its record.
const LETTER_BYTES: usize = 250;

/// The numbers that go with the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Every journal record up to here is folded.
    pub cursor: Seq,
    /// Time of the newest folded record.
    pub folded_at: Timestamp,
    /// Last ledger number.
    pub ledger: u64,
    /// Link of the last audit entry.
    pub link: Link,
    /// Last number of an ignored report.
    pub ignored: u64,
    /// Last id of a dead letter.
    pub dead: u64,
    /// The policy in force, as it stands in the journal; empty before the first.
    pub policy: String,
    /// Names of sources and warehouses by number.
    pub sources: Names,
    /// The same for warehouses.
    pub warehouses: Names,
}

impl Meta {
    fn encode(&self, dedup_newest: Timestamp) -> Vec<u8> {
        let mut w = Writer::with_capacity(256 + self.policy.len());
        w.u64(self.cursor).time(self.folded_at).u64(self.ledger).raw(&self.link).u64(self.ignored).u64(self.dead);
        w.time(dedup_newest).text(&self.policy).bytes(&self.sources.encode()).bytes(&self.warehouses.encode());
        w.finish()
    }

    fn decode(bytes: &[u8]) -> Result<(Self, Timestamp), StoreError> {
        let mut r = Reader::new(bytes);
        let (cursor, folded_at) = (r.u64("cursor")?, r.time("folded at")?);
        let (ledger, link) = (r.u64("ledger")?, r.array("link")?);
        let (ignored, dead) = (r.u64("ignored")?, r.u64("dead")?);
        let (dedup_newest, policy) = (r.time("dedup newest")?, r.text("policy")?.to_owned());
        let (sources, warehouses) = (Names::decode(r.bytes("sources")?)?, Names::decode(r.bytes("warehouses")?)?);
        r.end("meta")?;
        Ok((Self { cursor, folded_at, ledger, link, ignored, dead, policy, sources, warehouses }, dedup_newest))
    }
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            cursor: 0,
            folded_at: Timestamp::default(),
            ledger: 0,
            link: GENESIS,
            ignored: 0,
            dead: 0,
            policy: String::new(),
            sources: Names::default(),
            warehouses: Names::default(),
        }
    }
}

/// The file as of the last checkpoint.
struct View {
    positions: Positions,
    audit: ReadOnlyTable<u64, Bytes>,
    ignored: ReadOnlyTable<u64, Bytes>,
    dead: ReadOnlyTable<u64, Bytes>,
    items: ReadOnlyTable<Bytes, Bytes>,
    locations: ReadOnlyTable<Bytes, Bytes>,
    item_maps: ReadOnlyTable<Bytes, Bytes>,
    dedup_keys: ReadOnlyTable<u64, Bytes>,
}

impl View {
    fn open(database: &Database, before: Option<&Self>) -> Result<Self, StoreError> {
        let t = database.begin_read()?;
        Ok(Self {
            positions: Positions::open(&t, before.map(|before| &before.positions))?,
            audit: t.open_table(AUDIT)?,
            ignored: t.open_table(IGNORED)?,
            dead: t.open_table(DEAD)?,
            items: t.open_table(ITEMS)?,
            locations: t.open_table(LOCATIONS)?,
            item_maps: t.open_table(ITEM_MAPS)?,
            dedup_keys: t.open_table(DEDUP_KEYS)?,
        })
    }
}

/// The open file, and what it holds.
struct Files {
    database: Arc<Database>,
    view: View,
}

fn files(open: Option<&Files>) -> Result<&Files, StoreError> {
    open.ok_or_else(|| StoreError::Io("the state could not be written and is being reopened".to_owned()))
}

fn view(open: Option<&Files>) -> Result<&View, StoreError> {
    files(open).map(|files| &files.view)
}

/// A change of an effective level, for the ledger. The state gives it its number and its link.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// When the delivery arrived, by our clock.
    pub at: Timestamp,
    /// The warehouse's number.
    pub warehouse: u16,
    /// The SKU.
    pub sku: &'a str,
    /// The number before; `None` for the first.
    pub before: Option<Value>,
    /// The number now.
    pub after: Value,
    /// Why it was taken.
    pub rule: Rule,
    /// Number of the source whose word counts now.
    pub source: u16,
    /// The journal record that carried it.
    pub record: Seq,
    /// The delivery's id as people see it.
    pub delivery: &'a str,
    /// Ledger number of the previous entry of the same position, 0 for the first.
    pub previous: u64,
}

/// Key of a fetch task: its source and the adapter's name for the resource.
pub type TaskKey = (u16, Box<str>);

/// The fold of the journal up to [`Meta::cursor`].
pub struct State {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    cache: usize,
    /// `None` after a failed write, until [`State::reopen`] succeeds.
    files: Option<Files>,
    /// What a checkpoint is writing.
    frozen: Option<Arc<Frozen>>,
    /// Numbers and names.
    pub meta: Meta,
    /// Delivery keys.
    dedup: Dedup,
    positions: Hot,
    audit: Log,
    ignored: Log,
    dead: BTreeMap<u64, Option<DeadLetter>>,
    dead_counts: BTreeMap<Cause, u64>,
    parked: BTreeMap<(u16, Box<str>), BTreeSet<u64>>,
    tasks: BTreeMap<TaskKey, FetchTask>,
    tasks_changed: BTreeSet<TaskKey>,
    /// Items and locations learnt since the journal began (catalogues, people); `true`: not written yet.
    items: Learnt,
    locations: Learnt,
    item_parts: UnwrittenParts,
    source_rows: Vec<SourceRow>,
    totals: Vec<Totals>,
    records_since_checkpoint: u64,
    /// About how much memory is held by dead letters that are not written yet.
    unwritten_letters: usize,
    changed: bool,
}

impl State {
    /// Open or create the state in a data directory; refuse one that a newer release has written.
    pub fn open(data: &Path, cache: usize) -> Result<Self, StoreError> {
        super::release::check(data)?;
        Self::open_with(data, cache, DEDUP_GENERATION_KEYS)
    }

    /// The same with smaller dedup generations, for tests.
    pub fn open_with(data: &Path, cache: usize, generation: usize) -> Result<Self, StoreError> {
        Self::open_on(disk::real(), data, cache, generation)
    }

    /// The same on another disk.
    pub fn open_on(disk: Arc<dyn Disk>, data: &Path, cache: usize, generation: usize) -> Result<Self, StoreError> {
        let path = super::state_path(data);
        let database = file::open_or_make(&*disk, &path, cache)?;
        let read = database.begin_read()?;
        let (meta, dedup_newest) = match read.open_table(META)?.get("state")? {
            Some(row) => Meta::decode(row.value())?,
            None => (Meta::default(), Timestamp::default()),
        };
        let numbered = |table: ByNumber| -> Result<Vec<NumberedRow>, StoreError> {
            let rows = read.open_table(table)?;
            let owned = rows.range::<u64>(..)?.map(|row| {
                let (key, value) = row?;
                Ok((key.value(), value.value().to_vec()))
            });
            Ok(owned.collect())
        };
        let dedup = Dedup::load(
            generation,
            numbered(DEDUP_GENERATIONS)?.into_iter(),
            numbered(DEDUP_LOG)?.into_iter(),
            dedup_newest,
        )?;
        let source_rows = numbered(SOURCES)?.into_iter().map(|r| decode_source(&r?.1)).collect::<Result<_, _>>()?;
        let totals = numbered(TOTALS)?.into_iter().map(|r| decode_totals(&r?.1)).collect::<Result<_, _>>()?;
        let mut tasks = BTreeMap::new();
        for row in read.open_table(TASKS)?.range::<&[u8]>(..)? {
            let (key, value) = row?;
            let task = decode_task(value.value())?;
            let source = u16::from_be_bytes(Reader::new(key.value()).array("source")?);
            tasks.insert((source, task.need.key.clone()), task);
        }
        let mut state = Self {
            disk,
            path,
            cache,
            files: Some(Files { view: View::open(&database, None)?, database: Arc::new(database) }),
            frozen: None,
            meta,
            dedup,
            positions: Hot::default(),
            audit: log_of(&read, AUDIT)?,
            ignored: log_of(&read, IGNORED)?,
            dead: BTreeMap::new(),
            dead_counts: BTreeMap::new(),
            parked: BTreeMap::new(),
            tasks,
            tasks_changed: BTreeSet::new(),
            items: HashMap::new(),
            locations: HashMap::new(),
            item_parts: UnwrittenParts::default(),
            source_rows,
            totals,
            records_since_checkpoint: 0,
            unwritten_letters: 0,
            changed: false,
        };
        state.index_dead_letters()?;
        Ok(state)
    }

    fn index_dead_letters(&mut self) -> Result<(), StoreError> {
        let mut found = Vec::new();
        for row in view(self.files.as_ref())?.dead.range::<u64>(..)? {
            let (id, value) = row?;
            let letter = decode_dead(value.value())?;
            found.push((id.value(), letter.source, letter.cause, letter.waits_for));
        }
        for (id, source, cause, waits_for) in found {
            *self.dead_counts.entry(cause).or_default() += 1;
            if cause.parked() {
                self.parked.entry((source, waits_for.into())).or_default().insert(id);
            }
        }
        Ok(())
    }

    /// A record was folded: move the cursor.
    pub fn advance(&mut self, seq: Seq, at: Timestamp) {
        self.meta.cursor = seq;
        self.meta.folded_at = self.meta.folded_at.max(at);
        self.records_since_checkpoint += 1;
        self.changed = true;
    }

    /// Number of a source name, given now if it is new.
    pub fn source_number(&mut self, name: &str) -> u16 {
        let number = self.meta.sources.number(name).unwrap_or(u16::MAX);
        if self.source_rows.len() <= usize::from(number) {
            self.source_rows.resize(usize::from(number) + 1, SourceRow::default());
        }
        number
    }

    /// Number of a warehouse name, given now if it is new.
    pub fn warehouse_number(&mut self, name: &str) -> u16 {
        let number = self.meta.warehouses.number(name).unwrap_or(u16::MAX);
        if self.totals.len() <= usize::from(number) {
            self.totals.resize(usize::from(number) + 1, Totals::default());
        }
        number
    }

    /// A source's figures, to change.
    pub fn source_row(&mut self, number: u16) -> &mut SourceRow {
        let index = usize::from(number);
        if self.source_rows.len() <= index {
            self.source_rows.resize(index + 1, SourceRow::default());
        }
        self.source_rows.get_mut(index).expect("just made long enough")
    }

    /// A warehouse's totals, to change.
    pub fn totals_mut(&mut self, number: u16) -> &mut Totals {
        let index = usize::from(number);
        if self.totals.len() <= index {
            self.totals.resize(index + 1, Totals::default());
        }
        self.totals.get_mut(index).expect("just made long enough")
    }

    /// Is this delivery known?
    pub fn known_delivery(&self, key: &Key) -> Result<Option<Known>, StoreError> {
        let look = |row, at: &dyn Fn(&[u8]) -> Option<Known>| {
            Ok(view(self.files.as_ref())?.dedup_keys.get(row)?.and_then(|row| at(row.value())))
        };
        self.dedup.find(key, look)
    }

    /// Remember a delivery.
    pub fn remember_delivery(&mut self, key: Key, known: Known, at: Timestamp) {
        self.dedup.insert(key, known, at);
    }

    /// Forget deliveries older than the window.
    pub fn expire_deliveries(&mut self, now: Timestamp, window: std::time::Duration) {
        self.dedup.expire(now, window);
    }

    /// A position.
    pub fn position(&self, key: &PositionKey) -> Result<Option<Position>, StoreError> {
        let key = key.encode();
        if let Some(row) = self.positions.get(&key).or_else(|| self.frozen.as_ref()?.positions.get(&key)) {
            return decode_position(row).map(Some);
        }
        view(self.files.as_ref())?.positions.get(&key, decode_position)
    }

    /// Put a position.
    pub fn put_position(&mut self, key: &PositionKey, position: &Position) {
        self.positions.put(&key.encode(), &encode_position(position));
    }

    /// Append an audit entry: it gets the next ledger number and its link. Returns the number.
    pub fn append_audit(&mut self, change: &NewEntry<'_>) -> u64 {
        self.meta.ledger += 1;
        let entry = Entry {
            ledger: self.meta.ledger,
            at: change.at,
            warehouse: self.meta.warehouses.name(change.warehouse),
            sku: change.sku,
            before: change.before,
            after: change.after,
            rule: change.rule,
            source: self.meta.sources.name(change.source),
            record: change.record,
            delivery: change.delivery,
            previous: change.previous,
        };
        let link = entry.link(&self.meta.link);
        self.audit.push(entry.ledger, &encode_audit(&entry, change.warehouse, change.source, link_mark(&link)));
        self.meta.link = link;
        self.meta.ledger
    }

    /// Append an ignored report. Returns its number.
    pub fn append_ignored(&mut self, row: &IgnoredRow) -> u64 {
        self.meta.ignored += 1;
        self.ignored.push(self.meta.ignored, &encode_ignored(row));
        self.meta.ignored
    }

    /// Bury a dead letter. Returns its id.
    pub fn bury(&mut self, letter: DeadLetter) -> u64 {
        self.meta.dead += 1;
        let id = self.meta.dead;
        self.unwritten_letters += LETTER_BYTES;
        if let Remains::Record(bytes) = &letter.remains {
            self.unwritten_letters += bytes.len();
        }
        *self.dead_counts.entry(letter.cause).or_default() += 1;
        if letter.cause.parked() {
            self.parked.entry((letter.source, letter.waits_for.as_str().into())).or_default().insert(id);
        }
        self.dead.insert(id, Some(letter));
        id
    }

    /// Take a dead letter away (retried, dropped, or applied by itself).
    pub fn unbury(&mut self, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        let Some(letter) = self.dead_letter(id)? else { return Ok(None) };
        self.dead.insert(id, None);
        if let Some(count) = self.dead_counts.get_mut(&letter.cause) {
            *count = count.saturating_sub(1);
        }
        let key = (letter.source, Box::from(letter.waits_for.as_str()));
        if let Some(ids) = self.parked.get_mut(&key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.parked.remove(&key);
            }
        }
        Ok(Some(letter))
    }

    /// Ids of the dead letters of a source that wait for this item or location, oldest first.
    pub fn parked_for(&self, source: u16, waits_for: &str) -> Vec<u64> {
        self.parked.get(&(source, waits_for.into())).map(|ids| ids.iter().copied().collect()).unwrap_or_default()
    }

    /// Everything that waits: (source, item or location), in order.
    pub fn all_parked(&self) -> Vec<(u16, Box<str>)> {
        self.parked.keys().cloned().collect()
    }

    /// The SKU that a catalogue or a person gave an item.
    pub fn item(&mut self, source: u16, item: &str) -> Result<Option<Sku>, StoreError> {
        learnt(&mut self.items, &view(self.files.as_ref())?.items, source, item)
            .map(|sku| sku.and_then(|text| Sku::new(&text).ok()))
    }

    /// Remember an item's SKU; true when it is new or another one.
    pub fn learn_item(&mut self, source: u16, item: &str, sku: &Sku) -> Result<bool, StoreError> {
        let known = learnt(&mut self.items, &view(self.files.as_ref())?.items, source, item)?;
        if known.as_deref() == Some(sku.as_str()) {
            return Ok(false);
        }
        self.items.insert((source, item.into()), (Some(sku.as_str().into()), true));
        Ok(true)
    }

    /// The warehouse that a person gave a location.
    pub fn location(&mut self, source: u16, location: &str) -> Result<Option<Box<str>>, StoreError> {
        learnt(&mut self.locations, &view(self.files.as_ref())?.locations, source, location)
    }

    /// Remember a location's warehouse.
    pub fn learn_location(&mut self, source: u16, location: &str, warehouse: &str) {
        self.locations.insert((source, location.into()), (Some(warehouse.into()), true));
    }

    /// Ask for a fetch: one task per resource, with the earliest window and the newest notification.
    pub fn want(&mut self, source: u16, need: Need, record: Seq, at: Timestamp) {
        let key = (source, need.key.clone());
        self.tasks_changed.insert(key.clone());
        match self.tasks.get_mut(&key) {
            Some(task) => {
                // a dead letter that is tried again asks for an older record
                task.last = task.last.max(record);
                task.need.from = match (task.need.from, need.from) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (from, None) | (None, from) => from,
                };
            }
            None => {
                self.tasks.insert(key, FetchTask { need, first: record, last: record, since: at });
            }
        }
    }

    /// A fetch was answered (or given up): the task ends unless a notification came after the request was sent.
    pub fn answered(&mut self, source: u16, key: &str, answers: Seq) {
        let key = (source, Box::from(key));
        if self.tasks.get(&key).is_some_and(|task| task.last <= answers) {
            self.tasks.remove(&key);
            self.tasks_changed.insert(key);
        }
    }
}

type NumberedRow = Result<(u64, Vec<u8>), StoreError>;

type Learnt = HashMap<(u16, Box<str>), (Option<Box<str>>, bool)>;

/// Look a name up in memory, then in the file; both answers are remembered.
fn learnt(
    memory: &mut Learnt,
    table: &ReadOnlyTable<Bytes, Bytes>,
    source: u16,
    name: &str,
) -> Result<Option<Box<str>>, StoreError> {
    let key = (source, Box::from(name));
    if let Some((known, _)) = memory.get(&key) {
        return Ok(known.clone());
    }
    let found = match table.get(source_key(source, name).as_slice())? {
        Some(row) => Some(Reader::new(row.value()).text("learnt name")?.into()),
        None => None,
    };
    memory.insert(key, (found.clone(), false));
    Ok(found)
}

fn encode_learnt(name: &str) -> Vec<u8> {
    let mut w = Writer::default();
    w.text(name);
    w.finish()
}

/// Where a log's rows go on.
fn log_of(read: &ReadTransaction, table: ByNumber) -> Result<Log, StoreError> {
    let table = read.open_table(table)?;
    let last = table.last()?;
    Ok(Log::after(last.as_ref().map(|(first, block)| (first.value(), block.value()))))
}

/// A row of a log, in the file.
fn logged(table: &ReadOnlyTable<u64, Bytes>, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let Some((first, block)) = table.range(..=number)?.next_back().transpose()? else { return Ok(None) };
    Ok(log::find(first.value(), block.value(), number)?.map(<[u8]>::to_vec))
}

/// The part of a link that stands beside its entry.
fn link_mark(link: &Link) -> LinkMark {
    let mut mark = LinkMark::default();
    mark.copy_from_slice(link.split_at(size_of::<LinkMark>()).0);
    mark
}
