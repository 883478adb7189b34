//! Exponential back-off with jitter, deterministic: the jitter comes from a seed that the caller owns.

use std::time::Duration;

/// The first wait.
pub const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(600);

/// How long to wait before attempt number `failures + 1`: doubles from [`FIRST`] to [`LONGEST`], of which the upper half is
/// jitter, so that many tasks that failed together do not come back together. A platform that asked for a longer wait gets it.
pub fn delay(failures: u32, seed: u64, asked: Option<Duration>) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(LONGEST);
    let half = whole.checked_div(2).unwrap_or_default();
    let spread = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    let jitter = mix(seed ^ u64::from(failures)).checked_rem(spread).unwrap_or(0);
    let wait = half.saturating_add(Duration::from_millis(jitter));
    asked.map_or(wait, |asked| asked.min(crate::limits::RETRY_AFTER_MAX).max(wait.min(FIRST)))
}

/// A well-mixed number (SplitMix64's finaliser, Steele et al. 2014).
pub(super) fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers in tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_grow_and_stay_within_bounds(failures in 0_u32..1000, seed: u64) {
            let wait = delay(failures, seed, None);
            prop_assert!(wait >= FIRST / 2 && wait <= LONGEST);
            let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
            prop_assert!(wait >= doubled / 2 && wait <= doubled);
        }
    }

    #[test]
    fn the_platform_may_ask_for_more_but_not_for_ever() {
        assert_eq!(delay(1, 1, Some(Duration::from_secs(90))), Duration::from_secs(90));
        assert_eq!(delay(1, 1, Some(Duration::from_secs(1 << 40))), crate::limits::RETRY_AFTER_MAX);
        assert!(delay(1, 1, Some(Duration::ZERO)) >= FIRST / 2, "a wait of nothing would be a busy loop");
    }
}
