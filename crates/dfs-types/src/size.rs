//! Human-readable byte counts.

use std::fmt;
use std::str::FromStr;

/// Default chunk size in bytes.
pub const CHUNK_SIZE_DEFAULT: u64 = 64 << 20;
/// The smallest chunk size in bytes.
pub const CHUNK_SIZE_MIN: u64 = 64 << 10;
/// The largest chunk size in bytes.
pub const CHUNK_SIZE_MAX: u64 = 1 << 30;

/// A number of bytes, written `1536`, `64MiB`, `1.5GiB` or `2GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// A text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size: give bytes, or a number with KiB, MiB, GiB, TiB, kB, MB, GB or TB")]
pub struct ParseSizeError(pub String);

const UNITS: [(&str, u64); 13] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseSizeError(text.to_owned());
        let trimmed = text.trim();
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((trimmed.strip_suffix(name)?.trim_end(), *unit)))
            .unwrap_or((trimmed, 1));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || fraction.len() > 9 || !all_digits(whole) || !all_digits(fraction) {
            return Err(wrong());
        }
        if digits.contains('.') && (fraction.is_empty() || unit == 1) {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let scale = 10_u128.pow(fraction.len() as u32);
        let part: u64 =
            if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| wrong())? };
        let unit = u128::from(unit);
        let bytes = u128::from(whole) * unit + u128::from(part) * unit / scale;
        u64::try_from(bytes).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for ByteSize {
    /// Writes a form that [`FromStr`] reads back to within a tenth of the unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS[..4].iter().rev().find(|(_, unit)| self.0 >= *unit);
        match unit {
            None => write!(f, "{}B", self.0),
            Some((name, unit)) if self.0.is_multiple_of(*unit) => {
                write!(f, "{}{name}", self.0 / unit)
            }
            Some((name, unit)) => write!(f, "{:.1}{name}", self.0 as f64 / *unit as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Random, SeededRandom};

    #[test]
    fn human_sizes_are_parsed() {
        for (text, bytes) in [
            ("0", 0),
            ("1536", 1536),
            ("64KiB", 65_536),
            ("64 MiB", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("2GB", 2_000_000_000),
            ("1T", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "-1", "1.5", "1..5K", "MiB", "1e3", "99999999TiB", "0x10", "1.K"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn writes_the_largest_fitting_unit() {
        assert_eq!(ByteSize(0).to_string(), "0B");
        assert_eq!(ByteSize(64 << 20).to_string(), "64MiB");
        assert_eq!(ByteSize((1 << 30) + (1 << 29)).to_string(), "1.5GiB");
    }

    #[test]
    fn printed_sizes_round_trip() {
        let random = SeededRandom::new(5);
        for shift in 0..60 {
            let size = ByteSize(random.below(2 << shift));
            let back: ByteSize = size.to_string().parse().unwrap();
            let unit = UNITS[..4].iter().rev().map(|(_, unit)| *unit).find(|unit| size.0 >= *unit);
            assert!(back.0.abs_diff(size.0) <= unit.unwrap_or(0) / 10, "{size:?} {back:?}");
        }
    }
}
