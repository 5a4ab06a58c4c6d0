//! Walks a part of the tree in order, for listings of any size.
//!
//! The walk remembers names only, no place in a map: between two steps the store may be written,
//! and a listing of any size is made with a bounded memory and bounded holds of a lock. It seeks
//! past each child, whatever is below it.
//!
//! Names come in byte order, which is not the order of the keys: `/a-b` stands before `/a/c` there,
//! though the name `a` is before `a-b`. Only a directory without an entry, known by keys below it,
//! can be met too late like this, and its name is then a prefix of a name met before it.

use alloc::vec::Vec;
use core::iter::Peekable;
use core::ops::Bound;

use crate::chain::Chain;
use crate::map::Range;
use crate::{DirVersion, FileVersion, Key, Revision, Store};

use super::path;
use super::view::{DirImage, Found, View};

/// How many neighbours are tried before the map is searched anew.
const NEAR: usize = 4;

/// A walk below one path at one revision, which must not be compacted while it goes on.
#[derive(Debug)]
pub struct Lister {
    at: Revision,
    recursive: bool,
    /// The directories that are open, outermost first.
    open: Vec<Open>,
    /// The child opened last, not looked into yet.
    entered: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Open {
    /// Its path, and a slash.
    prefix: Vec<u8>,
    /// The name of the child shown last.
    last: Vec<u8>,
}

/// What a walk meets.
#[derive(Debug)]
pub enum Step<'a> {
    /// A child of the directory opened last.
    Open {
        /// Its path.
        path: Vec<u8>,
        /// What it is.
        found: Found<'a>,
    },
    /// The end of the child opened last.
    Close,
    /// The end.
    End,
}

impl Lister {
    /// A walk below `path`, through all levels or one.
    pub fn new(path: &[u8], at: Revision, recursive: bool) -> Self {
        Self {
            at,
            recursive,
            open: Vec::from([Open::new(path)]),
            entered: None,
        }
    }

    /// Goes on, for as long as the store stays as it is.
    pub fn resume<'a>(&mut self, store: &'a Store) -> Walk<'_, 'a> {
        let view = View::new(store, self.at);
        let files = Near {
            from: Vec::new(),
            range: store.files.range(behind(b"")).peekable(),
        };
        let dirs = Near {
            from: Vec::new(),
            range: store.dirs.range(behind(b"")).peekable(),
        };
        Walk {
            lister: self,
            store,
            view,
            files,
            dirs,
        }
    }
}

impl Open {
    fn new(path: &[u8]) -> Self {
        Self {
            prefix: [path, b"/"].concat(),
            last: Vec::new(),
        }
    }
}

/// A part of a walk, during which the store stays as it is.
#[derive(Debug)]
pub struct Walk<'l, 'a> {
    lister: &'l mut Lister,
    store: &'a Store,
    view: View<'a>,
    files: Near<'a, FileVersion>,
    dirs: Near<'a, DirVersion>,
}

impl<'a> Walk<'_, 'a> {
    /// The next step.
    pub fn step(&mut self) -> Step<'a> {
        if let Some(path) = self.lister.entered.take() {
            if !self.lister.recursive {
                return Step::Close;
            }
            self.lister.open.push(Open::new(&path));
        }
        let Some(mut open) = self.lister.open.pop() else {
            return Step::End;
        };
        while let Some((name, found)) = self.next_child(&open) {
            let child = [&open.prefix[..], &name].concat();
            let hidden = name.starts_with(b"_");
            open.last = name;
            if hidden || !path::is_path(&child) {
                continue;
            }
            self.lister.open.push(open);
            self.lister.entered = Some(child.clone());
            return Step::Open { path: child, found };
        }
        if self.lister.open.is_empty() {
            Step::End
        } else {
            Step::Close
        }
    }

    /// The first child behind the last one, whose name may be none that a path can have.
    fn next_child(&mut self, open: &Open) -> Option<(Vec<u8>, Found<'a>)> {
        let Open { prefix, last } = open;
        let mut from = [&prefix[..], last].concat();
        let (key, file, dir) = loop {
            let met = self.first_from(&from, prefix)?;
            let relative = &met.0[prefix.len()..];
            let name = first_element(relative);
            if name > &last[..] {
                break met;
            }
            // `last` itself, or a prefix of it: past that key, or past all below it.
            let past: &[u8] = if name.len() == relative.len() {
                b"\0"
            } else {
                b"0"
            };
            from = [&prefix[..], name, past].concat();
        };
        let relative = &key[prefix.len()..];
        let name = first_element(relative);
        let earlier = (1..name.len()).filter(|&at| name[at] < b'/' && name[..at] > last[..]);
        let mut implied = earlier.map(|at| &name[..at]).filter_map(|name| {
            let (_, first) = self
                .view
                .files_below(&[&prefix[..], name].concat())
                .next()?;
            Some((name, first))
        });
        if let Some((name, first)) = implied.next() {
            return Some((name.to_vec(), Found::Dir(DirImage::implied(first))));
        }
        let found = match (file, dir) {
            (Some(file), _) if name.len() == relative.len() => Found::File(file),
            (_, Some(dir)) if name.len() == relative.len() => Found::Dir(DirImage::of(dir)),
            // Known by what is below it, which begins with a key: entries have their parents'.
            (file, _) => Found::Dir(DirImage::implied(file.expect("T1"))),
        };
        Some((name.to_vec(), found))
    }

    /// The first key or entry at or behind `from` that is alive and begins with `prefix`.
    #[allow(clippy::type_complexity)]
    fn first_from(
        &mut self,
        from: &[u8],
        prefix: &[u8],
    ) -> Option<(&'a Key, Option<&'a FileVersion>, Option<&'a DirVersion>)> {
        let at = self.lister.at;
        let store = self.store;
        let search = |from: &[u8]| store.files.range(behind(from));
        let file = self
            .files
            .first(from, prefix, search, |chain| chain.live_at(at));
        let search = |from: &[u8]| store.dirs.range(behind(from));
        let dir = self
            .dirs
            .first(from, prefix, search, |chain| chain.live_at(at));
        match (file, dir) {
            (Some((key, file)), Some((path, dir))) if key == path => {
                Some((key, Some(file), Some(dir)))
            }
            (Some((key, file)), Some((path, _))) if key < path => Some((key, Some(file), None)),
            (_, Some((path, dir))) => Some((path, None, Some(dir))),
            (Some((key, file)), None) => Some((key, Some(file), None)),
            (None, None) => None,
        }
    }
}

fn first_element(relative: &[u8]) -> &[u8] {
    relative
        .split(|&byte| byte == b'/')
        .next()
        .unwrap_or_default()
}

fn behind(from: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Included(from), Bound::Unbounded)
}

/// A place in an ordered map from which the next one is mostly near.
struct Near<'a, V> {
    /// What `range` begins at or before.
    from: Vec<u8>,
    range: Peekable<Range<'a, Chain<V>>>,
}

impl<V> core::fmt::Debug for Near<'_, V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Near")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl<'a, V> Near<'a, V> {
    /// The first entry at or behind `from` that is `live` and begins with `prefix`.
    fn first<T>(
        &mut self,
        from: &[u8],
        prefix: &[u8],
        search: impl Fn(&[u8]) -> Range<'a, Chain<V>>,
        live: impl Fn(&'a Chain<V>) -> Option<T>,
    ) -> Option<(&'a Key, T)> {
        let mut steps = if from < &self.from[..] { NEAR } else { 0 };
        while steps < NEAR && self.range.next_if(|(key, _)| key[..] < *from).is_some() {
            steps += 1;
        }
        if steps == NEAR {
            self.range = search(from).peekable();
        }
        self.from = from.to_vec();
        loop {
            let (key, chain) = *self
                .range
                .peek()
                .filter(|(key, _)| key.starts_with(prefix))?;
            if let Some(version) = live(chain) {
                return Some((key, version));
            }
            self.range.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::string::String;
    use std::vec::Vec;

    use super::*;
    use crate::tree::testing::{Draw, mkdir, put};

    fn listed(store: &Store, path: &str, recursive: bool) -> Vec<String> {
        let mut lister = Lister::new(path.as_bytes(), store.revision(), recursive);
        let mut walk = lister.resume(store);
        let mut paths = Vec::new();
        let mut depth = 0;
        loop {
            match walk.step() {
                Step::Open { path, .. } => {
                    depth += 1;
                    paths.push(String::from_utf8(path).unwrap());
                }
                Step::Close => depth -= 1,
                Step::End => break,
            }
        }
        assert_eq!(depth, 0, "every child that opens closes");
        paths
    }

    #[test]
    fn names_are_in_order_though_keys_are_not() {
        let mut store = Store::default();
        for key in [
            "/d/a-b",
            "/d/a/c",
            "/d/a",
            "/d/a.b/x",
            "/d/b",
            "/d/b-/y",
            "/d/ab/c/d",
        ] {
            put(&mut store, key);
        }
        let names = ["/d/a", "/d/a-b", "/d/a.b", "/d/ab", "/d/b", "/d/b-"];
        assert_eq!(listed(&store, "/d", false), names);
    }

    #[test]
    fn hidden_and_unclean_names_are_left_out() {
        let mut store = Store::default();
        for key in [
            "k", "/", "/_h", "/a//b", "/b/./c", "/c/_h/x", "/../x", "/e/",
        ] {
            put(&mut store, key);
        }
        assert_eq!(listed(&store, "", true), ["/a", "/b", "/c", "/e"]);
        assert_eq!(listed(&store, "/c/_h", true), ["/c/_h/x"]);
    }

    /// Against a model that splits every key into its ancestors.
    #[test]
    fn a_listing_shows_each_node_once_in_order() {
        let mut draw = Draw(7);
        for _ in 0..300 {
            let mut store = Store::default();
            let mut model = BTreeSet::new();
            for _ in 0..draw.below(12) {
                let elements: Vec<String> = (0..=draw.below(3))
                    .map(|_| {
                        (0..=draw.below(3))
                            .map(|_| *draw.of(&['a', 'b', '-', '!']))
                            .collect()
                    })
                    .collect();
                let key = std::format!("/{}", elements.join("/"));
                let made = draw.below(3) == 0 && mkdir(&mut store, &key);
                if !made {
                    put(&mut store, &key);
                }
                for depth in 0..elements.len() {
                    model.insert(elements[..=depth].to_vec());
                }
            }
            let expected: Vec<String> = model
                .iter()
                .map(|elements| std::format!("/{}", elements.join("/")))
                .collect();
            assert_eq!(listed(&store, "", true), expected);
        }
    }
}
