//! A stop that does not wait for a long journal.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use tempfile::TempDir;

use super::items_tests::rules;
use super::tests::moved;
use super::{Fold, refold};
use crate::store::journal::Journal;
use crate::store::state::{SharedState, State};
use crate::time;
use crate::types::ItemMaps;

const CACHE: usize = 4 * 1024 * 1024;
/// Some seconds of work without optimisation.
const RECORDS: i64 = 20_000;
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// A journal that nobody has folded yet.
fn unfolded(directory: &TempDir) -> Journal {
    let journal = Journal::open(directory.path(), CACHE, 0).expect("opens");
    let (appender, writer) = journal.start(4096, |_| {}).expect("starts");
    let mut last = None;
    for bytes in rules().into_iter().chain((1..=RECORDS).map(|n| moved(n, &format!("d-{n}"), "A", 1, n))) {
        let pending = loop {
            // a full queue has room again after the next commit
            match appender.append(bytes.clone()) {
                Ok(pending) => break pending,
                Err(_) => std::thread::yield_now(),
            }
        };
        last = Some(pending);
    }
    last.expect("records").durable_blocking().expect("durable");
    drop(appender);
    writer.join().expect("ends");
    journal
}

#[test]
fn a_rebuild_that_is_stopped_goes_on_at_the_next_start() {
    let directory = TempDir::new().expect("a directory");
    let journal = unfolded(&directory);
    let state: SharedState = Arc::new(RwLock::new(State::open(directory.path(), CACHE).expect("opens")));
    let fold = Fold::new(&state, ItemMaps::default());
    let handle = fold.handle();
    let thread = fold.start(Arc::clone(&state), journal.clone(), NEVER).expect("starts");
    let mut folded = handle.folded();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(folded.changed()).expect("it has begun");
    assert!(handle.heart().beats() > 0, "a rebuild is a sign of life, though nobody takes a message");
    handle.stop(time::instant());
    thread.join().expect("ends");
    let (cursor, head) = (state.read().expect("not poisoned").meta.cursor, journal.head());
    assert!(cursor > 0 && cursor < head, "stopped half-way: {cursor} of {head}");
    assert_eq!(handle.durable_cursor(), cursor, "what was folded is kept");
    drop(state);

    // the next start: with time enough it folds the rest, and comes to what one piece gives
    let state: SharedState = Arc::new(RwLock::new(State::open(directory.path(), CACHE).expect("opens again")));
    assert_eq!(state.read().expect("not poisoned").meta.cursor, cursor);
    let fold = Fold::new(&state, ItemMaps::default());
    let handle = fold.handle();
    let thread = fold.start(Arc::clone(&state), journal.clone(), NEVER).expect("starts");
    handle.stop(time::instant() + NEVER);
    thread.join().expect("ends");
    let scratch = TempDir::new().expect("a directory");
    let mut whole = State::open(scratch.path(), CACHE).expect("opens");
    refold(&journal, &mut whole, u64::MAX).expect("folds");
    let state = state.read().expect("not poisoned");
    assert_eq!((state.meta.cursor, state.digest().expect("reads")), (head, whole.digest().expect("reads")));
}
