//! A disk that stops giving out what databases ask for, and gives it out again.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{Builder, DatabaseError, StorageBackend};

use super::{Disk, Entry, Reader, RealDisk};

/// The disk of this machine; while `broken`, databases cannot read (`refused`: one has tried), while `stalled`, their syncs do not
/// return, while `fixed`, they cannot be written; a log can.
#[derive(Debug, Default)]
pub(crate) struct FailingDisk {
    pub(crate) broken: Arc<AtomicBool>,
    pub(crate) refused: Arc<Latch>,
    pub(crate) stalled: Arc<Stall>,
    pub(crate) fixed: Arc<AtomicBool>,
}

/// Something that has happened, or not yet.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    has: Mutex<bool>,
    changed: Condvar,
}

impl Latch {
    /// Returns when it has.
    pub(crate) fn wait(&self) {
        let has = self.has.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(has, |has| !*has).unwrap_or_else(PoisonError::into_inner));
    }

    fn set(&self) {
        *self.has.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

/// What a sync waits for.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    state: Mutex<Stalled>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Stalled {
    is: bool,
    waiting: u32,
}

impl Stall {
    /// From here on syncs do not return.
    pub(crate) fn begin(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is = true;
    }

    /// They return, those that wait, too.
    pub(crate) fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is = false;
        self.changed.notify_all();
    }

    /// Returns when a sync waits.
    pub(crate) fn until_met(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(state, |state| state.waiting == 0).unwrap_or_else(PoisonError::into_inner));
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting += 1;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |state| state.is).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
    }
}

#[derive(Debug)]
struct Backend {
    file: FileBackend,
    broken: Arc<AtomicBool>,
    refused: Arc<Latch>,
    stalled: Arc<Stall>,
    /// Nothing can be written.
    fixed: Option<Arc<AtomicBool>>,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.broken.load(Ordering::Acquire) {
            self.refused.set();
            return Err(io::Error::other("a bad sector"));
        }
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.stalled.pass();
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.fixed.as_ref().is_some_and(|fixed| fixed.load(Ordering::Acquire)) {
            return Err(io::Error::other("a bad sector"));
        }
        self.file.write(offset, data)
    }
}

impl Disk for FailingDisk {
    fn file(&self, path: &Path) -> Result<Box<dyn StorageBackend>, DatabaseError> {
        let opened = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = FileBackend::new(opened.map_err(|error| DatabaseError::Storage(error.into()))?)?;
        let (broken, refused, stalled) = (Arc::clone(&self.broken), Arc::clone(&self.refused), Arc::clone(&self.stalled));
        let fixed = path.extension().is_some_and(|kind| kind == "redb").then(|| Arc::clone(&self.fixed));
        Ok(Box::new(Backend { file, broken, refused, stalled, fixed }))
    }

    fn reader(&self, path: &Path, builder: &Builder) -> Result<Reader, DatabaseError> {
        RealDisk.reader(path, builder)
    }

    fn salvage(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.salvage(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        RealDisk.list(directory)
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        RealDisk.length(path)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.make_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.copy(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        RealDisk.sync_directory(directory)
    }
}
