//! What the simulated senders count, while it happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of the latency histogram: eight for each power of two of microseconds.
const BUCKETS: usize = 8 * 40;

/// Counters of one account, shared by its lanes.
pub struct Meter {
    ok: AtomicU64,
    rejected: AtomicU64,
    slipped: AtomicU64,
    snubbed: AtomicU64,
    other: AtomicU64,
    lost: AtomicU64,
    greeted: AtomicU64,
    slowest_us: AtomicU64,
    buckets: Vec<AtomicU64>,
}

/// What one account's senders have seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Deliveries that were answered with yes or no: `ok + rejected`.
    pub deliveries: u64,
    /// Taken.
    pub ok: u64,
    /// Refused as not genuine (401, 403, 404).
    pub rejected: u64,
    /// Forged ones among `ok`: there must be none.
    pub slipped: u64,
    /// Genuine ones among `rejected`: there must be none.
    pub snubbed: u64,
    /// Answered otherwise (503: too busy): the platform acts as it does in such a case.
    pub other: u64,
    /// Not answered in time, or the connection broke.
    pub lost: u64,
    /// Pings answered.
    pub greeted: u64,
    /// The longest wait for an answer.
    pub slowest: Duration,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Taken.
    Ok,
    /// 401 and its like.
    Rejected,
    /// Another answer.
    Other,
    /// None.
    Lost,
}

impl Default for Meter {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            ok: zero(),
            rejected: zero(),
            slipped: zero(),
            snubbed: zero(),
            other: zero(),
            lost: zero(),
            greeted: zero(),
            slowest_us: zero(),
            buckets: (0..BUCKETS).map(|_| zero()).collect(),
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Meter {
    pub(super) fn count(&self, forged: bool, ending: Ending, took: Duration) {
        match ending {
            Ending::Ok => {
                add(&self.ok);
                if forged {
                    add(&self.slipped);
                }
            }
            Ending::Rejected => {
                add(&self.rejected);
                if !forged {
                    add(&self.snubbed);
                }
            }
            Ending::Other => add(&self.other),
            Ending::Lost => add(&self.lost),
        }
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.slowest_us.fetch_max(took, Ordering::Relaxed);
        if let Some(bucket) = self.buckets.get(bucket_of(took)) {
            add(bucket);
        }
    }

    pub(super) fn greet(&self) {
        add(&self.greeted);
    }

    /// The counts so far.
    pub fn tally(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (ok, rejected) = (read(&self.ok), read(&self.rejected));
        Tally {
            deliveries: ok + rejected,
            ok,
            rejected,
            slipped: read(&self.slipped),
            snubbed: read(&self.snubbed),
            other: read(&self.other),
            lost: read(&self.lost),
            greeted: read(&self.greeted),
            slowest: Duration::from_micros(read(&self.slowest_us)),
        }
    }
}

impl Tally {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            deliveries: self.deliveries + other.deliveries,
            ok: self.ok + other.ok,
            rejected: self.rejected + other.rejected,
            slipped: self.slipped + other.slipped,
            snubbed: self.snubbed + other.snubbed,
            other: self.other + other.other,
            lost: self.lost + other.lost,
            greeted: self.greeted + other.greeted,
            slowest: self.slowest.max(other.slowest),
        }
    }
}

/// The wait that so many in a thousand answers did not exceed, over several meters; exact to an eighth.
pub fn quantile<'m>(meters: impl Iterator<Item = &'m Meter>, per_mille: u64) -> Duration {
    let mut sums = vec![0_u64; BUCKETS];
    for meter in meters {
        for (sum, bucket) in sums.iter_mut().zip(&meter.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
    }
    let rank = (sums.iter().sum::<u64>() * per_mille).div_ceil(1000);
    let mut seen = 0;
    for (index, count) in sums.into_iter().enumerate() {
        seen += count;
        if seen >= rank && count > 0 {
            return Duration::from_micros(upper_of(index));
        }
    }
    Duration::ZERO
}

/// Below 8 each number has its own; from there on the highest set bit and the three after it decide.
fn bucket_of(us: u64) -> usize {
    let power = us.checked_ilog2().unwrap_or(0);
    let index = if power < 3 { us } else { u64::from(power - 2) * 8 + ((us >> (power - 3)) & 7) };
    usize::try_from(index).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The largest number of a bucket.
fn upper_of(index: usize) -> u64 {
    let index = index as u64;
    if index < 8 {
        return index;
    }
    let (power, eighth) = (index / 8 + 2, index % 8);
    ((9 + eighth) << (power - 3)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_is_in_a_bucket_that_ends_at_most_an_eighth_above_it() {
        for us in (0..5000).chain([10_000, 123_456, 1_000_000, 59_999_999]) {
            let upper = upper_of(bucket_of(us));
            assert!(upper >= us && upper - us <= us / 8, "{us}: {upper}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_run_over_all_meters() {
        let (fast, slow) = (Meter::default(), Meter::default());
        for _ in 0..90 {
            fast.count(false, Ending::Ok, Duration::from_micros(100));
        }
        for _ in 0..10 {
            slow.count(false, Ending::Ok, Duration::from_millis(50));
        }
        let at = |per_mille| quantile([&fast, &slow].into_iter(), per_mille).as_micros();
        assert!((100..=112).contains(&at(500)), "{}", at(500));
        assert!((50_000..=56_250).contains(&at(990)), "{}", at(990));
        assert_eq!(quantile(std::iter::empty(), 500), Duration::ZERO);
    }

    #[test]
    fn forged_and_genuine_are_told_apart() {
        let meter = Meter::default();
        meter.count(true, Ending::Rejected, Duration::ZERO);
        meter.count(false, Ending::Rejected, Duration::ZERO);
        meter.count(true, Ending::Ok, Duration::ZERO);
        meter.count(false, Ending::Lost, Duration::from_secs(2));
        let tally = meter.tally();
        assert_eq!((tally.deliveries, tally.ok, tally.rejected, tally.lost), (3, 1, 2, 1));
        assert_eq!((tally.slipped, tally.snubbed, tally.slowest), (1, 1, Duration::from_secs(2)));
    }
}
