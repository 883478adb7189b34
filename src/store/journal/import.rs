//! A journal made of the records of another one, under the numbers that they had there.

use std::path::{Path, PathBuf};

use super::mend::LOST;
use super::{BLOCKS, UNFINISHED, block, salvage};
use crate::limits::{JOURNAL_CACHE_BYTES, JOURNAL_SEGMENT_BYTES};
use crate::store::disk::RealDisk;
use crate::store::{META, StoreError, journal_path};
use crate::types::Seq;

/// Makes the segments of a journal in a data directory that has none.
pub struct Importer {
    directory: PathBuf,
    held: Vec<(Seq, Vec<u8>)>,
    size: u64,
    /// Where the segment before ends.
    next: Option<Seq>,
}

impl Importer {
    /// Begin.
    pub fn new(data: &Path) -> Result<Self, StoreError> {
        let importer = Self { directory: journal_path(data), held: Vec::new(), size: 0, next: None };
        std::fs::create_dir_all(&importer.directory).map_err(|e| importer.io(&e))?;
        Ok(importer)
    }

    /// The next record; numbers rise.
    pub fn push(&mut self, seq: Seq, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.size += bytes.len() as u64;
        self.held.push((seq, bytes));
        if self.size >= JOURNAL_SEGMENT_BYTES { self.write() } else { Ok(()) }
    }

    /// Make everything durable.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.write()?;
        std::fs::File::open(&self.directory).and_then(|d| d.sync_all()).map_err(|e| self.io(&e))
    }

    /// Write what is held as one segment: whole under another name first, like any other. What was missing in the journal
    /// that the records come from is missing in this one, which says so.
    fn write(&mut self) -> Result<(), StoreError> {
        let (Some((first, _)), Some((last, _))) = (self.held.first(), self.held.last()) else { return Ok(()) };
        let (first, last) = (self.next.unwrap_or(*first), *last);
        let lost = salvage::missing(self.held.iter().map(|(seq, record)| (*seq, record.as_slice())), first, last);
        self.next = Some(last + 1);
        let path = self.directory.join(format!("{first:020}.redb"));
        let unfinished = self.directory.join(UNFINISHED);
        let database = crate::store::open(&RealDisk, &unfinished, JOURNAL_CACHE_BYTES)?;
        let mut write = database.begin_write()?;
        write.set_two_phase_commit(true);
        {
            let mut table = write.open_table(BLOCKS)?;
            for (seq, run) in runs(std::mem::take(&mut self.held)) {
                for (seq, row) in block::pack(seq, &run) {
                    table.insert(seq, row.as_slice())?;
                }
            }
            if !lost.is_empty() {
                write.open_table(META)?.insert(LOST, salvage::encode(&lost).as_slice())?;
            }
        }
        write.commit()?;
        drop(database);
        self.size = 0;
        std::fs::rename(&unfinished, &path).map_err(|e| self.io(&e))
    }

    fn io(&self, error: &std::io::Error) -> StoreError {
        StoreError::Io(format!("{}: {error}", self.directory.display()))
    }
}

/// Records without a gap between their numbers, behind the first of them: a block has no gaps.
fn runs(records: Vec<(Seq, Vec<u8>)>) -> Vec<(Seq, Vec<Vec<u8>>)> {
    let mut runs: Vec<(Seq, Vec<Vec<u8>>)> = Vec::new();
    for (seq, bytes) in records {
        match runs.last_mut() {
            Some((first, run)) if *first + run.len() as u64 == seq => run.push(bytes),
            _ => runs.push((seq, vec![bytes])),
        }
    }
    runs
}
