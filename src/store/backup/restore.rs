//! Taking a backup: check it, build both stores of it apart, and move them into place when all is well.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::directory::{sync_directory, sync_name};
use super::{BackupError, Frames, MANIFEST, Manifest, Piece, Row, io, log_row};
use crate::limits::STATE_CACHE_BYTES;
use crate::store::journal::Importer;
use crate::store::state::Builder;
use crate::store::{journal_path, restoring_path, snapshot_path, state_path};

/// Read the manifest and every file that it names. Nothing is written.
pub fn check(directory: &Path) -> Result<Manifest, BackupError> {
    let Some(manifest) = Manifest::read(directory)? else {
        let why = format!(
            "{} has no {MANIFEST}: it is not a backup, or one that did not end; `stockgate backup` goes on with it",
            directory.display()
        );
        return Err(BackupError::Refused(why));
    };
    let damaged: Vec<String> = manifest.pieces.iter().filter_map(|piece| damage(directory, piece)).collect();
    if damaged.is_empty() { Ok(manifest) } else { Err(BackupError::Damaged(damaged)) }
}

/// What is wrong with a file.
fn damage(directory: &Path, piece: &Piece) -> Option<String> {
    let digest = || -> std::io::Result<(u64, String)> {
        let mut file = File::open(directory.join(&piece.file))?.take(piece.bytes);
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        let (mut buffer, mut read) = (vec![0; 256 * 1024], 0);
        loop {
            let count = file.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            digest.update(bytes);
            read += bytes.len() as u64;
        }
        Ok((read, super::hex_of(&digest)))
    };
    match digest() {
        Err(error) => Some(format!("{}: {error}", piece.file)),
        Ok((read, _)) if read < piece.bytes => Some(format!("{}: cut short, {read} of {} bytes", piece.file, piece.bytes)),
        Ok((_, found)) if found != piece.sha256 => {
            Some(format!("{}: not what was written, its SHA-256 differs", piece.file))
        }
        Ok(_) => None,
    }
}

/// Build state and journal of a backup in a data directory that has neither.
pub fn unpack(directory: &Path, manifest: &Manifest, data: &Path) -> Result<(), BackupError> {
    let mut state = Builder::new(data, STATE_CACHE_BYTES)?;
    let mut journal = Importer::new(data)?;
    for piece in &manifest.pieces {
        let path = directory.join(&piece.file);
        let file = File::open(&path).map_err(|e| io(&path, &e))?.take(piece.bytes);
        let odd = || BackupError::Damaged(vec![format!("{}: does not hold the rows that it should", piece.file)]);
        let mut frames = Frames::begin(BufReader::new(file)).map_err(|e| io(&path, &e))?.ok_or_else(odd)?;
        let mut rows = 0;
        while let Some(row) = frames.next().map_err(|e| io(&path, &e))? {
            rows += 1;
            match piece.log() {
                None => state.put(Row::decode(&row)?)?,
                Some(log) => {
                    let (number, bytes) = log_row(&row)?;
                    match log {
                        super::Log::Journal => journal.push(number, bytes)?,
                        super::Log::Audit | super::Log::Ignored => state.put_log(log, number, &bytes)?,
                    }
                }
            }
        }
        let counted = piece.span.is_none_or(|span| span.rows == rows);
        // read once more as a whole: what was checked is what was taken
        if frames.read != piece.bytes || frames.digest() != piece.sha256 || !counted {
            return Err(odd());
        }
    }
    journal.finish()?;
    Ok(state.finish()?)
}

/// A data directory that a restore builds in; nothing of it counts before [`Restored::accept`].
pub struct Restored {
    data: PathBuf,
    accepted: bool,
}

impl Restored {
    /// Prepare an empty data directory, made when it is not there. What an interrupted restore left is removed.
    pub fn prepare(data: &Path) -> Result<Self, BackupError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(|e| io(data, &e))?;
        let scratch = restoring_path(data);
        let left = scratch.exists();
        let ours = [journal_path(data), state_path(data), snapshot_path(data), scratch.clone()];
        for entry in fs::read_dir(data).map_err(|e| io(data, &e))? {
            let path = entry.map_err(|e| io(data, &e))?.path();
            // some file systems put this at their top
            if path.file_name().is_some_and(|name| name == "lost+found") {
                continue;
            }
            if !(left && ours.contains(&path)) {
                let why = format!(
                    "{} is not empty (it holds {}): a restore overwrites nothing. Stop the gateway, move the directory away, \
                     and restore into an empty one",
                    data.display(),
                    path.file_name().unwrap_or_default().display()
                );
                return Err(BackupError::Refused(why));
            }
        }
        for path in ours.iter().filter(|path| path.exists()) {
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            removed.map_err(|e| io(path, &e))?;
        }
        fs::DirBuilder::new().mode(0o700).create(&scratch).map_err(|e| io(&scratch, &e))?;
        sync_directory(data)?;
        Ok(Self { data: data.to_owned(), accepted: false })
    }

    /// Where to build: a data directory of its own.
    pub fn scratch(&self) -> PathBuf {
        restoring_path(&self.data)
    }

    /// Move what was built into place. A gateway starts there only when all of it is.
    pub fn accept(mut self) -> Result<(), BackupError> {
        let scratch = self.scratch();
        let owner = fs::metadata(&self.data).map_err(|e| io(&self.data, &e))?;
        sync_directory(&journal_path(&scratch))?;
        sync_directory(&scratch)?;
        // from here on only a new restore may touch what is there
        self.accepted = true;
        let moves = [journal_path, snapshot_path, state_path].map(|path| (path(&scratch), path(&self.data)));
        for (from, to) in moves.iter().filter(|(from, _)| from.exists()) {
            give(from, &owner)?;
            fs::rename(from, to).map_err(|e| io(to, &e))?;
        }
        sync_directory(&self.data)?;
        fs::remove_dir(&scratch).map_err(|e| io(&scratch, &e))?;
        sync_directory(&self.data)?;
        sync_name(&self.data)
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if !self.accepted
            && let Err(error) = fs::remove_dir_all(self.scratch())
        {
            tracing::warn!(%error, "what was built cannot be removed");
        }
    }
}

/// For the directory's owner only: the gateway's user, when root restores.
fn give(path: &Path, owner: &fs::Metadata) -> Result<(), BackupError> {
    let meta = fs::metadata(path).map_err(|e| io(path, &e))?;
    if (meta.uid(), meta.gid()) != (owner.uid(), owner.gid()) {
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).map_err(|e| io(path, &e))?;
    }
    let mode = if meta.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| io(path, &e))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(|e| io(path, &e))? {
            give(&entry.map_err(|e| io(path, &e))?.path(), owner)?;
        }
    }
    Ok(())
}
