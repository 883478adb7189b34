//! The log over a disk that lies.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::store::disk::lying::{Image, LyingDisk, Op, Platter};
use crate::store::disk::{self, Disk};

const LOG: &str = "log";

fn file(disk: &LyingDisk) -> File {
    disk.file(Path::new(LOG)).expect("a file")
}

fn row(seq: u64) -> Row {
    (seq, seq.to_string().into_bytes())
}

/// What the log has for a segment.
fn rows_in(disk: &LyingDisk, of: u64) -> Vec<Row> {
    Log::open(file(disk), of).expect("opens").1
}

/// The disk as it is after a power cut that loses all that was not synced.
fn cut(disk: &LyingDisk) -> LyingDisk {
    let mut platter = Platter::new(Image::default());
    disk.log().iter().for_each(|op| platter.play(op));
    // the names are not what is tested
    platter.play(&Op::SyncDirectory(Path::new("").to_owned()));
    LyingDisk::holding(platter.image(&mut |_| 0))
}

/// The disk with other bytes in the log.
fn with(bytes: &[u8]) -> LyingDisk {
    let mut image = Image::default();
    image.set(Path::new(LOG), bytes);
    LyingDisk::holding(image)
}

fn bytes(disk: &LyingDisk) -> Vec<u8> {
    disk.now().bytes(Path::new(LOG)).unwrap_or_default()
}

#[test]
fn what_was_appended_is_there_after_a_power_cut_until_it_is_settled() {
    let disk = LyingDisk::default();
    let (mut log, found) = Log::open(file(&disk), 7).expect("opens");
    assert_eq!(found, []);
    log.append(7, &[row(1), row(3)]).expect("appends");
    log.append(7, &[row(9)]).expect("appends");
    let after = cut(&disk);
    assert_eq!(rows_in(&after, 7), [row(1), row(3), row(9)]);
    assert_eq!(rows_in(&after, 8), [], "nothing of it is another segment's");
    // opened and left alone, it has them still; frames go on behind them
    let (mut log, _) = Log::open(file(&after), 7).expect("opens");
    log.append(7, &[row(12)]).expect("appends");
    assert_eq!(rows_in(&cut_again(&after, &disk), 7), [row(1), row(3), row(9), row(12)]);
    log.settle().expect("settles");
    assert_eq!(rows_in(&cut_again(&after, &disk), 7), []);
    log.append(7, &[row(20)]).expect("appends");
    assert_eq!(rows_in(&cut_again(&after, &disk), 7), [row(20)], "those before it are of another generation");
}

/// A disk that began with what another one had after a power cut, after one more.
fn cut_again(disk: &LyingDisk, before: &LyingDisk) -> LyingDisk {
    let mut platter = Platter::new(cut(before).now());
    disk.log().iter().for_each(|op| platter.play(op));
    platter.play(&Op::SyncDirectory(Path::new("").to_owned()));
    LyingDisk::holding(platter.image(&mut |_| 0))
}

#[test]
fn a_log_that_is_emptied_has_nothing_durably() {
    let disk = LyingDisk::default();
    let (mut log, _) = Log::open(file(&disk), 1).expect("opens");
    log.append(1, &[row(1)]).expect("appends");
    drop(log);
    drop(Log::emptied(file(&disk)).expect("opens"));
    assert_eq!(rows_in(&cut(&disk), 1), []);
}

#[test]
fn a_log_that_is_settled_begins_anew_and_stays_as_long_as_it_is() {
    let disk = LyingDisk::default();
    let (mut log, _) = Log::open(file(&disk), 1).expect("opens");
    let room = 24 * 1024;
    log.make_room(room);
    for seq in 1..50 {
        log.append(1, &[row(seq)]).expect("appends");
        assert_eq!(rows_in(&cut(&disk), 1).last(), Some(&row(seq)));
        if log.is_full(room) {
            log.settle().expect("settles");
        }
    }
    assert_eq!(bytes(&disk).len() as u64, room);
}

#[test]
fn a_torn_frame_brings_nothing_back_that_was_settled() {
    let disk = LyingDisk::default();
    let (mut log, _) = Log::open(file(&disk), 1).expect("opens");
    for seq in 1..=3 {
        log.append(1, &[row(seq)]).expect("appends");
    }
    log.settle().expect("settles");
    let before = bytes(&disk);
    log.append(1, &[row(4)]).expect("appends");
    let mut torn = bytes(&disk);
    let changed = torn.chunks(512).zip(before.chunks(512)).position(|(now, then)| now != then).expect("a frame");
    torn[changed * 512..][..512].fill(0x11);
    assert_eq!(rows_in(&with(&torn), 1), []);
}

#[test]
fn a_damaged_frame_costs_only_itself_and_a_damaged_mark_nothing() {
    let disk = LyingDisk::default();
    let (mut log, _) = Log::open(file(&disk), 1).expect("opens");
    for seq in 1..=3 {
        log.append(1, &[row(seq)]).expect("appends");
        if seq == 1 {
            log.settle().expect("settles");
            log.append(1, &[row(10)]).expect("appends");
        }
    }
    drop(log);
    let whole = bytes(&disk);
    assert_eq!(rows_in(&with(&whole), 1), [row(10), row(2), row(3)]);
    for at in [HEAD_BYTES, SUMMED_FROM, HEAD_BYTES - 1, 0] {
        let mut damaged = whole.clone();
        damaged[BEGIN + GRAIN + at] ^= 1;
        assert_eq!(rows_in(&with(&damaged), 1), [row(10), row(3)], "byte {at} of a frame");
    }
    let mut damaged = whole;
    damaged[0] ^= 1;
    assert_eq!(rows_in(&with(&damaged), 1), [row(10), row(2), row(3)], "the newest frames are those that count");
}

#[test]
fn a_damaged_mark_does_not_bring_back_those_before_it() {
    let disk = LyingDisk::default();
    let (mut log, _) = Log::open(file(&disk), 1).expect("opens");
    for turn in 0..3 {
        for seq in 1..=3 {
            log.append(1, &[row(turn * 10 + seq)]).expect("appends");
        }
        log.settle().expect("settles");
    }
    log.append(1, &[row(40)]).expect("appends");
    drop(log);
    let whole = bytes(&disk);
    assert_eq!(rows_in(&with(&whole), 1), [row(40)]);
    // either of the two marks, and both
    for marks in [0..1, 1..2, 0..2] {
        let mut damaged = whole.clone();
        marks.for_each(|mark| damaged[mark * GRAIN + SUMMED_FROM] ^= 1);
        let disk = with(&damaged);
        assert_eq!(rows_in(&disk, 1), [row(40)]);
        // and it goes on from there
        let (mut log, _) = Log::open(file(&disk), 1).expect("opens");
        log.append(1, &[row(41)]).expect("appends");
        drop(log);
        assert_eq!(rows_in(&disk, 1), [row(40), row(41)]);
    }
}

#[test]
fn what_was_sent_cannot_pass_for_a_frame() {
    // a frame as it would be written, in another log of the same generation
    let forger = LyingDisk::default();
    let (mut log, _) = Log::open(file(&forger), 1).expect("opens");
    log.append(1, &[(77, b"forged".to_vec())]).expect("appends");
    let forged = bytes(&forger)[BEGIN..][..GRAIN].to_vec();
    // sent so that it stands where a frame may begin, once as it is and once under each of the first masks
    let head = HEAD_BYTES + 1 + 3;
    let mut sent = vec![0; GRAIN - head];
    for masked in 0..4 {
        let mut copy = forged.clone();
        mask(&mut copy, 0, masked);
        sent.extend(copy);
    }
    let disk = LyingDisk::default();
    let (mut log, _) = Log::open(file(&disk), 1).expect("opens");
    let rows = [(1, sent)];
    log.append(1, &rows).expect("appends");
    drop(log);
    assert_eq!(rows_in(&disk, 1), rows);
    // its head is damaged, so that what stands behind it is looked at
    let mut damaged = bytes(&disk);
    damaged[BEGIN] ^= 1;
    assert_eq!(rows_in(&with(&damaged), 1), []);
    // without a mask it would be there
    mask(&mut damaged[BEGIN + HEAD_BYTES..], HEAD_BYTES, 4);
    assert_eq!(rows_in(&with(&damaged), 1), [(77, b"forged".to_vec())]);
}

#[test]
fn a_log_in_use_is_not_touched() {
    let scratch = tempfile::tempdir().expect("a directory");
    let disk = disk::real();
    let file = || disk.file(&scratch.path().join(LOG)).expect("a file");
    let first = Log::open(file(), 1).expect("opens");
    let second = Log::open(file(), 1);
    assert_eq!(second.expect_err("locked").kind(), io::ErrorKind::WouldBlock);
    drop(first);
    Log::open(file(), 1).expect("free again");
}

proptest! {
    #[test]
    fn any_bytes_are_a_log(bytes in proptest::collection::vec(any::<u8>(), 0..20_000)) {
        prop_assert_eq!(rows_in(&with(&bytes), 1), vec![]);
    }

    #[test]
    fn any_rows_read_back(frames in proptest::collection::vec(proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 0..6000)), 0..4), 0..8)) {
        let disk = LyingDisk::default();
        let (mut log, _) = Log::open(file(&disk), 1).expect("opens");
        for frame in &frames {
            log.append(1, frame).expect("appends");
        }
        drop(log);
        prop_assert_eq!(rows_in(&disk, 1), frames.concat());
    }
}
