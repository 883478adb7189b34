//! The one clock. Nothing else reads the time (`.clippy.toml` bans it), so tests and replay own it.

use std::fmt;
use std::time::Duration;

/// A moment: microseconds since 1970-01-01T00:00:00Z. Signed, so that a platform's odd date is still a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// From whole seconds since the epoch; saturates.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Whole milliseconds since the epoch, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// This moment plus a duration; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Time from `earlier` to here; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Parse RFC 3339 (`2022-06-30T14:53:00+00:00`, `...Z`, with or without a fraction).
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Self(t.as_microsecond()))
    }

    /// Parse a date and time that carries no offset (`2024-03-15T10:00:00` or with a space), read at `offset_hours` east
    /// of UTC: 0 for WooCommerce's `*_gmt`, 3 for Moscow.
    pub fn parse_naive(text: &str, offset_hours: i64) -> Option<Self> {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        let utc = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond();
        Some(Self(utc.checked_sub(offset_hours.checked_mul(3_600_000_000)?)?))
    }

    /// `2022-09-24 19:14:32` at `offset_hours` east of UTC: what Kladana's query strings want.
    pub fn format_naive(self, offset_hours: i64) -> String {
        let shifted = self.0.saturating_add(offset_hours.saturating_mul(3_600_000_000));
        match jiff::Timestamp::from_microsecond(shifted) {
            Ok(t) => t.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S").to_string(),
            Err(_) => self.0.to_string(),
        }
    }

    /// RFC 2822 / HTTP date (`Tue, 15 Nov 1994 08:12:31 GMT`), as `Retry-After` may carry it.
    pub fn parse_http_date(text: &str) -> Option<Self> {
        jiff::fmt::rfc2822::parse(text.trim()).ok().map(|z| Self(z.timestamp().as_microsecond()))
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-21T03:00:43.120Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// Now, by the system's clock.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn now() -> Timestamp {
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(d) => Timestamp(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)),
        Err(before) => Timestamp(-i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX)),
    }
}

/// A monotonic instant, for measuring how long something took.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn instant() -> std::time::Instant {
    std::time::Instant::now()
}

/// The system's monotonic clock in microseconds, as systemd reads it (`CLOCK_MONOTONIC`).
pub fn monotonic_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendor_dates_are_read_as_the_vendor_means_them() {
        assert_eq!(Timestamp::parse_rfc3339("2020-09-03T08:44:10-04:00"), Some(Timestamp::from_seconds(1_599_137_050)));
        assert_eq!(Timestamp::parse_rfc3339("2019-12-16T21:45:12.828Z"), Some(Timestamp(1_576_532_712_828_000)));
        assert_eq!(Timestamp::parse_naive("2024-03-15T10:00:00", 0), Some(Timestamp::from_seconds(1_710_496_800)));
        assert_eq!(Timestamp::parse_naive("2022-09-24 19:14:32", 3), Some(Timestamp::from_seconds(1_664_036_072)));
        assert_eq!(Timestamp::from_seconds(1_664_036_072).format_naive(3), "2022-09-24 19:14:32");
        assert_eq!(Timestamp::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Timestamp::from_seconds(784_111_777)));
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn a_moment_prints_as_rfc3339_with_milliseconds() {
        assert_eq!(Timestamp(1_576_532_712_828_999).to_string(), "2019-12-16T21:45:12.828Z");
    }
}
