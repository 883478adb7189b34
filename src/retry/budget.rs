//! A rate budget: so many requests in a window, spent evenly with a small burst (GCRA, the leaky bucket as a meter).

use std::time::Duration;

use crate::time::Timestamp;

/// The budget of one account.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Time that one request costs.
    cost: Duration,
    /// How far ahead of an even pace requests may run.
    burst: Duration,
    /// When the bucket would be empty.
    full_until: Timestamp,
}

impl Budget {
    /// `requests` in `per`, of which a quarter may come at once.
    pub fn new(requests: u32, per: Duration) -> Self {
        let requests = requests.max(1);
        let cost = per.checked_div(requests).unwrap_or_default();
        let at_once = requests.checked_div(4).unwrap_or(0).max(1);
        Self { cost, burst: cost.saturating_mul(at_once.saturating_sub(1)), full_until: Timestamp(i64::MIN) }
    }

    /// Take one request, or learn how long to wait until there is one. A clock that was set back costs at most one window.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        let ahead = self.full_until.since(now);
        let most = self.burst.saturating_add(self.cost);
        if ahead > most.saturating_mul(2) {
            self.full_until = now;
        } else if ahead > self.burst {
            return Err(ahead.saturating_sub(self.burst));
        }
        self.full_until = self.full_until.max(now).plus(self.cost);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_idle_account_may_burst_and_then_keeps_the_pace() {
        let mut budget = Budget::new(8, Duration::from_secs(8));
        let now = Timestamp::from_seconds(1000);
        assert_eq!(budget.take(now), Ok(()));
        assert_eq!(budget.take(now), Ok(()));
        assert_eq!(budget.take(now), Err(Duration::from_secs(1)));
        assert_eq!(budget.take(now.plus(Duration::from_secs(1))), Ok(()));
    }

    proptest! {
        /// Whatever the moments of asking, no window of `per` sees more than the budget and its burst.
        #[test]
        fn no_window_exceeds_the_budget(gaps in proptest::collection::vec(0_u64..400, 1..300)) {
            let mut budget = Budget::new(10, Duration::from_secs(3));
            let (mut now, mut taken) = (Timestamp::from_seconds(0), Vec::new());
            for gap in gaps {
                now = now.plus(Duration::from_millis(gap));
                if budget.take(now).is_ok() {
                    taken.push(now);
                }
            }
            for start in &taken {
                let end = start.plus(Duration::from_secs(3));
                let inside = taken.iter().filter(|t| **t >= *start && **t < end).count();
                prop_assert!(inside <= 12, "{inside} requests in one window");
            }
        }
    }

    #[test]
    fn a_clock_set_back_does_not_stop_the_requests() {
        let mut budget = Budget::new(1, Duration::from_secs(1));
        assert_eq!(budget.take(Timestamp::from_seconds(1_000_000)), Ok(()));
        assert_eq!(budget.take(Timestamp::from_seconds(10)), Ok(()));
    }
}
