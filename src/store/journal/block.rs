//! Blocks: the rows of a segment. One holds the records that were committed together, one after the other.
//!
//! A row a record would cost an insertion into the tree for each, and leave every page that the next commit touches to be
//! written again. So a batch is cut into blocks that fill whole pages: redb gives a row that is larger than a page pages of its
//! own, a power of two of them, and never rewrites those when the next row comes.
//!
//! A block's key is the number of its first record; its bytes are the records, each behind its length (LEB128).

pub(super) use crate::store::codec::numbered_rows as records;
use crate::store::codec::{Writer, count_bytes};

/// redb's page.
const PAGE_BYTES: usize = 4096;
/// What a page loses to the row itself: redb's head of a leaf, the key, the row's offset.
const ROW_BYTES: usize = 16;
/// Pages in the largest block that is made by filling; one record that is larger gets a block to itself.
const PAGES_MAX: usize = 16;

/// Bytes of a record in its block.
fn framed(record: &[u8]) -> usize {
    count_bytes(record.len() as u64) + record.len()
}

/// How many of these records the next block takes, and its bytes. (0, 0) for none.
///
/// It takes the largest number of pages that the records can fill, so that little of a page stays empty; the rest of the batch
/// goes into smaller blocks.
fn next(records: &[Vec<u8>]) -> (usize, usize) {
    let enough = PAGES_MAX * PAGE_BYTES;
    let total = records.iter().map(|r| framed(r)).scan(0, |sum, bytes| {
        let before = *sum;
        *sum += bytes;
        (before < enough).then_some(*sum)
    });
    let total = total.last().unwrap_or(0);
    let mut room = PAGE_BYTES - ROW_BYTES;
    if total > room {
        let mut pages = 1;
        while pages < PAGES_MAX && pages * 2 * PAGE_BYTES - ROW_BYTES <= total {
            pages *= 2;
        }
        room = pages * PAGE_BYTES - ROW_BYTES;
    }
    let (mut taken, mut bytes) = (0, 0);
    for record in records {
        let more = framed(record);
        if taken > 0 && bytes + more > room {
            break;
        }
        taken += 1;
        bytes += more;
    }
    (taken, bytes)
}

/// Cut a batch into blocks: the records of each, and its bytes.
pub(super) fn cut(mut records: &[Vec<u8>]) -> impl Iterator<Item = (&[Vec<u8>], usize)> {
    std::iter::from_fn(move || {
        let (taken, bytes) = next(records);
        let (block, rest) = records.split_at_checked(taken)?;
        records = rest;
        (taken > 0).then_some((block, bytes))
    })
}

/// Write records into a block's place, which has exactly as many bytes as [`cut`] said.
pub(super) fn fill(mut place: &mut [u8], records: &[Vec<u8>]) {
    for record in records {
        let mut head = Writer::with_capacity(4);
        head.count(record.len() as u64);
        for part in [head.finish().as_slice(), record.as_slice()] {
            let Some((here, rest)) = place.split_at_mut_checked(part.len()) else { return };
            here.copy_from_slice(part);
            place = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Seq;
    use proptest::prelude::*;

    fn back(records: &[Vec<u8>]) -> Vec<(Seq, Vec<u8>)> {
        let mut first = 1;
        let mut found = Vec::new();
        for (block, bytes) in cut(records) {
            let mut row = vec![0; bytes];
            fill(&mut row, block);
            found.extend(super::records(first, &row).map(|r| r.map(|(n, b)| (n, b.to_vec())).expect("decodes")));
            first += block.len() as u64;
        }
        found
    }

    proptest! {
        #[test]
        fn what_is_cut_reads_back(sizes in proptest::collection::vec(0_usize..9000, 0..80)) {
            let records: Vec<Vec<u8>> = sizes.iter().map(|n| vec![7; *n]).collect();
            let numbered: Vec<(Seq, Vec<u8>)> = (1..).zip(records.clone()).collect();
            prop_assert_eq!(back(&records), numbered);
        }
    }

    #[test]
    fn blocks_fill_their_pages() {
        let records = vec![vec![1; 400]; 64];
        let mut written = 0;
        for (block, bytes) in cut(&records) {
            assert!(!block.is_empty());
            written += (bytes + ROW_BYTES).div_ceil(PAGE_BYTES).next_power_of_two() * PAGE_BYTES;
        }
        let bytes = 64 * 402;
        assert!(written <= bytes + 2 * PAGE_BYTES, "{written} for {bytes}");
        assert_eq!(cut(&records[..3]).count(), 1, "a few records share one small row");
    }

    #[test]
    fn a_record_larger_than_any_block_has_one_to_itself() {
        let records = vec![vec![1; 10], vec![2; 1_000_000], vec![3; 10]];
        assert_eq!(back(&records).len(), 3);
    }

    #[test]
    fn a_cut_block_is_an_error_not_a_guess() {
        let mut row = vec![0; 12];
        fill(&mut row, &[vec![1; 5], vec![2; 5]]);
        let found: Vec<_> = super::records(4, &row[..11]).collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].is_ok() && found[1].is_err());
    }
}
