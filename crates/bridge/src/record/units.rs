//! Sizes and times as people write them: `256M`, `10m`.
//!
//! Refuses: fractions, signs, nothing at all, and what does not fit.

use std::time::Duration;

/// Bytes: a number, and K, M, G or T for powers of 1024.
///
/// # Errors
/// A sentence without the option's name, which clap puts before it.
pub fn bytes(text: &str) -> Result<u64, String> {
    let factors = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30), ('T', 1 << 40)];
    scaled(&text.to_ascii_uppercase(), &factors).ok_or_else(|| "write a number of bytes, or one with K, M, G or T: 256M".to_owned())
}

/// A time: a number of seconds, or one with s, m, h or d.
///
/// # Errors
/// As [`bytes`].
pub fn time(text: &str) -> Result<Duration, String> {
    let factors = [('s', 1), ('m', 60), ('h', 3600), ('d', 86400)];
    let seconds = scaled(text, &factors).filter(|seconds| *seconds <= 100 * 365 * 86400);
    seconds.map(Duration::from_secs).ok_or_else(|| "write a number of seconds, or one with s, m, h or d: 10m".to_owned())
}

/// A number of at least 1 with a unit's letter, if any.
fn scaled(text: &str, factors: &[(char, u64)]) -> Option<u64> {
    let unit = factors.iter().find_map(|(letter, factor)| Some((text.strip_suffix(*letter)?, *factor)));
    let (digits, factor) = unit.unwrap_or((text, 1));
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|number| is_number && *number > 0)?.checked_mul(factor)
}

/// Bytes for a person.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_and_without_units() {
        assert_eq!((bytes("1"), bytes("10k"), bytes("256M"), bytes("3G")), (Ok(1), Ok(10240), Ok(256 << 20), Ok(3 << 30)));
        assert_eq!(
            (time("90"), time("10m"), time("2h")),
            (Ok(Duration::from_secs(90)), Ok(Duration::from_secs(600)), Ok(Duration::from_secs(7200)))
        );
        for text in ["", "M", "0", "-1", "+1", "1.5G", "1 G", "99999999999999T", "1GG", "\u{663}"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for text in ["", "s", "0s", "1M", "1e3", "18446744073709551615d", "36501d"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
