//! Positions in the file: a sorted table, and sorted runs of what has changed since it was written.
//!
//! A position takes some fifty bytes, and those that change between two checkpoints lie all over the table: to write fifty thousand
//! of a million in their places writes every page of it. So a checkpoint that changes many of them appends them as a run, in
//! blocks that fill a page. When there are [`RUNS_MAX`] runs the next checkpoint merges all of them into the table, which
//! then writes each page once for all of them. A look-up asks the runs, the newest first, and then the table; a filter in memory
//! says which runs need not be asked, and beside it stands the first key of each block.
//!
//! | table | key | row |
//! |---|---|---|
//! | `positions` | key of a position | position |
//! | `position-runs` | run | how many blocks it has |
//! | `position-blocks` | run, block (eight and four bytes) | a block: keys and positions, each behind its length; where each begins, and how many there are, in two bytes each. Behind the last block: first keys, filter |
//!
//! A run's number is the cursor of its checkpoint: it grows, and no other run ever has it.

use std::cmp::Ordering;
use std::sync::Arc;

use redb::{Range, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::{ByBytes, ByNumber, Bytes, StoreError};
use crate::store::codec::{Reader, Writer, count_bytes};
use crate::store::filter::Filter;

pub(super) const POSITIONS: ByBytes = ByBytes::new("positions");
pub(super) const POSITION_RUNS: ByNumber = ByNumber::new("position-runs");
pub(super) const POSITION_BLOCKS: ByBytes = ByBytes::new("position-blocks");

/// Runs at most: so many filters a look-up may ask, and by so much fewer times the table is written.
const RUNS_MAX: usize = 16;
/// Fewer changes than this are written in their places while there is no run: a run takes five pages at least. Tests have few positions.
const RUN_ROWS_MIN: usize = if cfg!(test) { 2 } else { 512 };
/// ... and so is more than this part of the table: a run of a quarter saves little.
const TABLE_PARTS: u64 = if cfg!(test) { 1 } else { 4 };
/// Bytes of a block: a page of redb's, less what it takes for itself and a key.
const BLOCK_BYTES: usize = if cfg!(test) { 64 } else { 4096 - 24 };

/// A run's index, in memory.
struct Run {
    /// First key of each block, one after the other, and where each ends.
    firsts: Vec<u8>,
    ends: Vec<u32>,
    filter: Filter,
}

impl Run {
    /// The block that holds a key if any does.
    fn block_of(&self, key: &[u8]) -> u32 {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.first(middle) <= key { low = middle + 1 } else { high = middle }
        }
        u32::try_from(low.saturating_sub(1)).expect("as few as they are")
    }

    fn first(&self, block: usize) -> &[u8] {
        let begin = block.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(block).copied().unwrap_or(begin);
        self.firsts.get(begin as usize..end as usize).unwrap_or_default()
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(self.firsts.len() + self.ends.len() * 2 + self.filter.bytes() + 16);
        w.count(self.ends.len() as u64);
        for block in 0..self.ends.len() {
            w.bytes(self.first(block));
        }
        self.filter.encode(&mut w);
        w.finish()
    }

    fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut r = Reader::new(row);
        let blocks: usize = r.small("blocks")?;
        let mut run = RunBuilder::default();
        for _ in 0..blocks {
            run.begin_block(r.bytes("first key")?);
        }
        let filter = Filter::decode(&mut r)?;
        r.end("run")?;
        Ok(Self { firsts: run.firsts, ends: run.ends, filter })
    }
}

/// Spread a key over 64 bits, the same on every machine and in every release: FNV-1a, then the last step of `MurmurHash3`, because
/// a filter needs all bits to be as good as random.
fn hash(key: &[u8]) -> u64 {
    let mut h = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

fn block_key(run: u64, block: u32) -> [u8; 12] {
    let mut key = [0; 12];
    let (head, tail) = key.split_at_mut(8);
    head.copy_from_slice(&run.to_be_bytes());
    tail.copy_from_slice(&block.to_be_bytes());
    key
}

/// Key and row of a position.
type Row<'a> = (&'a [u8], &'a [u8]);

/// Bytes of a number in a block.
const NUMBER_BYTES: usize = 2;

/// Bytes that a row takes in a block.
fn framed(key: &[u8], row: &[u8]) -> usize {
    count_bytes(key.len() as u64) + key.len() + count_bytes(row.len() as u64) + row.len() + NUMBER_BYTES
}

/// The number that stands so many numbers before the end of a block.
fn number(block: &[u8], before_end: usize) -> Option<usize> {
    let at = block.len().checked_sub(before_end * NUMBER_BYTES)?;
    let bytes = block.get(at..)?.first_chunk::<NUMBER_BYTES>()?;
    Some(usize::from(u16::from_be_bytes(*bytes)))
}

/// Rows of a block.
fn rows_of(block: &[u8]) -> Result<usize, StoreError> {
    number(block, 1).ok_or_else(|| StoreError::Row("a block is cut short".to_owned()))
}

/// One of `rows` rows of a block.
fn row_of(block: &[u8], rows: usize, index: usize) -> Result<Row<'_>, StoreError> {
    let begins = number(block, rows.saturating_sub(index) + 1).and_then(|at| block.get(at..));
    let mut r = Reader::new(begins.ok_or_else(|| StoreError::Row("a block is cut short".to_owned()))?);
    Ok((r.bytes("key")?, r.bytes("position")?))
}

/// The position of a key in a block.
fn find<'a>(block: &'a [u8], key: &[u8]) -> Result<Option<&'a [u8]>, StoreError> {
    let rows = rows_of(block)?;
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = low.midpoint(high);
        let (found, row) = row_of(block, rows, middle)?;
        match found.cmp(key) {
            Ordering::Equal => return Ok(Some(row)),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    Ok(None)
}

// ---- reading ------------------------------------------------------------------------------------------------------------

/// The positions of a file as of one moment.
pub(super) struct Positions {
    table: ReadOnlyTable<Bytes, Bytes>,
    blocks: ReadOnlyTable<Bytes, Bytes>,
    /// The newest first.
    runs: Vec<(u64, Arc<Run>)>,
}

impl Positions {
    /// Those of a read transaction. What is `known` of its runs already is not read again.
    pub(super) fn open(read: &ReadTransaction, known: Option<&Self>) -> Result<Self, StoreError> {
        let (table, blocks) = (read.open_table(POSITIONS)?, read.open_table(POSITION_BLOCKS)?);
        let mut runs = Vec::new();
        for row in read.open_table(POSITION_RUNS)?.range::<u64>(..)?.rev() {
            let (number, row) = row?;
            let number = number.value();
            let known = known.and_then(|known| known.runs.iter().find(|(n, _)| *n == number));
            let run = if let Some((_, run)) = known {
                Arc::clone(run)
            } else {
                let count: u32 = Reader::new(row.value()).small("blocks")?;
                let index = blocks.get(&block_key(number, count)[..])?;
                let index = index.ok_or_else(|| StoreError::Row(format!("run {number} has no index")))?;
                Arc::new(Run::decode(index.value())?)
            };
            runs.push((number, run));
        }
        Ok(Self { table, blocks, runs })
    }

    /// A position's row.
    pub(super) fn get<T>(
        &self,
        key: &[u8],
        decode: impl Fn(&[u8]) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let hash = if self.runs.is_empty() { 0 } else { hash(key) };
        for (number, run) in &self.runs {
            if !run.filter.may_hold(hash) {
                continue;
            }
            let Some(block) = self.blocks.get(&block_key(*number, run.block_of(key))[..])? else {
                return Err(StoreError::Row(format!("run {number} lacks a block")));
            };
            if let Some(row) = find(block.value(), key)? {
                return decode(row).map(Some);
            }
        }
        self.table.get(key)?.map(|row| decode(row.value())).transpose()
    }

    /// All of them from a key on (inclusive), in order.
    pub(super) fn from(&self, from: &[u8]) -> Result<Merged<'_>, StoreError> {
        let mut sources = Vec::new();
        for (number, run) in &self.runs {
            let blocks =
                self.blocks.range::<&[u8]>(&block_key(*number, run.block_of(from))[..]..&last_block(*number, run)[..])?;
            sources.push(Source::new(Rest::Blocks(blocks)));
        }
        sources.push(Source::new(Rest::Table(self.table.range::<&[u8]>(from..)?)));
        Ok(Merged { sources, from: from.to_vec() })
    }
}

/// The key behind a run's last block.
fn last_block(number: u64, run: &Run) -> [u8; 12] {
    block_key(number, u32::try_from(run.ends.len()).expect("as few as they are"))
}

enum Rest<'a> {
    Table(Range<'a, Bytes, Bytes>),
    Blocks(Range<'a, Bytes, Bytes>),
    Changed(Box<dyn Iterator<Item = Row<'a>> + 'a>),
}

/// One of those that are merged, and its next row.
struct Source<'a> {
    rest: Rest<'a>,
    block: Vec<u8>,
    /// Rows of the block that were read.
    at: usize,
    key: Vec<u8>,
    row: Vec<u8>,
    /// Its row was taken: read the next one first.
    taken: bool,
    ended: bool,
}

impl<'a> Source<'a> {
    fn new(rest: Rest<'a>) -> Self {
        Self { rest, block: Vec::new(), at: 0, key: Vec::new(), row: Vec::new(), taken: true, ended: false }
    }

    fn step(&mut self) -> Result<(), StoreError> {
        self.taken = false;
        let Self { rest, block, at, key, row, .. } = self;
        let mut found = |k: &[u8], r: &[u8]| {
            key.clear();
            key.extend_from_slice(k);
            row.clear();
            row.extend_from_slice(r);
        };
        match rest {
            Rest::Changed(changed) => match changed.next() {
                Some((key, row)) => found(key, row),
                None => self.ended = true,
            },
            Rest::Table(range) => match range.next().transpose()? {
                Some((key, row)) => found(key.value(), row.value()),
                None => self.ended = true,
            },
            Rest::Blocks(range) => loop {
                let rows = if block.is_empty() { 0 } else { rows_of(block)? };
                if *at < rows {
                    let (key, row) = row_of(block, rows, *at)?;
                    found(key, row);
                    *at += 1;
                    break;
                }
                let Some((_, next)) = range.next().transpose()? else {
                    self.ended = true;
                    break;
                };
                block.clear();
                block.extend_from_slice(next.value());
                *at = 0;
            },
        }
        Ok(())
    }
}

/// Rows of several sources in the order of their keys; of those with one key, the first source's.
pub(super) struct Merged<'a> {
    sources: Vec<Source<'a>>,
    from: Vec<u8>,
}

impl Merged<'_> {
    /// The next key and row.
    pub(super) fn next(&mut self) -> Result<Option<Row<'_>>, StoreError> {
        let mut least: Option<usize> = None;
        for i in 0..self.sources.len() {
            let (before, rest) = self.sources.split_at_mut(i);
            let Some(source) = rest.first_mut() else { break };
            // the block that `from` stands in begins before it
            while !source.ended && (source.taken || source.key < self.from) {
                source.step()?;
            }
            if source.ended {
                continue;
            }
            match least.and_then(|least| before.get_mut(least)) {
                Some(first) if first.key < source.key => {}
                Some(first) if first.key == source.key => source.taken = true,
                _ => least = Some(i),
            }
        }
        let Some(source) = least.and_then(|least| self.sources.get_mut(least)) else { return Ok(None) };
        source.taken = true;
        Ok(Some((&source.key, &source.row)))
    }
}

// ---- writing ------------------------------------------------------------------------------------------------------------

/// Write changed positions, in the order of their keys, at the checkpoint with this cursor.
pub(super) fn put<'a>(
    write: &WriteTransaction,
    cursor: u64,
    changed: impl ExactSizeIterator<Item = Row<'a>> + 'a,
) -> Result<(), StoreError> {
    if changed.len() == 0 {
        return Ok(());
    }
    let mut table = write.open_table(POSITIONS)?;
    let mut runs = Vec::new();
    for row in write.open_table(POSITION_RUNS)?.range::<u64>(..)?.rev() {
        let (number, row) = row?;
        runs.push((number.value(), Reader::new(row.value()).small("blocks")?));
    }
    let few = changed.len() < RUN_ROWS_MIN;
    if runs.is_empty() && (few || changed.len() as u64 > table.len()? / TABLE_PARTS) {
        for (key, row) in changed {
            table.insert(key, row)?;
        }
        return Ok(());
    }
    if runs.len() < RUNS_MAX {
        return put_run(write, cursor, changed);
    }
    {
        let blocks = write.open_table(POSITION_BLOCKS)?;
        #[expect(clippy::map_identity, reason = "it gives them the shorter life of the blocks")]
        let changed = changed.map(|(key, row)| (key, row));
        let mut sources = vec![Source::new(Rest::Changed(Box::new(changed)))];
        for (number, count) in &runs {
            let range = blocks.range::<&[u8]>(&block_key(*number, 0)[..]..&block_key(*number, *count)[..])?;
            sources.push(Source::new(Rest::Blocks(range)));
        }
        let mut merged = Merged { sources, from: Vec::new() };
        while let Some((key, row)) = merged.next()? {
            table.insert(key, row)?;
        }
    }
    write.delete_table(POSITION_BLOCKS)?;
    write.delete_table(POSITION_RUNS)?;
    write.open_table(POSITION_BLOCKS)?;
    write.open_table(POSITION_RUNS)?;
    Ok(())
}

fn put_run<'a>(
    write: &WriteTransaction,
    number: u64,
    changed: impl ExactSizeIterator<Item = Row<'a>>,
) -> Result<(), StoreError> {
    let mut blocks = write.open_table(POSITION_BLOCKS)?;
    let mut run = RunBuilder { hashes: Vec::with_capacity(changed.len()), ..RunBuilder::default() };
    let mut block = BlockBuilder::default();
    let mut count = 0;
    for (key, row) in changed {
        run.hashes.push(hash(key));
        if !block.is_empty() && block.bytes() + framed(key, row) > BLOCK_BYTES {
            blocks.insert(&block_key(number, count)[..], block.finish())?;
            count += 1;
            block.clear();
        }
        if block.is_empty() {
            run.begin_block(key);
        }
        block.push(key, row);
    }
    blocks.insert(&block_key(number, count)[..], block.finish())?;
    count += 1;
    let index = Run { firsts: run.firsts, ends: run.ends, filter: Filter::of(run.hashes) };
    blocks.insert(&block_key(number, count)[..], index.encode().as_slice())?;
    let mut row = Writer::default();
    row.count(u64::from(count));
    write.open_table(POSITION_RUNS)?.insert(number, row.as_slice())?;
    Ok(())
}

#[derive(Default)]
struct BlockBuilder {
    rows: Writer,
    begins: Vec<u16>,
}

impl BlockBuilder {
    fn is_empty(&self) -> bool {
        self.begins.is_empty()
    }

    fn bytes(&self) -> usize {
        self.rows.as_slice().len() + (self.begins.len() + 1) * NUMBER_BYTES
    }

    fn push(&mut self, key: &[u8], row: &[u8]) {
        let begins = self.rows.as_slice().len();
        self.begins.push(u16::try_from(begins).expect("a row begins within a page"));
        self.rows.bytes(key).bytes(row);
    }

    /// Its bytes. Nothing else can be pushed before it is cleared.
    fn finish(&mut self) -> &[u8] {
        let rows = u16::try_from(self.begins.len()).expect("fewer than bytes in a page");
        for number in self.begins.iter().chain([&rows]) {
            self.rows.raw(&number.to_be_bytes());
        }
        self.rows.as_slice()
    }

    fn clear(&mut self) {
        self.begins.clear();
        self.rows = Writer::reusing(std::mem::take(&mut self.rows).finish(), BLOCK_BYTES);
    }
}

#[derive(Default)]
struct RunBuilder {
    firsts: Vec<u8>,
    ends: Vec<u32>,
    hashes: Vec<u64>,
}

impl RunBuilder {
    fn begin_block(&mut self, first: &[u8]) {
        self.firsts.extend_from_slice(first);
        self.ends.push(u32::try_from(self.firsts.len()).expect("a run is a few megabytes"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use redb::{Database, ReadableDatabase};

    use super::*;

    type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

    fn empty() -> Database {
        let database = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).expect("opens");
        let write = database.begin_write().expect("begins");
        for table in [POSITIONS, POSITION_BLOCKS] {
            write.open_table(table).expect("is made");
        }
        write.open_table(POSITION_RUNS).expect("is made");
        write.commit().expect("commits");
        database
    }

    fn checkpoint(database: &Database, cursor: u64, changed: &Rows) {
        let write = database.begin_write().expect("begins");
        let rows: Vec<(&[u8], &[u8])> = changed.iter().map(|(k, r)| (k.as_slice(), r.as_slice())).collect();
        put(&write, cursor, rows.into_iter()).expect("puts");
        write.commit().expect("commits");
    }

    fn all(positions: &Positions, from: &[u8]) -> Rows {
        let (mut merged, mut rows) = (positions.from(from).expect("opens"), Rows::new());
        while let Some((key, row)) = merged.next().expect("reads") {
            assert!(rows.last_key_value().is_none_or(|(last, _)| last.as_slice() < key), "each once, in order");
            rows.insert(key.to_vec(), row.to_vec());
        }
        rows
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// It is a map, whichever way each checkpoint was written, and whether or not its runs were known before.
        #[test]
        fn it_says_what_a_map_says(
            checkpoints in proptest::collection::vec(
                proptest::collection::btree_map((0_u8..60).prop_map(|n| vec![n / 20; usize::from(n)]), any::<[u8; 3]>(), 0..30),
                1..50,
            ),
            reread in any::<u8>(),
        ) {
            let (database, mut map) = (empty(), Rows::new());
            let mut known: Option<Positions> = None;
            let mut most = 0;
            for (cursor, changed) in (1..).zip(checkpoints) {
                let changed: Rows = changed.into_iter().map(|(key, row)| (key, row.to_vec())).collect();
                checkpoint(&database, cursor, &changed);
                map.extend(changed);
                let read = database.begin_read().expect("begins");
                let positions = Positions::open(&read, known.as_ref().filter(|_| cursor % 7 != u64::from(reread % 7))).expect("opens");
                most = most.max(positions.runs.len());
                prop_assert_eq!(all(&positions, &[]), map.clone());
                for n in (0..64).skip(usize::from(reread % 5)).step_by(5) {
                    let key = vec![n / 20; usize::from(n)];
                    let found = positions.get(&key, |row| Ok(row.to_vec())).expect("reads");
                    prop_assert_eq!(found.as_ref(), map.get(&key));
                    let rest: Rows = map.range(key.clone()..).map(|(k, r)| (k.clone(), r.clone())).collect();
                    prop_assert_eq!(all(&positions, &key), rest);
                }
                known = Some(positions);
            }
            prop_assert!(most <= RUNS_MAX);
        }
    }

    /// Sixteen runs and one merge more, and what was in them is in the table.
    #[test]
    fn runs_become_part_of_the_table() {
        let database = empty();
        let row = |key: u8, value: u8| (vec![key], vec![value]);
        checkpoint(&database, 1, &(0..9).map(|n| row(n, 0)).collect());
        let runs = |database: &Database| {
            let read = database.begin_read().expect("begins");
            Positions::open(&read, None).expect("opens").runs.iter().map(|(n, _)| *n).collect::<Vec<_>>()
        };
        assert_eq!(runs(&database), [] as [u64; 0], "the first rows go where they belong");
        for cursor in 2..18 {
            checkpoint(&database, cursor, &[row(1, 1), row(2, 2), row(3, 3)].into());
        }
        assert_eq!(runs(&database), (2..18).rev().collect::<Vec<_>>());
        checkpoint(&database, 18, &[row(3, 4)].into());
        assert_eq!(runs(&database), [] as [u64; 0]);
        let read = database.begin_read().expect("begins");
        let table = read.open_table(POSITIONS).expect("opens");
        let values: Vec<u8> =
            table.iter().expect("reads").map(|r| r.expect("reads").1.value().first().copied().expect("one byte")).collect();
        assert_eq!(values, [0, 1, 2, 4, 0, 0, 0, 0, 0]);
        assert_eq!(read.open_table(POSITION_BLOCKS).expect("opens").len().expect("counts"), 0);
    }

    #[test]
    fn a_run_without_its_rows_is_damage_and_not_silence() {
        let database = empty();
        checkpoint(&database, 1, &(0..9).map(|n| (vec![n], vec![0])).collect());
        checkpoint(&database, 2, &(0..9).map(|n| (vec![n], vec![1])).collect());
        let read = database.begin_read().expect("begins");
        let before = Positions::open(&read, None).expect("opens");
        assert_eq!(before.runs.len(), 1);
        let write = database.begin_write().expect("begins");
        write.open_table(POSITION_BLOCKS).expect("opens").remove(&block_key(2, 0)[..]).expect("removes");
        write.commit().expect("commits");
        let read = database.begin_read().expect("begins");
        let lacking = Positions::open(&read, None).expect("opens");
        assert!(matches!(lacking.get(&[0], |row| Ok(row.to_vec())), Err(StoreError::Row(_))));
        let write = database.begin_write().expect("begins");
        write.delete_table(POSITION_BLOCKS).expect("deletes");
        write.open_table(POSITION_BLOCKS).expect("opens");
        write.commit().expect("commits");
        let read = database.begin_read().expect("begins");
        assert!(matches!(Positions::open(&read, None), Err(StoreError::Row(_))));
        assert_eq!(
            before.get(&[0], |row| Ok(row.to_vec())).expect("reads"),
            Some(vec![1]),
            "who reads an older moment goes on"
        );
    }

    #[test]
    fn the_hash_of_a_key_is_part_of_the_form() {
        assert_eq!(hash(b""), 0xefd0_1f60_ba99_2926);
        assert_eq!(hash(b"\0\x01SKU-1"), 0xc490_2d15_2ecf_58cd);
    }
}
