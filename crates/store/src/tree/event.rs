//! What v2 is told that happened, derived from versions and their marks alone.

use alloc::vec::Vec;
use bytes::Bytes;

use crate::{
    Action, Change, Class, Deadline, FileVersion, Key, Mark, Revision, Store, UnixMs, ValueError,
    Values,
};

use super::view::{DirImage, Found, View};
use super::{Path, path};

/// A change of the tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// What was done.
    pub action: Action,
    /// When.
    pub revision: Revision,
    /// The proposing member's wall clock then, by which the event's ttls are counted.
    pub wall: UnixMs,
    /// The node after it.
    pub node: Node,
    /// The node before it.
    pub previous: Option<Node>,
}

/// A node as an event shows it: without what is below it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// Its path.
    pub path: Key,
    /// A file's value; not of one that is gone.
    pub value: Option<Bytes>,
    /// It is a directory.
    pub dir: bool,
    /// The `expiration` shown.
    pub expiration: Option<UnixMs>,
    /// v2 `modifiedIndex`.
    pub modified: Revision,
    /// v2 `createdIndex`.
    pub created: Revision,
}

impl Event {
    /// The event of a change; `None` if v2 has none for it.
    ///
    /// A refresh has one, which its writer is told but no watcher.
    ///
    /// # Errors
    /// As [`crate::Value::read`].
    pub fn of(
        store: &Store,
        change: &Change,
        values: &dyn Values,
    ) -> Result<Option<Self>, ValueError> {
        let Some(mark) = mark(store, change).filter(|mark| !mark.covered) else {
            return Ok(None);
        };
        let Change {
            revision,
            class,
            key,
            wall,
            ..
        } = change;
        let before = View::new(store, revision.previous());
        let (node, previous) = match class {
            Class::File => {
                let version = store
                    .file_written_at(key, *revision)
                    .expect("a change's version");
                let mut node = Node::of_file(key, version, values)?;
                if version.count == 0 {
                    node.value = None;
                }
                (node, before.file(key).map(Found::File))
            }
            Class::Dir => {
                let version = store
                    .dirs
                    .get(key)
                    .and_then(|dir| dir.written_at(*revision));
                let version = version.expect("a change's version");
                let deadline = version.deadline.as_deref();
                let (created, modified) = (version.created, *revision);
                let node = Node::of_dir(
                    key,
                    DirImage {
                        created,
                        modified,
                        deadline,
                    },
                );
                // A directory set over a file: what was there is the file.
                let replaced = store.file_written_at(key, *revision).and(before.file(key));
                let found = replaced.map(Found::File);
                (node, found.or_else(|| before.dir(key).map(Found::Dir)))
            }
        };
        let previous = match (mark.action, previous) {
            (Action::Create, _) | (_, None) => None,
            (_, Some(Found::File(version))) => Some(Node::of_file(key, version, values)?),
            (_, Some(Found::Dir(image))) => Some(Node::of_dir(key, image)),
        };
        let (action, revision, wall) = (mark.action, *revision, *wall);
        Ok(Some(Self {
            action,
            revision,
            wall,
            node,
            previous,
        }))
    }
}

impl Node {
    fn of_file(path: &Key, version: &FileVersion, values: &dyn Values) -> Result<Self, ValueError> {
        Ok(Self {
            path: path.clone(),
            value: Some(Bytes::from(version.value.read(values)?.into_owned())),
            dir: false,
            expiration: version.limit.deadline().map(|deadline| deadline.shown),
            modified: version.revision,
            created: version.create,
        })
    }

    fn of_dir(path: &Key, image: DirImage<'_>) -> Self {
        let expiration = image.deadline.map(|deadline: &Deadline| deadline.shown);
        let DirImage {
            modified, created, ..
        } = image;
        Self {
            path: path.clone(),
            value: None,
            dir: true,
            expiration,
            modified,
            created,
        }
    }
}

/// How v2 sees a change; `None` for a key that is no path.
fn mark(store: &Store, change: &Change) -> Option<Mark> {
    let Change {
        revision,
        class,
        key,
        ..
    } = change;
    match class {
        Class::File => {
            let version = store.file_written_at(key, *revision);
            version
                .map(|version| version.mark)
                .filter(|_| path::is_path(key))
        }
        Class::Dir => store
            .dirs
            .get(key)?
            .written_at(*revision)
            .map(|version| version.mark),
    }
}

/// A place in history: the first change not looked at yet.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// Of this revision,
    pub revision: Revision,
    /// the changes from this one on.
    pub sub: u32,
}

impl Position {
    /// Before all changes of `revision`.
    pub fn start_of(revision: Revision) -> Self {
        Self { revision, sub: 0 }
    }
}

/// What is watched for.
///
/// By which rules an event matches follows from its index alone, not from how it is delivered
/// (one-store.md M10).
#[derive(Clone, Debug)]
pub struct Watch {
    /// This path,
    pub path: Path,
    /// and all below it.
    pub recursive: bool,
    /// The index at acceptance: events up to it match by the rules of the past.
    pub accepted: Revision,
}

/// Where a scan of history stopped.
#[derive(Debug)]
pub enum Scan<'a> {
    /// At a change that matches.
    Match(&'a Change),
    /// Out of budget.
    Pause,
    /// At the end of history.
    End,
}

impl Watch {
    /// Looks for the next change that matches, and moves `position` behind what it looked at.
    ///
    /// `budget` is the number of changes it may look at.
    pub fn scan<'a>(
        &self,
        store: &'a Store,
        position: &mut Position,
        budget: &mut usize,
    ) -> Scan<'a> {
        for change in changes_from(store, *position) {
            if *budget == 0 {
                return Scan::Pause;
            }
            *budget -= 1;
            *position = Position {
                revision: change.revision,
                sub: change.sub + 1,
            };
            if self.matches(store, change) {
                return Scan::Match(change);
            }
        }
        *position = (*position).max(Position::start_of(store.revision().next()));
        Scan::End
    }

    /// How many changes behind `position`, of its revision, match.
    pub fn siblings(&self, store: &Store, position: Position) -> usize {
        let later = changes_from(store, position);
        later
            .take_while(|change| change.revision == position.revision)
            .filter(|change| self.matches(store, change))
            .count()
    }

    /// Whether the watcher is told a change.
    pub fn matches(&self, store: &Store, change: &Change) -> bool {
        let Some(mark) = mark(store, change) else {
            return false;
        };
        if mark.covered || mark.refresh {
            return false;
        }
        let (watched, key) = (self.path.as_bytes(), &change.key[..]);
        if watched == key {
            return true;
        }
        let past = change.revision <= self.accepted;
        if let Some(relative) = path::below(key, watched) {
            return self.recursive && (past || !path::has_hidden(relative));
        }
        path::below(watched, key).is_some()
            && removes_directory(store, change)
            && (past
                || View::new(store, change.revision.previous())
                    .found(watched)
                    .is_some())
    }
}

fn changes_from(store: &Store, position: Position) -> impl Iterator<Item = &Change> {
    let Position { revision, sub } = position;
    let before = |change: &Change| (change.revision, change.sub) < (revision, sub);
    let start = store.history.partition_point(before);
    store.history.range(start)
}

/// Whether a change took all below its path away.
///
/// Its own record says so, or, where a file went together with what was below it, the covered one
/// beside it.
pub fn removes_directory(store: &Store, change: &Change) -> bool {
    let written = store
        .dirs
        .get(&change.key)
        .and_then(|dir| dir.written_at(change.revision));
    written.is_some_and(|version| version.tombstone)
}

/// All events of one revision, in order.
///
/// # Errors
/// As [`Event::of`].
pub fn events_at(
    store: &Store,
    revision: Revision,
    values: &dyn Values,
) -> Result<Vec<Event>, ValueError> {
    let changes = store
        .changes(revision)
        .take_while(|change| change.revision == revision);
    changes
        .filter_map(|change| Event::of(store, change, values).transpose())
        .collect()
}
