//! The write-ahead log over a disk that lies.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::log::{BEGIN, GRAIN, HEAD_BYTES};
use super::*;
use crate::store::disk::Disk;
use crate::store::disk::lying::{Image, LyingDisk, Op, Platter};

const ROOM: u64 = 24 * 1024;

fn open(disk: &LyingDisk, of: u64) -> (Ahead, Beneath) {
    let (log, file) = (disk.file(Path::new("log")).expect("a file"), disk.file(Path::new("file")).expect("a file"));
    Ahead::open(log, file, of).expect("opens")
}

fn content(disk: &LyingDisk) -> Vec<u8> {
    disk.now().bytes(Path::new("file")).unwrap_or_default()
}

/// The disk as it is after a power cut that loses all that was not synced.
fn cut(base: Image, disk: &LyingDisk) -> LyingDisk {
    let mut platter = Platter::new(base);
    disk.log().iter().for_each(|op| platter.play(op));
    // the names are not what is tested
    platter.play(&Op::SyncDirectory(Path::new("").to_owned()));
    LyingDisk::holding(platter.image(&mut |_| 0))
}

#[test]
fn what_was_flushed_is_there_after_a_power_cut_and_the_rest_is_not() {
    let disk = LyingDisk::default();
    let (ahead, beneath) = open(&disk, 1);
    beneath.set_len(8192).expect("grows");
    ahead.begin(ROOM).expect("begins");
    beneath.write(0, b"first").expect("writes");
    beneath.write(5000, b"second").expect("writes");
    beneath.sync_data().expect("syncs");
    ahead.flush().expect("flushes");
    beneath.write(0, b"third").expect("writes");
    beneath.sync_data().expect("syncs");
    let mut read = [0; 5];
    beneath.read(0, &mut read).expect("reads");
    assert_eq!(&read, b"third", "the database reads what it wrote");
    assert_eq!(&content(&disk)[..5], b"first", "and the file has nothing that the log lacks");

    let after = cut(Image::default(), &disk);
    let base = after.now();
    drop(open(&after, 1));
    assert_eq!(&content(&after)[..5], b"first");
    assert_eq!(&content(&after)[5000..5006], b"second");
    // once more, and for another file: nothing is written twice, or where it does not belong
    let again = cut(base, &after);
    let before = content(&again);
    drop(open(&again, 2));
    assert_eq!(content(&again), before);
}

#[test]
fn a_log_that_is_full_begins_anew() {
    let disk = LyingDisk::default();
    let (ahead, beneath) = open(&disk, 1);
    ahead.begin(ROOM).expect("begins");
    for n in 0..50_u8 {
        beneath.write(u64::from(n % 7) * 4096, &[n; 4096]).expect("writes");
        ahead.flush().expect("flushes");
        let after = cut(Image::default(), &disk);
        drop(open(&after, 1));
        for m in 0..=n.min(6) {
            let newest = n - (n - m) % 7;
            assert_eq!(content(&after)[usize::from(m) * 4096], newest, "page {m} after {n}");
        }
    }
    let log = disk.now().bytes(Path::new("log")).expect("there").len();
    assert!(log as u64 <= ROOM + GRAIN as u64, "{log}");
}

#[test]
fn frames_for_another_file_or_of_an_earlier_generation_are_left_alone() {
    let disk = LyingDisk::default();
    let (ahead, beneath) = open(&disk, 1);
    ahead.begin(ROOM).expect("begins");
    beneath.write(0, b"mine").expect("writes");
    ahead.flush().expect("flushes");
    drop(ahead.settle().expect("settles"));
    // written past the log, as a database that is closed does
    beneath.write(0, b"last").expect("writes");
    beneath.close().expect("closes");
    drop((ahead, beneath));
    drop(open(&disk, 1));
    assert_eq!(&content(&disk), b"last");
}

#[test]
fn a_torn_frame_after_a_settled_log_brings_nothing_back() {
    let disk = LyingDisk::default();
    let (ahead, beneath) = open(&disk, 1);
    ahead.begin(ROOM).expect("begins");
    for byte in 1..=3 {
        beneath.write(0, &[byte; 8]).expect("writes");
        ahead.flush().expect("flushes");
    }
    drop(ahead.settle().expect("settles"));
    beneath.write(0, b"straight").expect("writes");
    beneath.close().expect("closes");
    drop((ahead, beneath));
    let (ahead, beneath) = open(&disk, 1);
    ahead.begin(ROOM).expect("begins");
    let before = disk.now().bytes(Path::new("log")).expect("there");
    beneath.write(0, b"torn").expect("writes");
    ahead.flush().expect("flushes");
    let mut image = disk.now();
    let mut log = image.bytes(Path::new("log")).expect("there");
    let changed = log.chunks(512).zip(before.chunks(512)).position(|(now, then)| now != then).expect("a frame");
    log[changed * 512..][..512].fill(0x11);
    image.set(Path::new("log"), &log);
    image.set(Path::new("file"), b"straight");
    let after = LyingDisk::holding(image);
    drop(open(&after, 1));
    assert_eq!(&content(&after), b"straight");
}

#[test]
fn a_damaged_frame_costs_only_itself() {
    let disk = LyingDisk::default();
    let (ahead, beneath) = open(&disk, 1);
    ahead.begin(ROOM).expect("begins");
    for (page, byte) in [(0, 1), (1, 2), (2, 3)] {
        beneath.write(page * 4096, &[byte; 4096]).expect("writes");
        ahead.flush().expect("flushes");
    }
    drop((ahead, beneath));
    let mut image = cut(Image::default(), &disk).now();
    let mut log = image.bytes(Path::new("log")).expect("there");
    log[BEGIN + GRAIN + HEAD_BYTES] ^= 1;
    image.set(Path::new("log"), &log);
    let after = LyingDisk::holding(image);
    drop(open(&after, 1));
    let found = content(&after);
    assert_eq!([found[0], found[4096], found[8192]], [1, 0, 3]);
}

#[test]
fn after_a_failure_nothing_is_written_any_more_and_readers_see_what_was() {
    let (watch, ahead, beneath) = watched(&LyingDisk::default());
    beneath.set_len(4096).expect("grows");
    ahead.begin(ROOM).expect("begins");
    beneath.write(0, b"held").expect("writes");
    watch.broken.store(true, Ordering::Relaxed);
    // its frame is in the log by then
    ahead.flush().expect_err("the file cannot be written");
    let mut read = [0; 4];
    beneath.read(0, &mut read).expect("reads");
    assert_eq!(&read, b"held", "a reader's database is what was written, until it is closed");
    beneath.write(0, b"more").expect_err("refused");
    beneath.sync_data().expect_err("refused");
    ahead.flush().expect_err("refused");
    watch.over.lock().expect("not poisoned").take();
}

#[test]
fn a_log_in_use_is_not_touched() {
    let scratch = tempfile::tempdir().expect("a directory");
    let disk = crate::store::disk::real();
    let file = |name: &str| disk.file(&scratch.path().join(name)).expect("a file");
    let (first, beneath) = Ahead::open(file("log"), file("file"), 1).expect("opens");
    let second = Ahead::open(file("log"), file("file"), 1);
    assert_eq!(second.expect_err("locked").kind(), io::ErrorKind::WouldBlock);
    drop((first, beneath));
    Ahead::open(file("log"), file("file"), 1).expect("free again");
}

proptest! {
    #[test]
    fn any_bytes_are_a_log(bytes in proptest::collection::vec(any::<u8>(), 0..20_000)) {
        let mut image = Image::default();
        image.set(Path::new("log"), &bytes);
        let disk = LyingDisk::holding(image);
        drop(open(&disk, 1));
        prop_assert_eq!(content(&disk), Vec::<u8>::new());
    }

    #[test]
    fn any_writes_read_back(writes in proptest::collection::vec((0_u64..300, proptest::collection::vec(any::<u8>(), 1..100), any::<bool>()), 1..40)) {
        let disk = LyingDisk::default();
        let (ahead, beneath) = open(&disk, 1);
        beneath.set_len(400).expect("grows");
        ahead.begin(ROOM).expect("begins");
        let mut wanted = vec![0; 400];
        for (at, bytes, flush) in &writes {
            beneath.write(*at, bytes).expect("writes");
            let begin = usize::try_from(*at).expect("small");
            wanted[begin..begin + bytes.len()].copy_from_slice(bytes);
            if *flush {
                ahead.flush().expect("flushes");
            }
            let mut found = vec![0; 200];
            beneath.read(100, &mut found).expect("reads");
            prop_assert_eq!(&found[..], &wanted[100..300]);
        }
        ahead.flush().expect("flushes");
        prop_assert_eq!(content(&disk), wanted.clone());
        let after = cut(Image::default(), &disk);
        drop(open(&after, 1));
        prop_assert_eq!(content(&after), wanted);
    }
}

#[test]
fn the_file_may_become_shorter() {
    let disk: Arc<LyingDisk> = Arc::default();
    let (ahead, beneath) = open(&disk, 1);
    beneath.set_len(8192).expect("grows");
    ahead.begin(ROOM).expect("begins");
    beneath.write(0, b"kept").expect("writes");
    beneath.set_len(4096).expect("shrinks");
    assert_eq!(beneath.len().expect("a length"), 4096);
    assert_eq!(content(&disk).len(), 8192, "not before what waits is durable");
    ahead.flush().expect("flushes");
    assert_eq!(content(&disk).len(), 4096);
}

/// Watches a file that is read through the log.
#[derive(Debug, Default)]
struct Watch {
    over: Mutex<Option<Arc<Inner>>>,
    /// A flush could have come in between while it was read.
    open: AtomicBool,
    /// It takes no writes.
    broken: AtomicBool,
}

#[derive(Debug)]
struct Watched(File, Arc<Watch>);

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if let Some(inner) = &*self.1.over.lock().expect("not poisoned") {
            let open = !inner.idle.load(Ordering::Acquire) && inner.state.try_lock().is_ok();
            self.1.open.fetch_or(open, Ordering::Relaxed);
        }
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.1.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other("a bad sector"));
        }
        self.0.write(offset, data)
    }
}

fn watched(disk: &LyingDisk) -> (Arc<Watch>, Ahead, Beneath) {
    let watch = Arc::<Watch>::default();
    let file = Watched(disk.file(Path::new("file")).expect("a file"), Arc::clone(&watch));
    let log = disk.file(Path::new("log")).expect("a file");
    let (ahead, beneath) = Ahead::open(log, Box::new(file), 1).expect("opens");
    *watch.over.lock().expect("not poisoned") = Some(Arc::clone(&beneath.0));
    (watch, ahead, beneath)
}

#[test]
fn no_flush_comes_between_the_file_and_what_waits_for_it() {
    // a reader that had the page from before the flush kept it, and the next commit was built on it: a batch was lost
    let (watch, ahead, beneath) = watched(&LyingDisk::default());
    beneath.set_len(4096).expect("grows");
    ahead.begin(ROOM).expect("begins");
    beneath.write(0, b"waits").expect("writes");
    let mut read = [0; 5];
    beneath.read(0, &mut read).expect("reads");
    assert_eq!(&read, b"waits");
    assert!(!watch.open.load(Ordering::Relaxed), "the flush has to wait for the reader");
    watch.over.lock().expect("not poisoned").take();
}
