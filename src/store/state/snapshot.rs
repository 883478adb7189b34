//! The snapshot: a second state, beside the first, that stands for what has left the journal.
//!
//! The first one is a copy of the file. From then on it is brought up to date in one transaction: whatever is not the same is
//! written, and nothing else: most of a state never changes (ledger entries, delivery keys), and a copy of all of it wears out flash. A
//! power cut leaves the old snapshot or the new one. Tables that only grow are compared at their ends, all others row by row.
//!
//! A snapshot that is damaged, or of another state, is set aside and made anew: which of the two files is at fault is not known then, and
//! the snapshot is the only copy of what has left the journal.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::sync::Arc;

use redb::{
    Database, Key, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    TableHandle, WriteTransaction,
};

use super::{
    AUDIT, Bytes, DEDUP_KEYS, IGNORED, META, Meta, POSITION_RUNS, POSITIONS, Positions, State, StoreError, TABLES_BY_BYTES,
    TABLES_BY_NUMBER, files, runs,
};
use crate::limits::SNAPSHOT_CACHE_BYTES;
use crate::store::disk::{self, Disk};
use crate::types::Seq;

/// A snapshot that is still to be written, by any thread. Nobody may write the state's file meanwhile.
pub struct Snapshot {
    disk: Arc<dyn Disk>,
    state: PathBuf,
    read: ReadTransaction,
    cursor: Seq,
    /// The file stays open as long as it is read.
    _database: Arc<Database>,
}

/// What was done to bring a snapshot up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// The file was copied.
    Copied,
    /// So many rows were written or removed.
    Changed(u64),
}

impl State {
    /// A snapshot of the last checkpoint.
    pub fn begin_snapshot(&self) -> Result<Snapshot, StoreError> {
        let database = Arc::clone(&files(self.files.as_ref())?.database);
        let read = database.begin_read()?;
        let cursor = cursor_of(&read)?;
        Ok(Snapshot { disk: Arc::clone(&self.disk), state: self.path.clone(), read, cursor, _database: database })
    }

    /// Make a snapshot. The state stands still meanwhile.
    pub fn snapshot(&self) -> Result<Made, StoreError> {
        Ok(self.begin_snapshot()?.write()?.1)
    }
}

impl Snapshot {
    /// Write it. Says which record it reaches up to.
    pub fn write(self) -> Result<(Seq, Made), StoreError> {
        let path = crate::store::snapshot_path(disk::directory_of(&self.state));
        let is_there =
            self.disk.length(&path).map_err(|error| StoreError::Io(format!("{}: {error}", path.display())))?.is_some();
        if is_there {
            let changed = crate::store::guarded(|| {
                let database = crate::store::open(&*self.disk, &path, SNAPSHOT_CACHE_BYTES)?;
                bring(&self.read, &database)
            });
            match changed {
                Ok(Some(rows)) => return Ok((self.cursor, Made::Changed(rows))),
                Ok(None) => tracing::warn!("the snapshot is not one of this state: it is made anew"),
                Err(error) if error.is_disk() => return Err(error),
                Err(error) => tracing::warn!(%error, "the snapshot cannot be brought up to date: it is made anew"),
            }
        }
        if is_there {
            let aside = disk::set_aside(&*self.disk, &path)?;
            tracing::warn!(aside = %aside.display(), "the old snapshot is kept: remove it when the state is known to be right");
        }
        disk::copy_whole(&*self.disk, &self.state, &path)?;
        Ok((self.cursor, Made::Copied))
    }
}

fn cursor_of(read: &ReadTransaction) -> Result<Seq, StoreError> {
    match read.open_table(META)?.get("state")? {
        Some(row) => Ok(Meta::decode(row.value())?.0.cursor),
        None => Ok(0),
    }
}

/// Rows of this table are appended and never change, but for the last one, which may grow; the first ones may be gone.
fn only_grows(table: &str) -> bool {
    [AUDIT.name(), IGNORED.name(), DEDUP_KEYS.name()].contains(&table)
}

/// Make the rows of a snapshot those of the state. `None`: it is a snapshot of something else.
fn bring(state: &ReadTransaction, snapshot: &Database) -> Result<Option<u64>, StoreError> {
    let before = snapshot.begin_read()?;
    if cursor_of(&before)? > cursor_of(state)? {
        return Ok(None);
    }
    let mut write = snapshot.begin_write()?;
    write.set_two_phase_commit(true);
    write.set_quick_repair(true);
    let Some(mut rows) = bring_all(state, &before, &write)? else {
        write.abort()?;
        return Ok(None);
    };
    rows += bring_positions(state, &before, &write)?;
    write.commit()?;
    Ok(Some(rows))
}

fn bring_all(
    state: &ReadTransaction,
    before: &ReadTransaction,
    write: &WriteTransaction,
) -> Result<Option<u64>, StoreError> {
    let mut rows = bring_table(META, state, before, write)?;
    for table in TABLES_BY_BYTES.iter().filter(|table| !runs::is_table(table.name())) {
        rows = add(rows, bring_table(*table, state, before, write)?);
    }
    for table in TABLES_BY_NUMBER.iter().filter(|table| !runs::is_table(table.name())) {
        rows = add(rows, bring_table(*table, state, before, write)?);
    }
    Ok(rows)
}

fn add(rows: Option<u64>, more: Option<u64>) -> Option<u64> {
    Some(rows? + more?)
}

/// `None`: the two have nothing to do with each other.
fn bring_table<K: Key + 'static>(
    definition: TableDefinition<'static, K, Bytes>,
    state: &ReadTransaction,
    before: &ReadTransaction,
    write: &WriteTransaction,
) -> Result<Option<u64>, StoreError> {
    let (new, old) = (state.open_table(definition)?, before.open_table(definition)?);
    let mut table = write.open_table(definition)?;
    if !only_grows(definition.name()) {
        return bring_rows(new.iter()?, old.iter()?, &mut table).map(Some);
    }
    let mut rows = 0;
    // what is gone is gone from the beginning
    let first = new.first()?;
    for row in old.iter()? {
        let (key, _) = row?;
        if first.as_ref().is_some_and(|(first, _)| compare::<K>(&key.value(), &first.value()) != Ordering::Less) {
            break;
        }
        table.remove(key.value())?;
        rows += 1;
    }
    let Some((last, old_row)) = old.last()? else { return Ok(Some(rows + append(new.iter()?, &mut table)?)) };
    let mut later = new.range(last.value()..)?;
    if let Some(new_row) = new.get(last.value())? {
        if !new_row.value().starts_with(old_row.value()) {
            return Ok(None);
        }
        if new_row.value() == old_row.value() {
            later.next().transpose()?;
        }
    }
    Ok(Some(rows + append(later, &mut table)?))
}

fn compare<K: Key>(a: &K::SelfType<'_>, b: &K::SelfType<'_>) -> Ordering {
    K::compare(K::as_bytes(a).as_ref(), K::as_bytes(b).as_ref())
}

fn append<K: Key + 'static>(
    new: redb::Range<'_, K, Bytes>,
    table: &mut redb::Table<'_, K, Bytes>,
) -> Result<u64, StoreError> {
    let mut rows = 0;
    for row in new {
        let (key, value) = row?;
        table.insert(key.value(), value.value())?;
        rows += 1;
    }
    Ok(rows)
}

/// Two tables, row by row.
fn bring_rows<K: Key + 'static>(
    mut new: redb::Range<'_, K, Bytes>,
    mut old: redb::Range<'_, K, Bytes>,
    table: &mut redb::Table<'_, K, Bytes>,
) -> Result<u64, StoreError> {
    let (mut theirs, mut ours) = (new.next().transpose()?, old.next().transpose()?);
    let mut rows = 0;
    loop {
        let order = match (&theirs, &ours) {
            (None, None) => return Ok(rows),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => compare::<K>(&a.value(), &b.value()),
        };
        let same = match (&theirs, &ours) {
            (Some((_, a)), Some((_, b))) => order == Ordering::Equal && a.value() == b.value(),
            _ => false,
        };
        if !same
            && order != Ordering::Greater
            && let Some((key, value)) = &theirs
        {
            table.insert(key.value(), value.value())?;
            rows += 1;
        }
        if order == Ordering::Greater
            && let Some((key, _)) = &ours
        {
            table.remove(key.value())?;
            rows += 1;
        }
        if order != Ordering::Greater {
            theirs = new.next().transpose()?;
        }
        if order != Ordering::Less {
            ours = old.next().transpose()?;
        }
    }
}

/// The positions, whatever runs they lie in: in a snapshot all of them lie in the table.
fn bring_positions(state: &ReadTransaction, before: &ReadTransaction, write: &WriteTransaction) -> Result<u64, StoreError> {
    let positions = Positions::open(state, None)?;
    let old: ReadOnlyTable<Bytes, Bytes> = before.open_table(POSITIONS)?;
    let (mut new, mut old) = (positions.from(&[])?, old.iter()?);
    let mut table = write.open_table(POSITIONS)?;
    let (mut ours, mut rows) = (old.next().transpose()?, 0);
    while let Some((key, row)) = new.next()? {
        // a position never goes away
        while ours.as_ref().is_some_and(|(ours, _)| ours.value() < key) {
            ours = old.next().transpose()?;
        }
        if !ours.as_ref().is_some_and(|(k, r)| k.value() == key && r.value() == row) {
            table.insert(key, row)?;
            rows += 1;
        }
    }
    drop(table);
    if before.open_table(POSITION_RUNS)?.len()? > 0 {
        runs::forget_runs(write)?;
    }
    Ok(rows)
}
