//! A file whose writes are pushed to the disk as they come.
//!
//! A checkpoint of a large state writes some sixty megabytes. Left to the end, one sync would push them out at once, and the
//! journal's syncs, which deliveries wait for, would stand behind them in the disk's queue. So what was written is synced
//! every half a megabyte: the checkpoint takes a little longer, which nobody waits for. redb does not know: to it a sync that it
//! did not ask for is one that came early.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{BackendError, StorageBackend};

use crate::store::heart;

/// Bytes that may wait to be synced. A third of what a checkpoint under load writes, and above what the journal's log puts into its database at
/// once ([`AHEAD_ROWS_BYTES`](crate::limits::AHEAD_ROWS_BYTES)), which gains nothing by a sync before its own. Measured: 1,000 small writes
/// a second, each synced, while another thread writes 6 MiB at random places of a file every 0.3 s; p99 of those syncs in three
/// runs 1.1 to 1.5 ms with 2 MiB, 0.8 to 0.9 with 1 MiB, 0.5 to 0.7 with this, 0.3 to 0.4 with 128 KiB; 0.3 without the other thread.
const UNSYNCED_BYTES: u64 = 512 * 1024;

#[derive(Debug)]
pub(super) struct Paced {
    file: Box<dyn StorageBackend>,
    unsynced: AtomicU64,
}

impl Paced {
    pub(super) fn new(file: Box<dyn StorageBackend>) -> Self {
        Self { file, unsynced: AtomicU64::new(0) }
    }
}

/// Everything is the file's own, its locks above all: without them two processes could open it.
impl StorageBackend for Paced {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)?;
        heart::read(out.len());
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.unsynced.store(0, Ordering::Relaxed);
        self.file.sync_data()?;
        heart::beat();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)?;
        heart::beat();
        let bytes = data.len() as u64;
        if self.unsynced.fetch_add(bytes, Ordering::Relaxed) + bytes >= UNSYNCED_BYTES {
            self.sync_data()?;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
