//! Pages for a backup (`store::backup` says what it is made of and why that is consistent).
//!
//! `POST /api/v1/backup` takes a moment: the numbers of the last checkpoint and a read transaction of it. Pages of its tables
//! are read from that transaction, which ends with the last page, with the next backup, or when nobody asks for a page
//! (`limits::BACKUP_IDLE`). Pages of the logs need no moment. Nothing waits for a client, and no lock is held between pages.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use data_encoding::HEXLOWER;
use http::StatusCode;
use serde::Serialize;

use super::params::{Params, bad_cursor, number};
use super::problem::{Answer, Problem, answer, json};
use super::{Call, Shared};
use crate::limits::{BACKUP_IDLE, BACKUP_PAGE_BYTES, BACKUP_PAGE_RECORDS, BACKUP_TABLES_MAX};
use crate::store::StoreError;
use crate::store::backup::{Log, encode_log, encode_rows};
use crate::store::codec::Reader;
use crate::store::state::Image;
use crate::time;

/// What pages are.
const ROWS: &str = "application/octet-stream";

/// The one backup that reads tables.
#[derive(Default)]
pub(super) struct Slot(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// Backups begun so far.
    begun: u64,
    current: Option<Current>,
}

struct Current {
    id: String,
    image: Arc<Image>,
    began: Instant,
    used: Instant,
}

impl Slot {
    /// Hold an image for a new backup; an older one ends. The new one's id.
    fn begin(&self, image: Image) -> String {
        let now = time::instant();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.begun += 1;
        // an id of an earlier process must not fit
        let id = format!("{}-{}", time::now().0, held.begun);
        held.current = Some(Current { id: id.clone(), image: Arc::new(image), began: now, used: now });
        id
    }

    fn image(&self, id: &str) -> Option<Arc<Image>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = held.current.as_mut().filter(|current| current.id == id)?;
        current.used = time::instant();
        Some(Arc::clone(&current.image))
    }

    /// The last page was read.
    fn end(&self, id: &str) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.current.take_if(|current| current.id == id);
    }

    /// End a backup that nobody goes on with.
    pub(super) fn expire(&self, now: Instant) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |current: &mut Current| {
            now.saturating_duration_since(current.used) > BACKUP_IDLE
                || now.saturating_duration_since(current.began) > BACKUP_TABLES_MAX
        };
        if held.current.take_if(left).is_some() {
            tracing::warn!("a backup was left unfinished");
        }
    }
}

#[derive(Serialize)]
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

/// The store is being reopened, or the disk fails: the next try may find it well.
fn unavailable(error: StoreError) -> Problem {
    match error {
        StoreError::Io(why) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("the store cannot be read now: {why}")),
        other => other.into(),
    }
}

/// `POST /api/v1/backup`.
pub(super) async fn begin(shared: &Arc<Shared>) -> Answer {
    let at = time::now().to_string();
    let image = shared.read(|state, _| state.image().map_err(unavailable)).await?;
    let meta = image.meta();
    let journal = &shared.context.journal;
    let (cursor, ledger, link, ignored) = (meta.cursor, meta.ledger, HEXLOWER.encode(&meta.link), meta.ignored);
    // the head after the image: it is never before the image's cursor
    let (oldest, head) = (journal.oldest(), journal.head());
    let backup = shared.backup.begin(image);
    tracing::info!(backup, cursor, head, "a backup begins");
    Ok(json(&Begun { backup, at, cursor, ledger, link, ignored, oldest, head }))
}

/// `after`: the table and the key of the last row of the page before.
fn after(params: &Params) -> Result<Option<(String, Vec<u8>)>, Problem> {
    let Some(bytes) = params.cursor()? else { return Ok(None) };
    let mut r = Reader::new(&bytes);
    let table = r.text("table").map_err(|_| bad_cursor())?.to_owned();
    Ok(Some((table, r.rest().to_vec())))
}

/// `GET /api/v1/backup/tables`.
pub(super) async fn tables(shared: &Arc<Shared>, call: &Call) -> Answer {
    let id = call.params.text("backup").unwrap_or_default().to_owned();
    let after = after(&call.params)?;
    let Some(image) = shared.backup.image(&id) else {
        let detail = "this backup has ended: another one began, or nobody asked for a page for too long; begin a new one";
        return Err(Problem::new(StatusCode::GONE, detail));
    };
    let rows = shared.blocking(move || {
        let after = after.as_ref().map(|(table, key)| (table.as_str(), key.as_slice()));
        image.rows(after, BACKUP_PAGE_BYTES).map_err(|error| match error {
            StoreError::Row(_) => bad_cursor(),
            other => unavailable(other),
        })
    });
    let rows = rows.await?;
    if rows.is_empty() {
        shared.backup.end(&id);
    }
    Ok(answer(StatusCode::OK, ROWS, encode_rows(&rows)))
}

/// `GET /api/v1/backup/log/{log}`.
pub(super) async fn log(shared: &Arc<Shared>, call: &Call) -> Answer {
    let name = call.segment(0);
    let Some(log) = Log::named(name) else {
        let known = Log::ALL.map(Log::name).join(", ");
        return Err(Problem::not_found(format!("there is no log `{name}`; there are {known}")));
    };
    let from = number(call.params.text("from").unwrap_or("1"), "the number of a row")?;
    let rows = if log == Log::Journal {
        let journal = shared.context.journal.clone();
        let read = move || journal.read(from, BACKUP_PAGE_RECORDS, BACKUP_PAGE_BYTES).map_err(unavailable);
        shared.blocking(read).await?
    } else {
        let image = shared.read(|state, _| state.image().map_err(unavailable)).await?;
        shared.blocking(move || image.log(log, from, BACKUP_PAGE_BYTES).map_err(unavailable)).await?
    };
    Ok(answer(StatusCode::OK, ROWS, encode_log(&rows)))
}
