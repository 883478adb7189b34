//! A journal made of the records of another one, under the numbers that they had there.

use std::path::{Path, PathBuf};

use super::{RECORDS, UNFINISHED};
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
            let mut table = write.open_table(RECORDS)?;
            for (seq, bytes) in self.held.drain(..) {
                table.insert(seq, bytes.as_slice())?;
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
