//! Rows of several sources, merged.

use redb::Range;

use super::block::{Row, row_of, rows_of};
use crate::store::StoreError;
use crate::store::state::Bytes;

pub(super) enum Rest<'a> {
    Table(Range<'a, Bytes, Bytes>),
    Blocks(Range<'a, Bytes, Bytes>),
    Changed(Box<dyn Iterator<Item = Row<'a>> + 'a>),
}

/// One of those that are merged, and its next row.
pub(super) struct Source<'a> {
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
    pub(super) fn new(rest: Rest<'a>) -> Self {
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
pub(in super::super) struct Merged<'a> {
    sources: Vec<Source<'a>>,
    from: Vec<u8>,
}

impl<'a> Merged<'a> {
    /// Their rows from a key on (inclusive).
    pub(super) fn new(sources: Vec<Source<'a>>, from: &[u8]) -> Self {
        Self { sources, from: from.to_vec() }
    }

    /// The next key and row.
    pub(in super::super) fn next(&mut self) -> Result<Option<Row<'_>>, StoreError> {
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
