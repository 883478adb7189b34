//! The writer's thread: commits what waits, begins segments, removes old ones, opens the file again after a failure.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::newest::Newest;
use super::{Aged, Batch, Command, Refused, Retention, Row, Segment, Shared, block};
use crate::limits::{AHEAD_LOG_BYTES, JOURNAL_BATCH_BYTES, JOURNAL_BATCH_RECORDS};
use crate::store::{StoreError, heart};
use crate::time::{self, Timestamp};
use crate::types::Seq;

/// How long the writer waits before it tries to open the file again after a failure.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// Records in a batch from which on the journal is busy.
const BUSY_RECORDS: usize = 16;
/// How often, and how long at a time, a busy journal waits for the senders that it has just answered: some 0.15 ms with what the
/// system adds to so short a pause. To yield instead was measured: nobody is left waiting, and the commits stay small.
const PAUSES: u32 = 2;
const PAUSE: Duration = Duration::from_micros(20);

pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) segment_bytes: u64,
    pub(super) committed: Box<dyn Fn(Batch) + Send>,
}

impl Committer {
    pub(super) fn run(self, mut queue: mpsc::Receiver<Command>) {
        let _living = self.shared.heart.live();
        let (mut held, mut last) = (None, 0);
        if !self.shared.healthy.load(Ordering::Acquire) {
            self.reopen(&mut queue);
        }
        while let Some(command) = held.take().or_else(|| queue.blocking_recv()) {
            match command {
                Command::Append { bytes, done } => {
                    let (records, waiting);
                    (records, waiting, held) = gather((bytes, done), &mut queue, last);
                    last = records.len();
                    self.shared.queued.fetch_sub(records.len() as u64, Ordering::Relaxed);
                    if !self.shared.reserve.get().is_none_or(|reserve| reserve.admits()) {
                        // the file is not touched: nothing to repair when there is room again
                        for done in waiting {
                            answer(done, Err(Refused::Unavailable));
                        }
                    } else if !self.commit(records, waiting) {
                        self.reopen(&mut queue);
                    }
                }
                Command::Retain { what, done } => {
                    let dropped = self.retain(what).unwrap_or_else(|error| {
                        tracing::warn!(%error, "retention failed");
                        Aged::default()
                    });
                    answer(done, dropped);
                }
                Command::Poke => {}
                Command::Close => break,
            }
            heart::beat();
        }
        // told to, or the last appender is gone. The file stays open: the fold may have to read the end of it
        self.shared.healthy.store(false, Ordering::Release);
    }

    /// False when the disk has failed.
    fn commit(&self, records: Vec<Vec<u8>>, waiting: Vec<Waiting>) -> bool {
        let began = time::instant();
        let first = (self.shared.head.load(Ordering::Acquire) + 1).max(self.shared.next.load(Ordering::Acquire));
        if let Err(error) = self.write(first, &records) {
            return self.failed(&error, waiting);
        }
        let head = first + records.len() as u64 - 1;
        self.shared.head.store(head, Ordering::Release);
        for (seq, done) in (first..).zip(waiting) {
            answer(done, Ok(seq));
        }
        crate::metrics::journal_commit(began.elapsed(), records.len() as u64, head);
        (self.committed)(Batch { first, records });
        // nobody waits for this
        match self.settle_when_full() {
            Ok(()) => true,
            Err(error) => self.failed(&error, Vec::new()),
        }
    }

    /// Nothing is acknowledged until the files are open again.
    fn failed(&self, error: &StoreError, waiting: Vec<Waiting>) -> bool {
        self.shared.healthy.store(false, Ordering::Release);
        for done in waiting {
            answer(done, Err(Refused::Unavailable));
        }
        crate::metrics::journal_commit_failed();
        if let Some(reserve) = self.shared.reserve.get() {
            reserve.failed(error);
        }
        tracing::error!(%error, "journal commit failed: nothing is acknowledged until the file opens again");
        false
    }

    fn write(&self, first: Seq, records: &[Vec<u8>]) -> Result<(), StoreError> {
        if self.shared.filled.load(Ordering::Relaxed) >= self.segment_bytes {
            self.begin_segment(first)?;
        }
        let rows: Vec<Row> = block::pack(first, records).collect();
        let added: usize = rows.iter().map(|(_, row)| row.len()).sum();
        self.shared.with_newest(|newest| newest.append(rows))?;
        self.shared.filled.fetch_add(added as u64, Ordering::Relaxed);
        Ok(())
    }

    fn settle_when_full(&self) -> Result<(), StoreError> {
        let settled = self.shared.with_newest(|newest| {
            let full = newest.is_full(self.room())?;
            if full {
                newest.settle()?;
            }
            Ok(full)
        })?;
        if settled {
            self.measure();
        }
        Ok(())
    }

    /// Bytes of the log, from which on it is settled at the latest. Tests have small segments: some commits for each turn of the log.
    fn room(&self) -> u64 {
        (AHEAD_LOG_BYTES as u64).min(self.segment_bytes.saturating_mul(16))
    }

    /// Look how long the newest segment's file has become.
    fn measure(&self) {
        if let Some(last) = self.shared.segments.write().unwrap_or_else(PoisonError::into_inner).last_mut() {
            last.bytes = crate::store::disk::bytes(&*self.shared.disk, &self.shared.path_of(last.first));
        }
    }

    /// Before the thread, and when the files were opened again.
    pub(super) fn begin(&self) {
        if let Err(error) = self.shared.with_newest(|newest| newest.make_room(self.room())) {
            tracing::debug!(%error, "the write-ahead log grows as it is written");
        }
    }

    /// Close the newest segment and go on in a new one.
    fn begin_segment(&self, first: Seq) -> Result<(), StoreError> {
        let log = self.shared.with_newest(Newest::release)?;
        self.measure();
        let (made, segment) = self.shared.make_segment(first, log)?;
        // both at once: a reader holds the first lock while it walks the list
        let mut newest = self.shared.newest.write().unwrap_or_else(PoisonError::into_inner);
        let mut segments = self.shared.segments.write().unwrap_or_else(PoisonError::into_inner);
        *newest = Some(made);
        segments.push(segment);
        self.shared.filled.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Close the file and try to open it until it works; what is queued meanwhile is refused.
    fn reopen(&self, queue: &mut mpsc::Receiver<Command>) {
        drop(self.shared.newest.write().unwrap_or_else(PoisonError::into_inner).take());
        loop {
            while let Ok(command) = queue.try_recv() {
                match command {
                    Command::Append { done, .. } => {
                        self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                        answer(done, Err(Refused::Unavailable));
                    }
                    Command::Retain { done, .. } => answer(done, Aged::default()),
                    Command::Poke => {}
                    Command::Close => queue.close(),
                }
            }
            if queue.is_closed() {
                return;
            }
            // nothing is acknowledged, but the thread does what it can: a restart could do no more
            heart::beat();
            // the one pause in the program that is a pause: the disk needs time, nothing can wake us
            std::thread::sleep(REOPEN_PAUSE);
            self.shared.forget_newest();
            match self.shared.open() {
                Ok(()) => break,
                Err(error) => tracing::error!(%error, "the journal still cannot be opened"),
            }
        }
        self.begin();
        tracing::info!(head = self.shared.head.load(Ordering::Acquire), "journal open again");
    }

    fn retain(&self, what: Retention) -> Result<Aged, StoreError> {
        let segments = self.shared.segments().clone();
        let mut total: u64 = segments.iter().map(|s| s.bytes).sum();
        let (mut gone, mut aged) = (0, Aged::default());
        // the newest segment stays
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
            let last = next.first - 1;
            if last > what.folded || (total <= what.max_bytes && self.newest_of(segment, next.first)? >= what.before) {
                break;
            }
            if !what.only_look {
                self.shared.remove(segment.first)?;
                // one by one, oldest first: a power cut must not leave a hole between two segments
                self.shared.sync_directory()?;
            }
            heart::beat();
            total -= segment.bytes;
            aged = Aged { bytes: aged.bytes + segment.bytes, last };
            gone += 1;
        }
        if gone > 0 && !what.only_look {
            self.shared.segments.write().unwrap_or_else(PoisonError::into_inner).drain(..gone);
            tracing::info!(segments = gone, bytes = aged.bytes, "raw deliveries aged out");
        }
        Ok(aged)
    }

    /// Time of the newest record of an older segment: read once.
    fn newest_of(&self, segment: &Segment, end: Seq) -> Result<Timestamp, StoreError> {
        if let Some(newest) = segment.newest {
            return Ok(newest);
        }
        let newest = self.shared.newest_in(segment.first, end)?;
        let mut segments = self.shared.segments.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = segments.iter_mut().find(|s| s.first == segment.first) {
            known.newest = Some(newest);
        }
        Ok(newest)
    }
}

type Waiting = oneshot::Sender<Result<Seq, Refused>>;

/// A batch: the record that came first, and what waits behind it. A command that is no record ends the batch and is returned.
///
/// A commit costs the processor about as much as twenty records do, and the disk a page or two and a wait, whatever is in it. So
/// when the queue is empty the others get the processor once more, and as long as that brings records they are taken along. And under load the
/// senders that the last commit has answered are about to be back: committing at once would leave them in groups that
/// take turns, with a third more commits or a half. So a batch that is smaller than the `last` one waits for them, for a fraction of what a
/// commit takes. A few senders never wait: below [`BUSY_RECORDS`] nothing is gained.
fn gather(
    (bytes, done): (Vec<u8>, Waiting),
    queue: &mut mpsc::Receiver<Command>,
    last: usize,
) -> (Vec<Vec<u8>>, Vec<Waiting>, Option<Command>) {
    let mut size = bytes.len();
    let (mut records, mut waiting) = (vec![bytes], vec![done]);
    let mut grew = true;
    let mut pauses = if last < BUSY_RECORDS { 0 } else { PAUSES };
    while records.len() < JOURNAL_BATCH_RECORDS && size < JOURNAL_BATCH_BYTES {
        match queue.try_recv() {
            Ok(Command::Append { bytes, done }) => {
                size += bytes.len();
                records.push(bytes);
                waiting.push(done);
                grew = true;
            }
            Ok(other) => return (records, waiting, Some(other)),
            Err(_) if grew => {
                grew = false;
                std::thread::yield_now();
            }
            Err(_) if pauses > 0 && records.len() < last => {
                pauses -= 1;
                std::thread::sleep(PAUSE);
            }
            Err(_) => break,
        }
    }
    (records, waiting, None)
}

/// Tell whoever waits; a client that hung up changes nothing.
fn answer<T>(done: oneshot::Sender<T>, value: T) {
    if done.send(value).is_err() {
        tracing::trace!("nobody waits for this commit any more");
    }
}
