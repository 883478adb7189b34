//! The fold: a thread of its own that takes committed journal records in order, folds them into the state, and makes the
//! state durable at checkpoints, which are written while it goes on.
//!
//! Batches arrive from the journal's writer while the fold keeps up; when it does not, they are dropped on the floor and the
//! fold reads the journal instead. Either way it folds every record once, in order. What it does to the state is decided by
//! [`step`] alone, so the state depends on the journal only, not on batches, checkpoints or restarts.

mod facts;
mod rules;
mod step;
mod writing;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use step::{Folder, Tally};
use writing::Writer;

use crate::limits::{CHECKPOINT_RECORDS, FOLD_QUEUE_BATCHES, FOLD_QUEUE_BYTES, FOLD_STEP_RECORDS, JOURNAL_BATCH_BYTES};
use crate::store::StoreError;
use crate::store::heart::{self, Heart};
use crate::store::journal::{Batch, Journal};
use crate::store::rows::Names;
use crate::store::state::{SharedState, State};
use crate::time;
use crate::types::{ItemMaps, Seq};

enum Message {
    Batch(Batch),
    Checkpoint(SyncSender<()>),
    Snapshot(tokio::sync::oneshot::Sender<Result<Seq, StoreError>>),
    /// Nothing to do: the thread shows that it could.
    Poke,
    Stop,
}

/// The way to the fold.
#[derive(Clone)]
pub struct FoldHandle {
    queue: SyncSender<Message>,
    queued_bytes: Arc<AtomicUsize>,
    alive: Arc<AtomicBool>,
    stuck: Arc<AtomicBool>,
    durable: Arc<AtomicU64>,
    folded: watch::Receiver<Seq>,
    heart: Heart,
    stop_by: Arc<OnceLock<Instant>>,
    /// Closed when the thread has ended.
    ended: watch::Receiver<()>,
}

impl FoldHandle {
    /// Offer a committed batch; never blocks. A batch that finds no room is read from the journal later.
    pub fn offer(&self, batch: Batch) {
        let bytes = batch.records.iter().map(Vec::len).sum();
        if self.queued_bytes.fetch_add(bytes, Ordering::AcqRel) > FOLD_QUEUE_BYTES {
            self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            return;
        }
        match self.queue.try_send(Message::Batch(batch)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => drop(self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel)),
            Err(TrySendError::Disconnected(_)) => tracing::trace!("the fold has stopped"),
        }
    }

    /// The fold works. When it does not, the process should end: a restart folds again from the last checkpoint.
    pub fn alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Returns when the fold works no more.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    /// The state cannot be written or read now (a full or failing disk): deliveries are kept in the journal, levels stand still.
    pub fn stuck(&self) -> bool {
        self.stuck.load(Ordering::Acquire)
    }

    /// Records up to here survive in the state whatever happens: retention may drop them from the journal.
    pub fn durable_cursor(&self) -> Seq {
        self.durable.load(Ordering::Acquire)
    }

    /// Changes whenever records were folded; holds the cursor.
    pub fn folded(&self) -> watch::Receiver<Seq> {
        self.folded.clone()
    }

    /// Make a checkpoint now and wait for it.
    pub fn checkpoint(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.send(Message::Checkpoint(done)).is_ok() && wait.recv().is_err() {
            tracing::warn!("the fold ended before its checkpoint");
        }
    }

    /// Make a snapshot: records up to the one returned may leave the journal for good.
    pub async fn snapshot(&self) -> Result<Seq, StoreError> {
        let gone = || StoreError::Io("the fold has stopped".to_owned());
        let (done, wait) = tokio::sync::oneshot::channel();
        let queue = self.queue.clone();
        // the queue may be full for a moment, and its sender blocks
        let sent = tokio::task::spawn_blocking(move || queue.send(Message::Snapshot(done)).is_ok()).await;
        if !matches!(sent, Ok(true)) {
            return Err(gone());
        }
        wait.await.map_err(|_| gone())?
    }

    /// Beats while the fold works.
    pub fn heart(&self) -> &Heart {
        &self.heart
    }

    /// Make the heart beat, if the fold does nothing else. With a full queue it has to do by itself.
    pub fn poke(&self) {
        if self.queue.try_send(Message::Poke).is_err() {
            tracing::trace!("the fold has no time to be poked");
        }
    }

    /// Fold what is in the journal, make a last checkpoint, end. What is not folded by then is left to the next start: a state
    /// that is rebuilt from a long journal must not keep a stop waiting.
    pub fn stop(&self, by: Instant) {
        if self.stop_by.set(by).is_err() {
            tracing::trace!("the fold was told to stop before");
        }
        if self.queue.send(Message::Stop).is_err() {
            tracing::trace!("the fold has stopped already");
        }
    }
}

/// A fold that is ready to start: its handle exists before its thread, because the journal's writer needs it first.
pub struct Fold {
    handle: FoldHandle,
    items: ItemMaps,
    queue: Receiver<Message>,
    progress: watch::Sender<Seq>,
    /// Dropped when the thread ends.
    living: watch::Sender<()>,
}

impl Fold {
    /// Prepare. `items`: the mappings that the configuration holds.
    pub fn new(state: &SharedState, items: ItemMaps) -> Self {
        let (queue, receive) = sync_channel(FOLD_QUEUE_BATCHES);
        let cursor = state.read().unwrap_or_else(PoisonError::into_inner).meta.cursor;
        let (progress, folded) = watch::channel(cursor);
        let (alive, durable) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(cursor)));
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let stuck = Arc::new(AtomicBool::new(false));
        let (heart, stop_by) = (Heart::default(), Arc::default());
        let (living, ended) = watch::channel(());
        let handle = FoldHandle { queue, queued_bytes, alive, stuck, durable, folded, heart, stop_by, ended };
        Self { handle, items, queue: receive, progress, living }
    }

    /// The way to it.
    pub fn handle(&self) -> FoldHandle {
        self.handle.clone()
    }

    /// Start the thread. `period`: a checkpoint at least this often while anything changes.
    pub fn start(self, state: SharedState, journal: Journal, period: Duration) -> std::io::Result<JoinHandle<()>> {
        let counted_from = journal.head();
        let writer = Writer::start(self.handle.heart.clone())?;
        std::thread::Builder::new().name("fold".to_owned()).spawn(move || {
            let Self { handle, items, queue, progress, living: _until_the_end } = self;
            let _living = handle.heart.live();
            let run = || {
                let folder = Folder::new(&mut state.write().unwrap_or_else(PoisonError::into_inner), items.clone())?;
                let worker = Worker {
                    state: Arc::clone(&state),
                    journal,
                    folder,
                    items,
                    period,
                    counted_from,
                    last_checkpoint: time::instant(),
                    progress,
                    durable: Arc::clone(&handle.durable),
                    queued_bytes: Arc::clone(&handle.queued_bytes),
                    stuck: Arc::clone(&handle.stuck),
                    stop_by: Arc::clone(&handle.stop_by),
                    torn: false,
                    writer,
                };
                worker.run(&queue)
            };
            let astray = match catch_unwind(AssertUnwindSafe(run)) {
                Ok(Ok(())) => false,
                Ok(Err(error)) => {
                    tracing::error!(%error, "the fold has stopped");
                    matches!(error, StoreError::Row(_) | StoreError::Damaged { .. })
                }
                Err(_) => {
                    tracing::error!("the fold has panicked");
                    true
                }
            };
            // damage would lead the next process astray, too: it shall look first
            if astray && let Err(error) = state.read().unwrap_or_else(PoisonError::into_inner).suspect() {
                tracing::warn!(%error, "the state could not be marked for a check");
            }
            handle.alive.store(false, Ordering::Release);
        })
    }
}

/// Fold the journal into a state of one's own, up to a record, with a checkpoint at the end. The cursor it ended at.
pub fn refold(journal: &Journal, state: &mut State, to: Seq) -> Result<Seq, StoreError> {
    let mut folder = Folder::new(state, ItemMaps::default())?;
    let mut tally = Tally::default();
    loop {
        let records = journal.read(state.meta.cursor + 1, FOLD_STEP_RECORDS, JOURNAL_BATCH_BYTES)?;
        let mut folded = false;
        for (seq, bytes) in records.iter().filter(|(seq, _)| *seq <= to) {
            folder.fold(state, *seq, bytes, &mut tally)?;
            folded = true;
        }
        tally = Tally::default();
        if !folded || state.unwritten_records() >= CHECKPOINT_RECORDS || state.wants_checkpoint() {
            state.checkpoint()?;
        }
        if !folded {
            return Ok(state.meta.cursor);
        }
    }
}

struct Worker {
    state: SharedState,
    journal: Journal,
    folder: Folder,
    items: ItemMaps,
    period: Duration,
    /// Records up to here were there when the process started: they are folded, but not counted in its metrics.
    counted_from: Seq,
    last_checkpoint: Instant,
    progress: watch::Sender<Seq>,
    durable: Arc<AtomicU64>,
    queued_bytes: Arc<AtomicUsize>,
    stuck: Arc<AtomicBool>,
    stop_by: Arc<OnceLock<Instant>>,
    /// A record is folded in part: the memory is not the fold of anything.
    torn: bool,
    writer: Writer,
}

/// How long to wait before a state that could not be written or read is tried again.
const STUCK_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks of an idle fold at a checkpoint that is being written.
const WRITING_PAUSE: Duration = Duration::from_millis(20);

impl Worker {
    fn run(mut self, queue: &Receiver<Message>) -> Result<(), StoreError> {
        self.catch_up(Seq::MAX)?;
        loop {
            let period = if self.is_stuck() { STUCK_PAUSE } else { self.period };
            let wait = period.saturating_sub(self.last_checkpoint.elapsed()).max(Duration::from_millis(1));
            let wait = if self.writer.busy() { wait.min(WRITING_PAUSE) } else { wait };
            match queue.recv_timeout(wait) {
                Ok(Message::Batch(batch)) => {
                    // while stuck it stays in the journal
                    if !self.is_stuck() && !self.late() {
                        self.batch(&batch)?;
                    }
                    let bytes = batch.records.iter().map(Vec::len).sum();
                    self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
                }
                Ok(Message::Checkpoint(done)) => {
                    self.catch_up(Seq::MAX)?;
                    self.checkpoint()?;
                    if done.send(()).is_err() {
                        tracing::trace!("nobody waits for this checkpoint any more");
                    }
                }
                Ok(Message::Snapshot(done)) => {
                    self.checkpoint()?;
                    self.begin_snapshot(done);
                }
                Ok(Message::Poke) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.try_again()?;
                    self.catch_up(Seq::MAX)?;
                    let (cursor, head) = (self.cursor(), self.journal.head());
                    if cursor < head && !self.is_stuck() {
                        tracing::info!(cursor, head, "stopped before all was folded: the next start goes on from here");
                    }
                    return self.checkpoint();
                }
                // nothing came for a while: whatever was dropped on the floor is in the journal
                Err(RecvTimeoutError::Timeout) => {
                    self.catch_up(Seq::MAX)?;
                }
            }
            if self.is_stuck() && self.last_checkpoint.elapsed() >= STUCK_PAUSE {
                self.try_again()?;
                // what came meanwhile is in the journal, and nobody may send a message soon
                self.catch_up(Seq::MAX)?;
            }
            self.checkpoint_when_due()?;
            heart::beat();
        }
    }

    fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Acquire)
    }

    /// A stop was asked for, and there is no time left to fold.
    fn late(&self) -> bool {
        self.stop_by.get().is_some_and(|by| time::instant() >= *by)
    }

    /// A write has failed: the next try may use the reserve.
    fn want_room(&self, error: &StoreError) {
        if let Some(reserve) = self.journal.reserve() {
            reserve.failed(error);
        }
    }

    /// Open the state's file again and write what could not be written.
    fn try_again(&mut self) -> Result<(), StoreError> {
        if !self.is_stuck() {
            return Ok(());
        }
        let torn = self.torn;
        let reopened =
            if torn { self.begin_again() } else { self.state.write().unwrap_or_else(PoisonError::into_inner).reopen() };
        match reopened {
            Ok(()) if torn => {
                self.torn = false;
                self.stuck.store(false, Ordering::Release);
                tracing::info!(cursor = self.cursor(), "the state can be read again: it goes on from its last checkpoint");
                Ok(())
            }
            Ok(()) => {
                self.stuck.store(false, Ordering::Release);
                self.checkpoint()?;
                if !self.is_stuck() {
                    tracing::info!("the state can be written again");
                }
                Ok(())
            }
            Err(error) if error.is_disk() => {
                tracing::warn!(%error, "the state still cannot be opened");
                self.want_room(&error);
                self.last_checkpoint = time::instant();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Go back to the last checkpoint.
    fn begin_again(&mut self) -> Result<(), StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.reload()?;
        self.durable.store(state.meta.cursor, Ordering::Release);
        match Folder::new(&mut state, self.items.clone()) {
            Ok(folder) => self.folder = folder,
            Err(error) => {
                state.discard();
                return Err(error);
            }
        }
        Ok(())
    }

    fn cursor(&self) -> Seq {
        self.state.read().unwrap_or_else(PoisonError::into_inner).meta.cursor
    }

    fn batch(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if batch.first > self.cursor() + 1 && !self.catch_up(batch.first - 1)? {
            // what lies between cannot be read now: folding on would skip it for good. All of it is in the journal
            return Ok(());
        }
        let skip = usize::try_from((self.cursor() + 1).saturating_sub(batch.first)).unwrap_or(usize::MAX);
        let records: Vec<(Seq, &[u8])> =
            (batch.first..).zip(&batch.records).skip(skip).map(|(seq, bytes)| (seq, bytes.as_slice())).collect();
        for part in records.chunks(FOLD_STEP_RECORDS) {
            self.step(part)?;
            if self.is_stuck() {
                break;
            }
        }
        Ok(())
    }

    /// Fold from the journal up to a record, or to its end. False when the journal cannot be read now, or the fold has to stop.
    fn catch_up(&mut self, to: Seq) -> Result<bool, StoreError> {
        loop {
            if self.is_stuck() || self.late() {
                return Ok(false);
            }
            let cursor = self.cursor();
            if cursor >= to || cursor >= self.journal.head() {
                return Ok(true);
            }
            let read = match self.journal.read(cursor + 1, FOLD_STEP_RECORDS, JOURNAL_BATCH_BYTES) {
                Ok(read) => read,
                // a journal that is being reopened is read again later
                Err(error) if !self.journal.healthy() => {
                    tracing::warn!(%error, "the fold waits for the journal");
                    return Ok(false);
                }
                Err(error) => return Err(error),
            };
            if read.is_empty() {
                return Ok(true);
            }
            let records: Vec<(Seq, &[u8])> = read.iter().map(|(seq, bytes)| (*seq, bytes.as_slice())).collect();
            self.step(&records)?;
            self.checkpoint_when_due()?;
        }
    }

    fn step(&mut self, records: &[(Seq, &[u8])]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut tally = Tally::default();
        let mut counted = false;
        let mut unreadable = None;
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let before = state.meta.cursor;
            if let Some((first, _)) = records.first()
                && *first != state.meta.cursor + 1
            {
                let (from, to) = (state.meta.cursor + 1, first - 1);
                crate::metrics::fold_skipped(self.journal.lost_certainly(from, to));
                tracing::warn!(
                    from,
                    to,
                    "records are not in the journal any more: the levels stand as they were before them"
                );
            }
            for (seq, bytes) in records {
                if !counted && *seq > self.counted_from {
                    // what came before belongs to an earlier process
                    (tally, counted) = (Tally::default(), true);
                }
                match self.folder.fold(&mut state, *seq, bytes, &mut tally) {
                    Ok(()) => heart::beat(),
                    // part of the record may have acted already, and it must not act twice: back to the last checkpoint
                    Err(error) if error.is_disk() => {
                        state.discard();
                        unreadable = Some((error, before));
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if let Some((error, before)) = unreadable {
            tracing::error!(%error, "the state cannot be read: levels stand still until it can");
            // whatever comes of it: the file must have no other user when it is opened again
            self.abandon_checkpoint();
            // what is folded again is not counted again; of this step nothing has been
            self.counted_from = self.counted_from.max(before);
            self.torn = true;
            self.last_checkpoint = time::instant();
            self.stuck.store(true, Ordering::Release);
            return Ok(());
        }
        if counted {
            report(&tally, &self.state.read().unwrap_or_else(PoisonError::into_inner).meta.sources);
        }
        if let Some((last, _)) = records.last() {
            self.progress.send_replace(*last);
        }
        Ok(())
    }
}

/// Metrics and the log lines that a person should see.
fn report(tally: &Tally, sources: &Names) {
    for ((source, _), (result, count)) in &tally.deliveries {
        crate::metrics::folded(sources.name(*source), *result, *count);
    }
    for ((source, outcome), count) in &tally.facts {
        crate::metrics::facts(sources.name(*source), outcome, *count);
    }
    for (source, count) in &tally.equal_stamps {
        crate::metrics::equal_stamp(sources.name(*source), *count);
    }
    for (source, delivery, first) in &tally.conflicts {
        tracing::warn!(
            source,
            delivery,
            first,
            "a known delivery id came with another body: kept as a dead letter, not applied"
        );
    }
    for record in &tally.unusable_policies {
        tracing::error!(
            record,
            "a configuration names items that are not in the journal any more: the one before it stays in force until the \
             next start or reload"
        );
    }
    for (source, cause, detail) in &tally.dead {
        tracing::info!(source, cause = cause.as_str(), detail, "dead letter");
    }
}

#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod items_tests;
#[cfg(test)]
mod layers_tests;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod stop_tests;
#[cfg(test)]
mod tests;
