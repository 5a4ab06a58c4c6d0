//! The path of a request: escapes, cleaning, and where an unclean one is redirected to.
//!
//! The rules are those of Go's `net/url` and `ServeMux`, in front of which etcd's handlers stand.

/// A `%` without two hexadecimal digits: the escape and what follows, three bytes at most.
#[derive(Debug, PartialEq)]
pub(super) struct BadEscape(pub(super) Vec<u8>);

/// Undoes percent escapes; in a form, `+` is a space.
pub(super) fn unescape(text: &[u8], form: bool) -> Result<Vec<u8>, BadEscape> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let byte = hex_pair(after)
                    .ok_or_else(|| BadEscape([b"%", &after[..after.len().min(2)]].concat()))?;
                out.push(byte);
                rest = &after[2..];
            }
            b'+' if form => out.push(b' '),
            byte => out.push(byte),
        }
    }
    Ok(out)
}

fn hex_pair(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// The path without empty, `.` and `..` elements. A slash at the end stays.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let mut elements: Vec<&[u8]> = Vec::new();
    for element in path.split(|&byte| byte == b'/') {
        match element {
            b"" | b"." => {}
            b".." => {
                elements.pop();
            }
            element => elements.push(element),
        }
    }
    let mut out = Vec::with_capacity(path.len() + 1);
    for element in &elements {
        out.push(b'/');
        out.extend_from_slice(element);
    }
    if out.is_empty() || path.ends_with(b"/") {
        out.push(b'/');
    }
    out
}

/// A path as it stands in a URL.
pub(super) fn escape(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A URL with escapes for what is not ASCII, in the lower case that Go writes them in.
pub(super) fn escape_non_ascii(url: &str) -> String {
    let mut out = String::with_capacity(url.len());
    for byte in url.bytes() {
        if byte.is_ascii() {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_keeps_one_trailing_slash() {
        for (from, to) in [
            ("/v2/keys//a", "/v2/keys/a"),
            ("/a/./b/", "/a/b/"),
            ("/a/../../b", "/b"),
            ("/..", "/"),
            ("/a/..", "/"),
            ("//", "/"),
            ("", "/"),
            ("/...", "/..."),
        ] {
            assert_eq!(clean(from.as_bytes()), to.as_bytes(), "{from}");
        }
    }

    #[test]
    fn plus_is_a_space_in_forms_only() {
        assert_eq!(unescape(b"a+b%2F", false), Ok(b"a+b/".to_vec()));
        assert_eq!(unescape(b"a+b%2f", true), Ok(b"a b/".to_vec()));
        assert_eq!(unescape(b"x%2", true), Err(BadEscape(b"%2".to_vec())));
    }

    #[test]
    fn a_redirect_is_ascii_in_lower_case() {
        assert_eq!(escape_non_ascii("/a%2B?x=é"), "/a%2B?x=%c3%a9");
    }

    #[test]
    fn escapes_are_those_of_a_path() {
        assert_eq!(
            escape("/a b'(!?é=&;".as_bytes()),
            "/a%20b%27%28%21%3F%C3%A9=&;"
        );
    }
}
