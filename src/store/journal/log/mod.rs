//! The log before the newest segment: what a commit makes durable.
//!
//! A commit of redb changes a page of each level of its trees and its head twice, and waits for the disk twice: some 40 KiB for
//! one delivery of 450 bytes, and half a million instructions. On a card that wears out this is what wears it. So a commit of the
//! journal is one **frame** of this log: the rows that the segment gets, numbered, with a checksum, written behind the frame before
//! it and synced once. When the log is full all its rows go into the segment's database, in one transaction for some hundred commits.
//! Until then readers find them in memory (see [`Newest`](super::newest::Newest)).
//!
//! A frame is there whole or not at all, so a commit is. After a power cut the rows that the database may not have are put into it
//! before anything else is done with it.
//!
//! Frames carry a *generation* and their index in it. When the log is full, or the segment is closed, it is *settled*: once the database
//! has the rows durably, a mark says durably that the frames of this generation count no more, and the next generation begins where
//! the log does. Two marks are written in turn, so that a torn one leaves the one before, whose frames say once more what the
//! database has. A frame says the same of the generations before its own, so that no mark is needed to find those that count.
//! What is left of older generations is never looked at.
//!
//! Where a frame was damaged or half written over, the next one is looked for at each place where one may begin, and a body that somebody
//! has sent may look like a frame. So no frame has the first bytes of a frame in such a place: what it holds is masked, if need be.

use std::io;
use std::ops::{Bound, Range};

use redb::{BackendError, StorageBackend};

use super::Row;
use crate::limits::AHEAD_FRAME_MAX_BYTES;
use crate::store::codec::{Reader, Writer};
use crate::store::heart;

/// A file of a [`Disk`](crate::store::disk::Disk).
type File = Box<dyn StorageBackend>;

/// Marks and frames begin at multiples of this: what a disk writes at once.
const GRAIN: usize = 4096;
/// Two marks, written in turn, so that a torn one leaves the one before it.
const MARKS: usize = 2;
/// Where the first frame stands.
const BEGIN: usize = MARKS * GRAIN;
const MARK: u32 = 0x7367_6d31;
/// What a mark says, its checksum, and the generation that is settled.
const MARK_BYTES: usize = 4 + 4 + 8;
const FRAME: u32 = 0x7367_6633;
/// What a frame says, and the checksum of all that follows.
const SUMMED_FROM: usize = 4 + 4;
/// Beside that generation, segment, index, length of the content, its mask.
const HEAD_BYTES: usize = SUMMED_FROM + 8 + 8 + 4 + 4 + MASK_BYTES;
const MASK_BYTES: usize = 4;

/// The log's file and where its next frame goes.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    /// Frames of this generation and those before count no more: the database has what they say.
    settled: u64,
    /// The mark that is written next.
    mark: usize,
    index: u32,
    at: u64,
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
    /// Where its content stands.
    content: Range<usize>,
    mask: u32,
}

impl Frame {
    fn end(&self) -> usize {
        self.content.end.next_multiple_of(GRAIN)
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum()
}

/// The generation that a mark says is settled; `None`: there is no mark, or it is torn.
fn mark_at(log: &[u8], mark: usize) -> Option<u64> {
    let bytes = log.get(mark * GRAIN..)?.get(..MARK_BYTES)?;
    let mut r = Reader::new(bytes);
    let (magic, sum, settled) = (r.u32("magic").ok()?, r.u32("checksum").ok()?, r.u64("generation").ok()?);
    (magic == MARK && sum == checksum(bytes.get(SUMMED_FROM..)?)).then_some(settled)
}

/// The frame that begins here; `None`: none does, or it is not whole.
fn frame_at(log: &[u8], begin: usize) -> Option<Frame> {
    let head = begin.checked_add(HEAD_BYTES)?;
    let mut r = Reader::new(log.get(begin..head)?);
    let (magic, sum) = (r.u32("magic").ok()?, r.u32("checksum").ok()?);
    let (generation, of, index) = (r.u64("generation").ok()?, r.u64("segment").ok()?, r.u32("index").ok()?);
    let length = usize::try_from(r.u32("length").ok()?).ok()?;
    let mask = r.u32("mask").ok()?;
    let content = head..head.checked_add(length)?;
    let whole = magic == FRAME && sum == checksum(log.get(begin + SUMMED_FROM..content.end)?);
    whole.then_some(Frame { generation, of, index, content, mask })
}

/// All frames that are whole, of whatever generation.
fn frames(log: &[u8]) -> Vec<Frame> {
    let mut found = Vec::new();
    let mut at = BEGIN;
    while at < log.len() {
        match frame_at(log, at) {
            Some(frame) => {
                at = frame.end();
                found.push(frame);
            }
            None => at += GRAIN,
        }
    }
    found
}

/// A mask for a frame under which nothing of its content looks like the beginning of another.
fn mask_for(frame: &[u8]) -> u32 {
    let first = |grain: &[u8]| grain.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    let not: Vec<u32> = frame.chunks(GRAIN).skip(1).filter_map(first).map(|bytes| bytes ^ FRAME).collect();
    (0..=u32::MAX).find(|mask| !not.contains(mask)).expect("a frame has far fewer places")
}

/// Mask a frame's content, or unmask it. `at`: where it stands in the frame.
fn mask(content: &mut [u8], at: usize, mask: u32) {
    if mask != 0 {
        let mask = mask.to_be_bytes();
        for (byte, mask) in content.iter_mut().zip(mask.iter().cycle().skip(at % MASK_BYTES)) {
            *byte ^= mask;
        }
    }
}

/// The rows of a frame's content.
fn rows(content: &[u8]) -> io::Result<Vec<Row>> {
    let bad = |_| damaged("a frame's content does not decode");
    let (mut r, mut rows) = (Reader::new(content), Vec::new());
    while !r.is_empty() {
        rows.push((r.count("number").map_err(bad)?, r.bytes("row").map_err(bad)?.to_vec()));
    }
    Ok(rows)
}

impl Log {
    /// Take a log; its bytes, and the frames that count. `WouldBlock`: another process has it.
    fn take(file: File) -> io::Result<(Self, Vec<u8>, Vec<Frame>)> {
        let mut log = Self { file, settled: 0, mark: 0, index: 0, at: BEGIN as u64 };
        // before anything is read: the frames of a gateway at work are its own
        match log.file.try_lock_range(Bound::Unbounded, Bound::Unbounded) {
            Ok(true) | Err(BackendError::Unsupported) => {}
            Ok(false) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(BackendError::Io(error)) => return Err(error),
            Err(other) => return Err(io::Error::other(other)),
        }
        let mut bytes = vec![0; usize::try_from(log.file.len()?).map_err(io::Error::other)?];
        log.file.read(0, &mut bytes)?;
        let mut frames = frames(&bytes);
        let marks = [mark_at(&bytes, 0), mark_at(&bytes, 1)];
        // no frame is written before the generation in front of it is settled: it says so, too, when the mark is damaged
        let proven = frames.iter().map(|frame| frame.generation.saturating_sub(1));
        log.settled = marks.into_iter().flatten().chain(proven).max().unwrap_or(0);
        log.mark = usize::from(marks[0] >= marks[1]);
        let live = log.live();
        frames.retain(|frame| frame.generation == live);
        if let Some(last) = frames.last() {
            // until it is settled nothing is written over them
            (log.index, log.at) = (last.index.saturating_add(1), last.end() as u64);
        }
        Ok((log, bytes, frames))
    }

    fn live(&self) -> u64 {
        self.settled.saturating_add(1)
    }

    /// A log that has nothing, durably, whatever it had.
    pub(super) fn emptied(file: File) -> io::Result<Self> {
        let (mut log, _, _) = Self::take(file)?;
        log.settle()?;
        Ok(log)
    }

    /// A log, and the rows that it has for this segment, in the order in which they were written.
    pub(super) fn open(file: File, of: u64) -> io::Result<(Self, Vec<Row>)> {
        let (log, bytes, frames) = Self::take(file)?;
        for (before, after) in frames.iter().zip(frames.iter().skip(1)) {
            if before.index.saturating_add(1) != after.index {
                // one frame is synced before the next is written: this is no power cut
                tracing::error!(after = before.index, before = after.index, "frames of the write-ahead log are damaged");
            }
        }
        let mut found = Vec::new();
        for frame in frames.iter().filter(|frame| frame.of == of) {
            let mut content = bytes.get(frame.content.clone()).unwrap_or_default().to_vec();
            mask(&mut content, HEAD_BYTES, frame.mask);
            found.append(&mut rows(&content)?);
        }
        Ok((log, found))
    }

    /// The database has everything, durably: the frames so far count no more. Nothing is written when there are none.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        if self.index == 0 {
            return Ok(());
        }
        let mut about = Writer::with_capacity(8);
        about.u64(self.live());
        let about = about.finish();
        let mut mark = Writer::with_capacity(GRAIN);
        mark.u32(MARK).u32(checksum(&about)).raw(&about);
        let mut mark = mark.finish();
        mark.resize(GRAIN, 0);
        self.file.write((self.mark * GRAIN) as u64, &mark)?;
        self.file.sync_data()?;
        heart::beat();
        self.settled = self.live();
        self.mark = (self.mark + 1) % MARKS;
        (self.index, self.at) = (0, BEGIN as u64);
        Ok(())
    }

    /// It has this many bytes.
    pub(super) fn is_full(&self, room: u64) -> bool {
        self.at >= room
    }

    /// Give its file a length, as far as the disk has one to give: a sync then need not write a new one each time.
    pub(super) fn make_room(&self, room: u64) {
        let made = self.file.len().and_then(|length| if length < room { self.file.set_len(room) } else { Ok(()) });
        if let Err(error) = made {
            tracing::debug!(%error, "the write-ahead log grows as it is written");
        }
    }

    /// Write a frame and make it durable.
    pub(super) fn append(&mut self, of: u64, rows: &[Row]) -> io::Result<()> {
        let most: usize = rows.iter().map(|(_, row)| row.len() + 16).sum();
        let mut content = Writer::with_capacity(HEAD_BYTES + most + GRAIN);
        content.raw(&[0; HEAD_BYTES]);
        for (seq, row) in rows {
            content.count(*seq).bytes(row);
        }
        let mut frame = content.finish();
        let length = u32::try_from(frame.len() - HEAD_BYTES).ok().filter(|bytes| *bytes as usize <= AHEAD_FRAME_MAX_BYTES);
        let chosen = mask_for(&frame);
        mask(frame.get_mut(HEAD_BYTES..).unwrap_or_default(), HEAD_BYTES, chosen);
        let mut about = Writer::with_capacity(HEAD_BYTES);
        about
            .u64(self.live())
            .u64(of)
            .u32(self.index)
            .u32(length.ok_or_else(|| damaged("a commit is too large"))?)
            .u32(chosen);
        put(&mut frame, SUMMED_FROM, &about.finish());
        let mut head = Writer::with_capacity(SUMMED_FROM);
        head.u32(FRAME).u32(checksum(frame.get(SUMMED_FROM..).unwrap_or_default()));
        put(&mut frame, 0, &head.finish());
        frame.resize(frame.len().next_multiple_of(GRAIN), 0);
        self.file.write(self.at, &frame)?;
        self.file.sync_data()?;
        heart::beat();
        self.at += frame.len() as u64;
        self.index += 1;
        Ok(())
    }
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    for (place, byte) in bytes.iter_mut().skip(at).zip(what) {
        *place = *byte;
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Err(error) = self.file.close() {
            tracing::debug!(%error, "the write-ahead log was not closed");
        }
    }
}

#[cfg(test)]
mod tests;
