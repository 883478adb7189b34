//! Snapshots that are brought up to date.

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::items_tests::rules;
use super::tests::{Bench, CACHE, GENERATION, arb_journal, moved};
use super::{Fold, refold};
use crate::store::journal::Journal;
use crate::store::state::{Made, SharedState, State};
use crate::store::{copy_file, snapshot_path, state_path};
use crate::types::{ItemMaps, Seq};

/// The state that a start without one would begin from.
fn begun_from(data: &Path) -> (TempDir, State) {
    let scratch = TempDir::new().expect("a directory");
    copy_file(&snapshot_path(data), &state_path(scratch.path())).expect("copies");
    let state = State::open_with(scratch.path(), CACHE, GENERATION).expect("opens");
    (scratch, state)
}

fn is_like_its_state(bench: &Bench) -> Result<(), TestCaseError> {
    let (_scratch, snapshot) = begun_from(bench.path());
    prop_assert_eq!(bench.state.first_difference(&snapshot).expect("reads"), None);
    prop_assert_eq!(snapshot.first_difference(&bench.state).expect("reads"), None);
    prop_assert_eq!(&snapshot.meta, &bench.state.meta);
    // what is known of sealed generations goes with it, too
    prop_assert_eq!(snapshot.deliveries_remembered(), bench.state.deliveries_remembered());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_snapshot_is_the_state_whatever_came_since_the_one_before(
        journal in arb_journal(),
        parts in proptest::collection::vec((1_usize..30, 0_usize..3), 20),
    ) {
        let mut bench = Bench::new();
        let mut rest = journal.as_slice();
        let mut made = Vec::new();
        for (records, checkpoints) in parts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (part, later) = rest.split_at(records.min(rest.len()));
            rest = later;
            for piece in part.chunks(records.div_ceil(checkpoints + 1)) {
                bench.feed(piece);
                bench.checkpoint();
            }
            made.push(bench.state.snapshot().expect("writes"));
            is_like_its_state(&bench)?;
        }
        prop_assert!(made.iter().enumerate().all(|(n, made)| (n == 0) == (*made == Made::Copied)), "{:?}", made);
    }
}

/// A state that has folded so many deliveries of a SKU, and its snapshot.
fn with_snapshot(sku: &str, deliveries: i64) -> Bench {
    let mut bench = Bench::new();
    bench.feed(&(1..=deliveries).map(|n| moved(n, &format!("d-{n}"), sku, 1, n)).collect::<Vec<_>>());
    bench.checkpoint();
    bench.state.snapshot().expect("copies");
    bench
}

#[test]
fn nothing_is_written_when_nothing_has_changed_and_little_when_little_has() {
    let mut bench = with_snapshot("A", 300);
    assert_eq!(bench.state.snapshot().expect("writes"), Made::Changed(0));
    bench.feed(&[moved(301, "d-301", "A", 1, 301)]);
    bench.checkpoint();
    let Made::Changed(rows) = bench.state.snapshot().expect("writes") else { panic!("it was copied") };
    assert!((1..12).contains(&rows), "{rows} rows for one delivery");
    is_like_its_state(&bench).expect("is");
}

/// Snapshots that were set aside.
fn aside(bench: &Bench) -> usize {
    let names = std::fs::read_dir(bench.path()).expect("is there").map(|entry| entry.expect("reads").file_name());
    names.filter(|name| name.to_string_lossy().starts_with("snapshot.damaged-")).count()
}

#[test]
fn a_snapshot_of_another_state_is_made_anew() {
    let mut bench = with_snapshot("A", 20);
    for stranger in [with_snapshot("B", 19), with_snapshot("A", 400)] {
        std::fs::copy(snapshot_path(stranger.path()), snapshot_path(bench.path())).expect("copies");
        bench.feed(&[moved(21, "d-21", "B", 1, 21)]);
        bench.checkpoint();
        is_made_anew(&bench);
    }
}

#[test]
fn a_damaged_snapshot_is_made_anew() {
    let bench = with_snapshot("A", 20);
    std::fs::write(snapshot_path(bench.path()), "rubbish".repeat(1000)).expect("writes");
    is_made_anew(&bench);
}

fn is_made_anew(bench: &Bench) {
    let before = aside(bench);
    assert_eq!(bench.state.snapshot().expect("copies"), Made::Copied);
    is_like_its_state(bench).expect("is");
    assert_eq!(aside(bench), before + 1, "what there was is kept");
}

#[test]
fn a_snapshot_is_a_whole_state_that_the_fold_can_go_on_from() {
    let directory = TempDir::new().expect("a directory");
    let journal = Journal::open(directory.path(), CACHE, 0).expect("opens");
    let state: SharedState = Arc::new(RwLock::new(State::open(directory.path(), CACHE).expect("opens")));
    let fold = Fold::new(&state, ItemMaps::default());
    let handle = fold.handle();
    let offer = fold.handle();
    let (appender, writer) = journal.start(100, move |batch| offer.offer(batch)).expect("starts");
    let thread = fold.start(Arc::clone(&state), journal.clone(), Duration::from_secs(60)).expect("starts");
    let feed = |bytes| appender.append(bytes).expect("room").durable_blocking().expect("durable");
    for bytes in rules().into_iter().chain((1..=20).map(|n| moved(n, &format!("d-{n}"), "A", 1, n))) {
        feed(bytes);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let reaches = runtime.block_on(handle.snapshot()).expect("copies");
    for n in 21..=30 {
        feed(moved(n, &format!("d-{n}"), "A", 1, n));
    }
    drop(appender);
    writer.join().expect("ends");
    handle.stop(crate::time::instant() + Duration::from_secs(60));
    thread.join().expect("ends");
    let digest = state.read().expect("not poisoned").digest().expect("reads");

    let scratch = TempDir::new().expect("a directory");
    let copy = state_path(scratch.path());
    copy_file(&snapshot_path(directory.path()), &copy).expect("copies");
    let mut again = State::open(scratch.path(), CACHE).expect("opens");
    assert_eq!(again.meta.cursor, reaches);
    assert_eq!(refold(&journal, &mut again, Seq::MAX).expect("folds"), 32);
    assert_eq!(again.digest().expect("reads"), digest);
}
