//! Watches of both dialects, as cursors into history that are checked against the model (P4).
//!
//! A watcher that comes back after a restart goes on from what it was told last.

use quorate_store::tree::{Event, Path, Position, Scan, Watch};
use quorate_store::{Action, Class, KeyRange, Revision, Store, Values};

use crate::model::{Model, TreeEvent, is_below};

/// A v3 watcher.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    range: KeyRange,
    /// The first revision not delivered yet.
    pub(crate) next: u64,
}

impl Watcher {
    pub(crate) fn new(range: KeyRange, next: u64) -> Self {
        Self { range, next }
    }

    /// Delivers what up to `max` changes brought, and the rest of the last one's revision.
    pub(crate) fn poll(
        &mut self,
        store: &Store,
        values: &dyn Values,
        model: &Model,
        max: usize,
    ) -> usize {
        // Compaction overtook it: it is cancelled, and begins again where it may.
        self.next = self.next.max(model.oldest());
        let mut upto = model.revision;
        let mut told = Vec::new();
        for (nth, change) in store.changes(Revision::new(self.next)).enumerate() {
            let revision = change.revision.get();
            if revision > upto {
                break;
            }
            if nth + 1 == max {
                upto = revision;
            }
            if change.class == Class::File && self.range.contains(&change.key) {
                let version = store.file_written_at(&change.key, change.revision);
                let version = version.expect("a change has a version");
                let value = (version.count > 0).then(|| {
                    let value = version.value.read(values);
                    value.expect("P6: a watched value is there").into_owned()
                });
                told.push((revision, change.key.to_vec(), value));
            }
        }
        let log = model.file_log.iter();
        let expected: Vec<_> = log
            .filter(|(at, key, _)| (self.next..=upto).contains(at) && self.range.contains(key))
            .map(|(at, key, file)| (*at, key.clone(), file.as_ref().map(|f| f.value.to_vec())))
            .collect();
        assert_eq!(told, expected, "P4: a watch from {} to {upto}", self.next);
        self.next = upto + 1;
        told.len()
    }
}

/// A recursive v2 watcher.
#[derive(Clone, Debug)]
pub(crate) struct TreeWatcher {
    watch: Watch,
    position: Position,
    /// Which of the model's events comes next.
    expected: usize,
    /// The revision of what was told last.
    last: u64,
}

impl TreeWatcher {
    pub(crate) fn new(path: &'static str, from: u64, model: &Model) -> Self {
        let path = Path::parse(path.as_bytes().into()).expect("scripts use clean paths");
        let accepted = Revision::new(model.revision);
        let watch = Watch {
            path,
            recursive: true,
            accepted,
        };
        let mut watcher = Self {
            watch,
            position: Position::start_of(Revision::ZERO),
            expected: 0,
            last: 0,
        };
        watcher.start(from, model);
        watcher
    }

    /// Comes back after a restart: the revision told last may not have been told to its end.
    pub(crate) fn resume(&mut self, model: &Model, skip: u64) {
        let whole = model.tree_log[..self.expected]
            .iter()
            .rposition(|event| event.revision == self.last)
            .is_some_and(|at| {
                let rest = &model.tree_log[at + 1..];
                !rest
                    .iter()
                    .any(|event| event.revision == self.last && self.sees(event, model))
            });
        let from = if whole { self.last + 1 } else { self.last };
        self.watch.accepted = Revision::new(model.revision);
        self.start(from + skip, model);
        if skip > 0 {
            // The check is not told that the watcher leaves something out.
            self.expected = self.first_at(from, model);
        }
    }

    fn start(&mut self, from: u64, model: &Model) {
        let from = from.max(model.oldest() + 1);
        self.position = Position::start_of(Revision::new(from));
        self.expected = self.first_at(from, model);
    }

    fn first_at(&self, from: u64, model: &Model) -> usize {
        model
            .tree_log
            .partition_point(|event| event.revision < from)
    }

    /// Its own path, what is below it, and the end of a directory above it: from the past always,
    /// else only if what is watched went with it.
    fn sees(&self, event: &TreeEvent, model: &Model) -> bool {
        let path = self.watch.path.as_bytes();
        let ends = matches!(event.action, Action::Delete | Action::Expire);
        event.path == path
            || is_below(&event.path, path)
            || (ends
                && is_below(path, &event.path)
                && (event.revision <= self.watch.accepted.get()
                    || model.stood(path, event.revision - 1)))
    }

    pub(crate) fn poll(
        &mut self,
        store: &Store,
        values: &dyn Values,
        model: &Model,
        mut budget: usize,
    ) -> usize {
        if self.position.revision.get() <= model.oldest() {
            // v2's 401: it begins again where it may.
            self.start(model.oldest() + 1, model);
        }
        let mut told = 0;
        loop {
            match self.watch.scan(store, &mut self.position, &mut budget) {
                Scan::Match(change) => {
                    let event = Event::of(store, change, values);
                    let event = event
                        .expect("P6: a watched value is there")
                        .expect("what matches has an event");
                    self.skip_unseen(model);
                    let found = TreeEvent {
                        revision: event.revision.get(),
                        action: event.action,
                        path: event.node.path.to_vec(),
                        value: event.node.value,
                        wall: event.wall.0,
                    };
                    let expected = model.tree_log.get(self.expected);
                    assert_eq!(Some(&found), expected, "P4: a v2 watch");
                    self.expected += 1;
                    self.last = found.revision;
                    told += 1;
                }
                Scan::Pause => return told,
                Scan::End => {
                    self.skip_unseen(model);
                    let missed = model.tree_log.get(self.expected);
                    assert_eq!(None, missed, "P4: a v2 watch came to the end");
                    self.last = self.last.max(model.revision);
                    return told;
                }
            }
        }
    }

    fn skip_unseen(&mut self, model: &Model) {
        let rest = &model.tree_log[self.expected..];
        let unseen = rest
            .iter()
            .take_while(|event| !self.sees(event, model))
            .count();
        self.expected += unseen;
    }
}
