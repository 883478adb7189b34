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
//! The log is a ring that begins anew: frames carry a *generation*, which goes up each time the log is written from its start,
//! and their index in it; only those of the highest generation count. Those of the one before are in the file, which was synced
//! before the next one began. Where the log is not wanted (a database that is opened, repaired, closed) it is *settled*: the file
//! is synced, a frame without content begins a new generation, and writes go straight to the file. The commits that are logged
//! again later stand behind that frame, in its generation: over it, a torn one would bring back a generation that the file has left
//! behind.

use std::io;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

use crate::limits::AHEAD_FRAME_MAX_BYTES;
use crate::store::codec::{Reader, Writer};
use crate::store::heart;

/// Frames begin at multiples of this: what a disk writes at once.
const GRAIN: usize = 4096;
const MAGIC: u32 = 0x7367_6c31;
/// Magic, checksum, generation, file, index, lengths of the content as it is and compressed.
const HEAD_BYTES: usize = 4 + 4 + 8 + 8 + 4 + 4 + 4;
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

/// The log's file and where its next frame goes.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    generation: u64,
    index: u32,
    at: u64,
}

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
    /// The next frame's content: writes one after the other, as [`apply`] reads them.
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

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the write-ahead log: {what}"))
}

/// A frame, found in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    generation: u64,
    of: u64,
    index: u32,
    content: usize,
    /// Where its compressed content stands.
    packed: Range<usize>,
    /// Where it ends.
    end: usize,
}

fn checksum(parts: [&[u8]; 2]) -> u32 {
    let mut sum = flate2::Crc::new();
    for part in parts {
        sum.update(part);
    }
    sum.sum()
}

/// The frame that begins here; `None`: none does, or it is not whole.
fn frame_at(log: &[u8], begin: usize) -> Option<Frame> {
    let head = log.get(begin..begin.checked_add(HEAD_BYTES)?)?;
    let mut r = Reader::new(head);
    let (magic, sum) = (r.u32("magic").ok()?, r.u32("checksum").ok()?);
    let (generation, of, index) = (r.u64("generation").ok()?, r.u64("file").ok()?, r.u32("index").ok()?);
    let (content, packed) = (usize::try_from(r.u32("length").ok()?).ok()?, usize::try_from(r.u32("packed").ok()?).ok()?);
    if magic != MAGIC || content > AHEAD_FRAME_MAX_BYTES {
        return None;
    }
    let packed = begin + HEAD_BYTES..(begin + HEAD_BYTES).checked_add(packed)?;
    if checksum([head.get(8..)?, log.get(packed.clone())?]) != sum {
        return None;
    }
    Some(Frame { generation, of, index, content, end: packed.end.next_multiple_of(GRAIN), packed })
}

/// The frames of the highest generation, in order.
fn newest_frames(log: &[u8]) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut at = 0;
    while at < log.len() {
        let Some(frame) = frame_at(log, at) else {
            at += GRAIN;
            continue;
        };
        at = frame.end;
        let newest = frames.first().map_or(0, |f| f.generation);
        if frame.generation > newest {
            frames.clear();
        }
        if frame.generation >= newest {
            frames.push(frame);
        }
    }
    frames
}

/// Write a frame's content into the file.
fn apply(content: &[u8], file: &dyn StorageBackend) -> io::Result<()> {
    let mut r = Reader::new(content);
    let bad = |_| damaged("a frame's content does not decode");
    while !r.is_empty() {
        let (offset, bytes) = (r.count("offset").map_err(bad)?, r.bytes("bytes").map_err(bad)?);
        let end = offset.checked_add(bytes.len() as u64).ok_or_else(|| damaged("an offset is out of range"))?;
        if end > file.len()? {
            file.set_len(end)?;
        }
        file.write(offset, bytes)?;
    }
    Ok(())
}

impl Log {
    /// Take a log. `WouldBlock`: another process has it.
    fn new(file: File) -> io::Result<Self> {
        let log = Self { file, generation: 0, index: 0, at: 0 };
        // before anything is read: to write the frames of a gateway at work into its file would damage it
        match log.file.try_lock_range(Bound::Unbounded, Bound::Unbounded) {
            Ok(true) | Err(BackendError::Unsupported) => Ok(log),
            Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
            Err(BackendError::Io(error)) => Err(error),
            Err(other) => Err(io::Error::other(other)),
        }
    }

    /// A log that has nothing, durably, whatever it had.
    pub(crate) fn emptied(file: File) -> io::Result<Self> {
        let mut log = Self::new(file)?;
        let bytes = log.content()?;
        log.generation = newest_frames(&bytes).first().map_or(0, |frame| frame.generation);
        log.settled(0)?;
        Ok(log)
    }

    fn content(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.file.len()?).map_err(io::Error::other)?];
        self.file.read(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Write what the log still has for this file into it. Afterwards the log has nothing for it, durably.
    fn recover(file: File, of: u64, into: &dyn StorageBackend) -> io::Result<Self> {
        let mut log = Self::new(file)?;
        let bytes = log.content()?;
        let frames = newest_frames(&bytes);
        log.generation = frames.first().map_or(0, |frame| frame.generation);
        let mine: Vec<&Frame> = frames.iter().filter(|frame| frame.of == of && frame.content > 0).collect();
        for (before, after) in mine.iter().zip(mine.iter().skip(1)) {
            if before.index + 1 != after.index {
                // one frame is synced before the next is written: this is no power cut
                tracing::error!(from = before.index + 1, to = after.index - 1, "frames of the write-ahead log are damaged");
            }
        }
        for frame in &mine {
            let packed = bytes.get(frame.packed.clone()).unwrap_or_default();
            let content = lz4_flex::block::decompress(packed, frame.content)
                .map_err(|error| damaged(&format!("a frame cannot be unpacked: {error}")))?;
            apply(&content, into)?;
        }
        if !mine.is_empty() {
            tracing::info!(commits = mine.len(), "the end of the journal is taken from its write-ahead log");
            into.sync_data()?;
        }
        match frames.as_slice() {
            [] => {}
            // it is settled; what follows stands behind the frame that says so
            [settled] if settled.content == 0 => (log.index, log.at) = (settled.index + 1, settled.end as u64),
            _ => log.settled(of)?,
        }
        Ok(log)
    }

    /// Begin a generation that says that the file has everything.
    fn settled(&mut self, of: u64) -> io::Result<()> {
        self.restart();
        self.append(of, &[])
    }

    fn restart(&mut self) {
        (self.generation, self.index, self.at) = (self.generation + 1, 0, 0);
    }

    /// Write a frame and make it durable.
    fn append(&mut self, of: u64, content: &[u8]) -> io::Result<()> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| damaged("a commit is too large"));
        let mut frame = vec![0; HEAD_BYTES + lz4_flex::block::get_maximum_output_size(content.len())];
        let packed = match frame.get_mut(HEAD_BYTES..) {
            Some(place) if !content.is_empty() => {
                lz4_flex::block::compress_into(content, place).map_err(io::Error::other)?
            }
            _ => 0,
        };
        frame.truncate(HEAD_BYTES + packed);
        let mut about = Writer::with_capacity(HEAD_BYTES);
        about.u64(self.generation).u64(of).u32(self.index).u32(length(content)?);
        about.u32(u32::try_from(packed).map_err(io::Error::other)?);
        let about = about.finish();
        let sum = checksum([&about, frame.get(HEAD_BYTES..).unwrap_or_default()]);
        let mut head = Writer::with_capacity(HEAD_BYTES);
        head.u32(MAGIC).u32(sum).raw(&about);
        for (place, byte) in frame.iter_mut().zip(head.finish()) {
            *place = byte;
        }
        frame.resize(frame.len().next_multiple_of(GRAIN), 0);
        self.file.write(self.at, &frame)?;
        self.file.sync_data()?;
        heart::beat();
        self.at += frame.len() as u64;
        self.index += 1;
        Ok(())
    }
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

    /// From here on what is written is durable after the next [`Self::flush`], not before.
    /// The log begins anew when it has `room` bytes.
    pub(crate) fn begin(&self, room: u64) -> io::Result<()> {
        let mut state = self.0.state();
        self.0.file.sync_data()?;
        if let Some(log) = state.log.as_mut() {
            // one size from the beginning: a sync need not write a new one each time
            if log.file.len()? < room {
                log.file.set_len(room)?;
            }
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
        let settled = self.0.flush(&mut state).and_then(|()| {
            self.0.file.sync_data()?;
            let of = state.of;
            if let Some(log) = state.log.as_mut() {
                log.settled(of)?;
            }
            Ok(())
        });
        state.dead |= settled.is_err();
        settled?;
        self.0.logged.store(false, Ordering::Release);
        Ok(state.log.take())
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
        let content = std::mem::take(&mut state.content).finish();
        if !content.is_empty() {
            let log = state.log.as_mut().ok_or_else(dead)?;
            log.append(state.of, &content)?;
            for (offset, range) in state.writes.drain(..) {
                self.file.write(offset, content.get(range).unwrap_or_default())?;
            }
        }
        // what was read meanwhile was patched; from here on the file says it itself
        self.idle.store(true, Ordering::Release);
        if content.capacity() <= KEPT_BYTES {
            state.content = Writer::reusing(content);
        }
        let full = state.log.as_ref().is_some_and(|log| log.at >= state.room);
        if full || state.shorter.is_some() {
            self.file.sync_data()?;
            if let Some(log) = state.log.as_mut() {
                log.restart();
            }
        }
        if let Some(length) = state.shorter.take() {
            self.file.set_len(length)?;
        }
        Ok(())
    }

    fn is_logged(&self) -> bool {
        self.logged.load(Ordering::Acquire)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Err(error) = self.file.close() {
            tracing::debug!(%error, "the write-ahead log was not closed");
        }
    }
}

impl StorageBackend for Beneath {
    fn len(&self) -> io::Result<u64> {
        match self.0.state().shorter {
            Some(length) => Ok(length),
            None => self.0.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.file.read(offset, out)?;
        heart::read(out.len());
        if !self.0.idle.load(Ordering::Acquire) {
            let state = self.0.state();
            let content = state.content.as_slice();
            for (at, range) in &state.writes {
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::store::disk::Disk;
    use crate::store::disk::lying::{Image, LyingDisk, Op, Platter};

    const ROOM: u64 = 16 * 1024;

    fn open(disk: &LyingDisk, of: u64) -> (Ahead, Beneath) {
        let (log, file) = (disk.file(Path::new("log")).expect("a file"), disk.file(Path::new("file")).expect("a file"));
        Ahead::open(log, file, of).expect("opens")
    }

    fn content(disk: &LyingDisk) -> Vec<u8> {
        disk.now().bytes(Path::new("file")).unwrap_or_default()
    }

    /// The disk as it is after a power cut that loses all that was not synced.
    fn cut(base: Image, disk: &LyingDisk) -> LyingDisk {
        let mut platter = Platter::new(base);
        disk.log().iter().for_each(|op| platter.play(op));
        // the names are not what is tested
        platter.play(&Op::SyncDirectory(Path::new("").to_owned()));
        LyingDisk::holding(platter.image(&mut |_| 0))
    }

    #[test]
    fn what_was_flushed_is_there_after_a_power_cut_and_the_rest_is_not() {
        let disk = LyingDisk::default();
        let (ahead, beneath) = open(&disk, 1);
        beneath.set_len(8192).expect("grows");
        ahead.begin(ROOM).expect("begins");
        beneath.write(0, b"first").expect("writes");
        beneath.write(5000, b"second").expect("writes");
        beneath.sync_data().expect("syncs");
        ahead.flush().expect("flushes");
        beneath.write(0, b"third").expect("writes");
        beneath.sync_data().expect("syncs");
        let mut read = [0; 5];
        beneath.read(0, &mut read).expect("reads");
        assert_eq!(&read, b"third", "the database reads what it wrote");
        assert_eq!(&content(&disk)[..5], b"first", "and the file has nothing that the log lacks");

        let after = cut(Image::default(), &disk);
        let base = after.now();
        drop(open(&after, 1));
        assert_eq!(&content(&after)[..5], b"first");
        assert_eq!(&content(&after)[5000..5006], b"second");
        // once more, and for another file: nothing is written twice, or where it does not belong
        let again = cut(base, &after);
        let before = content(&again);
        drop(open(&again, 2));
        assert_eq!(content(&again), before);
    }

    #[test]
    fn a_log_that_is_full_begins_anew() {
        let disk = LyingDisk::default();
        let (ahead, beneath) = open(&disk, 1);
        ahead.begin(ROOM).expect("begins");
        for n in 0..50_u8 {
            beneath.write(u64::from(n % 7) * 4096, &[n; 4096]).expect("writes");
            ahead.flush().expect("flushes");
            let after = cut(Image::default(), &disk);
            drop(open(&after, 1));
            for m in 0..=n.min(6) {
                let newest = n - (n - m) % 7;
                assert_eq!(content(&after)[usize::from(m) * 4096], newest, "page {m} after {n}");
            }
        }
        let log = disk.now().bytes(Path::new("log")).expect("there").len();
        assert!(log as u64 <= ROOM + GRAIN as u64, "{log}");
    }

    #[test]
    fn frames_for_another_file_or_of_an_earlier_generation_are_left_alone() {
        let disk = LyingDisk::default();
        let (ahead, beneath) = open(&disk, 1);
        ahead.begin(ROOM).expect("begins");
        beneath.write(0, b"mine").expect("writes");
        ahead.flush().expect("flushes");
        drop(ahead.settle().expect("settles"));
        // written past the log, as a database that is closed does
        beneath.write(0, b"last").expect("writes");
        beneath.close().expect("closes");
        drop((ahead, beneath));
        drop(open(&disk, 1));
        assert_eq!(&content(&disk), b"last");
    }

    #[test]
    fn a_torn_frame_after_a_settled_log_brings_nothing_back() {
        let disk = LyingDisk::default();
        let (ahead, beneath) = open(&disk, 1);
        ahead.begin(ROOM).expect("begins");
        for byte in 1..=3 {
            beneath.write(0, &[byte; 8]).expect("writes");
            ahead.flush().expect("flushes");
        }
        drop(ahead.settle().expect("settles"));
        beneath.write(0, b"straight").expect("writes");
        beneath.close().expect("closes");
        drop((ahead, beneath));
        let (ahead, beneath) = open(&disk, 1);
        ahead.begin(ROOM).expect("begins");
        let before = disk.now().bytes(Path::new("log")).expect("there");
        beneath.write(0, b"torn").expect("writes");
        ahead.flush().expect("flushes");
        let mut image = disk.now();
        let mut log = image.bytes(Path::new("log")).expect("there");
        let changed = log.chunks(512).zip(before.chunks(512)).position(|(now, then)| now != then).expect("a frame");
        log[changed * 512..][..512].fill(0x11);
        image.set(Path::new("log"), &log);
        image.set(Path::new("file"), b"straight");
        let after = LyingDisk::holding(image);
        drop(open(&after, 1));
        assert_eq!(&content(&after), b"straight");
    }

    #[test]
    fn a_damaged_frame_costs_only_itself() {
        let disk = LyingDisk::default();
        let (ahead, beneath) = open(&disk, 1);
        ahead.begin(ROOM).expect("begins");
        for (page, byte) in [(0, 1), (1, 2), (2, 3)] {
            beneath.write(page * 4096, &[byte; 4096]).expect("writes");
            ahead.flush().expect("flushes");
        }
        drop((ahead, beneath));
        let mut image = cut(Image::default(), &disk).now();
        let mut log = image.bytes(Path::new("log")).expect("there");
        log[GRAIN + 40] ^= 1;
        image.set(Path::new("log"), &log);
        let after = LyingDisk::holding(image);
        drop(open(&after, 1));
        let found = content(&after);
        assert_eq!([found[0], found[4096], found[8192]], [1, 0, 3]);
    }

    #[test]
    fn after_a_failure_nothing_is_written_any_more() {
        let disk = LyingDisk::default();
        let (ahead, beneath) = open(&disk, 1);
        ahead.begin(ROOM).expect("begins");
        beneath.write(0, b"held").expect("writes");
        disk.kill();
        ahead.flush().expect_err("the disk is gone");
        beneath.write(0, b"more").expect_err("refused");
        beneath.sync_data().expect_err("refused");
        ahead.flush().expect_err("refused");
    }

    #[test]
    fn a_log_in_use_is_not_touched() {
        let scratch = tempfile::tempdir().expect("a directory");
        let disk = crate::store::disk::real();
        let file = |name: &str| disk.file(&scratch.path().join(name)).expect("a file");
        let (first, _beneath) = Ahead::open(file("log"), file("file"), 1).expect("opens");
        let second = Ahead::open(file("log"), file("file"), 1);
        assert_eq!(second.expect_err("locked").kind(), io::ErrorKind::WouldBlock);
        drop((first, _beneath));
        Ahead::open(file("log"), file("file"), 1).expect("free again");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_log(bytes in proptest::collection::vec(any::<u8>(), 0..20_000)) {
            let mut image = Image::default();
            image.set(Path::new("log"), &bytes);
            let disk = LyingDisk::holding(image);
            drop(open(&disk, 1));
            prop_assert_eq!(content(&disk), Vec::<u8>::new());
        }

        #[test]
        fn any_writes_read_back(writes in proptest::collection::vec((0_u64..300, proptest::collection::vec(any::<u8>(), 1..100), any::<bool>()), 1..40)) {
            let disk = LyingDisk::default();
            let (ahead, beneath) = open(&disk, 1);
            beneath.set_len(400).expect("grows");
            ahead.begin(ROOM).expect("begins");
            let mut wanted = vec![0; 400];
            for (at, bytes, flush) in &writes {
                beneath.write(*at, bytes).expect("writes");
                let begin = usize::try_from(*at).expect("small");
                wanted[begin..begin + bytes.len()].copy_from_slice(bytes);
                if *flush {
                    ahead.flush().expect("flushes");
                }
                let mut found = vec![0; 200];
                beneath.read(100, &mut found).expect("reads");
                prop_assert_eq!(&found[..], &wanted[100..300]);
            }
            ahead.flush().expect("flushes");
            prop_assert_eq!(content(&disk), wanted.clone());
            let after = cut(Image::default(), &disk);
            drop(open(&after, 1));
            prop_assert_eq!(content(&after), wanted);
        }
    }

    #[test]
    fn the_file_may_become_shorter() {
        let disk: Arc<LyingDisk> = Arc::default();
        let (ahead, beneath) = open(&disk, 1);
        beneath.set_len(8192).expect("grows");
        ahead.begin(ROOM).expect("begins");
        beneath.write(0, b"kept").expect("writes");
        beneath.set_len(4096).expect("shrinks");
        assert_eq!(beneath.len().expect("a length"), 4096);
        assert_eq!(content(&disk).len(), 8192, "not before what waits is durable");
        ahead.flush().expect("flushes");
        assert_eq!(content(&disk).len(), 4096);
    }
}
