//! Damage that no power cut does: bits that flip, sectors that are gone, files that are cut or full of rubbish.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::workload::{CACHE, DATA, GENERATION, Life, Running, Sent, Workload};
use super::{Random, asked_for};
use crate::pipeline::apply::refold;
use crate::store::disk::Disk;
use crate::store::disk::lying::{Image, LyingDisk, Platter};
use crate::store::journal::{Journal, Lost};
use crate::store::{journal_path, open_state_on, state_path};
use crate::types::Seq;

const PAGE: usize = 4096;

fn below(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).expect("fits")
}

/// Do something bad to a file.
fn spoil(image: &mut Image, path: &Path, random: &mut Random) -> &'static str {
    let mut bytes = image.bytes(path).expect("it is there");
    // most of a small database is zeros: damage there would be no damage
    let used: Vec<usize> = (0..bytes.len() / PAGE).filter(|p| bytes[p * PAGE..][..PAGE].iter().any(|b| *b != 0)).collect();
    let page = used[below(random, used.len())] * PAGE;
    let what = match random.below(6) {
        0 => {
            bytes[page + below(random, PAGE)] ^= 1 << random.below(8);
            "a bit"
        }
        1 => {
            for _ in 0..20 {
                let page = used[below(random, used.len())] * PAGE;
                bytes[page + below(random, PAGE)] ^= 1 << random.below(8);
            }
            "twenty bits"
        }
        2 => {
            bytes[page + 512 * below(random, 8)..][..512].fill(0);
            "a sector of zeros"
        }
        3 => {
            bytes[page..][..PAGE].fill_with(|| u8::try_from(random.below(256)).expect("a byte"));
            "a page of rubbish"
        }
        4 => {
            bytes.truncate(below(random, bytes.len()));
            "cut"
        }
        _ => {
            let length = below(random, bytes.len());
            bytes[..length].fill_with(|| u8::try_from(random.below(256)).expect("a byte"));
            "rubbish from its beginning"
        }
    };
    image.set(path, &bytes);
    what
}

fn segments(image: &Image) -> Vec<PathBuf> {
    let inside = |path: &&Path| path.parent() == Some(&journal_path(Path::new(DATA)));
    image.names().filter(inside).filter(|p| p.extension().is_some_and(|e| e == "redb")).map(Path::to_owned).collect()
}

fn numbers(lost: &[Lost], certain: bool) -> BTreeSet<Seq> {
    lost.iter().filter(|lost| lost.certain == certain).flat_map(|lost| lost.from..=lost.to).collect()
}

/// What is missing of the records that were in the journal; every record that is there is the one that was sent.
fn missing(journal: &Journal, records: &[Sent], oldest: Seq) -> BTreeSet<Seq> {
    let mut missing: BTreeSet<Seq> = (oldest..=records.len() as Seq).collect();
    for (seq, bytes) in journal.read(1, usize::MAX, usize::MAX).expect("a damaged journal can be read") {
        let sent = usize::try_from(seq).ok().and_then(|seq| records.get(seq - 1)).expect("it was sent");
        assert!(sent.bytes == bytes, "record {seq} is not what was sent");
        missing.remove(&seq);
    }
    missing
}

/// What is said to be lost is missing, and what is missing is said to be lost.
fn honest(journal: &Journal, missing: &BTreeSet<Seq>) {
    let lost = journal.lost();
    let (certain, perhaps) = (numbers(&lost, true), numbers(&lost, false));
    assert!(certain.is_subset(missing), "said to be lost, but there: {certain:?} of {missing:?}");
    let untold: Vec<_> = missing.difference(&certain).filter(|seq| !perhaps.contains(seq)).collect();
    assert!(untold.is_empty(), "lost without a word: {untold:?}, told: {lost:?}");
}

/// Open, compare, fold, go on, open again.
fn survives(image: Image, life: &Life) -> BTreeSet<Seq> {
    let records = &life.records;
    let first_of = |path: &PathBuf| path.file_stem()?.to_str()?.parse().ok();
    let oldest: Seq = segments(&life.end).first().and_then(first_of).expect("a segment");
    let disk: Arc<dyn Disk> = Arc::new(LyingDisk::holding(image));
    let mut running = Running::open(&disk);
    let gone = missing(&running.journal, records, oldest);
    honest(&running.journal, &gone);
    assert_eq!(running.state.meta.cursor, running.journal.head(), "a hole does not stop the fold");
    let next = running.append(&records[..1]);
    assert!(next > records.len() as Seq, "{next} was given before");
    running.fold();
    running.checkpoint();
    let told = running.journal.lost();
    let repairs = running.journal.repairs();
    running.close();
    // a person can still be told at the next start
    let running = Running::open(&disk);
    let read = running.journal.read(1, usize::MAX, usize::MAX).expect("reads");
    assert_eq!(read.last().map(|(seq, _)| *seq), Some(next));
    assert_eq!((running.journal.lost(), running.journal.repairs()), (told, repairs));
    running.close();
    gone
}

/// One for so many of the images that are asked for.
fn seeds(images: u64) -> std::ops::Range<u64> {
    let (first, images) = (asked_for().start, asked_for().count() as u64 / images);
    first..first + images.max(1)
}

fn a_life(seed: u64, lives: &mut Vec<Workload>) -> &Life {
    let number = usize::try_from(seed % 4).expect("small");
    while lives.len() <= number {
        lives.push(Workload::run(100 + lives.len() as u64));
    }
    &lives[number].lives[usize::try_from(seed / 4 % 3).expect("small")]
}

#[test]
fn crash_damaged_journals_give_what_they_still_hold() {
    let mut workloads = Vec::new();
    let (mut whole, mut lossy) = (0, 0);
    for seed in seeds(8) {
        let life = a_life(seed, &mut workloads);
        let mut random = Random::new(seed, 3);
        let mut image = life.end.clone();
        let paths = segments(&image);
        // the newest one, or any
        let newest = random.below(2) == 0;
        let path = &paths[if newest { paths.len() - 1 } else { below(&mut random, paths.len()) }];
        let what = spoil(&mut image, path, &mut random);
        let context = format!("STOCKGATE_CRASH_SEED={seed}: {what} in {}", path.display());
        let survived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| survives(image, life)));
        let gone = survived.unwrap_or_else(|_| panic!("{context}"));
        *if gone.is_empty() { &mut whole } else { &mut lossy } += 1;
    }
    let enough = (whole + lossy) / 5;
    assert!(whole >= enough && lossy >= enough, "damage that matters and damage that does not: {lossy} and {whole}");
}

#[test]
fn crash_damaged_journals_are_mended_through_power_cuts() {
    let mut workloads = Vec::new();
    for seed in seeds(20) {
        let life = a_life(seed, &mut workloads);
        let mut random = Random::new(seed, 4);
        let mut image = life.end.clone();
        let paths = segments(&image);
        let what = spoil(&mut image, &paths[below(&mut random, paths.len())], &mut random);
        let lying = LyingDisk::holding(image.clone());
        let running = Running::open(&(Arc::new(lying.clone()) as Arc<dyn Disk>));
        missing(&running.journal, &life.records, 1);
        lying.kill();
        running.close();
        let log = lying.log();
        let mut platter = Platter::new(image.clone());
        log[..below(&mut random, log.len() + 1)].iter().for_each(|op| platter.play(op));
        let cut = platter.image(&mut |bound| random.below(bound));
        let both = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (survives(image, life), survives(cut, life))));
        let (uncut, cut) = both.unwrap_or_else(|_| panic!("STOCKGATE_CRASH_SEED={seed}: {what}"));
        assert_eq!(uncut, cut, "seed {seed}: {what}: a power cut takes nothing more");
    }
}

/// Fold with whatever state is there: its digest.
fn refolded(disk: &Arc<dyn Disk>) -> [u8; 32] {
    let data = Path::new(DATA);
    let mut state = open_state_on(disk, data, CACHE, GENERATION).expect("a damaged state does not stop a start");
    let journal = Journal::open_on(Arc::clone(disk), data, CACHE, state.meta.cursor).expect("opens");
    refold(&journal, &mut state, Seq::MAX).expect("folds");
    state.digest().expect("reads")
}

#[test]
fn crash_damaged_states_are_set_aside_and_rebuilt() {
    let mut workloads = Vec::new();
    let mut aside = 0;
    for seed in seeds(10) {
        let life = a_life(seed, &mut workloads);
        let mut random = Random::new(seed, 5);
        let mut image = life.end.clone();
        let path = state_path(Path::new(DATA));
        let mut what = spoil(&mut image, &path, &mut random).to_owned();
        if random.below(2) == 0 {
            // it led the fold of the process before astray
            let bytes = image.bytes(&path).expect("it is there");
            image.set(&path.with_extension("suspect"), &bytes);
            image.remove(&path);
            what.push_str(", suspect");
        }
        let lying = LyingDisk::holding(image);
        let disk: Arc<dyn Disk> = Arc::new(lying.clone());
        let digest = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| refolded(&disk)));
        let digest = digest.unwrap_or_else(|_| panic!("STOCKGATE_CRASH_SEED={seed}: {what}"));
        assert_eq!(Some(&digest), life.digests.last(), "STOCKGATE_CRASH_SEED={seed}: {what}");
        aside += usize::from(lying.now().names().any(|name| name.display().to_string().contains("state.damaged-")));
    }
    assert!(aside > 0 || seeds(10).count() < 20, "none was damaged where it matters");
}

#[test]
fn crash_a_suspect_state_that_is_whole_gets_its_name_back() {
    let life = &Workload::run(100).lives[0];
    let lying = LyingDisk::holding(life.end.clone());
    let disk: Arc<dyn Disk> = Arc::new(lying.clone());
    let state = open_state_on(&disk, Path::new(DATA), CACHE, GENERATION).expect("opens");
    let folded = state.meta.cursor;
    state.suspect().expect("renames");
    drop(state);
    assert!(lying.now().bytes(&state_path(Path::new(DATA))).is_none());
    let state = open_state_on(&disk, Path::new(DATA), CACHE, GENERATION).expect("opens");
    assert!(folded > 0 && state.meta.cursor == folded, "as far as it was");
    let names: Vec<String> = lying.now().names().map(|name| name.display().to_string()).collect();
    assert!(names.iter().all(|name| !name.contains("damaged") && !name.contains("suspect")), "{names:?}");
}
