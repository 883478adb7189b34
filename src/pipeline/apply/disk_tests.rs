//! A state whose disk stops giving out its pages while records are folded.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::{Fold, refold};
use crate::store::codec::encode_record;
use crate::store::disk::failing::FailingDisk;
use crate::store::journal::{Appender, Journal};
use crate::store::state::{State, Verifier};
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

/// An answer that sets these SKUs to a number, in one record.
fn answer(appender: &Appender, skus: &[String], quantity: i64) {
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
        RecordBody::Fetched(Fetched {
            source: "bsale",
            need,
            answers: 1,
            sent_at,
            page: 0,
            last: true,
            body: body.as_bytes(),
        }),
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

#[test]
fn a_record_that_was_half_folded_when_the_disk_failed_acts_once() {
    let directory = TempDir::new().expect("a directory");
    let data = directory.path();
    let journal = Journal::open(data, CACHE, 0).expect("opens");
    let (appender, writer) = journal.start(64, |_| {}).expect("starts");
    let skus: Vec<String> = (0..2000).map(|n| format!("SKU-{n:05}-{}", "x".repeat(60))).collect();
    let (hot, cold) = skus.split_at(1);
    policy(&appender);
    answer(&appender, &skus, 5);
    let disk = Arc::new(FailingDisk::default());
    {
        let mut state = State::open_on(disk.clone(), data, CACHE, GENERATION).expect("opens");
        refold(&journal, &mut state, u64::MAX).expect("folds");
    }
    // nothing is in memory, and next to nothing in the page cache
    let state = State::open_on(disk.clone(), data, 0, GENERATION).expect("opens");
    let state = Arc::new(RwLock::new(state));
    let fold = Fold::new(&state, ItemMaps::default());
    let handle = fold.handle();
    let thread = fold.start(Arc::clone(&state), journal.clone(), NEVER).expect("starts");
    answer(&appender, hot, 6);
    handle.checkpoint();
    answer(&appender, hot, 7);
    // the first of these is known, the others have to be read
    disk.broken.store(true, Ordering::Release);
    answer(&appender, &[hot, cold].concat(), 8);
    handle.checkpoint();
    assert!(handle.stuck() && handle.alive(), "it waits for the disk");
    let read = || state.read().unwrap_or_else(PoisonError::into_inner);
    assert!(read().stock(None, None, 10).is_err(), "nobody sees half a record");
    let durable = handle.durable_cursor();
    assert_eq!(durable, 3, "as before");

    disk.broken.store(false, Ordering::Release);
    answer(&appender, cold, 9);
    let mut folded = handle.folded();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let reached =
        runtime.block_on(async { tokio::time::timeout(PATIENCE, folded.wait_for(|cursor| *cursor == 6)).await.is_ok() });
    assert!(reached, "the fold goes on by itself");
    assert!(!handle.stuck());
    handle.stop(crate::time::instant() + PATIENCE);
    thread.join().expect("ends");
    drop(appender);
    writer.join().expect("ends");
    journal.close();
    assert_eq!(read().digest().expect("reads"), digest_of(data));
    assert_eq!(Verifier::all(&read()).expect("reads").problems, [] as [String; 0]);
}
