//! A state whose disk stops giving out its pages while records are folded.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::{Fold, FoldHandle, refold};
use crate::stock::level::Value;
use crate::store::codec::encode_record;
use crate::store::disk::failing::FailingDisk;
use crate::store::journal::{Appender, Journal};
use crate::store::rows::PositionKey;
use crate::store::state::{SharedState, State, Verifier};
use crate::time::Timestamp;
use crate::types::{Fetched, ItemMaps, Need, Record, RecordBody};

const CACHE: usize = 1 << 20;
const GENERATION: usize = 40;
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// Longer than the test takes; reached only when it fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn append(appender: &Appender, body: RecordBody<'_>) {
    let bytes = encode_record(&Record { at: Timestamp::from_seconds(1_700_000_000), body });
    appender.append(bytes).expect("room").durable_blocking().expect("durable");
}

fn policy(appender: &Appender) {
    let source = json!({
        "kind": "bsale", "settings": {}, "api": true, "warehouse": null, "locations": {"1": "hall"}, "items": null
    });
    let text = json!({"v": 2, "sources": {"bsale": source}, "warehouses": {}}).to_string();
    append(appender, RecordBody::Policy(&text));
}

/// An answer that sets these SKUs to a number, in one record. `answers`: the journal's head when it was asked for.
fn answer(appender: &Appender, answers: u64, skus: &[String], quantity: i64) {
    let row = |sku: &String| {
        let variant = json!({"id": 7, "code": sku});
        json!({"quantity": quantity, "quantityReserved": 0, "quantityAvailable": quantity, "variant": variant, "office": {"id": "1"}})
    };
    let rows: Vec<_> = skus.iter().map(row).collect();
    let body = json!({"count": rows.len(), "limit": 25, "offset": 0, "items": rows}).to_string();
    let need = Need { key: "stock/7/1".into(), from: None };
    let sent_at = Timestamp::from_seconds(1_700_000_000);
    append(
        appender,
        RecordBody::Fetched(Fetched { source: "bsale", need, answers, sent_at, page: 0, last: true, body: body.as_bytes() }),
    );
}

/// What the journal alone gives.
fn digest_of(data: &Path) -> [u8; 32] {
    let scratch = TempDir::new().expect("a directory");
    let journal = Journal::open(data, CACHE, 0).expect("opens");
    let mut state = State::open_with(scratch.path(), CACHE, GENERATION).expect("opens");
    refold(&journal, &mut state, u64::MAX).expect("folds");
    state.digest().expect("reads")
}

/// A gateway's store whose levels of `skus` are 5, with nothing in memory and next to nothing in the page cache.
struct Site {
    directory: TempDir,
    disk: Arc<FailingDisk>,
    journal: Journal,
    appender: Appender,
    writer: JoinHandle<()>,
    state: SharedState,
    fold: FoldHandle,
    thread: JoinHandle<()>,
    skus: Vec<String>,
}

impl Site {
    /// `period`: of checkpoints.
    fn new(period: Duration) -> Self {
        let directory = TempDir::new().expect("a directory");
        let data = directory.path();
        let journal = Journal::open(data, CACHE, 0).expect("opens");
        let (appender, writer) = journal.start(64, |_| {}).expect("starts");
        let skus: Vec<String> = (0..2000).map(|n| format!("SKU-{n:05}-{}", "x".repeat(60))).collect();
        policy(&appender);
        answer(&appender, journal.head(), &skus, 5);
        let disk = Arc::new(FailingDisk::default());
        {
            let mut state = State::open_on(disk.clone(), data, CACHE, GENERATION).expect("opens");
            refold(&journal, &mut state, u64::MAX).expect("folds");
        }
        let state = State::open_on(disk.clone(), data, 0, GENERATION).expect("opens");
        let state = Arc::new(RwLock::new(state));
        let fold = Fold::new(&state, ItemMaps::default());
        let handle = fold.handle();
        let thread = fold.start(Arc::clone(&state), journal.clone(), period).expect("starts");
        Self { directory, disk, journal, appender, writer, state, fold: handle, thread, skus }
    }

    fn answer(&self, skus: Range<usize>, quantity: i64) {
        answer(&self.appender, self.journal.head(), self.skus.get(skus).expect("so many"), quantity);
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The level of the first SKU.
    fn first_level(&self) -> Result<i64, String> {
        let sku = self.skus.first().expect("there are many").as_str().into();
        let state = self.state();
        let key = PositionKey { warehouse: state.find_warehouse("hall").expect("is known"), sku };
        let position = state.position(&key).map_err(|error| error.to_string())?.expect("is known");
        match position.effective {
            Some((_, Value::Tracked(quantity))) => Ok(quantity.micros() / 1_000_000),
            other => Err(format!("{other:?}")),
        }
    }

    /// Wait until all is folded, end, and compare with what the journal alone gives.
    fn ends_whole(self) {
        let (mut folded, head) = (self.fold.folded(), self.journal.head());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let reached = runtime
            .block_on(async { tokio::time::timeout(PATIENCE, folded.wait_for(|cursor| *cursor == head)).await.is_ok() });
        assert!(reached, "the fold goes on by itself");
        assert!(!self.fold.stuck());
        self.fold.stop(crate::time::instant() + PATIENCE);
        self.thread.join().expect("ends");
        drop(self.appender);
        self.writer.join().expect("ends");
        self.journal.close();
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(state.digest().expect("reads"), digest_of(self.directory.path()));
        assert_eq!(Verifier::all(&state).expect("reads").problems, [] as [String; 0]);
    }
}

#[test]
fn a_record_that_was_half_folded_when_the_disk_failed_acts_once() {
    let site = Site::new(NEVER);
    site.answer(0..1, 6);
    site.fold.checkpoint();
    site.answer(0..1, 7);
    // the first of these is known, the others have to be read
    site.disk.broken.store(true, Ordering::Release);
    site.answer(0..2000, 8);
    site.fold.checkpoint();
    assert!(site.fold.stuck() && site.fold.alive(), "it waits for the disk");
    assert!(site.state().stock(None, None, 10).is_err(), "nobody sees half a record");
    assert_eq!(site.fold.durable_cursor(), 3, "as before");
    site.disk.broken.store(false, Ordering::Release);
    site.answer(1..2000, 9);
    site.ends_whole();
}

#[test]
fn nobody_sees_half_a_record_while_a_checkpoint_is_still_being_written() {
    let site = Site::new(Duration::from_millis(1));
    // what a start has to write is not what is waited for
    site.fold.checkpoint();
    site.disk.stalled.begin();
    site.answer(0..1, 6);
    site.disk.stalled.until_met();
    assert_eq!(site.first_level(), Ok(6));
    // the first of these is known, the others have to be read; and what is being written keeps the fold from opening the file again
    site.disk.broken.store(true, Ordering::Release);
    site.answer(0..2000, 8);
    site.disk.refused.wait();
    // what was folded of it is in memory, which the disk has no part in
    assert!(site.first_level().is_err(), "nobody sees half a record");
    site.disk.broken.store(false, Ordering::Release);
    site.disk.stalled.end();
    site.ends_whole();
}
