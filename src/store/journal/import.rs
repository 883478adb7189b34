//! A journal made of the records of another one, under the numbers that they had there.

use std::path::{Path, PathBuf};

use super::{BLOCKS, UNFINISHED, block};
use crate::limits::{JOURNAL_CACHE_BYTES, JOURNAL_SEGMENT_BYTES};
use crate::store::disk::RealDisk;
use crate::store::{StoreError, journal_path};
use crate::types::Seq;

/// Makes the segments of a journal in a data directory that has none.
pub struct Importer {
    directory: PathBuf,
    held: Vec<(Seq, Vec<u8>)>,
    size: u64,
}

impl Importer {
    /// Begin.
    pub fn new(data: &Path) -> Result<Self, StoreError> {
        let importer = Self { directory: journal_path(data), held: Vec::new(), size: 0 };
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

    /// Write what is held as one segment: whole under another name first, like any other.
    fn write(&mut self) -> Result<(), StoreError> {
        let Some((first, _)) = self.held.first() else { return Ok(()) };
        let path = self.directory.join(format!("{first:020}.redb"));
        let unfinished = self.directory.join(UNFINISHED);
        let database = crate::store::open(&RealDisk, &unfinished, JOURNAL_CACHE_BYTES)?;
        let mut write = database.begin_write()?;
        write.set_two_phase_commit(true);
        {
            let mut table = write.open_table(BLOCKS)?;
            for (mut seq, run) in runs(std::mem::take(&mut self.held)) {
                for (block, bytes) in block::cut(&run) {
                    block::fill(table.insert_reserve(seq, bytes)?.as_mut(), block);
                    seq += block.len() as u64;
                }
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
