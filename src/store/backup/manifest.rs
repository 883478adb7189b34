//! `manifest.json`: what a backup is and what belongs to it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{BackupError, Log, io, sha256};
use crate::store::SCHEMA_VERSION;

/// Its name in the backup's directory.
pub const MANIFEST: &str = "manifest.json";
/// Version of the backup's form. A higher one is refused: an older program must not guess.
pub const FORMAT: u64 = 1;

/// What a backup is and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the backup's form.
    pub format: u64,
    /// Version of the stored rows.
    pub schema: u64,
    /// The program that made it.
    pub stockgate: String,
    /// When it began (RFC 3339, UTC).
    pub at: String,
    /// Journal record up to which the tables are folded.
    pub cursor: u64,
    /// Last ledger number by then.
    pub ledger: u64,
    /// Link of that entry, in hexadecimal: the end of the chain of hashes.
    pub link: String,
    /// Last number of an ignored report by then.
    pub ignored: u64,
    /// The journal's records; `None` when there are none.
    pub journal: Option<Span>,
    /// Every file.
    pub pieces: Vec<Piece>,
    /// SHA-256 of all of the above: of this document without this field, without blanks.
    pub sha256: String,
}

/// Numbers from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// How many rows.
    pub rows: u64,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Its path in the backup's directory.
    pub file: String,
    /// Bytes that count; what follows them belongs to a later run that did not end.
    pub bytes: u64,
    /// SHA-256 of those bytes.
    pub sha256: String,
    /// Its rows, for a log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub span: Option<Span>,
}

/// What is read first: the rest may be another one in a newer form.
#[derive(Deserialize)]
struct Versions {
    format: u64,
    schema: u64,
}

impl Piece {
    /// The log that it is of; `None` for the tables.
    pub fn log(&self) -> Option<Log> {
        self.file.split_once('/').and_then(|(folder, _)| Log::named(folder))
    }
}

impl Manifest {
    fn digest(&self) -> String {
        let without = Self { sha256: String::new(), ..self.clone() };
        let bytes = serde_json::to_vec(&without).expect("texts and numbers");
        data_encoding::HEXLOWER.encode(&sha256(&bytes))
    }

    /// With its digest, as it is written.
    pub(super) fn sealed(mut self) -> Self {
        self.sha256 = self.digest();
        self
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes).sum()
    }

    /// Read it; `None` when there is none.
    pub fn read(directory: &Path) -> Result<Option<Self>, BackupError> {
        let path = directory.join(MANIFEST);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(&path, &error)),
        };
        let damaged = |why: String| BackupError::Damaged(vec![format!("{MANIFEST}: {why}")]);
        let versions: Versions = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if versions.format > FORMAT || versions.schema > SCHEMA_VERSION {
            let why = format!(
                "{} was written by a newer stockgate (form {}, schema {}): use that version",
                directory.display(),
                versions.format,
                versions.schema
            );
            return Err(BackupError::Newer(why));
        }
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if manifest.digest() != manifest.sha256 {
            return Err(damaged("it is not what was written: its own SHA-256 differs".to_owned()));
        }
        // a path that leads elsewhere was not written by us
        let ours = |piece: &Piece| {
            let (folder, name) = piece.file.split_once('/').unwrap_or_default();
            !name.contains('/')
                && !name.starts_with('.')
                && (piece.log().is_some() == piece.span.is_some())
                && (piece.log().is_some() || folder == super::directory::TABLES)
        };
        match manifest.pieces.iter().find(|piece| !ours(piece)) {
            Some(odd) => Err(damaged(format!("`{}` is not a piece of a backup", odd.file))),
            None => Ok(Some(manifest)),
        }
    }
}
