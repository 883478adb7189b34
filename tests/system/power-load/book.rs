//! The book: a line for each attempt (`S`) and each acknowledgement (`A`), with source, id and digest of the body.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use stockgate::simulator::sender::{Sent, Witness};

/// What a delivery is told from others by: its source, its platform's id (`-` where there is none), the first eight bytes of
/// its body's SHA-256.
pub(crate) type Name = (String, String, [u8; 8]);

/// The digest that the journal keeps of a body.
fn digest(body: &[u8]) -> [u8; 8] {
    let whole = ring::digest::digest(&ring::digest::SHA256, body);
    let mut first = [0; 8];
    first.copy_from_slice(whole.as_ref().split_at(8).0);
    first
}

/// Writes the book. Each line is one write: whoever reads it meanwhile finds whole lines.
pub(crate) struct Writer(Mutex<File>);

impl Writer {
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.map(|file| Self(Mutex::new(file))).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn note(&self, mark: char, sent: Sent<'_>) {
        let id = if sent.id.is_empty() { "-" } else { sent.id };
        let line = format!("{mark}\t{}\t{id}\t{}\n", sent.source, data_encoding::HEXLOWER.encode(&digest(sent.body)));
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).expect("the book's disk has room");
    }
}

impl Witness for Writer {
    fn sending(&self, sent: Sent<'_>) {
        self.note('S', sent);
    }

    fn taken(&self, sent: Sent<'_>) {
        self.note('A', sent);
    }
}

/// How often a delivery was sent, and how often it was acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) sent: u64,
    pub(crate) taken: u64,
}

/// Read a book.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<Name, Times>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut book: BTreeMap<Name, Times> = BTreeMap::new();
    for line in text.lines() {
        let odd = || format!("{}: not a line of a book: {line}", path.display());
        let mut parts = line.split('\t');
        let (Some(mark), Some(source), Some(id), Some(hex), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(odd());
        };
        let digest = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok().and_then(|d| d.try_into().ok()).ok_or_else(odd)?;
        let times = book.entry((source.to_owned(), id.to_owned(), digest)).or_default();
        match mark {
            "S" => times.sent += 1,
            "A" => times.taken += 1,
            _ => return Err(odd()),
        }
    }
    Ok(book)
}
