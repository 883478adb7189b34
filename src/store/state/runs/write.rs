//! What a checkpoint does to the positions in the file.

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::block::{BlockBuilder, Row};
use super::merge::{Merged, Rest, Source};
use super::{Level, POSITION_RUNS, POSITIONS, Run, block_key, hash};
use crate::store::StoreError;
use crate::store::filter::Filter;
use crate::store::state::Bytes;

/// Fresh runs at most. Tests make few checkpoints.
pub(super) const FRESH_MAX: usize = if cfg!(test) { 3 } else { 8 };
/// Merged runs at most: so many filters more a look-up may ask, and by so much fewer times the table is written.
pub(super) const MERGED_MAX: usize = if cfg!(test) { 2 } else { 8 };
/// Fewer changes than this are written in their places while there is no run: a run takes five pages at least.
const RUN_ROWS_MIN: usize = if cfg!(test) { 2 } else { 512 };
/// ... and so is more than this part of the table: a run of a quarter saves little.
const TABLE_PARTS: u64 = if cfg!(test) { 1 } else { 4 };

/// Write changed positions, in the order of their keys, at the checkpoint with this cursor.
pub(in super::super) fn put<'a>(
    write: &WriteTransaction,
    cursor: u64,
    changed: impl ExactSizeIterator<Item = Row<'a>> + 'a,
) -> Result<(), StoreError> {
    if changed.len() == 0 {
        return Ok(());
    }
    let (mut fresh, mut merged) = (Vec::new(), Vec::new());
    for row in write.open_table(POSITION_RUNS)?.range::<u64>(..)?.rev() {
        let (number, row) = row?;
        let (level, blocks) = Level::decode(row.value())?;
        match level {
            Level::Fresh => fresh.push((number.value(), blocks)),
            Level::Merged => merged.push((number.value(), blocks)),
        }
    }
    if fresh.is_empty() && merged.is_empty() {
        let mut table = write.open_table(POSITIONS)?;
        if changed.len() < RUN_ROWS_MIN || changed.len() as u64 > table.len()? / TABLE_PARTS {
            for (key, row) in changed {
                table.insert(key, row)?;
            }
            return Ok(());
        }
    }
    if fresh.len() < FRESH_MAX {
        let mut run = RunWriter::new(write.open_table(Level::Fresh.blocks())?, cursor);
        for (key, row) in changed {
            run.push(key, row)?;
        }
        let blocks = run.finish()?;
        return note(write, cursor, Level::Fresh, blocks);
    }
    let into_table = merged.len() >= MERGED_MAX;
    let blocks = {
        let (fresh_blocks, merged_blocks) =
            (write.open_table(Level::Fresh.blocks())?, write.open_table(Level::Merged.blocks())?);
        #[expect(clippy::map_identity, reason = "it gives them the shorter life of the blocks")]
        let changed = changed.map(|(key, row)| (key, row));
        let mut sources = vec![Source::new(Rest::Changed(Box::new(changed)))];
        sources.extend(of_runs(&fresh_blocks, &fresh)?);
        if into_table {
            sources.extend(of_runs(&merged_blocks, &merged)?);
            let mut table = write.open_table(POSITIONS)?;
            let mut rows = Merged::new(sources, &[]);
            while let Some((key, row)) = rows.next()? {
                table.insert(key, row)?;
            }
            0
        } else {
            let mut run = RunWriter::new(merged_blocks, cursor);
            let mut rows = Merged::new(sources, &[]);
            while let Some((key, row)) = rows.next()? {
                run.push(key, row)?;
            }
            run.finish()?
        }
    };
    if into_table {
        return forget_runs(write);
    }
    write.delete_table(Level::Fresh.blocks())?;
    write.open_table(Level::Fresh.blocks())?;
    let mut runs = write.open_table(POSITION_RUNS)?;
    for (number, _) in fresh {
        runs.remove(number)?;
    }
    drop(runs);
    note(write, cursor, Level::Merged, blocks)
}

/// All runs are in the table.
pub(in super::super) fn forget_runs(write: &WriteTransaction) -> Result<(), StoreError> {
    for level in [Level::Fresh, Level::Merged] {
        write.delete_table(level.blocks())?;
        write.open_table(level.blocks())?;
    }
    write.delete_table(POSITION_RUNS)?;
    write.open_table(POSITION_RUNS)?;
    Ok(())
}

fn note(write: &WriteTransaction, number: u64, level: Level, blocks: u32) -> Result<(), StoreError> {
    write.open_table(POSITION_RUNS)?.insert(number, level.encode(blocks).as_slice())?;
    Ok(())
}

/// The rows of runs.
fn of_runs<'a>(blocks: &'a Table<'_, Bytes, Bytes>, runs: &[(u64, u32)]) -> Result<Vec<Source<'a>>, StoreError> {
    let source = |(number, count): &(u64, u32)| {
        let range = blocks.range::<&[u8]>(&block_key(*number, 0)[..]..&block_key(*number, *count)[..])?;
        Ok(Source::new(Rest::Blocks(range)))
    };
    runs.iter().map(source).collect()
}

/// Writes a run, row by row.
struct RunWriter<'a> {
    blocks: Table<'a, Bytes, Bytes>,
    number: u64,
    run: Run,
    block: BlockBuilder,
    /// Of all keys.
    hashes: Vec<u64>,
}

impl<'a> RunWriter<'a> {
    fn new(blocks: Table<'a, Bytes, Bytes>, number: u64) -> Self {
        Self { blocks, number, run: Run::default(), block: BlockBuilder::default(), hashes: Vec::new() }
    }

    fn push(&mut self, key: &[u8], row: &[u8]) -> Result<(), StoreError> {
        if self.block.is_full(key, row) {
            self.end_block()?;
        }
        if self.block.is_empty() {
            self.run.begin_block(key);
        }
        self.hashes.push(hash(key));
        self.block.push(key, row);
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        let last = self.run.blocks().saturating_sub(1);
        self.blocks.insert(&block_key(self.number, last)[..], self.block.finish())?;
        self.block.clear();
        Ok(())
    }

    /// Write what is left, and the index. How many blocks there are.
    fn finish(mut self) -> Result<u32, StoreError> {
        self.end_block()?;
        self.run.filter = Filter::of(self.hashes);
        let blocks = self.run.blocks();
        self.blocks.insert(&block_key(self.number, blocks)[..], self.run.encode().as_slice())?;
        Ok(blocks)
    }
}
