//! When a certificate is renewed, and when an attempt that failed is made again. Deterministic: chance comes from a seed.

use std::time::Duration;

use super::backoff::mix;
use crate::limits::{ACME_REFUSED_PAUSE, ACME_RENEWALS_APART, ACME_RETRY_AFTER_MAX, ACME_UNREACHED_PAUSE};
use crate::time::Timestamp;

/// Certificates that live shorter than this are renewed at half of their life, the others when a third is left: what Let's
/// Encrypt advises for its own of six and of ninety days.
const SHORT_LIVED: Duration = Duration::from_secs(10 * 24 * 3600);
/// Renewals of many boxes that began together are spread over this part of the lifetime, before the moment that is due.
const SPREAD: u32 = 20;
/// Whatever the server suggests: no later than when this part of the lifetime is left.
const LAST_PART: u32 = 10;

/// The lifetime of a certificate in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Its start.
    pub not_before: Timestamp,
    /// Its end.
    pub not_after: Timestamp,
    /// When we got it, by our own clock.
    pub obtained: Timestamp,
}

/// When to renew. `suggested` is the window of the server (RFC 9773, section 4.2): then a moment within it by chance, which may
/// be past; else a share of the lifetime. `seed` is the certificate's own, so that every look gives the same moment.
pub fn renew_at(life: &Lifetime, seed: u64, suggested: Option<(Timestamp, Timestamp)>) -> Timestamp {
    let whole = life.not_after.since(life.not_before);
    let before_end = |left: Duration| back(life.not_after, left);
    let at = if let Some((start, end)) = suggested {
        start.plus(part(end.since(start), seed)).min(before_end(share(whole, LAST_PART)))
    } else {
        let left = share(whole, if whole < SHORT_LIVED { 2 } else { 3 });
        before_end(left.saturating_add(part(share(whole, SPREAD), seed)))
    };
    // a clock that is wrong by months makes every certificate due at once: not one after the other
    at.max(life.obtained.plus(share(whole, 4).min(ACME_RENEWALS_APART)))
}

/// How long to wait after so many failures in a row: doubles, of which the upper half is chance. A `harmless` failure is one that
/// no rate limit counts. A server that asked for a longer wait gets it, within bounds.
pub fn pause(failures: u32, seed: u64, harmless: bool, asked: Option<Duration>) -> Duration {
    let (first, longest) = if harmless { ACME_UNREACHED_PAUSE } else { ACME_REFUSED_PAUSE };
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let whole = first.saturating_mul(doubled).min(longest);
    let half = share(whole, 2);
    half.saturating_add(part(half, seed ^ u64::from(failures))).max(asked.unwrap_or_default().min(ACME_RETRY_AFTER_MAX))
}

fn share(whole: Duration, parts: u32) -> Duration {
    whole.checked_div(parts).unwrap_or_default()
}

/// Some of a length of time, by chance.
fn part(whole: Duration, seed: u64) -> Duration {
    let millis = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    Duration::from_millis(mix(seed).checked_rem(millis).unwrap_or(0))
}

fn back(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp(at.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers in tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn lives(days: u32) -> Lifetime {
        let start = Timestamp::from_seconds(1_800_000_000);
        Lifetime { not_before: start, not_after: start.plus(DAY * days), obtained: start }
    }

    fn day(life: &Lifetime, days: u32) -> Timestamp {
        life.not_before.plus(DAY * days)
    }

    proptest! {
        #[test]
        fn ninety_days_are_renewed_when_a_third_is_left_and_six_at_half(seed: u64) {
            let long = lives(90);
            let at = renew_at(&long, seed, None);
            prop_assert!(at <= day(&long, 60) && at >= back(day(&long, 60), DAY * 90 / 20));
            let short = lives(6);
            let at = renew_at(&short, seed, None);
            prop_assert!(at <= day(&short, 3) && at >= back(day(&short, 3), DAY * 6 / 20));
        }

        #[test]
        fn the_servers_window_is_kept_and_never_too_late(seed: u64) {
            let life = lives(90);
            let window = (day(&life, 40), day(&life, 42));
            let at = renew_at(&life, seed, Some(window));
            prop_assert!(at >= window.0 && at <= window.1);
            prop_assert_eq!(renew_at(&life, seed, Some((day(&life, 100), day(&life, 101)))), day(&life, 81));
            let revoked = (back(life.not_before, DAY), back(life.not_before, DAY / 2));
            prop_assert_eq!(renew_at(&life, seed, Some(revoked)), life.obtained.plus(ACME_RENEWALS_APART));
        }

        #[test]
        fn pauses_grow_and_stay_within_bounds(failures in 1_u32..2000, seed: u64, harmless: bool) {
            let (first, longest) = if harmless { ACME_UNREACHED_PAUSE } else { ACME_REFUSED_PAUSE };
            let wait = pause(failures, seed, harmless, None);
            let whole = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(longest);
            prop_assert!(wait >= whole / 2 && wait <= whole);
        }

        #[test]
        fn no_hour_sees_more_than_five_refusals(seed: u64) {
            let (mut at, mut inside) = (Duration::ZERO, 1);
            for failures in 1.. {
                at += pause(failures, seed, false, None);
                if at >= Duration::from_secs(3600) {
                    break;
                }
                inside += 1;
            }
            prop_assert!(inside <= 5, "{inside} attempts in the first hour");
        }
    }

    #[test]
    fn boxes_that_began_together_do_not_renew_together() {
        let life = lives(90);
        let moments: std::collections::BTreeSet<Timestamp> = (0..50).map(|seed| renew_at(&life, seed, None)).collect();
        assert!(moments.len() > 45);
        assert_eq!(renew_at(&life, 7, None), renew_at(&life, 7, None), "and each keeps to its own");
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_order_one_after_the_other() {
        let life = lives(90);
        let ahead = Lifetime { obtained: day(&life, 200), ..life };
        assert_eq!(renew_at(&ahead, 1, None), day(&life, 200).plus(ACME_RENEWALS_APART));
    }

    #[test]
    fn the_server_may_ask_for_more_but_not_for_ever() {
        assert_eq!(pause(1, 1, false, Some(DAY)), DAY);
        assert_eq!(pause(1, 1, false, Some(DAY * 365)), ACME_RETRY_AFTER_MAX);
        assert!(pause(1, 1, true, Some(Duration::ZERO)) >= ACME_UNREACHED_PAUSE.0 / 2);
    }
}
