//! Room on the disk that is kept back, so that a full disk stops acknowledgement and nothing else.
//!
//! A file of real blocks, `reserve`, stands in the data directory. **Deliveries are acknowledged only while it stands.** When
//! the free space falls below a floor, or a write fails for want of room, the file is removed: the journal refuses from then
//! on (503 with `Retry-After`), and what has to be written to get out of it has the reserve's room: recovery after a restart,
//! checkpoints, the snapshot that retention needs before it may remove anything. When there is room for the reserve and some
//! more, it is made again, and acknowledgement resumes by itself.
//!
//! Why a file and not only a floor: a floor is no promise where something else writes to the same disk (a log, a download). Why
//! a floor as well: the journal then stops *before* a write fails, so no half-written commit has to be repaired on a full disk.
//!
//! Its size: [`RESERVE_BYTES`](crate::limits::RESERVE_BYTES) (`store.reserve`) for a checkpoint, and once more the size of the
//! state, because a snapshot is a copy of it, at first. It grows with the state while half of the free space allows it.
//!
//! A file system that cannot give such a file (a limit on file sizes) goes without; the floor still holds. Quotas are seen
//! when a write fails.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::{StoreError, state_path};
use crate::limits::DISK_FLOOR_BYTES;

/// The reserve's name in the data directory.
const FILE: &str = "reserve";
const MIB: u64 = 1 << 20;

/// What the reserve asks of a disk.
trait Space: Send + Sync {
    /// Bytes that we may still write, the reserve not counted.
    fn free(&self) -> io::Result<u64>;
    /// Bytes of the state: what a snapshot needs.
    fn state(&self) -> u64;
    /// Bytes of real blocks in the reserve; 0 when it is not there.
    fn held(&self) -> u64;
    /// Make the reserve so large. On an error it is as it was.
    fn hold(&self, bytes: u64) -> io::Result<()>;
    /// Remove the reserve.
    fn release(&self) -> io::Result<()>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The reserve is there.
    Held,
    /// There is room, but the file system does not give such a file.
    Impossible,
    /// Its room is in use, or was never there.
    Spent,
}

/// The reserve of one data directory. One a process; shared by the journal, the fold and the health page.
pub struct Reserve {
    space: Box<dyn Space>,
    least: u64,
    standing: Mutex<Standing>,
    open: AtomicBool,
    held: AtomicU64,
    free: AtomicU64,
}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserve").field("held", &self.held).field("free", &self.free).finish_non_exhaustive()
    }
}

impl Reserve {
    /// The reserve of a data directory that is there: at least `least` bytes. Looks at the disk at once, so that a start on a
    /// full one has room to recover.
    pub fn open(data: &Path, least: u64) -> Self {
        Self::over(Box::new(DataDirectory(data.to_owned())), least)
    }

    fn over(space: Box<dyn Space>, least: u64) -> Self {
        let held = space.held();
        let stands = held >= least;
        let reserve = Self {
            space,
            least,
            standing: Mutex::new(if stands { Standing::Held } else { Standing::Spent }),
            open: AtomicBool::new(stands),
            held: AtomicU64::new(if stands { held } else { 0 }),
            free: AtomicU64::new(0),
        };
        reserve.look();
        if !reserve.has_room() {
            tracing::error!(free = reserve.free(), needed = reserve.needed(), "the disk is full: nothing is acknowledged");
        }
        reserve
    }

    /// Deliveries may be acknowledged.
    pub fn has_room(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Bytes free when it was last looked, the reserve not counted.
    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Bytes that are kept back; 0 while they are in use.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes that must be free before acknowledgement resumes.
    pub fn needed(&self) -> u64 {
        self.least.saturating_add(2 * DISK_FLOOR_BYTES)
    }

    /// Before a commit: is there room for it? When there is not, the reserve is spent.
    pub(super) fn admits(&self) -> bool {
        if !self.has_room() {
            return false;
        }
        // a disk that cannot say is left to the commit to find out about
        let Ok(free) = self.ask() else { return true };
        if free < DISK_FLOOR_BYTES {
            self.spend();
        }
        self.has_room()
    }

    /// A write has failed: when it was for want of room, what comes next may use the reserve.
    pub fn failed(&self, error: &StoreError) {
        let tight = self.ask().is_ok_and(|free| free < 2 * DISK_FLOOR_BYTES);
        if tight || matches!(error, StoreError::Full(_)) {
            self.spend();
        }
    }

    /// Look at the disk: spend the reserve, make it again, or let it grow with the state. Called about once a second.
    pub fn look(&self) {
        if let Ok(free) = self.ask() {
            let standing = *self.standing.lock().unwrap_or_else(PoisonError::into_inner);
            match standing {
                Standing::Held | Standing::Impossible if free < DISK_FLOOR_BYTES => self.spend(),
                Standing::Spent if free < self.needed() => {}
                Standing::Spent | Standing::Impossible => self.make(free),
                Standing::Held => self.grow(free),
            }
        }
    }

    fn ask(&self) -> io::Result<u64> {
        let free = self.space.free().inspect_err(|error| tracing::debug!(%error, "the disk does not say what is free"))?;
        self.free.store(free, Ordering::Relaxed);
        Ok(free)
    }

    /// The size that it should have: room for a checkpoint, and for a copy of the state.
    fn wanted(&self) -> u64 {
        self.least.saturating_add(self.space.state()).next_multiple_of(MIB)
    }

    fn spend(&self) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if *standing == Standing::Spent {
            return;
        }
        // first nobody may write deliveries, then there is more room
        self.open.store(false, Ordering::Release);
        *standing = Standing::Spent;
        let released = self.held.swap(0, Ordering::Relaxed);
        tracing::error!(
            free = self.free(),
            released,
            needed = self.needed(),
            "the disk is full: nothing is acknowledged until there is room; checkpoints and retention go on in the reserve"
        );
        if let Err(error) = self.space.release() {
            tracing::error!(%error, "the reserve cannot be removed");
        }
    }

    fn make(&self, free: u64) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *standing;
        let size = self.wanted().min(self.least.max(free / 2 / MIB * MIB));
        match self.space.hold(size) {
            Ok(()) => {
                self.held.store(size, Ordering::Relaxed);
                *standing = Standing::Held;
            }
            Err(error) if is_full(&error) => return,
            Err(error) => {
                *standing = Standing::Impossible;
                if before != Standing::Impossible {
                    tracing::warn!(%error, "no reserve can be made here: a full disk may stop checkpoints and retention, too");
                }
            }
        }
        if before == Standing::Spent {
            self.open.store(true, Ordering::Release);
            tracing::info!(free, reserve = self.held(), "there is room on the disk");
        }
    }

    /// Never more than half of what is free: the deliveries need room as well.
    fn grow(&self, free: u64) {
        let held = self.held();
        let more = self.wanted().saturating_sub(held).min(free / 2) / MIB * MIB;
        if more == 0 || free < 4 * DISK_FLOOR_BYTES {
            return;
        }
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if *standing != Standing::Held {
            return;
        }
        match self.space.hold(held + more) {
            Ok(()) => self.held.store(held + more, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "the reserve cannot grow"),
        }
    }
}

/// The disk, or our share of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The file system of a data directory.
struct DataDirectory(PathBuf);

impl DataDirectory {
    fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }
}

impl Space for DataDirectory {
    fn free(&self) -> io::Result<u64> {
        let about = statvfs(&self.0)?;
        Ok(about.f_bavail.saturating_mul(about.f_frsize))
    }

    fn state(&self) -> u64 {
        std::fs::metadata(state_path(&self.0)).map_or(0, |about| about.len())
    }

    fn held(&self) -> u64 {
        // blocks, not length: a copied data directory may have a file of nothing but holes
        std::fs::metadata(self.file()).map_or(0, |about| about.len().min(about.blocks().saturating_mul(512)))
    }

    fn hold(&self, bytes: u64) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(self.file())?;
        let before = file.metadata()?.len();
        let allocated = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            // what is there already is not written again: a reserve grows often
            Err(Errno::OPNOTSUPP) => fill(&mut file, if self.held() == before { before } else { 0 }, bytes),
            other => other.map_err(io::Error::from),
        };
        // what it got of the rest is of use to others
        allocated.or_else(|error| {
            if before == 0 {
                self.release()?;
            } else {
                file.set_len(before)?;
            }
            Err(error)
        })
    }

    fn release(&self) -> io::Result<()> {
        match std::fs::remove_file(self.file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Blocks the slow way, for file systems that cannot allocate them unwritten.
fn fill(file: &mut File, from: u64, to: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(from))?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..to.saturating_sub(from) / MIB {
        file.write_all(&zeros)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests;
