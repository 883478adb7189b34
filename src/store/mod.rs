//! The two stores: `journal/`, the truth, and `state.redb`, its fold. The only module that names redb.
//!
//! - [`journal`]: append-only records by sequence number; group commit on one thread; one file a segment, which retention
//!   removes whole.
//! - [`state`]: everything that was folded, hot rows in memory, written behind at checkpoints together with the cursor.
//! - [`dedup`]: delivery keys in generations.
//! - [`backup`]: both of them in a directory of plain files, made while the gateway works.
//! - [`disk`]: files and their names, as all of the above see them.
//! - [`Reserve`]: room that is kept back on the disk, for when it is full.
//! - [`heart`]: does a thread of the store still do its work?
//! - [`release`]: which release wrote a data directory.
//! - [`rows`]: the rows of the state and their encodings; [`codec`]: the encodings themselves.
#![expect(clippy::disallowed_types, reason = "this is the one module that names redb")]

pub mod backup;
pub mod codec;
pub mod dedup;
pub mod disk;
mod filter;
pub mod heart;
pub mod journal;
mod recover;
pub mod release;
mod reserve;
pub mod rows;
pub mod state;

use std::fmt;
use std::path::{Path, PathBuf};

use self::disk::{Disk, RealDisk};
pub use self::recover::{open_state, open_state_on};
pub use self::reserve::Reserve;

/// Version of both files' forms. A file with a higher one is refused: an older program must not guess.
pub const SCHEMA_VERSION: u64 = 5;

/// What can go wrong with the store.
#[derive(Debug, Clone)]
pub enum StoreError {
    /// The file is open in another process.
    Locked(PathBuf),
    /// The file was written by a newer program.
    Newer {
        /// Which file.
        file: PathBuf,
        /// Its schema version.
        found: u64,
        /// The release that wrote it, where that is known.
        release: Option<String>,
    },
    /// The file was written by a program from before the first release, in a form that nobody reads any more.
    Older {
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
    /// The disk failed.
    Io(String),
    /// The disk is full, or our share of it.
    Full(String),
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
            Self::Newer { file, found, release } => {
                let ours = env!("CARGO_PKG_VERSION");
                let writer = release.as_ref().map_or_else(
                    || format!("a newer stockgate than {ours}"),
                    |release| format!("stockgate {release} (this is {ours})"),
                );
                write!(
                    f,
                    "{} has schema version {found}, this program knows up to {SCHEMA_VERSION}: it was written by {writer}; \
                     install that version again, or point --data elsewhere",
                    file.display()
                )
            }
            Self::Older { file, found } => write!(
                f,
                "{} has schema version {found}, from before the first release; this program reads {SCHEMA_VERSION}: keep the \
                 directory, and begin with an empty one by --data",
                file.display()
            ),
            Self::Damaged { file, cause } => write!(f, "{} cannot be opened: {cause}", file.display()),
            Self::Full(cause) => write!(f, "the disk is full: {cause}"),
            Self::Io(cause) => write!(f, "the store's disk failed: {cause}"),
            Self::Row(cause) => write!(f, "a stored row does not decode: {cause}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl StoreError {
    /// The disk failed or is full: later it may work again. Anything else stays as it is.
    pub fn is_disk(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Full(_))
    }

    fn from_io(error: &std::io::Error, text: String) -> Self {
        if reserve::is_full(error) { Self::Full(text) } else { Self::Io(text) }
    }
}

macro_rules! redb_errors {
    ($($kind:ty),*) => {$(
        impl From<$kind> for StoreError {
            fn from(error: $kind) -> Self {
                of_redb(error.into())
            }
        }
    )*};
}
redb_errors!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError);

/// Tell damage from a disk that fails: pages that are not there and trees that do not hold together are the file's fault. A
/// restart finds them and sets the file aside; to wait for the disk would be to wait for ever.
fn of_redb(error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(io) if is_damaged_file(&io) => StoreError::Row(io.to_string()),
        redb::Error::Io(io) => StoreError::from_io(&io, io.to_string()),
        redb::Error::PreviousIo
        | redb::Error::DatabaseAlreadyOpen
        | redb::Error::DatabaseClosed
        | redb::Error::LockPoisoned(_)
        | redb::Error::ValueTooLarge(_) => StoreError::Io(error.to_string()),
        damage => StoreError::Row(damage.to_string()),
    }
}

/// Run something that reads a file which may be damaged: redb trusts a file that was closed cleanly, and may panic over it.
fn guarded<T>(read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    caught.unwrap_or_else(|_| Err(StoreError::Row("the file is damaged: reading it led nowhere".to_owned())))
}

/// It is the file's fault, not the disk's or a person's.
fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::Damaged { .. } | StoreError::Row(_))
}

fn is_damaged_file(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof)
}

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

/// A state that is to be checked page by page before it is used again.
pub fn suspect_path(data: &Path) -> PathBuf {
    data.join("state.suspect")
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

fn builder(cache: usize) -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(cache);
    builder
}

fn not_opened(path: &Path, error: redb::DatabaseError) -> StoreError {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::Locked(path.to_owned()),
        redb::DatabaseError::Storage(redb::StorageError::Io(io)) if !is_damaged_file(&io) => {
            StoreError::from_io(&io, format!("{}: {io}", path.display()))
        }
        other => StoreError::Damaged { file: path.to_owned(), cause: other.to_string() },
    }
}

/// Open or create a database with a bounded cache; refuse one with a newer schema.
fn open(disk: &dyn Disk, path: &Path, cache: usize) -> Result<redb::Database, StoreError> {
    let database = disk.database(path, &builder(cache)).map_err(|error| not_opened(path, error))?;
    ensure_schema(&database, path)?;
    Ok(database)
}

fn ensure_schema(database: &redb::Database, path: &Path) -> Result<(), StoreError> {
    if !has_schema(database, path)? {
        let mut write = database.begin_write()?;
        write.set_two_phase_commit(true);
        write.open_table(META)?.insert("schema", SCHEMA_VERSION.to_be_bytes().as_slice())?;
        write.commit()?;
    }
    Ok(())
}

/// The same, with every page compared with its checksum: redb believes a file that was closed cleanly, and what it copies
/// from a damaged page gets a new checksum that is right.
fn open_whole(disk: &dyn Disk, path: &Path, cache: usize) -> Result<redb::Database, StoreError> {
    let mut database = disk.database(path, &builder(cache)).map_err(|error| not_opened(path, error))?;
    if !database.check_integrity().map_err(|error| not_opened(path, error))? {
        tracing::warn!(file = %path.display(), "redb's notes about free pages were not right: made anew");
    }
    ensure_schema(&database, path)?;
    Ok(database)
}

/// Open a database to read. One that was not closed cleanly is repaired first.
fn open_reader(disk: &dyn Disk, path: &Path, cache: usize) -> Result<disk::Reader, StoreError> {
    let mut opened = disk.reader(path, &builder(cache));
    if matches!(opened, Err(redb::DatabaseError::RepairAborted)) {
        drop(open(disk, path, cache)?);
        opened = disk.reader(path, &builder(cache));
    }
    let database = opened.map_err(|error| not_opened(path, error))?;
    has_schema(&*database, path)?;
    Ok(database)
}

/// It says which form it has, and that is one that we know.
fn has_schema(database: &dyn redb::ReadableDatabase, path: &Path) -> Result<bool, StoreError> {
    let read = database.begin_read()?;
    let found = match read.open_table(META) {
        Ok(table) => match redb::ReadableTable::get(&table, "schema")? {
            Some(bytes) => Some(codec::Reader::new(bytes.value()).u64("schema")?),
            None => None,
        },
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(other) => return Err(other.into()),
    };
    match found {
        Some(found) if found > SCHEMA_VERSION => Err(StoreError::Newer { file: path.to_owned(), found, release: None }),
        Some(found) if found < SCHEMA_VERSION => Err(StoreError::Older { file: path.to_owned(), found }),
        found => Ok(found.is_some()),
    }
}
