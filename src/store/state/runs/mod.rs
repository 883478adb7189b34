//! Positions in the file: a sorted table, and sorted runs of what has changed since it was written.
//!
//! A position takes some fifty bytes, and those that change between two checkpoints lie all over the table: to write twenty thousand
//! of a million in their places writes nearly every page of it. So a checkpoint that changes many of them appends them as a run, in
//! blocks that fill a page. When there are [`write::FRESH_MAX`] such runs the next checkpoint merges them into one, and when there are
//! [`write::MERGED_MAX`] of those, all into the table, which then writes each page once for all of them. A look-up asks the runs, the newest
//! first, and then the table; a filter in memory says which runs need not be asked, and beside it stands the first key of each block.
//!
//! | table | key | row |
//! |---|---|---|
//! | `positions` | key of a position | position |
//! | `position-runs` | run | its level, how many blocks it has |
//! | `position-blocks`, `position-merged` | run, block (eight and four bytes) | a block of the level; behind the last one of a run: first keys, filter |
//!
//! A run's number is the cursor of its checkpoint: it grows, and no other run ever has it. The tables of the two levels are two, because
//! one of them can be forgotten as a whole.

mod block;
mod merge;
mod write;

use std::sync::Arc;

use redb::{ReadOnlyTable, ReadTransaction, TableHandle};

pub(super) use self::merge::Merged;
use self::merge::{Rest, Source};
pub(super) use self::write::{forget_runs, put};
use super::{ByBytes, ByNumber, Bytes, StoreError};
use crate::store::codec::{Reader, Writer};
use crate::store::filter::{Filter, mix};

pub(super) const POSITIONS: ByBytes = ByBytes::new("positions");
pub(super) const POSITION_RUNS: ByNumber = ByNumber::new("position-runs");
pub(super) const POSITION_BLOCKS: ByBytes = ByBytes::new("position-blocks");
pub(super) const POSITION_MERGED: ByBytes = ByBytes::new("position-merged");

/// A table of positions, in whatever form they lie in it: only all of them together say anything.
pub(super) fn is_table(name: &str) -> bool {
    [POSITIONS.name(), POSITION_RUNS.name(), POSITION_BLOCKS.name(), POSITION_MERGED.name()].contains(&name)
}

/// What a run was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Of the changes of one checkpoint.
    Fresh,
    /// Of fresh runs.
    Merged,
}

impl Level {
    fn blocks(self) -> ByBytes {
        match self {
            Self::Fresh => POSITION_BLOCKS,
            Self::Merged => POSITION_MERGED,
        }
    }

    fn encode(self, blocks: u32) -> Vec<u8> {
        let mut w = Writer::default();
        w.u8(u8::from(self == Self::Merged)).count(u64::from(blocks));
        w.finish()
    }

    fn decode(row: &[u8]) -> Result<(Self, u32), StoreError> {
        let mut r = Reader::new(row);
        let level = match r.u8("level")? {
            0 => Self::Fresh,
            1 => Self::Merged,
            other => return Err(StoreError::Row(format!("a run has the level {other}"))),
        };
        let blocks = r.small("blocks")?;
        r.end("run")?;
        Ok((level, blocks))
    }
}

/// A run's index, in memory.
#[derive(Default)]
struct Run {
    /// First key of each block, one after the other, and where each ends.
    firsts: Vec<u8>,
    ends: Vec<u32>,
    filter: Filter,
}

impl Run {
    fn blocks(&self) -> u32 {
        u32::try_from(self.ends.len()).expect("a run has far fewer blocks")
    }

    fn begin_block(&mut self, first: &[u8]) {
        self.firsts.extend_from_slice(first);
        self.ends.push(u32::try_from(self.firsts.len()).expect("a run has far fewer blocks"));
    }

    /// The block that a key stands in, if it does in any.
    fn block_of(&self, key: &[u8]) -> u32 {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.first(middle) <= key { low = middle + 1 } else { high = middle }
        }
        u32::try_from(low.saturating_sub(1)).expect("a run has far fewer blocks")
    }

    fn first(&self, block: usize) -> &[u8] {
        let begin = block.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(block).copied().unwrap_or(begin);
        self.firsts.get(begin as usize..end as usize).unwrap_or_default()
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(self.firsts.len() + self.ends.len() * 2 + self.filter.bytes() + 16);
        w.count(u64::from(self.blocks()));
        for block in 0..self.ends.len() {
            w.bytes(self.first(block));
        }
        self.filter.encode(&mut w);
        w.finish()
    }

    fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let (mut r, mut run) = (Reader::new(row), Self::default());
        for _ in 0..r.small::<u32>("blocks")? {
            run.begin_block(r.bytes("first key")?);
        }
        run.filter = Filter::decode(&mut r)?;
        r.end("index of a run")?;
        Ok(run)
    }
}

/// Spread a key over 64 bits, the same on every machine and in every release: FNV-1a, then mixed, because a filter needs all bits to be
/// as good as random.
fn hash(key: &[u8]) -> u64 {
    mix(key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)))
}

fn block_key(run: u64, block: u32) -> [u8; 12] {
    let mut key = [0; 12];
    let (head, tail) = key.split_at_mut(8);
    head.copy_from_slice(&run.to_be_bytes());
    tail.copy_from_slice(&block.to_be_bytes());
    key
}

/// The positions of a file as of one moment.
pub(super) struct Positions {
    table: ReadOnlyTable<Bytes, Bytes>,
    fresh: ReadOnlyTable<Bytes, Bytes>,
    merged: ReadOnlyTable<Bytes, Bytes>,
    /// The newest first.
    runs: Vec<(u64, Level, Arc<Run>)>,
}

impl Positions {
    /// Those of a read transaction. What is `known` of its runs already is not read again.
    pub(super) fn open(read: &ReadTransaction, known: Option<&Self>) -> Result<Self, StoreError> {
        let mut positions = Self {
            table: read.open_table(POSITIONS)?,
            fresh: read.open_table(POSITION_BLOCKS)?,
            merged: read.open_table(POSITION_MERGED)?,
            runs: Vec::new(),
        };
        for row in read.open_table(POSITION_RUNS)?.range::<u64>(..)?.rev() {
            let (number, row) = row?;
            let number = number.value();
            let (level, blocks) = Level::decode(row.value())?;
            let known = known.and_then(|known| known.runs.iter().find(|(n, l, _)| (*n, *l) == (number, level)));
            let run = if let Some((_, _, run)) = known {
                Arc::clone(run)
            } else {
                let index = positions.blocks(level).get(&block_key(number, blocks)[..])?;
                let index = index.ok_or_else(|| StoreError::Row(format!("run {number} has no index")))?;
                Arc::new(Run::decode(index.value())?)
            };
            positions.runs.push((number, level, run));
        }
        Ok(positions)
    }

    fn blocks(&self, level: Level) -> &ReadOnlyTable<Bytes, Bytes> {
        match level {
            Level::Fresh => &self.fresh,
            Level::Merged => &self.merged,
        }
    }

    /// A position's row.
    pub(super) fn get<T>(
        &self,
        key: &[u8],
        decode: impl Fn(&[u8]) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let hash = if self.runs.is_empty() { 0 } else { hash(key) };
        for (number, level, run) in &self.runs {
            if !run.filter.may_hold(hash) {
                continue;
            }
            let Some(block) = self.blocks(*level).get(&block_key(*number, run.block_of(key))[..])? else {
                return Err(StoreError::Row(format!("run {number} lacks a block")));
            };
            if let Some(row) = block::find(block.value(), key)? {
                return decode(row).map(Some);
            }
        }
        self.table.get(key)?.map(|row| decode(row.value())).transpose()
    }

    /// All of them from a key on (inclusive), in order.
    pub(super) fn from(&self, from: &[u8]) -> Result<Merged<'_>, StoreError> {
        let mut sources = Vec::new();
        for (number, level, run) in &self.runs {
            let (first, end) = (block_key(*number, run.block_of(from)), block_key(*number, run.blocks()));
            sources.push(Source::new(Rest::Blocks(self.blocks(*level).range::<&[u8]>(&first[..]..&end[..])?)));
        }
        sources.push(Source::new(Rest::Table(self.table.range::<&[u8]>(from..)?)));
        Ok(Merged::new(sources, from))
    }
}

#[cfg(test)]
mod tests;
