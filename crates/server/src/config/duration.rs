//! Durations as Go writes them: `1h30m`, `1.5s`, `100ms`, `-2us`, `0`.

use std::time::Duration;

/// Nanoseconds in a unit.
fn unit_ns(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Reads a duration in nanoseconds; it may be negative.
///
/// # Errors
/// Go's own sentence when the text is no duration or lies beyond some 292 years.
pub(super) fn parse_ns(text: &str) -> Result<i64, String> {
    let magnitude = text.strip_prefix(['-', '+']).unwrap_or(text);
    let ns = unsigned_ns(magnitude).ok_or_else(|| format!("time: invalid duration {text:?}"))?;
    Ok(if text.starts_with('-') { -ns } else { ns })
}

/// Reads a duration that is not negative.
///
/// # Errors
/// As [`parse_ns`], and for a negative one.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let ns = parse_ns(text)?;
    let ns = u64::try_from(ns).map_err(|_| format!("time: negative duration {text:?}"))?;
    Ok(Duration::from_nanos(ns))
}

fn unsigned_ns(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    if text.is_empty() {
        return None;
    }
    let (mut rest, mut total) = (text, 0_i64);
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        total = total.checked_add(scaled(number, unit_ns(unit)?)?)?;
        rest = tail;
    }
    Some(total)
}

/// `number` (digits, at most one point, at least one digit) times `unit_ns`.
fn scaled(number: &str, unit_ns: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let (mut part, mut unit) = (0, unit_ns);
    for digit in fraction.bytes() {
        unit /= 10;
        part += i64::from(digit - b'0') * unit;
    }
    whole.checked_mul(unit_ns)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        for (text, ns) in [
            ("0", 0),
            ("0s", 0),
            ("5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("100ms", 100_000_000),
            ("3us4ns", 3_004),
            ("2µs", 2_000),
            ("-2m", -120_000_000_000),
            ("+1s", 1_000_000_000),
        ] {
            assert_eq!(parse_ns(text), Ok(ns), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            ".s",
            "1.2.3s",
            "1d",
            "h1",
            "-",
            "1 s",
            "9999999999h",
        ] {
            assert_eq!(
                parse_ns(text),
                Err(format!("time: invalid duration {text:?}"))
            );
        }
        assert!(parse("-1s").is_err());
    }
}
