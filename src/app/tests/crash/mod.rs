//! Power cuts: a disk that lies, a gateway's store at work on it, and a judge of every image that a cut may leave.
//!
//! A [`workload`] runs the real journal, fold, checkpoints, snapshots and retention in several lives, each after a power cut
//! in the one before. Every life keeps the log of what it asked of the disk. An image is a cut in a life's log and a choice
//! of what reached the disk by then; it is opened by the real recovery and [`judge`]d. Because a life begins with the
//! recovery of an image, a cut in its beginning is a cut in a recovery.
//!
//! An image's number is its seed. `STOCKGATE_CRASH_IMAGES=n` checks `n` images, `STOCKGATE_CRASH_SEED=s` only image `s`, and
//! both of them `n` images from `s` on.

mod damage;
mod judge;
mod workload;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::judge::{judge, recover_and_fold};
use self::workload::{DATA, Life, Workload};
use crate::store::disk::Disk;
use crate::store::disk::lying::{Image, LyingDisk, Op, Platter};
use crate::store::state_path;

/// Images that every `cargo test` checks.
const IMAGES: u64 = 2000;
/// Images made from one workload.
const IMAGES_A_WORKLOAD: u64 = 500;

/// SplitMix64: the same numbers for the same seed on every machine.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64, stream: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ stream.rotate_left(40))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// An image to be made: which one, of which life, cut where.
struct Cut {
    number: u64,
    life: usize,
    at: usize,
    random: Random,
}

impl Cut {
    fn new(number: u64, workload: &Workload) -> Self {
        let mut random = Random::new(number, 2);
        let life = usize::try_from(random.below(workload.lives.len() as u64)).expect("few");
        let Life { log, recovered, .. } = &workload.lives[life];
        // one in four in the recovery that the life begins with
        let end = if random.below(4) == 0 { *recovered } else { log.len() };
        let at = usize::try_from(random.below(end as u64 + 1)).expect("fits");
        Self { number, life, at, random }
    }
}

/// Make and judge images of one workload; `Err`: the first image that fails, and why. `played` says which operations the
/// disk takes seriously: a control takes some away.
fn check(
    workload: &Workload,
    numbers: impl Iterator<Item = u64>,
    played: impl Fn(&Life, usize) -> bool,
) -> Result<(), String> {
    let mut cuts: Vec<Cut> = numbers.map(|number| Cut::new(number, workload)).collect();
    cuts.sort_by_key(|cut| (cut.life, cut.at));
    let mut platters: Vec<(usize, Platter)> =
        workload.lives.iter().map(|life| (0, Platter::new(life.base.clone()))).collect();
    for mut cut in cuts {
        let life = &workload.lives[cut.life];
        let (done, platter) = &mut platters[cut.life];
        for i in *done..cut.at {
            if played(life, i) {
                platter.play(&life.log[i]);
            }
        }
        *done = cut.at;
        let image = platter.image(&mut |bound| cut.random.below(bound));
        let judged = catch_unwind(AssertUnwindSafe(|| {
            // one in four: another cut while the first is recovered from
            let image = if cut.random.below(4) == 0 { cut_recovery(image, &mut cut.random) } else { image };
            judge(image, life, cut.at, &mut cut.random)
        }));
        let judged = judged.unwrap_or_else(|panic| {
            let text =
                panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        });
        judged.map_err(|why| {
            let (number, life_number, at, all) = (cut.number, cut.life, cut.at, life.log.len());
            format!("image STOCKGATE_CRASH_SEED={number} (life {life_number}, cut at {at} of {all}): {why}")
        })?;
    }
    Ok(())
}

/// Begin to recover, and lose power while at it.
fn cut_recovery(mut image: Image, random: &mut Random) -> Image {
    if random.below(4) == 0 {
        // the state is rebuilt
        image.remove(&state_path(Path::new(DATA)));
    }
    let lying = LyingDisk::holding(image.clone());
    recover_and_fold(&(Arc::new(lying.clone()) as Arc<dyn Disk>));
    let log = lying.log();
    let mut platter = Platter::new(image);
    let at = usize::try_from(random.below(log.len() as u64 + 1)).expect("fits");
    log[..at].iter().for_each(|op| platter.play(op));
    platter.image(&mut |bound| random.below(bound))
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Which images to check.
fn asked_for() -> std::ops::Range<u64> {
    let seed = number_from_environment("STOCKGATE_CRASH_SEED");
    let images = number_from_environment("STOCKGATE_CRASH_IMAGES").unwrap_or(if seed.is_some() { 1 } else { IMAGES });
    let first = seed.unwrap_or(0);
    first..first + images
}

#[test]
fn crash_every_image_recovers() {
    let std::ops::Range { start: first, end } = asked_for();
    let workloads: Vec<u64> = (first / IMAGES_A_WORKLOAD..end.div_ceil(IMAGES_A_WORKLOAD)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(workloads.len());
    let failed = AtomicBool::new(false);
    let part = |offset: usize| {
        for number in workloads.iter().skip(offset).step_by(threads) {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            let range = (number * IMAGES_A_WORKLOAD).max(first)..((number + 1) * IMAGES_A_WORKLOAD).min(end);
            let result = check(&Workload::run(*number), range, |_, _| true);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
                return result;
            }
        }
        Ok(())
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|offset| scope.spawn(move || part(offset))).collect();
        threads.into_iter().map(|thread| thread.join().expect("its panics are caught")).collect()
    });
    for result in results {
        result.unwrap_or_else(|why| panic!("{why}"));
    }
}

#[test]
fn crash_a_workload_meets_everything_and_is_the_same_for_the_same_seed() {
    let (one, two) = (Workload::run(7), Workload::run(7));
    for (a, b) in one.lives.iter().zip(&two.lives) {
        assert_eq!(a.log.len(), b.log.len());
        assert!(a.log.iter().zip(&b.log).all(|(a, b)| format!("{a:?}") == format!("{b:?}")), "byte for byte");
        assert_eq!((&a.acked, &a.sent), (&b.acked, &b.sent));
    }
    let names: Vec<String> = one
        .lives
        .iter()
        .flat_map(|life| &life.log)
        .filter_map(|op| match op {
            Op::Create(path, _) | Op::Rename(_, path) => Some(format!("made {}", path.display())),
            Op::Remove(path) => Some(format!("removed {}", path.display())),
            _ => None,
        })
        .collect();
    for expected in ["made data/journal/", "made data/snapshot.redb", "made data/state.redb", "removed data/journal/0"] {
        assert!(names.iter().any(|name| name.starts_with(expected)), "{expected}: {names:?}");
    }
    assert!(one.lives.len() > 1 && one.lives.iter().all(|life| life.recovered > 0));
    for file in ["state.unfinished", "snapshot.unfinished"] {
        let met = one.lives.iter().any(|life| commits_within(&life.log, file) > 0);
        assert!(met, "no delivery was acknowledged while {file} was being written");
    }
}

/// Commits of the journal between two writes to a file that are made durable together.
fn commits_within(log: &[Op], name: &str) -> usize {
    let of = |name: &str| {
        log.iter().find_map(|op| match op {
            Op::Create(path, file) if path.ends_with(name) => Some(*file),
            _ => None,
        })
    };
    let (Some(file), Some(ahead)) = (of(name), of("ahead.log")) else { return 0 };
    let (mut met, mut waiting, mut since) = (0, false, 0);
    for op in log {
        match op {
            Op::Write(to, ..) if *to == file => {
                met += std::mem::take(&mut since);
                waiting = true;
            }
            Op::Sync(of) if *of == file => (waiting, since) = (false, 0),
            Op::Sync(of) if *of == ahead && waiting => since += 1,
            _ => {}
        }
    }
    met
}

/// The operations of a control are not played; the judge must notice within a few images.
fn control(says: &str, played: impl Fn(&Life, usize) -> bool) {
    let workload = Workload::run(0);
    let found = check(&workload, 0..IMAGES_A_WORKLOAD, played).expect_err("the judge sees it");
    assert!(found.contains(says), "{found}");
}

#[test]
fn crash_control_acknowledging_before_the_sync_is_found() {
    let mut workload = Workload::run(0);
    let log = workload.lives[0].log.iter().find_map(|op| match op {
        Op::Create(path, file) if path.ends_with("ahead.log") => Some(*file),
        _ => None,
    });
    for life in &mut workload.lives {
        for (moment, _) in life.acked.iter_mut().skip(1) {
            let synced = |op: &Op| matches!(op, Op::Sync(file) if Some(*file) == log);
            *moment = life.log[..*moment].iter().rposition(synced).expect("a commit syncs the log");
        }
    }
    let found = check(&workload, 0..IMAGES_A_WORKLOAD, |_, _| true).expect_err("the judge sees it");
    assert!(found.contains("acknowledged"), "{found}");
}

#[test]
fn crash_control_a_sync_that_does_nothing_is_found() {
    control("", |life, i| !matches!(life.log[i], Op::Sync(_)));
}

#[test]
fn crash_control_names_that_are_not_synced_are_found() {
    control("acknowledged", |life, i| !matches!(life.log[i], Op::SyncDirectory(_)));
}
