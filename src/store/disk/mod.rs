//! The disk as the store sees it: databases, names in directories, and what has to be synced.
//!
//! Everything that a gateway at work does with a file goes through a [`Disk`] (the plain files of a backup do not), so that
//! tests can bring one that lies: it records what was written and synced, and builds what a power cut could leave. A database
//! reads and writes its file by itself; here it is only opened.

#[cfg(test)]
pub(crate) mod failing;
#[cfg(test)]
pub(crate) mod lying;
mod paced;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageBackend};

use self::paced::Paced;
use super::{StoreError, heart};

/// What is read at once of a file that is salvaged: a bad sector costs no more than the database's page that it is in.
const PIECE: usize = 4096;

/// A file of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without the directory. A name that is not UTF-8 is not one of ours and is left out.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A database that is only read: nothing of it is written, not even when it is closed.
pub type Reader = Box<dyn ReadableDatabase + Send + Sync>;

/// Where the files are. A name is durable once its directory was synced, content once its file was.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Open a file to read and write, or make one. It is not locked.
    fn file(&self, path: &Path) -> Result<Box<dyn StorageBackend>, DatabaseError>;

    /// Open a database, or make one when the file is not there or empty.
    fn database(&self, path: &Path, builder: &Builder) -> Result<Database, DatabaseError> {
        builder.create_with_backend(Paced::new(self.file(path)?))
    }

    /// Open a database to read. `RepairAborted`: it was not closed cleanly and must be opened to write once.
    fn reader(&self, path: &Path, builder: &Builder) -> Result<Reader, DatabaseError>;

    /// What can be read of a file; what the disk does not give is zeros.
    fn salvage(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The files of a directory, in no order.
    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>>;

    /// Length of a file in bytes; `None` when it is not there.
    fn length(&self, path: &Path) -> io::Result<Option<u64>>;

    /// Make a directory and those above it, unless they are there.
    fn make_directory(&self, path: &Path) -> io::Result<()>;

    /// Give a file another name; a file that had that name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Remove a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Copy a file's content and make the copy's content durable (its name is not).
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Make the names in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Drop what is remembered of a file, so that it is read from the medium. For a file whose fsync has failed: the system then
    /// counts its pages as written, keeps showing them, and never writes them again.
    fn forget(&self, _path: &Path) {}
}

/// Bytes that a copy writes before it syncs them.
const COPY_PIECE_BYTES: u64 = 4 * 1024 * 1024;

/// The disk of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// The disk of this machine, to share.
pub fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

impl Disk for RealDisk {
    fn file(&self, path: &Path) -> Result<Box<dyn StorageBackend>, DatabaseError> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Box::new(FileBackend::new(file)?))
    }

    fn reader(&self, path: &Path, builder: &Builder) -> Result<Reader, DatabaseError> {
        Ok(Box::new(builder.open_read_only(path)?))
    }

    fn salvage(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let mut out = vec![0; length];
        for (i, piece) in (0..).zip(out.chunks_mut(PIECE)) {
            if file.read_exact_at(piece, i * PIECE as u64).is_err() {
                piece.fill(0);
            }
        }
        Ok(out)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let about = entry.metadata()?;
            if about.is_file() {
                found.push(Entry { name, bytes: about.len() });
            }
        }
        Ok(found)
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        match fs::metadata(path) {
            Ok(about) => Ok(Some(about.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut from = File::open(from)?;
        let mut to = File::create(to)?;
        // in pieces: a sync of all of it at the end would keep the journal's own syncs waiting behind it
        while io::copy(&mut Read::take(&mut from, COPY_PIECE_BYTES), &mut to)? > 0 {
            to.sync_data()?;
            heart::beat();
        }
        to.sync_all()
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        // a bare file name has an empty parent
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        File::open(directory)?.sync_all()
    }

    fn forget(&self, path: &Path) {
        let forgotten =
            File::open(path).and_then(|file| Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?));
        if let Err(error) = forgotten {
            tracing::debug!(path = %path.display(), %error, "the page cache cannot be dropped");
        }
    }
}

/// The directory that a file's name stands in.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Copy a file whole or not at all: under another name first, synced, then renamed, then the name made durable.
pub(super) fn copy_whole(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), StoreError> {
    let unfinished = to.with_extension("unfinished");
    let copied = disk
        .copy(from, &unfinished)
        .and_then(|()| disk.rename(&unfinished, to))
        .and_then(|()| disk.sync_directory(directory_of(to)));
    copied.map_err(|error| {
        // on a full disk the half of a copy is what others have no room for
        drop(disk.remove(&unfinished));
        StoreError::from_io(&error, format!("{} to {}: {error}", from.display(), to.display()))
    })
}

/// Give a damaged file a name that nobody opens, `<name>.damaged-<k>`, and make that durable. Returns the new name.
pub(super) fn set_aside(disk: &dyn Disk, path: &Path) -> Result<PathBuf, StoreError> {
    let io = |error: io::Error| StoreError::Io(format!("{}: {error}", path.display()));
    let mut number = 1_u64;
    let aside = loop {
        let name = path.with_extension(format!("damaged-{number}"));
        if disk.length(&name).map_err(io)?.is_none() {
            break name;
        }
        number += 1;
    };
    disk.rename(path, &aside).and_then(|()| disk.sync_directory(directory_of(path))).map_err(io)?;
    Ok(aside)
}

/// Bytes of a file, 0 when it is not there or cannot be looked at.
pub(super) fn bytes(disk: &dyn Disk, path: &Path) -> u64 {
    disk.length(path).ok().flatten().unwrap_or(0)
}
