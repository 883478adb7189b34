//! `journal/`: the truth.
//!
//! Records are appended under 1, 2, 3, ... by one thread that commits whatever is waiting: idle it commits at once, busy its
//! batch grows; a busy one waits a moment for the senders that it has just answered. A commit is durable before anybody who waits
//! for it is answered: its records are one frame of a write-ahead log (`ahead.log`), compressed and synced once. They go into
//! the segment's database by some hundred commits at a time.
//!
//! The journal is cut into segments, one small database file each, named after its first record; only the newest is written.
//! Retention removes whole files, so the space is back at once (a redb file hardly ever shrinks by itself, and compacting one
//! would stop acknowledgement for as long as it takes); a repair after a crash walks one segment, not the whole journal; and
//! damage stays within its segment. A new segment is made under another name, with its schema committed, and then renamed:
//! a file with a segment's name is a whole database. Segments that the state has not folded durably are never removed.
//!
//! After a failed commit nothing is acknowledged and the file is not written again: it is closed, opened anew (redb then
//! repairs it) from what the medium really holds and not from the system's cache (see [`Disk::forget`]), and only then work goes on. A batch that failed may still be found in the file afterwards; nobody was told
//! it was there, and a sender that repeats it is recognised.
//!
//! Damage never stops a start and needs no person: a segment that cannot be read is set aside and replaced by what it still
//! gives, and what is lost is told by number and time, in the log and in [`Journal::lost`]. Numbers are not given again.

mod block;
mod find;
mod import;
mod log;
mod mend;
mod newest;
mod salvage;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use redb::{ReadableDatabase, ReadableTableMetadata, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use self::find::{Found, newest_record};
pub use self::import::Importer;
use self::log::Log;
use self::mend::Older;
use self::newest::Newest;
pub use self::salvage::Lost;
use self::writer::Committer;
use super::disk::{self, Disk};
use super::heart::Heart;
use super::{Reserve, StoreError};
use crate::limits::JOURNAL_SEGMENT_BYTES;
use crate::time::Timestamp;
use crate::types::Seq;

/// The blocks of a segment, by the number of their first record.
const BLOCKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("blocks");
/// Number of the first record of a block, and the block (see [`block`]).
type Row = (Seq, Vec<u8>);
/// The write-ahead log of the newest segment.
const AHEAD: &str = "ahead.log";
/// A segment that is still being made.
const UNFINISHED: &str = "unfinished.redb";
/// Older segments that stay open for readers; each has a page cache of [`OLD_SEGMENT_CACHE_BYTES`]. They are never written.
const OLD_SEGMENTS_OPEN: usize = 2;
const OLD_SEGMENT_CACHE_BYTES: usize = 1024 * 1024;

/// Why a record was not taken. Nothing of it is on disk as far as anyone may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full: try again soon.
    Full,
    /// The journal cannot commit (disk full, disk broken), has no room to (see [`Reserve`]), or is closing.
    Unavailable,
}

/// What one commit made durable, in order.
#[derive(Debug)]
pub struct Batch {
    /// Number of the first record.
    pub first: Seq,
    /// The records' bytes.
    pub records: Vec<Vec<u8>>,
}

/// What retention may drop.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Segments whose newest record is older than this.
    pub before: Timestamp,
    /// The oldest segments while the records kept have more bytes than this.
    pub max_bytes: u64,
    /// Never a segment with a record beyond this one: the state does not hold it durably.
    pub folded: Seq,
    /// Only say what would go.
    pub only_look: bool,
}

/// What retention removed, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aged {
    /// Bytes on disk.
    pub bytes: u64,
    /// The newest record of them, 0 when there is none.
    pub last: Seq,
}

enum Command {
    Append {
        bytes: Vec<u8>,
        done: oneshot::Sender<Result<Seq, Refused>>,
    },
    Retain {
        what: Retention,
        done: oneshot::Sender<Aged>,
    },
    /// Nothing to do: the thread shows that it could.
    Poke,
    Close,
}

/// One segment. Its records end where the next one begins.
#[derive(Debug, Clone, Copy)]
struct Segment {
    first: Seq,
    /// Size of its file.
    bytes: u64,
    /// Time of its newest record, once somebody asked.
    newest: Option<Timestamp>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    cache: usize,
    floor: Seq,
    /// The newest segment; `None` between a failure and the next successful open, and after close.
    newest: RwLock<Option<Newest>>,
    /// Oldest first.
    segments: RwLock<Vec<Segment>>,
    older_open: Mutex<Vec<(Seq, Arc<Older>)>>,
    head: AtomicU64,
    /// New records get numbers from here on at least: below it some may have been given that nobody can read any more.
    next: AtomicU64,
    /// What was lost to damage, by segment.
    lost: Mutex<BTreeMap<Seq, Vec<Lost>>>,
    /// Damaged files that were set aside.
    repairs: AtomicU64,
    /// Bytes of the records in the newest segment.
    filled: AtomicU64,
    healthy: AtomicBool,
    queued: AtomicU64,
    reserve: OnceLock<Arc<Reserve>>,
    /// The writer's.
    heart: Heart,
}

/// The journal: readers and appenders share it; its thread ends when every [`Appender`] is gone.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

/// The way in.
#[derive(Clone)]
pub struct Appender {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Command>,
}

/// A promise of the next commit.
pub struct Pending(oneshot::Receiver<Result<Seq, Refused>>);

impl Pending {
    /// Wait until the record is on disk; its number.
    pub async fn durable(self) -> Result<Seq, Refused> {
        self.0.await.unwrap_or(Err(Refused::Unavailable))
    }

    /// The same, for a thread.
    pub fn durable_blocking(self) -> Result<Seq, Refused> {
        self.0.blocking_recv().unwrap_or(Err(Refused::Unavailable))
    }
}

impl Appender {
    /// Queue a record. It is owned by the queue from here on: whoever waits may go away.
    pub fn append(&self, bytes: Vec<u8>) -> Result<Pending, Refused> {
        if !self.shared.healthy.load(Ordering::Acquire) || self.shared.reserve.get().is_some_and(|r| !r.has_room()) {
            return Err(Refused::Unavailable);
        }
        let (done, wait) = oneshot::channel();
        // counted before it is queued: the writer subtracts only what was counted
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        self.queue.try_send(Command::Append { bytes, done }).map_err(|error| {
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => Refused::Full,
                mpsc::error::TrySendError::Closed(_) => Refused::Unavailable,
            }
        })?;
        Ok(Pending(wait))
    }

    /// Remove what retention allows.
    pub async fn retain(&self, what: Retention) -> Aged {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Command::Retain { what, done }).await.is_err() {
            return Aged::default();
        }
        wait.await.unwrap_or_default()
    }

    /// Commit what is queued and end the writer's thread. Later appends are refused; what is there can still be read.
    pub async fn close(&self) {
        if self.queue.send(Command::Close).await.is_err() {
            tracing::trace!("the journal is closed already");
        }
    }

    /// Make the writer's heart beat, if it does nothing else. With a full queue it has to do by itself.
    pub fn poke(&self) {
        if self.queue.try_send(Command::Poke).is_err() {
            tracing::trace!("the journal has no time to be poked");
        }
    }

    /// Records waiting for the next commit.
    pub fn queued(&self) -> u64 {
        self.shared.queued.load(Ordering::Relaxed)
    }

    /// How many may wait.
    pub fn capacity(&self) -> usize {
        self.queue.max_capacity()
    }
}

impl Journal {
    /// Open or create the journal in a data directory, to read. Its next record gets a number above `floor`: what the state
    /// has folded already. A journal that ends below it was lost or replaced, and its numbers must not be given twice.
    pub fn open(data: &Path, cache: usize, floor: Seq) -> Result<Self, StoreError> {
        Self::open_on(disk::real(), data, cache, floor)
    }

    /// The same on another disk.
    pub fn open_on(disk: Arc<dyn Disk>, data: &Path, cache: usize, floor: Seq) -> Result<Self, StoreError> {
        let directory = super::journal_path(data);
        let made = disk.make_directory(&directory).and_then(|()| disk.sync_directory(data));
        made.map_err(|error| StoreError::Io(format!("{}: {error}", directory.display())))?;
        let shared = Shared {
            disk,
            directory,
            cache,
            floor,
            newest: RwLock::new(None),
            segments: RwLock::new(Vec::new()),
            older_open: Mutex::new(Vec::new()),
            head: AtomicU64::new(0),
            next: AtomicU64::new(0),
            lost: Mutex::new(BTreeMap::new()),
            repairs: AtomicU64::new(0),
            filled: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
            queued: AtomicU64::new(0),
            reserve: OnceLock::new(),
            heart: Heart::default(),
        };
        shared.open()?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Start the writer: `queue` records may wait; every committed batch is offered to `committed`, which must not block.
    pub fn start(
        &self,
        queue: usize,
        committed: impl Fn(Batch) + Send + 'static,
    ) -> std::io::Result<(Appender, JoinHandle<()>)> {
        self.start_with(queue, JOURNAL_SEGMENT_BYTES, committed)
    }

    /// The same with segments of another size, for tests.
    pub fn start_with(
        &self,
        queue: usize,
        segment_bytes: u64,
        committed: impl Fn(Batch) + Send + 'static,
    ) -> std::io::Result<(Appender, JoinHandle<()>)> {
        let (send, receive) = mpsc::channel(queue);
        let committer = Committer { shared: Arc::clone(&self.shared), segment_bytes, committed: Box::new(committed) };
        committer.begin();
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || committer.run(receive))?;
        Ok((Appender { shared: Arc::clone(&self.shared), queue: send }, thread))
    }

    /// Take deliveries only while this reserve stands. Given once, before the writer starts.
    pub fn keep_room(&self, reserve: Arc<Reserve>) {
        assert!(self.shared.reserve.set(reserve).is_ok(), "a journal has one reserve");
    }

    /// The room that is kept back on the disk, if any is.
    pub fn reserve(&self) -> Option<&Reserve> {
        self.shared.reserve.get().map(Arc::as_ref)
    }

    /// Beats while the writer works.
    pub fn heart(&self) -> &Heart {
        &self.shared.heart
    }

    /// Close the files cleanly, once the writer has ended and nobody has to read any more.
    pub fn close(&self) {
        if let Err(error) = self.shared.with_newest(Newest::settle) {
            tracing::warn!(%error, "the journal was not closed cleanly: the next start looks through its end");
        }
        drop(self.shared.newest.write().unwrap_or_else(PoisonError::into_inner).take());
        self.shared.older_open.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.healthy.store(false, Ordering::Release);
    }

    /// Number of the newest durable record, 0 when there is none.
    pub fn head(&self) -> Seq {
        self.shared.head.load(Ordering::Acquire)
    }

    /// Number of the oldest record still kept (or of the next one, when none is).
    pub fn oldest(&self) -> Seq {
        self.shared.segments().first().map_or(1, |s| s.first)
    }

    /// Bytes of the journal on disk: what retention counts.
    pub fn file_bytes(&self) -> u64 {
        self.shared.segments().iter().map(|s| s.bytes).sum()
    }

    /// What damage has taken from the journal, as far as it was noticed; in order.
    pub fn lost(&self) -> Vec<Lost> {
        self.shared.losses().values().flatten().copied().collect()
    }

    /// How many of these numbers belonged to records: all but those that were only left out (see [`Lost::certain`]).
    pub fn lost_certainly(&self, from: Seq, to: Seq) -> u64 {
        let left_out = |lost: &Lost| (to.min(lost.to) + 1).saturating_sub(from.max(lost.from));
        let left_out: u64 = self.lost().iter().filter(|lost| !lost.certain).map(left_out).sum();
        (to + 1).saturating_sub(from).saturating_sub(left_out)
    }

    /// Damaged files that were set aside and are still kept.
    pub fn repairs(&self) -> u64 {
        self.shared.repairs.load(Ordering::Relaxed)
    }

    /// Commits work.
    pub fn healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Acquire)
    }

    /// Records from `from` on: at most `records` of them, and no more once `bytes` are read. Empty at the end. Records that
    /// are lost to damage are left out.
    pub fn read(&self, from: Seq, records: usize, bytes: usize) -> Result<Vec<(Seq, Vec<u8>)>, StoreError> {
        let mut found = Found::up_to(records, bytes);
        // held to the end: no new segment begins, so the last one of the list is the one that is open here
        let newest = self.shared.newest.read().unwrap_or_else(PoisonError::into_inner);
        let segments = self.shared.segments().clone();
        let start = segments.partition_point(|s| s.first <= from).saturating_sub(1);
        for (i, segment) in segments.iter().enumerate().skip(start) {
            let done = if i + 1 == segments.len() {
                let reopening = || StoreError::Io("the journal is being reopened".to_owned());
                newest.as_ref().ok_or_else(reopening)?.each(from, self.head(), &mut |seq, bytes| found.take(seq, bytes))?
            } else {
                let end = segments.get(i + 1).map_or(Seq::MAX, |next| next.first);
                self.shared.read_older(segment.first, end, from, &mut found)?
            };
            if done {
                break;
            }
        }
        Ok(found.records)
    }

    /// One record.
    pub fn get(&self, seq: Seq) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.read(seq, 1, 0)?.into_iter().find(|(found, _)| *found == seq).map(|(_, bytes)| bytes))
    }
}

impl Shared {
    fn segments(&self) -> RwLockReadGuard<'_, Vec<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_of(&self, first: Seq) -> PathBuf {
        self.directory.join(format!("{first:020}.redb"))
    }

    fn io(&self, error: &std::io::Error) -> StoreError {
        StoreError::Io(format!("{}: {error}", self.directory.display()))
    }

    /// Find the segments, open the newest; make the first one when there is none.
    fn open(&self) -> Result<(), StoreError> {
        let mut segments = Vec::new();
        for file in self.disk.list(&self.directory).map_err(|e| self.io(&e))? {
            let Some(first) = file.name.strip_suffix(".redb").and_then(|n| n.parse().ok()) else { continue };
            segments.push(Segment { first, bytes: file.bytes, newest: None });
        }
        segments.sort_unstable_by_key(|s| s.first);
        // a segment that was renamed just before a failure must not be written under a name that a power cut takes away
        self.sync_directory()?;
        self.look_for_damage(&mut segments)?;
        let (newest, head, filled) = if let Some(last) = segments.last() {
            let newest = self.open_newest(last.first)?;
            // a journal that was restored has no log before it is opened: that one's name must be durable, too
            self.sync_directory()?;
            let read = newest.database().begin_read()?;
            let table = read.open_table(BLOCKS)?;
            let head = newest_record(newest.database())?.map_or(last.first - 1, |(seq, _)| seq);
            let filled = table.stats()?.stored_bytes();
            (newest, head, filled)
        } else {
            let (newest, segment) = self.make_segment(self.floor + 1, None)?;
            segments.push(segment);
            (newest, self.floor, 0)
        };
        if head < self.floor {
            tracing::error!(
                journal = head,
                state = self.floor,
                "the journal ends before what the state has folded: those records are gone, the levels stand"
            );
        }
        self.head.store(head.max(self.floor), Ordering::Release);
        self.filled.store(filled, Ordering::Relaxed);
        *self.segments.write().unwrap_or_else(PoisonError::into_inner) = segments;
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = Some(newest);
        self.healthy.store(true, Ordering::Release);
        Ok(())
    }

    /// After a failed commit: what the newest segment really holds is on the medium.
    fn forget_newest(&self) {
        let newest = self.segments().last().map(|segment| segment.first);
        if let Some(first) = newest {
            self.disk.forget(&self.path_of(first));
            self.disk.forget(&self.log_path());
        }
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join(AHEAD)
    }

    fn with_newest<T>(&self, work: impl FnOnce(&Newest) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let newest = self.newest.read().unwrap_or_else(PoisonError::into_inner);
        work(newest.as_ref().ok_or_else(|| StoreError::Io("the journal is closed".to_owned()))?)
    }

    /// Open the log, by what `take` does with its file; make it when it is not there.
    fn open_log<T>(&self, take: impl FnOnce(Box<dyn redb::StorageBackend>) -> std::io::Result<T>) -> Result<T, StoreError> {
        let path = self.log_path();
        let file = self.disk.file(&path).map_err(|error| super::not_opened(&path, error))?;
        take(file).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => StoreError::Locked(path),
            _ if super::is_damaged_file(&error) => StoreError::Damaged { file: path, cause: error.to_string() },
            _ => StoreError::from_io(&error, format!("{}: {error}", path.display())),
        })
    }

    /// Make a segment: whole under another name first, then renamed, then the name made durable. `log`: of the segment before, which
    /// is settled.
    fn make_segment(&self, first: Seq, log: Option<Log>) -> Result<(Newest, Segment), StoreError> {
        let unfinished = self.directory.join(UNFINISHED);
        match self.disk.remove(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(self.io(&error)),
            _ => {}
        }
        let log = log.map_or_else(|| self.open_log(Log::emptied), Ok)?;
        let database = super::open(&*self.disk, &unfinished, self.cache)?;
        let mut write = database.begin_write()?;
        write.set_two_phase_commit(true);
        write.open_table(BLOCKS)?;
        write.commit()?;
        let path = self.path_of(first);
        self.disk.rename(&unfinished, &path).map_err(|e| self.io(&e))?;
        self.sync_directory()?;
        let newest = Newest::new(first, database, log, self.log_path());
        Ok((newest, Segment { first, bytes: disk::bytes(&*self.disk, &path), newest: None }))
    }

    fn sync_directory(&self) -> Result<(), StoreError> {
        self.disk.sync_directory(&self.directory).map_err(|e| self.io(&e))
    }

    /// An older segment, opened when it is asked for; a few stay open. `None`: it has aged out.
    fn older(&self, first: Seq) -> Result<Option<Arc<Older>>, StoreError> {
        let mut open = self.older_open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, database)) = open.iter().find(|(f, _)| *f == first) {
            return Ok(Some(Arc::clone(database)));
        }
        let path = self.path_of(first);
        if self.disk.length(&path).map_err(|e| self.io(&e))?.is_none() {
            return Ok(None);
        }
        let database = Arc::new(Older::open(&*self.disk, &path)?);
        if open.len() >= OLD_SEGMENTS_OPEN {
            open.remove(0);
        }
        open.push((first, Arc::clone(&database)));
        Ok(Some(database))
    }

    /// Remove a segment. Under the lock that opens them, so that none is opened as it goes.
    fn remove(&self, first: Seq) -> Result<(), StoreError> {
        let mut open = self.older_open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(f, _)| *f != first);
        if self.losses().remove(&first).is_some() {
            // before the segment: a damaged file without one is mended
            for (_, path) in self.damaged()?.iter().filter(|(of, _)| *of == first) {
                self.disk.remove(path).map_err(|e| self.io(&e))?;
                self.repairs.fetch_sub(1, Ordering::Relaxed);
            }
            self.sync_directory()?;
        }
        self.disk.remove(&self.path_of(first)).map_err(|e| self.io(&e))
    }
}

#[cfg(test)]
mod tests;
