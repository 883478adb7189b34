//! What a backup is made of, and its directory.
//!
//! ```text
//! manifest.json                        written last: a directory without it is unfinished
//! journal/00000000000000000001.rows    raw records, by number
//! audit/00000000000000000001.rows      ledger entries, by number
//! ignored/00000000000000000001.rows    reports that changed nothing, by number
//! tables/00000000000000004711.rows     every other table of the state, as of journal record 4711
//! ```
//!
//! The first three are [`Log`]s: a row never changes once it is there. So they need no lock and no moment: a backup reads them
//! in pages while the gateway appends, an interrupted one goes on where it ended, and the next one fetches only what is new.
//! The tables are read from one read transaction (`state::Image`), whole each time; they are the smaller part. Together they are
//! the state as of one checkpoint, and the journal to its head of that moment: what lies between is folded at the restore, as
//! after any crash.
//!
//! A file is a line that names its form, then frames: four bytes of length (big-endian), the row, the first eight bytes of the
//! row's SHA-256. A log's row is its number (eight bytes) and its bytes; a table's row is as [`Row`] encodes it. The manifest
//! has the SHA-256 of every file **up to the size that it states**: a later run appends to the files of logs, and the manifest
//! that is there stays true until the new one replaces it. So an interrupted run never spoils the backup that it was to renew.
//!
//! Not in it: configuration, secrets, certificates. They are the operator's files, and nothing hands out secrets.

mod directory;
mod manifest;
mod restore;

use std::fmt;
use std::io::Read;

use super::StoreError;
use super::codec::{Reader, Writer};

pub use directory::{Directory, Moment};
pub use manifest::{FORMAT, MANIFEST, Manifest, Piece, Span};
pub use restore::{Restored, check, unpack};

/// First line of every file of rows.
const HEADER: &[u8] = b"stockgate rows 1\n";
/// Bytes of a frame around its row.
const FRAME_EXTRA: usize = 12;
/// No row is longer: the largest are fetched answers of 32 MiB.
const ROW_MAX_BYTES: usize = 256 * 1024 * 1024;

/// A table that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Log {
    /// Raw records.
    Journal,
    /// The ledger's entries.
    Audit,
    /// Reports that changed nothing.
    Ignored,
}

impl Log {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Journal, Self::Audit, Self::Ignored];

    /// Its name: of the table, of the backup's folder, in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Audit => "audit",
            Self::Ignored => "ignored",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|log| log.name() == name)
    }
}

/// A row of a table that is no log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which table.
    pub table: String,
    /// Key; numbers as eight bytes, big-endian.
    pub key: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

impl Row {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(self.table.len() + self.key.len() + self.value.len() + 8);
        w.text(&self.table).bytes(&self.key).raw(&self.value);
        w.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut r = Reader::new(bytes);
        let (table, key) = (r.text("table")?.to_owned(), r.bytes("key")?.to_vec());
        Ok(Self { table, key, value: r.rest().to_vec() })
    }
}

/// Why a backup cannot be made, continued or taken. A sentence that says what to do.
#[derive(Debug)]
pub enum BackupError {
    /// What is there cannot be used so.
    Refused(String),
    /// It was made by a newer program.
    Newer(String),
    /// It is not what was written: every file that is damaged.
    Damaged(Vec<String>),
    /// The database that is made of it fails.
    Store(StoreError),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) | Self::Newer(why) => f.write_str(why),
            Self::Damaged(pieces) => {
                write!(f, "the backup is damaged, nothing was restored:")?;
                pieces.iter().try_for_each(|piece| write!(f, "\n  {piece}"))
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn io(path: &std::path::Path, error: &std::io::Error) -> BackupError {
    BackupError::Refused(format!("{}: {error}", path.display()))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Append a row's frame.
fn frame(row: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(row.len()).expect("a row is smaller than 4 GiB");
    out.extend(length.to_be_bytes());
    out.extend(row);
    out.extend(sha256(row).iter().take(8));
}

/// Frames of a log's rows, as they travel and as they are kept.
pub fn encode_log(rows: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.iter().map(|(_, bytes)| bytes.len() + FRAME_EXTRA + 8).sum());
    for (number, bytes) in rows {
        let mut w = Writer::with_capacity(bytes.len() + 8);
        w.u64(*number).raw(bytes);
        frame(&w.finish(), &mut out);
    }
    out
}

/// Frames of rows, as they travel and as they are kept.
pub fn encode_rows(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows {
        frame(&row.encode(), &mut out);
    }
    out
}

/// Undo [`encode_log`]; the whole must be frames.
pub fn decode_log(bytes: &[u8]) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    whole_frames(bytes)?.into_iter().map(log_row).collect()
}

/// Undo [`encode_rows`]; the whole must be frames.
pub fn decode_rows(bytes: &[u8]) -> Result<Vec<Row>, StoreError> {
    whole_frames(bytes)?.into_iter().map(Row::decode).collect()
}

fn log_row(row: &[u8]) -> Result<(u64, Vec<u8>), StoreError> {
    let mut r = Reader::new(row);
    Ok((r.u64("number")?, r.rest().to_vec()))
}

fn whole_frames(mut bytes: &[u8]) -> Result<Vec<&[u8]>, StoreError> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let (row, rest) = split_frame(bytes).ok_or_else(|| StoreError::Row("a page of rows is damaged".to_owned()))?;
        rows.push(row);
        bytes = rest;
    }
    Ok(rows)
}

/// The first frame's row and what follows; `None` when it is cut short or not what was written.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(4)?;
    let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
    let (row, rest) = rest.split_at_checked(length)?;
    let (check, rest) = rest.split_at_checked(8)?;
    sha256(row).starts_with(check).then_some((row, rest))
}

/// Reads the frames of a file, one after the other, up to a size.
struct Frames<R> {
    from: R,
    /// Bytes read so far, the header included: up to the end of the last whole frame.
    read: u64,
    digest: ring::digest::Context,
}

impl<R: Read> Frames<R> {
    /// After the header; `None` when it is not there.
    fn begin(mut from: R) -> std::io::Result<Option<Self>> {
        let mut header = [0; HEADER.len()];
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        match from.read_exact(&mut header) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        digest.update(&header);
        Ok((header == HEADER).then_some(Self { from, read: HEADER.len() as u64, digest }))
    }

    /// The next row. `None` at the end, or where what follows is not a whole frame.
    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        if !self.fill(&mut bytes, 4)? {
            return Ok(None);
        }
        let length =
            bytes.first_chunk::<4>().map_or(usize::MAX, |l| usize::try_from(u32::from_be_bytes(*l)).unwrap_or(usize::MAX));
        if length > ROW_MAX_BYTES || !self.fill(&mut bytes, length + 8)? {
            return Ok(None);
        }
        let Some((row, [])) = split_frame(&bytes) else { return Ok(None) };
        let row = row.to_vec();
        self.digest.update(&bytes);
        self.read += bytes.len() as u64;
        Ok(Some(row))
    }

    /// Read so many bytes more; false when they are not there.
    fn fill(&mut self, bytes: &mut Vec<u8>, more: usize) -> std::io::Result<bool> {
        let taken = (&mut self.from).take(more as u64).read_to_end(bytes)?;
        Ok(taken == more)
    }

    fn digest(&self) -> String {
        hex_of(&self.digest)
    }
}

fn hex_of(digest: &ring::digest::Context) -> String {
    data_encoding::HEXLOWER.encode(digest.clone().finish().as_ref())
}

#[cfg(test)]
mod tests;
