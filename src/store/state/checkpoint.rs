//! Writing the state down, and comparing two of them.

use std::sync::Arc;

use redb::{ReadableDatabase, TableHandle};

use super::{Files, META, Positions, State, StoreError, TABLES_BY_BYTES, TABLES_BY_NUMBER, View, files, runs};
use crate::limits::CHECKPOINT_BYTES;
use crate::store::disk;
use crate::types::Seq;

/// Where two states first differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which table.
    pub table: String,
    /// Which row (escaped bytes, or a number).
    pub key: String,
    /// What the first state has there.
    pub ours: Option<String>,
    /// What the second has.
    pub theirs: Option<String>,
}

impl State {
    /// Records folded since the last checkpoint; 0 also when nothing at all changed.
    pub fn unwritten_records(&self) -> u64 {
        if self.changed { self.records_since_checkpoint.max(1) } else { 0 }
    }

    /// A checkpoint should not wait for its time.
    pub fn wants_checkpoint(&self) -> bool {
        let rows = self.positions.memory() + self.audit.memory() + self.ignored.memory();
        let sealed = self.dedup.sealed_bytes(self.frozen.as_ref().map(|frozen| &frozen.dedup));
        rows + sealed + self.unwritten_letters >= CHECKPOINT_BYTES || self.item_parts.want_checkpoint()
    }

    /// After a failed checkpoint: close the file and open it anew. What was not written is still in memory, and the next
    /// checkpoint writes all of it; whether the failed one reached the disk makes no difference to that.
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        self.not_written();
        self.files = None;
        self.frozen = None;
        self.disk.forget(&self.path);
        let database = Arc::new(crate::store::open(&*self.disk, &self.path, self.cache)?);
        let view = View::open(&database, None)?;
        self.files = Some(Files { database, view });
        let on_disk = self.durable_cursor()?;
        if on_disk > self.meta.cursor {
            self.files = None;
            return Err(StoreError::Row(format!("the file has folded {on_disk}, the memory {}", self.meta.cursor)));
        }
        Ok(())
    }

    /// A record could not be folded to its end because the disk failed: what is in memory is of no use any more. Nothing is
    /// read until [`State::reload`] has succeeded.
    pub fn discard(&mut self) {
        self.files = None;
        self.frozen = None;
        self.positions = super::Hot::default();
    }

    /// Go back to the last checkpoint, as a restart does; what came after it is folded again.
    pub fn reload(&mut self) -> Result<(), StoreError> {
        self.files = None;
        self.disk.forget(&self.path);
        let data = disk::directory_of(&self.path);
        *self =
            crate::store::guarded(|| Self::open_on(Arc::clone(&self.disk), data, self.cache, self.dedup.generation_keys()))?;
        Ok(())
    }

    /// Something in the file did not hold together: the next start checks all of it, and rebuilds it when it is damaged. Nothing
    /// can be done with this state any more but to let it go.
    pub fn suspect(&self) -> Result<(), StoreError> {
        let directory = disk::directory_of(&self.path);
        let renamed = self.disk.rename(&self.path, &crate::store::suspect_path(directory));
        let synced = renamed.and_then(|()| self.disk.sync_directory(directory));
        synced.map_err(|error| StoreError::Io(format!("{}: {error}", self.path.display())))
    }

    /// The cursor as it stands on disk: what a crash cannot take away.
    pub fn durable_cursor(&self) -> Result<Seq, StoreError> {
        let read = files(self.files.as_ref())?.database.begin_read()?;
        let table = read.open_table(META)?;
        match table.get("state")? {
            Some(row) => Ok(super::Meta::decode(row.value())?.0.cursor),
            None => Ok(0),
        }
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        disk::bytes(&*self.disk, &self.path)
    }

    /// SHA-256 over every row of every table, in order. Two folds of one journal have one digest. Call after a checkpoint.
    pub fn digest(&self) -> Result<[u8; 32], StoreError> {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        self.each_row(|table, key, value| {
            for part in [table.as_bytes(), key, value] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
            true
        })?;
        Ok(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Where this state first differs from another one, by table and key. Call after a checkpoint of both.
    pub fn first_difference(&self, other: &Self) -> Result<Option<Difference>, StoreError> {
        let mut theirs = Vec::new();
        other.each_row(|table, key, value| {
            theirs.push((table.to_owned(), key.to_vec(), ring_digest(value)));
            true
        })?;
        let mut theirs = theirs.into_iter().peekable();
        let mut found = None;
        let show = |key: &[u8]| key.escape_ascii().to_string();
        self.each_row(|table, key, value| {
            let next = theirs.next();
            match next {
                Some((t, k, v)) if t == table && k == key && v == ring_digest(value) => true,
                Some((t, k, v)) => {
                    let same_row = t == table && k == key;
                    let ours =
                        Some(hex(&ring_digest(value))).filter(|_| same_row || (table, key) <= (t.as_str(), k.as_slice()));
                    let theirs = same_row.then(|| hex(&v));
                    found = Some(Difference { table: table.to_owned(), key: show(key), ours, theirs });
                    false
                }
                None => {
                    let ours = Some(hex(&ring_digest(value)));
                    found = Some(Difference { table: table.to_owned(), key: show(key), ours, theirs: None });
                    false
                }
            }
        })?;
        if found.is_none() {
            found = theirs.next().map(|(table, key, v)| Difference {
                table,
                key: show(&key),
                ours: None,
                theirs: Some(hex(&v)),
            });
        }
        Ok(found)
    }

    /// Visit every row in order until the visitor says stop. The filters of sealed generations are left out: they follow
    /// from the keys. Positions are told as they are, not as runs, which depend on when checkpoints were.
    fn each_row(&self, mut visit: impl FnMut(&str, &[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        let read = files(self.files.as_ref())?.database.begin_read()?;
        let meta = read.open_table(META)?;
        if let Some(row) = meta.get("state")?
            && !visit("meta", b"state", row.value())
        {
            return Ok(());
        }
        let positions = Positions::open(&read, None)?;
        let mut positions = positions.from(&[])?;
        while let Some((key, row)) = positions.next()? {
            if !visit("positions", key, row) {
                return Ok(());
            }
        }
        let logical = |name: &str| !runs::is_table(name) && name != "dedup-generations";
        for definition in TABLES_BY_BYTES.iter().filter(|d| logical(d.name())) {
            let name = definition.name().to_owned();
            for row in read.open_table(*definition)?.range::<&[u8]>(..)? {
                let (key, value) = row?;
                if !visit(&name, key.value(), value.value()) {
                    return Ok(());
                }
            }
        }
        for definition in TABLES_BY_NUMBER.iter().filter(|d| logical(d.name())) {
            let name = definition.name().to_owned();
            for row in read.open_table(*definition)?.range::<u64>(..)? {
                let (key, value) = row?;
                if !visit(&name, &key.value().to_be_bytes(), value.value()) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn ring_digest(bytes: &[u8]) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
