//! Checkpoints: when one begins, the thread that writes it, and what comes of it.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::Worker;
use crate::limits::CHECKPOINT_RECORDS;
use crate::store::StoreError;
use crate::time;
use crate::types::Seq;

/// A checkpoint on its way into the file.
pub(super) struct Writing {
    thread: JoinHandle<(Result<(), StoreError>, Duration)>,
    cursor: Seq,
}

impl Worker {
    pub(super) fn checkpoint_when_due(&mut self) -> Result<(), StoreError> {
        if self.writing.as_ref().is_some_and(|writing| writing.thread.is_finished()) {
            self.settle()?;
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
            self.settle()?;
            return self.begin_checkpoint();
        }
        if due {
            self.last_checkpoint = time::instant();
        }
        Ok(())
    }

    /// Make the state durable, all of it, before anything else is done.
    pub(super) fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.settle()?;
        self.begin_checkpoint()?;
        self.settle()
    }

    /// Let what has changed be written, by a thread of its own.
    fn begin_checkpoint(&mut self) -> Result<(), StoreError> {
        if self.is_stuck() {
            return Ok(());
        }
        self.last_checkpoint = time::instant();
        let (unwritten, cursor) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            (state.freeze()?, state.meta.cursor)
        };
        let heart = self.heart.clone();
        let write = move || {
            // the fold may wait for it: what is done here is a sign of life of the fold
            let _living = heart.live();
            let began = time::instant();
            let written = unwritten.write();
            (written, began.elapsed())
        };
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(write);
        match thread {
            Ok(thread) => self.writing = Some(Writing { thread, cursor }),
            Err(error) => {
                tracing::error!(%error, "no thread can be started to write the state: levels stand still until one can");
                self.state.write().unwrap_or_else(PoisonError::into_inner).not_written();
                self.stuck.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Wait for the checkpoint that is being written, if there is one: up to where it goes, and what came of it.
    pub(super) fn finished(&mut self) -> Option<(Seq, Result<(), StoreError>)> {
        let Writing { thread, cursor } = self.writing.take()?;
        let panicked = |_| (Err(StoreError::Row("writing the state has panicked".to_owned())), Duration::ZERO);
        let (written, took) = thread.join().unwrap_or_else(panicked);
        crate::metrics::checkpoint(took, written.is_ok());
        Some((cursor, written))
    }

    /// Take in what came of the last checkpoint. A disk that does not take it now is no reason to end: nothing is folded until it does,
    /// and the journal keeps what comes.
    fn settle(&mut self) -> Result<(), StoreError> {
        let Some((cursor, written)) = self.finished() else { return Ok(()) };
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

/// The file must not be in use any more when the fold is gone.
impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.finished());
    }
}
