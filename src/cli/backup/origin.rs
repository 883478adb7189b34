//! Where a backup comes from: a running gateway, or the files of a stopped one.

use std::path::Path;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use http::Method;
use serde::Deserialize;

use crate::cli::client::{Client, Failure, Reach, read, target};
use crate::cli::{code, store_code};
use crate::limits::{BACKUP_PAGE_BYTES, BACKUP_PAGE_RECORDS, JOURNAL_CACHE_BYTES, STATE_CACHE_BYTES};
use crate::store::backup::{Log, Moment, Row, decode_log, decode_rows};
use crate::store::codec::Writer;
use crate::store::journal::Journal;
use crate::store::state::{Image, State};
use crate::store::{StoreError, state_path};
use crate::time;

/// Rows of a log by their numbers.
pub(super) type LogRows = Vec<(u64, Vec<u8>)>;

/// Where a backup comes from.
pub(super) trait Origin {
    /// Take a moment.
    fn begin(&mut self) -> Result<Moment, Failure>;

    /// Rows of the moment's tables behind a table and a key; empty at the end.
    fn rows(&self, after: Option<&(String, Vec<u8>)>) -> Result<Vec<Row>, Failure>;

    /// Rows of a log from a number on; empty at the end.
    fn log(&self, log: Log, from: u64) -> Result<LogRows, Failure>;

    /// The oldest record that the journal has now.
    fn oldest(&self) -> Result<u64, Failure>;
}

/// The files, when a data directory is named and free; else the gateway.
pub(super) fn find(data: Option<&Path>, reach: &Reach) -> Result<Box<dyn Origin>, Failure> {
    if let Some(data) = data {
        let path = state_path(data);
        if !path.exists() {
            let message = format!("there is no {}; --data names the directory that `stockgate serve` keeps", path.display());
            return Err(Failure::new(code::FAILURE, message));
        }
        match Files::open(data) {
            Ok(files) => return Ok(Box::new(files)),
            Err(StoreError::Locked(file)) => eprintln!("{} is in use: asking the gateway that runs", file.display()),
            Err(error) => return Err(failed(&error)),
        }
    }
    let client = Client::new(reach)?;
    client.get("/livez")?;
    Ok(Box::new(Gateway { client, backup: String::new() }))
}

/// A running gateway.
struct Gateway {
    client: Client,
    /// The id that it gave this backup.
    backup: String,
}

/// What `POST /api/v1/backup` answers.
#[derive(Deserialize)]
struct Begun {
    backup: String,
    at: String,
    cursor: u64,
    ledger: u64,
    link: String,
    ignored: u64,
    oldest: u64,
    head: u64,
}

/// What is read of `GET /api/v1/status`.
#[derive(Deserialize)]
struct Status {
    journal: JournalStatus,
}

#[derive(Deserialize)]
struct JournalStatus {
    oldest: u64,
}

fn failed(error: &StoreError) -> Failure {
    Failure::new(store_code(error), error.to_string())
}

fn odd_page(error: &StoreError) -> Failure {
    Failure::new(code::TRY_AGAIN, format!("the gateway's answer is damaged ({error}): run the backup again"))
}

impl Origin for Gateway {
    fn begin(&mut self) -> Result<Moment, Failure> {
        let begun: Begun = read(&self.client.act(Method::POST, "/api/v1/backup")?)?;
        let Begun { backup, at, cursor, ledger, link, ignored, oldest, head } = begun;
        self.backup = backup;
        Ok(Moment { at, cursor, ledger, link, ignored, oldest, head })
    }

    fn rows(&self, after: Option<&(String, Vec<u8>)>) -> Result<Vec<Row>, Failure> {
        let after = after.map(|(table, key)| {
            let mut w = Writer::default();
            w.text(table).raw(key);
            BASE64URL_NOPAD.encode(&w.finish())
        });
        let query = [("backup", Some(self.backup.as_str())), ("after", after.as_deref())];
        let page = self.client.get(&target("/api/v1/backup/tables", &query))?;
        decode_rows(&page).map_err(|e| odd_page(&e))
    }

    fn log(&self, log: Log, from: u64) -> Result<LogRows, Failure> {
        let page = self.client.get(&format!("/api/v1/backup/log/{}?from={from}", log.name()))?;
        decode_log(&page).map_err(|e| odd_page(&e))
    }

    fn oldest(&self) -> Result<u64, Failure> {
        let status: Status = read(&self.client.get("/api/v1/status")?)?;
        Ok(status.journal.oldest)
    }
}

/// The files of a stopped gateway.
struct Files {
    journal: Journal,
    image: Image,
    /// Keeps the files locked.
    _state: State,
}

impl Files {
    fn open(data: &Path) -> Result<Self, StoreError> {
        let state = State::open(data, STATE_CACHE_BYTES)?;
        let journal = Journal::open(data, JOURNAL_CACHE_BYTES, state.meta.cursor)?;
        Ok(Self { journal, image: state.image()?, _state: state })
    }
}

impl Origin for Files {
    fn begin(&mut self) -> Result<Moment, Failure> {
        let meta = self.image.meta();
        Ok(Moment {
            at: time::now().to_string(),
            cursor: meta.cursor,
            ledger: meta.ledger,
            link: HEXLOWER.encode(&meta.link),
            ignored: meta.ignored,
            oldest: self.journal.oldest(),
            head: self.journal.head(),
        })
    }

    fn rows(&self, after: Option<&(String, Vec<u8>)>) -> Result<Vec<Row>, Failure> {
        let after = after.map(|(table, key)| (table.as_str(), key.as_slice()));
        self.image.rows(after, BACKUP_PAGE_BYTES).map_err(|e| failed(&e))
    }

    fn log(&self, log: Log, from: u64) -> Result<LogRows, Failure> {
        let rows = match log {
            Log::Journal => self.journal.read(from, BACKUP_PAGE_RECORDS, BACKUP_PAGE_BYTES),
            Log::Audit | Log::Ignored => self.image.log(log, from, BACKUP_PAGE_BYTES),
        };
        rows.map_err(|e| failed(&e))
    }

    fn oldest(&self) -> Result<u64, Failure> {
        Ok(self.journal.oldest())
    }
}
