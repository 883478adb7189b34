//! What a damaged segment still gives.
//!
//! The file is read as bytes, without redb: a tree whose root or branches are damaged leads nowhere, but its leaves are still
//! there. Every page that looks like a leaf of the table of blocks is taken apart, and a record is taken when its checksum
//! proves it (see [`super::block`]). Pages that redb has freed are found, too; what they hold was committed once, or was about
//! to be: it is genuine, and where two of them claim a number, the later one has it.

use std::collections::BTreeMap;
use std::fmt;

use super::find::record_time;
use super::{Row, block};
use crate::store::StoreError;
use crate::store::codec::{Reader, Writer};
use crate::time::Timestamp;
use crate::types::Seq;

/// Pages begin at multiples of this.
const PAGE_BYTES: usize = 4096;
/// First byte of a leaf in redb's format.
const LEAF: u8 = 1;
/// A number that cannot be proved is believed when it is not further than this past those that can: it keeps new records
/// from numbers that may have been given.
const BELIEVED: u64 = 1 << 16;

/// Records that a damaged segment has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// The first of them.
    pub from: Seq,
    /// The last.
    pub to: Seq,
    /// Time of the last record before them, when there is one in the segment.
    pub after: Option<Timestamp>,
    /// Time of the first record after them, when there is one in the segment.
    pub before: Option<Timestamp>,
    /// `false`: these numbers are left out because they may have been given; whether there were such records is not known.
    pub certain: bool,
}

impl Lost {
    /// How many numbers.
    pub fn count(&self) -> u64 {
        (self.to + 1).saturating_sub(self.from)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, .. } = self;
        if !self.certain {
            return write!(
                f,
                "journal numbers {from} to {to} are left out: whether there were records with them is not known"
            );
        }
        write!(f, "journal records {from} to {to} are lost to damage")?;
        match (self.after, self.before) {
            (Some(after), Some(before)) => write!(f, ", received between {after} and {before}"),
            (Some(after), None) => write!(f, ", received after {after}"),
            (None, Some(before)) => write!(f, ", received before {before}"),
            (None, None) => Ok(()),
        }
    }
}

pub(super) fn encode(lost: &[Lost]) -> Vec<u8> {
    let mut w = Writer::default();
    w.count(lost.len() as u64);
    for Lost { from, to, after, before, certain } in lost {
        w.u64(*from).u64(*to).u8(u8::from(*certain));
        for time in [after, before] {
            w.option(*time, |w, at| {
                w.time(at);
            });
        }
    }
    w.finish()
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Lost>, StoreError> {
    let mut r = Reader::new(bytes);
    let mut lost = Vec::new();
    for _ in 0..r.count("lost ranges")? {
        let (from, to, certain) = (r.u64("from")?, r.u64("to")?, r.u8("certain")? == 1);
        let (after, before) = (r.option("after", |r| r.time("after"))?, r.option("before", |r| r.time("before"))?);
        lost.push(Lost { from, to, after, before, certain });
    }
    r.end("lost ranges")?;
    Ok(lost)
}

/// What was found.
pub(super) struct Salvaged {
    /// By number.
    pub(super) records: BTreeMap<Seq, Vec<u8>>,
    /// The highest number that was seen or believed; 0 for none.
    pub(super) highest: Seq,
}

impl Salvaged {
    /// Take what these rows have besides, which are known to be whole.
    pub(super) fn add(&mut self, rows: &[Row]) {
        for (first, row) in rows {
            for (seq, record) in block::unpack(*first, row).records() {
                if let Some(record) = record {
                    self.records.entry(seq).or_insert_with(|| record.to_vec());
                    self.highest = self.highest.max(seq);
                }
            }
        }
    }
}

/// Look through a file for the records from `first` up to, not including, `end`.
pub(super) fn scan(file: &[u8], first: Seq, end: Seq) -> Salvaged {
    // each record with the time of its block, which tells the later of two
    let mut found: BTreeMap<Seq, (Timestamp, Vec<u8>)> = BTreeMap::new();
    let mut claimed = Vec::new();
    for start in (0..file.len()).step_by(PAGE_BYTES) {
        for (key, row) in rows(file.get(start..).unwrap_or_default()) {
            if key < first || key >= end {
                continue;
            }
            let mut written = None;
            for (seq, record) in block::unpack(key, row).records() {
                let Some(record) = record else {
                    claimed.push(seq);
                    continue;
                };
                let written = *written.get_or_insert_with(|| record_time(record));
                if seq < end && found.get(&seq).is_none_or(|(time, _)| *time < written) {
                    found.insert(seq, (written, record.to_vec()));
                }
            }
        }
    }
    let proved = found.keys().next_back().copied().unwrap_or(first - 1);
    let claimed = claimed.into_iter().filter(|seq| *seq < end && *seq <= proved.saturating_add(BELIEVED)).max();
    let records = found.into_iter().map(|(seq, (_, record))| (seq, record)).collect();
    Salvaged { records, highest: proved.max(claimed.unwrap_or(0)) }
}

/// The rows of a leaf of a table from numbers to bytes, as far as they can be made out: (key, value).
fn rows(page: &[u8]) -> Vec<(u64, &[u8])> {
    let leaf = || -> Option<Vec<(u64, &[u8])>> {
        let (kind, count) = (*page.first()?, u16::from_le_bytes(page.get(2..4)?.try_into().ok()?));
        if kind != LEAF {
            return None;
        }
        let count = usize::from(count);
        let keys = 4 + 4 * count;
        let mut begin = keys + 8 * count;
        let mut found = Vec::new();
        for row in 0..count {
            let end = 4 + 4 * row;
            let end = u32::from_le_bytes(page.get(end..end + 4)?.try_into().ok()?);
            let end = usize::try_from(end).ok()?;
            let key = keys + 8 * row;
            let key = u64::from_le_bytes(page.get(key..key + 8)?.try_into().ok()?);
            // an end that is damaged spoils two rows, not those after them
            if let Some(value) = page.get(begin..end) {
                found.push((key, value));
            }
            begin = end;
        }
        Some(found)
    };
    leaf().unwrap_or_default()
}

/// The ranges that are missing among `records`, in order, from `first` to `last`.
pub(super) fn missing<'a>(records: impl Iterator<Item = (Seq, &'a [u8])>, first: Seq, last: Seq) -> Vec<Lost> {
    let mut lost = Vec::new();
    let (mut next, mut after) = (first, None);
    for (seq, record) in records {
        let at = record_time(record);
        if seq > next {
            lost.push(Lost { from: next, to: seq - 1, after, before: Some(at), certain: true });
        }
        (next, after) = (seq + 1, Some(at));
    }
    if next <= last {
        lost.push(Lost { from: next, to: last, after, before: None, certain: true });
    }
    lost
}
