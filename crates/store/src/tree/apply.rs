//! What v2's writes do to the key space.
//!
//! Each operation first finds out whether it may, then writes: a refused one changed nothing (S5).
//!
//! Source: spec v2-api.md §8.1, one-store.md §2.

use alloc::vec::Vec;
use core::fmt::Write as _;

use crate::store::{NewFile, Writing};
use crate::{
    Action, ClusterTime, Deadline, FileVersion, Key, Limit, Mark, Revision, Store, UnixMs, Value,
    ValueError, Values,
};

use super::event::Event;
use super::view::{DirImage, Found, View};
use super::{Condition, Op, Path, Refusal, Request, Write, path};

/// How many records one [`expire`] makes, unless a single directory holds more.
const EXPIRE_MAX: usize = 1000;

/// The last end that a node can have, in the year 2262: etcd counts nanoseconds in 63 bits.
const LAST_MS: u64 = i64::MAX as u64 / 1_000_000;

/// What a write answers: its event.
pub type Reply = Event;

/// Applies a write.
///
/// # Errors
/// As [`Store::apply`].
pub(crate) fn apply(
    store: &mut Store,
    request: Request,
    writing: &mut Writing,
    values: &dyn Values,
) -> Result<Result<Reply, Refusal>, ValueError> {
    let first = store.history.len();
    let mut tree = Tree { store, writing };
    let path = &request.path;
    let done = match &request.op {
        Op::Set { dir, write } => tree.set(path, *dir, write),
        Op::Create {
            dir,
            in_order,
            write,
        } => tree.create(path, *dir, *in_order, write),
        Op::Update { write } => tree.update(path, write),
        Op::CompareAndSwap { condition, write } => {
            tree.compare_and_swap(path, condition, write, values)?
        }
        Op::Delete { dir, recursive } => tree.delete(path, *dir, *recursive),
        Op::CompareAndDelete { condition } => tree.compare_and_delete(path, condition, values)?,
    };
    if let Err(refusal) = done {
        return Ok(Err(refusal));
    }
    for change in store.history.range(first) {
        if let Some(event) = Event::of(store, change, values)? {
            return Ok(Ok(event));
        }
    }
    unreachable!("T3: a write that was not refused has an event")
}

/// Ends what is due at the entry's cluster time, each at a revision of its own, in the order of
/// deadline and path.
pub(crate) fn expire(store: &mut Store, writing: &mut Writing) {
    let (time, wall, place) = (writing.time, writing.wall, writing.place);
    let first = store.history.len();
    while store.history.len() - first < EXPIRE_MAX {
        let due = store.deadlines.first().filter(|(at, ..)| *at <= time);
        let Some((_, key, class)) = due.cloned() else {
            break;
        };
        let mut tree = Tree { store, writing };
        match class {
            crate::Class::File => {
                tree.store
                    .delete_file(tree.writing, &key, Mark::shown(Action::Expire));
            }
            crate::Class::Dir => {
                let image = tree.view().dir(&key).expect("a deadline's directory");
                let ends = (image.created, image.modified);
                tree.delete_below(&key, Action::Expire);
                let mark = Mark::shown(Action::Expire);
                tree.store.delete_dir(tree.writing, &key, mark, ends);
            }
        }
        store.finish(writing);
        *writing = store.begin(wall, time, place);
    }
}

/// A store under one write.
struct Tree<'a> {
    store: &'a mut Store,
    writing: &'a mut Writing,
}

impl Tree<'_> {
    /// The tree as it was before this write.
    fn view(&self) -> View<'_> {
        View::new(self.store, self.store.revision())
    }

    fn set(&mut self, path: &Path, dir: bool, write: &Write) -> Result<(), Refusal> {
        let old = match self.view().find(path) {
            Ok(Found::File(version)) => Some(version.clone()),
            Err(Refusal::NotFound(_)) if !write.refresh => None,
            Err(refusal) => return Err(refusal),
            Ok(Found::Dir(_)) if path.is_root() => return Err(Refusal::RootReadOnly),
            Ok(Found::Dir(_)) => return Err(Refusal::NotFile(Key::from(path.as_bytes()))),
        };
        let mark = Mark {
            refresh: write.refresh,
            ..Mark::shown(Action::Set)
        };
        self.make(path, dir, write, mark, old.as_ref());
        Ok(())
    }

    fn create(
        &mut self,
        path: &Path,
        dir: bool,
        in_order: bool,
        write: &Write,
    ) -> Result<(), Refusal> {
        let named;
        let path = if in_order {
            let mut name = alloc::string::String::new();
            write!(name, "{:020}", self.writing.revision.get()).expect("a string takes all");
            named = path.child(name.as_bytes()).map_err(|_| Refusal::TooLong)?;
            &named
        } else {
            path
        };
        if path.is_root() {
            return Err(Refusal::RootReadOnly);
        }
        match self.view().find(path) {
            Ok(_) => return Err(Refusal::Exists(Key::from(path.as_bytes()))),
            Err(Refusal::NotFound(_)) => {}
            Err(refusal) => return Err(refusal),
        }
        let write = Write {
            refresh: false,
            ..write.clone()
        };
        self.make(path, dir, &write, Mark::shown(Action::Create), None);
        Ok(())
    }

    fn update(&mut self, path: &Path, write: &Write) -> Result<(), Refusal> {
        if path.is_root() {
            return Err(Refusal::RootReadOnly);
        }
        let key = Key::from(path.as_bytes());
        match self.view().find(path)? {
            Found::File(version) => {
                let version = version.clone();
                self.rewrite(&key, &version, write, Action::Update);
            }
            Found::Dir(_) if !write.value.bytes.is_empty() => return Err(Refusal::NotFile(key)),
            Found::Dir(DirImage {
                created, modified, ..
            }) => {
                let mark = Mark {
                    refresh: write.refresh,
                    ..Mark::shown(Action::Update)
                };
                let deadline = self.deadline(write);
                self.store
                    .put_dir(self.writing, &key, mark, (created, modified), deadline);
                self.make_ancestors(&key);
            }
        }
        Ok(())
    }

    fn compare_and_swap(
        &mut self,
        path: &Path,
        condition: &Condition,
        write: &Write,
        values: &dyn Values,
    ) -> Result<Result<(), Refusal>, ValueError> {
        if path.is_root() {
            return Ok(Err(Refusal::RootReadOnly));
        }
        Ok(self.expected(path, condition, values)?.map(|version| {
            let key = Key::from(path.as_bytes());
            self.rewrite(&key, &version, write, Action::CompareAndSwap);
        }))
    }

    fn compare_and_delete(
        &mut self,
        path: &Path,
        condition: &Condition,
        values: &dyn Values,
    ) -> Result<Result<(), Refusal>, ValueError> {
        Ok(self.expected(path, condition, values)?.map(|_| {
            let key = Key::from(path.as_bytes());
            self.store
                .delete_file(self.writing, &key, Mark::shown(Action::CompareAndDelete));
        }))
    }

    fn delete(&mut self, path: &Path, dir: bool, recursive: bool) -> Result<(), Refusal> {
        if path.is_root() {
            return Err(Refusal::RootReadOnly);
        }
        let key = Key::from(path.as_bytes());
        let mark = Mark::shown(Action::Delete);
        match self.view().find(path)? {
            Found::File(_) => {
                let below = self.view().dir(&key).filter(|_| recursive);
                let below = below.map(|image| (image.created, image.modified));
                self.store.delete_file(self.writing, &key, mark);
                if let Some(image) = below {
                    self.delete_below(&key, Action::Delete);
                    let mark = Mark::covered(Action::Delete);
                    self.store.delete_dir(self.writing, &key, mark, image);
                }
            }
            Found::Dir(_) if !dir && !recursive => return Err(Refusal::NotFile(key)),
            Found::Dir(_) if !recursive && self.view().has_content(&key) => {
                return Err(Refusal::NotEmpty(key));
            }
            Found::Dir(DirImage {
                created, modified, ..
            }) => {
                self.delete_below(&key, Action::Delete);
                self.store
                    .delete_dir(self.writing, &key, mark, (created, modified));
            }
        }
        Ok(())
    }

    /// Makes a node that is not there, or replaces the file that is.
    fn make(
        &mut self,
        path: &Path,
        dir: bool,
        write: &Write,
        mark: Mark,
        old: Option<&FileVersion>,
    ) {
        let key = Key::from(path.as_bytes());
        let deadline = self.deadline(write);
        if dir {
            if old.is_some() {
                self.store
                    .delete_file(self.writing, &key, Mark::covered(mark.action));
            }
            let revision = self.writing.revision;
            self.store
                .put_dir(self.writing, &key, mark, (revision, revision), deadline);
        } else {
            let value = self.value(write, old);
            let limit = Limit::from_deadline(deadline);
            let new = NewFile {
                value,
                limit,
                mark,
                new_life: true,
            };
            self.store.put_file(self.writing, &key, new);
        }
        self.make_ancestors(&key);
    }

    /// Writes a file that goes on living.
    fn rewrite(&mut self, key: &Key, old: &FileVersion, write: &Write, action: Action) {
        let new = NewFile {
            value: self.value(write, Some(old)),
            limit: Limit::from_deadline(self.deadline(write)),
            mark: Mark {
                refresh: write.refresh,
                ..Mark::shown(action)
            },
            new_life: false,
        };
        self.store.put_file(self.writing, key, new);
    }

    /// T1.
    fn make_ancestors(&mut self, key: &Key) {
        let missing = {
            let view = View::new(self.store, self.writing.revision);
            let mut ancestors: Vec<&[u8]> = path::ancestors(key).collect();
            let has_entry = |ancestor: &&[u8]| view.entry(ancestor).is_some();
            // T1: above an entry all have entries.
            let known = ancestors.iter().rposition(has_entry).map_or(0, |at| at + 1);
            ancestors.drain(..known);
            ancestors
        };
        let revision: Revision = self.writing.revision;
        for ancestor in missing {
            let mark = Mark::covered(Action::Create);
            let path = Key::from(ancestor);
            self.store
                .put_dir(self.writing, &path, mark, (revision, revision), None);
        }
    }

    /// Takes all below a path away: keys in their order, then entries; none has an event.
    fn delete_below(&mut self, path: &[u8], action: Action) {
        let view = self.view();
        let files: Vec<Key> = view.files_below(path).map(|(key, _)| key.clone()).collect();
        let dirs = view.entries_below(path);
        let dirs: Vec<(Key, Revision, Revision)> = dirs
            .map(|(key, dir)| (key.clone(), dir.created, dir.modified))
            .collect();
        let mark = Mark::covered(action);
        for key in &files {
            self.store.delete_file(self.writing, key, mark);
        }
        for (key, created, modified) in &dirs {
            self.store
                .delete_dir(self.writing, key, mark, (*created, *modified));
        }
    }

    /// The file at a path if it is as the condition wants it.
    fn expected(
        &self,
        path: &Path,
        condition: &Condition,
        values: &dyn Values,
    ) -> Result<Result<FileVersion, Refusal>, ValueError> {
        let version = match self.view().find(path) {
            Ok(Found::File(version)) => version,
            Ok(Found::Dir(_)) => {
                return Ok(Err(Refusal::NotFile(Key::from(path.as_bytes()))));
            }
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut value = None;
        if let Some(wanted) = &condition.value {
            let actual = version.value.read(values)?;
            if *actual != wanted[..] {
                value = Some((wanted.clone(), actual.into_owned()));
            }
        }
        let differs = condition.index != 0 && condition.index != version.revision.get();
        let index = differs.then_some((condition.index, version.revision));
        Ok(if value.is_none() && index.is_none() {
            Ok(version.clone())
        } else {
            Err(Refusal::CompareFailed { value, index })
        })
    }

    /// The value to write; a refresh keeps the old one.
    fn value(&self, write: &Write, old: Option<&FileVersion>) -> Value {
        match old {
            Some(old) if write.refresh => old.value.clone(),
            Some(_) | None => self.writing.value(&write.value),
        }
    }

    fn deadline(&self, write: &Write) -> Option<Deadline> {
        let ttl_ms = write.ttl_s?.checked_mul(1000)?;
        let shown = self.writing.wall.0.checked_add(ttl_ms)?;
        (shown <= LAST_MS).then(|| Deadline {
            at: ClusterTime(self.writing.time.0.saturating_add(ttl_ms)),
            shown: UnixMs(shown),
        })
    }
}
