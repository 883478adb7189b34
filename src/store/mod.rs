//! The two stores: `journal/`, the truth, and `state.redb`, its fold. The only module that names redb.
//!
//! - [`journal`]: append-only records by sequence number; group commit on one thread; one file a segment, which retention
//!   removes whole.
//! - [`state`]: everything that was folded, hot rows in memory, written behind at checkpoints together with the cursor.
//! - [`dedup`]: delivery keys in generations.
//! - [`backup`]: both of them in a directory of plain files, made while the gateway works.
//! - [`disk`]: files and their names, as all of the above see them.
//! - [`rows`]: the rows of the state and their encodings; [`codec`]: the encodings themselves.
#![expect(clippy::disallowed_types, reason = "this is the one module that names redb")]

pub mod backup;
pub mod codec;
pub mod dedup;
pub mod disk;
pub mod journal;
mod recover;
pub mod rows;
pub mod state;

use std::fmt;
use std::path::{Path, PathBuf};

use self::disk::{Disk, RealDisk};
pub use self::recover::{open_state, open_state_on};

/// Version of both files' forms. A file with a higher one is refused: an older program must not guess.
pub const SCHEMA_VERSION: u64 = 2;

/// What can go wrong with the store.
#[derive(Debug)]
pub enum StoreError {
    /// The file is open in another process.
    Locked(PathBuf),
    /// The file was written by a newer program.
    Newer {
        /// Which file.
        file: PathBuf,
        /// Its schema version.
        found: u64,
    },
    /// The file is not one of ours, or beyond repair.
    Damaged {
        /// Which file.
        file: PathBuf,
        /// What redb says.
        cause: String,
    },
    /// The disk failed or is full.
    Io(String),
    /// A row does not decode: a bug, or damage that the checksums did not see.
    Row(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(file) => {
                write!(
                    f,
                    "{} is in use by another process: stop the gateway first, or ask it through its admin API",
                    file.display()
                )
            }
            Self::Newer { file, found } => write!(
                f,
                "{} has schema version {found}, this program knows up to {SCHEMA_VERSION}: it was written by a newer stockgate; \
                 install that version again, or point --data elsewhere",
                file.display()
            ),
            Self::Damaged { file, cause } => write!(f, "{} cannot be opened: {cause}", file.display()),
            Self::Io(cause) => write!(f, "the store's disk failed: {cause}"),
            Self::Row(cause) => write!(f, "a stored row does not decode: {cause}"),
        }
    }
}

impl std::error::Error for StoreError {}

macro_rules! io_errors {
    ($($kind:ty),*) => {$(
        impl From<$kind> for StoreError {
            fn from(error: $kind) -> Self {
                Self::Io(error.to_string())
            }
        }
    )*};
}
io_errors!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError, redb::SetDurabilityError);

/// The directory of the journal's segments in a data directory.
pub fn journal_path(data: &Path) -> PathBuf {
    data.join("journal")
}

/// The state's file in a data directory.
pub fn state_path(data: &Path) -> PathBuf {
    data.join("state.redb")
}

/// The state's last snapshot in a data directory: what the journal's removed part had come to.
pub fn snapshot_path(data: &Path) -> PathBuf {
    data.join("snapshot.redb")
}

/// Where a restore builds what it will accept, in a data directory. While it is there the directory is not whole.
pub fn restoring_path(data: &Path) -> PathBuf {
    data.join("restoring")
}

/// Copy a database file whole or not at all: under another name first, synced, then renamed, then the name made durable.
pub fn copy_file(from: &Path, to: &Path) -> Result<(), StoreError> {
    disk::copy_whole(&RealDisk, from, to)
}

const META: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");

/// Open or create a database with a bounded cache; refuse one with a newer schema.
fn open(disk: &dyn Disk, path: &Path, cache: usize) -> Result<redb::Database, StoreError> {
    let opened = disk.database(path, redb::Builder::new().set_cache_size(cache));
    let database = opened.map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::Locked(path.to_owned()),
        redb::DatabaseError::Storage(redb::StorageError::Io(io)) if io.kind() != std::io::ErrorKind::InvalidData => {
            StoreError::Io(format!("{}: {io}", path.display()))
        }
        other => StoreError::Damaged { file: path.to_owned(), cause: other.to_string() },
    })?;
    let found = {
        let read = redb::ReadableDatabase::begin_read(&database)?;
        match read.open_table(META) {
            Ok(table) => match redb::ReadableTable::get(&table, "schema")? {
                Some(bytes) => Some(codec::Reader::new(bytes.value()).u64("schema")?),
                None => None,
            },
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(other) => return Err(other.into()),
        }
    };
    match found {
        Some(version) if version > SCHEMA_VERSION => {
            return Err(StoreError::Newer { file: path.to_owned(), found: version });
        }
        Some(_) => {}
        None => {
            let mut write = database.begin_write()?;
            write.set_two_phase_commit(true);
            write.open_table(META)?.insert("schema", SCHEMA_VERSION.to_be_bytes().as_slice())?;
            write.commit()?;
        }
    }
    Ok(database)
}
