//! Writing a backup's directory: begun, continued, renewed.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use super::{
    BackupError, Frames, HEADER, Log, MANIFEST, Manifest, Piece, Row, Span, encode_log, encode_rows, hex_of, io, log_row,
    sha256,
};
use crate::store::SCHEMA_VERSION;

/// Folder of the tables.
pub(super) const TABLES: &str = "tables";
/// Marks a directory as ours before it has a manifest.
const BEGUN: &str = "unfinished";
const TABLES_UNFINISHED: &str = "unfinished.new";
/// A log's file is ended at this size, so that a rotten block costs one file and not the log.
const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The moment that a backup is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// When it began.
    pub at: String,
    /// Journal record up to which the tables are folded.
    pub cursor: u64,
    /// Last ledger number by then.
    pub ledger: u64,
    /// Link of that entry, in hexadecimal.
    pub link: String,
    /// Last number of an ignored report by then.
    pub ignored: u64,
    /// The oldest record that the gateway keeps.
    pub oldest: u64,
    /// The newest.
    pub head: u64,
}

impl Moment {
    /// The last number of a log that belongs to it.
    pub fn last(&self, log: Log) -> u64 {
        match log {
            Log::Journal => self.head,
            Log::Audit => self.ledger,
            Log::Ignored => self.ignored,
        }
    }

    /// The first number of a log that there is.
    pub fn first(&self, log: Log) -> u64 {
        if log == Log::Journal { self.oldest } else { 1 }
    }
}

/// A backup's directory while it is written. One process at a time.
pub struct Directory {
    path: PathBuf,
    logs: Vec<Held>,
    tables: Option<Growing>,
    written: u64,
    mended: Vec<String>,
    _lock: File,
}

/// What is there of a log.
struct Held {
    log: Log,
    files: Vec<Growing>,
    /// SHA-256 of the last row.
    last_row: Option<[u8; 32]>,
}

/// A file of rows.
struct Growing {
    /// Path in the directory.
    name: String,
    span: Span,
    bytes: u64,
    digest: Context,
    /// Open to append.
    file: Option<File>,
}

impl Growing {
    fn piece(&self, span: Option<Span>) -> Piece {
        Piece { file: self.name.clone(), bytes: self.bytes, sha256: hex_of(&self.digest), span }
    }

    fn create(directory: &Path, name: String, first: u64) -> Result<Self, BackupError> {
        let path = directory.join(&name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(|e| io(&path, &e))?;
        let span = Span { first, last: first, rows: 0 };
        let mut growing = Self { name, span, bytes: 0, digest: Context::new(&SHA256), file: Some(file) };
        growing.write(directory, HEADER)?;
        Ok(growing)
    }

    fn write(&mut self, directory: &Path, bytes: &[u8]) -> Result<(), BackupError> {
        let path = directory.join(&self.name);
        let open = || OpenOptions::new().append(true).open(&path);
        let mut file = self.file.take().map_or_else(open, Ok).map_err(|e| io(&path, &e))?;
        file.write_all(bytes).map_err(|e| io(&path, &e))?;
        self.file = Some(file);
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Make it durable and close it.
    fn sync(&mut self, directory: &Path) -> Result<(), BackupError> {
        match self.file.take() {
            Some(file) => file.sync_all().map_err(|e| io(&directory.join(&self.name), &e)),
            None => Ok(()),
        }
    }
}

impl Directory {
    /// Begin a backup in an empty directory (made when it is not there), or go on with the one that is there.
    ///
    /// Reads everything that is there: what is not whole is cut off and fetched again.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| io(path, &e));
        make(path)?;
        let lock = File::open(path).map_err(|e| io(path, &e))?;
        // file systems without such locks are no reason to refuse
        if matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)) {
            return Err(BackupError::Refused(format!("another backup is being written to {}", path.display())));
        }
        let begun = path.join(BEGUN);
        let mut mended = Vec::new();
        let manifest = match Manifest::read(path) {
            // every row that is there says by itself whether it is whole
            Err(BackupError::Damaged(pieces)) => {
                mended = pieces;
                None
            }
            other => other?,
        };
        if manifest.is_none() && mended.is_empty() && !begun.exists() {
            if fs::read_dir(path).map_err(|e| io(path, &e))?.next().is_some() {
                let why = format!("{} is not empty and holds no backup: give an empty directory", path.display());
                return Err(BackupError::Refused(why));
            }
            File::create_new(&begun).map_err(|e| io(&begun, &e))?;
        }
        let mut directory = Self { path: path.to_owned(), logs: Vec::new(), tables: None, written: 0, mended, _lock: lock };
        make(&path.join(TABLES))?;
        for log in Log::ALL {
            make(&path.join(log.name()))?;
            let held = directory.scan(log, manifest.as_ref())?;
            directory.logs.push(held);
        }
        Ok(directory)
    }

    /// What was found damaged and is fetched again, in sentences.
    pub fn mended(&self) -> &[String] {
        &self.mended
    }

    /// Bytes written by this run.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The last row that is there of a log: its number and the SHA-256 of its frame's row.
    pub fn last(&self, log: Log) -> Option<u64> {
        self.held(log).files.last().map(|file| file.span.last)
    }

    /// The row that a gateway has under the last number is the one that is there: both are of one history.
    pub fn same_history(&self, log: Log, number: u64, bytes: &[u8]) -> bool {
        let mut row = number.to_be_bytes().to_vec();
        row.extend(bytes);
        self.last(log) == Some(number) && self.held(log).last_row == Some(sha256(&row))
    }

    fn held(&self, log: Log) -> &Held {
        self.logs.iter().find(|held| held.log == log).expect("every log was scanned")
    }

    /// Append rows of a log, whose numbers rise.
    pub fn append(&mut self, log: Log, rows: &[(u64, Vec<u8>)]) -> Result<(), BackupError> {
        let held = self.logs.iter_mut().find(|held| held.log == log).expect("every log was scanned");
        let mut pending = Vec::new();
        for row in rows {
            let number = row.0;
            let fits = match held.files.last_mut() {
                Some(file) if file.span.last >= number => {
                    let why = format!("the gateway gave {} row {number} after {}", log.name(), file.span.last);
                    return Err(BackupError::Refused(why));
                }
                // what ages out goes by files: one file never spans a gap
                Some(file) if file.bytes + pending.len() as u64 >= FILE_BYTES || file.span.last + 1 != number => {
                    file.write(&self.path, &pending)?;
                    file.sync(&self.path)?;
                    pending.clear();
                    false
                }
                other => other.is_some(),
            };
            if !fits {
                let name = format!("{}/{number:020}.rows", log.name());
                held.files.push(Growing::create(&self.path, name, number)?);
                self.written += HEADER.len() as u64;
            }
            let Some(file) = held.files.last_mut() else { continue };
            let before = pending.len();
            pending.extend(encode_log(std::slice::from_ref(row)));
            file.span = Span { last: number, rows: file.span.rows + 1, ..file.span };
            self.written += (pending.len() - before) as u64;
        }
        if let Some(file) = held.files.last_mut() {
            file.write(&self.path, &pending)?;
        }
        if let Some((number, bytes)) = rows.last() {
            let mut row = number.to_be_bytes().to_vec();
            row.extend(bytes);
            held.last_row = Some(sha256(&row));
        }
        Ok(())
    }

    /// Append rows of the tables; the first call begins them.
    pub fn append_rows(&mut self, rows: &[Row]) -> Result<(), BackupError> {
        let mut tables = match self.tables.take() {
            Some(tables) => tables,
            None => Growing::create(&self.path, format!("{TABLES}/{TABLES_UNFINISHED}"), 0)?,
        };
        let bytes = encode_rows(rows);
        tables.write(&self.path, &bytes)?;
        self.written += bytes.len() as u64;
        self.tables = Some(tables);
        Ok(())
    }

    /// Everything is there: make it durable, write the manifest, remove what no longer belongs to it.
    pub fn finish(mut self, moment: &Moment) -> Result<Manifest, BackupError> {
        // an empty state has no rows
        self.append_rows(&[])?;
        let mut tables = self.tables.take().expect("just begun");
        tables.sync(&self.path)?;
        let name = format!("{TABLES}/{:020}.rows", moment.cursor);
        self.rename(&tables.name, &name)?;
        tables.name = name;
        let mut pieces = vec![tables.piece(None)];
        let mut journal: Option<Span> = None;
        for held in &mut self.logs {
            held.files.retain(|file| file.span.last >= moment.first(held.log));
            let last = held.files.last().map_or(0, |file| file.span.last);
            let wanted = moment.last(held.log);
            let ended = if held.log == Log::Journal { last >= moment.cursor || last == wanted } else { last == wanted };
            if !ended {
                let why = format!("{} ends at {last}, not at {wanted}: run the backup again", held.log.name());
                return Err(BackupError::Refused(why));
            }
            for file in &mut held.files {
                file.sync(&self.path)?;
                pieces.push(file.piece(Some(file.span)));
                if held.log == Log::Journal {
                    let rows = journal.map_or(0, |j| j.rows) + file.span.rows;
                    journal = Some(Span { first: journal.map_or(file.span.first, |j| j.first), last: file.span.last, rows });
                }
            }
        }
        if journal.is_some_and(|j| j.first > moment.cursor + 1) {
            let why = "raw deliveries aged out faster than they were copied: run the backup again";
            return Err(BackupError::Refused(why.to_owned()));
        }
        for folder in Log::ALL.map(Log::name).into_iter().chain([TABLES]) {
            sync_directory(&self.path.join(folder))?;
        }
        let manifest = Manifest {
            format: super::FORMAT,
            schema: SCHEMA_VERSION,
            stockgate: env!("CARGO_PKG_VERSION").to_owned(),
            at: moment.at.clone(),
            cursor: moment.cursor,
            ledger: moment.ledger,
            link: moment.link.clone(),
            ignored: moment.ignored,
            journal,
            pieces,
            sha256: String::new(),
        }
        .sealed();
        self.write_manifest(&manifest)?;
        self.tidy(&manifest)?;
        Ok(manifest)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), BackupError> {
        let to = self.path.join(to);
        fs::rename(self.path.join(from), &to).map_err(|e| io(&to, &e))
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<(), BackupError> {
        let unfinished = format!("{MANIFEST}.new");
        let path = self.path.join(&unfinished);
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            let mut text = serde_json::to_vec_pretty(manifest)?;
            text.push(b'\n');
            file.write_all(&text)?;
            file.sync_all()
        };
        write().map_err(|e| io(&path, &e))?;
        self.rename(&unfinished, MANIFEST)?;
        sync_directory(&self.path)?;
        sync_name(&self.path)
    }

    /// Remove what is not in the manifest.
    fn tidy(&self, manifest: &Manifest) -> Result<(), BackupError> {
        for folder in Log::ALL.map(Log::name).into_iter().chain([TABLES]) {
            for name in names(&self.path.join(folder))? {
                let file = format!("{folder}/{name}");
                if !manifest.pieces.iter().any(|piece| piece.file == file) {
                    remove(&self.path.join(file))?;
                }
            }
        }
        remove(&self.path.join(BEGUN))
    }

    /// Read what is there of a log; cut off what is not whole.
    fn scan(&mut self, log: Log, manifest: Option<&Manifest>) -> Result<Held, BackupError> {
        let mut held = Held { log, files: Vec::new(), last_row: None };
        let folder = self.path.join(log.name());
        let mut cut = false;
        for name in names(&folder)? {
            let path = folder.join(&name);
            if cut {
                remove(&path)?;
                continue;
            }
            let name = format!("{}/{name}", log.name());
            let length = fs::metadata(&path).map_err(|e| io(&path, &e))?.len();
            let found = scan_file(&path, name.clone()).map_err(|e| io(&path, &e))?;
            let promised = manifest.and_then(|m| m.pieces.iter().find(|p| p.file == name)).map_or(0, |p| p.bytes);
            let whole = found.as_ref().map_or(0, |(file, _)| file.bytes);
            if whole < promised {
                self.mended.push(format!("{name} was damaged after {whole} of {promised} bytes"));
            }
            cut = whole < length;
            let Some((file, last_row)) = found else {
                cut = true;
                remove(&path)?;
                continue;
            };
            if cut {
                let opened = OpenOptions::new().write(true).open(&path);
                opened.and_then(|f| f.set_len(whole)).map_err(|e| io(&path, &e))?;
            }
            held.files.push(file);
            held.last_row = Some(last_row);
        }
        Ok(held)
    }
}

/// The whole frames at a file's beginning, and the SHA-256 of the last row; `None` when there is not one.
fn scan_file(path: &Path, name: String) -> std::io::Result<Option<(Growing, [u8; 32])>> {
    let Some(mut frames) = Frames::begin(BufReader::new(File::open(path)?))? else { return Ok(None) };
    let mut found: Option<(Span, [u8; 32])> = None;
    while let Some(row) = frames.next()? {
        let Ok((number, _)) = log_row(&row) else { break };
        let span = found.map_or(Span { first: number, last: number, rows: 1 }, |(span, _)| Span {
            last: number,
            rows: span.rows + 1,
            ..span
        });
        found = Some((span, sha256(&row)));
    }
    Ok(found.map(|(span, last)| (Growing { name, span, bytes: frames.read, digest: frames.digest, file: None }, last)))
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Result<Vec<String>, BackupError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| io(folder, &e))? {
        let entry = entry.map_err(|e| io(folder, &e))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

fn remove(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io(path, &error)),
        _ => Ok(()),
    }
}

/// Make a directory's own name durable.
pub(super) fn sync_name(path: &Path) -> Result<(), BackupError> {
    let whole = path.canonicalize().map_err(|e| io(path, &e))?;
    match whole.parent().map(|parent| File::open(parent).and_then(|d| d.sync_all())) {
        // somebody else's directory: whoever made ours in it has seen to its name
        Some(Err(error)) if error.kind() != ErrorKind::PermissionDenied => Err(io(path, &error)),
        _ => Ok(()),
    }
}

pub(super) fn sync_directory(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|d| d.sync_all()).map_err(|e| io(path, &e))
}
