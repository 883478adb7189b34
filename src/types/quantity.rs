//! Exact signed decimal quantities.
//!
//! A quantity is a count of millionths in an `i64`: six decimal places (Square and Vend use five), up to 9.2 * 10^12
//! units either way. There is no floating point on the way in or out: JSON numbers are read from their text.

use std::fmt;
use std::str::FromStr;

/// An exact signed decimal with six places. Negative stock is legal (Shippingbo, MoySklad).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity(i64);

const PLACES: i64 = 6;
const ONE: i64 = 1_000_000;

/// Why a text is not a quantity. What it came from becomes a dead letter with this text as its cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadQuantity {
    /// Not a decimal number.
    NotANumber,
    /// A number, but beyond 9,223,372,036,854.775807.
    OutOfRange,
    /// A number with more than six significant decimal places.
    TooPrecise,
}

impl fmt::Display for BadQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotANumber => "not a decimal number",
            Self::OutOfRange => "out of range (at most 9223372036854.775807)",
            Self::TooPrecise => "more than six decimal places",
        })
    }
}

impl std::error::Error for BadQuantity {}

impl Quantity {
    /// Nothing on the shelf.
    pub const ZERO: Self = Self(0);

    /// Whole units; `None` when out of range.
    pub const fn from_units(units: i64) -> Option<Self> {
        match units.checked_mul(ONE) {
            Some(v) => Some(Self(v)),
            None => None,
        }
    }

    /// From millionths, the stored form.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// As millionths, the stored form.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Sum; `None` when out of range.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(v) => Some(Self(v)),
            None => None,
        }
    }

    /// Difference; `None` when out of range.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(v) => Some(Self(v)),
            None => None,
        }
    }

    /// Below zero.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }
}

/// Plain decimal or JSON number text: sign, digits, fraction, exponent.
impl FromStr for Quantity {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let text = text.trim();
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
            Some((m, e)) => (m, e.parse::<i32>().map_err(|_| BadQuantity::NotANumber)?),
            None => (digits, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return Err(BadQuantity::NotANumber);
        }
        // value = digits * 10^(exponent - fraction.len()), and the stored form wants digits * 10^(that + PLACES)
        let fraction = fraction.trim_end_matches('0');
        let mut value: i128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(i128::from(digit - b'0')))
                .filter(|v| *v < 1 << 100)
                .ok_or(BadQuantity::OutOfRange)?;
        }
        let mut shift = i64::from(exponent) + PLACES - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
        while shift > 0 && value != 0 {
            value = value.checked_mul(10).filter(|v| *v < 1 << 100).ok_or(BadQuantity::OutOfRange)?;
            shift -= 1;
        }
        while shift < 0 && value != 0 {
            if value % 10 != 0 {
                return Err(BadQuantity::TooPrecise);
            }
            value /= 10;
            shift += 1;
        }
        let signed = if negative { -value } else { value };
        i64::try_from(signed).map(Self).map_err(|_| BadQuantity::OutOfRange)
    }
}

/// Shortest exact form: `46.5`, `-6`, `0`.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let (whole, fraction) = (magnitude / ONE.unsigned_abs(), magnitude % ONE.unsigned_abs());
        let sign = if self.0 < 0 { "-" } else { "" };
        if fraction == 0 {
            return f.pad(&format!("{sign}{whole}"));
        }
        let text = format!("{sign}{whole}.{fraction:06}");
        f.pad(text.trim_end_matches('0'))
    }
}

/// A JSON number with the exact digits.
impl serde::Serialize for Quantity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = serde_json::value::RawValue::from_string(self.to_string()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_the_platforms_use_is_exact() {
        for (text, micros) in [
            ("10", 10_000_000),
            ("-6", -6_000_000),
            ("46.5", 46_500_000),
            ("60.36", 60_360_000),
            ("200.00000", 200_000_000),
            ("497.0000", 497_000_000),
            ("0.00001", 10),
            ("1e3", 1_000_000_000),
            ("12.5E-1", 1_250_000),
            ("0e99", 0),
            ("-0", 0),
        ] {
            assert_eq!(text.parse::<Quantity>().map(Quantity::micros), Ok(micros), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_exact_is_refused_with_its_cause() {
        assert_eq!("1.0000001".parse::<Quantity>(), Err(BadQuantity::TooPrecise));
        assert_eq!("9223372036855".parse::<Quantity>(), Err(BadQuantity::OutOfRange));
        assert_eq!("1e400".parse::<Quantity>(), Err(BadQuantity::OutOfRange));
        for text in ["", "-", ".", "ten", "1,5", "NaN", "0x10", "1e", "--1"] {
            assert_eq!(text.parse::<Quantity>(), Err(BadQuantity::NotANumber), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_quantity_reads_back_from_its_text(micros: i64) {
            let q = Quantity::from_micros(micros);
            prop_assert_eq!(q.to_string().parse::<Quantity>(), Ok(q));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            drop(text.parse::<Quantity>());
        }
    }
}
