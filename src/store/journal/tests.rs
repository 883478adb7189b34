//! What the journal promises to those who append, read and retain.

use std::collections::BTreeSet;
use std::sync::mpsc;

use redb::Database;

use super::*;
use crate::store::codec::encode_record;
use crate::store::disk::failing::FailingDisk;
use crate::store::disk::lying::{LyingDisk, Platter};
use crate::types::{Record, RecordBody};

const CACHE: usize = 2 * 1024 * 1024;

/// A record of about `bytes` bytes that can be told from others.
fn record(n: u64, bytes: usize) -> Vec<u8> {
    // digits in no order (splitmix64): they do not shrink to nothing
    let digit = |at: u64| {
        let mut z = (n * 100_000 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        char::from(b'0' + (z >> 60).to_le_bytes()[0] % 10)
    };
    let text: String = (0..bytes as u64).map(digit).collect();
    encode_record(&Record { at: Timestamp::from_seconds(n.cast_signed()), body: RecordBody::Policy(&text) })
}

fn segments_in(journal: &Path) -> usize {
    let files = std::fs::read_dir(journal).expect("reads").map(|file| file.expect("reads").path());
    files.filter(|path| path.extension().is_some_and(|kind| kind == "redb")).count()
}

struct Running {
    journal: Journal,
    appender: Appender,
    thread: JoinHandle<()>,
    batches: mpsc::Receiver<Batch>,
}

fn run(data: &Path, queue: usize, segment: u64) -> Running {
    let journal = Journal::open(data, CACHE, 0).expect("opens");
    let (send, batches) = mpsc::channel();
    let committed = move |batch| send.send(batch).expect("the test listens");
    let (appender, thread) = journal.start_with(queue, segment, committed).expect("starts");
    Running { journal, appender, thread, batches }
}

impl Running {
    fn append(&self, bytes: Vec<u8>) -> Seq {
        self.appender.append(bytes).expect("room").durable_blocking().expect("durable")
    }

    /// Close; the records that were offered to the fold, all told.
    fn end(self) -> usize {
        drop(self.appender);
        self.thread.join().expect("ends");
        self.batches.into_iter().map(|batch| batch.records.len()).sum()
    }
}

#[test]
fn what_is_durable_is_numbered_without_a_gap_and_found_again() {
    let directory = tempfile::TempDir::new().expect("a directory");
    for round in 0..3 {
        let running = run(directory.path(), 16, u64::MAX);
        for n in 1..=10 {
            assert_eq!(running.append(record(round * 10 + n, 20)), round * 10 + n);
        }
        assert_eq!(running.journal.head(), round * 10 + 10);
        assert_eq!(running.end(), 10, "every record is offered to the fold");
    }
    let journal = Journal::open(directory.path(), CACHE, 0).expect("opens");
    let all = journal.read(1, usize::MAX, usize::MAX).expect("reads");
    assert_eq!(all, (1..=30).map(|n| (n, record(n, 20))).collect::<Vec<_>>());
    assert_eq!(journal.get(17).expect("reads"), Some(record(17, 20)));
    assert_eq!(journal.get(31).expect("reads"), None);
    assert_eq!(journal.read(29, 1, usize::MAX).expect("reads").len(), 1);
}

#[test]
fn records_are_found_in_the_log_and_in_the_database() {
    let directory = tempfile::TempDir::new().expect("a directory");
    // a log of two frames, a segment of four or five
    let running = run(directory.path(), 16, 3000);
    let mut logged = BTreeSet::new();
    for last in 1..=20 {
        running.append(record(last, 1500));
        let all: Vec<_> = (1..=last).map(|n| (n, record(n, 1500))).collect();
        for from in 1..=last {
            let at = usize::try_from(from).expect("small") - 1;
            assert_eq!(running.journal.read(from, usize::MAX, usize::MAX).expect("reads"), all[at..], "{from} of {last}");
            assert_eq!(running.journal.read(from, 2, usize::MAX).expect("reads"), all[at..all.len().min(at + 2)]);
            assert_eq!(running.journal.get(from).expect("reads").as_ref(), Some(&all[at].1));
        }
        assert_eq!(running.journal.get(last + 1).expect("reads"), None);
        logged.insert(segments_in(&crate::store::journal_path(directory.path())));
    }
    assert!(logged.len() > 3, "several segments were begun: {logged:?}");
    running.end();
}

#[test]
fn what_was_acknowledged_is_there_when_its_database_could_not_be_written() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let failing = FailingDisk::default();
    let fixed = Arc::clone(&failing.fixed);
    let journal = Journal::open_on(Arc::new(failing), directory.path(), CACHE, 0).expect("opens");
    let (appender, thread) = journal.start_with(16, 10_000, |_| {}).expect("starts");
    let append = |n| appender.append(record(n, 5000)).and_then(Pending::durable_blocking);
    assert_eq!(append(1), Ok(1));
    fixed.store(true, Ordering::Release);
    let mut last = 1;
    // the log takes some; then they have to go into the database
    while let Ok(seq) = append(last + 1) {
        last = seq;
        assert!(last < 100, "a log that is full takes no more");
    }
    assert!(last > 1 && !journal.healthy(), "{last}");
    drop(appender);
    thread.join().expect("ends");
    journal.close();
    drop(journal);
    let again = Journal::open(directory.path(), CACHE, 0).expect("opens");
    let expected: Vec<_> = (1..=last).map(|n| (n, record(n, 5000))).collect();
    assert_eq!(again.read(1, usize::MAX, usize::MAX).expect("reads"), expected);
}

/// A journal on a disk that lies, with some records; killed, so that its log has them and its database has not.
fn killed(lying: &LyingDisk, records: u64) {
    let disk: Arc<dyn Disk> = Arc::new(lying.clone());
    let journal = Journal::open_on(disk, Path::new(DATA), CACHE, 0).expect("opens");
    let (appender, thread) = journal.start(16, |_| {}).expect("starts");
    for n in 1..=records {
        let seq = appender.append(record(journal.head() + 1, 40)).expect("room").durable_blocking().expect("durable");
        assert!(seq >= n);
    }
    lying.kill();
    drop(appender);
    thread.join().expect("ends");
    journal.close();
}

const DATA: &str = "data";

fn numbers(lying: LyingDisk) -> (Vec<Seq>, Vec<Lost>) {
    let journal = Journal::open_on(Arc::new(lying), Path::new(DATA), CACHE, 0).expect("opens");
    let found = journal.read(1, usize::MAX, usize::MAX).expect("reads");
    for (seq, bytes) in &found {
        assert_eq!(*bytes, record(*seq, 40));
    }
    (found.into_iter().map(|(seq, _)| seq).collect(), journal.lost())
}

#[test]
fn a_damaged_segment_is_mended_with_what_its_log_has() {
    let lying = LyingDisk::default();
    killed(&lying, 5);
    let mut image = lying.now();
    image.set(&crate::store::journal_path(Path::new(DATA)).join(format!("{:020}.redb", 1)), b"rubbish");
    let (found, lost) = numbers(LyingDisk::holding(image));
    assert_eq!(found, [1, 2, 3, 4, 5]);
    // nothing that was certainly there, and whatever was behind them
    assert!(matches!(lost[..], [Lost { from: 6, certain: false, .. }]), "{lost:?}");
}

#[test]
fn a_segment_that_is_mended_and_its_log_give_each_record_once() {
    let lying = LyingDisk::default();
    killed(&lying, 3);
    drop(numbers(lying.clone()));
    killed(&lying, 2);
    let mut image = lying.now();
    let segment = crate::store::journal_path(Path::new(DATA)).join(format!("{:020}.redb", 1));
    let mut bytes = image.bytes(&segment).expect("is there");
    // no database by its first bytes, and its pages are whole: three records are there, two in the log
    bytes[..4].fill(0);
    image.set(&segment, &bytes);
    let (found, lost) = numbers(LyingDisk::holding(image));
    assert_eq!(found, [1, 2, 3, 4, 5]);
    assert!(lost.iter().all(|lost| !lost.certain), "{lost:?}");
}

#[test]
fn a_damaged_frame_is_told_by_its_numbers() {
    let lying = LyingDisk::default();
    killed(&lying, 5);
    let mut image = lying.now();
    let log = crate::store::journal_path(Path::new(DATA)).join(AHEAD);
    let mut bytes = image.bytes(&log).expect("is there");
    // two marks and two frames stand before the third
    bytes[4 * 4096 + 36] ^= 1;
    image.set(&log, &bytes);
    let (found, lost) = numbers(LyingDisk::holding(image));
    assert_eq!(found, [1, 2, 4, 5]);
    assert!(lost.iter().any(|lost| (lost.from, lost.to, lost.certain) == (3, 3, true)), "{lost:?}");
}

#[test]
fn the_log_of_a_journal_that_had_none_keeps_its_name() {
    let lying = LyingDisk::default();
    killed(&lying, 3);
    drop(numbers(lying.clone()));
    // as a restore leaves it
    let mut base = lying.now();
    base.remove(&crate::store::journal_path(Path::new(DATA)).join(AHEAD));
    let restored = LyingDisk::holding(base.clone());
    killed(&restored, 1);
    let mut platter = Platter::new(base);
    restored.log().iter().for_each(|op| platter.play(op));
    let (found, _) = numbers(LyingDisk::holding(platter.image(&mut |_| 0)));
    assert_eq!(found, [1, 2, 3, 4]);
}

#[test]
fn a_busy_writer_commits_what_waits_in_one_batch_and_answers_each_its_own_number() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let journal = Journal::open(directory.path(), CACHE, 0).expect("opens");
    let (entered, in_callback) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (appender, thread) = journal
        .start(64, move |batch: Batch| {
            entered.send((batch.first, batch.records.len())).expect("the test listens");
            released.recv().expect("the test releases");
        })
        .expect("starts");
    let first = appender.append(record(1, 10)).expect("room");
    assert_eq!(in_callback.recv(), Ok((1, 1)));
    // the writer is held in its callback: these wait together
    let waiting: Vec<Pending> = (2..=9).map(|n| appender.append(record(n, 10)).expect("room")).collect();
    assert_eq!(appender.queued(), 8);
    release.send(()).expect("held");
    assert_eq!(in_callback.recv(), Ok((2, 8)), "one commit for all that waited");
    release.send(()).expect("held");
    assert_eq!(first.durable_blocking(), Ok(1));
    for (expected, pending) in (2..).zip(waiting) {
        assert_eq!(pending.durable_blocking(), Ok(expected));
    }
    drop(appender);
    thread.join().expect("ends");
}

#[test]
fn a_client_that_hangs_up_changes_nothing() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let running = run(directory.path(), 16, u64::MAX);
    drop(running.appender.append(record(1, 10)).expect("room"));
    assert_eq!(running.append(record(2, 10)), 2, "the queue owned the first one");
    assert_eq!(running.journal.get(1).expect("reads"), Some(record(1, 10)));
    assert_eq!(running.end(), 2, "and the fold was offered both");
}

#[test]
fn a_full_queue_refuses_and_loses_nothing_that_it_took() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let journal = Journal::open(directory.path(), CACHE, 0).expect("opens");
    let (entered, in_callback) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (appender, thread) = journal
        .start(4, move |_| {
            entered.send(()).expect("the test listens");
            assert!(released.recv().is_err(), "the test only lets go");
        })
        .expect("starts");
    let mut taken = vec![appender.append(record(1, 10)).expect("room")];
    in_callback.recv().expect("held");
    taken.extend((2..=5).map(|n| appender.append(record(n, 10)).expect("room")));
    assert!(matches!(appender.append(record(6, 10)), Err(Refused::Full)));
    drop(release);
    for (expected, pending) in (1..).zip(taken) {
        assert_eq!(pending.durable_blocking(), Ok(expected));
    }
    drop(appender);
    thread.join().expect("ends");
    assert_eq!(journal.head(), 5);
}

#[test]
fn nothing_is_taken_after_close() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let running = run(directory.path(), 4, u64::MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let last = running.appender.append(record(1, 10)).expect("room");
    runtime.block_on(running.appender.close());
    assert_eq!(last.durable_blocking(), Ok(1), "what was queued before is committed");
    running.thread.join().expect("ends");
    assert!(matches!(running.appender.append(record(2, 10)), Err(Refused::Unavailable)));
    assert!(!running.journal.healthy());
}

#[test]
fn retention_drops_old_segments_whole_and_gives_the_space_back() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let running = run(directory.path(), 1024, 256 * 1024);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for n in 1..=3000 {
        let pending = running.appender.append(record(n, 4000)).expect("room");
        if n % 100 == 0 {
            assert_eq!(pending.durable_blocking(), Ok(n));
        }
    }
    running.append(record(3001, 10));
    let segments = || segments_in(&crate::store::journal_path(directory.path()));
    assert!(segments() > 20, "a file for each segment");
    let full = running.journal.file_bytes();
    assert!(full > 20_000_000, "{full} bytes for 12 MB of records in 40 files");
    let keep = |max_bytes, folded| Retention { before: Timestamp(i64::MIN), max_bytes, folded, only_look: false };
    assert_eq!(runtime.block_on(running.appender.retain(keep(10_000_000, 0))), Aged::default(), "nothing is folded yet");
    let look = Retention { only_look: true, ..keep(10_000_000, 3000) };
    let would = runtime.block_on(running.appender.retain(look));
    assert_eq!((running.journal.oldest(), running.journal.file_bytes()), (1, full), "looking removes nothing");
    let dropped = runtime.block_on(running.appender.retain(keep(10_000_000, 3000)));
    assert!(dropped.bytes > 10_000_000, "{dropped:?}");
    assert_eq!((dropped, dropped.last + 1), (would, running.journal.oldest()));
    let oldest = running.journal.oldest();
    assert!((2000..2990).contains(&oldest), "the newest ten megabytes of files are left: {oldest}");
    assert_eq!(running.journal.get(oldest).expect("reads"), Some(record(oldest, 4000)));
    assert_eq!(running.journal.get(oldest - 1).expect("reads"), None);
    // the journal goes on, and its file does not grow again
    for n in 3002..=3300 {
        running.append(record(n, 4000));
        runtime.block_on(running.appender.retain(keep(10_000_000, n - 1)));
    }
    let after = running.journal.file_bytes();
    assert!(after < 12_000_000, "{after} bytes of {full} are left");
    assert!(segments() < 15);
    running.end();
    let again = Journal::open(directory.path(), CACHE, 0).expect("opens");
    assert_eq!(again.head(), 3300);
    assert!(again.file_bytes() < 12_000_000);
}

#[test]
fn retention_by_age_keeps_what_is_young() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let running = run(directory.path(), 16, 150_000);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for n in 1..=200 {
        running.append(record(n, 4000));
    }
    let what = Retention { before: Timestamp::from_seconds(100), max_bytes: u64::MAX, folded: 200, only_look: false };
    assert!(runtime.block_on(running.appender.retain(what)).bytes > 0);
    let oldest = running.journal.oldest();
    assert!((2..=100).contains(&oldest), "a segment with a record of second 100 stays: {oldest}");
    assert_eq!(running.journal.get(oldest).expect("reads"), Some(record(oldest, 4000)));
    running.end();
}

#[test]
fn numbers_that_the_state_has_seen_are_not_given_twice() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let running = run(directory.path(), 16, u64::MAX);
    running.append(record(1, 10));
    running.end();
    let journal = Journal::open(directory.path(), CACHE, 500).expect("opens");
    let (appender, thread) = journal.start(16, |_| {}).expect("starts");
    assert_eq!(appender.append(record(2, 10)).expect("room").durable_blocking(), Ok(501));
    drop(appender);
    thread.join().expect("ends");
    let read: Vec<Seq> = journal.read_numbers_after_reopen(directory.path());
    assert_eq!(read, [1, 501]);
}

impl Journal {
    /// The numbers that another process would find.
    fn read_numbers_after_reopen(self, data: &Path) -> Vec<Seq> {
        drop(self);
        let journal = Self::open(data, CACHE, 0).expect("opens");
        assert_eq!(journal.head(), 501);
        journal.read(1, 10, usize::MAX).expect("reads").into_iter().map(|(seq, _)| seq).collect()
    }
}

#[test]
fn a_journal_in_use_is_not_opened_twice() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let _first = Journal::open(directory.path(), CACHE, 0).expect("opens");
    let second = Journal::open(directory.path(), CACHE, 0).err().expect("is locked").to_string();
    assert!(
        second.ends_with("is in use by another process: stop the gateway first, or ask it through its admin API"),
        "{second}"
    );
}

#[test]
fn a_newer_form_is_refused_in_a_plain_sentence() {
    let directory = tempfile::TempDir::new().expect("a directory");
    drop(Journal::open(directory.path(), CACHE, 0).expect("creates"));
    let path = crate::store::journal_path(directory.path()).join(format!("{:020}.redb", 1));
    let database = Database::open(&path).expect("opens");
    let write = database.begin_write().expect("begins");
    write.open_table(crate::store::META).expect("opens").insert("schema", 99_u64.to_be_bytes().as_slice()).expect("writes");
    write.commit().expect("commits");
    drop(database);
    let refused = Journal::open(directory.path(), CACHE, 0).err().expect("is newer");
    assert!(matches!(refused, StoreError::Newer { found: 99, .. }));
    let text = refused.to_string();
    assert!(
        text.contains(&format!(
            "has schema version 99, this program knows up to {}: it was written by a newer stockgate",
            crate::store::SCHEMA_VERSION
        )),
        "{text}"
    );
}

#[test]
fn a_form_from_before_the_first_release_is_refused_and_left_as_it_is() {
    let directory = tempfile::TempDir::new().expect("a directory");
    drop(Journal::open(directory.path(), CACHE, 0).expect("creates"));
    let path = crate::store::journal_path(directory.path()).join(format!("{:020}.redb", 1));
    let database = Database::open(&path).expect("opens");
    let write = database.begin_write().expect("begins");
    write.open_table(crate::store::META).expect("opens").insert("schema", 2_u64.to_be_bytes().as_slice()).expect("writes");
    write.commit().expect("commits");
    drop(database);
    let refused = Journal::open(directory.path(), CACHE, 0).err().expect("is older");
    assert!(matches!(refused, StoreError::Older { found: 2, .. }), "{refused}");
    assert!(path.exists() && refused.to_string().contains("begin with an empty one by --data"), "{refused}");
}

#[test]
fn a_file_that_is_no_database_is_set_aside_and_no_number_is_given_twice() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let journal = crate::store::journal_path(directory.path());
    std::fs::create_dir_all(&journal).expect("makes");
    let text = "not a database, but long enough to look like one".repeat(100);
    std::fs::write(journal.join(format!("{:020}.redb", 5)), text).expect("writes");
    let running = run(directory.path(), 16, u64::MAX);
    let lost = running.journal.lost();
    assert!(matches!(lost[..], [Lost { from: 5, certain: false, .. }]), "whether it held any is not known: {lost:?}");
    assert_eq!((running.journal.head(), running.journal.repairs()), (4, 1));
    assert_eq!(running.append(record(1, 10)), lost[0].to + 1);
    running.end();
    assert!(journal.join(format!("{:020}.damaged-1", 5)).exists(), "kept for a person to look at");
}

#[test]
fn what_is_damaged_leaves_with_its_segment() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let running = run(directory.path(), 16, 1);
    let numbers: Vec<Seq> = (1..=4).map(|n| running.append(record(n, 10))).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    running.end();
    let journal = crate::store::journal_path(directory.path());
    std::fs::write(journal.join(format!("{:020}.redb", 2)), "rubbish").expect("writes");
    let running = run(directory.path(), 16, 1);
    let read: Vec<Seq> = running.journal.read(1, 10, usize::MAX).expect("reads").into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(read, [1, 3, 4]);
    let lost = running.journal.lost();
    assert!(matches!(lost[..], [Lost { from: 2, to: 2, certain: true, .. }]), "{lost:?}");
    let what = Retention { before: Timestamp(i64::MIN), max_bytes: 1, folded: 3, only_look: false };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    assert_eq!(runtime.block_on(running.appender.retain(what)).last, 3);
    assert_eq!((running.journal.lost(), running.journal.repairs()), (vec![], 0));
    running.end();
    assert_eq!(segments_in(&journal), 1, "only the newest segment is left");
}

#[test]
fn a_segment_that_was_never_finished_is_no_segment() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let running = run(directory.path(), 16, u64::MAX);
    running.append(record(1, 10));
    running.end();
    std::fs::write(crate::store::journal_path(directory.path()).join(UNFINISHED), "half").expect("writes");
    let running = run(directory.path(), 16, 1);
    assert_eq!((running.append(record(2, 10)), running.append(record(3, 10))), (2, 3), "made anew when it is needed");
    assert_eq!(running.journal.read(1, 10, usize::MAX).expect("reads").len(), 3, "across segments");
    running.end();
}
