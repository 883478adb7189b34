//! The log's file: marks, frames, and what is made of them after a power cut.

use std::io;
use std::ops::{Bound, Range};

use redb::{BackendError, StorageBackend};

use super::File;
use crate::limits::AHEAD_FRAME_MAX_BYTES;
use crate::store::codec::{Reader, Writer};
use crate::store::heart;

/// Marks and frames begin at multiples of this: what a disk writes at once.
pub(super) const GRAIN: usize = 4096;
/// Two marks, written in turn, so that a torn one leaves the one before it.
const MARKS: usize = 2;
/// Where the first frame stands.
pub(super) const BEGIN: usize = MARKS * GRAIN;
const MARK: u32 = 0x7367_6d31;
/// What a mark says, its checksum, and the generation that is settled.
const MARK_BYTES: usize = 4 + 4 + 8;
const FRAME: u32 = 0x7367_6632;
/// What a frame says, its checksum, generation, file, index, lengths of the content as it is and compressed.
pub(super) const HEAD_BYTES: usize = 4 + 4 + 8 + 8 + 4 + 4 + 4;

/// The log's file and where its next frame goes.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    /// Frames of this generation and those before count no more: the file holds what they say.
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

/// The generation that a mark says is settled; `None`: there is no mark, or it is torn.
fn mark_at(log: &[u8], mark: usize) -> Option<u64> {
    let bytes = log.get(mark * GRAIN..)?.get(..MARK_BYTES)?;
    let mut r = Reader::new(bytes);
    let (magic, sum, settled) = (r.u32("magic").ok()?, r.u32("checksum").ok()?, r.u64("generation").ok()?);
    (magic == MARK && sum == checksum([bytes.get(8..)?, &[]])).then_some(settled)
}

/// The frame that begins here; `None`: none does, or it is not whole.
fn frame_at(log: &[u8], begin: usize) -> Option<Frame> {
    let head = log.get(begin..begin.checked_add(HEAD_BYTES)?)?;
    let mut r = Reader::new(head);
    let (magic, sum) = (r.u32("magic").ok()?, r.u32("checksum").ok()?);
    let (generation, of, index) = (r.u64("generation").ok()?, r.u64("file").ok()?, r.u32("index").ok()?);
    let (content, packed) = (r.u32("length").ok()?, r.u32("packed").ok()?);
    let (content, packed) = (usize::try_from(content).ok()?, usize::try_from(packed).ok()?);
    if magic != FRAME || content > AHEAD_FRAME_MAX_BYTES {
        return None;
    }
    let packed = begin + HEAD_BYTES..(begin + HEAD_BYTES).checked_add(packed)?;
    if checksum([head.get(8..)?, log.get(packed.clone())?]) != sum {
        return None;
    }
    Some(Frame { generation, of, index, content, end: packed.end.next_multiple_of(GRAIN), packed })
}

/// All frames that are whole, of whatever generation.
fn frames(log: &[u8]) -> Vec<Frame> {
    let mut found = Vec::new();
    let mut at = BEGIN;
    while at < log.len() {
        match frame_at(log, at) {
            Some(frame) => {
                at = frame.end;
                found.push(frame);
            }
            None => at += GRAIN,
        }
    }
    found
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
    /// Take a log; its bytes, and the frames that count. `WouldBlock`: another process has it.
    fn open(file: File) -> io::Result<(Self, Vec<u8>, Vec<Frame>)> {
        let mut log = Self { file, settled: 0, mark: 0, index: 0, at: BEGIN as u64 };
        // before anything is read: to write the frames of a gateway at work into its file would damage it
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
        // with both marks damaged the newest frames are those that count
        let newest = || frames.iter().map(|frame| frame.generation.saturating_sub(1)).max();
        log.settled = marks.into_iter().flatten().max().or_else(newest).unwrap_or(0);
        log.mark = usize::from(marks[0] >= marks[1]);
        let live = log.live();
        frames.retain(|frame| frame.generation == live);
        Ok((log, bytes, frames))
    }

    fn live(&self) -> u64 {
        self.settled.saturating_add(1)
    }

    /// A log that has nothing, durably, whatever it had.
    pub(crate) fn emptied(file: File) -> io::Result<Self> {
        let (mut log, _, frames) = Self::open(file)?;
        if !frames.is_empty() {
            log.settle()?;
        }
        Ok(log)
    }

    /// Write what the log still has for this file into it. Afterwards the log has nothing for it, durably.
    pub(super) fn recover(file: File, of: u64, into: &dyn StorageBackend) -> io::Result<Self> {
        let (mut log, bytes, frames) = Self::open(file)?;
        for (before, after) in frames.iter().zip(frames.iter().skip(1)) {
            if before.index + 1 != after.index {
                // one frame is synced before the next is written: this is no power cut
                tracing::error!(from = before.index + 1, to = after.index - 1, "frames of the write-ahead log are damaged");
            }
        }
        let mine = || frames.iter().filter(|frame| frame.of == of);
        for frame in mine() {
            let packed = bytes.get(frame.packed.clone()).unwrap_or_default();
            let content = lz4_flex::block::decompress(packed, frame.content)
                .map_err(|error| damaged(&format!("a frame cannot be unpacked: {error}")))?;
            apply(&content, into)?;
        }
        if mine().next().is_some() {
            tracing::info!(commits = mine().count(), "the end of the journal is taken from its write-ahead log");
            into.sync_data()?;
        }
        if !frames.is_empty() {
            log.settle()?;
        }
        Ok(log)
    }

    /// The file has everything, durably: the frames so far count no more.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let mut about = Writer::with_capacity(8);
        about.u64(self.live());
        let about = about.finish();
        let mut mark = Writer::with_capacity(GRAIN);
        mark.u32(MARK).u32(checksum([&about, &[]])).raw(&about);
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

    /// No frame was written since it was settled.
    pub(super) fn is_settled(&self) -> bool {
        self.index == 0
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
    pub(super) fn append(&mut self, of: u64, content: &[u8]) -> io::Result<()> {
        let length = |bytes: usize| u32::try_from(bytes).map_err(|_| damaged("a commit is too large"));
        if content.len() > AHEAD_FRAME_MAX_BYTES {
            return Err(damaged("a commit is too large"));
        }
        let mut frame = vec![0; HEAD_BYTES + lz4_flex::block::get_maximum_output_size(content.len())];
        let place = frame.get_mut(HEAD_BYTES..).unwrap_or_default();
        let packed = lz4_flex::block::compress_into(content, place).map_err(io::Error::other)?;
        frame.truncate(HEAD_BYTES + packed);
        let mut about = Writer::with_capacity(HEAD_BYTES);
        about.u64(self.live()).u64(of).u32(self.index).u32(length(content.len())?).u32(length(packed)?);
        let about = about.finish();
        let sum = checksum([&about, frame.get(HEAD_BYTES..).unwrap_or_default()]);
        let mut head = Writer::with_capacity(HEAD_BYTES);
        head.u32(FRAME).u32(sum).raw(&about);
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

impl Drop for Log {
    fn drop(&mut self) {
        if let Err(error) = self.file.close() {
            tracing::debug!(%error, "the write-ahead log was not closed");
        }
    }
}
