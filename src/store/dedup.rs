//! Delivery keys, in generations.
//!
//! The open generation is a list with an index in memory and an append-only log on disk (fixed chunks, so its bytes do not depend on when
//! checkpoints happened). When it is full it is sealed: sorted, cut into chunks, and given a binary fuse filter, which stays
//! in memory with the first key of each chunk. A look-up asks the map, then the filters; a hit costs one row. Whole
//! generations age out: nothing is ever removed key by key.
//!
//! | table | key | row |
//! |---|---|---|
//! | `dedup-log` | generation << 32 + chunk | up to 126 entries in order of arrival |
//! | `dedup-keys` | generation << 32 + chunk | up to 126 entries in order of key |
//! | `dedup-generations` | generation | newest time, count, first keys, filter |
//!
//! An entry has 32 bytes: key 16, body digest 8, journal record 8.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;

use super::StoreError;
use super::codec::{Reader, Writer};
use super::filter::{Filter, Filters};
use crate::time::Timestamp;
use crate::types::Seq;

/// Entries in one row of the log: fits a 4 KiB page with its key.
const LOG_CHUNK: usize = 126;
/// Entries in one sorted row: fits a 4 KiB page with its key.
const KEYS_CHUNK: usize = 126;
const ENTRY_BYTES: usize = 32;
/// Sealed generations kept at most; the oldest goes first. 128 of them hold 16.8 million deliveries.
pub const GENERATIONS_MAX: usize = 128;

/// A delivery's key (see `types::DeliveryKey::Named`).
pub type Key = [u8; 16];

/// What is remembered of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Digest of its body.
    pub digest: [u8; 8],
    /// Its journal record.
    pub record: Seq,
}

/// Keys are hashes already: their first eight bytes will do.
fn short(key: &Key) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(key.split_at(8).0);
    u64::from_le_bytes(first)
}

/// A full generation.
#[derive(Debug)]
struct Sealed {
    newest: Timestamp,
    count: u64,
    /// First eight bytes (big-endian order) of the first key of each chunk.
    firsts: Vec<[u8; 8]>,
}

/// All generations.
pub struct Dedup {
    capacity: usize,
    open: u64,
    /// The open generation in order of arrival, in rows of its log, and where each key stands in it.
    log: Vec<Entries>,
    index: HashTable<u32>,
    newest: Timestamp,
    /// Entries of the log that are on disk already.
    logged: usize,
    sealed: BTreeMap<u64, Sealed>,
    /// Of the sealed ones.
    filters: Filters,
    /// Sealed and not in the file yet; and dropped since the last checkpoint.
    newly_sealed: Vec<NewlySealed>,
    dropped: Vec<Dropped>,
}

type Entries = Arc<Vec<(Key, Known)>>;

/// A generation that is not in the file yet.
#[derive(Clone)]
struct NewlySealed {
    generation: u64,
    /// Its row of `dedup-generations`.
    row: Arc<Vec<u8>>,
    /// In order of key.
    entries: Entries,
}

/// What a checkpoint writes of it, taken at one moment.
#[derive(Clone)]
pub struct Unwritten {
    capacity: usize,
    dropped: Vec<Dropped>,
    sealed: Vec<NewlySealed>,
    /// The generation that was open, how many entries it had, and the rows of its log from this one on.
    open: u64,
    logged: usize,
    chunk: usize,
    tail: Vec<Entries>,
}

/// A generation that aged out since the last checkpoint.
#[derive(Debug, Clone, Copy)]
struct Dropped {
    generation: u64,
    /// Rows of `dedup-keys`.
    chunks: usize,
    /// It was sealed since the last checkpoint, too: its log may be on disk.
    logged: bool,
}

/// A table of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `dedup-log`.
    Log,
    /// `dedup-keys`.
    Keys,
    /// `dedup-generations`.
    Generations,
}

fn row_key(generation: u64, chunk: usize) -> u64 {
    (generation << 32) | chunk as u64
}

fn put_entry(out: &mut Vec<u8>, (key, known): &(Key, Known)) {
    out.extend(key);
    out.extend(known.digest);
    out.extend(known.record.to_be_bytes());
}

/// Give `put` rows of entries, numbered from `first` on.
fn put_rows<'a>(
    generation: u64,
    rows: impl Iterator<Item = &'a [(Key, Known)]>,
    first: usize,
    mut put: impl FnMut(u64, Option<&[u8]>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut bytes = Vec::with_capacity(LOG_CHUNK.max(KEYS_CHUNK) * ENTRY_BYTES);
    for (chunk, row) in (first..).zip(rows) {
        bytes.clear();
        for entry in row {
            put_entry(&mut bytes, entry);
        }
        put(row_key(generation, chunk), Some(&bytes))?;
    }
    Ok(())
}

/// An entry of the open generation.
fn entry(log: &[Entries], index: u32) -> Option<&(Key, Known)> {
    log.get(index as usize / LOG_CHUNK)?.get(index as usize % LOG_CHUNK)
}

fn entries(row: &[u8]) -> impl Iterator<Item = (Key, Known)> + '_ {
    row.chunks_exact(ENTRY_BYTES).filter_map(|entry| {
        let mut r = Reader::new(entry);
        let key = r.array("key").ok()?;
        Some((key, Known { digest: r.array("digest").ok()?, record: r.u64("record").ok()? }))
    })
}

/// An entry of a row that is in order of key.
fn find_entry(row: &[u8], key: &Key) -> Option<Known> {
    let (all, _) = row.as_chunks::<ENTRY_BYTES>();
    let found = all.binary_search_by(|entry| entry.split_at(key.len()).0.cmp(key)).ok()?;
    entries(all.get(found)?).next().map(|(_, known)| known)
}

impl Dedup {
    /// Empty, with so many keys in a generation.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            open: 0,
            log: Vec::new(),
            index: HashTable::new(),
            newest: Timestamp::default(),
            logged: 0,
            sealed: BTreeMap::new(),
            filters: Filters::default(),
            newly_sealed: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Keys in a generation.
    pub fn generation_keys(&self) -> usize {
        self.capacity
    }

    /// Restore from the rows of `dedup-generations` and `dedup-log`.
    pub fn load(
        capacity: usize,
        generations: impl Iterator<Item = Result<(u64, Vec<u8>), StoreError>>,
        log: impl Iterator<Item = Result<(u64, Vec<u8>), StoreError>>,
        newest: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut dedup = Self::new(capacity);
        dedup.newest = newest;
        for row in generations {
            let (generation, bytes) = row?;
            let (sealed, filter) = Sealed::decode(&bytes)?;
            dedup.sealed.insert(generation, sealed);
            dedup.filters.push(generation, filter);
            dedup.open = generation + 1;
        }
        for row in log {
            let (key, bytes) = row?;
            dedup.open = key >> 32;
            for (key, known) in entries(&bytes) {
                dedup.push(key, known);
            }
        }
        dedup.logged = dedup.index.len();
        Ok(dedup)
    }

    /// Is the key known? `look` shows a row of `dedup-keys`, if it is there.
    pub fn find(
        &self,
        key: &Key,
        look: impl Fn(u64, &dyn Fn(&[u8]) -> Option<Known>) -> Result<Option<Known>, StoreError>,
    ) -> Result<Option<Known>, StoreError> {
        let hash = short(key);
        if let Some(index) = self.index.find(hash, |index| entry(&self.log, *index).is_some_and(|(known, _)| known == key)) {
            return Ok(entry(&self.log, *index).map(|(_, known)| *known));
        }
        for generation in self.filters.that_may_hold(hash) {
            let Some(sealed) = self.sealed.get(&generation) else { continue };
            if let Some(unwritten) = self.newly_sealed.iter().find(|newly| newly.generation == generation) {
                if let Ok(index) = unwritten.entries.binary_search_by_key(key, |(key, _)| *key) {
                    return Ok(unwritten.entries.get(index).map(|(_, known)| *known));
                }
                continue;
            }
            let known = look(row_key(generation, sealed.chunk_of(key)), &|row| find_entry(row, key))?;
            if known.is_some() {
                return Ok(known);
            }
        }
        Ok(None)
    }

    /// Remember a new key. The generation is sealed when this fills it.
    pub fn insert(&mut self, key: Key, known: Known, at: Timestamp) {
        self.push(key, known);
        self.newest = self.newest.max(at);
        if self.index.len() >= self.capacity {
            self.seal();
        }
    }

    fn push(&mut self, key: Key, known: Known) {
        let index = u32::try_from(self.index.len()).expect("a generation is far smaller");
        if self.log.last().is_none_or(|row| row.len() >= LOG_CHUNK) {
            self.log.push(Arc::new(Vec::with_capacity(LOG_CHUNK)));
        }
        let row = self.log.last_mut().expect("there is one now");
        // a row that a checkpoint is writing is copied, once
        Arc::make_mut(row).push((key, known));
        let log = &self.log;
        self.index.insert_unique(short(&key), index, |index| entry(log, *index).map_or(0, |(key, _)| short(key)));
    }

    /// Forget generations whose newest key is older than the window, or that are too many.
    pub fn expire(&mut self, now: Timestamp, window: Duration) {
        while let Some((generation, sealed)) = self.sealed.first_key_value() {
            let generation = *generation;
            if self.sealed.len() <= GENERATIONS_MAX && now.since(sealed.newest) <= window {
                break;
            }
            let chunks = sealed.firsts.len();
            self.sealed.remove(&generation);
            self.filters.remove(generation);
            let before = self.newly_sealed.len();
            self.newly_sealed.retain(|newly| newly.generation != generation);
            let logged = self.newly_sealed.len() < before;
            self.dropped.push(Dropped { generation, chunks, logged });
        }
    }

    /// Keys remembered in all.
    pub fn len(&self) -> u64 {
        self.index.len() as u64 + self.sealed.values().map(|s| s.count).sum::<u64>()
    }

    /// No key is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The newest time among the open generation's keys.
    pub fn newest(&self) -> Timestamp {
        self.newest
    }

    /// Bytes of entries that were sealed since this was taken: they are held until a checkpoint has written them.
    pub fn sealed_bytes(&self, under_way: Option<&Unwritten>) -> usize {
        let from = under_way.map_or(0, |unwritten| unwritten.open);
        let since = self.newly_sealed.iter().filter(|newly| newly.generation >= from);
        since.map(|newly| newly.entries.len() * ENTRY_BYTES).sum()
    }

    fn seal(&mut self) {
        let mut sorted = Vec::with_capacity(self.index.len());
        // row by row, so that they are not there twice
        self.log.drain(..).for_each(|row| sorted.extend_from_slice(&row));
        sorted.sort_unstable_by_key(|(key, _)| *key);
        let sealed = Sealed {
            newest: self.newest,
            count: sorted.len() as u64,
            firsts: sorted.chunks(KEYS_CHUNK).filter_map(|part| part.first()).map(|(key, _)| first_bytes(key)).collect(),
        };
        let filter = Filter::of(sorted.iter().map(|(key, _)| short(key)).collect());
        let row = Arc::new(sealed.encode(&filter));
        self.newly_sealed.push(NewlySealed { generation: self.open, row, entries: Arc::new(sorted) });
        self.sealed.insert(self.open, sealed);
        self.filters.push(self.open, filter);
        self.index.clear();
        self.logged = 0;
        self.open += 1;
        self.newest = Timestamp::default();
    }

    /// Take what has to be written so that [`Dedup::load`] finds everything. One at a time: [`Dedup::written`] or [`Dedup::not_written`]
    /// ends it.
    pub fn unwritten(&mut self) -> Unwritten {
        let chunk = self.logged / LOG_CHUNK;
        Unwritten {
            capacity: self.capacity,
            dropped: std::mem::take(&mut self.dropped),
            sealed: self.newly_sealed.clone(),
            open: self.open,
            logged: self.index.len(),
            chunk,
            tail: self.log.get(chunk..).unwrap_or_default().to_vec(),
        }
    }

    /// It is in the file.
    pub fn written(&mut self, unwritten: &Unwritten) {
        self.newly_sealed.retain(|newly| newly.generation >= unwritten.open);
        if self.open == unwritten.open {
            self.logged = unwritten.logged;
        }
    }

    /// It could not be written.
    pub fn not_written(&mut self, mut unwritten: Unwritten) {
        unwritten.dropped.append(&mut self.dropped);
        self.dropped = unwritten.dropped;
    }
}

impl Unwritten {
    /// Give `put` the table, the row's key, the row (`None`: remove it).
    pub fn rows(&self, mut put: impl FnMut(Table, u64, Option<&[u8]>) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let log_rows = |generation| (0..self.capacity.div_ceil(LOG_CHUNK)).map(move |chunk| row_key(generation, chunk));
        for Dropped { generation, chunks, logged } in &self.dropped {
            if *logged {
                log_rows(*generation).try_for_each(|key| put(Table::Log, key, None))?;
            }
            put(Table::Generations, *generation, None)?;
            (0..*chunks).try_for_each(|chunk| put(Table::Keys, row_key(*generation, chunk), None))?;
        }
        for NewlySealed { generation, row, entries } in &self.sealed {
            log_rows(*generation).try_for_each(|key| put(Table::Log, key, None))?;
            put(Table::Generations, *generation, Some(row))?;
            put_rows(*generation, entries.chunks(KEYS_CHUNK), 0, |key, row| put(Table::Keys, key, row))?;
        }
        put_rows(self.open, self.tail.iter().map(|row| row.as_slice()), self.chunk, |key, row| put(Table::Log, key, row))
    }
}

fn first_bytes(key: &Key) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(key.split_at(8).0);
    first
}

impl Sealed {
    fn chunk_of(&self, key: &Key) -> usize {
        let first = first_bytes(key);
        self.firsts.partition_point(|f| *f <= first).saturating_sub(1)
    }

    fn encode(&self, filter: &Filter) -> Vec<u8> {
        let mut w = Writer::with_capacity(filter.bytes() + self.firsts.len() * 8 + 64);
        w.time(self.newest).count(self.count).count(self.firsts.len() as u64);
        for first in &self.firsts {
            w.raw(first);
        }
        filter.encode(&mut w);
        w.finish()
    }

    fn decode(bytes: &[u8]) -> Result<(Self, Filter), StoreError> {
        let mut r = Reader::new(bytes);
        let (newest, count) = (r.time("newest")?, r.count("count")?);
        let chunks: usize = r.small("chunks")?;
        let firsts = (0..chunks).map(|_| r.array("first key")).collect::<Result<_, _>>()?;
        let filter = Filter::decode(&mut r)?;
        r.end("generation")?;
        Ok((Self { newest, count, firsts }, filter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;

    /// Tables as the state would keep them.
    #[derive(Default)]
    struct Disk(RefCell<(Rows, Rows, Rows)>);
    type Rows = BTreeMap<u64, Vec<u8>>;

    impl Disk {
        fn checkpoint(&self, dedup: &mut Dedup) {
            let mut tables = self.0.borrow_mut();
            let put = |table, key, row: Option<&[u8]>| {
                let rows = match table {
                    super::Table::Log => &mut tables.0,
                    super::Table::Keys => &mut tables.1,
                    super::Table::Generations => &mut tables.2,
                };
                match row {
                    Some(row) => rows.insert(key, row.to_vec()),
                    None => rows.remove(&key),
                };
                Ok(())
            };
            let unwritten = dedup.unwritten();
            unwritten.rows(put).expect("a map takes everything");
            dedup.written(&unwritten);
        }

        #[expect(clippy::unnecessary_wraps, reason = "the shape that `find` wants")]
        fn look(&self, key: u64, at: &dyn Fn(&[u8]) -> Option<Known>) -> Result<Option<Known>, StoreError> {
            Ok(self.0.borrow().1.get(&key).and_then(|row| at(row)))
        }

        fn load(&self, capacity: usize, newest: Timestamp) -> Dedup {
            let tables = self.0.borrow();
            let rows = |t: &BTreeMap<u64, Vec<u8>>| t.clone().into_iter().map(Ok).collect::<Vec<_>>().into_iter();
            Dedup::load(capacity, rows(&tables.2), rows(&tables.0), newest).expect("loads")
        }
    }

    fn key(n: u64) -> Key {
        let digest = ring::digest::digest(&ring::digest::SHA256, &n.to_be_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&digest.as_ref()[..16]);
        key
    }

    fn known(n: u64) -> Known {
        Known { digest: n.to_be_bytes(), record: n }
    }

    #[test]
    fn every_key_is_found_through_sealing_checkpoints_and_restarts() {
        let disk = Disk::default();
        let mut dedup = Dedup::new(1000);
        for n in 0..5_500 {
            assert_eq!(dedup.find(&key(n), |row, at| disk.look(row, at)).expect("reads"), None, "{n} is new");
            dedup.insert(key(n), known(n), Timestamp(n.cast_signed()));
            if n % 700 == 0 {
                disk.checkpoint(&mut dedup);
            }
            if n % 1900 == 0 {
                disk.checkpoint(&mut dedup);
                dedup = disk.load(1000, dedup.newest());
            }
        }
        for n in 0..5_500 {
            assert_eq!(dedup.find(&key(n), |row, at| disk.look(row, at)).expect("reads"), Some(known(n)), "{n}");
        }
        assert_eq!(dedup.len(), 5_500);
        assert_eq!(dedup.find(&key(1 << 40), |row, at| disk.look(row, at)).expect("reads"), None);
    }

    #[test]
    fn a_key_is_found_among_many_generations_until_its_own_ages_out() {
        let disk = Disk::default();
        let mut dedup = Dedup::new(60);
        for n in 0..6_000 {
            dedup.insert(key(n), known(n), Timestamp::from_seconds(n.cast_signed()));
        }
        disk.checkpoint(&mut dedup);
        dedup.expire(Timestamp::from_seconds(6_000), Duration::from_secs(4_000));
        disk.checkpoint(&mut dedup);
        for dedup in [&dedup, &disk.load(60, dedup.newest())] {
            for n in 0..6_000 {
                let found = dedup.find(&key(n), |row, at| disk.look(row, at)).expect("reads");
                assert_eq!(found, (n >= 1_980).then(|| known(n)), "{n}");
            }
        }
    }

    #[test]
    fn old_generations_are_dropped_whole_and_their_rows_removed() {
        let disk = Disk::default();
        let mut dedup = Dedup::new(500);
        for n in 0..1_600 {
            dedup.insert(key(n), known(n), Timestamp::from_seconds(n.cast_signed()));
        }
        disk.checkpoint(&mut dedup);
        dedup.expire(Timestamp::from_seconds(1_600), Duration::from_secs(500));
        disk.checkpoint(&mut dedup);
        assert_eq!(dedup.find(&key(3), |row, at| disk.look(row, at)).expect("reads"), None);
        assert!(dedup.find(&key(1_001), |row, at| disk.look(row, at)).expect("reads").is_some());
        assert_eq!(disk.0.borrow().2.len(), 1, "one sealed generation is left");
        assert!(disk.0.borrow().1.keys().all(|k| k >> 32 == 2));
    }

    #[test]
    fn a_generation_that_ages_out_before_its_sealing_was_written_leaves_no_log_behind() {
        let disk = Disk::default();
        let mut dedup = Dedup::new(500);
        for n in 0..400 {
            dedup.insert(key(n), known(n), Timestamp(0));
        }
        disk.checkpoint(&mut dedup);
        for n in 400..600 {
            dedup.insert(key(n), known(n), Timestamp(0));
        }
        dedup.expire(Timestamp::from_seconds(1_000), Duration::from_secs(10));
        disk.checkpoint(&mut dedup);
        assert!(disk.0.borrow().0.keys().all(|k| k >> 32 == 1), "only the open generation has a log");
        assert_eq!(disk.load(500, dedup.newest()).len(), 100);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// The rows do not depend on when checkpoints happen.
        #[test]
        fn rows_are_the_same_whatever_the_checkpoints(cuts in proptest::collection::vec(any::<bool>(), 900)) {
            let (often, once) = (Disk::default(), Disk::default());
            let (mut a, mut b) = (Dedup::new(300), Dedup::new(300));
            for (n, cut) in cuts.into_iter().enumerate() {
                let n = n as u64;
                a.insert(key(n), known(n), Timestamp(1));
                b.insert(key(n), known(n), Timestamp(1));
                if cut {
                    often.checkpoint(&mut a);
                }
            }
            often.checkpoint(&mut a);
            once.checkpoint(&mut b);
            prop_assert_eq!(&*often.0.borrow(), &*once.0.borrow());
        }
    }
}
