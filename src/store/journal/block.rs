//! Blocks: the rows of a segment. One holds the records that were committed together, one after the other, compressed; small commits
//! share one.
//!
//! A row a record would cost an insertion into the tree for each, and leave every page that the next commit touches to be
//! written again. And what one platform sends differs in a few numbers: a block of forty deliveries shrinks to a third (LZ4).
//!
//! A block's key is the number of its first record. Its bytes are how many records it has, their length together (both
//! LEB128), and the records, compressed: each behind a length (LEB128) and a CRC-32 over its number and itself, which the length
//! counts. redb's own checksums are looked at only when it repairs a file; this one is checked whenever a record is read. It tells
//! damage from what is whole, up to the first record of a block that damage has reached, and it proves a record that is found in
//! a file which redb cannot open any more.

use std::borrow::Cow;

use super::Row;
use crate::store::codec::{Reader, Writer, numbered_rows};
use crate::types::Seq;

/// Bytes of records from which on the next one begins another block: damage to a block hides no more than these.
const BLOCK_BYTES: usize = 64 * 1024;
/// The same for small commits that are put together: some two pages, compressed, so that damage to a page hides little more than it has.
const JOINED_BYTES: usize = 16 * 1024;
/// LZ4 makes of a byte no more than so many.
const MOST_RATIO: usize = 255;
/// Bytes of a checksum.
const SUM_BYTES: usize = 4;

fn checksum(seq: Seq, record: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = flate2::Crc::new();
    sum.update(&seq.to_le_bytes());
    sum.update(record);
    sum.sum().to_le_bytes()
}

/// The blocks of a batch: each with the number of its first record.
pub(super) fn pack(first: Seq, records: &[Vec<u8>]) -> impl Iterator<Item = Row> {
    blocks(first, records, BLOCK_BYTES)
}

/// The same records in fewer blocks: what platforms send one at a time shrinks by what it has in common. `rows` are in order.
pub(super) fn join<'a>(rows: impl Iterator<Item = (Seq, &'a [u8])>) -> Vec<(Seq, Cow<'a, [u8]>)> {
    let mut joined = Vec::new();
    let (mut first, mut few, mut size) = (0, Vec::new(), 0);
    let end = |first, few: &mut Vec<Vec<u8>>, joined: &mut Vec<(Seq, Cow<'a, [u8]>)>| {
        joined.extend(blocks(first, &std::mem::take(few), JOINED_BYTES).map(|(seq, row)| (seq, Cow::Owned(row))));
    };
    for (seq, row) in rows {
        let block = head(Reader::new(row)).filter(|head| head.length < JOINED_BYTES / 2).map(|_| unpack(seq, row));
        let records = block.iter().flat_map(Unpacked::records).map(|(_, record)| record.map(<[u8]>::to_vec));
        // a block that is not whole is none of ours: it stays as it is
        let records: Vec<Vec<u8>> = records.collect::<Option<_>>().unwrap_or_default();
        if records.is_empty() || seq != first + few.len() as u64 || size >= JOINED_BYTES {
            end(first, &mut few, &mut joined);
            (first, size) = (seq, 0);
        }
        if records.is_empty() {
            joined.push((seq, Cow::Borrowed(row)));
        }
        size += records.iter().map(Vec::len).sum::<usize>();
        few.extend(records);
    }
    end(first, &mut few, &mut joined);
    joined
}

fn blocks(first: Seq, records: &[Vec<u8>], most: usize) -> impl Iterator<Item = Row> {
    let mut next = first;
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut size = 0;
        let full = rest.iter().position(|record| {
            size += record.len();
            size >= most
        });
        let (block, later) = rest.split_at_checked(full.map_or(rest.len(), |last| last + 1))?;
        if block.is_empty() {
            return None;
        }
        let begin = next;
        rest = later;
        next += block.len() as u64;
        let mut raw = Writer::with_capacity(size + block.len() * 8);
        for (seq, record) in (begin..).zip(block) {
            raw.count((SUM_BYTES + record.len()) as u64).raw(&checksum(seq, record)).raw(record);
        }
        let raw = raw.finish();
        let packed = lz4_flex::block::compress(&raw);
        // no larger than it is: it is kept until the log is full
        let mut row = Writer::with_capacity(20 + packed.len());
        row.count(block.len() as u64).count(raw.len() as u64).raw(&packed);
        Some((begin, row.finish()))
    })
}

/// A block's records, unpacked.
pub(super) struct Unpacked {
    first: Seq,
    count: u64,
    raw: Vec<u8>,
}

/// What stands before a block's records.
struct Head<'a> {
    count: u64,
    /// Of the records, unpacked.
    length: usize,
    packed: &'a [u8],
}

fn head(mut r: Reader<'_>) -> Option<Head<'_>> {
    let (count, length): (u64, usize) = (r.count("records").ok()?, r.small("length").ok()?);
    let packed = Reader::rest(&mut r);
    // one that is damaged must not ask for all the memory there is, or claim numbers without end
    let possible = length <= packed.len().saturating_mul(MOST_RATIO) && count <= (length / SUM_BYTES) as u64;
    possible.then_some(Head { count, length, packed })
}

/// Unpack a block. What is damaged of it is told by [`Unpacked::records`].
pub(super) fn unpack(first: Seq, block: &[u8]) -> Unpacked {
    let Some(Head { count, length, packed }) = head(Reader::new(block)) else {
        return Unpacked { first, count: 1, raw: Vec::new() };
    };
    let mut raw = vec![0; length];
    // where it stops, zeros follow: no record
    if lz4_flex::block::decompress_into(packed, &mut raw).is_err() {
        tracing::debug!(first, "a block of the journal is damaged");
    }
    Unpacked { first, count, raw }
}

impl Unpacked {
    /// The records with their numbers; `None`: this one is damaged, or stands behind one that is.
    pub(super) fn records(&self) -> impl Iterator<Item = (Seq, Option<&[u8]>)> {
        let mut rows = numbered_rows(self.first, &self.raw);
        let mut whole = true;
        (self.first..self.first.saturating_add(self.count)).map(move |seq| {
            let record = rows.next().and_then(Result::ok).and_then(|(_, summed)| {
                let (sum, record) = summed.split_first_chunk()?;
                (*sum == checksum(seq, record)).then_some(record)
            });
            whole &= record.is_some();
            (seq, record.filter(|_| whole))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Seq;
    use proptest::prelude::*;

    fn back(first: Seq, records: &[Vec<u8>]) -> Vec<(Seq, Vec<u8>)> {
        let mut found = Vec::new();
        for (seq, row) in pack(first, records) {
            found.extend(unpack(seq, &row).records().map(|(n, b)| (n, b.expect("whole").to_vec())));
        }
        found
    }

    proptest! {
        #[test]
        fn what_is_packed_reads_back(sizes in proptest::collection::vec((0_usize..9000, any::<u8>()), 0..80)) {
            let records: Vec<Vec<u8>> = sizes.iter().map(|(n, byte)| vec![*byte; *n]).collect();
            let numbered: Vec<(Seq, Vec<u8>)> = (9..).zip(records.clone()).collect();
            prop_assert_eq!(back(9, &records), numbered);
        }

        #[test]
        fn a_damaged_block_gives_nothing_wrong(at in 0_usize..2000, bit in 0_u32..8, cut in any::<bool>()) {
            let records: Vec<Vec<u8>> = (0_u8..30).map(|n| [&[n; 40][..], b"the same in each of them"].concat()).collect();
            let (seq, mut row) = pack(4, &records).next().expect("a block");
            let at = at % row.len();
            if cut { row.truncate(at) } else { row[at] ^= 1 << bit }
            let unpacked = unpack(seq, &row);
            for (n, record) in unpacked.records() {
                if let Some(record) = record {
                    prop_assert_eq!(record, records[usize::try_from(n - 4).expect("small")].as_slice());
                }
            }
        }

        #[test]
        fn any_bytes_are_taken(row in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(unpack(1, &row).records().all(|(_, record)| record.is_none()));
        }
    }

    #[test]
    fn a_block_is_a_third_of_deliveries_that_are_alike() {
        let deliveries =
            |n: u64| format!("{{\"inventory_item_id\":{},\"location_id\":53716844710,\"available\":{}}}", n * 7919, n % 97);
        let records: Vec<Vec<u8>> = (0..40).map(|n| deliveries(n).into_bytes()).collect();
        let raw: usize = records.iter().map(Vec::len).sum();
        let packed: usize = pack(1, &records).map(|(_, row)| row.len()).sum();
        assert!(packed * 3 < raw * 2, "{packed} of {raw}");
    }

    #[test]
    fn what_came_one_by_one_is_put_together() {
        let delivery =
            |n: u64| format!("{{\"inventory_item_id\":{},\"location_id\":53716844710,\"n\":{}}}", n * 7919, n % 97);
        // one by one; a gap; a large one between small ones; one that is damaged
        let batches: [(Seq, Vec<Vec<u8>>); 5] = [
            (1001, vec![vec![1; 20_000]]),
            (1002, vec![b"behind it".to_vec()]),
            (1003, vec![b"and another".to_vec(), b"two of them".to_vec()]),
            (1005, vec![b"is damaged".to_vec()]),
            (1006, vec![b"the last".to_vec()]),
        ];
        let ones = (1..=500).chain([800]).map(|n| (n, vec![delivery(n).into_bytes()]));
        let mut rows: Vec<Row> =
            ones.chain(batches).flat_map(|(first, records)| pack(first, &records).collect::<Vec<_>>()).collect();
        let damaged = rows.iter_mut().find(|(seq, _)| *seq == 1005).expect("is there");
        *damaged.1.last_mut().expect("bytes") ^= 1;
        let all = |rows: &[(Seq, Cow<'_, [u8]>)]| -> Vec<_> {
            let records = rows.iter().flat_map(|(first, row)| {
                let unpacked = unpack(*first, row);
                unpacked.records().map(|(seq, record)| (seq, record.map(<[u8]>::to_vec))).collect::<Vec<_>>()
            });
            records.collect()
        };
        let before: Vec<_> = rows.iter().map(|(seq, row)| (*seq, Cow::Borrowed(row.as_slice()))).collect();
        let joined = join(rows.iter().map(|(seq, row)| (*seq, row.as_slice())));
        assert_eq!(all(&joined), all(&before));
        let firsts: Vec<Seq> = joined.iter().map(|(first, _)| *first).collect();
        assert_eq!(firsts[firsts.len() - 5..], [800, 1001, 1002, 1005, 1006], "{firsts:?}");
        let bytes = |rows: &[(Seq, Cow<'_, [u8]>)]| -> usize {
            rows.iter().filter(|(first, _)| *first <= 500).map(|(_, row)| row.len()).sum()
        };
        assert!(bytes(&joined) * 2 < bytes(&before), "{} of {}", bytes(&joined), bytes(&before));
        let largest = joined.iter().filter(|(first, _)| *first <= 500).map(|(_, row)| row.len()).max();
        assert!(largest < Some(JOINED_BYTES), "{largest:?}");
    }

    #[test]
    fn large_records_end_their_blocks() {
        let records = vec![vec![1; 10], vec![2; 1_000_000], vec![3; 10]];
        assert_eq!(back(1, &records).len(), 3);
        assert_eq!(pack(1, &records).map(|(seq, _)| seq).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn what_stands_before_damage_is_whole() {
        // random enough that nothing refers back
        let records: Vec<Vec<u8>> = (1_u64..=3)
            .map(|n| (0..40_u64).map(|i| (n * 7919 + i * i * 31 + i).to_le_bytes()[0] ^ 0x5a).collect())
            .collect();
        let (seq, row) = pack(4, &records).next().expect("a block");
        let whole = |row: &[u8]| -> Vec<bool> { unpack(seq, row).records().map(|(_, b)| b.is_some()).collect() };
        assert_eq!(whole(&row), [true, true, true]);
        let mut last = row.clone();
        *last.last_mut().expect("bytes") ^= 1;
        assert_eq!(whole(&last), [true, true, false]);
        assert!(unpack(5, &row).records().all(|(_, record)| record.is_none()), "under another number it is not the record");
    }
}
