//! Checkpoints: when one begins, the thread that writes it, and what comes of it.

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Worker;
use crate::limits::CHECKPOINT_RECORDS;
use crate::store::StoreError;
use crate::store::heart::Heart;
use crate::store::state::{Snapshot, Unwritten};
use crate::time;
use crate::types::Seq;

/// The thread that writes checkpoints and snapshots, one at a time. It lives as long as the fold: what it allocates would be of little use
/// to the next one.
pub(super) struct Writer {
    /// `None` when it has been told to end.
    jobs: Option<SyncSender<Job>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    /// A checkpoint is being written, or waits for a snapshot that is.
    checkpoint: bool,
    /// A snapshot is being made.
    snapshot: bool,
}

/// What it has to do: a snapshot, a checkpoint, or one after the other.
enum Job {
    /// ... of the state with this cursor.
    Checkpoint(Unwritten, Seq),
    Snapshot(Box<Snapshot>, SnapshotDone),
}

/// Who waits for a snapshot, and what came of it.
pub(super) type SnapshotDone = tokio::sync::oneshot::Sender<Result<Seq, StoreError>>;

/// What came of a job.
enum Done {
    Checkpoint(Written),
    /// It failed with this, or did not.
    Snapshot(Option<StoreError>),
}

/// What came of a checkpoint: its cursor, the outcome, how long it took.
type Written = (Seq, Result<(), StoreError>, Duration);

impl Writer {
    /// Start it. The fold may wait for it, so what it does is a sign of life of the fold.
    pub(super) fn start(heart: Heart) -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(1);
        let (send, done) = sync_channel(2);
        let run = move || {
            let _living = heart.live();
            for job in queue {
                let done = match job {
                    Job::Checkpoint(unwritten, cursor) => {
                        let began = time::instant();
                        Done::Checkpoint((cursor, unwritten.write(), began.elapsed()))
                    }
                    Job::Snapshot(snapshot, done) => Done::Snapshot(make_snapshot(*snapshot, done)),
                };
                if send.send(done).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(run)?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread), checkpoint: false, snapshot: false })
    }

    /// Something is being written.
    pub(super) fn busy(&self) -> bool {
        self.checkpoint || self.snapshot
    }

    fn begin(&mut self, job: Job) {
        match job {
            Job::Checkpoint(..) => self.checkpoint = true,
            Job::Snapshot(..) => self.snapshot = true,
        }
        if self.jobs.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
            tracing::error!("the thread that writes checkpoints has ended");
        }
    }

    /// What has been done, if anything has.
    fn look(&mut self) -> Option<Done> {
        let done = self.busy().then(|| self.done.try_recv().ok())?;
        self.count(done)
    }

    /// Wait for what is being done, if anything is.
    fn wait(&mut self) -> Option<Done> {
        let done = self.busy().then(|| self.done.recv().unwrap_or_else(|_| gone()));
        self.count(done)
    }

    fn count(&mut self, done: Option<Done>) -> Option<Done> {
        match done {
            Some(Done::Checkpoint(_)) => (self.checkpoint, self.snapshot) = (false, false),
            Some(Done::Snapshot(_)) => self.snapshot = false,
            None => {}
        }
        done
    }
}

fn gone() -> Done {
    Done::Checkpoint((0, Err(StoreError::Row("the thread that writes checkpoints has ended".to_owned())), Duration::ZERO))
}

fn make_snapshot(snapshot: Snapshot, done: SnapshotDone) -> Option<StoreError> {
    let began = time::instant();
    let made = snapshot.write();
    if let Ok((cursor, made)) = &made {
        tracing::info!(cursor, ?made, seconds = began.elapsed().as_secs_f64(), "a snapshot of the state is made");
    }
    let failed = made.as_ref().err().cloned();
    if done.send(made.map(|(cursor, _)| cursor)).is_err() {
        tracing::trace!("nobody waits for this snapshot any more");
    }
    failed
}

/// The file must not be in use any more when the fold is gone.
impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes checkpoints has panicked");
        }
    }
}

impl Worker {
    pub(super) fn checkpoint_when_due(&mut self) -> Result<(), StoreError> {
        while let Some(done) = self.writer.look() {
            self.settle(done)?;
        }
        if self.is_stuck() {
            return Ok(());
        }
        let (unwritten, wanted) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            (state.unwritten_records(), state.wants_checkpoint())
        };
        let due = self.last_checkpoint.elapsed() >= self.period;
        if wanted || unwritten >= CHECKPOINT_RECORDS || (due && unwritten > 0) {
            // one that is still being written is waited for: what is not in the file must not grow without end
            while self.writer.checkpoint {
                self.wait_for_one()?;
            }
            return self.begin_checkpoint();
        }
        if due {
            self.last_checkpoint = time::instant();
        }
        Ok(())
    }

    /// Make the state durable, all of it, before anything else is done.
    pub(super) fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.wait()?;
        self.begin_checkpoint()?;
        self.wait()
    }

    /// Let what has changed be written. None is being written.
    fn begin_checkpoint(&mut self) -> Result<(), StoreError> {
        if self.is_stuck() {
            return Ok(());
        }
        self.last_checkpoint = time::instant();
        let (unwritten, cursor) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            (state.freeze()?, state.meta.cursor)
        };
        self.writer.begin(Job::Checkpoint(unwritten, cursor));
        Ok(())
    }

    /// Let a snapshot be made of what has just been written. The fold goes on; the next checkpoint waits for it.
    pub(super) fn begin_snapshot(&mut self, done: SnapshotDone) {
        let begun = if self.is_stuck() {
            Err(StoreError::Io("the state cannot be written".to_owned()))
        } else {
            self.state.read().unwrap_or_else(PoisonError::into_inner).begin_snapshot()
        };
        match begun {
            Ok(snapshot) => self.writer.begin(Job::Snapshot(Box::new(snapshot), done)),
            Err(error) => {
                if done.send(Err(error)).is_err() {
                    tracing::trace!("nobody waits for this snapshot any more");
                }
            }
        }
    }

    /// Wait for all that is being written.
    fn wait(&mut self) -> Result<(), StoreError> {
        while self.writer.busy() {
            self.wait_for_one()?;
        }
        Ok(())
    }

    fn wait_for_one(&mut self) -> Result<(), StoreError> {
        self.writer.wait().map_or(Ok(()), |done| self.settle(done))
    }

    /// Let nobody use the file any more, whatever comes of what is being written.
    pub(super) fn abandon_checkpoint(&mut self) {
        while let Some(done) = self.writer.wait() {
            if let Done::Checkpoint((_, written, took)) = done {
                crate::metrics::checkpoint(took, written.is_ok());
            }
        }
    }

    /// Take in what was done.
    fn settle(&mut self, done: Done) -> Result<(), StoreError> {
        match done {
            Done::Checkpoint(written) => self.settle_checkpoint(written),
            Done::Snapshot(failed) => {
                if let Some(error) = failed {
                    self.want_room(&error);
                }
                Ok(())
            }
        }
    }

    /// A disk that does not take a checkpoint now is no reason to end: nothing is folded until it does, and the journal keeps what comes.
    fn settle_checkpoint(&mut self, (cursor, written, took): Written) -> Result<(), StoreError> {
        crate::metrics::checkpoint(took, written.is_ok());
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match written {
            Ok(()) => {
                state.written()?;
                self.durable.store(cursor, Ordering::Release);
                Ok(())
            }
            Err(error) if error.is_disk() => {
                state.not_written();
                drop(state);
                tracing::error!(%error, "the state cannot be written: levels stand still until it can");
                self.want_room(&error);
                self.last_checkpoint = time::instant();
                self.stuck.store(true, Ordering::Release);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
