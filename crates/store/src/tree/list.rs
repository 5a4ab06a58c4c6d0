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

use crate::{Revision, Store};

use super::path;
use super::view::{Found, View};

/// A walk below one path at one revision, which must not be compacted while it goes on.
#[derive(Debug)]
pub struct Lister {
    at: Revision,
    recursive: bool,
    /// The directories that are open, outermost first.
    open: Vec<Open>,
    /// The last step was a child to be looked into, or closed.
    entered: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Open {
    path: Vec<u8>,
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
        let open = Open {
            path: path.to_vec(),
            last: Vec::new(),
        };
        Self {
            at,
            recursive,
            open: Vec::from([open]),
            entered: None,
        }
    }

    /// The next step.
    pub fn step<'a>(&mut self, store: &'a Store) -> Step<'a> {
        let view = View::new(store, self.at);
        if let Some(path) = self.entered.take() {
            if !self.recursive {
                return Step::Close;
            }
            self.open.push(Open {
                path,
                last: Vec::new(),
            });
        }
        let Some(open) = self.open.last_mut() else {
            return Step::End;
        };
        while let Some(name) = next_name(&view, &open.path, &open.last) {
            let child = [&open.path[..], b"/", &name].concat();
            let hidden = name.starts_with(b"_");
            open.last = name;
            if hidden || !path::is_path(&child) {
                continue;
            }
            let found = view
                .found(&child)
                .expect("a name was found by what is there");
            self.entered = Some(child.clone());
            return Step::Open { path: child, found };
        }
        self.open.pop();
        if self.open.is_empty() {
            Step::End
        } else {
            Step::Close
        }
    }
}

/// The first name behind `last` in a directory, which may be no name that a path can have.
fn next_name(view: &View<'_>, dir: &[u8], last: &[u8]) -> Option<Vec<u8>> {
    let prefix = [dir, b"/"].concat();
    let mut from = [&prefix[..], last].concat();
    let name = loop {
        let key = view.first_from(&from, &prefix)?;
        let relative = &key[prefix.len()..];
        let name = relative
            .split(|&byte| byte == b'/')
            .next()
            .unwrap_or_default();
        if name > last {
            break name;
        }
        // `last` itself, or a prefix of it: past that key, or past all below it.
        let past: &[u8] = if name.len() == relative.len() {
            b"\0"
        } else {
            b"0"
        };
        from = [&prefix[..], name, past].concat();
    };
    let earlier = (1..name.len()).filter(|&at| name[at] < b'/' && name[..at] > *last);
    let mut implied = earlier.filter(|&at| {
        view.files_below(&[&prefix[..], &name[..at]].concat())
            .next()
            .is_some()
    });
    let len = implied.next().unwrap_or(name.len());
    Some(name[..len].to_vec())
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
        let mut paths = Vec::new();
        let mut depth = 0;
        loop {
            match lister.step(store) {
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
