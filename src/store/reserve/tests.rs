use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::*;

const FLOOR: u64 = DISK_FLOOR_BYTES;
const LEAST: u64 = 32 * MIB;

/// A disk of numbers.
#[derive(Clone, Default)]
struct Numbers(Arc<Mutex<Figures>>);

#[derive(Default)]
struct Figures {
    /// Free beside the reserve.
    free: u64,
    state: u64,
    held: u64,
    /// What an attempt to allocate answers.
    refuses: Option<io::ErrorKind>,
}

impl Numbers {
    fn with(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.0.lock().unwrap());
    }

    fn held(&self) -> u64 {
        self.0.lock().unwrap().held
    }
}

impl Space for Numbers {
    fn free(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().free)
    }

    fn state(&self) -> u64 {
        self.0.lock().unwrap().state
    }

    fn held(&self) -> u64 {
        self.0.lock().unwrap().held
    }

    fn hold(&self, bytes: u64) -> io::Result<()> {
        let mut figures = self.0.lock().unwrap();
        if let Some(kind) = figures.refuses {
            return Err(kind.into());
        }
        let more = bytes - figures.held;
        figures.free = figures.free.checked_sub(more).ok_or(io::ErrorKind::StorageFull)?;
        figures.held = bytes;
        Ok(())
    }

    fn release(&self) -> io::Result<()> {
        let mut figures = self.0.lock().unwrap();
        figures.free += std::mem::take(&mut figures.held);
        Ok(())
    }
}

fn reserve(free: u64) -> (Numbers, Reserve) {
    let numbers = Numbers::default();
    numbers.with(|figures| figures.free = free);
    let reserve = Reserve::over(Box::new(numbers.clone()), LEAST);
    (numbers, reserve)
}

#[test]
fn it_stands_while_there_is_room_and_is_spent_below_the_floor() {
    let (numbers, reserve) = reserve(1024 * MIB);
    assert!(reserve.admits());
    assert_eq!(numbers.held(), LEAST);
    numbers.with(|figures| figures.free = FLOOR);
    assert!(reserve.admits(), "the floor itself is room enough");
    numbers.with(|figures| figures.free = FLOOR - 1);
    assert!(!reserve.admits());
    assert_eq!(numbers.held(), 0, "its room is for checkpoints and retention now");
    assert!(!reserve.admits(), "though the room that it gave back would do for a commit");
}

#[test]
fn acknowledgement_resumes_when_there_is_room_for_it_again_and_some_more() {
    let (numbers, reserve) = reserve(1024 * MIB);
    numbers.with(|figures| figures.free = 0);
    reserve.look();
    assert!(!reserve.has_room());
    numbers.with(|figures| figures.free = reserve.needed() - 1);
    reserve.look();
    assert!(!reserve.has_room());
    numbers.with(|figures| figures.free = reserve.needed());
    reserve.look();
    assert!(reserve.has_room());
    assert_eq!(numbers.held(), LEAST);
    reserve.look();
    assert!(reserve.admits(), "it does not come and go");
}

#[test]
fn it_grows_with_the_state_by_at_most_half_of_what_is_free() {
    let (numbers, reserve) = reserve(1024 * MIB);
    numbers.with(|figures| figures.state = 100 * MIB + 1);
    reserve.look();
    assert_eq!(numbers.held(), 133 * MIB, "whole MiB");
    numbers.with(|figures| (figures.state, figures.free) = (1024 * MIB, 200 * MIB));
    reserve.look();
    assert_eq!(numbers.held(), 233 * MIB);
    for _ in 0..20 {
        reserve.look();
    }
    assert!(reserve.has_room(), "growing does not spend it");
}

#[test]
fn a_write_that_failed_for_want_of_room_spends_it() {
    let (numbers, reserve) = reserve(1024 * MIB);
    reserve.failed(&StoreError::Io("a broken disk".to_owned()));
    assert!(reserve.has_room(), "nobody needs room");
    reserve.failed(&StoreError::Full("quota".to_owned()));
    assert!(!reserve.has_room());
    assert_eq!(numbers.held(), 0);
    // the quota is still full: allocating says so
    numbers.with(|figures| figures.refuses = Some(io::ErrorKind::QuotaExceeded));
    reserve.look();
    assert!(!reserve.has_room());
    numbers.with(|figures| figures.refuses = None);
    reserve.look();
    assert!(reserve.has_room());
}

#[test]
fn where_it_cannot_be_made_the_floor_still_holds() {
    let numbers = Numbers::default();
    numbers.with(|figures| (figures.free, figures.refuses) = (1024 * MIB, Some(io::ErrorKind::FileTooLarge)));
    let reserve = Reserve::over(Box::new(numbers.clone()), LEAST);
    assert!(reserve.admits());
    numbers.with(|figures| figures.free = FLOOR - 1);
    assert!(!reserve.admits());
    numbers.with(|figures| figures.free = 1024 * MIB);
    reserve.look();
    assert!(reserve.admits());
}

#[test]
fn a_start_on_a_full_disk_finds_the_room_that_was_kept() {
    let numbers = Numbers::default();
    numbers.with(|figures| figures.held = LEAST);
    let reserve = Reserve::over(Box::new(numbers.clone()), LEAST);
    assert!(!reserve.has_room());
    assert_eq!((numbers.held(), reserve.free()), (0, 0));
    reserve.look();
    assert_eq!(reserve.free(), LEAST);
}

#[test]
fn the_file_has_real_blocks_and_goes_at_once() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let space = DataDirectory(directory.path().to_owned());
    let free = space.free().expect("it says");
    assert!(free > 0);
    assert_eq!(space.held(), 0);
    space.release().expect("none to remove");
    space.hold(2 * MIB).expect("room");
    assert_eq!(space.held(), 2 * MIB);
    space.hold(3 * MIB).expect("room");
    assert_eq!(space.held(), 3 * MIB);
    assert!(space.hold(u64::MAX / 4).is_err(), "no disk is so large");
    assert_eq!(space.held(), 3 * MIB, "what there was is still there");
    space.release().expect("removes");
    assert_eq!(space.held(), 0);
    // a hole is no room
    File::create(directory.path().join(FILE)).and_then(|f| f.set_len(5 * MIB)).expect("makes");
    assert_eq!(space.held(), 0);
    let path = directory.path().join(FILE);
    let mut file = File::options().create(true).truncate(true).read(true).write(true).open(path).expect("makes");
    fill(&mut file, 0, 2 * MIB).expect("writes");
    assert_eq!(space.held(), 2 * MIB);
    file.write_all_at(b"there", 0).expect("writes");
    fill(&mut file, 2 * MIB, 3 * MIB).expect("writes");
    assert_eq!(space.held(), 3 * MIB);
    let mut start = [0; 5];
    file.read_exact_at(&mut start, 0).expect("reads");
    assert_eq!(&start, b"there", "what was there is not written again");
}

#[test]
fn a_journal_without_room_refuses_untouched_and_goes_on_when_there_is_some() {
    use crate::store::journal::{Journal, Refused};
    let directory = tempfile::TempDir::new().expect("a directory");
    let (numbers, reserve) = reserve(1024 * MIB);
    let reserve = Arc::new(reserve);
    let journal = Journal::open(directory.path(), 1 << 20, 0).expect("opens");
    journal.keep_room(Arc::clone(&reserve));
    let (appender, thread) = journal.start(16, |_| {}).expect("starts");
    let append = || appender.append(b"record".to_vec()).and_then(super::super::journal::Pending::durable_blocking);
    assert_eq!(append(), Ok(1));
    numbers.with(|figures| figures.free = FLOOR - 1);
    assert_eq!(append(), Err(Refused::Unavailable), "the writer has looked");
    assert_eq!(append(), Err(Refused::Unavailable), "and now nobody has to look");
    assert!(journal.healthy(), "no commit has failed, there is nothing to repair");
    assert_eq!(journal.head(), 1);
    numbers.with(|figures| figures.free = 1024 * MIB);
    reserve.look();
    assert_eq!(append(), Ok(2));
    drop(appender);
    thread.join().expect("ends");
}
