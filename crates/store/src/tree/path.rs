//! Names in the tree: clean, slash-separated, bounded.

use bytes::Bytes;

/// The most elements that a path has.
pub const MAX_ELEMENTS: usize = 128;
/// The most bytes that a path has.
pub const MAX_BYTES: usize = 4096;

/// A clean path: empty for the root, else `/` and an element, repeated.
///
/// The bytes of a path other than the root are the v3 key that a file there has (one-store.md M3).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Path(Bytes);

/// Why bytes are no path.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// Not absolute, or an element is empty, `.` or `..`.
    #[error("path is not clean")]
    Unclean,
    /// More than [`MAX_ELEMENTS`] or [`MAX_BYTES`].
    #[error("path too long")]
    TooLong,
}

impl Path {
    /// The top of the tree, which has no key.
    pub const fn root() -> Self {
        Self(Bytes::new())
    }

    /// Takes a clean path; `/` and nothing are the root.
    ///
    /// # Errors
    /// [`PathError::Unclean`], [`PathError::TooLong`].
    pub fn parse(bytes: Bytes) -> Result<Self, PathError> {
        if matches!(&bytes[..], [] | [b'/']) {
            return Ok(Self::root());
        }
        check(&bytes)?;
        Ok(Self(bytes))
    }

    /// Whether it is the top of the tree.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its bytes: nothing for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path of its child `name`.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn child(&self, name: &[u8]) -> Result<Self, PathError> {
        let mut bytes = alloc::vec::Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        check(&bytes)?;
        Ok(Self(bytes.into()))
    }
}

fn check(bytes: &[u8]) -> Result<(), PathError> {
    let below = bytes.strip_prefix(b"/").ok_or(PathError::Unclean)?;
    let mut elements = below.split(|&byte| byte == b'/');
    if elements.any(|element| matches!(element, b"" | b"." | b"..")) {
        return Err(PathError::Unclean);
    }
    let count = bytes.iter().filter(|&&byte| byte == b'/').count();
    if bytes.len() > MAX_BYTES || count > MAX_ELEMENTS {
        return Err(PathError::TooLong);
    }
    Ok(())
}

/// Whether a v3 key has a place in the tree.
pub fn is_path(key: &[u8]) -> bool {
    check(key).is_ok()
}

/// The proper ancestors of `path` below the root, topmost first.
pub fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path
        .iter()
        .enumerate()
        .skip(1)
        .filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| &path[..at])
}

/// What is left of `path` below `above`, its slash excluded; `None` if it is not below it.
pub fn below<'a>(path: &'a [u8], above: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(above)?.strip_prefix(b"/")
}

/// Whether an element of `relative` is hidden.
pub fn has_hidden(relative: &[u8]) -> bool {
    relative
        .split(|&byte| byte == b'/')
        .any(|element| element.starts_with(b"_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn clean_paths_are_taken_and_others_refused() {
        for good in ["", "/", "/a", "/a/b", "/...", "/a../_b", "/ \u{e9}"] {
            assert!(Path::parse(Bytes::from(good)).is_ok(), "{good}");
        }
        for bad in ["a", "//", "/a/", "/a//b", "/./a", "/a/..", "a/b"] {
            assert_eq!(
                Path::parse(Bytes::from(bad)),
                Err(PathError::Unclean),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_limits_are_inclusive() {
        assert!(is_path(&b"/a".repeat(MAX_ELEMENTS)));
        assert!(!is_path(&b"/a".repeat(MAX_ELEMENTS + 1)));
        let mut long = Vec::from(b"/".as_slice());
        long.resize(MAX_BYTES, b'x');
        assert!(is_path(&long));
        long.push(b'x');
        assert!(!is_path(&long));
    }

    #[test]
    fn ancestors_come_topmost_first() {
        let found: Vec<&[u8]> = ancestors(b"/a/bc/d").collect();
        assert_eq!(found, [b"/a".as_slice(), b"/a/bc"]);
        assert_eq!(ancestors(b"/a").count(), 0);
    }

    #[test]
    fn hidden_elements_are_found_below_only() {
        assert_eq!(below(b"/a/_b/c", b"/a/_b"), Some(b"c".as_slice()));
        assert_eq!(below(b"/ab", b"/a"), None);
        assert!(has_hidden(b"x/_y"));
        assert!(!has_hidden(b"x_/y"));
    }
}
