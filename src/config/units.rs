//! Lengths of time and sizes as people write them, and reading them within bounds.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::types::Settings;

/// `90s`, `48h` as `2d`: the largest unit that leaves no rest.
pub(super) fn time_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find(|(unit, _)| millis != 0 && millis.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// `1MiB`: the largest unit that leaves no rest.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes != 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// A length of time within bounds, or the default.
pub(super) fn time(settings: &mut Settings, key: &str, bounds: RangeInclusive<Duration>, default: Duration) -> Duration {
    match settings.duration(key) {
        Some(given) if bounds.contains(&given) => given,
        Some(given) => {
            let (low, high) = (time_text(*bounds.start()), time_text(*bounds.end()));
            settings.problem(key, format!("{} is out of range: {low} to {high}", time_text(given)));
            default
        }
        None => default,
    }
}

/// A size in bytes within bounds, or the default.
pub(super) fn size(settings: &mut Settings, key: &str, bounds: RangeInclusive<u64>, default: u64) -> u64 {
    match settings.bytes(key) {
        Some(given) if bounds.contains(&given) => given,
        Some(given) => {
            let (low, high) = (size_text(*bounds.start()), size_text(*bounds.end()));
            settings.problem(key, format!("{} is out of range: {low} to {high}", size_text(given)));
            default
        }
        None => default,
    }
}

/// A count within bounds, or the default.
pub(super) fn count(settings: &mut Settings, key: &str, bounds: RangeInclusive<u64>, default: usize) -> usize {
    let given = settings.whole(key, *bounds.start(), *bounds.end());
    given.and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reader(text: &str) -> Settings {
        Settings::of_one("k", text)
    }

    #[test]
    fn what_is_shown_is_what_people_write() {
        assert_eq!(time_text(Duration::from_secs(48 * 3600)), "2d");
        assert_eq!(time_text(Duration::from_secs(90)), "90s");
        assert_eq!(time_text(Duration::ZERO), "0ms");
        assert_eq!(size_text(1 << 30), "1GiB");
        assert_eq!(size_text(1536), "1536B");
        assert_eq!(size_text(0), "0B");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(millis in 0_u64..1_000_000_000_000, bytes: u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(reader(&time_text(duration)).duration("k"), Some(duration));
            prop_assert_eq!(reader(&size_text(bytes)).bytes("k"), Some(bytes));
        }
    }
}
