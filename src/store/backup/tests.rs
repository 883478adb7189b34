use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::directory::TABLES;
use super::*;
use crate::stock::audit::GENESIS;
use crate::store::journal::Journal;
use crate::store::state::State;

const CACHE: usize = 1 << 20;

fn rows(numbers: std::ops::RangeInclusive<u64>) -> Vec<(u64, Vec<u8>)> {
    numbers.map(|n| (n, format!("row {n}").into_bytes())).collect()
}

fn moment(cursor: u64, ledger: u64, oldest: u64, head: u64) -> Moment {
    let link = data_encoding::HEXLOWER.encode(&GENESIS);
    Moment { at: "2026-11-21T09:00:00.000Z".to_owned(), cursor, ledger, link, ignored: 0, oldest, head }
}

/// A directory with a journal of these numbers and an empty state.
fn made(path: &std::path::Path, numbers: std::ops::RangeInclusive<u64>) -> Manifest {
    let mut directory = Directory::open(path).expect("opens");
    let (first, last) = (*numbers.start(), *numbers.end());
    directory.append(Log::Journal, &rows(numbers)).expect("appends");
    directory.finish(&moment(0, 0, first, last)).expect("finishes")
}

#[test]
fn a_backup_reads_back_into_both_stores() {
    let (dir, data) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let mut directory = Directory::open(dir.path()).expect("opens");
    let source = State::open(data.path(), CACHE).expect("opens");
    let image = source.image().expect("an image");
    let tables = image.rows(None, usize::MAX).expect("rows");
    assert_eq!(tables.iter().map(|row| row.table.as_str()).collect::<Vec<_>>(), ["meta"], "only the schema is there");
    directory.append_rows(&tables).expect("appends");
    directory.append(Log::Journal, &rows(1..=40)).expect("appends");
    let manifest = directory.finish(&moment(0, 0, 1, 40)).expect("finishes");
    assert_eq!(manifest.journal, Some(Span { first: 1, last: 40, rows: 40 }));
    assert_eq!(check(dir.path()).expect("whole"), manifest);

    let to = TempDir::new().expect("a directory");
    unpack(dir.path(), &manifest, to.path()).expect("unpacks");
    let journal = Journal::open(to.path(), CACHE, 0).expect("opens");
    assert_eq!((journal.oldest(), journal.head()), (1, 40));
    assert_eq!(journal.read(1, 100, usize::MAX).expect("reads"), rows(1..=40));
    let state = State::open(to.path(), CACHE).expect("opens");
    assert_eq!(state.digest().expect("a digest"), source.digest().expect("a digest"));
}

#[test]
fn what_is_torn_is_cut_off_and_written_again() {
    let dir = TempDir::new().expect("a directory");
    made(dir.path(), 1..=9);
    let file = dir.path().join("journal").join(format!("{:020}.rows", 1));
    let whole = fs::read(&file).expect("a file");
    for (kept, last) in [(whole.len(), Some(9)), (whole.len() - 1, Some(8)), (HEADER.len() + 5, None), (3, None), (0, None)]
    {
        fs::write(&file, &whole[..kept]).expect("writes");
        let mut directory = Directory::open(dir.path()).expect("opens");
        assert_eq!(directory.last(Log::Journal), last, "{kept} bytes");
        assert_eq!(directory.mended().len(), usize::from(kept < whole.len()));
        let next = last.map_or(1, |last| last + 1);
        if let Some(last) = last {
            assert!(directory.same_history(Log::Journal, last, format!("row {last}").as_bytes()));
            assert!(!directory.same_history(Log::Journal, last, b"another"));
        }
        directory.append(Log::Journal, &rows(next..=9)).expect("appends");
        directory.finish(&moment(0, 0, 1, 9)).expect("finishes");
        assert_eq!(fs::read(&file).expect("a file"), whole, "{kept} bytes");
        check(dir.path()).expect("whole");
    }
}

#[test]
fn rows_behind_a_rotten_one_are_fetched_again() {
    let dir = TempDir::new().expect("a directory");
    // a gap ends a file, so there are two
    made(dir.path(), 1..=9);
    let mut directory = Directory::open(dir.path()).expect("opens");
    directory.append(Log::Journal, &rows(12..=15)).expect("appends");
    let manifest = directory.finish(&moment(0, 0, 1, 15)).expect("finishes");
    assert_eq!(manifest.journal, Some(Span { first: 1, last: 15, rows: 13 }));
    let to = TempDir::new().expect("a directory");
    unpack(dir.path(), &manifest, to.path()).expect("unpacks");
    let restored = Journal::open(to.path(), CACHE, 0).expect("opens").read(1, 100, usize::MAX).expect("reads");
    assert_eq!(
        restored,
        [rows(1..=9), rows(12..=15)].concat(),
        "records that the gateway lost stay lost, the others stay where they were"
    );
    let file = dir.path().join("journal").join(format!("{:020}.rows", 1));
    let mut bytes = fs::read(&file).expect("a file");
    bytes[HEADER.len() + 40] ^= 4;
    fs::write(&file, bytes).expect("writes");
    assert!(matches!(check(dir.path()), Err(BackupError::Damaged(pieces)) if pieces.len() == 1));
    let directory = Directory::open(dir.path()).expect("opens");
    assert_eq!((directory.last(Log::Journal), directory.mended().len()), (Some(1), 1));
}

#[test]
fn a_damaged_manifest_is_written_again() {
    let dir = TempDir::new().expect("a directory");
    let manifest = made(dir.path(), 1..=9);
    fs::write(dir.path().join(MANIFEST), "{").expect("writes");
    assert!(check(dir.path()).is_err());
    let directory = Directory::open(dir.path()).expect("opens");
    assert_eq!((directory.last(Log::Journal), directory.mended().len()), (Some(9), 1));
    assert_eq!(directory.finish(&moment(0, 0, 1, 9)).expect("finishes"), manifest);
}

#[test]
fn an_unfinished_run_leaves_the_backup_before_it_whole() {
    let dir = TempDir::new().expect("a directory");
    let manifest = made(dir.path(), 1..=9);
    let mut directory = Directory::open(dir.path()).expect("opens");
    directory.append_rows(&[]).expect("appends");
    directory.append(Log::Journal, &rows(10..=30)).expect("appends");
    drop(directory);
    assert_eq!(check(dir.path()).expect("whole"), manifest);
    let to = TempDir::new().expect("a directory");
    unpack(dir.path(), &manifest, to.path()).expect("unpacks");
    assert_eq!(Journal::open(to.path(), CACHE, 0).expect("opens").head(), 9);
}

#[test]
fn what_aged_out_leaves_the_backup_by_whole_files() {
    let dir = TempDir::new().expect("a directory");
    made(dir.path(), 1..=9);
    let mut directory = Directory::open(dir.path()).expect("opens");
    directory.append(Log::Journal, &rows(20..=25)).expect("appends");
    let manifest = directory.finish(&moment(19, 0, 18, 25)).expect("finishes");
    assert_eq!(manifest.journal, Some(Span { first: 20, last: 25, rows: 6 }));
    let kept: Vec<PathBuf> =
        fs::read_dir(dir.path().join("journal")).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    assert_eq!(kept.len(), 1);
    // a gap between what the tables hold and the first record would lose what lies in it
    let mut directory = Directory::open(dir.path()).expect("opens");
    directory.append(Log::Journal, &rows(40..=41)).expect("appends");
    let refused = directory.finish(&moment(25, 0, 40, 41)).expect_err("a gap").to_string();
    assert!(refused.contains("aged out faster"), "{refused}");
}

#[test]
fn a_log_that_ends_too_early_is_no_backup() {
    let dir = TempDir::new().expect("a directory");
    let mut directory = Directory::open(dir.path()).expect("opens");
    directory.append(Log::Audit, &rows(1..=3)).expect("appends");
    let refused = directory.finish(&moment(0, 4, 1, 0)).expect_err("one is missing").to_string();
    assert!(refused.contains("audit ends at 3, not at 4"), "{refused}");
    assert!(matches!(check(dir.path()), Err(BackupError::Refused(why)) if why.contains(MANIFEST)));
    let mut directory = Directory::open(dir.path()).expect("opens");
    assert!(directory.append(Log::Audit, &rows(3..=4)).is_err(), "numbers rise");
}

#[test]
fn one_writer_at_a_time_and_only_into_what_is_ours() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("a/b");
    let first = Directory::open(&path).expect("opens");
    let refused = Directory::open(&path).err().expect("locked").to_string();
    assert!(refused.contains("another backup"), "{refused}");
    drop(first);
    drop(Directory::open(&path).expect("opens again"));
    fs::write(dir.path().join("a/letter.txt"), "hello").expect("writes");
    let refused = Directory::open(&dir.path().join("a")).err().expect("not ours").to_string();
    assert!(refused.contains("holds no backup"), "{refused}");
}

#[test]
fn a_manifest_names_no_file_outside() {
    let dir = TempDir::new().expect("a directory");
    let manifest = made(dir.path(), 1..=2);
    let written = |file: &str| {
        let mut odd = manifest.clone();
        odd.pieces.first_mut().expect("the tables").file = file.to_owned();
        fs::write(dir.path().join(MANIFEST), serde_json::to_vec(&odd.sealed()).expect("JSON")).expect("writes");
        check(dir.path())
    };
    for file in ["../x", "/etc/passwd", "tables/../x", "other/x", "tables/.x", "tables/a/b"] {
        let refused = written(file).expect_err("outside").to_string();
        assert!(refused.contains("not a piece"), "{file}: {refused}");
    }
    assert!(written(&format!("{TABLES}/{:020}.rows", 0)).is_ok());
}

proptest! {
    #[test]
    fn rows_come_back_from_their_frames(rows in proptest::collection::vec((any::<u64>(), any::<Vec<u8>>()), 0..20)) {
        prop_assert_eq!(decode_log(&encode_log(&rows)).expect("decodes"), rows);
    }

    #[test]
    fn a_changed_bit_is_seen(rows in proptest::collection::vec((any::<u64>(), any::<Vec<u8>>()), 1..5), at: prop::sample::Index, bit in 0_u8..8) {
        let mut bytes = encode_log(&rows);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(decode_log(&bytes).is_err());
    }

    #[test]
    fn table_rows_come_back(table in "[a-z-]{0,20}", key: Vec<u8>, value: Vec<u8>) {
        let rows = [Row { table, key, value }];
        prop_assert_eq!(decode_rows(&encode_rows(&rows)).expect("decodes"), rows);
    }

    #[test]
    fn no_page_panics(bytes: Vec<u8>) {
        drop(decode_log(&bytes));
        drop(decode_rows(&bytes));
    }
}
