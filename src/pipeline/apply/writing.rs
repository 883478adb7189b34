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
use crate::store::state::Unwritten;
use crate::time;
use crate::types::Seq;

/// The thread that writes checkpoints, one at a time. It lives as long as the fold: what it allocates would be of little use to the next
/// one.
pub(super) struct Writer {
    /// `None` when it has been told to end.
    jobs: Option<SyncSender<Unwritten>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    /// The cursor of the checkpoint that is being written.
    writing: Option<Seq>,
}

/// What came of a checkpoint, and how long it took.
type Done = (Result<(), StoreError>, Duration);

impl Writer {
    /// Start it. The fold may wait for it, so what it does is a sign of life of the fold.
    pub(super) fn start(heart: Heart) -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<Unwritten>(1);
        let (send, done) = sync_channel(1);
        let run = move || {
            let _living = heart.live();
            for unwritten in queue {
                let began = time::instant();
                let written = unwritten.write();
                if send.send((written, began.elapsed())).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(run)?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread), writing: None })
    }

    /// A checkpoint is being written.
    pub(super) fn busy(&self) -> bool {
        self.writing.is_some()
    }

    fn begin(&mut self, unwritten: Unwritten, cursor: Seq) {
        self.writing = Some(cursor);
        if self.jobs.as_ref().is_none_or(|jobs| jobs.send(unwritten).is_err()) {
            tracing::error!("the thread that writes checkpoints has ended");
        }
    }

    /// What came of a checkpoint that has been written, if one has.
    fn look(&mut self) -> Option<(Seq, Done)> {
        let cursor = self.writing?;
        let done = self.done.try_recv().ok()?;
        self.writing = None;
        Some((cursor, done))
    }

    /// Wait for the checkpoint that is being written, if there is one.
    fn wait(&mut self) -> Option<(Seq, Done)> {
        let cursor = self.writing.take()?;
        let gone = |_| (Err(StoreError::Row("the thread that writes checkpoints has ended".to_owned())), Duration::ZERO);
        Some((cursor, self.done.recv().unwrap_or_else(gone)))
    }
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
        if let Some(done) = self.writer.look() {
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
            self.wait()?;
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

    /// Let what has changed be written.
    fn begin_checkpoint(&mut self) -> Result<(), StoreError> {
        if self.is_stuck() {
            return Ok(());
        }
        self.last_checkpoint = time::instant();
        let (unwritten, cursor) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            (state.freeze()?, state.meta.cursor)
        };
        self.writer.begin(unwritten, cursor);
        Ok(())
    }

    /// Wait for the checkpoint that is being written, if there is one.
    fn wait(&mut self) -> Result<(), StoreError> {
        self.writer.wait().map_or(Ok(()), |done| self.settle(done))
    }

    /// Let nobody use the file any more, whatever comes of a checkpoint that is being written.
    pub(super) fn abandon_checkpoint(&mut self) {
        if let Some((_, (written, took))) = self.writer.wait() {
            crate::metrics::checkpoint(took, written.is_ok());
        }
    }

    /// Take in what came of a checkpoint. A disk that does not take it now is no reason to end: nothing is folded until it does, and the
    /// journal keeps what comes.
    fn settle(&mut self, (cursor, (written, took)): (Seq, Done)) -> Result<(), StoreError> {
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
