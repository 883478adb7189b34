//! The state's file: opened, or made whole before it has its name.

use std::path::Path;

use redb::{Database, ReadableDatabase};

use super::{TABLES_BY_BYTES, TABLES_BY_NUMBER};
use crate::limits::STATE_CHECKED_BYTES;
use crate::store::StoreError;
use crate::store::disk::{self, Disk};

/// Open the file. One that is not there is made whole under another name first: a power cut leaves no half of one.
pub(super) fn open_or_make(disk: &dyn Disk, path: &Path, cache: usize) -> Result<Database, StoreError> {
    let io = |error: std::io::Error| StoreError::Io(format!("{}: {error}", path.display()));
    if let Some(bytes) = disk.length(path).map_err(io)? {
        let open = if bytes <= STATE_CHECKED_BYTES { crate::store::open_whole } else { crate::store::open };
        let database = open(disk, path, cache)?;
        make_tables(&database)?;
        return Ok(database);
    }
    let unfinished = path.with_extension("unfinished");
    if disk.length(&unfinished).map_err(io)?.is_some() {
        disk.remove(&unfinished).map_err(io)?;
    }
    let database = crate::store::open(disk, &unfinished, cache)?;
    make_tables(&database)?;
    disk.rename(&unfinished, path).and_then(|()| disk.sync_directory(disk::directory_of(path))).map_err(io)?;
    Ok(database)
}

/// Make the tables, unless they are there: a start must not need room on the disk.
pub(super) fn make_tables(database: &Database) -> Result<(), StoreError> {
    let there = database.begin_read()?.list_tables()?.count();
    // one more: `meta`
    if there > TABLES_BY_BYTES.len() + TABLES_BY_NUMBER.len() {
        return Ok(());
    }
    let mut create = database.begin_write()?;
    create.set_quick_repair(true);
    for table in TABLES_BY_BYTES {
        create.open_table(*table)?;
    }
    for table in TABLES_BY_NUMBER {
        create.open_table(*table)?;
    }
    create.commit()?;
    Ok(())
}
