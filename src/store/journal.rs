//! `journal.redb`: the truth.
//!
//! Records are appended under 1, 2, 3, ... in segments (one table each, `segment-<first number>`), by one thread that commits
//! whatever is waiting: idle it commits at once, busy its batch grows. No timer. A commit is two-phase and durable before
//! anybody who waits for it is answered. Retention drops whole segments, never one that the state has not folded durably.
//!
//! After a failed commit nothing is acknowledged and the file is not written again: it is closed, opened anew (redb then
//! repairs it), and only then work goes on. A batch that failed may still be found in the file afterwards; nobody was told
//! it was there, and a sender that repeats it is recognised.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableHandle};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::codec::{Reader, Writer};
use crate::limits::{JOURNAL_BATCH_BYTES, JOURNAL_BATCH_RECORDS, JOURNAL_SEGMENT_BYTES};
use crate::time::{self, Timestamp};
use crate::types::Seq;

/// How long the writer waits before it tries to open the file again after a failure.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// A table of records.
type Segment<'a> = TableDefinition<'a, u64, &'static [u8]>;

/// Figures of the segments that are full, by first record; counting them again at each start would read them all.
const SEALED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sealed");

/// Why a record was not taken. Nothing of it is on disk as far as anyone may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full: try again soon.
    Full,
    /// The journal cannot commit (disk full, disk broken) or is closing.
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
}

enum Command {
    Append { bytes: Vec<u8>, done: oneshot::Sender<Result<Seq, Refused>> },
    Retain { what: Retention, done: oneshot::Sender<u64> },
    Close,
}

/// One segment's figures.
#[derive(Debug, Clone, Copy)]
struct SegmentInfo {
    first: Seq,
    records: u64,
    bytes: u64,
    newest: Timestamp,
}

impl SegmentInfo {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.count(self.records).count(self.bytes).time(self.newest);
        w.finish()
    }

    fn decode(first: Seq, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut r = Reader::new(bytes);
        Ok(Self { first, records: r.count("records")?, bytes: r.count("bytes")?, newest: r.time("newest")? })
    }
}

struct Shared {
    path: PathBuf,
    cache: usize,
    floor: Seq,
    /// `None` between a failure and the next successful open, and after close.
    database: RwLock<Option<Database>>,
    head: AtomicU64,
    oldest: AtomicU64,
    retained_bytes: AtomicU64,
    healthy: AtomicBool,
    queued: AtomicU64,
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
        if !self.shared.healthy.load(Ordering::Acquire) {
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

    /// Drop what retention allows; the bytes of records dropped.
    pub async fn retain(&self, what: Retention) -> u64 {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Command::Retain { what, done }).await.is_err() {
            return 0;
        }
        wait.await.unwrap_or(0)
    }

    /// Commit what is queued, close the file, end the writer's thread. Later appends are refused.
    pub async fn close(&self) {
        if self.queue.send(Command::Close).await.is_err() {
            tracing::trace!("the journal is closed already");
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
        let path = super::journal_path(data);
        let database = super::open(&path, cache)?;
        let shared = Shared {
            path,
            cache,
            floor,
            database: RwLock::new(None),
            head: AtomicU64::new(0),
            oldest: AtomicU64::new(1),
            retained_bytes: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
            queued: AtomicU64::new(0),
        };
        shared.take(database)?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Start the writer: `queue` records may wait; every committed batch is offered to `committed`, which must not block.
    pub fn start(
        &self,
        queue: usize,
        committed: impl Fn(Batch) + Send + 'static,
    ) -> std::io::Result<(Appender, JoinHandle<()>)> {
        let (send, receive) = mpsc::channel(queue);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || Committer { shared, segments: Vec::new(), committed: Box::new(committed) }.run(receive))?;
        Ok((Appender { shared: Arc::clone(&self.shared), queue: send }, thread))
    }

    /// Number of the newest durable record, 0 when there is none.
    pub fn head(&self) -> Seq {
        self.shared.head.load(Ordering::Acquire)
    }

    /// Number of the oldest record still kept.
    pub fn oldest(&self) -> Seq {
        self.shared.oldest.load(Ordering::Acquire)
    }

    /// Bytes of the records still kept.
    pub fn retained_bytes(&self) -> u64 {
        self.shared.retained_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        super::file_bytes(&self.shared.path)
    }

    /// Commits work.
    pub fn healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Acquire)
    }

    /// Records from `from` on: at most `records` of them, and no more once `bytes` are read. Empty at the end.
    pub fn read(&self, from: Seq, records: usize, bytes: usize) -> Result<Vec<(Seq, Vec<u8>)>, StoreError> {
        let guard = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = guard.as_ref() else { return Err(StoreError::Io("the journal is being reopened".to_owned())) };
        let transaction = database.begin_read()?;
        let mut found = Vec::new();
        let mut size = 0;
        let segments = segment_names(transaction.list_tables()?);
        let start = segments.partition_point(|(first, _)| *first <= from).saturating_sub(1);
        for (_, name) in segments.iter().skip(start) {
            let table = transaction.open_table(Segment::new(name))?;
            for row in table.range(from..)? {
                let (seq, value) = row?;
                size += value.value().len();
                found.push((seq.value(), value.value().to_vec()));
                if found.len() >= records || size >= bytes {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// One record.
    pub fn get(&self, seq: Seq) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.read(seq, 1, 0)?.into_iter().find(|(found, _)| *found == seq).map(|(_, bytes)| bytes))
    }
}

fn segment_names(tables: impl Iterator<Item = redb::UntypedTableHandle>) -> Vec<(Seq, String)> {
    let mut names: Vec<(Seq, String)> = tables
        .filter_map(|t| {
            let first = t.name().strip_prefix("segment-")?.parse().ok()?;
            Some((first, t.name().to_owned()))
        })
        .collect();
    names.sort_unstable();
    names
}

fn segment_name(first: Seq) -> String {
    format!("segment-{first:020}")
}

/// The time that stands in a record's bytes (see `codec::encode_record`).
fn record_time(bytes: &[u8]) -> Timestamp {
    super::codec::decode_record(bytes).map(|r| r.at).unwrap_or_default()
}

impl Shared {
    /// Take a freshly opened database into use.
    fn take(&self, database: Database) -> Result<(), StoreError> {
        let segments = read_segments(&database)?;
        let head = segments.last().map_or(0, |s| s.first + s.records - 1);
        if head < self.floor {
            tracing::error!(
                journal = head,
                state = self.floor,
                "the journal ends before what the state has folded: those records are gone, the levels stand"
            );
        }
        self.head.store(head.max(self.floor), Ordering::Release);
        self.publish(&segments);
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
        self.healthy.store(true, Ordering::Release);
        Ok(())
    }

    fn publish(&self, segments: &[SegmentInfo]) {
        self.oldest.store(segments.first().map_or(1, |s| s.first), Ordering::Release);
        self.retained_bytes.store(segments.iter().map(|s| s.bytes).sum(), Ordering::Relaxed);
    }
}

/// Figures of every segment: sealed ones have a row of their own, the last one is counted.
fn read_segments(database: &Database) -> Result<Vec<SegmentInfo>, StoreError> {
    let transaction = database.begin_read()?;
    let mut segments = Vec::new();
    let names = segment_names(transaction.list_tables()?);
    let sealed = match transaction.open_table(SEALED) {
        Ok(table) => Some(table),
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(other) => return Err(other.into()),
    };
    for (first, name) in &names {
        if let Some(row) = sealed.as_ref().and_then(|t| t.get(*first).transpose()).transpose()? {
            segments.push(SegmentInfo::decode(*first, row.value())?);
            continue;
        }
        let table = transaction.open_table(Segment::new(name))?;
        let mut info = SegmentInfo { first: *first, records: table.len()?, bytes: 0, newest: Timestamp::default() };
        if let Some((_, value)) = table.last()? {
            info.newest = record_time(value.value());
        }
        info.bytes = table.stats()?.stored_bytes().saturating_sub(info.records * 8);
        segments.push(info);
    }
    Ok(segments)
}

struct Committer {
    shared: Arc<Shared>,
    segments: Vec<SegmentInfo>,
    committed: Box<dyn Fn(Batch) + Send>,
}

impl Committer {
    fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        self.reload_segments();
        let mut held = None;
        while let Some(command) = held.take().or_else(|| queue.blocking_recv()) {
            match command {
                Command::Append { bytes, done } => {
                    let mut size = bytes.len();
                    let (mut records, mut waiting) = (vec![bytes], vec![done]);
                    while records.len() < JOURNAL_BATCH_RECORDS && size < JOURNAL_BATCH_BYTES {
                        match queue.try_recv() {
                            Ok(Command::Append { bytes, done }) => {
                                size += bytes.len();
                                records.push(bytes);
                                waiting.push(done);
                            }
                            Ok(other) => {
                                held = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.shared.queued.fetch_sub(records.len() as u64, Ordering::Relaxed);
                    if !self.commit(records, waiting) {
                        self.reopen(&mut queue);
                    }
                }
                Command::Retain { what, done } => {
                    let dropped = self.retain(what).unwrap_or_else(|error| {
                        tracing::warn!(%error, "retention failed");
                        0
                    });
                    answer(done, dropped);
                }
                Command::Close => break,
            }
        }
        // told to, or the last appender is gone: close the file cleanly
        drop(self.shared.database.write().unwrap_or_else(PoisonError::into_inner).take());
        self.shared.healthy.store(false, Ordering::Release);
    }

    fn reload_segments(&mut self) {
        let guard = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        self.segments = guard.as_ref().and_then(|d| read_segments(d).ok()).unwrap_or_default();
    }

    /// True when the batch is on disk.
    fn commit(&mut self, records: Vec<Vec<u8>>, waiting: Vec<oneshot::Sender<Result<Seq, Refused>>>) -> bool {
        let began = time::instant();
        let first = self.shared.head.load(Ordering::Acquire) + 1;
        let result = self.write(first, &records);
        match result {
            Ok(()) => {
                let head = first + records.len() as u64 - 1;
                self.shared.head.store(head, Ordering::Release);
                self.shared.publish(&self.segments);
                for (seq, done) in (first..).zip(waiting) {
                    answer(done, Ok(seq));
                }
                crate::metrics::journal_commit(began.elapsed(), records.len() as u64, head);
                (self.committed)(Batch { first, records });
                true
            }
            Err(error) => {
                self.shared.healthy.store(false, Ordering::Release);
                for done in waiting {
                    answer(done, Err(Refused::Unavailable));
                }
                crate::metrics::journal_commit_failed();
                tracing::error!(%error, "journal commit failed: nothing is acknowledged until the file opens again");
                false
            }
        }
    }

    fn write(&mut self, first: Seq, records: &[Vec<u8>]) -> Result<(), StoreError> {
        let guard = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or_else(|| StoreError::Io("the journal is closed".to_owned()))?;
        let mut transaction = database.begin_write()?;
        transaction.set_two_phase_commit(true);
        let mut info = match self.segments.last() {
            Some(last) if last.bytes < JOURNAL_SEGMENT_BYTES && last.first + last.records == first => *last,
            full => {
                if let Some(full) = full {
                    transaction.open_table(SEALED)?.insert(full.first, full.encode().as_slice())?;
                }
                SegmentInfo { first, records: 0, bytes: 0, newest: Timestamp::default() }
            }
        };
        {
            let name = segment_name(info.first);
            let mut table = transaction.open_table(Segment::new(&name))?;
            for (seq, bytes) in (first..).zip(records) {
                table.insert(seq, bytes.as_slice())?;
                info.records += 1;
                info.bytes += bytes.len() as u64;
            }
        }
        if let Some(last) = records.last() {
            info.newest = record_time(last);
        }
        transaction.commit()?;
        match self.segments.last_mut() {
            Some(last) if last.first == info.first => *last = info,
            _ => self.segments.push(info),
        }
        Ok(())
    }

    /// Close the file and try to open it until it works; what is queued meanwhile is refused.
    fn reopen(&mut self, queue: &mut mpsc::Receiver<Command>) {
        drop(self.shared.database.write().unwrap_or_else(PoisonError::into_inner).take());
        loop {
            while let Ok(command) = queue.try_recv() {
                match command {
                    Command::Append { done, .. } => {
                        self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                        answer(done, Err(Refused::Unavailable));
                    }
                    Command::Retain { done, .. } => answer(done, 0),
                    Command::Close => queue.close(),
                }
            }
            if queue.is_closed() {
                return;
            }
            // the one pause in the program that is a pause: the disk needs time, nothing can wake us
            std::thread::sleep(REOPEN_PAUSE);
            match super::open(&self.shared.path, self.shared.cache).and_then(|database| self.shared.take(database)) {
                Ok(()) => break,
                Err(error) => tracing::error!(%error, "the journal still cannot be opened"),
            }
        }
        self.reload_segments();
        tracing::info!(head = self.shared.head.load(Ordering::Acquire), "journal open again");
    }

    fn retain(&mut self, what: Retention) -> Result<u64, StoreError> {
        let mut total: u64 = self.segments.iter().map(|s| s.bytes).sum();
        let mut drop_count = 0;
        let mut dropped = 0;
        // the segment in use stays
        for (segment, next) in self.segments.iter().zip(self.segments.iter().skip(1)) {
            let folded = next.first - 1 <= what.folded;
            if !folded || (segment.newest >= what.before && total <= what.max_bytes) {
                break;
            }
            total -= segment.bytes;
            dropped += segment.bytes;
            drop_count += 1;
        }
        if drop_count == 0 {
            return Ok(0);
        }
        let guard = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or_else(|| StoreError::Io("the journal is closed".to_owned()))?;
        let mut transaction = database.begin_write()?;
        transaction.set_two_phase_commit(true);
        for segment in self.segments.iter().take(drop_count) {
            transaction.delete_table(Segment::new(&segment_name(segment.first)))?;
            transaction.open_table(SEALED)?.remove(segment.first)?;
        }
        transaction.commit()?;
        self.segments.drain(..drop_count);
        self.shared.publish(&self.segments);
        tracing::info!(segments = drop_count, bytes = dropped, "raw deliveries aged out");
        Ok(dropped)
    }
}

/// Tell whoever waits; a client that hung up changes nothing.
fn answer<T>(done: oneshot::Sender<T>, value: T) {
    if done.send(value).is_err() {
        tracing::trace!("nobody waits for this commit any more");
    }
}
