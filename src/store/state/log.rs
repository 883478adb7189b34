//! Rows that are only ever appended, under 1, 2, 3, ...: the ledger's entries, and the reports that were ignored.
//!
//! On disk they stand in blocks that fill a page: an insertion into the tree for every row would cost more than all that the
//! fold does to make it. Where a block ends depends on its rows alone, so the file does not depend on when checkpoints were.
//! The last block is not full yet: it stays in memory, grows, and is written again.
//!
//! A block's key is the number of its first row; its bytes are the rows, each behind its length (LEB128).

use crate::store::StoreError;
use crate::store::codec::{Writer, count_bytes, numbered_rows};

/// Bytes of a block: a page of redb's, less what it takes for itself.
const BLOCK_BYTES: usize = 4096 - 16;

/// A block and the number of its first row.
#[derive(Debug, Clone)]
struct Block {
    first: u64,
    bytes: Vec<u8>,
}

/// Rows that were appended since the last checkpoint, and the block that they began in.
#[derive(Debug, Default, Clone)]
pub(super) struct Log {
    blocks: Vec<Block>,
    /// Bytes that are not in the file yet.
    unwritten: usize,
}

impl Log {
    /// Go on after the last block of the file.
    pub(super) fn after(last: Option<(u64, &[u8])>) -> Self {
        let blocks = last.into_iter().map(|(first, block)| Block { first, bytes: block.to_vec() }).collect();
        Self { blocks, unwritten: 0 }
    }

    /// Append the row of the next number.
    pub(super) fn push(&mut self, number: u64, row: &[u8]) {
        let framed = count_bytes(row.len() as u64) + row.len();
        if self.blocks.last().is_none_or(|block| block.bytes.len() + framed > BLOCK_BYTES) {
            self.blocks.push(Block { first: number, bytes: Vec::with_capacity(framed.max(BLOCK_BYTES)) });
        }
        let block = self.blocks.last_mut().expect("there is one now");
        let mut head = Writer::with_capacity(4);
        head.count(row.len() as u64);
        block.bytes.extend_from_slice(&head.finish());
        block.bytes.extend_from_slice(row);
        self.unwritten += framed;
    }

    /// About how much memory waits to be written.
    pub(super) fn memory(&self) -> usize {
        self.unwritten
    }

    /// A row, when it is here.
    pub(super) fn get(&self, number: u64) -> Result<Option<&[u8]>, StoreError> {
        let index = self.blocks.partition_point(|block| block.first <= number).checked_sub(1);
        let Some(block) = index.and_then(|index| self.blocks.get(index)) else { return Ok(None) };
        find(block.first, &block.bytes, number)
    }

    /// What a checkpoint has to write: blocks by the number of their first row.
    pub(super) fn changed(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let any = self.unwritten > 0;
        self.blocks.iter().filter(move |_| any).map(|block| (block.first, block.bytes.as_slice()))
    }

    /// Take everything for a checkpoint. The last block stays as well, for the next rows.
    pub(super) fn take(&mut self) -> Self {
        let last = self.blocks.last().map(|block| {
            let mut bytes = Vec::with_capacity(block.bytes.len().max(BLOCK_BYTES));
            bytes.extend_from_slice(&block.bytes);
            Block { first: block.first, bytes }
        });
        std::mem::replace(self, Self { blocks: last.into_iter().collect(), unwritten: 0 })
    }

    /// What was taken could not be written.
    pub(super) fn put_back(&mut self, mut taken: Self) {
        // its last block is the first one here, which has grown since
        taken.blocks.pop();
        taken.blocks.append(&mut self.blocks);
        self.blocks = taken.blocks;
        self.unwritten += taken.unwritten;
    }
}

/// A row of a block.
pub(super) fn find(first: u64, block: &[u8], number: u64) -> Result<Option<&[u8]>, StoreError> {
    for row in numbered_rows(first, block) {
        let (at, row) = row?;
        if at == number {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn read(file: &BTreeMap<u64, Vec<u8>>, log: &Log, number: u64) -> Option<Vec<u8>> {
        if let Some(row) = log.get(number).expect("decodes") {
            return Some(row.to_vec());
        }
        let (first, block) = file.range(..=number).next_back()?;
        find(*first, block, number).expect("decodes").map(<[u8]>::to_vec)
    }

    proptest! {
        /// Rows are found at any time, and the blocks are the same whenever they were written.
        #[test]
        fn blocks_do_not_depend_on_checkpoints(
            rows in proptest::collection::vec((0_usize..700, any::<u8>(), 0_u8..12), 1..120)
        ) {
            let (mut often, mut once) = (BTreeMap::new(), BTreeMap::new());
            let (mut a, mut b) = (Log::default(), Log::default());
            let (mut numbered, mut taken) = (BTreeMap::new(), None::<Log>);
            for (number, (length, fill, write)) in (1..).zip(rows) {
                let row = vec![fill; length];
                a.push(number, &row);
                b.push(number, &row);
                numbered.insert(number, row);
                let mut write_down = |log: &Log| often.extend(log.changed().map(|(first, block)| (first, block.to_vec())));
                match (write, taken.take()) {
                    (0, None) => {
                        taken = Some(a.take());
                        prop_assert_eq!(a.changed().count(), 0);
                    }
                    (0, Some(written)) => write_down(&written),
                    (2, Some(not_written)) => a.put_back(not_written),
                    (1, unwritten) => {
                        unwritten.iter().for_each(&mut write_down);
                        write_down(&a);
                        a = Log::after(often.last_key_value().map(|(first, block)| (*first, block.as_slice())));
                    }
                    (_, still) => taken = still,
                }
            }
            if let Some(written) = taken {
                often.extend(written.changed().map(|(first, block)| (first, block.to_vec())));
            }
            for (number, row) in &numbered {
                let found = read(&often, &a, *number);
                prop_assert_eq!(found.as_ref(), Some(row));
            }
            prop_assert_eq!(read(&often, &a, numbered.len() as u64 + 1), None);
            prop_assert_eq!(read(&often, &a, 0), None);
            often.extend(a.changed().map(|(first, block)| (first, block.to_vec())));
            once.extend(b.changed().map(|(first, block)| (first, block.to_vec())));
            prop_assert_eq!(often, once);
        }
    }

    #[test]
    fn a_block_fits_a_page_and_fills_it() {
        let mut log = Log::default();
        for number in 1..=1000 {
            log.push(number, &[7; 66]);
        }
        let blocks: Vec<usize> = log.changed().map(|(_, block)| block.len()).collect();
        assert!(blocks.iter().all(|bytes| *bytes <= BLOCK_BYTES));
        assert!(blocks.iter().rev().skip(1).all(|bytes| *bytes > BLOCK_BYTES - 67));
    }
}
