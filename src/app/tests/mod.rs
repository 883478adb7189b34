//! A state that is gone or damaged.

mod crash;
mod watchdog;

use std::path::Path;

use crate::pipeline::apply::refold;
use crate::store::codec::encode_record;
use crate::store::journal::Journal;
use crate::store::state::State;
use crate::store::{open_state, snapshot_path, state_path};
use crate::time;
use crate::types::{Record, RecordBody};

const CACHE: usize = 4 * 1024 * 1024;

/// A data directory whose state has folded one policy record, and that state's digest.
fn folded() -> (tempfile::TempDir, [u8; 32]) {
    let directory = tempfile::TempDir::new().expect("a directory");
    let data = directory.path();
    let journal = Journal::open(data, CACHE, 0).expect("opens");
    let (appender, thread) = journal.start(16, |_| {}).expect("starts");
    let policy = r#"{"v":2,"sources":{},"warehouses":{"main":{"authority":["a"],"low":"1"}}}"#;
    let record = encode_record(&Record { at: time::now(), body: RecordBody::Policy(policy) });
    appender.append(record).expect("room").durable_blocking().expect("durable");
    drop(appender);
    thread.join().expect("ends");
    drop(journal);
    let digest = again(data);
    (directory, digest)
}

/// Open whatever is there, fold the journal to its end, and tell what came out.
fn again(data: &Path) -> [u8; 32] {
    let mut state = open_state(data, CACHE).expect("opens");
    let journal = Journal::open(data, CACHE, 0).expect("opens");
    refold(&journal, &mut state, u64::MAX).expect("folds");
    state.digest().expect("reads")
}

/// A small generator with a seed (SplitMix64).
fn below(seed: &mut u64, bound: u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) % bound
}

fn names(data: &Path) -> String {
    let mut names: Vec<String> =
        std::fs::read_dir(data).expect("reads").map(|e| e.expect("an entry").file_name().display().to_string()).collect();
    names.sort();
    names.join(" ")
}

#[test]
fn a_state_that_was_deleted_is_rebuilt_from_the_journal() {
    let (directory, digest) = folded();
    std::fs::remove_file(state_path(directory.path())).expect("removes");
    assert_eq!(again(directory.path()), digest);
}

#[test]
fn a_state_beyond_repair_is_set_aside_and_rebuilt() {
    let (directory, digest) = folded();
    std::fs::write(state_path(directory.path()), "rubbish".repeat(1000)).expect("writes");
    assert_eq!(again(directory.path()), digest);
    assert!(names(directory.path()).contains("state.damaged-"), "{}", names(directory.path()));
}

#[test]
fn whatever_bytes_flip_in_the_state_it_comes_out_as_the_journal_says() {
    let (directory, digest) = folded();
    let data = directory.path();
    let whole = std::fs::read(state_path(data)).expect("reads");
    let length = u64::try_from(whole.len()).expect("a length");
    let mut rebuilt = 0;
    for seed in 1..=80_u64 {
        let (mut random, mut bytes) = (seed, whole.clone());
        // one byte, or many; in the header, or anywhere that holds something
        let within = if seed % 4 == 0 { 4096 } else { length };
        let mut flips = if seed % 3 == 0 { 1 } else { 200 };
        for _ in 0..100_000 {
            let at = usize::try_from(below(&mut random, within)).expect("an index");
            if flips > 0 && bytes[at] != 0 {
                bytes[at] ^= u8::try_from(1 + below(&mut random, 255)).expect("a byte");
                flips -= 1;
            }
        }
        std::fs::write(state_path(data), &bytes).expect("writes");
        assert_eq!(again(data), digest, "seed {seed}");
        rebuilt += u32::from(names(data).contains("state.damaged-"));
        for name in names(data).split(' ').filter(|name| name.contains("damaged")) {
            std::fs::remove_file(data.join(name)).expect("removes");
        }
    }
    assert!(rebuilt > 20, "{rebuilt} of 80: pages that are in use were hit");
}

#[test]
fn a_deleted_state_begins_at_the_snapshot_when_the_journal_has_aged() {
    let (directory, digest) = folded();
    let data = directory.path();
    State::open(data, CACHE).expect("opens").snapshot().expect("copies");
    std::fs::remove_file(state_path(data)).expect("removes");
    std::fs::remove_dir_all(crate::store::journal_path(data)).expect("removes");
    assert_eq!(again(data), digest, "the snapshot alone holds what the journal has lost");
}

#[test]
fn a_damaged_snapshot_is_no_reason_not_to_start() {
    let (directory, digest) = folded();
    let data = directory.path();
    std::fs::remove_file(state_path(data)).expect("removes");
    std::fs::write(snapshot_path(data), "rubbish".repeat(1000)).expect("writes");
    assert_eq!(again(data), digest);
    assert!(names(data).contains("snapshot.damaged-"), "{}", names(data));
}
