//! The parameters of a keys request, checked in etcd's order; the first failure is the answer.
//!
//! All are checked for every method, also where they have no meaning.
//!
//! Source: spec v2-api.md §1.5.

use super::error::{Code, Error};
use super::form::Form;

/// What a keys request says beside its path.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Params {
    pub(super) value: Vec<u8>,
    /// Not empty.
    pub(super) prev_value: Option<Vec<u8>>,
    /// 0 is no condition.
    pub(super) prev_index: u64,
    pub(super) prev_exist: Option<bool>,
    /// 0 is from now on.
    pub(super) wait_index: u64,
    pub(super) recursive: bool,
    pub(super) wait: bool,
    pub(super) dir: bool,
    pub(super) quorum: bool,
    pub(super) stream: bool,
    pub(super) no_value_on_success: bool,
    pub(super) ttl_s: Option<u64>,
    pub(super) refresh: bool,
    /// Read as of this revision; 0 is now. Ours, not etcd's (one-store.md M14).
    pub(super) revision: u64,
}

impl Params {
    /// Reads and checks all parameters.
    pub(super) fn parse(mut form: Form, is_get: bool) -> Result<Self, Error> {
        let prev_index = index(&form, "prevIndex")?;
        let wait_index = index(&form, "waitIndex")?;
        let recursive = quoted_flag(&form, "recursive")?;
        // Lists are always in order: only the spelling is checked.
        quoted_flag(&form, "sorted")?;
        let wait = quoted_flag(&form, "wait")?;
        let dir = quoted_flag(&form, "dir")?;
        let quorum = quoted_flag(&form, "quorum")?;
        let stream = quoted_flag(&form, "stream")?;
        if wait && !is_get {
            return Err(field("\"wait\" can only be used with GET requests"));
        }
        if form.get("prevValue").is_some_and(<[u8]>::is_empty) {
            let cause = "\"prevValue\" cannot be empty";
            return Err(Error::of_request(Code::PrevValueRequired, cause));
        }
        let no_value_on_success = quoted_flag(&form, "noValueOnSuccess")?;
        let ttl_s = ttl(&form)?;
        let prev_exist =
            flag(&form, "prevExist").map_err(|NotABool| field("invalid value for prevExist"))?;
        let refresh = flag(&form, "refresh")
            .map_err(|NotABool| field("invalid value for refresh"))?
            .unwrap_or(false);
        if refresh && form.get("value").is_some_and(|value| !value.is_empty()) {
            let cause = "A value was provided on a refresh";
            return Err(Error::of_request(Code::RefreshValue, cause));
        }
        if refresh && ttl_s.is_none() {
            return Err(Error::of_request(
                Code::RefreshTtlRequired,
                "No TTL value set",
            ));
        }
        let revision = index(&form, "revision")?;
        if wait && revision != 0 {
            return Err(field("\"revision\" cannot be used with \"wait\""));
        }
        Ok(Self {
            prev_value: Some(form.take("prevValue")).filter(|value| !value.is_empty()),
            value: form.take("value"),
            prev_index,
            prev_exist,
            wait_index,
            recursive,
            wait,
            dir,
            quorum,
            stream,
            no_value_on_success,
            ttl_s,
            refresh,
            revision,
        })
    }
}

struct NotABool;

fn field(cause: impl Into<Vec<u8>>) -> Error {
    Error::of_request(Code::InvalidField, cause)
}

fn index(form: &Form, name: &str) -> Result<u64, Error> {
    let wrong = || Error::of_request(Code::IndexNotANumber, invalid(name));
    form.get(name)
        .map_or(Ok(0), |text| number(text).ok_or_else(wrong))
}

fn ttl(form: &Form) -> Result<Option<u64>, Error> {
    let wrong = || Error::of_request(Code::TtlNotANumber, invalid("ttl"));
    let given = form.get("ttl").filter(|text| !text.is_empty());
    given.map(|text| number(text).ok_or_else(wrong)).transpose()
}

fn quoted_flag(form: &Form, name: &str) -> Result<bool, Error> {
    let found = flag(form, name).map_err(|NotABool| field(invalid(name)))?;
    Ok(found.unwrap_or(false))
}

fn invalid(name: &str) -> String {
    format!("invalid value for \"{name}\"")
}

/// Go's `strconv.ParseBool`.
fn flag(form: &Form, name: &str) -> Result<Option<bool>, NotABool> {
    form.get(name).map_or(Ok(None), |text| match text {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Ok(Some(true)),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Ok(Some(false)),
        _ => Err(NotABool),
    })
}

/// Decimal digits and nothing else, within 64 bits.
fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| digits)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Params, String> {
        let mut form = Form::default();
        form.add(text.as_bytes()).unwrap();
        Params::parse(form, true)
            .map_err(|error| format!("{} {}", error.code as u16, error.cause.escape_ascii()))
    }

    /// Each line has every later mistake too, so that it fails if the order changes.
    #[test]
    fn the_first_failure_in_order_is_the_answer() {
        let mistakes = [
            ("prevIndex=", "203", "invalid value for \\\"prevIndex\\\""),
            ("waitIndex=-1", "203", "invalid value for \\\"waitIndex\\\""),
            (
                "recursive=tRUE",
                "209",
                "invalid value for \\\"recursive\\\"",
            ),
            ("sorted", "209", "invalid value for \\\"sorted\\\""),
            ("wait=2", "209", "invalid value for \\\"wait\\\""),
            ("dir=yes", "209", "invalid value for \\\"dir\\\""),
            ("quorum=", "209", "invalid value for \\\"quorum\\\""),
            ("stream=", "209", "invalid value for \\\"stream\\\""),
            ("prevValue=", "201", "\\\"prevValue\\\" cannot be empty"),
            (
                "noValueOnSuccess=",
                "209",
                "invalid value for \\\"noValueOnSuccess\\\"",
            ),
            ("ttl=+5", "202", "invalid value for \\\"ttl\\\""),
            ("prevExist=", "209", "invalid value for prevExist"),
            ("refresh=", "209", "invalid value for refresh"),
            ("revision=x", "203", "invalid value for \\\"revision\\\""),
        ];
        for at in 0..mistakes.len() {
            let query: Vec<&str> = mistakes[at..].iter().map(|(text, ..)| *text).collect();
            let (_, code, cause) = mistakes[at];
            assert_eq!(parse(&query.join("&")), Err(format!("{code} {cause}")));
        }
    }

    #[test]
    fn a_refresh_has_a_ttl_and_no_value() {
        let error = |text: &str| parse(text).unwrap_err();
        assert_eq!(
            error("refresh=1&value=v"),
            "211 A value was provided on a refresh"
        );
        assert_eq!(error("refresh=1&ttl="), "212 No TTL value set");
        assert!(parse("refresh=1&ttl=5&value=").is_ok_and(|params| params.refresh));
        assert!(parse("refresh=0&value=v").is_ok_and(|params| !params.refresh));
    }

    #[test]
    fn wait_is_for_get_and_excludes_a_revision() {
        let mut form = Form::default();
        form.add(b"wait=1&prevValue=").unwrap();
        let error = Params::parse(form, false).unwrap_err();
        assert_eq!(error.cause, b"\"wait\" can only be used with GET requests");
        assert!(parse("wait=1&revision=3").is_err());
        assert!(parse("wait=1&revision=0").is_ok());
    }

    #[test]
    fn numbers_have_64_bits() {
        assert_eq!(
            parse("ttl=18446744073709551615").unwrap().ttl_s,
            Some(u64::MAX)
        );
        assert!(parse("ttl=18446744073709551616").is_err());
        assert_eq!(parse("prevIndex=007").unwrap().prev_index, 7);
    }
}
