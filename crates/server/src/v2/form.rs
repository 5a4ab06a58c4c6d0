//! Query strings and form bodies, read by the rules of Go's `net/url` and `mime`.
//!
//! Values are bytes: v2 stores what was sent, UTF-8 or not.

use super::path::unescape;

/// Named values in the order in which they count: the body's first, then the query's.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Form(Vec<(Vec<u8>, Vec<u8>)>);

/// What is wrong with a form, in Go's words, which clients are shown as the cause.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum FormError {
    #[error("invalid URL escape {}", quote(.0))]
    Escape(Vec<u8>),
    #[error("invalid semicolon separator in query")]
    Semicolon,
    #[error("http: POST too large")]
    TooLarge,
    #[error("mime: {0}")]
    MediaType(&'static str),
    #[error("unexpected EOF")]
    CutShort,
    #[error("{0}")]
    Late(String),
    #[error("too many requests")]
    TooMany,
}

impl Form {
    /// The first value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        let mut matching = self.0.iter().filter(|(key, _)| key == name.as_bytes());
        matching.next().map(|(_, value)| &value[..])
    }

    /// All values of `name`.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let matching = self.0.iter().filter(move |(key, _)| key == name.as_bytes());
        matching.map(|(_, value)| &value[..])
    }

    /// The first value of `name`, taken out.
    pub(super) fn take(&mut self, name: &str) -> Vec<u8> {
        let found = self.0.iter_mut().find(|(key, _)| key == name.as_bytes());
        found
            .map(|(_, value)| std::mem::take(value))
            .unwrap_or_default()
    }

    /// Adds the pairs of `text`. What can be read is added even when something is wrong.
    ///
    /// # Errors
    /// The first bad escape, unless there is a semicolon, which outranks it.
    pub(super) fn add(&mut self, text: &[u8]) -> Result<(), FormError> {
        let mut wrong = None;
        for pair in text
            .split(|&byte| byte == b'&')
            .filter(|pair| !pair.is_empty())
        {
            if pair.contains(&b';') {
                wrong = Some(FormError::Semicolon);
                continue;
            }
            let equals = pair
                .iter()
                .position(|&byte| byte == b'=')
                .unwrap_or(pair.len());
            let value = pair.get(equals + 1..).unwrap_or_default();
            match (unescape(&pair[..equals], true), unescape(value, true)) {
                (Ok(name), Ok(value)) => self.0.push((name, value)),
                (Err(error), _) | (_, Err(error)) => {
                    wrong.get_or_insert(FormError::Escape(error.0));
                }
            }
        }
        wrong.map_or(Ok(()), Err)
    }
}

/// The media type of a Content-Type, in lower case, and whether its parameters are well formed.
pub(super) fn media_type(header: &str) -> (String, Result<(), FormError>) {
    let base = header.split(';').next().unwrap_or_default();
    let kind = base.trim().to_ascii_lowercase();
    let wrong = |why| (String::new(), Err(FormError::MediaType(why)));
    let (first, rest) = token(&kind);
    if first.is_empty() {
        return wrong("no media type");
    }
    if !rest.is_empty() {
        let Some(rest) = rest.strip_prefix('/') else {
            return wrong("expected slash after first token");
        };
        let (second, rest) = token(rest);
        if second.is_empty() {
            return wrong("expected token after slash");
        }
        if !rest.is_empty() {
            return wrong("unexpected content after media subtype");
        }
    }
    match parameters(&header[base.len()..]) {
        Err(why @ "duplicate parameter name") => wrong(why),
        checked => (kind, checked.map_err(FormError::MediaType)),
    }
}

/// Checks `; name=value` repeated. A semicolon at the very end is let pass.
fn parameters(text: &str) -> Result<(), &'static str> {
    let mut rest = text.trim_start();
    let mut names = Vec::new();
    while !rest.is_empty() {
        let Some((name, after)) = parameter(rest) else {
            return if rest.trim() == ";" {
                Ok(())
            } else {
                Err("invalid media parameter")
            };
        };
        if names.contains(&name) {
            return Err("duplicate parameter name");
        }
        names.push(name);
        rest = after.trim_start();
    }
    Ok(())
}

fn parameter(text: &str) -> Option<(String, &str)> {
    let (name, rest) = token(text.strip_prefix(';')?.trim_start());
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    if name.is_empty() {
        return None;
    }
    let after = match rest.strip_prefix('"') {
        Some(quoted) => after_quoted(quoted)?,
        None => Some(token(rest)).filter(|(value, _)| !value.is_empty())?.1,
    };
    Some((name.to_ascii_lowercase(), after))
}

fn after_quoted(text: &str) -> Option<&str> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '"' => return Some(&text[at + 1..]),
            '\\' => escaped = true,
            '\r' | '\n' => return None,
            _ => {}
        }
    }
    None
}

fn token(text: &str) -> (&str, &str) {
    let special = |c: char| !c.is_ascii_graphic() || "()<>@,;:\\\"/[]?=".contains(c);
    text.split_at(text.find(special).unwrap_or(text.len()))
}

/// As Go's `%q` for the few bytes of a bad escape.
fn quote(bytes: &[u8]) -> String {
    format!(
        "\"{}\"",
        bytes.escape_ascii().to_string().replace("\\'", "'")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> (Form, Result<(), FormError>) {
        let mut form = Form::default();
        let result = form.add(text.as_bytes());
        (form, result)
    }

    #[test]
    fn the_first_of_several_counts_and_plus_is_a_space() {
        let (form, result) = form("a=1&a=2&b=x+y%2B&c&=n");
        assert_eq!(result, Ok(()));
        assert_eq!(form.get("a"), Some(b"1".as_slice()));
        assert_eq!(form.get("b"), Some(b"x y+".as_slice()));
        assert_eq!(form.get("c"), Some(b"".as_slice()));
        assert_eq!(form.get("d"), None);
    }

    #[test]
    fn a_semicolon_outranks_a_bad_escape() {
        assert_eq!(form("v=%zz").1, Err(FormError::Escape(b"%zz".to_vec())));
        assert_eq!(form("v=%zz&w=a;b").1, Err(FormError::Semicolon));
        assert_eq!(
            FormError::Escape(b"%z".to_vec()).to_string(),
            "invalid URL escape \"%z\""
        );
    }

    #[test]
    fn media_types_are_judged_as_go_does() {
        let ok = |text: &str| matches!(media_type(text), (_, Ok(())));
        assert_eq!(media_type("A/B; charset=\"u\\\"8\" ; x=y;").0, "a/b");
        assert!(ok("a/b;") && ok("a") && ok("a/b; c=d") && ok("a/b; c=\"\""));
        for bad in [
            "a/b; =",
            "a/b; c",
            "a/b; c=",
            "a/b c",
            "/b",
            "a/",
            "",
            "a/b; c=d; C=e",
        ] {
            assert!(!ok(bad), "{bad}");
        }
    }
}
