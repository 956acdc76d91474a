//! Durations as typed.

use std::time::Duration;

/// Parses `90s`, `15m`, `2h` or `1d`; a bare number is one of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: use a number with s, m, h or d");
    let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let with_unit =
        units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, *seconds)));
    let (number, seconds) = with_unit.unwrap_or((text, 1));
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = is_number.then(|| number.parse().ok()).flatten().ok_or_else(wrong)?;
    match number.checked_mul(seconds) {
        Some(0) | None => Err("a duration is at least a second".to_owned()),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_and_nonsense_is_refused() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("7d", 604_800), ("5", 5)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "1w", "-1h", "1.5h", "0s", "99999999999999999999h", "1ä", "0"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
