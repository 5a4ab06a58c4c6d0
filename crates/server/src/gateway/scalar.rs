//! JSON's strings, numbers and words as values of a field.

use base64::Engine;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost_reflect::{Kind, Value};

/// Digits an exponent may add before a number is out of every range.
const MAX_DIGITS: i64 = 100;

/// A token as a value of `kind`; `None` if it is none.
pub(super) fn value(raw: &str, kind: &Kind) -> Option<Value> {
    Some(match kind {
        Kind::Bool => Value::Bool(match raw {
            "true" => true,
            "false" => false,
            _ => return None,
        }),
        Kind::String => Value::String(text(raw)?),
        Kind::Bytes => Value::Bytes(bytes(&text(raw)?)?),
        Kind::Enum(_) => Value::EnumNumber(integer(raw)?.try_into().ok()?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number(raw)?.try_into().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number(raw)?.try_into().ok()?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number(raw)?.try_into().ok()?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number(raw)?.try_into().ok()?),
        // No message of ours has such a field.
        Kind::Double | Kind::Float | Kind::Message(_) => return None,
    })
}

/// What protobuf calls a kind.
pub(super) fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Double => "double",
        Kind::Float => "float",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::Sint32 => "sint32",
        Kind::Sint64 => "sint64",
        Kind::Fixed32 => "fixed32",
        Kind::Fixed64 => "fixed64",
        Kind::Sfixed32 => "sfixed32",
        Kind::Sfixed64 => "sfixed64",
        Kind::Bool => "bool",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Message(_) => "message",
        Kind::Enum(_) => "enum",
    }
}

/// What a string token says; `None` for other tokens, and for half of a surrogate pair.
pub(super) fn text(raw: &str) -> Option<String> {
    if raw.starts_with('"') {
        serde_json::from_str(raw).ok()
    } else {
        None
    }
}

/// Base64 in either alphabet, padded or not. Lines may be broken.
fn bytes(text: &str) -> Option<Bytes> {
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let alphabet = if text.contains(['-', '_']) {
        &URL_SAFE
    } else {
        &STANDARD
    };
    let padding = if text.len().is_multiple_of(4) {
        DecodePaddingMode::RequireCanonical
    } else {
        DecodePaddingMode::RequireNone
    };
    engine(alphabet, padding).decode(text).ok().map(Bytes::from)
}

fn engine(alphabet: &Alphabet, padding: DecodePaddingMode) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(padding);
    GeneralPurpose::new(alphabet, config)
}

/// A number, or a string that holds one.
fn number(raw: &str) -> Option<i128> {
    if raw.starts_with('"') {
        let text = text(raw)?;
        let is_number = serde_json::from_str::<serde_json::Number>(&text).is_ok();
        let is_bare =
            !text.starts_with(char::is_whitespace) && !text.ends_with(char::is_whitespace);
        return integer(&text).filter(|_| is_number && is_bare);
    }
    integer(raw)
}

/// A JSON number that is whole, however it is written.
fn integer(raw: &str) -> Option<i128> {
    if !raw.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        return None;
    }
    let (mantissa, exponent) = match raw.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (raw, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    // The digits times ten to this power.
    let power = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let digits = match u32::try_from(power) {
        Ok(power) if i64::from(power) <= MAX_DIGITS => {
            digits.to_owned() + &"0".repeat(power as usize)
        }
        Ok(_) => return None,
        Err(_) => {
            let (kept, dropped) = digits.split_at_checked(
                digits
                    .len()
                    .checked_sub(usize::try_from(power.unsigned_abs()).ok()?)?,
            )?;
            if dropped.bytes().any(|digit| digit != b'0') {
                return None;
            }
            kept.to_owned()
        }
    };
    let number: i128 = digits.parse().ok()?;
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_may_be_written_in_any_way() {
        let cases = [
            ("0", Some(0)),
            ("-0.0e9", Some(0)),
            ("1.0", Some(1)),
            ("1e2", Some(100)),
            ("1.25E+2", Some(125)),
            ("1200e-2", Some(12)),
            ("-12.30e1", Some(-123)),
            ("\"42\"", Some(42)),
            ("\"1e1\"", Some(10)),
            ("9223372036854775808", Some(1 << 63)),
            ("1.5", None),
            ("12e-2", None),
            ("1e-9", None),
            ("1e99999999999999999999", None),
            ("1e200", None),
            ("\" 1\"", None),
            ("\"\"", None),
            ("\"+1\"", None),
            ("\"0x1\"", None),
            ("\"01\"", None),
            ("true", None),
        ];
        for (raw, expected) in cases {
            assert_eq!(number(raw), expected, "{raw}");
        }
        assert_eq!(value("9223372036854775808", &Kind::Int64), None);
        assert_eq!(value("-1", &Kind::Uint64), None);
        assert_eq!(value("4294967296", &Kind::Uint32), None);
    }

    #[test]
    fn base64_comes_in_two_alphabets_padded_or_not() {
        let cases: [(&str, Option<&[u8]>); 9] = [
            ("", Some(b"")),
            ("YQ==", Some(b"a")),
            ("YQ", Some(b"a")),
            ("_-8=", Some(&[0xff, 0xef])),
            ("/+8", Some(&[0xff, 0xef])),
            ("YW\nJj", Some(b"abc")),
            ("YQ=", None),
            ("_+8=", None),
            ("@@", None),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text).as_deref(), expected, "{text}");
        }
    }
}
