//! Times as senders write them: RFC 3339, dates without an offset, Unix time in any unit, HTTP dates.
//!
//! Exact: fractions of a second are read as digits, never through floating point, and cut (not rounded) at a microsecond.

use crate::time::Timestamp;
use crate::types::{Quantity, Settings};

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeFormat {
    /// Whatever it looks like: a text is RFC 3339, else a date without an offset, else an HTTP date, else digits; digits
    /// are seconds, milliseconds, microseconds or nanoseconds by their magnitude.
    #[default]
    Auto,
    /// RFC 3339 only.
    Rfc3339,
    /// Unix seconds, possibly with a fraction.
    Unix,
    /// Unix milliseconds.
    UnixMs,
    /// A date and time without an offset, read at the configured one; a text that names its offset keeps it.
    Naive,
}

impl TimeFormat {
    /// The words of the configuration.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("rfc3339", Self::Rfc3339),
        ("unix", Self::Unix),
        ("unix-ms", Self::UnixMs),
        ("naive", Self::Naive),
    ];

    /// Read a time. `offset` is where dates without one are meant.
    pub fn read(self, text: &str, offset: Offset) -> Option<Timestamp> {
        let text = text.trim();
        match self {
            Self::Rfc3339 => Timestamp::parse_rfc3339(text),
            Self::Unix => unix(text, Some(Unit::Seconds)),
            Self::UnixMs => unix(text, Some(Unit::Millis)),
            Self::Naive => Timestamp::parse_rfc3339(text).or_else(|| offset.naive(text)),
            Self::Auto => unix(text, None)
                .or_else(|| Timestamp::parse_rfc3339(text))
                .or_else(|| offset.naive(text))
                .or_else(|| Timestamp::parse_http_date(text)),
        }
    }
}

/// Where dates without an offset are meant: time east of UTC, in quarters of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offset {
    quarters: i64,
}

const QUARTER_MICROS: i64 = 900 * 1_000_000;

impl Offset {
    /// Read `key` (hours east of UTC, `-12` to `14`, quarters allowed: `5.75`); UTC when it is absent.
    pub fn read(settings: &mut Settings, key: &str) -> Self {
        let Some(value) = settings.value(key) else { return Self::default() };
        // An hour is a million micros of the decimal; a quarter divides it evenly.
        let micros = match &value {
            serde_json::Value::Number(hours) => hours.to_string().parse::<Quantity>().ok().map(Quantity::micros),
            _ => None,
        };
        match micros {
            Some(m) if m % 250_000 == 0 && (-12_000_000..=14_000_000).contains(&m) => Self { quarters: m / 250_000 },
            _ => {
                settings.problem(key, "expected hours east of UTC from -12 to 14, in steps of a quarter: 3, -5, 5.5");
                Self::default()
            }
        }
    }

    fn naive(self, text: &str) -> Option<Timestamp> {
        let utc = Timestamp::parse_naive(text, 0)?;
        utc.0.checked_sub(self.quarters.checked_mul(QUARTER_MICROS)?).map(Timestamp)
    }
}

#[derive(Clone, Copy)]
enum Unit {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

/// Unix time from its digits; without a unit the magnitude tells it (seconds up to the year 5138).
fn unix(text: &str, unit: Option<Unit>) -> Option<Timestamp> {
    let millionths = millionths(text)?;
    let unit = unit.unwrap_or(match millionths.unsigned_abs() / 1_000_000 {
        0..100_000_000_000 => Unit::Seconds,
        100_000_000_000..100_000_000_000_000 => Unit::Millis,
        100_000_000_000_000..100_000_000_000_000_000 => Unit::Micros,
        _ => Unit::Nanos,
    });
    let micros = match unit {
        Unit::Seconds => millionths,
        Unit::Millis => millionths.div_euclid(1_000),
        Unit::Micros => millionths.div_euclid(1_000_000),
        Unit::Nanos => millionths.div_euclid(1_000_000_000),
    };
    i64::try_from(micros).ok().map(Timestamp)
}

/// A decimal number as a count of millionths; further places are cut.
fn millionths(text: &str) -> Option<i128> {
    if text.contains(['e', 'E']) {
        return text.parse::<Quantity>().ok().map(|q| i128::from(q.micros()));
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let digits_only = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits_only(whole) || !digits_only(fraction) || whole.len() > 20 {
        return None;
    }
    let places: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let value = whole.parse::<i128>().ok()?.checked_mul(1_000_000)?.checked_add(places.parse::<i128>().ok()?)?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T: Timestamp = Timestamp::from_seconds(1_710_496_800); // 2024-03-15T10:00:00Z

    fn auto(text: &str) -> Option<Timestamp> {
        TimeFormat::Auto.read(text, Offset::default())
    }

    #[test]
    fn auto_reads_what_platforms_send() {
        for text in [
            "1710496800",
            "1710496800000",
            "1710496800000000",
            "1710496800000000000",
            "1710496800.000",
            "1.7104968e9",
            "2024-03-15T10:00:00Z",
            "2024-03-15T13:00:00+03:00",
            "2024-03-15T10:00:00",
            "2024-03-15 10:00:00",
            "Fri, 15 Mar 2024 10:00:00 GMT",
        ] {
            assert_eq!(auto(text), Some(T), "{text}");
        }
        for text in ["", "yesterday", "1,5", "0x5", "1710496800s", "--1", ".5", "1.", "2024-13-01T00:00:00Z"] {
            assert_eq!(auto(text), None, "{text}");
        }
    }

    #[test]
    fn fractions_are_exact_and_cut_at_a_microsecond() {
        assert_eq!(auto("1710496800.1234567"), Some(Timestamp(1_710_496_800_123_456)));
        assert_eq!(auto("1710496800123.5"), Some(Timestamp(1_710_496_800_123_500)));
        assert_eq!(auto("2019-10-29T18:38:45.455006797Z"), Some(Timestamp(1_572_374_325_455_006)));
        assert_eq!(auto("-1.5"), Some(Timestamp(-1_500_000)));
    }

    #[test]
    fn a_named_unit_is_not_guessed() {
        assert_eq!(TimeFormat::UnixMs.read("1710496800", Offset::default()), Some(Timestamp(1_710_496_800_000)));
        assert_eq!(TimeFormat::Unix.read("1710496800", Offset::default()), Some(T));
        assert_eq!(TimeFormat::Unix.read("2024-03-15T10:00:00Z", Offset::default()), None);
        assert_eq!(TimeFormat::Rfc3339.read("1710496800", Offset::default()), None);
        assert_eq!(TimeFormat::Rfc3339.read("2024-03-15T10:00:00", Offset::default()), None);
        assert_eq!(TimeFormat::Unix.read("99999999999999999999", Offset::default()), None);
    }

    #[test]
    fn dates_without_an_offset_are_read_at_the_configured_one() {
        let read = |hours: serde_json::Value, text: &str| {
            let map = serde_json::json!({ "utc_offset_hours": hours }).as_object().cloned().expect("an object");
            let mut settings = Settings::new("", map);
            let offset = Offset::read(&mut settings, "utc_offset_hours");
            (TimeFormat::Naive.read(text, offset), settings.finish().len())
        };
        assert_eq!(read(3.into(), "2024-03-15 13:00:00"), (Some(T), 0));
        assert_eq!(read((-5).into(), "2024-03-15 05:00:00"), (Some(T), 0));
        assert_eq!(read(serde_json::json!(5.75), "2024-03-15T15:45:00"), (Some(T), 0));
        assert_eq!(read(3.into(), "2024-03-15T10:00:00Z"), (Some(T), 0));
        assert_eq!(read(3.into(), "2024-03-15T12:00:00+02:00"), (Some(T), 0));
        assert_eq!(read(15.into(), "2024-03-15T10:00:00"), (Some(T), 1));
        assert_eq!(read(serde_json::json!(5.1), "2024-03-15T10:00:00"), (Some(T), 1));
        assert_eq!(read("3".into(), "2024-03-15T10:00:00"), (Some(T), 1));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", digits in "-?[0-9]{0,40}(\\.[0-9]{0,9})?(e-?[0-9]{1,3})?") {
            for (_, format) in TimeFormat::WORDS {
                let _ = format.read(&text, Offset::default());
                let _ = format.read(&digits, Offset::default());
            }
        }
    }
}
