//! The state's rows as of one checkpoint, for a backup; and a state made of such rows.
//!
//! An [`Image`] is a read transaction: it sees one moment while the fold and its checkpoints go on. The pages that it sees are
//! not used again until it is dropped, so the file grows by what checkpoints write meanwhile: hold it for the small tables
//! only. The two tables that only ever grow ([`Log`]) need no image of one moment: a row that is there stays as it is.

use redb::{Database, ReadTransaction, ReadableDatabase, TableHandle};

use super::file::make_tables;
use super::{
    AUDIT, ByBytes, ByNumber, IGNORED, META, Meta, State, StoreError, TABLES_BY_BYTES, TABLES_BY_NUMBER, files, log,
};
use crate::store::backup::{Log, Row};
use crate::store::codec::numbered_rows;
use crate::store::disk::RealDisk;

/// Bytes of rows in one transaction of a [`Builder`]: bounds its memory.
const BUILD_BYTES: usize = 8 * 1024 * 1024;

/// The name of [`META`].
const META_NAME: &str = "meta";

/// The file as of its last checkpoint.
pub struct Image {
    read: ReadTransaction,
    meta: Meta,
}

impl State {
    /// The file as of its last checkpoint. No lock is held by it.
    pub fn image(&self) -> Result<Image, StoreError> {
        let read = files(self.files.as_ref())?.database.begin_read()?;
        let meta = match read.open_table(META)?.get("state")? {
            Some(row) => Meta::decode(row.value())?.0,
            None => Meta::default(),
        };
        Ok(Image { read, meta })
    }
}

/// The table of a log that lies in the state.
fn table_of(log: Log) -> Option<ByNumber> {
    match log {
        Log::Audit => Some(AUDIT),
        Log::Ignored => Some(IGNORED),
        Log::Journal => None,
    }
}

/// A table that is no log, in the order in which they are read.
enum Table {
    Meta,
    Bytes(ByBytes),
    Number(ByNumber),
}

impl Table {
    fn all() -> impl Iterator<Item = Self> {
        let numbered = TABLES_BY_NUMBER.iter().filter(|t| !Log::ALL.iter().any(|log| log.name() == t.name()));
        std::iter::once(Self::Meta)
            .chain(TABLES_BY_BYTES.iter().map(|t| Self::Bytes(*t)))
            .chain(numbered.map(|t| Self::Number(*t)))
    }

    fn name(&self) -> &str {
        match self {
            Self::Meta => META_NAME,
            Self::Bytes(table) => table.name(),
            Self::Number(table) => table.name(),
        }
    }
}

fn number(key: &[u8]) -> Result<u64, StoreError> {
    let bytes = key.try_into().map_err(|_| StoreError::Row("a number does not have eight bytes".to_owned()))?;
    Ok(u64::from_be_bytes(bytes))
}

impl Image {
    /// The numbers that go with the rows.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Rows of a log from `from` on, no more once `bytes` are read. Empty at the end, and for the journal, which lies elsewhere.
    pub fn log(&self, log: Log, from: u64, bytes: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let (mut rows, mut size) = (Vec::new(), 0_usize);
        let Some(table) = table_of(log) else { return Ok(rows) };
        let table = self.read.open_table(table)?;
        // the block that `from` stands in begins there or before
        let begin = table.range(..=from)?.next_back().transpose()?.map_or(from, |(first, _)| first.value());
        for block in table.range(begin..)? {
            let (first, block) = block?;
            for row in numbered_rows(first.value(), block.value()) {
                let (number, row) = row?;
                if number < from {
                    continue;
                }
                size += row.len();
                rows.push((number, row.to_vec()));
                if size >= bytes {
                    return Ok(rows);
                }
            }
        }
        Ok(rows)
    }

    /// Rows of all other tables behind `after`, a table and a key, in order; no more once `bytes` are read. Empty at the end.
    pub fn rows(&self, after: Option<(&str, &[u8])>, bytes: usize) -> Result<Vec<Row>, StoreError> {
        let mut page = Page { rows: Vec::new(), size: 0, bytes };
        let known = |table: &Table| after.is_none_or(|(name, _)| table.name() == name);
        if let Some((name, _)) = after
            && !Table::all().any(|table| known(&table))
        {
            return Err(StoreError::Row(format!("there is no table `{name}`")));
        }
        for table in Table::all().skip_while(|table| !known(table)) {
            let after = after.filter(|(name, _)| *name == table.name()).map(|(_, key)| key);
            self.page_of(&table, after, &mut page)?;
            if page.full() {
                break;
            }
        }
        Ok(page.rows)
    }

    fn page_of(&self, table: &Table, after: Option<&[u8]>, page: &mut Page) -> Result<(), StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        match table {
            Table::Meta => {
                let text = after.map(|key| std::str::from_utf8(key).unwrap_or_default());
                let bound = text.map_or(Unbounded, Excluded);
                for row in self.read.open_table(META)?.range::<&str>((bound, Unbounded))? {
                    let (key, value) = row?;
                    page.take(table, key.value().as_bytes(), value.value());
                }
            }
            Table::Bytes(definition) => {
                let bound = after.map_or(Unbounded, Excluded);
                for row in self.read.open_table(*definition)?.range::<&[u8]>((bound, Unbounded))? {
                    let (key, value) = row?;
                    if !page.take(table, key.value(), value.value()) {
                        break;
                    }
                }
            }
            Table::Number(definition) => {
                let bound = after.map(number).transpose()?.map_or(Unbounded, Excluded);
                for row in self.read.open_table(*definition)?.range::<u64>((bound, Unbounded))? {
                    let (key, value) = row?;
                    if !page.take(table, &key.value().to_be_bytes(), value.value()) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

struct Page {
    rows: Vec<Row>,
    size: usize,
    bytes: usize,
}

impl Page {
    fn full(&self) -> bool {
        self.size >= self.bytes
    }

    /// Take a row; false when it was the last that fits.
    fn take(&mut self, table: &Table, key: &[u8], value: &[u8]) -> bool {
        self.size += key.len() + value.len();
        self.rows.push(Row { table: table.name().to_owned(), key: key.to_vec(), value: value.to_vec() });
        !self.full()
    }
}

/// Makes a state of the rows of another one.
pub struct Builder {
    database: Database,
    held: Vec<Row>,
    audit: log::Log,
    ignored: log::Log,
    size: usize,
}

impl Builder {
    /// Begin an empty state in a data directory that has none.
    pub fn new(data: &std::path::Path, cache: usize) -> Result<Self, StoreError> {
        let database = crate::store::open(&RealDisk, &crate::store::state_path(data), cache)?;
        make_tables(&database)?;
        Ok(Self { database, held: Vec::new(), audit: log::Log::default(), ignored: log::Log::default(), size: 0 })
    }

    /// Put the next row of a log that lies in the state.
    pub fn put_log(&mut self, log: Log, number: u64, value: &[u8]) -> Result<(), StoreError> {
        match log {
            Log::Audit => self.audit.push(number, value),
            Log::Ignored => self.ignored.push(number, value),
            Log::Journal => return Err(StoreError::Row("the journal does not lie in the state".to_owned())),
        }
        self.size += value.len();
        if self.size >= BUILD_BYTES { self.write() } else { Ok(()) }
    }

    /// Put a row.
    pub fn put(&mut self, row: Row) -> Result<(), StoreError> {
        self.size += row.key.len() + row.value.len();
        self.held.push(row);
        if self.size >= BUILD_BYTES { self.write() } else { Ok(()) }
    }

    /// Make it durable and close it.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.write()
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let mut write = self.database.begin_write()?;
        write.set_two_phase_commit(true);
        write.set_quick_repair(true);
        for (log, definition) in [(&mut self.audit, AUDIT), (&mut self.ignored, IGNORED)] {
            let mut table = write.open_table(definition)?;
            for (first, block) in log.take().changed() {
                table.insert(first, block)?;
            }
        }
        for row in self.held.drain(..) {
            let bytes = TABLES_BY_BYTES.iter().find(|t| t.name() == row.table);
            let numbers = TABLES_BY_NUMBER.iter().find(|t| t.name() == row.table);
            match (bytes, numbers) {
                (Some(table), _) => drop(write.open_table(*table)?.insert(row.key.as_slice(), row.value.as_slice())?),
                (None, Some(table)) => drop(write.open_table(*table)?.insert(number(&row.key)?, row.value.as_slice())?),
                (None, None) if row.table == META_NAME => {
                    let key = String::from_utf8(row.key).map_err(|_| StoreError::Row("a name is not UTF-8".to_owned()))?;
                    drop(write.open_table(META)?.insert(key.as_str(), row.value.as_slice())?);
                }
                (None, None) => return Err(StoreError::Row(format!("there is no table `{}`", row.table))),
            }
        }
        write.commit()?;
        self.size = 0;
        Ok(())
    }
}
