//! Copying from an origin that changes under the copy.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use tempfile::TempDir;

use super::origin::{LogRows, Origin};
use super::*;
use crate::store::backup::{Row, check};

/// A gateway's journal that ages out, or has holes, while it is read.
struct Moving {
    cursor: u64,
    oldest: u64,
    head: u64,
    /// Records that a damaged segment took.
    hole: RangeInclusive<u64>,
    /// Before the page that begins so, the oldest record becomes this one. Each once.
    ages: RefCell<Vec<(u64, u64)>>,
    aged: RefCell<u64>,
    begun: u32,
}

impl Moving {
    fn new(cursor: u64, oldest: u64, head: u64) -> Self {
        let ages = RefCell::new(Vec::new());
        Self { cursor, oldest, head, hole: 0..=0, ages, aged: RefCell::new(0), begun: 0 }
    }
}

impl Origin for Moving {
    fn begin(&mut self) -> Result<Moment, Failure> {
        self.begun += 1;
        self.oldest = self.oldest()?;
        // the fold went on before anything could age out
        self.cursor = self.cursor.max(self.oldest.saturating_sub(1));
        let link = "0".repeat(64);
        Ok(Moment {
            at: String::new(),
            cursor: self.cursor,
            ledger: 0,
            link,
            ignored: 0,
            oldest: self.oldest,
            head: self.head,
        })
    }

    fn rows(&self, _after: Option<&(String, Vec<u8>)>) -> Result<Vec<Row>, Failure> {
        Ok(Vec::new())
    }

    fn log(&self, log: Log, from: u64) -> Result<LogRows, Failure> {
        self.ages.borrow_mut().retain(|(before, oldest)| {
            if *before == from {
                *self.aged.borrow_mut() = *oldest;
            }
            *before != from
        });
        let from = from.max(self.oldest()?);
        let numbers = (from..=self.head).filter(|n| log == Log::Journal && !self.hole.contains(n));
        Ok(numbers.take(3).map(|n| (n, n.to_be_bytes().to_vec())).collect())
    }

    fn oldest(&self) -> Result<u64, Failure> {
        Ok(self.oldest.max(*self.aged.borrow()))
    }
}

fn span(manifest: &Manifest) -> (u64, u64, u64) {
    manifest.journal.map(|j| (j.first, j.last, j.rows)).expect("a journal")
}

#[test]
fn a_backup_that_retention_overtakes_begins_anew() {
    let dir = TempDir::new().expect("a directory");
    // when records 10 to 14 are gone before they are read, the tables of record 4 are too old for the rest
    let mut origin = Moving::new(4, 1, 20);
    origin.ages.borrow_mut().push((10, 15));
    let (manifest, _) = copy(&mut origin, dir.path()).expect("a backup");
    assert_eq!((origin.begun, manifest.cursor, span(&manifest)), (2, 14, (15, 20, 6)));
    check(dir.path()).expect("whole");
}

#[test]
fn records_that_the_tables_hold_may_age_out_meanwhile() {
    let dir = TempDir::new().expect("a directory");
    let mut origin = Moving::new(14, 1, 20);
    origin.ages.borrow_mut().push((10, 15));
    let (manifest, _) = copy(&mut origin, dir.path()).expect("a backup");
    assert_eq!((origin.begun, span(&manifest)), (1, (1, 20, 15)));
}

#[test]
fn what_the_gateway_has_lost_is_no_reason_to_begin_anew() {
    let dir = TempDir::new().expect("a directory");
    let mut origin = Moving::new(4, 1, 20);
    origin.hole = 8..=12;
    let (manifest, _) = copy(&mut origin, dir.path()).expect("a backup");
    assert_eq!((origin.begun, span(&manifest)), (1, (1, 20, 15)));
    // the row that the backup ends with is lost later
    origin.head = 30;
    origin.hole = 18..=22;
    let (manifest, _) = copy(&mut origin, dir.path()).expect("a backup");
    assert_eq!((origin.begun, span(&manifest)), (2, (1, 30, 23)));
}

#[test]
fn a_journal_that_never_holds_still_is_given_up() {
    let dir = TempDir::new().expect("a directory");
    let mut origin = Moving::new(0, 1, 400);
    // always ahead of the copy
    *origin.ages.borrow_mut() = vec![(4, 50), (53, 90), (93, 150)];
    let failure = copy(&mut origin, dir.path()).expect_err("it is overtaken");
    assert_eq!((failure.code, origin.begun), (code::TRY_AGAIN, TRIES));
    assert!(failure.message.contains("[retention].bytes"), "{}", failure.message);
    assert!(check(dir.path()).is_err(), "no manifest");
}

#[test]
fn another_history_is_refused() {
    let dir = TempDir::new().expect("a directory");
    copy(&mut Moving::new(4, 1, 20), dir.path()).expect("a backup");
    let failure = copy(&mut Moving::new(4, 1, 19), dir.path()).expect_err("it has less");
    assert!(failure.message.contains("only to 19 here"), "{}", failure.message);
    let (manifest, written) = copy(&mut Moving::new(4, 1, 20), dir.path()).expect("a backup");
    assert!(written < 100 && span(&manifest) == (1, 20, 20), "{written}");
}
