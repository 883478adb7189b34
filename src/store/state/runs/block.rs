//! A block: rows in the order of their keys, each key and position behind its length (LEB128); then where each row begins, and how many
//! there are, in two bytes each, so that a row is found by halves.

use std::cmp::Ordering;

use crate::store::StoreError;
use crate::store::codec::{Reader, Writer, count_bytes};

/// Bytes of a block: a page of redb's, less what it takes for itself and a key.
const BLOCK_BYTES: usize = if cfg!(test) { 64 } else { 4096 - 24 };

/// Key and row of a position.
pub(super) type Row<'a> = (&'a [u8], &'a [u8]);

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
pub(super) fn rows_of(block: &[u8]) -> Result<usize, StoreError> {
    number(block, 1).ok_or_else(|| StoreError::Row("a block is cut short".to_owned()))
}

/// One of `rows` rows of a block.
pub(super) fn row_of(block: &[u8], rows: usize, index: usize) -> Result<Row<'_>, StoreError> {
    let begins = number(block, rows.saturating_sub(index) + 1).and_then(|at| block.get(at..));
    let mut r = Reader::new(begins.ok_or_else(|| StoreError::Row("a block is cut short".to_owned()))?);
    Ok((r.bytes("key")?, r.bytes("position")?))
}

/// The position of a key in a block.
pub(super) fn find<'a>(block: &'a [u8], key: &[u8]) -> Result<Option<&'a [u8]>, StoreError> {
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

#[derive(Default)]
pub(super) struct BlockBuilder {
    rows: Writer,
    begins: Vec<u16>,
}

impl BlockBuilder {
    pub(super) fn is_empty(&self) -> bool {
        self.begins.is_empty()
    }

    /// Another row belongs into the next block.
    pub(super) fn is_full(&self, key: &[u8], row: &[u8]) -> bool {
        let bytes = self.rows.as_slice().len() + (self.begins.len() + 1) * NUMBER_BYTES;
        !self.is_empty() && bytes + framed(key, row) > BLOCK_BYTES
    }

    pub(super) fn push(&mut self, key: &[u8], row: &[u8]) {
        let begins = self.rows.as_slice().len();
        self.begins.push(u16::try_from(begins).expect("a row begins within a page"));
        self.rows.bytes(key).bytes(row);
    }

    /// Its bytes. Nothing else can be pushed before it is cleared.
    pub(super) fn finish(&mut self) -> &[u8] {
        let rows = u16::try_from(self.begins.len()).expect("fewer than bytes in a page");
        for number in self.begins.iter().chain([&rows]) {
            self.rows.raw(&number.to_be_bytes());
        }
        self.rows.as_slice()
    }

    pub(super) fn clear(&mut self) {
        self.begins.clear();
        self.rows = Writer::reusing(std::mem::take(&mut self.rows).finish(), BLOCK_BYTES);
    }
}
