//! v2's error bodies: which code, status and text each failure has.

use quorate_store::tree;

/// An error of `/v2/keys`, as a client sees it.
#[derive(Debug, PartialEq)]
pub(super) struct Error {
    pub(super) code: Code,
    /// Left out of the body when empty.
    pub(super) cause: Vec<u8>,
    /// The current index for errors of the store, 0 for all others.
    pub(super) index: u64,
}

/// v2's error numbers, of which these are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u16)]
pub(super) enum Code {
    KeyNotFound = 100,
    CompareFailed = 101,
    NotFile = 102,
    NotDirectory = 104,
    KeyExists = 105,
    RootReadOnly = 107,
    DirectoryNotEmpty = 108,
    PrevValueRequired = 201,
    TtlNotANumber = 202,
    IndexNotANumber = 203,
    InvalidField = 209,
    InvalidForm = 210,
    RefreshValue = 211,
    RefreshTtlRequired = 212,
    RaftInternal = 300,
    HistoryCleared = 401,
}

impl Code {
    /// The HTTP status and the message.
    pub(super) fn status_and_message(self) -> (u16, &'static str) {
        match self {
            Self::KeyNotFound => (404, "Key not found"),
            Self::CompareFailed => (412, "Compare failed"),
            Self::NotFile => (403, "Not a file"),
            Self::NotDirectory => (400, "Not a directory"),
            Self::KeyExists => (412, "Key already exists"),
            Self::RootReadOnly => (400, "Root is read only"),
            Self::DirectoryNotEmpty => (403, "Directory not empty"),
            Self::PrevValueRequired => (400, "PrevValue is Required in POST form"),
            Self::TtlNotANumber => (400, "The given TTL in POST form is not a number"),
            Self::IndexNotANumber => (400, "The given index in POST form is not a number"),
            Self::InvalidField => (400, "Invalid field"),
            Self::InvalidForm => (400, "Invalid POST form"),
            Self::RefreshValue => (400, "Value provided on refresh"),
            Self::RefreshTtlRequired => (400, "A TTL must be provided on refresh"),
            Self::RaftInternal => (500, "Raft Internal Error"),
            Self::HistoryCleared => (400, "The event in requested index is outdated and cleared"),
        }
    }
}

impl Error {
    /// An error of the request's own, found before the store was asked: its index is 0.
    pub(super) fn of_request(code: Code, cause: impl Into<Vec<u8>>) -> Self {
        Self {
            code,
            cause: cause.into(),
            index: 0,
        }
    }

    /// What the store refused, at the index where it did.
    pub(super) fn of_store(refusal: &tree::Refusal, index: u64) -> Self {
        use tree::Refusal as R;
        let (code, cause) = match refusal {
            R::NotFound(path) => (Code::KeyNotFound, path.to_vec()),
            R::CompareFailed { value, index } => {
                let mut cause = Vec::new();
                if let Some((wanted, actual)) = value {
                    cause = [b"[", &wanted[..], b" != ", actual, b"]"].concat();
                }
                if let Some((wanted, actual)) = index {
                    let space = if cause.is_empty() { "" } else { " " };
                    cause.extend_from_slice(format!("{space}[{wanted} != {actual}]").as_bytes());
                }
                (Code::CompareFailed, cause)
            }
            R::NotFile(path) => (Code::NotFile, path.to_vec()),
            R::NotDirectory(path) => (Code::NotDirectory, path.to_vec()),
            R::Exists(path) => (Code::KeyExists, path.to_vec()),
            R::RootReadOnly => (Code::RootReadOnly, b"/".to_vec()),
            R::NotEmpty(path) => (Code::DirectoryNotEmpty, path.to_vec()),
            R::TooLong => (Code::InvalidForm, b"path too long".to_vec()),
            R::Outdated { .. } => (Code::HistoryCleared, refusal.to_string().into_bytes()),
        };
        Self { code, cause, index }
    }

    /// The body, its newline included.
    pub(super) fn body(&self) -> Vec<u8> {
        let mut out = format!("{{\"errorCode\":{},\"message\":", self.code as u16).into_bytes();
        super::json::string(&mut out, self.code.status_and_message().1.as_bytes());
        if !self.cause.is_empty() {
            out.extend_from_slice(b",\"cause\":");
            super::json::string(&mut out, &self.cause);
        }
        out.extend_from_slice(format!(",\"index\":{}}}\n", self.index).as_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_store::Revision;

    #[test]
    fn both_differing_parts_of_a_comparison_are_named() {
        let refusal = tree::Refusal::CompareFailed {
            value: Some((Bytes::from("zzz"), b"one".to_vec())),
            index: Some((9, Revision::new(4))),
        };
        assert_eq!(
            String::from_utf8(Error::of_store(&refusal, 4).body()).unwrap(),
            "{\"errorCode\":101,\"message\":\"Compare failed\",\
             \"cause\":\"[zzz != one] [9 != 4]\",\"index\":4}\n"
        );
    }

    #[test]
    fn an_empty_cause_is_left_out() {
        let refusal = tree::Refusal::NotFile(quorate_store::Key::from(&[][..]));
        assert_eq!(
            Error::of_store(&refusal, 7).body(),
            b"{\"errorCode\":102,\"message\":\"Not a file\",\"index\":7}\n"
        );
    }
}
