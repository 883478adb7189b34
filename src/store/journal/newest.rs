//! The newest segment: its database, and before it the log with what the database does not have yet.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::Database;

use super::find::{each, each_of, newest_record};
use super::log::Log;
use super::{BLOCKS, Row, block};
use crate::limits::AHEAD_ROWS_BYTES;
use crate::store::StoreError;
use crate::types::Seq;

/// The newest segment, open.
pub(super) struct Newest {
    /// Number of its first record, which names it in the log.
    first: Seq,
    database: Database,
    /// Its log; `None`: another segment has it.
    log: Mutex<Option<Log>>,
    /// For what is said about the log.
    log_path: PathBuf,
    /// What the log has and the database has not, in order.
    waiting: Mutex<Vec<(Seq, Arc<Vec<u8>>)>>,
}

impl Newest {
    /// A segment whose log has nothing for it.
    pub(super) fn new(first: Seq, database: Database, log: Log, log_path: PathBuf) -> Self {
        Self { first, database, log: Mutex::new(Some(log)), log_path, waiting: Mutex::default() }
    }

    /// A segment whose log has these rows for it. What of them the database does not have is put into it.
    pub(super) fn recover(
        first: Seq,
        database: Database,
        log: Log,
        log_path: PathBuf,
        rows: Vec<Row>,
    ) -> Result<Self, StoreError> {
        let newest = Self::new(first, database, log, log_path);
        // one transaction took all that the log had: it has them up to some record, and none behind it
        let has = newest_record(&newest.database)?.map_or(0, |(seq, _)| seq);
        let missing: Vec<Row> = rows.into_iter().filter(|(seq, _)| *seq > has).collect();
        if !missing.is_empty() {
            tracing::info!(commits = missing.len(), "the end of the journal is taken from its write-ahead log");
        }
        newest.wait(missing);
        newest.settle()?;
        Ok(newest)
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(Seq, Arc<Vec<u8>>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_log<T>(&self, work: impl FnOnce(&mut Log) -> std::io::Result<T>) -> Result<T, StoreError> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let log = log.as_mut().ok_or_else(|| StoreError::Io("the journal's log is closed".to_owned()))?;
        work(log).map_err(|error| StoreError::from_io(&error, format!("{}: {error}", self.log_path.display())))
    }

    /// See [`Log::make_room`].
    pub(super) fn make_room(&self, room: u64) -> Result<(), StoreError> {
        self.with_log(|log| {
            log.make_room(room);
            Ok(())
        })
    }

    /// Make rows durable, all of them or none; readers find them from then on.
    pub(super) fn append(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        self.with_log(|log| log.append(self.first, &rows))?;
        self.wait(rows);
        Ok(())
    }

    fn wait(&self, rows: Vec<Row>) {
        self.waiting().extend(rows.into_iter().map(|(seq, row)| (seq, Arc::new(row))));
    }

    /// The log has so many bytes, or enough waits in memory.
    pub(super) fn is_full(&self, room: u64) -> Result<bool, StoreError> {
        let waiting: usize = self.waiting().iter().map(|(_, row)| row.len()).sum();
        self.with_log(|log| Ok(waiting >= AHEAD_ROWS_BYTES || log.is_full(room)))
    }

    /// Put what waits into the database, durably; the log begins anew.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        let rows = self.waiting().clone();
        if !rows.is_empty() {
            let mut write = self.database.begin_write()?;
            write.set_two_phase_commit(true);
            {
                let mut table = write.open_table(BLOCKS)?;
                for (seq, row) in block::join(rows.iter().map(|(seq, row)| (*seq, row.as_slice()))) {
                    table.insert(seq, &*row)?;
                }
            }
            write.commit()?;
            // from here on readers find them there
            self.waiting().clear();
        }
        self.with_log(Log::settle)
    }

    /// The same, and give the log to the segment that comes next.
    pub(super) fn release(&self) -> Result<Option<Log>, StoreError> {
        self.settle()?;
        Ok(self.log.lock().unwrap_or_else(PoisonError::into_inner).take())
    }

    /// Show the records from one number to another, until `enough`; whether it was.
    pub(super) fn each(
        &self,
        from: Seq,
        until: Seq,
        enough: &mut dyn FnMut(Seq, &[u8]) -> bool,
    ) -> Result<bool, StoreError> {
        // taken first: a row leaves them when the database has it
        let waiting = self.waiting().clone();
        let begin = waiting.first().map_or(Seq::MAX, |(first, _)| *first);
        if from < begin && each(&self.database, from, until.min(begin - 1), enough)? {
            return Ok(true);
        }
        let at = waiting.partition_point(|(first, _)| *first <= from).saturating_sub(1);
        for (first, row) in waiting.iter().skip(at).take_while(|(first, _)| *first <= until) {
            if each_of(*first, row, from, until, enough)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
