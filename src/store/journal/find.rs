//! Finding records in the databases of segments.

use redb::{ReadableDatabase, ReadableTable};

use super::{BLOCKS, block};
use crate::store::StoreError;
use crate::time::Timestamp;
use crate::types::Seq;

/// Collects records up to a bound.
pub(super) struct Found {
    pub(super) records: Vec<(Seq, Vec<u8>)>,
    pub(super) size: usize,
    most_records: usize,
    most_bytes: usize,
}

impl Found {
    pub(super) fn up_to(most_records: usize, most_bytes: usize) -> Self {
        Self { records: Vec::new(), size: 0, most_records, most_bytes }
    }

    /// Take one; true when it is enough.
    pub(super) fn take(&mut self, seq: Seq, bytes: &[u8]) -> bool {
        self.size += bytes.len();
        self.records.push((seq, bytes.to_vec()));
        self.records.len() >= self.most_records || self.size >= self.most_bytes
    }
}

/// Show the records of a segment from one number to another, until `enough`; whether it was.
pub(super) fn each(
    database: &dyn ReadableDatabase,
    from: Seq,
    until: Seq,
    enough: &mut dyn FnMut(Seq, &[u8]) -> bool,
) -> Result<bool, StoreError> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(BLOCKS)?;
    // the block that `from` stands in begins there or before
    let begin = table.range(..=from)?.next_back().transpose()?.map_or(from, |(first, _)| first.value());
    if begin > until {
        return Ok(false);
    }
    for row in table.range(begin..=until)? {
        let (first, block) = row?;
        if each_of(first.value(), block.value(), from, until, enough)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same for one block.
pub(super) fn each_of(
    first: Seq,
    block: &[u8],
    from: Seq,
    until: Seq,
    enough: &mut dyn FnMut(Seq, &[u8]) -> bool,
) -> Result<bool, StoreError> {
    for (seq, record) in block::unpack(first, block).records() {
        if seq < from || seq > until {
            continue;
        }
        let bytes = record.ok_or_else(|| StoreError::Row(format!("journal record {seq} is damaged")))?;
        if enough(seq, bytes) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Number and bytes of the newest record of a segment.
pub(super) fn newest_record(database: &dyn ReadableDatabase) -> Result<Option<(Seq, Vec<u8>)>, StoreError> {
    let read = database.begin_read()?;
    let table = read.open_table(BLOCKS)?;
    let Some((first, block)) = table.last()? else { return Ok(None) };
    let unpacked = block::unpack(first.value(), block.value());
    let Some((seq, record)) = unpacked.records().last() else { return Ok(None) };
    match record {
        Some(bytes) => Ok(Some((seq, bytes.to_vec()))),
        None => Err(StoreError::Row(format!("journal record {seq} is damaged"))),
    }
}

/// The time that stands in a record's bytes (see `codec::encode_record`).
pub(super) fn record_time(bytes: &[u8]) -> Timestamp {
    crate::store::codec::decode_record(bytes).map(|r| r.at).unwrap_or_default()
}
