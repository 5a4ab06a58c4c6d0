//! The tree as it stood at one revision.

use core::ops::Bound;

use crate::{Deadline, DirVersion, FileVersion, Key, Revision, Store};

use super::{Path, Refusal, path};

/// The tree at one revision, which must not be compacted.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    store: &'a Store,
    at: Revision,
}

/// What stands at a path.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A file, below which there may be more (one-store.md M2).
    File(&'a FileVersion),
    /// A directory.
    Dir(DirImage<'a>),
}

/// A directory as v2 shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DirImage<'a> {
    /// v2 `createdIndex`; 0 for the root.
    pub created: Revision,
    /// v2 `modifiedIndex`; 0 for the root.
    pub modified: Revision,
    /// Its time to live.
    pub deadline: Option<&'a Deadline>,
}

impl<'a> DirImage<'a> {
    /// Of an entry.
    pub(super) fn of(entry: &'a DirVersion) -> Self {
        Self {
            created: entry.created,
            modified: entry.modified,
            deadline: entry.deadline.as_deref(),
        }
    }

    /// Of a directory without one, by the first key below it.
    pub(super) fn implied(first: &FileVersion) -> Self {
        Self {
            created: first.create,
            modified: first.create,
            deadline: None,
        }
    }
}

impl<'a> View<'a> {
    /// The tree of `store` at `at`.
    pub fn new(store: &'a Store, at: Revision) -> Self {
        Self { store, at }
    }

    /// The file at a path or key.
    pub fn file(&self, path: &[u8]) -> Option<&'a FileVersion> {
        self.store.files.get(path)?.live_at(self.at)
    }

    /// The directory entry at a path.
    pub(super) fn entry(&self, path: &[u8]) -> Option<&'a DirVersion> {
        self.store.dirs.get(path)?.live_at(self.at)
    }

    /// The directory at a path, be it implied by keys below (one-store.md M1).
    pub fn dir(&self, path: &[u8]) -> Option<DirImage<'a>> {
        if path.is_empty() {
            let zero = Revision::ZERO;
            return Some(DirImage {
                created: zero,
                modified: zero,
                deadline: None,
            });
        }
        if let Some(entry) = self.entry(path) {
            return Some(DirImage::of(entry));
        }
        self.files_below(path)
            .next()
            .map(|(_, first)| DirImage::implied(first))
    }

    /// What stands at a path; a file comes before a directory.
    pub fn found(&self, path: &[u8]) -> Option<Found<'a>> {
        self.file(path)
            .map(Found::File)
            .or_else(|| self.dir(path).map(Found::Dir))
    }

    /// What stands at a path, or why nothing does.
    ///
    /// # Errors
    /// [`Refusal::NotDirectory`] names the topmost file in the way, [`Refusal::NotFound`] the
    /// first element that is missing, whichever comes first.
    pub fn find(&self, path: &Path) -> Result<Found<'a>, Refusal> {
        let path = path.as_bytes();
        if let Some(found) = self.found(path) {
            return Ok(found);
        }
        for ancestor in path::ancestors(path) {
            match self.found(ancestor) {
                Some(Found::File(_)) => return Err(Refusal::NotDirectory(Key::from(ancestor))),
                Some(Found::Dir(_)) => {}
                None => return Err(Refusal::NotFound(Key::from(ancestor))),
            }
        }
        Err(Refusal::NotFound(Key::from(path)))
    }

    /// Keys below a path that are alive, clean ones or not.
    pub(super) fn files_below(
        &self,
        path: &[u8],
    ) -> impl Iterator<Item = (&'a Key, &'a FileVersion)> + use<'a> {
        let at = self.at;
        let [start, end] = bounds_below(path);
        let range = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
        let chains = self.store.files.range(range);
        chains.filter_map(move |(key, chain)| Some((key, chain.live_at(at)?)))
    }

    /// Directory entries below a path.
    pub(super) fn entries_below(
        &self,
        path: &[u8],
    ) -> impl Iterator<Item = (&'a Key, &'a DirVersion)> + use<'a> {
        let at = self.at;
        let [start, end] = bounds_below(path);
        let range = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
        let chains = self.store.dirs.range(range);
        chains.filter_map(move |(key, chain)| Some((key, chain.live_at(at)?)))
    }

    /// Whether anything, hidden or unclean, is below a path.
    pub(super) fn has_content(&self, path: &[u8]) -> bool {
        self.files_below(path).next().is_some() || self.entries_below(path).next().is_some()
    }
}

/// The interval of what is below a path: `/` and the byte after it bound it.
pub(super) fn bounds_below(path: &[u8]) -> [alloc::vec::Vec<u8>; 2] {
    [[path, b"/"].concat(), [path, b"0"].concat()]
}
