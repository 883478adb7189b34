//! A log that is written ahead of a database's file.
//!
//! A commit of redb changes a page of each level of its trees and its head twice, and waits for the disk twice: some 40 KiB for
//! one delivery of 450 bytes. On a card that wears out this is what wears it. So everything that a commit writes goes into a log
//! first, as **one frame**: compressed, numbered, with a checksum, written behind the frame before it and synced once. Only then
//! the pages are written to the file, which is synced when the log is full; a page that a hundred commits change is written once.
//! To redb nothing is different: it writes, it syncs, it reads back what it wrote.
//!
//! A frame is there whole or not at all, so a commit is, whatever the order in which redb wrote its pages. After a power cut the
//! frames that the file may not hold are written into it before redb sees it ([`Ahead::open`]).
//!
//! Frames carry a *generation* and their index in it. When the log is full, or not wanted (a database that is opened, repaired,
//! closed), it is *settled*: the file is synced, then a mark says durably that the frames of this generation count no more, and the
//! next generation begins where the log does. Two marks are written in turn, so that a torn one leaves the one before, whose
//! frames say once more what the file holds. What is left of older generations is never looked at.

mod log;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

pub(crate) use self::log::Log;
use crate::store::codec::Writer;
use crate::store::heart;

/// Kept from one frame to the next; more is given back.
const KEPT_BYTES: usize = 256 * 1024;

/// A file of a [`Disk`](super::Disk).
type File = Box<dyn StorageBackend>;

/// What the writer holds: says when what was written has to be durable.
#[derive(Debug)]
pub(crate) struct Ahead(Arc<Inner>);

/// What the database holds.
#[derive(Debug)]
pub(crate) struct Beneath(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    /// Writes wait in `state` for a frame.
    logged: AtomicBool,
    /// Nothing waits there: a read need not look.
    idle: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: Option<Log>,
    /// Which file the frames are for.
    of: u64,
    /// Where the log begins anew.
    room: u64,
    /// The next frame's content: each write as its offset, its length and its bytes.
    content: Writer,
    /// Where each write goes, and where its bytes stand in `content`.
    writes: Vec<(u64, Range<usize>)>,
    /// The file is to become shorter once what waits is in it.
    shorter: Option<u64>,
    /// A frame could not be made durable: nothing is written any more.
    dead: bool,
}

fn dead() -> io::Error {
    io::Error::other("an earlier write to the log or its file failed")
}

impl Ahead {
    /// Put a log before a file. What the log still has for it is written into it first. `of` names the file in the log. Until
    /// [`Self::begin`] writes go straight to the file.
    pub(crate) fn open(log: File, file: File, of: u64) -> io::Result<(Self, Beneath)> {
        match Log::recover(log, of, &*file) {
            Ok(log) => Ok(Self::over(log, file, of)),
            Err(error) => {
                file.close()?;
                Err(error)
            }
        }
    }

    /// The same with the log that was before another file, which is settled.
    pub(crate) fn over(log: Log, file: File, of: u64) -> (Self, Beneath) {
        let state = State {
            log: Some(log),
            of,
            room: 0,
            content: Writer::default(),
            writes: Vec::new(),
            shorter: None,
            dead: false,
        };
        let inner = Inner { file, logged: AtomicBool::new(false), idle: AtomicBool::new(true), state: Mutex::new(state) };
        let inner = Arc::new(inner);
        (Self(Arc::clone(&inner)), Beneath(inner))
    }

    /// From here on what is written is durable after the next [`Self::flush`], not before. The log begins anew when it has `room`
    /// bytes.
    pub(crate) fn begin(&self, room: u64) -> io::Result<()> {
        let mut state = self.0.state();
        self.0.file.sync_data()?;
        if let Some(log) = state.log.as_ref() {
            log.make_room(room);
            state.room = room;
            self.0.logged.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Make what was written durable, all of it or nothing. After an error nothing is written any more.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let mut state = self.0.state();
        let flushed = self.0.flush(&mut state);
        state.dead |= flushed.is_err();
        flushed
    }

    /// Make everything durable in the file itself; writes go straight to it again. The log is free for another file.
    pub(crate) fn settle(&self) -> io::Result<Option<Log>> {
        let mut state = self.0.state();
        let settled = self.0.flush(&mut state).and_then(|()| self.0.settle(&mut state));
        state.dead |= settled.is_err();
        settled?;
        self.0.logged.store(false, Ordering::Release);
        Ok(state.log.take())
    }
}

impl State {
    /// Put what waits for a part of the file over what the file has there.
    fn lay_over(&self, offset: u64, out: &mut [u8]) {
        let content = self.content.as_slice();
        for (at, range) in &self.writes {
            // both as distances from where the read begins
            let bytes = content.get(range.clone()).unwrap_or_default();
            let (skip, begin) = (offset.saturating_sub(*at), at.saturating_sub(offset));
            let (Ok(skip), Ok(begin)) = (usize::try_from(skip), usize::try_from(begin)) else { continue };
            let from = bytes.get(skip..).unwrap_or_default();
            for (place, byte) in out.iter_mut().skip(begin).zip(from) {
                *place = *byte;
            }
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush(&self, state: &mut State) -> io::Result<()> {
        if state.dead {
            return Err(dead());
        }
        let State { log, of, content, writes, .. } = &mut *state;
        if !content.as_slice().is_empty() {
            // both stay until the file has all of it: whoever reads after a failure still sees what the database wrote
            log.as_mut().ok_or_else(dead)?.append(*of, content.as_slice())?;
            for (offset, range) in &*writes {
                self.file.write(*offset, content.as_slice().get(range.clone()).unwrap_or_default())?;
            }
            writes.clear();
            *content = Writer::reusing(std::mem::take(content).finish(), KEPT_BYTES);
        }
        self.idle.store(true, Ordering::Release);
        if let Some(length) = state.shorter.take() {
            self.file.set_len(length)?;
        }
        if state.log.as_ref().is_some_and(|log| log.is_full(state.room)) {
            self.settle(state)?;
        }
        Ok(())
    }

    /// The file has everything, durably, and the log says so.
    fn settle(&self, state: &mut State) -> io::Result<()> {
        self.file.sync_data()?;
        heart::beat();
        match state.log.as_mut() {
            Some(log) if !log.is_settled() => log.settle(),
            _ => Ok(()),
        }
    }

    fn is_logged(&self) -> bool {
        self.logged.load(Ordering::Acquire)
    }
}

impl StorageBackend for Beneath {
    fn len(&self) -> io::Result<u64> {
        match self.0.state().shorter {
            Some(length) => Ok(length),
            None => self.0.file.len(),
        }
    }

    /// What waits is laid over what the file has. Under the lock, unless nothing waits: a flush between the two would leave a reader
    /// with the file as it was before.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.idle.load(Ordering::Acquire) {
            self.0.file.read(offset, out)?;
        } else {
            let state = self.0.state();
            self.0.file.read(offset, out)?;
            state.lay_over(offset, out);
        }
        heart::read(out.len());
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.0.is_logged() {
            let mut state = self.0.state();
            if state.dead {
                return Err(dead());
            }
            if len < self.0.file.len()? {
                state.shorter = Some(len);
                return Ok(());
            }
            state.shorter = None;
        }
        // longer at once: nothing that is durable speaks of it yet, as without a log
        self.0.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.0.is_logged() {
            return if self.0.state().dead { Err(dead()) } else { Ok(()) };
        }
        self.0.file.sync_data()?;
        heart::beat();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.state();
        if state.dead {
            return Err(dead());
        }
        if !self.0.is_logged() {
            return self.0.file.write(offset, data);
        }
        state.content.count(offset).bytes(data);
        let end = state.content.as_slice().len();
        state.writes.push((offset, end - data.len()..end));
        self.0.idle.store(false, Ordering::Release);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}
