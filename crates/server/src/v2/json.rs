//! JSON exactly as Go's `encoding/json` writes it, and the times in it.
//!
//! Keys and values are bytes of which some are no UTF-8, field order and omitted fields are part
//! of what clients were recorded to get: hence this writer.

use std::io::Write as _;

use quorate_store::UnixMs;

use crate::date::civil;

/// Appends a quoted string. Each byte that is no UTF-8 becomes U+FFFD.
pub(super) fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    if let Ok(text) = std::str::from_utf8(bytes) {
        escaped(out, text.as_bytes());
    } else {
        for chunk in bytes.utf8_chunks() {
            escaped(out, chunk.valid().as_bytes());
            for _ in chunk.invalid() {
                out.extend_from_slice(b"\\ufffd");
            }
        }
    }
    out.push(b'"');
}

/// Appends UTF-8, escaped. Beyond ASCII, only U+2028 and U+2029 (E2 80 A8 and A9) are.
fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut plain = 0;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let (len, code) = match byte {
            0..0x20 | b'"' | b'\\' | b'<' | b'>' | b'&' => (1, u32::from(byte)),
            0xe2 => match text.get(at + 1..at + 3) {
                Some([0x80, last @ (0xa8 | 0xa9)]) => (3, 0x2028 + u32::from(last - 0xa8)),
                _ => (0, 0),
            },
            _ => (0, 0),
        };
        if len == 0 {
            at += 1;
            continue;
        }
        out.extend_from_slice(&text[plain..at]);
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(format!("\\u{code:04x}").as_bytes()),
        }
        at += len;
        plain = at;
    }
    out.extend_from_slice(&text[plain..]);
}

/// Appends a decimal number.
pub(super) fn number(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    write!(out, "{number}").expect("a vector takes all");
}

/// A time as RFC 3339 in UTC, without trailing zeros in its fraction.
pub(super) fn rfc3339(time: UnixMs) -> String {
    let (seconds, millis) = (time.0 / 1000, time.0 % 1000);
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(day);
    let fraction = match millis {
        0 => String::new(),
        millis => format!(".{millis:03}").trim_end_matches('0').to_owned(),
    };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Whole seconds from `now` to `end`, rounded up; negative when `end` is past.
pub(super) fn seconds_left(end: UnixMs, now: UnixMs) -> i64 {
    let left_ms = i128::from(end.0) - i128::from(now.0);
    let seconds = -(-left_ms).div_euclid(1000);
    i64::try_from(seconds).expect("milliseconds of 64 bits are fewer seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        string(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        assert_eq!(
            quoted("<a>&\"é\u{2028}\u{2027}\\\t\x01\x7f".as_bytes()),
            "\"\\u003ca\\u003e\\u0026\\\"é\\u2028\u{2027}\\\\\\t\\u0001\x7f\""
        );
        // Go replaces byte by byte, also inside a sequence that is cut short.
        assert_eq!(quoted(b"\xffx\xe2\x82"), "\"\\ufffdx\\ufffd\\ufffd\"");
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(UnixMs(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(UnixMs(951_827_696_120)), "2000-02-29T12:34:56.12Z");
        assert_eq!(
            rfc3339(UnixMs(8_795_436_127_001)),
            "2248-09-19T00:42:07.001Z"
        );
    }

    #[test]
    fn seconds_left_are_rounded_up() {
        let left = |end, now| seconds_left(UnixMs(end), UnixMs(now));
        assert_eq!(left(5000, 0), 5);
        assert_eq!(left(5001, 1), 5);
        assert_eq!(left(5000, 1), 5);
        assert_eq!(left(0, 400), 0);
        assert_eq!(left(0, 1000), -1);
        assert_eq!(left(0, 1400), -1);
    }
}
